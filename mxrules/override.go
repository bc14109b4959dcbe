package mxrules

import "time"

// Overridable are the fields that an Override may have.
const Overridable = 1<<FieldConnections | 1<<FieldMessagesPerConnection | 1<<FieldConnectionRate | 1<<FieldMessageRate

// Override is an operator's word on a path: the values of the fields in Set hold in
// place of the rule's, also above them, and of whatever was learned. Rests and waits
// after failures still come before it, quotas hold beside it.
type Override struct {
	Set    Fields
	Limits Limits
}

// Over is o with the fields of other in place of its own.
func (o Override) Over(other Override) Override {
	for f := range Field(NumFields) {
		if other.Set.Has(f) && Fields(Overridable).Has(f) {
			o.Set = o.Set.With(f)
			o.Limits.copyField(f, &other.Limits)
		}
	}
	return o
}

// SetOverride puts an override in force at once; one without fields ends it. What was
// used of a rate stays used. Learning goes on beside it, so that its end finds what
// is known. Connections open beyond a lower cap are the caller's to close.
func (g *Governor) SetOverride(now time.Time, o Override) {
	t := g.tick(now)
	o.Set &= Overridable
	g.override = o
	g.reshape(t)
}

// Override is what is in force of one.
func (g *Governor) Override() Override { return g.override }

// Reset makes the governor forget what it learned, its reactions and rests: the path
// begins as at first. Connections open, and what was used of rates and quotas, stay.
// A learner that WithLearner gave is kept as it is.
func (g *Governor) Reset(now time.Time) {
	t := g.tick(now)
	if !g.given {
		g.learner = nil
	}
	g.triggers, g.connecting, g.sending = triggers{}, limiter{}, limiter{}
	g.trouble, g.troubleAt = "", time.Time{}
	g.adopt(t, g.limits)
	g.reshape(t)
}

// Forget is u without what was learned: only what was used of quotas.
func (u Usage) Forget() Usage {
	return Usage{PerHour: u.PerHour, Hour: u.Hour, HourBulk: u.HourBulk, PerDay: u.PerDay, Day: u.Day}
}

// Pace is what the learner allows beside the rule, whether an override holds or not.
func (g *Governor) Pace() Pace { return *g.pace }

// Fresh is the state that a path with these limits begins with.
func (g *Governor) Fresh(now time.Time) State {
	return NewGovernor(g.limits, WithTimings(g.timings)).State(now)
}

// NextChange is when a limit may be raised next, unless replies prevent it; zero when
// nothing is below the rule.
func (g *Governor) NextChange(now time.Time) time.Time {
	t := g.tick(now)
	p := g.pace
	below := p.Connections != 0 && (g.limits.Connections == 0 || p.Connections < g.limits.Connections) ||
		p.MessagesPerConnection != 0 && (g.limits.MessagesPerConnection == 0 || p.MessagesPerConnection < g.limits.MessagesPerConnection) ||
		slowest(g.limits.MessageRate, p.MessageRate) != g.limits.MessageRate ||
		slowest(g.limits.ConnectionRate, p.ConnectionRate) != g.limits.ConnectionRate
	at := p.Next
	if p.RaiseAt > time.Duration(t) && p.RaiseAt < at {
		at = p.RaiseAt
	}
	if !below || at == forever {
		return time.Time{}
	}
	return g.clock.time(max(int64(at), t))
}
