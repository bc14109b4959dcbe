package dispatch

import (
	"strings"
	"time"
)

// domainState is what is known of a recipient domain's route.
type domainState uint8

const (
	domainUnknown domainState = iota // not asked for, or asked for the first time
	domainRouted
	domainWaiting // a temporary failure backs off
	domainDead    // failed for good
)

// domain is a recipient domain, kept while it has runs.
type domain struct {
	name    string
	state   domainState
	asking  bool // a look-up is under way
	again   bool // which follows a failure
	shelved bool // waits for its hosts' back-off, not for DNS
	class   Class
	level   int8      // temporary failures in a row
	dials   int8      // back-offs of its hosts in a row, as of when its group was shelved
	asker   *delivery // on whose account it waits for a look-up, or is being looked up
	avail   int32     // runs with mail
	live    int32     // runs
	runs    *run      // the first of them
	expires int64     // of a route or a final failure
	timer   timer     // end of the back-off
	group   *group
	trouble *trouble // nil while nothing has failed

	inGroup   links[domain]
	inLookups links[domain]
}

// trouble is what a domain has that failed.
type trouble struct {
	text   string    // why
	hungry list[run] // of a dead domain: runs with mail to be failed
	inDead links[domain]
}

// troubled makes the domain one that failed.
func (d *domain) troubled(text string) {
	if d.trouble == nil {
		d.trouble = &trouble{}
		d.trouble.hungry.of = runHungry
	}
	d.trouble.text = text
}

// untroubled makes it one that did not fail.
func (d *domain) untroubled() {
	switch t := d.trouble; {
	case t == nil:
	case t.hungry.n == 0 && t.inDead.on == nil:
		d.trouble = nil
	default:
		t.text = ""
	}
}

// text is why the domain failed; empty when it did not.
func (d *domain) text() string {
	if d.trouble == nil {
		return ""
	}
	return d.trouble.text
}

// addRun puts a run behind the others; there are few.
func (d *domain) addRun(r *run) {
	at := &d.runs
	for *at != nil {
		at = &(*at).inDomain
	}
	*at = r
	d.live++
}

func (d *domain) removeRun(r *run) {
	for at := &d.runs; *at != nil; at = &(*at).inDomain {
		if *at == r {
			*at, r.inDomain = r.inDomain, nil
			d.live--
			return
		}
	}
}

func (c *Core) domainOf(name string) *domain {
	d := c.domains[name]
	if d == nil {
		d = &domain{name: strings.Clone(name)}
		c.domains[d.name] = d
	}
	return d
}

// forgetDomain drops a domain without runs, unless a look-up is under way.
func (c *Core) forgetDomain(d *domain) {
	if d.live > 0 {
		return
	}
	c.leaveGroup(d)
	c.domainTimers.stop(d)
	c.undead(d)
	c.unqueueLookup(d)
	if !d.asking {
		delete(c.domains, d.name)
	}
}

// wantsLookup reports whether the domain has no route that may be used.
func (d *domain) wantsLookup(now int64) bool {
	if d.asking || d.inLookups.on != nil {
		return false
	}
	return d.state == domainUnknown ||
		d.state != domainWaiting && d.expires <= now
}

// Resolved answers a Resolve with the domain's route.
func (c *Core) Resolved(now time.Time, name string, route Route) {
	if len(route.Hosts) == 0 {
		c.Unresolved(now, name, ResolveFailure{Text: "the route of " + name + " names no host"})
		return
	}
	c.begin(now)
	if d := c.answered(name); d != nil {
		d.state, d.level = domainRouted, 0
		d.expires = c.routeEnd(route.Expires)
		c.domainTimers.stop(d)
		c.join(d, c.groupFor(d, &route))
		d.untroubled()
	}
	c.flush()
}

func (c *Core) routeEnd(expires time.Time) int64 {
	return min(max(nanos(expires), c.now+int64(minRouteLife)), c.now+int64(maxRouteLife))
}

// answered notes that a look-up ended; nil when nobody wants its answer.
func (c *Core) answered(name string) *domain {
	d := c.domains[name]
	if d == nil {
		return nil
	}
	c.lookedUp(d)
	if d.live == 0 {
		c.forgetDomain(d)
		return nil
	}
	return d
}

// Unresolved answers a Resolve that found no route. A final failure fails the
// domain's mail until it expires; another one backs the domain off.
func (c *Core) Unresolved(now time.Time, name string, f ResolveFailure) {
	c.begin(now)
	if d := c.answered(name); d != nil {
		d.troubled(f.Text)
		c.leaveGroup(d)
		if f.Final {
			d.state, d.level = domainDead, 0
			d.expires = c.routeEnd(f.Expires)
			c.domainTimers.stop(d)
		} else {
			d.state = domainWaiting
			c.domainTimers.arm(d, c.now+c.backoff(int(d.level)))
			d.level = min(d.level+1, maxLevel)
		}
		c.refreshDomain(d)
	}
	c.flush()
}

// maxLevel is where counting failures in a row ends; doubling has ended before.
const maxLevel = 16

// backoff is the wait after a failure that followed so many others in a row.
func (c *Core) backoff(level int) int64 {
	wait := c.cfg.Timings.BackoffFirst
	for range level {
		if wait >= c.cfg.Timings.BackoffMax {
			break
		}
		wait *= 2
	}
	return int64(min(wait, c.cfg.Timings.BackoffMax))
}

func (c *Core) domainDue(d *domain) {
	if d.state != domainWaiting {
		return
	}
	d.state, d.shelved = domainUnknown, false
	if d.avail > 0 {
		c.askFor(d)
	}
}

func (c *Core) refreshDomain(d *domain) {
	for r := d.runs; r != nil; r = r.inDomain {
		c.refresh(r)
	}
}

// join moves a domain, its runs and their mail to a group.
func (c *Core) join(d *domain, g *group) {
	if d.group == g {
		c.refreshDomain(d)
		return
	}
	c.leaveGroup(d)
	c.undead(d)
	d.group, d.shelved = g, false
	g.level, d.dials = max(g.level, int(d.dials)), 0
	g.domains.push(d)
	if d.avail > 0 {
		c.restock(d, 1)
	}
	for r := d.runs; r != nil; r = r.inDomain {
		leave(&r.inHungry, r)
		c.attach(r)
		c.refresh(r)
	}
}

// leaveGroup takes a domain out of its group; what is loaded of it goes back.
func (c *Core) leaveGroup(d *domain) {
	g := d.group
	if g == nil {
		return
	}
	if g.held > 0 {
		c.returnWhere(func(m *msg) bool { return m.run.domain == d })
	}
	for r := d.runs; r != nil; r = r.inDomain {
		c.detach(r)
		c.tally(r, 0, 0)
	}
	g.domains.remove(d)
	if d.avail > 0 {
		c.restock(d, -1)
	}
	d.group = nil
	c.dirtyGroups.push(g)
}

// undead takes a domain out of those whose mail is failed.
func (c *Core) undead(d *domain) {
	if d.trouble != nil {
		c.dead.remove(d)
	}
}

// maxFailing bounds the messages in memory to be failed; a part of the outcomes
// that may be unsettled, so that a large dead domain delays nobody.
func (c *Core) maxFailing() int { return max(1, min(64, c.cfg.MaxUnsettled/2)) }

// failBatch is how many messages of one run are loaded at once to be failed.
const failBatch = 16

// pumpDead loads mail of dead domains to be failed, run by run in turn.
func (c *Core) pumpDead() {
	for c.dead.n > 0 && c.stopped == 0 && c.failing < c.maxFailing() {
		d := c.dead.head
		if d.expires <= c.now {
			c.undead(d)
			if d.wantsLookup(c.now) {
				c.askFor(d)
				c.pumpLookups()
			}
			continue
		}
		r := d.trouble.hungry.head
		n := min(failBatch, c.maxFailing()-c.failing)
		c.failing += n
		c.askLoad(r, n)
		c.dead.rotate()
	}
}

// doom takes in a message that is to be failed.
func (c *Core) doom(m *msg) {
	c.failing++
	m.state = msgDoomed
	c.failQueue.push(m)
}

// fail asks for a message to be ended.
func (c *Core) fail(m *msg) {
	m.state = msgFailing
	c.unsettled++
	c.emit(Action{Kind: Fail, Msg: m.id, Run: m.run.id, Domain: m.run.domain.name, Text: m.run.domain.text()})
}
