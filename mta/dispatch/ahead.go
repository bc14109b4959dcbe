package dispatch

import "time"

// maxParked is how long a message may wait with a session for the one before it. A
// session is given its next message while the present one is on the wire, so that it is
// made ready and its envelope goes out behind the present content; but a session that
// stalls must not hold up mail that others could take.
const maxParked = time.Second

// maxBegun is how long a message waits with a session that has begun it: then it is
// worth the connection.
const maxBegun = 15 * time.Second

// parkReserve is how many sessions there are for each message left to them.
const parkReserve = 4

// mayPark reports whether a line's sessions may be given a message ahead of its time:
// where sessions, and not a rate, are what mail waits for, and the receiver is not so
// slow that a round trip is nothing to it. Some claimed mail is left for the sessions
// that come free while the next claim is on its way to the disk.
func (c *Core) mayPark(l *line) bool {
	p := l.path
	if c.cfg.Credit < 2 || l.spare.n == 0 || l.idle.n > 0 || p.took > maxParked || 2*c.unsettled >= c.cfg.MaxUnsettled ||
		l.ready[Bulk].n+l.ready[Transactional].n <= l.open/parkReserve {
		return false
	}
	return p.gov.MessageRate().IsZero() || p.short()
}

// offer lets a session have its next message, if there is one to be had for it.
func (c *Core) offer(s *session) {
	if c.cfg.Credit < 2 || s.load != 1 || s.stalled || s.leaving || !s.open {
		return
	}
	l := s.line
	if l.source.removed || l.obsolete {
		return
	}
	if most := c.perConnection(l); most > 0 && s.sent >= most {
		return
	}
	l.spare.push(s)
}

// takeBack asks for the message that waits with a session, if one does.
func (c *Core) takeBack(s *session) {
	if s.load < 2 || s.stalled {
		return
	}
	c.parked.remove(s)
	c.stuck.push(s)
	s.stalled = true
	c.emit(Action{Kind: TakeBack, Session: s.id, Msg: s.carries[1]})
}

// takeAllBack has back, at any rate, what waits with sessions of a path that is to rest.
func (c *Core) takeAllBack(p *path) {
	for s := p.sessions.head; s != nil; s = s.inPath.next {
		if s.load == 2 {
			s.stalled = true
			c.parked.remove(s)
			c.stuck.remove(s)
			c.emit(Action{Kind: TakeBack, Session: s.id, Msg: s.carries[1], Force: true})
		}
	}
}

// parkEnd is when a message that waits with a session is to be taken back.
func (c *Core) parkEnd() int64 {
	end := none
	if s := c.parked.head; s != nil {
		end = s.parkedAt + int64(maxParked)
	}
	if s := c.stuck.head; s != nil {
		end = min(end, s.parkedAt+int64(maxBegun))
	}
	return end
}

// unpark takes back what has waited for too long.
func (c *Core) unpark() {
	for s := c.parked.head; s != nil && s.parkedAt+int64(maxParked) <= c.now; s = c.parked.head {
		c.takeBack(s)
	}
	for s := c.stuck.head; s != nil && s.parkedAt+int64(maxBegun) <= c.now; s = c.stuck.head {
		c.stuck.remove(s)
		c.emit(Action{Kind: TakeBack, Session: s.id, Msg: s.carries[1], Force: true})
	}
}
