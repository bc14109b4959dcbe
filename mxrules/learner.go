package mxrules

import "time"

// Learner decides how far a path stays below its rule's limits. A Governor owns
// one, tells it what happens on the path, and keeps whatever it answers and the
// rule's limits, whichever is stricter: no learner can exceed a rule.
//
// Times are those of the governor's clock, which begins at zero with the path and
// never goes back. A learner draws no random number and reads no clock.
type Learner interface {
	// Note tells of an event that is no trouble.
	Note(at time.Duration, e Event)
	// Refused tells of a reply, or of a connection without one, that has an effect
	// on the path.
	Refused(at time.Duration, e Evidence)
	// Advance tells that the time Pace.Next came.
	Advance(at time.Duration)
	// Pace is what is in force. The pointer stays the same for the learner's life;
	// what it points to changes in the other methods only.
	Pace() *Pace
	// Bound gives the rule's limits, at first and whenever they change.
	Bound(at time.Duration, l Limits)
	// Memory is what is worth keeping over a restart, and Recall gives it back. The
	// times in it are on the governor's clock; those of before a restart are negative.
	Memory(at time.Duration) Memory
	Recall(at time.Duration, m Memory)
}

// Event is something that happened on a path.
type Event struct {
	Kind EventKind
	// Took is how long it took from the MAIL command to the reply, for
	// EventServed; 0 if that is not known.
	Took time.Duration
	// Open is the number of connections after the event.
	Open int
	// Ready is how many of those came about; for EventServed it is not told.
	Ready int
	// Own says that a message was refused for a reason of its own: it passed what
	// paces the path, but may not have used anything of it up.
	Own bool
	// Vague says that this reason is not known: a temporary refusal that nothing
	// explains.
	Vague bool
	// Messages is how many MAIL commands the connection carried before, Again says
	// that the message was put off before; both for EventServed.
	Messages int
	Again    bool
}

// EventKind says what an Event is.
type EventKind uint8

const (
	// EventOpened: a connection is dialled.
	EventOpened EventKind = iota + 1
	// EventReady: a connection came about.
	EventReady
	// EventClosed: a connection ended, or its dial failed.
	EventClosed
	// EventSent: a MAIL command is written.
	EventSent
	// EventServed: a message was answered without trouble for the path: accepted,
	// or refused for a reason of its own.
	EventServed
	// EventFailed: a connection failed before MAIL for a reason that is no pacing.
	EventFailed
	// EventWanted: one more connection would have been opened but for the pace.
	EventWanted
)

// Pace is what a learner allows. Zero counts and rates are no limit of its own.
type Pace struct {
	// Connections caps connections open at once, MessagesPerConnection the MAIL
	// commands on each.
	Connections           int
	MessagesPerConnection int
	// MessageRate and ConnectionRate replace the rule's where they are slower.
	MessageRate    Rate
	ConnectionRate Rate
	// RestUntil is when the path may do anything again, RestSince when that began.
	RestSince, RestUntil time.Duration
	// ConnectUntil is when connections may be opened again.
	ConnectUntil time.Duration
	// BackoffUntil is the same after failures before MAIL, Failures how many came
	// in a row: while there are any, one connection at a time is tried.
	BackoffSince, BackoffUntil time.Duration
	Failures                   int
	// Probing: until a message succeeds only one connection is opened at a time, and
	// a message is sent at ProbeAt at the earliest. Rests is how many rests came in a row.
	Probing bool
	ProbeAt time.Duration
	Rests   int
	// Suspicious: temporary refusals of messages that nothing explains are taken for
	// EffectSlow.
	Suspicious bool
	// RaiseAt is when a cap on connections may rise by itself; 0 is not known.
	RaiseAt time.Duration
	// Next is when Advance is due.
	Next time.Duration
	// Changes counts changes of the caps, the rates and RestUntil.
	Changes uint64
	// Cause says in a few words what the last change follows from; it is a constant text.
	Cause string
}

// forever is an instant that no learner waits for.
const forever = time.Duration(never)
