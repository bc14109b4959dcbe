package server

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veredus/veredus/mxrules/rulefile"
)

func TestRuleChangesNameRuleAndField(t *testing.T) {
	const before = `
builtin: false
providers:
  - {name: acme, suffixes: [.mx.acme.example]}
rules:
  - {id: google, match: {mx: "*.google.com"}, connections: 5, tls: encrypt}
  - {id: old, match: {domain: old.example}, connections: 1}
  - {id: same, match: {provider: acme}, message_rate: 10/s}
`
	for _, c := range []struct {
		name, after string
		want        []string
	}{
		{"nothing", before, nil},
		{"comments and order of keys", "# other words\n" + strings.Replace(before, "connections: 5, tls: encrypt", "tls: encrypt, connections: 5", 1), nil},
		{"a limit", strings.Replace(before, "connections: 5", "connections: 8", 1), []string{`mx_rules: rule "google": connections 5 -> 8`}},
		{"a limit taken away and one given", strings.Replace(before, "connections: 5", "messages_per_hour: 100", 1), []string{
			`mx_rules: rule "google": connections 5 -> unset`, `mx_rules: rule "google": messages_per_hour unset -> 100`,
		}},
		{"a condition", strings.Replace(before, "old.example", "older.example", 1), []string{`mx_rules: rule "old": matches other paths`}},
		{"condition and limit", strings.Replace(before, "old.example}, connections: 1", "older.example}, connections: 2", 1), []string{
			`mx_rules: rule "old": connections 1 -> 2`, `mx_rules: rule "old": matches other paths`,
		}},
		{"another rule", strings.Replace(before, "id: old", "id: new", 1), []string{`mx_rules: rule "new" added`, `mx_rules: rule "old" removed`}},
		{"a provider", strings.Replace(before, ".mx.acme.example", ".mail.acme.example", 1), []string{
			`mx_rules: provider "acme": suffixes .mx.acme.example -> .mail.acme.example`,
		}},
		{"the order", `
builtin: false
providers:
  - {name: acme, suffixes: [.mx.acme.example]}
rules:
  - {id: old, match: {domain: old.example}, connections: 1}
  - {id: google, match: {mx: "*.google.com"}, connections: 5, tls: encrypt}
  - {id: same, match: {provider: acme}, message_rate: 10/s}
`, []string{"mx_rules: the order of the rules changed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			was, err := rulefile.Parse("mx.yaml", []byte(before))
			if err != nil {
				t.Fatal(err)
			}
			is, err := rulefile.Parse("mx.yaml", []byte(c.after))
			if err != nil {
				t.Fatal(err)
			}
			if got := ruleChanges(was, is); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestBounceRuleChanges(t *testing.T) {
	const before = "rules:\n  - {id: a, match: {text: [xyzzy]}, tag: spam}\n  - {id: b, match: {text: [plugh]}, tag: spam}\n"
	for _, c := range []struct {
		name, after string
		want        []string
	}{
		{"nothing", before, nil},
		{"a comment", "# why\n" + before, []string{"bounce_rules: providers, the order of the rules or comments changed"}},
		{"a rule", strings.Replace(before, "plugh", "plover", 1), []string{`bounce_rules: rule "b": changed`}},
		{"rules", strings.Replace(before, "id: b", "id: c", 1), []string{`bounce_rules: rule "c" added`, `bounce_rules: rule "b" removed`}},
		{"no file any more", "", []string{`bounce_rules: rule "a" removed`, `bounce_rules: rule "b" removed`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := bounceChanges([]byte(before), []byte(c.after)); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestKeyAndPoolChanges(t *testing.T) {
	dir := t.TempDir()
	key(t, dir, "a.pem")
	key(t, dir, "b.pem")
	file := func(yaml string) *settings {
		set, err := loadSettings(parse(t, dir, yaml))
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	was := file(`
dkim: {domains: [{domain: a.example, selector: s1, key_file: a.pem}, {domain: b.example, selector: s1, key_file: b.pem, bounce_domain: r.b.example}]}
relay: {pools: {default: [{name: x, address: 127.0.0.1, hostname: x.a.example}, {name: y, address: 127.0.0.2, hostname: y.a.example}]}}
`)
	is := file(`
dkim: {domains: [{domain: a.example, selector: s1, key_file: b.pem, bounce_domain: r.a.example}, {domain: c.example, selector: s2, key_file: a.pem}]}
relay: {pools: {default: [{name: x, address: 127.0.0.1, hostname: x.a.example, weight: 3}], warm: [{name: z, address: 127.0.0.3, hostname: z.a.example}]}}
`)
	want := []string{
		`dkim: key "s1._domainkey.a.example": replaced by another`,
		`dkim: key "s2._domainkey.c.example" added`,
		`dkim: key "s1._domainkey.b.example" removed`,
		`dkim: domain "a.example": bounce_domain the From domain -> r.a.example`,
		`dkim: domain "c.example" added`,
		`dkim: domain "b.example" removed`,
		`pools: source "default/x": 127.0.0.1 as x.a.example, weight 1 -> 127.0.0.1 as x.a.example, weight 3`,
		`pools: source "warm/z" added`,
		`pools: source "default/y" removed`,
	}
	if got := changes(was, is); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := changes(was, was); got != nil {
		t.Errorf("nothing changed, but %q", got)
	}
}

func TestTheReturnPathFollowsTheFromDomain(t *testing.T) {
	dir := t.TempDir()
	key(t, dir, "a.pem")
	set, err := loadSettings(parse(t, dir, `
dkim:
  domains:
    - {domain: brand.example, selector: s1, key_file: a.pem, bounce_domain: bounce.brand.example}
    - {domain: shop.brand.example, selector: s1, key_file: a.pem}
`))
	if err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]string{
		"brand.example":        "bounce.brand.example",
		"News.Brand.example":   "bounce.brand.example",
		"shop.brand.example":   "shop.brand.example",
		"x.shop.brand.example": "x.shop.brand.example",
		"other.example":        "other.example",
	} {
		if got := set.bounceDomain(from); got != want {
			t.Errorf("return path of %s in %s, want %s", from, got, want)
		}
	}
}

func TestEverythingWrongIsReportedAtOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "mx.yaml"), "rules:\n  - id: a\n    connections: lots\n    speed: 3\n")
	write(t, filepath.Join(dir, "bounces.yaml"), "rules:\n  - {id: a, tag: nonsense}\n")
	write(t, filepath.Join(dir, "key.pem"), "not a key")
	_, err := loadSettings(parse(t, dir, `
mx_rules: mx.yaml
bounce_rules: bounces.yaml
dkim: {domains: [{domain: a.example, selector: s1, key_file: key.pem}, {domain: b.example, selector: s1, key_file: missing.pem}]}
`))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"mx.yaml:3: connections", `mx.yaml:4: unknown key "speed"`, "bounces.yaml", "no PEM block", "missing.pem"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("nothing about %q in:\n%v", want, err)
		}
	}
}
