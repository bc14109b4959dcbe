package mta

import (
	"context"
	"sync"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
)

// pending is what waits for the next write, with the messages in memory it is about.
type pending struct {
	batch    Batch
	claims   []*held
	releases []*held
	settles  []*held
	written  []func(now time.Time) // run by the owner once durable
}

func (p *pending) empty() bool {
	b := &p.batch
	return len(b.Claims)+len(b.Releases)+len(b.Settles)+len(b.Hurries)+len(b.Moves)+len(b.Events)+len(b.Usage)+len(p.written) == 0
}

// writer makes claims, releases and settlements durable: one write at a time, each
// with everything that came while the one before was under way. There is no timer.
type writer struct {
	relay *Relay
	wake  chan struct{} // capacity 1
	ended chan struct{}

	mu      sync.Mutex
	next    *pending
	closing bool
	err     error // why it ended early
}

func newWriter(r *Relay) *writer {
	return &writer{relay: r, wake: make(chan struct{}, 1), ended: make(chan struct{}), next: &pending{}}
}

// add changes what is written next. It never blocks.
func (w *writer) add(change func(p *pending)) {
	w.mu.Lock()
	change(w.next)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *writer) claim(claims []Claim, held []*held, path string, usage mxrules.Usage) {
	w.add(func(p *pending) {
		p.batch.Claims = append(p.batch.Claims, claims...)
		p.claims = append(p.claims, held...)
		p.usage(path, usage)
	})
}

// keepPath makes what is known of a path durable.
func (w *writer) keepPath(path string, usage mxrules.Usage) {
	w.add(func(p *pending) { p.usage(path, usage) })
}

func (p *pending) usage(path string, usage mxrules.Usage) {
	if p.batch.Usage == nil {
		p.batch.Usage = map[string]mxrules.Usage{}
	}
	p.batch.Usage[path] = usage
}

func (w *writer) release(h *held) {
	w.add(func(p *pending) {
		p.batch.Releases = append(p.batch.Releases, h.msg.ID)
		p.releases = append(p.releases, h)
	})
}

func (w *writer) settle(h *held, s Settlement) {
	w.add(func(p *pending) {
		p.batch.Settles = append(p.batch.Settles, s)
		p.settles = append(p.settles, h)
	})
}

func (w *writer) hurry(list []Hurry) {
	w.add(func(p *pending) { p.batch.Hurries = append(p.batch.Hurries, list...) })
}

// mark rides along with the next write; losing it costs only reading.
func (w *writer) mark(m Mark) {
	w.mu.Lock()
	w.next.batch.Marks = append(w.next.batch.Marks, m)
	w.mu.Unlock()
}

func (w *writer) event(e RelayEvent) {
	w.add(func(p *pending) { p.batch.Events = append(p.batch.Events, e) })
}

// then runs f on the owner once everything added before is durable.
func (w *writer) then(f func(now time.Time)) {
	w.add(func(p *pending) { p.written = append(p.written, f) })
}

// run writes until finish or abandon.
func (w *writer) run() {
	defer close(w.ended)
	for range w.wake {
		for {
			p, last := w.take()
			if p == nil {
				if last {
					return
				}
				break
			}
			if !w.write(p) {
				return
			}
		}
	}
}

// take answers what waits, or nil; last says that no more will come.
func (w *writer) take() (p *pending, last bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next.empty() {
		return nil, w.closing
	}
	p, w.next = w.next, &pending{}
	return p, false
}

func (w *writer) write(p *pending) bool {
	r := w.relay
	p.batch.Epoch = r.epoch
	out, err := r.cfg.Store.Write(context.WithoutCancel(r.ctx), &p.batch)
	if err != nil {
		w.broke(err)
		return false
	}
	return r.post(func(now time.Time) { r.written(now, p, out) })
}

// written tells the core what became durable.
func (r *Relay) written(now time.Time, p *pending, out Written) {
	gone := make(map[MessageID]bool, len(out.Gone))
	for _, id := range out.Gone {
		gone[id] = true
	}
	claimed := make([]dispatch.MsgID, 0, len(p.claims))
	for _, h := range p.claims {
		if gone[h.msg.ID] { // the core gives it back as soon as it hears of the claim
			h.gone = true
			r.core.Recall(now, h.id)
		}
		claimed = append(claimed, h.id)
	}
	if len(claimed) > 0 {
		r.core.Claimed(now, claimed)
	}
	for _, h := range p.releases {
		r.returned(now, h)
	}
	for i, h := range p.settles {
		r.settled(now, h, &p.batch.Settles[i])
	}
	for _, id := range out.Finished {
		if ho := r.handovers[id]; ho != nil {
			r.closeHandover(now, ho)
		}
	}
	for _, f := range p.written {
		f(now)
	}
}

// finish writes what is left and ends the writer.
func (w *writer) finish(ctx context.Context) error {
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
	w.add(func(*pending) {})
	select {
	case <-w.ended:
		return w.failure()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// abandon drops what waits, and ends the writer when the write under way returns.
func (w *writer) abandon() {
	w.mu.Lock()
	w.closing, w.next = true, &pending{}
	w.mu.Unlock()
	w.add(func(*pending) {})
	<-w.ended
}

// broke ends the writer for good.
func (w *writer) broke(err error) {
	w.mu.Lock()
	w.err = &StoreError{Doing: "writing claims and outcomes", Err: err}
	w.mu.Unlock()
	w.relay.fail("writing claims and outcomes", err)
}

// failure is why the writer ended, nil when it was asked to.
func (w *writer) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// claim makes messages durably claimed before their first MAIL.
func (r *Relay) claim(a *dispatch.Action) {
	now := r.cfg.Now()
	claims := make([]Claim, 0, len(a.Msgs))
	list := make([]*held, 0, len(a.Msgs))
	for _, id := range a.Msgs {
		h := r.held[id]
		if h == nil {
			continue
		}
		if h.msg.State.FirstClaim.IsZero() {
			h.msg.State.FirstClaim = now
		}
		if h.mailID == "" {
			h.mailID = r.messageID(h.msg.ID, h.run.ho)
		}
		claims = append(claims, Claim{Message: h.msg, Time: now, MessageID: h.mailID})
		list = append(list, h)
	}
	r.writer.keep(a.Source.Name, a.WarmUp)
	r.writer.claim(claims, list, a.Path, a.Usage)
}

// reportPath makes an event of what happened to a path.
func (r *Relay) reportPath(a *dispatch.Action) {
	if r.stopping { // breaking off dials says nothing about the path
		return
	}
	if a.Change == dispatch.PathObserved {
		r.log.Info("the governor observes", "source", a.Source.Name, "destination", a.Destination, "text", a.Text)
		return
	}
	r.log.Debug("path changed", "change", pathKinds[a.Change].String(), "source", a.Source.Name, "destination", a.Destination, "text", a.Text, "until", a.Until)
	r.tell(r.news.add(r.cfg.Now(), RelayEvent{
		Kind: pathKinds[a.Change], Source: a.Source.Name, Destination: a.Destination, Text: a.Text, Until: a.Until,
	}))
}

var pathKinds = map[dispatch.PathChange]RelayEventKind{
	dispatch.PathThrottled: PathThrottledEvent,
	dispatch.PathSuspended: PathSuspendedEvent,
	dispatch.PathResumed:   PathResumedEvent,
	dispatch.PathRaised:    PathRaisedEvent,
}

// tell writes events of paths.
func (r *Relay) tell(events []RelayEvent) {
	for _, e := range events {
		about := []any{"change", e.Kind.String(), "source", e.Source, "destination", e.Destination, "text", e.Text}
		if !e.Until.IsZero() {
			about = append(about, "until", e.Until)
		}
		r.log.Info("path changed", about...)
		r.writer.event(e)
	}
}
