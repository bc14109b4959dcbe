package simulation

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/veredus/veredus/server/config"
)

const warmUpStory = `
name: new source
seed: 1
duration: 80h
pools:
  - name: default
    sources: [{name: cold, address: 192.0.2.1, warm_up: {stage: 2, caps: [24, 48, 96], hours: "00-12"}}]
receivers:
  - name: big
    domains: [{name: big.example}]
    hosts: [{name: mx.big.example, preference: 10}]
  - name: small
    domains: [{name: small.example}]
    hosts: [{name: mx.small.example, preference: 10}]
mix: [{receiver: big, share: 3}, {receiver: small, share: 1}]
hand_overs: [{at: 0s, recipients: 100}]
`

// A source that is being warmed up has one cap for all receivers: 48 on the first day,
// the rest on the second, each within twelve hours.
func TestScenarioOfANewSource(t *testing.T) {
	s, err := Parse("new.yaml", []byte(warmUpStory))
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Run()
	if err != nil {
		t.Fatal(err)
	}
	days := map[int]int64{}
	for _, r := range res.Receivers {
		for hour, n := range r.DeliveredPerHour {
			if n > 0 && hour%24 >= 12 {
				t.Errorf("%s: %d delivered in hour %d", r.Name, n, hour)
			}
			days[hour/24] += n
		}
	}
	if !res.Drained || res.Delivered != 100 || days[0] > 48 || days[0] < 47 || days[1] < 52 {
		t.Errorf("by day %v, %+v", days, res.Figures)
	}
}

// The report tells of each day of a warm-up: its cap, what was sent, and whether it got on.
func TestReportTellsOfWarmUps(t *testing.T) {
	for _, c := range []struct {
		name, from, to string
		want           []WarmUpDay
	}{
		{"enough mail", "recipients: 100", "recipients: 100", []WarmUpDay{
			{Day: 1, Active: true, Stage: 2, Stages: 3, Cap: 48, Sent: 48, Delivered: 48},
			{Day: 2, Active: true, Stage: 3, Stages: 3, Cap: 96, Sent: 52, Delivered: 52, Why: "advanced to stage 3 of 3, 96 messages a day"},
		}},
		{"too little mail", "recipients: 100}", "recipients: 10}, {at: 24h, recipients: 10}", []WarmUpDay{
			{Day: 1, Active: true, Stage: 2, Stages: 3, Cap: 48, Sent: 10, Delivered: 10},
			{Day: 2, Active: true, Stage: 2, Stages: 3, Cap: 48, Sent: 10, Delivered: 10, StalledDays: 1, Holding: true, Why: "held at stage 2 of 3"},
		}},
	} {
		s, err := Parse("new.yaml", []byte(strings.Replace(warmUpStory, c.from, c.to, 1)))
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.Run()
		if err != nil {
			t.Fatal(err)
		}
		if len(res.WarmUps) != 1 || res.WarmUps[0].Source != "cold" {
			t.Fatalf("%s: %+v", c.name, res.WarmUps)
		}
		same := func(got, want WarmUpDay) bool {
			why := strings.HasPrefix(got.Why, want.Why) && (got.Why == "") == (want.Why == "")
			got.Why = want.Why
			return why && reflect.DeepEqual(got, want)
		}
		if got := res.WarmUps[0].Days; !slices.EqualFunc(got, c.want, same) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestWarmUpsOfScenariosAreChecked(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"stage: 2", "stage: 4", "use 1 to 3"},
		{"caps: [24", "caps: [0", "use 1 to 1000000000"},
		{`"00-12"`, `"midnight"`, "no hours of a UTC day"},
		{"    sources: [{name: cold", "    overflow: none\n    sources: [{name: cold", "is no other pool"},
	} {
		if _, err := Parse("new.yaml", []byte(strings.Replace(warmUpStory, c.from, c.to, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.to, err)
		}
	}
}

// What is exported for a real node is a sound configuration of the same plan.
func TestExportedWarmUpIsSound(t *testing.T) {
	s, err := Parse("new.yaml", []byte(warmUpStory))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.writeNode(&out); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse("veredus.yaml", out.Bytes())
	if err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	w := cfg.Relay.Pools[0].Sources[0].WarmUp
	if plan := cfg.Relay.WarmUpPlan(w.Plan); w.Stage != 2 || len(plan.Caps) != 3 || plan.Hours.To != 12 {
		t.Errorf("%+v %+v", w, plan)
	}
}
