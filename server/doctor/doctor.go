// Package doctor looks at a node as receivers do: reverse DNS, greeting name and port
// 25 of each source; DKIM, SPF, DMARC and the return path of each From domain; and what the
// machine must have. Each finding says what to publish, in the text of the DNS.
//
// Check makes a whole examination. Doctor answers the same for one delivery, quickly,
// while it is prepared.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/server/config"
)

// Options say what to examine. Config is required.
type Options struct {
	Config *config.Config
	// Keys are the DKIM keys that Config names.
	Keys []*dkim.Key
	// From are the From domains to examine; nil are those that have keys of their own.
	From []string
	// Pool is the pool whose sources are examined; empty are all.
	Pool string
	// Live examines as relay.mode live would be, whatever the mode is.
	Live bool
	// Probe are mail hosts (host:port) to connect to; none are those of a big provider,
	// unless the network is closed (relay.allow_private_addresses).
	Probe []string
	// WithoutNode leaves out what is about the machine.
	WithoutNode bool

	// DNS answers questions; nil is a Client of Config.DNS.Server.
	DNS DNS
	// Dial connects from a source's address; nil is a net.Dialer's.
	Dial func(ctx context.Context, from netip.Addr, to string) (net.Conn, error)
	// DialRedirect connects to relay.redirect; nil is a net.Dialer's.
	DialRedirect func(ctx context.Context, to string) (net.Conn, error)
	// Files is the limit of open files; nil asks the system.
	Files func() (uint64, error)
	// Local are this machine's addresses; nil asks the system.
	Local func() []netip.Addr
}

// checkup is one examination.
type checkup struct {
	Options
	dns     *memo
	sources []source // with an address
	ours    map[netip.Addr]bool
}

// maxChecks is how many checks are made at a time.
const maxChecks = 16

// Check examines and returns the findings by subject: the node, the sources, the domains.
// It waits for the DNS and for connections, each bounded, until ctx ends at the
// latest; what is not answered by then is a warning. An error means that nothing
// could be examined.
func Check(ctx context.Context, o Options) ([]Finding, error) {
	c, err := newCheckup(o)
	if err != nil {
		return nil, err
	}
	if o.Live || o.Config.Relay.Mode == config.Live {
		return run(ctx, slices.Concat(c.node(c.files, c.dataDir, c.inbound), c.ofSources(), c.ofDomains())), nil
	}
	return run(ctx, slices.Concat(c.node(c.files, c.dataDir), c.offline())), nil
}

// check is one of the questions that are asked at the same time.
type check func(context.Context) []Finding

// node are checks of the machine, unless they are left out.
func (c *checkup) node(checks ...check) []check {
	if c.WithoutNode {
		return nil
	}
	return checks
}

// ofSources are the checks of every source.
func (c *checkup) ofSources() []check {
	if len(c.sources) == 0 {
		return said(node.failure("source.none", "no source has an address; give relay.pools the addresses that mail goes out from"))
	}
	var checks []check
	for _, s := range c.sources {
		for _, of := range []func(context.Context, source) []Finding{c.public, c.port25, c.reverse, c.hello} {
			checks = append(checks, func(ctx context.Context) []Finding { return of(ctx, s) })
		}
	}
	return checks
}

// ofDomains are the checks of every From domain.
func (c *checkup) ofDomains() []check {
	domains := c.domains()
	if len(domains) == 0 {
		return said(node.failure("dkim.no_domains", "dkim.domains is empty: no mail can be signed, so none can be sent; make a key with `veredus dkim keygen`"))
	}
	var checks []check
	for _, d := range domains {
		for _, of := range []func(context.Context, domain) []Finding{c.dkim, c.spf, c.dmarc, c.bounces} {
			checks = append(checks, func(ctx context.Context) []Finding { return of(ctx, d) })
		}
	}
	return checks
}

// said is what needs no question.
func said(findings ...Finding) []check {
	return []check{func(context.Context) []Finding { return findings }}
}

func newCheckup(o Options) (*checkup, error) {
	if o.Config == nil {
		return nil, errors.New("doctor: no configuration")
	}
	for _, p := range o.Probe {
		if host, port, err := net.SplitHostPort(p); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("probe %q is not host:port; write for example mx.example.com:25", p)
		}
	}
	c := &checkup{Options: o, ours: map[netip.Addr]bool{}}
	if err := c.fill(); err != nil {
		return nil, err
	}
	for _, p := range o.Config.Relay.Pools {
		if o.Pool != "" && o.Pool != p.Name {
			continue
		}
		for _, s := range p.Sources {
			if s.Address.IsValid() && !c.has(s) {
				c.sources = append(c.sources, newSource(s))
			}
		}
	}
	for _, a := range c.Local() {
		c.ours[a.WithZone("").Unmap()] = true
	}
	for _, s := range c.sources {
		c.ours[s.Address.Unmap()] = true
	}
	if a, ok := listenIP(o.Config.Inbound.Listen); ok {
		c.ours[a] = true
	}
	return c, nil
}

// has reports whether a source stands in an earlier pool, too.
func (c *checkup) has(s config.Source) bool {
	return slices.ContainsFunc(c.sources, func(known source) bool { return known.Source == s })
}

// fill completes the options.
func (c *checkup) fill() error {
	if c.DNS == nil {
		client, err := NewClient(c.Config.DNS.Server)
		if err != nil {
			return err
		}
		c.DNS = client
	}
	c.dns = newMemo(c.DNS)
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, from netip.Addr, to string) (net.Conn, error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice(), Zone: from.Zone()}}
			return d.DialContext(ctx, "tcp", to)
		}
	}
	if c.DialRedirect == nil {
		c.DialRedirect = func(ctx context.Context, to string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", to)
		}
	}
	if c.Files == nil {
		c.Files = openFiles
	}
	if c.Local == nil {
		c.Local = route.LocalAddrs
	}
	return nil
}

// listenIP is the address of a listener that has one of its own.
func listenIP(listen string) (netip.Addr, bool) {
	at, err := netip.ParseAddrPort(listen)
	if err != nil || at.Addr().IsUnspecified() {
		return netip.Addr{}, false
	}
	return at.Addr().WithZone("").Unmap(), true
}

// domains are the From domains to examine, with the keys that sign their mail.
func (c *checkup) domains() []domain {
	names := c.From
	if names == nil {
		for _, d := range c.Config.DKIM.Domains {
			if !slices.Contains(names, d.Domain) {
				names = append(names, d.Domain)
			}
		}
	}
	var list []domain
	for _, name := range names {
		name = plain(name)
		keys := c.keysOf(name)
		list = append(list, newDomain(name, c.bounceDomain(name), keys))
	}
	return list
}

// keysOf are the keys of the domain, or of its closest parent that has any.
func (c *checkup) keysOf(from string) []*dkim.Key {
	for name, more := from, true; more; _, name, more = strings.Cut(name, ".") {
		var keys []*dkim.Key
		for _, k := range c.Keys {
			if k.Domain == name {
				keys = append(keys, k)
			}
		}
		if len(keys) > 0 {
			return keys
		}
	}
	return nil
}

// bounceDomain is where the closest domain with a key wants its bounces; empty: at
// the From domain itself.
func (c *checkup) bounceDomain(from string) string {
	for name, more := from, true; more; _, name, more = strings.Cut(name, ".") {
		known, bounce := false, ""
		for _, d := range c.Config.DKIM.Domains {
			if d.Domain == name {
				known = true
				if bounce == "" {
					bounce = d.BounceDomain
				}
			}
		}
		if known {
			return bounce
		}
	}
	return ""
}

// offline is what can be examined where no mail leaves for the world: the machine, and which
// records the keys will need.
func (c *checkup) offline() []check {
	mode := c.Config.Relay.Mode
	checks := said(node.info("mode", "relay.mode is %s: no mail reaches the world, so these are not checked: port 25, PTR and EHLO name of each source; DKIM, SPF, DMARC and bounce domain of each From domain in the DNS (check them as in live mode with --live)", mode))
	if mode == config.Redirect {
		checks = append(checks, c.redirected)
	}
	for _, d := range c.domains() {
		checks = append(checks, said(c.toPublish(d)...)...)
	}
	return checks
}

// toPublish are the records that a domain needs before it goes live.
func (c *checkup) toPublish(d domain) []Finding {
	const text = "to be published before relay.mode is live"
	var found []Finding
	for _, k := range d.keys {
		found = append(found, d.info("dkim.record", text).with(dkim.RecordName(k), "TXT", dkim.Record(k)))
	}
	if len(c.sources) > 0 {
		found = append(found, d.info("spf", text).with(d.bounce, "TXT", suggestSPF("", addressesOf(c.sources))))
	}
	org := route.OrganizationalDomain(d.name)
	return append(found, d.info("dmarc", text).with("_dmarc."+org, "TXT", "v=DMARC1; p=none; rua=mailto:dmarc@"+org))
}

// run makes the checks, a bounded number at a time; findings come in the order of the checks.
func run(ctx context.Context, checks []check) []Finding {
	results := make([][]Finding, len(checks))
	room := make(chan struct{}, maxChecks)
	var all sync.WaitGroup
	for i, check := range checks {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			results[i] = check(ctx)
		})
	}
	all.Wait()
	return slices.Concat(results...)
}
