package inbound

import "time"

// Observation is one thing that happened at the listener, for counters: its texts are
// of few kinds and tell nothing about anybody.
type Observation struct {
	// Kind of the mail; empty for what was turned away unread.
	Kind string
	// Effect is one of the Effect... constants.
	Effect string
	// Reason is one of the Reason... constants; for EffectNone of a bounce the action
	// that changes nothing, for a complaint the type of the feedback; else empty.
	Reason string
	// Duration from the end of the mail's data to its effect; 0 for what was turned away.
	Duration time.Duration
	// Dropped is how many mails the folder of unprocessed mail gave up to keep this one.
	Dropped int
}

// What became of a mail, beside the names of Effect.
const (
	// EffectNone: understood, and of no consequence.
	EffectNone = "none"
	// EffectUnprocessed: kept in the folder of unprocessed mail, for Reason.
	EffectUnprocessed = "unprocessed"
	// EffectDeferred: nothing could be made durable; the sender was told to try again.
	EffectDeferred = "deferred"
	// EffectRefused: turned away, for Reason; nothing was read.
	EffectRefused = "refused"
)

// Why something was refused.
const (
	// ReasonConnections: more connections than allowed in all.
	ReasonConnections = "too_many_connections"
	// ReasonClientConnections: more connections than allowed from one client.
	ReasonClientConnections = "too_many_connections_of_client"
	// ReasonRate: more messages a minute than allowed from one client.
	ReasonRate = "too_many_messages"
	// ReasonRelay: a recipient at a domain that is not ours.
	ReasonRelay = "relaying_denied"
	// ReasonUnknownAddress: a recipient at a domain of ours that was never issued.
	ReasonUnknownAddress = "unknown_address"
	// ReasonRecipients: too many recipients of one message, or too many refused ones.
	ReasonRecipients = "too_many_recipients"
	// ReasonSize: a message larger than allowed.
	ReasonSize = "too_large"
	// ReasonLine: a line longer than allowed.
	ReasonLine = "line_too_long"
	// ReasonRoom: no memory for another message now.
	ReasonRoom = "no_room"
	// ReasonBroken: the message did not come to its end.
	ReasonBroken = "incomplete"
)

func refused(reason string) Observation { return Observation{Effect: EffectRefused, Reason: reason} }
