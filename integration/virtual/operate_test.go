package virtual

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/operator"
)

// begin makes work durable, as the server does before it begins.
func (r *rig) begin(id string, kind operator.Kind) mta.Order {
	r.t.Helper()
	now := time.Now()
	if _, _, err := r.store.BeginWork(r.t.Context(), operator.Work{ID: id, Kind: kind, Created: now}, operator.Request{}); err != nil {
		r.t.Fatal(err)
	}
	return mta.Order{ID: id, Began: now}
}

// changed is how many messages work has changed.
func (r *rig) changed(id string) int64 {
	r.t.Helper()
	works, err := r.store.Works(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, w := range works {
		if w.ID == id {
			return w.Count
		}
	}
	r.t.Fatalf("no work %s", id)
	return 0
}

// pace limits every path to so many messages.
func pace(rate string) func(*rig) {
	return rules(fmt.Sprintf("{builtin: false, rules: [{id: all, governor: static, connections: 5, message_rate: %s}]}", rate))
}

// 120 mailboxes of one domain are full, and 30 of another. The first domain's are made
// due at once; they leave at the path's rate, those of the other wait for their time.
func TestRetryNowIsSpreadByThePath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, pace("10/s"))
		defer r.close()
		a, b := many(120, "a.example"), many(30, "b.example")
		for _, to := range append(append([]string{}, a...), b...) {
			r.world.say(to, "452 4.2.2 mailbox full", "")
		}
		d := r.start("d", 84*time.Hour, append(append([]string{}, a...), b...)...)
		pass(2 * time.Minute)
		q := mta.Queue{Delivery: d.No, Destination: "a.example"}
		picked, err := r.relay.CountWaiting(t.Context(), q, true)
		if err != nil || picked.Count != 120 || len(picked.Sample) != 20 || picked.Sample[0].Destination != "a.example" {
			t.Fatalf("dry run: %d, %d samples, %v", picked.Count, len(picked.Sample), err)
		}
		if n := len(r.world.seenMails()); n != 150 {
			t.Fatalf("%d transactions before", n)
		}
		began := time.Now()
		if _, err := r.relay.RetryNow(t.Context(), q, r.begin("w", operator.Retry)); err != nil {
			t.Fatal(err)
		}
		if n := r.changed("w"); n != 120 {
			t.Errorf("%d made due", n)
		}
		if _, err := r.relay.RetryNow(t.Context(), q, mta.Order{ID: "w", Began: began}); err != nil || r.changed("w") != 120 {
			t.Errorf("done again it counts %d, %v", r.changed("w"), err)
		}
		pass(5 * time.Second)
		if n := len(r.world.seen("mx.a.example").mails) - 120; n < 45 || n > 52 {
			t.Errorf("%d retries in 5 s at 10/s", n)
		}
		pass(10 * time.Second)
		if n := len(r.world.seen("mx.b.example").mails); n != 30 {
			t.Errorf("the other destination got %d transactions", n)
		}
		r.await("d", time.Hour)
		r.books(append(a, b...))
	})
}

// Waiting mail is failed while the relay is busy with it, at any moment: every message
// has one end, what was being sent keeps its own, and the count is that of the events.
func TestFailWaitingAtAnyInstant(t *testing.T) {
	seeded(t, 8, func(t *testing.T, rng *rand.Rand) {
		r := newRig(t, busy(rng))
		defer r.close()
		recipients := many(400, "a.example", "b.example", "c.example")
		r.troubled(rng, recipients)
		d := r.start("d", 84*time.Hour, recipients...)
		pass(time.Duration(rng.Int64N(int64(2 * time.Second))))
		picked, err := r.relay.FailWaiting(t.Context(), mta.Queue{Delivery: d.No}, r.begin("w", operator.Fail), "the offer has ended")
		if err != nil {
			t.Fatal(err)
		}
		if r.delivery("d").State != campaign.Finished && len(picked.Sample) != 20 {
			t.Errorf("%d samples", len(picked.Sample))
		}
		sent := len(r.world.seenMails())
		end := r.await("d", 84*time.Hour)
		failed := int64(0)
		for _, e := range r.events("") {
			if e.GetTag() == "failed_by_operator" {
				failed++
				if typeName(e) != "suppressed" || e.GetBounceCode() != 25 || e.GetText() != "the offer has ended" {
					t.Fatalf("event %v", e)
				}
			}
		}
		if n := r.changed("w"); n != failed || n == 0 {
			t.Errorf("work counts %d, events %d", n, failed)
		}
		if end.State != campaign.Finished || end.Counters.InRelay != 0 {
			t.Errorf("delivery %v, %+v", end.State, end.Counters)
		}
		under := map[string]bool{} // way at the order, and told to come again
		for _, m := range r.world.seenMails()[sent:] {
			under[m.to] = true
		}
		if len(under) > 30 {
			t.Errorf("%d messages are tried behind the order", len(under))
		}
		r.books(recipients)
	})
}

// The power fails while 1,200 retries are made due or failed: the work is found again, goes on,
// and has counted each message once.
func TestWorkGoesOnBehindACrash(t *testing.T) {
	seeded(t, 3, func(t *testing.T, rng *rand.Rand) {
		r := newRig(t, crashable, pace("200/s"), func(r *rig) { r.disk = between(rng.Uint64(), time.Millisecond, 5*time.Millisecond) })
		defer func() { r.close() }()
		recipients := many(1200, "a.example")
		for _, to := range recipients {
			r.world.say(to, "452 4.2.2 mailbox full")
		}
		d := r.start("d", 84*time.Hour, recipients...)
		pass(time.Minute)
		if err := r.relay.Suspend(t.Context(), "hold", everything()); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		q, order := mta.Queue{Delivery: d.No}, r.begin("w", operator.Retry)
		fail := rng.IntN(2) == 0
		work := func() error {
			var err error
			if fail {
				_, err = r.relay.FailWaiting(t.Context(), q, order, "over")
			} else {
				_, err = r.relay.RetryNow(t.Context(), q, order)
			}
			return err
		}
		broken := make(chan error, 1)
		go func() { broken <- work() }()
		time.Sleep(time.Duration(rng.IntN(25)) * time.Millisecond)
		r.crash(rng)
		<-broken
		if err := r.relay.Suspend(t.Context(), "hold", everything()); err != nil {
			t.Fatal(err)
		}
		t.Logf("fail %v: %d of 1200 changed before the crash", fail, r.changed("w"))
		if err := work(); err != nil {
			t.Fatal(err)
		}
		if n := r.changed("w"); n != 1200 {
			t.Errorf("work counts %d of 1200", n)
		}
		if c := r.delivery("d"); fail && (c.State != campaign.Finished || c.Counters.Failed != 1200) {
			t.Errorf("delivery %v, %+v", c.State, c.Counters)
		}
		picked, err := r.relay.CountWaiting(t.Context(), q, true)
		if err != nil || picked.Count != 0 {
			t.Errorf("%d retries wait still, %v", picked.Count, err)
		}
	})
}

// An override is in force at once and ends by itself; a reset ends a rest. Nobody else notices.
func TestOverrideAndReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, pace("10/s"))
		defer r.close()
		r.start("d", 84*time.Hour, many(3000, "a.example", "b.example")...)
		pass(10 * time.Second)
		slow := dispatch.Override{
			Destination: "a.example", Until: time.Now().Add(time.Minute),
			Values: mxrules.Override{Set: mxrules.FieldsOf(mxrules.FieldMessageRate), Limits: mxrules.Limits{MessageRate: mxrules.Rate{Count: 1, Per: time.Second}}},
		}
		if err := r.relay.Override(t.Context(), slow); err != nil {
			t.Fatal(err)
		}
		count := func(host string, during time.Duration) int {
			before := len(r.world.seen(host).mails)
			pass(during)
			return len(r.world.seen(host).mails) - before
		}
		if n := count("mx.a.example", 30*time.Second); n < 28 || n > 32 {
			t.Errorf("%d messages in 30 s at 1/s", n)
		}
		if n := count("mx.b.example", 10*time.Second); n < 95 || n > 102 {
			t.Errorf("the other destination got %d messages in 10 s at 10/s", n)
		}
		pass(20 * time.Second)
		if n := count("mx.a.example", 10*time.Second); n < 95 || n > 102 {
			t.Errorf("%d messages in 10 s behind the override's end", n)
		}
		r.world.change(func() { r.world.greeting["a.example"] = "554 5.7.1 blocked for bad reputation" })
		pass(5 * time.Second)
		if n := count("mx.a.example", time.Minute); n > 60 {
			t.Errorf("%d messages although it is blocked", n)
		}
		r.world.change(func() { delete(r.world.greeting, "a.example") })
		if err := r.relay.ResetPaths(t.Context(), "", "a.example"); err != nil {
			t.Fatal(err)
		}
		if n := count("mx.a.example", 10*time.Second); n < 90 {
			t.Errorf("%d messages in 10 s behind the reset", n)
		}
	})
}

// A path that is throttled over and over is one event a minute, which says how many
// changes it stands for.
func TestPathEventsAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rules("{builtin: false, rules: [{id: all, connections: 5, message_rate: 50/s}]}"))
		defer r.close()
		recipients := many(1500, "a.example")
		for i, to := range recipients {
			if i%40 == 39 {
				r.world.say(to, "421 4.7.0 too many messages, slow down", "")
			}
		}
		r.start("d", 84*time.Hour, recipients...)
		pass(20 * time.Minute)
		var last time.Time
		stands, changes := 0, 0
		for _, e := range r.events("") {
			if !strings.HasPrefix(typeName(e), "path_") {
				continue
			}
			at := e.GetTime().AsTime()
			if gap := at.Sub(last); changes > 0 && gap < time.Minute {
				t.Errorf("two events within %v: %s", gap, e.GetText())
			}
			last = at
			changes++
			if strings.Contains(e.GetText(), " changes since ") {
				stands++
			}
		}
		if changes < 2 || stands == 0 {
			t.Errorf("%d events, %d of which stand for several changes", changes, stands)
		}
	})
}
