package main

import (
	"strings"
	"testing"

	"github.com/veredus/veredus/mxrules"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

const ownRules = `rules:
  - id: my-google
    match: {provider: google}
    connections: 3
    reactions:
      - {text: "slow down", trigger: 3 in 1m, do: rest, for: 2h}
`

func TestRulesCheck(t *testing.T) {
	rules := write(t, "mx.yaml", ownRules)
	sound := write(t, "sound.yaml", `samples:
  - {mx: gmail-smtp-in.l.google.com, reply: "421 4.7.0 too many messages, slow down", expect: {provider: google, rule: my-google, do: rest, for: 2h}}
  - {mx: gmail-smtp-in.l.google.com, reply: "550 5.1.1 no such user", expect: {code: 10, do: nothing}}
  - {mx: mx.acme.example, expect: {rule: builtin-everyone-else}}
`)
	if got := veredus(t, "rules", "check", rules, "--samples", sound); got.status != exitOK || !strings.Contains(got.out, "rest for 2h0m0s, when it comes 3 in 1m, by a reaction of the rule") {
		t.Errorf("status %d:\n%s%s", got.status, got.out, got.err)
	}
	wrong := write(t, "wrong.yaml", "samples:\n  - {mx: mx.acme.example, reply: \"421 busy\", expect: {rule: my-google}}\n")
	if got := veredus(t, "rules", "check", rules, "--samples", wrong, "--json"); got.status != exitFailed || !strings.Contains(got.out, `"unexpected":["rule is builtin-everyone-else, expected my-google"]`) {
		t.Errorf("status %d:\n%s%s", got.status, got.out, got.err)
	}
	for args, text := range map[string]string{
		"rules check /nonexistent":                                   "rule file: open /nonexistent",
		"rules check " + rules + " --mx x --source y --reply 421":    `source "y" is no address`,
		"rules check " + rules + " --mx x --reply 421 --phase lunch": `phase "lunch" is not known`,
		"rules check " + rules + " --samples " + rules:               "field rules not found",
		"rules diff " + rules + " --domain a.example":                "--domain is for the comparison with a node",
		"rules diff":                                  "the rule file is missing",
		"queue retry":                                 "nothing is chosen",
		"queue fail --tenant x":                       "--reason is missing",
		"queue move --tenant x":                       "--pool is missing",
		"paths override google --for 1h":              "no limit is given",
		"paths override google --connections 2":       "--for is missing",
		"paths override google --end --connections 2": "--end ends the override",
		"rules check " + rules + " --samples " + write(t, "no-mx.yaml", "samples: [{reply: x}]\n"): "sample 1: has no mx",
	} {
		if got := veredus(t, strings.Fields(args)...); got.status != exitUsage || !strings.Contains(got.err, text) {
			t.Errorf("%s: status %d, %s", args, got.status, got.err)
		}
	}
}

// A reaction that cannot follow is warned of, with the reason and the remedy.
func TestRulesCheckWarnsOfReactionsThatNeverFollow(t *testing.T) {
	for reactions, want := range map[string]string{
		`{tag: user_unknown, do: slow}`:                                       "user_unknown\", trigger: first, do: slow}, never follows: replies with that tag are not about the path",
		`{tag: no_such_tag, do: slow}`:                                        "never follows: no bounce rule gives that tag",
		`{text: "slow", do: rest}, {tag: rate_limit, text: "slow", do: slow}`: "reaction 2, {tag: \"rate_limit\", text: \"slow\", trigger: first, do: slow}, never follows: reaction 1 fits all its replies before",
		`{text: "tenant limit", do: rest}`:                                    "warning: the reaction {text: \"tenant limit\", trigger: first, do: rest} does not follow: the reply is not about the path",
		`{tag: spam_content, do: hold_delivery}`:                              "",
		`{text: "tenant limit", do: retry_soon}`:                              "retry_soon, by a reaction of the rule",
	} {
		rules := write(t, "mx.yaml", "rules:\n  - id: mine\n    match: {mx: \"*\"}\n    reactions: ["+reactions+"]\n")
		got := veredus(t, "rules", "check", rules, "--mx", "mx.acme.example", "--reply", "451 4.3.2 tenant limit hit")
		if got.status != exitOK || !strings.Contains(got.out, want) || want == "" && strings.Contains(got.out, "never follows") {
			t.Errorf("%s: status %d\n%s%s", reactions, got.status, got.out, got.err)
		}
	}
}

// With the node's configuration, a provider's part that holds a warm-up is told of as well.
func TestRulesCheckWarnsOfTheConfiguration(t *testing.T) {
	rules := write(t, "mx.yaml", ownRules)
	cfg := write(t, "veredus.yaml", "relay: {warm_up: {providers: {google: 0.05}}, pools: {new: [{name: a, warm_up: on}]}}\n")
	got := veredus(t, "rules", "check", rules, "--config", cfg)
	if got.status != exitOK || !strings.Contains(got.out, "warning: relay.warm_up.providers.google: 10 of the 200 messages a day of stage 1 are less than 10 %") {
		t.Errorf("status %d\n%s%s", got.status, got.out, got.err)
	}
	bad := write(t, "bad.yaml", "relay: {warm_up: {providers: {google: 5}}}\n")
	if got := veredus(t, "rules", "check", rules, "--config", bad); got.status != exitUsage || !strings.Contains(got.err, "relay.warm_up.providers.google") {
		t.Errorf("status %d\n%s%s", got.status, got.out, got.err)
	}
}

func TestRulesDiff(t *testing.T) {
	was, is := write(t, "was.yaml", "rules: []\n"), write(t, "is.yaml", ownRules)
	got := veredus(t, "rules", "diff", was, is, "--json")
	want := `{"destination":"provider google","field":"connections","before":"5","before_rule":"builtin-google","before_at":"built-in","after":"3","after_rule":"my-google","after_at":"` + is + `:4"}`
	if got.status != exitOK || !strings.Contains(got.out, want) || strings.Count(got.out, "\n") != 2 {
		t.Errorf("status %d:\n%s%s", got.status, got.out, got.err)
	}
	if one := veredus(t, "rules", "diff", is, "--json"); one.out != got.out {
		t.Errorf("with the built-in rules:\n%s", one.out)
	}
	if same := veredus(t, "rules", "diff", is, is); same.out != "no destination is treated otherwise\n" {
		t.Errorf("with itself:\n%s", same.out)
	}
}

// A node's own view of shared hosts is compared as well, also for a provider's own domains.
func TestRulesDiffWithANodeTellsOfSharedHosts(t *testing.T) {
	was := mxrules.Builtin()
	is, err := loadRules(write(t, "is.yaml", `providers:
  - {name: acme, suffixes: [.acme.example], shared_hosts: true, own_domains: [acme.example]}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		domain, host string
		shared       bool // at the node
		want         string
	}{
		{"firm.example", "mx.acme.example", false, "shared_hosts false -> true"},
		{"firm.example", "mx.acme.example", true, ""},
		{"acme.example", "mx.acme.example", true, "shared_hosts true -> false"},
		{"acme.example", "mx.acme.example", false, ""},
		{"other.example", "mx.other.example", true, "shared_hosts true -> false"},
	} {
		e := &veredusv1.ExplainDestinationResponse{
			Domain: c.domain, Destination: "d", SharedHosts: c.shared, Limits: &veredusv1.EffectiveLimits{},
			MxHosts: []*veredusv1.MxHost{{Host: c.host}},
		}
		m := was.Match(mxrules.Query{Host: c.host, Domain: c.domain})
		for f := range mxrules.Field(mxrules.NumFields) {
			e.Limits.Limits = append(e.Limits.Limits, &veredusv1.Limit{Field: f.String(), Value: m.Limits.Text(f)})
		}
		var got []string
		for _, d := range nodeDifferences(e, is) {
			got = append(got, d.Name()+" "+d.Before.Value+" -> "+d.After.Value)
		}
		if strings.Join(got, "; ") != c.want {
			t.Errorf("%s, shared at the node %v: %q", c.domain, c.shared, got)
		}
	}
}

func FuzzSamples(f *testing.F) {
	f.Add([]byte("samples:\n  - {mx: a.example, reply: \"421 x\", expect: {do: rest, for: 2h}}\n"))
	f.Add([]byte("samples: [&a {mx: x}, *a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseSamples(data)
		if err == nil {
			for _, s := range list {
				if s.MX == "" && s.Domain == "" {
					t.Errorf("a sample without a place: %+v", s)
				}
			}
		}
	})
}
