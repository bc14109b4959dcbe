// Package route finds where the mail of a domain goes: its mail hosts and their
// addresses by DNS (RFC 5321 section 5.1, RFC 7505), and the destination, the
// name shared by all domains that are received by one infrastructure.
//
// Make one Resolver with New and ask it for a Route; put the hosts in the order
// of one attempt with Order; check each address with a Guard before dialling.
package route

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// Host is one mail host of a domain.
type Host struct {
	Name       string       // lower case, no trailing dot
	Preference uint16       // smaller is better (RFC 5321 section 5.1)
	Addrs      []netip.Addr // never empty; IPv4 before IPv6; never an IPv4-mapped form
}

// Route says where the mail of one domain goes. It is shared between callers
// and must not be changed.
type Route struct {
	Domain      string    // A-labels, lower case
	Destination string    // provider, else registrable domain of the best MX, else the domain
	Provider    string    // "" when the mail host belongs to no known provider
	Hosts       []Host    // by preference, then name; never empty; Order picks among equals
	ImplicitMX  bool      // no MX record: the domain's own address is its mail host
	Expires     time.Time // when the first record behind the answer runs out
}

// Order returns the hosts in the order in which one attempt tries them: by
// preference, at random among equals, the addresses of each host at random
// within their family (RFC 5321 section 5.1 asks for both kinds of spreading;
// a cached answer would otherwise send everything to the first address). The
// same seed gives the same order; a nil rnd keeps the order of names. The
// argument is left as it is.
func Order(hosts []Host, rnd *rand.Rand) []Host {
	ordered := slices.Clone(hosts)
	slices.SortStableFunc(ordered, byPreference)
	if rnd == nil {
		return ordered
	}
	for start := 0; start < len(ordered); {
		end := start + 1
		for end < len(ordered) && ordered[end].Preference == ordered[start].Preference {
			end++
		}
		group := ordered[start:end]
		rnd.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
		start = end
	}
	for i := range ordered {
		ordered[i].Addrs = spread(ordered[i].Addrs, rnd)
	}
	return ordered
}

func byPreference(a, b Host) int { return cmp.Compare(a.Preference, b.Preference) }

func byPreferenceAndName(a, b Host) int {
	return cmp.Or(byPreference(a, b), cmp.Compare(a.Name, b.Name))
}

// spread shuffles the IPv4 part and the IPv6 part of addrs, each in itself.
func spread(addrs []netip.Addr, rnd *rand.Rand) []netip.Addr {
	if len(addrs) < 2 {
		return addrs
	}
	mixed := slices.Clone(addrs)
	six := slices.IndexFunc(mixed, netip.Addr.Is6)
	if six < 0 {
		six = len(mixed)
	}
	for _, family := range [][]netip.Addr{mixed[:six], mixed[six:]} {
		rnd.Shuffle(len(family), func(i, j int) { family[i], family[j] = family[j], family[i] })
	}
	return mixed
}

// destination names the infrastructure behind the best mail hosts, which all
// share the preference of hosts[0]: their provider when one is known, else the
// registrable domain of the first. Worse hosts do not matter: a domain behind a
// filter service keeps the filter as its destination, whatever its backup is.
func destination(domain string, hosts []Host, provider func(string) string) (dest, known string) {
	if provider != nil {
		for _, h := range hosts {
			if h.Preference != hosts[0].Preference {
				break
			}
			if p := provider(h.Name); p != "" {
				return p, p
			}
		}
	}
	if hosts[0].Name == domain {
		return domain, ""
	}
	return OrganizationalDomain(hosts[0].Name), ""
}
