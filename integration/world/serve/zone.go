package serve

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"github.com/veredus/veredus/integration/world"
)

// recordTTL is the lifetime of every answer, in seconds.
const recordTTL = 60

// maxTXT bounds published TXT records and maxTXTLength each value.
const (
	maxTXT       = 10_000
	maxTXTLength = 8_000
)

// zone answers for all names there are in the world.
type zone struct {
	world     *world.World
	addresses map[string]netip.Addr // host name to address
	names     map[string]string     // reverse name to host name
	hosts     map[string][]host     // by receiver

	mu  sync.RWMutex
	txt map[string][]string
}

func newZone(w *world.World, hosts []host) *zone {
	z := &zone{world: w, addresses: map[string]netip.Addr{}, names: map[string]string{}, hosts: map[string][]host{}, txt: map[string][]string{}}
	for _, h := range hosts {
		if _, ok := z.addresses[h.name]; !ok {
			z.addresses[h.name] = h.addr
		}
		z.hosts[h.receiver] = append(z.hosts[h.receiver], h)
		if reverse, err := dns.ReverseAddr(h.addr.String()); err == nil {
			z.names[reverse] = h.name
		}
	}
	z.names["1.0.0.127.in-addr.arpa."] = "localhost"
	z.addresses["localhost"] = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	return z
}

// addTXT publishes a TXT record; see World.AddTXT.
func (z *zone) addTXT(name, value string) error {
	if _, ok := dns.IsDomainName(name); !ok || name == "" {
		return fmt.Errorf("txt name %q: not a domain name", name)
	}
	if len(value) > maxTXTLength {
		return fmt.Errorf("txt value of %s: %d octets; at most %d", name, len(value), maxTXTLength)
	}
	name = plainName(name)
	z.mu.Lock()
	defer z.mu.Unlock()
	if _, known := z.txt[name]; !known && len(z.txt) >= maxTXT {
		return fmt.Errorf("txt name %q: %d names are published already", name, maxTXT)
	}
	switch {
	case strings.Contains(name, "._domainkey."):
		z.txt[name] = []string{value}
	case len(z.txt[name]) >= 100:
		return fmt.Errorf("txt name %q: it holds 100 records already", name)
	case !slices.Contains(z.txt[name], value):
		z.txt[name] = append(z.txt[name], value)
	}
	return nil
}

func (z *zone) records(name string) []string {
	z.mu.RLock()
	defer z.mu.RUnlock()
	return slices.Clone(z.txt[plainName(name)])
}

// lookupTXT is net.LookupTXT over the world's own data.
func (z *zone) lookupTXT(name string) ([]string, error) {
	if values := z.records(name); len(values) > 0 {
		return values, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// errServFail makes the answer SERVFAIL.
var errServFail = errors.New("server failure")

// answer returns the records of a question, and whether the name exists.
func (z *zone) answer(q dns.Question) (records []dns.RR, exists bool, err error) {
	name := plainName(q.Name)
	r, domain := z.world.Lookup(name)
	if z.mailDomain(name) && r != nil {
		switch r.DNS {
		case world.DNSServFail:
			return nil, true, errServFail
		case world.DNSNXDomain:
			return nil, false, nil
		}
		records, exists = z.domainRecords(q, r, domain), true
	}
	header := func(t uint16) dns.RR_Header {
		return dns.RR_Header{Name: q.Name, Rrtype: t, Class: dns.ClassINET, Ttl: recordTTL}
	}
	if addr, ok := z.addresses[name]; ok {
		exists = true
		if q.Qtype == dns.TypeA {
			records = []dns.RR{&dns.A{Hdr: header(dns.TypeA), A: addr.AsSlice()}}
		}
	}
	for _, value := range z.records(name) {
		exists = true
		if q.Qtype == dns.TypeTXT {
			records = append(records, &dns.TXT{Hdr: header(dns.TypeTXT), Txt: splitTXT(value)})
		}
	}
	if target, ok := z.names[dns.CanonicalName(q.Name)]; ok {
		exists = true
		if q.Qtype == dns.TypePTR {
			records = append(records, &dns.PTR{Hdr: header(dns.TypePTR), Ptr: dns.Fqdn(target)})
		}
	}
	return records, exists || z.inner(name), nil
}

// mailDomain leaves out names that no mail domain has, which a catch-all
// receiver would otherwise claim: reverse names, service names, hosts.
func (z *zone) mailDomain(name string) bool {
	_, isHost := z.addresses[name]
	return !isHost && name != "" && !strings.HasSuffix(name, ".arpa") && !strings.Contains("."+name, "._")
}

// liveName always exists, also in a world without a catch-all receiver: senders
// that doubt a denial ask for a root server to see whether the resolver lives.
const liveName = "a.root-servers.net"

// inner reports whether name exists without records: the root and the parents of
// published names (RFC 8020), and liveName.
func (z *zone) inner(name string) bool {
	if name == "" || name == "arpa" || name == "in-addr.arpa" || name == liveName {
		return true
	}
	z.mu.RLock()
	defer z.mu.RUnlock()
	for published := range z.txt {
		if strings.HasSuffix(published, "."+name) {
			return true
		}
	}
	return false
}

// domainRecords answers MX, and A where the domain is its own host.
func (z *zone) domainRecords(q dns.Question, r *world.Receiver, domain *world.Domain) []dns.RR {
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: recordTTL}
	var records []dns.RR
	switch {
	case r.DNS == world.DNSNullMX && q.Qtype == dns.TypeMX:
		return []dns.RR{&dns.MX{Hdr: header, Preference: 0, Mx: "."}}
	case !r.HasHosts():
		return nil
	case r.DNS == world.DNSImplicit && q.Qtype == dns.TypeA:
		for _, h := range z.hosts[r.Name] {
			records = append(records, &dns.A{Hdr: header, A: h.addr.AsSlice()})
		}
	case r.DNS != world.DNSImplicit && q.Qtype == dns.TypeMX:
		for _, h := range r.Hosts {
			records = append(records, &dns.MX{Hdr: header, Preference: h.Preference, Mx: dns.Fqdn(strings.ToLower(h.NameFor(domain.Name)))})
		}
	}
	return records
}

// plainName is a name in lower case without its final dot.
func plainName(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

// splitTXT cuts a value into strings of at most 255 octets (RFC 1035 section
// 3.3.14), escaped as the DNS library's text form wants them.
func splitTXT(value string) []string {
	parts := []string{}
	for len(value) > 255 {
		parts = append(parts, escapeTXT(value[:255]))
		value = value[255:]
	}
	return append(parts, escapeTXT(value))
}

func escapeTXT(s string) string { return strings.ReplaceAll(s, `\`, `\\`) }
