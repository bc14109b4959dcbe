package smtpc

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Send runs one transaction and waits for its end, as Carry does without a message to
// follow.
func (s *Session) Send(ctx context.Context, env Envelope, message []byte) Result {
	return s.Carry(ctx, &Mail{Envelope: env, Content: message}, nil)
}

// Carry runs one transaction. A message or envelope that must not or cannot be sent
// here is refused before MAIL, with a reply that says it is ours.
//
// Where the session may group across messages, Carry asks next for the message that
// follows, when it writes the content and while it waits for the final reply, and says
// its envelope behind the content; its replies are left to the next call. next may be nil.
//
// Carry blocks at most for the timeouts of Config and returns soon after ctx ends;
// ctx ending during a transaction costs the connection. It never panics.
func (s *Session) Carry(ctx context.Context, m *Mail, next Next) Result {
	t := transaction{s: s, ctx: ctx, mail: m, next: next}
	t.run()
	if t.res.Began {
		t.res.Took = time.Since(t.from)
	}
	t.res.Usable = !s.closed()
	s.served = s.served || t.heard && t.res.Usable
	return t.res
}

// transaction is one Carry under way. Its methods return false once all is decided.
type transaction struct {
	s       *Session
	ctx     context.Context
	mail    *Mail
	next    Next
	group   Grouping // in which its envelope was said
	res     Result
	decided bool
	ahead   bool      // its envelope went out behind another's content
	led     bool      // its envelope went out behind a RSET
	from    time.Time // its MAIL was written, or could be answered
	heard   bool      // a reply to its MAIL came
	said    bool      // its content was begun
	none    bool      // the server has none of that, for certain
	torn    bool      // what went out behind its content did not go out whole
	cause   error     // why the session failed, if not by a refusal
}

var errOtherAhead = errors.New("the envelope of another message is on the wire")

func (t *transaction) run() {
	s := t.s
	a := s.ahead
	s.ahead = ahead{}
	t.ahead, t.res.Began, t.from = a.said, a.said, time.Now()
	if a.mail == nil {
		a.env = t.mail.Envelope
	}
	switch {
	case s.closed():
		t.decide(Reply{Phase: PhaseQuit, Text: causeText(ErrClosed)})
		t.res.Err, t.res.Lost = ErrClosed, a.said
		return
	case a.mail != nil && a.mail != t.mail:
		t.fail(PhaseQuit, errOtherAhead)
		return
	case a.mail == nil:
		a.refusal = s.check(&a.env, t.mail.Content)
	}
	if a.refusal != nil {
		t.res.Reply, t.res.Local = *a.refusal, true
		return
	}
	if t.ctx.Err() != nil && !a.said {
		err := cancelError(t.ctx)
		t.res.Reply, t.res.Err = Reply{Phase: PhaseQuit, Text: causeText(err)}, err
		return
	}
	s.bind(t.ctx)
	t.transact(&a.env)
	if t.ctx.Err() != nil {
		s.Abort()
	}
	t.res.HungUp = t.hungUp()
	t.res.Broke = t.broke()
	t.res.Lost = t.lost()
}

// transact runs the transaction from where it stands.
func (t *transaction) transact(env *Envelope) {
	if t.ahead {
		t.group = Grouped
		if t.replies() {
			t.content()
		}
		return
	}
	t.group = t.s.grouping()
	if !t.ready() {
		return
	}
	switch {
	case t.group == Chunked:
		t.chunked(env)
	case t.group == Grouped:
		if t.grouped(env) && t.replies() {
			t.content()
		}
	case !t.stepwise(env):
	case t.s.info.Chunking:
		t.chunk()
	default:
		t.content()
	}
}

// lost reports that the server said nothing against this message, and has none of it.
func (t *transaction) lost() bool {
	if !t.res.Began || t.said && !t.none || t.res.Reply.Code != 0 && t.heard {
		return false
	}
	return t.ahead || t.led && !t.heard || t.res.HungUp || t.res.Broke != Stepwise
}

// hungUp reports that a server that served messages here is gone without a word to this
// one: it closed the connection between two.
func (t *transaction) hungUp() bool {
	return t.s.served && !t.heard && (!t.said || t.none) && t.ctx.Err() == nil && isSilence(t.res.Err)
}

// ready makes sure, before MAIL, that the server has not spoken meanwhile and holds
// no earlier transaction. What an earlier one left behind may be reset in the same
// flight as MAIL, but not after a refused BDAT: who does not know how much of it was
// content would take RSET for more of it, and the reply to a lone RSET shows that.
func (t *transaction) ready() bool {
	if t.unasked(PhaseQuit) {
		return false
	}
	if !t.s.dirty || t.group == Grouped && !t.s.alone {
		return true
	}
	if t.s.alone {
		t.group = Chunked // a failure is about that
	}
	if !t.write(PhaseQuit, resetLine) || !t.reset() {
		return false
	}
	if t.s.pending() {
		t.fail(PhaseQuit, protocolErrorf("more than one reply to RSET"))
		return false
	}
	t.s.alone = false
	t.group = t.s.grouping()
	return true
}

// reset takes the reply to RSET.
func (t *transaction) reset() bool {
	reply, ok := t.take(PhaseQuit)
	switch {
	case !ok:
		return false
	case reply.Code >= 400:
		t.decide(reply)
		if t.group == Chunked {
			t.cause = protocolErrorf("%s to RSET", reply)
		}
		t.s.Abort()
		return false
	case reply.Code/100 != 2:
		t.fail(PhaseQuit, protocolErrorf("replies out of step: %s to RSET", reply))
		return false
	}
	t.s.dirty = false
	return true
}

// unasked reports that the server spoke before the command of phase was written, and
// decides: a refusal counts, as servers say 421 at any time; the session is over.
func (t *transaction) unasked(phase Phase) bool {
	if !t.s.pending() {
		return false
	}
	reply, ok := t.take(phase)
	switch {
	case ok && reply.Code >= 400:
		t.decide(reply)
		t.s.Abort()
	case ok:
		t.fail(phase, protocolErrorf("%d before anything was asked", reply.Code))
	}
	return true
}

// step is one command of the envelope.
type step struct {
	phase Phase
	want  int // first digit of the reply that lets the transaction go on
}

var envelopeSteps = [...]step{{PhaseMAIL, 2}, {PhaseRCPT, 2}, {PhaseDATA, 3}}

const (
	resetLine = "RSET\r\n"
	dataLine  = "DATA\r\n"
)

// appendEnvelope appends MAIL and RCPT, and the command behind them.
func (s *Session) appendEnvelope(b []byte, env *Envelope, last string) []byte {
	return append(s.appendRcpt(s.appendMail(b, env), env), last...)
}

// appendMail appends MAIL with the parameters that the server understands.
func (s *Session) appendMail(b []byte, env *Envelope) []byte {
	b = append(append(append(b, "MAIL FROM:<"...), env.From...), '>')
	if s.ext.size {
		b = strconv.AppendInt(append(b, " SIZE="...), env.Size, 10)
	}
	if env.EightBit {
		b = append(b, " BODY=8BITMIME"...)
	}
	if env.UTF8 {
		b = append(b, " SMTPUTF8"...)
	}
	return append(b, "\r\n"...)
}

func (s *Session) appendRcpt(b []byte, env *Envelope) []byte {
	return append(append(append(b, "RCPT TO:<"...), env.To...), ">\r\n"...)
}

// stepwise says MAIL and RCPT, and DATA if content goes by it, each behind the reply to
// the one before.
func (t *transaction) stepwise(env *Envelope) bool {
	s := t.s
	steps := envelopeSteps[:]
	if s.info.Chunking {
		steps = steps[:2]
	}
	for i, st := range steps {
		if i > 0 && t.unasked(st.phase) {
			return false
		}
		switch st.phase {
		case PhaseMAIL:
			s.lines = s.appendMail(s.lines[:0], env)
		case PhaseRCPT:
			s.lines = s.appendRcpt(s.lines[:0], env)
		default:
			s.lines = append(s.lines[:0], dataLine...)
		}
		if !t.put(st.phase, s.lines, 0) {
			return false
		}
		if reply, ok := t.take(st.phase); !ok || !t.judge(st, reply) {
			return false
		}
	}
	return true
}

// grouped says the whole envelope at once (RFC 2920 section 3.1), behind a RSET when
// the server holds a transaction that came to nothing.
func (t *transaction) grouped(env *Envelope) bool {
	s := t.s
	s.lines = s.lines[:0]
	if t.led = s.dirty; t.led {
		s.lines = append(s.lines, resetLine...)
	}
	before := len(s.lines)
	s.lines = s.appendEnvelope(s.lines, env, dataLine)
	return t.put(PhaseMAIL, s.lines, before)
}

// replies takes every reply to a group, to the server's 354.
func (t *transaction) replies() bool {
	if t.led && !t.reset() {
		return false
	}
	goOn := true
	for _, st := range envelopeSteps {
		reply, ok := t.take(st.phase)
		if !ok {
			return false
		}
		if t.ahead && st.phase == PhaseMAIL && reply.Code == 503 {
			t.fail(st.phase, protocolErrorf("%s to MAIL behind content", reply))
			return false
		}
		if st.phase == PhaseDATA && reply.Code/100 == 3 && !goOn {
			t.loneDot()
			return false
		}
		goOn = t.judge(st, reply) && goOn
		if t.s.closed() {
			return false
		}
	}
	return goOn
}

// judge decides on the reply to one step. Any acceptance opens a transaction at the
// server, until RSET or the end of data ends it.
func (t *transaction) judge(st step, reply Reply) bool {
	switch {
	case reply.Code/100 == st.want:
		t.s.dirty = true
		return true
	case reply.Code >= 400:
		t.decide(reply)
	default:
		t.fail(st.phase, protocolErrorf("%d in answer to %s", reply.Code, strings.ToUpper(st.phase.String())))
	}
	return false
}

// loneDot ends a DATA that the server opened although it had refused MAIL or RCPT
// (RFC 2920 section 3.1). Whatever it answers, nothing was delivered.
func (t *transaction) loneDot() {
	if t.s.pending() {
		t.s.Abort()
		return
	}
	if !t.write(PhaseEndOfData, ".\r\n") {
		return
	}
	reply, ok := t.take(PhaseEndOfData)
	if !ok {
		return
	}
	if reply.Code/100 == 3 || t.s.more {
		t.s.Abort()
	}
	t.s.dirty = false
}

// content sends the message, with the next one's envelope behind it, and takes the
// final reply.
func (t *transaction) content() {
	tail := t.follow()
	t.said = true
	w := t.s.writeContent(t.mail.Content, tail)
	t.followed(w.tail)
	t.res.Bytes = w.sent
	if !w.whole {
		t.cutOff(w.err)
		return
	}
	t.torn = w.tail < len(tail)
	got, err := t.final()
	if err == nil && got.code/100 == 3 {
		t.keep(got, PhaseEndOfData)
		err = protocolErrorf("%d in answer to the final dot", got.code)
	}
	if err != nil {
		t.res.Uncertain = true
		t.fail(PhaseEndOfData, err)
		return
	}
	t.s.dirty = false // RFC 5321 section 4.1.1.4: accepted or not, the transaction is over
	reply := t.keep(got, PhaseEndOfData)
	t.decide(reply)
	t.res.Delivered = reply.Code/100 == 2
	t.hangUpAfter(got)
}

// final waits for the reply to the content. A next message that comes meanwhile is
// begun at once.
func (t *transaction) final() (incoming, error) {
	s := t.s
	deadline := time.Time{}
	wait := s.cfg.FinalDotTimeout
	for {
		if t.torn {
			wait = min(wait, lastWordsTimeout)
		}
		var ready <-chan struct{}
		if t.mayFollow() {
			ready = t.next.Ready()
		}
		got, woken, err := s.awaitOr(t.ctx, wait, ready)
		if !woken {
			return got, err
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(wait)
		}
		if lines := t.follow(); lines != nil {
			n, err := s.out.write(lines, s.cfg.CommandTimeout)
			t.followed(n)
			t.torn = err != nil
		}
		wait = time.Until(deadline)
	}
}

// cutOff decides when content did not go out whole. A refusal that came early
// counts; an early acceptance accepts what the server has not seen, and does not.
func (t *transaction) cutOff(cause error) {
	got, err := t.s.lastWords(t.ctx, cause)
	if err != nil {
		t.fail(PhaseEndOfData, err)
		return
	}
	reply := t.keep(got, PhaseEndOfData)
	if reply.Code < 400 {
		t.fail(PhaseEndOfData, protocolErrorf("%d before the content was complete", reply.Code))
		return
	}
	t.decide(reply)
	t.s.Abort() // in the middle of DATA there is no other way out
}

// write sends one command with its CRLF.
func (t *transaction) write(phase Phase, line string) bool {
	t.s.lines = append(t.s.lines[:0], line...)
	return t.put(phase, t.s.lines, 0)
}

// put sends commands, of which those from mailAt on belong to the phase and behind it.
func (t *transaction) put(phase Phase, lines []byte, mailAt int) bool {
	if phase == PhaseMAIL {
		t.from = time.Now()
	}
	n, err := t.s.out.write(lines, t.s.cfg.CommandTimeout)
	if phase == PhaseMAIL && n > mailAt {
		t.res.Began = true
		t.s.info.Messages++
	}
	if err == nil {
		return true
	}
	if phase == PhaseMAIL && !t.res.Began {
		phase = PhaseQuit
	}
	got, lastErr := t.s.lastWords(t.ctx, err)
	if lastErr != nil {
		t.fail(phase, lastErr)
		return false
	}
	if reply := t.keep(got, phase); reply.Code >= 400 {
		t.decide(reply)
	}
	t.fail(phase, err)
	return false
}

// take reads the next reply. It returns false when none came or it was a 421, which
// ends the session at any point (RFC 5321 section 3.8).
func (t *transaction) take(phase Phase) (Reply, bool) {
	got, err := t.s.await(t.ctx, t.s.cfg.CommandTimeout)
	if err != nil {
		t.fail(phase, err)
		return Reply{}, false
	}
	reply := t.keep(got, phase)
	if reply.Code == 421 {
		t.decide(reply)
		t.s.close(false)
		return reply, false
	}
	return reply, true
}

func (t *transaction) keep(got incoming, phase Phase) Reply {
	if t.res.Replies == nil {
		t.res.Replies = make([]Reply, 0, maxOutstanding)
	}
	reply := got.in(phase)
	t.heard = t.heard || phase == PhaseMAIL
	t.res.Replies = append(t.res.Replies, reply)
	return reply
}

// hangUpAfter closes where the last reply leaves no session to go on with.
func (t *transaction) hangUpAfter(got incoming) {
	switch {
	case got.code == 421:
		t.s.close(false)
	case t.torn:
		t.s.Abort()
	case got.more && !t.s.ahead.said: // a 421, or replies out of step
		t.s.Abort()
	}
}

// decide sets the deciding reply; the first decision stands.
func (t *transaction) decide(reply Reply) {
	if !t.decided {
		t.res.Reply, t.decided = reply, true
	}
}

// fail decides without a reply and resets the connection.
func (t *transaction) fail(phase Phase, err error) {
	if !t.decided {
		t.res.Err = err
	}
	if t.cause == nil {
		t.cause = err
	}
	t.decide(Reply{Phase: phase, Text: causeText(err)})
	t.s.Abort()
}
