// Package retention removes what was kept long enough: feedback events by age and by
// the room they take, content and messages by the time since their delivery ended.
//
// Make a Purger and Run it. What goes is gone from all reads at once; the room on the
// disk follows in the background. A delivery with its counters stays until somebody deletes it.
package retention

import (
	"context"
	"log/slog"
	"time"
)

// Policy says how long things stay; 0 is for ever.
type Policy struct {
	EventsAge  time.Duration // of events
	EventsSize int64         // octets of disk for events
	Messages   time.Duration // of content and messages behind the end of their delivery
}

// maxLifetime is how long a message is tried at most: a single message ends by
// then, whatever became of it.
const maxLifetime = 84 * time.Hour

// Store removes. Its methods may take long; each write in them is bounded.
type Store interface {
	// TrimEvents removes the events before a time (zero: none) and the oldest beyond a size
	// (0: none), and answers how many went.
	TrimEvents(ctx context.Context, before time.Time, size int64) (int64, error)
	// PurgeEnded removes content and messages of deliveries that ended before a time, and
	// answers how many deliveries that were.
	PurgeEnded(ctx context.Context, before time.Time) (int64, error)
	// PurgeSingles removes the final messages of standing deliveries that arrived before
	// a time, and answers how many.
	PurgeSingles(ctx context.Context, before time.Time) (int64, error)
}

// Removed counts what a round removed.
type Removed struct{ Events, Deliveries, Messages int64 }

// Options are what a Purger needs; all but Observe.
type Options struct {
	Store Store
	// Policy is asked at each round, so it may change.
	Policy func() Policy
	Now    func() time.Time
	Log    *slog.Logger
	// Observe is told of each round that removed something; nil for nobody.
	Observe func(Removed)
}

// Purger removes by a policy, round by round.
type Purger struct {
	o     Options
	clock clock
	last  time.Time // elapsed time of the last round that looked at messages
}

// NewPurger makes one.
func NewPurger(o Options) *Purger { return &Purger{o: o} }

const (
	// looks is how often a period is looked at while it passes, at most every
	// eventsEvery and messagesEvery.
	looks         = 20
	eventsEvery   = time.Minute
	messagesEvery = time.Hour
	leastEvery    = time.Second
)

// Run removes until ctx ends.
func (p *Purger) Run(ctx context.Context) {
	for {
		wait := time.NewTimer(every(p.o.Policy().EventsAge, eventsEvery))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
		if err := p.Round(ctx); err != nil && ctx.Err() == nil {
			p.o.Log.Error("removing what was kept long enough; the next round tries again", "error", err)
		}
	}
}

// every is how often a period is looked at.
func every(period, most time.Duration) time.Duration {
	if period <= 0 {
		return most
	}
	return min(max(period/looks, leastEvery), most)
}

// Round removes what may go now. While the clock is not trusted nothing goes by age.
func (p *Purger) Round(ctx context.Context) error {
	now, elapsed := p.o.Now(), time.Now()
	policy := p.o.Policy()
	trusted, jump := p.clock.look(now, elapsed)
	if jump != 0 {
		p.o.Log.Warn("the clock was set; nothing is removed by its age for a while", "by", jump, "while", distrust)
	}
	var r Removed
	var before time.Time
	if trusted && policy.EventsAge > 0 {
		before = now.Add(-policy.EventsAge)
	}
	var err error
	if !before.IsZero() || policy.EventsSize > 0 {
		r.Events, err = p.o.Store.TrimEvents(ctx, before, policy.EventsSize)
	}
	if err == nil && trusted && policy.Messages > 0 && p.messagesDue(elapsed, policy.Messages) {
		err = p.messages(ctx, now.Add(-policy.Messages), &r)
	}
	if r != (Removed{}) {
		p.o.Log.Info("removed what was kept long enough", "events", r.Events, "deliveries", r.Deliveries, "single_messages", r.Messages)
		if p.o.Observe != nil {
			p.o.Observe(r)
		}
	}
	return err
}

func (p *Purger) messagesDue(elapsed time.Time, period time.Duration) bool {
	if !p.last.IsZero() && elapsed.Sub(p.last) < every(period, messagesEvery) {
		return false
	}
	p.last = elapsed
	return true
}

func (p *Purger) messages(ctx context.Context, before time.Time, r *Removed) (err error) {
	if r.Deliveries, err = p.o.Store.PurgeEnded(ctx, before); err != nil {
		return err
	}
	r.Messages, err = p.o.Store.PurgeSingles(ctx, before.Add(-maxLifetime))
	return err
}
