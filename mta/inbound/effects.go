package inbound

import (
	"time"

	"github.com/veredus/veredus/mta/bounce"
)

// The reasons why a mail is kept for a person to look at, as in Observation.Reason and Note.Reason.
const (
	// ReasonNotUnderstood: it is none of the kinds known.
	ReasonNotUnderstood = "not_understood"
	// ReasonNoToken: it is a return, but nothing in it that we signed names a message.
	ReasonNoToken = "no_token"
	// ReasonForgedToken: it bears what looks like a token, but no key of ours signed it.
	ReasonForgedToken = "forged_token"
	// ReasonConflict: its tokens name different messages.
	ReasonConflict = "conflicting_tokens"
	// ReasonOtherRecipient: it names another recipient than the message it is attributed to has.
	ReasonOtherRecipient = "other_recipient"
	// ReasonUnknownMessage: the message it is attributed to is not (or no longer) there.
	ReasonUnknownMessage = "unknown_message"
	// ReasonUnreadable: reading it failed; the log has the cause.
	ReasonUnreadable = "unreadable"
)

// maxReturnText bounds the text of a Return, in bytes.
const maxReturnText = 2 << 10

// Returns decides what follows from a report that came in at now. The returns are
// alternatives: in their order, the first whose effect is not OtherRecipient is the
// one. There are none where nothing happens; unprocessed then tells why a
// person should look at the mail, or is empty where it is understood and of no
// consequence: an automatic reply, a challenge, a delayed or delivered message, a
// feedback report that speaks of no reader.
//
// Any doubt about the attribution, such as one forged token beside a good one, is
// enough to do nothing: a genuine report is never in doubt.
func Returns(r Report, now time.Time) (returns []Return, unprocessed string) {
	if r.Kind == KindOther {
		return nil, ReasonNotUnderstood
	}
	if !consequential(r) {
		return nil, ""
	}
	if why := doubt(r.Attribution); why != "" {
		return nil, why
	}
	one := Return{Ref: r.Attribution.Ref, Time: now, Confirm: r.Attribution.Confirm, Link: r.Attribution.Link}
	switch r.Kind {
	case KindComplaint:
		one.Kind, one.Text = Complaint, clip("feedback report: "+r.FeedbackType, maxReturnText)
	case KindUnsubscribe:
		one.Kind, one.Text = Unsubscribe, "unsubscribed by mail"
	default:
		return bounceReturns(one, r), ""
	}
	one.Verdict = r.Verdict
	for _, x := range r.Recipients {
		one.Recipients = append(one.Recipients, x.names()...)
	}
	return []Return{one}, ""
}

// consequential reports whether a report of that kind changes anything, if only we
// know the message.
func consequential(r Report) bool {
	switch r.Kind {
	case KindBounce:
		return len(r.failed()) > 0 || len(r.Recipients) == 0 && r.Action == ActionFailed
	case KindComplaint:
		return speaksOfReader(r.FeedbackType)
	}
	return r.Kind == KindUnsubscribe
}

// doubt is why an attribution is not good enough to act upon; empty if it is.
func doubt(a Attribution) string {
	switch {
	case a.Forged > 0:
		return ReasonForgedToken
	case a.Conflict:
		return ReasonConflict
	case a.Place == PlaceNone:
		return ReasonNoToken
	}
	return ""
}

// bounceReturns is the returns of a report of failures. A message of ours has one
// recipient. If the report names several, ours was an alias or list, so
// that of the message's own recipient counts if it is among them. Otherwise it
// was expanded under way: then the mildest failure counts, and none if the mail
// reached anybody.
func bounceReturns(one Return, r Report) []Return {
	one.Kind = OutOfBandBounce
	failed := r.failed()
	if len(failed) == 0 {
		one.Verdict, one.Reply, one.Text = r.Verdict, r.Diagnostic, clip(r.Diagnostic.Text, maxReturnText)
		return []Return{one}
	}
	if len(r.Recipients) == 1 || len(failed) == 1 && !r.reached() {
		return []Return{one.of(failed[0])}
	}
	var all []Return
	mildest := failed[0]
	for _, x := range failed {
		own := one.of(x)
		own.Confirm = true
		all = append(all, own)
		if milder(x.Verdict, mildest.Verdict) {
			mildest = x
		}
	}
	if !one.Confirm && !r.reached() {
		all = append(all, one.of(mildest))
	}
	return all
}

// of is the return as told by one recipient's part of a report.
func (r Return) of(x Recipient) Return {
	r.Recipients = x.names()
	r.Verdict, r.Reply, r.RemoteMTA = x.Verdict, x.Diagnostic, x.RemoteMTA
	r.Text = clip(x.Diagnostic.Text, maxReturnText)
	return r
}

func milder(a, b bounce.Verdict) bool { return a.Address < b.Address }

// failed is the recipients that the mail was not delivered to, for good.
func (r *Report) failed() []Recipient {
	var all []Recipient
	for _, x := range r.Recipients {
		if x.Action == ActionFailed {
			all = append(all, x)
		}
	}
	return all
}

// reached reports whether the mail was delivered or passed on to a recipient named.
func (r *Report) reached() bool {
	for _, x := range r.Recipients {
		switch x.Action {
		case ActionDelivered, ActionRelayed, ActionExpanded:
			return true
		}
	}
	return false
}

// names is the addresses by which the mail knows the recipient.
func (x *Recipient) names() []string {
	if x.Original != "" {
		return []string{x.Address, x.Original}
	}
	return []string{x.Address}
}
