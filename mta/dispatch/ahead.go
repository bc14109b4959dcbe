package dispatch

import "time"

// maxParked is how long a message may wait with a session for the one before it. A
// session is given its next message while the present one is on the wire, so that it is
// made ready and its envelope goes out behind the present content; but a session that
// stalls must not hold up mail that others could take.
const maxParked = time.Second

// mayPark reports whether a line's sessions may be given a message ahead of its time:
// where sessions, and not a rate, are what mail waits for, and the receiver is not so
// slow that a round trip is nothing to it.
func (c *Core) mayPark(l *line) bool {
	p := l.path
	if c.cfg.Credit < 2 || l.spare.n == 0 || l.idle.n > 0 || p.took > maxParked || 2*c.unsettled >= c.cfg.MaxUnsettled {
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
	if s.inParked.on == nil {
		return
	}
	c.parked.remove(s)
	s.stalled = true
	c.emit(Action{Kind: TakeBack, Session: s.id, Msg: s.carries[1]})
}

// parkEnd is when the message that has waited longest with a session is taken back.
func (c *Core) parkEnd() int64 {
	if c.parked.head == nil {
		return none
	}
	return c.parked.head.parkedAt + int64(maxParked)
}

func (c *Core) unpark() {
	for c.parkEnd() <= c.now {
		c.takeBack(c.parked.head)
	}
}
