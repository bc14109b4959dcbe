package dispatch

import "time"

// Look-ups are dealt fairly, so that neither half a million domains of one delivery
// nor dead name servers keep others' domains from a route:
//
//   - Transactional mail's domains come first, nine of ten times.
//   - Of the deliveries that wait, the one with the fewest look-ups under way is next,
//     and none has more than three quarters of the places.
//   - Within a delivery domains with much mail come before those with little, three
//     to one; and domains that failed before have at most a quarter of all places.
//   - While very many destinations are in play, domains with little mail wait.
//   - While there is mail enough with a route that goes out now, a look-up is made only
//     now and then; routes for mail that cannot go yet would take the time of mail that can.

const (
	// muchMail makes a domain one of those with much mail.
	muchMail = 8
	// supplyEnough is how many domains with mail and a route, at destinations that
	// take it now, are enough; of one destination suppliesMost count.
	supplyEnough = 512
	suppliesMost = 256
	// lookupPace is the time between two look-ups of bulk mail while supply is enough.
	lookupPace = 2 * time.Millisecond
	// queuePace is the same while as many destinations wait for a session slot as there
	// are slots: what is looked up then would only wait behind them.
	queuePace = 10 * time.Millisecond
	// crowdPace is the same while too many destinations are in play. Domains with much
	// mail need not wait for it, up to twice as many destinations.
	crowdPace = time.Second
	// paceBurst is how many of them may come at once.
	paceBurst = 32
)

// Kinds of domains that wait for a look-up.
const (
	askMuch  = iota // with much mail
	askSome         // with little
	askAgain        // failed the last time
	asks
)

// asker is what a delivery has of look-ups in one class.
type asker struct {
	queues  [asks]list[domain]
	waiting int // in all of them
	turn    int8
	inTurn  links[delivery]
}

func domainLookup(d *domain) *links[domain] { return &d.inLookups }

func (a *asker) init() {
	for kind := range a.queues {
		a.queues[kind].of = domainLookup
	}
}

// next is the domain whose turn it is; nil when only such are left as may not be asked
// for yet: again, or with little mail.
func (a *asker) next(again, little bool) *domain {
	if !little {
		return a.queues[askMuch].head
	}
	order := [...]int{askMuch, askSome}
	if a.turn++; a.turn > 3 {
		a.turn, order = 0, [...]int{askSome, askMuch}
	}
	if again && a.turn&1 == 1 {
		if d := a.queues[askAgain].head; d != nil {
			return d
		}
	}
	for _, kind := range order {
		if d := a.queues[kind].head; d != nil {
			return d
		}
	}
	if again {
		return a.queues[askAgain].head
	}
	return nil
}

// queueLookup makes a domain wait for a look-up, on account of a run with mail.
func (c *Core) queueLookup(d *domain, r *run) {
	if d.asking || d.inLookups.on != nil {
		return
	}
	d.class, d.asker = max(d.class, r.class), r.delivery
	a := &d.asker.lookups[d.class]
	kind := askSome
	switch {
	case d.level > 0:
		kind = askAgain
	case r.fresh+r.deferred >= muchMail:
		kind = askMuch
	}
	a.queues[kind].push(d)
	a.waiting++
	c.lookups[d.class].push(d.asker)
}

// unqueueLookup ends the wait.
func (c *Core) unqueueLookup(d *domain) {
	if d.inLookups.on == nil {
		return
	}
	leave(&d.inLookups, d)
	a := &d.asker.lookups[d.class]
	if a.waiting--; a.waiting == 0 {
		c.lookups[d.class].remove(d.asker)
	}
}

// disown gives the domains that wait on account of a delivery without runs to others
// that have mail for them.
func (c *Core) disown(gone *delivery) {
	for class := range gone.lookups {
		for kind := range gone.lookups[class].queues {
			q := &gone.lookups[class].queues[kind]
			for d := q.head; d != nil; d = q.head {
				c.unqueueLookup(d)
				d.class = Bulk
				c.askFor(d)
			}
		}
	}
}

// askFor queues a domain for a look-up on account of its first run with mail.
func (c *Core) askFor(d *domain) {
	for r := d.runs; r != nil; r = r.inDomain {
		if !r.stopped && !r.dropped && c.stock(r) {
			c.queueLookup(d, r)
			return
		}
	}
}

// pumpLookups asks for routes.
func (c *Core) pumpLookups() {
	c.lookupAt = none
	for c.resolving < c.cfg.MaxResolving && c.stopped == 0 {
		transactional, bulk := c.lookups[Transactional].n > 0, c.lookups[Bulk].n > 0 && c.mayLookUpBulk()
		if !transactional && !bulk {
			return
		}
		class := c.lookupTurn.next(transactional, bulk)
		d := c.nextLookup(class)
		if d == nil && class == Transactional && bulk {
			class = Bulk
			d = c.nextLookup(class)
		}
		if d == nil {
			return
		}
		c.unqueueLookup(d)
		if d.avail == 0 {
			continue // its mail went away; it asks again when there is some
		}
		c.lookupTurn.took(class, bulk)
		c.lookUp(d)
	}
}

// nextLookup is the domain of a class to be looked up next: of the delivery with the
// fewest look-ups under way.
func (c *Core) nextLookup(class Class) *domain {
	most := max(1, c.cfg.MaxResolving-c.cfg.MaxResolving/4)
	queue := &c.lookups[class]
	for n, tried := queue.n, 0; n > 0 && tried < maxLook; n, tried = n-1, tried+1 {
		best := queue.head
		for d, looked := best, 0; d != nil && looked < maxLook; d, looked = d.lookups[class].inTurn.next, looked+1 {
			if d.asking < best.asking {
				best = d
			}
		}
		queue.remove(best)
		queue.push(best)
		if best.asking >= most {
			return nil
		}
		if d := best.lookups[class].next(c.again < max(1, c.cfg.MaxResolving/4), class == Transactional || !c.crowded() || c.trickle); d != nil {
			return d
		}
	}
	return nil
}

func (c *Core) lookUp(d *domain) {
	d.asking = true
	d.asker.asking++
	c.resolving++
	if d.again = d.level > 0; d.again {
		c.again++
	}
	c.emit(Action{Kind: Resolve, Domain: d.name})
}

// lookedUp ends a look-up.
func (c *Core) lookedUp(d *domain) {
	if !d.asking {
		return
	}
	d.asking = false
	d.asker.asking--
	c.resolving--
	if d.again {
		c.again--
	}
}

// mayLookUpBulk reports whether bulk mail's domains may be looked up now.
func (c *Core) mayLookUpBulk() bool {
	pace := int64(lookupPace)
	c.trickle = false
	switch {
	case c.crowded():
		pace = int64(crowdPace)
		if c.inPlay() < 2*c.cfg.MaxGroups && c.muchWaits() {
			return true
		}
	case c.supply < supplyEnough:
		return true
	case c.slotQueues[known].n+c.slotQueues[probe].n >= c.cfg.MaxSessions:
		pace = int64(queuePace)
	}
	c.paced = max(c.paced, c.now-paceBurst*int64(lookupPace))
	if c.paced+pace > c.now {
		c.lookupAt = c.paced + pace
		return false
	}
	c.paced += pace
	c.trickle = true
	return true
}

// muchWaits reports whether a domain with much mail waits for its look-up.
func (c *Core) muchWaits() bool {
	for d, n := c.lookups[Bulk].head, 0; d != nil && n < maxLook; d, n = d.lookups[Bulk].inTurn.next, n+1 {
		if d.lookups[Bulk].queues[askMuch].n > 0 {
			return true
		}
	}
	return false
}

// supplies counts the group's domains with mail, if it goes out now, to the supply.
func (c *Core) supplies(g *group) {
	now := 0
	if g.stocked > 0 && c.flowing(g) {
		now = min(g.stocked, suppliesMost)
	}
	c.supply += now - g.supplied
	g.supplied = now
}

// flowing reports whether the group has an open session that may send soon.
func (c *Core) flowing(g *group) bool {
	for _, l := range g.lines {
		if l.open > 0 && c.usable(l) && !c.rests(l) {
			return true
		}
	}
	return false
}

// restock counts a domain among its group's with mail, or takes it out.
func (c *Core) restock(d *domain, by int) {
	if d.group != nil && by != 0 {
		d.group.stocked += by
		c.dirtyGroups.push(d.group)
	}
}
