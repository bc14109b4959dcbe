package dispatch

import (
	"time"

	"github.com/veredus/veredus/mxrules"
)

// pool is a named set of sources. It exists, empty, as soon as a run names it.
type pool struct {
	name     string
	sources  []*source
	overflow *pool

	moveBlocked bool
}

// source is a sending identity. A changed address makes another one.
type source struct {
	Source
	stopped bool    // by a suspension
	removed bool    // in no pool any more: drains
	warmth  *warmth // nil when it is not to be warmed up
	timer   timer   // when its warm-up is looked at again

	inReleases links[source]
}

// weight is the source's share, at least 1.
func (s *source) weight() int { return max(1, s.Weight) }

func (c *Core) poolOf(name string) *pool {
	p := c.pools[name]
	if p == nil {
		p = &pool{name: name}
		c.pools[name] = p
	}
	return p
}

// SetPools replaces all pools. A source that is in none any more drains: it gets
// no new session and no message, and what it has under way ends. A source whose
// address changed drains too, and another of its name takes over.
func (c *Core) SetPools(now time.Time, pools []Pool) {
	c.begin(now)
	c.setPools(pools)
	c.returnWhere(c.halted)
	c.retireDrained()
	c.wakeAll()
	c.flush()
}

func (c *Core) setPools(pools []Pool) {
	for _, p := range c.pools {
		p.sources, p.overflow, p.moveBlocked = nil, nil, false // the order of a map does not matter here, nor below
	}
	c.version++
	keep := map[string]*source{}
	for _, spec := range pools {
		p := c.poolOf(spec.Name)
		p.moveBlocked = spec.MoveBlocked
		for _, s := range spec.Sources {
			p.sources = append(p.sources, c.sourceOf(s, keep))
		}
		if spec.Overflow != "" {
			p.overflow = c.poolOf(spec.Overflow)
		}
	}
	for name, s := range c.sources {
		if s.removed = keep[name] != s; s.removed {
			c.warmTimers.stop(s)
			c.releases.remove(s)
		}
	}
	c.sources = keep
}

// sourceOf keeps a source that did not change, and makes one that is new.
func (c *Core) sourceOf(spec Source, keep map[string]*source) *source {
	if s := keep[spec.Name]; s != nil {
		return s
	}
	s := c.sources[spec.Name]
	if s == nil || s.Addr != spec.Addr {
		s = &source{stopped: c.stops.sources[spec.Name] > 0}
	}
	s.Source = spec
	keep[spec.Name] = s
	c.setWarmUp(s)
	return s
}

// retireDrained ends the idle sessions of sources and lines that drain, and
// those with a message after it.
func (c *Core) retireDrained() {
	c.eachLine(func(l *line) {
		if !l.source.removed && !l.obsolete {
			return
		}
		for s := l.sessions.head; s != nil; s = s.inLine.next {
			c.retire(s)
		}
	})
}

// eachLine visits all lines in an order that depends only on what happened.
func (c *Core) eachLine(visit func(*line)) {
	for g := c.groupOrder.head; g != nil; g = g.inOrder.next {
		for _, l := range g.lines {
			visit(l)
		}
	}
}

// wakeAll looks at everything again.
func (c *Core) wakeAll() {
	c.eachLine(func(l *line) {
		c.lineTimers.stop(l)
		c.queueLine(l)
		c.dirtyPaths.push(l.path)
	})
	for g := c.groupOrder.head; g != nil; g = g.inOrder.next {
		c.dirtyGroups.push(g)
	}
}

// SetRules puts new rules in force at once. Sessions stay, but for those that
// are more than a path may have now, or whose TLS requirement changed.
func (c *Core) SetRules(now time.Time, rules *mxrules.Rules) {
	c.begin(now)
	c.setRules(rules)
	c.regroup()
	c.relimit()
	c.returnWhere(c.halted)
	c.retireDrained()
	c.wakeAll()
	c.flush()
}

func (c *Core) setRules(rules *mxrules.Rules) {
	c.rules, c.masks = rules, nil
	if rules == nil {
		return
	}
	for _, r := range rules.All() {
		c.masks = append(c.masks, r.Domains...)
	}
}

// regroup moves domains whose group is another one under the new rules.
func (c *Core) regroup() {
	last := c.groupOrder.tail
	for g := c.groupOrder.head; g != nil; g = g.inOrder.next {
		for d := g.domains.head; d != nil; {
			next := d.inGroup.next
			c.join(d, c.groupOf(g.dest.name, g.dest.provider, g.hosts, d.name))
			d = next
		}
		if g == last {
			return // those behind are new
		}
	}
}

// relimit gives lines and paths the limits of the new rules.
func (c *Core) relimit() {
	seen := map[*path]bool{}
	c.eachLine(func(l *line) {
		key, limits, _ := c.pathFor(l.group, l.source)
		if key != l.path.key {
			l.obsolete = true
			return
		}
		l.limits = limits
		p := l.path
		if seen[p] {
			limits = strictest(p.limits, limits)
		}
		seen[p] = true
		p.limits = limits
	})
	done := map[*path]bool{}
	c.eachLine(func(l *line) {
		if p := l.path; seen[p] && !done[p] {
			done[p] = true
			p.gov.SetLimits(c.at, p.limits)
			c.trim(p)
		}
	})
}

// match finds what the rules say about a way; an empty domain meets no rule on domains.
func (c *Core) match(host, provider, domain string, src *source) mxrules.Effective {
	if c.rules == nil {
		return mxrules.Effective{Limits: mxrules.Defaults()}
	}
	q := mxrules.Query{Host: host, Provider: provider, Domain: domain}
	if src != nil {
		q.Source = src.Addr
	}
	return c.rules.Match(q)
}

// scopeOf is the domain if rules on it make a difference to some source, else empty.
func (c *Core) scopeOf(host, provider, domain string) string {
	named := false
	for _, m := range c.masks {
		named = named || m.Match(domain)
	}
	if !named {
		return ""
	}
	if c.differs(host, provider, domain, nil) {
		return domain
	}
	for _, s := range c.sources { // any of them will do
		if c.differs(host, provider, domain, s) {
			return domain
		}
	}
	return ""
}

func (c *Core) differs(host, provider, domain string, src *source) bool {
	return c.match(host, provider, domain, src).Limits != c.match(host, provider, "", src).Limits
}

// pathFor names the path of a source to a group, and its limits. A domain whose
// own rules set connections, rates or quotas has a path of its own.
func (c *Core) pathFor(g *group, src *source) (key string, limits mxrules.Limits, shared bool) {
	host, provider := g.hosts[0].Name, g.dest.provider
	limits = c.match(host, provider, g.scope, src).Limits
	key = g.dest.name
	if g.scope != "" && ofPath(limits) != ofPath(c.match(host, provider, "", src).Limits) {
		key += "/" + g.scope
	}
	if limits.Shared {
		return "*>" + key, limits, true
	}
	return src.Name + ">" + key, limits, false
}

// ofPath is the part of limits that a path keeps, not a session.
func ofPath(l mxrules.Limits) mxrules.Limits {
	return mxrules.Limits{
		Connections: l.Connections, ConnectionRate: l.ConnectionRate, MessageRate: l.MessageRate,
		MessagesPerHour: l.MessagesPerHour, MessagesPerDay: l.MessagesPerDay, Shared: l.Shared,
	}
}

// stops counts the suspensions in force by what they name.
type stops struct {
	tenants, senders, sources, destinations map[string]int
	deliveries                              map[DeliveryID]int
}

func newStops() stops {
	return stops{
		tenants: map[string]int{}, senders: map[string]int{}, sources: map[string]int{},
		destinations: map[string]int{}, deliveries: map[DeliveryID]int{},
	}
}

func count[K comparable](m map[K]int, key K, by int) {
	if m[key] += by; m[key] <= 0 {
		delete(m, key)
	}
}

// Suspend stops all new attempts of what the selector names, under a name of
// its own; the same name again replaces the selector. Loaded messages go back
// at once, those being sent go on.
func (c *Core) Suspend(now time.Time, name string, sel Selector) {
	c.begin(now)
	if old, ok := c.suspends[name]; ok {
		c.apply(old, -1)
	}
	c.suspends[name] = sel
	c.apply(sel, +1)
	c.afterStop()
	c.flush()
}

// Unsuspend ends the suspension of that name; an unknown one is ignored.
func (c *Core) Unsuspend(now time.Time, name string) {
	c.begin(now)
	if sel, ok := c.suspends[name]; ok {
		delete(c.suspends, name)
		c.apply(sel, -1)
		c.afterStop()
	}
	c.flush()
}

// apply counts a suspension in or out and marks what it names.
func (c *Core) apply(sel Selector, by int) {
	switch sel.Kind {
	case Everything:
		c.stopped += by
	case ByTenant:
		count(c.stops.tenants, sel.Value, by)
	case BySenderDomain:
		count(c.stops.senders, sel.Value, by)
	case ByDelivery:
		count(c.stops.deliveries, sel.Delivery, by)
	case BySource:
		count(c.stops.sources, sel.Value, by)
	case ByDestination:
		count(c.stops.destinations, sel.Value, by)
	}
	if s := c.sources[sel.Value]; sel.Kind == BySource && s != nil {
		s.stopped = c.stops.sources[sel.Value] > 0
	}
	if d := c.destinations[sel.Value]; sel.Kind == ByDestination && d != nil {
		d.stopped = c.stops.destinations[sel.Value] > 0
	}
}

// afterStop brings everything in line with the suspensions and pauses in force.
func (c *Core) afterStop() {
	for d := c.inOrder.head; d != nil; d = d.inOrder.next {
		c.restop(d)
	}
	c.returnWhere(c.halted)
	c.wakeAll()
}

// restop marks the runs of a delivery as stopped or not.
func (c *Core) restop(d *delivery) {
	for r := d.runs.head; r != nil; r = r.inDelivery.next {
		if stopped := c.isStopped(r); stopped != r.stopped {
			r.stopped = stopped
			c.refresh(r)
		}
	}
}

func (c *Core) isStopped(r *run) bool {
	_, paused := c.paused[r.delivery.id]
	return paused || c.stops.deliveries[r.delivery.id] > 0 ||
		c.stops.tenants[r.sender.tenant] > 0 || c.stops.senders[r.sender.domain] > 0
}

// halted reports whether a message must not be sent for now.
func (c *Core) halted(m *msg) bool {
	if c.stopped > 0 || m.run.stopped || m.run.dropped {
		return true
	}
	if m.group != nil && m.group.dest.stopped {
		return true
	}
	return m.line != nil && !c.usable(m.line)
}

// Pause stops all new attempts of a delivery, known already or not.
func (c *Core) Pause(now time.Time, id DeliveryID) {
	c.begin(now)
	c.paused[id] = struct{}{}
	c.afterPause(id)
	c.flush()
}

// Unpause ends a delivery's pause.
func (c *Core) Unpause(now time.Time, id DeliveryID) {
	c.begin(now)
	delete(c.paused, id)
	c.afterPause(id)
	c.flush()
}

func (c *Core) afterPause(id DeliveryID) {
	d := c.deliveries[id]
	if d == nil {
		return
	}
	c.restop(d)
	c.returnWhere(func(m *msg) bool { return m.run.delivery == d && m.run.stopped })
}
