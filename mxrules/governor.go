package mxrules

import "time"

// Hold is what keeps a path from acting.
type Hold uint8

const (
	// HoldNone: go ahead.
	HoldNone Hold = iota
	// HoldConnections: as many connections are open as may be.
	HoldConnections
	// HoldConnectionRate: the rate of new connections.
	HoldConnectionRate
	// HoldMessageRate: the rate of messages.
	HoldMessageRate
	// HoldHourly: the hourly quota, or bulk mail's share of it.
	HoldHourly
	// HoldDaily: the daily quota.
	HoldDaily
	// HoldRest: the path rests after a reply, or is being probed after a rest.
	HoldRest
	// HoldBackoff: the path waits after failures before MAIL, or is being probed
	// with one connection after such a wait.
	HoldBackoff
)

var holdNames = [...]string{
	"none", "connections", "connection_rate", "message_rate", "messages_per_hour", "messages_per_day", "rest", "backoff",
}

// String is a short name such as "message_rate".
func (h Hold) String() string {
	if int(h) < len(holdNames) {
		return holdNames[h]
	}
	return "unknown"
}

// Governor keeps the limits of one path and reacts to the receiver's replies.
// Limits are hard: while its answers are obeyed, no rate is exceeded over any
// window by more than its burst, whatever happens in between: changed limits,
// a restart with Restore, a clock that jumps.
//
// Hourly and daily quotas are metered continuously with a burst of five
// seconds' worth, at least one message, and twice: when messages are claimed,
// which is durable through Usage, and when they are sent, so that claims which
// waited do not reach the receiver in one heap. Bulk mail uses 95 % of the
// hourly quota, transactional mail all of it.
//
// A Governor has one owner and takes time from its caller. When that time
// steps back by more than a second the governor's clock stands still for the
// step and goes on from there; smaller steps, as from unordered readings, wait
// until time has caught up. No method allocates, blocks or calls the clock.
type Governor struct {
	limits  Limits
	timings Timings
	clock   clock

	open        int
	ready       int   // of those, the ones that came about
	connections meter // new connections
	messages    meter
	sendHour    quota
	sendDay     quota
	claimHour   quota
	claimDay    quota

	learner  Learner
	given    bool // by WithLearner
	mode     Mode
	pace     *Pace
	seen     uint64 // the pace's changes that the meters follow
	triggers triggers

	stepsBack bool // a reaction wants the source's warm-up to step back
	override  Override

	connecting limiter // what held AllowConnection last
	sending    limiter // what held AllowMessage or AllowClaim last

	trouble   string
	troubleAt time.Time
}

// Option changes a new governor.
type Option func(*Governor)

// WithTimings replaces DefaultTimings; zero durations keep theirs.
func WithTimings(t Timings) Option {
	return func(g *Governor) { g.timings = t.valid() }
}

// WithLearner gives the governor a learner that is not the rule's, for comparisons.
func WithLearner(l Learner) Option {
	return func(g *Governor) { g.learner, g.given = l, true }
}

// NewGovernor makes the governor of a path on which nothing has happened: all
// bursts are available. After a restart call Restore.
func NewGovernor(l Limits, options ...Option) *Governor {
	g := &Governor{limits: l, timings: DefaultTimings()}
	for _, o := range options {
		o(g)
	}
	g.adopt(0, l)
	g.connections = rateMeter(g.connectionRate())
	g.messages = rateMeter(g.messageRate())
	g.seen = g.pace.Changes
	g.sendHour, g.claimHour = hourlyQuota(l.MessagesPerHour), hourlyQuota(l.MessagesPerHour)
	g.sendDay, g.claimDay = dailyQuota(l.MessagesPerDay), dailyQuota(l.MessagesPerDay)
	return g
}

// Limits are the rule's limits, without reactions.
func (g *Governor) Limits() Limits { return g.limits }

// SetLimits changes the rule's limits. What has been used stays used; a rate
// that did not exist before starts with an empty bucket; reactions stay in
// force. Connections open beyond a lower cap are the caller's to close.
func (g *Governor) SetLimits(now time.Time, l Limits) {
	t := g.tick(now)
	g.clock.mark(now, t)
	g.limits = l
	g.adopt(t, l)
	g.reshape(t)
	hour, day := hourlyQuota(l.MessagesPerHour), dailyQuota(l.MessagesPerDay)
	g.sendHour.reshape(t, hour)
	g.claimHour.reshape(t, hour)
	g.sendDay.reshape(t, day)
	g.claimDay.reshape(t, day)
}

// tick moves the governor's clock to now and takes back the cuts that are due.
func (g *Governor) tick(now time.Time) int64 {
	t := g.clock.at(now)
	if time.Duration(t) >= g.pace.Next {
		g.learner.Advance(time.Duration(t))
		g.follow(t)
	}
	return t
}

// adopt gives a learner that fits the rule's limits to the path.
func (g *Governor) adopt(t int64, l Limits) {
	if g.learner == nil || !g.given && g.mode != l.Governor {
		g.learner, g.mode = newLearner(l.Governor, g.timings), l.Governor
		g.learner.Note(time.Duration(t), Event{Open: g.open})
	}
	g.learner.Bound(time.Duration(t), l)
	g.triggers.watch(l.Reactions)
	g.pace = g.learner.Pace()
}

// follow makes the meters keep what the learner decided.
func (g *Governor) follow(t int64) {
	if g.pace.Changes != g.seen {
		g.reshape(t)
	}
}

func (g *Governor) reshape(t int64) {
	g.seen = g.pace.Changes
	g.connections.reshape(t, rateMeter(g.connectionRate()))
	g.messages.reshape(t, rateMeter(g.messageRate()))
}

// AllowConnection reports whether a connection may be opened now; if not, what
// holds it and when to ask again. The zero time means when a connection closes
// or a message or connection succeeds.
func (g *Governor) AllowConnection(now time.Time) (Hold, time.Time) {
	t := g.tick(now)
	hold, at := g.connectionHold(t)
	if hold == HoldNone {
		return HoldNone, time.Time{}
	}
	g.connecting.held(hold, t, at)
	if at == 0 {
		return hold, time.Time{}
	}
	return hold, g.clock.time(at)
}

// connectionHold is what holds a new connection at t, until when (0: until one closes).
func (g *Governor) connectionHold(t int64) (Hold, int64) {
	p := g.pace
	switch {
	case t < int64(p.RestUntil):
		return HoldRest, int64(p.RestUntil)
	case p.Probing && g.open > 0:
		return HoldRest, 0
	case t < int64(p.BackoffUntil):
		return HoldBackoff, int64(p.BackoffUntil)
	case p.Failures > 0 && g.open > 0:
		return HoldBackoff, 0
	case t < int64(p.ConnectUntil):
		return HoldConnections, int64(p.ConnectUntil)
	}
	if g.full() {
		return HoldConnections, g.raiseAt(t)
	}
	if at := g.connections.ready(); t < at && g.connections.interval != 0 {
		return HoldConnectionRate, at
	}
	return HoldNone, 0
}

// raiseAt is when a cap that holds a connection may rise, 0 if that is not
// known; the learner hears that one more connection was wanted.
func (g *Governor) raiseAt(t int64) int64 {
	if g.override.Set.Has(FieldConnections) || g.limits.Connections > 0 && g.open >= g.limits.Connections {
		return 0
	}
	g.note(t, EventWanted)
	if at := int64(g.pace.RaiseAt); at > t {
		return at
	}
	return 0
}

// maxConnections is the cap in force; 0 is none.
func (g *Governor) maxConnections() int {
	if g.override.Set.Has(FieldConnections) {
		return g.override.Limits.Connections
	}
	return lowest(g.limits.Connections, g.pace.Connections)
}

// messageRate and connectionRate are the rates in force: the learner's where it
// is slower than the rule's, never with a larger burst.
func (g *Governor) messageRate() Rate {
	if g.override.Set.Has(FieldMessageRate) {
		return g.override.Limits.MessageRate
	}
	return slowest(g.limits.MessageRate, g.pace.MessageRate)
}

func (g *Governor) connectionRate() Rate {
	if g.override.Set.Has(FieldConnectionRate) {
		return g.override.Limits.ConnectionRate
	}
	return slowest(g.limits.ConnectionRate, g.pace.ConnectionRate)
}

func slowest(rule, learned Rate) Rate {
	if learned.IsZero() || !rule.IsZero() && rule.interval() >= learned.interval() {
		return rule
	}
	if !rule.IsZero() {
		learned.Burst = min(learned.Burst, rule.Burst)
	}
	return learned
}

// lowest is the lower of two caps where 0 is none.
func lowest(a, b int) int {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// ConnectionOpened takes a connection's slot and its rate token. Call it at
// dial, before anything can fail.
func (g *Governor) ConnectionOpened(now time.Time) {
	t := g.tick(now)
	g.open++
	g.connections.take(t, 1)
	g.note(t, EventOpened)
}

// ConnectionClosed gives the slot back: after QUIT's reply, the peer's FIN or our
// reset.
func (g *Governor) ConnectionClosed(now time.Time) {
	g.ready = max(g.ready-1, 0)
	g.ConnectionFailed(now)
}

// ConnectionFailed gives the slot of a connection back that never came about.
func (g *Governor) ConnectionFailed(now time.Time) {
	t := g.tick(now)
	if g.open > 0 {
		g.open--
	}
	g.ready = min(g.ready, g.open)
	g.note(t, EventClosed)
}

// note tells the learner of an event of connections or of a message sent.
func (g *Governor) note(t int64, kind EventKind) {
	g.learner.Note(time.Duration(t), Event{Kind: kind, Open: g.open, Ready: g.ready})
	g.follow(t)
}

// AllowMessage reports whether a MAIL command may be written now; if not, what
// holds it and when to ask again. Transactional mail may use the reserved 5 %
// of the hourly quota.
func (g *Governor) AllowMessage(now time.Time, transactional bool) (Hold, time.Time) {
	t := g.tick(now)
	hold, at := g.messageHold(t, transactional)
	if hold == HoldNone {
		return HoldNone, time.Time{}
	}
	g.sending.held(hold, t, at)
	return hold, g.clock.time(at)
}

// messageHold is what holds a message longest, and until when.
func (g *Governor) messageHold(t int64, transactional bool) (Hold, int64) {
	p := g.pace
	if t < int64(p.RestUntil) {
		return HoldRest, int64(p.RestUntil)
	}
	if p.Probing && t < int64(p.ProbeAt) {
		return HoldRest, int64(p.ProbeAt)
	}
	hold, until := HoldNone, t
	if at := g.messages.ready(); at > until && g.messages.interval != 0 {
		hold, until = HoldMessageRate, at
	}
	return quotaHold(&g.sendHour, &g.sendDay, transactional, hold, until)
}

// quotaHold raises a hold to what the two quotas say.
func quotaHold(hour, day *quota, transactional bool, hold Hold, until int64) (Hold, int64) {
	if hour.all.interval != 0 {
		if at := hour.ready(transactional); at > until {
			hold, until = HoldHourly, at
		}
	}
	if day.all.interval != 0 {
		if at := day.ready(transactional); at > until {
			hold, until = HoldDaily, at
		}
	}
	return hold, until
}

// MessageSent records a MAIL command. Call it when the message is given to the session.
func (g *Governor) MessageSent(now time.Time) {
	t := g.tick(now)
	g.messages.take(t, 1)
	g.sendHour.take(t, 1)
	g.sendDay.take(t, 1)
	g.note(t, EventSent)
}

// AllowClaim reports whether one more message may be claimed under the hourly
// and daily quotas; if not, what holds it and when to ask again. For a batch,
// ask and call Claimed for each message.
func (g *Governor) AllowClaim(now time.Time, transactional bool) (Hold, time.Time) {
	t := g.tick(now)
	hold, at := quotaHold(&g.claimHour, &g.claimDay, transactional, HoldNone, t)
	if hold == HoldNone {
		return HoldNone, time.Time{}
	}
	g.sending.held(hold, t, at)
	return hold, g.clock.time(at)
}

// Claimed charges n messages to the quotas; write Usage with the claim. More
// than AllowClaim allowed is a debt, paid before the next message is allowed.
func (g *Governor) Claimed(now time.Time, n int) {
	t := g.tick(now)
	g.claimHour.take(t, int64(n))
	g.claimDay.take(t, int64(n))
	g.clock.mark(now, t)
}

// MessagesPerConnection is the number of MAIL commands in force for one
// connection; 0 is no limit.
func (g *Governor) MessagesPerConnection(now time.Time) int {
	g.tick(now)
	if g.override.Set.Has(FieldMessagesPerConnection) {
		return g.override.Limits.MessagesPerConnection
	}
	return lowest(g.limits.MessagesPerConnection, g.pace.MessagesPerConnection)
}

// Changes counts the changes of what the learner allows: a caller that sees it
// move looks anew at how many connections may stay.
func (g *Governor) Changes() uint64 { return g.pace.Changes }

// MessageRate is the rate in force; the zero Rate is no limit.
func (g *Governor) MessageRate() Rate { return g.messageRate() }
