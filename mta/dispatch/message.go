package dispatch

import "time"

// msgState is where a loaded message is in its life.
type msgState uint8

const (
	msgLoaded    msgState = iota + 1 // unclaimed, with its flow or pinned to a line
	msgClaiming                      // its claim is on the way
	msgClaimed                       // ready to be sent on its line
	msgSending                       // given to a session
	msgReplied                       // replied, its outcome not durable yet
	msgDoomed                        // waits for room to be failed
	msgFailing                       // asked to be failed
	msgReturning                     // asked to be returned
)

// msg is a message in memory.
type msg struct {
	id      MsgID
	run     *run   // nil for one that nobody asked for
	group   *group // that holds it, for its count; nil if none
	line    *line  // pinned to, or claimed on
	pin     *source
	state   msgState
	retry   bool
	back    bool    // to be returned as soon as its claim is durable
	asked   bool    // counted as claimed and unsettled on its line
	charged *warmth // whose cap it was charged to, until its attempt ends
	kept    *warmth // whose room it is kept for
	engaged bool
	alone   bool    // claimed with no other such message
	blocked bool    // its source was refused it for a block
	tenant  *tenant // that counts it as carried
	inCore  links[msg]
	// inQueue is its place with its run's work, its line or the fail queue.
	inQueue links[msg]
}

func msgQueued(m *msg) *links[msg] { return &m.inQueue }

func (m *msg) class() Class { return m.run.class }

func (c *Core) newMsg(spec Msg, r *run) *msg {
	var m *msg
	if n := len(c.freeMsgs); n > 0 {
		m = c.freeMsgs[n-1]
		c.freeMsgs = c.freeMsgs[:n-1]
	} else {
		m = &msg{}
	}
	m.id, m.run, m.retry = spec.ID, r, spec.Retry
	c.msgs[m.id] = m
	c.loaded.push(m)
	return m
}

// forgetMsg removes a message from memory and from all counts.
func (c *Core) forgetMsg(m *msg) {
	c.landed(m)
	c.unhold(m)
	leave(&m.inQueue, m)
	c.loaded.remove(m)
	delete(c.msgs, m.id)
	if r := m.run; r != nil && r.work != nil {
		r.work.out--
		c.dropWork(r)
	}
	*m = msg{}
	if len(c.freeMsgs) < maxFree {
		c.freeMsgs = append(c.freeMsgs, m)
	}
}

// unhold ends what a message takes of its group's and line's counts.
func (c *Core) unhold(m *msg) {
	if m.charged != nil {
		c.ended(m, unsent[m.state])
	}
	if m.asked {
		m.asked = false
		m.line.claimed--
		m.line.path.claimed--
		if m.alone {
			m.line.path.alone--
		}
		c.dirtyPaths.push(m.line.path)
		c.dirtyGroups.push(m.line.group)
	}
	if m.group != nil {
		m.group.held--
		c.dirtyGroups.push(m.group)
		m.group = nil
	}
}

// Loaded answers a Load.
func (c *Core) Loaded(now time.Time, l Loaded) {
	c.begin(now)
	r := c.runs.Get(uint64(l.Run))
	if r == nil {
		for _, spec := range l.Msgs {
			if c.msgs[spec.ID] == nil {
				c.giveBack(c.newMsg(spec, nil))
			}
		}
		c.flush()
		return
	}
	retries := c.takeIn(r, l.Msgs)
	c.account(r, &l, retries)
	c.dropWork(r)
	c.refresh(r)
	c.flush()
}

// takeIn places loaded messages and counts the retries among them.
func (c *Core) takeIn(r *run, msgs []Msg) (retries int64) {
	w := c.workOf(r)
	c.loadEnded(r)
	for _, spec := range msgs {
		if c.msgs[spec.ID] != nil {
			continue // told twice
		}
		m := c.newMsg(spec, r)
		m.engaged, m.blocked, m.alone = spec.Engaged, spec.Blocked, spec.Alone
		w.out++
		if m.retry {
			retries++
		} else {
			r.fresh--
		}
		if spec.Source != "" {
			m.pin = c.sources[spec.Source]
		}
		c.placeLoaded(m)
	}
	return retries
}

// emptyWait is how long a run whose Load brought nothing is left alone although
// the store says that there is more, such as messages that are on their way back.
const emptyWait = time.Second

// account corrects the counts of what is left in the store. They may be too
// high, which costs an empty Load, but never too low, which would strand mail.
func (c *Core) account(r *run, l *Loaded, retries int64) {
	w := r.work
	if l.MoreFresh {
		r.fresh = max(r.fresh, int64(len(l.Msgs)), 1)
	} else {
		r.fresh = w.grew
	}
	r.deferred = max(r.deferred-retries, 0)
	next := nanos(l.NextDue)
	switch {
	case l.NextDue.IsZero():
		r.deferred, next = w.put, w.putDue
	case w.put > 0:
		next = min(next, w.putDue)
	}
	r.empty = len(l.Msgs) == 0 && w.grew+w.put == 0 && (l.MoreFresh || next != 0 && next <= c.now)
	if r.empty {
		next = c.now + int64(emptyWait)
	}
	if next != 0 {
		r.deferred = max(r.deferred, 1)
		c.setDue(r, next)
	}
	w.grew, w.put, w.putDue = 0, 0, 0
}

// loadEnded takes a Load's messages out of the counts of what is asked for.
func (c *Core) loadEnded(r *run) {
	w := r.work
	c.unask(r)
	w.loading = false
}

// unask gives back the room that a Load under way has reserved.
func (c *Core) unask(r *run) {
	w := r.work
	if f := r.flow; f != nil {
		f.asked -= w.asked
		f.queue().asked -= w.asked
		f.place()
		c.dirtyGroups.push(f.lane.group)
	} else {
		c.failing -= w.asked
	}
	w.asked = 0
}

// placeLoaded decides what becomes of a message just loaded.
func (c *Core) placeLoaded(m *msg) {
	r := m.run
	switch {
	case r.stopped || r.dropped || c.stopped > 0:
		c.giveBack(m)
	case r.flow == nil && r.domain.state == domainDead:
		c.doom(m)
	case r.flow == nil || !c.served(r.flow.lane):
		c.giveBack(m)
	default:
		if until, waits := c.waitsForSource(m); waits {
			c.postpone(m, until)
			return
		}
		c.hold(m)
	}
}

// hold keeps a loaded message for its flow, or for the line it is pinned to.
func (c *Core) hold(m *msg) {
	r := m.run
	g := r.flow.lane.group
	m.state, m.group = msgLoaded, g
	g.held++
	r.work.unclaimed++
	if l := c.pinLine(m); l != nil {
		m.line = l
		l.pinned.push(m)
	} else {
		r.flow.add(r, m)
		r.flow.place()
	}
	c.dirtyGroups.push(g)
}

// unload takes a loaded message out of its queue.
func (c *Core) unload(m *msg) {
	m.run.work.unclaimed--
	if m.line != nil {
		m.line.pinned.remove(m)
		unkeep(m)
		m.line = nil
		return
	}
	m.run.flow.drop(m.run, m)
	m.run.flow.place()
}

// giveBack asks for a message to be returned to its run. Its claim counts until
// it is durably released.
func (c *Core) giveBack(m *msg) {
	leave(&m.inQueue, m)
	a := Action{Kind: Return, Msg: m.id, Claimed: m.asked}
	if m.run != nil {
		a.Run = m.run.id
	}
	if m.asked {
		a.Path = m.line.path.key
	}
	m.state = msgReturning
	c.emit(a)
}

// recall gives a message back that is not being sent; one whose claim is on the
// way follows when that is durable.
func (c *Core) recall(m *msg) {
	switch m.state {
	case msgLoaded:
		r := m.run
		c.unload(m)
		c.giveBack(m)
		c.refresh(r)
	case msgClaiming, msgSending: // a message sent comes back if it was not tried
		m.back = true
	case msgClaimed:
		l := m.line
		c.giveBack(m)
		c.queueLine(l)
	case msgDoomed:
		c.failing--
		c.giveBack(m)
	}
}

// returnWhere gives back all unsent messages that match, the oldest first.
func (c *Core) returnWhere(match func(*msg) bool) {
	for m := c.loaded.head; m != nil; {
		next := m.inCore.next
		if m.run != nil && match(m) {
			c.recall(m)
		}
		m = next
	}
}

// Recall gives one message back to its run, unless it is being sent or replied to.
func (c *Core) Recall(now time.Time, id MsgID) {
	c.begin(now)
	if m := c.msgs[id]; m != nil && m.run != nil {
		c.recall(m)
	}
	c.flush()
}

// Returned reports that a message can be loaded again.
func (c *Core) Returned(now time.Time, id MsgID) {
	c.begin(now)
	if m := c.msgs[id]; m != nil && m.state == msgReturning {
		r, retry := m.run, m.retry
		c.forgetMsg(m)
		if r != nil && !r.dropped {
			r.probe = true
			if retry {
				c.put(r, 1, c.now)
			} else {
				c.grow(r, 1)
			}
		}
	}
	c.flush()
}

// Settled reports that a message's outcome is durable: it is over (final), or
// waits in the store until next.
func (c *Core) Settled(now time.Time, id MsgID, next time.Time, final bool) {
	c.begin(now)
	if m := c.msgs[id]; m != nil {
		c.settle(m, nanos(next), final)
	}
	c.flush()
}

func (c *Core) settle(m *msg, next int64, final bool) {
	r := m.run
	switch m.state {
	case msgSending, msgReplied:
		c.unsettled--
	case msgFailing:
		c.unsettled--
		c.failing--
	case msgDoomed:
		c.failing--
	case msgLoaded:
		c.unload(m)
	}
	if m.state == msgClaimed {
		l := m.line
		c.forgetMsg(m)
		c.queueLine(l)
	} else {
		c.forgetMsg(m)
	}
	if r == nil || r.dropped {
		return
	}
	if !final {
		c.put(r, 1, next)
	}
	c.refresh(r)
}
