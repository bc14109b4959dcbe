package smtpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Envelope is one transaction's sender and recipient.
type Envelope struct {
	// From is the return path without angle brackets; empty is the null path.
	From string
	// To is the recipient, without angle brackets.
	To string
	// Size is the message's size in octets for SIZE=; 0 means the message's length.
	Size int64
	// EightBit says that the content needs 8BITMIME; also found out from the content.
	EightBit bool
	// UTF8 says that header or addresses need SMTPUTF8; also found out from the addresses.
	UTF8 bool
}

// Result is what became of one message.
type Result struct {
	// Reply decided: the first refusal, or the reply to the final dot. Code is 0 and
	// Text the cause when the deciding reply never came.
	Reply Reply
	// Replies are all replies of the transaction in order, each with its phase.
	Replies []Reply
	// Delivered is true only for a 2xx after the final dot of a transaction whose
	// MAIL, RCPT and DATA were accepted.
	Delivered bool
	// Uncertain says that the whole content was written and no final reply came: the
	// server may have the message.
	Uncertain bool
	// Began says that MAIL was written. Without it nothing was said about this
	// message: unless Local, Reply (a 421 or 5xx in idleness or to RSET, a hang-up) is
	// about the connection, and its Phase is PhaseQuit.
	Began bool
	// Local says that Reply is our own refusal, made before MAIL.
	Local bool
	// Bytes counts the octets of content written, dot-stuffing and final dot included.
	Bytes int64
	// Usable says that the connection can take another message. Otherwise it is closed.
	Usable bool
	// Err is the cause when no reply decided, nil otherwise.
	Err error
}

// Failure returns the result as an *Error, nil when delivered.
func (r Result) Failure() *Error {
	if r.Delivered {
		return nil
	}
	return &Error{Reply: r.Reply, Uncertain: r.Uncertain, Closed: !r.Usable, Err: r.Err}
}

// Send runs one transaction. message is the RFC 5322 message with CRLF line ends; it
// is read, not kept nor changed. A message or envelope that must not or cannot be
// sent here is refused before MAIL, with a reply that says it is ours.
//
// Send blocks at most for the timeouts of Config and returns soon after ctx ends;
// ctx ending during a transaction costs the connection. It never panics.
func (s *Session) Send(ctx context.Context, env Envelope, message []byte) Result {
	t := transaction{s: s, ctx: ctx}
	t.run(env, message)
	t.res.Usable = !s.closed()
	return t.res
}

// transaction is one Send under way. Its methods return false once all is decided.
type transaction struct {
	s       *Session
	ctx     context.Context
	res     Result
	decided bool
}

func (t *transaction) run(env Envelope, message []byte) {
	if t.s.closed() {
		t.fail(PhaseQuit, ErrClosed)
		return
	}
	refusal := t.s.check(&env, message)
	switch {
	case refusal != nil:
		t.res.Reply, t.res.Local = *refusal, true
		return
	case t.ctx.Err() != nil:
		err := cancelError(t.ctx)
		t.res.Reply, t.res.Err = Reply{Phase: PhaseQuit, Text: causeText(err)}, err
		return
	}
	release := t.s.guard(t.ctx)
	if t.ready() && t.envelope(env) {
		t.content(message)
	}
	if release() {
		t.s.Abort()
	}
}

// ready makes sure, before MAIL, that the server has not spoken meanwhile and holds
// no earlier transaction.
func (t *transaction) ready() bool {
	if t.unasked(PhaseQuit) {
		return false
	}
	if !t.s.dirty {
		return true
	}
	if !t.write(PhaseQuit, "RSET\r\n") {
		return false
	}
	reply, ok := t.take(PhaseQuit)
	switch {
	case !ok:
		return false
	case reply.Code >= 400:
		t.decide(reply)
		t.s.Abort()
		return false
	case reply.Code/100 != 2 || t.s.pending():
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
	line  string
	want  int // first digit of the reply that lets the transaction go on
}

// envelope takes the transaction to the server's 354.
func (t *transaction) envelope(env Envelope) bool {
	steps := [...]step{
		{PhaseMAIL, t.s.mailLine(env), 2},
		{PhaseRCPT, "RCPT TO:<" + env.To + ">\r\n", 2},
		{PhaseDATA, "DATA\r\n", 3},
	}
	if t.s.info.Pipelining {
		return t.pipelined(steps)
	}
	for i, st := range steps {
		if i > 0 && t.unasked(st.phase) {
			return false
		}
		if !t.write(st.phase, st.line) {
			return false
		}
		if reply, ok := t.take(st.phase); !ok || !t.judge(st, reply) {
			return false
		}
	}
	return true
}

// pipelined writes all steps at once and reads every reply (RFC 2920 section 3.1).
func (t *transaction) pipelined(steps [3]step) bool {
	if !t.write(PhaseMAIL, steps[0].line, steps[1].line, steps[2].line) {
		return false
	}
	goOn := true
	for _, st := range steps {
		reply, ok := t.take(st.phase)
		if !ok {
			return false
		}
		if st.phase == PhaseDATA && reply.Code/100 == 3 && !goOn {
			t.loneDot()
			return false
		}
		goOn = t.judge(st, reply) && goOn
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

// content sends the message and takes the final reply.
func (t *transaction) content(message []byte) {
	sent, whole, err := t.s.writeContent(message)
	t.res.Bytes = sent
	if !whole {
		t.cutOff(err)
		return
	}
	got, err := t.s.await(t.ctx, t.s.cfg.FinalDotTimeout)
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

// write sends a group of commands, each line with its CRLF.
func (t *transaction) write(phase Phase, lines ...string) bool {
	buf := t.s.lines[:0]
	for _, line := range lines {
		buf = append(buf, line...)
	}
	t.s.lines = buf
	n, err := t.s.out.write(buf, t.s.cfg.CommandTimeout)
	if phase == PhaseMAIL && n > 0 {
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
	reply := got.in(phase)
	t.res.Replies = append(t.res.Replies, reply)
	return reply
}

// hangUpAfter closes where the last reply leaves no session to go on with.
func (t *transaction) hangUpAfter(got incoming) {
	switch {
	case got.code == 421:
		t.s.close(false)
	case got.more: // a 421, or replies out of step
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
	t.decide(Reply{Phase: phase, Text: causeText(err)})
	t.s.Abort()
}

// mailLine is MAIL with the parameters that the server understands.
func (s *Session) mailLine(env Envelope) string {
	line := "MAIL FROM:<" + env.From + ">"
	if s.ext.size {
		line += " SIZE=" + strconv.FormatInt(env.Size, 10)
	}
	if env.EightBit {
		line += " BODY=8BITMIME"
	}
	if env.UTF8 {
		line += " SMTPUTF8"
	}
	return line + "\r\n"
}

// check completes env from the message and refuses what must not or cannot go over
// this session; nil means that it may.
func (s *Session) check(env *Envelope, message []byte) *Reply {
	if err := checkPath(env.From, true); err != nil {
		return ours(501, "5.1.7", "return path %q %v", env.From, err)
	}
	if err := checkPath(env.To, false); err != nil {
		return ours(501, "5.1.3", "recipient %q %v", env.To, err)
	}
	if err := checkLines(message); err != nil {
		return ours(554, "5.6.0", "%v", err)
	}
	env.Size = max(env.Size, int64(len(message)))
	env.EightBit = env.EightBit || !isSevenBit(message)
	env.UTF8 = env.UTF8 || !isSevenBit([]byte(env.From)) || !isSevenBit([]byte(env.To))
	switch {
	case s.ext.maxSize > 0 && env.Size > s.ext.maxSize: // RFC 1870 section 6.1
		return ours(552, "5.3.4", "message of %d octets, the server announced a limit of %d", env.Size, s.ext.maxSize)
	case env.UTF8 && !s.ext.utf8: // RFC 6531 section 3.5
		return ours(550, "5.6.7", "message needs SMTPUTF8, which the server does not offer")
	case env.EightBit && !s.ext.eightBit: // RFC 6152 section 3
		return ours(554, "5.6.3", "message needs 8BITMIME, which the server does not offer")
	}
	return nil
}

// ours is a refusal that no server said.
func ours(code int, enhanced, format string, args ...any) *Reply {
	text := "refused by the sender before MAIL: " + fmt.Sprintf(format, args...)
	return &Reply{Phase: PhaseMAIL, Code: code, Enhanced: enhanced, Text: text}
}

// maxPath is the longest address in octets: 256 with its brackets (RFC 5321 section 4.5.3.1.3).
const maxPath = 254

// checkPath refuses what could end a path or a command line early. The grammar is
// the caller's; this is the last door before the wire.
func checkPath(path string, mayBeEmpty bool) error {
	if path == "" && mayBeEmpty {
		return nil
	}
	at := strings.LastIndexByte(path, '@')
	switch {
	case len(path) > maxPath:
		return fmt.Errorf("is longer than %d octets", maxPath)
	case at <= 0 || at == len(path)-1 || path[0] == '@':
		return fmt.Errorf("is not of the form local@domain")
	case !utf8.ValidString(path):
		return fmt.Errorf("is not valid UTF-8")
	}
	for _, r := range path {
		if r == '<' || r == '>' || r == ' ' || !unicode.IsPrint(r) {
			return fmt.Errorf("holds the character %q, which no envelope address may", r)
		}
	}
	return nil
}

// checkLines refuses an empty message and any CR or LF outside a CRLF (RFC 5321
// section 2.3.8), which some server would take for a line end and some not.
func checkLines(message []byte) error {
	if len(message) == 0 {
		return fmt.Errorf("the message is empty")
	}
	for at := 0; ; {
		line := message[at:]
		lf := bytes.IndexByte(line, '\n')
		if lf >= 0 {
			line = line[:lf]
		}
		cr := bytes.IndexByte(line, '\r')
		switch {
		case cr >= 0 && (lf < 0 || cr != lf-1):
			return fmt.Errorf("bare CR at octet %d of the message: give CRLF line ends", at+cr)
		case lf >= 0 && cr < 0:
			return fmt.Errorf("bare LF at octet %d of the message: give CRLF line ends", at+lf)
		case lf < 0:
			return nil
		}
		at += lf + 1
	}
}

// isSevenBit reports that no octet has its high bit set.
func isSevenBit(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b)&0x8080808080808080 != 0 {
			return false
		}
	}
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
