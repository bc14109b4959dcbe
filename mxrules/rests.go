package mxrules

import "time"

// rests is the part of a learner that suspends a path: rests after replies, ended
// by a probe, and the back-off after failures before MAIL.
type rests struct {
	level     int // rests in a row
	easeAt    time.Duration
	since     time.Duration
	until     time.Duration
	probing   bool // from a rest's begin until a success after it
	probeNext time.Duration
	probeSent bool

	connectUntil time.Duration // no new connections before, by a reply's word

	failures     int // in a row
	backoffSince time.Duration
	backoffUntil time.Duration
}

// maxInARow bounds the rests and failures counted; every doubling has ended before.
const maxInARow = 16

// never is an instant of the governor's clock that does not come.
const never = int64(maxDebt)

// named is a delay that a reply names, within bounds.
func (t *Timings) named(d time.Duration) time.Duration {
	return min(max(d, t.RetryAfterMin), t.RetryAfterMax)
}

// wait obeys a delay named with another effect than rest: it is no block, so
// the path goes on afterwards without a probe.
func (r *rests) wait(t time.Duration, e Effect, until time.Duration) {
	if e == EffectFewerConnections {
		r.connectUntil = max(r.connectUntil, until)
		return
	}
	if t >= r.until {
		r.since = t
	}
	r.until = max(r.until, until)
}

// begin suspends the path for the rest that is next in the row, or for the time
// that the reply or a rule names.
func (r *rests) begin(t time.Duration, e *Evidence, tm *Timings) {
	length := e.ordered
	if length == 0 {
		length = time.Duration(doubled(tm.RestFirst, tm.RestMax, r.level))
	}
	r.rest(t, length, e.RetryAfter, tm)
}

// rest suspends the path for a length, or for the time that the reply names.
func (r *rests) rest(t, length, retryAfter time.Duration, tm *Timings) {
	if t < r.until && r.probing {
		// Sessions under way report what began this rest.
		if retryAfter > 0 {
			r.until = max(r.until, t+tm.named(retryAfter))
		}
	} else {
		if retryAfter > 0 {
			length = tm.named(retryAfter)
		}
		if t >= r.until {
			r.since = t
		}
		r.until = max(r.until, t+length)
		r.level = min(r.level+1, maxInARow)
		r.probing, r.probeSent, r.probeNext = true, false, 0
	}
	r.easeAt = r.until + tm.Recover
}

// ease shortens the next rest by a step for each that time without trouble has earned.
func (r *rests) ease(t, step time.Duration) {
	for r.level > 0 && t >= r.easeAt {
		r.level--
		r.easeAt += step
	}
}

func (r *rests) next() time.Duration {
	if r.level > 0 {
		return r.easeAt
	}
	return forever
}

// failed backs off: new connections wait BackoffFirst, doubling up to BackoffMax
// with each failure after a wait.
func (r *rests) failed(t time.Duration, tm *Timings) {
	if t < r.backoffUntil {
		return // dials under way when the wait began
	}
	if r.failures == 0 {
		r.backoffSince = t
	}
	r.backoffUntil = t + time.Duration(doubled(tm.BackoffFirst, tm.BackoffMax, r.failures))
	r.failures = min(r.failures+1, maxInARow)
}

// note follows an event.
func (r *rests) note(t time.Duration, kind EventKind, tm *Timings) {
	switch kind {
	case EventSent:
		if r.probing && t >= r.until {
			r.probeNext = t + tm.Probe
			r.probeSent = true
		}
	case EventClosed:
		r.probeSent = false // a probe that had succeeded would be over
	case EventFailed:
		r.failed(t, tm)
	case EventReady, EventServed:
		r.failures, r.backoffUntil = 0, 0
		if r.probing && r.probeSent && t >= r.until {
			r.probing, r.probeSent, r.probeNext = false, false, 0
		}
	}
}

// fill writes the suspensions into a pace.
func (r *rests) fill(p *Pace) {
	p.RestSince, p.RestUntil, p.ConnectUntil = r.since, r.until, r.connectUntil
	p.Probing, p.ProbeAt, p.Rests = r.probing, r.probeNext, r.level
	p.BackoffSince, p.BackoffUntil, p.Failures = r.backoffSince, r.backoffUntil, r.failures
}
