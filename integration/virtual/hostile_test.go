package virtual

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A receiver that hangs up at once, wherever it does so, is neither dialled nor
// bothered without end, and its mail is kept.
func TestHangUps(t *testing.T) {
	for name, story := range map[string]struct {
		verb         string
		dials, mails int // at most, in the first hour
	}{
		// Three sessions that end before a message make the host's failure; then the path backs off.
		"behind EHLO": {verb: "EHLO", dials: 30, mails: 0},
		// Each is an attempt of one message: 20 at once, and again after 20 and 40 minutes.
		"at MAIL": {verb: "MAIL", dials: 70, mails: 60},
		// The server takes one message a connection.
		"behind RCPT": {verb: "RCPT", dials: 70, mails: 60},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				defer r.close()
				r.world.hangUp["a.example"] = story.verb
				r.start("d", 84*time.Hour, many(20, "a.example")...)
				pass(time.Hour)
				l := r.world.seen("mx.a.example")
				if len(l.dials) > story.dials || len(l.mails) > story.mails {
					t.Errorf("%d dials, %d transactions in the first hour", len(l.dials), len(l.mails))
				}
				// MAIL may cross the end of the line: then it is an attempt that the receiver never heard of.
				unheard := int64(0)
				if story.verb == "EHLO" {
					unheard = int64(len(l.dials))
				}
				// Those whose groups broke before their host was spoken to more simply were not tried.
				heard, returned := int64(len(l.mails)), int64(4)
				if d := r.delivery("d"); d.Counters.InRelay != 20 || d.Counters.Attempts < heard-returned || d.Counters.Attempts > heard+unheard {
					t.Errorf("counters %+v", d.Counters)
				}
				r.world.change(func() { clear(r.world.hangUp) })
				if d := r.await("d", 3*time.Hour); d.Counters.Sent != 20 {
					t.Errorf("counters %+v", d.Counters)
				}
			})
		})
	}
}

// RFC 5321 section 4.5.3.2.6: the reply to the final dot may take ten minutes.
func TestSlowFinalReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		r.world.delays["nine@a.example"] = 9 * time.Minute
		r.world.delays["eleven@b.example"] = 11 * time.Minute
		r.start("d", 84*time.Hour, "nine@a.example", "eleven@b.example")
		pass(15 * time.Minute)
		r.world.change(func() { clear(r.world.delays) })
		r.await("d", time.Hour)
		if h := r.history("nine@a.example"); len(h) != 1 || h[0] != "delivered@9m0s" {
			t.Errorf("after nine minutes: %v", h)
		}
		events := r.events("eleven@b.example")
		if len(events) != 2 || typeName(events[0]) != "deferred" || !events[0].GetDeliveryUncertain() || typeName(events[1]) != "delivered" {
			t.Errorf("after eleven minutes: %v", events)
		}
		if at := events[0].GetTime().AsTime().Sub(r.began); at != 10*time.Minute {
			t.Errorf("given up after %v", at)
		}
		r.books([]string{"nine@a.example", "eleven@b.example"})
	})
}

// A 421 in the middle of many messages ends one connection and one attempt.
func TestShutdownInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		recipients := many(200, "a.example")
		for _, i := range []int{20, 70, 71, 150} {
			r.world.say(recipients[i], "421 4.3.0 shutting down", "")
		}
		r.world.say(recipients[100], "dot 421 4.3.0 shutting down", "")
		r.start("d", 84*time.Hour, recipients...)
		pass(time.Minute)
		if d := r.delivery("d"); d.Counters.Sent != 195 || d.Counters.Deferred != 5 {
			t.Errorf("after a minute: %+v", d.Counters)
		}
		if d := r.await("d", time.Hour); d.Counters.Sent != 200 || d.Counters.Attempts != 205 {
			t.Errorf("counters %+v", d.Counters)
		}
		r.books(recipients)
	})
}

// A destination that throttles every message is tried ever less often; nobody's
// retry schedule pays for it, and when it is over the mail goes.
func TestThrottledForHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		recipients := many(50, "a.example")
		for _, to := range recipients {
			r.world.say(to, "421 4.7.28 unusual rate of mail, slow down")
		}
		r.start("d", 84*time.Hour, recipients...)
		pass(6 * time.Hour)
		hours := make([]int, 6)
		for _, m := range r.world.seenMails() {
			hours[int(m.at.Sub(r.began)/time.Hour)]++
		}
		if later := hours[3] + hours[4] + hours[5]; hours[0] > 350 || later > 60 || later == 0 {
			t.Errorf("transactions by hour %v", hours)
		}
		r.world.change(func() { clear(r.world.scripts) })
		over := time.Since(r.began)
		if d := r.await("d", 5*time.Hour); d.Counters.Sent != 50 {
			t.Errorf("counters %+v", d.Counters)
		}
		if took := time.Since(r.began) - over; took > 4*time.Hour+10*time.Minute { // the longest rest, and the mail's way
			t.Errorf("the mail went %v after the throttling ended", took)
		}
	})
}

// A server that takes only so many messages on a connection, which no rule says, is
// believed when it says so: the next connections carry no more.
func TestHiddenSessionLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		r.world.session["a.example"] = 12
		recipients := many(600, "a.example")
		r.start("d", 84*time.Hour, recipients...)
		if d := r.await("d", 2*time.Hour); d.Counters.Sent != 600 || d.Counters.Deferred != 0 {
			t.Errorf("counters %+v", d.Counters)
		}
		if d := r.delivery("d"); d.Counters.Attempts > 600+15 {
			t.Errorf("%d attempts for 600 messages: the limit was not learned", d.Counters.Attempts)
		}
		r.books(recipients)
	})
}

// A path at rest after a block gets no mail, then one message at a time.
func TestBlockedPathRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		recipients := many(30, "a.example")
		for _, to := range recipients {
			r.world.say(to, "550 5.7.1 your IP is blocked by spamhaus")
		}
		r.start("d", 84*time.Hour, recipients...)
		pass(14 * time.Minute)
		before := len(r.world.seenMails())
		if before > 10 {
			t.Errorf("%d transactions before the path rested", before)
		}
		pass(30 * time.Minute)
		if n := len(r.world.seenMails()) - before; n == 0 || n > 3 {
			t.Errorf("%d probes after the first rest", n)
		}
		found := false
		for _, e := range r.events("") {
			found = found || typeName(e) == "path_suspended" && strings.Contains(e.GetText(), "spamhaus")
		}
		if !found {
			t.Error("nobody was told that the path rests")
		}
		r.world.change(func() { clear(r.world.scripts) })
		if d := r.await("d", 24*time.Hour); d.Counters.Sent < 20 || d.Counters.Sent+d.Counters.Failed != 30 {
			t.Errorf("counters %+v", d.Counters)
		}
	})
}
