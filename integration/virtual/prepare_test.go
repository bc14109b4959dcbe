package virtual

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// A message whose rendering fails ends Failed with the template's error, and holds
// nobody up.
func TestRenderErrorEndsOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		recipients := many(100, "a.example")
		for i := range recipients {
			recipients[i] += ` {"rows": 3}`
		}
		recipients[0] = `bad@a.example {"rows": 200000}`
		recipients[50] = `worse@a.example {"rows": 1000000000}`
		r.startAs("d", 84*time.Hour, &veredusv1.Delivery{Content: &veredusv1.Content{
			Subject: "Rows", Text: "{% for i in (1..rows) %}.{% endfor %}",
		}}, recipients...)
		d := r.await("d", time.Minute)
		if d.Counters.Sent != 98 || d.Counters.Failed != 2 || d.Counters.Attempts != 98 {
			t.Errorf("counters %+v", d.Counters)
		}
		for _, to := range []string{"bad@a.example", "worse@a.example"} {
			events := r.events(to)
			if len(events) != 1 {
				t.Fatalf("%s: %v", to, events)
			}
			e := events[0]
			if typeName(e) != "bounced" || e.GetBounceCode() != 25 || e.GetReason() != veredusv1.FailureReason_FAILURE_REASON_UNREACHABLE ||
				!strings.Contains(e.GetText(), "100000") || e.GetAttempt() != 0 || e.GetReplyCode() != 0 {
				t.Errorf("%s ended as %v", to, e)
			}
		}
	})
}

// Mail whose signing key is gone waits for it, unsent and unfailed.
func TestMissingKeyDefers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var settings mta.Settings
		r := newRig(t, func(r *rig) {
			r.configure(func(c *mta.Config) {
				settings = c.Settings
				c.Settings.Keys = nil
			})
		})
		defer r.close()
		r.start("d", 84*time.Hour, many(10, "a.example")...)
		pass(30 * time.Minute)
		if d := r.delivery("d"); d.Counters.Deferred != 10 || d.Counters.Attempts != 0 || len(r.world.seenMails()) != 0 {
			t.Errorf("counters %+v", d.Counters)
		}
		e := r.events("u0@a.example")[0]
		if typeName(e) != "deferred" || !e.GetWillRetry() || !strings.Contains(e.GetText(), "no DKIM key") || e.GetBounceCode() != 25 {
			t.Errorf("deferred as %v", e)
		}
		if err := r.relay.Apply(t.Context(), settings); err != nil {
			t.Fatal(err)
		}
		if d := r.await("d", time.Hour); d.Counters.Sent != 10 {
			t.Errorf("counters %+v", d.Counters)
		}
	})
}

// A repeat keeps its Message-ID and return path although the bounce domain changed
// between the attempts.
func TestMessageIDSurvivesANewBounceDomain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var settings mta.Settings
		r := newRig(t, func(r *rig) { r.configure(func(c *mta.Config) { settings = c.Settings }) })
		defer r.close()
		r.world.say("a@a.example", "dot 451 4.3.0 try later", "")
		r.start("d", 84*time.Hour, "a@a.example")
		pass(time.Minute)
		settings.BounceDomain = func(from string) string { return "returns." + from }
		if err := r.relay.Apply(t.Context(), settings); err != nil {
			t.Fatal(err)
		}
		r.await("d", time.Hour)
		events := r.events("a@a.example")
		if len(events) != 2 || events[0].GetMessageId() == "" || events[0].GetMessageId() != events[1].GetMessageId() {
			t.Errorf("events %v", events)
		}
		if bodies := r.world.received("a@a.example"); len(bodies) != 2 || unsigned(bodies[0]) != unsigned(bodies[1]) {
			t.Errorf("the repeat is another mail: %v", bodies)
		}
	})
}
