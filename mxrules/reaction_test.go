package mxrules

import (
	"strings"
	"testing"
	"time"
)

func (p path) observes(d time.Duration, e Effect) {
	p.Observe(after(d), Evidence{Effect: e, Text: e.String()})
}

func (p path) expectRate(d time.Duration, want string) {
	p.t.Helper()
	if got := p.state(d).MessageRate.String(); got != want {
		p.t.Fatalf("at %v: message rate in force %s, want %s", d, got, want)
	}
}

func (p path) expectConnections(d time.Duration, want int) {
	p.t.Helper()
	if got := p.state(d).MaxConnections; got != want {
		p.t.Fatalf("at %v: %d connections in force, want %d", d, got, want)
	}
}

func TestSlowHalvesTheRateOnceAMinute(t *testing.T) {
	p := newPath(t, Limits{MessageRate: Rate{Count: 100, Per: time.Second}})
	p.sends(0)
	for range 50 { // all sessions report the same event
		p.observes(0, EffectSlow)
	}
	p.expectRate(0, "100/2s")
	p.messageHeld(0, HoldMessageRate, 20*time.Millisecond)
	p.observes(time.Minute, EffectSlow)
	p.expectRate(time.Minute, "100/4s")

	p.expectRate(time.Minute+time.Hour-1, "100/4s")
	p.expectRate(time.Minute+time.Hour, "100/2s")
	p.observes(90*time.Minute, EffectSlow) // new trouble: down again, and the hour begins anew
	p.expectRate(90*time.Minute, "100/4s")
	p.expectRate(10*time.Hour, "100/s")
	p.sends(10 * time.Hour)
	p.messageHeld(10*time.Hour, HoldMessageRate, 10*time.Hour+10*time.Millisecond)
}

func TestSlowHasAFloor(t *testing.T) {
	tests := []struct {
		rule Rate
		want string
	}{
		{Rate{Count: 100, Per: time.Second}, "100/1h8m16s"}, // 41 s between two; the next half would be over a minute
		{Rate{Count: 1, Per: time.Minute}, "1/2m"},          // one half is always possible
		{Rate{Count: 1, Per: 24 * time.Hour}, "1/48h"},
		{Rate{}, "1/40.96s"}, // from the 100/s assumed
	}
	for _, tt := range tests {
		p := newPath(t, Limits{MessageRate: tt.rule})
		for i := range 60 {
			p.observes(time.Duration(i)*time.Minute, EffectSlow)
		}
		p.expectRate(time.Hour, tt.want)
		p.sends(time.Hour)
	}
}

func TestLoweredRuleBoundsSlowing(t *testing.T) {
	p := newPath(t, Limits{MessageRate: Rate{Count: 1_000_000, Per: time.Second}})
	for i := range 60 {
		p.observes(time.Duration(i)*time.Minute, EffectSlow)
	}
	p.SetLimits(after(time.Hour), Limits{MessageRate: Rate{Count: 2, Per: time.Hour}})
	p.expectRate(time.Hour, "2/2h")
}

func TestFewerConnections(t *testing.T) {
	p := newPath(t, Limits{Connections: 10})
	p.observes(0, EffectFewerConnections)
	p.observes(time.Second, EffectFewerConnections)
	p.expectConnections(time.Second, 9)
	p.observes(time.Minute, EffectFewerConnections)
	p.expectConnections(time.Minute, 8)

	// Five stay open, the sixth was refused: five it is, without a pause.
	for range 5 {
		p.connects(time.Minute)
	}
	p.observes(61*time.Second, EffectFewerConnections)
	p.expectConnections(61*time.Second, 5)
	p.connectionHeld(61*time.Second, HoldConnections, aClose)

	p.expectConnections(61*time.Second+time.Hour, 6)
	p.expectConnections(61*time.Second+3*time.Hour, 8)
	p.expectConnections(61*time.Second+5*time.Hour, 10)
	p.expectConnections(100*time.Hour, 10)
}

func TestFewerConnectionsFloor(t *testing.T) {
	p := newPath(t, Limits{Connections: 2})
	for i := range 10 {
		p.observes(time.Duration(i)*time.Minute, EffectFewerConnections)
	}
	p.expectConnections(10*time.Minute, 1)
	p.connects(10 * time.Minute)
}

func TestFewerConnectionsWithoutARule(t *testing.T) {
	p := newPath(t, Limits{})
	p.observes(0, EffectFewerConnections)
	p.expectConnections(0, 0)
	for range 3 {
		p.connects(0)
	}
	p.observes(time.Second, EffectFewerConnections)
	p.expectConnections(time.Second, 3)
	p.observes(2*time.Minute, EffectFewerConnections)
	p.expectConnections(2*time.Minute, 2)
	p.expectConnections(2*time.Minute+time.Hour, 0) // back at the three it came from: no cap again
}

func TestNamedDelayHoldsOnlyNewConnections(t *testing.T) {
	p := newPath(t, Limits{Connections: 5})
	p.connects(0)
	p.Observe(start, Evidence{Effect: EffectFewerConnections, RetryAfter: 5 * time.Minute})
	p.ConnectionClosed(start)
	p.connectionHeld(0, HoldConnections, 5*time.Minute)
	p.sends(time.Second)
	p.connects(5 * time.Minute)
}

func TestFewerMessagesPerConnection(t *testing.T) {
	p := newPath(t, Limits{MessagesPerConnection: 50})
	expect := func(d time.Duration, want int) {
		t.Helper()
		if got := p.MessagesPerConnection(after(d)); got != want {
			t.Fatalf("at %v: %d messages per connection, want %d", d, got, want)
		}
	}
	p.observes(0, EffectFewerMessages)
	expect(0, 49)
	p.Observe(start, Evidence{Effect: EffectFewerMessages, Messages: 20})
	expect(0, 20)
	p.Observe(after(time.Second), Evidence{Effect: EffectFewerMessages, Messages: 20})
	expect(time.Second, 20)
	p.Observe(after(time.Minute), Evidence{Effect: EffectFewerMessages, Messages: 20})
	expect(time.Minute, 19)
	expect(time.Minute+time.Hour, 20)
	expect(40*time.Hour, 50)

	p = newPath(t, Limits{})
	p.observes(0, EffectFewerMessages)
	expect(0, 99)
	expect(time.Hour, 0)
}

func TestRestDoublesAndEndsByAProbe(t *testing.T) {
	p := newPath(t, Limits{Connections: 10, MessagesPerConnection: 100})
	p.connects(0)
	p.connects(0)
	p.sends(0)
	p.observes(0, EffectRest)
	p.observes(time.Second, EffectRest) // the other session, same event
	p.connectionHeld(time.Second, HoldRest, 15*time.Minute)
	p.messageHeld(time.Second, HoldRest, 15*time.Minute)
	p.ConnectionClosed(after(time.Second))
	p.ConnectionClosed(after(time.Second))
	if s := p.state(time.Minute); s.Hold != HoldRest || !s.Since.Equal(start) || !s.Until.Equal(after(15*time.Minute)) || s.Trouble != "rest" || !s.TroubleAt.Equal(after(time.Second)) {
		t.Errorf("resting: %+v", s)
	}

	probe := 15 * time.Minute
	for _, length := range []time.Duration{30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 4 * time.Hour} {
		p.connects(probe)
		p.connectionHeld(probe, HoldRest, aClose)
		p.Worked(after(probe)) // a greeting proves nothing after a block
		p.connectionHeld(probe, HoldRest, aClose)
		if n := p.MessagesPerConnection(after(probe)); n != 1 {
			t.Fatalf("%d messages on a probe, want 1", n)
		}
		p.sends(probe)
		p.messageHeld(probe, HoldRest, probe+time.Minute)
		p.observes(probe, EffectRest)
		p.ConnectionClosed(after(probe))
		p.connectionHeld(probe, HoldRest, probe+length)
		probe += length
	}

	p.connects(probe)
	p.sends(probe)
	p.observes(probe, EffectNone) // an unknown user is served like any other
	p.connects(probe)
	p.sends(probe)
	if s := p.state(probe); s.Hold != HoldNone || s.Probing || s.MaxConnections != 10 || s.MessagesPerConnection != 100 {
		t.Errorf("after the probe: %+v", s)
	}
}

func TestRestsAreForgottenStepByStep(t *testing.T) {
	p := newPath(t, Limits{})
	p.observes(0, EffectRest)
	p.observes(15*time.Minute, EffectRest) // until 45 min
	p.connectionHeld(15*time.Minute, HoldRest, 45*time.Minute)
	later := 45*time.Minute + time.Hour // one good hour: one step
	p.observes(later, EffectRest)
	p.connectionHeld(later, HoldRest, later+30*time.Minute)
}

// A probe whose connection dies without a reply is followed by another probe.
func TestProbeWithoutAReply(t *testing.T) {
	p := newPath(t, Limits{Connections: 10})
	p.observes(0, EffectRest)
	p.connects(15 * time.Minute)
	p.sends(15 * time.Minute)
	p.ConnectionClosed(after(16 * time.Minute))
	p.connects(16 * time.Minute)
	p.Worked(after(16 * time.Minute))
	p.connectionHeld(16*time.Minute, HoldRest, aClose)
	p.sends(16 * time.Minute)
	p.Worked(after(16 * time.Minute))
	p.connects(16 * time.Minute)
}

func TestRetryAfterIsObeyed(t *testing.T) {
	tests := []struct {
		effect Effect
		delay  time.Duration
		want   time.Duration
	}{
		{EffectRest, 5 * time.Minute, 5 * time.Minute},
		{EffectRest, time.Second, time.Minute},
		{EffectRest, 100 * time.Hour, 12 * time.Hour},
		{EffectSlow, 5 * time.Minute, 5 * time.Minute},
		{EffectFewerMessages, 5 * time.Minute, 5 * time.Minute},
	}
	for _, tt := range tests {
		p := newPath(t, Limits{})
		p.Observe(start, Evidence{Effect: tt.effect, RetryAfter: tt.delay})
		p.connectionHeld(0, HoldRest, tt.want)
		p.messageHeld(0, HoldRest, tt.want)
		p.connects(tt.want)
		if probing := p.state(tt.want).Probing; probing != (tt.effect == EffectRest) {
			t.Errorf("%v: probing %v", tt.effect, probing)
		}
	}
}

func TestFailuresBackOff(t *testing.T) {
	p := newPath(t, Limits{Connections: 10})
	var d time.Duration
	for _, wait := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		p.connects(d)
		if d > 0 {
			p.connectionHeld(d, HoldBackoff, aClose) // tried with one connection
		}
		p.Failed(after(d), "dial tcp: connection refused")
		p.Failed(after(d), "dial tcp: connection refused") // dialled at the same time
		p.ConnectionClosed(after(d))
		p.connectionHeld(d, HoldBackoff, d+wait*time.Minute)
		d += wait * time.Minute
	}
	if s := p.state(d); s.Hold != HoldBackoff || !s.Since.Equal(start) || s.Failures != 8 || s.MaxConnections != 1 || s.Trouble == "" {
		t.Errorf("failing: %+v", s)
	}
	p.connects(d)
	p.Worked(after(d))
	p.connects(d)
	if s := p.state(d); s.Hold != HoldNone || s.Failures != 0 || s.MaxConnections != 10 {
		t.Errorf("working: %+v", s)
	}
}

func TestBackoffLeavesOpenConnectionsAlone(t *testing.T) {
	p := newPath(t, Limits{Connections: 10})
	p.connects(0)
	p.Failed(after(time.Second), "greeting timed out")
	p.connectionHeld(time.Second, HoldBackoff, 61*time.Second)
	p.sends(time.Second)
	p.Worked(after(2 * time.Second))
	p.connects(2 * time.Second)
}

func TestTimingsDivide(t *testing.T) {
	p := path{NewGovernor(Limits{}, WithTimings(DefaultTimings().Divide(1000))), t}
	p.observes(0, EffectRest)
	p.connectionHeld(0, HoldRest, 900*time.Millisecond)

	for _, n := range []float64{0, -1} {
		if got := DefaultTimings().Divide(n); got != DefaultTimings() {
			t.Errorf("Divide(%v) = %+v, want no change", n, got)
		}
	}
	if got := DefaultTimings().Divide(1e30).RestMax; got != time.Millisecond {
		t.Errorf("Divide(1e30) gives %v, want a millisecond", got)
	}
	if got := (Timings{}).Divide(60).BackoffFirst; got != time.Second {
		t.Errorf("zero timings divided by 60 begin backing off with %v, want 1s", got)
	}
	p = path{NewGovernor(Limits{}, WithTimings(Timings{RestFirst: time.Second})), t}
	p.observes(0, EffectRest)
	p.Failed(start, "")
	p.connectionHeld(0, HoldRest, time.Second)
	p.connectionHeld(time.Second, HoldBackoff, time.Minute)
}

func TestTroubleTextIsBounded(t *testing.T) {
	p := newPath(t, Limits{})
	p.Observe(start, Evidence{Effect: EffectSlow, Text: strings.Repeat("x", 1<<20)})
	if n := len(p.state(0).Trouble); n != maxTrouble {
		t.Errorf("%d bytes of a reply kept, want %d", n, maxTrouble)
	}
}
