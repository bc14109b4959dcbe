package dispatch

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// finder is a learner that finds out by itself, after so many answers, that fewer
// connections are better.
type finder struct {
	pace     mxrules.Pace
	answered int
}

func (f *finder) Pace() *mxrules.Pace                     { return &f.pace }
func (f *finder) Bound(time.Duration, mxrules.Limits)     {}
func (f *finder) Refused(time.Duration, mxrules.Evidence) {}
func (f *finder) Advance(time.Duration)                   {}
func (f *finder) Memory(time.Duration) mxrules.Memory     { return mxrules.Memory{} }
func (f *finder) Recall(time.Duration, mxrules.Memory)    {}
func (f *finder) Note(_ time.Duration, e mxrules.Event) {
	if e.Kind != mxrules.EventServed {
		return
	}
	if f.answered++; f.answered == 20 {
		f.pace.Connections = 2
		f.pace.Changes++
	}
}

func TestFewerConnectionsThatWereLearnedAreADecision(t *testing.T) {
	cfg := Config{Learner: func(mxrules.Timings) mxrules.Learner {
		return &finder{pace: mxrules.Pace{Connections: 4, Next: 1 << 62}}
	}}
	w := newWorld(t, cfg, onePool("a"), limited(t, mxrules.Limits{Connections: 8}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.reply = func(Action, *letter) answer { return answer{after: time.Second} }
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 100)
	w.runFor(10 * time.Second)
	v, _ := w.c.Destination(w.now, "example.com")
	if !slices.ContainsFunc(v.Paths[0].Decisions, func(d Decision) bool {
		return d.Action == "cut" && d.Field == "connections" && d.From == "4" && d.To == "2" && d.Cause != ""
	}) {
		t.Errorf("decisions: %+v", v.Paths[0].Decisions)
	}
	if v.Paths[0].SetAt[mxrules.FieldConnections].IsZero() {
		t.Error("it is not known since when there are fewer connections")
	}
	if got := w.told(PathThrottled); len(got) != 1 || got[0] != "connections 4 -> 2" {
		t.Errorf("told: %q", got)
	}
}

func TestARestAndACutOfOneReplyAreBothDecisions(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 4, MessageRate: perSecond(20), Governor: mxrules.GovernorOn})
	w.strict = false
	n := 0
	w.reply = func(Action, *letter) answer {
		if n++; n == 50 {
			e := Evidence{Evidence: mxrules.Evidence{Effect: mxrules.EffectSlow, RetryAfter: 3 * time.Minute, Text: "RCPT: 451 4.7.1 too fast, try again in 3 minutes", Code: 451}}
			return answer{after: 100 * time.Millisecond, evidence: e, again: 3 * time.Minute}
		}
		return answer{after: 100 * time.Millisecond}
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 200)
	w.runFor(10 * time.Second)
	v, _ := w.c.Destination(w.now, "example.com")
	for _, want := range []string{"rested", "cut"} {
		if !slices.ContainsFunc(v.Paths[0].Decisions, func(d Decision) bool {
			return d.Action == want && strings.Contains(d.Cause, "too fast") && (want == "rested" || d.Field == "message_rate")
		}) {
			t.Errorf("no decision %s: %+v", want, v.Paths[0].Decisions)
		}
	}
	if len(w.told(PathThrottled)) != 0 || len(w.told(PathSuspended)) != 1 {
		t.Errorf("suspended %q, throttled %q", w.told(PathSuspended), w.told(PathThrottled))
	}
}

func TestTheRunningDeliveryIsExplained(t *testing.T) {
	for _, first := range []DeliveryID{1, 2} {
		w := newWorld(t, Config{}, onePool("a"), limited(t, mxrules.Limits{Connections: 2, MessageRate: perSecond(5)}))
		w.host("example.com", "example.com", "mx1.example.com")
		w.reply = func(Action, *letter) answer { return answer{after: 10 * time.Millisecond} }
		w.add(Run{ID: RunID(first), Delivery: first, Domain: "example.com"}, 100)
		w.add(Run{ID: RunID(3 - first), Delivery: 3 - first, Domain: "example.com"}, 100)
		w.pause(1)
		w.runFor(10 * time.Second)
		d, _ := w.c.Explain(w.now, "example.com")
		if d.Wait.Cause == CausePaused {
			t.Errorf("delivery %d first: the paused one is explained", first)
		}
		w.unpause(1)
		w.pause(2)
		w.runFor(5 * time.Second)
		if d, _ = w.c.Explain(w.now, "example.com"); d.Wait.Cause == CausePaused {
			t.Errorf("delivery %d first: the other paused one is explained", first)
		}
		w.pause(1)
		w.runFor(time.Second)
		if d, _ = w.c.Explain(w.now, "example.com"); d.Wait.Cause != CausePaused {
			t.Errorf("delivery %d first: both are paused, and %v is explained", first, d.Wait.Cause)
		}
	}
}
