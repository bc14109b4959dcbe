package inbound

import (
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/returnpath"
)

// Classifier understands mails. It is immutable and safe for concurrent use.
type Classifier struct {
	table *bounce.Table
	keys  *returnpath.Keys
	links func(token string) (returnpath.Ref, bool)
}

// NewClassifier returns a Classifier that qualifies by table and attributes by
// keys; without keys (nil) nothing is attributed.
func NewClassifier(table *bounce.Table, keys *returnpath.Keys) *Classifier {
	return &Classifier{table: table, keys: keys}
}

// WithLinks returns a Classifier that attributes by sealed unsubscribe tokens, too.
// open returns the message that a token names, and false for what is no token of
// ours or names none. It must be safe for concurrent use and not block.
func (c *Classifier) WithLinks(open func(token string) (returnpath.Ref, bool)) *Classifier {
	with := *c
	with.links = open
	return &with
}

// Classify says what a mail is. Recipients and attribution are independent of
// each other: the first is what the mail claims, the second what we can prove.
func (c *Classifier) Classify(m *Mail, env Envelope) Report { return c.classify(newStudy(m), env) }

// classify says what a mail that came to env is; one study serves every envelope.
func (c *Classifier) classify(s *study, env Envelope) Report {
	s.null = env.Null
	r := Report{Limited: s.mail.Limited, Malformed: s.mail.Malformed}
	header := s.original()
	r.Original = describe(header)
	c.sort(s, header, env, &r)
	r.Attribution = c.attribute(s, header, env)
	return r
}

// sort decides the kind. What machines wrote for machines decides first, then the
// words: of a bounce before those of an automatic reply, since many bounces call
// themselves automatic replies, too.
func (c *Classifier) sort(s *study, original Header, env Envelope, r *Report) {
	if isComplaint(s) {
		complaint(s, original, r)
		return
	}
	if n, ok := readNotification(s.report + s.copied); ok {
		c.notification(n, r)
		return
	}
	if len(s.status) > 0 {
		r.Form = "rfc3464"
		c.bounce(s, original, r)
		return
	}
	score := bounceScore(s, original)
	switch {
	case s.receipt:
		r.Why = "a receipt (disposition notification), which says nothing about the delivery"
	case score >= bounceSure:
		c.bounce(s, original, r)
	case isUnsubscribe(s, env):
		answer(s, r, KindUnsubscribe, bounce.CodeUnsubscribe)
		r.Sealed = s.sealed()
	case isChallenge(s):
		answer(s, r, KindChallenge, bounce.CodeChallengeResponse)
	case isAutoReply(s):
		answer(s, r, KindAutoReply, bounce.CodeAutoReply)
	case score >= bounceLikely:
		c.bounce(s, original, r)
	default:
		r.Why = "neither a report, nor an automatic reply, nor a request known to us"
	}
}

// bounce fills in a report about a delivery.
func (c *Classifier) bounce(s *study, original Header, r *Report) {
	r.Kind = KindBounce
	if r.Form == "" {
		r.Form = "text"
	}
	r.Recipients = c.bounced(s, original)
	if len(r.Recipients) == 0 {
		nobody := Recipient{Action: actionOf(s)}
		c.qualify(s, &nobody, "", "")
		r.Verdict, r.Action, r.Diagnostic = nobody.Verdict, nobody.Action, nobody.Diagnostic
		return
	}
	first := &r.Recipients[0]
	r.Verdict, r.Action, r.Diagnostic = first.Verdict, first.Action, first.Diagnostic
}

// answer fills in what somebody sent back. Its recipient is who sent it.
func answer(s *study, r *Report, kind Kind, code int) {
	r.Kind, r.Form, r.Verdict = kind, "text", ownVerdict(code)
	who := s.from
	if who == "" {
		who = firstAddress(s.header.Get("Reply-To"))
	}
	if who != "" {
		r.Recipients = []Recipient{{Address: who, Verdict: r.Verdict}}
	}
}

// ownVerdict is the verdict of what is no reply of a server: codes 60, 90 and 100.
func ownVerdict(code int) bounce.Verdict {
	v := bounce.Verdict{
		Code: code, Name: bounce.CodeName(code), BounceType: bounce.CodeType(code), Category: bounce.CodeType(code).String(), Type: bounce.TypeIgnored,
	}
	switch code {
	case bounce.CodeAutoReply:
		v.Tag = "auto_reply"
	case bounce.CodeChallengeResponse:
		v.Tag, v.Reason, v.Type = "challenge", bounce.ReasonRefused, bounce.TypeSoft
	case bounce.CodeUnsubscribe:
		v.Tag, v.Reason, v.Type, v.Address = "unsubscribe", bounce.ReasonDenylisted, bounce.TypeHard, bounce.AddressSuppress
	}
	v.Rule = "inbound." + v.Tag
	return v
}

// feedbackVerdict is the verdict of a complaint; a report that does not speak of a
// reader means nothing for the address.
func feedbackVerdict(kind string) bounce.Verdict {
	v := ownVerdict(bounce.CodeUnsubscribe)
	v.Tag, v.Rule = "feedback", "inbound.feedback"
	if !speaksOfReader(kind) {
		v.Type, v.Address = bounce.TypeIgnored, bounce.AddressNone
	}
	return v
}
