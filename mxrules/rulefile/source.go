package rulefile

import (
	"fmt"
	"net/netip"
	"strings"
)

// parseSource reads an address, a prefix or "first-last" as the prefixes that
// cover exactly those addresses.
func parseSource(s string) ([]netip.Prefix, error) {
	if first, last, ok := strings.Cut(s, "-"); ok {
		return parseRange(s, strings.TrimSpace(first), strings.TrimSpace(last))
	}
	if strings.Contains(s, "/") {
		return parsePrefix(s)
	}
	a, err := parseAddr(s)
	if err != nil {
		return nil, err
	}
	return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}, nil
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return a, fmt.Errorf("%.60q is not an address, a prefix like 192.0.2.0/28 or a range like 192.0.2.1-192.0.2.9", s)
	}
	return a.Unmap(), nil
}

func parsePrefix(s string) ([]netip.Prefix, error) {
	pre, err := netip.ParsePrefix(s)
	if err != nil || pre.Addr().Is4In6() {
		return nil, fmt.Errorf("%.60q is not a prefix; write one like 192.0.2.0/28 or 2001:db8::/64", s)
	}
	if pre != pre.Masked() {
		return nil, fmt.Errorf("%.60q has bits behind its length; did you mean %v or %v/%d?", s, pre.Masked(), pre.Addr(), pre.Addr().BitLen())
	}
	return []netip.Prefix{pre}, nil
}

func parseRange(s, from, to string) ([]netip.Prefix, error) {
	first, err := parseAddr(from)
	if err != nil {
		return nil, err
	}
	last, err := parseAddr(to)
	if err != nil {
		return nil, err
	}
	if first.BitLen() != last.BitLen() || last.Less(first) {
		return nil, fmt.Errorf("range %.90q must go from a lower to a higher address of the same family", s)
	}
	return cover(first, last), nil
}

// cover is the shortest list of prefixes for first to last: at most two per bit.
func cover(first, last netip.Addr) []netip.Prefix {
	var list []netip.Prefix
	for first.IsValid() && !last.Less(first) {
		pre := netip.PrefixFrom(first, first.BitLen())
		for pre.Bits() > 0 {
			wider := netip.PrefixFrom(first, pre.Bits()-1)
			if wider.Masked().Addr() != first || last.Less(lastOf(wider)) {
				break
			}
			pre = wider
		}
		list = append(list, pre)
		first = lastOf(pre).Next()
	}
	return list
}

// lastOf is the highest address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
