package inbound

import (
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/returnpath"
)

// Classifier understands mails. It is immutable and safe for concurrent use.
type Classifier struct {
	table *bounce.Table
	keys  *returnpath.Keys
}

// NewClassifier returns a Classifier that qualifies by table and attributes by
// keys; without keys (nil) nothing is attributed.
func NewClassifier(table *bounce.Table, keys *returnpath.Keys) *Classifier {
	return &Classifier{table, keys}
}

// Classify says what a mail is. Recipients and attribution are independent of
// each other: the first is what the mail claims, the second what we can prove.
func (c *Classifier) Classify(m *Mail, env Envelope) Report {
	s := newStudy(m)
	r := Report{Limited: m.Limited, Malformed: m.Malformed}
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
		c.complaint(s, original, r)
		return
	}
	if n, ok := readNotification(s.report + s.copied); ok {
		c.notification(n, r)
		return
	}
	bounced := bounceScore(s, original)
	switch {
	case len(s.status) > 0:
		r.Kind, r.Form = KindBounce, "rfc3464"
		r.Recipients = c.bounced(s, original)
	case s.receipt:
		r.Why = "a receipt (disposition notification), which says nothing about the delivery"
	case bounced >= bounceSure:
		c.worded(s, original, r)
	case isUnsubscribe(s, env):
		r.Kind, r.Form = KindUnsubscribe, "mailto"
		r.Recipients = c.answered(s, bounce.CodeUnsubscribe, "unsubscribe", bounce.ReasonDenylisted)
	case isChallenge(s):
		r.Kind, r.Form = KindChallenge, "text"
		r.Recipients = c.answered(s, bounce.CodeChallengeResponse, "challenge", bounce.ReasonRefused)
	case isAutoReply(s):
		r.Kind, r.Form = KindAutoReply, "rfc3834"
		r.Recipients = c.answered(s, bounce.CodeAutoReply, "auto_reply", bounce.ReasonErrorIgnored)
	case bounced >= bounceLikely:
		c.worded(s, original, r)
	default:
		r.Why = "neither a report, nor an automatic reply, nor a request known to us"
	}
}

func (c *Classifier) worded(s *study, original Header, r *Report) {
	r.Kind, r.Form = KindBounce, "text"
	r.Recipients = c.bounced(s, original)
	if len(r.Recipients) == 0 {
		r.Why = "a bounce that names no recipient"
	}
}

// answered is the sender of a reply or request as its recipient.
func (c *Classifier) answered(s *study, code int, tag string, reason bounce.Reason) []Recipient {
	who := s.from
	if who == "" {
		who = firstAddress(s.header.Get("Reply-To"))
	}
	if who == "" {
		return nil
	}
	return []Recipient{{Address: who, Verdict: ownVerdict(code, tag, reason)}}
}

// ownVerdict is the verdict of what is no reply of a server.
func ownVerdict(code int, tag string, reason bounce.Reason) bounce.Verdict {
	v := bounce.Verdict{
		Code: code, Name: bounce.CodeName(code), BounceType: bounce.CodeType(code), Category: bounce.CodeType(code).String(),
		Tag: tag, Reason: reason, Type: bounce.TypeIgnored, Rule: "inbound." + tag,
	}
	if code == bounce.CodeUnsubscribe {
		v.Type, v.Address = bounce.TypeHard, bounce.AddressSuppress
	}
	return v
}
