package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/server/config"
)

// errNoReceivers is a sandbox that nobody receives in.
var errNoReceivers = errors.New("relay.mode sandbox needs receivers: name their DNS server in dns.server (see `veredus receivers`), or run `veredus serve` without dns.server, which brings its own")

// newResolver finds routes as the mode wants: by DNS, or always to the redirect.
func newResolver(cfg *config.Config, now func() time.Time, provider func(host string) string) (mta.Resolver, error) {
	conf := route.Config{Server: cfg.DNS.Server, Now: now, Provider: provider}
	switch cfg.Relay.Mode {
	case config.Redirect:
		return newRedirect(cfg.Relay.Redirect, now)
	case config.Sandboxed:
		if cfg.DNS.Server == "" {
			return nil, errNoReceivers
		}
		conf.ControlNames = []string{} // the built-in DNS knows its own names only
	}
	return route.New(conf)
}

// redirect is a Resolver for a relay that hands everything to one host. Every
// domain is a destination of its own, so that reports by domain stay meaningful.
type redirect struct {
	host route.Host
	now  func() time.Time
}

// redirectLife is how long a route to the redirect holds; it never changes.
const redirectLife = time.Hour

func newRedirect(hostPort string, now func() time.Time) (*redirect, error) {
	name, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, fmt.Errorf("relay.redirect: %w", err)
	}
	addr, err := netip.ParseAddr(name)
	if err != nil {
		addr = netip.IPv4Unspecified() // a name is looked up when it is dialled
	}
	return &redirect{host: route.Host{Name: name, Addrs: []netip.Addr{addr.Unmap()}}, now: now}, nil
}

// Route implements mta.Resolver.
func (r *redirect) Route(_ context.Context, domain string) (*route.Route, error) {
	name, err := route.Normalize(domain)
	if err != nil {
		return nil, &route.Error{Kind: route.Invalid, Domain: domain, Err: err}
	}
	return &route.Route{Domain: name, Destination: name, Hosts: []route.Host{r.host}, Expires: r.now().Add(redirectLife)}, nil
}

// dialer opens the relay's connections and keeps them where the mode allows.
type dialer struct {
	mode     config.Mode
	redirect string // host:port
	port     int
	guard    route.Guard
	names    *net.Resolver // for the redirect's name
}

func newDialer(cfg *config.Config) *dialer {
	d := &dialer{
		mode: cfg.Relay.Mode, redirect: cfg.Relay.Redirect, port: cfg.Relay.SMTPPort,
		guard: route.Guard{AllowPrivate: cfg.Relay.AllowPrivateAddresses, Own: route.LocalAddrs},
	}
	if server := cfg.DNS.Server; server != "" {
		d.names = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server)
		}}
	}
	return d
}

// dial connects to the target from its source. The address is judged as it is
// dialled, whatever led there.
func (d *dialer) dial(ctx context.Context, t mta.Target) (net.Conn, error) {
	to := netip.AddrPortFrom(t.Addr, uint16(d.port)).String()
	if d.mode == config.Redirect {
		to = d.redirect
	} else if err := d.check(t.Addr); err != nil {
		return nil, err
	}
	nd := net.Dialer{Resolver: d.names}
	bound := d.bind(&nd, t)
	nd.Control = func(_, address string, c syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("address %s may not be dialled: %w", address, err)
		}
		if err := d.check(at.Addr()); err != nil || !bound {
			return err
		}
		return bindLate(c)
	}
	conn, err := nd.DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s (%s) from source %s: %w", t.Host, to, t.Source.Name, err)
	}
	return conn, nil
}

// bind sets the source's address. The sandbox keeps to loopback: there the
// addresses of configured sources count for rules only.
func (d *dialer) bind(nd *net.Dialer, t mta.Target) bool {
	from := t.Source.Addr
	if !from.IsValid() || d.mode == config.Sandboxed && !from.IsLoopback() {
		return false
	}
	nd.LocalAddr = &net.TCPAddr{IP: from.AsSlice(), Zone: from.Zone()}
	return true
}

// check says whether the mode lets this address be dialled.
func (d *dialer) check(addr netip.Addr) error {
	switch d.mode {
	case config.Sandboxed:
		if !addr.Unmap().IsLoopback() {
			return fmt.Errorf("address %s may not be dialled: relay.mode sandbox reaches loopback only", addr)
		}
		return nil
	case config.Redirect:
		return route.Guard{AllowPrivate: true}.Check(addr)
	}
	return d.guard.Check(addr)
}

// foreignSources warns of sources that this machine cannot send from.
func foreignSources(cfg *config.Config, local []netip.Addr) []string {
	own := map[netip.Addr]bool{}
	for _, a := range local {
		own[a.WithZone("")] = true
	}
	var warnings []string
	for _, p := range cfg.Relay.Pools {
		for _, s := range p.Sources {
			if cfg.Relay.Mode != config.Sandboxed && s.Address.IsValid() && !s.Address.IsLoopback() && !own[s.Address] {
				warnings = append(warnings, fmt.Sprintf("source %s: %s is not an address of this machine: nothing can be sent from it", s.Name, s.Address))
			}
		}
	}
	return warnings
}
