//go:build linux

package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
)

// peer is one SMTP client of the receiver. Replies leave together, when no more
// commands are there to be read (RFC 2920 section 3.2).
type peer struct {
	r    *receiver
	conn net.Conn
	in   []byte
	from int // of in: what is not yet used
	to   int
	out  []byte
	rcpt []byte
	mail bool
	body []byte // of BDAT chunks before the last
}

const (
	bufferSize = 64 << 10
	maxMessage = 8 << 20
)

var errTooLong = errors.New("line or message too long")

func (r *receiver) serve(c net.Conn) {
	defer c.Close()
	p := &peer{r: r, conn: c, in: make([]byte, bufferSize)}
	p.say("220 sink.example ESMTP\r\n")
	for {
		line, err := p.line()
		if err != nil {
			return
		}
		if err := p.command(line); err != nil {
			_ = p.flush()
			return
		}
	}
}

func (p *peer) say(reply string) { p.out = append(p.out, reply...) }

func (p *peer) flush() error {
	if len(p.out) == 0 {
		return nil
	}
	_, err := p.conn.Write(p.out)
	p.out = p.out[:0]
	return err
}

// fill reads more, after everything that is to be said.
func (p *peer) fill() error {
	if err := p.flush(); err != nil {
		return err
	}
	if p.from == p.to {
		p.from, p.to = 0, 0
	}
	if p.to == len(p.in) {
		if err := p.grow(); err != nil {
			return err
		}
	}
	n, err := p.conn.Read(p.in[p.to:])
	p.to += n
	return err
}

// grow makes room at the end of the buffer.
func (p *peer) grow() error {
	to := p.in
	if p.from == 0 {
		if len(p.in) >= maxMessage {
			return errTooLong
		}
		to = make([]byte, 2*len(p.in))
	}
	p.to = copy(to, p.in[p.from:p.to])
	p.in, p.from = to, 0
	return nil
}

// line is the next command, without CRLF; it is good until the next read.
func (p *peer) line() ([]byte, error) {
	for {
		if n := bytes.IndexByte(p.in[p.from:p.to], '\n'); n >= 0 {
			line := p.in[p.from : p.from+n]
			p.from += n + 1
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		if p.to-p.from > bufferSize {
			return nil, errTooLong
		}
		if err := p.fill(); err != nil {
			return nil, err
		}
	}
}

func (p *peer) command(line []byte) error {
	verb := line[:min(4, len(line))]
	switch {
	case bytes.EqualFold(verb, []byte("MAIL")):
		p.mail, p.rcpt, p.body = true, p.rcpt[:0], p.body[:0]
		p.say("250 2.1.0 Ok\r\n")
	case bytes.EqualFold(verb, []byte("RCPT")):
		p.recipient(line)
	case bytes.EqualFold(verb, []byte("DATA")):
		return p.data()
	case bytes.EqualFold(verb, []byte("BDAT")):
		return p.bdat(line)
	case bytes.EqualFold(verb, []byte("EHLO")):
		p.say("250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 8388608\r\n")
	case bytes.EqualFold(verb, []byte("RSET")):
		p.mail, p.rcpt = false, p.rcpt[:0]
		p.say("250 2.0.0 Ok\r\n")
	case bytes.EqualFold(verb, []byte("NOOP")), bytes.EqualFold(verb, []byte("HELO")):
		p.say("250 2.0.0 Ok\r\n")
	case bytes.EqualFold(verb, []byte("QUIT")):
		p.say("221 2.0.0 Bye\r\n")
		return io.EOF
	default:
		p.say("502 5.5.2 Unknown command\r\n")
	}
	return nil
}

// recipient takes the recipient; all mail here has one.
func (p *peer) recipient(line []byte) {
	_, rest, _ := bytes.Cut(line, []byte("<"))
	addr, _, ok := bytes.Cut(rest, []byte(">"))
	if !ok || !p.mail || len(p.rcpt) > 0 {
		p.say("503 5.5.1 One recipient, behind MAIL\r\n")
		return
	}
	p.rcpt = append(p.rcpt[:0], addr...)
	p.say("250 2.1.5 Ok\r\n")
}

func (p *peer) ready() bool {
	if len(p.rcpt) > 0 {
		return true
	}
	p.say("503 5.5.1 No recipient\r\n")
	return false
}

var finalDot = []byte("\r\n.\r\n")

func (p *peer) data() error {
	if !p.ready() {
		return nil
	}
	p.say("354 Go on\r\n")
	seen := 0 // of the content: where no dot begins
	for {
		content := p.in[p.from:p.to]
		if n := bytes.Index(content[seen:], finalDot); n >= 0 {
			end := seen + n + 2
			p.r.accept(p.rcpt, content[:end], true)
			p.from += end + len(finalDot) - 2
			p.taken()
			return nil
		}
		seen = max(0, len(content)-len(finalDot)+1)
		if err := p.fill(); err != nil {
			return err
		}
	}
}

// bdat takes a chunk (RFC 3030).
func (p *peer) bdat(line []byte) error {
	fields := bytes.Fields(line)
	if len(fields) < 2 {
		p.say("501 5.5.4 BDAT size [LAST]\r\n")
		return io.EOF
	}
	size, err := strconv.Atoi(string(fields[1]))
	if err != nil || size < 0 || size+len(p.body) > maxMessage {
		p.say("501 5.5.4 BDAT size [LAST]\r\n")
		return io.EOF
	}
	last := len(fields) > 2 && bytes.EqualFold(fields[2], []byte("LAST"))
	for p.to-p.from < size {
		if err := p.fill(); err != nil {
			return err
		}
	}
	chunk := p.in[p.from : p.from+size]
	p.from += size
	switch {
	case !p.ready():
	case !last:
		p.body = append(p.body, chunk...)
		p.say("250 2.0.0 Go on\r\n")
	case len(p.body) == 0:
		p.r.accept(p.rcpt, chunk, false)
		p.taken()
	default:
		p.body = append(p.body, chunk...)
		p.r.accept(p.rcpt, p.body, false)
		p.taken()
	}
	return nil
}

func (p *peer) taken() {
	p.mail, p.rcpt, p.body = false, p.rcpt[:0], p.body[:0]
	p.say("250 2.0.0 Taken\r\n")
}
