package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// sink receives everything as fast as it can, or as slowly as it shall: SMTP with
// PIPELINING, no more. It counts what it takes, and remembers when for recipients that
// somebody waits for.
type sink struct {
	port      int
	latency   time.Duration // of the reply to each mail
	listeners []net.Listener
	hole      *hole
	taken     atomic.Int64
	first     chan time.Time // the next message's time, when armed
	armed     atomic.Bool
	open      atomic.Int64 // connections

	mu   sync.Mutex
	seen map[string]time.Time // by local part, of those not named u…

	replied []atomic.Int64 // when the 250 of u0, u1, … was written, in nanoseconds since 1970; empty unless asked for
}

// hosts is how many addresses the sink listens at, so that ports of one address
// suffice for short connections.
const hosts = 16

// address is where a destination's host is.
func address(destination int) string { return fmt.Sprintf("127.0.1.%d", destination%hosts+1) }

// holeAddress is where dead hosts are: its SYNs get no answer.
const holeAddress = "127.0.2.1"

func newSink(latency time.Duration) (*sink, error) {
	s := &sink{latency: latency, first: make(chan time.Time, 1), seen: map[string]time.Time{}}
	for i := range hosts {
		l, err := net.Listen("tcp", net.JoinHostPort(address(i), fmt.Sprint(s.port)))
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.port = l.Addr().(*net.TCPAddr).Port
		s.listeners = append(s.listeners, l)
		go s.accept(l)
	}
	var err error
	if s.hole, err = newHole(s.port); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *sink) close() error {
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	s.hole.close()
	return errors.Join(errs...)
}

// awaitFirst answers where the time of the next message comes.
func (s *sink) awaitFirst() <-chan time.Time {
	select {
	case <-s.first:
	default:
	}
	s.armed.Store(true)
	return s.first
}

// at is when a recipient's message was taken.
func (s *sink) at(local string) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.seen[local]
	return t, ok
}

func (s *sink) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go s.serve(conn)
	}
}

// dialogue is one connection.
type dialogue struct {
	s     *sink
	in    *bufio.Reader
	out   *bufio.Writer
	local []byte // of the recipient under way
	told  []int  // numbers of those whose 250 is not written yet
}

func (s *sink) serve(conn net.Conn) {
	defer conn.Close()
	s.open.Add(1)
	defer s.open.Add(-1)
	d := dialogue{s: s, in: bufio.NewReaderSize(conn, 4<<10), out: bufio.NewWriterSize(conn, 512)}
	d.say("220 sink ESMTP\r\n")
	for {
		if d.in.Buffered() == 0 && d.flush() != nil {
			return
		}
		line, err := d.in.ReadSlice('\n')
		if err != nil || !d.command(bytes.TrimRight(line, "\r\n")) {
			_ = d.flush()
			return
		}
	}
}

func (d *dialogue) say(text string) { _, _ = d.out.WriteString(text) }

// flush writes what was said, and notes when.
func (d *dialogue) flush() error {
	if len(d.told) > 0 {
		now := time.Now().UnixNano()
		for _, n := range d.told {
			d.s.replied[n].Store(now)
		}
		d.told = d.told[:0]
	}
	return d.out.Flush()
}

// note remembers that a 250 for a recipient of the bulk mail is to be written.
func (d *dialogue) note() {
	if len(d.s.replied) == 0 || len(d.local) < 2 || d.local[0] != 'u' {
		return
	}
	if n, err := strconv.Atoi(string(d.local[1:])); err == nil && n < len(d.s.replied) {
		d.told = append(d.told, n)
	}
}

// command answers one line; false ends the connection.
func (d *dialogue) command(line []byte) bool {
	verb := strings.ToUpper(string(line[:min(4, len(line))]))
	switch verb {
	case "EHLO":
		d.say("250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
	case "RCPT":
		_, to, _ := bytes.Cut(line, []byte{'<'})
		local, _, _ := bytes.Cut(to, []byte{'@'})
		d.local = append(d.local[:0], local...)
		d.say("250 OK\r\n")
	case "DATA":
		d.say("354 go\r\n")
		if d.flush() != nil || !d.data() {
			return false
		}
		time.Sleep(d.s.latency)
		d.say("250 OK\r\n")
		d.note()
	case "QUIT":
		d.say("221 bye\r\n")
		return false
	default:
		d.say("250 OK\r\n")
	}
	return true
}

// data reads up to the lone dot.
func (d *dialogue) data() bool {
	whole := true // the line before was complete
	for {
		line, err := d.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return false
		}
		if whole && (string(line) == ".\r\n") {
			d.s.take(d.local)
			return true
		}
		whole = err == nil
	}
}

func (s *sink) take(local []byte) {
	s.taken.Add(1)
	if s.armed.CompareAndSwap(true, false) {
		s.first <- time.Now()
	}
	if len(local) > 0 && local[0] != 'u' {
		s.mu.Lock()
		s.seen[string(local)] = time.Now()
		s.mu.Unlock()
	}
}

// hole is a port whose queue of connections is full, so that the kernel drops SYNs.
type hole struct {
	fd    int
	conns []int
}

func newHole(port int) (*hole, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	h := &hole{fd: fd}
	at := &syscall.SockaddrInet4{Port: port}
	copy(at.Addr[:], net.ParseIP(holeAddress).To4())
	if err := errors.Join(syscall.Bind(fd, at), syscall.Listen(fd, 0)); err != nil {
		return nil, err
	}
	for range 4 {
		c, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		_ = syscall.Connect(c, at)
		h.conns = append(h.conns, c)
	}
	return h, nil
}

func (h *hole) close() {
	if h == nil {
		return
	}
	for _, c := range append(h.conns, h.fd) {
		_ = syscall.Close(c)
	}
}
