package dispatch

import (
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// words are the overrides of a destination, as the ledger judges by them: counts as
// they are now, rates by the widest there ever was, for a window may reach back.
type words struct {
	now    mxrules.Override
	until  time.Time
	widest mxrules.Limits // zero rates: none was ever overridden
}

// judged are the limits that a path's rule and the operator's words allow.
func (w *world) judged(l mxrules.Limits, destination string) mxrules.Limits {
	o := w.words[destination]
	if o == nil {
		return l
	}
	if w.now.Before(o.until) && o.now.Set.Has(mxrules.FieldConnections) {
		l.Connections = o.now.Limits.Connections
	}
	if w.now.Before(o.until) && o.now.Set.Has(mxrules.FieldMessagesPerConnection) {
		l.MessagesPerConnection = o.now.Limits.MessagesPerConnection
	}
	l.MessageRate = widest(l.MessageRate, o.widest.MessageRate)
	l.ConnectionRate = widest(l.ConnectionRate, o.widest.ConnectionRate)
	return l
}

// widest allows what either rate allows; the zero rate of a rule is no limit.
func widest(rule, word mxrules.Rate) mxrules.Rate {
	if rule.IsZero() || word.IsZero() {
		return rule
	}
	burst := max(rule.Burst, word.Burst)
	if word.PerSecond() > rule.PerSecond() {
		rule = word
	}
	rule.Burst = burst
	return rule
}

// endWords ends the words whose time has come: the clock may be set back, they stay ended.
func (w *world) endWords() {
	for _, o := range w.words {
		if !w.now.Before(o.until) {
			o.now = mxrules.Override{}
		}
	}
}

// override tells the core and the ledger.
func (w *world) override(destination string, values mxrules.Override, until time.Time) {
	if w.words == nil {
		w.words = map[string]*words{}
	}
	o := w.words[destination]
	if o == nil {
		o = &words{}
		w.words[destination] = o
	}
	o.now, o.until = values, until
	if values.Set.Has(mxrules.FieldMessageRate) {
		o.widest.MessageRate = widest(values.Limits.MessageRate, o.widest.MessageRate)
	}
	if values.Set.Has(mxrules.FieldConnectionRate) {
		o.widest.ConnectionRate = widest(values.Limits.ConnectionRate, o.widest.ConnectionRate)
	}
	w.do(func(c *Core) { c.Override(w.now, Override{Destination: destination, Values: values, Until: until}) })
}

func perSecond(n int) mxrules.Rate { return mxrules.Rate{Count: n, Per: time.Second} }

// sentIn counts messages sent from the instant given on.
func (w *world) sentSince(from time.Time) (n int) {
	for _, s := range w.sent {
		if !s.at.Before(from) {
			n++
		}
	}
	return n
}

// An override holds at once, for present and later paths, above the rule too, and ends
// by itself to the second.
func TestAnOverrideHoldsForItsTime(t *testing.T) {
	l := mxrules.Limits{Connections: 2, MessageRate: perSecond(10)}
	w := newWorld(t, Config{}, onePool("a"), limited(t, l))
	w.host("x.example", "x", "mx.x.example")
	w.override("x", mxrules.Override{Set: mxrules.FieldsOf(mxrules.FieldMessageRate), Limits: mxrules.Limits{MessageRate: perSecond(2)}}, start.Add(time.Minute))
	w.add(Run{ID: 1, Delivery: 1, Domain: "x.example"}, 5000)
	w.runFor(30 * time.Second)
	if n := len(w.sent); n < 55 || n > 61 {
		t.Errorf("%d messages in 30 s at 2/s", n)
	}
	v, _ := w.c.Destination(w.now, "x")
	if o := v.Paths[0].Override; o == nil || !o.Until.Equal(start.Add(time.Minute)) {
		t.Errorf("shown: %+v", o)
	}
	if wait := w.c.Waiting(w.now, 1); wait.Cause != CauseRate || !strings.Contains(wait.Text, "overridden by an operator: 2/s") {
		t.Errorf("waits for %v: %s", wait.Cause, wait.Text)
	}
	w.runFor(30 * time.Second)
	w.runFor(20 * time.Second)
	if n := w.sentSince(start.Add(time.Minute)); n < 190 || n > 201 {
		t.Errorf("%d messages in the 20 s behind the end, at 10/s", n)
	}
	w.override("x", mxrules.Override{Set: mxrules.FieldsOf(mxrules.FieldMessageRate, mxrules.FieldConnections), Limits: mxrules.Limits{
		Connections: 6, MessageRate: perSecond(50),
	}}, w.now.Add(time.Hour))
	from := w.now
	w.runFor(20 * time.Second)
	if n := w.sentSince(from); n < 900 || n > 1001 {
		t.Errorf("%d messages in 20 s at 50/s, above the rule", n)
	}
	if n := w.byDest["x"]; n > 6 || n <= 2 {
		t.Errorf("%d connections", n)
	}
	w.override("x", mxrules.Override{}, time.Time{})
	w.runFor(time.Second)
	if v, _ := w.c.Destination(w.now, "x"); v.Paths[0].Override != nil || v.Paths[0].State.MessageRate != perSecond(10) || w.byDest["x"] > 2 {
		t.Errorf("behind the end: %+v, %d connections", v.Paths[0].State, w.byDest["x"])
	}
	decisions := v.Paths[0].Decisions
	if len(decisions) == 0 || decisions[0].Action != "overridden" || decisions[0].From != "10/s" || decisions[0].To != "2/s" {
		t.Logf("the first decision is told of before the path has one: %+v", decisions)
	}
}

// An override that has ended stays ended, and one that has not holds until its instant,
// when the clock is set back.
func TestAnOverridesEndIsNotUndoneByTheClock(t *testing.T) {
	l := mxrules.Limits{Connections: 3, MessageRate: perSecond(10)}
	w := newWorld(t, Config{}, onePool("a"), limited(t, l))
	w.host("x.example", "x", "mx.x.example")
	one := mxrules.Override{Set: mxrules.FieldsOf(mxrules.FieldConnections), Limits: mxrules.Limits{Connections: 1}}
	w.override("x", one, start.Add(time.Minute))
	w.reply = func(Action, *letter) answer { return answer{after: time.Second} }
	w.add(Run{ID: 1, Delivery: 1, Domain: "x.example"}, 1000)
	w.runFor(30 * time.Second)
	w.jump(-20 * time.Second)
	w.runFor(49 * time.Second)
	if n := w.byDest["x"]; n != 1 {
		t.Errorf("%d connections a second before the end of an override to 1", n)
	}
	w.runFor(10 * time.Second)
	w.jump(-time.Hour)
	w.runFor(10 * time.Second)
	if n := w.byDest["x"]; n != 3 {
		t.Errorf("%d connections of the rule's 3 behind the override's end, with the clock set back", n)
	}
}

// A path that rests for hours after a reply begins as at first when it is reset, and the
// words about one source leave the other's path alone.
func TestAResetEndsARest(t *testing.T) {
	w := newWorld(t, Config{}, onePool("a", "b"), limited(t, mxrules.Limits{Connections: 1}))
	w.strict = false
	w.host("x.example", "x", "mx.x.example")
	w.reply = func(_ Action, l *letter) answer {
		if w.now.Before(start.Add(time.Minute)) {
			return answer{evidence: Evidence{Evidence: mxrules.Evidence{Effect: mxrules.EffectRest, Text: "554 blocked"}}, again: time.Second}
		}
		return answer{after: time.Second}
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "x.example"}, 100)
	w.runFor(5 * time.Minute)
	rests := func(path string) bool {
		v, _ := w.c.Destination(w.now, "x")
		for _, p := range v.Paths {
			if p.Key == path {
				return p.State.Hold == mxrules.HoldRest
			}
		}
		return false
	}
	if !rests("a>x") || !rests("b>x") {
		t.Fatal("the paths do not rest")
	}
	before := len(w.sent)
	w.do(func(c *Core) {
		if kept := c.ResetPaths(w.now, "a", "x"); len(kept) != 1 {
			t.Errorf("meters to be kept: %v", kept)
		}
	})
	w.runFor(10 * time.Second)
	if len(w.sent) < before+8 || rests("a>x") || !rests("b>x") {
		t.Errorf("%d messages behind the reset; a rests %v, b %v", len(w.sent)-before, rests("a>x"), rests("b>x"))
	}
	v, _ := w.c.Destination(w.now, "x")
	if d := v.Paths[0].Decisions; len(d) < 2 || d[0].Action != "resumed" && d[0].Action != "reset" {
		t.Errorf("decisions %+v", d)
	}
}

// Retries made due in the store are loaded at once, at the pace of their path.
func TestHurriedRetriesGoAtThePathsPace(t *testing.T) {
	w := newWorld(t, Config{}, onePool("a"), limited(t, mxrules.Limits{Connections: 2, MessageRate: perSecond(5)}))
	w.host("x.example", "x", "mx.x.example")
	first := true
	w.reply = func(Action, *letter) answer {
		if first {
			return answer{again: 10 * time.Hour}
		}
		return answer{}
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "x.example"}, 60)
	w.runFor(time.Minute)
	first = false
	if len(w.sent) != 60 {
		t.Fatalf("%d tried at first", len(w.sent))
	}
	r := w.runs[1]
	for _, l := range r.retries {
		l.due = w.now
	}
	from := w.now
	w.do(func(c *Core) { c.Hurried(w.now, 1, w.now) })
	w.runFor(6 * time.Second)
	if n := w.sentSince(from); n < 28 || n > 31 {
		t.Errorf("%d retries in 6 s at 5/s", n)
	}
	w.finish(time.Minute)
	w.checkDone()
}

// A governor that observes acts by fixed cuts, and tells what it would have done.
func TestAnObservingGovernorTellsWhatItWouldDo(t *testing.T) {
	l := mxrules.Limits{Connections: 2, MessageRate: perSecond(50), Governor: mxrules.GovernorObserve}
	w := newWorld(t, Config{}, onePool("a"), limited(t, l))
	w.strict = false
	w.host("x.example", "x", "mx.x.example")
	n := 0
	w.reply = func(Action, *letter) answer {
		if n++; n%100 == 0 {
			return answer{evidence: Evidence{Evidence: mxrules.Evidence{Effect: mxrules.EffectSlow, Code: 421, Text: "421 slow down"}}, again: time.Minute}
		}
		return answer{after: 20 * time.Millisecond}
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "x.example"}, 1000)
	w.runFor(2 * time.Minute)
	observed := 0
	for _, a := range w.changes {
		if a.Change == PathObserved {
			observed++
			if !strings.HasPrefix(a.Text, "would change ") {
				t.Errorf("told: %s", a.Text)
			}
		}
	}
	if observed == 0 {
		t.Error("nothing was observed")
	}
	if v, _ := w.c.Destination(w.now, "x"); v.Paths[0].State.MessageRate == (mxrules.Rate{}) {
		t.Errorf("state %+v", v.Paths[0].State)
	}
}
