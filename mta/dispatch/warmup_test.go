package dispatch

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/veredus/veredus/mxrules"
)

// warming makes a pool whose first source is being warmed up with the caps given.
func warming(caps []int64, warm ...string) []Pool {
	pools := onePool(append([]string{"cold"}, warm...)...)
	pools[0].Sources[0].WarmUp = &mxrules.WarmUpPlan{Caps: caps}
	return pools
}

// signs makes receivers tell what a warm-up wants to know.
func (w *world) signs(sign mxrules.Sign) {
	w.reply = func(Action, *letter) answer {
		return answer{after: 50 * time.Millisecond, evidence: Evidence{Sign: sign}}
	}
}

// bySource counts what was sent, from an index on.
func (w *world) bySource(from int) map[string]int {
	n := map[string]int{}
	for _, s := range w.sent[from:] {
		source, _, _ := strings.Cut(s.path, ">")
		n[source]++
	}
	return n
}

// byDay counts what a source sent on each UTC day.
func (w *world) byDay(source string) map[int]int {
	n := map[int]int{}
	for _, s := range w.sent {
		if strings.HasPrefix(s.path, source+">") {
			n[int(s.at.Sub(start)/(24*time.Hour))]++
		}
	}
	return n
}

func TestColdSourceSendsItsCapEachDayAndGetsOn(t *testing.T) {
	w := newWorld(t, Config{}, warming([]int64{24, 48, 96}), limited(t, mxrules.Limits{Connections: 5}))
	w.signs(mxrules.SignDelivered)
	for i := range 30 {
		domain := fmt.Sprintf("d%d.example", i)
		w.host(domain, domain, "mx."+domain)
		w.add(Run{ID: RunID(i + 1), Delivery: 1, Domain: domain}, 10)
	}
	var steps []string
	w.watch(WarmUpChanged, func(a Action) {
		if a.Text != "" {
			steps = append(steps, a.Text)
		}
	})
	w.runFor(time.Hour)
	if wait := w.c.Waiting(w.now, 1); wait.Cause != CauseWarmUp || wait.Until.IsZero() || !strings.Contains(wait.Text, "stage 1 of 3") {
		t.Errorf("waiting: %+v", wait)
	}
	w.finish(10 * 24 * time.Hour)
	got := w.byDay("cold")
	for day, most := range []int{24, 48, 96} {
		if got[day] > most || got[day] < most-1 {
			t.Errorf("day %d: %d messages of %d", day, got[day], most)
		}
	}
	if len(steps) != 3 || !strings.Contains(steps[2], "finished") {
		t.Errorf("steps: %q", steps)
	}
	w.checkDone()
}

func TestReleaseIsEvenAndConnectionsAreFew(t *testing.T) {
	w := newWorld(t, Config{}, warming([]int64{240}), limited(t, mxrules.Limits{Connections: 5}))
	w.signs(mxrules.SignDelivered)
	w.host("example.com", "example.com", "mx1.example.com")
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 1000)
	for h := 1; h <= 12; h++ {
		before := len(w.sent)
		w.runFor(time.Hour)
		if n := len(w.sent) - before; n < 9 || n > 11 {
			t.Errorf("hour %d: %d messages", h, n)
		}
	}
	if p := w.paths["cold>example.com"]; len(p.connects) > len(p.messages)+2 {
		t.Errorf("%d connections for %d messages", len(p.connects), len(p.messages))
	}
}

func TestExcessGoesByWarmSourcesOfThePool(t *testing.T) {
	w := newWorld(t, Config{}, warming([]int64{240}, "warm"), limited(t, mxrules.Limits{Connections: 5}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 2000)
	w.finish(time.Hour)
	if n := w.bySource(0); n["cold"] < 1 || n["cold"] > 11 || n["warm"] < 1980 {
		t.Errorf("%v", n)
	}
}

func TestExcessOverflowsToAnotherPoolAndOn(t *testing.T) {
	pools := warming([]int64{240})
	pools[0].Overflow = "second"
	second := warming([]int64{2400})[0]
	second.Name, second.Overflow = "second", "third"
	second.Sources[0].Name = "lukewarm"
	second.Sources[0].Addr = second.Sources[0].Addr.Next()
	third := onePool("x", "y", "warm")[0]
	third.Name, third.Sources = "third", third.Sources[2:]
	w := newWorld(t, Config{}, append(pools, second, third), limited(t, mxrules.Limits{Connections: 5}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 2000)
	w.finish(time.Hour)
	if n := w.bySource(0); n["cold"] < 1 || n["cold"] > 11 || n["lukewarm"] < 1 || n["lukewarm"] > 110 || n["warm"] < 1850 {
		t.Errorf("%v", n)
	}
	w.checkDone()
}

// A pool with a warm source waits for it as any pool does; only what a warm-up keeps
// back overflows.
func TestPoolWithAWarmSourceDoesNotOverflow(t *testing.T) {
	pools := onePool("slow")
	pools[0].Overflow = "other"
	other := onePool("slow", "fast")[0]
	other.Name, other.Sources = "other", other.Sources[1:]
	w := newWorld(t, Config{}, append(pools, other), limited(t, mxrules.Limits{MessageRate: mxrules.Rate{Count: 1, Per: time.Minute}}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 20)
	w.finish(time.Hour)
	if n := w.bySource(0); n["fast"] != 0 {
		t.Errorf("%v", n)
	}
}

func TestTransactionalMailLeavesColdSourcesAlone(t *testing.T) {
	w := newWorld(t, Config{}, warming([]int64{100_000}, "warm"), limited(t, mxrules.Limits{Connections: 2}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com", Class: Transactional}, 50)
	w.add(Run{ID: 2, Delivery: 2, Domain: "example.com"}, 200)
	w.finish(time.Hour)
	for _, s := range w.sent {
		if s.class == Transactional && strings.HasPrefix(s.path, "cold>") {
			t.Fatal("transactional mail went by the cold source")
		}
	}
	alone := newWorld(t, Config{}, warming([]int64{100_000}), limited(t, mxrules.Limits{Connections: 2}))
	alone.host("example.com", "example.com", "mx1.example.com")
	alone.add(Run{ID: 1, Delivery: 1, Domain: "example.com", Class: Transactional}, 5)
	alone.finish(10 * time.Minute)
}

func TestGreylistedMailWaitsForItsColdSource(t *testing.T) {
	w := newWorld(t, Config{}, warming([]int64{24}, "warm"), limited(t, mxrules.Limits{Connections: 5}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.reply = func(_ Action, l *letter) answer {
		ans := answer{after: 50 * time.Millisecond}
		if !l.retry && strings.HasPrefix(l.path, "cold>") {
			ans.again, ans.source = 10*time.Minute, "cold"
		}
		return ans
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 300)
	w.runFor(6 * time.Hour)
	retried := 0
	for _, s := range w.sent {
		if s.retry {
			retried++
			if !strings.HasPrefix(s.path, "cold>") {
				t.Fatalf("a greylisted message went by %s", s.path)
			}
		}
	}
	if retried == 0 {
		t.Error("no greylisted message was tried again")
	}
	w.finish(24 * time.Hour)
}

func TestEngagedRecipientsGoByTheColdSourceFirst(t *testing.T) {
	w := newWorld(t, Config{}, warming([]int64{480}, "warm"), limited(t, mxrules.Limits{Connections: 5}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.engaged = func(l *letter) bool { return l.id <= 15 }
	engaged := map[string]int{}
	w.watch(Send, func(a Action) {
		if a.Msg <= 15 {
			source, _, _ := strings.Cut(a.Path, ">")
			engaged[source]++
		}
	})
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 1000)
	w.finish(3 * time.Hour)
	if engaged["cold"] < 14 {
		t.Errorf("of 15 messages to engaged recipients went %v", engaged)
	}
}

// What a cold source has no room for within the hour is not kept for it.
func TestManyEngagedRecipientsDoNotWait(t *testing.T) {
	w := newWorld(t, Config{}, warming([]int64{24}, "warm"), limited(t, mxrules.Limits{Connections: 5}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.engaged = func(*letter) bool { return true }
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 1000)
	if w.runFor(5 * time.Minute); w.left() > 2 {
		t.Errorf("%d messages wait for the cold source", w.left())
	}
	w.finish(3 * time.Hour)
}

func TestProviderWithACapOfItsOwnHoldsNobodyElse(t *testing.T) {
	pools := warming([]int64{2400})
	pools[0].Sources[0].WarmUp.Providers = []mxrules.ProviderPlan{{Provider: "google", Caps: []int64{24}}}
	w := newWorld(t, Config{}, pools, limited(t, mxrules.Limits{Connections: 5}))
	for i := range 5 {
		domain := fmt.Sprintf("g%d.example", i)
		w.host(domain, "google", "mx."+domain)
		w.domains[domain].route.Provider = "google"
		w.add(Run{ID: RunID(i + 1), Delivery: 1, Domain: domain}, 100)
	}
	w.host("other.example", "other.example", "mx.other.example")
	w.add(Run{ID: 9, Delivery: 1, Domain: "other.example"}, 1000)
	w.runFor(12 * time.Hour)
	n := map[string]int{}
	for _, s := range w.sent {
		n[s.dest]++
	}
	if n["google"] < 11 || n["google"] > 13 || n["other.example"] < 1000 {
		t.Errorf("%v", n)
	}
	if wait := w.c.Waiting(w.now, 1); wait.Cause != CauseWarmUp {
		t.Errorf("waiting: %+v", wait)
	}
}

func TestBlocksStepAColdSourceBackAtOnce(t *testing.T) {
	pools := warming([]int64{2400, 4800, 9600})
	pools[0].Sources[0].Stage = 3
	w := newWorld(t, Config{}, pools, limited(t, mxrules.Limits{Connections: 5}))
	w.signs(mxrules.SignBlocked)
	w.host("example.com", "example.com", "mx1.example.com")
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 1000)
	w.runFor(10 * time.Minute)
	v := w.c.Sources(w.now)[0]
	if v.WarmUp.State.Stage != 2 || v.WarmUp.Cap != 4800 || !strings.Contains(v.WarmUp.State.Cause, "blocks") {
		t.Errorf("%+v", v.WarmUp)
	}
}

func TestOperatorAndReloadKeepTheState(t *testing.T) {
	pools := warming([]int64{24, 240, 2400})
	w := newWorld(t, Config{}, pools, limited(t, mxrules.Limits{Connections: 5}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 5000)
	w.runFor(2 * time.Hour)
	w.do(func(c *Core) {
		if !c.SetWarmUp(w.now, "cold", 3, false) || c.SetWarmUp(w.now, "warm", 3, false) {
			t.Error("SetWarmUp knows other sources")
		}
	})
	w.do(func(c *Core) { c.SetPools(w.now, onePool("cold")) }) // off for a while
	v := w.c.Sources(w.now)[0]
	if v.WarmUp != nil {
		t.Errorf("%+v", v)
	}
	again := warming([]int64{24, 240, 4800})
	w.do(func(c *Core) { c.SetPools(w.now, again) })
	if v = w.c.Sources(w.now)[0]; v.WarmUp.State.Stage != 3 || v.WarmUp.Cap != 4800 || v.WarmUp.State.Sent < 2 {
		t.Errorf("%+v", v.WarmUp)
	}
	before := len(w.sent)
	w.runFor(time.Hour)
	if n := len(w.sent) - before; n < 190 || n > 410 {
		t.Errorf("%d messages in an hour of 4800 a day", n)
	}
	w.do(func(c *Core) { c.SetWarmUp(w.now, "cold", 0, true) })
	w.finish(time.Hour)
}

// Caps hold by the receiver's ledger whatever happens, also over crashes, which lose
// all but what was durable with the last claims, and with a clock that is set. No
// message is lost, and every one is sent in the end.
func TestCapsHoldWhateverHappens(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		most := rapid.Int64Range(1, 300).Draw(rt, "cap")
		pools := warming([]int64{most, 2 * most, 3 * most})
		if rapid.Bool().Draw(rt, "another source") {
			pools = warming([]int64{most, 2 * most, 3 * most}, "warm")
		}
		s := &coldStory{rt: rt, pools: pools, rng: rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 3)), sent: map[int64]int64{}, most: map[int64]int64{}}
		now, state := start, (*mxrules.WarmUpState)(nil)
		for range rapid.IntRange(1, 4).Draw(rt, "lives") {
			now, state = s.live(now, state)
			now = now.Add(time.Duration(rapid.IntRange(0, 3600*10).Draw(rt, "down")) * time.Second)
		}
	})
}

// coldStory is the lives of a node, each ended by a crash.
type coldStory struct {
	rt    *rapid.T
	rng   *rand.Rand
	pools []Pool
	sent  map[int64]int64 // by the cold source, by UTC day
	most  map[int64]int64 // the largest cap in force that day
}

// live plays one life and answers when it ended and what was durable then.
func (s *coldStory) live(now time.Time, state *mxrules.WarmUpState) (time.Time, *mxrules.WarmUpState) {
	w := newWorld(s.rt, Config{MaxSessions: 1 + s.rng.IntN(6), Seed: s.rng.Uint64()}, s.pools, limited(s.rt, mxrules.Limits{Connections: 3}))
	w.now = now
	w.jitter(s.rng)
	c := &chaos{world: w, rt: s.rt, rng: s.rng, broken: map[string]bool{}}
	for i := range 4 {
		c.addDomain(i)
	}
	w.dial, w.reply = c.dialed, s.replies(c)
	w.engaged = func(l *letter) bool { return l.id%3 == 0 }
	if state != nil {
		w.do(func(core *Core) { core.RestoreWarmUp(w.now, "cold", *state) })
	}
	for range s.rng.IntN(8) + 1 {
		c.nextRun++
		w.add(Run{ID: c.nextRun, Delivery: 1, Domain: fmt.Sprintf("domain%d", s.rng.IntN(4)), Class: Class(s.rng.IntN(2))}, s.rng.IntN(200))
		w.runFor(time.Duration(s.rng.IntN(3600*8)) * time.Second)
		s.look(w)
		if s.rng.IntN(4) == 0 {
			c.jump(time.Duration(s.rng.IntN(3600*20)-3600*10) * time.Second)
			s.look(w)
		}
	}
	if w.durable == nil {
		w.durable = state
	}
	return w.now, w.durable
}

func (s *coldStory) replies(c *chaos) func(Action, *letter) answer {
	signs := []mxrules.Sign{mxrules.SignDelivered, mxrules.SignDelivered, mxrules.SignDelivered, mxrules.SignBlocked, mxrules.SignNone, mxrules.SignUnsent}
	return func(a Action, l *letter) answer {
		ans := c.replies(a, l)
		ans.evidence.Sign = signs[s.rng.IntN(len(signs))]
		if unsent := ans.untried || ans.evidence.Sign == mxrules.SignUnsent; !unsent && strings.HasPrefix(a.Path, "cold>") {
			s.count(c.world)
		}
		return ans
	}
}

func (s *coldStory) look(w *world) {
	w.act()
	v := w.c.Sources(w.now)[0].WarmUp
	most := v.Cap
	if !v.Active {
		most = 1 << 40
	}
	day := w.now.Unix() / 86400
	s.most[day] = max(s.most[day], most)
}

func (s *coldStory) count(w *world) {
	s.lookIn(w)
	day := w.now.Unix() / 86400
	if s.sent[day]++; s.sent[day] > s.most[day] {
		w.fail("%d messages by the cold source on day %d, the cap is %d: %+v", s.sent[day], day, s.most[day], w.c.Sources(w.now)[0].WarmUp)
	}
}

// lookIn is look while actions are carried out.
func (s *coldStory) lookIn(w *world) {
	up := w.c.sources["cold"].warmth.up
	most := up.Cap()
	if !up.Active() {
		most = 1 << 40
	}
	day := w.now.Unix() / 86400
	s.most[day] = max(s.most[day], most)
}

// A rule's reaction takes the source that met the reply a stage back, once a day; the
// other sources' warm-ups go on.
func TestAReactionStepsTheWarmUpBack(t *testing.T) {
	reactions, err := mxrules.NewReactions([]mxrules.Reaction{
		{Text: "poor reputation", Count: 2, Within: time.Hour, Do: mxrules.DoStepBack},
	})
	if err != nil {
		t.Fatal(err)
	}
	plan := &mxrules.WarmUpPlan{Caps: []int64{200, 400, 800}}
	pools := []Pool{{Name: "main", Sources: []Source{
		{Name: "a", Weight: 1, WarmUp: plan, Stage: 3}, {Name: "b", Weight: 1, WarmUp: plan, Stage: 3},
	}}}
	w := newWorld(t, Config{}, pools, limited(t, mxrules.Limits{Connections: 2, Governor: mxrules.GovernorOn, Reactions: reactions}))
	w.strict = false
	w.host("example.com", "example.com", "mx1.example.com")
	refused := 0
	w.reply = func(a Action, _ *letter) answer {
		if strings.HasPrefix(a.Path, "a>") && refused < 4 {
			refused++
			return answer{after: time.Second, evidence: Evidence{Evidence: mxrules.Evidence{
				Effect: mxrules.EffectSlow, Code: 421, Text: "MAIL: 421 4.7.0 Poor reputation, slow down",
			}}, again: 20 * time.Minute}
		}
		return answer{after: 50 * time.Millisecond, evidence: Evidence{Sign: mxrules.SignDelivered}}
	}
	stages := map[string]int{}
	w.watch(WarmUpChanged, func(a Action) {
		if a.WarmUp != nil {
			stages[a.Source.Name] = a.WarmUp.Stage
		}
	})
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 300)
	w.runFor(5 * time.Hour)
	if refused < 4 {
		t.Fatalf("%d replies came of the four", refused)
	}
	if stages["a"] != 2 || stages["b"] != 3 && stages["b"] != 0 {
		t.Errorf("stages %v, want a one back from 3, and b where it was", stages)
	}
}
