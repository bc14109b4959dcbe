package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/veredus/veredus/mta"
	mailaddress "github.com/veredus/veredus/mta/address"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/inbound"
	"github.com/veredus/veredus/mta/returnpath"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
)

// landing is how long a Return waits for the message's own settlement: a bounce mail can
// come back sooner than the reply to the message is on the disk.
const landing = 10 * time.Second

// The returns that a message had, as bits of its row in tableReturned.
const (
	hadBounce = 1 << iota
	hadComplaint
	hadUnsubscribe
)

// Return applies what came back about a message: log, counters, event and address
// entry in one write. A message that is being sent at this moment is waited for, up to
// 10 seconds, since what happened to it is not known yet.
func (s *Store) Return(ctx context.Context, r inbound.Return) (effect inbound.Effect, err error) {
	if r.Kind != inbound.Unsubscribe {
		if err := s.awaitLanding(ctx, messageOf(r.Ref)); err != nil {
			return 0, err
		}
	}
	err = s.submit(ctx, func(t *txn) error {
		if r.Time.IsZero() {
			r.Time = t.now
		}
		effect, err = t.takeReturn(&r)
		return err
	})
	return effect, err
}

func messageOf(ref returnpath.Ref) mta.MessageID {
	return mta.MessageID{Handover: ref.Handover, Domain: ref.Domain, Lane: ref.Lane, Order: ref.Order}
}

// awaitLanding waits while a message is claimed, for a bounded time.
func (s *Store) awaitLanding(ctx context.Context, id mta.MessageID) error {
	d, err := s.viewHandover(id.Handover)
	if err != nil || d == nil {
		return err
	}
	timeout := time.NewTimer(landing)
	defer timeout.Stop()
	for {
		changed := s.Changed(d.ID)
		s.mu.RLock()
		c := s.claims[id]
		s.mu.RUnlock()
		if c == nil {
			return nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// returned is a message about which something came back.
type returned struct {
	w    *work
	id   mta.MessageID
	rec  recipient
	row  *logRow // nil: never settled
	had  uint64
	last *veredusv1.Attempt // nil: never attempted
}

func (t *txn) takeReturn(r *inbound.Return) (inbound.Effect, error) {
	w, err := t.byHandover(r.Ref.Handover)
	if err != nil || w == nil || w.state.No != r.Ref.Delivery {
		return inbound.UnknownMessage, err
	}
	m, err := t.returned(w, messageOf(r.Ref))
	switch {
	case err != nil || m == nil:
		return inbound.UnknownMessage, err
	case r.Confirm && !slices.ContainsFunc(r.Recipients, m.isTo):
		return inbound.OtherRecipient, nil
	}
	switch r.Kind {
	case inbound.OutOfBandBounce:
		return t.bouncedLate(m, r)
	case inbound.Complaint:
		return t.complained(m, r)
	case inbound.Unsubscribe:
		return t.leftByMail(m, r)
	}
	return inbound.UnknownMessage, nil
}

// returned finds a message that may be returned; nil when it does not exist any more or
// was ignored.
func (t *txn) returned(w *work, id mta.MessageID) (*returned, error) {
	if id.Domain == ignoredDomain || !w.state.purged.IsZero() {
		return nil, nil
	}
	scope := w.state.scope()
	row, err := t.s.get(scope.message(tableRecipient, id))
	if err != nil || row == nil {
		return nil, err
	}
	m := &returned{w: w, id: id}
	if m.rec, err = decodeRecipient(row); err != nil {
		return nil, err
	}
	if m.row, err = t.logOf(id); err != nil {
		return nil, err
	}
	had, err := t.s.get(scope.message(tableReturned, id))
	if err != nil {
		return nil, err
	}
	m.had, _ = binary.Uvarint(had)
	return m, m.readLast()
}

func (m *returned) readLast() error {
	if m.row == nil || len(m.row.attempts) == 0 {
		return nil
	}
	m.last = &veredusv1.Attempt{}
	if err := proto.Unmarshal(m.row.attempts[len(m.row.attempts)-1], m.last); err != nil {
		return corrupt(err)
	}
	return nil
}

// isTo reports whether an address that a mail names is the message's.
func (m *returned) isTo(recipient string) bool {
	if a, err := mailaddress.Parse(recipient); err == nil {
		return a.Folded() == m.rec.folded
	}
	return strings.ToLower(recipient) == m.rec.folded
}

// mayHave reports whether the recipient may have the message: it was delivered, it is
// with the receiver right now, or nobody knows how an attempt ended. What failed for
// good after an attempt counts too: some receivers refuse and deliver.
func (t *txn) mayHave(m *returned) bool {
	if t.claimOf(m.id) != nil {
		return true
	}
	return m.row != nil && (m.row.state.LostClaims > 0 || m.last != nil && (m.row.status.final() || m.last.GetDeliveryUncertain()))
}

// destination is where the message went.
func (m *returned) destination() string {
	if m.row != nil && m.row.destination != "" {
		return m.row.destination
	}
	return m.rec.domain
}

// markReturned remembers that the message had a return of a kind.
func (t *txn) markReturned(m *returned, bit uint64) {
	m.had |= bit
	t.set(m.w.state.scope().message(tableReturned, m.id), binary.AppendUvarint(nil, m.had))
}

// event is an event about a returned message with what all kinds have.
func (m *returned) event(kind veredusv1.FeedbackType, at time.Time, text string) (*veredusv1.FeedbackEvent, error) {
	metadata, err := decodeMetadata(m.rec.metadata)
	if err != nil {
		return nil, err
	}
	arrival := m.w.state.Started
	if m.w.state.Transactional {
		arrival = m.rec.arrival
	}
	e := &veredusv1.FeedbackEvent{
		Time: timestamp(at), Type: kind, Tenant: m.w.tenantName(), Delivery: m.w.name(), Message: m.w.messageName(m.id),
		RecipientId: validText(m.rec.recipientID), Metadata: metadata, Recipient: validText(m.rec.address),
		Destination: validText(m.destination()), Source: m.last.GetSource(),
		QueueTime: durationpb.New(at.Sub(arrival)), Text: capText(text),
	}
	if m.row != nil {
		e.Attempt, e.MessageId = int32(m.row.state.Attempts), validText(m.row.messageID)
	}
	return e, nil
}

// bouncedLate turns a delivered message into a failed one.
func (t *txn) bouncedLate(m *returned, r *inbound.Return) (inbound.Effect, error) {
	switch {
	case m.had&hadBounce != 0:
		return inbound.Repeated, nil
	case m.row == nil || m.row.status != logDelivered:
		return inbound.NotSent, nil
	}
	verdict := r.Verdict
	text := r.Text
	if text == "" {
		text = r.Reply.Text
	}
	if verdict.Address != bounce.AddressNone {
		c := t.failure(m.w.messageName(m.id), &verdict, r.Reply)
		c.Text = capEvidence(text)
		c.Time, c.Address, c.Origin, c.Destination = r.Time, m.rec.address, address.FromOutOfBandBounce, m.destination()
		c.Provisional = t.s.surge.On(r.Time, c.Destination)
		overridden, err := t.failed(m.w, m.rec.content, &c)
		if err != nil {
			return 0, err
		}
		if overridden {
			verdict = errorIgnored(verdict)
		}
	}
	e, err := m.event(veredusv1.FeedbackType_FEEDBACK_TYPE_OUT_OF_BAND_BOUNCE, r.Time, text)
	if err != nil {
		return 0, err
	}
	t.failLate(m, verdict, r.Time, text)
	tellBounce(e, &verdict, r)
	t.event(e)
	t.markReturned(m, hadBounce)
	return inbound.Applied, nil
}

// failLate moves counters and log from Sent to Failed.
func (t *txn) failLate(m *returned, v bounce.Verdict, at time.Time, text string) {
	reason := int32(v.Reason)
	c, d := t.counters(m.w), t.destination(m.w, m.destination())
	c.Sent--
	d.Sent--
	c.Failed++
	d.Failed++
	c.FailedBy[reason]++
	d.FailedBy[reason]++
	m.row.status, m.row.updated, m.row.text, m.row.verdict = logBounced, at, capText(text), v
	t.putLog(m.w, m.id, m.row)
}

// tellBounce adds what an out-of-band bounce said.
func tellBounce(e *veredusv1.FeedbackEvent, v *bounce.Verdict, r *inbound.Return) {
	e.RemoteHost, e.ReplyCode, e.EnhancedCode = validText(r.RemoteMTA), int32(r.Reply.Code), validText(r.Reply.Enhanced)
	if r.Reply.Phase != 0 {
		e.Phase = r.Reply.Phase.String()
	}
	e.Disposition = veredusv1.Disposition_DISPOSITION_FINAL
	e.BounceCode, e.Tag, e.Rule, e.Category = int32(v.Code), validText(v.Tag), validText(v.Rule), validText(v.Category)
	e.FailureType, e.Reason = veredusv1.FailureType(v.Type), veredusv1.FailureReason(v.Reason)
}

// complained counts a complaint and denylists its address. The message stays what it is.
func (t *txn) complained(m *returned, r *inbound.Return) (inbound.Effect, error) {
	switch {
	case m.had&hadComplaint != 0:
		return inbound.Repeated, nil
	case !t.mayHave(m):
		return inbound.UnknownMessage, nil
	}
	scope := t.s.opts.Policy().ComplaintScope(m.w.tenantName())
	e, err := t.entry(address.Key{Folded: m.rec.folded, Scope: scope})
	if err != nil {
		return 0, err
	}
	t.putEntry(e, address.Complained(e.entry, t.wish(m, address.FromComplaint, r.Time, r.Text)))
	t.counters(m.w).Complaints++
	t.destination(m.w, m.destination()).Complaints++
	ev, err := m.event(veredusv1.FeedbackType_FEEDBACK_TYPE_COMPLAINT, r.Time, r.Text)
	if err != nil {
		return 0, err
	}
	ev.RemoteHost = validText(r.RemoteMTA)
	t.event(ev)
	t.markReturned(m, hadComplaint)
	return inbound.Applied, nil
}

// wish is what the recipient of a message wants, with the event written next as evidence.
func (t *txn) wish(m *returned, origin address.Origin, at time.Time, text string) address.Cause {
	c := address.Cause{Address: m.rec.address, Origin: origin}
	c.Time, c.Event, c.Text = at, t.s.eventID(t.nextEvent), capEvidence(text)
	c.Message, c.Destination = m.w.messageName(m.id), m.destination()
	return c
}

// leftByMail is an unsubscribe mail about a message.
func (t *txn) leftByMail(m *returned, r *inbound.Return) (inbound.Effect, error) {
	if !t.mayHave(m) {
		return inbound.UnknownMessage, nil
	}
	list, err := t.listOf(m.w, m.rec.content)
	if err != nil {
		return 0, err
	}
	scope := t.s.opts.Policy().UnsubscribeScope(m.w.tenantName(), list)
	applied, err := t.unsubscribe(m, scope, r.Time, r.Text)
	if err != nil || applied {
		return inbound.Applied, err
	}
	return inbound.Repeated, nil
}

// unsubscribe takes the recipient of a message out of a scope, counted and told once for
// the message. Once more when an operator had let the address back in since.
func (t *txn) unsubscribe(m *returned, scope address.Scope, at time.Time, text string) (applied bool, err error) {
	first := m.had&hadUnsubscribe == 0
	key := address.Key{Folded: m.rec.folded, Scope: scope}
	applied, err = t.optOut(key, t.wish(m, address.FromUnsubscribe, at, text), first)
	if err != nil || !applied {
		return false, err
	}
	if first {
		t.counters(m.w).Unsubs++
		t.destination(m.w, m.destination()).Unsubs++
		t.markReturned(m, hadUnsubscribe)
	}
	e, err := m.event(veredusv1.FeedbackType_FEEDBACK_TYPE_UNSUBSCRIBED, at, text)
	if err == nil {
		t.event(e)
	}
	return true, err
}

// optOut enters an unsubscribe. Unless always it is passed over when the entry says so already.
func (t *txn) optOut(key address.Key, c address.Cause, always bool) (applied bool, err error) {
	e, err := t.entry(key)
	if err != nil {
		return false, err
	}
	n := address.Unsubscribed(e.entry, c)
	if !always && n.Status == e.entry.Status && n.Origin == e.entry.Origin {
		return false, nil
	}
	t.putEntry(e, n)
	return true, nil
}

// Unsubscribe takes an address off a list. Where the message that carried the link still
// exists and is to that address, it is counted and told there, once. Else the
// event has no message: it names tenant, recipient and the delivery, the latter
// unless another delivery has that id by now.
func (s *Store) Unsubscribe(ctx context.Context, u address.Unsubscription) (applied bool, err error) {
	if u.Tenant == "" {
		u.Tenant = campaign.DefaultTenant
	}
	key := address.Key{Folded: foldedOf(u.Address), Scope: s.opts.Policy().UnsubscribeScope(u.Tenant, u.List)}
	if err := checkKey(&key); err != nil {
		return false, err
	}
	err = s.submit(ctx, func(t *txn) error {
		if u.Time.IsZero() {
			u.Time = t.now
		}
		w, err := t.byID(u.Delivery)
		if err != nil && !errors.Is(err, campaign.ErrNotFound) {
			return err
		}
		m, err := t.linked(w, key.Folded, &u)
		switch {
		case err != nil:
			return err
		case m != nil:
			applied, err = t.unsubscribe(m, key.Scope, u.Time, u.Text)
		default:
			applied, err = t.leaveList(key, &u, w == nil || !w.state.purged.IsZero())
		}
		return err
	})
	return applied, err
}

// linked is the message that an unsubscribe names, if it exists and is the address's.
func (t *txn) linked(w *work, folded string, u *address.Unsubscription) (*returned, error) {
	id, err := mta.ParseMessageID(u.Message)
	if w == nil || err != nil || w.tenantName() != u.Tenant {
		return nil, nil
	}
	if of, err := t.byHandover(id.Handover); err != nil || of != w {
		return nil, err
	}
	m, err := t.returned(w, id)
	if err != nil || m == nil || m.rec.folded != folded {
		return nil, err
	}
	return m, nil
}

// leaveList is an unsubscribe whose message is gone; so is its delivery, or not.
func (t *txn) leaveList(key address.Key, u *address.Unsubscription, gone bool) (applied bool, err error) {
	c := address.Cause{Address: u.Address, Origin: address.FromUnsubscribe}
	c.Time, c.Event, c.Text = u.Time, t.s.eventID(t.nextEvent), capEvidence(u.Text)
	if applied, err = t.optOut(key, c, false); err != nil || !applied {
		return false, err
	}
	e := &veredusv1.FeedbackEvent{
		Time: timestamp(u.Time), Type: veredusv1.FeedbackType_FEEDBACK_TYPE_UNSUBSCRIBED, Tenant: validText(u.Tenant),
		Recipient: validText(u.Address), Destination: validText(domainOf(key.Folded)), Text: capText(u.Text),
	}
	if gone && u.Delivery != "" {
		e.Delivery = validText("deliveries/" + u.Delivery)
	}
	t.event(e)
	return true, nil
}
