package virtual

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// A transaction under way gets its time when the relay stops, and nothing is left claimed.
func TestGracefulStop(t *testing.T) {
	seeded(t, 4, func(t *testing.T, rng *rand.Rand) {
		r := newRig(t, busy(rng))
		recipients := append(many(200, "a.example", "b.example"), "slow@c.example")
		r.world.delays["slow@c.example"] = 20 * time.Second
		r.start("d", 84*time.Hour, recipients...)
		time.Sleep(500*time.Millisecond + time.Duration(rng.Int64N(int64(time.Second))))
		began := time.Now()
		r.close()
		if took := time.Since(began); took > 21*time.Second {
			t.Errorf("stopped after %v", took)
		}
		r.open()
		if len(r.lost) != 0 {
			t.Errorf("claims are left: %v", r.lost)
		}
		if d := r.await("d", time.Hour); d.Counters.Sent != 201 || d.Counters.Attempts != 201 {
			t.Errorf("counters %+v", d.Counters)
		}
		r.books(recipients)
		r.close()
	})
}

// At the end of its grace a transaction is broken off: if its content was out the
// event says that the mail may have arrived. Nothing is left claimed.
func TestStopAtTheEndOfGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.world.delays["slow@a.example"] = 5 * time.Minute
		r.start("d", 84*time.Hour, "slow@a.example")
		pass(time.Second)
		began := time.Now()
		r.close()
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("stopped after %v", took)
		}
		r.world.change(func() { clear(r.world.delays) })
		r.open()
		if len(r.lost) != 0 {
			t.Errorf("claims are left: %v", r.lost)
		}
		r.await("d", time.Hour)
		events := r.events("slow@a.example")
		if len(events) != 2 || !events[0].GetDeliveryUncertain() || typeName(events[1]) != "delivered" {
			t.Errorf("events %v", events)
		}
		pass(5 * time.Minute)
		r.close()
	})
}

// A relay told to stop at once leaves what it cannot settle any more to the next one,
// which lists it.
func TestStopAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		recipients := []string{"slow@a.example", "slow@b.example", "quick@c.example"}
		for _, to := range recipients[:2] {
			r.world.delays[to] = 5 * time.Minute
		}
		r.start("d", 84*time.Hour, recipients...)
		pass(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.relay.Stop(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("stop: %v", err)
		}
		if err := r.store.Close(); err != nil {
			t.Error(err)
		}
		r.world.change(func() { clear(r.world.delays) })
		r.open()
		if len(r.lost) > 2 {
			t.Errorf("lost %v, but two were under way", r.lost)
		}
		if d := r.await("d", time.Hour); d.Counters.Sent != 3 {
			t.Errorf("counters %+v", d.Counters)
		}
		r.books(recipients)
		pass(5 * time.Minute)
		r.close()
	})
}
