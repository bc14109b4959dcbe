package mxrules

import (
	"strings"
	"time"
)

// adaptive learns what the receiver of a path bears: it is the learner of rules
// with "governor: on". Only evidence about pacing counts: throttling replies,
// refused or dropped connections, and messages that get slower with the number of
// connections.
//
// Each limit has a learner of its own; adaptive sends them the evidence that is
// theirs. A refusal is first taken for too high a rate: the level is cut, and most
// often something is accepted then. If nothing is, lower rates do not help: the
// path rests, longer each time, and is tried with one message after it. So
// a rate, a quota that is spent, a penalty box and a receiver that is overloaded
// are told apart by what they do, and their words only shorten the way.
type adaptive struct {
	pace    Pace
	limits  Limits
	timings Timings
	open    int
	ready   int           // of those, the ones that came about
	last    time.Duration // time of the last event

	messages rateLearner
	dials    rateLearner
	conns    connectionLearner
	each     messageLearner
	quota    quotaLearner
	rests    rests

	door     door
	vague    suspicion
	ordinals ordinals
	before   rateLearner // as the series of ordinals found it
	crowd    crowd

	outage   bool          // the last of them followed words that the receiver is down
	atDoor   bool          // or a connection's refusal
	softly   int           // rests in a row that were our own idea
	length   time.Duration // of the last of them
	began    time.Duration // of the first of them
	spentBy  int64         // messages of the hour before that
	box      time.Duration // how long it took last time until the receiver served again
	served   time.Duration // when a message was served last
	latency  time.Duration // of a message, the mean
	applied  float64       // level that the pace shows
	appliedC float64
}

var _ Learner = (*adaptive)(nil)

// NewAdaptive is the learner that finds out what a receiver bears. Zero timings
// are the default ones.
func NewAdaptive(t Timings) Learner {
	a := &adaptive{timings: t.valid()}
	a.pace.Next = forever
	a.quota.window = a.timings.Quota
	a.dials.budget = dialBudget
	return a
}

// Figures of rests that nobody ordered.
const (
	outageMost   = 5 * time.Minute // a receiver that is down is asked again at least that often
	servedLately = 24 * time.Hour
	recentDials  = time.Minute // in which at least
	fewDials     = 3           // connections were dialled if they can have come too fast
	boxKnocks    = 3           // rests that show that it is more than a moment
	doorWaits    = 4           // waits for a rate of connections that show that it is none
	longRest     = 20 * time.Second
)

// softLadder are the rests that follow each other while everything is refused, as
// multiples of Timings.Soft: four times the one before up to a minute, then a little
// more than the times for which receivers shut a sender out, since one that knocks
// too early may have its time begin anew: 5, 10, 15, 30 minutes, 1, 2 and 4 hours.
var softLadder = [...]time.Duration{1, 4, 16, 64, 310, 620, 930, 1860, 3720, 7440, 14400}

// Pace implements Learner.
func (a *adaptive) Pace() *Pace { return &a.pace }

// Bound implements Learner. What was learned stays.
func (a *adaptive) Bound(at time.Duration, l Limits) {
	a.limits = l
	a.messages.bound(l.MessageRate, l.Bounds.MessageRateStart, l.Bounds.MessageRateLow)
	a.boundDials(&l)
	a.conns.bound(&l)
	a.each.bound(&l)
	a.settle(at, "the rule")
}

// boundDials gives connections no slow start: the cap on them has one.
func (a *adaptive) boundDials(l *Limits) {
	first := a.dials.patience == 0
	a.dials.bound(l.ConnectionRate, l.Bounds.ConnectionRateStart, l.Bounds.ConnectionRateLow)
	if first && l.Bounds.ConnectionRateStart.IsZero() {
		a.dials.free()
	}
}

// Note implements Learner.
func (a *adaptive) Note(at time.Duration, e Event) {
	a.open, a.last = e.Open, at
	if e.Kind != EventServed {
		a.ready = e.Ready
	}
	probing := a.rests.probing
	cause := ""
	switch e.Kind {
	case EventOpened:
		a.dials.add(at)
	case EventSent:
		a.messages.add(at)
	case EventReady:
		a.reopened(at)
		a.dials.took(at, at-e.Took)
		a.conns.ready(at, e.Open, e.Ready)
		a.opened(at, e.Ready)
	case EventServed:
		a.serve(at, e)
		cause = "messages were accepted"
	case EventWanted:
		a.conns.wanted, a.conns.asked = at, true
		a.conns.raise(at)
		cause = "more connections are tried"
	}
	a.rests.note(at, e.Kind, a.backoff(at))
	if probing && !a.rests.probing {
		a.resume(at)
		cause = "the receiver serves again"
	}
	a.settle(at, cause)
}

// backoff are the timings of the waits after failures before MAIL: short for a host that
// served within the last day, as one that comes back is to be met within minutes.
func (a *adaptive) backoff(at time.Duration) *Timings {
	if a.served == 0 || at-a.served > servedLately || a.timings.BackoffMax <= outageMost {
		return &a.timings
	}
	t := a.timings
	t.BackoffMax = outageMost
	return &t
}

// serve notes a message that the receiver served.
func (a *adaptive) serve(at time.Duration, e Event) {
	if e.Took > 0 {
		a.latency += (e.Took - a.latency) / 8
	}
	a.served = at
	a.doubt(at, at-e.Took, e.Vague, e.Again)
	if e.Vague && a.isOrdinal(at, e.Messages) {
		return
	}
	if !e.Own || !a.messages.apart {
		a.quota.count.add(at, a.quota.window)
	}
	if !e.Own {
		a.quota.served(at, at-e.Took)
		a.ordinals.accepted(e.Messages)
	}
	if e.Own {
		a.messages.passed(at, at-e.Took)
	} else {
		a.messages.took(at, at-e.Took)
	}
	if a.softly > 0 && at-e.Took >= a.messages.cutAt && !a.rests.probing {
		a.softly, a.length = 0, 0
	}
	if !e.Own { // those are refused sooner
		a.conns.served(at, e.Took, e.Open)
	}
	a.each.raise(at)
	a.quota.raise(at, a.messages.sent.rate(at))
	if until, full := a.quota.full(at); full && until > at {
		a.rests.wait(at, EffectSlow, until)
	}
}

// Refused implements Learner.
func (a *adaptive) Refused(at time.Duration, e Evidence) {
	a.last = at
	if e.Connection {
		a.door.shut(at, &a.dials)
	}
	if e.guessed {
		a.doubt(at, at-e.Took, true, e.Again)
	}
	switch e.Effect {
	case EffectFewerMessages:
		a.each.refused(at, e.Messages)
	case EffectFewerConnections:
		a.refuseConnection(at, &e)
	default:
		a.refuse(at, &e)
	}
	if e.RetryAfter > 0 && (e.Effect != EffectRest || !a.rests.probing) {
		a.rests.wait(at, e.Effect, at+a.timings.named(e.RetryAfter))
	}
	a.settle(at, "a reply")
}

// refuseConnection answers a connection that was refused for there being too
// many, or for coming too soon after others.
func (a *adaptive) refuseConnection(at time.Duration, e *Evidence) {
	switch {
	case !e.Connection && a.open > 0:
		a.refuseCrowd(at, e)
	case a.open == 0, a.ready == 0 && a.served > 0: // what else is open is being dialled, too
		a.standOff(at, e)
	case speaksOfTrouble(e.Text) && !a.servesOthers(at):
		a.holdDials(at, a.timings.Soft) // neither a rate nor a limit
	case speaksOfRate(e.Text):
		a.refuseDial(at, e)
	case a.open < a.conns.peak && !(speaksOfNumber(e.Text) && a.door.lowered < trustInWords):
		a.weighDoor(at, e)
	default:
		a.door.lowered++
		a.fewerConnections(at, a.open)
	}
}

// refuseDial answers a connection that came too soon after others.
func (a *adaptive) refuseDial(at time.Duration, e *Evidence) {
	if a.dials.phase == phaseFree && a.dials.sent.since(at-recentDials) < fewDials {
		a.holdDials(at, a.timings.Soft) // too few to be too many
		return
	}
	a.dials.refused(at, at-e.Took)
}

// fewerConnections answers a connection that was one too many besides those open.
func (a *adaptive) fewerConnections(at time.Duration, open int) {
	a.door.tries = 0
	a.conns.refused(at, open, a.messages.sent.rate(at))
}

// holdDials opens no connection for a while.
func (a *adaptive) holdDials(at, d time.Duration) {
	a.rests.connectUntil = max(a.rests.connectUntil, at+d)
}

// standOff waits before the next connection, twice as long each time.
func (a *adaptive) standOff(at time.Duration, e *Evidence) {
	if at < a.rests.connectUntil {
		return
	}
	if speaksOfRate(e.Text) || (a.dials.phase != phaseFree || at-a.served < recentDials) && !speaksOfTrouble(e.Text) {
		a.refuseDial(at, e)
	}
	wait := time.Duration(doubled(a.timings.Soft, outageMost, a.conns.waits))
	a.conns.waits = min(a.conns.waits+1, maxInARow)
	a.rests.connectUntil = at + wait
}

// refuse answers a message that was refused for the path's sake, or a connection
// that was refused for another reason than the number of connections.
func (a *adaptive) refuse(at time.Duration, e *Evidence) {
	if e.ordered > 0 || e.Effect == EffectRest && named(e) {
		a.rests.begin(at, e, &a.timings)
		return
	}
	sent := at - e.Took
	if e.Connection {
		a.refuseDoor(at, e)
		return
	}
	a.messages.apart = refusedForContent(e.Text)
	worded := speaksOfQuota(e.Text)
	a.quota.worded = a.quota.worded || worded
	if (worded || a.quota.near(at)) && a.spent(at, sent) || a.isOrdinal(at, e.Messages) {
		return
	}
	if a.rests.probing {
		a.rest(at, e) // the probe says nothing about rates
		return
	}
	before := a.messages.cutAt
	if fresh, inRow := a.messages.refused(at, sent); fresh && inRow >= 2 && before > 0 {
		a.rest(at, e)
	}
}

// spent answers a refusal that speaks of a quota: it is learned and waited for.
// What is known of rates has nothing to do with it.
func (a *adaptive) spent(at, sent time.Duration) bool {
	q := &a.quota
	if sent < q.at {
		return true // an answer from before
	}
	if !q.refused(at) {
		return false
	}
	until, _ := q.full(at)
	a.rests.wait(at, EffectSlow, max(until, at+q.pause())) // the receiver's hour is not quite ours
	return true
}

// refuseDoor answers a connection that was refused as a message would be. If
// messages go on connections that are open, it was one too many, whatever its words;
// if they went a moment ago, it may have come too soon. Else everything is refused.
func (a *adaptive) refuseDoor(at time.Duration, e *Evidence) {
	switch {
	case isOutage(e) || a.messages.hits > 0 && at-a.messages.hitAt <= 2*time.Second:
		a.rest(at, e)
	case a.open > 0 && at-a.served < 2*a.latency+time.Second:
		a.refuseConnection(at, e)
	case a.open == 0 && at-a.served < recentDials && a.conns.waits < doorWaits && a.softly == 0:
		a.standOff(at, e)
	default:
		a.rest(at, e)
	}
}

// rest suspends the path, longer than the time before if nothing was served since.
func (a *adaptive) rest(at time.Duration, e *Evidence) {
	if at < a.rests.until {
		return
	}
	if a.softly == 0 {
		a.began, a.spentBy = at, a.quota.count.count(at, a.quota.window)
	}
	a.atDoor = e.Connection
	a.length = a.timings.Soft * softLadder[min(a.softly, len(softLadder)-1)]
	if a.softly == boxKnocks {
		a.length = max(a.length, a.box)
	}
	if a.outage = isOutage(e); a.outage {
		a.length = min(a.length, outageMost)
	}
	a.softly++
	a.rests.probing = false
	a.rests.rest(at, a.length, e.RetryAfter, &a.timings)
}

// resume goes on after a rest.
func (a *adaptive) resume(at time.Duration) {
	if a.length >= longRest {
		a.messages.resume(at)
		if !a.outage {
			a.messages.punish()
			if !a.slid(at) {
				a.box = a.length
			}
		}
	} else if a.atDoor {
		a.dials.waited(a.length)
	} else {
		a.messages.waited(a.length)
	}
	a.softly, a.length = 0, 0
}

// slid reports whether the end of a long time of refusals fits a quota that says
// nothing of itself: some of what was sent is an hour old by now. It is taken for
// one then; if it is none, probing beyond it soon shows.
func (a *adaptive) slid(at time.Duration) bool {
	q := &a.quota
	if at-a.began < q.window/12 || float64(q.count.count(at, q.window)) > 0.98*float64(a.spentBy) || a.spentBy < leastQuota {
		return false
	}
	q.found(at, float64(a.spentBy))
	q.raiseAt, q.guessed = at+q.window/60, true
	return true
}

// Advance implements Learner.
func (a *adaptive) Advance(at time.Duration) {
	a.last = at
	a.messages.grow(at)
	a.dials.grow(at)
	a.rests.ease(at, a.timings.Recover)
	a.settle(at, "time without trouble")
}

// settle writes what is in force into the pace.
func (a *adaptive) settle(at time.Duration, cause string) {
	p := &a.pace
	before := *p
	a.rests.fill(p)
	p.Connections, p.MessagesPerConnection = a.conns.cap, a.each.cap
	if a.door.tries > 0 && at-a.door.at < doorOver { // one at a time
		p.Connections = lowest(p.Connections, max(a.ready+1, a.open))
	}
	p.MessageRate = follow(&a.applied, a.level(), p.MessageRate)
	p.ConnectionRate = follow(&a.appliedC, a.dials.limit(), p.ConnectionRate)
	p.Suspicious = a.vague.believed && a.vague.level == 0
	p.RaiseAt = 0
	if a.conns.known > 0 {
		p.RaiseAt = a.conns.raiseAt
	}
	p.Next = min(a.messages.next(at), a.dials.next(at), a.rests.next())
	p.changed(&before, cause)
}

// refusedForContent reports whether a receiver paces when it has the content: what it
// refused before for reasons of its own, as an unknown sender's first attempt, was not
// charged to the limit. One that paces at MAIL or RCPT has charged it by then.
func refusedForContent(text string) bool {
	return strings.HasPrefix(text, "data:") || strings.HasPrefix(text, "end_of_data:")
}

// level is the strictest of what was learned of messages a second.
func (a *adaptive) level() float64 {
	level := a.messages.limit()
	for _, r := range [...]float64{a.quota.rate() / a.messages.taken(), a.vague.level} {
		if r > 0 && (level == 0 || r < level) {
			level = r
		}
	}
	return level
}

// limit is the level, 0 where it limits nothing.
func (r *rateLearner) limit() float64 {
	if r.level >= unlimitedRate {
		return 0
	}
	return r.level / r.taken()
}

// follow moves a rate in force to a level, but not for less than half a per cent.
func follow(applied *float64, level float64, r Rate) Rate {
	if d := level - *applied; level != 0 && *applied != 0 && d < 0.005**applied && d > -0.005**applied {
		return r
	}
	if level == *applied {
		return r
	}
	*applied = level
	if level == 0 {
		return Rate{}
	}
	return rateOf(level)
}

// speaksOfRate reports whether a refused connection came too soon, not too many.
func speaksOfRate(text string) bool {
	for _, w := range [...]string{" rate", "too fast", "too often", "too quickly", "frequen", "per minute", "per second", "per hour"} {
		if contains(text, w) {
			return true
		}
	}
	return false
}

// speaksOfNumber reports whether a connection was refused for how many are open.
func speaksOfNumber(text string) bool {
	for _, w := range [...]string{"too many", "concurrent", "simultaneous", "number of connections", "max connections"} {
		if contains(text, w) {
			return true
		}
	}
	return false
}

// speaksOfQuota reports whether a reply is about a number in an hour.
func speaksOfQuota(text string) bool {
	return contains(text, "hour") || contains(text, "quota")
}

// isOutage reports whether a reply says that the receiver itself has trouble.
func isOutage(e *Evidence) bool {
	if e.Effect != EffectRest {
		return false
	}
	switch e.Tag {
	case "temp", "network", "timeout", "system_error":
		return true
	case "":
		return speaksOfTrouble(e.Text)
	}
	return false
}

// speaksOfTrouble reports whether a reply blames the receiver's own system, and
// not the connections to it.
func speaksOfTrouble(text string) bool {
	return contains(text, " 4.3.") && !contains(text, "onnection")
}

// named reports whether a reply is a block that names its reason, a 5xx: it rests
// the path as long as Momentum's blocks do.
func named(e *Evidence) bool { return e.ReplyCode() >= 500 }
