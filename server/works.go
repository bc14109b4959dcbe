package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/operator"
)

// queueRelay is what work on waiting mail asks of the relay; *mta.Relay does it.
type queueRelay interface {
	CountWaiting(ctx context.Context, q mta.Queue, retries bool) (mta.Picked, error)
	HasMail(ctx context.Context, q mta.Queue) (bool, error)
	MailOf(ctx context.Context, q mta.Queue) ([]mta.Handover, error)
	DestinationsOf(ctx context.Context, q mta.Queue, most int) ([]string, error)
	RetryNow(ctx context.Context, q mta.Queue, order mta.Order) (mta.Picked, error)
	FailWaiting(ctx context.Context, q mta.Queue, order mta.Order, reason string) (mta.Picked, error)
	MoveRuns(ctx context.Context, q mta.Queue, order mta.Order, pool string) (mta.Picked, error)
}

// maxWorks is how many pieces of work may be under way at a time.
const maxWorks = 4

// works carries out what operators order of waiting mail. Work is durable before it
// begins; it goes on when its caller has gone, and a restart takes it up again. Safe
// for concurrent use.
type works struct {
	store  operator.Orders
	relay  queueRelay
	number func(ctx context.Context, delivery string) (uint64, error) // campaign.ErrNotFound when it is gone
	move   func(ctx context.Context, delivery, pool string) error     // changes a delivery's pool
	now    func() time.Time
	log    *slog.Logger

	ctx     context.Context // of the work; ends with stop
	end     context.CancelFunc
	ongoing sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	running map[string]*working // by id of the work
}

// working is work under way. answer and err are set once done is closed.
type working struct {
	work   operator.Work
	done   chan struct{}
	answer *veredusv1.RetryNowResponse
	err    error
}

// start takes up what the process before began.
func (s *works) start(ctx context.Context) error {
	s.ctx, s.end = context.WithCancel(context.Background())
	s.running = map[string]*working{}
	list, err := s.store.Works(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range list {
		s.log.Info("work on waiting mail goes on", "work", w.ID, "kind", w.Kind.String(), "changed", w.Count)
		s.launch(w)
	}
	return nil
}

// stop breaks work off and waits for that. The next start takes it up again.
func (s *works) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	if s.end != nil {
		s.end()
		s.ongoing.Wait()
	}
}

// errBusy says that there is too much work.
var errBusy = &campaign.OverloadedError{What: "changes of waiting mail under way", RetryAfter: 10 * time.Second}

// do carries work out and waits for its end, or that of ctx. The same request again
// answers the same, or waits for the work under way.
func (s *works) do(ctx context.Context, w operator.Work, req operator.Request) (*veredusv1.RetryNowResponse, error) {
	r, answer, err := s.begin(ctx, w, req)
	if err != nil || answer != nil {
		return answer, err
	}
	select {
	case <-r.done:
		return r.answer, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// begin makes work durable and launches it; the answer is that of a request made before.
func (s *works) begin(ctx context.Context, w operator.Work, req operator.Request) (*working, *veredusv1.RetryNowResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.running {
		if req.ID != "" && r.work.Request == req {
			return r, nil, nil
		}
	}
	switch {
	case s.stopped:
		return nil, nil, errStopping
	case len(s.running) >= maxWorks:
		return nil, nil, errBusy
	}
	w.Request = req
	before, found, err := s.store.BeginWork(ctx, w, req)
	if err != nil {
		return nil, nil, err
	}
	if found {
		answer, err := decodeAnswer(before)
		return nil, answer, err
	}
	return s.launch(w), nil, nil
}

// launch begins work that is durable. s.mu is held.
func (s *works) launch(w operator.Work) *working {
	r := &working{work: w, done: make(chan struct{})}
	s.running[w.ID] = r
	s.ongoing.Go(func() {
		r.answer, r.err = s.carryOut(s.ctx, w)
		s.mu.Lock()
		delete(s.running, w.ID)
		s.mu.Unlock()
		close(r.done)
	})
	return r
}

// carryOut does work and ends it. Work that fails stays for the next start.
func (s *works) carryOut(ctx context.Context, w operator.Work) (*veredusv1.RetryNowResponse, error) {
	picked, err := s.change(ctx, &w)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, errStopping
	case err != nil:
		s.log.Error("work on waiting mail failed; the next start takes it up again", "work", w.ID, "kind", w.Kind.String(), "error", err)
		return nil, err
	}
	answer := &veredusv1.RetryNowResponse{Sample: samples(picked.Sample)}
	ended, err := s.store.EndWork(ctx, w.ID, func(w operator.Work) (operator.Event, []byte) {
		answer.Count = w.Count
		return queueEvent(&w, s.now()), encodeAnswer(answer)
	})
	if err != nil {
		if ctx.Err() != nil {
			err = errStopping
		}
		return nil, err
	}
	s.log.Info("waiting mail changed", "work", ended.ID, "kind", ended.Kind.String(), "mail", queueWords(&ended.Queue), "count", ended.Count, "reason", ended.Reason, "by", ended.By)
	return answer, nil
}

// change does what the work asks for.
func (s *works) change(ctx context.Context, w *operator.Work) (mta.Picked, error) {
	q, err := s.queue(ctx, &w.Queue)
	if errors.Is(err, campaign.ErrNotFound) {
		return mta.Picked{}, nil // deleted since
	}
	if err != nil {
		return mta.Picked{}, err
	}
	order := mta.Order{ID: w.ID, Began: w.Created}
	switch w.Kind {
	case operator.Retry:
		return s.relay.RetryNow(ctx, q, order)
	case operator.Fail:
		return s.relay.FailWaiting(ctx, q, order, w.Reason)
	case operator.Move:
		if partial(q) {
			return s.relay.MoveRuns(ctx, q, order, w.Pool)
		}
		return s.moveAll(ctx, q, w.Pool)
	}
	return mta.Picked{}, fmt.Errorf("work %s of kind %d is not known to this version", w.ID, w.Kind)
}

// queue is a queue as the relay takes it.
func (s *works) queue(ctx context.Context, q *operator.Queue) (out mta.Queue, err error) {
	out = mta.Queue{Tenant: q.Tenant, Destination: q.Destination, Source: q.Source, Arrived: q.Arrived}
	if q.Delivery != "" {
		out.Delivery, err = s.number(ctx, q.Delivery)
	}
	return out, err
}

// partial reports whether a queue chooses parts of deliveries: then their mail moves, and
// not the deliveries.
func partial(q mta.Queue) bool { return q.Destination != "" || q.Source != "" || !q.Arrived.IsZero() }

// moveAll changes the pool of every delivery that the queue chooses and that has another.
func (s *works) moveAll(ctx context.Context, q mta.Queue, pool string) (mta.Picked, error) {
	picked, list, err := s.movable(ctx, q, pool)
	for i := 0; i < len(list) && err == nil; i++ {
		err = s.move(ctx, list[i].DeliveryID, pool)
		var state *campaign.StateError
		if errors.As(err, &state) || errors.Is(err, campaign.ErrNotFound) { // over meanwhile
			err = nil
		}
	}
	return picked, err
}

// movable counts the waiting mail of the deliveries that a move concerns.
func (s *works) movable(ctx context.Context, q mta.Queue, pool string) (picked mta.Picked, list []mta.Handover, err error) {
	q.Bulk = true
	all, err := s.relay.MailOf(ctx, q)
	for i := 0; i < len(all) && err == nil; i++ {
		if all[i].Pool == pool {
			continue
		}
		list = append(list, all[i])
		var of mta.Picked
		of, err = s.relay.CountWaiting(ctx, mta.Queue{Delivery: all[i].Delivery, Bulk: true}, false)
		picked.Count += of.Count
		picked.Sample = append(picked.Sample, of.Sample[:min(len(of.Sample), maxSamples-len(picked.Sample))]...)
	}
	return picked, list, err
}

// maxSamples is how many messages an answer shows.
const maxSamples = 20

// samples are messages as the contract shows them.
func samples(list []mta.Waiting) []*veredusv1.QueueSample {
	var out []*veredusv1.QueueSample
	for _, w := range list {
		m := w.Message
		n := &veredusv1.QueueSample{Message: m.Name, Recipient: strings.ToValidUTF8(m.Recipient, "?"), Destination: w.Destination}
		if m.Retry {
			n.NextAttemptTime = timestamppb.New(m.State.Due)
			n.ErrorText = clip(m.State.LastReply.String(), replyText)
		}
		out = append(out, n)
	}
	return out
}

// queueEvent is the record of work that ended; none of work that changed nothing.
func queueEvent(w *operator.Work, now time.Time) operator.Event {
	if w.Count == 0 {
		return operator.Event{}
	}
	text := w.Kind.String()
	if w.Kind == operator.Move {
		text = "move to pool " + w.Pool
	}
	text += ": " + queueWords(&w.Queue)
	if w.Reason != "" {
		text += "; " + w.Reason
	}
	return operator.Event{
		Type: veredusv1.FeedbackType_FEEDBACK_TYPE_QUEUE_CHANGED, Time: now, Count: w.Count, Text: text,
		Tenant: w.Queue.Tenant, Delivery: w.Queue.Delivery, Source: w.Queue.Source, Destination: w.Queue.Destination,
		By: w.By,
	}
}

// queueWords says in words which mail was chosen.
func queueWords(q *operator.Queue) string {
	var words []string
	add := func(what, value string) {
		if value != "" {
			words = append(words, what+" "+value)
		}
	}
	add("delivery", q.Delivery)
	add("tenant", q.Tenant)
	add("destination", q.Destination)
	add("last tried from", q.Source)
	if !q.Arrived.IsZero() {
		add("arrived by", q.Arrived.UTC().Format(time.RFC3339))
	}
	return strings.Join(words, ", ")
}

// answered begins every answer that is remembered, so that an empty one is there, too.
const answered = 1

func encodeAnswer(a *veredusv1.RetryNowResponse) []byte {
	row, err := proto.MarshalOptions{}.MarshalAppend([]byte{answered}, a)
	if err != nil {
		row, _ = proto.MarshalOptions{}.MarshalAppend([]byte{answered}, &veredusv1.RetryNowResponse{Count: a.GetCount()})
	}
	return row
}

// decodeAnswer is the answer of a request that ended. One that did not was cut off by a
// failure, which the next start goes on with.
func decodeAnswer(row []byte) (*veredusv1.RetryNowResponse, error) {
	if len(row) == 0 {
		return nil, errStopping
	}
	answer := &veredusv1.RetryNowResponse{}
	return answer, proto.Unmarshal(row[1:], answer)
}
