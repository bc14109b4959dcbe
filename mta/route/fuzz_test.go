package route

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A server that answers the right question with anything at all: header counts
// and records come from the fuzzer.
func FuzzHostileServer(f *testing.F) {
	seed := func(lines ...string) {
		m := new(dns.Msg)
		for _, line := range lines {
			rr, err := dns.NewRR(line)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed[2:4], packed[6:])
		f.Add([]byte{0x81, 0x83}, packed[6:])
	}
	seed()
	seed("d.example. 300 IN MX 10 m.example.", "d.example. 300 IN MX 0 .")
	seed("d.example. 300 IN A 192.0.2.1", "m.example. 300 IN A 192.0.2.1")
	seed("d.example. 300 IN AAAA 2001:db8::1", "d.example. 300 IN CNAME d.example.")
	seed("d.example. 300 IN CNAME e.example.", "e.example. 4294967295 IN CNAME f.example.")
	seed(`d.example. 300 IN TXT "a" "\200\"\\"`, ". 1 IN SOA . . 1 1 1 1 1")
	f.Fuzz(func(t *testing.T, flags, rest []byte) {
		r, err := New(Config{
			Server: "192.0.2.53:53",
			Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
				return &hostileConn{stream: network == "tcp", flags: flags, rest: rest}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		route, err := r.Route(t.Context(), "d.example")
		checkHostile(t, route, err)
		if _, err := r.TXT(t.Context(), "d.example"); err != nil {
			checkHostile(t, nil, err)
		}
	})
}

// checkHostile checks what Route promises, whatever the server does.
func checkHostile(t *testing.T, route *Route, err error) {
	t.Helper()
	var e *Error
	switch {
	case err != nil:
		if !errors.As(err, &e) || e.Kind < NXDomain || e.Kind > Broken {
			t.Fatalf("error %v", err)
		}
		return
	case len(route.Hosts) == 0 || len(route.Hosts) > maxHosts || route.Destination == "":
		t.Fatalf("route %+v", route)
	}
	if left := time.Until(route.Expires); left > maxTTL {
		t.Errorf("expires in %s", left)
	}
	for i, h := range route.Hosts {
		if i > 0 && h.Preference < route.Hosts[i-1].Preference {
			t.Errorf("hosts out of order: %v", route.Hosts)
		}
		if len(h.Addrs) == 0 || len(h.Addrs) > 2*maxAddrs || checkName(h.Name, true) != nil {
			t.Errorf("host %+v", h)
		}
	}
}

// hostileConn answers one query with its id and question, but with flags, counts
// and records of its own.
type hostileConn struct {
	net.Conn // nil: what is not defined here is not called

	stream      bool
	flags, rest []byte
	reply       []byte
}

func (c *hostileConn) Write(p []byte) (int, error) {
	query := p
	if c.stream {
		query = p[2:]
	}
	question := query[12:] // ends with the name's root label, type and class
	question = question[:strings.IndexByte(string(question), 0)+5]
	reply := append([]byte(nil), query[:12]...)
	reply[2] |= 0x80
	if len(c.flags) >= 2 {
		reply[2], reply[3] = c.flags[0]|0x80, c.flags[1]
	}
	n := copy(reply[6:12], c.rest)
	reply = append(reply, question...)
	reply = append(reply, c.rest[n:]...)
	reply = reply[:min(len(reply), dns.MaxMsgSize)]
	if c.stream {
		reply = append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)
	}
	c.reply = reply
	return len(p), nil
}

func (c *hostileConn) Read(p []byte) (int, error) {
	if len(c.reply) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.reply)
	c.reply = c.reply[n:]
	if !c.stream {
		c.reply = nil
	}
	return n, nil
}

func (c *hostileConn) SetDeadline(time.Time) error { return nil }

func (c *hostileConn) Close() error { return nil }

// Packets that do not even pretend to answer the question.
func FuzzParse(f *testing.F) {
	query := question{"d.example", dns.TypeMX}.query(true)
	packed, err := query.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add(packed[:12])
	f.Fuzz(func(t *testing.T, packet []byte) {
		if reply, err := parse(packet, query); err == nil && (reply.Id != query.Id || !reply.Response) {
			t.Errorf("took %v for a reply", reply)
		}
	})
}

func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"example.com", "xn--bcher-kva.de.", "[192.0.2.1]", "a..b", "1.2.3.4", "localhost"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, domain string) {
		name, err := Normalize(domain)
		if err != nil {
			return
		}
		if again, err := Normalize(name); err != nil || again != name {
			t.Errorf("%q is %q, which is %q, %v", domain, name, again, err)
		}
		if _, ok := dns.IsDomainName(name); !ok || len(name) > maxName || strings.ContainsAny(name, " \\\"\r\n") {
			t.Errorf("%q passed as %q", domain, name)
		}
	})
}

// What the library escapes comes back as it was.
func FuzzUnescape(f *testing.F) {
	f.Add([]byte(`v=DKIM1; n=a"b\c; p=` + "\x00\xff"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 255 {
			return
		}
		size := len(raw) + 1
		packed := append([]byte{0, 0, 16, 0, 1, 0, 0, 0, 0, byte(size >> 8), byte(size), byte(len(raw))}, raw...)
		rr, _, err := dns.UnpackRR(packed, 0)
		if err != nil {
			t.Skip(err)
		}
		if got := unescape(strings.Join(rr.(*dns.TXT).Txt, "")); got != string(raw) {
			t.Errorf("%q came back as %q", raw, got)
		}
	})
}
