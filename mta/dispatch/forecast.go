package dispatch

import (
	"slices"
	"strings"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// Query asks for the prospects of a destination's mail.
type Query struct {
	// Route is where it goes; Domain is one of its recipient domains, Pool whose
	// sources send it.
	Route  Route
	Domain string
	Pool   string
}

// Prospect is what one source's path to a destination is believed to bear.
type Prospect struct {
	Source string
	// Shared says that all sources together have these limits.
	Shared bool
	// Rule are the limits of the rule, Believed what a forecast counts with, Learned
	// the fields that replies decided.
	Rule, Believed mxrules.Limits
	Learned        mxrules.Fields
	// RestUntil is when the path may do anything; zero when it may now.
	RestUntil time.Time
	// Suspended says that an operator stopped the source or the destination.
	Suspended bool
}

// Prospects tells for each source that a pool's mail may come from, in the order of
// their names, what its path bears: the path that there is, or else one that would be
// made now. Nothing changes by it.
func (c *Core) Prospects(now time.Time, q Query) []Prospect {
	c.begin(now)
	defer c.flush()
	p := c.pools[q.Pool]
	if p == nil || len(q.Route.Hosts) == 0 {
		return nil
	}
	dest := c.destinations[q.Route.Destination]
	if dest == nil {
		dest = &destination{name: q.Route.Destination, provider: q.Route.Provider, stopped: c.stops.destinations[q.Route.Destination] > 0}
	}
	g := &group{dest: dest, hosts: q.Route.Hosts, scope: c.scopeOf(q.Route.Hosts[0].Name, dest.provider, q.Domain)}
	var list []Prospect
	for _, s := range c.sources {
		if p.reaches(s) && !s.removed {
			list = append(list, c.prospect(g, s))
		}
	}
	slices.SortFunc(list, func(a, b Prospect) int { return strings.Compare(a.Source, b.Source) })
	return list
}

func (c *Core) prospect(g *group, s *source) Prospect {
	key, limits, shared := c.pathFor(g, s)
	var gov *mxrules.Governor
	if p := c.paths[key]; p != nil {
		gov = p.gov
	} else {
		gov = c.newGovernor(limits)
		if u, ok := c.usage[key]; ok {
			gov.Restore(c.at, u)
		}
		if len(c.overrides) > 0 {
			c.override(&path{source: s.Source, dest: g.dest, gov: gov})
		}
	}
	out := Prospect{Source: s.Name, Shared: shared, Rule: limits, Suspended: s.stopped || g.dest.stopped}
	out.Believed, out.Learned = gov.Believed(c.at)
	if state := gov.State(c.at); state.Hold == mxrules.HoldRest || state.Hold == mxrules.HoldBackoff {
		out.RestUntil = state.Until
	}
	return out
}

// Competitor is one delivery's mail in the relay for one destination.
type Competitor struct {
	Delivery DeliveryID
	Class    Class
	Priority int
	Pool     string
	// Fresh messages were never tried; Deferred ones wait for a retry, the earliest
	// of which is due at NextDue (zero: none).
	Fresh, Deferred int64
	NextDue         time.Time
}

// Competition lists the mail that is not paused or suspended, by destination, for
// those named; of each the deliveries in the order of their numbers.
func (c *Core) Competition(now time.Time, destinations map[string]bool) map[string][]Competitor {
	c.begin(now)
	defer c.flush()
	found := map[string][]Competitor{}
	for g := c.groupOrder.head; g != nil; g = g.inOrder.next {
		if !destinations[g.dest.name] {
			continue
		}
		for d := g.domains.head; d != nil; d = d.inGroup.next {
			for r := d.runs; r != nil; r = r.inDomain {
				if !r.stopped && r.fresh+r.deferred > 0 {
					found[g.dest.name] = compete(found[g.dest.name], r)
				}
			}
		}
	}
	return found
}

// compete adds a run to the list that is in the order of deliveries.
func compete(list []Competitor, r *run) []Competitor {
	one := Competitor{Delivery: r.delivery.id, Class: r.class, Priority: r.delivery.priority, Pool: r.pool.name, Fresh: r.fresh, Deferred: r.deferred}
	if r.deferred > 0 {
		one.NextDue = moment(r.retry.at)
	}
	i, found := slices.BinarySearchFunc(list, one, func(a, b Competitor) int {
		if a.Delivery != b.Delivery {
			return int(int64(a.Delivery) - int64(b.Delivery))
		}
		return strings.Compare(a.Pool, b.Pool)
	})
	if !found {
		return slices.Insert(list, i, one)
	}
	a := &list[i]
	a.Fresh += one.Fresh
	a.Deferred += one.Deferred
	if a.NextDue.IsZero() || !one.NextDue.IsZero() && one.NextDue.Before(a.NextDue) {
		a.NextDue = one.NextDue
	}
	return list
}
