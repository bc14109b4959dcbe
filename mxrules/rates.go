package mxrules

import (
	"math"
	"time"
)

// rateLearner finds how many events a second a receiver bears, from when it
// refuses one. It is used for messages and for connections.
//
// What it rests on: just after a refusal the receiver's bucket is empty. So what
// was accepted from one refusal to the next, by the time between them, is at most
// its rate, whatever its burst; and the rate at which it refuses is at least its
// rate. Each refusal narrows the figure known from below and from above.
//
// The level moves through phases. It doubles from a slow start with each good
// cohort, until it no longer limits anything (free) or a refusal comes. Then it
// searches: well below the refusal, and up by small steps until the next one.
// From the second on it hovers just under the figure known, dips under it shortly
// after each refusal, and after some patience probes beyond, slowly at first and
// then faster and faster (the shape is CUBIC's, RFC 9438 section 4.2). Patience
// grows while probing gains nothing, and shrinks when it does.
type rateLearner struct {
	phase phase
	level float64 // events a second; 0 is no limit of ours
	known float64 // what the receiver is thought to bear; 0 is not known
	trust float64 // how far known follows the upper bound when the lower one is loose
	gap   float64 // how far below known the level hovers, a share of it

	cutAt    time.Duration // events of before are answers to the level before
	sinceCut int           // accepted of those sent after the cut
	inRow    int           // cuts without an accepted event between

	epoch    time.Duration // when the bucket was known empty
	accepted int           // since
	hits     int           // refused since

	stepAt   time.Duration // of the last step of growth
	stepped  int           // accepted since, of those sent after it
	raiseAt  time.Duration // when probing begins
	patience time.Duration
	losses   int // refusals in a row that found less than was known
	touched  time.Duration
	confirms int

	high, low, start float64 // bounds: high and start 0 are none

	sent ring
}

// phase is what a rateLearner is doing.
type phase uint8

const (
	phaseStart  phase = iota // doubles with each good cohort
	phaseFree                // the level limits nothing
	phaseSearch              // has met a refusal and steps up to find it again
	phaseHover               // knows what the receiver bears
)

// ring keeps the instants of the last events.
type ring struct {
	at   [ringSize]time.Duration
	n, i int
}

const ringSize = 32

func (r *ring) add(t time.Duration) {
	r.at[r.i] = t
	r.i = (r.i + 1) % ringSize
	r.n = min(r.n+1, ringSize)
}

// rate is the mean over the events kept, up to t.
func (r *ring) rate(t time.Duration) float64 {
	if r.n < 2 {
		return 0
	}
	oldest := r.at[0]
	if r.n == ringSize {
		oldest = r.at[r.i]
	}
	if t <= oldest {
		return math.Inf(1)
	}
	return float64(r.n-1) / (t - oldest).Seconds()
}

// Figures of rate learning.
const (
	firstRate   = 20.0                   // where a slow start begins without a word from the rule
	firstCohort = 3                      // accepted events after which it doubles,
	cohortTime  = 700 * time.Millisecond // and the least time

	searchCut  = 0.4  // of the refused rate, after the first refusal
	searchStep = 1.08 // each step up from there
	enough     = 20   // accepted events that make a bound of an epoch

	dip               = 0.6 // of the level hovered at, just after a refusal
	dipTime           = 2 * time.Second
	leastGap, mostGap = 0.02, 0.12

	leastProbe    = 8 * time.Second
	probeTime     = 20 * time.Second // after which a probe has doubled the level
	firstPatience = 20 * time.Second
	leastPatience = 6 * time.Second
	mostPatience  = 4 * time.Minute
	sinkPatience  = 40 * time.Minute // while each refusal finds less than the one before
	budget        = 0.007            // refusals for each event accepted that probing may cost
	slowRate      = 0.6              // below, patience may be twice as long

	unlimitedRate = 1e5 // beyond, nothing is worth limiting
)

// bound sets the rule's limits; rates per second, 0 is none.
func (r *rateLearner) bound(high, start, low Rate) {
	r.high, r.start, r.low = high.PerSecond(), start.PerSecond(), low.PerSecond()
	if r.low == 0 {
		r.low = 1.0 / 60
	}
	if r.high > 0 {
		r.low = min(r.low, r.high)
	}
	if r.patience == 0 {
		r.level = r.startLevel()
		r.patience, r.gap, r.trust = firstPatience, leastGap+0.01, 0.4
	}
}

// startLevel is where learning begins: the rule's word, or a slow start.
func (r *rateLearner) startLevel() float64 {
	if r.start > 0 {
		return r.start
	}
	if r.high > 0 {
		return min(firstRate, r.high)
	}
	return firstRate
}

// add notes an event that is sent.
func (r *rateLearner) add(t time.Duration) { r.sent.add(t) }

// rateAt is the rate at which events go at t: the level where it is what limits.
func (r *rateLearner) rateAt(t time.Duration) float64 {
	seen := r.sent.rate(t)
	if r.level == 0 {
		return seen
	}
	if seen == 0 {
		return r.level
	}
	return min(r.level, max(seen, r.level/4))
}

// took notes that an event sent at the instant given was accepted.
func (r *rateLearner) took(t, sent time.Duration) {
	r.accepted++
	if sent >= r.cutAt {
		r.sinceCut++
		r.inRow = 0
	}
	if sent >= r.stepAt {
		r.stepped++
	}
	r.grow(t)
}

// grow raises the level where the phase says so.
func (r *rateLearner) grow(t time.Duration) {
	switch r.phase {
	case phaseStart:
		if r.stepped >= firstCohort && t-r.stepAt >= cohortTime {
			r.step(t, r.level*2)
			if r.slack(t) || r.level >= unlimitedRate {
				r.free()
			}
		}
	case phaseSearch:
		if r.stepped >= firstCohort && t-r.stepAt >= 400*time.Millisecond {
			if !r.slackBy(t, 1.5) {
				r.step(t, r.level*searchStep)
			}
		}
	case phaseHover:
		r.hover(t)
	}
}

func (r *rateLearner) step(t time.Duration, level float64) {
	r.level = level
	if r.high > 0 {
		r.level = min(r.level, r.high)
	}
	r.stepAt, r.stepped = t, 0
}

// slack reports whether something else limits what is sent.
func (r *rateLearner) slack(t time.Duration) bool {
	return r.high > 0 && r.level >= r.high || r.slackBy(t, 4)
}

func (r *rateLearner) slackBy(t time.Duration, by float64) bool {
	return r.sent.n == ringSize && r.sent.rate(t)*by < r.level
}

func (r *rateLearner) free() {
	r.phase, r.level = phaseFree, 0
}

// hover moves the level after a refusal: a dip, the plateau, the probe.
func (r *rateLearner) hover(t time.Duration) {
	at := r.known * (1 - r.gap)
	r.level = at
	if since := t - r.cutAt; since < dipTime {
		r.level = at * (dip + (1-dip)*float64(since)/float64(dipTime))
	}
	if t <= r.raiseAt {
		r.bounded()
		return
	}
	x := float64(t-r.raiseAt) / float64(min(max(r.patience, leastProbe), probeTime))
	level := at * (1 + x*x*x)
	if seen := r.sent.rate(t); r.sent.n == ringSize && level > 2*seen && level > r.known {
		level = max(2*seen, r.known) // nothing is learned by a limit that does not limit
		if r.slackBy(t, 4) && level > 3*r.known {
			r.free()
			return
		}
	}
	r.level = level
	r.bounded()
}

func (r *rateLearner) bounded() {
	if r.high > 0 && r.level >= r.high {
		if r.known*(1-r.gap) < r.high {
			r.level = r.high
			return
		}
		r.free()
		return
	}
	r.level = max(r.level, r.low)
}

// refused notes a refusal of an event sent at the instant given. It answers
// whether that is a new event, and how many cuts came in a row without anything
// accepted between.
func (r *rateLearner) refused(t, sent time.Duration) (fresh bool, inRow int) {
	r.hits++
	if sent < r.cutAt+r.settling() {
		return false, r.inRow
	}
	rate := r.rateAt(t)
	if rate <= 0 || math.IsInf(rate, 1) {
		rate = max(r.level, firstRate)
	}
	r.inRow++
	r.touched = t
	r.confirms++
	r.cut(t, rate)
	r.level = max(r.level, r.low)
	if r.high > 0 {
		r.level = min(r.level, r.high)
	}
	r.cutAt, r.stepAt, r.sinceCut, r.stepped = t, t, 0, 0
	return true, r.inRow
}

// settling is how long after a cut refusals are still put down to it: until two
// events at the new level have given the receiver's bucket something.
func (r *rateLearner) settling() time.Duration {
	if r.level <= 0 || r.cutAt == 0 {
		return 0
	}
	return min(200*time.Millisecond+time.Duration(2/r.level*float64(time.Second)), 5*time.Second)
}

// cut narrows what is known by a refusal at a rate.
func (r *rateLearner) cut(t time.Duration, rate float64) {
	span := (t - r.epoch).Seconds()
	mean := 0.0
	if span > 0 {
		mean = float64(r.accepted) / span
	}
	switch {
	case r.phase == phaseStart || r.phase == phaseFree:
		r.phase, r.known = phaseSearch, 0
		r.level = rate * searchCut
		r.begin(t)
	case r.accepted >= enough:
		before := r.known
		r.narrow(min(mean, rate), rate)
		r.judge(t, before)
		r.phase = phaseHover
		r.begin(t)
		r.level = r.known * (1 - r.gap) * dip
	default:
		r.collapse(mean, rate)
	}
}

// begin starts an epoch: the receiver's bucket is empty.
func (r *rateLearner) begin(t time.Duration) {
	r.epoch, r.accepted, r.hits = t, 0, 0
}

// narrow puts what is known between the bounds that a refusal gives.
func (r *rateLearner) narrow(low, high float64) {
	switch {
	case r.known == 0:
		r.known = math.Sqrt(low * high)
	case low > 1.02*r.known && high > 1.3*r.known: // raised, and a burst hides how far
		r.known = math.Sqrt(low * high)
	case low > 1.02*r.known: // proof of more: the limit was raised
		r.known = max(low, 0.92*high)
	case high < r.known:
		r.known = high
		r.trust = max(r.trust/2, 0.05)
	default:
		r.known += r.trust * (min(high, 1.3*r.known) - r.known)
	}
}

// collapse answers a refusal that follows the last one soon: the level is far
// too high, and what came through since says little.
func (r *rateLearner) collapse(mean, rate float64) {
	next := rate * 0.5
	if r.phase == phaseHover && rate > 0.8*r.known {
		next = rate * 0.9
		r.known = min(r.known, rate)
	}
	if r.accepted >= 5 {
		next = min(max(mean*0.9, 0.3*rate), 0.85*rate)
	}
	if r.phase == phaseHover && next < 0.7*r.known || r.phase == phaseSearch {
		r.phase = phaseSearch
		r.known = min(r.known, rate)
	}
	r.level = next
}

// judge sets how long to wait before the next probe, by what the last one found.
// A refusal at a level that was known to be good says that the limit moves.
func (r *rateLearner) judge(t time.Duration, before float64) {
	switch {
	case before == 0:
		r.patience = firstPatience
	case t <= r.raiseAt:
		r.patience = max(r.patience/2, leastPatience)
		r.losses = 0
	case r.known > 1.03*before:
		r.patience, r.losses = max(r.patience/2, leastPatience), 0
		r.trust = min(r.trust*2, 0.5)
	default:
		r.gained(before)
	}
	r.raiseAt = t + max(r.patience, r.afford())
}

// afford is how long the level must be kept so that the refusals since the last
// epoch are few for what is accepted meanwhile.
func (r *rateLearner) afford() time.Duration {
	most := mostPatience
	if r.known < slowRate {
		most *= 2
	}
	return min(time.Duration(float64(max(r.hits, 1))/(budget*max(r.known, 1e-3))*float64(time.Second)), most)
}

// gained notes a probe that found nothing.
func (r *rateLearner) gained(before float64) {
	if r.known < 0.995*before && r.known > 0.8*before {
		r.losses++
	} else {
		r.losses = 0
	}
	most := mostPatience
	if r.losses >= 3 {
		most = sinkPatience
	}
	r.patience = min(r.patience*16/10, most)
}

// next is when the level should be looked at again although nothing happens.
func (r *rateLearner) next(t time.Duration) time.Duration {
	if r.phase != phaseHover {
		return forever
	}
	if t < r.raiseAt && t-r.cutAt >= dipTime {
		return r.raiseAt
	}
	return t + 250*time.Millisecond
}

// resume goes on after a long rest: cautiously, to just under what is known.
func (r *rateLearner) resume(t time.Duration) {
	if r.known == 0 {
		r.phase = phaseSearch
		r.begin(t)
		return
	}
	r.phase = phaseHover
	r.begin(t)
	r.cutAt, r.stepAt = t, t
	r.raiseAt = t + max(r.patience, mostPatience)
	r.hover(t)
}

// rate is the level as a Rate, the zero Rate if there is none. Its burst is five
// milliseconds' worth.
func (r *rateLearner) rate() Rate {
	if r.level <= 0 || r.level >= unlimitedRate {
		return Rate{}
	}
	return rateOf(r.level)
}

// rateOf writes a number of events a second so that it reads well and is exact to
// a thousandth.
func rateOf(perSecond float64) Rate {
	per := time.Hour
	switch {
	case perSecond >= 1000:
		per = time.Second
	case perSecond >= 100:
		per = 10 * time.Second
	case perSecond >= 15:
		per = time.Minute
	}
	return Rate{Count: max(1, int(perSecond*per.Seconds())), Per: per, Burst: int(perSecond * 0.005)}
}
