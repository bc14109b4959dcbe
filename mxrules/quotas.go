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
// before. Without words, a receiver that refuses everything for long at the same
// number twice is thought to have one.
//
// A quota is metered smoothly from the moment that it is known.
type quotaLearner struct {
	count    hourCount
	window   time.Duration
	quota    float64 // 0 is not known
	raiseAt  time.Duration
	patience time.Duration
	step     float64
	confirms int
	at       time.Duration // of the last refusal by it
	guessed  bool          // from what the receiver does, not from its words
	late     time.Duration // how long the receiver's hour was waited for last
}

// Figures of quota learning.
const (
	quotaGap      = 0.985 // of the quota that is metered
	leastQuota    = 20
	farBelow      = 0.97
	quotaPatience = 6 * time.Minute
	mostQuotaWait = 40 * time.Minute
	nearlyFull    = 0.9
	mostQuotaStep = 0.5
	quotaStep     = 0.02
)

// learn takes the count of the last hour for the quota. A count below a quota that
// is known says that the receiver's hour ends later than ours, until minutes of
// waiting have not helped.
func (q *quotaLearner) learn(t time.Duration) bool {
	n := float64(q.count.count(t, q.window))
	if n < leastQuota || n < q.quota*farBelow && q.late < q.window/15 {
		return false
	}
	q.found(t, n)
	q.guessed = false
	return true
}

// found takes a number for the quota.
func (q *quotaLearner) found(t time.Duration, n float64) {
	if q.quota > 0 && n <= q.quota*1.01 {
		q.patience = min(q.patience*2, mostQuotaWait)
	} else {
		q.patience = quotaPatience
	}
	q.quota, q.step, q.late = n, quotaStep, 0
	q.confirms++
	q.raiseAt = t + q.patience
}

// pause is how long to wait for the receiver's hour to end.
func (q *quotaLearner) pause() time.Duration {
	q.late = min(max(2*q.late, q.window/hourSlots), q.window/4)
	return q.late
}

// rate is how many a second the quota lets through; 0 is no quota.
func (q *quotaLearner) rate() float64 { return q.quota * quotaGap / q.window.Seconds() }

// raise lets a little more through after some patience, and more and more while
// that is not refused.
func (q *quotaLearner) raise(t time.Duration) {
	if q.quota == 0 || t < q.raiseAt || !q.guessed && float64(q.count.count(t, q.window)) < nearlyFull*q.quota {
		return // what the hour has room for is not to be spent in a moment
	}
	q.quota *= 1 + q.step
	q.step = min(q.step*2, mostQuotaStep)
	q.raiseAt = t + q.window/180
}

// near reports whether the hour is as full as the quota.
func (q *quotaLearner) near(t time.Duration) bool {
	return q.quota > 0 && float64(q.count.count(t, q.window)) >= farBelow*q.quota
}

// full is when the next message may be sent, if the hour is full at t.
func (q *quotaLearner) full(t time.Duration) (time.Duration, bool) {
	if q.quota == 0 || float64(q.count.count(t, q.window)) < q.quota*0.997 {
		return 0, false
	}
	return q.count.below(t, q.window, int64(q.quota*0.997)), true
}
