package dispatch

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
)

// Which source mail goes by.
//
// A group's mail of one pool prefers the pool's sources in an order of its own, so
// that a recipient domain gets its mail from the same source as long as that has
// room, and receivers see steady streams: the first of the order that may open a
// session does, and the next ones take what is beyond its connections, rates and
// caps. The order is by rendezvous hashing weighted by the sources' weights: over
// many domains each source is first for its share, and a source that comes or goes
// moves only the domains that are its own.
//
// Cold sources, those that are being warmed up, come before all others while they
// have room: what they may send is little, and they get on only if it is sent.
// Transactional mail leaves them to bulk mail, unless the pool has no other source.
//
// What a pool's sources may not send for their warm-up alone goes to the sources of
// its overflow pool, and on from there. A pool with one source that is not cold never
// overflows: its mail waits for that source as in any pool.

// maxHops bounds how far mail overflows from pool to pool.
const maxHops = 8

// preference is the sources of a pool in the order that a group prefers them.
type preference struct {
	pool    *pool
	version uint64
	sources []*source
}

// ordered is the pool's sources in the group's order of preference.
func (c *Core) ordered(g *group, p *pool) []*source {
	if len(p.sources) == 1 {
		return p.sources
	}
	i := slices.IndexFunc(g.orders, func(o preference) bool { return o.pool == p })
	if i < 0 {
		i = len(g.orders)
		g.orders = append(g.orders, preference{pool: p})
	}
	o := &g.orders[i]
	if o.version == c.version {
		return o.sources
	}
	o.version, o.sources = c.version, slices.Clone(p.sources)
	if len(o.sources) > 1 {
		slices.SortStableFunc(o.sources, func(a, b *source) int {
			return cmp.Or(cmp.Compare(g.distance(a), g.distance(b)), cmp.Compare(a.Name, b.Name))
		})
	}
	return o.sources
}

// distance is the source's place in the group's order: an exponential variate with
// the source's weight as its rate, so that the least of several is each one's with a
// probability in proportion to its weight.
func (g *group) distance(s *source) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(g.dest.name + "\n" + g.hosts[0].Name + "\n" + g.scope + "\n" + s.Name))
	u := (float64(mix(h.Sum64())>>11) + 0.5) / (1 << 53)
	return -math.Log(u) / float64(s.weight())
}

// mix spreads a hash's bits (the finisher of SplitMix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// choose picks the line that shall open the next session for a lane's mail; nil when
// none may.
func (c *Core) choose(l *lane) *line {
	for p, hops := l.pool, 0; p != nil && hops <= maxHops; p, hops = p.overflow, hops+1 {
		if ln := c.chooseFrom(l, p); ln != nil {
			return ln
		}
		if p.overflow == nil || !c.full(p, l.group) {
			return nil
		}
	}
	return nil
}

// chooseFrom picks among the sources of one pool: cold ones first.
func (c *Core) chooseFrom(l *lane, p *pool) *line {
	list := c.ordered(l.group, p)
	if !c.onlyTransactional(l) || !p.warm() {
		for _, s := range list {
			if s.cold() && !s.stopped {
				if ln := c.lineOf(l.group, s); c.mayMove(ln, l) && c.eligible(ln) {
					return ln
				}
			}
		}
	}
	for _, s := range list {
		if !s.cold() && !s.stopped {
			if ln := c.lineOf(l.group, s); c.mayMove(ln, l) && c.eligible(ln) {
				return ln
			}
		}
	}
	return nil
}

// onlyTransactional reports whether a lane has no bulk mail waiting.
func (c *Core) onlyTransactional(l *lane) bool { return l.waiting == l.urgent }

// takes reports whether a line may take a lane's mail of a class now.
func (c *Core) takes(l *line, ln *lane, class Class) bool {
	for p, hops := ln.pool, 0; p != nil && hops <= maxHops; p, hops = p.overflow, hops+1 {
		if p.has(l.source) {
			return (class == Bulk || !l.source.cold() || !p.warm()) && c.mayMove(l, ln)
		}
		if p.overflow == nil || !c.full(p, ln.group) {
			return false
		}
	}
	return false
}

// serves reports whether a line may take any of a lane's mail now.
func (c *Core) serves(l *line, ln *lane) bool {
	return c.takes(l, ln, Transactional) || !c.onlyTransactional(ln) && c.takes(l, ln, Bulk)
}

// count notes that so many more of the lane's messages wait.
func (l *lane) count(class Class, n int64) {
	l.waiting += n
	if class == Transactional {
		l.urgent += n
	}
}

// reaches reports whether a pool's mail may come to a source: one of its own, or one
// behind pools whose sources are all cold.
func (p *pool) reaches(s *source) bool {
	for hops := 0; p != nil && hops <= maxHops; p, hops = p.overflow, hops+1 {
		if p.has(s) {
			return true
		}
		if p.overflow == nil || !p.allCold() {
			return false
		}
	}
	return false
}

// warm reports whether the pool has a source in use that is not cold.
func (p *pool) warm() bool {
	return slices.ContainsFunc(p.sources, func(s *source) bool { return !s.stopped && !s.removed && !s.cold() })
}

// allCold reports whether the pool's sources in use are all being warmed up, and at
// least one is.
func (p *pool) allCold() bool {
	cold := false
	for _, s := range p.sources {
		if s.stopped || s.removed {
			continue
		}
		if !s.cold() {
			return false
		}
		cold = true
	}
	return cold
}

// full reports whether a pool's sources are all cold, and none of them takes more of
// a group's mail now for its warm-up alone.
func (c *Core) full(p *pool, g *group) bool {
	if !p.allCold() {
		return false
	}
	for _, s := range p.sources {
		if !s.stopped && (c.acts(g, s) || !p.moveBlocked && g.blockedAt(s)) {
			return false
		}
	}
	return true
}

// blockedAt reports whether a source is blocked at the group.
func (g *group) blockedAt(s *source) bool {
	return slices.ContainsFunc(g.lines, func(l *line) bool { return l.source == s && !l.obsolete && l.blocked() })
}

// acts reports whether a cold source has room for a group's mail and is about to take
// some by itself.
func (c *Core) acts(g *group, s *source) bool {
	n, _ := s.warmth.up.Room(c.at, g.dest.provider)
	if n == 0 {
		return false
	}
	i := slices.IndexFunc(g.lines, func(l *line) bool { return l.source == s && !l.obsolete })
	if i < 0 {
		return n > s.warmth.reserved
	}
	l := g.lines[i]
	if !c.usable(l) || l.until > c.now || c.rests(l) {
		return false
	}
	if l.reserved || l.idle.n > 0 {
		return true
	}
	return n > s.warmth.reserved && l.inWaiters.on == nil && l.inSlot.on == nil && !l.timer.armed()
}
