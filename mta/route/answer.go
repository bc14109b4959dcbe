package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	maxCNAMEs = 8  // links followed from a name to its canonical name
	maxHosts  = 20 // mail hosts kept of a domain, the best first
	maxAddrs  = 16 // addresses kept of a host, per family

	minTTL         = time.Second     // keeps a zero TTL from asking once per message
	maxTTL         = 24 * time.Hour  // positive answers
	maxNegativeTTL = time.Hour       // RFC 2308 section 5 suggests one to three hours
	bareTTL        = 5 * time.Second // denials without SOA (RFC 2308 section 5: not to be cached long)
	failureTTL     = 5 * time.Second // no usable answer (RFC 9520 section 3.2: 1 s to 5 min)
)

// answer is what the DNS said to one question, after following CNAMEs.
type answer struct {
	hosts   []Host       // MX: names and preferences, without addresses
	addrs   []netip.Addr // A, AAAA
	texts   []string     // TXT: the strings of each record joined
	records int          // records of the type asked for, usable or not
	expires time.Time
	failed  *Error // set when the failure itself is remembered
}

// cost estimates the octets that a cached answer holds.
func (a answer) cost() int {
	const fixed, perAddr, perHost = 160, 24, 48
	n := fixed + perAddr*len(a.addrs)
	for _, h := range a.hosts {
		n += perHost + len(h.Name)
	}
	return n
}

// section is the readable part of one reply.
type section struct {
	answer
	ttl      time.Duration
	nxdomain bool
	alias    string        // set when the reply ends in a CNAME and is silent about its target
	aliasTTL time.Duration // of the links up to alias
}

// read takes from reply what it says about q.
func read(q question, reply *dns.Msg) (section, error) {
	name, ttl := dns.Fqdn(q.name), maxTTL
	aliases := 0
	for {
		target, t, ok := cname(name, reply.Answer)
		if !ok {
			break
		}
		if aliases++; aliases > maxCNAMEs {
			return section{}, fmt.Errorf("%s: more than %d CNAMEs in a row", q, maxCNAMEs)
		}
		name, ttl = target, min(ttl, t)
	}
	s := section{ttl: ttl, nxdomain: reply.Rcode == dns.RcodeNameError}
	for _, rr := range reply.Answer {
		h := rr.Header()
		if h.Rrtype == q.qtype && h.Class == dns.ClassINET && strings.EqualFold(h.Name, name) {
			s.ttl = min(s.ttl, lifetime(h.Ttl))
			s.add(rr)
		}
	}
	if s.records > 0 {
		s.hosts, s.nxdomain = bestHosts(s.hosts), false
		return s, nil
	}
	negative, hasSOA := denialTTL(reply.Ns)
	if aliases > 0 && !hasSOA && !s.nxdomain {
		s.alias, s.aliasTTL = strings.ToLower(strings.TrimSuffix(name, ".")), ttl
	}
	s.ttl = min(ttl, negative)
	return s, nil
}

// add keeps one record of the type asked for.
func (s *section) add(rr dns.RR) {
	s.records++
	switch rr := rr.(type) {
	case *dns.MX:
		s.hosts = append(s.hosts, Host{Name: strings.ToLower(strings.TrimSuffix(rr.Mx, ".")), Preference: rr.Preference})
	case *dns.A:
		s.addAddr(netip.AddrFromSlice(rr.A.To4()))
	case *dns.AAAA:
		s.addAddr(netip.AddrFromSlice(rr.AAAA.To16()))
	case *dns.TXT:
		s.texts = append(s.texts, unescape(strings.Join(rr.Txt, "")))
	}
}

// bestHosts sorts hosts, drops repeats and what cannot be a host name, and keeps
// the best. The empty name of a null MX stays (RFC 7505 section 3).
func bestHosts(hosts []Host) []Host {
	slices.SortFunc(hosts, byPreferenceAndName)
	seen := make(map[string]bool, len(hosts))
	best := hosts[:0]
	for _, h := range hosts {
		if seen[h.Name] || h.Name != "" && checkName(h.Name, true) != nil {
			continue
		}
		seen[h.Name] = true
		if best = append(best, h); len(best) == maxHosts {
			break
		}
	}
	return slices.Clip(slices.Clone(best))
}

// unescape undoes the escapes with which the library shows the octets of a text
// (RFC 1035 section 5.1): \" and \\ and \DDD.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 10, 8); err == nil {
				out = append(out, byte(n))
				i += 3
				continue
			}
		}
		if c == '\\' && i+1 < len(s) {
			i++
			c = s[i]
		}
		out = append(out, c)
	}
	return string(out)
}

func (s *section) addAddr(addr netip.Addr, ok bool) {
	if ok && len(s.addrs) < maxAddrs {
		s.addrs = append(s.addrs, addr.Unmap())
	}
}

// cname finds the CNAME of name.
func cname(name string, answer []dns.RR) (target string, ttl time.Duration, ok bool) {
	for _, rr := range answer {
		if c, isCNAME := rr.(*dns.CNAME); isCNAME && strings.EqualFold(c.Hdr.Name, name) {
			return c.Target, lifetime(c.Hdr.Ttl), true
		}
	}
	return "", 0, false
}

// denialTTL is how long a denial holds: the lesser of the SOA's TTL and its
// minimum field (RFC 2308 section 5).
func denialTTL(authority []dns.RR) (ttl time.Duration, hasSOA bool) {
	for _, rr := range authority {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(lifetime(min(soa.Hdr.Ttl, soa.Minttl)), maxNegativeTTL), true
		}
	}
	return bareTTL, false
}

// lifetime turns a TTL field into a bounded duration. A value with the top bit
// set counts as zero (RFC 2181 section 8).
func lifetime(seconds uint32) time.Duration {
	if seconds > 1<<31-1 {
		seconds = 0
	}
	return min(max(time.Duration(seconds)*time.Second, minTTL), maxTTL)
}
