package inbound

import (
	"context"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/returnpath"
	"github.com/veredus/veredus/mta/smtpc"
)

// Ledger is where what came back takes effect: each call is one durable write. It
// is implemented by the store.
type Ledger interface {
	Return(ctx context.Context, r Return) (Effect, error)
}

// Return is something that came back about one message of ours.
type Return struct {
	Kind ReturnKind
	// Ref names the message: a token that we signed.
	Ref  returnpath.Ref
	Time time.Time
	// Recipients are the addresses that the mail names, in lower case. With Confirm nothing happens
	// unless one of them is the message's (a Message-ID is known to everyone who saw the mail).
	Recipients []string
	Confirm    bool
	// Link is a sealed unsubscribe token that names the message, if the mail quotes one.
	Link string
	// Of an out-of-band bounce: what it means, the diagnostic, and the host that refused.
	Verdict   bounce.Verdict
	Reply     smtpc.Reply
	RemoteMTA string
	// Text is for the event: the diagnostic, or how a complaint came.
	Text string
}

// ReturnKind is what came back.
type ReturnKind uint8

// The kinds that have an effect.
const (
	OutOfBandBounce ReturnKind = iota + 1
	Complaint
	Unsubscribe
)

// Effect is what a Return did.
type Effect uint8

// The effects.
const (
	// Applied: log, counters, event and address entry changed in one write.
	Applied Effect = iota + 1
	// Repeated: it was told before; nothing changed.
	Repeated
	// NotSent: a bounce of a message that is not Sent; nothing changed.
	NotSent
	// UnknownMessage: the message is not (or no longer) there; nothing changed.
	UnknownMessage
	// OtherRecipient: Confirm was asked and no recipient is the message's; nothing changed.
	OtherRecipient
)

// String is the effect's name in logs and metrics.
func (e Effect) String() string {
	switch e {
	case Applied:
		return "applied"
	case Repeated:
		return "repeated"
	case NotSent:
		return "not_sent"
	case UnknownMessage:
		return "unknown_message"
	case OtherRecipient:
		return "other_recipient"
	}
	return "unknown"
}
