package serve

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/veredus/veredus/integration/world"
)

const (
	// maxReturns bounds what waits to be sent back; more is dropped and counted.
	maxReturns = 10_000
	// returnWorkers is how many send at once.
	returnWorkers = 4
	// returnTries is how often one is tried when the sender cannot be reached or
	// answers with a temporary failure; with the pauses that is half a minute.
	returnTries = 8
	// firstReturnPause doubles with every try.
	firstReturnPause = 250 * time.Millisecond
)

// ReturnCounts are what was sent back for recipients of one fate. At any moment
// Due = Waiting + Accepted + Refused + GivenUp + Dropped + Nothing, and
// Sent = Accepted + Refused.
type ReturnCounts struct {
	// Due counts confirmed messages about which something was to come back.
	Due int64 `json:"due"`
	// Waiting counts those of them not sent yet, for want of time or of an address.
	Waiting int64 `json:"waiting"`
	// Sent counts those that the sender's side answered for good: Accepted by 250
	// (or, of a one-click request, by 2xx), Refused by a permanent failure.
	Sent     int64 `json:"sent"`
	Accepted int64 `json:"accepted"`
	Refused  int64 `json:"refused"`
	// GivenUp counts those that could not be sent in all tries.
	GivenUp int64 `json:"given_up"`
	// Dropped counts those that found the queue full.
	Dropped int64 `json:"dropped"`
	// Nothing counts those that the message gave no way for: no return path, or no
	// List-Unsubscribe that leads anywhere from here.
	Nothing int64 `json:"nothing"`
	// OneClick counts the part of Sent that were one-click requests (RFC 8058).
	OneClick int64 `json:"one_click"`
}

// maxReturnFailures is how many that went wrong are told in words.
const maxReturnFailures = 20

// parcel is one thing to send back.
type parcel struct {
	fate  world.Fate
	host  string // who sends it
	out   world.Outgoing
	due   time.Time
	tries int
}

// parcels is a heap by the time they are due.
type parcels []*parcel

func (p parcels) Len() int           { return len(p) }
func (p parcels) Less(i, j int) bool { return p[i].due.Before(p[j].due) }
func (p parcels) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }

// Push implements heap.Interface.
func (p *parcels) Push(x any) { *p = append(*p, x.(*parcel)) }

// Pop implements heap.Interface.
func (p *parcels) Pop() any {
	old := *p
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*p = old[:len(old)-1]
	return last
}

// returns sends back what the receivers' mailboxes want: it waits the delay, then
// workers send it. All is bounded; nothing here holds up the receivers.
type returns struct {
	delay time.Duration

	mu       sync.Mutex
	counts   map[world.Fate]*ReturnCounts
	failures []string
	to       string // host:port; empty: mail waits
	waiting  int    // reserved, held, queued or under way
	queue    parcels
	held     []*parcel // mail that waits for an address
	idle     *sync.Cond
	wake     chan struct{} // the queue's first may have changed

	jobs    chan *parcel
	ctx     context.Context
	cancel  context.CancelFunc
	working sync.WaitGroup
	sender  returnSender
}

func newReturns(delay time.Duration, to string) (*returns, error) {
	if err := checkReturnTo(to); err != nil {
		return nil, err
	}
	r := &returns{
		delay: delay, to: to, counts: map[world.Fate]*ReturnCounts{},
		wake: make(chan struct{}, 1), jobs: make(chan *parcel), sender: newReturnSender(),
	}
	r.idle = sync.NewCond(&r.mu)
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.working.Go(r.dispatch)
	for range returnWorkers {
		r.working.Go(r.work)
	}
	return r, nil
}

func (r *returns) close() {
	r.cancel()
	r.working.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle.Broadcast()
}

// checkReturnTo allows addresses of this machine only: the world is a closed one.
func checkReturnTo(to string) error {
	if to == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(to)
	if err != nil {
		return fmt.Errorf("return_to %q: %w; give the host:port of the sender's inbound listener", to, err)
	}
	addr, err := netip.ParseAddr(host)
	if host != "localhost" && (err != nil || !addr.Unmap().IsLoopback()) {
		return fmt.Errorf("return_to %q: not a loopback address; the receivers send on this machine only, for example to 127.0.0.1:2526", to)
	}
	return nil
}

// of returns the figures of a fate. The caller holds the lock.
func (r *returns) of(f world.Fate) *ReturnCounts {
	c := r.counts[f]
	if c == nil {
		c = &ReturnCounts{}
		r.counts[f] = c
	}
	return c
}

// setTo changes the address and releases what waited for one.
func (r *returns) setTo(to string) error {
	if err := checkReturnTo(to); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = to
	if to != "" {
		for _, p := range r.held {
			heap.Push(&r.queue, p)
		}
		r.held = nil
	}
	r.nudge()
	return nil
}

func (r *returns) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// reserve counts what is to come back before the sender can know that its message
// was accepted, so that nobody finds the world at rest in between. It must be
// followed by submit or forget.
func (r *returns) reserve(list []world.Return) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range list {
		c := r.of(one.Fate)
		c.Due++
		c.Waiting++
		r.waiting++
	}
}

// forget takes a reservation back: the sender does not know of the acceptance.
func (r *returns) forget(list []world.Return) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range list {
		r.of(one.Fate).Due--
		r.leave(one.Fate)
	}
}

// leave ends one that waited. The caller holds the lock.
func (r *returns) leave(f world.Fate) {
	r.of(f).Waiting--
	if r.waiting--; r.waiting == 0 {
		r.idle.Broadcast()
	}
}

// submit queues what was reserved. header is the message's.
func (r *returns) submit(list []world.Return, header []byte, now time.Time) {
	due := now.Add(r.delay)
	for _, one := range list {
		out, err := one.Compose(header, due)
		r.mu.Lock()
		switch {
		case err != nil:
			r.of(one.Fate).Nothing++
			r.fail(one.Fate, err)
			r.leave(one.Fate)
		case len(r.queue)+len(r.held) >= maxReturns:
			r.of(one.Fate).Dropped++
			r.leave(one.Fate)
		default:
			heap.Push(&r.queue, &parcel{fate: one.Fate, host: one.Host, out: out, due: due})
			r.nudge()
		}
		r.mu.Unlock()
	}
}

// fail keeps the words of the first failures. The caller holds the lock.
func (r *returns) fail(f world.Fate, err error) {
	if len(r.failures) < maxReturnFailures {
		r.failures = append(r.failures, string(f)+": "+err.Error())
	}
}

// dispatch hands over what is due to the workers, one at a time.
func (r *returns) dispatch() {
	defer close(r.jobs)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		p, wait := r.next(time.Now())
		if p != nil {
			select {
			case r.jobs <- p:
				continue
			case <-r.ctx.Done():
				return
			}
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-r.wake:
		case <-r.ctx.Done():
			return
		}
	}
}

// next takes the first that is due, or says how long there is none.
func (r *returns) next(now time.Time) (*parcel, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queue) > 0 {
		if wait := r.queue[0].due.Sub(now); wait > 0 {
			return nil, wait
		}
		p := heap.Pop(&r.queue).(*parcel)
		if p.out.URL != "" || r.to != "" {
			return p, 0
		}
		r.held = append(r.held, p)
	}
	return nil, time.Hour // until somebody calls
}

func (r *returns) work() {
	for p := range r.jobs {
		r.mu.Lock()
		to := r.to
		r.mu.Unlock()
		p.tries++
		r.settle(p, r.sender.send(r.ctx, to, p))
	}
}

// settle enters how a parcel was answered, or queues it again.
func (r *returns) settle(p *parcel, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.of(p.fate)
	var refused *refusal
	switch {
	case err == nil:
		c.Sent, c.Accepted = c.Sent+1, c.Accepted+1
	case errors.As(err, &refused):
		c.Sent, c.Refused = c.Sent+1, c.Refused+1
		r.fail(p.fate, err)
	case r.ctx.Err() == nil && p.tries < returnTries:
		p.due = time.Now().Add(firstReturnPause << (p.tries - 1))
		heap.Push(&r.queue, p)
		r.nudge()
		return
	default:
		c.GivenUp++
		r.fail(p.fate, err)
	}
	if p.out.URL != "" && (err == nil || refused != nil) {
		c.OneClick++
	}
	r.leave(p.fate)
}

// wait blocks until nothing waits any more.
func (r *returns) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.idle.Broadcast()
	})
	defer stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.waiting > 0 {
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%d mails were not sent back yet: %w", r.waiting, context.Cause(ctx))
		case r.ctx.Err() != nil:
			return errClosing
		}
		r.idle.Wait()
	}
	return nil
}

// snapshot copies the figures.
func (r *returns) snapshot() (map[world.Fate]ReturnCounts, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[world.Fate]ReturnCounts, len(r.counts))
	for f, c := range r.counts {
		if *c != (ReturnCounts{}) {
			all[f] = *c
		}
	}
	return all, append([]string{}, r.failures...)
}

// SetReturnTo changes where mail that comes back is sent: the host:port of the
// sender's inbound listener, on loopback. Empty makes such mail wait.
func (w *World) SetReturnTo(to string) error { return w.returns.setTo(to) }

// ReturnTo returns where mail that comes back is sent; empty: nowhere.
func (w *World) ReturnTo() string {
	w.returns.mu.Lock()
	defer w.returns.mu.Unlock()
	return w.returns.to
}

// WaitReturns blocks until everything that was to be sent back about the messages
// accepted so far is answered, given up or dropped, or until ctx ends. Without
// an address to return to it would wait in vain while mail does.
func (w *World) WaitReturns(ctx context.Context) error { return w.returns.wait(ctx) }
