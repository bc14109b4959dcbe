package mxrules

import "time"

// hourCount counts events in the last hour, in slots of half a minute. A slot
// counts until all of it is an hour old.
type hourCount struct {
	slots [hourSlots + 1]uint32
	last  int64 // number of the newest slot
	sum   int64
}

const (
	hourSlots = 120
	hourWide  = int64(time.Hour)
)

func (h *hourCount) slot(t, window time.Duration) int64 {
	return int64(t) / (int64(window) / hourSlots)
}

// turn drops what is older than the window at t.
func (h *hourCount) turn(t, window time.Duration) {
	now := h.slot(t, window)
	if now-h.last > hourSlots {
		*h = hourCount{last: now}
		return
	}
	for h.last < now {
		h.last++
		i := h.last % int64(len(h.slots))
		h.sum -= int64(h.slots[i])
		h.slots[i] = 0
	}
}

func (h *hourCount) add(t, window time.Duration) {
	h.turn(t, window)
	h.slots[h.last%int64(len(h.slots))]++
	h.sum++
}

// count is how many came in the window that ends at t.
func (h *hourCount) count(t, window time.Duration) int64 {
	h.turn(t, window)
	return h.sum
}

// below is when the count will be under a number if nothing comes.
func (h *hourCount) below(t, window time.Duration, n int64) time.Duration {
	h.turn(t, window)
	left := h.sum
	wide := int64(window) / hourSlots
	for s := h.last - hourSlots; s <= h.last; s++ {
		if left < n {
			return max(t, time.Duration((s+hourSlots)*wide))
		}
		if s >= 0 {
			left -= int64(h.slots[s%int64(len(h.slots))])
		}
	}
	return t + window
}

// quotaLearner finds how many messages a receiver takes in any hour. A refusal
// whose words speak of hours or quotas tells: as many as were accepted in the hour
// before. Without words, a receiver that refuses everything for long and serves again
// when an hour has passed is thought to have one.
//
// A quota is metered smoothly from the moment that it is known. After some patience
// more is let through: a little at first, and more and more once the hour holds more
// than was known to fit, so that a quota that was raised is soon found.
type quotaLearner struct {
	count    hourCount
	window   time.Duration
	known    float64 // as a refusal told; 0 is not known
	quota    float64 // in force: what is known, or more while that is put to the test
	raiseAt  time.Duration
	step     float64
	confirms int
	at       time.Duration // of the last refusal by it
	hits     int           // refusals since it was last put to the test
	guessed  bool          // from what the receiver does, not from its words
	worded   bool          // the receiver says when it refuses for it
	late     time.Duration // how long the receiver's hour was waited for last
}

// Figures of quota learning.
const (
	quotaGap      = 0.985 // of the quota that is metered
	leastQuota    = 20
	farBelow      = 0.97            // of what is known, and two messages: the receiver's hour is not quite ours
	quotaPatience = 6 * time.Minute // so that a quota that was raised is found within ten,
	quotaBudget   = 0.006           // if that costs few refusals for each message accepted
	mostQuotaHits = 3               // that are charged to it: those of the first time were on their way
	nearlyFull    = 0.9
	inUse         = 0.5 // of the rate that a raised quota gives: else it is not what limits
	mostQuotaStep = 0.5
	quotaStep     = 0.02
	mostQuotaLead = 8 // times what the hour holds
)

// refused learns from a refusal by the quota. It answers false if nothing is known.
func (q *quotaLearner) refused(t time.Duration) bool {
	n := float64(q.count.count(t, q.window))
	if n < leastQuota && q.known == 0 {
		return false
	}
	if t-q.at > q.window/6 {
		q.late = 0
	}
	q.at = t
	q.hits++
	if n < min(q.known*farBelow, q.known-2) {
		q.quota = q.known // it ends later than ours, or has fallen: what passes next tells
		return true
	}
	q.found(t, n)
	q.guessed = false
	return true
}

// served notes a message accepted: the first one after a long wait for the receiver's
// hour tells how many fit into it now.
func (q *quotaLearner) served(t, sent time.Duration) {
	if q.late >= q.window/15 && sent >= q.at {
		q.late = 0
		if n := float64(q.count.count(t, q.window)); n >= leastQuota && n < q.known {
			q.found(t, n)
		}
	}
}

// found takes a number for the quota.
func (q *quotaLearner) found(t time.Duration, n float64) {
	q.known, q.quota, q.step = n, n, quotaStep
	q.confirms++
	afford := float64(min(max(q.hits, 1), mostQuotaHits)) / (quotaBudget * n) * q.window.Seconds()
	q.hits = 0
	q.raiseAt = t + max(quotaPatience, time.Duration(afford*float64(time.Second)))
}

// pause is how long to wait for the receiver's hour to end.
func (q *quotaLearner) pause() time.Duration {
	q.late = min(max(2*q.late, q.window/60), q.window/4)
	return q.late
}

// rate is how many a second the quota lets through; 0 is no quota.
func (q *quotaLearner) rate() float64 { return q.quota * quotaGap / q.window.Seconds() }

// raise lets a little more through after some patience, and more and more while
// that is not refused. rate is at what messages go.
func (q *quotaLearner) raise(t time.Duration, rate float64) {
	if q.known == 0 || t < q.raiseAt {
		return
	}
	n := float64(q.count.count(t, q.window))
	switch {
	case q.guessed: // it may be none
	case q.quota == q.known && n < nearlyFull*q.known:
		return // what the hour has room for is not to be spent in a moment
	case q.quota > q.known && rate < inUse*q.rate():
		return
	}
	q.quota *= 1 + q.step
	if !q.guessed {
		q.quota = min(q.quota, max(mostQuotaLead*n, q.known))
	}
	q.step = min(q.step*2, mostQuotaStep)
	q.raiseAt = t + q.window/180
}

// near reports whether the hour is about as full as the quota that is known, so that a
// refusal without a word of it may be by it: not where others had one.
func (q *quotaLearner) near(t time.Duration) bool {
	return q.known > 0 && !q.worded && float64(q.count.count(t, q.window)) >= farBelow*q.known
}

// full is when the next message may be sent, if the hour is full at t.
func (q *quotaLearner) full(t time.Duration) (time.Duration, bool) {
	if q.quota == 0 || float64(q.count.count(t, q.window)) < q.quota*0.997 {
		return 0, false
	}
	return q.count.below(t, q.window, int64(q.quota*0.997)), true
}
