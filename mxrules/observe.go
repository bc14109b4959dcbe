package mxrules

import "time"

// observer acts by fixed cuts and learns beside them what it would do.
type observer struct {
	*static
	beside *adaptive
}

var _ Learner = (*observer)(nil)

func newLearner(m Mode, t Timings) Learner {
	switch m {
	case GovernorOn:
		return NewAdaptive(t)
	case GovernorObserve:
		return &observer{NewStatic(t).(*static), NewAdaptive(t).(*adaptive)}
	}
	return NewStatic(t)
}

// Note implements Learner.
func (o *observer) Note(at time.Duration, e Event) {
	o.static.Note(at, e)
	o.beside.Note(at, e)
	o.wake()
}

// Refused implements Learner.
func (o *observer) Refused(at time.Duration, e Evidence) {
	o.static.Refused(at, e)
	o.beside.Refused(at, e)
	o.wake()
}

// Advance implements Learner.
func (o *observer) Advance(at time.Duration) {
	o.static.Advance(at)
	o.beside.Advance(at)
	o.wake()
}

// Bound implements Learner.
func (o *observer) Bound(at time.Duration, l Limits) {
	o.static.Bound(at, l)
	o.beside.Bound(at, l)
	o.wake()
}

// Memory implements Learner: what was observed is worth keeping for the day on
// which the governor is switched on. What holds the path is what is in force.
func (o *observer) Memory(at time.Duration) Memory {
	m := o.beside.Memory(at)
	m.Held = o.rests.held(at)
	return m
}

// Recall implements Learner.
func (o *observer) Recall(at time.Duration, m Memory) {
	o.static.Recall(at, m)
	o.beside.Recall(at, m)
	o.wake()
}

// wake asks for time whenever either of both wants it.
func (o *observer) wake() { o.pace.Next = min(o.static.next(), o.beside.pace.Next) }

// Observed is what a governor that only observes would do now; ok is false for
// every other governor.
func (g *Governor) Observed() (p Pace, ok bool) {
	o, ok := g.learner.(*observer)
	if !ok {
		return Pace{}, false
	}
	return o.beside.pace, true
}
