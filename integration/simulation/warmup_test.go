package simulation

import (
	"bytes"
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
