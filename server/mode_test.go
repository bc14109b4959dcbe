package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/server/config"
)

// peer accepts connections on loopback and tells where they came from.
func peer(t *testing.T, address string) (port int, from chan netip.Addr) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	from = make(chan netip.Addr, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			from <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			_ = c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, from
}

func TestEachModeDialsWhereItMay(t *testing.T) {
	port, from := peer(t, "127.0.0.1")
	relay := func(mode config.Mode, private bool) config.Relay {
		return config.Relay{Mode: mode, SMTPPort: port, AllowPrivateAddresses: private, Redirect: net.JoinHostPort("127.0.0.1", itoa(port))}
	}
	source := func(addr string) dispatch.Source {
		s := dispatch.Source{Name: "s"}
		if addr != "" {
			s.Addr = netip.MustParseAddr(addr)
		}
		return s
	}
	for _, c := range []struct {
		name   string
		relay  config.Relay
		source string
		to     string
		from   string // empty: refused
		why    string
	}{
		{"the sandbox reaches loopback", relay(config.Sandboxed, false), "", "127.0.0.1", "127.0.0.1", ""},
		{"the sandbox sends from loopback sources", relay(config.Sandboxed, false), "127.0.0.9", "127.0.0.1", "127.0.0.9", ""},
		{"the sandbox ignores other sources", relay(config.Sandboxed, false), "198.51.100.7", "127.0.0.1", "127.0.0.1", ""},
		{"the sandbox reaches nothing else", relay(config.Sandboxed, false), "", "192.0.2.1", "", "sandbox reaches loopback only"},
		{"nor does it when private addresses are allowed", relay(config.Sandboxed, true), "", "10.0.0.1", "", "sandbox reaches loopback only"},
		{"live refuses loopback", relay(config.Live, false), "", "127.0.0.1", "", "loopback"},
		{"live refuses loopback in disguise", relay(config.Live, false), "", "::ffff:127.0.0.1", "", "loopback"},
		{"live refuses private networks", relay(config.Live, false), "", "192.168.1.1", "", "private"},
		{"live refuses carriers' networks", relay(config.Live, false), "", "100.64.0.1", "", "shared by carriers"},
		{"live refuses link-local", relay(config.Live, false), "", "fe80::1", "", "link-local"},
		{"live refuses nowhere", relay(config.Live, true), "", "0.0.0.0", "", "unspecified"},
		{"live in a closed network", relay(config.Live, true), "127.0.0.5", "127.0.0.1", "127.0.0.5", ""},
		{"everything is redirected", relay(config.Redirect, false), "127.0.0.6", "203.0.113.1", "127.0.0.6", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDialer(&config.Config{Relay: c.relay})
			conn, err := d.dial(t.Context(), mta.Target{Source: source(c.source), Host: "mx.example", Addr: netip.MustParseAddr(c.to)})
			if c.from == "" {
				if err == nil || !strings.Contains(err.Error(), c.why) {
					t.Fatalf("dialled: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := <-from; got.String() != c.from {
				t.Errorf("came from %s, want %s", got, c.from)
			}
		})
	}
}

func itoa(n int) string {
	return strings.TrimPrefix(netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(n)).String(), "0.0.0.0:")
}

// A redirect's name may lead anywhere but to no host at all.
func TestARedirectByNameIsCheckedWhereItLeads(t *testing.T) {
	port, from := peer(t, "127.0.0.1")
	d := newDialer(&config.Config{Relay: config.Relay{Mode: config.Redirect, Redirect: net.JoinHostPort("localhost", itoa(port))}})
	conn, err := d.dial(t.Context(), mta.Target{Source: dispatch.Source{Name: "s"}, Host: "localhost", Addr: netip.IPv4Unspecified()})
	if err != nil {
		t.Fatal(err)
	}
	<-from
	_ = conn.Close()
}

// Thousands of connections leave one address: the port is chosen late.
func TestASourceBindsLate(t *testing.T) {
	port, _ := peer(t, "127.0.0.1")
	d := newDialer(&config.Config{Relay: config.Relay{Mode: config.Live, SMTPPort: port, AllowPrivateAddresses: true}})
	for range 20 {
		conn, err := d.dial(t.Context(), mta.Target{Source: dispatch.Source{Name: "s", Addr: netip.MustParseAddr("127.0.0.8")}, Addr: netip.MustParseAddr("127.0.0.1")})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
}

func TestTheRedirectKeepsDomainsApart(t *testing.T) {
	cfg := &config.Config{Relay: config.Relay{Mode: config.Redirect, Redirect: "127.0.0.1:2525"}}
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	r, err := newResolver(cfg, func() time.Time { return now }, nil)
	if err != nil {
		t.Fatal(err)
	}
	rt, err := r.Route(t.Context(), "Gmail.com")
	if err != nil {
		t.Fatal(err)
	}
	if rt.Destination != "gmail.com" || rt.Hosts[0].Name != "127.0.0.1" || rt.Hosts[0].Addrs[0].String() != "127.0.0.1" || !rt.Expires.After(now) {
		t.Errorf("route %+v", rt)
	}
	_, err = r.Route(t.Context(), "not a domain")
	var failed *route.Error
	if !errors.As(err, &failed) || failed.Kind != route.Invalid {
		t.Errorf("error %v", err)
	}
}

func TestTheSandboxNeedsReceivers(t *testing.T) {
	if _, err := New(config.Default(), Options{}); !errors.Is(err, errNoReceivers) {
		t.Errorf("error %v", err)
	}
}

func TestSourcesOfOtherMachinesAreWarnedOf(t *testing.T) {
	cfg := &config.Config{Relay: config.Relay{Mode: config.Live, Pools: []config.Pool{{Name: "p", Sources: []config.Source{
		{Name: "here", Address: netip.MustParseAddr("192.0.2.1")}, {Name: "there", Address: netip.MustParseAddr("192.0.2.2")},
	}}}}}
	got := foreignSources(cfg, []netip.Addr{netip.MustParseAddr("192.0.2.1")})
	if len(got) != 1 || !strings.Contains(got[0], "source there: 192.0.2.2 is not an address of this machine") {
		t.Errorf("warnings %q", got)
	}
}

// blackhole is a connection attempt that nobody answers.
func TestADialEndsWithItsContext(t *testing.T) {
	d := newDialer(&config.Config{Relay: config.Relay{Mode: config.Live, SMTPPort: 25}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.dial(ctx, mta.Target{Addr: netip.MustParseAddr("8.8.8.8")}); err == nil {
		t.Error("dialled")
	}
}
