package dispatch

import (
	"slices"
	"strconv"
	"strings"

	"github.com/veredus/veredus/mxrules"
)

// destination is all recipient domains that share a receiving infrastructure.
type destination struct {
	name     string
	provider string
	stopped  bool // by a suspension
	groups   int
	paths    int
	held     int   // session slots in use
	ready    int64 // messages in the store that were never tried
	deferred int64 // and those that wait for a retry there
	leaving  int   // of these, asked to close or retiring
	rank     int   // place in the crowd from 1

	sessions  list[session]     // that stay, the oldest first
	slotLines [kinds]list[line] // lines that wait for a slot
	inSlots   [kinds]links[destination]
}

// live is how many sessions the destination means to keep.
func (d *destination) live() int { return d.held - d.leaving }

func (c *Core) destinationOf(name, provider string) *destination {
	d := c.destinations[name]
	if d == nil {
		d = &destination{name: name, provider: provider, stopped: c.stops.destinations[name] > 0}
		d.sessions.of = func(s *session) *links[session] { return &s.inDest }
		for kind := range d.slotLines {
			d.slotLines[kind].of = func(l *line) *links[line] { return &l.inSlot }
		}
		c.destinations[name] = d
	}
	return d
}

func (c *Core) forgetDestination(d *destination) {
	if d.groups == 0 && d.paths == 0 && d.held == 0 {
		delete(c.destinations, d.name)
	}
}

// group is the domains of a destination whose mail may share a session: their
// MX hosts and TLS requirement are the same, and so are the rules on them.
type group struct {
	dest    *destination
	key     string
	scope   string // the domain, if rules name it; else empty
	tenant  string // the domain, if it is held apart from others on its hosts; else empty
	hosts   []Host
	tls     mxrules.TLS
	domains list[domain]
	lanes   []*lane
	lines   []*line
	orders  []preference // of pools
	clock   [2]uint64    // passes of the flows served last, by class
	held    int          // messages in memory
	level   int          // back-offs in a row of lines that are to be made
	timer   timer        // end of lingering without mail

	stocked  int // domains with mail
	supplied int // what of it is counted as supply

	inOrder links[group]
	inDirty links[group]
}

// groupFor finds or makes the group of a domain with this route.
func (c *Core) groupFor(d *domain, route *Route) *group {
	name := route.Destination
	if name == "" {
		name = d.name
	}
	provider := route.Provider
	if provider == "" && c.rules != nil {
		provider = c.rules.ProviderOf(route.Hosts[0].Name)
	}
	return c.groupOf(name, provider, route.Hosts, d.name)
}

func (c *Core) groupOf(dest, provider string, hosts []Host, domainName string) *group {
	scope := c.scopeOf(hosts[0].Name, provider, domainName)
	tls := c.match(hosts[0].Name, provider, scope, nil).Limits.TLS
	tenant := ""
	if c.apart[domainName] > 0 {
		tenant = domainName
	}
	key := groupKey(dest, scope+"\n"+tenant, hosts, tls)
	g := c.groups[key]
	if g != nil {
		return g
	}
	g = &group{dest: c.destinationOf(dest, provider), key: key, scope: scope, tenant: tenant, hosts: slices.Clone(hosts), tls: tls}
	g.domains.of = func(d *domain) *links[domain] { return &d.inGroup }
	g.dest.groups++
	c.groups[key] = g
	c.groupOrder.push(g)
	return g
}

func groupKey(dest, scope string, hosts []Host, tls mxrules.TLS) string {
	var b strings.Builder
	b.WriteString(dest)
	b.WriteByte('\n')
	b.WriteString(scope)
	b.WriteByte('\n')
	b.WriteByte('0' + byte(tls))
	for _, h := range hosts {
		b.WriteByte('\n')
		b.WriteString(strconv.Itoa(int(h.Preference)))
		b.WriteByte(' ')
		b.WriteString(h.Name)
	}
	return b.String()
}

// lane is the group's mail of one pool, made if need be.
func (g *group) lane(p *pool) *lane {
	for _, l := range g.lanes {
		if l.pool == p {
			return l
		}
	}
	l := &lane{group: g, pool: p}
	for class := range l.queues {
		l.queues[class].starving.of = flowQueued
		l.queues[class].hungry.of = flowQueued
	}
	g.lanes = append(g.lanes, l)
	return l
}

func (g *group) dropLane(l *lane) {
	if i := slices.Index(g.lanes, l); i >= 0 {
		g.lanes = slices.Delete(g.lanes, i, i+1)
	}
}

func (g *group) shift(by int64) {
	for _, l := range g.lines {
		for i := range l.cool {
			l.cool[i] += by
		}
		l.until += by
	}
}

// gone reports whether the group was forgotten.
func (g *group) gone() bool { return g.inOrder.on == nil }

// busy reports whether the group has anything to do or to wait for.
func (g *group) busy() bool {
	if g.held > 0 {
		return true
	}
	for _, l := range g.lanes {
		if l.waiting > 0 {
			return true
		}
	}
	for _, l := range g.lines {
		if l.sessions.n > 0 {
			return true
		}
	}
	return false
}

// pumpGroup decides what a group does next: claim, open, load, give back.
func (c *Core) pumpGroup(g *group) {
	c.dropSpentLines(g)
	for _, l := range g.lines {
		if l.pinned.n > 0 && !c.sendable(l) {
			c.unpin(l)
		}
		c.openOwn(l)
	}
	for _, l := range g.lanes {
		c.openFor(l)
		c.load(l)
	}
	for _, l := range g.lines {
		c.hurry(l)
		c.queueClaims(l)
	}
	c.releaseUnserved(g)
	c.supplies(g)
	c.lingerGroup(g)
}

// lingerGroup starts or ends the wait after which a group without mail is forgotten.
func (c *Core) lingerGroup(g *group) {
	switch {
	case g.gone():
	case g.busy() && c.pressed() && c.unreachable(g):
		c.shelve(g)
	case g.busy():
		c.groupTimers.stop(g)
	case g.domains.n == 0:
		c.dissolve(g)
	case !g.timer.armed():
		c.groupTimers.arm(g, c.now+int64(linger))
	}
}

func (c *Core) groupDue(g *group) {
	if g.busy() {
		return
	}
	for d := g.domains.head; d != nil; d = g.domains.head {
		c.leaveGroup(d)
		d.state = domainUnknown
		c.refreshDomain(d)
	}
	c.dissolve(g)
}

// dissolve forgets a group without mail, sessions and domains.
func (c *Core) dissolve(g *group) {
	if g.gone() {
		return
	}
	c.groupTimers.stop(g)
	for _, l := range g.lines {
		c.dropLine(l)
	}
	g.lines = nil
	delete(c.groups, g.key)
	c.groupOrder.remove(g)
	c.dirtyGroups.remove(g)
	g.dest.groups--
	c.forgetDestination(g.dest)
}

// releaseUnserved gives back what no session will take soon, so that a path at
// rest holds nothing in memory.
func (c *Core) releaseUnserved(g *group) {
	if g.held == 0 {
		return
	}
	for _, l := range g.lines {
		if l.sessions.n == 0 && !c.comingSoon(l) {
			c.releaseClaims(l)
			if !l.queued() {
				c.unpin(l)
			}
		}
	}
	for _, l := range g.lanes {
		if !c.served(l) {
			c.releaseLane(l)
		}
	}
}

// served reports whether some line has, or will soon have, a session for a lane's mail.
func (c *Core) served(l *lane) bool {
	if c.stopped > 0 || l.group.dest.stopped {
		return false
	}
	for _, ln := range l.group.lines {
		if l.pool.reaches(ln.source) && c.usable(ln) && (ln.sessions.n > 0 || c.comingSoon(ln)) {
			return true
		}
	}
	return false
}

// queued reports whether the line waits in a queue for a session, so that what is
// pinned to it waits, too.
func (l *line) queued() bool {
	return l.inWaiters.on != nil || l.inSlot.on != nil || waitsForWarmth(l)
}

// releaseLane gives back what is loaded for a lane, and what is pinned to lines that
// wait for nothing.
func (c *Core) releaseLane(l *lane) {
	for _, ln := range l.group.lines {
		if ln.pinned.n > 0 && l.pool.reaches(ln.source) && !ln.queued() {
			c.unpin(ln)
		}
	}
	for class := range l.queues {
		for q := &l.queues[class]; len(q.ready) > 0; {
			r := q.ready[0].ready.head
			from := &r.work.fresh
			if from.n == 0 {
				from = &r.work.retry
			}
			c.recall(from.head)
		}
	}
}

// releaseClaims gives back what is claimed on a line and not sent.
func (c *Core) releaseClaims(l *line) {
	for class := range l.ready {
		for m := l.ready[class].head; m != nil; m = l.ready[class].head {
			c.recall(m)
		}
	}
	if l.claiming[Bulk]+l.claiming[Transactional] > 0 {
		c.returnWhere(func(m *msg) bool { return m.line == l && m.state == msgClaiming })
	}
}
