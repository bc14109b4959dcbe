package dispatch

import "time"

// What an operator's work on waiting mail changes in the store is told here.

// DestinationOf is the destination of a recipient domain; empty while the domain has no route.
func (c *Core) DestinationOf(domain string) string {
	if d := c.domains[domain]; d != nil && d.group != nil {
		return d.group.dest.name
	}
	return ""
}

// Hurried reports that retries of a run, counted already, are due at an instant, or
// were before. An unknown run is ignored.
func (c *Core) Hurried(now time.Time, id RunID, due time.Time) {
	c.begin(now)
	if r := c.runs.Get(uint64(id)); r != nil {
		counted := r.deferred
		c.put(r, 1, nanos(due))
		r.deferred = max(counted, 1)
		c.refresh(r)
	}
	c.flush()
}

// Recount corrects what is known of a run's mail in the store. A run with mail in memory
// or on its way there is left as it is: loading corrects its counts.
func (c *Core) Recount(now time.Time, id RunID, fresh, deferred int64, next time.Time) {
	c.begin(now)
	if r := c.runs.Get(uint64(id)); r != nil && r.work == nil {
		r.fresh, r.deferred, r.empty = max(fresh, 0), max(deferred, 0), false
		if r.deferred > 0 {
			c.setDue(r, nanos(next))
		}
		c.refresh(r)
	}
	c.flush()
}
