package unsubscribe

import (
	"errors"
	"strings"
	"testing"

	"github.com/veredus/veredus/mta/compose"
	"github.com/veredus/veredus/mta/returnpath"
)

func TestLinks(t *testing.T) {
	k := keys(t, key(1, 1))
	token := seal(t, k, claim)
	link, err := Link("https://u.brand.example", k, claim)
	if err != nil || link != "https://u.brand.example/u/"+token {
		t.Errorf("%s, %v", link, err)
	}
	if got, want := Mailto("bounce.brand.example", k, claim), "mailto:unsubscribe@bounce.brand.example?subject="+token; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A link that would not fit its header line gives up the message first, never the address or its list.
func TestLinksKeepToTheLine(t *testing.T) {
	k := keys(t, key(1, 1))
	base := "https://u.brand.example"
	long := Claim{
		Address: strings.Repeat("x", 242) + "@brand.example", Tenant: strings.Repeat("t", 63),
		List: strings.Repeat("l", 255), Delivery: strings.Repeat("d", 63), Message: returnpath.Ref{Handover: 1 << 60, Order: 1 << 60},
	}
	link, err := Link(base, k, long)
	if err != nil || len(link) > compose.MaxURL {
		t.Fatalf("%d octets, %v", len(link), err)
	}
	want := Claim{Address: long.Address, Tenant: long.Tenant, List: long.List}
	if got, err := k.Open(strings.TrimPrefix(link, base+Path)); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if got := Mailto("bounce.brand.example", k, long); got != "" {
		t.Errorf("a mailto URL of %d octets", len(got))
	}
	if _, err := Link("https://u.brand.example/"+strings.Repeat("p", 500), k, long); !errors.Is(err, ErrTooLong) {
		t.Error(err)
	}
}

func BenchmarkLinks(b *testing.B) {
	k := keys(b, key(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Link("https://u.brand.example", k, claim); err != nil || Mailto("bounce.brand.example", k, claim) == "" {
			b.Fatal(err)
		}
	}
}
