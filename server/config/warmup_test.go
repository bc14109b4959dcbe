package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/veredus/veredus/mxrules"
)

func TestWarmUpIsOffUnlessConfigured(t *testing.T) {
	c, err := Parse("v.yaml", []byte("relay: {pools: {default: [{name: a}, {name: b, warm_up: off}]}}"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Relay.Pools[0].Sources {
		if s.WarmUp != nil {
			t.Errorf("%s is warmed up", s.Name)
		}
	}
	if len(c.Relay.WarmUps) != 0 || c.Relay.Pools[0].Overflow != "" {
		t.Errorf("%+v", c.Relay)
	}
}

func TestWarmUpOn(t *testing.T) {
	c, err := Parse("v.yaml", []byte("relay: {pools: {default: [{name: a, warm_up: on}]}}"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Relay.Pools[0].Sources[0].WarmUp; got == nil || *got != (WarmUp{Plan: "default", Stage: 1}) {
		t.Errorf("%+v", got)
	}
	if got := c.Relay.WarmUpPlan("default"); !reflect.DeepEqual(got, mxrules.DefaultWarmUpPlan()) {
		t.Errorf("%+v", got)
	}
}

func TestWarmUpPlans(t *testing.T) {
	c, err := Parse("v.yaml", []byte(`
relay:
  warm_up:
    caps: [100, 400]
    hours: "22-06"
    providers: {google: 0.5, Yahoo: [10, 20]}
    plans:
      slow: {hours: 00-24}
  pools:
    new: {sources: [{name: a, warm_up: {stage: 2}}, {name: b, warm_up: {plan: slow, stage: 29}}], overflow: old}
    old: [{name: c}]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &mxrules.WarmUpPlan{
		Caps: []int64{100, 400}, Hours: mxrules.DayHours{From: 22, To: 6},
		Providers: []mxrules.ProviderPlan{{Provider: "google", Share: 0.5}, {Provider: "yahoo", Caps: []int64{10, 20}}},
	}
	if got := c.Relay.WarmUpPlan("default"); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if got := c.Relay.WarmUpPlan("slow"); !reflect.DeepEqual(got, mxrules.DefaultWarmUpPlan()) {
		t.Errorf("%+v", got)
	}
	for _, p := range c.Relay.Pools {
		if p.Name == "new" && (p.Overflow != "old" || p.Sources[1].WarmUp.Stage != 29) {
			t.Errorf("%+v", p)
		}
	}
	if got, want := PlanText(want), "2 stages [100 400], hours 22-06, google 0.5, yahoo [10 20]"; got != want {
		t.Errorf("%q", got)
	}
}

// A part for a provider that is too small for its mail to fill a day holds the warm-up;
// who loads such a plan is told which field does it.
func TestASmallPartForAProviderIsWarnedOf(t *testing.T) {
	c, err := Parse("v.yaml", []byte(`
relay:
  warm_up:
    caps: [100, 200, 4000]
    providers: {google: 0.09, yahoo: 0.1, gmx: [50, 100]}
    plans: {slow: {providers: {google: 0.05}}, even: {providers: {google: 0.5}}}
  pools: {new: [{name: a, warm_up: on}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"relay.warm_up.providers.google: 9 of the 100 messages a day of stage 1 are less than 10 %: ",
		"relay.warm_up.providers.gmx: 100 of the 4000 messages a day of stage 3 are less than 10 %: ",
		"relay.warm_up.plans.slow.providers.google: 10 of the 200 messages a day of stage 1 are less than 10 %: ",
	}
	same := func(got, want string) bool {
		return strings.HasPrefix(got, want) && strings.Contains(got, "give 0.1 or more")
	}
	if !slices.EqualFunc(c.Warnings, want, same) {
		t.Errorf("warnings\n%s", strings.Join(c.Warnings, "\n"))
	}
}
