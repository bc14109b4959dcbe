package dispatch

import (
	"time"

	"github.com/veredus/veredus/mxrules"
)

// A session's turn, when others wait for its connection or slot: it ends after
// so many messages or so long, whichever comes first.
const (
	turnMessages = 25
	turnTime     = 5 * time.Second
)

// Lines wait for slots by two properties. Those with transactional mail come first, nine of
// ten times, and the last few slots are kept for them. And some hosts are known to work, of
// others that is not known (again): their first sessions are probes. Dead hosts keep a
// slot for as long as a dial lasts. So probes are given a quarter of the slots when there is
// a crowd, and those for bulk mail never more than three eighths, all of them never more
// than seven sixteenths; all dials together have at most half: however many destinations
// are dead, they delay the others only so much.
const (
	known  = iota // bulk mail, hosts that work
	probe         // bulk mail, hosts that may not
	urgent        // transactional mail, hosts that work
	eager         // transactional mail, hosts that may not
	kinds
)

// slotClass is whose mail the lines of a kind have.
var slotClass = [kinds]Class{known: Bulk, probe: Bulk, urgent: Transactional, eager: Transactional}

// slotKind is the queue for slots in which a line waits.
func (c *Core) slotKind(l *line) int {
	switch {
	case c.transactional(l) && l.proven:
		return urgent
	case c.transactional(l):
		return eager
	case l.proven:
		return known
	}
	return probe
}

// keptSlots is how many slots are kept for transactional mail: a fiftieth, at most twenty.
// They let it begin at once; what is more of it has the next slots that come free.
func (c *Core) keptSlots() int { return min(c.cfg.MaxSessions/50, 20) }

// slotsFor is how many slots may be in use for a line of a kind to get one more.
func (c *Core) slotsFor(kind int) int {
	if slotClass[kind] == Transactional {
		return c.cfg.MaxSessions
	}
	return c.cfg.MaxSessions - c.keptSlots()
}

// maySlot reports whether a line of a kind may take a slot now, if it is its turn.
func (c *Core) maySlot(kind int) bool {
	if c.held >= c.slotsFor(kind) || c.opening >= c.half() {
		return false
	}
	return c.mayProbe(kind) && (slotClass[kind] == Transactional || !c.brimful())
}

// mayProbe reports whether probes have room for a line of a kind.
func (c *Core) mayProbe(kind int) bool {
	switch kind {
	case probe:
		return c.probes < c.mostProbes()
	case eager:
		return c.probes < max(1, c.cfg.MaxSessions*7/16)
	}
	return true
}

// half is how many slots one destination may hold while another waits, and all
// sessions being opened at any time.
func (c *Core) half() int { return max(1, c.cfg.MaxSessions/2) }

// mostProbes is how many slots all probes together may hold for one more for bulk mail.
func (c *Core) mostProbes() int { return max(1, c.cfg.MaxSessions*3/8) }

// probesDue reports whether probes have less than their part of the slots.
func (c *Core) probesDue() bool { return c.probes < max(1, c.cfg.MaxSessions/4) }

// inLine is how many destinations wait for a slot that they may have.
func (c *Core) inLine() (n int) {
	for kind := range c.slotQueues {
		if c.mayProbe(kind) {
			n += c.slotQueues[kind].n
		}
	}
	return n
}

// othersWait reports whether a destination other than d waits for a slot that
// it may have.
func (c *Core) othersWait(d *destination) bool {
	n := c.inLine()
	for kind := range d.inSlots {
		if d.inSlots[kind].on != nil && c.mayProbe(kind) {
			n--
		}
	}
	return n > 0
}

// brimful reports whether so many outcomes wait for the disk that nothing may be sent,
// nor a session be opened to wait for it. Lines stay in the queue for slots meanwhile:
// there may be thousands, and to ask each of them at every outcome costs more than the
// mail.
func (c *Core) brimful() bool { return c.unsettled >= c.cfg.MaxUnsettled }

// slotFree reports whether the line may take a slot now: there is one, and
// nobody waited for it before.
func (c *Core) slotFree(l *line) bool {
	kind := c.slotKind(l)
	if slotClass[kind] == Transactional {
		d := l.group.dest
		return c.slotQueues[kind].n == 0 && c.maySlot(kind) && (d.held < c.half() || !c.othersWait(d))
	}
	return c.inLine() == 0 && c.maySlot(kind)
}

// queueSlot makes a line wait for a slot. Destinations take turns, and lines
// within a destination.
func (c *Core) queueSlot(l *line) {
	d, kind := l.group.dest, c.slotKind(l)
	if kind != probe || !c.hasty(l) || c.hastes >= maxHasty {
		if kind == probe {
			c.hastes = 0
		}
		d.slotLines[kind].push(l)
		c.slotQueues[kind].push(d)
		return
	}
	c.hastes++
	d.slotLines[kind].pushFront(l)
	c.slotQueues[kind].remove(d)
	c.slotQueues[kind].pushFront(d)
}

// maxHasty is how many probes in a row do not wait behind the others.
const maxHasty = 9

// hasty reports whether a probe shall not wait behind all others: one for much mail
// whose host was never tried, while thousands of hosts with little mail may be dead.
func (c *Core) hasty(l *line) bool {
	if l.level > 0 || l.failed != "" {
		return false
	}
	for _, ln := range l.group.lanes {
		if ln.waiting >= muchMail && ln.pool.reaches(l.source) {
			return true
		}
	}
	return false
}

// hurry lets a line that waits for a slot go before others, now that it has
// transactional mail.
func (c *Core) hurry(l *line) {
	lines := &l.group.dest.slotLines
	if on := l.inSlot.on; on != nil && on != &lines[urgent] && on != &lines[eager] && c.transactional(l) {
		c.leaveSlots(l)
		c.queueSlot(l)
	}
}

func (c *Core) leaveSlots(l *line) {
	leave(&l.inSlot, l)
	d := l.group.dest
	for kind := range kinds {
		if d.slotLines[kind].n == 0 {
			c.slotQueues[kind].remove(d)
		}
	}
}

// order lists the kinds of lines that may have the next slot, the first first.
func (c *Core) order() []int {
	first := probesLast[:]
	if c.probesDue() {
		first = probesFirst[:]
	}
	if c.slotTurn.next(c.slotQueues[urgent].n+c.slotQueues[eager].n > 0, true) == Transactional {
		return first
	}
	return first[2:] // bulk mail's turn: transactional mail has it again when there is none
}

var (
	probesFirst = [...]int{urgent, eager, probe, known, urgent, eager}
	probesLast  = [...]int{urgent, eager, known, probe, urgent, eager}
)

// pumpSlots gives a free slot to the next waiting destination, or asks for
// slots when there are none. It answers whether there is more to decide: one
// slot is dealt at a time, so that each is dealt with all claims to it known.
func (c *Core) pumpSlots() bool {
	if c.inLine() > 0 {
		for _, kind := range c.order() {
			if !c.maySlot(kind) {
				continue
			}
			if l := c.nextInLine(kind); l != nil {
				c.slotTurn.took(slotClass[kind], c.slotQueues[known].n+c.slotQueues[probe].n > 0)
				c.takeSlot(l)
				return true
			}
		}
		if c.held >= c.slotsFor(known) {
			c.reclaimSlots()
		}
	}
	return c.dirtyGroups.n > 0 || c.dirtyPaths.n > 0
}

// nextInLine takes the next line of a kind out of its queue: of the first
// destination that does not hold its half while others wait.
func (c *Core) nextInLine(kind int) *line {
	queue := &c.slotQueues[kind]
	for n := queue.n; n > 0; n-- {
		d := queue.head
		if d.held >= c.half() && c.othersWait(d) {
			queue.rotate()
			continue
		}
		queue.remove(d)
		l := d.slotLines[kind].pop()
		if d.slotLines[kind].n > 0 {
			queue.push(d)
		}
		return l
	}
	return nil
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
	need := c.slotQueues[known].n - c.leaving
	if c.held >= c.slotsFor(urgent) {
		need += c.slotQueues[urgent].n
		if c.mayProbe(eager) {
			need += c.slotQueues[eager].n
		}
	}
	if c.probesDue() {
		need += c.slotQueues[probe].n
	}
	for ; need > 0; need-- {
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
	if top == nil {
		return nil
	}
	empty := false
	for _, kind := range c.order() {
		if kind == probe && !c.probesDue() {
			continue
		}
		n := 0
		for d := c.slotQueues[kind].head; d != nil && n < maxLook; d, n = d.inSlots[kind].next, n+1 {
			if d != top && (top.live() > c.half() || top.live() >= d.live()+2) {
				if s := oldestOpen(&top.sessions); s != nil {
					return s
				}
			}
			empty = empty || d.live() == 0
		}
	}
	if empty {
		return c.oldestTurn()
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
		if ln.waiting > 0 && ln.pool.reaches(l.source) {
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
