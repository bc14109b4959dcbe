package dispatch

import (
	"cmp"
	"slices"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// session is one connection, from its Open until its end is reported.
type session struct {
	id        SessionID
	line      *line
	host      int
	sent      int
	replied   int
	opened    int64
	sentAt    int64 // when its last message was given to it
	creditAt  int64 // when it was last ready for a message
	idleSince int64 // the same, or later if it was let stay
	open      bool
	carries   [2]MsgID // given to it and not ended: the one on the wire, and the next
	load      int      // how many of them
	parkedAt  int64    // when the next was given to it
	stalled   bool     // the next was taken back: none until the one on the wire ends
	probe     bool     // being opened on a line not known to work
	closing   bool     // Close was asked for
	leaving   bool     // closing, retiring or ended by the peer

	inCore   links[session]
	inIdle   links[session]
	inLine   links[session]
	inCredit links[session]
	inSpare  links[session]
	inParked links[session]
	inPath   links[session]
	inDest   links[session]
}

// dialResult is what came of asking for a connection.
type dialResult uint8

const (
	dialed   dialResult = iota
	dialHeld            // by the path
	dialSlot            // no session slot; the line waits for one
)

// open opens a session on a line, behind the lines that wait already.
func (c *Core) open(l *line) {
	if l.path.waiters.n > 0 {
		l.path.waiters.push(l)
		return
	}
	if c.dial(l) == dialHeld {
		l.path.waiters.push(l)
		c.reclaimConnection(l.path, l)
	}
}

// dial opens a session if the path and the slots allow.
func (c *Core) dial(l *line) dialResult {
	if c.heldBack(l) {
		return dialHeld
	}
	if !c.slotFree(l) {
		c.queueSlot(l)
		return dialSlot
	}
	c.connect(l)
	return dialed
}

// heldBack reports whether the line's path keeps it from a session; the path is
// looked at again when that may end.
func (c *Core) heldBack(l *line) bool {
	p := l.path
	p.openHold, p.openAt = c.holdOf(l)
	if p.openHold == mxrules.HoldNone {
		return false
	}
	if p.openAt != 0 {
		c.pathTimers.armBy(p, max(p.openAt, c.now+1))
	}
	return true
}

func (c *Core) connect(l *line) {
	p, d := l.path, l.group.dest
	c.lastSession++
	s := &session{id: c.lastSession, line: l, host: c.host(l), opened: c.now}
	c.sessions[s.id] = s
	c.byAge.push(s)
	l.sessions.push(s)
	p.sessions.push(s)
	d.sessions.push(s)
	l.opening++
	c.opening++
	p.unused++
	c.held++
	if s.probe = !l.proven; s.probe {
		c.probes++
	}
	d.held++
	c.crowd.fix(d)
	p.gov.ConnectionOpened(c.at)
	c.reserve(l)
	c.groupTimers.stop(l.group)
	c.emit(Action{
		Kind: Open, Session: s.id, Source: l.source.Source, Destination: d.name, Host: l.group.hosts[s.host].Name,
		Domain: l.group.anyDomain(), Limits: l.limits, Path: p.key,
	})
}

// anyDomain is a recipient domain whose route names the group's hosts.
func (g *group) anyDomain() string {
	if g.domains.head == nil {
		return cmp.Or(g.scope, g.tenant)
	}
	return g.domains.head.name
}

// SessionOpened reports that a session is ready for its first message.
func (c *Core) SessionOpened(now time.Time, id SessionID) {
	c.begin(now)
	if s := c.sessions[id]; s != nil && !s.open {
		l := s.line
		s.open = true
		c.probed(s)
		l.opening--
		c.opening--
		l.proven = true
		if !s.leaving {
			l.open++
			l.path.open++
		}
		l.path.setup += (time.Duration(c.now-s.opened) - l.path.setup) / meanOf
		l.path.each = c.perConnection(l)
		l.path.gov.Connected(now, time.Duration(c.now-s.opened))
		c.reportResumed(l.path)
		c.dirtyPaths.push(l.path)
		c.credit(s)
	}
	c.flush()
}

// probed ends a session's time as a probe.
func (c *Core) probed(s *session) {
	if s.probe {
		s.probe = false
		c.probes--
	}
}

// credit makes a session ready for a message, or ends it.
func (c *Core) credit(s *session) {
	l := s.line
	if s.leaving || l.source.removed || l.obsolete {
		c.close(s)
		return
	}
	if most := c.perConnection(l); most > 0 && s.sent >= most {
		c.close(s)
		return
	}
	s.creditAt, s.idleSince = c.now, c.now
	l.idle.pushFront(s)
	c.idle.push(s)
	c.queueLine(l)
	c.dirtyGroups.push(l.group)
}

// perConnection is how many messages a session of the line may carry; 0 is no limit.
func (c *Core) perConnection(l *line) int {
	if l.path.gov.Override().Set.Has(mxrules.FieldMessagesPerConnection) {
		return l.path.gov.MessagesPerConnection(c.at)
	}
	return lower(l.path.gov.MessagesPerConnection(c.at), l.limits.MessagesPerConnection)
}

// unidle takes a session's credit.
func (c *Core) unidle(s *session) {
	s.line.idle.remove(s)
	c.idle.remove(s)
}

// setLeaving counts a session among those that end.
func (c *Core) setLeaving(s *session) {
	if s.leaving {
		return
	}
	s.leaving = true
	l := s.line
	if s.open {
		l.open--
		l.path.open--
	}
	if s.sent == 0 {
		l.path.unused--
	}
	if s.load > 0 {
		l.path.busy--
	}
	l.spare.remove(s)
	c.takeBack(s)
	c.byAge.remove(s)
	l.path.sessions.remove(s)
	l.group.dest.sessions.remove(s)
	c.leaving++
	l.path.leaving++
	l.group.dest.leaving++
	c.crowd.fix(l.group.dest)
	c.dirtyGroups.push(l.group)
}

// close asks for an idle session's end.
func (c *Core) close(s *session) {
	c.setLeaving(s)
	c.unidle(s)
	c.queueLine(s.line)
	if !s.closing {
		s.closing = true
		c.emit(Action{Kind: Close, Session: s.id, Destination: s.line.group.dest.name, Path: s.line.path.key})
	}
}

// retire ends a session after the message it carries.
func (c *Core) retire(s *session) {
	c.setLeaving(s)
	if s.open && s.load == 0 && !s.closing {
		c.close(s)
	}
}

// idleEnd is when the longest idle session has been idle for too long.
func (c *Core) idleEnd() int64 {
	if c.idle.head == nil {
		return none
	}
	return c.idle.head.idleSince + int64(c.cfg.IdleTimeout)
}

func (c *Core) closeIdle() {
	for c.idleEnd() <= c.now {
		s := c.idle.head
		if !c.mayStay(s) {
			c.close(s)
			continue
		}
		s.idleSince = c.now
		c.idle.rotate()
	}
}

// maxStay is how long a session may wait for its part of a rate, in idle times.
const maxStay = 6

// mayStay reports whether an idle session has a message and waits only for its
// path's rate, or its source's warm-up, to come round to it: closing it would cost a connection for
// nothing.
func (c *Core) mayStay(s *session) bool {
	l, idle := s.line, int64(c.cfg.IdleTimeout)
	if l.idle.head != s || c.now >= s.creditAt+maxStay*idle {
		return false
	}
	if waitsForWarmth(l) && l.needs() && l.source.timer.at <= c.now+idle {
		return true
	}
	return l.ready[Bulk].n+l.ready[Transactional].n > 0 && l.path.holding && l.path.sendAt <= c.now+idle
}

// send gives a line's next claimed message of a class to a session. It answers
// whether a session could take it.
func (c *Core) send(l *line, class Class) bool {
	if held, _ := c.tenantHeld(l); held {
		return false
	}
	s := c.taker(l)
	if s == nil {
		return false
	}
	m := l.ready[class].pop()
	m.state = msgSending
	if s.load == 0 {
		c.unidle(s)
		l.path.busy++
		s.sentAt = c.now
	} else {
		l.spare.remove(s)
		s.parkedAt = c.now
		c.parked.push(s)
	}
	s.carries[s.load] = m.id
	s.load++
	if s.sent == 0 {
		l.path.unused--
	}
	s.sent++
	c.offer(s)
	c.unsettled++
	l.path.gov.MessageSent(c.at)
	c.sentApart(l, m)
	c.emit(Action{Kind: Send, Session: s.id, Msg: m.id, Run: m.run.id, Path: l.path.key, Destination: l.group.dest.name})
	c.dirtyGroups.push(l.group)
	return true
}

// taker is the session that takes a line's next message: one with credit, or else one
// that may have its next at hand. Those that have carried enough are ended.
func (c *Core) taker(l *line) *session {
	most := c.perConnection(l)
	for s := l.idle.head; s != nil; s = l.idle.head {
		if most == 0 || s.sent < most {
			return s
		}
		c.close(s)
	}
	for s := l.spare.head; s != nil && c.mayPark(l); s = l.spare.head {
		if most == 0 || s.sent < most {
			return s
		}
		l.spare.remove(s)
	}
	return nil
}

// Replied reports that a transaction ended with a reply or without one, after
// its MAIL was written. Evidence.Took, if it is set, is how long the receiver took, apart
// from what the session waited for us. usable gives the session credit for another; a session
// that is not usable ends by itself, and SessionClosed follows.
func (c *Core) Replied(now time.Time, id SessionID, msgID MsgID, e Evidence, usable bool) {
	c.begin(now)
	m, s := c.msgs[msgID], c.sessions[id]
	var l *line
	if s != nil {
		l = s.line
	} else if m != nil {
		l = m.line
	}
	if m != nil && m.state == msgSending {
		e.Again = m.retry
		m.state = msgReplied
		c.landed(m)
		c.ended(m, e.Sign)
	}
	if l != nil {
		if s != nil {
			s.replied++
			busy := time.Duration(c.now - s.sentAt)
			e.Took = cmp.Or(e.Took, busy)
			e.Messages = s.replied - 1
			l.path.took += (busy - l.path.took) / meanOf
		}
		c.worked(l)
		if s != nil && !e.HostFault {
			l.servedAt, l.servedHost = c.now, s.host
		}
		if !e.HostFault {
			var d *domain
			if m != nil && m.run != nil {
				d = m.run.domain
			}
			c.answeredOn(l.path, e.Sign)
			c.blamed(l, m, &e)
			c.heard(l, d, e)
		}
	}
	if s != nil {
		c.free(s, msgID, usable)
	}
	c.flush()
}

// free ends a session's work on a message.
func (c *Core) free(s *session, id MsgID, usable bool) {
	c.carried(s, id)
	switch {
	case s.closing || s.inCredit.on != nil || !s.open:
	case !usable:
		s.closing = true // by itself
		c.setLeaving(s)
	case s.load == 0:
		c.credit(s)
	default:
		c.offer(s)
		c.queueLine(s.line)
	}
}

// carried takes a message off a session: the next moves up behind the one that ended.
func (c *Core) carried(s *session, id MsgID) {
	if s.load == 0 {
		return
	}
	if s.load == 1 || s.carries[1] != id {
		s.carries[0] = s.carries[1]
		s.sentAt, s.stalled = c.now, false
	}
	s.carries[1] = 0
	s.load--
	leave(&s.inParked, s)
	if s.load == 0 {
		s.carries[0] = 0
		if !s.leaving {
			s.line.path.busy--
		}
	}
}

// Untried reports that MAIL was never written; the message stays claimed and
// goes to another session. The rate keeps what it was charged.
func (c *Core) Untried(now time.Time, id SessionID, msgID MsgID, usable bool) {
	c.begin(now)
	c.untried(msgID)
	if s := c.sessions[id]; s != nil {
		if usable && s.load > 0 {
			s.sent--
			if s.sent == 0 && !s.leaving {
				s.line.path.unused++
			}
		}
		c.free(s, msgID, usable)
	}
	c.flush()
}

// Lost reports that a message's MAIL went out, and that the session ended before the
// receiver said anything against this one, for a reason that is not the message. It is
// untried, but the receiver may have counted it: so do the path's quotas. Callers bound how
// often that happens to a message, so its host does not count as failing for it.
func (c *Core) Lost(now time.Time, id SessionID, msgID MsgID) {
	c.begin(now)
	if m := c.msgs[msgID]; m != nil && m.state == msgSending {
		m.line.path.gov.Claimed(c.at, 1)
	}
	c.untried(msgID)
	if s := c.sessions[id]; s != nil {
		s.replied++
		c.free(s, msgID, false)
	}
	c.flush()
}

// untried makes a message that was given to a session claimed again.
func (c *Core) untried(id MsgID) {
	m := c.msgs[id]
	if m == nil || m.state != msgSending {
		return
	}
	l := m.line
	c.unsettled--
	m.state = msgClaimed
	c.landed(m)
	if m.back || !c.usable(l) {
		c.giveBack(m)
	} else {
		l.ready[m.class()].pushFront(m)
		c.queueLine(l)
	}
	c.dirtyGroups.push(l.group)
}

// SessionClosed reports that a session ended, asked for or not: QUIT's reply,
// the peer's FIN or our reset.
func (c *Core) SessionClosed(now time.Time, id SessionID) {
	c.begin(now)
	if s := c.sessions[id]; s != nil {
		asked := s.leaving
		c.end(s)
		c.barren(s, asked)
	}
	c.flush()
}

// SessionFailed reports that a session could not be opened, or ended with
// evidence about its host or path.
func (c *Core) SessionFailed(now time.Time, id SessionID, e Evidence) {
	c.begin(now)
	if s := c.sessions[id]; s != nil {
		c.end(s)
		c.noted(s.line, e.Sign)
		switch l := s.line; {
		case e.HostFault && s.replied == 0 && e.ReplyCode() < 500 && c.turnedAway(s):
			// Another was served a moment ago: it is one connection too many, or too soon, whatever the words.
			e.Evidence = mxrules.Evidence{Effect: mxrules.EffectFewerConnections, Text: e.Text}
			c.refusedDial(s, e)
		case e.HostFault && s.replied == 0:
			c.hostFault(l, s.host, e.Text)
		case e.Effect != mxrules.EffectNone:
			c.refusedDial(s, e)
		default:
			c.barren(s, false)
		}
	}
	c.flush()
}

// refusedDial learns from a connection that the receiver did not want.
func (c *Core) refusedDial(s *session, e Evidence) {
	s.line.failed = clip(e.Text)
	e.Took, e.Connection = time.Duration(c.now-s.opened), s.replied == 0
	c.heard(s.line, s.line.group.only(), e)
	c.refused(s)
}

// meanOf is over how many messages and sessions their durations are means.
const meanOf = 8

// lately is how long after a message was served by a host a connection that it
// breaks off is taken for one too many, and not for a host that fails.
const lately = time.Minute

// turnedAway reports whether a connection that failed without a word was refused
// for being one too many, or too soon: its host served another a moment ago.
// Only a governor that learns can make something of it.
func (c *Core) turnedAway(s *session) bool {
	l := s.line
	return l.limits.Governor == mxrules.GovernorOn && l.servedHost == s.host && l.servedAt != 0 && c.now-l.servedAt < int64(lately)
}

// refused backs a line off that was throttled before it could say MAIL and has
// no other session, unless the path rests anyway.
func (c *Core) refused(s *session) {
	l := s.line
	if s.replied > 0 || l.open > 0 || c.rests(l) || l.limits.Governor == mxrules.GovernorOn && c.waits(l.path) {
		return
	}
	c.backOff(l)
}

// waits reports whether the path's governor has a time for the next connection.
func (c *Core) waits(p *path) bool {
	hold, at := p.gov.AllowConnection(c.at)
	return hold != mxrules.HoldNone && nanos(at) > c.now
}

// maxBarren is how many sessions in a row may end without a reply to a MAIL
// before their host counts as failing. Otherwise a host that greets and hangs
// up would be dialled without end.
const maxBarren = 3

func (c *Core) barren(s *session, asked bool) {
	l := s.line
	if s.replied > 0 || asked && s.sent == 0 {
		return
	}
	l.barren++
	if l.barren >= maxBarren {
		l.barren = 0
		text := "sessions to " + l.group.hosts[s.host].Name + " end before a message can be sent"
		c.hostFault(l, s.host, text)
	}
}

// end takes a session out of everything. A message it carried is reported on
// its own.
func (c *Core) end(s *session) {
	l := s.line
	p, d := l.path, l.group.dest
	c.setLeaving(s)
	if !s.open {
		l.opening--
		c.opening--
	}
	c.probed(s)
	c.unidle(s)
	leave(&s.inParked, s)
	l.sessions.remove(s)
	if l.sessions.n == 0 {
		c.unreserve(l)
	}
	delete(c.sessions, s.id)
	c.held--
	c.leaving--
	p.leaving--
	d.held--
	d.leaving--
	c.crowd.fix(d)
	if s.open {
		p.gov.ConnectionClosed(c.at)
	} else {
		p.gov.ConnectionFailed(c.at)
	}
	c.queueLine(l)
	c.dirtyPaths.push(p)
	c.dirtyGroups.push(l.group)
}

// observe feeds a reply to the path's governor and reports what it changed.
func (c *Core) observe(p *path, e Evidence) {
	if e.Effect == mxrules.EffectNone && !p.gov.Suspects(&e.Evidence) {
		p.gov.Observe(c.at, e.Evidence)
		if n := p.gov.Changes(); n != p.changes {
			p.changes = n
			c.trim(p)
			c.grown(p)
			c.keep(p)
		}
		c.wouldDo(p, "")
		if p.suspended && p.restEnd <= c.now {
			c.reportResumed(p)
		}
		if p.blocked && !p.gov.Pace().Probing {
			p.blocked = false
			c.wakeLines(p)
		}
		return
	}
	before := p.gov.State(c.at)
	p.gov.Observe(c.at, e.Evidence)
	c.tell(p, before, e.Text, e.Sign == mxrules.SignBlocked)
}

// tell reports what a word about the path changed: a rest, a cut, or both.
func (c *Core) tell(p *path, before mxrules.State, text string, block bool) {
	after, was := p.gov.State(c.at), pace{rate: before.MessageRate, connections: before.MaxConnections, each: before.MessagesPerConnection}
	rested := after.Hold == mxrules.HoldRest && after.Until != before.Until && !after.Until.IsZero()
	if rested {
		p.restEnd = after.Until.UnixNano()
		p.blocked = block || p.blocked && before.Hold == mxrules.HoldRest
		c.reportSuspended(p, text, p.restEnd)
		c.takeAllBack(p)
	}
	if p.gov.Pace().Probing { // one message on one connection until it is over: that is the rest
		was.connections, was.each = after.MaxConnections, after.MessagesPerConnection
	}
	if now := c.paceOf(p); now != was {
		c.compare(p, was, "cut", text)
		p.told = now
		if !rested {
			c.report(p, PathThrottled, changesOf(was, now)+": "+text, 0)
		}
	}
	c.wouldDo(p, text)
	c.keep(p)
	c.trim(p)
	c.dirtyPaths.push(p)
}

// trim retires the sessions that are more than the path may have now.
func (c *Core) trim(p *path) {
	s := p.gov.State(c.at)
	if s.MaxConnections == 0 {
		return
	}
	for n := s.Open - p.leaving - s.MaxConnections; n > 0 && p.sessions.head != nil; n-- {
		c.retire(p.sessions.head)
	}
}

func (c *Core) report(p *path, change PathChange, text string, until int64) {
	c.emit(Action{
		Kind: PathChanged, Path: p.key, Source: p.source, Destination: p.dest.name,
		Change: change, Text: clip(text), Until: moment(until),
	})
}

func (c *Core) reportSuspended(p *path, text string, until int64) {
	p.suspended = true
	c.decide(p, Decision{Action: "rested", To: untilText(until), Cause: text})
	c.report(p, PathSuspended, text, until)
}

func (c *Core) reportResumed(p *path) {
	if p.suspended && p.restEnd <= c.now {
		p.suspended = false
		c.decide(p, Decision{Action: "resumed", Cause: "the receiver serves again"})
		c.report(p, PathResumed, "the receiver serves again", 0)
	}
}

// has reports whether a source belongs to the pool.
func (p *pool) has(s *source) bool { return slices.Contains(p.sources, s) }
