package mxrules

import (
	"math"
	"time"
)

// Memory implements Learner. What was found is confirmed by every message that is
// served while it holds.
func (a *adaptive) Memory(at time.Duration) Memory {
	var m Memory
	known := func(l *Learned, value float64, seen int) {
		if value > 0 {
			*l = Learned{Value: value, At: int64(a.served), Seen: uint16(min(max(seen, 1), math.MaxUint16))}
		}
	}
	known(&m.MessageRate, a.messages.known, a.messages.confirms)
	known(&m.ConnectionRate, a.dials.known, a.dials.confirms)
	known(&m.Connections, float64(a.conns.learned()), a.conns.confirms)
	known(&m.MessagesPerConnection, float64(a.each.cap), a.each.confirms)
	known(&m.Hourly, a.quota.known, a.quota.confirms)
	known(&m.Rest, a.box.Seconds(), 1)
	m.Held = a.held(at)
	return m
}

// learned is a cap that evidence has set, 0 if none has.
func (c *connectionLearner) learned() int {
	if c.known > 0 || c.phase == phaseSearch && !c.climb.active {
		return c.cap
	}
	return 0
}

// Recall implements Learner. Knowledge is taken up near where it was left; what
// lay idle is worth less.
func (a *adaptive) Recall(at time.Duration, m Memory) {
	if v := m.MessageRate.now(at); v > 0 {
		a.messages.recall(at, v, int(m.MessageRate.Seen))
	}
	if v := m.ConnectionRate.now(at); v > 0 {
		a.dials.recall(at, v, int(m.ConnectionRate.Seen))
	}
	if v := int(m.Connections.now(at) + 0.5); v > 0 && (a.conns.high == 0 || v < a.conns.high) {
		a.conns.recall(at, v, int(m.Connections.Seen))
	}
	if v := int(m.MessagesPerConnection.now(at) + 0.5); v > 0 && (a.each.high == 0 || v < a.each.high) {
		a.each.cap, a.each.confirms = max(v, a.each.low), int(m.MessagesPerConnection.Seen)
		a.each.at, a.each.raiseAt = at, at+a.each.patience
	}
	if v := m.Hourly.now(at); v > 0 {
		a.quota.recall(at, v, time.Duration(m.Hourly.At))
	}
	if v := m.Rest.now(at); v > 0 {
		a.box = time.Duration(m.Rest.Value * float64(time.Second))
	}
	a.rests.recall(at, m.Held, &a.timings)
	if a.softly = int(m.Held.Soft); a.softly > 0 {
		a.began, a.length = a.rests.since, a.rests.until-a.rests.since
	}
	a.settle(at, "what was learned before")
}

// held is what holds the path by time.
func (a *adaptive) held(at time.Duration) Held {
	h := a.rests.held(at)
	if h != (Held{}) {
		h.Soft = uint8(min(a.softly, maxInARow))
	}
	return h
}

// now is what a figure is worth at an instant: itself while it is fresh, then
// doubled with each half-life, so that it goes towards the rule's limit; 0 when it
// is too old to be worth anything.
func (l Learned) now(at time.Duration) float64 {
	age := at - time.Duration(l.At)
	switch {
	case !(l.Value > 0) || l.Value > maxLearned || age > staleFrom:
		return 0
	case age <= freshFor:
		return l.Value
	}
	return l.Value * math.Exp2(float64(age-freshFor)/float64(halfLife))
}

// maxLearned bounds what is taken from a memory: no receiver bears more.
const maxLearned = 1e9

// recall takes up a rate that was known.
func (r *rateLearner) recall(t time.Duration, known float64, seen int) {
	if r.high > 0 && known >= r.high || known >= unlimitedRate {
		return
	}
	r.phase, r.known, r.confirms = phaseHover, max(known, r.low), seen
	r.begin(t)
	r.cutAt, r.stepAt, r.stepped = t, t, 0
	r.raiseAt = t + r.patience
	r.hover(t)
}

// recall takes up a cap that was known.
func (c *connectionLearner) recall(t time.Duration, known, seen int) {
	c.phase, c.known, c.confirms = phaseHover, max(known, c.low), seen
	c.set(t, c.known)
	c.cap = c.known
	c.raiseAt = t + c.patience
}

// recall takes up a quota that was known. What was sent of it in the last hour is
// not, so as much is taken for used as smooth metering allowed.
func (q *quotaLearner) recall(t time.Duration, known float64, last time.Duration) {
	q.known, q.quota, q.step = known, known, quotaStep
	q.raiseAt = t + q.window
	used := float64(q.window - min(max(t-last, 0), q.window))
	n := int64(known * quotaGap * used / float64(q.window))
	if n <= 0 {
		return
	}
	q.count.turn(t, q.window)
	q.count.slots[q.count.last%int64(len(q.count.slots))] += uint32(min(n, math.MaxUint32/2))
	q.count.sum += n
}
