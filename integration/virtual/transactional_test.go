package virtual

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
)

// Transactional mail goes before bulk at a destination that is slow, but leaves bulk
// a part of it.
func TestTransactionalOvertakesBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rules(`
rules:
  - id: slow
    match: {mx: "mx.slow.example"}
    connections: 1
    message_rate: 60/min
`))
		defer r.close()
		r.start("d", 84*time.Hour, many(600, "slow.example")...)
		pass(time.Minute)
		before := len(r.world.seen("mx.slow.example").mails)
		if before < 50 || before > 62 {
			t.Fatalf("%d messages in the first minute", before)
		}
		for _, to := range many(150, "slow.example") {
			r.send("t"+to, 84*time.Hour, "")
		}
		pass(101 * time.Second)
		urgent, bulk := 0, 0
		for _, m := range r.world.seenMails() {
			switch {
			case m.at.Sub(r.began) < time.Minute+time.Second:
			case strings.HasPrefix(m.to, "tu"):
				urgent++
			default:
				bulk++
			}
		}
		if urgent < 88 || bulk < 9 || bulk > 14 {
			t.Errorf("%d transactional and %d bulk messages in 100 s", urgent, bulk)
		}
	})
}

// The relay hears of a transactional message while it reads what is left of others
// from before the restart: none is left out, none is sent twice.
func TestArrivalsDuringRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.world.say("old1@a.example", "452 4.2.2 mailbox full", "")
		if err := r.relay.Suspend(t.Context(), "s", dispatch.Selector{Kind: dispatch.ByDestination, Value: "b.example"}); err != nil {
			t.Fatal(err)
		}
		recipients := []string{"old1@a.example", "old2@b.example", "old3@b.example"}
		for _, to := range recipients {
			r.send(to, 84*time.Hour, "")
		}
		pass(10 * time.Second)
		r.close()
		r.open()
		for _, to := range []string{"new1@a.example", "new2@b.example", "new3@c.example"} {
			recipients = append(recipients, to)
			r.send(to, 84*time.Hour, "")
		}
		pass(10 * time.Minute)
		for _, to := range recipients {
			if n := len(r.world.inbox(to)); n != 1 {
				t.Errorf("%s has %d mails", to, n)
			}
		}
		r.books(recipients)
		r.close()
	})
}

// Each message of a pool leaves by the pool's sources, whichever other pools mail is
// sent through at the same time.
func TestTransactionalPools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(r *rig) {
			r.configure(func(c *mta.Config) {
				c.Settings.Pools = append(c.Settings.Pools, dispatch.Pool{Name: "second", Sources: []dispatch.Source{{Name: "s2", Weight: 1}}})
			})
		})
		defer r.close()
		for i, to := range many(60, "a.example", "b.example") {
			r.send(to, time.Hour, []string{"default", "second", "second"}[i%3])
		}
		pass(time.Minute)
		want := map[string]int{"s1": 20, "s2": 40}
		got := map[string]int{}
		for _, m := range r.world.seenMails() {
			got[m.source]++
		}
		if got["s1"] != want["s1"] || got["s2"] != want["s2"] {
			t.Errorf("messages by source %v, want %v", got, want)
		}
	})
}

// validities of transactional messages that nobody accepts.
var validities = []time.Duration{
	time.Minute, 2 * time.Minute, 5*time.Minute + 500*time.Millisecond, 7 * time.Minute, time.Hour, 3 * time.Hour,
	12 * time.Hour, 24 * time.Hour, 60 * time.Hour, 84 * time.Hour,
}

// sendExpiring sends messages of different validity, half to full mailboxes and half to a dead host.
func (r *rig) sendExpiring() (recipients []string) {
	r.world.change(func() { r.world.down["down.example"] = time.Now().Add(1000 * time.Hour) })
	for i, v := range validities {
		to := many(len(validities), "full.example", "down.example")[i]
		r.world.say(to, "452 4.2.2 mailbox full")
		r.send(to, v, "")
		recipients = append(recipients, to)
	}
	return recipients
}

// checkExpired checks that each of them ended at its instant.
func (r *rig) checkExpired(recipients []string) {
	r.t.Helper()
	for i, to := range recipients {
		history := r.history(to)
		if history[0] != "taken_into_account@0s" {
			r.t.Errorf("%s begins with %s", to, history[0])
		}
		events := r.events(to)
		last := events[len(events)-1]
		after := last.GetTime().AsTime().Sub(r.began)
		if typeName(last) != "expired" || after < validities[i] || after > validities[i]+time.Second {
			r.t.Errorf("%s, valid for %v, ends with %s", to, validities[i], history[len(history)-1])
		}
		text, want := last.GetText(), "mailbox full"
		if i%2 == 1 {
			want = "connection refused"
		}
		if !strings.Contains(text, want) || last.GetBounceCode() != 24 || (last.GetReplyCode() == 452) != (i%2 == 0) {
			r.t.Errorf("%s expired as %v", to, last)
		}
		if attempts := r.world.instants(to); !slices.IsSortedFunc(attempts, func(a, b time.Duration) int { return int(a - b) }) ||
			len(attempts) > 0 && attempts[len(attempts)-1] > validities[i] {
			r.t.Errorf("%s was tried at %v", to, attempts)
		}
	}
}
