// Package inbound understands the mail that comes back: bounces in the standard
// form (RFC 3464, RFC 6533) and in the many others, complaints (RFC 5965),
// automatic replies (RFC 3834), challenges and unsubscribe requests.
//
// Parse reads a mail, tolerantly and within limits. A Classifier's Classify says
// what it is, about whom, and to which message of ours it belongs. Returns decides
// what follows: nothing, a Return for the Ledger, or that a person should look at it.
// All are pure and take hostile input: they never fail, they say less.
//
// A Server takes such mail over SMTP and brings about what follows. What it cannot
// tie to a message, or does not understand, goes to a Folder.
package inbound

import (
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/returnpath"
	"github.com/veredus/veredus/mta/smtpc"
)

// Kind is what a mail is.
type Kind uint8

const (
	// KindOther is mail that is none of the others, or not understood; Report.Why says which.
	KindOther Kind = iota
	// KindBounce is a report about a delivery, also a delayed or a successful one: see Recipient.Action.
	KindBounce
	// KindComplaint is a recipient's or a provider's report of unwanted mail.
	KindComplaint
	// KindAutoReply is an out-of-office or other automatic answer.
	KindAutoReply
	// KindChallenge asks the sender to confirm before mail is let through.
	KindChallenge
	// KindUnsubscribe asks to be taken off a list (a mailto target of List-Unsubscribe).
	KindUnsubscribe
)

var kindNames = [...]string{"other", "bounce", "complaint", "auto_reply", "challenge", "unsubscribe"}

// String returns the lower-case name used in JSON and metrics.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[KindOther]
}

// Action is what became of the mail to one recipient (RFC 3464 section 2.3.3).
type Action uint8

const (
	// ActionNone is not a report about a delivery.
	ActionNone Action = iota
	// ActionFailed: not delivered, and no further attempt.
	ActionFailed
	// ActionDelayed: not delivered yet.
	ActionDelayed
	// ActionDelivered: delivered.
	ActionDelivered
	// ActionRelayed: handed to a system that does not report deliveries.
	ActionRelayed
	// ActionExpanded: delivered to a list or alias.
	ActionExpanded
)

var actionNames = [...]string{"", "failed", "delayed", "delivered", "relayed", "expanded"}

// String returns the word of RFC 3464, empty for ActionNone.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return ""
}

// Envelope is how a mail came.
type Envelope struct {
	// Recipient is the RCPT address. When empty, the fields that delivery agents
	// write (Delivered-To, X-Original-To ...) and To are looked at instead.
	Recipient string
	// Unsubscribe tells that Recipient is an address for unsubscribe requests, so
	// that whatever is no automatic mail asks for that.
	Unsubscribe bool
	// Null tells that it came from the null reverse-path (MAIL FROM:<>). A
	// Return-Path field tells it as well.
	Null bool
}

// Report is what a mail says.
type Report struct {
	// Kind is what the mail is.
	Kind Kind
	// Form names the form it was recognised by, such as "rfc3464", "arf" or "text".
	Form string
	// Why says for KindOther what was missing; empty otherwise.
	Why string
	// Recipients are those the mail names. Of a complaint or a reply it is who
	// complains or answers; there may be none, for providers redact.
	Recipients []Recipient
	// Verdict is what the mail means as a whole: that of the first recipient, and
	// where nobody is named what is known all the same.
	Verdict bounce.Verdict
	// Action and Diagnostic are those of a bounce as a whole, in the same way.
	Action     Action
	Diagnostic smtpc.Reply
	// Sealed are texts of an unsubscribe request that may be sealed unsubscribe
	// tokens, the likeliest first; to open them is the caller's part.
	Sealed []string
	// FeedbackType is the Feedback-Type of a complaint in lower case: "abuse",
	// "auth-failure", "not-spam" ... Only abuse and its like speak of a complaining reader.
	FeedbackType string
	// Original is what is known of the mail that is returned or complained about.
	Original Original
	// Attribution ties the mail to a message of ours.
	Attribution Attribution
	// Limited and Malformed are those of the parsed mail.
	Limited   []Limit
	Malformed []string
}

// Recipient is one recipient that a mail names.
type Recipient struct {
	// Address as the mail names it, in lower case.
	Address string
	// Original is the address the sender had used, in lower case, where the mail
	// names it (Original-Recipient) and it is another.
	Original string
	// Action is what became of the mail; ActionNone outside bounces.
	Action Action
	// Status is the enhanced status code "x.y.z"; empty when the mail gives none.
	Status string
	// Diagnostic is the reply or explanation the verdict is about, with the phase
	// where the mail tells it.
	Diagnostic smtpc.Reply
	// Verdict is what the diagnostic means. It is zero for delivered, relayed and
	// expanded mail; for other kinds it carries their bounce code (60, 90, 100).
	// Its disposition speaks of a message still in a queue and means nothing here.
	Verdict bounce.Verdict
	// RemoteMTA is the host that refused, where the mail tells it.
	RemoteMTA string
}

// Original is what a mail tells of the one it is about.
type Original struct {
	// MessageID without angle brackets.
	MessageID string
	// From, To and Subject as written, with encoded words read.
	From, To, Subject string
}

// Place is where a token was found, the most trusted first.
type Place uint8

const (
	// PlaceNone: no token.
	PlaceNone Place = iota
	// PlaceReturnPath: the address the mail came to.
	PlaceReturnPath
	// PlaceMessageID: the Message-ID of the mail returned, or what this one refers to.
	PlaceMessageID
	// PlaceListUnsubscribe: List-Unsubscribe of the mail returned.
	PlaceListUnsubscribe
)

var placeNames = [...]string{"none", "return_path", "message_id", "list_unsubscribe"}

// String returns the lower-case name used in logs and metrics.
func (p Place) String() string {
	if int(p) < len(placeNames) {
		return placeNames[p]
	}
	return placeNames[PlaceNone]
}

// Attribution is the tie between a mail and a message of ours. Only a token that
// we signed makes one, never the text.
type Attribution struct {
	// Place is where the deciding token stood; PlaceNone when there is no attribution.
	Place Place
	// Ref names the message; meaningful unless Place is PlaceNone.
	Ref returnpath.Ref
	// Link is a sealed unsubscribe token in the mail that names the same message; empty for none. It
	// tells address and tenant also when the message is gone.
	Link string
	// Confirm tells that the caller must check that a recipient named by the mail
	// is the message's before acting: a Message-ID is known to everyone who ever
	// saw the mail.
	Confirm bool
	// Forged counts texts of a token's form that no key of ours signed. One at a
	// place keeps that place and those after it from attributing anything.
	Forged int
	// Conflict tells that signed tokens named different messages. The one in the
	// return path counts; of several at a later place none does.
	Conflict bool
}

// Certain reports whether the attribution may be acted upon: a token of ours names the
// message, and no other and no forged one casts doubt on it. Confirm remains to be checked.
func (a Attribution) Certain() bool { return doubt(a) == "" }
