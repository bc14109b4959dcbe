package smtpc

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

// maxText caps the text kept of one reply, in octets. Longer texts are cut, not refused.
const maxText = 4096

// wireReply is one reply as it came.
type wireReply struct {
	code     int
	enhanced string
	text     string // lines joined by "\n", without codes, printable UTF-8
}

// in gives the reply its phase and cuts its text to what is kept.
func (w wireReply) in(phase Phase) Reply {
	text := w.text
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "")
	}
	return Reply{Phase: phase, Code: w.code, Enhanced: w.enhanced, Text: text}
}

// incoming is one reply, or the error that ends the stream of replies.
type incoming struct {
	wireReply
	err error
	// more says that further bytes were already buffered behind this reply.
	more bool
}

// receiver reads replies on its own goroutine for the life of the connection, so
// that a 421, an early reply or a FIN is seen the moment it comes, also while the
// session writes or idles.
type receiver struct {
	parser  replyParser
	replies chan incoming
	// done is closed when no further reply will come.
	done chan struct{}
	// taken counts the replies that the session took; only the session touches it.
	taken int64
	// pauseAt makes the receiver stop once it delivered that many replies, as what
	// follows STARTTLS's reply is not for it. A count and no flag: the receiver may
	// look here long after the reply it delivered was taken. 0 is never.
	pauseAt atomic.Int64
}

// maxOutstanding is how many replies may wait unread; a group never asks for more: the
// final reply, and those to the next MAIL, RCPT and DATA.
const maxOutstanding = 4

func newReceiver(p replyParser) *receiver {
	return &receiver{parser: p, replies: make(chan incoming, maxOutstanding), done: make(chan struct{})}
}

// run reads until the stream ends, the server says 421 (RFC 5321 section 3.8: it
// closes the channel), pauseAt is reached, or gone is closed. Each reply may break
// content off at out.
func (rx *receiver) run(gone <-chan struct{}, out *sender) {
	defer close(rx.done)
	for delivered := int64(1); ; delivered++ {
		reply, err := rx.parser.read()
		select {
		case rx.replies <- incoming{wireReply: reply, err: err, more: rx.parser.buffered() > 0}:
		case <-gone:
			return
		}
		ended := err != nil || reply.code == 421
		out.early(rx.replies, ended)
		pauseAt := rx.pauseAt.Load()
		if ended || pauseAt > 0 && delivered >= pauseAt {
			return
		}
	}
}

func (rx *receiver) ended() bool {
	select {
	case <-rx.done:
		return true
	default:
		return false
	}
}

// replyParser reads replies (RFC 5321 section 4.2) from an untrusted server. It holds
// at most one line and one reply, both capped. A bare LF ends a line too.
type replyParser struct {
	r        *bufio.Reader // its size is the cap on a line
	maxBytes int
	text     []byte
}

func newReplyParser(r io.Reader, maxLine, maxBytes int) replyParser {
	return replyParser{r: bufio.NewReaderSize(r, maxLine), maxBytes: maxBytes}
}

func (p *replyParser) buffered() int { return p.r.Buffered() }

// read returns the next whole reply. All its lines must carry one code; anything
// else is a protocol error, after which the stream is of no more use.
func (p *replyParser) read() (wireReply, error) {
	var reply wireReply
	p.text = p.text[:0]
	for total, lines := 0, 0; ; lines++ {
		raw, err := p.line()
		if err != nil {
			return wireReply{}, err
		}
		if total += len(raw); total > p.maxBytes {
			return wireReply{}, protocolErrorf("reply longer than %d octets", p.maxBytes)
		}
		code, last, text, ok := splitReplyLine(raw)
		if !ok {
			return wireReply{}, protocolErrorf("not an SMTP reply: %q", excerpt(raw))
		}
		if lines > 0 && code != reply.code {
			return wireReply{}, protocolErrorf("code changes from %d to %d inside one reply", reply.code, code)
		}
		if lines > 0 {
			p.text = append(p.text, '\n')
		}
		reply.code = code
		p.add(&reply, text)
		if last {
			reply.text = printable(p.text)
			return reply, nil
		}
	}
}

// add appends one line's text without its enhanced code. The first code found counts.
func (p *replyParser) add(reply *wireReply, text []byte) {
	enhanced, text := cutEnhanced(reply.code, text)
	if reply.enhanced == "" && len(enhanced) > 0 {
		reply.enhanced = string(enhanced)
	}
	p.text = append(p.text, text...)
}

// line returns the next line with its line end, valid until the next call.
func (p *replyParser) line() ([]byte, error) {
	raw, err := p.r.ReadSlice('\n')
	switch {
	case err == nil:
		return raw, nil
	case err == bufio.ErrBufferFull:
		return nil, protocolErrorf("reply line longer than %d octets", p.r.Size())
	case err == io.EOF && len(raw) > 0:
		return nil, io.ErrUnexpectedEOF
	}
	return nil, err
}

// splitReplyLine parses "250-text", "250 text" or "250". Codes run from 200 to 599:
// SMTP has no 1yz replies (RFC 5321 section 4.2.1).
func splitReplyLine(raw []byte) (code int, last bool, text []byte, ok bool) {
	line := bytes.TrimRight(raw, " \t\r\n")
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) {
		return 0, false, nil, false
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, true, nil, true
	}
	sep, text := line[3], line[4:]
	return code, sep != '-', text, sep == '-' || sep == ' ' || sep == '\t'
}

// cutEnhanced splits "5.1.1 text" (RFC 2034 section 4). A code whose class does not
// match the reply's is no enhanced code and stays in the text.
func cutEnhanced(code int, text []byte) (enhanced, rest []byte) {
	if len(text) < 5 || int(text[0]-'0') != code/100 || text[1] != '.' || code/100 == 3 {
		return nil, text
	}
	i := skipDigits(text, 2)
	if i == 2 || i == len(text) || text[i] != '.' {
		return nil, text
	}
	j := skipDigits(text, i+1)
	if j == i+1 || j < len(text) && text[j] != ' ' && text[j] != '\t' {
		return nil, text
	}
	return text[:j], bytes.TrimLeft(text[j:], " \t")
}

// skipDigits passes up to three digits (RFC 3463 section 2) from position i.
func skipDigits(b []byte, i int) int {
	for end := min(i+3, len(b)); i < end && isDigit(b[i]); {
		i++
	}
	return i
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// printable turns reply text into what may be stored and shown anywhere: valid UTF-8
// without control characters but "\n".
func printable(b []byte) string {
	clean := func(c byte) bool { return c == '\n' || ' ' <= c && c <= '~' }
	for _, c := range b {
		if !clean(c) {
			return strings.Map(visible, string(b))
		}
	}
	return string(b)
}

func visible(r rune) rune {
	switch {
	case r == '\t':
		return ' '
	case r == '\n' || unicode.IsPrint(r):
		return r
	}
	return utf8.RuneError
}

// excerpt is the start of a line, for an error text.
func excerpt(line []byte) string {
	return printable(bytes.TrimRight(line[:min(len(line), 80)], "\r\n"))
}
