package virtual

import (
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/server/campaign"
)

// Killed and restarted at any instant, with the power cut: nothing is lost, and what
// is sent twice was announced.
func TestCrashesAtAnyInstant(t *testing.T) {
	seeded(t, 8, func(t *testing.T, rng *rand.Rand) {
		r := newRig(t, crashable, busy(rng))
		defer func() { r.close() }()
		recipients := many(400, "a.example", "b.example", "c.example", "d.example")
		r.troubled(rng, recipients)
		r.start("d", 84*time.Hour, recipients...)
		lost := 0
		for range 6 {
			time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
			if over(r.delivery("d")) {
				break
			}
			r.crash(rng)
			lost += len(r.lost)
			r.delivery("d") // balances
		}
		d := r.await("d", 84*time.Hour)
		if d.Counters.Sent+d.Counters.Failed != 400 || d.State != campaign.Finished {
			t.Errorf("counters %+v", d.Counters)
		}
		r.books(recipients)
		if lost == 0 {
			t.Log("no crash hit a claim")
		}
	})
}

// A message that three processes died of is not tried again.
func TestThreeLostClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 1))
		r := newRig(t, crashable)
		defer func() { r.close() }()
		r.world.delays["poison@a.example"] = time.Hour
		r.start("d", 84*time.Hour, "poison@a.example", "fine@b.example")
		for i := range 3 {
			pass(time.Minute)
			r.crash(rng)
			if len(r.lost) != 1 || r.lost[0].Claims != i+1 {
				t.Fatalf("crash %d lost %v", i+1, r.lost)
			}
		}
		d := r.await("d", time.Hour)
		if d.Counters.Sent != 1 || d.Counters.Failed != 1 || d.Counters.Attempts != 1 {
			t.Errorf("counters %+v", d.Counters)
		}
		events := r.events("poison@a.example")
		if len(events) != 1 || events[0].GetBounceCode() != 25 || !events[0].GetDeliveryUncertain() || !strings.Contains(events[0].GetText(), "crashes") || events[0].GetMessageId() == "" {
			t.Errorf("events %v", events)
		}
		if n := len(r.world.instants("poison@a.example")); n != 3 {
			t.Errorf("%d attempts", n)
		}
		r.books([]string{"poison@a.example", "fine@b.example"})
	})
}

// A delivery that is paused, or cancelled, when the process dies is so afterwards.
func TestCrashWhilePausedOrCancelled(t *testing.T) {
	seeded(t, 3, func(t *testing.T, rng *rand.Rand) {
		r := newRig(t, crashable, busy(rng))
		defer func() { r.close() }()
		paused, cancelled := many(100, "a.example"), many(100, "b.example")
		r.start("p", 84*time.Hour, paused...)
		r.start("c", 84*time.Hour, cancelled...)
		time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
		r.pause("p")
		r.cancel("c")
		r.crash(rng)
		before := len(r.world.seenMails())
		pass(time.Hour)
		if after := len(r.world.seenMails()); after != before {
			t.Errorf("%d transactions began after the restart", after-before)
		}
		if d := r.delivery("c"); d.Counters.InRelay != 0 || d.Counters.Sent+d.Counters.Cancelled != 100 {
			t.Errorf("cancelled: %+v", d.Counters)
		}
		r.resume("p")
		if d := r.await("p", time.Hour); d.Counters.Sent != 100 {
			t.Errorf("paused: %+v", d.Counters)
		}
		r.books(paused)
	})
}
