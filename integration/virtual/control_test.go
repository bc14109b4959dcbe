package virtual

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/server/campaign"
)

// busy gives receivers and disk some time of their own, so that whatever happens
// happens in the middle of transactions, claims and settlements.
func busy(rng *rand.Rand) func(*rig) {
	return func(r *rig) {
		r.world.latency = between(rng.Uint64(), time.Millisecond, 80*time.Millisecond)
		r.disk = between(rng.Uint64(), 0, 10*time.Millisecond)
	}
}

// between answers random durations to any number of goroutines.
func between(seed uint64, least, most time.Duration) func() time.Duration {
	rng := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return least + time.Duration(rng.Int64N(int64(most-least)))
	}
}

// troubled makes some recipients fail for a while, in several ways.
func (r *rig) troubled(rng *rand.Rand, recipients []string) {
	scripts := [][]string{
		{"452 4.2.2 mailbox full", ""},
		{"451 4.7.1 Greylisted, please try again later", ""},
		{"550 5.1.1 user unknown"},
		{"dot 451 4.3.0 try later", ""},
		{"drop", ""},
		{"421 4.3.0 shutting down", ""},
		{"451 4.7.0 rate limited, slow down", ""},
	}
	for _, to := range recipients {
		if rng.IntN(5) == 0 {
			r.world.say(to, scripts[rng.IntN(len(scripts))]...)
		}
	}
}

// underWay notes what is under way; what it answers lets it end, and judges that nothing
// else began. Each connection may have an envelope on the wire behind a content: the
// receiver sees it, but never its content.
func (r *rig) underWay() func(what string) {
	open, mails, bodies := r.world.connections(), len(r.world.seenMails()), r.world.total()
	return func(what string) {
		r.t.Helper()
		pass(time.Second)
		if n := len(r.world.seenMails()) - mails; n > open {
			r.t.Errorf("%d transactions seen on %d connections when %s", n, open, what)
		}
		if n := r.world.total() - bodies; n > open {
			r.t.Errorf("%d contents came on %d connections when %s", n, open, what)
		}
	}
}

// Paused and resumed at any instant, and restarted between: nothing begins while
// paused, nothing is left out and nothing is sent twice.
func TestPausesAtAnyInstant(t *testing.T) {
	seeded(t, 6, func(t *testing.T, rng *rand.Rand) {
		r := newRig(t, busy(rng))
		defer func() { r.close() }()
		recipients := many(400, "a.example", "b.example", "c.example", "d.example")
		r.troubled(rng, recipients)
		r.start("d", 84*time.Hour, recipients...)
		for range 12 {
			pass(time.Duration(rng.Int64N(int64(700 * time.Millisecond))))
			if over(r.delivery("d")) {
				break
			}
			settled := r.underWay()
			r.pause("d")
			if rng.IntN(3) == 0 {
				r.close()
				r.open()
				if len(r.lost) != 0 {
					t.Errorf("a graceful stop left claims: %v", r.lost)
				}
			}
			settled("paused")
			before := len(r.world.seenMails())
			pass(2*time.Second + time.Duration(rng.Int64N(int64(time.Minute))))
			if after := len(r.world.seenMails()); after != before {
				t.Errorf("%d transactions began while paused", after-before)
			}
			if d := r.delivery("d"); d.State == campaign.Paused && d.Counters.Claimed != 0 {
				t.Errorf("still claimed while paused: %+v", d.Counters)
			}
			if !over(r.delivery("d")) {
				r.resume("d")
			}
		}
		d := r.await("d", 84*time.Hour)
		if d.Counters.Sent+d.Counters.Failed != 400 {
			t.Errorf("counters %+v", d.Counters)
		}
		r.books(recipients)
	})
}

// Cancelled at any instant: nothing begins behind it, transactions under way keep
// their outcome, and every message has one end.
func TestCancelAtAnyInstant(t *testing.T) {
	seeded(t, 8, func(t *testing.T, rng *rand.Rand) {
		r := newRig(t, busy(rng))
		defer r.close()
		recipients := many(300, "a.example", "b.example", "c.example")
		r.troubled(rng, recipients)
		r.start("d", 84*time.Hour, recipients...)
		pass(time.Duration(rng.Int64N(int64(3 * time.Second))))
		settled := r.underWay()
		r.cancel("d")
		settled("cancelled")
		before := len(r.world.seenMails())
		d := r.await("d", 10*time.Minute)
		pass(2 * time.Hour)
		if after := len(r.world.seenMails()); after != before {
			t.Errorf("%d transactions began behind the cancel", after-before)
		}
		ends := d.Counters.Sent + d.Counters.Failed + d.Counters.Cancelled
		if ends != 300 || d.Counters.InRelay != 0 {
			t.Errorf("counters %+v", d.Counters)
		}
		r.books(recipients)
	})
}

// A suspension of whatever kind takes effect at once, stops nothing else, and ends.
func TestSuspensions(t *testing.T) {
	for name, sel := range map[string]dispatch.Selector{
		"everything":    everything(),
		"tenant":        {Kind: dispatch.ByTenant, Value: "default"},
		"sender domain": {Kind: dispatch.BySenderDomain, Value: "sender.example"},
		"destination":   {Kind: dispatch.ByDestination, Value: "a.example"},
		"source":        {Kind: dispatch.BySource, Value: "s1"},
		"delivery":      {Kind: dispatch.ByDelivery},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(1, 2))
				r := newRig(t, busy(rng))
				defer r.close()
				recipients := many(300, "a.example", "b.example")
				d := r.start("d", 84*time.Hour, recipients...)
				if sel.Kind == dispatch.ByDelivery {
					sel.Delivery = dispatch.DeliveryID(d.No)
				}
				pass(500 * time.Millisecond)
				if err := r.relay.Suspend(t.Context(), "test", sel); err != nil {
					t.Fatal(err)
				}
				stopped := func(host string) int {
					if host == "mx.b.example" && sel.Kind == dispatch.ByDestination {
						return 0
					}
					return len(r.world.seen(host).mails)
				}
				a, b := stopped("mx.a.example"), stopped("mx.b.example")
				if a == 0 {
					t.Fatal("nothing was under way")
				}
				pass(time.Hour)
				if stopped("mx.a.example") != a || stopped("mx.b.example") != b {
					t.Error("transactions began while suspended")
				}
				if n := len(r.world.seen("mx.b.example").mails); sel.Kind == dispatch.ByDestination && n != 150 {
					t.Errorf("the other destination got %d messages", n)
				}
				if err := r.relay.Unsuspend(t.Context(), "test"); err != nil {
					t.Fatal(err)
				}
				if d := r.await("d", time.Hour); d.Counters.Sent != 300 || d.Counters.Attempts != 300 {
					t.Errorf("counters %+v", d.Counters)
				}
				r.books(recipients)
			})
		})
	}
}
