package rulefile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/veredus/veredus/mxrules"
)

func parsed(t interface {
	Helper()
	Fatal(...any)
}, text string,
) *mxrules.Rules {
	t.Helper()
	set, err := Parse("mx.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func told(list []Difference) string {
	var lines []string
	for _, d := range list {
		from := ""
		if d.Source != "" {
			from = " from " + d.Source
		}
		lines = append(lines, fmt.Sprintf("%s%s: %v %s -> %s (%s)", d.Destination, from, d.Field, d.Before.Value, d.After.Value, d.After.Origin.Rule))
	}
	return strings.Join(lines, "\n")
}

func TestDiff(t *testing.T) {
	for _, c := range []struct{ name, was, is, want string }{
		{"nothing", "rules: []", "rules: []", ""},
		{
			"a provider", "rules: []", "rules: [{id: g, match: {provider: google}, connections: 3}]",
			"provider google: connections 5 -> 3 (g)",
		},
		{
			"a mask, where a rule before it decides", "rules: [{id: a, match: {mx: '*.acme.example'}, connections: 3}]",
			"rules: [{id: a, match: {mx: '*.acme.example'}, connections: 3}, {id: b, match: {mx: '*.acme.example'}, connections: 9}]", "",
		},
		{
			"everyone else, but for what others decide", "rules: []", "rules: [{id: all, messages_per_hour: 100}]",
			strings.Join([]string{
				"provider apple", "provider barracuda", "provider comcast", "provider gmx", "provider google", "provider microsoft365", "provider mimecast", "provider netease", "provider orange",
				"provider outlook", "provider proofpoint", "provider qq", "provider yahoo", "provider yahoo-japan", "everyone else",
			}, ": messages_per_hour unlimited -> 100 (all)\n") + ": messages_per_hour unlimited -> 100 (all)",
		},
		{
			"a domain at a provider", "rules: []", "rules: [{id: d, match: {provider: google, domain: big.example}, connections: 1}]",
			"provider google, domain big.example: connections 5 -> 1 (d)",
		},
		{
			"one source only", "rules: []", "rules: [{id: s, match: {provider: google, source: 192.0.2.7}, connections: 1}]",
			"provider google from 192.0.2.7/32: connections 5 -> 1 (s)",
		},
		{
			"an order that matters", "rules: [{id: a, match: {mx: 'm.a.example'}, connections: 1}, {id: b, match: {mx: '*.a.example'}, connections: 2}]",
			"rules: [{id: b, match: {mx: '*.a.example'}, connections: 2}, {id: a, match: {mx: 'm.a.example'}, connections: 1}]",
			"mx m.a.example: connections 1 -> 2 (b)",
		},
		{
			"a suffix that moves", "{builtin: false, providers: [{name: p, suffixes: [.a.example, .b.example]}], rules: [{id: p, match: {provider: p}, connections: 2}]}",
			"{builtin: false, providers: [{name: p, suffixes: [.a.example]}], rules: [{id: p, match: {provider: p}, connections: 2}]}",
			"provider p: connections 2 -> 10 (builtin-everyone-else)",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := told(Diff(parsed(t, c.was), parsed(t, c.is))); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// A set does not differ from itself, nor from itself printed and read again.
func TestNoDifferenceFromItself(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var rules []string
		for i := range rapid.IntRange(0, 5).Draw(rt, "rules") {
			match := rapid.SampledFrom([]string{"mx: '*.a.example'", "provider: yahoo", "domain: d.example", "source: 192.0.2.0/24", "mx: 'h?.b.example', domain: '*.c.example'"}).Draw(rt, "match")
			rules = append(rules, fmt.Sprintf("{id: r%d, match: {%s}, connections: %d}", i, match, rapid.IntRange(1, 9).Draw(rt, "connections")))
		}
		set := parsed(rt, "rules: ["+strings.Join(rules, ", ")+"]")
		var text strings.Builder
		if err := Print(set, &text); err != nil {
			rt.Fatal(err)
		}
		if d := Diff(set, set); len(d) != 0 {
			rt.Fatalf("differs from itself: %s", told(d))
		}
		if d := Diff(set, parsed(rt, text.String())); len(d) != 0 {
			rt.Fatalf("differs from what was printed: %s\n%s", told(d), text.String())
		}
	})
}

func TestSetField(t *testing.T) {
	var l mxrules.Limits
	if f, err := SetField(&l, "message_rate", "20/s burst 5"); err != nil || f != mxrules.FieldMessageRate || l.MessageRate.Burst != 5 {
		t.Errorf("message_rate: %v, %v, %v", f, l.MessageRate, err)
	}
	for name, value := range map[string]string{"connections": "0", "connection_rate": "fast", "speed": "9", "reactions": "[]"} {
		if _, err := SetField(&l, name, value); err == nil {
			t.Errorf("%s: %s is taken", name, value)
		}
	}
}

// Whether a provider's hosts are shared decides whom a rest holds: that is a difference.
func TestDiffTellsOfSharedHosts(t *testing.T) {
	const plain = "providers: [{name: acme, suffixes: [.mx.acme.example]}]\nrules: []\n"
	was, err := Parse("was", []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	is, err := Parse("is", []byte(strings.Replace(plain, "example]", "example], shared_hosts: true, own_domains: [acme.example]", 1)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range Diff(was, is) {
		got = append(got, d.Destination+" "+d.Name()+": "+d.Before.Value+" -> "+d.After.Value)
	}
	if want := []string{"provider acme shared_hosts: false -> true", "provider acme own_domains:  -> acme.example"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
