package mxrules

import (
	"testing"
	"time"
)

// learns is a path that has found a receiver's rate, connections, messages on each
// and quota.
func learns(t *testing.T) path {
	t.Helper()
	p := path{NewGovernor(Limits{Governor: GovernorOn, Connections: 20, MessagesPerConnection: 100}), t}
	a := p.learner.(*adaptive)
	a.messages.recall(time.Second, 12.5, 7)
	a.conns.recall(time.Second, 6, 3)
	a.each.refused(time.Second, 25)
	a.quota.recall(time.Second, 36000, 0)
	a.served = time.Second
	p.Claimed(after(time.Second), 1)
	return p
}

func TestWhatWasLearnedSurvivesARestart(t *testing.T) {
	p := learns(t)
	b, err := p.Usage().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var u Usage
	if err := u.UnmarshalBinary(b); err != nil || u != p.Usage() {
		t.Fatalf("read back %+v, %v, want %+v", u, err, p.Usage())
	}
	again := path{NewGovernor(p.Limits()), t}
	again.Restore(after(time.Hour), u)
	s := again.state(time.Hour)
	if r := s.MessageRate.PerSecond(); r < 5 || r > 12.5 {
		t.Errorf("resumes at %v, want near 12.5/s", s.MessageRate)
	}
	if s.MaxConnections != 6 || s.MessagesPerConnection != 25 {
		t.Errorf("resumes with %d connections of %d messages, want 6 of 25", s.MaxConnections, s.MessagesPerConnection)
	}
	if got := again.Usage().Learned; got.Hourly.Value != 36000 || got.MessageRate.Seen != 7 {
		t.Errorf("remembers %+v", got)
	}
}

func TestIdleKnowledgeDecaysTowardTheRule(t *testing.T) {
	tests := []struct {
		idle        time.Duration
		connections int
	}{
		{5 * time.Hour, 6}, {30 * time.Hour, 12}, {54 * time.Hour, firstConnections}, {20 * 24 * time.Hour, firstConnections},
	}
	for _, tt := range tests {
		u := learns(t).Usage()
		p := path{NewGovernor(Limits{Governor: GovernorOn, Connections: 20, MessagesPerConnection: 100}), t}
		p.Restore(after(tt.idle), u)
		if got := lowest(p.limits.Connections, p.state(tt.idle).MaxConnections); got != tt.connections {
			t.Errorf("after %v: %d connections, want %d", tt.idle, got, tt.connections)
		}
	}
}

func TestUsageOfTheFirstVersionIsRead(t *testing.T) {
	old := make([]byte, usageV1Size)
	old[7], old[15] = 100, 5
	var u Usage
	if err := u.UnmarshalBinary(old); err != nil || u.PerHour != 100 || u.Hour != 5 || !u.Learned.IsZero() {
		t.Errorf("%+v, %v", u, err)
	}
	const whole = 1 + usageV1Size + memorySize
	for _, b := range [][]byte{nil, make([]byte, 3), make([]byte, whole), append([]byte{9}, make([]byte, whole-1)...)} {
		if err := u.UnmarshalBinary(b); err == nil {
			t.Errorf("%d octets with version %v are read", len(b), b)
		}
	}
}

func FuzzMemory(f *testing.F) {
	b, _ := learns(&testing.T{}).Usage().Learned.MarshalBinary()
	f.Add(b)
	f.Add(make([]byte, memorySize))
	held, _ := Memory{Held: Held{Until: 5, Level: 2, Probing: true, Text: "421 later"}}.MarshalBinary()
	f.Add(held)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Memory
		if m.UnmarshalBinary(b) != nil {
			return
		}
		g := NewGovernor(Limits{Governor: GovernorOn, Connections: 20, MessageRate: Rate{Count: 50, Per: time.Second}})
		g.Restore(start, Usage{Learned: m})
		for d := time.Duration(0); d < time.Minute; d += time.Second {
			if hold, _ := g.AllowMessage(after(d), false); hold == HoldNone {
				g.MessageSent(after(d))
				g.Observe(after(d), Evidence{Took: 100 * time.Millisecond})
			}
		}
		if s := g.State(after(time.Minute)); s.MaxConnections > 20 || s.MessageRate.IsZero() || s.MessageRate.PerSecond() > 50.001 {
			t.Fatalf("beyond the rule: %+v", s)
		}
	})
}
