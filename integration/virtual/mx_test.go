package virtual

import (
	"testing"
	"testing/synctest"
	"time"
)

func twoHosts(r *rig) { r.world.hosts["a.example"] = []string{"mx1.a.example", "mx2.a.example"} }

// A host that does not take connections is skipped for a while, and the next one tried.
func TestFirstHostRefusesConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, twoHosts)
		defer r.close()
		r.world.down["mx1.a.example"] = time.Now().Add(30 * time.Minute)
		r.start("d", 84*time.Hour, many(50, "a.example")...)
		if d := r.await("d", time.Minute); d.Counters.Sent != 50 {
			t.Errorf("counters %+v", d.Counters)
		}
		if first, second := r.world.seen("mx1.a.example"), r.world.seen("mx2.a.example"); len(first.dials) > 2 || len(second.mails) != 50 {
			t.Errorf("%d dials of the first host, %d messages to the second", len(first.dials), len(second.mails))
		}
		pass(time.Hour) // the first host is there again, and preferred
		r.start("e", 84*time.Hour, many(5, "a.example")...)
		r.await("e", time.Minute)
		if first := r.world.seen("mx1.a.example"); len(first.mails) != 5 {
			t.Errorf("%d messages to the first host, once it was back", len(first.mails))
		}
	})
}

// What a host says decides whether the next one is tried: a throttling or blocking
// greeting does not move on, nor does any reply to MAIL or later.
func TestWhatMovesOnToTheNextHost(t *testing.T) {
	for name, story := range map[string]struct {
		greeting, rcpt string
		second         bool // the second host is tried
		sent           int64
	}{
		"a greeting that throttles":       {greeting: "421 4.7.0 too many connections from your IP"},
		"a greeting that blocks":          {greeting: "554 5.7.1 your IP is blocked by spamhaus"},
		"a greeting without a service":    {greeting: "421 Service not available, closing transmission channel", second: true, sent: 1},
		"a greeting that is no SMTP":      {greeting: "hello", second: true, sent: 1},
		"a refusal of one mailbox":        {rcpt: "452 4.2.2 mailbox full"},
		"a throttling reply to RCPT":      {rcpt: "451 4.7.0 rate limited, slow down"},
		"a server that closes after RCPT": {rcpt: "421 4.3.0 shutting down"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, twoHosts)
				defer r.close()
				if story.greeting != "" {
					r.world.greeting["mx1.a.example"] = story.greeting
				}
				r.world.say("a@a.example", story.rcpt)
				r.start("d", 84*time.Hour, "a@a.example")
				pass(3 * time.Hour)
				first, second := r.world.seen("mx1.a.example"), r.world.seen("mx2.a.example")
				if (len(second.dials) > 0) != story.second {
					t.Errorf("the second host was dialled %d times", len(second.dials))
				}
				if n := len(first.dials); n == 0 || n > 60 { // often enough to notice within minutes that it is over
					t.Errorf("the first host was dialled %d times in 3 h", n)
				}
				if d := r.delivery("d"); d.Counters.Sent != story.sent {
					t.Errorf("counters %+v", d.Counters)
				}
				if story.greeting != "" && !story.second {
					r.world.change(func() { delete(r.world.greeting, "mx1.a.example") })
					if d := r.await("d", 5*time.Hour); d.Counters.Sent != 1 || d.Counters.Attempts != 1 {
						t.Errorf("once it was over: %+v", d.Counters)
					}
				}
			})
		})
	}
}
