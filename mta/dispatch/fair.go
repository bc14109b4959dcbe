package dispatch

// lane is the mail of one pool for one group: what any line of the pool's
// sources to that group may take.
type lane struct {
	group   *group
	pool    *pool
	waiting int64 // messages that might be claimed if there were sessions enough
	urgent  int64 // of these, transactional ones
	queues  [2]queue
	flows   int
}

// queue is one class of a lane.
type queue struct {
	ready    []*flow    // with loaded mail: a heap by pass
	starving list[flow] // with mail in the store and none in memory
	hungry   list[flow] // with mail in both
	loaded   int        // messages in memory, unclaimed
	asked    int        // messages of Loads under way
}

// flow is what one delivery has in one class of a lane: the unit among which
// slots are dealt by priority. Within it, runs take turns.
//
// Dealing is stride scheduling with start-time tags: each message taken puts the
// flow's pass on by 1/priority, the lowest pass is next, and a flow that comes
// (back) starts where the others are. So a small delivery gets its share at
// once, however much others have queued, and none saves up turns.
type flow struct {
	key      flowKey
	lane     *lane
	delivery *delivery
	class    Class
	pass     uint64
	pos      int // in queue.ready from 1; 0 is not in it
	ready    list[run]
	hungry   list[run]
	loaded   int
	asked    int
	runs     int
	inQueue  links[flow]
}

type flowKey struct {
	lane     *lane
	delivery *delivery
	class    Class
}

// stride of priority 1.
const stride = 1 << 32

func flowQueued(f *flow) *links[flow] { return &f.inQueue }

func (c *Core) flowOf(g *group, r *run) *flow {
	l := g.lane(r.pool)
	key := flowKey{l, r.delivery, r.class}
	f := c.flows[key]
	if f == nil {
		f = &flow{key: key, lane: l, delivery: r.delivery, class: r.class}
		f.ready.of, f.hungry.of = runReady, runHungry
		c.flows[key] = f
		l.flows++
	}
	return f
}

// settleFlow forgets a flow without runs, and its lane without flows.
func (c *Core) settleFlow(f *flow) {
	f.place()
	if f.runs > 0 {
		return
	}
	delete(c.flows, f.key)
	f.lane.flows--
	if f.lane.flows == 0 {
		f.lane.group.dropLane(f.lane)
	}
}

func (f *flow) queue() *queue { return &f.lane.queues[f.class] }

// place puts the flow where its next Load is decided.
func (f *flow) place() {
	q := f.queue()
	starving := f.hungry.n > 0 && f.loaded+f.asked == 0
	q.starving.set(f, starving)
	q.hungry.set(f, f.hungry.n > 0 && !starving)
}

// add takes a loaded message of run r in.
func (f *flow) add(r *run, m *msg) {
	w := r.work
	if m.retry {
		w.retry.push(m)
	} else {
		w.fresh.push(m)
	}
	f.ready.push(r)
	f.loaded++
	f.queue().loaded++
	if f.pos == 0 {
		f.pass = max(f.pass, f.lane.group.clock[f.class])
		f.queue().insert(f)
	}
}

// drop takes a loaded message out that is not claimed.
func (f *flow) drop(r *run, m *msg) {
	leave(&m.inQueue, m)
	w := r.work
	if w.fresh.n+w.retry.n == 0 {
		f.ready.remove(r)
	}
	f.loaded--
	f.queue().loaded--
	if f.loaded == 0 {
		f.queue().remove(f)
	}
}

// head is the message whose turn it is, and its run; the queue must have one. Within
// a run retries and fresh mail alternate.
func (q *queue) head() (*run, *msg) {
	r := q.ready[0].ready.head
	w := r.work
	if w.retry.n > 0 && (w.turnRetry || w.fresh.n == 0) {
		return r, w.retry.head
	}
	return r, w.fresh.head
}

// take takes that message.
func (q *queue) take() *msg {
	f := q.ready[0]
	r, m := q.head()
	r.work.turnRetry = m != r.work.retry.head
	f.lane.group.clock[f.class] = f.pass
	f.pass += stride / uint64(f.delivery.priority)
	f.drop(r, m)
	if f.ready.head == r {
		f.ready.rotate()
	}
	if f.pos != 0 {
		q.down(f.pos - 1)
	}
	f.place()
	return m
}

func (q *queue) insert(f *flow) {
	q.ready = append(q.ready, f)
	f.pos = len(q.ready)
	q.up(f.pos - 1)
}

func (q *queue) remove(f *flow) {
	i, last := f.pos-1, len(q.ready)-1
	if i < 0 {
		return
	}
	q.swap(i, last)
	q.ready[last] = nil
	q.ready = q.ready[:last]
	f.pos = 0
	if i < last {
		moved := q.ready[i]
		q.up(i)
		q.down(moved.pos - 1)
	}
}

func (q *queue) swap(i, j int) {
	q.ready[i], q.ready[j] = q.ready[j], q.ready[i]
	q.ready[i].pos, q.ready[j].pos = i+1, j+1
}

func (q *queue) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if q.ready[parent].pass <= q.ready[i].pass {
			return
		}
		q.swap(i, parent)
		i = parent
	}
}

func (q *queue) down(i int) {
	for {
		least := 2*i + 1
		if least >= len(q.ready) {
			return
		}
		if right := least + 1; right < len(q.ready) && q.ready[right].pass < q.ready[least].pass {
			least = right
		}
		if q.ready[i].pass <= q.ready[least].pass {
			return
		}
		q.swap(i, least)
		i = least
	}
}
