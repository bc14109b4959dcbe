package inbound

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"time"
)

// errTooMuch ends a client that sends more than any message may have.
var errTooMuch = errors.New("the client sent more octets than a message may have")

// line is a client's connection. It keeps time: each read within the idle time,
// each message within the transaction time, and no new message after the session
// time, so that a client which sends an octet a minute ends. The library's own
// deadlines are per command, and begin anew with every one.
type line struct {
	net.Conn
	server *Server
	client *client

	mu      sync.Mutex
	last    time.Time // no message begins after that
	due     time.Time // of the message under way, or else of the next
	octets  int64     // read since the last message
	busy    bool      // a message's data is being read or processed
	leaving bool      // to be ended as soon as it is not busy
	broken  bool      // a read failed: nothing complete comes any more
	closed  bool
}

func newLine(c net.Conn, s *Server, from *client) *line {
	now := time.Now()
	return &line{Conn: c, server: s, client: from, last: now.Add(s.options.SessionTimeout), due: now.Add(s.options.TransactionTimeout)}
}

// past is a deadline that ends a read at once.
var past = time.Unix(1, 0)

// Read reads within the limits of time and octets.
func (l *line) Read(b []byte) (int, error) {
	if err := l.setReadDeadline(); err != nil {
		return 0, err
	}
	n, err := l.Conn.Read(b)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.octets += int64(n)
	if err == nil && l.octets > l.server.octetsPerMessage() {
		err = errTooMuch
	}
	l.broken = l.broken || err != nil
	return n, err
}

func (l *line) setReadDeadline() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	by := time.Now().Add(l.server.options.IdleTimeout)
	if l.due.Before(by) {
		by = l.due
	}
	if l.leaving && !l.busy {
		by = past
	}
	return l.Conn.SetReadDeadline(by)
}

// Write writes within the time a reply may take to be read (RFC 5321 section
// 4.5.3.2 gives the client's side). A client that does not read is cut off, for
// the library would go on serving it.
func (l *line) Write(b []byte) (int, error) {
	if err := l.Conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	if bytes.HasPrefix(b, sizeRefused) {
		l.server.options.Observe(refused(ReasonSize))
	}
	n, err := l.Conn.Write(b)
	if err != nil {
		_ = l.Close()
	}
	return n, err
}

// sizeRefused begins the library's own reply to a MAIL whose SIZE is too large (RFC 1870
// section 6.1), of which no session hears.
var sizeRefused = []byte("552 5.3.4 Max message size exceeded")

// writeTimeout is how long a reply may take.
const writeTimeout = time.Minute

// SetReadDeadline does nothing: Read sets its own.
func (l *line) SetReadDeadline(time.Time) error { return nil }

// SetDeadline does nothing: Read and Write set their own.
func (l *line) SetDeadline(time.Time) error { return nil }

// begin marks that a message's data is being read or processed; done, that this is over.
func (l *line) begin() { l.setBusy(true) }

func (l *line) done() { l.setBusy(false) }

func (l *line) setBusy(busy bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = busy
}

// next gives the next message its own time and octets, if it may come at all.
func (l *line) next() {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return
	}
	l.octets, l.due = 0, now.Add(l.server.options.TransactionTimeout)
	l.leaving = l.leaving || now.After(l.last)
}

// isBroken reports whether the connection failed or ended on the client's side.
func (l *line) isBroken() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// isLeaving reports whether no message may begin any more.
func (l *line) isLeaving() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leaving
}

// leave ends the connection, with a reply that says so, once no message is under way.
func (l *line) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaving = true
	if !l.busy {
		_ = l.Conn.SetReadDeadline(past)
	}
}

// Close closes the connection and gives its place back.
func (l *line) Close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	err := l.Conn.Close()
	if first {
		l.server.left(l)
	}
	return err
}
