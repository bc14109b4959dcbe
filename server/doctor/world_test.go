package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/doctor"
)

// zone is a DNS: zone lines, and names about which it does not answer.
type zone struct {
	mu      sync.Mutex
	records map[string][]dns.RR // by name and type
	broken  map[string]bool
	asked   int
}

// newZone reads lines such as `a.example. A 192.0.2.1`.
func newZone(t testing.TB, lines ...string) *zone {
	t.Helper()
	z := &zone{records: map[string][]dns.RR{}, broken: map[string]bool{}}
	z.add(t, lines...)
	return z
}

func (z *zone) add(t testing.TB, lines ...string) {
	t.Helper()
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		key := key(rr.Header().Name, rr.Header().Rrtype)
		z.records[key] = append(z.records[key], rr)
	}
}

// drop removes what is known of a name and type.
func (z *zone) drop(name string, qtype uint16) { delete(z.records, key(name, qtype)) }

func key(name string, qtype uint16) string {
	return strings.ToLower(dns.Fqdn(name)) + " " + dns.TypeToString[qtype]
}

// text is a TXT record of any length.
func text(name, value string) string {
	return fmt.Sprintf(`%s TXT "%s"`, dns.Fqdn(name), strings.Join(dkim.ZoneStrings(value), `" "`))
}

// Lookup implements doctor.DNS as the client reads answers.
func (z *zone) Lookup(_ context.Context, name string, qtype uint16) (doctor.Answer, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	if z.broken[strings.ToLower(dns.Fqdn(name))] {
		return doctor.Answer{}, errors.New("SERVFAIL")
	}
	return doctor.Read(&dns.Msg{Answer: z.records[key(name, qtype)]}, qtype), nil
}

// serve answers on loopback by UDP and TCP, by UDP without answers that do not fit.
func (z *zone) serve(t *testing.T) (addr string) {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", packets.LocalAddr().String())
	if err != nil {
		t.Skipf("the port is taken for TCP: %v", err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		z.mu.Lock()
		m.Answer = z.records[key(q.Question[0].Name, q.Question[0].Qtype)]
		switch {
		case z.broken[strings.ToLower(q.Question[0].Name)]:
			m.Rcode = dns.RcodeServerFailure
		case m.Answer == nil:
			m.Rcode = dns.RcodeNameError
		}
		z.mu.Unlock()
		if w.LocalAddr().Network() == "udp" {
			m.Truncate(512)
		}
		_ = w.WriteMsg(m)
	})
	for _, server := range []*dns.Server{{Listener: listener, Handler: handler}, {PacketConn: packets, Handler: handler}} {
		started, ended := make(chan struct{}), make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() { _ = server.ActivateAndServe(); close(ended) }()
		<-started
		t.Cleanup(func() { _ = server.Shutdown(); <-ended })
	}
	return packets.LocalAddr().String()
}

// brand is a node that does everything right: two sources, one domain.
type brand struct {
	t    *testing.T
	zone *zone
	key  *dkim.Key
	o    doctor.Options
	// greet is what the probed host says; err why it cannot be reached.
	greet string
	err   error
}

// brandKey is the key of all brands, and otherKey one that nobody knows.
var brandKey, otherKey = sync.OnceValue(newKey), sync.OnceValue(newKey)

func newKey() *dkim.Key {
	signer, err := dkim.GenerateRSA(2048)
	if err != nil {
		panic(err)
	}
	k, err := dkim.NewKey("brand.example", "s1", signer)
	if err != nil {
		panic(err)
	}
	return k
}

func newBrand(t *testing.T) *brand {
	t.Helper()
	k := brandKey()
	cfg := config.Default()
	cfg.DataDir = filepath.Join(t.TempDir(), "data")
	cfg.Relay.Mode, cfg.Relay.AllowPrivateAddresses = config.Live, true
	cfg.Relay.Pools = []config.Pool{
		{Name: "default", Sources: []config.Source{{Name: "a", Address: netip.MustParseAddr("198.51.100.7"), Hostname: "a.brand.example", Weight: 1}}},
		{Name: "warm", Sources: []config.Source{{Name: "b", Address: netip.MustParseAddr("2001:db8::7"), Hostname: "b.brand.example", Weight: 1}}},
	}
	cfg.DKIM.Domains = []config.Domain{{Domain: "brand.example", Selector: "s1", BounceDomain: "bounce.brand.example"}}
	cfg.Inbound.Listen, cfg.Inbound.Hostname = "0.0.0.0:25", "mx.brand.example"
	b := &brand{t: t, key: k, greet: "220 mx.provider.example ESMTP"}
	b.zone = newZone(t,
		"7.100.51.198.in-addr.arpa. PTR a.brand.example.",
		"7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR b.brand.example.",
		"a.brand.example. A 198.51.100.7", "b.brand.example. AAAA 2001:db8::7",
		"bounce.brand.example. MX 10 mx.brand.example.", "mx.brand.example. A 198.51.100.7",
		text("bounce.brand.example", "v=spf1 ip4:198.51.100.7 ip6:2001:db8::7 -all"),
		text("_dmarc.brand.example", "v=DMARC1; p=none; rua=mailto:dmarc@brand.example"),
		text("s1._domainkey.brand.example", dkim.Record(k)),
		"mx.provider.example. A 192.0.2.25", "mx.provider.example. AAAA 2001:db8::25",
	)
	b.o = doctor.Options{
		Config: cfg, Keys: []*dkim.Key{k}, DNS: b.zone, Probe: []string{"mx.provider.example:25"},
		Files: func() (uint64, error) { return 1 << 20, nil },
		Local: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("198.51.100.7")} },
		Dial: func(_ context.Context, _ netip.Addr, _ string) (net.Conn, error) {
			if b.err != nil {
				return nil, b.err
			}
			return greeter(b.greet), nil
		},
	}
	return b
}

// greeter is a connection whose other side says one line.
func greeter(line string) net.Conn {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		if _, err := there.Write([]byte(line + "\r\n")); err == nil {
			_, _ = there.Read(make([]byte, 100)) // QUIT
		}
	}()
	return here
}

func (b *brand) check() []doctor.Finding {
	b.t.Helper()
	list, err := doctor.Check(b.t.Context(), b.o)
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

// wrong are the findings that are not in order, in short.
func (b *brand) wrong() []string {
	b.t.Helper()
	var out []string
	for _, f := range b.check() {
		if f.Severity != doctor.OK {
			out = append(out, string(f.Severity)+" "+f.Code)
		}
	}
	return out
}

// find is the first finding with a code that is not in order.
func (b *brand) find(code string) doctor.Finding {
	b.t.Helper()
	list := b.check()
	i := slices.IndexFunc(list, func(f doctor.Finding) bool { return f.Code == code && f.Severity != doctor.OK })
	if i < 0 {
		b.t.Fatalf("no finding %s in %+v", code, list)
	}
	return list[i]
}
