package simulate

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
)

// A forecast tells of each hand-over what became of it, and what held it for how long.
func TestPartsOfHandOvers(t *testing.T) {
	rules := limited(t, func(l *mxrules.Limits) { l.MessageRate = mxrules.Rate{Count: 10, Per: time.Second} })
	cfg := plain(rules, []int64{600}, to("a", func() Receiver { return willing{} }), to("b", func() Receiver { return willing{} }))
	cfg.HandOvers = append(cfg.HandOvers, HandOver{At: time.Hour, Counts: []int64{0, 60}, Priority: 50, Pool: "main"})
	cfg.Forecast = true
	res := outcomeOf(t, cfg)
	a, b := res.Destinations[0].Parts, res.Destinations[1].Parts
	if len(a) != 1 || len(b) != 1 || a[0].HandOver != 0 || b[0].HandOver != 1 {
		t.Fatalf("%+v, %+v", a, b)
	}
	if p := a[0]; p.Recipients != 600 || p.Delivered != 600 || p.Waiting() != 0 || p.Ended < 59*time.Second || p.Ended > time.Minute || p.Tried > p.Ended {
		t.Errorf("%+v", p)
	}
	if p := b[0]; p.Delivered != 60 || p.Ended < time.Hour+5*time.Second || p.Ended > time.Hour+6*time.Second {
		t.Errorf("%+v", p)
	}
	if h := a[0].Held[0]; h.Cause != dispatch.CauseRate || h.Hold != mxrules.HoldMessageRate.String() || h.For < 50*time.Second {
		t.Errorf("held by %+v", a[0].Held)
	}
	if res.Destinations[0].Oracle.Done != 0 || res.Efficiency != 0 {
		t.Error("a forecast has no oracle")
	}
}

// A simulation ends with its context.
func TestCancellation(t *testing.T) {
	cfg := plain(limited(t, func(*mxrules.Limits) {}), []int64{50_000}, to("a", func() Receiver { return willing{} }))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if res, err := RunContext(ctx, cfg); res != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", res, err)
	}
}

// A source that is being warmed up has one cap for all destinations, and goes on from
// the state that it is given.
func TestWarmUpIsShared(t *testing.T) {
	cfg := plain(limited(t, func(*mxrules.Limits) {}), []int64{500, 500}, to("a", func() Receiver { return willing{} }), to("b", func() Receiver { return willing{} }))
	cfg.Pools[0].Sources[0].WarmUp = &mxrules.WarmUpPlan{Caps: []int64{50, 300, 5000}}
	cfg.WarmUps = map[string]mxrules.WarmUpState{"s1": {Address: cfg.Pools[0].Sources[0].Addr.String(), Stage: 2}}
	cfg.Duration = 24*time.Hour - time.Second
	res := outcomeOf(t, cfg)
	sum := res.Destinations[0].Tally.Delivered + res.Destinations[1].Tally.Delivered
	if !res.Together || sum < 295 || sum > 300 {
		t.Errorf("together %v, %d delivered on a day of 300", res.Together, sum)
	}
}
