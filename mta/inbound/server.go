package inbound

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/veredus/veredus/mta/returnpath"
)

// ServerOptions say what a Server takes and what it does with it. Classifier, Tokens,
// Ledger, Domains and Unprocessed are needed; the limits have defaults.
type ServerOptions struct {
	// Hostname of the greeting; "localhost" by default.
	Hostname string
	// TLS offers STARTTLS; nil for none.
	TLS *tls.Config
	// Domains are the bounce domains, in lower case. All functions here are called for
	// every recipient, so that a reload takes effect at once, and by many goroutines.
	Domains func() []string
	// Addresses are taken beside the tokens issued: full addresses in lower case. Where it
	// is nil or returns nil: abuse, postmaster and fbl at each bounce domain.
	Addresses func() []string
	// Unsubscribe is the same for unsubscribe requests; unsubscribe at each bounce domain.
	Unsubscribe func() []string
	// Tokens check the return paths.
	Tokens *returnpath.Keys
	// Classifier understands the mails.
	Classifier func() *Classifier
	// Ledger is where returns take effect.
	Ledger Ledger
	// Links open sealed unsubscribe tokens; nil where none are made.
	Links Links
	// Unprocessed keeps what a person should look at.
	Unprocessed *Folder
	// MaxMessageBytes is announced and enforced; 10 MiB by default.
	MaxMessageBytes int
	// MaxConnections in all, 200 by default, and of one client address, 20 by default.
	MaxConnections, MaxConnectionsPerClient int
	// MessagesPerMinute of one client address, 3,000 by default; as many may come at once.
	MessagesPerMinute int
	// MaxRecipients of one message; 100 by default (RFC 5321 section 4.5.3.1.8).
	MaxRecipients int
	// MaxBytesInFlight bounds the messages in memory; by default 64 MiB, and at least eight
	// messages of the greatest size. One client gets half of it.
	MaxBytesInFlight int64
	// IdleTimeout is for each read: 5 min by default (RFC 5321 section 4.5.3.2.7).
	// TransactionTimeout is for each message from the reply before it to the end of its
	// data: 10 min. After SessionTimeout, 1 h, no message begins on a connection.
	IdleTimeout, TransactionTimeout, SessionTimeout time.Duration
	// Now stamps returns and notes; time.Now by default.
	Now func() time.Time
	// Log is silent by default.
	Log *slog.Logger
	// Observe is told what happens, from many goroutines; it must not block.
	Observe func(Observation)
}

// Links opens the sealed tokens of unsubscribe links.
type Links interface {
	// Unsubscribe takes whom a token names off the list it names, durably. ok is false
	// for a text that is no token of ours; then nothing happened. Repeats are harmless.
	Unsubscribe(ctx context.Context, token string) (ok bool, err error)
}

// ErrServerClosed is what Serve returns after Close.
var ErrServerClosed = errors.New("inbound server is closed")

// Server is the SMTP listener for mail that comes back. It takes mail for addresses that
// were issued, and a few configured ones; it relays nothing and sends nothing. A mail is
// answered with 250 only after its effect is durable, or a copy of it is.
type Server struct {
	options ServerOptions
	smtp    *smtp.Server
	gate    *gate
	reading chan struct{}   // a slot for each mail that is read at a time
	ctx     context.Context // of what mails cause; ends when Close gives up waiting
	giveUp  context.CancelFunc

	mu        sync.Mutex
	closing   bool
	listeners map[net.Listener]struct{}
	lines     map[*line]struct{}
	tasks     int           // messages being read or processed
	idle      chan struct{} // closed when closing and nothing is left
}

// maxLine is the longest line taken, in octets: commands have 512 and text lines 1,000 (RFC
// 5321 section 4.5.3.1), but mails that return somebody's long lines should not be lost.
const maxLine = 64 << 10

// NewServer checks the options. The error names what is missing.
func NewServer(o ServerOptions) (*Server, error) {
	for _, needed := range []struct {
		name    string
		missing bool
	}{
		{"Domains", o.Domains == nil},
		{"Tokens", o.Tokens == nil},
		{"Classifier", o.Classifier == nil},
		{"Ledger", o.Ledger == nil},
		{"Unprocessed", o.Unprocessed == nil},
	} {
		if needed.missing {
			return nil, fmt.Errorf("inbound server: option %s is missing; give it", needed.name)
		}
	}
	o = o.orDefault()
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		options: o, ctx: ctx, giveUp: cancel,
		gate:      newGate(o.MaxConnections, o.MaxConnectionsPerClient, o.MessagesPerMinute, o.MaxBytesInFlight, max(o.MaxBytesInFlight/2, 2*int64(o.MaxMessageBytes))),
		reading:   make(chan struct{}, runtime.GOMAXPROCS(0)),
		listeners: map[net.Listener]struct{}{}, lines: map[*line]struct{}{}, idle: make(chan struct{}),
	}
	s.smtp = smtp.NewServer(smtp.BackendFunc(s.newSession))
	s.smtp.Domain, s.smtp.TLSConfig, s.smtp.EnableSMTPUTF8 = o.Hostname, o.TLS, true
	s.smtp.MaxMessageBytes, s.smtp.MaxRecipients, s.smtp.MaxLineLength = int64(o.MaxMessageBytes), o.MaxRecipients, maxLine
	s.smtp.ErrorLog = libraryLog{o.Log}
	return s, nil
}

func (o ServerOptions) orDefault() ServerOptions {
	o.MaxMessageBytes = positive(o.MaxMessageBytes, 10<<20)
	o.MaxConnections = positive(o.MaxConnections, 200)
	o.MaxConnectionsPerClient = positive(o.MaxConnectionsPerClient, 20)
	o.MessagesPerMinute = positive(o.MessagesPerMinute, 3000)
	o.MaxRecipients = positive(o.MaxRecipients, 100)
	if o.MaxBytesInFlight <= 0 {
		o.MaxBytesInFlight = max(64<<20, 8*int64(o.MaxMessageBytes))
	}
	for _, t := range []struct {
		value     *time.Duration
		otherwise time.Duration
	}{{&o.IdleTimeout, 5 * time.Minute}, {&o.TransactionTimeout, 10 * time.Minute}, {&o.SessionTimeout, time.Hour}} {
		if *t.value <= 0 {
			*t.value = t.otherwise
		}
	}
	if o.Hostname == "" {
		o.Hostname = "localhost"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Observe == nil {
		o.Observe = func(Observation) {}
	}
	return o
}

// octetsPerMessage is how much a client may send for one message, before it is cut off: far
// more than the greatest message, so that one too large is read to its end and gets its 552
// instead of coming again and again.
func (s *Server) octetsPerMessage() int64 {
	return max(64<<20, 4*int64(s.options.MaxMessageBytes)) + 1<<20
}

// Serve takes connections of l until Close, which closes l, and then returns ErrServerClosed;
// any other error is the listener's. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		_ = l.Close()
		return ErrServerClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	err := s.smtp.Serve(door{l, s})
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	if s.closing {
		return ErrServerClosed
	}
	return err
}

// Close stops listening, ends idle connections with a 421, and waits until the messages under
// way are answered. When ctx ends first, their senders hear nothing and will try again; the
// error is then that of ctx. A second Close waits for the same.
func (s *Server) Close(ctx context.Context) error {
	s.startClosing()
	defer s.giveUp()
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
	}
	s.giveUp()
	for _, l := range s.openLines() {
		_ = l.Conn.Close()
	}
	return fmt.Errorf("inbound server: messages under way were cut off: %w", ctx.Err())
}

func (s *Server) startClosing() {
	s.mu.Lock()
	s.closing = true
	for l := range s.listeners {
		_ = l.Close()
	}
	s.settleClosing()
	s.mu.Unlock()
	for _, l := range s.openLines() {
		l.leave()
	}
}

// settleClosing tells Close when nothing is left. The caller holds mu.
func (s *Server) settleClosing() {
	if !s.closing || len(s.lines) > 0 || s.tasks > 0 {
		return
	}
	select {
	case <-s.idle:
	default:
		close(s.idle)
	}
}

func (s *Server) openLines() []*line {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := make([]*line, 0, len(s.lines))
	for l := range s.lines {
		open = append(open, l)
	}
	return open
}

// task counts a message under way, by +1 or -1.
func (s *Server) task(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tasks += n
	s.settleClosing()
}

// left is told by a line that it was closed.
func (s *Server) left(l *line) {
	s.gate.leave(l.client)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lines, l)
	s.settleClosing()
}

// door admits connections within the limits.
type door struct {
	net.Listener
	server *Server
}

// Accept returns the next connection that there is place for.
func (d door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l := d.server.admit(c); l != nil {
			return l, nil
		}
	}
}

// admit returns nil for a connection that was turned away.
func (s *Server) admit(c net.Conn) *line {
	from, reason := s.gate.enter(c.RemoteAddr(), s.options.Now())
	if from == nil {
		s.options.Observe(refused(reason))
		s.turnAway(c)
		return nil
	}
	l := newLine(c, s, from)
	s.mu.Lock()
	s.lines[l] = struct{}{}
	closing := s.closing
	s.mu.Unlock()
	if closing {
		_ = l.Close()
		return nil
	}
	return l
}

// turnAway says why and closes. One short line fits any buffer, so this does not wait
// for the client; the deadline is for the case that it does.
func (s *Server) turnAway(c net.Conn) {
	_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = fmt.Fprintf(c, "421 4.7.0 %s too many connections, try again later\r\n", s.options.Hostname)
	_ = c.Close()
}

// libraryLog takes what the SMTP library has to say: panics, which it survives, and
// the ends of connections.
type libraryLog struct{ log *slog.Logger }

// Printf logs a line.
func (l libraryLog) Printf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if strings.HasPrefix(text, "panic") {
		l.log.Error("inbound connection failed", "cause", text)
		return
	}
	l.log.Debug("inbound connection ended", "cause", text)
}

// Println logs a line.
func (l libraryLog) Println(v ...any) { l.Printf("%s", fmt.Sprintln(v...)) }
