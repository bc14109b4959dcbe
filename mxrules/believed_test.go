package mxrules

import (
	"testing"
	"time"
)

// What is believed of a path: its rule, below it what was learned, and where nothing
// was, the start that the rule names.
func TestBelieved(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	perSecond := func(n int) Rate { return Rate{Count: n, Per: time.Second} }
	rule := Limits{Connections: 10, MessagesPerConnection: 50, MessageRate: perSecond(100), Governor: GovernorOn}
	start := rule
	start.Bounds = Bounds{ConnectionsStart: 2, MessageRateStart: perSecond(5)}
	static := rule
	static.Governor = GovernorStatic
	learned := Usage{Learned: Memory{
		MessageRate: Learned{Value: 4, At: now.Add(-time.Hour).UnixNano(), Seen: 3},
		Connections: Learned{Value: 3, At: now.Add(-time.Hour).UnixNano(), Seen: 3},
	}}
	for _, c := range []struct {
		name    string
		rule    Limits
		usage   Usage
		over    Override
		rate    float64
		conns   int
		learned Fields
	}{
		{name: "nothing known", rule: rule, rate: 100, conns: 10},
		{name: "a start", rule: start, rate: 5, conns: 2},
		{name: "learned", rule: start, usage: learned, rate: 4, conns: 3, learned: FieldsOf(FieldMessageRate, FieldConnections)},
		{name: "static learns nothing", rule: static, usage: learned, rate: 100, conns: 10},
		{
			name: "an operator's word", rule: rule, usage: learned, rate: 50, conns: 3, learned: FieldsOf(FieldConnections),
			over: Override{Set: FieldsOf(FieldMessageRate), Limits: Limits{MessageRate: perSecond(50)}},
		},
	} {
		g := NewGovernor(c.rule)
		g.Restore(now, c.usage)
		g.SetOverride(now, c.over)
		l, by := g.Believed(now)
		if l.MessageRate.PerSecond() != c.rate || l.Connections != c.conns || l.MessagesPerConnection != 50 || by != c.learned {
			t.Errorf("%s: %v, %d connections, learned %b; want %v/s, %d, %b", c.name, l.MessageRate, l.Connections, by, c.rate, c.conns, c.learned)
		}
	}
}

// A static governor's cut passes within minutes: it is no limit of the path.
func TestBelievedWithoutCuts(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	g := NewGovernor(Limits{Connections: 10, MessageRate: Rate{Count: 100, Per: time.Second}})
	g.MessageSent(now)
	g.Observe(now, Evidence{Effect: EffectSlow, Text: "421 slow down"})
	if g.MessageRate().PerSecond() >= 100 {
		t.Fatal("the governor did not cut")
	}
	if l, by := g.Believed(now); l.MessageRate.PerSecond() != 100 || by != 0 {
		t.Errorf("%v, learned %b", l.MessageRate, by)
	}
}
