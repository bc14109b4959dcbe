package mxrules

import (
	"testing"
	"time"
)

// hidden is a mailbox provider with limits that it does not publish.
type hidden struct {
	rate, burst float64 // of a token bucket
	perHour     int
	connections int
	perMessage  time.Duration // and each connection beyond the fourth adds
	perLoad     time.Duration

	tokens float64
	at     time.Duration
	hour   []time.Duration
}

func (r *hidden) accepts(at time.Duration) bool {
	r.tokens = min(r.burst, r.tokens+r.rate*(at-r.at).Seconds())
	r.at = at
	for len(r.hour) > 0 && at-r.hour[0] >= time.Hour {
		r.hour = r.hour[1:]
	}
	if r.rate > 0 && r.tokens < 1 || r.perHour > 0 && len(r.hour) >= r.perHour {
		return false
	}
	r.tokens--
	if r.perHour > 0 {
		r.hour = append(r.hour, at)
	}
	return true
}

// bulk sends all the time on as many connections as it may.
type bulk struct {
	path
	to                *hidden
	now               time.Duration
	ends              []time.Duration // of the messages on their way, by connection
	accepted, refused int
	text              string
}

func newBulk(t *testing.T, l Limits, to *hidden) *bulk {
	t.Helper()
	l.Governor = GovernorOn
	to.tokens = to.burst
	if to.perMessage == 0 {
		to.perMessage = 100 * time.Millisecond
	}
	return &bulk{path: newPath(t, l), to: to, text: "450 4.7.1 too much mail"}
}

// tick is how closely a bulk looks at the time.
const tick = 5 * time.Millisecond

// until lets time pass.
func (s *bulk) until(d time.Duration) {
	for ; s.now < d; s.now += tick {
		now := after(s.now)
		for hold, _ := s.AllowConnection(now); hold == HoldNone && len(s.ends) < 64; hold, _ = s.AllowConnection(now) {
			s.connect(now)
		}
		for most := s.State(now).MaxConnections; most > 0 && len(s.ends) > most; {
			s.ends = s.ends[1:]
			s.ConnectionClosed(now)
		}
		for i := range s.ends {
			if hold, _ := s.AllowMessage(now, false); s.ends[i] <= s.now && hold == HoldNone {
				s.send(i)
			}
		}
	}
}

func (s *bulk) connect(now time.Time) {
	s.ConnectionOpened(now)
	if s.to.connections > 0 && len(s.ends) >= s.to.connections {
		s.refused++
		s.ConnectionClosed(now)
		s.Observe(now, Evidence{Effect: EffectFewerConnections, Connection: true, Text: "421 too many connections"})
		return
	}
	s.Connected(now, 50*time.Millisecond)
	s.ends = append(s.ends, s.now)
}

func (s *bulk) send(i int) {
	now := after(s.now)
	s.MessageSent(now)
	took := s.to.perMessage + s.to.perLoad*time.Duration(max(len(s.ends)-4, 0))
	s.ends[i] = s.now + took
	if s.to.accepts(s.now) {
		s.accepted++
		s.Observe(now, Evidence{Took: took})
		return
	}
	s.refused++
	s.Observe(now, Evidence{Effect: EffectSlow, Took: time.Millisecond, Text: s.text})
}

// expect compares what was accepted and refused since the last call.
func (s *bulk) expect(least float64, most int) {
	s.t.Helper()
	if float64(s.accepted) < least || s.refused > most {
		s.t.Errorf("by %v: %d accepted and %d refused, want at least %.0f and at most %d", s.now, s.accepted, s.refused, least, most)
	}
	s.accepted, s.refused = 0, 0
}

func TestLearnsARateAndStaysUnderIt(t *testing.T) {
	for _, burst := range []float64{1, 40, 600} {
		s := newBulk(t, Limits{Connections: 20, MessageRate: Rate{Count: 200, Per: time.Second}}, &hidden{rate: 20, burst: burst})
		s.until(5 * time.Minute)
		s.expect(20*300*0.9, 90)
		s.until(25 * time.Minute)
		s.expect(20*1200*0.96, 120)
	}
}

func TestLearnsASlowRate(t *testing.T) {
	s := newBulk(t, Limits{Connections: 5}, &hidden{rate: 0.5, burst: 2})
	s.until(10 * time.Minute)
	s.expect(0.5*600*0.8, 15)
	s.until(70 * time.Minute)
	s.expect(0.5*3600*0.92, 36)
}

func TestFollowsALimitDownAndUp(t *testing.T) {
	to := &hidden{rate: 40, burst: 40}
	s := newBulk(t, Limits{Connections: 20}, to)
	s.until(10 * time.Minute)
	to.rate = 8
	s.until(11 * time.Minute)
	s.accepted, s.refused = 0, 0
	s.until(40 * time.Minute)
	s.expect(8*1740*0.93, 140)
	to.rate = 40
	s.until(50 * time.Minute)
	s.accepted, s.refused = 0, 0
	s.until(55 * time.Minute)
	s.expect(40*300*0.9, 120)
}

func TestConnectionCapIsLearnedExactly(t *testing.T) {
	s := newBulk(t, Limits{Connections: 20}, &hidden{connections: 5})
	s.until(time.Minute)
	if len(s.ends) != 5 || s.state(s.now).MaxConnections != 5 {
		t.Errorf("%d connections open of %d, the receiver takes 5", len(s.ends), s.state(s.now).MaxConnections)
	}
	s.to.connections = 12
	s.until(11 * time.Minute)
	if len(s.ends) != 12 {
		t.Errorf("%d connections ten minutes after the receiver takes 12", len(s.ends))
	}
	s.expect(50*60, 30)
}

func TestConnectionsThatOnlySlowAreNotOpened(t *testing.T) {
	s := newBulk(t, Limits{Connections: 40}, &hidden{perLoad: 50 * time.Millisecond})
	s.until(5 * time.Minute)
	if n := len(s.ends); n < 4 || n > 8 {
		t.Errorf("%d connections where the fifth and each that follows slow all down", n)
	}
}

func TestMessagesPerConnectionAreLearnedExactly(t *testing.T) {
	p := newPath(t, Limits{MessagesPerConnection: 100, Governor: GovernorOn})
	for range 6 { // all sessions of the moment
		p.Observe(after(time.Second), Evidence{Effect: EffectFewerMessages, Messages: 7})
	}
	if got := p.MessagesPerConnection(after(time.Second)); got != 7 {
		t.Errorf("%d messages per connection, the eighth was refused", got)
	}
}

func TestQuotaIsWaitedForAndThenMetered(t *testing.T) {
	s := newBulk(t, Limits{Connections: 10}, &hidden{perHour: 3600})
	s.text = "421 hourly quota exceeded"
	s.until(time.Hour)
	s.expect(3600, 15)
	s.until(2 * time.Hour)
	if s.accepted > 3700 {
		t.Errorf("%d in the second hour, want the quota metered", s.accepted)
	}
	s.expect(3600*0.95, 5)
}

func TestABoxIsLeftByRestsThatGrow(t *testing.T) {
	p := newPath(t, Limits{Connections: 10, Governor: GovernorOn})
	served := func(d time.Duration) {
		p.MessageSent(after(d))
		p.Observe(after(d), Evidence{Took: time.Millisecond})
	}
	knock := func(d time.Duration) {
		p.MessageSent(after(d))
		p.Observe(after(d), Evidence{Effect: EffectSlow, Took: time.Millisecond, Text: "421 suspended"})
	}
	p.connects(0)
	served(0)
	at := 10 * time.Second
	knock(at)
	var rests []time.Duration
	for len(rests) < 6 {
		hold, until := p.AllowMessage(after(at), false)
		if hold == HoldNone {
			knock(at)
			at += time.Millisecond
			continue
		}
		wait := until.Sub(after(at))
		if hold == HoldRest && wait > 500*time.Millisecond {
			rests = append(rests, wait.Round(time.Second))
		}
		at += wait
	}
	for i, want := range []time.Duration{1, 4, 16, 64, 310, 620} {
		if rests[i] != want*time.Second {
			t.Fatalf("rests %v, want longer ones each time", rests)
		}
	}
	served(at)
	if s := p.state(at); s.Probing || s.Hold == HoldRest {
		t.Errorf("after the probe: %+v", s)
	}
}

func TestAMailboxDoesNotSlowThePath(t *testing.T) {
	s := newBulk(t, Limits{Connections: 4}, &hidden{rate: 1e6, burst: 1e6})
	s.until(time.Minute)
	before := s.state(s.now)
	for range 1000 {
		s.Observe(after(s.now), Evidence{Effect: EffectNone, Text: "550 5.1.1 unknown"})
	}
	if got := s.state(s.now); got.MessageRate != before.MessageRate || got.MaxConnections != before.MaxConnections {
		t.Errorf("%+v, before %+v", got, before)
	}
}

func TestANamedDelayIsObeyedWhileLearning(t *testing.T) {
	p := newPath(t, Limits{Connections: 10, Governor: GovernorOn})
	p.sends(0)
	p.Observe(start, Evidence{Effect: EffectSlow, RetryAfter: 5 * time.Minute, Text: "450 try again in 300 seconds"})
	p.connectionHeld(time.Second, HoldRest, 5*time.Minute)
	p.messageHeld(time.Second, HoldRest, 5*time.Minute)
	p.connects(5 * time.Minute)
	p.sends(5 * time.Minute)
}

func TestABlockThatNamesItselfRestsAsBefore(t *testing.T) {
	p := newPath(t, Limits{Connections: 10, Governor: GovernorOn})
	p.sends(0)
	p.Observe(start, Evidence{Effect: EffectRest, Text: "mail: 554 5.7.1 blocked"})
	p.messageHeld(time.Second, HoldRest, 15*time.Minute)
}

func TestReactionsComeFirst(t *testing.T) {
	reactions, err := NewReactions([]Reaction{
		{Tag: "tenant", Do: DoNothing},
		{Text: "come back TOMORROW", Count: 3, Within: time.Minute, Do: DoRest, For: 2 * time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := newPath(t, Limits{Governor: GovernorOn, Reactions: reactions})
	p.Observe(start, Evidence{Effect: EffectRest, Tag: "tenant", Text: "550 ours alone"})
	p.sends(0)
	for _, d := range []time.Duration{0, 50 * time.Second, 70 * time.Second} { // never three in a minute
		p.Observe(after(d), Evidence{Effect: EffectSlow, Text: "451 Come back tomorrow"})
	}
	p.sends(75 * time.Second)
	p.Observe(after(80*time.Second), Evidence{Effect: EffectSlow, Text: "451 Come back tomorrow"})
	p.messageHeld(81*time.Second, HoldRest, 80*time.Second+2*time.Hour)
}

func TestObservingChangesNothing(t *testing.T) {
	p := newPath(t, Limits{Connections: 10, Governor: GovernorObserve, MessageRate: Rate{Count: 100, Per: time.Second}})
	for i := range 100 {
		d := time.Duration(i) * 20 * time.Millisecond
		p.MessageSent(after(d))
		p.Observe(after(d), Evidence{Took: 10 * time.Millisecond})
	}
	p.observes(3*time.Second, EffectSlow)
	p.expectRate(3*time.Second, "100/2s")
	would, ok := p.Observed()
	if !ok || would.MessageRate.IsZero() || would.MessageRate.PerSecond() > 30 {
		t.Errorf("would send at %v (%v), want well below the 50/s refused", would.MessageRate, ok)
	}
	if _, ok := newPath(t, Limits{Governor: GovernorOn}).Observed(); ok {
		t.Error("a governor that acts says that it observes")
	}
}

// The same events give the same decisions.
func TestLearningIsDeterministic(t *testing.T) {
	run := func() Memory {
		s := newBulk(t, Limits{Connections: 20}, &hidden{rate: 15, burst: 30, connections: 6})
		s.until(10 * time.Minute)
		return s.Usage().Learned
	}
	if a, b := run(), run(); a != b {
		t.Errorf("%+v and %+v", a, b)
	}
}

func BenchmarkLearning(b *testing.B) {
	g := NewGovernor(Limits{Connections: 20, Governor: GovernorOn})
	g.ConnectionOpened(start)
	b.ReportAllocs()
	for i := range b.N {
		now := start.Add(time.Duration(i) * time.Millisecond)
		if hold, _ := g.AllowMessage(now, false); hold == HoldNone {
			g.MessageSent(now)
			e := Evidence{Took: 50 * time.Millisecond}
			if i%1000 == 999 {
				e.Effect = EffectSlow
			}
			g.Observe(now, e)
		}
	}
}

// A receiver that goes down refuses all dials at once; each time they are waited for twice
// as long, as a single one would be.
func TestDialsThatFailTogetherAreWaitedForLongerEachTime(t *testing.T) {
	p := newPath(t, Limits{Connections: 4, Governor: GovernorOn})
	p.connects(0)
	p.Connected(after(0), 0)
	p.sends(0)
	p.Observe(after(time.Second), Evidence{Took: time.Second})
	p.ConnectionClosed(after(time.Second))
	at := time.Second
	for _, wait := range []time.Duration{1, 2, 4, 8, 16} {
		for range 3 {
			p.connects(at)
		}
		for range 3 {
			p.ConnectionFailed(after(at))
			p.Observe(after(at), Evidence{Effect: EffectFewerConnections, Connection: true, Text: "greeting: 421 4.3.2 service not available"})
		}
		_, until := p.AllowConnection(after(at))
		if got := until.Sub(after(at)); got != wait*time.Second {
			t.Fatalf("at %v held for %v, want %v", at, got, wait*time.Second)
		}
		at += wait * time.Second
	}
}
