package dispatch

// Figures of loading, in messages. They keep sessions busy over the time that a
// read and a durable claim take, and memory small.
const (
	loadPerSession = 16 // loaded and unclaimed, of each class, for each open session
	loadPerLine    = 64 // the same for each source
	loadMost       = 64 // of one run at once
	loadTaste      = 4  // for a flow with nothing in memory when the lane is full
)

// load asks for mail where sessions are open. Flows come in turn. One with
// nothing in memory may exceed the lane's share a little, so that a newcomer
// need not wait until the others' mail, loaded before, has gone.
func (c *Core) load(l *lane) {
	if !c.mayLoad(l) {
		return
	}
	window := c.window(l)
	if window == 0 {
		return
	}
	for class := Transactional; ; class-- {
		c.loadClass(&l.queues[class], window)
		if class == Bulk {
			return
		}
	}
}

// mayLoad reports whether a lane would load if no path of its sources were at rest.
// Mostly it would not, which spares asking them.
func (c *Core) mayLoad(l *lane) bool {
	open, lines := 0, 0
	for _, ln := range l.group.lines {
		if ln.open > 0 && l.pool.reaches(ln.source) {
			open += ln.open
			lines++
		}
	}
	most := min(loadPerSession*open, loadPerLine*lines)
	return most > 0 && (l.queues[Transactional].room(most) || l.queues[Bulk].room(most))
}

// room reports whether a class would load within a window: for flows with nothing in
// memory always, for others not for a few.
func (q *queue) room(window int) bool {
	return q.starving.n > 0 || q.hungry.n > 0 && 4*(window-q.loaded-q.asked) >= window
}

func (c *Core) loadClass(q *queue, window int) {
	for f := q.starving.head; f != nil; f = q.starving.head {
		room := window - q.loaded - q.asked
		if room < loadTaste {
			room = min(loadTaste, 2*window-q.loaded-q.asked)
		}
		if room <= 0 {
			return
		}
		c.loadFlow(f, max(1, room/(q.starving.n+q.hungry.n)))
	}
	for q.hungry.n > 0 {
		room := window - q.loaded - q.asked
		if room <= 0 || room*4 < window {
			return // not for a few
		}
		f := q.hungry.head
		c.loadFlow(f, max(1, room/q.hungry.n))
		q.hungry.rotate()
	}
}

// loadFlow asks for about n messages of a flow from its next run.
func (c *Core) loadFlow(f *flow, n int) {
	r := f.hungry.head
	n = min(max(1, n/f.hungry.n), loadMost, c.loadable(r))
	f.asked += n
	f.queue().asked += n
	c.askLoad(r, n)
	f.place()
}

// loadable is how many messages of a run it makes sense to ask for.
func (c *Core) loadable(r *run) int {
	n := r.fresh
	if c.due(r) {
		n += r.deferred
	}
	return int(max(1, min(n, loadMost)))
}

// askLoad emits a Load of n messages, half of them retries when both exist. The
// caller has counted them.
func (c *Core) askLoad(r *run, n int) {
	w := c.workOf(r)
	w.asked, w.loading = n, true
	due := int64(0)
	if c.due(r) {
		due = r.deferred
	} else if r.probe || r.fresh == 0 { // the clock may have stepped back behind a due time
		due = 1
	}
	a := Action{Kind: Load, Run: r.id, Domain: r.domain.name}
	a.Fresh, a.Due = split(int64(n), r.fresh, due)
	r.probe = false
	c.emit(a)
	c.refresh(r)
}

// split divides a Load of n messages between fresh mail and retries: half and
// half when there is enough of both, at least one of each kind that exists.
func split(n, fresh, due int64) (int, int) {
	f, d := min(n, fresh), min(n, due)
	if f+d > n {
		d = max(min(d, (n+1)/2), n-f)
		f = max(n-d, min(f, 1))
	}
	return int(f), int(d)
}

// window is how many messages of each class a lane may have in memory: none
// without an open session that may send soon.
func (c *Core) window(l *lane) int {
	g := l.group
	if c.stopped > 0 || g.dest.stopped {
		return 0
	}
	open, lines := 0, 0
	for _, ln := range g.lines {
		if ln.open > 0 && l.pool.reaches(ln.source) && c.usable(ln) && !c.rests(ln) && c.mayMove(ln, l) {
			open += ln.open
			lines++
		}
	}
	return min(loadPerSession*open, loadPerLine*lines)
}
