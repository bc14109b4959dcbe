package smtpc

import "strconv"

// Grouping is how far a session runs ahead of the server's replies. Higher ones save
// round trips; a server that breaks inside one is spoken to by a lower one.
type Grouping uint8

const (
	// Stepwise waits for each reply: four round trips a message.
	Stepwise Grouping = iota
	// Grouped says MAIL, RCPT and DATA in one flight (RFC 2920): two round trips.
	Grouped
	// Across also says them behind the content of the message before (RFC 2920 section
	// 3.1 lets content begin a group): one round trip on a warm connection.
	Across
	// Chunked says MAIL, RCPT and BDAT LAST with the content in one flight (RFC 3030
	// section 4.2), and nothing behind it: one round trip.
	Chunked
)

var groupingNames = [...]string{"stepwise", "grouped", "across", "chunked"}

// String is the grouping's name in logs.
func (g Grouping) String() string {
	if int(g) < len(groupingNames) {
		return groupingNames[g]
	}
	return "grouping(" + strconv.Itoa(int(g)) + ")"
}

// Next is where Carry finds the message that follows the one under way.
type Next interface {
	// Ready is signalled when Take may have something that it did not have before.
	Ready() <-chan struct{}
	// Take answers the message to go next, nil while there is none. Its MAIL is written
	// at once, so this is the last moment to think better of it; and the next call of
	// Carry must be with it, whatever became of the session. It must not block for long:
	// the connection waits.
	Take() *Mail
}

// ahead is the message that Carry took before its turn.
type ahead struct {
	mail    *Mail
	env     Envelope
	refusal *Reply // ours: nothing is said of it
	said    bool   // its envelope went out, or a part of it
}

// Simplify keeps the session from a grouping and those that build upon it, from the
// next envelope on. Between two calls of Carry only.
func (s *Session) Simplify(g Grouping) {
	switch g {
	case Chunked:
		s.info.Chunking = false
	case Across:
		s.info.Across = false
	case Grouped:
		s.info.Pipelining, s.info.Across = false, false
	}
}

// grouping is how the next fresh transaction is said.
func (s *Session) grouping() Grouping {
	switch {
	case !s.info.Pipelining:
		return Stepwise
	case s.info.Chunking:
		return Chunked
	}
	return Grouped
}

// mayFollow reports whether a message may be begun behind this one's content.
func (t *transaction) mayFollow() bool {
	return t.next != nil && t.s.info.Across && t.group == Grouped && t.s.ahead.mail == nil && !t.torn
}

// follow takes the message that goes next and answers its envelope's commands; nil when
// there is none, or when it is not to be sent here.
func (t *transaction) follow() []byte {
	if !t.mayFollow() {
		return nil
	}
	m := t.next.Take()
	if m == nil {
		return nil
	}
	a := &t.s.ahead
	a.mail, a.env = m, m.Envelope
	if a.refusal = t.s.check(&a.env, m.Content); a.refusal != nil {
		return nil
	}
	t.s.lines = t.s.appendEnvelope(t.s.lines[:0], &a.env, dataLine)
	return t.s.lines
}

// followed notes how much of the next message's envelope went out.
func (t *transaction) followed(n int) {
	if n > 0 {
		t.s.ahead.said = true
		t.s.info.Messages++
	}
}

// broke names the grouping in which the server failed.
func (t *transaction) broke() Grouping {
	err := t.cause
	if err == nil || t.ctx.Err() != nil {
		return Stepwise
	}
	switch {
	case t.res.HungUp && t.res.Began && !t.ahead:
		return Stepwise // it bore that before
	case t.group == Chunked && (t.res.Began || t.s.alone):
		return Chunked
	case t.ahead && !t.said:
		return Across
	case t.s.ahead.said && (isHangUp(err) || isProtocol(err)):
		return Across
	case t.group == Grouped && t.res.Began && !t.said && t.inEnvelope() && (isProtocol(err) || isHangUp(err) || isTimeout(err)):
		return Grouped
	}
	return Stepwise
}

// inEnvelope reports whether it failed before its content went out, and no reply says
// why. A server that loses what stands behind MAIL, or hangs up at it, does so each time.
func (t *transaction) inEnvelope() bool {
	if t.res.Reply.Code != 0 {
		return false
	}
	switch t.res.Reply.Phase {
	case PhaseMAIL, PhaseRCPT, PhaseDATA:
		return true
	}
	return false
}
