package campaign

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/address"
	"github.com/veredus/veredus/mta/dispatch"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

func messageName(delivery string, id mta.MessageID) string {
	return deliveryName(delivery) + messagesPart + id.String()
}

// Status is the message's status under its delivery's feedback mode.
func (e *LogEntry) Status() veredusv1.LogStatus { return Status(e.Truth, e.Delivery.Mode()) }

// final reports whether the truth about a message does not change any more, but for
// bounces that come later.
func (t Truth) final() bool { return t == Sent || t == Failed || t == Ignored || t == CancelledMessage }

// API is the message as clients see it, with what holds it as far as the log knows.
func (e *LogEntry) API(now time.Time) *veredusv1.Message {
	m := e.identity()
	m.Status = e.Status()
	m.Reason = veredusv1.FailureReason(e.Reason)
	m.Type = veredusv1.FailureType(e.FailureType)
	m.BounceCode, m.Tag, m.ErrorText = e.BounceCode, e.Tag, e.Text
	m.UpdateTime = timestamp(e.Updated)
	m.Attempts, m.AttemptCount = e.Attempts, e.AttemptCount
	m.MessageId = e.MessageID
	if e.Destination != "" {
		m.Destination = e.Destination
	}
	m.WaitingFor = e.held(now)
	return m
}

// identity is what never changes about a message.
func (e *LogEntry) identity() *veredusv1.Message {
	return &veredusv1.Message{
		Name:        messageName(e.Delivery.ID, e.ID),
		Recipient:   e.Recipient,
		RecipientId: e.RecipientID,
		Metadata:    e.Metadata,
		Destination: e.Domain,
		ArrivalTime: timestamp(e.Arrival),
		ExpireTime:  timestamp(e.Expires),
		Tenant:      e.Delivery.tenant(),
	}
}

// arrived is a single message as it was when it arrived.
func (e *LogEntry) arrived() *veredusv1.Message {
	m := e.identity()
	m.UpdateTime = m.ArrivalTime
	m.Status = Status(InRelay, e.Delivery.Mode())
	if e.Truth == Ignored {
		m.Status, m.Reason = veredusv1.LogStatus_LOG_STATUS_IGNORED, veredusv1.FailureReason(e.Reason)
	}
	return m
}

// held is what holds a message, as far as its row and its delivery tell; nil when it
// is final, or when only the relay knows.
func (e *LogEntry) held(now time.Time) *veredusv1.WaitingFor {
	switch {
	case e.Truth.final():
		return nil
	case e.Truth == Pending:
		return &veredusv1.WaitingFor{Cause: veredusv1.WaitCause_WAIT_CAUSE_NOT_STARTED, Text: "the delivery was not started"}
	case e.Claimed:
		return nil
	case e.Delivery.State == Paused:
		return &veredusv1.WaitingFor{Cause: veredusv1.WaitCause_WAIT_CAUSE_PAUSED, Text: "the delivery is paused"}
	case e.Truth == Deferred && e.NextAttempt.After(now):
		return &veredusv1.WaitingFor{
			Cause: veredusv1.WaitCause_WAIT_CAUSE_RETRY_TIMER, NextAttemptTime: timestamp(e.NextAttempt),
			Text: "waits for its retry after: " + e.Text,
		}
	}
	return nil
}

// waitCauses names what the dispatch core knows as the API does.
var waitCauses = map[dispatch.Cause]veredusv1.WaitCause{
	dispatch.CauseNone:      veredusv1.WaitCause_WAIT_CAUSE_QUEUE,
	dispatch.CauseQueue:     veredusv1.WaitCause_WAIT_CAUSE_QUEUE,
	dispatch.CauseSlot:      veredusv1.WaitCause_WAIT_CAUSE_QUEUE,
	dispatch.CauseSource:    veredusv1.WaitCause_WAIT_CAUSE_QUEUE,
	dispatch.CauseRetry:     veredusv1.WaitCause_WAIT_CAUSE_QUEUE, // the others' retries; ours is due
	dispatch.CauseRest:      veredusv1.WaitCause_WAIT_CAUSE_PATH_REST,
	dispatch.CauseBackoff:   veredusv1.WaitCause_WAIT_CAUSE_PATH_REST,
	dispatch.CauseRate:      veredusv1.WaitCause_WAIT_CAUSE_RATE,
	dispatch.CauseSuspended: veredusv1.WaitCause_WAIT_CAUSE_SUSPENDED,
	dispatch.CausePaused:    veredusv1.WaitCause_WAIT_CAUSE_PAUSED,
	dispatch.CauseDNS:       veredusv1.WaitCause_WAIT_CAUSE_DNS,
	dispatch.CauseLearned:   veredusv1.WaitCause_WAIT_CAUSE_LEARNED_RATE,
	dispatch.CauseWarmUp:    veredusv1.WaitCause_WAIT_CAUSE_WARM_UP,
}

// waiting is what holds a message that is not final: what stops its delivery first,
// then its own retry timer, then what stops its domain's mail.
func waiting(e *LogEntry, wait dispatch.Wait, sending bool, now time.Time) *veredusv1.WaitingFor {
	own := e.held(now)
	switch {
	case sending:
		return &veredusv1.WaitingFor{Cause: veredusv1.WaitCause_WAIT_CAUSE_SENDING, Text: "it is being sent now"}
	case own.GetCause() == veredusv1.WaitCause_WAIT_CAUSE_NOT_STARTED, own.GetCause() == veredusv1.WaitCause_WAIT_CAUSE_PAUSED:
		return own
	case own != nil && wait.Cause != dispatch.CauseSuspended:
		return own
	}
	w := &veredusv1.WaitingFor{Cause: waitCauses[wait.Cause], Text: wait.Text}
	if !wait.Until.IsZero() && w.Cause != veredusv1.WaitCause_WAIT_CAUSE_QUEUE {
		until := wait.Until
		if e.NextAttempt.After(until) {
			until = e.NextAttempt
		}
		w.NextAttemptTime = timestamp(until)
	}
	if w.Text == "" {
		w.Text = waitTexts[w.Cause]
	}
	return w
}

// waitTexts say a cause where the core says nothing more.
var waitTexts = map[veredusv1.WaitCause]string{
	veredusv1.WaitCause_WAIT_CAUSE_QUEUE:     "waits for its turn",
	veredusv1.WaitCause_WAIT_CAUSE_PATH_REST: "the path rests",
	veredusv1.WaitCause_WAIT_CAUSE_RATE:      "the path is at the limit of its rate",
	veredusv1.WaitCause_WAIT_CAUSE_SUSPENDED: "suspended by an operator",
	veredusv1.WaitCause_WAIT_CAUSE_PAUSED:    "the delivery is paused",
	veredusv1.WaitCause_WAIT_CAUSE_DNS:       "the recipient's domain is being resolved",

	veredusv1.WaitCause_WAIT_CAUSE_WARM_UP:      "the sources it may go by are being warmed up",
	veredusv1.WaitCause_WAIT_CAUSE_LEARNED_RATE: "the path is at the pace learned from the receiver's replies",
}

// GetMessage gets a message with every attempt and what it waits for.
func (s *Service) GetMessage(ctx context.Context, r *veredusv1.GetMessageRequest) (*veredusv1.Message, error) {
	v := violations{}
	delivery, id := v.message("name", r.GetName())
	if err := v.err(); err != nil {
		return nil, err
	}
	e, err := s.o.Log.Message(ctx, delivery, id)
	if err != nil {
		return nil, named(err, r.GetName())
	}
	now := s.now()
	m := e.API(now)
	if e.Truth.final() {
		return m, nil
	}
	wait, sending, err := s.o.Relay.Waiting(ctx, id)
	switch {
	case errors.Is(err, mta.ErrStopped):
		m.WaitingFor = &veredusv1.WaitingFor{Text: "the relay has stopped"}
	case err != nil:
		return nil, err
	default:
		m.WaitingFor = waiting(e, wait, sending, now)
	}
	return m, nil
}

// ListMessages lists messages: the sending log.
func (s *Service) ListMessages(ctx context.Context, r *veredusv1.ListMessagesRequest) (*veredusv1.ListMessagesResponse, error) {
	v := violations{}
	by := v.lookup(r)
	size := v.page(r.GetPageSize())
	f := v.filter(r)
	q := query(veredusv1.CampaignService_ListMessages_FullMethodName, r)
	cursor := v.cursor(q, r.GetPageToken())
	if err := v.err(); err != nil {
		return nil, err
	}
	page, next, err := s.messages(ctx, by, cursor, size, f.takes)
	switch {
	case errors.Is(err, ErrBadCursor):
		return nil, invalid("page_token", r.GetPageToken(), "is no page token", "give next_page_token of the previous answer unchanged")
	case err != nil:
		return nil, named(err, r.GetParent())
	}
	now, answer := s.now(), &veredusv1.ListMessagesResponse{NextPageToken: pageToken(q, next)}
	for _, e := range page {
		answer.Messages = append(answer.Messages, e.API(now))
	}
	return answer, nil
}

// messages reads a page through the index that by names, or from the delivery's log.
func (s *Service) messages(ctx context.Context, by Lookup, cursor []byte, size int, keep func(*LogEntry) bool) ([]*LogEntry, []byte, error) {
	if by.Folded == "" && by.RecipientID == "" {
		return s.o.Log.Messages(ctx, by.Delivery, cursor, size, keep)
	}
	return s.o.Log.Find(ctx, by, cursor, size, keep)
}

// lookup checks where a list looks: in a delivery, or everywhere by address or id.
func (v *violations) lookup(r *veredusv1.ListMessagesRequest) Lookup {
	by := Lookup{RecipientID: r.GetRecipientId()}
	v.text("recipient_id", by.RecipientID, maxRecipientID)
	if r.GetParent() != "deliveries/-" {
		by.Delivery = v.delivery("parent", r.GetParent())
	} else if r.GetRecipient() == "" && r.GetRecipientId() == "" {
		v.add("parent", r.GetParent(), "needs a recipient or a recipient_id", "give one of them, or name a delivery")
	}
	if r.GetRecipient() == "" {
		return by
	}
	a, err := address.Parse(r.GetRecipient())
	if err != nil {
		v.address("recipient", r.GetRecipient())
		return by
	}
	// Looked up by address; an id beside it is a filter.
	by.Folded, by.RecipientID = a.Folded(), ""
	return by
}

// logFilter is what a list of messages shows.
type logFilter struct {
	status      veredusv1.LogStatus
	reason      *veredusv1.FailureReason
	destination string
	recipientID string
	since       time.Time
}

func (v *violations) filter(r *veredusv1.ListMessagesRequest) logFilter {
	if _, known := veredusv1.LogStatus_name[int32(r.GetStatus())]; !known {
		v.add("status", fmt.Sprint(int32(r.GetStatus())), "is no status", "use a LOG_STATUS, or leave it unspecified for all")
	}
	if _, known := veredusv1.FailureReason_name[int32(r.GetReason())]; !known {
		v.add("reason", fmt.Sprint(int32(r.GetReason())), "is no reason", "use a FAILURE_REASON, or leave it unset for all")
	}
	v.text("destination", r.GetDestination(), address.MaxDomain)
	return logFilter{
		status: r.GetStatus(), reason: r.Reason, destination: r.GetDestination(),
		recipientID: r.GetRecipientId(), since: v.time("updated_since", r.GetUpdatedSince()),
	}
}

func (f *logFilter) takes(e *LogEntry) bool {
	return (f.status == 0 || e.Status() == f.status) &&
		(f.reason == nil || e.Reason == int32(*f.reason) && e.failed()) &&
		(f.destination == "" || e.Destination == f.destination) &&
		(f.recipientID == "" || e.RecipientID == f.recipientID) &&
		!e.Updated.Before(f.since)
}

// failed reports whether an attempt failed, or the message was excluded: whether it
// has a reason, which may be "not defined".
func (e *LogEntry) failed() bool {
	return e.Reason != 0 || e.FailureType != 0 || e.BounceCode != 0 || e.Truth == Failed
}

// ListRejectedRecipients lists recipients refused as malformed, in index order.
func (s *Service) ListRejectedRecipients(ctx context.Context, r *veredusv1.ListRejectedRecipientsRequest) (*veredusv1.ListRejectedRecipientsResponse, error) {
	v := violations{}
	id := v.delivery("parent", r.GetParent())
	size := v.page(r.GetPageSize())
	q := query(veredusv1.CampaignService_ListRejectedRecipients_FullMethodName, r)
	after := v.number(v.cursor(q, r.GetPageToken()))
	if err := v.err(); err != nil {
		return nil, err
	}
	list, err := s.o.Recipients.Rejected(ctx, id, int64(after), size+1)
	if err != nil {
		return nil, named(err, r.GetParent())
	}
	answer := &veredusv1.ListRejectedRecipientsResponse{RejectedRecipients: list}
	if len(list) > size {
		answer.RejectedRecipients = list[:size]
		answer.NextPageToken = pageToken(q, number(uint64(list[size-1].GetIndex())))
	}
	return answer, nil
}
