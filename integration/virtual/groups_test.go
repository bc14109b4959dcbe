package virtual

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const oneConnection = `
rules:
  - id: one
    match: {mx: "*"}
    connections: 1
    messages_per_connection: 1000
`

// A message costs one round trip through the whole relay, with claims and settlements
// on a disk that takes its time: the next message is claimed, rendered, signed and at
// hand while the one before is on the wire.
func TestOneRoundTripPerMessage(t *testing.T) {
	for _, tt := range []struct {
		name, manner, rule string
		trips              int
	}{
		{name: "pipelining", trips: 1},
		{name: "chunking", manner: "chunking", trips: 1},
		{name: "chunking off", manner: "chunking", rule: "    chunking: off\n", trips: 1},
		{name: "pipelining off", rule: "    pipelining: off\n", trips: 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const messages, roundTrip = 400, 50 * time.Millisecond
				r := newRig(t, rules(oneConnection+tt.rule), func(r *rig) {
					r.disk = func() time.Duration { return 3 * time.Millisecond }
				})
				r.world.distance = roundTrip / 2
				r.world.manner["mx.a.example"] = tt.manner
				start := time.Now()
				recipients := many(messages, "a.example")
				r.start("d", time.Hour, recipients...)
				d := r.await("d", time.Hour)
				took := r.world.instants(recipients[messages-1])[0] // await looks now and then
				for _, to := range recipients {
					took = max(took, r.world.instants(to)[0])
				}
				// The look-up, the connection and the first claim come before the first MAIL.
				if most := (messages*time.Duration(tt.trips) + 12) * roundTrip; took > most {
					t.Errorf("%d messages took %v, at most %v", messages, took, most)
				}
				if d.Counters.Sent != messages || r.world.conns != 1 {
					t.Errorf("%d sent over %d connections in %v", d.Counters.Sent, r.world.conns, time.Since(start))
				}
				r.books(recipients)
				r.close()
				pass(time.Second)
			})
		})
	}
}

// A host that breaks inside groups is spoken to more simply, for an hour, and that is an
// event. Every message arrives once.
func TestHostThatBreaksInsideGroups(t *testing.T) {
	for _, tt := range []struct{ manner, text string }{
		{"deaf behind content", "no envelope goes behind the content of the message before"},
		{"chunking, not really", "content goes by DATA instead of BDAT"},
	} {
		t.Run(tt.manner, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				defer r.close()
				r.world.latency = func() time.Duration { return 20 * time.Millisecond }
				r.world.manner["mx.a.example"] = tt.manner
				recipients := many(400, "a.example")
				r.start("d", 84*time.Hour, recipients...)
				d := r.await("d", 2*time.Hour)
				if d.Counters.Sent != 400 {
					t.Errorf("counters %+v", d.Counters)
				}
				for _, to := range recipients {
					if n := len(r.world.received(to)); n != 1 {
						t.Errorf("%s has %d messages", to, n)
					}
				}
				told := 0
				for _, e := range r.events("") {
					if typeName(e) == "path_throttled" && strings.Contains(e.GetText(), tt.text) {
						told++
					}
				}
				if told != 1 {
					t.Errorf("told %d times that the host breaks inside groups", told)
				}
				if l := r.world.seen("mx.a.example"); len(l.dials) > 50 {
					t.Errorf("%d connections", len(l.dials))
				}
			})
		})
	}
}
