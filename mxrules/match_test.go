package mxrules

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func mustRules(t *testing.T, rules []Rule, providers []Provider) *Rules {
	t.Helper()
	set, err := NewRules(rules, providers)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestMaskMatch(t *testing.T) {
	tests := []struct {
		mask, name string
		want       bool
	}{
		{"*.google.com", "alt1.aspmx.l.google.com", true},
		{"*.google.com", "ALT1.ASPMX.L.GOOGLE.COM.", true},
		{"*.GOOGLE.com", "mx.google.com", true},
		{"*.google.com", "google.com", false},
		{"*.google.com", "mx.google.com.evil.example", false},
		{"*.google.com", "mxgoogle.com", false},
		{"mx.example", "mx.example", true},
		{"mx.example.", "mx.example", true},
		{"mx.example", "a.mx.example", false},
		{"mx?.example", "mx7.example", true},
		{"mx?.example", "mx77.example", false},
		{"*", "", true},
		{"*", "anything.example", true},
		{"a*b*c", "aXXbYYbZZc", true},
		{"a*b*c", "aXXbYYbZZ", false},
		{"*.mail.*.example", "in.mail.eu.west.example", true},
	}
	for _, tt := range tests {
		if got := Mask(tt.mask).Match(tt.name); got != tt.want {
			t.Errorf("Mask(%q).Match(%q) = %v, want %v", tt.mask, tt.name, got, tt.want)
		}
	}
}

// A mask made to be slow stays within the product of the lengths.
func TestMaskIsBounded(t *testing.T) {
	mask := Mask(strings.Repeat("*a", 126))
	if mask.Match(strings.Repeat("a", 100_000) + "b") {
		t.Error("matched")
	}
}

func TestFirstMatchWinsPerField(t *testing.T) {
	at := func(line int, fields ...Field) (pos [NumFields]Position) {
		for _, f := range fields {
			pos[f] = Position{File: "mx.yaml", Line: line}
		}
		return pos
	}
	set := mustRules(t, []Rule{
		{
			ID: "vip", Domains: []Mask{"vip.example"}, Set: FieldsOf(FieldConnections),
			Limits: Limits{Connections: 1}, Pos: at(3, FieldConnections),
		},
		{
			ID: "acme", Hosts: []Mask{"*.acme.example", "mx.acme.test"}, Set: FieldsOf(FieldConnections, FieldTLS),
			Limits: Limits{Connections: 4, TLS: TLSVerify}, Pos: at(7, FieldConnections, FieldTLS),
		},
		{
			ID: "everyone", Set: FieldsOf(FieldConnections, FieldMessagesPerConnection),
			Limits: Limits{Connections: 9, MessagesPerConnection: 20}, Pos: at(9, FieldConnections, FieldMessagesPerConnection),
		},
	}, nil)

	e := set.Match(Query{Host: "mx1.acme.example", Domain: "vip.example"})
	if e.Rule != "vip" || e.Limits.Connections != 1 || e.Limits.TLS != TLSVerify || e.Limits.MessagesPerConnection != 20 {
		t.Errorf("vip at acme: %+v", e)
	}
	want := map[Field]Origin{
		FieldConnections:           {"vip", "mx.yaml", 3},
		FieldTLS:                   {"acme", "mx.yaml", 7},
		FieldMessagesPerConnection: {"everyone", "mx.yaml", 9},
		FieldConnectTimeout:        {Rule: "default"},
	}
	for f, o := range want {
		if e.Origins[f] != o {
			t.Errorf("origin of %v is %+v, want %+v", f, e.Origins[f], o)
		}
	}
	if e.Limits.ConnectTimeout != 10*time.Second {
		t.Errorf("connect timeout %v, want the default", e.Limits.ConnectTimeout)
	}
	if e := set.Match(Query{Host: "mx.other.example", Domain: "other.example"}); e.Rule != "everyone" || e.Limits.Connections != 9 || e.Limits.TLS != TLSOpportunistic {
		t.Errorf("someone else: %+v", e)
	}
}

func TestConditionsAreAllMet(t *testing.T) {
	set := mustRules(t, []Rule{{
		ID: "new-sources-at-acme", Set: FieldsOf(FieldConnections), Limits: Limits{Connections: 1},
		Providers: []string{"acme"}, Domains: []Mask{"*.example"},
		Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28"), netip.MustParsePrefix("2001:db8::/32")},
	}}, []Provider{{Name: "acme", Suffixes: []string{".acme.example"}}})
	good := Query{Host: "mx.acme.example", Domain: "a.example", Source: netip.MustParseAddr("192.0.2.3")}
	tests := []struct {
		name   string
		change func(*Query)
		want   bool
	}{
		{"all met", func(*Query) {}, true},
		{"provider given", func(q *Query) { q.Host, q.Provider = "10.example", "ACME" }, true},
		{"mapped source", func(q *Query) { q.Source = netip.MustParseAddr("::ffff:192.0.2.3") }, true},
		{"IPv6 source", func(q *Query) { q.Source = netip.MustParseAddr("2001:db8::1") }, true},
		{"other provider", func(q *Query) { q.Host = "mx.other.example" }, false},
		{"other domain", func(q *Query) { q.Domain = "a.test" }, false},
		{"other source", func(q *Query) { q.Source = netip.MustParseAddr("192.0.2.16") }, false},
		{"no source", func(q *Query) { q.Source = netip.Addr{} }, false},
	}
	for _, tt := range tests {
		q := good
		tt.change(&q)
		if got := set.Match(q).Rule != "default"; got != tt.want {
			t.Errorf("%s: matched %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestProviderOf(t *testing.T) {
	set := mustRules(t, nil, []Provider{
		{Name: "wide", Suffixes: []string{".example"}},
		{Name: "narrow", Suffixes: []string{".Mail.example"}},
	})
	tests := map[string]string{
		"mx.mail.example":  "narrow",
		"MX.MAIL.EXAMPLE.": "narrow",
		"mail.example":     "narrow",
		"mx.example":       "wide",
		"xmail.example":    "wide",
		"example":          "wide",
		"example.test":     "",
		"":                 "",
	}
	for host, want := range tests {
		if got := set.ProviderOf(host); got != want {
			t.Errorf("ProviderOf(%q) = %q, want %q", host, got, want)
		}
	}
}

// The provider table of the built-in rules, row by row.
func TestBuiltinTable(t *testing.T) {
	tests := []struct {
		host, provider        string
		connections, messages int
		tls                   TLS
	}{
		{"gmail-smtp-in.l.google.com", "google", 5, 50, TLSEncrypt},
		{"aspmx2.googlemail.com", "google", 5, 50, TLSEncrypt},
		{"mta5.am0.yahoodns.net", "yahoo", 10, 20, TLSOpportunistic},
		{"hotmail-com.olc.protection.outlook.com", "outlook", 5, 50, TLSOpportunistic},
		{"contoso-com.mail.protection.outlook.com", "microsoft365", 5, 50, TLSOpportunistic},
		{"contoso-com.j-v1.mx.microsoft", "microsoft365", 5, 50, TLSOpportunistic},
		{"mx01.mail.icloud.com", "apple", 10, 5, TLSOpportunistic},
		{"mx1.comcast.net", "comcast", 25, 1000, TLSOpportunistic},
		{"smtp-in.orange.fr", "orange", 2, 100, TLSEncrypt},
		{"mx00.gmx.net", "gmx", 4, 20, TLSOpportunistic},
		{"mx-ha02.web.de", "gmx", 4, 20, TLSOpportunistic},
		{"mx1.qq.com", "qq", 4, 8, TLSOpportunistic},
		{"163mx01.mxmail.netease.com", "netease", 4, 7, TLSOpportunistic},
		{"mx.163.com", "netease", 4, 7, TLSOpportunistic},
		{"mx1.mail.yahoo.co.jp", "yahoo-japan", 2, 20, TLSOpportunistic},
		{"mail.example.com", "", 10, 100, TLSOpportunistic},
	}
	set := Builtin()
	for _, tt := range tests {
		e := set.Match(Query{Host: tt.host})
		want := Defaults()
		want.Connections, want.MessagesPerConnection, want.TLS = tt.connections, tt.messages, tt.tls
		want.ConnectionRate, want.MessageRate = Rate{Count: 100, Per: time.Minute}, Rate{Count: 100, Per: time.Second}
		want.Governor = GovernorOn
		if e.Limits != want {
			t.Errorf("%s: limits %+v, want %+v", tt.host, e.Limits, want)
		}
		if got := set.ProviderOf(tt.host); got != tt.provider {
			t.Errorf("%s: provider %q, want %q", tt.host, got, tt.provider)
		}
		for f, o := range e.Origins {
			if o.File != BuiltinFile {
				t.Errorf("%s: %v comes from %+v, want the built-in table", tt.host, Field(f), o)
			}
		}
	}
}

func TestNewRulesRefuses(t *testing.T) {
	acme := []Provider{{Name: "acme", Suffixes: []string{".acme.example"}}}
	tests := []struct {
		name      string
		rules     []Rule
		providers []Provider
		want      string
	}{
		{"no id", []Rule{{}}, nil, "1 to 64 characters"},
		{"bad id", []Rule{{ID: "a b"}}, nil, `' '`},
		{"same id", []Rule{{ID: "a"}, {ID: "a"}}, nil, "used twice"},
		{"bad mask", []Rule{{ID: "a", Hosts: []Mask{"mx exa"}}}, nil, `mask "mx exa"`},
		{"empty mask", []Rule{{ID: "a", Domains: []Mask{""}}}, nil, "1 to 253"},
		{"unknown provider", []Rule{{ID: "a", Providers: []string{"nobody"}}}, acme, `"nobody" is not defined`},
		{"zero source", []Rule{{ID: "a", Sources: []netip.Prefix{{}}}}, nil, "source range"},
		{"range", []Rule{{ID: "a", Set: FieldsOf(FieldConnections), Limits: Limits{Connections: -1}}}, nil, "connections: -1 is out of range"},
		{"unknown TLS", []Rule{{ID: "a", Set: FieldsOf(FieldTLS), Limits: Limits{TLS: 9}}}, nil, "tls"},
		{"unknown switch", []Rule{{ID: "a", Set: FieldsOf(FieldChunking), Limits: Limits{Chunking: 9}}}, nil, "chunking"},
		{"unknown field", []Rule{{ID: "a", Set: 1 << 31}}, nil, "unknown fields"},
		{"too many conditions", []Rule{{ID: "a", Hosts: make([]Mask, maxConditions+1)}}, nil, "split it"},
		{"same provider", nil, append(acme, acme...), "defined twice"},
		{"same suffix", nil, append(acme, Provider{Name: "other", Suffixes: []string{".ACME.example"}}), "belongs to provider acme"},
		{"no suffix", nil, []Provider{{Name: "acme"}}, "suffixes"},
		{"suffix without dot", nil, []Provider{{Name: "acme", Suffixes: []string{"acme.example"}}}, "leading dot"},
		{"odd suffix", nil, []Provider{{Name: "acme", Suffixes: []string{".acme example"}}}, `' '`},
		{"upper case name", nil, []Provider{{Name: "Acme", Suffixes: []string{".acme.example"}}}, "lower case"},
	}
	for _, tt := range tests {
		_, err := NewRules(tt.rules, tt.providers)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one that says %q", tt.name, err, tt.want)
		}
	}
}

func TestRulesShareNothing(t *testing.T) {
	rules := []Rule{
		{ID: "first", Set: FieldsOf(FieldConnections), Limits: Limits{Connections: 3, MessagesPerHour: 7}},
		{ID: "last", Hosts: []Mask{"mx.example"}},
	}
	set := mustRules(t, rules, nil)
	rules[1].Hosts[0] = "other.example"
	all := set.All()
	if all[1].Hosts[0] != "mx.example" {
		t.Error("the set changed with its input")
	}
	if all[0].Generic() || all[0].Limits.MessagesPerHour != 0 {
		t.Errorf("first rule %+v: want a match on every MX host, and only what it sets", all[0])
	}
	if !set.Equal(mustRules(t, all, nil)) || set.Equal(Builtin()) {
		t.Error("equality is wrong")
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	set := Builtin()
	q := Query{Host: "mx1.mail.yahoo.co.jp", Domain: "yahoo.co.jp", Source: netip.MustParseAddr("192.0.2.1")}
	if n := testing.AllocsPerRun(100, func() { _ = set.Match(q) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func FuzzMask(f *testing.F) {
	f.Add("*.google.com", "mx.google.com")
	f.Add("a*b?c*", "aXbYc")
	f.Add("**??", "é")
	f.Fuzz(func(t *testing.T, mask, name string) {
		if len(mask) > 300 || len(name) > 10_000 {
			return
		}
		got := Mask(mask).Match(name)
		if got != Mask(strings.ToUpper(mask)).Match(name) && isASCII(mask) {
			t.Errorf("Mask(%q).Match(%q) depends on letter case", mask, name)
		}
		if Mask(mask).Check() == nil && !strings.ContainsAny(mask, "*?") && got != strings.EqualFold(trimDot(mask), trimDot(name)) && isASCII(name) {
			t.Errorf("Mask(%q).Match(%q) = %v", mask, name, got)
		}
	})
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func BenchmarkMatch(b *testing.B) {
	b.ReportAllocs()
	set := Builtin()
	q := Query{Host: "mail.example.com", Domain: "example.com", Source: netip.MustParseAddr("192.0.2.1")}
	for b.Loop() {
		_ = set.Match(q)
	}
}
