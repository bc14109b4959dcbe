package route

import (
	"net/netip"
	"strings"
	"testing"
)

// verdicts has what a Guard says of addresses at and beyond the borders of each
// block: "" for dialable, "private" for those that AllowPrivate lifts, "never"
// for those it does not.
var verdicts = map[string]string{
	"8.8.8.8": "", "1.1.1.1": "", "142.250.1.26": "", "223.255.255.255": "",
	"2a00:1450:4010:c0f::1a": "", "2607:f8b0::1": "", "2000::1": "",

	"0.0.0.0": "never", "0.0.0.1": "private", "0.255.255.255": "private", "1.0.0.0": "",
	"9.255.255.255": "", "10.0.0.0": "private", "10.255.255.255": "private", "11.0.0.0": "",
	"100.63.255.255": "", "100.64.0.0": "private", "100.127.255.255": "private", "100.128.0.0": "",
	"126.255.255.255": "", "127.0.0.0": "private", "127.0.0.1": "private", "127.255.255.255": "private", "128.0.0.0": "",
	"169.253.255.255": "", "169.254.0.0": "private", "169.254.169.254": "private", "169.255.0.0": "",
	"172.15.255.255": "", "172.16.0.0": "private", "172.31.255.255": "private", "172.32.0.0": "",
	"191.255.255.255": "", "192.0.0.0": "private", "192.0.0.255": "private", "192.0.1.0": "",
	"192.0.2.0": "private", "192.0.2.255": "private", "192.0.3.0": "",
	"192.88.98.255": "", "192.88.99.1": "private", "192.88.100.0": "",
	"192.167.255.255": "", "192.168.0.0": "private", "192.168.255.255": "private", "192.169.0.0": "",
	"198.17.255.255": "", "198.18.0.0": "private", "198.19.255.255": "private", "198.20.0.0": "",
	"198.51.99.255": "", "198.51.100.1": "private", "198.51.101.0": "",
	"203.0.112.255": "", "203.0.113.1": "private", "203.0.114.0": "",
	"224.0.0.0": "never", "239.255.255.255": "never", "240.0.0.0": "private", "255.255.255.254": "private", "255.255.255.255": "never",

	"::": "never", "::1": "private", "::2": "private",
	"::8.8.8.8": "private", "::10.0.0.1": "private", // compatible: retired, all of it
	"::ffff:8.8.8.8": "", "::ffff:10.0.0.1": "private", "::ffff:127.0.0.1": "private", "::ffff:169.254.169.254": "private",
	"::ffff:0.0.0.0": "never", "::ffff:224.0.0.1": "never", "::ffff:255.255.255.255": "never",
	"::ffff:0:8.8.8.8": "private", // SIIT, RFC 2765
	"64:ff9b::8.8.8.8": "", "64:ff9b::10.0.0.1": "private", "64:ff9b::127.0.0.1": "private", "64:ff9b::0.0.0.0": "private",
	"64:ff9b::224.0.0.1": "private", "64:ff9b::100.64.0.1": "private", "64:ff9b::255.255.255.255": "private",
	"64:ff9b:1::8.8.8.8": "private", "64:ff9b::1:808:808": "private",
	"2002:808:808::1": "", "2002:a00:1::1": "private", "2002:7f00:1::": "private", "2002:c0a8:101::1": "private",
	"100::1": "private", "2001::1": "private", "2001:0:4136:e378::1": "private", "2001:1ff:ffff::": "private", "2001:200::1": "",
	"2001:db7:ffff::1": "", "2001:db8::1": "private", "2001:db8:ffff::1": "private", "2001:db9::1": "",
	"3ffe:ffff::1": "", "3fff::1": "private", "3fff:fff::1": "private", "3fff:1000::1": "",
	"1fff:ffff::1": "private", "4000::1": "private", "5f00::1": "private",
	"fbff::1": "private", "fc00::1": "private", "fd12:3456::1": "private", "fdff:ffff::1": "private",
	"fe7f::1": "private", "fe80::1": "private", "fe80::1%eth0": "private", "febf::1": "private", "fec0::1": "private",
	"fe80::1%lo": "private", "2a00::1%eth0": "", "::ffff:127.0.0.1%eth0": "private", "10.0.0.1": "private",
	"ff00::1": "never", "ff02::1": "never", "ff02::1%eth0": "never", "ffff::1": "never",
}

func TestGuard(t *testing.T) {
	for text, want := range verdicts {
		addr := netip.MustParseAddr(text)
		if err := (Guard{}).Check(addr); (err == nil) != (want == "") {
			t.Errorf("%s: %v, want %q", text, err, want)
		} else if err != nil && !strings.Contains(err.Error(), addr.String()) {
			t.Errorf("%s is not named: %v", text, err)
		}
		if err := (Guard{AllowPrivate: true}).Check(addr); (err == nil) != (want != "never") {
			t.Errorf("%s with private addresses allowed: %v, want %q", text, err, want)
		}
	}
	for _, g := range []Guard{{}, {AllowPrivate: true}} {
		if err := g.Check(netip.Addr{}); err == nil {
			t.Errorf("%+v lets the zero address pass", g)
		}
	}
}

func TestGuardKnowsItsOwnAddresses(t *testing.T) {
	own := func() []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("::ffff:9.9.9.9"), netip.MustParseAddr("2a00::1%eth0")}
	}
	for _, text := range []string{"8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "9.9.9.9", "2a00::1", "2a00::1%eth1"} {
		addr := netip.MustParseAddr(text)
		if err := (Guard{Own: own}).Check(addr); err == nil || !strings.Contains(err.Error(), "this machine") {
			t.Errorf("%s: %v", text, err)
		}
		if err := (Guard{Own: own, AllowPrivate: true}).Check(addr); err != nil {
			t.Errorf("%s in a closed network: %v", text, err)
		}
	}
	if err := (Guard{Own: own}).Check(netip.MustParseAddr("8.8.4.4")); err != nil {
		t.Error(err)
	}
}

func TestLocalAddrsHasLoopback(t *testing.T) {
	for _, addr := range LocalAddrs() {
		if addr.IsLoopback() {
			return
		}
	}
	t.Errorf("no loopback address among %v", LocalAddrs())
}

// No form in which an IPv4 address can be written may pass when the address
// itself does not.
func FuzzGuard(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1})
	f.Add([]byte{255, 255, 255, 255})
	f.Add(netip.MustParseAddr("64:ff9b::a00:1").AsSlice())
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		err := Guard{}.Check(addr)
		if err == nil && (addr.IsPrivate() || addr.IsLoopback() || !addr.Unmap().IsGlobalUnicast()) {
			t.Errorf("%s passed", addr)
		}
		if !addr.Is4() {
			return
		}
		four := addr.As4()
		for _, prefix := range []string{"::ffff:0:0", "64:ff9b::", "::"} {
			six := netip.MustParseAddr(prefix).As16()
			copy(six[12:], four[:])
			if inner := (Guard{}).Check(netip.AddrFrom16(six)); err != nil && inner == nil {
				t.Errorf("%s passed, %s did not", netip.AddrFrom16(six), addr)
			}
		}
	})
}
