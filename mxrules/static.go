package mxrules

import "time"

// static reacts to each kind of trouble with a cut of fixed size that is taken
// back in fixed steps. It is the learner of rules with "governor: static".
//
//   - slow: the message rate halves, down to one message a minute or half the
//     rule's rate where that is less; 100/s is assumed where the rule has none.
//   - fewer connections: the cap goes to the number open and, once per Adjust,
//     at least one below the cap in force; at least 1.
//   - fewer messages per connection: the cap goes to Messages and, once per
//     Adjust, at least one below the cap in force; at least 1.
//   - rest: nothing for RestFirst, doubling up to RestMax with each rest; then
//     one connection with one message per Probe until one succeeds.
//
// Cuts of one kind are at least Timings.Adjust apart, since many sessions report
// the same event, and are taken back one step per Timings.Recover without new
// trouble, up to the rule's limits.
type static struct {
	pace    Pace
	limits  Limits
	timings Timings
	open    int
	rests   rests

	slowLevel int // the message rate is divided by 2^slowLevel
	slow      cut

	connectionCap  int // 0: none
	connectionFrom int // what the first cut came from
	connection     cut

	messageCap  int // messages per connection; 0: none
	messageFrom int
	message     cut
}

var _ Learner = (*static)(nil)

// NewStatic is the learner that reacts with fixed cuts and knows no history. Zero
// timings are the default ones.
func NewStatic(t Timings) Learner {
	return &static{timings: t.valid(), pace: Pace{Next: forever}}
}

// cut times one kind of reaction: not again before after, one step back at ease.
type cut struct {
	after, ease time.Duration
}

// ready reports whether another cut may be made at t, and puts off recovery.
func (c *cut) ready(t time.Duration, tm *Timings) bool {
	c.ease = t + tm.Recover
	if t < c.after {
		return false
	}
	c.after = t + tm.Adjust
	return true
}

// Figures of cuts where the rule has no limit to cut, from the built-in generic
// rule, and the slowest rate that halving goes to.
const (
	assumedMessages     = 100
	assumedRateInterval = 10 * time.Millisecond
	slowestInterval     = time.Minute
)

// intervalToCut is the rule's time between messages, or what is assumed of a
// rule without a rate.
func intervalToCut(rule Rate) time.Duration {
	if rule.IsZero() {
		return assumedRateInterval
	}
	return time.Duration(rule.interval())
}

// Pace implements Learner.
func (s *static) Pace() *Pace { return &s.pace }

// Bound implements Learner. Reactions stay in force.
func (s *static) Bound(_ time.Duration, l Limits) {
	s.limits = l
	s.boundSlow()
	s.settle("")
}

// Note implements Learner.
func (s *static) Note(at time.Duration, e Event) {
	s.open = e.Open
	before := s.rests.probing
	s.rests.note(at, e.Kind, &s.timings)
	s.rests.fill(&s.pace)
	if before != s.rests.probing {
		s.settle("a message succeeded")
	}
}

// Refused implements Learner.
func (s *static) Refused(at time.Duration, e Evidence) {
	switch e.Effect {
	case EffectSlow:
		s.halve(at)
	case EffectFewerConnections:
		s.fewerConnections(at)
	case EffectFewerMessages:
		s.fewerMessages(at, e.Messages)
	case EffectRest:
		s.rests.begin(at, &e, &s.timings)
	}
	if e.RetryAfter > 0 && e.Effect != EffectRest {
		s.rests.wait(at, e.Effect, at+s.timings.named(e.RetryAfter))
	}
	s.settle("a reply")
}

func (s *static) halve(t time.Duration) {
	if s.slow.ready(t, &s.timings) {
		s.slowLevel++
		s.boundSlow()
	}
}

// boundSlow keeps the rate in force at one message a minute or more, or at half
// the rule's rate where that is less.
func (s *static) boundSlow() {
	interval := intervalToCut(s.limits.MessageRate)
	for s.slowLevel > 1 && interval > slowestInterval>>s.slowLevel {
		s.slowLevel--
	}
}

func (s *static) fewerConnections(t time.Duration) {
	most := lowest(s.limits.Connections, s.connectionCap)
	if s.connectionCap == 0 {
		s.connectionFrom = max(most, s.open)
	}
	// What is open is what the receiver bears, so going there needs no pause.
	to := lowest(most, s.open)
	if s.connection.ready(t, &s.timings) && to == most {
		to--
	}
	if most == 0 && to < 1 {
		return // no cap, nothing open: the reply is about others' connections
	}
	s.connectionCap = max(to, 1)
}

func (s *static) fewerMessages(t time.Duration, carried int) {
	most := lowest(s.limits.MessagesPerConnection, s.messageCap)
	if most == 0 {
		most = assumedMessages
	}
	if s.messageCap == 0 {
		s.messageFrom = most
	}
	to := lowest(most, carried)
	if s.message.ready(t, &s.timings) && to == most {
		to--
	}
	s.messageCap = max(to, 1)
}

// Advance implements Learner: it takes back every step that is due.
func (s *static) Advance(t time.Duration) {
	step := s.timings.Recover
	for s.slowLevel > 0 && t >= s.slow.ease {
		s.slowLevel--
		s.slow.ease += step
	}
	s.connection.raise(&s.connectionCap, s.connectionFrom, s.limits.Connections, t, step)
	s.message.raise(&s.messageCap, s.messageFrom, s.limits.MessagesPerConnection, t, step)
	s.rests.ease(t, step)
	s.settle("time without trouble")
}

// raise gives a cap back what its time has earned, and drops it when it is back
// at the rule's limit, or without one at what it came from.
func (c *cut) raise(level *int, from, limit int, t, step time.Duration) {
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

// settle writes what is in force into the pace.
func (s *static) settle(cause string) {
	p := &s.pace
	before := *p
	s.rests.fill(p)
	p.Connections, p.MessagesPerConnection, p.MessageRate = s.connectionCap, s.messageCap, s.messageRate()
	if p.Probing {
		p.Connections, p.MessagesPerConnection = 1, 1
	}
	p.Next = s.next()
	p.changed(&before, cause)
}

// changed counts a change of what is in force.
func (p *Pace) changed(before *Pace, cause string) {
	if p.Connections != before.Connections || p.MessagesPerConnection != before.MessagesPerConnection ||
		p.MessageRate != before.MessageRate || p.ConnectionRate != before.ConnectionRate ||
		p.RestUntil != before.RestUntil || p.Probing != before.Probing {
		p.Changes++
		p.Cause = cause
	}
}

// messageRate is the rule's rate after slowing. Halving keeps the duration of a
// burst, not its size.
func (s *static) messageRate() Rate {
	rule, level := s.limits.MessageRate, s.slowLevel
	if level == 0 {
		return Rate{}
	}
	if rule.IsZero() || rule.Per > maxRatePer>>level {
		return Rate{Count: 1, Per: intervalToCut(rule) << level, Burst: rule.Burst >> level}
	}
	return Rate{Count: rule.Count, Per: rule.Per << level, Burst: rule.Burst >> level}
}

// next finds the earliest step back.
func (s *static) next() time.Duration {
	next := s.rests.next()
	if s.slowLevel > 0 {
		next = min(next, s.slow.ease)
	}
	if s.connectionCap > 0 {
		next = min(next, s.connection.ease)
	}
	if s.messageCap > 0 {
		next = min(next, s.message.ease)
	}
	return next
}

// Memory implements Learner: fixed cuts are not worth keeping, rests are.
func (s *static) Memory(at time.Duration) Memory { return Memory{Held: s.rests.held(at)} }

// Recall implements Learner.
func (s *static) Recall(at time.Duration, m Memory) {
	s.rests.recall(at, m.Held, &s.timings)
	s.settle("what was learned before")
}
