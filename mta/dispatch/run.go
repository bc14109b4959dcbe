package dispatch

import (
	"strings"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// run is what the core keeps of a Run. There may be half a million, so it holds
// no more than it must; what only runs with loaded mail need is in work.
type run struct {
	id       RunID
	delivery *delivery
	sender   *sender
	pool     *pool
	domain   *domain
	flow     *flow // nil while the domain has no group
	work     *work // nil while nothing is loaded or asked for

	fresh    int64                           // in the store, an upper bound
	deferred int64                           // in the store, an upper bound
	retry    timer                           // at: when the earliest deferred one is due
	counted  int64                           // what it adds to its lane's waiting mail
	tallied  struct{ fresh, deferred int64 } // what of it is in its destination's sums

	inDelivery links[run]
	inDomain   *run // the next of its domain
	inHungry   links[run]

	class   Class
	stopped bool // paused or suspended
	dropped bool
	avail   bool // counted in domain.avail
	probe   bool // the store may have retries that the counts do not show
	empty   bool // the last Load brought nothing; nothing is asked for until retry
}

// work is the part of a run that has messages in memory.
type work struct {
	fresh, retry list[msg] // loaded, unclaimed, free for any source
	inReady      links[run]
	out          int   // messages in memory in whatever state
	unclaimed    int   // of these, loaded and not claimed
	asked        int   // messages asked for by a Load under way
	grew         int64 // fresh mail that came while a Load was under way
	put          int64 // retries that came while a Load was under way
	putDue       int64 // the earliest of them
	loading      bool
	turnRetry    bool // whose turn it is of fresh mail and retries
}

// sender is whose mail a run is; equal ones are kept once.
type sender struct {
	tenant, domain string
}

// delivery is what runs of one delivery share.
type delivery struct {
	id       DeliveryID
	priority int
	runs     list[run]
	lookups  [2]asker // by class
	asking   int      // look-ups under way
	inOrder  links[delivery]
	met      map[mxrules.Reaction][]int64 // when replies met a reaction that holds it
}

func runInDelivery(r *run) *links[run] { return &r.inDelivery }
func runHungry(r *run) *links[run]     { return &r.inHungry }
func runReady(r *run) *links[run]      { return &r.work.inReady }

// AddRun reports new backlog. A run that is known already grows by it. Runs of one
// delivery may be of different pools; the run's priority becomes its delivery's. It
// stays until DropRun.
func (c *Core) AddRun(now time.Time, spec Run) {
	c.begin(now)
	if r := c.runs.Get(uint64(spec.ID)); r != nil {
		c.grow(r, spec.Fresh)
		c.put(r, spec.Deferred, nanos(spec.NextDue))
	} else {
		c.addRun(&spec)
	}
	c.flush()
}

func (c *Core) addRun(spec *Run) {
	r := &run{
		id:       spec.ID,
		delivery: c.deliveryOf(spec),
		sender:   c.senderOf(spec.Tenant, spec.SenderDomain),
		pool:     c.poolOf(spec.Pool),
		domain:   c.domainOf(spec.Domain),
		fresh:    max(spec.Fresh, 0),
		deferred: max(spec.Deferred, 0),
		class:    min(spec.Class, Transactional),
	}
	if r.deferred > 0 {
		r.retry.at = nanos(spec.NextDue)
	}
	c.runs.Put(uint64(r.id), r)
	r.delivery.runs.push(r)
	r.domain.addRun(r)
	r.stopped = c.isStopped(r)
	c.attach(r)
	c.refresh(r)
}

func (c *Core) deliveryOf(spec *Run) *delivery {
	d := c.deliveries[spec.Delivery]
	if d == nil {
		d = &delivery{id: spec.Delivery}
		d.runs.of = runInDelivery
		for class := range d.lookups {
			d.lookups[class].init()
		}
		c.deliveries[d.id] = d
		c.inOrder.push(d)
	}
	d.priority = weight(spec.Priority)
	return d
}

// weight holds a priority in 1..100.
func weight(priority int) int { return min(max(priority, 1), 100) }

func (c *Core) senderOf(tenant, domain string) *sender {
	key := sender{tenant, domain}
	s := c.senders[key]
	if s == nil {
		s = &sender{strings.Clone(tenant), strings.Clone(domain)}
		c.senders[*s] = s
	}
	return s
}

// Grew reports n more fresh messages of a run. An unknown run is ignored.
func (c *Core) Grew(now time.Time, id RunID, n int) {
	c.begin(now)
	if r := c.runs.Get(uint64(id)); r != nil && n > 0 {
		c.grow(r, int64(n))
	}
	c.flush()
}

func (c *Core) grow(r *run, n int64) {
	if n <= 0 {
		return
	}
	r.fresh += n
	r.empty = false
	if r.work != nil && r.work.loading {
		r.work.grew += n
	}
	c.refresh(r)
}

// put records n retries in the store, the earliest due at the instant given.
func (c *Core) put(r *run, n, due int64) {
	if n <= 0 {
		return
	}
	at := due
	if r.deferred > 0 {
		at = min(at, r.retry.at)
	}
	r.deferred += n
	c.setDue(r, at)
	if w := r.work; w != nil && w.loading {
		if w.put == 0 || due < w.putDue {
			w.putDue = due
		}
		w.put += n
	}
	c.refresh(r)
}

// setDue sets when the run's earliest retry is due; refresh arms the timer.
func (c *Core) setDue(r *run, at int64) {
	if r.retry.armed() {
		c.retries.arm(r, at)
	}
	r.retry.at = at
}

// due reports whether the store has a retry that may be loaded now.
func (c *Core) due(r *run) bool { return r.deferred > 0 && r.retry.at <= c.now }

// stock reports whether the store has mail of the run that may be loaded now.
func (c *Core) stock(r *run) bool { return r.fresh > 0 && !r.empty || c.due(r) }

// refresh brings everything that depends on a run's mail up to date: its retry
// timer, the queues of runs that want to load, and its domain's need of a route.
func (c *Core) refresh(r *run) {
	if r.dropped {
		c.tally(r, 0, 0)
	} else {
		c.tally(r, r.fresh, r.deferred)
	}
	may := !r.stopped && !r.dropped
	stock := may && c.stock(r)
	c.refreshTimer(r, may)
	c.refreshCount(r, may, stock)
	loading := r.work != nil && r.work.loading
	c.refreshHungry(r, stock && !loading)
	if avail := stock || !r.dropped && r.work != nil && r.work.out > 0; avail != r.avail {
		r.avail = avail
		c.setAvail(r.domain, avail)
	}
	if stock && r.domain.wantsLookup(c.now) {
		c.queueLookup(r.domain, r)
	}
}

// setAvail counts one more, or one less, run with mail among the domain's.
func (c *Core) setAvail(d *domain, more bool) {
	if more {
		if d.avail++; d.avail == 1 {
			c.restock(d, 1)
		}
	} else if d.avail--; d.avail == 0 {
		c.restock(d, -1)
	}
}

func (c *Core) refreshTimer(r *run, may bool) {
	if may && r.deferred > 0 && r.retry.at > c.now {
		c.retries.arm(r, r.retry.at)
	} else {
		c.retries.stop(r)
	}
}

// refreshCount updates the lane's count of waiting mail. Retries in the store
// count as one, since nobody knows how many of them are due.
func (c *Core) refreshCount(r *run, may, stock bool) {
	n := int64(0)
	if may && r.flow != nil {
		if r.work != nil {
			n = int64(r.work.unclaimed)
		}
		if stock {
			n += r.fresh
			if c.due(r) {
				n++
			}
		}
	}
	if n == r.counted || r.flow == nil {
		return
	}
	r.flow.lane.count(r.class, n-r.counted)
	r.counted = n
	c.dirtyGroups.push(r.flow.lane.group)
}

// refreshHungry puts the run where its next Load is decided: with its flow, or
// with its domain if that failed for good.
func (c *Core) refreshHungry(r *run, hungry bool) {
	switch {
	case r.flow != nil:
		r.flow.hungry.set(r, hungry)
		r.flow.place()
		if hungry {
			c.dirtyGroups.push(r.flow.lane.group)
		}
	case r.domain.state == domainDead:
		r.domain.trouble.hungry.set(r, hungry)
		if r.domain.trouble.hungry.n > 0 {
			c.dead.push(r.domain)
		} else {
			c.dead.remove(r.domain)
		}
	default:
		leave(&r.inHungry, r)
	}
}

// DropRun forgets a run. Messages loaded and not sent are Returned; those being
// sent go on to be Replied and Settled.
func (c *Core) DropRun(now time.Time, id RunID) {
	c.begin(now)
	if r := c.runs.Get(uint64(id)); r != nil {
		c.dropRun(r)
	}
	c.flush()
}

// DropDelivery forgets a delivery, its runs and its pause.
func (c *Core) DropDelivery(now time.Time, id DeliveryID) {
	c.begin(now)
	if d := c.deliveries[id]; d != nil {
		for r := d.runs.head; r != nil; r = d.runs.head {
			c.dropRun(r)
		}
	}
	delete(c.paused, id)
	c.flush()
}

func (c *Core) dropRun(r *run) {
	r.dropped = true
	c.runs.Remove(uint64(r.id))
	if r.work != nil && r.work.out > 0 {
		c.returnWhere(func(m *msg) bool { return m.run == r })
	}
	c.refresh(r)
	c.detach(r)
	d := r.delivery
	d.runs.remove(r)
	r.domain.removeRun(r)
	if d.runs.n == 0 {
		c.inOrder.remove(d)
		delete(c.deliveries, d.id)
		c.disown(d)
	}
	c.dropWork(r)
	c.forgetDomain(r.domain)
	if len(c.senders) > 2*c.runs.Len()+1024 {
		c.sweepSenders()
	}
}

// sweepSenders forgets senders without runs, once they outnumber the runs.
func (c *Core) sweepSenders() {
	clear(c.senders)
	for d := c.inOrder.head; d != nil; d = d.inOrder.next {
		for r := d.runs.head; r != nil; r = r.inDelivery.next {
			c.senders[*r.sender] = r.sender
		}
	}
}

// UpdateDelivery changes the pool and priority of a delivery. Messages loaded
// and not sent go back when the pool changes.
func (c *Core) UpdateDelivery(now time.Time, id DeliveryID, pool string, priority int) {
	c.begin(now)
	if d := c.deliveries[id]; d != nil {
		c.updateDelivery(d, pool, priority)
	}
	c.flush()
}

// MoveRun gives one run another pool than the others of its delivery have. Messages
// loaded and not claimed go back.
func (c *Core) MoveRun(now time.Time, id RunID, pool string) {
	c.begin(now)
	if r := c.runs.Get(uint64(id)); r != nil && r.pool != c.poolOf(pool) {
		r.pool = c.poolOf(pool)
		c.moveRun(r)
	}
	c.flush()
}

func (c *Core) updateDelivery(d *delivery, pool string, priority int) {
	d.priority = weight(priority)
	p := c.poolOf(pool)
	for r := d.runs.head; r != nil; r = r.inDelivery.next {
		if r.pool != p {
			r.pool = p
			c.moveRun(r)
		}
	}
}

// moveRun gives back what is loaded of a run and queues it anew by its domain's
// group and its pool.
func (c *Core) moveRun(r *run) {
	if r.work != nil && r.work.out > 0 {
		c.returnWhere(func(m *msg) bool { return m.run == r })
	}
	c.detach(r)
	c.attach(r)
	c.refresh(r)
}

// attach gives a run its flow, if its domain has a group.
func (c *Core) attach(r *run) {
	if r.domain.group == nil || r.dropped {
		return
	}
	if r.work != nil {
		c.unask(r)
	}
	r.flow = c.flowOf(r.domain.group, r)
	r.flow.runs++
}

// detach takes a run out of its flow. Nothing of it may be loaded and unclaimed.
func (c *Core) detach(r *run) {
	leave(&r.inHungry, r)
	f := r.flow
	if f == nil {
		return
	}
	if r.work != nil {
		c.unask(r)
		f.ready.remove(r)
	}
	f.lane.count(r.class, -r.counted)
	r.counted = 0
	r.flow = nil
	c.dirtyGroups.push(f.lane.group)
	f.runs--
	c.settleFlow(f)
}

// workOf is the run's work, made if need be.
func (c *Core) workOf(r *run) *work {
	if r.work != nil {
		return r.work
	}
	if n := len(c.freeWork); n > 0 {
		r.work = c.freeWork[n-1]
		c.freeWork = c.freeWork[:n-1]
	} else {
		r.work = &work{}
		r.work.fresh.of, r.work.retry.of = msgQueued, msgQueued
	}
	return r.work
}

// dropWork releases the work of a run with nothing in memory.
func (c *Core) dropWork(r *run) {
	w := r.work
	if w == nil || w.out > 0 || w.loading && !r.dropped {
		return
	}
	if w.loading {
		c.loadEnded(r)
	}
	if r.flow != nil {
		r.flow.ready.remove(r)
	}
	fresh, retry := w.fresh.of, w.retry.of
	*w = work{}
	w.fresh.of, w.retry.of = fresh, retry
	r.work = nil
	if len(c.freeWork) < maxFree {
		c.freeWork = append(c.freeWork, w)
	}
}

// maxFree bounds the lists of structs kept for use again.
const maxFree = 4096
