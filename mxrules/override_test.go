package mxrules

import (
	"testing"
	"time"
)

// A path learned that its receiver refuses; an operator's word holds in place of that and of
// the rule, at once, and its end finds the path as it was.
func TestAnOverrideHoldsInPlaceOfRuleAndReactions(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	rule := Limits{Connections: 4, MessagesPerConnection: 10, MessageRate: Rate{Count: 100, Per: time.Second}, Governor: GovernorStatic}
	g := NewGovernor(rule)
	g.Observe(now, Evidence{Effect: EffectSlow, Text: "421 slow down"})
	slowed := g.MessageRate()
	if slowed.PerSecond() != 50 {
		t.Fatalf("slowed to %v", slowed)
	}
	word := Override{Set: FieldsOf(FieldConnections, FieldMessageRate, FieldTLS), Limits: Limits{
		Connections: 20, MessageRate: Rate{Count: 200, Per: time.Second},
	}}
	g.SetOverride(now, word)
	if s := g.State(now); s.MaxConnections != 20 || s.MessageRate != word.Limits.MessageRate || s.MessagesPerConnection != 10 {
		t.Errorf("overridden: %+v", s)
	}
	if g.Override().Set.Has(FieldTLS) {
		t.Error("TLS is overridden")
	}
	sent := 0
	for end := now.Add(10 * time.Second); now.Before(end); now = now.Add(time.Millisecond) {
		if hold, _ := g.AllowMessage(now, false); hold == HoldNone {
			g.MessageSent(now)
			sent++
		}
	}
	if sent < 1990 || sent > 2001 {
		t.Errorf("%d messages in 10 s at 200/s", sent)
	}
	g.SetOverride(now, Override{})
	if s := g.State(now); s.MaxConnections != 4 || s.MessageRate != slowed {
		t.Errorf("behind the override: %+v", s)
	}
}

// Fields of one source come before those of all.
func TestOverridesMerge(t *testing.T) {
	all := Override{Set: FieldsOf(FieldConnections, FieldMessagesPerConnection), Limits: Limits{Connections: 2, MessagesPerConnection: 5}}
	one := Override{Set: FieldsOf(FieldConnections), Limits: Limits{Connections: 9}}
	if got := all.Over(one); got.Limits.Connections != 9 || got.Limits.MessagesPerConnection != 5 || got.Set != all.Set {
		t.Errorf("merged: %+v", got)
	}
}

// A reset forgets reactions and rests; what was used of quotas stays used.
func TestAResetBeginsAsAtFirst(t *testing.T) {
	for _, mode := range []Mode{GovernorStatic, GovernorOn} {
		now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
		rule := Limits{Connections: 4, MessageRate: Rate{Count: 100, Per: time.Second}, MessagesPerHour: 3600, Governor: mode}
		g := NewGovernor(rule)
		fresh := g.State(now)
		g.ConnectionOpened(now)
		g.Claimed(now, 5)
		before := g.Usage()
		g.Observe(now, Evidence{Effect: EffectSlow, Text: "421 slow down"})
		g.Observe(now, Evidence{Effect: EffectRest, Text: "554 blocked", Code: 554})
		if s := g.State(now); s.Hold != HoldRest {
			t.Fatalf("%v: does not rest: %+v", mode, s)
		}
		g.Reset(now)
		s := g.State(now)
		if s.Hold != HoldNone || s.MessageRate != fresh.MessageRate || s.MaxConnections != fresh.MaxConnections || s.Trouble != "" || s.Rests != 0 {
			t.Errorf("%v: behind the reset: %+v", mode, s)
		}
		if u := g.Usage(); s.Open != 1 || u.Hour != before.Hour {
			t.Errorf("%v: open %d, usage %+v, was %+v", mode, s.Open, u, before)
		}
		if hold, _ := g.AllowClaim(now, false); hold != HoldHourly {
			t.Errorf("%v: the hourly quota is %v", mode, hold)
		}
	}
}
