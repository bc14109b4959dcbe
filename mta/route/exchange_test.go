package route

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

const good = "one.example>one.example 10:mx.one.example[192.0.2.1 2001:db8::1]"

func TestACutReplyIsAskedForOverTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ordinary)
		w.on("MX one.example", func(network string, reply *dns.Msg) *dns.Msg {
			if network == "udp" {
				reply.Truncated, reply.Answer = true, nil
			}
			return reply
		})
		if got := describe(w.resolver(t).Route(t.Context(), "one.example")); got != good {
			t.Errorf("got %s", got)
		}
		if want := []string{"udp MX one.example", "tcp MX one.example"}; !slices.Equal(w.asked[:2], want) {
			t.Errorf("asked %v", w.asked)
		}
	})
}

func TestAReplyCutOverTCPTooIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ordinary)
		w.on("MX one.example", func(_ string, reply *dns.Msg) *dns.Msg {
			reply.Truncated = true
			return reply
		})
		if got := describe(w.resolver(t).Route(t.Context(), "one.example")); got != "temporary" {
			t.Errorf("got %s", got)
		}
	})
}

func TestASilentServerCostsTwoTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ordinary)
		w.silent("MX one.example")
		r := w.resolver(t, func(c *Config) { c.Timeout = 2 * time.Second })
		start := time.Now()
		_, err := r.Route(t.Context(), "one.example")
		var e *Error
		if !errors.As(err, &e) || e.Kind != Temporary || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != 4*time.Second || w.count("MX one.example") != 2 {
			t.Errorf("%d questions in %s, want 2 in 4 s", w.count("MX one.example"), took)
		}
	})
}

func TestOneLostPacketIsMadeGood(t *testing.T) {
	for name, firstReply := range map[string]func(*dns.Msg) *dns.Msg{
		"lost":     func(*dns.Msg) *dns.Msg { return nil },
		"servfail": func(reply *dns.Msg) *dns.Msg { reply.Rcode, reply.Answer = dns.RcodeServerFailure, nil; return reply },
		"formerr":  func(reply *dns.Msg) *dns.Msg { reply.Rcode, reply.Answer = dns.RcodeFormatError, nil; return reply },
		"no question": func(reply *dns.Msg) *dns.Msg {
			reply.Rcode, reply.Answer, reply.Question = dns.RcodeRefused, nil, nil
			return reply
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, ordinary)
				w.on("MX one.example", func(_ string, reply *dns.Msg) *dns.Msg {
					if w.count("MX one.example") == 1 {
						return firstReply(reply)
					}
					return reply
				})
				if got := describe(w.resolver(t).Route(t.Context(), "one.example")); got != good {
					t.Errorf("got %s", got)
				}
			})
		})
	}
}

// A server that knows no EDNS refuses the first query and gets one without.
func TestEDNSIsDroppedOnRequest(t *testing.T) {
	r := resolverOf(t, func(packet []byte) [][]byte {
		query := new(dns.Msg)
		if err := query.Unpack(packet); err != nil {
			return nil
		}
		reply := new(dns.Msg).SetReply(query)
		if query.IsEdns0() != nil {
			reply.Rcode = dns.RcodeFormatError
		} else if query.Question[0].Qtype == dns.TypeMX {
			rr, _ := dns.NewRR(query.Question[0].Name + " 300 IN MX 0 .")
			reply.Answer = append(reply.Answer, rr)
		}
		packed, _ := reply.Pack()
		return [][]byte{packed}
	})
	if got := describe(r.Route(t.Context(), "one.example")); got != "null_mx" {
		t.Errorf("got %s", got)
	}
}

// resolverOf asks a server function, in memory.
func resolverOf(t testing.TB, serve func([]byte) [][]byte) *Resolver {
	t.Helper()
	r, err := New(Config{
		Server:       "192.0.2.53:53",
		ControlNames: []string{},
		Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
			return newMemoryConn(network, serve), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestForgedRepliesArePassedOver(t *testing.T) {
	forgeries := []func(*dns.Msg){
		func(m *dns.Msg) { m.Id++ },
		func(m *dns.Msg) { m.Response = false },
		func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
		func(m *dns.Msg) { m.Question = nil },
		func(m *dns.Msg) { m.Question[0].Name = "two.example." },
		func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA },
		func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
	}
	synctest.Test(t, func(t *testing.T) {
		r := resolverOf(t, func(packet []byte) [][]byte {
			replies := [][]byte{nil, {1}, packet[:11]}
			for _, forge := range append(forgeries, func(*dns.Msg) {}) {
				query := new(dns.Msg)
				if err := query.Unpack(packet); err != nil {
					return nil
				}
				reply := new(dns.Msg).SetReply(query)
				reply.Question[0].Name = strings.ToUpper(reply.Question[0].Name)
				rr, _ := dns.NewRR(query.Question[0].Name + " 300 IN MX 0 .")
				reply.Answer = append(reply.Answer, rr)
				forge(reply)
				packed, _ := reply.Pack()
				replies = append(replies, packed)
			}
			return replies
		})
		start := time.Now()
		if got := describe(r.Route(t.Context(), "one.example")); got != "null_mx" {
			t.Errorf("got %s", got)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("a forged reply cost %s", took)
		}
	})
}

func TestAMalformedReplyFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		r := resolverOf(t, func(packet []byte) [][]byte {
			asked++
			query := new(dns.Msg)
			if err := query.Unpack(packet); err != nil {
				return nil
			}
			reply := new(dns.Msg).SetReply(query)
			packed, _ := reply.Pack()
			packed[7] = 1 // one answer promised, none there
			return [][]byte{append(packed, 0xc0)}
		})
		start := time.Now()
		if got := describe(r.Route(t.Context(), "one.example")); got != "temporary" {
			t.Errorf("got %s", got)
		}
		if took := time.Since(start); took != 0 || asked != tries {
			t.Errorf("%d questions in %s, want %d at once", asked, took, tries)
		}
	})
}

func TestTheNextServerIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ordinary)
		r := w.resolver(t)
		r.servers = []string{"192.0.2.51:53", "192.0.2.52:53", "192.0.2.53:53"}
		var dialled []string
		r.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != "192.0.2.53:53" {
				dialled = append(dialled, addr)
				return nil, errors.New("connection refused")
			}
			return w.dial(ctx, network, addr)
		}
		if texts, err := r.TXT(t.Context(), "text.example"); err != nil || len(texts) != 1 || len(dialled) != 2 {
			t.Errorf("texts %q, error %v after %v", texts, err, dialled)
		}
	})
}

func TestSystemServers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("search lan\nnameserver 192.0.2.1\nnameserver 2001:db8::1\noptions timeout:1\n")
	if got, err := systemServers(path); err != nil || !slices.Equal(got, []string{"192.0.2.1:53", "[2001:db8::1]:53"}) {
		t.Errorf("servers %v, error %v", got, err)
	}
	write("search lan\n")
	if got, err := systemServers(path); err == nil || !strings.Contains(err.Error(), "dns.server") {
		t.Errorf("servers %v, error %v", got, err)
	}
	if got, err := systemServers(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("servers %v, error %v", got, err)
	}
}

func TestNewRefusesBadConfiguration(t *testing.T) {
	for want, c := range map[string]Config{
		`"192.0.2.1" is not host:port`: {Server: "192.0.2.1"},
		`":53" is not host:port`:       {Server: ":53"},
		`"a:" is not host:port`:        {Server: "a:"},
		"timeout -1ns":                 {Server: "a:53", Timeout: -1},
		`control name "a..b"`:          {Server: "a:53", ControlNames: []string{"a..b"}},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestOverRealSockets has a name server on loopback, UDP and TCP.
func TestOverRealSockets(t *testing.T) {
	w := newWorld(t, ordinary)
	w.on("MX many.example", func(network string, reply *dns.Msg) *dns.Msg {
		if network == "udp" {
			reply.Truncated, reply.Answer = true, nil
		}
		return reply
	})
	r, err := New(Config{Server: serve(t, w), ControlNames: []string{}, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]string{
		"one.example":     good,
		"many.example":    "many.example>mail.example 10:a.mail.example[192.0.2.2] 10:b.mail.example[192.0.2.3] 20:c.mail.example[192.0.2.4]",
		"null.example":    "null_mx",
		"nowhere.example": "nxdomain",
	} {
		if got := describe(r.Route(t.Context(), domain)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// listenBoth takes one port for TCP and UDP. One that somebody has for UDP gives way to another.
func listenBoth(t testing.TB) (net.Listener, net.PacketConn) {
	t.Helper()
	for tries := 1; ; tries++ {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		packets, err := net.ListenPacket("udp", listener.Addr().String())
		if err == nil {
			return listener, packets
		}
		_ = listener.Close()
		if tries == 20 {
			t.Fatal(err)
		}
	}
}

// serve starts a name server on one loopback port, UDP and TCP, for the time of
// the test.
func serve(t testing.TB, handler dns.Handler) (addr string) {
	t.Helper()
	listener, packets := listenBoth(t)
	for _, server := range []*dns.Server{{Listener: listener, Handler: handler}, {PacketConn: packets, Handler: handler}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		done := make(chan error, 1)
		go func() { done <- server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			if err := errors.Join(server.Shutdown(), <-done); err != nil {
				t.Error(err)
			}
		})
	}
	return listener.Addr().String()
}
