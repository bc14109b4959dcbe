package mxrules

import (
	"strings"
	"time"
)

// Effect is what a reply means for its path.
type Effect uint8

const (
	// EffectNone: the reply is about a mailbox or a message, or it is a success.
	EffectNone Effect = iota
	// EffectSlow halves the message rate.
	EffectSlow
	// EffectFewerConnections takes a connection away.
	EffectFewerConnections
	// EffectFewerMessages takes a message per connection away.
	EffectFewerMessages
	// EffectRest suspends the path.
	EffectRest
)

var effectNames = [...]string{"none", "slow", "fewer_connections", "fewer_messages", "rest"}

// String is a short name such as "fewer_connections".
func (e Effect) String() string {
	if int(e) < len(effectNames) {
		return effectNames[e]
	}
	return "unknown"
}

// Evidence is a reply as the path sees it.
type Evidence struct {
	Effect Effect
	// RetryAfter is the delay that the reply names, in the time of Observe's now; 0 is none.
	RetryAfter time.Duration
	// Messages is how many MAIL commands its connection carried before the one
	// refused, if known: EffectFewerMessages then goes straight below the refusal.
	Messages int
	// Text is the reply, for explanations.
	Text string
}

// reactions are the deviations from the rule's limits. Times are the governor's clock.
type reactions struct {
	// next is the earliest time at which recover has something to do.
	next int64

	slowLevel int // the message rate is divided by 2^slowLevel
	slow      cut

	connectionCap  int // 0: none
	connectionFrom int // what the first cut came from
	connection     cut
	connectUntil   int64 // no new connections before, by a reply's word

	messageCap  int // messages per connection; 0: none
	messageFrom int
	message     cut

	restLevel int // rests in a row
	restEase  int64
	restSince int64
	restUntil int64
	probing   bool // from a rest's begin until a success after it
	probeNext int64
	probeSent bool

	backoffLevel int // failures in a row
	backoffSince int64
	backoffUntil int64
}

// cut times one kind of reaction: not again before after, one step back at ease.
type cut struct {
	after, ease int64
}

// ready reports whether another cut may be made at t, and puts off recovery.
func (c *cut) ready(t int64, tm *Timings) bool {
	c.ease = t + int64(tm.Recover)
	if t < c.after {
		return false
	}
	c.after = t + int64(tm.Adjust)
	return true
}

// Figures of reactions where the rule has no limit to cut, from the built-in
// generic rule, and the slowest rate that halving goes to.
const (
	assumedMessages     = 100
	assumedRateInterval = int64(10 * time.Millisecond)
	slowestInterval     = int64(time.Minute)
)

const (
	maxTrouble = 512 // bytes of a reply kept
	maxInARow  = 16  // rests and failures counted; every doubling has ended before
	never      = int64(maxDebt)
)

// messageMeter is the meter of the rate in force. Halving keeps the duration
// of a burst, not its size.
func (r *reactions) messageMeter(rule Rate) meter {
	if r.slowLevel == 0 {
		return rateMeter(rule)
	}
	return newMeter(intervalToCut(rule)<<r.slowLevel, int64(rule.Burst)>>r.slowLevel)
}

// intervalToCut is the rule's time between messages, or what is assumed of a
// rule without a rate.
func intervalToCut(rule Rate) int64 {
	if rule.IsZero() {
		return assumedRateInterval
	}
	return rule.interval()
}

// Observe feeds the path's side of a reply. Cuts of one kind are at least
// Timings.Adjust apart, since many sessions report the same event, and are
// taken back one step per Timings.Recover without new trouble, up to the rule's
// limits. A delay named in the reply is obeyed within Timings' bounds: for
// connections by opening none, for messages by a rest.
//
//   - slow: the message rate halves, down to one message a minute or half the
//     rule's rate where that is less; 100/s is assumed where the rule has none.
//   - fewer connections: the cap goes to the number open and, once per Adjust,
//     at least one below the cap in force; at least 1. Report a refused
//     connection closed before observing its reply.
//   - fewer messages per connection: the cap goes to Messages and, once per
//     Adjust, at least one below the cap in force; at least 1.
//   - rest: nothing for RestFirst, doubling up to RestMax with each rest; then
//     one connection with one message per Probe until one succeeds.
//   - none: the receiver serves this path; as Worked.
func (g *Governor) Observe(now time.Time, e Evidence) {
	if e.Effect == EffectNone {
		g.Worked(now)
		return
	}
	t := g.tick(now)
	g.noteTrouble(now, e.Text)
	switch e.Effect {
	case EffectSlow:
		g.slow(t)
	case EffectFewerConnections:
		g.fewerConnections(t)
	case EffectFewerMessages:
		g.fewerMessages(t, e.Messages)
	case EffectRest:
		g.rest(t, e.RetryAfter)
	}
	if e.RetryAfter > 0 && e.Effect != EffectRest {
		g.wait(t, e.Effect, t+g.retryAfter(e.RetryAfter))
	}
	g.react.schedule()
}

func (g *Governor) noteTrouble(now time.Time, text string) {
	if len(text) > maxTrouble {
		text = strings.Clone(text[:maxTrouble]) // keep the part, not the whole
	}
	g.trouble, g.troubleAt = text, now
}

func (g *Governor) retryAfter(d time.Duration) int64 {
	return int64(min(max(d, g.timings.RetryAfterMin), g.timings.RetryAfterMax))
}

// wait obeys a delay named with another effect than rest: it is no block, so
// the path goes on afterwards without a probe.
func (g *Governor) wait(t int64, e Effect, until int64) {
	r := &g.react
	if e == EffectFewerConnections {
		r.connectUntil = max(r.connectUntil, until)
		return
	}
	if t >= r.restUntil {
		r.restSince = t
	}
	r.restUntil = max(r.restUntil, until)
}

func (g *Governor) slow(t int64) {
	r := &g.react
	if !r.slow.ready(t, &g.timings) {
		return
	}
	r.slowLevel++
	r.boundSlow(g.limits.MessageRate)
	g.messages.reshape(t, r.messageMeter(g.limits.MessageRate))
}

// boundSlow keeps the rate in force at one message a minute or more, or at half
// the rule's rate where that is less.
func (r *reactions) boundSlow(rule Rate) {
	interval := intervalToCut(rule)
	for r.slowLevel > 1 && interval > slowestInterval>>r.slowLevel {
		r.slowLevel--
	}
}

func (g *Governor) fewerConnections(t int64) {
	r := &g.react
	most := g.maxConnections()
	if r.connectionCap == 0 {
		r.connectionFrom = max(most, g.open)
	}
	// What is open is what the receiver bears, so going there needs no pause.
	to := lowest(most, g.open)
	if r.connection.ready(t, &g.timings) && to == most {
		to--
	}
	if most == 0 && to < 1 {
		return // no cap, nothing open: the reply is about others' connections
	}
	r.connectionCap = max(to, 1)
}

func (g *Governor) fewerMessages(t int64, carried int) {
	r := &g.react
	most := lowest(g.limits.MessagesPerConnection, r.messageCap)
	if most == 0 {
		most = assumedMessages
	}
	if r.messageCap == 0 {
		r.messageFrom = most
	}
	to := lowest(most, carried)
	if r.message.ready(t, &g.timings) && to == most {
		to--
	}
	r.messageCap = max(to, 1)
}

func (g *Governor) rest(t int64, retryAfter time.Duration) {
	r := &g.react
	if t < r.restUntil && r.probing {
		// Sessions under way report what began this rest.
		if retryAfter > 0 {
			r.restUntil = max(r.restUntil, t+g.retryAfter(retryAfter))
		}
	} else {
		length := doubled(g.timings.RestFirst, g.timings.RestMax, r.restLevel)
		if retryAfter > 0 {
			length = g.retryAfter(retryAfter)
		}
		if t >= r.restUntil {
			r.restSince = t
		}
		r.restUntil = max(r.restUntil, t+length)
		r.restLevel = min(r.restLevel+1, maxInARow)
		r.probing, r.probeSent, r.probeNext = true, false, 0
	}
	r.restEase = r.restUntil + int64(g.timings.Recover)
}

// Failed reports a temporary failure before MAIL: DNS, connect, greeting, EHLO
// or TLS. New connections wait BackoffFirst, doubling up to BackoffMax with
// each failure after a wait; then one connection at a time is tried until
// Worked. Connections already open go on.
func (g *Governor) Failed(now time.Time, text string) {
	t := g.tick(now)
	g.noteTrouble(now, text)
	r := &g.react
	if t < r.backoffUntil {
		return // dials under way when the wait began
	}
	if r.backoffLevel == 0 {
		r.backoffSince = t
	}
	r.backoffUntil = t + doubled(g.timings.BackoffFirst, g.timings.BackoffMax, r.backoffLevel)
	r.backoffLevel = min(r.backoffLevel+1, maxInARow)
}

// Worked reports that a connection was opened or a message taken. It ends the
// back-off, and the probing after a rest once a message was sent in it.
func (g *Governor) Worked(now time.Time) {
	t := g.tick(now)
	r := &g.react
	r.backoffLevel, r.backoffUntil = 0, 0
	if r.probing && r.probeSent && t >= r.restUntil {
		r.probing, r.probeSent, r.probeNext = false, false, 0
	}
}

// recover takes back every step that is due at t.
func (g *Governor) recover(t int64) {
	r := &g.react
	step := int64(g.timings.Recover)
	slow := r.slowLevel
	for r.slowLevel > 0 && t >= r.slow.ease {
		r.slowLevel--
		r.slow.ease += step
	}
	if slow != r.slowLevel {
		g.messages.reshape(t, r.messageMeter(g.limits.MessageRate))
	}
	r.connection.raise(&r.connectionCap, r.connectionFrom, g.limits.Connections, t, step)
	r.message.raise(&r.messageCap, r.messageFrom, g.limits.MessagesPerConnection, t, step)
	for r.restLevel > 0 && t >= r.restEase {
		r.restLevel--
		r.restEase += step
	}
	r.schedule()
}

// raise gives a cap back what its time has earned, and drops it when it is back
// at the rule's limit, or without one at what it came from.
func (c *cut) raise(level *int, from, limit int, t, step int64) {
	if *level == 0 || t < c.ease {
		return
	}
	n := (t-c.ease)/step + 1
	c.ease += n * step
	*level += int(min(n, MaxMessagesPerConnection))
	if limit == 0 {
		limit = from
	}
	if *level >= limit {
		*level = 0
	}
}

// schedule finds the earliest step back.
func (r *reactions) schedule() {
	r.next = never
	if r.slowLevel > 0 {
		r.next = min(r.next, r.slow.ease)
	}
	if r.connectionCap > 0 {
		r.next = min(r.next, r.connection.ease)
	}
	if r.messageCap > 0 {
		r.next = min(r.next, r.message.ease)
	}
	if r.restLevel > 0 {
		r.next = min(r.next, r.restEase)
	}
}
