package pebblestore

import (
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
)

// maxText is the longest text of a reply kept, in octets.
const maxText = 2 << 10

// eventLog is the place of the log's ends.
type eventLog struct {
	applied uint64 // next sequence number, of the applier alone
	tail    tail

	mu     sync.Mutex
	oldest uint64 // first event kept
	next   uint64 // behind the last durable event
	grown  chan struct{}
}

// publish makes events readable, which are durable: those before next.
func (l *eventLog) publish(records []feedback.Record, next uint64) {
	l.tail.add(records, next)
	l.mu.Lock()
	defer l.mu.Unlock()
	if next > l.next {
		l.next = next
		close(l.grown)
		l.grown = make(chan struct{})
	}
}

// loadEvents finds the ends of the log.
func (s *Store) loadEvents() error {
	oldest, err := s.readNumber(metaOldest)
	if err != nil {
		return err
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: eventKey(oldest), UpperBound: after([]byte{tableEvent})})
	if err != nil {
		return fmt.Errorf("pebblestore: reading: %w", err)
	}
	defer it.Close()
	end := oldest
	if it.Last() {
		end = be64(it.Key()[3:]) + 1
	}
	s.events.applied, s.events.oldest, s.events.next = end, oldest, end
	s.events.grown = make(chan struct{})
	return it.Error()
}

// Ends are the oldest position that can be read and the one behind the last durable event.
func (s *Store) Ends() (oldest, next feedback.Positions) {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	return feedback.Positions{s.events.oldest}, feedback.Positions{s.events.next}
}

// Grown returns a channel that is closed when the log grows past the position; it
// is closed already when it has.
func (s *Store) Grown(past feedback.Positions) <-chan struct{} {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	if len(past) == 1 && s.events.next <= past[0] {
		return s.events.grown
	}
	c := make(chan struct{})
	close(c)
	return c
}

// Records reads events from a position on, up to the one that reaches size octets, and
// where to go on.
func (s *Store) Records(ctx context.Context, from feedback.Positions, size int) ([]feedback.Record, feedback.Positions, error) {
	return s.records(ctx, from, budget{events: math.MaxInt, octets: size})
}

// Read reads up to limit events from a position on, decoded, and where to go on.
func (s *Store) Read(ctx context.Context, from feedback.Positions, limit int) ([]*veredusv1.FeedbackEvent, feedback.Positions, error) {
	records, next, err := s.records(ctx, from, budget{events: limit, octets: math.MaxInt})
	if err != nil {
		return nil, nil, err
	}
	events := make([]*veredusv1.FeedbackEvent, len(records))
	for i := range records {
		if events[i], err = records[i].Event(); err != nil {
			return nil, nil, corrupt(err)
		}
	}
	return events, next, nil
}

func (s *Store) records(ctx context.Context, from feedback.Positions, b budget) ([]feedback.Record, feedback.Positions, error) {
	if len(from) != 1 {
		return nil, nil, fmt.Errorf("%d shards, this store has 1: %w", len(from), feedback.ErrPastEnd)
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	at := from[0]
	oldest, next := s.Ends()
	switch {
	case at < oldest[0]:
		return nil, nil, fmt.Errorf("position %d, oldest kept %d: %w", at, oldest[0], feedback.ErrBeforeRetention)
	case at > next[0]:
		return nil, nil, fmt.Errorf("position %d, end %d: %w", at, next[0], feedback.ErrPastEnd)
	case at == next[0] || b.events <= 0 || b.octets <= 0:
		return nil, feedback.Positions{at}, nil
	}
	if records, ok := s.events.tail.read(at, next[0], b); ok {
		return records, feedback.Positions{at + uint64(len(records))}, nil
	}
	records, err := s.readEvents(at, next[0], b)
	if err == nil && len(records) == 0 { // trimmed meanwhile
		err = fmt.Errorf("position %d: %w", at, feedback.ErrBeforeRetention)
	}
	if err != nil {
		return nil, nil, err
	}
	return records, feedback.Positions{at + uint64(len(records))}, nil
}

// eventID names an event: the store and the event's place in its log.
func (s *Store) eventID(sequence uint64) string {
	return hex.EncodeToString(s.id[:6]) + "-" + strconv.FormatUint(sequence, 36)
}

// Trim removes the events before a position. Positions before it answer
// feedback.ErrBeforeRetention from then on.
func (s *Store) Trim(ctx context.Context, before feedback.Positions) error {
	if len(before) != 1 {
		return fmt.Errorf("pebblestore: %d shards, this store has 1", len(before))
	}
	s.events.mu.Lock()
	oldest := s.events.oldest
	upTo := min(before[0], s.events.next)
	s.events.mu.Unlock()
	if upTo <= oldest {
		return nil
	}
	err := s.submit(ctx, func(t *txn) error {
		t.keep(t.batch.DeleteRange(eventKey(0), eventKey(upTo), nil))
		t.set(metaOldest, number64(upTo))
		return nil
	})
	if err != nil {
		return err
	}
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	s.events.oldest = max(s.events.oldest, upTo)
	return nil
}

// event appends to the log.
func (t *txn) event(e *veredusv1.FeedbackEvent) {
	row, err := proto.MarshalOptions{}.MarshalAppend(t.row[:0], e)
	t.keep(err)
	t.row = row
	t.set(eventKey(t.nextEvent), row)
	t.told = append(t.told, feedback.NewRecord(e, t.s.eventID(t.nextEvent), row))
	t.nextEvent++
}

// deliveryEvent appends an event about a delivery.
func (t *txn) deliveryEvent(w *work, e campaign.Event, at time.Time) {
	t.event(&veredusv1.FeedbackEvent{
		Time: timestamp(at), Type: e.Type, Tenant: w.tenantName(), Delivery: w.name(),
		Count: e.Count, Text: capText(e.Text), Label: validText(w.state.Spec.GetLabel()),
	})
}

func (w *work) name() string { return "deliveries/" + w.state.ID }

func (w *work) tenantName() string {
	if n := w.state.Spec.GetTenant(); n != "" {
		return n
	}
	return campaign.DefaultTenant
}

var relayEvents = map[mta.RelayEventKind]veredusv1.FeedbackType{
	mta.PathThrottledEvent: veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_THROTTLED,
	mta.PathSuspendedEvent: veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_SUSPENDED,
	mta.PathResumedEvent:   veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_RESUMED,
	mta.RuleChangedEvent:   veredusv1.FeedbackType_FEEDBACK_TYPE_RULE_CHANGED,
	mta.PathRaisedEvent:    veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_RAISED,
	mta.PathWarmUpEvent:    veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_WARM_UP,
}

// relayEvent appends an event about a path or the rules; Until is its next attempt.
func (t *txn) relayEvent(e *mta.RelayEvent) {
	t.pathEvent(e.Source, e.Destination)
	t.event(&veredusv1.FeedbackEvent{
		Time: timestamp(e.Time), Type: relayEvents[e.Kind],
		Source: validText(e.Source), Destination: validText(e.Destination), Text: capText(e.Text),
		NextAttemptTime: timestamp(e.Until), Principal: validText(e.By),
	})
}

var outcomeEvents = map[mta.Outcome]veredusv1.FeedbackType{
	mta.Delivered:  veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED,
	mta.Deferred:   veredusv1.FeedbackType_FEEDBACK_TYPE_DEFERRED,
	mta.Bounced:    veredusv1.FeedbackType_FEEDBACK_TYPE_BOUNCED,
	mta.Expired:    veredusv1.FeedbackType_FEEDBACK_TYPE_EXPIRED,
	mta.Suppressed: veredusv1.FeedbackType_FEEDBACK_TYPE_SUPPRESSED,
}

var dispositions = [...]veredusv1.Disposition{
	veredusv1.Disposition_DISPOSITION_DELIVERED, veredusv1.Disposition_DISPOSITION_FINAL,
	veredusv1.Disposition_DISPOSITION_RETRY, veredusv1.Disposition_DISPOSITION_RETRY_SOON,
}

// disposition is what a settlement meant for its message.
func disposition(s *mta.Settlement) veredusv1.Disposition {
	switch {
	case s.Outcome == mta.Delivered:
		return veredusv1.Disposition_DISPOSITION_DELIVERED
	case s.Outcome != mta.Deferred:
		return veredusv1.Disposition_DISPOSITION_FINAL
	case int(s.Verdict.Disposition) < len(dispositions) && s.Verdict.WillRetry():
		return dispositions[s.Verdict.Disposition]
	}
	return veredusv1.Disposition_DISPOSITION_RETRY
}

// settled appends the event of a settlement. Without an attempt it tells the last
// reply that the message got before.
func (t *txn) settled(w *work, s *mta.Settlement, willRetry bool) error {
	m, v := s.Message, &s.Verdict
	metadata, err := decodeMetadata(m.Metadata)
	if err != nil {
		return err
	}
	reply := m.State.LastReply
	e := &veredusv1.FeedbackEvent{
		Time: timestamp(s.Time), Type: outcomeEvents[s.Outcome],
		Tenant: w.tenantName(), Delivery: w.name(), Message: w.messageName(m.ID),
		RecipientId: validText(m.RecipientID), Metadata: metadata, Recipient: validText(m.Recipient),
		Destination: validText(s.Destination), Attempt: int32(m.State.Attempts),
		Disposition: disposition(s), WillRetry: willRetry,
		BounceCode: int32(v.Code), Tag: validText(v.Tag), Rule: validText(v.Rule), Category: validText(v.Category),
		FailureType: veredusv1.FailureType(v.Type), Reason: veredusv1.FailureReason(v.Reason),
		QueueTime: durationpb.New(s.Time.Sub(m.Arrival)), MessageId: validText(s.MessageID), DeliveryUncertain: s.Uncertain,
	}
	if willRetry {
		e.NextAttemptTime = timestamp(s.Next)
	}
	if a := s.Attempt; a != nil {
		reply = a.Reply
		e.Attempt, e.Source = int32(a.Number), validText(a.Source)
		e.RemoteHost, e.RemoteAddress = validText(a.RemoteHost), validText(a.RemoteAddress)
		e.TlsVersion, e.DeliveryUncertain = validText(a.TLSVersion), a.Uncertain
	}
	if reply.Phase != 0 {
		e.Phase = reply.Phase.String()
	}
	e.ReplyCode, e.EnhancedCode = int32(reply.Code), validText(reply.Enhanced)
	if e.Text = capText(s.Text); e.Text == "" {
		e.Text = capText(reply.Text)
	}
	t.event(e)
	return nil
}

func (w *work) messageName(id mta.MessageID) string { return w.name() + "/messages/" + id.String() }

// attemptRow renders an attempt for the sending log.
func attemptRow(s *mta.Settlement) ([]byte, error) {
	a := s.Attempt
	return proto.Marshal(&veredusv1.Attempt{
		Number: int32(a.Number), Time: timestamp(a.Time), Source: validText(a.Source),
		RemoteHost: validText(a.RemoteHost), RemoteAddress: validText(a.RemoteAddress),
		Phase: a.Reply.Phase.String(), ReplyCode: int32(a.Reply.Code), EnhancedCode: validText(a.Reply.Enhanced),
		Text: capText(a.Reply.Text), TlsVersion: validText(a.TLSVersion), Disposition: disposition(s),
		BounceCode: int32(s.Verdict.Code), Tag: validText(s.Verdict.Tag), Rule: validText(s.Verdict.Rule),
		DeliveryUncertain: a.Uncertain, Duration: durationpb.New(a.Duration),
	})
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// capText makes a remote server's text fit for a proto string: valid UTF-8 of at most maxText octets.
func capText(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
		for i := len(s) - 1; i >= len(s)-utf8.UTFMax; i-- {
			if utf8.RuneStart(s[i]) {
				if !utf8.FullRuneInString(s[i:]) {
					s = s[:i]
				}
				break
			}
		}
	}
	s = validText(s)
	if len(s) > maxText { // replacing grew it
		return capText(s)
	}
	return s
}

// validText replaces what is not UTF-8, which proto strings refuse.
func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
