package dispatch

import (
	"time"

	"github.com/veredus/veredus/mxrules"
)

// A session's turn, when others wait for its connection or slot: it ends after
// so many messages or so long, whichever comes first.
const (
	turnMessages = 10
	turnTime     = 5 * time.Second
)

// half is how many slots one destination may hold while another waits.
func (c *Core) half() int { return max(1, c.cfg.MaxSessions/2) }

// othersWait reports whether a destination other than d waits for a slot.
func (c *Core) othersWait(d *destination) bool {
	return c.slotQueue.n > 1 || c.slotQueue.n == 1 && c.slotQueue.head != d
}

// slotFree reports whether the line may take a slot now: there is one, and no
// other destination has a better right to it.
func (c *Core) slotFree(l *line) bool {
	d := l.group.dest
	return c.held < c.cfg.MaxSessions && !c.othersWait(d)
}

// queueSlot makes a line wait for a slot. Destinations take turns, and lines
// within a destination.
func (c *Core) queueSlot(l *line) {
	d := l.group.dest
	d.slotLines.push(l)
	c.slotQueue.push(d)
}

func (c *Core) leaveSlots(l *line) {
	leave(&l.inSlot, l)
	if l.group.dest.slotLines.n == 0 {
		c.slotQueue.remove(l.group.dest)
	}
}

// pumpSlots gives a free slot to the next waiting destination, or asks for
// slots when there are none. It answers whether there is more to decide: one
// slot is dealt at a time, so that each is dealt with all claims to it known.
func (c *Core) pumpSlots() bool {
	for n := c.slotQueue.n; n > 0 && c.held < c.cfg.MaxSessions; n-- {
		d := c.slotQueue.pop()
		if d.held >= c.half() && c.slotQueue.n > 0 {
			c.slotQueue.push(d)
			continue
		}
		l := d.slotLines.pop()
		if d.slotLines.n > 0 {
			c.slotQueue.push(d)
		}
		c.takeSlot(l)
		return true
	}
	if c.slotQueue.n > 0 && c.held >= c.cfg.MaxSessions {
		c.reclaimSlots()
	}
	return c.dirtyGroups.n > 0 || c.dirtyPaths.n > 0
}

// takeSlot opens the session that a line waited for, if it still wants one.
func (c *Core) takeSlot(l *line) {
	c.dirtyGroups.push(l.group)
	switch {
	case !c.lineWants(l):
	case c.heldBack(l):
		l.path.waiters.push(l)
	default:
		c.connect(l)
	}
}

// maxLook bounds how far one decision searches, so that its cost stays flat.
const maxLook = 16

// reclaimSlots makes sessions end for the destinations that wait.
func (c *Core) reclaimSlots() {
	for need := c.slotQueue.n - c.leaving; need > 0; need-- {
		s := c.spareSession()
		if s == nil {
			return
		}
		c.retire(s)
	}
}

// spareSession picks a session to end: one without mail; one of the largest
// destination if it holds more than half, or at least two more than one that
// waits; else, for one that has none, the oldest whose turn is over.
func (c *Core) spareSession() *session {
	if s := c.unusedSession(); s != nil {
		return s
	}
	top := c.crowd.top()
	n := 0
	for d := c.slotQueue.head; d != nil && top != nil && n < maxLook; d, n = d.inSlots.next, n+1 {
		if d != top && (top.live() > c.half() || top.live() >= d.live()+2) {
			if s := oldestOpen(&top.sessions); s != nil {
				return s
			}
		}
	}
	n = 0
	for d := c.slotQueue.head; d != nil && n < maxLook; d, n = d.inSlots.next, n+1 {
		if d.live() == 0 {
			return c.oldestTurn()
		}
	}
	return nil
}

// unusedSession is an idle session that no mail waits for.
func (c *Core) unusedSession() *session {
	n := 0
	for s := c.idle.head; s != nil && n < maxLook; s, n = s.inIdle.next, n+1 {
		if !s.line.needs() {
			return s
		}
	}
	return nil
}

// needs reports whether the line has mail at hand or in the store.
func (l *line) needs() bool {
	if l.unsent()+l.pinned.n > 0 {
		return true
	}
	for _, ln := range l.group.lanes {
		if ln.waiting > 0 && ln.pool.has(l.source) {
			return true
		}
	}
	return false
}

func oldestOpen(sessions *list[session]) *session {
	n := 0
	for s := sessions.head; s != nil && n < 4*maxLook; n++ {
		if s.open {
			return s
		}
		s = sessions.of(s).next
	}
	return nil
}

// oldestTurn is the oldest session whose turn is over; if there is none the
// core looks again when there will be.
func (c *Core) oldestTurn() *session {
	n := 0
	for s := c.byAge.head; s != nil && n < 4*maxLook; s, n = s.inCore.next, n+1 {
		if !s.open {
			continue
		}
		if c.turnOver(s) {
			return s
		}
		c.turnAt = min(c.turnAt, s.opened+int64(turnTime))
		return nil
	}
	return nil
}

func (c *Core) turnOver(s *session) bool {
	return s.sent >= turnMessages || c.now >= s.opened+int64(turnTime)
}

// reclaimConnection makes a session of another line on the path end, when that
// is the only way for line w to get its turn.
func (c *Core) reclaimConnection(p *path, w *line) {
	if p.leaving >= p.waiters.n || p.openHold != mxrules.HoldConnections {
		return
	}
	var largest *session
	n := 0
	for s := p.sessions.head; s != nil && n < 4*maxLook; s, n = s.inPath.next, n+1 {
		l := s.line
		if !s.open || l == w {
			continue
		}
		if s.inCredit.on != nil && !l.needs() {
			c.retire(s)
			return
		}
		if largest == nil || l.open > largest.line.open {
			largest = s
		}
	}
	switch {
	case largest == nil:
	case largest.line.open >= w.open+w.opening+2:
		c.retire(largest)
	case w.open+w.opening == 0:
		c.endTurn(p, w)
	}
}

// endTurn retires the path's oldest session whose turn is over.
func (c *Core) endTurn(p *path, w *line) {
	n := 0
	for s := p.sessions.head; s != nil && n < 4*maxLook; s, n = s.inPath.next, n+1 {
		if !s.open || s.line == w {
			continue
		}
		if c.turnOver(s) {
			c.retire(s)
		} else {
			c.pathTimers.armBy(p, s.opened+int64(turnTime))
		}
		return
	}
}

// crowd orders destinations by the sessions they mean to keep: a heap with the
// largest on top. Those without sessions are not in it.
type crowd struct{ items []*destination }

func (h *crowd) top() *destination {
	if len(h.items) == 0 {
		return nil
	}
	return h.items[0]
}

// fix restores the order after a destination's sessions changed.
func (h *crowd) fix(d *destination) {
	if d.rank == 0 {
		if d.live() == 0 {
			return
		}
		h.items = append(h.items, d)
		d.rank = len(h.items)
	}
	if d.live() == 0 {
		i, last := d.rank-1, len(h.items)-1
		h.swap(i, last)
		h.items[last] = nil
		h.items = h.items[:last]
		d.rank = 0
		if i == last {
			return
		}
		d = h.items[i]
	}
	h.up(d.rank - 1)
	h.down(d.rank - 1)
}

func (h *crowd) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	h.items[i].rank, h.items[j].rank = i+1, j+1
}

func (h *crowd) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if h.items[parent].live() >= h.items[i].live() {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *crowd) down(i int) {
	for {
		most := 2*i + 1
		if most >= len(h.items) {
			return
		}
		if right := most + 1; right < len(h.items) && h.items[right].live() > h.items[most].live() {
			most = right
		}
		if h.items[i].live() >= h.items[most].live() {
			return
		}
		h.swap(i, most)
		i = most
	}
}
