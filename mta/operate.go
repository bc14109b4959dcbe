package mta

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
)

// An operator's work on waiting mail. It goes run by run and page by page; each page
// is durable before the next is read, so that ten million messages cost time, not
// memory, and nobody else waits long. What is being sent is passed over: it keeps its
// real outcome. Work that was broken off is done again from the start,
// and finds what is left.

// Queue chooses waiting mail: all fields that are set must hold.
type Queue struct {
	Delivery    uint64 // its number; 0: any
	Tenant      string
	Destination string
	// Source is that of the last attempt: it leaves out what was never tried.
	Source string
	// Arrived: it entered the relay then or before; zero: whenever.
	Arrived time.Time
	// Bulk leaves single (transactional) messages out.
	Bulk bool
}

// Order names work: what the store counts its changes under, and when it began.
type Order struct {
	ID    string
	Began time.Time
}

// Picked is what a Queue chose.
type Picked struct {
	// Count is how many messages were chosen; only CountWaiting fills it in, for work
	// that changes mail is counted by the store.
	Count int64
	// Sample are some of them.
	Sample []Waiting
	// Found says that there was mail of that delivery, tenant and destination.
	Found bool
}

// Waiting is a message that a Queue chose.
type Waiting struct {
	Message     *Message
	Destination string
}

// maxSample is how many messages are shown of each piece of work.
const maxSample = 20

// workPage is how many messages are changed in one write.
const workPage = 500

// CountWaiting counts what RetryNow (retries) or FailWaiting would change at this
// moment. It changes nothing.
func (r *Relay) CountWaiting(ctx context.Context, q Queue, retries bool) (Picked, error) {
	w := r.walk(q, retries)
	err := r.operate(ctx, w.countAll)
	return w.picked, err
}

// countAll counts every run that the queue chooses from.
func (w *walk) countAll(ctx context.Context) error {
	return w.runs(ctx, func(h *Handover, s *RunState, destination string) error {
		n, err := w.count(ctx, h, s)
		w.picked.Count += n
		if err != nil || n == 0 || len(w.picked.Sample) >= maxSample {
			return err
		}
		return w.pages(ctx, h, s, maxSample-len(w.picked.Sample), func(page []*Message) (bool, error) {
			w.show(page, destination)
			return len(w.picked.Sample) < maxSample, nil
		})
	})
}

// RetryNow makes the retries that a Queue chooses due now. Their paths' limits spread
// them. Retries that were settled after the work began are left alone.
func (r *Relay) RetryNow(ctx context.Context, q Queue, order Order) (Picked, error) {
	w := r.walk(q, true)
	w.began = order.Began
	err := r.operate(ctx, func(ctx context.Context) error {
		return w.runs(ctx, func(h *Handover, s *RunState, destination string) error {
			return w.pages(ctx, h, s, workPage, func(page []*Message) (bool, error) {
				w.show(page, destination)
				return true, r.hurryPage(ctx, page, order.ID, dueNow)
			})
		})
	})
	return w.picked, err
}

// poolOf is the pool of a run's mail.
func (h *Handover) poolOf(s RunState) string {
	if s.Pool != "" && s.Instead == h.Pool {
		return s.Pool
	}
	return h.Pool
}

// MoveRuns moves the mail of bulk deliveries to another pool, run by run: all of a
// delivery's mail to a recipient domain moves if the queue chooses some of it. What is
// claimed goes by its old pool. An empty order changes nothing and counts.
func (r *Relay) MoveRuns(ctx context.Context, q Queue, order Order, pool string) (Picked, error) {
	q.Bulk = true
	w := r.walk(q, false)
	err := r.operate(ctx, func(ctx context.Context) error {
		return w.runs(ctx, func(h *Handover, s *RunState, destination string) error {
			if h.poolOf(*s) == pool {
				return nil
			}
			if n, err := w.count(ctx, h, s); err != nil || n == 0 {
				return err
			}
			w.picked.Count += s.Fresh + s.Deferred
			if room := maxSample - len(w.picked.Sample); room > 0 {
				err := w.pages(ctx, h, s, room, func(page []*Message) (bool, error) {
					w.show(page, destination)
					return len(w.picked.Sample) < maxSample, nil
				})
				if err != nil {
					return err
				}
			}
			if order.ID == "" {
				return nil
			}
			return r.moveRun(ctx, h, s, order.ID, pool)
		})
	})
	return w.picked, err
}

// moveRun moves a run once that is durable.
func (r *Relay) moveRun(ctx context.Context, h *Handover, s *RunState, work, pool string) error {
	m := Move{Handover: h.ID, Domain: s.Domain, Pool: pool, Instead: h.Pool, Work: work}
	if pool == h.Pool {
		m.Pool, m.Instead = "", ""
	}
	return r.durably(ctx, func(time.Time) {
		r.writer.add(func(p *pending) { p.batch.Moves = append(p.batch.Moves, m) })
	}, func(now time.Time) {
		ho := r.handovers[h.ID]
		if ho == nil || ho.Pool != h.Pool { // moved as a whole meanwhile
			return
		}
		ru := ho.run(s.Domain)
		if ru == nil {
			ho.heardEarly(s.Domain, time.Time{}, &m)
			return
		}
		r.core.MoveRun(now, ru.id, pool)
	})
}

// FailWaiting ends what a Queue chooses: suppressed, code 25, with the reason as its text.
func (r *Relay) FailWaiting(ctx context.Context, q Queue, order Order, reason string) (Picked, error) {
	w := r.walk(q, false)
	f := &failing{relay: r, order: order, reason: reason, over: make(chan struct{})}
	err := r.operate(ctx, func(ctx context.Context) error {
		if err := r.callAllBack(ctx, q, f); err != nil {
			return err
		}
		if err := w.failAll(ctx, f); err != nil {
			return err
		}
		if err := r.callAllBack(ctx, q, f); err != nil { // claimed meanwhile
			return err
		}
		return f.wait(ctx)
	})
	return w.picked, err
}

func (w *walk) failAll(ctx context.Context, f *failing) error {
	return w.runs(ctx, func(h *Handover, s *RunState, destination string) error {
		f.destination = destination
		err := w.pages(ctx, h, s, workPage, func(page []*Message) (bool, error) {
			w.show(page, destination)
			return true, w.relay.failPage(ctx, page, h, f)
		})
		if err == nil {
			w.relay.recountRun(runName{h.ID, s.Domain})
		}
		return err
	})
}

// operate runs work that reads the store, so that Stop breaks it off and waits for it.
func (r *Relay) operate(ctx context.Context, work func(ctx context.Context) error) error {
	taken := false
	err := r.call(context.WithoutCancel(ctx), func(time.Time) { // the owner does no I/O
		if taken = !r.stopping; taken {
			r.workers.Add(1)
		}
	})
	if err != nil || !taken {
		return ErrStopped
	}
	defer r.workers.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.calm, cancel)()
	if err = work(ctx); err != nil && r.calm.Err() != nil {
		return ErrStopped
	}
	return err
}

// errFound ends a walk that found what it looked for.
var errFound = errors.New("found")

// HasMail reports whether mail of the queue's delivery and tenant waits for its
// destination, whatever its source.
func (r *Relay) HasMail(ctx context.Context, q Queue) (bool, error) {
	w := r.walk(q, false)
	err := r.operate(ctx, func(ctx context.Context) error {
		return w.runs(ctx, func(*Handover, *RunState, string) error { return errFound })
	})
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

// ErrTooMany says that a choice is larger than may be handled at a time.
var ErrTooMany = errors.New("mta: too many")

// DestinationsOf lists the destinations for which mail waits that the queue chooses, in
// order; ErrTooMany if there are more than most.
func (r *Relay) DestinationsOf(ctx context.Context, q Queue, most int) ([]string, error) {
	w, found := r.walk(q, false), map[string]bool{}
	err := r.operate(ctx, func(ctx context.Context) error {
		return w.runs(ctx, func(h *Handover, s *RunState, destination string) error {
			if found[destination] {
				return nil
			}
			n, err := w.count(ctx, h, s)
			if found[destination] = n > 0; n > 0 && len(found) > 2*most {
				return ErrTooMany
			}
			return err
		})
	})
	maps.DeleteFunc(found, func(_ string, is bool) bool { return !is })
	if len(found) > most {
		err = ErrTooMany
	}
	return slices.Sorted(maps.Keys(found)), err
}

// MailOf lists the hand-overs with mail that the queue may choose from, in order.
func (r *Relay) MailOf(ctx context.Context, q Queue) ([]Handover, error) {
	var list []Handover
	err := r.call(ctx, func(time.Time) {
		for _, ho := range r.handovers {
			if !ho.expired && !(q.Bulk && ho.Arrival.IsZero()) && (q.Delivery == 0 || ho.Delivery == q.Delivery) && (q.Tenant == "" || ho.Tenant == q.Tenant) {
				list = append(list, ho.Handover)
			}
		}
	})
	slices.SortFunc(list, func(a, b Handover) int { return cmp.Compare(a.ID, b.ID) })
	return list, err
}

// walk goes over waiting mail.
type walk struct {
	relay   *Relay
	q       Queue
	retries bool
	began   time.Time // zero: only counting
	now     time.Time
	picked  Picked
}

func (r *Relay) walk(q Queue, retries bool) *walk {
	return &walk{relay: r, q: q, retries: retries, now: r.cfg.Now()}
}

// runs visits the runs that the queue may choose from, in order.
func (w *walk) runs(ctx context.Context, visit func(h *Handover, s *RunState, destination string) error) error {
	list, err := w.relay.MailOf(ctx, w.q)
	if err != nil {
		return err
	}
	for i := range list {
		h := &list[i]
		if !w.q.Arrived.IsZero() && h.Arrival.After(w.q.Arrived) {
			continue // of a standing hand-over each message has its own
		}
		if err := w.directory(ctx, h, visit); err != nil {
			return err
		}
	}
	return nil
}

// directory visits the runs of one hand-over, page by page.
func (w *walk) directory(ctx context.Context, h *Handover, visit func(h *Handover, s *RunState, destination string) error) error {
	for after := uint32(0); ; {
		page, err := w.relay.cfg.Store.Runs(ctx, h.ID, after, runPage)
		if err != nil || len(page) == 0 {
			return err
		}
		destinations, err := w.destinations(ctx, page)
		if err != nil {
			return err
		}
		for i := range page {
			if w.q.Destination != "" && destinations[i] != w.q.Destination {
				continue
			}
			w.picked.Found = true
			if err := visit(h, &page[i], destinations[i]); err != nil {
				return err
			}
		}
		after = page[len(page)-1].Domain
	}
}

// maxLookups is how many routes are asked for at a time, lookupTime how long one may take.
const (
	maxLookups = 64
	lookupTime = 10 * time.Second
)

// destinations are those of a page of runs. Only when the queue names a destination are
// domains looked up of which the relay knows no route; one without a route stands for itself.
func (w *walk) destinations(ctx context.Context, page []RunState) ([]string, error) {
	names := make([]string, len(page))
	err := w.relay.call(ctx, func(time.Time) {
		for i := range page {
			names[i] = w.relay.core.DestinationOf(page[i].DomainName)
		}
	})
	if err != nil {
		return nil, err
	}
	var asked sync.WaitGroup
	room := make(chan struct{}, maxLookups)
	for i := range names {
		if names[i] != "" {
			continue
		}
		if names[i] = page[i].DomainName; w.q.Destination == "" {
			continue
		}
		room <- struct{}{}
		asked.Go(func() {
			defer func() { <-room }()
			names[i] = w.lookUp(ctx, page[i].DomainName)
		})
	}
	asked.Wait()
	return names, ctx.Err()
}

func (w *walk) lookUp(ctx context.Context, domain string) string {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	rt, err := w.relay.cfg.Resolver.Route(ctx, domain)
	if err != nil || rt.Destination == "" {
		return domain
	}
	return rt.Destination
}

// request asks for the messages of a run that the queue chooses.
func (w *walk) request(h *Handover, s *RunState) WaitingRequest {
	req := WaitingRequest{Handover: h.ID, Domain: s.Domain, Retries: w.retries, Source: w.q.Source}
	if w.retries {
		req.Due, req.Settled = w.now, w.began
	}
	if h.Arrival.IsZero() {
		req.Arrived = w.q.Arrived
	}
	return req
}

// count is how many messages of a run the queue chooses.
func (w *walk) count(ctx context.Context, h *Handover, s *RunState) (n int64, err error) {
	req := w.request(h, s)
	if !req.Retries && !req.perMessage() {
		return s.Fresh + s.Deferred, nil
	}
	for req.Count = true; ; {
		page, err := w.relay.cfg.Store.Waiting(ctx, req)
		n += page.Count
		if err != nil || page.Done {
			return n, err
		}
		req.After = page.Next
	}
}

// pages visits the messages of a run that the queue chooses, until each answers false.
func (w *walk) pages(ctx context.Context, h *Handover, s *RunState, most int, each func([]*Message) (bool, error)) error {
	req := w.request(h, s)
	for req.Max = most; ; {
		page, err := w.relay.cfg.Store.Waiting(ctx, req)
		if err != nil {
			return err
		}
		if len(page.Messages) > 0 {
			if more, err := each(page.Messages); err != nil || !more {
				return err
			}
		}
		if page.Done {
			return nil
		}
		req.After = page.Next
	}
}

// show adds to the sample.
func (w *walk) show(page []*Message, destination string) {
	for _, m := range page[:min(len(page), maxSample-len(w.picked.Sample))] {
		w.picked.Sample = append(w.picked.Sample, Waiting{Message: m, Destination: destination})
	}
}

// durably runs change on the owner, and waits until what it gave the writer is durable
// and the owner was told.
func (r *Relay) durably(ctx context.Context, change func(now time.Time), told func(now time.Time)) error {
	durable := make(chan struct{})
	err := r.call(ctx, func(now time.Time) {
		change(now)
		r.writer.then(func(now time.Time) {
			told(now)
			close(durable)
		})
	})
	if err != nil {
		return err
	}
	select {
	case <-durable:
		return nil
	case <-r.writer.ended:
		return ErrStopped
	case <-r.done:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hurryPage makes retries of one run due at other times. Those in memory are due already, or being tried.
func (r *Relay) hurryPage(ctx context.Context, page []*Message, work string, due func(m *Message, now time.Time) time.Time) error {
	var list []Hurry
	return r.durably(ctx, func(now time.Time) {
		for _, m := range page {
			if r.byID[m.ID] == nil {
				list = append(list, Hurry{Message: m, Due: due(m, now), Work: work})
			}
		}
		r.writer.hurry(list)
	}, func(now time.Time) { r.hurried(now, list) })
}

// hurried tells the core of the earliest of a run's retries that were hurried.
func (r *Relay) hurried(now time.Time, list []Hurry) {
	if len(list) == 0 {
		return
	}
	first := slices.MinFunc(list, func(a, b Hurry) int { return a.Due.Compare(b.Due) }).Due
	id := list[0].Message.ID
	ho := r.handovers[id.Handover]
	if ho == nil {
		return
	}
	ru := ho.run(id.Domain)
	if ru == nil {
		ho.heardEarly(id.Domain, first, nil)
		return
	}
	ru.dueAt(first)
	r.core.Hurried(now, ru.id, first)
}

// failing is the work of FailWaiting. It belongs to the owner.
type failing struct {
	relay       *Relay
	order       Order
	reason      string
	destination string // of the run under way
	pending     int    // messages in memory that were asked back
	closing     bool   // no more will be asked for
	over        chan struct{}
}

// failPage ends messages that are not in memory, and has those back that are and
// have not begun: they end as soon as they come.
func (r *Relay) failPage(ctx context.Context, page []*Message, of *Handover, f *failing) error {
	return r.durably(ctx, func(now time.Time) {
		ho := r.handovers[of.ID]
		for _, m := range page {
			if h := r.byID[m.ID]; h != nil {
				r.callBack(now, h, f)
				continue
			}
			h := &held{msg: m}
			if ho != nil {
				h.mailID = r.earlierID(m, ho)
			}
			r.byID[m.ID] = h
			r.writer.settle(h, f.end(h, now, f.destination))
		}
	}, func(time.Time) {})
}

// callAllBack asks for everything in memory that the queue chooses and that has not
// begun, claimed or not. A queue that names a source chooses nothing there: what is
// in memory does not know the source of its last attempt.
func (r *Relay) callAllBack(ctx context.Context, q Queue, f *failing) error {
	if q.Source != "" {
		return nil
	}
	return r.call(ctx, func(now time.Time) {
		for _, h := range r.held {
			ho := h.run.ho
			fits := (q.Delivery == 0 || ho.Delivery == q.Delivery) && (q.Tenant == "" || ho.Tenant == q.Tenant) &&
				(q.Destination == "" || r.core.DestinationOf(h.run.domain) == q.Destination) &&
				(q.Arrived.IsZero() || !h.msg.Arrival.After(q.Arrived)) && !(q.Bulk && ho.Arrival.IsZero())
			if fits {
				r.callBack(now, h, f)
			}
		}
	})
}

// callBack asks for a message in memory, unless its transaction has begun or its end
// is being written.
func (r *Relay) callBack(now time.Time, h *held, f *failing) {
	if !h.inCore || h.failing != nil {
		return
	}
	from := uint32(jobRecalled)
	if h.sending {
		if from = h.job.recall(); from == jobCarried {
			return
		}
	}
	h.failing = f
	f.pending++
	r.core.Recall(now, h.id)
	r.recalled(now, h.job, from, true)
}

// failedTag is the tag of messages that an operator failed.
const failedTag = "failed_by_operator"

// end is the end of a message by an operator's word. What earlier attempts left behind
// is kept.
func (f *failing) end(h *held, now time.Time, destination string) Settlement {
	m := h.msg
	if m.State.Attempts > 0 {
		destination = "" // where its last attempt went
	}
	f.relay.observe("", Suppressed, bounce.CodeAdminFailure, nil)
	m.State.Last = bounce.OwnPolicy(failedTag, bounce.ReasonUnreachable)
	return Settlement{
		Message: m, Outcome: Suppressed, Time: now, Verdict: m.State.Last, Text: f.reason,
		Destination: destination, MessageID: h.mailID, Work: f.order.ID,
	}
}

// settled notes that a message which was asked back has come to an end, whichever.
func (f *failing) settled() {
	if f == nil {
		return
	}
	f.pending--
	f.finish()
}

func (f *failing) finish() {
	if f.closing && f.pending == 0 {
		close(f.over)
	}
}

// wait returns once every message that was asked back has come to an end.
func (f *failing) wait(ctx context.Context) error {
	if err := f.relay.call(ctx, func(time.Time) { f.closing = true; f.finish() }); err != nil {
		return err
	}
	select {
	case <-f.over:
		return nil
	case <-f.relay.done:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Override puts an operator's limits for paths in force, or ends them. Its cause is
// durable before it is made.
func (r *Relay) Override(ctx context.Context, o dispatch.Override) error {
	return r.call(ctx, func(now time.Time) { r.core.Override(now, o) })
}

// ResetPaths makes the paths of a destination forget what they learned; source empty is
// all. It returns once what was kept of that for a restart is forgotten too.
func (r *Relay) ResetPaths(ctx context.Context, source, destination string) error {
	r.remember(ctx, destination)
	return r.durably(ctx, func(now time.Time) {
		kept := r.core.ResetPaths(now, source, destination)
		r.writer.add(func(p *pending) {
			for key, usage := range kept {
				p.usage(key, usage)
			}
		})
	}, func(time.Time) {})
}
