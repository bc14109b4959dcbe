package simulate

import (
	"time"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
)

// session is a connection from the sender's side.
type session struct {
	place  uint32 // in engine.sessions
	id     dispatch.SessionID
	dest   *destination
	conn   Conn
	source dispatch.Source
	host   string
	domain string
	limits mxrules.Limits
	rtt    int64
	done   int  // messages replied to
	dirty  bool // RSET goes before the next MAIL
	busy   bool // carries a message
	msg    uint32
	answer Answer // on its way

	next   uint32 // the message behind the one it carries
	parked bool   // there is one
	begun  bool   // its envelope is on the wire, behind the content of the one before
	moved  bool   // the one before is replied to, and the envelope still on the wire
	spent  bool   // an envelope was given up: it ends with the message it carries
	since  int64  // when the next one's envelope could have reached the receiver
	free   int64  // when the receiver has done with the content before; 0: not known yet
	ahead  Answer // to the envelope of the next, decided on when
	when   int64
}

// dial begins a session: the connection reaches the receiver's program with the
// third packet of TCP's handshake.
func (e *engine) dial(a *dispatch.Action) {
	var s *session
	if n := len(e.freeSess); n > 0 {
		s = e.sessions[e.freeSess[n-1]]
		e.freeSess = e.freeSess[:n-1]
	} else {
		s = &session{place: uint32(len(e.sessions))}
		e.sessions = append(e.sessions, s)
	}
	d := e.byName[a.Destination]
	*s = session{
		place: s.place, id: a.Session, dest: d, source: a.Source, host: a.Host, domain: a.Domain,
		limits: a.Limits, rtt: int64(d.spec.RoundTrip),
	}
	e.byID[s.id] = s
	e.countOpen(1)
	e.queue.add(e.now+s.rtt+s.rtt/2, evCalled, s.place, 0)
}

// called lets the receiver decide on a connection.
func (e *engine) called(s *session) {
	conn, answer := s.dest.receiver.Connect(e.t, Caller{Source: s.source.Addr, Host: s.host, TLS: s.limits.TLS})
	s.conn, s.answer = conn, answer
	s.dest.tally.Connections++
	s.dest.overruns(answer.Overruns)
	e.queue.add(e.now+s.rtt/2+int64(answer.Delay)+int64(answer.RoundTrips)*s.rtt, evOpened, s.place, 0)
}

// opened ends the opening of a session, well or badly.
func (e *engine) opened(s *session) {
	if !s.answer.Refused {
		e.core.SessionOpened(e.t, s.id)
		return
	}
	s.dest.refused(e, s.answer.Cause)
	evidence := e.cfg.Judge.Connection(s.at(), s.answer.Reply)
	e.forget(s)
	e.core.SessionFailed(e.t, s.id, evidence)
}

func (s *session) at() Place {
	return Place{Source: s.source.Name, Host: s.host, Destination: s.dest.spec.Name, Domain: s.domain, Reactions: s.limits.Reactions}
}

// forget forgets a session, before the core is told.
func (e *engine) forget(s *session) {
	if s.conn != nil {
		s.conn.Close(e.t)
		s.conn = nil
	}
	delete(e.byID, s.id)
	e.freeSess = append(e.freeSess, s.place)
	e.countOpen(-1)
}

// closed ends a session that the core asked to close.
func (e *engine) closed(s *session) {
	e.forget(s)
	e.core.SessionClosed(e.t, s.id)
}

// send gives a session a message: the one that it carries, or the next. One that ended
// at this very instant does not take it.
func (e *engine) send(a *dispatch.Action) {
	s, i := e.byID[a.Session], msgAt(a.Msg)
	if s == nil {
		e.core.Untried(e.t, a.Session, a.Msg, false)
		return
	}
	e.countUnsettled(1)
	if !s.busy {
		s.msg, s.busy = i, true
		e.begin(s)
		return
	}
	s.next, s.parked, s.since = i, true, e.now+s.rtt/2
	e.follow(s)
}

// begin says a message's envelope on a connection where nothing is under way. A RSET
// goes with it, but not where commands go one by one.
func (e *engine) begin(s *session) {
	way := s.rtt / 2
	if s.dirty && s.limits.Pipelining == mxrules.Off {
		way += s.rtt
	}
	s.free = 0
	e.queue.add(e.now+way, evEnvelope, s.place, 0)
}

// follow says the next message's envelope behind a content that the receiver has
// decided on: it arrives with that, or later if the message came later.
func (e *engine) follow(s *session) {
	if !s.parked || s.begun || s.free == 0 || s.spent || s.limits.Pipelining == mxrules.Off {
		return
	}
	s.begun, s.when = true, 0
	e.queue.add(max(s.free, s.since, e.now), evEnvelope, s.place, uint32(s.id))
}

// envelope lets the receiver decide on an envelope: that of the message which the
// session carries, or of the next, of the session with that id.
func (e *engine) envelope(s *session, id uint32) {
	i := s.msg
	switch {
	case id == 0:
	case id != uint32(s.id) || !s.begun && !s.moved:
		return // the session has ended, or was to give the message up
	case s.begun:
		i = s.next
	}
	m := &e.msgs[i]
	if m.state.Attempts == 0 {
		s.dest.part(m.run).Tried = time.Duration(e.now - e.start)
	}
	h := &e.cfg.HandOvers[m.run.hand]
	e.mail = Message{
		Domain: m.run.domain, HandOver: int(m.run.hand), Run: int(m.run.index), Order: m.order, Class: h.Class, State: m.state,
	}
	a := s.conn.Envelope(e.t, &e.mail)
	s.dirty = a.Dirty
	s.dest.tally.Attempts++
	s.dest.overruns(a.Overruns)
	if s.begun {
		s.ahead, s.when = a, e.now
		return // its turn comes with the reply to the one before
	}
	s.answer, s.moved = a, false
	e.proceed(s, e.now)
}

// proceed plans what follows an envelope that was decided on at an instant.
func (e *engine) proceed(s *session, at int64) {
	a := &s.answer
	at += int64(a.Delay)
	if s.limits.Pipelining == mxrules.Off {
		at += 2 * s.rtt
	}
	switch {
	case a.Whole:
		e.decided(s, at+s.rtt)
		e.queue.add(at+s.rtt+s.rtt/2, evReplied, s.place, 0)
	case a.Refused:
		e.queue.add(at+s.rtt/2, evReplied, s.place, 0)
	default:
		e.queue.add(at+s.rtt, evContent, s.place, 0)
	}
}

// decided notes when the receiver has done with a content.
func (e *engine) decided(s *session, at int64) {
	if s.answer.Closes {
		return
	}
	s.free = at
	e.follow(s)
}

// content lets the receiver decide on a final dot.
func (e *engine) content(s *session) {
	s.answer = s.conn.Content(e.t)
	s.dest.overruns(s.answer.Overruns)
	at := e.now + int64(s.answer.Delay)
	e.queue.add(at+s.rtt/2, evReplied, s.place, 0)
	e.decided(s, at)
}

// replied ends a transaction.
func (e *engine) replied(s *session) {
	i, a := s.msg, &s.answer
	if e.hungUp(s) {
		e.msgs[i].returns++
		e.countUnsettled(-1)
		e.core.Lost(e.t, s.id, msgID(i))
		e.leave(s)
		return
	}
	var ev dispatch.Evidence
	if a.Refused {
		ev = e.judge(s, i)
	} else {
		ev.Sign = mxrules.SignDelivered
		e.outcome(i, Delivered, 0)
	}
	usable := !a.Closes && !s.spent
	s.done++
	if !usable && s.conn != nil { // the receiver's end is closed by now
		s.conn.Close(e.t)
		s.conn = nil
	}
	e.core.Replied(e.t, s.id, msgID(i), ev, usable)
	e.settle(i, e.msgs[i].outcome, e.msgs[i].next)
	if usable {
		e.moveUp(s)
		return
	}
	e.leave(s)
}

// maxReturns is how often in a row a message goes again untried, as in the relay.
const maxReturns = 3

// hungUp reports whether the receiver closed a connection that served messages, without
// a word to the next one: that is untried.
func (e *engine) hungUp(s *session) bool {
	a := &s.answer
	return a.Refused && a.Closes && a.Reply.Code == 0 && a.Reply.Phase == PhaseMail && s.done > 0 && e.msgs[s.msg].returns < maxReturns
}

// leave ends a session that the receiver ended.
func (e *engine) leave(s *session) {
	if s.conn != nil {
		s.conn.Close(e.t)
		s.conn = nil
	}
	if s.parked {
		e.takenBack(s, false)
	}
	id := s.id
	e.forget(s)
	e.core.SessionClosed(e.t, id)
}

// moveUp makes the next message the one that the session carries.
func (e *engine) moveUp(s *session) {
	if s.busy = s.parked; !s.busy {
		return
	}
	s.msg, s.parked, s.free = s.next, false, 0
	switch {
	case !s.begun:
		e.begin(s)
	case s.when == 0:
		s.begun, s.moved = false, true
	default:
		s.begun, s.answer = false, s.ahead
		e.proceed(s, s.when)
	}
}

// takeBack has the next message back, unless its envelope is on the wire: then only by
// force, and the session ends.
func (e *engine) takeBack(a *dispatch.Action) {
	s := e.byID[a.Session]
	if s == nil || !s.parked || msgID(s.next) != a.Msg || s.begun && !a.Force {
		return
	}
	s.spent = s.begun
	e.takenBack(s, true)
}

func (e *engine) takenBack(s *session, usable bool) {
	begun := s.begun
	s.parked, s.begun = false, false
	e.countUnsettled(-1)
	if begun {
		e.core.Lost(e.t, s.id, msgID(s.next))
		return
	}
	e.core.Untried(e.t, s.id, msgID(s.next), usable)
}

// judge reads a refusal: what becomes of the message, and what it says of the path.
func (e *engine) judge(s *session, i uint32) dispatch.Evidence {
	m, a := &e.msgs[i], &s.answer
	r := m.run
	e.mail = Message{
		Domain: r.domain, HandOver: int(r.hand), Run: int(r.index), Order: m.order, Class: e.cfg.HandOvers[r.hand].Class,
		Expires: instant(e.expires(r, m.order)), State: m.state,
	}
	fate := e.cfg.Judge.Transaction(e.t, s.at(), &e.mail, a.Reply)
	m.state = fate.State
	m.state.Source = 0
	if fate.Pinned {
		m.state.Source = e.pins[s.source.Name]
	}
	next := int64(0)
	if fate.Outcome == Deferred {
		next = fate.Next.UnixNano()
	}
	e.outcome(i, fate.Outcome, next)
	s.dest.refusedMessage(e, a.Cause)
	fate.Evidence.Messages = s.done
	return fate.Evidence
}

// outcome notes what a transaction came to.
func (e *engine) outcome(i uint32, o Outcome, next int64) {
	m := &e.msgs[i]
	m.outcome, m.next = o, next
	if o == Delivered {
		m.run.dest.delivered(e)
	}
}
