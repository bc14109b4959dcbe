package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// spfResult is what SPF says of a sender (RFC 7208 section 2.6).
type spfResult string

// The results.
const (
	spfNone      spfResult = "none"
	spfNeutral   spfResult = "neutral"
	spfPass      spfResult = "pass"
	spfFail      spfResult = "fail"
	spfSoftFail  spfResult = "softfail"
	spfTempError spfResult = "temperror"
	spfPermError spfResult = "permerror"
	// spfUnknown: it depends on the local part of the sender, which is another one
	// for each message.
	spfUnknown spfResult = "unknown"
)

// Limits of RFC 7208 section 4.6.4.
const (
	maxSPFLookups = 10
	maxSPFVoids   = 2
	maxSPFHosts   = 10
)

// spfError ends an evaluation.
type spfError struct {
	result spfResult
	text   string
}

func (e *spfError) Error() string { return e.text }

func permanent(format string, args ...any) error {
	return &spfError{spfPermError, fmt.Sprintf(format, args...)}
}

// sender is one evaluation of SPF: may this address send mail from this domain?
type sender struct {
	dns    DNS
	ip     netip.Addr
	domain string // of MAIL FROM
	helo   string

	lookups, voids int
}

// checkSPF evaluates the SPF policy of a domain for a sending address (check_host of RFC
// 7208 section 4). why says what decided, and why it is no result.
func checkSPF(ctx context.Context, d DNS, ip netip.Addr, domain, helo string) (result spfResult, why string) {
	s := &sender{dns: d, ip: ip.Unmap(), domain: domain, helo: helo}
	result, why, err := s.check(ctx, domain)
	if e, ok := err.(*spfError); ok {
		return e.result, e.text
	}
	if err != nil {
		return spfTempError, err.Error()
	}
	return result, why
}

// check is check_host for one domain, the first or one that an include or redirect names.
func (s *sender) check(ctx context.Context, domain string) (spfResult, string, error) {
	text, n, err := spfRecord(ctx, s.dns, domain)
	switch {
	case err != nil:
		return "", "", err
	case n == 0:
		return spfNone, domain + " has no SPF record", nil
	case n > 1:
		return "", "", permanent("%s has %d SPF records; keep one (RFC 7208 section 4.5)", domain, n)
	}
	policy, err := parseSPF(text)
	if err != nil {
		return "", "", permanent("the SPF record of %s: %v", domain, err)
	}
	for _, m := range policy.mechanisms {
		match, err := s.match(ctx, m, domain)
		if err != nil {
			return "", "", err
		}
		if match {
			return m.result, fmt.Sprintf("%q of %s", m.text, domain), nil
		}
	}
	if policy.redirect == "" {
		return spfNeutral, "no mechanism of " + domain + " matches", nil
	}
	return s.redirect(ctx, policy.redirect, domain)
}

// spfRecord reads the SPF record of a domain, and how many there are.
func spfRecord(ctx context.Context, d DNS, domain string) (text string, n int, err error) {
	a, err := d.Lookup(ctx, domain, dns.TypeTXT)
	for _, t := range a.Texts {
		version, _, _ := strings.Cut(t, " ")
		if strings.EqualFold(version, "v=spf1") {
			text = t
			n++
		}
	}
	return text, n, err
}

// redirect goes on with another domain's policy (RFC 7208 section 6.1).
func (s *sender) redirect(ctx context.Context, spec, domain string) (spfResult, string, error) {
	target, err := s.target(spec, domain)
	if err == nil {
		err = s.count("redirect=" + spec)
	}
	if err != nil {
		return "", "", err
	}
	result, why, err := s.check(ctx, target)
	if err == nil && result == spfNone {
		err = permanent("redirect=%s leads to a domain without SPF record", target)
	}
	return result, why, err
}

// count counts a term that asks the DNS.
func (s *sender) count(term string) error {
	if s.lookups++; s.lookups > maxSPFLookups {
		return permanent("more than %d DNS look-ups, at %q (RFC 7208 section 4.6.4); replace includes by ip4 and ip6", maxSPFLookups, term)
	}
	return nil
}

// target is the domain that a term is about: this one unless it names another.
func (s *sender) target(spec, domain string) (string, error) {
	if spec == "" {
		return domain, nil
	}
	return s.expand(spec, domain)
}

// match reports whether a mechanism matches the sender (RFC 7208 section 5).
func (s *sender) match(ctx context.Context, m mechanism, domain string) (bool, error) {
	switch m.name {
	case "all":
		return true, nil
	case "ip4", "ip6":
		return m.network.Contains(s.ip), nil
	}
	if err := s.count(m.text); err != nil {
		return false, err
	}
	target, err := s.target(m.spec, domain)
	if err != nil {
		return false, err
	}
	switch m.name {
	case "include":
		return s.include(ctx, target)
	case "a":
		return s.matchHost(ctx, m, target)
	case "mx":
		return s.matchMX(ctx, m, target)
	case "ptr":
		return s.matchPTR(ctx, target)
	}
	a, err := s.dns.Lookup(ctx, target, dns.TypeA) // exists, of either family (section 5.7)
	if err != nil {
		return false, err
	}
	return len(a.Addrs) > 0, s.void(len(a.Addrs))
}

// include passes when the other policy does (RFC 7208 section 5.2).
func (s *sender) include(ctx context.Context, target string) (bool, error) {
	result, why, err := s.check(ctx, target)
	if err == nil && result == spfNone {
		err = permanent("include:%s: %s", target, why)
	}
	return result == spfPass, err
}

// void counts a look-up without answer.
func (s *sender) void(answers int) error {
	if answers > 0 {
		return nil
	}
	if s.voids++; s.voids > maxSPFVoids {
		return permanent("more than %d look-ups find nothing (RFC 7208 section 4.6.4); remove the mechanisms whose names are gone", maxSPFVoids)
	}
	return nil
}

// addressType is the sender's family.
func (s *sender) addressType() uint16 {
	if s.ip.Is4() {
		return dns.TypeA
	}
	return dns.TypeAAAA
}

func (s *sender) matchHost(ctx context.Context, m mechanism, host string) (bool, error) {
	a, err := s.dns.Lookup(ctx, host, s.addressType())
	if err != nil {
		return false, err
	}
	if s.within(m, a.Addrs) {
		return true, nil
	}
	return false, s.void(len(a.Addrs))
}

// within reports whether one of the addresses is the sender's, to the mechanism's prefix length.
func (s *sender) within(m mechanism, addrs []netip.Addr) bool {
	bits := m.bits6
	if s.ip.Is4() {
		bits = m.bits4
	}
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool {
		p, err := a.Prefix(bits)
		return err == nil && p.Contains(s.ip)
	})
}

func (s *sender) matchMX(ctx context.Context, m mechanism, domain string) (bool, error) {
	mx, err := s.dns.Lookup(ctx, domain, dns.TypeMX)
	if err != nil {
		return false, err
	}
	if len(mx.Hosts) > maxSPFHosts {
		return false, permanent("%q: %s has more than %d MX hosts (RFC 7208 section 4.6.4)", m.text, domain, maxSPFHosts)
	}
	for _, h := range mx.Hosts {
		a, err := s.dns.Lookup(ctx, h.Name, s.addressType())
		if err != nil {
			return false, err
		}
		if s.within(m, a.Addrs) {
			return true, nil
		}
	}
	return false, s.void(len(mx.Hosts))
}

// matchPTR matches when a validated name of the address lies in the domain (RFC 7208
// section 5.5). Failures of the DNS make it not match.
func (s *sender) matchPTR(ctx context.Context, domain string) (bool, error) {
	reverse, err := dns.ReverseAddr(s.ip.String())
	if err != nil {
		return false, permanent("no reverse name of %s", s.ip)
	}
	ptr, err := s.dns.Lookup(ctx, reverse, dns.TypePTR)
	if err != nil {
		return false, nil
	}
	for _, name := range ptr.Names[:min(len(ptr.Names), maxSPFHosts)] {
		if name != domain && !strings.HasSuffix(name, "."+domain) {
			continue
		}
		a, err := s.dns.Lookup(ctx, name, s.addressType())
		if err == nil && slices.Contains(a.Addrs, s.ip) {
			return true, nil
		}
	}
	return false, s.void(len(ptr.Names))
}
