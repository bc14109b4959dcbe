package storagetest

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/inbound"
	"github.com/veredus/veredus/mta/returnpath"
	"github.com/veredus/veredus/mta/smtpc"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
)

// ref is what the return path of a message says.
func (m *message) ref() returnpath.Ref {
	return returnpath.Ref{Handover: m.id.Handover, Domain: m.id.Domain, Lane: m.id.Lane, Order: m.id.Order, Delivery: m.delivery.no}
}

// link is what the unsubscribe link of a message says.
func (m *message) link() address.Unsubscription {
	return address.Unsubscription{
		Address: "X" + m.address[1:], Tenant: m.delivery.tenant, List: m.delivery.list,
		Delivery: m.delivery.id, Message: m.id.String(), Text: "one-click POST",
	}
}

// mayHave reports whether the recipient may have the message.
func (m *message) mayHave() bool {
	return m.claimed || m.lost > 0 || m.attempts > 0 && (m.final() || m.uncertain)
}

// event is one that tells of a message that came back.
func (m *message) event(kind veredusv1.FeedbackType, reason int32) event {
	return event{
		kind: kind, delivery: m.delivery.name(), message: m.name(), recipient: "X" + m.address[1:],
		attempt: int32(m.attempts), destination: cmp.Or(m.destination, m.domain), reason: reason,
	}
}

// anyMessage is a random message; nil when there is none.
func (e *engine) anyMessage(fits func(*message) bool) *message {
	var list []*message
	for _, d := range e.m.deliveries {
		for _, m := range d.messages {
			if m.id != (mta.MessageID{}) && fits(m) {
				list = append(list, m)
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[e.rng.IntN(len(list))]
}

// giveBack lets a bounce mail, a complaint or an unsubscribe mail come back; sometimes about
// nothing of ours, sometimes naming another recipient.
func (e *engine) giveBack() error {
	sent := e.rng.IntN(4) > 0
	m := e.anyMessage(func(m *message) bool { return !m.claimed && (!sent || m.attempts > 0) })
	if m == nil {
		return nil
	}
	r := inbound.Return{
		Kind: inbound.ReturnKind(1 + e.rng.IntN(3)), Ref: m.ref(), Time: e.m.now, Text: "it came back",
		Confirm: e.rng.IntN(2) == 0, Recipients: []string{"else@b.test", m.address}, RemoteMTA: "mx.a.test",
		Reply: smtpc.Reply{Phase: smtpc.PhaseRCPT, Code: 550, Enhanced: "5.1.1", Text: "unknown"},
		Verdict: bounce.Verdict{
			Code: 10, Reason: bounce.ReasonUserUnknown, Type: bounce.TypeHard, Tag: "user_unknown", Rule: "late",
			Address: bounce.AddressEffect(e.rng.IntN(3)), Disposition: bounce.Final,
		},
	}
	switch e.rng.IntN(12) {
	case 0:
		r.Ref.Delivery++
	case 1:
		r.Ref.Order += 1000
	case 2:
		r.Confirm, r.Recipients = true, r.Recipients[:1]
	}
	want := e.cameBack(m, &r)
	got, err := e.store.Return(ctx(), r)
	if err != nil || got != want {
		return fmt.Errorf("return of kind %d about %s: %s (%v), want %s", r.Kind, m, got, err, want)
	}
	return nil
}

// cameBack brings the model to where a Return should bring the store.
func (e *engine) cameBack(m *message, r *inbound.Return) inbound.Effect {
	switch {
	case r.Ref != m.ref() || m.ignored != 0 || m.purged:
		return inbound.UnknownMessage
	case r.Confirm && !slices.Contains(r.Recipients, m.address):
		return inbound.OtherRecipient
	case r.Kind == inbound.OutOfBandBounce:
		return e.bouncedLate(m, r)
	case r.Kind == inbound.Complaint:
		return e.complained(m, r)
	case !m.mayHave():
		return inbound.UnknownMessage
	}
	u := m.link()
	u.Time, u.Text = r.Time, r.Text
	if e.left(m, u) {
		return inbound.Applied
	}
	return inbound.Repeated
}

func (e *engine) bouncedLate(m *message, r *inbound.Return) inbound.Effect {
	switch {
	case m.returned:
		return inbound.Repeated
	case m.outcome != mta.Delivered:
		return inbound.NotSent
	}
	m.returned, m.outcome, m.reason = true, mta.Bounced, int32(r.Verdict.Reason)
	if r.Verdict.Address != bounce.AddressNone {
		c := e.cause(m, address.FromOutOfBandBounce, r.Time)
		c.ReplyCode, c.Enhanced, c.Phase, c.Text = r.Reply.Code, r.Reply.Enhanced, r.Reply.Phase.String(), r.Text
		e.fail(m, c, &r.Verdict)
	}
	e.m.events = append(e.m.events, m.event(veredusv1.FeedbackType_FEEDBACK_TYPE_OUT_OF_BAND_BOUNCE, m.reason))
	return inbound.Applied
}

func (e *engine) complained(m *message, r *inbound.Return) inbound.Effect {
	switch {
	case m.complained:
		return inbound.Repeated
	case !m.mayHave():
		return inbound.UnknownMessage
	}
	c := e.cause(m, address.FromComplaint, r.Time)
	c.Text = r.Text
	k := address.Key{Folded: m.address, Scope: address.DefaultPolicy().ComplaintScope(m.delivery.tenant)}
	e.m.put(address.Complained(e.m.entry(k), c))
	m.complained, m.complainedAt = true, c.Destination
	e.m.events = append(e.m.events, m.event(veredusv1.FeedbackType_FEEDBACK_TYPE_COMPLAINT, 0))
	return inbound.Applied
}

// left is an unsubscribe from a list; m is nil when the message is gone.
func (e *engine) left(m *message, u address.Unsubscription) (applied bool) {
	folded := "x" + u.Address[1:]
	k := address.Key{Folded: folded, Scope: address.DefaultPolicy().UnsubscribeScope(u.Tenant, u.List)}
	old := e.m.entry(k)
	c := address.Cause{Address: u.Address, Origin: address.FromUnsubscribe}
	ev := event{kind: veredusv1.FeedbackType_FEEDBACK_TYPE_UNSUBSCRIBED, recipient: u.Address, destination: folded[len(folded)-6:]}
	if m != nil {
		c = e.cause(m, address.FromUnsubscribe, u.Time)
		ev = m.event(ev.kind, 0)
	} else if !slices.ContainsFunc(e.m.deliveries, func(d *delivery) bool { return d.id == u.Delivery && !d.purged }) {
		ev.delivery = "deliveries/" + u.Delivery
	}
	c.Time, c.Event, c.Text = u.Time, e.m.nextEvent(), u.Text
	n := address.Unsubscribed(old, c)
	if n.Status == old.Status && n.Origin == old.Origin && (m == nil || m.unsubscribed) {
		return false
	}
	e.m.put(n)
	if m != nil && !m.unsubscribed {
		m.unsubscribed, m.unsubscribedAt = true, c.Destination
	}
	e.m.events = append(e.m.events, ev)
	return true
}

// unsubscribe follows a link: of a message that is there, of one that is gone, or one of a
// delivery whose id another has by now.
func (e *engine) unsubscribe() error {
	m := e.anyMessage(func(m *message) bool { return m.ignored == 0 && m.delivery.state >= campaign.Running })
	var u address.Unsubscription
	switch n := len(e.m.removed); {
	case n > 0 && (m == nil || e.rng.IntN(3) == 0):
		m, u = nil, e.m.removed[e.rng.IntN(n)]
	case m == nil:
		return nil
	default:
		u = m.link()
		if m.purged {
			m = nil
		}
		if e.rng.IntN(4) == 0 {
			m, u.Address = nil, "Xsomebody@b.test"
		}
	}
	u.Time = e.m.now
	want := e.left(m, u)
	got, err := e.store.Unsubscribe(ctx(), u)
	if err != nil || got != want {
		return fmt.Errorf("unsubscribe %+v: applied %v (%v), want %v", u, got, err, want)
	}
	return nil
}
