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
	sent   int
	dirty  bool // RSET goes before the next MAIL
	msg    uint32
	answer Answer // on its way
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
	return Place{Source: s.source.Name, Host: s.host, Destination: s.dest.spec.Name, Domain: s.domain}
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

// send begins a transaction. The envelope is decided on as of the instant at which
// it reaches the receiver; every message of a destination has the same way, so the
// receiver sees them in order.
func (e *engine) send(s *session, i uint32) {
	m := &e.msgs[i]
	e.countUnsettled(1)
	if m.state.Attempts == 0 {
		s.dest.part(m.run).Tried = time.Duration(e.now - e.start)
	}
	s.msg = i
	s.sent++
	way := s.rtt / 2
	if s.dirty {
		way += s.rtt
	}
	h := &e.cfg.HandOvers[m.run.hand]
	e.mail = Message{
		Domain: m.run.domain, HandOver: int(m.run.hand), Run: int(m.run.index), Order: m.order, Class: h.Class, State: m.state,
	}
	a := s.conn.Envelope(instant(e.now+way), &e.mail)
	s.answer, s.dirty = a, a.Dirty
	s.dest.tally.Attempts++
	s.dest.overruns(a.Overruns)
	at := e.now + way + int64(a.Delay)
	if s.limits.Pipelining == mxrules.Off {
		at += 2 * s.rtt
	}
	switch {
	case a.Whole:
		e.queue.add(at+s.rtt+s.rtt/2, evReplied, s.place, 0)
	case a.Refused:
		e.queue.add(at+s.rtt/2, evReplied, s.place, 0)
	default:
		e.queue.add(at+s.rtt, evContent, s.place, 0)
	}
}

// content lets the receiver decide on a final dot.
func (e *engine) content(s *session) {
	s.answer = s.conn.Content(e.t)
	s.dest.overruns(s.answer.Overruns)
	e.queue.add(e.now+int64(s.answer.Delay)+s.rtt/2, evReplied, s.place, 0)
}

// replied ends a transaction.
func (e *engine) replied(s *session) {
	i, a := s.msg, &s.answer
	var ev dispatch.Evidence
	if a.Refused {
		ev = e.judge(s, i)
	} else {
		ev.Sign = mxrules.SignDelivered
		e.outcome(i, Delivered, 0)
	}
	usable := !a.Closes
	if !usable && s.conn != nil { // the receiver's end is closed by now
		s.conn.Close(e.t)
		s.conn = nil
	}
	e.core.Replied(e.t, s.id, msgID(i), ev, usable)
	e.settle(i, e.msgs[i].outcome, e.msgs[i].next)
	if !usable {
		id := s.id
		e.forget(s)
		e.core.SessionClosed(e.t, id)
	}
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
	fate.Evidence.Messages = s.sent - 1
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
