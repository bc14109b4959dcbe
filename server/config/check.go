package config

import (
	"fmt"
	"net"
	"net/netip"
)

// check judges what several keys say together. A line that is wrong in itself is
// not told off twice.
func (p *parser) check(c *Config) {
	wrong := map[int]bool{}
	for _, e := range p.errs.List {
		wrong[e.Line] = true
	}
	together := &parser{file: p.file, lines: p.lines}
	together.checkListen(c)
	together.checkIntake(c)
	together.checkKept(c)
	together.checkReturns(c)
	together.checkMode(c)
	together.checkSources(c)
	together.checkWarmUps(c)
	together.checkOverflow(c)
	together.checkDomains(c)
	for _, e := range together.errs.List {
		if !wrong[e.Line] {
			p.errs.Add(e)
		}
	}
	p.errs.More += together.errs.More
}

// checkIntake judges what may be taken in at a time.
func (p *parser) checkIntake(c *Config) {
	if b := c.GRPC.MaxIngestBytes; b < LeastIngestBytes {
		p.errorf(p.line("grpc.max_ingest_bytes"), "grpc.max_ingest_bytes: %s is out of range; use %s or more, room for two of the largest requests", SizeText(b), SizeText(LeastIngestBytes))
	}
	if m := c.Memory.Max; m > 0 && m < LeastMemory {
		p.errorf(p.line("memory.max"), "memory.max: %s is out of range; use %s or more, or 0 for no limit", SizeText(m), SizeText(LeastMemory))
	}
}

func (p *parser) checkListen(c *Config) {
	tls := c.GRPC.TLS
	if (tls.Cert == "") != (tls.Key == "") {
		p.errorf(p.line("grpc.tls"), "grpc.tls needs both cert and key; give the other one, too")
	}
	if tls.Cert != "" && c.GRPC.Insecure {
		p.errorf(p.line("grpc.insecure"), "grpc.insecure: true contradicts grpc.tls; remove one of them")
	}
	if tls.Cert == "" && !c.GRPC.Insecure && !Loopback(c.GRPC.Listen) {
		p.errorf(p.line("grpc.listen"), "grpc.listen: %s can be reached from other machines, without encryption; listen on 127.0.0.1, give grpc.tls, or say grpc.insecure: true", c.GRPC.Listen)
	}
	if c.HTTP.Listen != "" && !Loopback(c.HTTP.Listen) {
		c.Warnings = append(c.Warnings, fmt.Sprintf("http.listen: %s can be reached from other machines: metrics and health are open to them", c.HTTP.Listen))
	}
}

// checkReturns judges the listeners for what comes back.
func (p *parser) checkReturns(c *Config) {
	for _, l := range []struct {
		key string
		tls TLSFiles
	}{{"inbound", c.Inbound.TLS}, {"public", c.Public.TLS}} {
		if (l.tls.Cert == "") != (l.tls.Key == "") {
			p.errorf(p.line(l.key+".tls"), "%s.tls needs both cert and key; give the other one, too", l.key)
		}
	}
	if c.Public.Listen != "" && c.Public.URL == "" && c.Relay.Mode == Live {
		p.errorf(p.line("public.listen"), "public.listen needs public.url: how readers reach it, for example https://u.brand.example")
	}
	if c.Public.Listen != "" && c.Public.TLS.Cert == "" && !Loopback(c.Public.Listen) {
		c.Warnings = append(c.Warnings, fmt.Sprintf("public.listen: %s can be reached from other machines without encryption; give public.tls, or listen where only the proxy that ends TLS reaches it", c.Public.Listen))
	}
	if c.Public.Listen == "" && c.Public.URL != "" {
		p.errorf(p.line("public.url"), "public.url needs public.listen: where the node answers it, for example 127.0.0.1:8028 behind a proxy")
	}
}

// Loopback reports whether a host:port can be reached from this machine only. A
// host name counts as reachable, but for localhost.
func Loopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

func (p *parser) checkMode(c *Config) {
	r := &c.Relay
	if r.Mode != Sandboxed && c.Sandbox.TimeScale != 1 {
		p.errorf(p.line("sandbox.time_scale"), "sandbox.time_scale: %g works in relay.mode sandbox only; set it to 1 for mode %s", c.Sandbox.TimeScale, r.Mode)
	}
	switch r.Mode {
	case Redirect:
		if r.Redirect == "" {
			p.errorf(p.line("relay.mode"), "relay.mode redirect needs relay.redirect: the host:port that receives everything")
		}
	case Live:
		p.checkLive(r)
	}
}

func (p *parser) checkLive(r *Relay) {
	if len(r.Pools) == 0 {
		p.errorf(p.line("relay.mode"), "relay.mode live needs relay.pools: the addresses to send from, for example default: [{name: a, address: 198.51.100.7}]")
	}
	for _, pool := range r.Pools {
		for i, s := range pool.Sources {
			path := p.sourcePath(pool.Name, i)
			switch {
			case !s.Address.IsValid():
				p.errorf(p.line(path), "%s has no address; live mode needs the address to send from", path)
			case s.Address.IsLoopback() && !r.AllowPrivateAddresses:
				p.errorf(p.line(path), "%s: address %s cannot reach the internet; give another, or set relay.allow_private_addresses in a closed network", path, s.Address)
			}
			if s.Hostname == "" && r.Hostname == "" {
				p.errorf(p.line(path), "%s has no hostname, and relay.hostname is not set; receivers check the EHLO name", path)
			}
		}
	}
}

// sourcePath is the dotted path of a source, in the form that the file used.
func (p *parser) sourcePath(pool string, i int) string {
	path := fmt.Sprintf("relay.pools.%s.sources[%d]", pool, i)
	if p.lines[path] == 0 {
		return fmt.Sprintf("relay.pools.%s[%d]", pool, i)
	}
	return path
}

// checkSources makes a source name mean one thing: paths, limits and suspensions
// go by it.
func (p *parser) checkSources(c *Config) {
	byName, byAddr := map[string]Source{}, map[netip.Addr]string{}
	for _, pool := range c.Relay.Pools {
		seen := map[string]bool{}
		for i, s := range pool.Sources {
			path := p.sourcePath(pool.Name, i)
			if seen[s.Name] {
				p.errorf(p.line(path), "%s: source %s is in this pool already", path, s.Name)
			}
			seen[s.Name] = true
			if other, taken := byName[s.Name]; taken && (other.Address != s.Address || other.Hostname != s.Hostname) {
				p.errorf(p.line(path), "%s: source %s has another address or hostname in another pool; give it another name", path, s.Name)
			}
			if other, taken := byName[s.Name]; taken && !sameWarmUp(other.WarmUp, s.WarmUp) {
				p.errorf(p.line(path), "%s: source %s has another warm_up in another pool; give it the same", path, s.Name)
			}
			byName[s.Name] = s
			if other := byAddr[s.Address]; s.Address.IsValid() && other != "" && other != s.Name {
				c.Warnings = append(c.Warnings, fmt.Sprintf("sources %s and %s share the address %s: receivers see one source with the limits of both", other, s.Name, s.Address))
			}
			byAddr[s.Address] = s.Name
		}
	}
}

func sameWarmUp(a, b *WarmUp) bool { return a == b || a != nil && b != nil && *a == *b }

func (p *parser) checkDomains(c *Config) {
	records, bounce := map[string]bool{}, map[string]string{}
	for i, d := range c.DKIM.Domains {
		path := fmt.Sprintf("dkim.domains[%d]", i)
		if record := d.Selector + "._domainkey." + d.Domain; records[record] {
			p.errorf(p.line(path), "%s: %s is given twice; each key needs a selector of its own", path, record)
		} else {
			records[record] = true
		}
		if d.BounceDomain == "" {
			continue
		}
		if other := bounce[d.Domain]; other != "" && other != d.BounceDomain {
			p.errorf(p.line(path), "%s: bounce_domain %s differs from %s, given before for %s; a domain has one", path, d.BounceDomain, other, d.Domain)
		}
		bounce[d.Domain] = d.BounceDomain
	}
}
