package mxrules

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// world drives one path with random events, and keeps the receiver's ledgers
// in true time while the governor sees a clock that may step back.
type world struct {
	t    *rapid.T
	g    *Governor
	true int64 // nanoseconds
	skew int64 // how far the governor's clock is behind

	limits  Limits
	seen    Limits // the highest figures of all limits so far
	open    int
	claimed int // durable claims whose message is not sent yet
	usage   Usage
	epoch   []*ledger // since the last change of limits
	forever []*ledger // over all changes, against the highest figures
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, limits: drawLimits(t)}
	w.g = NewGovernor(w.limits, WithTimings(DefaultTimings().Divide(10)))
	w.seen = w.limits
	w.epoch, w.forever = ledgersOf(w.limits), ledgersOf(w.seen)
	return w
}

func ledgersOf(l Limits) []*ledger {
	return []*ledger{
		{name: "connection rate", rate: l.ConnectionRate},
		{name: "message rate", rate: l.MessageRate},
		{name: "hourly quota of sends", rate: l.HourlyRate()},
		{name: "daily quota of sends", rate: l.DailyRate()},
		{name: "hourly quota of claims", rate: l.HourlyRate()},
		{name: "daily quota of claims", rate: l.DailyRate()},
	}
}

func drawRate(t *rapid.T, label string) Rate {
	return rapid.SampledFrom([]Rate{
		{},
		{Count: 1, Per: time.Second},
		{Count: 3, Per: time.Second, Burst: 2},
		{Count: 7, Per: time.Minute},
		{Count: 100, Per: time.Second, Burst: 10},
		{Count: 6000, Per: time.Minute, Burst: 100},
	}).Draw(t, label)
}

func drawLimits(t *rapid.T) Limits {
	quotas := rapid.SampledFrom([]int{0, 1, 20, 700, 7200, 100_000})
	return Limits{
		Connections:     rapid.IntRange(0, 4).Draw(t, "connections"),
		ConnectionRate:  drawRate(t, "connection rate"),
		MessageRate:     drawRate(t, "message rate"),
		MessagesPerHour: quotas.Draw(t, "hourly"),
		MessagesPerDay:  quotas.Draw(t, "daily"),
		Governor:        Mode(rapid.IntRange(0, int(GovernorOn)).Draw(t, "governor")),
	}
}

func (w *world) now() time.Time { return time.Unix(1_800_000_000, w.true-w.skew) }

func (w *world) note(ledgers ...int) {
	for _, i := range ledgers {
		w.epoch[i].note(w.true)
		w.forever[i].note(w.true)
	}
}

func (w *world) advance(t *rapid.T) {
	unit := rapid.SampledFrom([]time.Duration{1, time.Microsecond, time.Millisecond, time.Second, time.Minute, time.Hour}).Draw(t, "unit")
	w.true += rapid.Int64Range(0, 60).Draw(t, "steps") * int64(unit)
}

func (w *world) stepBack(t *rapid.T) {
	w.skew += int64(rapid.SampledFrom([]time.Duration{
		time.Nanosecond, 10 * time.Millisecond, time.Second, 2 * time.Second, time.Minute, 5 * time.Hour, 1000 * time.Hour,
	}).Draw(t, "step back"))
}

func (w *world) connect(t *rapid.T) {
	for range rapid.IntRange(1, 12).Draw(t, "dials") {
		if hold, _ := w.g.AllowConnection(w.now()); hold != HoldNone {
			return
		}
		w.g.ConnectionOpened(w.now())
		w.open++
		if most := w.limits.Connections; most > 0 && w.open > most {
			t.Fatalf("%d connections open, limit %d", w.open, most)
		}
		w.note(0)
	}
}

func (w *world) disconnect(*rapid.T) {
	if w.open > 0 {
		w.open--
		w.g.ConnectionClosed(w.now())
	}
}

func (w *world) send(t *rapid.T) {
	transactional := rapid.Bool().Draw(t, "transactional")
	for range min(w.claimed, rapid.IntRange(1, 120).Draw(t, "messages")) {
		if hold, _ := w.g.AllowMessage(w.now(), transactional); hold != HoldNone {
			return
		}
		w.sent()
	}
}

func (w *world) sent() {
	w.claimed--
	w.g.MessageSent(w.now())
	w.note(1, 2, 3)
}

func (w *world) claim(t *rapid.T) {
	transactional := rapid.Bool().Draw(t, "transactional")
	for range rapid.IntRange(1, maxClaim).Draw(t, "batch") {
		if hold, _ := w.g.AllowClaim(w.now(), transactional); hold != HoldNone {
			break
		}
		w.g.Claimed(w.now(), 1)
		w.claimed++
		w.note(4, 5)
	}
	w.usage = w.g.Usage()
}

// sendUntil follows the governor's own hints, as a relay does.
func (w *world) sendUntil(t *rapid.T) {
	transactional := rapid.Bool().Draw(t, "transactional")
	for range rapid.IntRange(1, 30).Draw(t, "messages") {
		w.await(t, func() (Hold, time.Time) { return w.g.AllowClaim(w.now(), transactional) })
		w.g.Claimed(w.now(), 1)
		w.claimed++
		w.usage = w.g.Usage()
		w.note(4, 5)
		w.await(t, func() (Hold, time.Time) { return w.g.AllowMessage(w.now(), transactional) })
		w.sent()
		w.g.Worked(w.now())
	}
}

func (w *world) await(t *rapid.T, allow func() (Hold, time.Time)) {
	for tries := 0; ; tries++ {
		hold, at := allow()
		if hold == HoldNone {
			return
		}
		if !at.After(w.now()) {
			t.Fatalf("held by %v until %v, which is not after %v", hold, at, w.now())
		}
		if tries > 10 {
			t.Fatalf("still held by %v after %d waits", hold, tries)
		}
		w.true += at.Sub(w.now()).Nanoseconds()
	}
}

func (w *world) setLimits(t *rapid.T) {
	if rapid.Bool().Draw(t, "other limits") {
		w.limits = drawLimits(t)
		w.seen = highest(w.seen, w.limits)
		w.epoch = ledgersOf(w.limits)
		for i, l := range ledgersOf(w.seen) {
			w.forever[i].rate = l.rate
		}
	}
	w.g.SetLimits(w.now(), w.limits)
	for w.limits.Connections > 0 && w.open > w.limits.Connections {
		w.disconnect(t)
	}
}

// highest joins two sets of limits so that whoever keeps either keeps the result.
func highest(a, b Limits) Limits {
	return Limits{
		ConnectionRate:  higherRate(a.ConnectionRate, b.ConnectionRate),
		MessageRate:     higherRate(a.MessageRate, b.MessageRate),
		MessagesPerHour: higherCount(a.MessagesPerHour, b.MessagesPerHour),
		MessagesPerDay:  higherCount(a.MessagesPerDay, b.MessagesPerDay),
	}
}

func higherCount(a, b int) int {
	if a == 0 || b == 0 {
		return 0
	}
	return max(a, b)
}

func higherRate(a, b Rate) Rate {
	if a.IsZero() || b.IsZero() {
		return Rate{}
	}
	if a.PerSecond() < b.PerSecond() {
		a, b = b, a
	}
	a.Burst = max(a.Burst, b.Burst)
	return a
}

// crash loses everything but the usage written with the last claim.
func (w *world) crash(*rapid.T) {
	w.open, w.claimed = 0, 0
	w.g = NewGovernor(w.limits, WithTimings(DefaultTimings().Divide(10)))
	w.g.Restore(w.now(), w.usage)
}

func (w *world) reply(t *rapid.T) {
	e := Evidence{Effect: Effect(rapid.IntRange(0, int(EffectRest)).Draw(t, "effect")), Text: rapid.SampledFrom([]string{
		"421 4.7.0 later", "450 hourly quota exceeded", "421 connection rate", "554 blocked", "421 4.3.2 not available",
	}).Draw(t, "text")}
	e.Took = time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "took"))
	e.Connection = rapid.Bool().Draw(t, "connection")
	if rapid.Bool().Draw(t, "named delay") {
		e.RetryAfter = time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "delay"))
	}
	e.Messages = rapid.IntRange(0, 5).Draw(t, "carried")
	w.g.Observe(w.now(), e)
}

func (w *world) fail(*rapid.T) { w.g.Failed(w.now(), "connection refused") }

func (w *world) check(t *rapid.T) {
	for _, l := range append(w.epoch, w.forever...) {
		if err := l.overrun(); err != nil {
			t.Fatal(err)
		}
	}
	s := w.g.State(w.now())
	if most := w.limits.Connections; most > 0 && (s.MaxConnections < 1 || s.MaxConnections > most) {
		t.Fatalf("max connections in force %d, rule %d", s.MaxConnections, most)
	}
	if rate := w.limits.MessageRate; !rate.IsZero() && s.MessageRate.PerSecond() > rate.PerSecond() {
		t.Fatalf("rate in force %v, rule %v", s.MessageRate, rate)
	}
}

// No limit is exceeded by any order of events, over any window, across changed
// limits, crashes and a clock that steps back; and no hint leads nowhere.
func TestLimitsAreHard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		t.Repeat(map[string]func(*rapid.T){
			"advance":    w.advance,
			"step back":  w.stepBack,
			"connect":    w.connect,
			"disconnect": w.disconnect,
			"send":       w.send,
			"send until": w.sendUntil,
			"claim":      w.claim,
			"set limits": w.setLimits,
			"crash":      w.crash,
			"reply":      w.reply,
			"fail":       w.fail,
		})
		w.check(t)
	})
}

// A governor that crashes and restores never allows a claim that one which did
// not crash refuses.
func TestRestoreNeverAllowsMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLimits(t)
		steady, crashing := NewGovernor(l), NewGovernor(l)
		now := time.Unix(1_800_000_000, 0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "pause")))
			if rapid.IntRange(0, 3).Draw(t, "crash") == 0 {
				u := crashing.Usage()
				crashing = NewGovernor(l)
				crashing.Restore(now, u)
			}
			transactional := rapid.Bool().Draw(t, "transactional")
			hold, _ := crashing.AllowClaim(now, transactional)
			if hold != HoldNone {
				continue
			}
			if hold, at := steady.AllowClaim(now, transactional); hold != HoldNone {
				t.Fatalf("the restored governor allows what %v holds until %v", hold, at)
			}
			steady.Claimed(now, 1)
			crashing.Claimed(now, 1)
		}
	})
}

// Masks written with wildcards agree with a plain recursive matcher.
func TestMaskAgreesWithModel(t *testing.T) {
	letters := rapid.StringOfN(rapid.SampledFrom([]rune("ab.*?")), 0, 8, -1)
	names := rapid.StringOfN(rapid.SampledFrom([]rune("abAB.")), 0, 10, -1)
	rapid.Check(t, func(t *rapid.T) {
		m, name := letters.Draw(t, "mask"), names.Draw(t, "name")
		if got, want := Mask(m).Match(name), model(trimDot(m), trimDot(name)); got != want {
			t.Fatalf("Mask(%q).Match(%q) = %v, want %v", m, name, got, want)
		}
	})
}

func model(m, s string) bool {
	if m == "" {
		return s == ""
	}
	if m[0] == '*' {
		return model(m[1:], s) || s != "" && model(m, s[1:])
	}
	return s != "" && (m[0] == '?' || lower(m[0]) == lower(s[0])) && model(m[1:], s[1:])
}
