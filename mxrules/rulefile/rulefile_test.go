package rulefile

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// full has every key.
const full = `# our rules
providers:
  - name: acme
    suffixes: [.mx.acme.example, .ACME.test]
rules:
  - id: acme
    match:
      mx: ["*.mx.acme.example"]
      provider: acme
      domain: [acme.example, "*.acme.example"]
      source: [192.0.2.0/28, 2001:db8::1]
    connections: 2
    messages_per_connection: 20
    connection_rate: 30/min
    message_rate: 6000/min burst 50
    messages_per_hour: 20000
    messages_per_day: 200000
    scope: shared
    tls: verify
    pipelining: off
    chunking: auto
    connect_timeout: 5s
    command_timeout: 2m
    data_timeout: 3m
    final_dot_timeout: 1h
    governor: observe
    reactions: []
  - id: everyone
    connections: unlimited
`

func mustParse(t *testing.T, text string) *mxrules.Rules {
	t.Helper()
	set, err := Parse("mx.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestParseReadsEveryField(t *testing.T) {
	set := mustParse(t, full)
	e := set.Match(mxrules.Query{Host: "in.mx.acme.example", Domain: "acme.example", Source: netip.MustParseAddr("192.0.2.7")})
	want := mxrules.Limits{
		Connections: 2, MessagesPerConnection: 20,
		ConnectionRate:  mxrules.Rate{Count: 30, Per: time.Minute},
		MessageRate:     mxrules.Rate{Count: 6000, Per: time.Minute, Burst: 50},
		MessagesPerHour: 20_000, MessagesPerDay: 200_000,
		Shared: true, TLS: mxrules.TLSVerify, Pipelining: mxrules.Off,
		ConnectTimeout: 5 * time.Second, CommandTimeout: 2 * time.Minute, DataTimeout: 3 * time.Minute, FinalDotTimeout: time.Hour,
		Governor: mxrules.GovernorObserve, Reactions: e.Limits.Reactions,
	}
	if e.Rule != "acme" || e.Limits != want {
		t.Errorf("limits %+v of rule %s, want %+v of acme", e.Limits, e.Rule, want)
	}
	if got := e.Origins[mxrules.FieldTLS]; got != (mxrules.Origin{Rule: "acme", File: "mx.yaml", Line: 19}) {
		t.Errorf("tls comes from %+v, want line 19", got)
	}
	if got := set.ProviderOf("mx.acme.test"); got != "acme" {
		t.Errorf("provider %q, want acme", got)
	}
}

func TestFileRulesComeBeforeBuiltinOnes(t *testing.T) {
	set := mustParse(t, full)
	e := set.Match(mxrules.Query{Host: "gmail-smtp-in.l.google.com", Domain: "gmail.com"})
	if e.Rule != "everyone" || e.Limits.Connections != 0 || e.Limits.MessagesPerConnection != 50 || e.Limits.TLS != mxrules.TLSEncrypt {
		t.Errorf("%+v, want connections from the file and the rest built in", e)
	}
	if o := e.Origins[mxrules.FieldTLS]; o.Rule != "builtin-google" || o.File != mxrules.BuiltinFile {
		t.Errorf("tls comes from %+v, want the built-in rule", o)
	}
}

func TestWithoutBuiltinRules(t *testing.T) {
	set := mustParse(t, "builtin: false\nrules: [{id: everyone, messages_per_connection: 7}]\n")
	e := set.Match(mxrules.Query{Host: "gmail-smtp-in.l.google.com"})
	if e.Limits.MessagesPerConnection != 7 || e.Limits.Connections != 10 || e.Limits.TLS != mxrules.TLSOpportunistic {
		t.Errorf("%+v, want the file's rule over the generic figures, and no provider's", e.Limits)
	}
	if set.ProviderOf("gmail-smtp-in.l.google.com") != "" {
		t.Error("a built-in provider is known")
	}
}

func TestProviderReplacesBuiltinOne(t *testing.T) {
	set := mustParse(t, "providers: [{name: google, suffixes: [.lab.example]}]\n")
	if got := set.ProviderOf("mx.google.com"); got != "" {
		t.Errorf("mx.google.com belongs to %q, want nobody", got)
	}
	if e := set.Match(mxrules.Query{Host: "mx.lab.example"}); e.Rule != "builtin-google" || e.Limits.TLS != mxrules.TLSEncrypt {
		t.Errorf("mx.lab.example: %+v, want the built-in rule of google", e)
	}
}

func TestSharedHosts(t *testing.T) {
	set, err := Parse("f", []byte("providers: [{name: acme, suffixes: [.mx.acme.example], shared_hosts: true, own_domains: [Acme.example]}]\nrules: []\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		provider, domain string
		want             bool
	}{
		{"acme", "customer.example", true},
		{"acme", "acme.example", false},
		{"google", "gmail.com", false},
		{"google", "customer.example", true},
		{"microsoft365", "customer.example", true},
		{"mimecast", "customer.example", true},
		{"proofpoint", "customer.example", true},
		{"barracuda", "customer.example", true},
		{"yahoo", "yahoo.com", false},
		{"", "customer.example", false},
	} {
		if got := set.SharesHosts(tt.provider, tt.domain); got != tt.want {
			t.Errorf("%s at %q shares hosts: %v", tt.domain, tt.provider, got)
		}
	}
	_, err = Parse("f", []byte("providers: [{name: acme, suffixes: [.mx.acme.example], own_domains: [acme.example]}]\nrules: []\n"))
	if err == nil || !strings.Contains(err.Error(), "shared_hosts: true") {
		t.Errorf("own domains of hosts that are not shared: %v", err)
	}
}

func TestSources(t *testing.T) {
	tests := map[string][]string{
		"192.0.2.7":                       {"192.0.2.7/32"},
		"::ffff:192.0.2.7":                {"192.0.2.7/32"},
		"192.0.2.0/28":                    {"192.0.2.0/28"},
		"192.0.2.1-192.0.2.6":             {"192.0.2.1/32", "192.0.2.2/31", "192.0.2.4/31", "192.0.2.6/32"},
		"0.0.0.0 - 255.255.255.255":       {"0.0.0.0/0"},
		"2001:db8::-2001:db8::1":          {"2001:db8::/127"},
		"255.255.255.255-255.255.255.255": {"255.255.255.255/32"},
	}
	for text, want := range tests {
		prefixes, err := parseSource(text)
		var got []string
		for _, p := range prefixes {
			got = append(got, p.String())
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestErrorsNameLineAndRemedy(t *testing.T) {
	rule := func(line string) string { return "rules:\n  - id: a\n    match: {mx: a.example}\n    " + line + "\n" }
	match := func(line string) string {
		return "rules:\n  - id: a\n    connections: 1\n    match:\n      " + line + "\n"
	}
	tests := []struct {
		name, text, want string
	}{
		{"empty", "", "mx.yaml: the file is empty"},
		{"comment only", "# nothing\n", "mx.yaml: the file is empty"},
		{"a list", "- a\n", "mx.yaml:1: a list where a mapping"},
		{"two documents", "rules: []\n---\nrules: []\n", "mx.yaml:2: a second document"},
		{"broken second document", "rules: []\n---\n{\n", "mx.yaml:"},
		{"broken YAML", "rules: []\n\tx: 1\n", "mx.yaml:2: found character that cannot start any token"},
		{"unknown key", "rule: []\n", `mx.yaml:1: unknown key "rule" in file; known are builtin`},
		{"key twice", "rules: []\nbuiltin: true\nrules: []\n", `mx.yaml:3: key "rules" is given twice`},
		{"builtin", "builtin: maybe\n", "mx.yaml:1: builtin must be true or false"},
		{"rules no list", "rules: {}\n", "mx.yaml:1: rules must be a list, not a mapping"},
		{"rule no mapping", "rules:\n  - a\n", `mx.yaml:2: rule must be a mapping`},
		{"unquoted mask", match("mx: *.example"), `mx.yaml:5: did not find expected alphabetic or numeric character`},
		{"unquoted mask remedy", match("mx: *.example"), `put masks that begin with * in quotes`},
		{"anchor", "rules: &a []\n", "mx.yaml:1: anchors and tags"},
		{"alias", "builtin: &a true\nrules: *a\n", "mx.yaml:2: rules must be a list, not an alias"},
		{"tag", rule("connections: !!int 3"), "mx.yaml:4: anchors and tags"},
		{"unknown setting", rule("conections: 3"), `mx.yaml:4: unknown key "conections" in rule; known are id, match, connections`},
		{"no id", "rules:\n  - connections: 3\n", "mx.yaml:2: the rule has no id"},
		{"bad id", "rules:\n  - id: a b\n    connections: 3\n", `mx.yaml:2: rule id: name "a b" has ' '`},
		{"nothing set", "rules:\n  - id: a\n", "mx.yaml:2: rule a sets nothing"},
		{"same id", "rules:\n  - {id: a, connections: 1, match: {mx: b}}\n  - {id: a, connections: 2}\n", "mx.yaml:3: id a is used in line 2 already"},
		{"built-in id", "rules:\n  - {id: builtin-google, connections: 1}\n", "mx.yaml:2: id builtin-google is a built-in rule's"},
		{"generic not last", "rules:\n  - {id: a, connections: 1}\n  - {id: b, connections: 2}\n", "mx.yaml:2: rule a has no match but is not the last"},
		{"word for a count", rule("connections: many"), `mx.yaml:4: connections: "many" is not a whole number or unlimited`},
		{"list for a count", rule("connections: [3]"), "mx.yaml:4: connections must be a text, not a list"},
		{"nothing for a count", rule("connections:"), "mx.yaml:4: connections must be a text, not nothing"},
		{"zero", rule("connections: 0"), "mx.yaml:4: connections: 0 would stop all mail"},
		{"too many", rule("connections: 100000"), "mx.yaml:4: connections: 100000 is out of range; use 1 to 10000"},
		{"negative", rule("messages_per_hour: -5"), "mx.yaml:4: messages_per_hour: -5 is out of range"},
		{"day quota", rule("messages_per_day: 2000000000"), "mx.yaml:4: messages_per_day: 2000000000 is out of range"},
		{"rate", rule("message_rate: 100"), `mx.yaml:4: message_rate: "100" is not a rate; write "100/s"`},
		{"rate range", rule("connection_rate: 1/48h"), "mx.yaml:4: connection_rate: rate 1/48h: the period"},
		{"scope", rule("scope: mine"), `mx.yaml:4: scope: "mine" is not a scope; use shared or per_source`},
		{"tls", rule("tls: yes"), `mx.yaml:4: tls: "yes" is not a TLS requirement; use none`},
		{"switch", rule("pipelining: on"), `mx.yaml:4: pipelining: "on" is not a switch; use auto or off`},
		{"timeout", rule("data_timeout: 4"), `mx.yaml:4: data_timeout: "4" is not a duration; write 10s`},
		{"timeout zero", rule("data_timeout: 0s"), "mx.yaml:4: data_timeout: 0s is out of range"},
		{"timeout long", rule("data_timeout: 2h"), "mx.yaml:4: data_timeout: 2h0m0s is out of range; use 10ms to 1h0m0s"},
		{"empty match", "rules:\n  - {id: a, connections: 1, match: {}}\n", "mx.yaml:2: match is empty"},
		{"unknown match", match("host: a"), `mx.yaml:5: unknown key "host" in match; known are mx`},
		{"empty list", match("mx: []"), "mx.yaml:5: mx is an empty list"},
		{"bad mask", match(`mx: "bücher.example"`), "mx.yaml:5: mx: mask"},
		{"unknown provider", match("provider: gogle"), `mx.yaml:5: provider "gogle" is not defined`},
		{"bad source", match("source: 192.0.2"), `mx.yaml:5: source: "192.0.2" is not an address`},
		{"bad prefix", match("source: 192.0.2.0/40"), `mx.yaml:5: source: "192.0.2.0/40" is not a prefix`},
		{"loose prefix", match("source: 192.0.2.1/28"), "did you mean 192.0.2.0/28 or 192.0.2.1/32?"},
		{"backward range", match("source: 192.0.2.9-192.0.2.1"), "must go from a lower to a higher address"},
		{"provider without suffixes", "providers:\n  - name: acme\n", "mx.yaml:2: provider acme must have 1 to"},
		{"provider twice", "providers:\n  - {name: a, suffixes: [.a]}\n  - {name: a, suffixes: [.b]}\n", "mx.yaml:3: provider a is defined twice"},
		{"suffix twice", "providers:\n  - {name: a, suffixes: [.a]}\n  - {name: b, suffixes: [.A]}\n", "mx.yaml:3: suffix .a belongs to provider a already"},
		{"built-in suffix", "providers:\n  - {name: a, suffixes: [.google.com]}\n", "mx.yaml:2: suffix .google.com of provider a belongs to the built-in provider google"},
	}
	for _, tt := range tests {
		_, err := Parse("mx.yaml", []byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", tt.name, err, tt.want)
		}
	}
}

func TestAllErrorsAreReportedTogether(t *testing.T) {
	_, err := Parse("mx.yaml", []byte("rules:\n  - {id: a, connections: x, tls: y, match: {provider: z}}\n  - {id: b}\n"))
	var list *Errors
	if !errors.As(err, &list) || len(list.List) != 4 {
		t.Fatalf("%v\nwant four errors: three of a, and that b sets nothing", err)
	}
	var one Error
	if !errors.As(err, &one) || one.Line != 2 || one.File != "mx.yaml" {
		t.Errorf("first error %+v, want line 2", one)
	}

	many := "rules:\n" + strings.Repeat("  - {id: a, connections: x}\n", 100)
	_, err = Parse("mx.yaml", []byte(many))
	if !errors.As(err, &list) || len(list.List) != MaxErrors || list.More == 0 {
		t.Errorf("%d errors and %d more, want %d listed", len(list.List), list.More, MaxErrors)
	}
	if n := strings.Count(err.Error(), "\n"); n != MaxErrors {
		t.Errorf("%d lines, want %d", n+1, MaxErrors+1)
	}
}

func TestSizeIsBounded(t *testing.T) {
	_, err := Parse("mx.yaml", bytes.Repeat([]byte("#"), MaxSize+1))
	if err == nil || !strings.Contains(err.Error(), "1048577 bytes; at most 1048576") {
		t.Errorf("error %v, want the size and the bound", err)
	}
	var b strings.Builder
	b.WriteString("rules:\n")
	for range MaxRules + 1 {
		b.WriteString("- {}\n")
	}
	_, err = Parse("mx.yaml", []byte(b.String()))
	if err == nil || !strings.Contains(err.Error(), "10001 rules; at most 10000") {
		t.Errorf("error %v, want the number of rules and the bound", err)
	}
}

func TestPrintReadsBackEqual(t *testing.T) {
	sets := map[string]*mxrules.Rules{
		"built-in": mxrules.Builtin(),
		"full":     mustParse(t, full),
		"own":      mustParse(t, "builtin: false\nproviders: [{name: 'null', suffixes: [.163.com]}]\nrules: [{id: Off, match: {provider: 'null', mx: '*'}, tls: none}]"),
		"nothing":  mustParse(t, "builtin: false"),
	}
	for name, set := range sets {
		var b bytes.Buffer
		if err := Print(set, &b); err != nil {
			t.Fatal(err)
		}
		again, err := Parse(name, b.Bytes())
		if err != nil || !again.Equal(set) {
			t.Errorf("%s does not read back equal: %v\n%s", name, err, b.String())
		}
	}
}

func TestPrintReportsTheWriter(t *testing.T) {
	if err := Print(mxrules.Builtin(), brokenWriter{}); !errors.Is(err, errBroken) {
		t.Errorf("error %v, want the writer's", err)
	}
}

var errBroken = errors.New("disk full")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

// What parses prints and reads back equal; nothing panics.
func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	for _, s := range []string{
		"", "---\n", "rules: *a", "{", "rules:\n  - {id: a, connections: 0x10}\n", "builtin: False",
		"rules:\n- id: ~\n  match: {source: [::-::ffff]}\n  message_rate: 1/h burst 24", "? [a]\n: b", "!!map {}", "\xff\xfe",
		"rules: [{id: a, tls: none, match: {mx: '*', domain: '?'}}, {id: b, chunking: off}]", "%YAML 1.1\n---\nrules: []",
		"providers: [{name: y, suffixes: ['.0']}]", "<<: {rules: []}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := Parse("fuzz", data)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without text")
			}
			return
		}
		var b bytes.Buffer
		if err := Print(set, &b); err != nil {
			t.Fatal(err)
		}
		again, err := Parse("printed", b.Bytes())
		if err != nil || !again.Equal(set) {
			t.Fatalf("does not read back equal: %v\n%s", err, b.String())
		}
	})
}

func BenchmarkParseBuiltin(b *testing.B) {
	var text bytes.Buffer
	if err := Print(mxrules.Builtin(), &text); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		if _, err := Parse("built-in", text.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
}
