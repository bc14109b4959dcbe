package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/veredus/veredus/mta/address"
	"github.com/veredus/veredus/mta/route"
)

// read fills c with what the file says; false when it is no YAML.
func (p *parser) read(c *Config, data []byte) bool {
	root := p.document(data)
	if root == nil {
		return p.errs.count() == 0
	}
	p.mapping("", root, section{
		"data_dir":     p.text(&c.DataDir, notEmpty),
		"mx_rules":     p.text(&c.MXRules, nil),
		"bounce_rules": p.text(&c.BounceRules, nil),
		"grpc": p.section(section{
			"listen":           p.text(&c.GRPC.Listen, hostPort),
			"insecure":         p.boolean(&c.GRPC.Insecure),
			"max_connections":  p.integer(&c.GRPC.MaxConnections, 1, 100_000),
			"max_calls":        p.integer(&c.GRPC.MaxCalls, 1, 100_000),
			"max_streams":      p.integer(&c.GRPC.MaxStreams, 1, 100_000),
			"max_uploads":      p.integer(&c.GRPC.MaxUploads, 1, 100_000),
			"max_ingest_bytes": p.size(&c.GRPC.MaxIngestBytes),
			"tls":              p.section(section{"cert": p.text(&c.GRPC.TLS.Cert, nil), "key": p.text(&c.GRPC.TLS.Key, nil)}),
		}),
		"http": p.section(section{"listen": p.text(&c.HTTP.Listen, optional(hostPort))}),
		"dns":  p.section(section{"server": p.text(&c.DNS.Server, optional(remote))}),
		"relay": p.section(section{
			"hostname":                p.text(&c.Relay.Hostname, optional(hostname)),
			"smtp_port":               p.integer(&c.Relay.SMTPPort, 1, 65535),
			"mode":                    p.oneOf(func(s string) { c.Relay.Mode = Mode(s) }, string(Sandboxed), string(Redirect), string(Live)),
			"redirect":                p.text(&c.Relay.Redirect, optional(remote)),
			"allow_private_addresses": p.boolean(&c.Relay.AllowPrivateAddresses),
			"max_sessions":            p.integer(&c.Relay.MaxSessions, 1, 100_000),
			"pools":                   func(path string, n *yaml.Node) { p.pools(c, path, n) },
			"warm_up":                 p.warmUps(c),
		}),
		"dkim": p.section(section{"domains": func(path string, n *yaml.Node) {
			p.list(path, n, func(path string, n *yaml.Node) { p.domain(c, path, n) })
		}}),
		"inbound": p.section(section{
			"listen":                     p.text(&c.Inbound.Listen, optional(hostPort)),
			"hostname":                   p.text(&c.Inbound.Hostname, optional(hostname)),
			"tls":                        p.section(section{"cert": p.text(&c.Inbound.TLS.Cert, nil), "key": p.text(&c.Inbound.TLS.Key, nil)}),
			"addresses":                  p.addresses(&c.Inbound.Addresses),
			"unsubscribe":                p.addresses(&c.Inbound.Unsubscribe),
			"max_message_bytes":          p.integer(&c.Inbound.MaxMessageBytes, 64<<10, 1<<30),
			"max_connections":            p.integer(&c.Inbound.MaxConnections, 1, 100_000),
			"max_connections_per_client": p.integer(&c.Inbound.MaxConnectionsPerClient, 1, 100_000),
			"messages_per_minute":        p.integer(&c.Inbound.MessagesPerMinute, 1, 10_000_000),
		}),
		"public": p.section(section{
			"listen": p.text(&c.Public.Listen, optional(hostPort)),
			"url":    p.text(&c.Public.URL, optional(publicURL)),
			"tls":    p.section(section{"cert": p.text(&c.Public.TLS.Cert, nil), "key": p.text(&c.Public.TLS.Key, nil)}),
		}),
		"addresses": p.section(section{
			"threshold":   p.integer(&c.Addresses.Threshold, 1, 100),
			"scope":       p.oneOf(func(s string) { c.Addresses.AllTenants = s == "all" }, "tenant", "all"),
			"unsubscribe": p.oneOf(func(s string) { c.Addresses.TenantUnsubscribe = s == "tenant" }, "list", "tenant"),
		}),
		"protection": p.section(section{
			"enabled":           p.boolean(&c.Protection.Enabled),
			"hard_percent":      p.number(&c.Protection.HardPercent, 0.001, 100),
			"hard_after":        p.integer(&c.Protection.HardAfter, 1, 1_000_000_000),
			"complaint_percent": p.number(&c.Protection.ComplaintPercent, 0.001, 100),
			"complaint_least":   p.integer(&c.Protection.ComplaintLeast, 1, 1_000_000_000),
			"auth_percent":      p.number(&c.Protection.AuthPercent, 0.001, 100),
			"auth_after":        p.integer(&c.Protection.AuthAfter, 1, 1_000_000_000),
			"auth_domains":      p.integer(&c.Protection.AuthDomains, 1, 1000),
			"content_percent":   p.number(&c.Protection.ContentPercent, 0.001, 100),
			"content_after":     p.integer(&c.Protection.ContentAfter, 1, 1_000_000_000),
		}),
		"memory": p.section(section{"max": p.size(&c.Memory.Max)}),
		"storage": p.section(section{
			"min_free":         p.size(&c.Storage.MinFree),
			"min_free_sending": p.size(&c.Storage.MinFreeSending),
		}),
		"retention": p.section(section{
			"events_age":  p.period(&c.Retention.EventsAge),
			"events_size": p.size(&c.Retention.EventsSize),
			"messages":    p.period(&c.Retention.Messages),
		}),
		"sandbox": p.section(section{"time_scale": p.number(&c.Sandbox.TimeScale, 1, 1e6)}),
		"log": p.section(section{
			"level":     p.oneOf(func(s string) { _ = c.Log.Level.UnmarshalText([]byte(s)) }, "debug", "info", "warn", "error"),
			"format":    p.oneOf(func(s string) { c.Log.Format = s }, "text", "json"),
			"addresses": p.oneOf(func(s string) { c.Log.Plain = s == "plain" }, "redact", "plain"),
		}),
	})
	return true
}

func (p *parser) section(s section) reader {
	return func(path string, n *yaml.Node) { p.mapping(path, n, s) }
}

// pools reads a mapping of names to pools.
func (p *parser) pools(c *Config, path string, n *yaml.Node) {
	if !p.plain(n) || n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.errorf(n.Line, "%s must be a mapping of pool names to their sources, not %s", path, kindName(n))
		return
	}
	p.pairs(path, n, func(key, value *yaml.Node) {
		inner := path + "." + key.Value
		p.lines[inner] = key.Line
		if err := name(key.Value); err != nil {
			p.errorf(key.Line, "%s: pool %v", path, err)
			return
		}
		pool := Pool{Name: key.Value}
		p.pool(&pool, inner, value)
		if len(pool.Sources) == 0 {
			p.errorf(key.Line, "%s has no source; list at least one: [{name: a, address: ...}]", inner)
		}
		c.Relay.Pools = append(c.Relay.Pools, pool)
	})
	slices.SortFunc(c.Relay.Pools, func(a, b Pool) int { return strings.Compare(a.Name, b.Name) })
}

// pool reads a pool: its list of sources, or a mapping that has it.
func (p *parser) pool(pool *Pool, path string, n *yaml.Node) {
	each := func(path string, n *yaml.Node) { p.source(pool, path, n) }
	if n.Kind == yaml.SequenceNode {
		p.list(path, n, each)
		return
	}
	p.mapping(path, n, section{
		"sources":      func(path string, n *yaml.Node) { p.list(path, n, each) },
		"overflow":     p.text(&pool.Overflow, optional(name)),
		"move_blocked": p.boolean(&pool.MoveBlocked),
	})
}

func (p *parser) source(pool *Pool, path string, n *yaml.Node) {
	s := Source{Weight: 1}
	var address string
	p.mapping(path, n, section{
		"name":     p.text(&s.Name, name),
		"address":  p.text(&address, sourceAddress),
		"hostname": p.text(&s.Hostname, hostname),
		"weight":   p.integer(&s.Weight, 1, 1000),
		"warm_up":  p.sourceWarmUp(&s.WarmUp),
	})
	if address != "" {
		s.Address = netip.MustParseAddr(address).Unmap()
	}
	if s.Name == "" {
		s.Name = strings.ReplaceAll(address, ":", "-")
	}
	if s.Name == "" {
		p.errorf(n.Line, "%s has no name; give one, for example name: a", path)
		return
	}
	pool.Sources = append(pool.Sources, s)
}

func (p *parser) domain(c *Config, path string, n *yaml.Node) {
	var d Domain
	before := p.errs.count()
	p.mapping(path, n, section{
		"domain":        p.text(&d.Domain, domainName),
		"selector":      p.text(&d.Selector, notEmpty),
		"key_file":      p.text(&d.KeyFile, notEmpty),
		"bounce_domain": p.text(&d.BounceDomain, optional(domainName)),
	})
	for _, need := range []struct{ key, value string }{{"domain", d.Domain}, {"selector", d.Selector}, {"key_file", d.KeyFile}} {
		if need.value == "" && p.errs.count() == before {
			p.errorf(n.Line, "%s has no %s; give domain, selector and key_file", path, need.key)
		}
	}
	d.Domain, _ = route.Normalize(d.Domain)
	if d.BounceDomain != "" {
		d.BounceDomain, _ = route.Normalize(d.BounceDomain)
	}
	c.DKIM.Domains = append(c.DKIM.Domains, d)
}

func optional(check func(string) error) func(string) error {
	return func(s string) error {
		if s == "" {
			return nil
		}
		return check(s)
	}
}

func notEmpty(s string) error {
	if s == "" {
		return fmt.Errorf("is empty; give a value or leave the key out")
	}
	return nil
}

// hostPort checks an address to listen on.
func hostPort(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%.80q is not host:port; write for example %s", s, DefaultGRPCListen)
	}
	return nil
}

// remote checks an address to connect to.
func remote(s string) error {
	host, port, err := net.SplitHostPort(s)
	n, bad := strconv.ParseUint(port, 10, 16)
	if err != nil || bad != nil || n == 0 || host == "" {
		return fmt.Errorf("%.80q is not host:port; write for example 127.0.0.1:53", s)
	}
	return nil
}

// hostname checks an EHLO name: a domain of two labels or more, or localhost (RFC
// 6761 section 6.3) and below.
func hostname(s string) error {
	if s == "localhost" {
		return nil
	}
	if err := domainName(strings.TrimSuffix(s, ".localhost")); err != nil {
		return err
	}
	if !strings.Contains(s, ".") {
		return fmt.Errorf("%.80q is not a full host name; receivers expect one like mail.brand.example", s)
	}
	return nil
}

func domainName(s string) error {
	if _, err := route.Normalize(s); err != nil {
		return fmt.Errorf("%.80q is not a domain name: %w", s, err)
	}
	return nil
}

// name checks the name of a pool or source: it stands in requests, logs and reports.
func name(s string) error {
	if s == "" || len(s) > 63 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
		return fmt.Errorf("name %.80q must be 1 to 63 letters, digits, dots, hyphens or underscores", s)
	}
	return nil
}

func sourceAddress(s string) error {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil || a.Zone() != "":
		return fmt.Errorf("%.80q is not an IP address; give one of this machine", s)
	case a.IsUnspecified():
		return fmt.Errorf("%s names no address; give one of this machine", s)
	case a.IsMulticast():
		return fmt.Errorf("%s is a multicast address; give one of this machine", s)
	}
	return nil
}

// addresses reads a list of mail addresses, lower case.
func (p *parser) addresses(to *[]string) reader {
	return func(path string, n *yaml.Node) {
		*to = []string{}
		p.list(path, n, func(path string, n *yaml.Node) {
			var text string
			p.text(&text, mailbox)(path, n)
			if text != "" {
				*to = append(*to, strings.ToLower(text))
			}
		})
	}
}

// mailbox checks a mail address with a domain.
func mailbox(s string) error {
	if _, err := address.Parse(s); err != nil {
		return fmt.Errorf("%.80q is not a mail address: %w", s, err)
	}
	return nil
}

// publicURL checks where readers reach hosted links. Plain http is for loopback, where
// tests are.
func publicURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.HasSuffix(s, "/") || len(s) > 200 {
		return fmt.Errorf("%.80q is not a URL to build links on; write for example https://u.brand.example", s)
	}
	if u.Scheme != "https" && !(u.Scheme == "http" && Loopback(net.JoinHostPort(u.Hostname(), "80"))) {
		return fmt.Errorf("%.80q must begin with https:, as RFC 8058 demands", s)
	}
	return nil
}
