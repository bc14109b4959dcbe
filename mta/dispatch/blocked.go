package dispatch

import (
	"math"
	"slices"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// A receiver that blocks a source for its reputation is not to be got round by another
// source, unless the pool says so: that is how a reputation is lost for good. So while a
// path rests for such a block (or a domain alone does),
//
//   - a message that was blocked waits for its source, in the store;
//   - of the mail that its sources share, as much is kept for the blocked one as it could
//     have carried in that rest. Sources behind it in the group's order take what is
//     beyond, as they would have done anyway, at their own pace and within their warm-up;
//   - none of it overflows to another pool.
//
// A greylisted message waits for its source, too, when that will be able to send again
// while the receiver remembers it; else later from elsewhere is better than never.

const (
	// remembered is how long a greylisted message may wait for a source that cannot
	// send: receivers keep what they greylisted for hours, at the least one.
	remembered = time.Hour
	// unknownWait is how long mail of a blocked source is left alone when nothing says
	// when that can send again.
	unknownWait = 15 * time.Minute
	// leastPostponed keeps a message from going to and fro.
	leastPostponed = time.Minute
)

// blocked reports whether the line rests, or is tried after its rest, for a block of its
// source's reputation.
func (l *line) blocked() bool {
	if t := l.ofTenant(); t != nil && t.blocked && t.apart.Probing() {
		return true
	}
	return l.path.blocked && l.path.gov.Pace().Probing
}

// mayMove reports whether a line may take one more of a lane's messages, for all that
// is kept for sources before it that are blocked.
func (c *Core) mayMove(l *line, ln *lane) bool {
	if ln.pool.moveBlocked {
		return true
	}
	kept := int64(0)
	for _, o := range ln.group.lines {
		if o != l && !o.obsolete && o.blocked() && ln.pool.has(o.source) && c.before(o.source, l.source, ln) {
			kept += min(c.capacity(o), math.MaxInt64/4-kept)
		}
	}
	return kept == 0 || ln.waiting > kept
}

// before reports whether a source of the lane's pool gets its mail before another.
func (c *Core) before(a, b *source, ln *lane) bool {
	order := c.ordered(ln.group, ln.pool)
	j := slices.Index(order, b)
	if j < 0 {
		return true // one that mail overflows to
	}
	if a.cold() != b.cold() {
		return a.cold()
	}
	return slices.Index(order, a) < j
}

// capacity is how many messages a blocked line could have carried in its rest.
func (c *Core) capacity(l *line) int64 {
	rate := l.path.gov.MessageRate().PerSecond()
	if rate == 0 {
		return math.MaxInt64 / 8
	}
	pace := l.path.gov.Pace()
	rest := pace.RestUntil - pace.RestSince
	if t := l.ofTenant(); t != nil && t.blocked && t.apart.Probing() {
		rest = t.apart.Length()
	}
	return max(1, int64(min(rate*rest.Seconds(), math.MaxInt64/8)))
}

// waitsForSource reports whether a retry has to wait in the store for its source, and
// until when.
func (c *Core) waitsForSource(m *msg) (until int64, waits bool) {
	if m.pin == nil || c.stopped > 0 || m.run.flow == nil {
		return 0, false
	}
	if m.pin.removed || !m.run.pool.reaches(m.pin) || m.blocked && m.run.pool.moveBlocked {
		m.pin = nil
		return 0, false
	}
	l := c.lineOf(m.run.flow.lane.group, m.pin)
	if l.group.dest.stopped {
		return 0, false
	}
	if c.sendable(l) {
		full := l.pinned.n >= loadPerLine && !l.source.cold()
		return c.now + int64(leastPostponed), full && m.blocked
	}
	until = max(c.sendableAt(l), c.now+int64(leastPostponed))
	if !m.blocked && until > c.now+int64(remembered) {
		return 0, false
	}
	return until, true
}

// sendableAt is when a line that cannot send now may, as far as that is known; a source
// that is suspended is no nearer.
func (c *Core) sendableAt(l *line) int64 {
	if !c.usable(l) {
		return c.now + max(int64(unknownWait), int64(remembered)+1)
	}
	until := l.until
	if hold, at := l.path.gov.AllowMessage(c.at, true); hold == mxrules.HoldRest {
		until = max(until, nanos(at))
	}
	if held, at := c.tenantHeld(l); held {
		until = max(until, at)
	}
	if until <= c.now {
		until = c.now + int64(unknownWait)
	}
	return until
}

// postpone leaves a loaded retry to the store until an instant.
func (c *Core) postpone(m *msg, until int64) {
	leave(&m.inQueue, m)
	m.state = msgReturning
	c.emit(Action{Kind: Postpone, Msg: m.id, Run: m.run.id, Until: moment(until)})
}
