package dispatch

import "time"

// Totals are sums over all destinations.
type Totals struct {
	// Ready, Deferred and InFlight are as in DestinationView; mail of domains
	// without a route is in none of them.
	Ready, Deferred, InFlight int64
	// Sessions are open or being opened; Destinations have mail or a path.
	Sessions, Destinations int
}

// Totals answers the sums, which are kept as mail moves: asking costs nothing.
func (c *Core) Totals(now time.Time) Totals {
	c.begin(now)
	defer c.flush()
	inFlight := int64(c.unsettled)
	return Totals{
		Ready: c.ready + max(int64(len(c.msgs))-inFlight, 0), Deferred: c.deferred, InFlight: inFlight,
		Sessions: c.held, Destinations: len(c.destinations),
	}
}

// QueueSize is how many messages a destination has: ready, deferred and in flight.
type QueueSize struct {
	Name string
	Size int64
}

// QueueSizes lists all destinations, in no order, for lists by size: a view of each would
// take a thousand times as long.
func (c *Core) QueueSizes(now time.Time) []QueueSize {
	c.begin(now)
	defer c.flush()
	inMemory := map[*destination]int64{}
	for g := c.groupOrder.head; g != nil; g = g.inOrder.next {
		if g.held > 0 {
			inMemory[g.dest] += int64(g.held)
		}
	}
	list := make([]QueueSize, 0, len(c.destinations))
	for name, d := range c.destinations { // the caller orders them
		list = append(list, QueueSize{name, d.ready + d.deferred + inMemory[d]})
	}
	return list
}

// tally brings the sums of a run's destination, and of all, up to date with what the
// store has of the run.
func (c *Core) tally(r *run, fresh, deferred int64) {
	g := r.domain.group
	if g == nil || fresh == r.tallied.fresh && deferred == r.tallied.deferred {
		return
	}
	fresh, r.tallied.fresh = fresh-r.tallied.fresh, fresh
	deferred, r.tallied.deferred = deferred-r.tallied.deferred, deferred
	g.dest.ready += fresh
	g.dest.deferred += deferred
	c.ready += fresh
	c.deferred += deferred
}
