package smtpc

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"sync"
	"time"
)

// errEarly breaks off content when the server spoke before the final dot.
var errEarly = errors.New("the server spoke before the content was complete")

// past is a deadline that has passed at any time, real or virtual.
var past = time.Unix(1, 0)

const (
	// writeBlock is how much content goes under one deadline, in octets.
	writeBlock = 64 << 10
	// bufferSize holds a usual message whole (one write, one TLS record). Buffers are
	// borrowed while content is written, so a session that waits holds none.
	bufferSize = 16 << 10
)

var buffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, bufferSize) }}

// sender is the writing side of a connection. Each write has its own deadline; the
// end of a context breaks any write, an early reply one of content.
//
// Invariant: a break is never lost. It sets its flag and the passed deadline under
// mu; a write tests the flags and sets its own deadline under mu. Whichever comes
// second sees the other.
type sender struct {
	raw net.Conn // deadlines
	w   net.Conn // bytes: raw, or TLS over it

	mu        sync.Mutex
	cancelled bool
	content   bool
	allowed   int // replies that may come while content is written
	cut       bool
}

// cancel breaks this write and all later ones.
func (o *sender) cancel() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cancelled = true
	_ = o.raw.SetWriteDeadline(past) // fails only on a closed connection, whose writes fail too
}

// early breaks content off when more replies wait than may come before its end, or no
// more will come; outside content it does nothing. While content is on nobody takes
// replies, so those that wait came after it began. That is looked up under mu: the
// receiver may get here long after the reply it delivered was taken and content begun.
func (o *sender) early(replies <-chan incoming, ended bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.content && len(replies) > 0 && (ended || len(replies) > o.allowed) {
		o.cut = true
		_ = o.raw.SetWriteDeadline(past) // as in cancel
	}
}

// beginContent opens the time in which early breaks writes: at more replies than allowed.
func (o *sender) beginContent(allowed int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.content, o.allowed, o.cut = true, allowed, false
}

// endContent ends it, and what it broke.
func (o *sender) endContent() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cut && !o.cancelled {
		_ = o.raw.SetWriteDeadline(time.Time{}) // as in disarm
	}
	o.content, o.cut = false, false
}

func (o *sender) arm(timeout time.Duration) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.cancelled:
		return ErrClosed
	case o.cut:
		return errEarly
	}
	return o.raw.SetWriteDeadline(time.Now().Add(timeout))
}

// disarm takes the deadline back, lest it break a TLS key update of the receiver.
func (o *sender) disarm() (broken error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.cancelled:
		return ErrClosed
	case o.cut:
		return errEarly
	}
	_ = o.raw.SetWriteDeadline(time.Time{}) // fails only on a closed connection
	return nil
}

// write writes p within timeout. n counts what the connection took.
func (o *sender) write(p []byte, timeout time.Duration) (n int, err error) {
	if err := o.arm(timeout); err != nil {
		return 0, err
	}
	n, err = o.w.Write(p)
	broken := o.disarm()
	switch {
	case err == nil:
		return n, nil // a break that came too late is the next write's matter
	case broken != nil:
		return n, broken
	case isTimeout(err):
		return n, &timeoutError{what: "no progress in writing", after: timeout}
	}
	return n, err
}

// contentWriter writes content in blocks, each with a deadline of its own, and counts.
type contentWriter struct {
	out     *sender
	timeout time.Duration
	sent    int64
}

// Write is io.Writer.
func (c *contentWriter) Write(p []byte) (total int, err error) {
	for len(p) > 0 {
		n, err := c.out.write(p[:min(len(p), writeBlock)], c.timeout)
		c.sent += int64(n)
		total += n
		if err != nil {
			return total, err
		}
		p = p[n:]
	}
	return total, nil
}

// written is how far content and what goes behind it got.
type written struct {
	sent  int64 // of the content, its dots included
	whole bool  // the connection took all of that: the server may have the message
	tail  int   // of what goes behind
	err   error
}

// writeContent writes message dot-stuffed, the final dot and tail behind it, in one
// write if all that is small. When the connection did not take the content's last
// octet, the server cannot have seen the final dot; once it has, a reply is no reason
// to break off.
func (s *Session) writeContent(message, tail []byte) (done written) {
	s.out.beginContent(0)
	if s.pending() {
		s.out.endContent()
		return written{err: errEarly}
	}
	dst := contentWriter{out: s.out, timeout: s.cfg.DataTimeout}
	w := buffers.Get().(*bufio.Writer)
	w.Reset(&dst)
	given := dotStuff(w, message)
	if int64(w.Buffered()) == given && w.Available() >= len(tail) {
		_, _ = w.Write(tail) // buffered
	}
	done.err = w.Flush()
	w.Reset(nil)
	buffers.Put(w)
	s.out.endContent()
	done.sent = min(dst.sent, given)
	done.whole = done.sent == given
	if !done.whole {
		return done
	}
	done.tail = int(dst.sent - given)
	if done.err == nil || done.err == errEarly {
		n, err := 0, error(nil)
		if done.tail < len(tail) {
			n, err = s.out.write(tail[done.tail:], s.cfg.CommandTimeout)
		}
		done.tail, done.err = done.tail+n, err
	}
	return done
}

// writeChunk writes commands and message as it is. Their replies may come before its
// end, also BDAT's: a server that refuses a chunk still takes all of it (RFC 3030
// section 2), and the session goes on only if it does. It may have the message once
// all went out.
func (s *Session) writeChunk(commands, message []byte) (sent int64, whole bool, err error) {
	s.out.beginContent(len(envelopeSteps))
	defer s.out.endContent()
	dst := contentWriter{out: s.out, timeout: s.cfg.DataTimeout}
	w := buffers.Get().(*bufio.Writer)
	w.Reset(&dst)
	given := 0
	for _, part := range [...][]byte{commands, message, missingEnd(message)} {
		_, _ = w.Write(part) // sticky: Flush reports it
		given += len(part)
	}
	err = w.Flush()
	w.Reset(nil)
	buffers.Put(w)
	return dst.sent, dst.sent == int64(given), err
}

// missingEnd is the line end that message lacks.
func missingEnd(message []byte) []byte {
	if bytes.HasSuffix(message, lineEnd) {
		return nil
	}
	return lineEnd
}

// dotStuff writes message with every leading dot doubled, a last CRLF if it lacks
// one, and the final dot (RFC 5321 section 4.5.2). It returns the octets of all that;
// errors stay in w. message has only CRLF line ends.
func dotStuff(w *bufio.Writer, message []byte) (octets int64) {
	put := func(b []byte) {
		_, _ = w.Write(b) // sticky: Flush reports it
		octets += int64(len(b))
	}
	end := endOfContent
	if bytes.HasSuffix(message, endOfContent[:2]) {
		end = endOfContent[2:]
	}
	for {
		if len(message) > 0 && message[0] == '.' {
			put(message[:1])
		}
		next := bytes.Index(message, lineThenDot)
		if next < 0 {
			break
		}
		put(message[:next+1])
		message = message[next+1:]
	}
	put(message)
	put(end)
	return octets
}

var (
	lineEnd      = []byte("\r\n")
	lineThenDot  = []byte("\n.")
	endOfContent = []byte("\r\n.\r\n")
)
