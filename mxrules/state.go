package mxrules

import "time"

// limiter remembers what held one kind of action, and since when without a
// pause, for explanations.
type limiter struct {
	hold               Hold
	since, seen, until int64
	from, taken        int64 // taken: how much of the time since from was held
}

// settled is the pause after which a hold that comes back is a new one. A rate
// holds for milliseconds between two messages; to people that is one hold.
const settled = int64(10 * time.Second)

// mostly is the part of the time for which a hold has to last to be what limits. A rate
// that is used up holds all the time; one that is far from that holds for the moment
// between two messages that come together.
const mostly = 0.5

func (l *limiter) held(h Hold, t, until int64) {
	if h != l.hold || t > max(l.seen, l.until)+settled {
		*l = limiter{hold: h, since: t, from: t, until: t}
	}
	if over := t - l.from - settled; over > 0 { // the older part weighs ever less
		l.taken -= int64(float64(l.taken) * float64(over) / float64(t-l.from))
		l.from += over
	}
	l.taken = max(0, l.taken+max(until, t)-max(l.until, t))
	l.seen, l.until = t, until
}

// limits reports whether the hold of a rate lasts for most of the time, or long enough to
// be one by itself.
func (l *limiter) limits(t int64) bool {
	if l.until-t >= int64(time.Second) {
		return true
	}
	done := l.taken - max(0, l.until-t)
	return float64(done) >= mostly*float64(max(t-l.from, 1))
}

func (l *limiter) active(t int64) bool {
	return l.hold != HoldNone && (t < l.until || t <= l.seen+settled)
}

// State explains a path at one instant.
type State struct {
	// Hold is what limits the path now, HoldNone if nothing did in the last ten
	// seconds. Until is when that ends (zero: not by time alone), Since when it began.
	Hold  Hold
	Until time.Time
	Since time.Time

	// Open is the number of connections open.
	Open int
	// MaxConnections, MessagesPerConnection and MessageRate are in force now:
	// the rule's limits after reactions. 0 and the zero Rate are no limit.
	MaxConnections        int
	MessagesPerConnection int
	MessageRate           Rate

	// Probing: the path is tried with single messages after a rest.
	Probing bool
	// Rests and Failures are how many came in a row.
	Rests    int
	Failures int

	// Trouble is the last reply or failure that had an effect, empty if none.
	Trouble   string
	TroubleAt time.Time
}

// State explains the path at now.
func (g *Governor) State(now time.Time) State {
	t := g.tick(now)
	p := g.pace
	s := State{
		Open:                  g.open,
		MaxConnections:        g.maxConnections(),
		MessagesPerConnection: g.MessagesPerConnection(now),
		MessageRate:           g.messageRate(),
		Probing:               p.Probing && t >= int64(p.RestUntil),
		Rests:                 p.Rests,
		Failures:              p.Failures,
		Trouble:               g.trouble,
		TroubleAt:             g.troubleAt,
	}
	if p.Failures > 0 {
		s.MaxConnections = 1
	}
	hold, since, until := g.holding(t)
	s.Hold = hold
	if hold != HoldNone {
		s.Since = g.clock.time(since)
	}
	if until > t {
		s.Until = g.clock.time(until)
	}
	return s
}

// holding names the hold that limits the path most: trouble, then what holds
// messages, then what holds connections.
func (g *Governor) holding(t int64) (hold Hold, since, until int64) {
	p := g.pace
	switch {
	case t < int64(p.RestUntil):
		return HoldRest, int64(p.RestSince), int64(p.RestUntil)
	case p.Probing:
		return HoldRest, int64(p.RestSince), int64(p.ProbeAt)
	case p.Failures > 0 && (t < int64(p.BackoffUntil) || g.open == 0):
		return HoldBackoff, int64(p.BackoffSince), int64(p.BackoffUntil)
	case g.sending.active(t) && g.sending.limits(t):
		return g.sending.hold, g.sending.since, g.sending.until
	case g.connecting.active(t) && (g.connecting.hold != HoldConnectionRate || g.connecting.limits(t)) || g.connecting.hold == HoldConnections && g.full():
		return g.connecting.hold, g.connecting.since, g.connecting.until
	}
	return HoldNone, 0, 0
}

// full reports whether as many connections are open as may be.
func (g *Governor) full() bool {
	most := g.maxConnections()
	return most > 0 && g.open >= most
}
