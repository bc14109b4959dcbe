package world

import (
	"math"
	"time"
)

// Sender is whom a capacity is about: how many source addresses it has, how far away
// it is, and the limits that it keeps on its own account.
type Sender struct {
	// Sources are the addresses it sends from.
	Sources int
	// RoundTrip is the network's between it and the receiver.
	RoundTrip time.Duration
	// TLS says that its connections begin with STARTTLS.
	TLS bool
	// Sequential says that it does not pipeline commands (RFC 2920).
	Sequential bool
	// Limits are its own rules' for this receiver; zero ones are none. They hold for
	// each of so many Paths; 0 is one for each source.
	Limits Limits
	Paths  int
	// Connections caps its connections over all; 0 is no cap.
	Connections int
}

// AnySender has one source next to the receiver and no limits of its own.
func AnySender() Sender { return Sender{Sources: 1} }

// Expect says whom Capacity is about; before, that is [AnySender].
func (m *Model) Expect(s Sender) {
	s.Sources = max(s.Sources, 1)
	m.sender = s
}

// Terse makes the model give positive replies without text, for callers that only
// look at what is refused.
func (m *Model) Terse() { m.terse = true }

// Capacity is how many messages per second the receiver takes at now from the sender
// it expects, at best reputation and without a deferral: the least of what its limits
// and the sender's own let pass, and of what so many connections carry in the time
// that each message takes. Bursts, greylisting and mailbox states are not in it: they
// do not change how much flows for long. +Inf if nothing limits it.
func (m *Model) Capacity(now time.Time) float64 { return m.CapacityFor(now, m.sender) }

// CapacityFor is Capacity for another sender.
func (m *Model) CapacityFor(now time.Time, s Sender) float64 {
	if _, down := m.outage(now); down {
		return 0
	}
	h, own := &m.r.Hidden, &s.Limits
	f := 1.0
	if m.varies {
		f = m.common(now)
	}
	hidden := meters{count: 1, factor: f}
	if !h.Shared {
		hidden.count = float64(s.Sources)
	}
	kept := meters{count: float64(s.Paths), factor: 1}
	if s.Paths == 0 {
		kept.count = 1
		if !own.Shared {
			kept.count = float64(s.Sources)
		}
	}
	c := min(
		hidden.rate(h.MessageRate), hidden.per(h.MessagesPerHour, countedHour),
		kept.rate(own.MessageRate), bulkShare*kept.per(own.MessagesPerHour, time.Hour), kept.per(own.MessagesPerDay, 24*time.Hour),
	)
	most := min(hidden.cap(h.Connections), kept.cap(own.Connections), capOf(scaledCap(h.TotalConnections, f)), capOf(s.Connections))
	perConnection := min(capOf(h.MessagesPerConnection), capOf(own.MessagesPerConnection))
	c = min(c, perConnection*min(hidden.rate(h.ConnectionRate), kept.rate(own.ConnectionRate)))
	return min(c, m.carried(most, perConnection, s))
}

// countedHour is what a receiver's sliding hour spans at most: its oldest minute counts
// as a whole until it has passed.
const countedHour = 61 * time.Minute

// bulkShare is what our rules leave bulk mail of an hourly quota; the rest is kept
// for transactional mail.
const bulkShare = 0.95

// meters are limits that hold for each of so many sources.
type meters struct{ count, factor float64 }

func (m meters) rate(r Rate) float64 {
	if !r.Limited() {
		return math.Inf(1)
	}
	return r.PerSecond() * m.count * m.factor
}

// per is a quota as messages per second, spent evenly.
func (m meters) per(n int, window time.Duration) float64 {
	if n == 0 {
		return math.Inf(1)
	}
	return float64(n) * m.count * m.factor / window.Seconds()
}

func (m meters) cap(n int) float64 {
	return capOf(scaledCap(n, m.factor)) * m.count
}

// scaledCap is a cap under a factor, where 0 stays no cap and nothing is -1.
func scaledCap(n int, f float64) int {
	if n == 0 {
		return 0
	}
	if n = scaled(n, f); n == 0 {
		return -1
	}
	return n
}

// capOf is a cap as a number, of which 0 is none and -1 is nothing.
func capOf(n int) float64 {
	switch {
	case n == 0:
		return math.Inf(1)
	case n < 0:
		return 0
	}
	return float64(n)
}

// Time of a message and of a connection, in round trips: the commands of a message go
// behind the content of the one before, those of a connection's first on their own;
// without pipelining each of the three and the content take one. A connection is made
// with one round trip, its greeting, its EHLO, and ends with QUIT; STARTTLS, the
// handshake (RFC 8446) and another EHLO add three.
const (
	messageTrips    = 1
	firstTrips      = 1
	sequentialTrips = 4
	connectTrips    = 4
	tlsTrips        = 3
)

// carried is what up to so many connections carry. Where load slows the receiver
// down, it is the best of all their numbers.
func (m *Model) carried(most, perConnection float64, s Sender) float64 {
	l := &m.r.Latency
	trips, first := messageTrips, firstTrips
	if s.Sequential {
		trips, first = sequentialTrips, 0
	}
	message := float64(trips)*s.RoundTrip.Seconds() + 3*l.Command.Std().Seconds() + l.EndOfData.Std().Seconds()
	setup := float64(connectTrips+first)*s.RoundTrip.Seconds() + l.Greeting.Std().Seconds() + l.Command.Std().Seconds()
	if s.TLS {
		setup += tlsTrips*s.RoundTrip.Seconds() + 2*l.Command.Std().Seconds()
	}
	if most == 0 {
		return 0
	}
	each := message + setup/perConnection // over infinity: nothing
	if l.Load.Each == 0 {
		if each == 0 {
			return math.Inf(1)
		}
		return most / each
	}
	best := 0.0
	for n := 1; float64(n) <= min(most, maxCarriers); n++ {
		c := float64(n) / (each + l.Load.delay(n).Seconds())
		if c < best && l.Load.Exponent > 1 {
			break // from here on it only falls
		}
		best = max(best, c)
	}
	return best
}

// maxCarriers bounds the search for the best number of connections.
const maxCarriers = 10_000
