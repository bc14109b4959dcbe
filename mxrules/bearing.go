package mxrules

import (
	"math"
	"time"
)

// cut narrows what is known by a refusal at a rate.
func (r *rateLearner) cut(t time.Duration, rate float64) {
	span := (t - r.epoch).Seconds()
	mean := 0.0
	if span > 0 {
		mean = float64(r.accepted) / span
	}
	switch {
	case r.phase == phaseStart || r.phase == phaseFree || r.known == 0 && r.accepted >= r.enough(rate) && mean < loose*rate:
		r.phase, r.known = phaseSearch, 0
		r.search = rate * searchCut
		r.level = r.search * holdShare
		r.begin(t)
	case r.accepted >= r.enough(rate):
		before := r.known
		r.narrow(t, min(mean, rate), rate)
		r.judge(t, before)
		r.phase = phaseHover
		r.begin(t)
		r.level = r.known * (1 - r.gap) * dip
		if before == 0 && r.cheap() && !r.refines && rate > rough*mean { // one more refusal is worth knowing better
			r.phase, r.search, r.known = phaseSearch, r.known, 0
			r.refines = true
		} else {
			r.refines = false
		}
	default:
		r.collapse(mean, rate, span)
	}
}

// cheap reports whether the events are connections: a refused one costs little beside
// the messages that the others carry.
func (r *rateLearner) cheap() bool { return r.budget > messageBudget }

// begin starts an epoch: the receiver's bucket is empty.
func (r *rateLearner) begin(t time.Duration) {
	r.epoch, r.accepted, r.hits = t, 0, 0
}

// narrow puts what is known between the bounds that a refusal gives.
func (r *rateLearner) narrow(t time.Duration, low, high float64) {
	if r.known == 0 { // nearer to the lower: what is missing is found without a refusal
		weight := lowWeight
		if r.refines { // it came up from near by in small steps
			weight = fineWeight
		}
		r.known = math.Pow(low, weight) * math.Pow(high, 1-weight)
		return
	}
	if t <= r.raiseAt {
		r.moved(low, high)
		return
	}
	ratio := high / r.known
	r.proved = true
	switch {
	case low > 1.02*r.known && ratio > 1.3: // raised, and a burst may hide how far
		r.known = max(math.Sqrt(low*high), high/r.over*leastRaise)
	case low > 1.02*r.known: // proof of more: the limit was raised
		r.known = max(low, 0.92*high)
	case ratio > unlikely*r.over && r.sunk < sinking/2 && (r.beyond(t) > usualBurst || ratio > unlikely*mostOver): // further than a burst has ever carried a probe
		r.known, r.guess = high/r.over*leastRaise, ratio
	case high < r.known:
		r.known = high
		r.trust = max(r.trust/2, leastTrust)
	default:
		r.proved = false
		if low > sustained*r.known {
			r.trust *= 1.5
		}
		r.trust = min(r.trust, r.mostTrust())
		r.known += r.trust * (min(high, mostStride*r.known) - r.known)
		if r.sunk < sinking/2 {
			r.over += (min(max(ratio, 1), mostOver) - r.over) * 0.4
		}
	}
}

// mostTrust is how far what is known may follow the upper bound.
func (r *rateLearner) mostTrust() float64 {
	if r.known < slowRate && !r.cheap() && r.losses > 2 {
		return slowTrust
	}
	return mostTrust
}

// beyond is about how many events the probe under way sent beyond what is known.
func (r *rateLearner) beyond(t time.Duration) float64 {
	over := r.probeTime().Seconds()
	x := (t - r.raiseAt).Seconds() / over
	return r.known * over * x * x * x * x / 4
}

// moved narrows by a refusal at a level that was known to be good. The receiver's
// bucket was empty when the level began and is empty now: what came through
// between is what it bears.
func (r *rateLearner) moved(low, high float64) {
	r.known = min(r.known, high)
	if low > high/2 {
		r.known = low
	}
	if r.guess > 0 { // the last probe went so far by a burst
		r.over, r.guess = min(max(r.over, r.guess), mostOver), 0
	}
	r.trust = max(r.trust/2, leastTrust)
	if r.calm > 0 {
		r.known = max(low, r.known*calmCut)
	}
}

// collapse answers a refusal that follows the last one soon: the level is far
// too high, and what came through since says little.
func (r *rateLearner) collapse(mean, rate, span float64) {
	next := rate * 0.5
	if r.phase == phaseHover && rate > 0.8*r.known {
		next = rate * 0.9
		r.known = min(r.known, rate)
		if r.known < slowRate { // each step of the way down would cost another
			r.known *= slowFall
		}
	}
	if r.accepted >= 5 {
		next = min(max(mean*0.9, 0.3*rate), 0.85*rate)
	}
	if r.known == 0 && r.accepted <= hardlyAny { // no more than these and one begun came in since the bucket was empty
		next = min(next, float64(r.accepted+1)/span)
	}
	if r.phase == phaseHover && next < 0.7*r.known || r.phase == phaseSearch {
		r.phase = phaseSearch
		r.known = min(r.known, rate)
	}
	r.level, r.search = next, 0
}

// judge sets how long to wait before the next probe, by what the last one found.
// A refusal at a level that was known to be good says that the limit moves.
func (r *rateLearner) judge(t time.Duration, before float64) {
	r.sinks(min(before, float64(r.accepted)/(t-r.epoch).Seconds()), t-r.epoch)
	switch {
	case before == 0:
		r.patience, r.losses = firstPatience, 0 // nothing says that it stands
		if r.cheap() {                          // those of the search were its price
			r.hits = min(r.hits, 1)
		}
	case t <= r.raiseAt && r.known > 0.9*before: // not exact enough
	case t <= r.raiseAt:
		r.patience = max(r.patience/2, leastPatience)
		if r.known < before/2 {
			r.losses = 0 // what was tried before says nothing of this
		}
	case r.known > raised*before && r.proved: // it bears much more: how much is soon to be known
		r.patience, r.losses, r.sunk, r.settled = leastPatience, 0, 0, 0
	case r.known > 1.03*before && r.proved:
		r.patience, r.losses = max(r.patience/2, leastPatience), 0
	default:
		r.futile()
	}
	if r.sunk > sinking {
		r.patience = min(max(r.patience, sinkFirst)*2, sinkPatience)
	}
	r.keepBudget()
	r.raiseAt = t + max(r.patience, r.calm, r.afford())
}

// keepBudget stays further below what is known when refusals are more than the
// budget, and comes back when they are far fewer.
func (r *rateLearner) keepBudget() {
	switch {
	case r.share > r.budget:
		r.gap = min(r.gap*1.25, mostGap)
		r.patience = min(r.patience*12/10, max(mostPatience, r.patience))
	case r.share < r.budget/2:
		r.gap = max(r.gap*0.85, leastGap)
	}
}

// afford is how long the level must be kept so that the refusals since the last
// epoch are few for what is accepted meanwhile.
func (r *rateLearner) afford() time.Duration {
	most, budget := mostPatience, r.budget
	if r.known < slowRate && !r.cheap() {
		most, budget = 2*mostPatience, slowShare*budget
		if r.known < slowerRate {
			budget *= slowerShare
		}
		if r.losses > 1 { // it stands
			most = slowPatience
		}
	}
	return min(time.Duration(float64(max(r.hits, 1))/(budget*max(r.known, 1e-3))*float64(time.Second)), most)
}

// futile notes a probe that found nothing.
func (r *rateLearner) futile() {
	r.patience = min(max(r.patience*16/10, r.floor()), mostPatience)
	r.losses++
}

// floor is the least patience after several probes in a row that found nothing.
func (r *rateLearner) floor() time.Duration {
	if r.losses < 2 {
		return 0
	}
	return steadyPatience
}

// sinks watches for a receiver that holds refusals against the sender: what it
// bears falls a little from one calm time to the next, and does not rise. Then
// refusals are what must not happen, and the last per cent of throughput is not
// worth one. known is what got through in the calm time that a refusal ends.
func (r *rateLearner) sinks(known float64, calm time.Duration) {
	if known <= 0 || calm < settledFor {
		return // still finding out how far the limit fell
	}
	if r.settled > 0 {
		if d := math.Log(r.settled / known); d > aStep || d < -aRise {
			r.sunk = 0 // the limit itself has changed
			r.moves++
		} else {
			r.moves *= stillness
			r.sunk = max(r.sunk+d, 0)
		}
		if r.moves > restless {
			r.sunk = 0 // and does so often
		}
	}
	r.settled = known
}
