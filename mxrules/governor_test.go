package mxrules

import (
	"testing"
	"time"
)

var start = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

func after(d time.Duration) time.Time { return start.Add(d) }

// path is a governor with the steps of the stories below.
type path struct {
	*Governor
	t *testing.T
}

func newPath(t *testing.T, l Limits) path {
	t.Helper()
	return path{NewGovernor(l), t}
}

// connects expects a new connection at d and opens it.
func (p path) connects(d time.Duration) {
	p.t.Helper()
	if hold, at := p.AllowConnection(after(d)); hold != HoldNone {
		p.t.Fatalf("at %v: connection held by %v until %v", d, hold, at)
	}
	p.ConnectionOpened(after(d))
}

// sends expects a message at d and sends it.
func (p path) sends(d time.Duration) {
	p.t.Helper()
	if hold, at := p.AllowMessage(after(d), false); hold != HoldNone {
		p.t.Fatalf("at %v: message held by %v until %v", d, hold, at)
	}
	p.MessageSent(after(d))
}

func (p path) connectionHeld(d time.Duration, want Hold, until time.Duration) {
	p.t.Helper()
	hold, at := p.AllowConnection(after(d))
	p.expect(d, hold, at, want, until)
}

func (p path) messageHeld(d time.Duration, want Hold, until time.Duration) {
	p.t.Helper()
	hold, at := p.AllowMessage(after(d), false)
	p.expect(d, hold, at, want, until)
}

// aClose stands for a hold that a closing connection ends.
const aClose = time.Duration(-1)

func (p path) expect(d time.Duration, hold Hold, at time.Time, want Hold, until time.Duration) {
	p.t.Helper()
	wantAt := after(until)
	if until == aClose {
		wantAt = time.Time{}
	}
	if hold != want || !at.Equal(wantAt) {
		p.t.Fatalf("at %v: held by %v until %v, want %v until %v", d, hold, at, want, wantAt)
	}
}

func (p path) state(d time.Duration) State { return p.State(after(d)) }

func TestConnectionsAreCapped(t *testing.T) {
	p := newPath(t, Limits{Connections: 2})
	p.connects(0)
	p.connects(0)
	p.connectionHeld(0, HoldConnections, aClose)
	p.ConnectionClosed(after(time.Second))
	p.connects(time.Second)
	p.connectionHeld(time.Second, HoldConnections, aClose)
	p.SetLimits(after(time.Minute), Limits{Connections: 1})
	p.ConnectionClosed(after(time.Minute))
	p.connectionHeld(time.Minute, HoldConnections, aClose)
}

func TestNewConnectionsAreSpaced(t *testing.T) {
	p := newPath(t, Limits{ConnectionRate: Rate{Count: 30, Per: time.Minute, Burst: 2}})
	p.connects(0)
	p.connects(0)
	p.connectionHeld(0, HoldConnectionRate, 2*time.Second)
	p.connectionHeld(1999*time.Millisecond, HoldConnectionRate, 2*time.Second)
	p.connects(2 * time.Second)
	p.connectionHeld(2*time.Second, HoldConnectionRate, 4*time.Second)
}

func TestMessagesAreSpaced(t *testing.T) {
	p := newPath(t, Limits{MessageRate: Rate{Count: 3, Per: time.Second}})
	third := 333333334 * time.Nanosecond // rounded up: three in a second, never more
	p.sends(0)
	p.messageHeld(0, HoldMessageRate, third)
	p.sends(third)
	p.sends(10 * time.Second) // idleness saves up nothing but the burst of one
	p.messageHeld(10*time.Second, HoldMessageRate, 10*time.Second+third)
}

func TestHourlyQuotaIsMeteredContinuously(t *testing.T) {
	p := newPath(t, Limits{MessagesPerHour: 7200}) // 2 a second, 10 at once
	sent := 0
	for d := time.Duration(0); d <= time.Hour; d += 10 * time.Millisecond {
		for {
			if hold, _ := p.AllowMessage(after(d), true); hold != HoldNone {
				break
			}
			p.MessageSent(after(d))
			sent++
		}
		if most := 10 + int(d/(500*time.Millisecond)); sent > most {
			t.Fatalf("%d sent in %v, want at most %d", sent, d, most)
		}
	}
	if sent != 7210 {
		t.Errorf("%d sent in an hour, want the quota and its burst: 7210", sent)
	}
}

func TestBulkLeavesAShareToTransactionalMail(t *testing.T) {
	g := NewGovernor(Limits{MessagesPerHour: 3600})
	var bulk, transactional int
	for d := time.Duration(0); d < time.Hour; d += time.Second / 4 {
		now := after(d)
		if hold, _ := g.AllowClaim(now, false); hold == HoldNone {
			g.Claimed(now, 1)
			bulk++
		}
		if d%(30*time.Second) == time.Second { // a password reset now and then
			if hold, at := g.AllowClaim(now, true); hold != HoldNone && at.Sub(now) > time.Second {
				t.Fatalf("at %v transactional mail waits until %v (%v)", d, at, hold)
			}
			g.Claimed(now, 1)
			transactional++
		}
	}
	if bulk+transactional > 3600*95/100+5 || bulk < 3250 {
		t.Errorf("bulk %d, transactional %d; want together the bulk share of 3420", bulk, transactional)
	}
}

func TestTransactionalMailMayUseTheWholeHour(t *testing.T) {
	g := NewGovernor(Limits{MessagesPerHour: 3600})
	n := 0
	for d := time.Duration(0); d < time.Hour; d += time.Second / 4 {
		if hold, _ := g.AllowClaim(after(d), true); hold == HoldNone {
			g.Claimed(after(d), 1)
			n++
		}
	}
	if n < 3600 || n > 3605 {
		t.Fatalf("%d claimed in an hour, want 3600 and a burst of at most 5", n)
	}
	if hold, at := g.AllowClaim(after(time.Hour), false); hold != HoldHourly || at.Sub(after(time.Hour)) > 70*time.Second {
		t.Errorf("bulk afterwards is held by %v until %v, want about a minute", hold, at)
	}
}

func TestDailyQuota(t *testing.T) {
	g := NewGovernor(Limits{MessagesPerDay: 24})
	g.Claimed(start, 1)
	hold, at := g.AllowClaim(start, true)
	if hold != HoldDaily || !at.Equal(after(time.Hour)) {
		t.Errorf("held by %v until %v, want %v until %v", hold, at, HoldDaily, after(time.Hour))
	}
}

// Claims that waited for a rest do not reach the receiver in one heap.
func TestSendsAreMeteredApartFromClaims(t *testing.T) {
	p := newPath(t, Limits{MessagesPerHour: 720}) // one in 5 s
	for i := range 20 {
		p.Claimed(after(time.Duration(i)*6*time.Second), 1)
	}
	p.sends(2 * time.Minute)
	p.messageHeld(2*time.Minute, HoldHourly, 2*time.Minute+5263157895*time.Nanosecond) // 95 % of one in 5 s
}

func TestMoreClaimedThanAllowedIsADebt(t *testing.T) {
	g := NewGovernor(Limits{MessagesPerDay: 86400})
	g.Claimed(start, 64)
	hold, at := g.AllowClaim(start, false)
	if want := after(60 * time.Second); hold != HoldDaily || !at.Equal(want) { // a bucket of 5
		t.Errorf("held by %v until %v, want until %v", hold, at, want)
	}
}

func TestSetLimitsKeepsWhatWasUsed(t *testing.T) {
	fast := Limits{MessageRate: Rate{Count: 10, Per: time.Second, Burst: 5}}
	slow := Limits{MessageRate: Rate{Count: 1, Per: time.Second}}
	p := newPath(t, fast)
	for range 5 {
		p.sends(0)
	}
	p.SetLimits(start, fast) // a reload of the same rules
	p.messageHeld(0, HoldMessageRate, 100*time.Millisecond)
	p.SetLimits(start, slow)
	p.messageHeld(0, HoldMessageRate, time.Second)
	p.SetLimits(start, Limits{})
	p.sends(0)
	p.SetLimits(start, fast) // what passed meanwhile was not counted
	p.messageHeld(0, HoldMessageRate, 100*time.Millisecond)
}

func TestRestoreKeepsTheQuota(t *testing.T) {
	l := Limits{MessagesPerHour: 20, MessagesPerDay: 240}
	g := NewGovernor(l)
	g.Claimed(start, 1)
	g.MessageSent(after(time.Second))
	stored, err := g.Usage().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}

	var u Usage
	if err := u.UnmarshalBinary(stored); err != nil {
		t.Fatal(err)
	}
	g = NewGovernor(l)
	g.Restore(after(time.Minute), u)
	if hold, at := g.AllowClaim(after(time.Minute), true); hold != HoldDaily || !at.Equal(after(6*time.Minute)) {
		t.Errorf("claim held by %v until %v, want as before the crash: six minutes from the first", hold, at)
	}
	if hold, at := g.AllowMessage(after(time.Minute), true); hold != HoldDaily || !at.Equal(after(7*time.Minute)) {
		t.Errorf("message held by %v until %v, want one interval from the restart", hold, at)
	}
	if err := u.UnmarshalBinary(stored[1:]); err == nil {
		t.Error("a cut record was read")
	}
}

func TestRestoreOutlivesAClockSetBack(t *testing.T) {
	l := Limits{MessagesPerHour: 3600}
	g := NewGovernor(l)
	g.Claimed(after(1000*time.Hour), 5)
	u := g.Usage()
	g = NewGovernor(l)
	g.Restore(start, u)
	hold, at := g.AllowClaim(start, true)
	if hold != HoldHourly || at.Sub(start) > 2*time.Minute {
		t.Errorf("held by %v until %v, want at most a batch of claims", hold, at)
	}
}

func TestClockStepsBack(t *testing.T) {
	p := newPath(t, Limits{MessageRate: Rate{Count: 1, Per: time.Second, Burst: 3}})
	for range 3 {
		p.sends(time.Hour)
	}
	p.messageHeld(0, HoldMessageRate, time.Second) // no burst, no hour to wait
	p.sends(time.Second)
	p.messageHeld(time.Second, HoldMessageRate, 2*time.Second)

	// Readings out of order are not steps: the clock would run fast.
	for range 3 {
		p.sends(20 * time.Second)
	}
	for range 1000 {
		p.messageHeld(20500*time.Millisecond, HoldMessageRate, 21*time.Second)
		p.messageHeld(20*time.Second, HoldMessageRate, 21*time.Second)
	}
	p.sends(21 * time.Second)
}

func TestStateNamesWhatLimits(t *testing.T) {
	p := newPath(t, Limits{Connections: 1, MessageRate: Rate{Count: 1, Per: time.Second}, MessagesPerConnection: 7})
	if s := p.state(0); s.Hold != HoldNone || s.MaxConnections != 1 || s.MessagesPerConnection != 7 {
		t.Errorf("fresh path: %+v", s)
	}
	p.connects(0)
	p.connectionHeld(0, HoldConnections, aClose)
	if s := p.state(time.Minute); s.Hold != HoldConnections || !s.Since.Equal(start) || !s.Until.IsZero() || s.Open != 1 {
		t.Errorf("full path: %+v", s)
	}
	// A rate that holds between messages is one hold since its first.
	for i := range 30 {
		d := time.Minute + time.Duration(i)*time.Second
		p.sends(d)
		p.messageHeld(d, HoldMessageRate, d+time.Second)
	}
	last := time.Minute + 29*time.Second
	if s := p.state(last); s.Hold != HoldMessageRate || !s.Since.Equal(after(time.Minute)) || !s.Until.Equal(after(last+time.Second)) {
		t.Errorf("busy path: %+v", s)
	}
	p.ConnectionClosed(after(time.Hour))
	if s := p.state(time.Hour); s.Hold != HoldNone {
		t.Errorf("idle path: %+v", s)
	}
}

func TestGovernorDoesNotAllocate(t *testing.T) {
	for _, mode := range []Mode{GovernorStatic, GovernorObserve, GovernorOn} {
		l := benchmarkLimits()
		l.Governor = mode
		g := NewGovernor(l)
		now := start
		n := testing.AllocsPerRun(1000, func() {
			now = now.Add(time.Millisecond)
			round(g, now)
			g.Observe(now, Evidence{Took: time.Millisecond})
			g.Observe(now, Evidence{Effect: EffectSlow, Text: "421 4.7.28 rate", Took: time.Millisecond})
			g.Failed(now, "connection refused")
			_ = g.State(now)
			_ = g.Usage()
		})
		if n != 0 {
			t.Errorf("governor %v: %v allocations in a round, want none", mode, n)
		}
	}
}

func benchmarkLimits() Limits {
	return Limits{
		Connections: 10, ConnectionRate: Rate{Count: 100, Per: time.Minute}, MessagesPerConnection: 100,
		MessageRate: Rate{Count: 100, Per: time.Second}, MessagesPerHour: 100_000, MessagesPerDay: 1_000_000,
	}
}

// round is one connection with one message.
func round(g *Governor, now time.Time) {
	g.AllowConnection(now)
	g.ConnectionOpened(now)
	g.AllowClaim(now, false)
	g.Claimed(now, 1)
	g.AllowMessage(now, false)
	g.MessageSent(now)
	g.Worked(now)
	g.ConnectionClosed(now)
}

func BenchmarkAllowConnection(b *testing.B) {
	benchmark(b, benchmarkLimits(), func(g *Governor, now time.Time) { g.AllowConnection(now) })
}

func BenchmarkAllowMessage(b *testing.B) {
	benchmark(b, benchmarkLimits(), func(g *Governor, now time.Time) { g.AllowMessage(now, false) })
}

func BenchmarkAllowMessageHeld(b *testing.B) {
	benchmark(b, benchmarkLimits(), func(g *Governor, now time.Time) {
		if hold, _ := g.AllowMessage(now, false); hold == HoldNone {
			g.MessageSent(now)
		}
	})
}

func BenchmarkAllowClaimAndClaimed(b *testing.B) {
	benchmark(b, benchmarkLimits(), func(g *Governor, now time.Time) {
		g.AllowClaim(now, false)
		g.Claimed(now, 1)
	})
}

func BenchmarkRound(b *testing.B) { benchmark(b, benchmarkLimits(), round) }

// benchmark moves time by 10 us with each call and uses readings that have a
// monotonic part, as the relay's do.
func benchmark(b *testing.B, l Limits, call func(*Governor, time.Time)) {
	b.ReportAllocs()
	g, now := NewGovernor(l), time.Now()
	for b.Loop() {
		now = now.Add(10 * time.Microsecond)
		call(g, now)
	}
}
