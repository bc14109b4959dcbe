package virtual

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// The receiver's own ledger finds no limit exceeded: connections and messages per
// connection without slack, rates over any window by no more than their burst and
// one second's worth.
func TestLimitsHoldAtTheReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, rules(`
rules:
  - id: narrow
    match: {mx: "mx.narrow.example"}
    connections: 3
    messages_per_connection: 7
    connection_rate: 12/min burst 3
  - id: slow
    match: {mx: "mx.slow.example"}
    connections: 5
    message_rate: 2/s burst 4
  - id: single
    match: {mx: "mx.single.example"}
    connections: 1
    messages_per_connection: 1
`))
		defer r.close()
		r.world.latency = func() time.Duration { return 40 * time.Millisecond }
		r.start("d", 84*time.Hour, many(900, "narrow.example", "slow.example", "single.example")...)
		d := r.await("d", 3*time.Hour)
		if d.Counters.Sent != 900 || d.Counters.Attempts != 900 {
			t.Errorf("counters %+v", d.Counters)
		}
		for _, limit := range []struct {
			host                     string
			connections, longest     int
			dials, mails, per, burst int
		}{
			{host: "mx.narrow.example", connections: 3, longest: 7, dials: 12, per: 60, burst: 3},
			{host: "mx.slow.example", connections: 5, longest: 100, mails: 2, per: 1, burst: 4},
			{host: "mx.single.example", connections: 1, longest: 1},
		} {
			l := r.world.seen(limit.host)
			if l.most > limit.connections || l.longest > limit.longest {
				t.Errorf("%s: %d connections at once, %d messages on one", limit.host, l.most, l.longest)
			}
			per := time.Duration(limit.per) * time.Second
			within(t, limit.host+": dials", l.dials, limit.dials, per, limit.burst)
			within(t, limit.host+": messages", l.mails, limit.mails, per, limit.burst)
			if len(l.mails) != 300 {
				t.Errorf("%s: %d messages", limit.host, len(l.mails))
			}
		}
		if l := r.world.seen("mx.narrow.example"); len(l.dials) > 60 {
			t.Errorf("%d connections for 300 messages, of which each takes 7", len(l.dials))
		}
	})
}

// within checks a rate of count per period over every window that begins and ends
// with an event.
func within(t *testing.T, what string, events []time.Time, count int, per time.Duration, burst int) {
	t.Helper()
	if count == 0 {
		return
	}
	slices.SortFunc(events, time.Time.Compare)
	for i := range events {
		for j := i; j < len(events); j++ {
			window := events[j].Sub(events[i]) + time.Second
			if allowed := float64(count)*window.Seconds()/per.Seconds() + float64(burst); float64(j-i+1) > allowed {
				t.Errorf("%s: %d within %v, want at most %.1f", what, j-i+1, events[j].Sub(events[i]), allowed)
				return
			}
		}
	}
}
