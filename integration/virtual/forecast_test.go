package virtual

import (
	"context"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/integration/simulation"
	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/forecast"
)

// known is a receiver that takes 4 messages a second, which nobody was told.
const known = `
duration: 20h
network: {round_trip: 0s}
node: {commit: 2ms, load: 0s, resolve: 0s}
rules: |
  builtin: false
  rules:
    - id: ours
      connections: 10
      tls: none
      message_rate: 50/s
      governor: on
receivers:
  - name: known
    domains: [{name: known.example}]
    hosts: [{name: mx.known.example, preference: 10}]
    hidden: {message_rate: 4/s burst 10}
    latency: {end_of_data: 50ms}
hand_overs: [{at: 0s, recipients: %d}]
`

// A forecast rests on what the relay has learned: what it says of the next delivery is
// what happens to it, and what the simulator says that knows the receiver.
func TestForecastsComeTrue(t *testing.T) {
	if raced {
		t.Skip("measures; slow under the race detector")
	}
	const first, second = 4000, 6000
	s, err := simulation.Parse("known.yaml", fmt.Appendf(nil, known, second))
	if err != nil {
		t.Fatal(err)
	}
	report, err := s.Run()
	if err != nil {
		t.Fatal(err)
	}
	simulated := time.Duration(report.Seconds * float64(time.Second))
	synctest.Test(t, func(t *testing.T) {
		cfg, err := s.Config()
		if err != nil {
			t.Fatal(err)
		}
		w := newModelled(t, s, cfg.Destinations)
		history := &forecast.History{}
		r := newRig(t, func(r *rig) {
			r.configure(func(c *mta.Config) {
				c.Settings.Rules, c.Settings.Pools, c.Resolver, c.Dial = cfg.Rules, cfg.Pools, w, w.dial
				c.Store = &hearing{c.Store, history}
			})
		})
		defer pass(time.Minute)
		defer r.close()

		before := foretold(t, r, history, cfg.Pools, first)
		r.start("learning", mta.MaxValidity, many(first, "known.example")...)
		r.await("learning", 20*time.Hour)
		after := foretold(t, r, history, cfg.Pools, second)
		began := time.Now()
		r.start("next", mta.MaxValidity, many(second, "known.example")...)
		r.await("next", 20*time.Hour)
		took := time.Since(began)
		t.Logf("foretold %v, simulated %v, took %v; %+v", after.Duration, simulated, took, after)
		for what, is := range map[string]time.Duration{"the relay": took, "the simulator": simulated} {
			if off := math.Abs(after.Duration.Seconds()/is.Seconds() - 1); off > 0.1 {
				t.Errorf("the forecast is %v, %s takes %v: %.0f %% off", after.Duration, what, is, 100*off)
			}
		}
		if o := after.Destinations[0]; o.Bottleneck != "learned rate" || after.Late != 0 {
			t.Errorf("%+v", o)
		}
		if o := before.Destinations[0]; o.Bottleneck != "connections" && o.Bottleneck != "message_rate" {
			t.Errorf("before anything was learned: %+v", o)
		}
	})
}

// hearing tells a history what was settled.
type hearing struct {
	mta.Store
	history *forecast.History
}

// Write implements mta.Store.
func (h *hearing) Write(ctx context.Context, b *mta.Batch) (mta.Written, error) {
	out, err := h.Store.Write(ctx, b)
	if err == nil {
		h.history.Settled(b.Settles)
	}
	return out, err
}

// foretold is the forecast of a delivery to the known receiver.
func foretold(t *testing.T, r *rig, history *forecast.History, pools []dispatch.Pool, messages int64) *forecast.Forecast {
	t.Helper()
	way := dispatch.Route{Destination: "known", Hosts: []dispatch.Host{{Name: "mx.known.example", Preference: 10}}}
	paths, err := r.relay.Prospects(t.Context(), []dispatch.Query{{Route: way, Domain: "known.example", Pool: "default"}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := forecast.Run(t.Context(), forecast.Input{
		Now: time.Now(), Validity: mta.MaxValidity, Pool: campaign.DefaultPool, Pools: pools,
		Destinations: []forecast.Destination{{Name: "known", Fresh: messages, Paths: paths[0], Shown: history.Of("known")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}
