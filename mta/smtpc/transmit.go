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
	cut       bool
}

// cancel breaks this write and all later ones.
func (o *sender) cancel() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cancelled = true
	_ = o.raw.SetWriteDeadline(past) // fails only on a closed connection, whose writes fail too
}

// early breaks content off when a reply waits; outside content it does nothing.
// While content is on nobody takes replies, so one that waits came after the 354.
// That is looked up under mu: the receiver may get here long after the 354 it
// delivered was taken and content begun.
func (o *sender) early(replies <-chan incoming) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.content && len(replies) > 0 {
		o.cut = true
		_ = o.raw.SetWriteDeadline(past) // as in cancel
	}
}

// setContent opens or ends the time in which early breaks writes.
func (o *sender) setContent(on bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cut && !o.cancelled {
		_ = o.raw.SetWriteDeadline(time.Time{}) // as in disarm
	}
	o.content, o.cut = on, false
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

// writeContent writes message dot-stuffed and the final dot. whole says that the
// connection took every octet: from then on the server may have the message. When
// it did not take the last one, the server cannot have seen the final dot.
func (s *Session) writeContent(message []byte) (sent int64, whole bool, err error) {
	s.out.setContent(true)
	defer s.out.setContent(false)
	if s.pending() {
		return 0, false, errEarly
	}
	dst := contentWriter{out: s.out, timeout: s.cfg.DataTimeout}
	w := buffers.Get().(*bufio.Writer)
	w.Reset(&dst)
	given := dotStuff(w, message)
	err = w.Flush()
	w.Reset(nil)
	buffers.Put(w)
	return dst.sent, dst.sent == given, err
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
	lineThenDot  = []byte("\n.")
	endOfContent = []byte("\r\n.\r\n")
)
