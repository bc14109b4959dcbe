package route

import (
	"fmt"
	"net"
	"net/netip"
)

// Guard decides whether the relay may dial an address. In live mode only the
// public internet may be dialled, whatever a recipient domain's DNS claims:
// otherwise a domain whose MX points at an inner host would let anyone make the
// relay talk to it. The zero Guard refuses every address that is not public.
type Guard struct {
	// AllowPrivate lifts the rules for closed networks. Addresses that name no
	// single host stay refused.
	AllowPrivate bool
	// Own returns this machine's addresses, as LocalAddrs does; nil means none.
	// It is called at each Check, since they may change. Dialling one of them
	// would be a mail loop.
	Own func() []netip.Addr
}

// Check returns nil when addr may be dialled, else an error naming the address
// and the reason. An IPv4 address inside an IPv6 one (mapped, RFC 4291 section
// 2.5.5; NAT64, RFC 6052; 6to4, RFC 3056) is judged as itself.
func (g Guard) Check(addr netip.Addr) error {
	if reason := g.refuses(addr); reason != "" {
		return fmt.Errorf("address %s may not be dialled: %s", addr, reason)
	}
	return nil
}

func (g Guard) refuses(addr netip.Addr) string {
	plain := addr.WithZone("").Unmap()
	if reason := noHost(plain); reason != "" || g.AllowPrivate {
		return reason
	}
	for _, a := range [...]netip.Addr{plain, embedded(plain)} {
		if !a.IsValid() {
			continue
		}
		if reason := notPublic(a); reason != "" {
			return reason
		}
		if g.owns(a) {
			return "it is an address of this machine"
		}
	}
	return ""
}

func (g Guard) owns(addr netip.Addr) bool {
	if g.Own == nil {
		return false
	}
	for _, own := range g.Own() {
		if own.WithZone("").Unmap() == addr {
			return true
		}
	}
	return false
}

// noHost says why addr can never be the address of one host.
func noHost(addr netip.Addr) string {
	switch {
	case !addr.IsValid():
		return "it is not an address"
	case addr.IsUnspecified():
		return "it is the unspecified address"
	case addr.IsMulticast():
		return "it is a multicast address"
	case addr == broadcast:
		return "it is the broadcast address"
	}
	return ""
}

// notPublic says why addr is not on the public internet.
func notPublic(addr netip.Addr) string {
	if reason := noHost(addr); reason != "" {
		return reason
	}
	for _, r := range special {
		if r.prefix.Contains(addr) {
			return "it is in " + r.prefix.String() + ", " + r.use
		}
	}
	if addr.Is6() && !globalUnicast.Contains(addr) && !nat64.Contains(addr) {
		return "it is outside 2000::/3, the public range of IPv6"
	}
	return ""
}

// embedded returns the IPv4 address a translator would take addr for, or the
// zero Addr.
func embedded(addr netip.Addr) netip.Addr {
	b := addr.As16()
	switch {
	case nat64.Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:]))
	case sixToFour.Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return netip.Addr{}
}

var (
	broadcast     = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	globalUnicast = netip.MustParsePrefix("2000::/3")
	nat64         = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour     = netip.MustParsePrefix("2002::/16")
)

type block struct {
	prefix netip.Prefix
	use    string
}

// special holds the blocks of the IANA special-purpose address registries (RFC
// 6890) that lead to no host on the public internet.
var special = []block{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network (RFC 791)"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private (RFC 1918)"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared by carriers (RFC 6598)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback (RFC 1122)"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local (RFC 3927)"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private (RFC 1918)"},
	{netip.MustParsePrefix("192.0.0.0/24"), "protocol assignments (RFC 6890)"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation (RFC 5737)"},
	{netip.MustParsePrefix("192.88.99.0/24"), "retired 6to4 relays (RFC 7526)"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private (RFC 1918)"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarks (RFC 2544)"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation (RFC 5737)"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation (RFC 5737)"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved (RFC 1112)"},
	{netip.MustParsePrefix("::1/128"), "loopback (RFC 4291)"},
	{netip.MustParsePrefix("::/96"), "retired IPv4-compatible addresses (RFC 4291)"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64 (RFC 8215)"},
	{netip.MustParsePrefix("100::/64"), "discard (RFC 6666)"},
	{netip.MustParsePrefix("2001::/23"), "protocol assignments (RFC 2928)"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation (RFC 3849)"},
	{netip.MustParsePrefix("3fff::/20"), "documentation (RFC 9637)"},
	{netip.MustParsePrefix("fc00::/7"), "private (RFC 4193)"},
	{netip.MustParsePrefix("fe80::/10"), "link-local (RFC 4291)"},
	{netip.MustParsePrefix("fec0::/10"), "retired site-local addresses (RFC 3879)"},
}

// LocalAddrs returns the addresses of this machine's interfaces. It asks the
// kernel; on failure it returns none.
func LocalAddrs() []netip.Addr {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var addrs []netip.Addr
	for _, n := range nets {
		if prefix, err := netip.ParsePrefix(n.String()); err == nil {
			addrs = append(addrs, prefix.Addr().Unmap())
		}
	}
	return addrs
}
