package simulation

import (
	"fmt"
	"strings"
	"testing"
)

// restored is a receiver whose limit falls to a share of itself after 20 minutes, and
// is restored after so many more.
type restored struct {
	name   string
	hidden string // with the factor's schedule to be added
	rate   float64
	factor float64
	low    int // minutes
	reply  string
}

const restoredAfter = 20

func (r restored) scenario() string {
	return fmt.Sprintf(`seed: 3
duration: 3h
resolution: 30s
rules: |
  builtin: false
  rules:
    - {id: everyone, connections: 30, messages_per_connection: 100, connection_rate: unlimited, message_rate: 500/s}
receivers:
  - name: x
    dialect: %s
    domains: [{name: x.example}]
    hosts: [{name: mx.x.example, preference: 10}]
    hidden: {%s, schedule: {steps: [{at: %dm, factor: %g}, {at: %dm, factor: 1}]}}
    latency: {end_of_data: 50ms, jitter: 20}
hand_overs:
  - {at: 0s, recipients: %d}
`, r.reply, r.hidden, restoredAfter, r.factor, restoredAfter+r.low, int(r.rate*60*float64(restoredAfter+r.low+25)))
}

// recovered is how many minutes after the restoration nine tenths of the limit are
// delivered; -1 if that does not come within half an hour.
func (r restored) recovered(t *testing.T) float64 {
	s, err := Parse(r.name, []byte(r.scenario()))
	if err != nil {
		t.Fatal(err)
	}
	report, err := s.Run()
	if err != nil {
		t.Fatal(err)
	}
	sent := report.Receivers[0].Series.Sent
	begin := 2 * (restoredAfter + r.low)
	for i := begin; i+1 < len(sent) && i < begin+60; i++ {
		if (sent[i]+sent[i+1])/2 >= 0.9*r.rate {
			return float64(i-begin+2) / 2
		}
	}
	return -1
}

// After a limit is restored nine tenths of it are used within ten minutes, whatever
// the limit, how far it had fallen, for how long, and what the receiver says.
func TestRecovery(t *testing.T) {
	if raced {
		t.Skip("too large for the race detector")
	}
	var stories []restored
	for _, rate := range []float64{4, 20, 90} {
		for _, fall := range []restored{{factor: 0.1, low: 15}, {factor: 0.3, low: 60}, {factor: 0.6, low: 30}} {
			r, n := fall, len(stories)
			burst := [...]float64{0.1, 2, 15}[(n+n/3)%3]
			r.name = fmt.Sprintf("rate %g factor %g for %dm burst %gs", rate, r.factor, r.low, burst)
			r.hidden = fmt.Sprintf("message_rate: %g/s burst %d", rate, max(1, int(burst*rate)))
			r.rate, r.reply = rate, [...]string{"postfix", "gmail", "yahoo", "exim"}[n%4]
			stories = append(stories, r)
		}
	}
	for _, story := range stories {
		t.Run(strings.ReplaceAll(story.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			if m := story.recovered(t); m < 0 || m > 10 {
				t.Errorf("recovered after %g minutes, want at most 10", m)
			}
		})
	}
}
