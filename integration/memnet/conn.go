// Package memnet is a network in memory for tests: connections that behave like
// TCP, with buffers, deadlines, half-close and reset, and that may live in a
// testing/synctest bubble, where real sockets cannot.
package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Pipe returns the two ends of a buffered in-memory connection that behaves like
// TCP: deadlines, half-close, reset, and writes that block once window octets are
// unread. It can live in a synctest bubble.
func Pipe(window int) (client, server *Conn) {
	up, down := newFlow(window), newFlow(window)
	return &Conn{in: down, out: up, local: "192.0.2.1:4025", remote: "192.0.2.2:25"}, &Conn{in: up, out: down, local: "192.0.2.2:25", remote: "192.0.2.1:4025"}
}

// flow is one direction. The reader's and the writer's deadlines live with it.
type flow struct {
	mu     sync.Mutex
	cond   *sync.Cond
	buf    []byte
	window int

	finished bool // no more will be written
	dead     bool // the reader's end is closed: writes fail
	reset    bool // the reader finds ECONNRESET behind what is buffered

	read, write deadline
}

type deadline struct {
	at    time.Time
	timer *time.Timer
}

func newFlow(window int) *flow {
	f := &flow{window: window}
	f.cond = sync.NewCond(&f.mu)
	return f
}

func (f *flow) set(d *deadline, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at, d.timer = at, nil
	if !at.IsZero() {
		d.timer = time.AfterFunc(time.Until(at), f.wake)
	}
	f.cond.Broadcast()
}

func (f *flow) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cond.Broadcast()
}

func (f *flow) change(with func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	with()
	f.cond.Broadcast()
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// Conn is one end of a Pipe.
type Conn struct {
	in, out *flow
	local   addr
	remote  addr
	linger  bool // SetLinger(0) was called

	mu     sync.Mutex
	closed bool
}

// Read takes what the peer wrote; it blocks until there is something, the end, or the deadline.
func (c *Conn) Read(p []byte) (int, error) {
	f := c.in
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.dead:
			return 0, net.ErrClosed
		case f.read.passed():
			return 0, os.ErrDeadlineExceeded
		case len(f.buf) > 0:
			n := copy(p, f.buf)
			f.buf = f.buf[:copy(f.buf, f.buf[n:])]
			f.cond.Broadcast()
			return n, nil
		case f.reset:
			return 0, syscall.ECONNRESET
		case f.finished:
			return 0, io.EOF
		}
		f.cond.Wait()
	}
}

// Write blocks while the peer's window is full.
func (c *Conn) Write(p []byte) (n int, err error) {
	f := c.out
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		room := f.window - len(f.buf)
		switch {
		case f.finished:
			return n, net.ErrClosed
		case f.dead:
			return n, syscall.EPIPE
		case f.write.passed():
			return n, os.ErrDeadlineExceeded
		case room > 0:
			k := min(room, len(p)-n)
			f.buf = append(f.buf, p[n:n+k]...)
			n += k
			f.cond.Broadcast()
		}
		if n == len(p) {
			return n, nil
		}
		if len(f.buf) == f.window {
			f.cond.Wait()
		}
	}
}

// Close closes both directions, with a reset after SetLinger(0).
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	c.out.change(func() { c.out.finished, c.out.reset = true, c.linger })
	c.in.change(func() { c.in.dead = true })
	c.in.set(&c.in.read, time.Time{})
	c.out.set(&c.out.write, time.Time{})
	return nil
}

// CloseWrite ends this direction only.
func (c *Conn) CloseWrite() error {
	c.out.change(func() { c.out.finished = true })
	return nil
}

// AwaitPeerEnd blocks until the peer writes no more, without reading anything.
func (c *Conn) AwaitPeerEnd() {
	f := c.in
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.finished {
		f.cond.Wait()
	}
}

// SetLinger(0) makes Close a reset.
func (c *Conn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.linger = sec == 0
	return nil
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	c.in.set(&c.in.read, t)
	c.out.set(&c.out.write, t)
	return nil
}

// SetReadDeadline bounds Read.
func (c *Conn) SetReadDeadline(t time.Time) error { c.in.set(&c.in.read, t); return nil }

// SetWriteDeadline bounds Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { c.out.set(&c.out.write, t); return nil }

// LocalAddr is this end's made-up address.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the peer's.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

type addr string

// Network is "mem".
func (addr) Network() string { return "mem" }

// String is the address.
func (a addr) String() string { return string(a) }
