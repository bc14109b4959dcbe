package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/mta/route"
)

// domain is a From domain with what signs and what bounces.
type domain struct {
	about
	name   string
	keys   []*dkim.Key
	bounce string // domain of the return path
}

func newDomain(name, bounce string, keys []*dkim.Key) domain {
	return domain{about: about("domain " + name), name: name, keys: keys, bounce: cmp.Or(bounce, name)}
}

// dkim compares each key with the DNS.
func (c *checkup) dkim(ctx context.Context, d domain) []Finding {
	if len(d.keys) == 0 {
		return []Finding{d.failure("dkim.no_key", "no key signs mail from %s; make one with `veredus dkim keygen --domain %s --selector s1`, publish its record and name it in dkim.domains", d.name, d.name)}
	}
	var found []Finding
	for _, k := range d.keys {
		there := false
		for _, f := range dkim.Check(ctx, k, c.texts(&there)) {
			found = append(found, d.key(k, f, there))
		}
	}
	return found
}

// texts looks up TXT records for dkim.Check, and notes whether there are any.
func (c *checkup) texts(there *bool) func(context.Context, string) ([]string, error) {
	return func(ctx context.Context, name string) ([]string, error) {
		a, err := c.dns.Lookup(ctx, name, dns.TypeTXT)
		if err != nil {
			return nil, temporary{err}
		}
		*there = len(a.Texts) > 0
		return a.Texts, nil
	}
}

// temporary is a failure that says nothing about the record.
type temporary struct{ error }

func (temporary) Temporary() bool { return true }

func (d domain) key(k *dkim.Key, f dkim.Finding, there bool) Finding {
	text := f.Text
	if !strings.Contains(text, dkim.RecordName(k)) {
		text = dkim.RecordName(k) + ": " + text
	}
	switch f.Severity {
	case dkim.Info:
		return d.ok("dkim.record", "%s", text)
	case dkim.Warning:
		return d.warning("dkim.weak", "%s", joined(text, f.Remedy))
	case dkim.Unknown:
		return d.unknown("dkim.record", dkim.RecordName(k), errors.New(f.Text))
	}
	code := "dkim.record"
	if !there {
		code = "dkim.missing"
	}
	return d.failure(code, "%s; receivers cannot verify signatures: publish the record below", text).
		with(dkim.RecordName(k), "TXT", dkim.Record(k))
}

func joined(text, remedy string) string {
	if remedy == "" {
		return text
	}
	return text + "; " + remedy
}

// spf checks that the return path's domain lets every source send.
func (c *checkup) spf(ctx context.Context, d domain) []Finding {
	text, _, err := spfRecord(ctx, c.dns, d.bounce)
	if err != nil {
		return []Finding{d.unknown("spf", "the SPF record of "+d.bounce, err)}
	}
	by := map[spfResult][]source{}
	why := map[spfResult]string{}
	for _, s := range c.sources {
		result, because := checkSPF(ctx, c.dns, s.Address, d.bounce, s.Hostname)
		by[result] = append(by[result], s)
		why[result] = because
	}
	var found []Finding
	missing := addressesOf(slices.Concat(by[spfNone], by[spfFail], by[spfSoftFail], by[spfNeutral], by[spfPermError]))
	for _, result := range []spfResult{spfPermError, spfNone, spfFail, spfSoftFail, spfNeutral, spfTempError, spfUnknown, spfPass} {
		if list := by[result]; len(list) > 0 {
			found = append(found, d.spfFinding(result, list, why[result], text, missing))
		}
	}
	return found
}

func (d domain) spfFinding(result spfResult, list []source, why, text string, missing []netip.Addr) Finding {
	who := namesOf(list)
	switch result {
	case spfPass:
		return d.ok("spf", "SPF of the bounce domain %s lets %s send (%s)", d.bounce, who, why)
	case spfTempError:
		return d.unknown("spf", "SPF of "+d.bounce+" for "+who, errors.New(why))
	case spfUnknown:
		return d.info("spf.unknown", "SPF of the bounce domain %s cannot be told for %s: %s", d.bounce, who, why)
	case spfPermError:
		return d.failure("spf.invalid", "SPF of the bounce domain %s is in error (permerror), so that receivers ignore or refuse it: %s; publish the record below, with what else sends for the domain", d.bounce, why).
			with(d.bounce, "TXT", suggestSPF("", missing))
	case spfNone:
		return d.failure("spf.missing", "the bounce domain %s has no SPF record, so that %s may be anybody; publish the record below", d.bounce, who).
			with(d.bounce, "TXT", suggestSPF("", missing))
	}
	return d.failure("spf.source_missing", "SPF of the bounce domain %s does not contain %s: %s by %s; replace the record %q by the one below", d.bounce, who, result, why, clip(text, 450)).
		with(d.bounce, "TXT", suggestSPF(text, missing))
}

// maxNames is how many sources a finding names.
const maxNames = 5

func namesOf(list []source) string {
	var names []string
	for _, s := range list[:min(len(list), maxNames)] {
		names = append(names, fmt.Sprintf("source %s (%s)", s.Name, s.Address))
	}
	if more := len(list) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

func addressesOf(list []source) []netip.Addr {
	var addrs []netip.Addr
	for _, s := range list {
		addrs = append(addrs, s.Address)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// dmarc checks that there is a policy, and that signature or return path vouch for
// the From domain.
func (c *checkup) dmarc(ctx context.Context, d domain) []Finding {
	p, err := readDMARC(ctx, c.dns, d.name)
	if err != nil {
		return []Finding{d.unknown("dmarc", "the DMARC record of "+d.name, err)}
	}
	org := route.OrganizationalDomain(d.name)
	suggestion := "v=DMARC1; p=none; rua=mailto:dmarc@" + org
	switch {
	case p.records == 0:
		return []Finding{d.warning("dmarc.missing", "there is no DMARC record for %s; Gmail, Yahoo and Microsoft demand one of bulk senders: publish the record below", d.name).
			with("_dmarc."+org, "TXT", suggestion)}
	case p.records > 1:
		return []Finding{d.warning("dmarc.several", "_dmarc.%s has %d DMARC records, which counts as none; keep one", p.at, p.records).
			with("_dmarc."+p.at, "TXT", suggestion)}
	case p.mistake != "":
		return []Finding{d.warning("dmarc.invalid", "the DMARC record at _dmarc.%s is void: %s", p.at, p.mistake).
			with("_dmarc."+p.at, "TXT", suggestion)}
	}
	found := []Finding{d.ok("dmarc", "DMARC of %s says p=%s", p.at, p.policy)}
	if !p.reports {
		found = append(found, d.info("dmarc.no_reports", "_dmarc.%s names nobody for reports; add rua=mailto:... to learn who fails", p.at))
	}
	return append(found, d.alignment(p))
}

// alignment judges RFC 7489 section 3.1: one of the two must hold, both should.
func (d domain) alignment(p dmarc) Finding {
	spf := aligned(d.bounce, d.name, p.strictSPF)
	signed := slices.ContainsFunc(d.keys, func(k *dkim.Key) bool { return aligned(k.Domain, d.name, p.strictDKIM) })
	switch {
	case spf && signed:
		return d.ok("dmarc.alignment", "the signature's domain and the bounce domain %s align with %s", d.bounce, d.name)
	case signed:
		return d.warning("dmarc.alignment", "the bounce domain %s does not align with %s, so that only the signature vouches for it; set bounce_domain to %s", d.bounce, d.name, d.bounceAdvice(p.strictSPF))
	case spf:
		return d.warning("dmarc.alignment", "no signature aligns with %s, so that only SPF vouches for it, which forwarding breaks; add a DKIM key for %s itself", d.name, d.name)
	}
	return d.failure("dmarc.alignment", "neither a signature nor the bounce domain %s aligns with %s, so that all its mail fails DMARC; add a DKIM key for %s itself", d.bounce, d.name, d.name)
}

func (d domain) bounceAdvice(strict bool) string {
	if strict {
		return d.name + " itself, since the record says aspf=s"
	}
	return "a subdomain of " + route.OrganizationalDomain(d.name)
}

// bounces checks that bounces of the domain find the way to this node.
func (c *checkup) bounces(ctx context.Context, d domain) []Finding {
	mx, err := c.dns.Lookup(ctx, d.bounce, dns.TypeMX)
	if err != nil {
		return []Finding{d.unknown("bounce.mx", "the MX of the bounce domain "+d.bounce, err)}
	}
	hosts := mx.Hosts
	slices.SortFunc(hosts, func(a, b Host) int {
		return cmp.Or(cmp.Compare(a.Preference, b.Preference), strings.Compare(a.Name, b.Name))
	})
	switch {
	case len(hosts) == 0:
		return []Finding{c.noMX(ctx, d)}
	case hosts[0].Name == "":
		return []Finding{d.failure("bounce.null_mx", "the bounce domain %s says that it takes no mail (null MX); many receivers refuse mail from such a domain, and bounces are lost", d.bounce).
			with(d.bounce, "MX", "10 "+c.inboundHost())}
	}
	return []Finding{c.leadsHere(ctx, d, hosts)}
}

// inboundHost is the name by which the world finds the inbound listener.
func (c *checkup) inboundHost() string { return c.Config.Inbound.Hostname }

func (c *checkup) noMX(ctx context.Context, d domain) Finding {
	addrs, err := addresses(ctx, c.dns, d.bounce)
	switch {
	case err != nil:
		return d.unknown("bounce.mx", "the address of the bounce domain "+d.bounce, err)
	case len(addrs) == 0:
		return d.failure("bounce.mx", "the bounce domain %s has neither MX nor address; many receivers refuse mail from a domain that cannot get any, and bounces are lost: publish the record below", d.bounce).
			with(d.bounce, "MX", "10 "+c.inboundHost())
	case c.isOurs(addrs):
		return d.ok("bounce.mx", "the bounce domain %s has no MX, and its address is this node's", d.bounce)
	}
	return d.warning("bounce.mx", "the bounce domain %s has no MX and leads to %s, which is not this node, so that bounces are not read; publish the record below", d.bounce, addrs[0]).
		with(d.bounce, "MX", "10 "+c.inboundHost())
}

func (c *checkup) leadsHere(ctx context.Context, d domain, hosts []Host) Finding {
	var dead []string
	for _, h := range hosts[:min(len(hosts), maxSPFHosts)] {
		addrs, err := addresses(ctx, c.dns, h.Name)
		switch {
		case err != nil:
			return d.unknown("bounce.mx", "the address of the mail host "+h.Name, err)
		case len(addrs) == 0:
			dead = append(dead, h.Name)
		case c.isOurs(addrs) || h.Name == plain(c.inboundHost()):
			if c.Config.Inbound.Listen == "" {
				return d.warning("bounce.not_read", "the MX of the bounce domain %s leads here, but inbound.listen is not set: bounces are lost", d.bounce)
			}
			return d.ok("bounce.mx", "the MX of the bounce domain %s, %s, leads to this node", d.bounce, h.Name)
		}
	}
	if len(dead) == len(hosts) {
		return d.failure("bounce.mx", "no mail host of the bounce domain %s has an address (%s); bounces are lost, and receivers refuse mail from such a domain", d.bounce, strings.Join(dead, ", ")).
			with(d.bounce, "MX", "10 "+c.inboundHost())
	}
	if d.bounce == d.name {
		return d.warning("bounce.shared", "%s is its own bounce domain and its MX, %s, is not this node, so that bounces land there unread; set bounce_domain to bounce.%s and publish the record below", d.name, hosts[0].Name, d.name).
			with("bounce."+d.name, "MX", "10 "+c.inboundHost())
	}
	return d.warning("bounce.mx", "the MX of the bounce domain %s, %s, is not this node; unless it hands bounces on to inbound.listen they are not read: publish the record below", d.bounce, hosts[0].Name).
		with(d.bounce, "MX", "10 "+c.inboundHost())
}

// isOurs reports whether one of the addresses is this machine's or a source's.
func (c *checkup) isOurs(addrs []netip.Addr) bool {
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return c.ours[a.WithZone("").Unmap()] })
}
