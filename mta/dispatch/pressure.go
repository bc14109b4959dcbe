package dispatch

import "time"

// Memory follows activity: of half a million destinations, those in play are kept
// with all that sending needs, at most about MaxGroups. The others are their
// domains and runs alone. What is in play changes as mail goes out; destinations that
// cannot be reached leave, so that they never fill the place of those that can.

// crowded reports whether no more destinations shall come into play.
func (c *Core) crowded() bool { return c.inPlay() >= c.cfg.MaxGroups }

// inPlay counts what is in play and what may soon be.
func (c *Core) inPlay() int { return len(c.groups) + c.resolving }

// pressed reports whether destinations that nothing goes to shall be forgotten.
func (c *Core) pressed() bool { return len(c.groups) >= max(1, c.cfg.MaxGroups/2) }

// relieve forgets, under pressure, the group that has been without mail the longest.
// It answers whether there was one.
func (c *Core) relieve() bool {
	if !c.pressed() || len(c.groupTimers.items) == 0 {
		return false
	}
	g := c.groupTimers.items[0]
	c.groupTimers.stop(g)
	c.groupDue(g)
	return true
}

// longBackoff is the least back-off for which a group is shelved.
const longBackoff = 30 * time.Second

// unreachable reports whether nothing of a group can be sent for a while, since no source
// reached its hosts.
func (c *Core) unreachable(g *group) bool {
	if g.held > 0 || len(g.lines) == 0 {
		return false
	}
	for _, l := range g.lines {
		if l.sessions.n > 0 || l.until <= c.now+int64(longBackoff) {
			return false
		}
	}
	return true
}

// shelve forgets a group that is unreachable. Its domains wait until the first of its lines
// might dial again, and are looked up anew then.
func (c *Core) shelve(g *group) {
	until, level, text := none, 0, ""
	for _, l := range g.lines {
		if l.until < until {
			until, text = l.until, l.failed
		}
		level = max(level, l.level)
	}
	for d := g.domains.head; d != nil; d = g.domains.head {
		c.leaveGroup(d)
		d.state, d.shelved, d.dials = domainWaiting, true, int8(min(level, maxLevel))
		d.troubled(text)
		c.domainTimers.arm(d, until)
		c.refreshDomain(d)
	}
	c.dissolve(g)
}
