package bounce

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/mta/smtpc"
)

// TestEmbeddedExamples: every example in the embedded file is decided by its own rule.
func TestEmbeddedExamples(t *testing.T) {
	f, err := embedded()
	if err != nil {
		t.Fatal(err)
	}
	table, examples := Default(), 0
	for i := range f.Rules {
		e := &f.Rules[i]
		for _, example := range e.Examples {
			examples++
			in, err := example.input()
			if err != nil {
				t.Fatal(e.errorf("%w", err))
			}
			if v := table.Qualify(in); v.Rule != e.ID {
				t.Errorf("%s:%d: %q is decided by %q", e.ID, e.line, example.Reply, v.Rule)
			}
		}
	}
	t.Logf("%d rules, %d examples", len(f.Rules), examples)
}

func TestOperatorRulesComeFirst(t *testing.T) {
	rules := `
rules:
  - id: own.unknown
    match: {text: ["user unknown"], enhanced: [x.1.1], code: [55x], phase: [rcpt]}
    code: 50
    tag: our_own_word
    reason: Account disabled
    type: soft
    disposition: retry
    max_attempts: 5
    retry_after: 1h
    address: count
    path: fewer_messages
    hold: content
    examples:
      - {reply: "550 5.1.1 User unknown", phase: rcpt}
`
	table, err := Load([]byte(rules), "own.yaml")
	if err != nil {
		t.Fatal(err)
	}
	in := Input{Reply: ParseReply("550 5.1.1 User unknown")}
	if v := table.Qualify(in); v.Code != 10 {
		t.Errorf("without the phase: %+v", v)
	}
	in.Reply.Phase = smtpc.PhaseRCPT
	v := table.Qualify(in)
	check(t, "own rule", v, want{50, ReasonAccountDisabled, TypeSoft, Retry, 5, AddressCount, PathFewerMessages, HoldContent, true})
	if v.Tag != "our_own_word" || v.RetryAfter != time.Hour || v.Rule != "own.unknown" {
		t.Errorf("%+v", v)
	}
}

func TestRuleFileErrors(t *testing.T) {
	rule := func(fields string) string { return "rules:\n  - id: own.a\n    " + fields + "\n" }
	for name, tc := range map[string]struct{ file, want string }{
		"unknown field":       {rule("match: {text: [a b]}\n    colour: red"), "line 4: field colour not found"},
		"unknown in match":    {rule("match: {txt: [a b]}"), "line 3: field txt not found"},
		"no outcome":          {rule("match: {text: [a b]}"), `own.yaml:2: rule "own.a": the rule has no outcome`},
		"empty match":         {rule("tag: policy"), "match is empty"},
		"unknown tag":         {rule("match: {text: [a b]}\n    tag: nonsense"), `tag "nonsense" is not a known one`},
		"unknown code":        {rule("match: {text: [a b]}\n    code: 11"), "code 11 is no bounce code"},
		"bad reply code":      {rule("match: {code: [5yy]}\n    code: 50"), `match.code "5yy"`},
		"bad status":          {rule("match: {enhanced: [7.1]}\n    code: 50"), `match.enhanced "7.1"`},
		"bad phase":           {rule("match: {phase: [lunch]}\n    code: 50"), `match.phase "lunch"`},
		"bad domain":          {rule("match: {domain: [\"*.com\"]}\n    code: 50"), `match.domain "*.com"`},
		"bad disposition":     {rule("match: {text: [a b]}\n    code: 50\n    disposition: maybe"), `disposition "maybe" is unknown`},
		"delivered":           {rule("match: {text: [a b]}\n    code: 50\n    disposition: delivered"), `disposition "delivered" is unknown`},
		"bad reason":          {rule("match: {text: [a b]}\n    code: 50\n    reason: because"), `reason "because" is unknown`},
		"bad delay":           {rule("match: {text: [a b]}\n    code: 50\n    retry_after: 5s"), `retry_after "5s"`},
		"negative attempts":   {rule("match: {text: [a b]}\n    code: 50\n    max_attempts: -1"), "max_attempts -1"},
		"empty phrase":        {rule("match: {text: [\"!!\"]}\n    code: 50"), "match.text[0]"},
		"masked phrase":       {rule("match: {text: [abc12def34]}\n    code: 50"), "can never occur"},
		"open brace":          {rule("match: {text: [\"{a|b\"]}\n    code: 50"), "'{' without '}'"},
		"closing brace":       {rule("match: {text: [\"a}\"]}\n    code: 50"), "'}' without '{'"},
		"nested braces":       {rule("match: {text: [\"{a|{b|c}}\"]}\n    code: 50"), "braces inside braces"},
		"tilde inside":        {rule("match: {text: [\"a~b\"]}\n    code: 50"), "'~' may only stand"},
		"too many variants":   {rule("match: {text: [\"" + strings.Repeat("{a|} b ", 12) + "\"]}\n    code: 50"), "expands to more than"},
		"duplicate id":        {rule("match: {text: [a b]}\n    code: 50") + "  - {id: own.a, match: {text: [c d]}, code: 50}\n", "id used before, at own.yaml:2"},
		"embedded id":         {"rules:\n  - {id: full.phrase, match: {text: [c d]}, code: 50}\n", "id used before"},
		"reserved id":         {"rules:\n  - {id: \"class:5xx\", match: {text: [c d]}, code: 50}\n", "reserved"},
		"no id":               {"rules:\n  - {match: {text: [c d]}, code: 50}\n", "has no id"},
		"foreign example":     {rule("match: {text: [a b]}\n    code: 50\n    examples: [\"550 user unknown\"]"), `is decided by rule "unknown.phrase"`},
		"example's phase":     {rule("match: {text: [a b]}\n    code: 50\n    examples: [{reply: 550 a b, phase: lunch}]"), `phase "lunch" is unknown`},
		"example's field":     {rule("match: {text: [a b]}\n    code: 50\n    examples: [{answer: 550 a b}]"), "field answer not found in an example"},
		"two documents":       {rule("match: {text: [a b]}\n    code: 50") + "---\nrules: []\n", "second YAML document"},
		"no YAML":             {"rules: [", "own.yaml"},
		"provider without id": {"providers:\n  - hosts: [.example.com]\n", "a provider has no id"},
	} {
		_, err := Load([]byte(tc.file), "own.yaml")
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", name, err, tc.want)
		}
	}
}

// TestThousandsOfRules: each of many rules is found, in order.
func TestThousandsOfRules(t *testing.T) {
	var file strings.Builder
	file.WriteString("rules:\n")
	for i := range 2000 {
		fmt.Fprintf(&file, "  - {id: own.%d, match: {text: [\"{mailbox|user} %s * gone\"]}, tag: policy}\n", i, letters(i))
	}
	table, err := Load([]byte(file.String()), "own.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		want := fmt.Sprintf("own.%d", i)
		if v := table.Qualify(Input{Reply: ParseReply("550 your mailbox " + letters(i) + " is now gone")}); v.Rule != want {
			t.Fatalf("rule %s, want %s", v.Rule, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("rules:\n  - {id: a, match: {text: [\"{a|b} * c~ ... $\"]}, code: 50}\n")
	f.Add("providers: [{id: x, text: [\"^ y\"]}]")
	f.Fuzz(func(t *testing.T, content string) {
		if len(content) > 2000 {
			t.Skip()
		}
		own, err := parseRules([]byte(content), "own.yaml")
		if err != nil {
			return
		}
		if table, err := compile(own, new(ruleFile)); err == nil {
			table.Qualify(Input{Reply: ParseReply("550 a b c")})
		}
	})
}
