package mta

import (
	"hash/fnv"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/smtpc"
)

// MaxValidity is the longest a message is tried, from its arrival in the relay
// (FACTS: 3.5 days).
const MaxValidity = 84 * time.Hour

// maxLostClaims is how many claims a message may lose to crashes before it ends
// Failed with code 25 (DESIGN invariant 4).
const maxLostClaims = 3

// Schedule says when a deferred message is tried again. The zero value is the
// published one; Scale divides every period of it.
type Schedule struct {
	// Scale divides every delay; 0 and 1 leave them. The sandbox uses it so that
	// 84 h pass in seconds.
	Scale float64
}

// Periods of the retry schedule. Bulk doubles from 20 min (Momentum's default);
// transactional mail follows its table, then doubles.
const (
	bulkFirst    = 20 * time.Minute
	retryCap     = 12 * time.Hour
	soonFirst    = 5 * time.Minute
	soonSpread   = 10 * time.Minute
	pathFirst    = time.Minute // after path trouble, as the path's own back-off:
	pathCap      = time.Hour   // doubling up to this
	namedMin     = time.Minute
	secondChance = 20 * time.Minute
)

var transactionalDelays = [...]time.Duration{
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute,
}

// Scaled is d on this schedule's clock.
func (s Schedule) Scaled(d time.Duration) time.Duration {
	if !(s.Scale > 1) {
		return d
	}
	return time.Duration(float64(d) / s.Scale)
}

// Delay is the unjittered wait before the attempt that follows the charged-th
// charged one (from 1).
func (s Schedule) Delay(class dispatch.Class, charged int) time.Duration {
	return s.Scaled(delay(class, max(charged, 1)))
}

func delay(class dispatch.Class, charged int) time.Duration {
	first, steps := bulkFirst, charged-1
	if class == dispatch.Transactional {
		if charged <= len(transactionalDelays) {
			return transactionalDelays[charged-1]
		}
		first, steps = transactionalDelays[len(transactionalDelays)-1], charged-len(transactionalDelays)
	}
	return doubled(first, retryCap, steps)
}

// doubled is first doubled n times, at most most.
func doubled(first, most time.Duration, n int) time.Duration {
	for ; n > 0 && first < most; n-- {
		first *= 2
	}
	return min(first, most)
}

// Decision is what an attempt made of a message.
type Decision struct {
	Outcome Outcome
	// Next is when to try again, for Deferred.
	Next time.Time
	// State is what the next attempt starts with.
	State MessageState
}

// Decide turns a qualified reply into the message's future. It is pure: the jitter
// comes from the message's identity and its number of attempts.
func (s Schedule) Decide(m *Message, class dispatch.Class, v bounce.Verdict, reply smtpc.Reply, source string, now time.Time) Decision {
	state := m.State
	state.Attempts++
	soonBefore := m.State.Last.Disposition == bounce.RetrySoon
	state.Last, state.LastReply = v, reply
	state.Source = ""
	switch v.Disposition {
	case bounce.Delivered:
		return Decision{Outcome: Delivered, State: state}
	case bounce.Final:
		return Decision{Outcome: Bounced, State: state}
	}
	if v.Charged {
		state.Charged++
	}
	if exhausted(&state, v) {
		return Decision{Outcome: Bounced, State: state}
	}
	if !m.Expires.After(now) {
		return Decision{Outcome: Expired, State: state}
	}
	if v.Disposition == bounce.RetrySoon || isBlock(v) { // greylisted, or not to get round a block
		state.Source = source
	}
	wait := s.wait(m, class, v, state, soonBefore)
	next := now.Add(wait)
	if next.After(m.Expires) {
		next = m.Expires
	}
	state.Due = next
	return Decision{Outcome: Deferred, Next: next, State: state}
}

// isBlock reports whether a verdict is a block of the source's reputation.
func isBlock(v bounce.Verdict) bool {
	return v.Code == bounce.CodeMailBlock || v.Code == bounce.CodeSpamBlock
}

// exhausted counts a reply that allows only so many attempts, and reports whether
// this was the last.
func exhausted(state *MessageState, v bounce.Verdict) bool {
	if v.MaxAttempts == 0 {
		return false
	}
	if isBlock(v) {
		state.Blocked++
		return state.Blocked >= v.MaxAttempts
	}
	state.Unmatched++
	return state.Unmatched >= v.MaxAttempts
}

// wait is the wait before the next attempt. A delay named in the reply is kept as it
// is; the others are jittered.
func (s Schedule) wait(m *Message, class dispatch.Class, v bounce.Verdict, state MessageState, soonBefore bool) time.Duration {
	h := jitter(m.ID, state.Attempts)
	switch {
	case v.RetryAfter > 0:
		return s.Scaled(min(max(v.RetryAfter, namedMin), retryCap))
	case v.Disposition == bounce.RetrySoon && !soonBefore:
		return s.Scaled(soonFirst + time.Duration(h*float64(soonSpread)))
	case v.Charged && v.MaxAttempts > 0:
		return s.Scaled(secondChance)
	}
	d := s.Delay(class, state.Charged)
	if !v.Charged { // the path's rest decides; this keeps one message from trying it again and again
		d = s.Scaled(doubled(pathFirst, pathCap, state.Attempts-state.Charged-1))
	}
	return d + time.Duration(h*float64(d)/10)
}

// jitter is a number in [0, 1) that differs between messages and attempts, and is
// the same whenever it is asked for.
func jitter(id MessageID, attempt int) float64 {
	h := fnv.New64a()
	b := make([]byte, 0, 24)
	for _, v := range [...]uint64{id.Handover, uint64(id.Domain), id.Order, uint64(attempt)} {
		b = append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), byte(v>>40))
	}
	_, _ = h.Write(b)
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}
