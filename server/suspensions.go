package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/operator"
	"github.com/veredus/veredus/server/suspend"
)

// suspender stops mail; *mta.Relay does.
type suspender interface {
	Suspend(ctx context.Context, name string, sel dispatch.Selector) error
	Unsuspend(ctx context.Context, name string) error
}

// suspensions keeps the relay in step with the store: a change is durable first,
// then the relay is told what holds now. Safe for concurrent use.
type suspensions struct {
	store suspend.Suspensions
	relay suspender
	// number finds a delivery's number by its id: campaign.ErrNotFound when it is gone.
	number func(ctx context.Context, delivery string) (uint64, error)
	now    func() time.Time
	log    *slog.Logger

	mu      sync.Mutex
	inForce map[string]suspend.Suspension // what the relay was told, by id
	timer   *time.Timer
	stopped bool
}

// maxLook is the longest time until ends are looked at again: the clock may be set.
const maxLook = time.Minute

// start puts what is stored into force.
func (s *suspensions) start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inForce = map[string]suspend.Suspension{}
	return s.reconcile(ctx)
}

// stop ends the timer.
func (s *suspensions) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// put stores a suspension and puts it into force.
// The event names who ordered it.
func (s *suspensions) put(ctx context.Context, n suspend.Suspension, req suspend.Request) (suspend.Suspension, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stored, err := s.store.PutSuspension(ctx, n, s.record(suspended, PrincipalOf(ctx).Name), req)
	if err != nil {
		return stored, err
	}
	return stored, s.reconcile(context.WithoutCancel(ctx)) // what is durable must hold
}

// remove ends the suspension of an id, or of a selector when the id is empty.
func (s *suspensions) remove(ctx context.Context, id string, sel suspend.Selector, req suspend.Request) (suspend.Suspension, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == "" {
		list, err := s.store.ListSuspensions(ctx)
		if err != nil {
			return suspend.Suspension{}, err
		}
		for _, n := range list {
			if n.Selector == sel {
				id = n.ID
			}
		}
	}
	removed, err := s.store.DeleteSuspension(ctx, id, s.record(resumed, PrincipalOf(ctx).Name), req)
	if err != nil {
		return removed, err
	}
	return removed, s.reconcile(context.WithoutCancel(ctx))
}

// What an event says of a suspension.
const (
	suspended = "suspended"
	resumed   = "resumed"
	timeOver  = "resumed, its time is over"
)

// record makes the event of a change: what was suspended, why, until when and by whom.
func (s *suspensions) record(what, by string) suspend.Record {
	now := s.now()
	return func(n suspend.Suspension) operator.Event {
		e := operator.Event{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_RESUMED, Time: now, By: by}
		if what == suspended {
			e.Type, e.Until = veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_SUSPENDED, n.End
		}
		switch n.Selector.Kind {
		case suspend.Tenant:
			e.Tenant = n.Selector.Value
		case suspend.Delivery:
			e.Delivery = n.Selector.Value
		case suspend.Source:
			e.Source = n.Selector.Value
		case suspend.Destination:
			e.Destination = n.Selector.Value
		}
		e.Text = what + ": " + selectorWords(n.Selector) + "; " + n.Reason
		return e
	}
}

var kindWords = map[suspend.Kind]string{
	suspend.Tenant: "tenant", suspend.Delivery: "delivery", suspend.SenderDomain: "sender domain",
	suspend.Source: "source", suspend.Destination: "destination",
}

// selectorWords say what is suspended.
func selectorWords(sel suspend.Selector) string {
	if sel.Kind == suspend.Everything {
		return "everything"
	}
	return kindWords[sel.Kind] + " " + sel.Value
}

// list are the suspensions that hold now, by id.
func (s *suspensions) list(ctx context.Context) ([]suspend.Suspension, error) {
	stored, err := s.store.ListSuspensions(ctx)
	if err != nil {
		return nil, err
	}
	now, active := s.now(), stored[:0]
	for _, n := range stored {
		if n.Active(now) {
			active = append(active, n)
		}
	}
	return active, nil
}

// reconcile tells the relay what is to hold and does not, and the other way round;
// it removes what has ended and sets the timer for the next end.
func (s *suspensions) reconcile(ctx context.Context) error {
	list, err := s.store.ListSuspensions(ctx)
	if err != nil {
		return err
	}
	now, stored, next := s.now(), map[string]bool{}, time.Time{}
	for _, n := range list {
		if !n.Active(now) {
			if _, err := s.store.DeleteSuspension(ctx, n.ID, s.record(timeOver, ""), suspend.Request{}); err != nil && !errors.Is(err, suspend.ErrNotFound) {
				return err
			}
			s.log.Info("suspension ended", "suspension", n.ID, "reason", n.Reason)
			continue
		}
		stored[n.ID] = true
		if !n.End.IsZero() && (next.IsZero() || n.End.Before(next)) {
			next = n.End
		}
		if err := s.enforce(ctx, n); err != nil {
			return err
		}
	}
	for id := range s.inForce {
		if stored[id] {
			continue
		}
		if err := s.relay.Unsuspend(ctx, suspensionsPrefix+id); err != nil {
			return err
		}
		delete(s.inForce, id)
	}
	s.arm(now, next)
	return nil
}

// enforce tells the relay of a suspension that it does not know. One of a delivery
// that is gone stops nothing.
func (s *suspensions) enforce(ctx context.Context, n suspend.Suspension) error {
	if old, known := s.inForce[n.ID]; known && old.Selector == n.Selector {
		return nil
	}
	sel := dispatch.Selector{Kind: selectorKinds[n.Selector.Kind], Value: n.Selector.Value}
	if n.Selector.Kind == suspend.Delivery {
		number, err := s.number(ctx, n.Selector.Value)
		if errors.Is(err, campaign.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		sel.Value, sel.Delivery = "", dispatch.DeliveryID(number)
	}
	if err := s.relay.Suspend(ctx, suspensionsPrefix+n.ID, sel); err != nil {
		return err
	}
	s.inForce[n.ID] = n
	s.log.Info("suspension in force", "suspension", n.ID, "reason", n.Reason, "end", endText(n.End))
	return nil
}

var selectorKinds = map[suspend.Kind]dispatch.SelectorKind{
	suspend.Everything:   dispatch.Everything,
	suspend.Tenant:       dispatch.ByTenant,
	suspend.Delivery:     dispatch.ByDelivery,
	suspend.SenderDomain: dispatch.BySenderDomain,
	suspend.Source:       dispatch.BySource,
	suspend.Destination:  dispatch.ByDestination,
}

// arm sets the timer to the next end.
func (s *suspensions) arm(now, next time.Time) {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if next.IsZero() || s.stopped {
		return
	}
	s.timer = time.AfterFunc(min(max(next.Sub(now), 0), maxLook), s.ended)
}

// ended is the timer.
func (s *suspensions) ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxLook)
	defer cancel()
	if err := s.reconcile(ctx); err != nil {
		s.log.Error("ending suspensions", "error", err)
		s.arm(s.now(), s.now().Add(time.Second))
	}
}

// endText is the end of a suspension for the log.
func endText(end time.Time) string {
	if end.IsZero() {
		return "never"
	}
	return end.UTC().Format(time.RFC3339)
}
