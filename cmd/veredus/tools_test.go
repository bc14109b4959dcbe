package main

import (
	"strings"
	"testing"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/mxrules/rulefile"
)

func TestRulesPrintsWhatItReads(t *testing.T) {
	printed := veredus(t, "rules")
	printed.want(t, exitOK, "builtin-google", "builtin-everyone-else")
	again := veredus(t, "rules", write(t, "mx.yaml", printed.out))
	again.want(t, exitOK)
	if again.out != printed.out {
		t.Errorf("printed again it is\n%s", again.out)
	}
	veredus(t, "rules", write(t, "mx.yaml", "rules:\n  - id: a\n    conections: 3\n")).want(t, exitUsage, `mx.yaml:3: unknown key "conections"`)
}

// What the demonstration's rule file states is what the receivers hold us to.
func TestDemoRulesStateTheReceiversLimits(t *testing.T) {
	for _, w := range []world.World{world.Default(), world.Open()} {
		rules, err := rulefile.Parse("mx.yaml", []byte(demoRules(w)))
		if err != nil {
			t.Fatalf("%v\n%s", err, demoRules(w))
		}
		stated := statedLimits(rules, &w)
		for _, r := range w.Receivers {
			if got, ok := stated[r.Name]; ok && got != normal(r.Stated) {
				t.Errorf("%s: the rules state %+v, the world %+v", r.Name, got, r.Stated)
			}
		}
		if len(stated) < 3 {
			t.Errorf("limits of %d receivers", len(stated))
		}
	}
}

// normal is a limit with the burst that stands for none.
func normal(l world.Limits) world.Limits {
	for _, r := range []*world.Rate{&l.ConnectionRate, &l.MessageRate} {
		if r.Limited() && r.Burst == 0 {
			r.Burst = 1
		}
	}
	return l
}

func TestStatedLimitsFollowTheBuiltInRules(t *testing.T) {
	w := world.Default()
	stated := statedLimits(mxrules.Builtin(), &w)
	if got := stated["google"]; got.Connections != 5 || got.MessagesPerConnection != 50 {
		t.Errorf("google: %+v", got)
	}
	if got := stated["implicit"]; got.Connections != 10 {
		t.Errorf("a domain without MX: %+v", got)
	}
	if _, ok := stated["null_mx"]; ok {
		t.Error("limits for a receiver without hosts")
	}
}

func TestReceiversPrintAWorldThatLoads(t *testing.T) {
	printed := veredus(t, "receivers", "--print")
	printed.want(t, exitOK, "name: default", "greylister")
	veredus(t, "receivers", "--world", write(t, "world.yaml", printed.out), "--print").want(t, exitOK, "name: default")
	veredus(t, "receivers", "--world", write(t, "world.yaml", strings.Replace(printed.out, "dialect: gmail", "dialect: elvish", 1))).
		want(t, exitUsage, "elvish")
}

func TestPlanKeepsValidityInsideWhatTheRelayAllows(t *testing.T) {
	for _, n := range []int{1, 300, 10_000, 100_000, 10_000_000} {
		p := newPlan(n, 0)
		if p.validity.Hours() > 84 || p.validity.Minutes() < 1 || p.scale < 1 {
			t.Errorf("%d recipients: %+v", n, p)
		}
	}
	if p := newPlan(10_000, 0); p.real(p.validity).Seconds() > 90 {
		t.Errorf("10,000 recipients live for %v; the demonstration shall end within two minutes", p.real(p.validity))
	}
}
