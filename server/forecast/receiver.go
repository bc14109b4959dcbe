package forecast

import (
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/simulate"
	"github.com/veredus/veredus/mta/smtpc"
)

// receiver is a destination as it is believed to be: it takes what comes at the pace
// that the rules of the simulation keep, and puts off and refuses the share that it
// has shown. It has no state, so that one serves all.
type receiver struct {
	setup, each       time.Duration
	deferred, bounced uint64 // shares of 2^64
}

// receiver makes the one of a destination whose connections carry so many messages
// each (0: no limit).
func (p *plan) receiver(w *way, carries int) *receiver {
	shown := &w.d.Shown
	latency := p.latency(w.d)
	r := &receiver{setup: time.Duration(setupShare * float64(latency)), each: latency}
	if w.steps > 1 {
		if carries > 0 {
			r.each += r.setup / time.Duration(carries)
		}
		r.each = time.Duration(min(float64(r.each)*float64(w.steps), float64(endless)))
	}
	if shown.Attempts >= Enough {
		r.deferred, r.bounced = share(min(shown.Deferred, mostDeferred)), share(shown.Bounced)
	}
	return r
}

// mostDeferred keeps a destination that has just put everything off from doing so for
// ever.
const mostDeferred = 0.9

// latency is what a message takes at a destination, known or assumed.
func (p *plan) latency(d *Destination) time.Duration {
	switch {
	case d.Shown.Latency > 0:
		return min(d.Shown.Latency, mostLatency)
	case p.in.Latency > 0:
		return p.in.Latency
	}
	return usualLatency
}

// endless is longer than any message is tried.
const endless = 100 * time.Hour

// mostLatency is the longest that a reply is waited for (RFC 5321 section 4.5.3.2.6).
const mostLatency = 10 * time.Minute

// share is a part from 0 to 1 of all 64-bit numbers.
func share(part float64) uint64 {
	switch {
	case !(part > 0):
		return 0
	case part >= 1:
		return 1<<64 - 1
	}
	return uint64(part * (1 << 63) * 2)
}

// Connect implements simulate.Receiver.
func (r *receiver) Connect(time.Time, simulate.Caller) (simulate.Conn, simulate.Answer) {
	return r, simulate.Answer{Delay: r.setup}
}

// Capacity implements simulate.Receiver; a forecast has no oracle.
func (r *receiver) Capacity(time.Time) float64 { return 0 }

// Replies of a believed receiver.
const (
	later = 451
	never = 550
)

// Envelope implements simulate.Conn.
func (r *receiver) Envelope(_ time.Time, m *simulate.Message) simulate.Answer {
	a := simulate.Answer{Whole: true, Delay: r.each}
	id := mix(uint64(m.HandOver)<<48 ^ uint64(m.Run)<<32 ^ uint64(m.Order))
	switch {
	case id < r.bounced:
		a.Reply.Code = never
	case mix(id+uint64(m.State.Attempts)) < r.deferred:
		a.Reply.Code = later
	default:
		return a
	}
	a.Refused, a.Cause, a.Reply.Phase = true, simulate.CauseOther, simulate.PhaseRcpt
	return a
}

// Content implements simulate.Conn; envelopes decide.
func (r *receiver) Content(time.Time) simulate.Answer { return simulate.Answer{} }

// Close implements simulate.Conn.
func (r *receiver) Close(time.Time) {}

// mix spreads a number over all 64 bits (splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// judge reads the replies of believed receivers: they speak of messages, never of paths.
type judge struct{ schedule mta.Schedule }

// Transaction implements simulate.Judge.
func (j judge) Transaction(now time.Time, at simulate.Place, m *simulate.Message, r simulate.Reply) simulate.Fate {
	v := bounce.Verdict{Disposition: bounce.Retry, Charged: true}
	if r.Code == never {
		v = bounce.Verdict{Disposition: bounce.Final}
	}
	return j.schedule.Fate(now, at.Source, m, v, smtpc.Reply{Phase: smtpc.PhaseRCPT, Code: r.Code})
}

// Connection implements simulate.Judge; none is refused.
func (j judge) Connection(simulate.Place, simulate.Reply) dispatch.Evidence {
	return dispatch.Evidence{}
}
