package doctor_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/veredus/veredus/server/doctor"
)

// The policies are evaluated for 192.0.2.3 and 2001:db8::3, greeting as mail.sender.example,
// from sender.example. Many are the examples of RFC 7208.
func TestSPF(t *testing.T) {
	world := []string{
		"sender.example. A 192.0.2.10", "sender.example. A 192.0.2.11", "sender.example. AAAA 2001:db8::10",
		"near.example. A 192.0.2.3", "near.example. AAAA 2001:db8::3",
		"mx.example. MX 10 near.example.", "mx.example. MX 20 sender.example.",
		"far.example. MX 10 sender.example.",
		"3.2.0.192.in-addr.arpa. PTR mail.sender.example.", "mail.sender.example. A 192.0.2.3",
		"3.2.0.192.list.example. A 127.0.0.2", "192.0.2.3.given.example. A 127.0.0.2",
		"sender.example.of.mail.sender.example.example. A 127.0.0.2",
		"2.0.192.part.example. A 127.0.0.2", "example.sender.reversed.example. A 127.0.0.2",
		text("passes.example", "v=spf1 ip4:192.0.2.0/24 -all"), text("fails.example", "v=spf1 -all"),
		text("neutral.example", "v=spf1 ?all"), text("soft.example", "v=spf1 ~all"), text("invalid.example", "v=spf1 mistake"),
		text("loop.example", "v=spf1 include:loop.example -all"), text("twice.example", "v=spf1 +all"), text("twice.example", "v=spf1 -all"),
		text("redirects.example", "v=spf1 redirect=passes.example"), text("other.example", "google-site-verification=x"),
		text("deep.example", "v=spf1 include:redirects.example -all"), text("local.example", "v=spf1 exists:%{l}.x.example -all"),
	}
	for i := range 12 {
		world = append(world, text(fmt.Sprintf("chain%d.example", i), fmt.Sprintf("v=spf1 include:chain%d.example -all", i+1)),
			fmt.Sprintf("many.example. MX %d h%d.example.", i, i), fmt.Sprintf("h%d.example. A 203.0.113.%d", i, i))
	}
	four, six := "192.0.2.3", "2001:db8::3"
	for _, c := range []struct{ policy, ip, want string }{
		{"v=spf1 -all", four, "fail"},
		{"v=spf1", four, "neutral"},
		{"v=spf1 +all", four, "pass"},
		{"V=SPF1 ALL", four, "pass"},
		{"v=spf1 ?all", four, "neutral"},
		{"v=spf1 ~all", four, "softfail"},
		{"v=spf1 ip4:192.0.2.3 -all", four, "pass"},
		{"v=spf1 ip4:192.0.2.0/28 -all", four, "pass"},
		{"v=spf1 ip4:192.0.2.4 -all", four, "fail"},
		{"v=spf1 -ip4:192.0.2.3 +all", four, "fail"},
		{"v=spf1 ip4:192.0.2.3 -all", six, "fail"},
		{"v=spf1 ip6:2001:db8::3 -all", six, "pass"},
		{"v=spf1 ip6:2001:db8::/32 -all", six, "pass"},
		{"v=spf1 ip6:2001:db9::/32 -all", six, "fail"},
		{"v=spf1 ip4:::ffff:192.0.2.3 -all", four, "permerror"},
		{"v=spf1 a -all", four, "fail"},
		{"v=spf1 a/28 -all", four, "pass"},
		{"v=spf1 a/29 -all", four, "fail"},
		{"v=spf1 a//64 -all", six, "pass"},
		{"v=spf1 a/0//128 -all", six, "fail"},
		{"v=spf1 a:near.example -all", four, "pass"},
		{"v=spf1 a:near.example -all", six, "pass"},
		{"v=spf1 mx:mx.example -all", four, "pass"},
		{"v=spf1 mx:far.example -all", four, "fail"},
		{"v=spf1 mx:far.example/28 -all", four, "pass"},
		{"v=spf1 mx:many.example -all", four, "permerror"},
		{"v=spf1 ptr -all", four, "pass"},
		{"v=spf1 ptr:sender.example -all", four, "pass"},
		{"v=spf1 ptr:other.example -all", four, "fail"},
		{"v=spf1 ptr -all", six, "fail"},
		{"v=spf1 include:passes.example -all", four, "pass"},
		{"v=spf1 include:fails.example ?all", four, "neutral"},
		{"v=spf1 include:neutral.example include:soft.example -all", four, "fail"},
		{"v=spf1 -include:passes.example +all", four, "fail"},
		{"v=spf1 include:nobody.example +all", four, "permerror"},
		{"v=spf1 include:other.example +all", four, "permerror"},
		{"v=spf1 include:invalid.example +all", four, "permerror"},
		{"v=spf1 include:loop.example +all", four, "permerror"},
		{"v=spf1 include:chain3.example +all", four, "permerror"}, // eleven look-ups, and then nothing
		{"v=spf1 include:twice.example +all", four, "permerror"},
		{"v=spf1 include:broken.example +all", four, "temperror"},
		{"v=spf1 a:broken.example +all", four, "temperror"},
		{"v=spf1 ptr:broken.example +all", four, "pass"},
		{"v=spf1 redirect=passes.example", four, "pass"},
		{"v=spf1 redirect=deep.example", four, "pass"},
		{"v=spf1 redirect=fails.example", four, "fail"},
		{"v=spf1 redirect=nobody.example", four, "permerror"},
		{"v=spf1 redirect=fails.example +all", four, "pass"},
		{"v=spf1 redirect=passes.example redirect=passes.example", four, "permerror"},
		{"v=spf1 exp=explain.example unknown=%%x -all", four, "fail"},
		{"v=spf1 a:gone1.example a:gone2.example ip4:192.0.2.3 -all", four, "pass"},
		{"v=spf1 a:gone1.example a:gone2.example a:gone3.example ip4:192.0.2.3 -all", four, "permerror"},
		{"v=spf1 exists:%{ir}.list.example -all", four, "pass"},
		{"v=spf1 exists:%{i}.given.example -all", four, "pass"},
		{"v=spf1 exists:%{i}.given.example -all", six, "fail"},
		{"v=spf1 exists:%{d}.of.%{h}.example -all", four, "pass"},
		{"v=spf1 exists:%{o}.of.%{h}.example -all", four, "pass"},
		{"v=spf1 exists:%{i3r}.part.example -all", four, "pass"},
		{"v=spf1 exists:%{ir3}.part.example -all", four, "permerror"},
		{"v=spf1 exists:%{dr}.reversed.example -all", four, "pass"},
		{"v=spf1 exists:%{l}.x.example -all", four, "unknown"},
		{"v=spf1 ip4:192.0.2.3 exists:%{l}.x.example -all", four, "pass"},
		{"v=spf1 include:local.example -all", four, "unknown"},
		{"v=spf1 exists:%{ir -all", four, "permerror"},
		{"v=spf1 exists:%x -all", four, "permerror"},
		{"v=spf1 exists:%{q} -all", four, "permerror"},
		{"v=spf1 exists:%{d0} -all", four, "permerror"},
		{"v=spf1 exists -all", four, "permerror"},
		{"v=spf1 include -all", four, "permerror"},
		{"v=spf1 all:x", four, "permerror"},
		{"v=spf1 ip4 -all", four, "permerror"},
		{"v=spf1 ip4:192.0.2.3/33 -all", four, "permerror"},
		{"v=spf1 ip4:192.0.2.300 -all", four, "permerror"},
		{"v=spf1 a:near.example/x -all", four, "permerror"},
		{"v=spf1 ptr/24 -all", four, "permerror"},
		{"v=spf1 +all mistake", four, "permerror"}, // a mistake behind what matches
		{"v=spf10 +all", four, "none"},
		{"spf1 +all", four, "none"},
		{"v=spf1  ip4:192.0.2.3   -all ", four, "pass"},
	} {
		z := newZone(t, append(world, text("sender.example", c.policy))...)
		z.broken["broken.example."] = true
		got, why := doctor.SPF(t.Context(), z, netip.MustParseAddr(c.ip), "sender.example", "mail.sender.example")
		if got != c.want || why == "" {
			t.Errorf("%s for %s: %s (%s), want %s", c.policy, c.ip, got, why, c.want)
		}
	}
}

func TestSPFWithoutOneRecord(t *testing.T) {
	ip := netip.MustParseAddr("192.0.2.3")
	z := newZone(t, text("two.example", "v=spf1 +all"), text("two.example", "v=spf1 -all"))
	z.broken["broken.example."] = true
	for domain, want := range map[string]string{"none.example": "none", "two.example": "permerror", "broken.example": "temperror"} {
		if got, why := doctor.SPF(t.Context(), z, ip, domain, "h.example"); got != want {
			t.Errorf("%s: %s (%s), want %s", domain, got, why, want)
		}
	}
}

func TestSuggestedSPFLetsTheSourcesPass(t *testing.T) {
	missing := []netip.Addr{netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("2001:db8::3")}
	for existing, want := range map[string]string{
		"":                              "v=spf1 ip4:192.0.2.3 ip6:2001:db8::3 -all",
		"v=spf1 include:x.example ~all": "v=spf1 ip4:192.0.2.3 ip6:2001:db8::3 include:x.example ~all",
		"v=spf1 redirect=x.example":     "v=spf1 ip4:192.0.2.3 ip6:2001:db8::3 redirect=x.example",
	} {
		got := doctor.SuggestSPF(existing, missing)
		if got != want {
			t.Errorf("%q: %q, want %q", existing, got, want)
		}
		for _, ip := range missing {
			if result, why := doctor.SPF(t.Context(), newZone(t, text("d.example", got)), ip, "d.example", ""); result != "pass" {
				t.Errorf("%q for %s: %s (%s)", got, ip, result, why)
			}
		}
	}
}

// FuzzSPF gives every name the same policy and addresses: no policy panics, or asks
// for more than RFC 7208 allows.
func FuzzSPF(f *testing.F) {
	for _, seed := range []string{
		"v=spf1 -all", "v=spf1 include:%{d}.x a mx ptr exists:%{ir2-}.y redirect=z", "v=spf1 a:b/24//64 ip6:::1/3 ip4:1.2.3.4/8 ~all",
		"v=spf1 exists:%{", "v=spf1 %{i999r.+-}", "v=spf1 +", "v=spf1 =", "v=spf1 a/", "v=spf1 a:%%%_%-//0",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, policy string) {
		z := &everyName{policy: policy}
		for _, ip := range []string{"192.0.2.3", "2001:db8::3"} {
			z.asked = 0
			result, why := doctor.SPF(t.Context(), z, netip.MustParseAddr(ip), "sender.example", "h.example")
			if result == "" || why == "" {
				t.Errorf("%q: no result", policy)
			}
			if z.asked > 150 { // ten terms with ten names each, and the records
				t.Errorf("%q: %d questions", policy, z.asked)
			}
		}
	})
}

// everyName answers alike for every name: the policy, one address, ten hosts.
type everyName struct {
	policy string
	asked  int
}

// Lookup implements doctor.DNS.
func (e *everyName) Lookup(_ context.Context, name string, _ uint16) (doctor.Answer, error) {
	e.asked++
	a := doctor.Answer{Texts: []string{e.policy}, Addrs: []netip.Addr{netip.MustParseAddr("203.0.113.1")}}
	for i := range 10 {
		a.Hosts = append(a.Hosts, doctor.Host{Name: fmt.Sprintf("h%d.example", i)})
		a.Names = append(a.Names, "h."+name)
	}
	return a, nil
}
