package mxrules

import (
	"math"
	"time"
)

// Timings are the durations of a governor's reactions. A zero duration is its default.
type Timings struct {
	// Adjust is the least time between two cuts of the same kind: many sessions
	// report one event. 60 s, as Momentum's adaptive delivery.
	Adjust time.Duration
	// Recover is the time without new trouble after which a cut is taken back by
	// one step, and the next rest is one step shorter. 1 h, as Momentum's upward step.
	Recover time.Duration
	// RestFirst is the first rest of a path (15 min, Momentum's for soft blocks);
	// each rest that follows doubles, up to RestMax (4 h, Momentum's longest).
	RestFirst time.Duration
	RestMax   time.Duration
	// Probe is the time between two messages after a rest until one succeeds
	// (1 min, KumoMTA's one message a minute).
	Probe time.Duration
	// RetryAfterMin and RetryAfterMax bound the delay that a reply names: 1 min to 12 h.
	RetryAfterMin time.Duration
	RetryAfterMax time.Duration
	// BackoffFirst is the wait after a failure before MAIL (1 min); each one that
	// follows doubles, up to BackoffMax (1 h).
	BackoffFirst time.Duration
	BackoffMax   time.Duration
	// Soft is the first of the rests that learning takes when lower rates do not
	// help (1 s); each that follows doubles.
	Soft time.Duration
	// Quota is the window of receivers' hourly quotas (1 h).
	Quota time.Duration
}

// DefaultTimings are the figures named at each field.
func DefaultTimings() Timings {
	return Timings{
		Adjust:        time.Minute,
		Recover:       time.Hour,
		RestFirst:     15 * time.Minute,
		RestMax:       4 * time.Hour,
		Probe:         time.Minute,
		RetryAfterMin: time.Minute,
		RetryAfterMax: 12 * time.Hour,
		BackoffFirst:  time.Minute,
		BackoffMax:    time.Hour,
		Soft:          time.Second,
		Quota:         time.Hour,
	}
}

// Least times that Divide leaves between reactions: round trips and the replies of
// sessions under way do not get faster with a sandbox's time, and a path that
// halved its rate for each of them would stand still.
const (
	leastAdjust  = time.Second
	leastRecover = 3 * time.Second
)

// Divide is t with every duration divided by n, at least a millisecond: a
// sandbox's faster time. Adjust and Recover stay at 1 s and 3 s, or what they are
// if that is less. An n that is not a positive number changes nothing.
func (t Timings) Divide(n float64) Timings {
	if !(n > 0) || math.IsInf(n, 1) {
		return t
	}
	t = t.valid()
	adjust, recover := min(t.Adjust, leastAdjust), min(t.Recover, leastRecover)
	for _, d := range t.each() {
		*d = scaled(*d, n)
	}
	t.Adjust, t.Recover = max(t.Adjust, adjust), max(t.Recover, recover)
	return t
}

func (t *Timings) each() [11]*time.Duration {
	return [...]*time.Duration{
		&t.Adjust, &t.Recover, &t.RestFirst, &t.RestMax, &t.Probe,
		&t.RetryAfterMin, &t.RetryAfterMax, &t.BackoffFirst, &t.BackoffMax, &t.Soft, &t.Quota,
	}
}

// maxTiming keeps slowed timings far from overflow.
const maxTiming = 10 * 365 * 24 * time.Hour

func scaled(d time.Duration, n float64) time.Duration {
	s := float64(d) / n
	if s >= float64(maxTiming) {
		return maxTiming
	}
	return max(time.Duration(s), time.Millisecond)
}

// valid is t with the default for each duration that is not positive, and none
// outside 1 ms to maxTiming.
func (t Timings) valid() Timings {
	defaults := DefaultTimings()
	for i, d := range t.each() {
		if *d <= 0 {
			*d = *defaults.each()[i]
		}
		*d = min(max(*d, time.Millisecond), maxTiming)
	}
	return t
}

// doubled is first doubled n times, at most most.
func doubled(first, most time.Duration, n int) int64 {
	d := first
	for range n {
		if d >= most {
			break
		}
		d *= 2
	}
	return int64(min(d, most))
}
