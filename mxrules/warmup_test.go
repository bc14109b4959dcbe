package mxrules

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// midnight begins every story.
var midnight = time.Date(2030, 3, 1, 0, 0, 0, 0, time.UTC)

// sender drives a warm-up as a dispatcher does, and counts as a receiver does: by the
// UTC day in which a message comes.
type sender struct {
	t        interface{ Fatalf(string, ...any) }
	w        *WarmUp
	now      time.Time
	sent     map[int64]int64
	changes  []WarmUpChange
	provider string
	sign     Sign
}

func newSender(t interface{ Fatalf(string, ...any) }, plan *WarmUpPlan, stage int) *sender {
	return &sender{t: t, w: NewWarmUp(plan, stage), now: midnight, sent: map[int64]int64{}, sign: SignDelivered}
}

// send lets mail go as fast as it may until the time given, at most so much.
func (s *sender) send(until time.Time, most int64) (n int64) {
	for s.now.Before(until) {
		room, at := s.w.Room(s.now, s.provider)
		switch {
		case n >= most, room == 0 && !at.Before(until):
			s.now = until
			return n
		case room == 0:
			if !at.After(s.now) {
				s.t.Fatalf("at %v: ask again at %v", s.now, at)
			}
			s.now = at
			continue
		}
		s.w.Claimed(s.now, s.provider)
		s.sent[dayOf(s.now)]++
		s.w.Ended(s.now, s.provider, s.sign)
		n++
	}
	return n
}

// day sends for the rest of the UTC day.
func (s *sender) day(most int64) int64 {
	n := s.send(dayStart(dayOf(s.now)+1), most)
	s.w.Tick(s.now)
	s.changes = append(s.changes, s.w.Changes()...)
	return n
}

func (s *sender) last() WarmUpChange {
	if len(s.changes) == 0 {
		return WarmUpChange{}
	}
	return s.changes[len(s.changes)-1]
}

func TestFullDaysGoThroughTheTable(t *testing.T) {
	plan := DefaultWarmUpPlan()
	plan.Caps = plan.Caps[:8]
	s := newSender(t, plan, 1)
	for stage, most := range plan.Caps {
		if n := s.day(1 << 40); n != most {
			t.Fatalf("stage %d: %d messages of %d", stage+1, n, most)
		}
	}
	if s.w.Active() || s.last().Kind != WarmUpFinished {
		t.Errorf("behind the last stage: %+v, %+v", s.w.State(), s.changes)
	}
	if n, _ := s.w.Room(s.now, ""); n < 1<<40 {
		t.Errorf("a finished source has room for %d", n)
	}
}

func TestReleaseIsEvenOverTheHours(t *testing.T) {
	for _, hours := range []string{"00-24", "08-20", "22-04"} {
		h, err := ParseDayHours(hours)
		if err != nil {
			t.Fatal(err)
		}
		plan := &WarmUpPlan{Caps: []int64{7200}, Hours: h}
		s := newSender(t, plan, 1)
		for at := 0; at < 24; at++ {
			n := s.send(midnight.Add(time.Duration(at+1)*time.Hour), 1<<40)
			from := int64(at) * hour
			want := 7200 * (h.passed(from+hour) - h.passed(from)) / h.length()
			if n < want-1 || n > want+1 {
				t.Errorf("%s: hour %d: %d messages, want %d", hours, at, n, want)
			}
		}
		if got := s.sent[dayOf(midnight)]; got != 7200 {
			t.Errorf("%s: %d that day", hours, got)
		}
	}
}

func TestUnusedReleaseIsCaughtUpSlowly(t *testing.T) {
	s := newSender(t, &WarmUpPlan{Caps: []int64{14400}}, 1) // 10 a minute
	s.send(midnight.Add(time.Minute), 1<<40)
	s.now = midnight.Add(14 * time.Hour)
	if n := s.send(s.now.Add(time.Second), 1<<40); n > 50 {
		t.Errorf("%d at once after a long silence, more than five minutes' worth", n)
	}
	if n := s.send(midnight.Add(15*time.Hour), 1<<40); n < 1150 || n > 1210 {
		t.Errorf("%d in the hour after, want twice the even pace of 600", n)
	}
}

func TestStageAdvancesOnRealDeliveriesOnly(t *testing.T) {
	for _, c := range []struct {
		name  string
		sign  Sign
		mail  int64
		stage int
		says  string
	}{
		{"enough", SignDelivered, 1 << 40, 2, "advanced to stage 2 of 29"},
		{"just enough", SignDelivered, 181, 2, "advanced"},
		{"too little", SignDelivered, 180, 1, "180 of 200 were delivered"},
		{"put off", SignDeferred, 1 << 40, 1, "200 deferrals of 200 attempts"},
		{"of no meaning", SignNone, 1 << 40, 1, "0 of 200 were delivered"},
	} {
		s := newSender(t, DefaultWarmUpPlan(), 1)
		s.sign = c.sign
		s.day(c.mail)
		if got := s.w.State().Stage; got != c.stage || !strings.Contains(s.last().Text, c.says) {
			t.Errorf("%s: stage %d, %+v", c.name, got, s.last())
		}
	}
}

func TestBadSignsHoldAndStepBack(t *testing.T) {
	for _, c := range []struct {
		name       string
		sign       Sign
		n          int
		complaints int
		stage      int
		says       string
	}{
		{"one block is an accident", SignBlocked, 1, 0, 6, "advanced"},
		{"two in a hundred blocks hold", SignBlocked, 110, 0, 5, "110 blocks"},
		{"many blocks step back", SignBlocked, 300, 0, 4, "stepped back to stage 4 of 29, 2000 messages a day"},
		{"an old list holds", SignBounced, 200, 0, 5, "200 unknown recipients"},
		{"a bad list steps back", SignBounced, 600, 0, 4, "unknown recipients"},
		{"a few complaints hold", SignNone, 0, 6, 5, "complaints"},
		{"more step back", SignNone, 0, 16, 4, "complaints"},
	} {
		s := newSender(t, DefaultWarmUpPlan(), 5)
		s.send(midnight.Add(23*time.Hour+57*time.Minute), 1<<40) // nearly all of 5000
		for range c.n {
			s.w.Noted(s.now, c.sign)
		}
		for range c.complaints {
			s.w.Complained(s.now)
		}
		s.day(1 << 40)
		if got := s.w.State().Stage; got != c.stage || !strings.Contains(s.last().Text, c.says) {
			t.Errorf("%s: stage %d, %+v", c.name, got, s.changes)
		}
	}
}

func TestStepBackHoldsAtOnceAndOnceADay(t *testing.T) {
	s := newSender(t, DefaultWarmUpPlan(), 3)
	s.send(midnight.Add(15*time.Hour), 1<<40) // more than the 500 of stage 2
	for range 100 {
		s.w.Noted(s.now, SignBlocked)
	}
	if got := s.w.State(); got.Stage != 2 {
		t.Fatalf("stage %d", got.Stage)
	}
	if n := s.day(1 << 40); n != 0 {
		t.Errorf("%d more after stepping back under what was sent", n)
	}
	if got := s.w.State(); got.Stage != 2 || got.Sent != 0 {
		t.Errorf("the day after: %+v", got)
	}
}

func TestStalledDaysEndTheWarmUp(t *testing.T) {
	s := newSender(t, DefaultWarmUpPlan(), 4)
	for d := 1; d <= 10; d++ {
		if !s.w.Active() {
			t.Fatalf("off before day %d", d)
		}
		s.day(50)
		if d < 10 && s.last().Kind != WarmUpHeld || len(s.changes) != d {
			t.Fatalf("day %d: %+v", d, s.changes)
		}
	}
	if s.last().Kind != WarmUpSwitchedOff || s.w.Active() {
		t.Errorf("after ten days: %+v", s.last())
	}
}

// Mail for one provider alone, which has a part of the cap, is as much as may go: the
// warm-up gets on. It never ends for want of mail while a cap holds mail back.
func TestAProvidersCapThatIsUsedUpIsAFullDay(t *testing.T) {
	for _, tt := range []struct {
		name  string
		one   ProviderPlan
		mail  int64
		stage int // after 15 days
		off   bool
	}{
		{"half of the cap", ProviderPlan{Provider: "big", Share: 0.5}, 1 << 40, 16, false},
		{"half of the cap, and too little mail", ProviderPlan{Provider: "big", Share: 0.5}, 20, 1, true},
		{"too small a part", ProviderPlan{Provider: "big", Caps: []int64{7}}, 1 << 40, 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plan := DefaultWarmUpPlan()
			plan.Providers = []ProviderPlan{tt.one}
			if held := plan.HeldBy("big") == 1; held != (tt.stage == 1 && !tt.off) {
				t.Errorf("held by the provider's part from the first stage on: %v", held)
			}
			s := newSender(t, plan, 1)
			s.provider = "big"
			for range 15 {
				if stage := s.w.State().Stage; stage <= len(plan.Caps) && s.w.Active() {
					if n := s.day(tt.mail); n > plan.ProviderCap(stage, "big") {
						t.Fatalf("%d messages at stage %d, whose cap is %d", n, stage, plan.ProviderCap(stage, "big"))
					}
				}
			}
			if got := s.w.State(); got.Stage != tt.stage || s.w.Active() == tt.off {
				t.Errorf("after 15 days: stage %d, active %v; %+v", got.Stage, s.w.Active(), s.last())
			}
		})
	}
}

func TestDaysHeldByBadSignsNeverLiftTheCap(t *testing.T) {
	s := newSender(t, DefaultWarmUpPlan(), 1)
	s.sign = SignDeferred
	for range 30 {
		s.day(1 << 40)
	}
	if got := s.w.State(); got.Stage != 1 || !s.w.Active() || got.Stalled != 0 {
		t.Errorf("after a month of deferrals: %+v", got)
	}
}

func TestSilenceCostsAStageEachMonth(t *testing.T) {
	s := newSender(t, DefaultWarmUpPlan(), 6)
	s.day(100)
	for d := 1; d <= 95; d++ {
		s.day(0)
	}
	if got := s.w.State().Stage; got != 3 || len(s.changes) != 4 {
		t.Errorf("stage %d after 95 silent days: %+v", got, s.changes)
	}
	asleep := newSender(t, DefaultWarmUpPlan(), 6) // the same while the node is down
	asleep.day(100)
	asleep.now = asleep.now.Add(95 * 24 * time.Hour)
	asleep.w.Tick(asleep.now)
	if got := asleep.w.State().Stage; got != 3 {
		t.Errorf("stage %d after 95 days asleep", got)
	}
}

func TestProvidersHaveCapsOfTheirOwn(t *testing.T) {
	plan := &WarmUpPlan{Caps: []int64{100, 1000}, Providers: []ProviderPlan{
		{Provider: "google", Share: 0.3}, {Provider: "yahoo", Caps: []int64{7}},
	}}
	if err := plan.Check(); err != nil {
		t.Fatal(err)
	}
	s := newSender(t, plan, 1)
	google, yahoo := int64(0), int64(0)
	for h := 1; h <= 24; h++ {
		end := midnight.Add(time.Duration(h) * time.Hour)
		s.provider = "google"
		google += s.send(end.Add(-30*time.Minute), 1<<40)
		s.provider = "yahoo"
		yahoo += s.send(end, 1<<40)
	}
	if google > 30 || google < 29 || yahoo > 7 || yahoo < 6 {
		t.Errorf("google %d of 30, yahoo %d of 7", google, yahoo)
	}
	if got := plan.ProviderCap(2, "yahoo"); got != 7 {
		t.Errorf("the last cap of a list holds on: %d", got)
	}
}

func TestOperatorSetsTheStage(t *testing.T) {
	s := newSender(t, DefaultWarmUpPlan(), 1)
	s.send(midnight.Add(time.Hour), 1<<40)
	s.w.SetStage(s.now, 7)
	if n := s.day(1 << 40); n < 19_000 || n > 20_000 {
		t.Errorf("%d on the rest of the day", n)
	}
	s.w.SetStage(s.now, 30)
	s.w.SwitchOff(s.now, "an operator said so")
	if got := s.w.State(); s.w.Active() || got.Status != WarmUpOff || !strings.Contains(got.Cause, "operator") {
		t.Errorf("off: %+v", got)
	}
	s.w.SetStage(s.now, 2)
	if !s.w.Active() || s.w.Cap() != 500 {
		t.Errorf("begun anew: %+v", s.w.State())
	}
}

func TestShorterPlanFinishesAndLongerDoesNotBeginAgain(t *testing.T) {
	s := newSender(t, DefaultWarmUpPlan(), 9)
	s.w.Tick(s.now)
	s.w.SetPlan(s.now, &WarmUpPlan{Caps: []int64{10, 20}})
	if s.w.Active() {
		t.Error("a stage behind the plan is finished")
	}
	s.w.SetPlan(s.now, DefaultWarmUpPlan())
	if s.w.Active() || len(s.w.Changes()) != 1 {
		t.Error("what is finished stays so")
	}
}

// No UTC day gets more than its cap, whatever happens: restarts with and without
// claims under way, a clock that is set, claims given back, signs, plans, silence.
// The ledger is the receiver's: a message counts on the day in which it is sent.
func TestCapsAreExact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		caps := rapid.SliceOfN(rapid.Int64Range(1, 400), 1, 6).Draw(rt, "caps")
		plan := &WarmUpPlan{Caps: caps, Providers: []ProviderPlan{{Provider: "google", Share: 0.5}}}
		plan.Hours = rapid.SampledFrom([]DayHours{{}, {8, 20}, {22, 3}}).Draw(rt, "hours")
		m := &machine{rt: rt, plan: plan, w: NewWarmUp(plan, 1), now: midnight.Add(time.Duration(rapid.Int64Range(0, day).Draw(rt, "start")))}
		m.whole, m.google = map[int64]int64{}, map[int64]int64{}
		m.most = map[int64]int64{}
		m.rng = rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 4))
		for range 200 {
			m.step()
		}
	})
}

// machine plays random events and keeps the receiver's ledger.
type machine struct {
	rt            *rapid.T
	rng           *rand.Rand
	plan          *WarmUpPlan
	w             *WarmUp
	now           time.Time
	claimed       []string // providers of the messages claimed and not sent
	durable       []byte   // the state of the last claim
	whole, google map[int64]int64
	most          map[int64]int64 // the largest cap in force on each day
}

func (m *machine) step() {
	m.look()
	switch m.rng.IntN(12) {
	case 0, 1, 2, 3:
		m.claim(1 + m.rng.IntN(40))
	case 4, 5:
		m.sendAll()
	case 6:
		m.giveBack()
	case 7:
		m.restart()
	case 8:
		m.now = m.now.Add(-time.Duration(m.rng.Int64N(30 * hour)))
		if first := dayStart(m.w.State().Day - maxAhead); m.now.Before(first) {
			m.now = first // farther back the days are counted anew
		}
	case 9:
		for range 3 {
			m.w.Complained(m.now)
		}
	default:
		m.now = m.now.Add(time.Duration(m.rng.Int64N(10 * hour)))
	}
	m.look()
}

// look notes the cap in force; a step back lowers it within a day.
func (m *machine) look() {
	before := m.w.State().Day
	if m.w.Tick(m.now); m.w.State().Day != before && m.durable != nil {
		m.durable, _ = m.w.State().MarshalBinary() // the day's judgement is an event
	}
	today := dayOf(m.now)
	most := m.w.Cap()
	if !m.w.Active() {
		most = 1 << 40
	}
	m.most[today] = max(m.most[today], most)
}

func (m *machine) claim(wanted int) {
	for range wanted {
		provider := []string{"google", ""}[m.rng.IntN(2)]
		if n, _ := m.w.Room(m.now, provider); n == 0 {
			return
		}
		m.w.Claimed(m.now, provider)
		m.claimed = append(m.claimed, provider)
		m.durable, _ = m.w.State().MarshalBinary()
	}
}

func (m *machine) sendAll() {
	// A dispatcher gives claims back for which the new day has no room.
	for len(m.claimed) > 0 && m.w.Over(m.now, m.claimed[0]) {
		m.giveBack()
	}
	today := dayOf(m.now)
	if today < m.w.State().Day {
		return // as long as the clock is behind nothing is sent
	}
	for _, p := range m.claimed {
		m.whole[today]++
		if p == "google" {
			m.google[today]++
		}
		m.w.Ended(m.now, p, SignDelivered)
	}
	m.claimed = nil
	if got, most := m.whole[today], m.most[today]; got > most {
		m.rt.Fatalf("day %d: %d messages, the cap is %d", today, got, most)
	}
	if got, most := m.google[today], max(1, m.most[today]/2); got > most {
		m.rt.Fatalf("day %d: %d messages to google, the cap is %d", today, got, most)
	}
}

func (m *machine) giveBack() {
	if len(m.claimed) > 0 {
		m.w.Ended(m.now, m.claimed[0], SignUnsent)
		m.claimed = m.claimed[1:]
	}
}

// restart loses what is in memory; what was claimed may have been sent before.
func (m *machine) restart() {
	if m.rng.IntN(2) == 0 {
		m.sendAll()
	}
	if m.durable == nil {
		return
	}
	var s WarmUpState
	if err := s.UnmarshalBinary(m.durable); err != nil {
		m.rt.Fatalf("%v", err)
	}
	m.claimed = nil
	m.w = NewWarmUp(m.plan, 1)
	m.w.Restore(m.now, s)
	m.durable, _ = m.w.State().MarshalBinary()
}

func TestWarmUpStateRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.Int64Range(0, 1<<50)
		s := WarmUpState{
			Address: rapid.String().Draw(rt, "address"), Stage: rapid.IntRange(1, 30).Draw(rt, "stage"),
			Status: WarmUpStatus(rapid.IntRange(0, 2).Draw(rt, "status")), Stalled: rapid.IntRange(0, 9).Draw(rt, "stalled"),
			SteppedBack: rapid.Bool().Draw(rt, "back"), HeldToday: rapid.Bool().Draw(rt, "held"), Cause: rapid.String().Draw(rt, "cause"),
		}
		for _, to := range s.numbers() {
			*to = n.Draw(rt, "number")
		}
		s.Day = rapid.Int64Range(0, 100_000).Draw(rt, "day")
		for range rapid.IntRange(0, 5).Draw(rt, "providers") {
			s.Providers = append(s.Providers, ProviderSent{rapid.String().Draw(rt, "provider"), n.Draw(rt, "sent"), n.Draw(rt, "pending")})
		}
		b, err := s.MarshalBinary()
		if err != nil {
			rt.Fatal(err)
		}
		var got WarmUpState
		if err := got.UnmarshalBinary(b); err != nil {
			rt.Fatal(err)
		}
		if !reflect.DeepEqual(s, got) {
			rt.Fatalf("%+v became %+v", s, got)
		}
	})
}

func FuzzWarmUpState(f *testing.F) {
	w := NewWarmUp(DefaultWarmUpPlan(), 3)
	w.Claimed(midnight, "google")
	good, _ := w.State().MarshalBinary()
	f.Add(good)
	f.Add([]byte{1})
	f.Add([]byte{2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s WarmUpState
		if s.UnmarshalBinary(b) != nil {
			return
		}
		again, _ := s.MarshalBinary()
		var same WarmUpState
		if err := same.UnmarshalBinary(again); err != nil || !reflect.DeepEqual(s, same) {
			t.Fatalf("%v: %+v became %+v", err, s, same)
		}
		w := NewWarmUp(DefaultWarmUpPlan(), 1)
		w.Restore(midnight, s)
		w.Room(midnight, "google")
		w.Tick(midnight.Add(100 * 24 * time.Hour))
	})
}

func FuzzParseDayHours(f *testing.F) {
	for _, s := range []string{"08-20", "00-24", "22-06", "", "8-20", "24-24", "12-12"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseDayHours(s)
		if err != nil {
			return
		}
		if again, err := ParseDayHours(h.String()); err != nil || again != h || h.length() <= 0 || h.length() > day {
			t.Fatalf("%q: %v, %v, %v", s, h, again, err)
		}
	})
}

func TestWarmUpPlansAreChecked(t *testing.T) {
	for _, p := range []WarmUpPlan{
		{},
		{Caps: []int64{0}},
		{Caps: []int64{1, MaxWarmUpCap + 1}},
		{Caps: []int64{5}, Hours: DayHours{5, 5}},
		{Caps: []int64{5}, Hours: DayHours{-1, 5}},
		{Caps: []int64{5}, Providers: []ProviderPlan{{Provider: "google"}}},
		{Caps: []int64{5}, Providers: []ProviderPlan{{Provider: "google", Share: 2}}},
		{Caps: []int64{5}, Providers: []ProviderPlan{{Provider: "a", Share: 1}, {Provider: "a", Share: 1}}},
	} {
		if p.Check() == nil {
			t.Errorf("%+v is taken", p)
		}
	}
	if err := DefaultWarmUpPlan().Check(); err != nil {
		t.Error(err)
	}
}

func BenchmarkWarmUpMessage(b *testing.B) {
	plan := DefaultWarmUpPlan()
	plan.Providers = []ProviderPlan{{Provider: "google", Share: 0.5}}
	w := NewWarmUp(plan, 29)
	now := midnight
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(10 * time.Millisecond)
		if n, _ := w.Room(now, "google"); n > 0 {
			w.Claimed(now, "google")
			w.Ended(now, "google", SignDelivered)
		}
	}
}
