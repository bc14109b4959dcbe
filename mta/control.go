package mta

import (
	"context"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
)

// The calls below take effect on the owner before they return, so that no attempt
// starts behind them. Their causes are durable before they are made.

// Pause stops new attempts of a delivery at once.
func (r *Relay) Pause(ctx context.Context, delivery uint64) error {
	return r.call(ctx, func(now time.Time) {
		delete(r.resumed, delivery)
		r.setPaused(delivery, true)
		r.steer(func() { r.core.Pause(now, dispatch.DeliveryID(delivery)) })
	})
}

// Unpause continues a delivery.
func (r *Relay) Unpause(ctx context.Context, delivery uint64) error {
	return r.call(ctx, func(now time.Time) {
		if !r.setPaused(delivery, false) {
			r.resumed[delivery] = struct{}{}
		}
		r.core.Unpause(now, dispatch.DeliveryID(delivery))
	})
}

// setPaused notes it with the delivery's hand-overs; false when there is none.
func (r *Relay) setPaused(delivery uint64, paused bool) (known bool) {
	for _, ho := range r.handovers {
		if ho.Delivery == delivery {
			ho.Paused, known = paused, true
		}
	}
	return known
}

// Cancel forgets a cancelled delivery; a transaction under way keeps its real outcome.
func (r *Relay) Cancel(ctx context.Context, delivery uint64) error {
	return r.call(ctx, func(now time.Time) {
		delete(r.resumed, delivery)
		r.steer(func() {
			for _, ho := range r.handovers {
				if ho.Delivery == delivery {
					r.closeHandover(now, ho)
				}
			}
		})
	})
}

// Update changes what may change while a delivery runs. expires is the new common
// expiry; messages already loaded keep the one they were loaded with.
func (r *Relay) Update(ctx context.Context, delivery uint64, pool string, priority int, expires time.Time) error {
	return r.call(ctx, func(now time.Time) {
		for _, ho := range r.handovers {
			if ho.Delivery != delivery {
				continue
			}
			ho.Pool, ho.Priority = pool, priority
			if !ho.Expires.IsZero() {
				ho.Expires = expires
			}
		}
		r.core.UpdateDelivery(now, dispatch.DeliveryID(delivery), pool, priority)
		r.expiry.arm(r)
	})
}

// Suspend stops new attempts of what the selector names, under a name.
func (r *Relay) Suspend(ctx context.Context, name string, sel dispatch.Selector) error {
	return r.call(ctx, func(now time.Time) {
		r.steer(func() { r.core.Suspend(now, name, sel) })
	})
}

// Unsuspend ends the suspension of that name; an unknown one is no error.
func (r *Relay) Unsuspend(ctx context.Context, name string) error {
	return r.call(ctx, func(now time.Time) { r.core.Unsuspend(now, name) })
}

// Waiting says what holds a message that is not final: sending reports that it is
// in a transaction now. A zero Wait means that the relay has no such mail.
func (r *Relay) Waiting(ctx context.Context, id MessageID) (wait dispatch.Wait, sending bool, err error) {
	err = r.call(ctx, func(now time.Time) {
		if h := r.byID[id]; h != nil && h.sending {
			sending = true
			return
		}
		if ho := r.handovers[id.Handover]; ho != nil && ho.run(id.Domain) != nil {
			wait = r.core.Waiting(now, ho.run(id.Domain).id)
		}
	})
	return wait, sending, err
}

// Destinations shows the destinations named, in that order, but for those that have
// neither mail nor a path.
func (r *Relay) Destinations(ctx context.Context, names []string) (views []dispatch.DestinationView, err error) {
	err = r.call(ctx, func(now time.Time) { views = r.core.Destinations(now, append([]string{}, names...)) })
	return views, err
}

// QueueSizes lists all destinations with their queues, in no order.
func (r *Relay) QueueSizes(ctx context.Context) (list []dispatch.QueueSize, err error) {
	err = r.call(ctx, func(now time.Time) { list = r.core.QueueSizes(now) })
	return list, err
}

// Totals are the sums over all destinations.
func (r *Relay) Totals(ctx context.Context) (t dispatch.Totals, err error) {
	err = r.call(ctx, func(now time.Time) { t = r.core.Totals(now) })
	return t, err
}

// Destination is the view of one destination; found is false when it has no mail and no path.
func (r *Relay) Destination(ctx context.Context, name string) (view dispatch.DestinationView, found bool, err error) {
	err = r.call(ctx, func(now time.Time) { view, found = r.core.Destination(now, name) })
	return view, found, err
}

// Explain is what the core knows of a recipient domain; found is false when it has no mail.
func (r *Relay) Explain(ctx context.Context, domain string) (view dispatch.DomainView, found bool, err error) {
	err = r.call(ctx, func(now time.Time) { view, found = r.core.Explain(now, domain) })
	return view, found, err
}

// holdDelivery tells that a reaction of the MX rules wants a delivery paused.
func (r *Relay) holdDelivery(a *dispatch.Action) {
	if r.cfg.Hold == nil || r.stopping {
		return
	}
	for _, ho := range r.handovers {
		if dispatch.DeliveryID(ho.Delivery) == a.Delivery {
			r.cfg.Hold(ho.DeliveryID, "at "+a.Destination+": "+a.Text)
			return
		}
	}
}
