package virtual

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

// 84 hours, once, with everything in them that takes so long.
func TestEightyFourHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		r.world.say("full@a.example", "452 4.2.2 mailbox full")
		r.world.down["dead.example"] = time.Now().Add(1000 * time.Hour)
		r.start("full", 5*24*time.Hour, "full@a.example")
		r.start("dead", 84*time.Hour, "a@dead.example")
		single := r.sendExpiring()
		full, dead := r.await("full", 100*time.Hour), r.await("dead", time.Hour)
		pass(time.Minute)
		r.checkFull(full)
		r.checkDead(dead)
		r.checkExpired(single)
	})
}

// A mailbox that is full for good is tried on Momentum's schedule: 20 min, doubling,
// at most 12 h apart, each up to 10 % later; it expires at exactly 84 h.
func (r *rig) checkFull(d *campaign.Delivery) {
	t := r.t
	t.Helper()
	instants := r.world.instants("full@a.example")
	wait := 20 * time.Minute
	for i := 1; i < len(instants); i++ {
		gap := instants[i] - instants[i-1]
		if gap < wait || gap >= wait+wait/10+time.Second {
			t.Errorf("attempt %d came %v after the one before, want %v to 10 %% more", i+1, gap, wait)
		}
		wait = min(2*wait, 12*time.Hour)
	}
	if n := len(instants); n < 11 || n > 12 {
		t.Errorf("%d attempts in 84 h: %v", n, instants)
	}
	history := r.history("full@a.example")
	if last := history[len(history)-1]; last != "expired@84h0m0s" {
		t.Errorf("the last event is %s", last)
	}
	last := r.events("full@a.example")[len(history)-1]
	if last.GetBounceCode() != 24 || last.GetReason() != veredusv1.FailureReason_FAILURE_REASON_UNREACHABLE || !strings.Contains(last.GetText(), "mailbox full") ||
		last.GetReplyCode() != 452 || last.GetEnhancedCode() != "4.2.2" || last.GetTag() != "mailbox_full" {
		t.Errorf("expired as %v", last)
	}
	if d.Counters.Failed != 1 || d.Counters.Attempts != int64(len(instants)) {
		t.Errorf("counters %+v", d.Counters)
	}
}

// Failures before MAIL belong to the path: it backs off 1 min doubling to 1 h, the
// message is neither charged nor written, and expires with the path's error as text.
func (r *rig) checkDead(d *campaign.Delivery) {
	t := r.t
	t.Helper()
	events := r.events("a@dead.example")
	if len(events) != 1 || typeName(events[0]) != "expired" || events[0].GetAttempt() != 0 {
		t.Fatalf("events %v", events)
	}
	if text := events[0].GetText(); !strings.Contains(text, "refused") {
		t.Errorf("expired with text %q", text)
	}
	if d.Counters.Attempts != 0 {
		t.Errorf("counters %+v", d.Counters)
	}
	if n := len(r.world.seen("mx.dead.example").dials); n < 84 || n > 84+10 {
		t.Errorf("%d dials in 84 h", n)
	}
}

// Repeats keep Message-ID, Date and body.
func TestEveryAttemptIsTheSameMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		r.world.say("a@a.example", "dot 451 4.3.0 try later", "dot 451 4.3.0 try later", "")
		r.start("d", 84*time.Hour, "a@a.example")
		r.await("d", 84*time.Hour)
		bodies := r.world.received("a@a.example")
		if len(bodies) != 3 {
			t.Fatalf("%d contents", len(bodies))
		}
		for i := range bodies {
			if unsigned(bodies[i]) != unsigned(bodies[0]) {
				t.Errorf("attempt %d differs:\n%s\n--- from\n%s", i+1, bodies[i], bodies[0])
			}
		}
	})
}

// Greylisting is retried once soon, in 5 to 15 minutes.
func TestGreylisting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		r.world.say("grey@a.example", "451 4.7.1 Greylisted, please try again later", "")
		r.start("d", 84*time.Hour, "grey@a.example")
		r.await("d", time.Hour)
		at := r.world.instants("grey@a.example")
		if len(at) != 2 || at[1] < 5*time.Minute || at[1] > 15*time.Minute+time.Second {
			t.Errorf("attempts at %v", at)
		}
	})
}

// A 5xx that no rule names gets one more attempt after 20 minutes, then it is final.
func TestUnmatchedPermanentReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		r.world.say("odd@a.example", "550 the moon is in the wrong house")
		r.start("d", 84*time.Hour, "odd@a.example")
		r.await("d", 24*time.Hour)
		at := r.world.instants("odd@a.example")
		if len(at) != 2 || at[1]-at[0] < 20*time.Minute || at[1]-at[0] > 20*time.Minute+time.Second {
			t.Errorf("attempts at %v", at)
		}
	})
}

// The line ends between the content and its reply: the retry may be a repeat, and
// the event says so.
func TestDropBeforeTheReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		r.world.say("drop@a.example", "drop", "")
		r.start("d", 84*time.Hour, "drop@a.example")
		d := r.await("d", 24*time.Hour)
		events := r.events("drop@a.example")
		if len(events) != 2 || !events[0].GetDeliveryUncertain() || events[1].GetType() != veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED {
			t.Errorf("events %v", events)
		}
		if d.Counters.Sent != 1 || len(r.world.received("drop@a.example")) != 2 {
			t.Errorf("counters %+v", d.Counters)
		}
	})
}

// A path that comes back delivers within its back-off.
func TestPathComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		r.world.down["a.example"] = time.Now().Add(10 * time.Minute)
		r.start("d", 84*time.Hour, "a@a.example", "b@a.example")
		d := r.await("d", 2*time.Hour)
		if d.Counters.Sent != 2 {
			t.Errorf("counters %+v", d.Counters)
		}
		if at := r.world.instants("a@a.example"); len(at) != 1 || at[0] < 10*time.Minute || at[0] > 20*time.Minute {
			t.Errorf("attempts at %v", at)
		}
	})
}

func TestDomainsThatTakeNoMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		r.start("d", 84*time.Hour, "a@nx.example", "b@nx.example", "c@null.example", "d@ok.example")
		d := r.await("d", time.Hour)
		if d.Counters.Sent != 1 || d.Counters.Failed != 3 || d.Counters.Attempts != 1 {
			t.Errorf("counters %+v", d.Counters)
		}
		for recipient, code := range map[string]int32{"a@nx.example": 21, "b@nx.example": 21, "c@null.example": 10} {
			events := r.events(recipient)
			if len(events) != 1 || events[0].GetBounceCode() != code || events[0].GetType() != veredusv1.FeedbackType_FEEDBACK_TYPE_BOUNCED {
				t.Errorf("%s: %v", recipient, events)
			}
		}
	})
}

// A dead destination with mail for it delays nobody.
func TestNoHeadOfLineBlocking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		r.world.down["dead.example"] = time.Now().Add(1000 * time.Hour)
		var recipients []string
		for i := range 500 {
			recipients = append(recipients, numbered(i, "dead.example"))
		}
		for i := range 50 {
			recipients = append(recipients, numbered(i, "live.example"))
		}
		r.start("d", 84*time.Hour, recipients...)
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		if d := r.delivery("d"); d.Counters.Sent != 50 {
			t.Errorf("counters %+v", d.Counters)
		}
	})
}

func numbered(i int, domain string) string {
	return string(rune('a'+i%26)) + strings.Repeat("x", i/26) + "@" + domain
}

// No order of events leaves a message out or sends it twice.
func TestExactlyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var recipients []string
		for i := range 400 {
			recipients = append(recipients, numbered(i, "d"+string(rune('a'+i%7))+".example"))
		}
		r.start("d", 84*time.Hour, recipients...)
		time.Sleep(time.Second)
		r.pause("d")
		time.Sleep(time.Hour)
		before := r.world.total()
		time.Sleep(time.Hour)
		if after := r.world.total(); after != before {
			t.Errorf("%d messages were sent while paused", after-before)
		}
		r.close() // a restart while paused
		r.open()
		if len(r.lost) != 0 {
			t.Errorf("a graceful stop left claims: %v", r.lost)
		}
		r.resume("d")
		d := r.await("d", 24*time.Hour)
		if d.Counters.Sent != int64(len(recipients)) {
			t.Errorf("counters %+v", d.Counters)
		}
		for _, recipient := range recipients {
			if n := len(r.world.received(recipient)); n != 1 {
				t.Errorf("%s was sent %d times", recipient, n)
			}
		}
		r.close()
	})
}

// Validity goes on while everything is suspended, and ends at its instant.
func TestExpiryUnderSuspension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		if err := r.relay.Suspend(t.Context(), "s", everything()); err != nil {
			t.Fatal(err)
		}
		var recipients []string
		for i := range 600 {
			recipients = append(recipients, numbered(i, "a.example"))
		}
		r.start("d", 3*time.Hour, recipients...)
		d := r.await("d", 4*time.Hour)
		if d.Counters.Failed != 600 || d.Counters.Attempts != 0 || r.world.conns != 0 {
			t.Errorf("counters %+v, %d connections", d.Counters, r.world.conns)
		}
		for _, e := range r.events(recipients[599]) {
			if e.GetTime().AsTime().Sub(r.began) != 3*time.Hour {
				t.Errorf("expired after %v", e.GetTime().AsTime().Sub(r.began))
			}
			if !strings.Contains(e.GetText(), "suspended") {
				t.Errorf("text %q does not say what held it", e.GetText())
			}
		}
	})
}

// The validity of a running delivery can be changed; the new end holds for all of it.
func TestValidityChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		for _, id := range []string{"shorter", "longer"} {
			recipients := many(20, id+".example")
			for _, to := range recipients {
				r.world.say(to, "452 4.2.2 mailbox full")
			}
			r.start(id, 3*time.Hour, recipients...)
		}
		pass(time.Hour)
		ends := map[string]time.Duration{"shorter": 90 * time.Minute, "longer": 5 * time.Hour}
		for id, end := range ends {
			r.change(id, func(d *campaign.Delivery) []campaign.Event { d.Expires = r.began.Add(end); return nil },
				func(d *campaign.Delivery) error { return r.relay.Update(t.Context(), d.No, "default", 50, d.Expires) })
		}
		for id, end := range ends {
			r.await(id, 6*time.Hour)
			for _, to := range many(20, id+".example") {
				history, instants := r.history(to), r.world.instants(to)
				if last := history[len(history)-1]; last != "expired@"+end.String() {
					t.Errorf("%s ended with %s, want its end at %v", to, last, end)
				}
				if last := instants[len(instants)-1]; last > end {
					t.Errorf("%s was tried at %v", to, last)
				}
			}
		}
	})
}

// Cancelling stops at once; a transaction under way keeps its real outcome.
func TestCancelInTheMiddleOfATransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		gate := make(chan struct{})
		r.world.gates["mid@a.example"] = gate
		r.world.say("soft@b.example", "452 4.2.2 mailbox full")
		r.start("d", 84*time.Hour, "mid@a.example", "soft@b.example")
		synctest.Wait()
		time.Sleep(time.Second)
		r.cancel("d")
		if d := r.delivery("d"); d.Counters.Cancelled != 1 || d.Counters.InRelay != 1 {
			t.Errorf("right behind the cancel: %+v", d.Counters)
		}
		close(gate)
		d := r.await("d", time.Minute)
		if d.Counters.Sent != 1 || d.Counters.Cancelled != 1 || d.Finished.IsZero() {
			t.Errorf("finished at %v with counters %+v", d.Finished, d.Counters)
		}
		pass(2 * time.Hour)
		if n := len(r.world.instants("soft@b.example")); n != 1 {
			t.Errorf("%d attempts after a cancel", n)
		}
	})
}

func TestMessageIDsAreTokens(t *testing.T) {
	for _, id := range []mta.MessageID{{Handover: 1, Domain: 1, Order: 1}, {Handover: 1 << 40, Domain: 1<<32 - 1, Lane: 255, Order: 1 << 60}} {
		back, err := mta.ParseMessageID(id.String())
		if err != nil || back != id {
			t.Errorf("%v reads as %v, %v", id, back, err)
		}
	}
	for _, s := range []string{"", "0", "zzzz", "../../etc", strings.Repeat("0", 100)} {
		if id, err := mta.ParseMessageID(s); err == nil && !slices.Contains([]string{id.String()}, s) {
			t.Errorf("%q reads as %v", s, id)
		}
	}
}
