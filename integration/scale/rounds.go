package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A backlog that stays small: deliveries of sc.Recipients each are taken in beforehand and
// started one after the other, each to domains of its own, when half of the one before it is
// out. So a small queue is measured for as long as a large one is, with the
// look-ups, connections, collections and compactions that mail of such a kind costs in the
// long run.

// round is the name of a delivery and where its recipients begin.
func (r *rig) round(k int) (id string, address func(int) string) {
	if k == 0 {
		return "bulk", r.healthy
	}
	return fmt.Sprintf("bulk-%d", k), func(i int) string {
		return fmt.Sprintf("u%d@r%d.test", i, k*r.sc.Domains+i%r.sc.Domains)
	}
}

// destination is where the domain with this number is received. Where each domain has a
// destination of its own, those of each round have.
func (sc scenario) destination(domain int) int {
	if sc.Destinations >= sc.Domains {
		return domain
	}
	return domain % max(sc.Destinations, 1)
}

// inTurn starts the rounds and measures from the second to the last.
func (r *rig) inTurn(ctx context.Context) (err error) {
	size := int64(r.sc.Recipients)
	var low, high int64
	var from, to time.Time
	var used time.Duration
	perr := r.node.profile(r.sc.profile, func() {
		for k := 1; k < r.sc.Rounds && err == nil; k++ {
			if err = r.taken(ctx, int64(k)*size-size/2); err != nil {
				return
			}
			if k == 1 {
				low, from, used = r.sink.taken.Load(), time.Now(), cpuTime(r.node.pid())
			}
			id, _ := r.round(k)
			err = r.startDelivery(ctx, id)
		}
		high, to = r.sink.taken.Load(), time.Now()
		used = cpuTime(r.node.pid()) - used
	})
	if err := errors.Join(err, perr); err != nil {
		return err
	}
	r.res.PerSecond = float64(high-low) / to.Sub(from).Seconds()
	r.res.CPUPerThousand = used.Seconds() / float64(high-low) * 1000
	return nil
}

// taken waits until the receivers have so many messages.
func (r *rig) taken(ctx context.Context, n int64) error {
	for deadline := time.Now().Add(5 * time.Minute); r.sink.taken.Load() < n; {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d messages came within five minutes, want %d", r.sink.taken.Load(), n)
		}
		if !pause(ctx, 2*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}
