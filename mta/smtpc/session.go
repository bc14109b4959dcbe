// Package smtpc is the outbound SMTP session: one TCP connection to one mail
// exchanger, over which many messages go, one recipient each.
//
// Call Open, then Carry (or Send) for each message while Result.Usable, then Quit (or
// Abort). Every reply is kept with the Phase it answered. Where the server pipelines, a
// message on a warm connection costs one round trip; see Grouping. What a caller may
// rely on:
//
//   - A message is Delivered only when the server answered 2xx after the final dot
//     of a transaction whose MAIL, RCPT and DATA it had accepted.
//   - A message that may have been accepted without our knowing is Uncertain; every
//     other failure certainly left nothing at the server.
//   - At most one message has content without a reply, and a message of which only the
//     envelope was said when the connection failed is Lost, and at no server.
//   - Nothing the server sends can hang, crash or bloat the session: each reply has a
//     deadline as a whole, and lines and replies have caps.
//   - No bare CR or LF, and nothing a caller put in an address, leaves as a command.
//
// A Session belongs to one goroutine; only Abort and Done may be called from others.
package smtpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// Defaults of Config. RFC 5321 section 4.5.3.2 asks for 5 minutes on most replies;
// bulk mail gives a slot up sooner, but never the reply to the final dot.
const (
	// DefaultConnectTimeout bounds the TCP handshake.
	DefaultConnectTimeout = 10 * time.Second
	// DefaultCommandTimeout bounds each reply, and the TLS handshake.
	DefaultCommandTimeout = time.Minute
	// DefaultDataTimeout bounds sending one block of content without progress.
	DefaultDataTimeout = 4 * time.Minute
	// DefaultFinalDotTimeout bounds the reply to the final dot (RFC 5321 section 4.5.3.2.6).
	DefaultFinalDotTimeout = 10 * time.Minute
	// DefaultMaxReplyLine caps a reply line in octets with its CRLF; RFC 5321
	// section 4.5.3.1.5 allows 512, receivers are known to write more.
	DefaultMaxReplyLine = 4096
	// DefaultMaxReplyBytes caps a whole reply in octets.
	DefaultMaxReplyBytes = 32 << 10
)

// quitTimeout bounds the wait for QUIT's reply or the peer's FIN. Nothing hangs on
// the answer but the slot the connection occupies.
const quitTimeout = 5 * time.Second

// DialFunc opens the TCP connection. It binds the source address and checks the
// address dialled, and returns when ctx ends. A wrapped connection should forward
// SetLinger(int) error, which Abort uses to reset.
type DialFunc func(ctx context.Context) (net.Conn, error)

// Config is what one session is told. Zero durations and caps are the defaults above.
type Config struct {
	// LocalName is the name said in EHLO and HELO, before and after STARTTLS: a
	// domain or an address literal. Required.
	LocalName string
	// Host is the MX host name, used for SNI, verification and messages.
	Host string
	// TLS is the requirement; see Open.
	TLS mxrules.TLS
	// TLSConfig is the base configuration (roots, session cache, client
	// certificates). It is not changed; nil is an empty one. TLS 1.2 is the minimum
	// whatever it says (RFC 8996).
	TLSConfig *tls.Config
	// VerifyNames are the names of which the certificate must carry one under
	// TLSVerify. Empty means Host.
	VerifyNames []string
	// Pipelining allows RFC 2920 groups when offered, and Across, which needs it, those
	// that begin with another message's content.
	Pipelining, Across mxrules.Switch
	// Chunking allows RFC 3030 BDAT when offered; it goes before Across.
	Chunking mxrules.Switch

	// ConnectTimeout bounds the dial.
	ConnectTimeout time.Duration
	// CommandTimeout bounds each reply as a whole, and the TLS handshake.
	CommandTimeout time.Duration
	// DataTimeout bounds writing one block of content.
	DataTimeout time.Duration
	// FinalDotTimeout bounds the reply to the final dot.
	FinalDotTimeout time.Duration

	// MaxReplyLine and MaxReplyBytes cap one line (with CRLF) and one whole reply,
	// in octets. A reply over a cap ends the session.
	MaxReplyLine  int
	MaxReplyBytes int
}

// withDefaults fills zero values and refuses what could not be said on the wire.
func (c Config) withDefaults() (Config, error) {
	defaultTo(&c.ConnectTimeout, DefaultConnectTimeout)
	defaultTo(&c.CommandTimeout, DefaultCommandTimeout)
	defaultTo(&c.DataTimeout, DefaultDataTimeout)
	defaultTo(&c.FinalDotTimeout, DefaultFinalDotTimeout)
	defaultTo(&c.MaxReplyLine, DefaultMaxReplyLine)
	defaultTo(&c.MaxReplyBytes, DefaultMaxReplyBytes)
	c.Host = strings.TrimSuffix(c.Host, ".")
	if !validLocalName(c.LocalName) {
		return c, fmt.Errorf("LocalName %q cannot be said in EHLO: give a domain name or an address literal of 1 to 255 printable ASCII characters", c.LocalName)
	}
	if c.TLS != mxrules.TLSVerify {
		return c, nil
	}
	if len(c.VerifyNames) == 0 && c.Host != "" {
		c.VerifyNames = []string{c.Host}
	}
	if len(c.VerifyNames) == 0 {
		return c, errors.New("TLS requirement verify without a name: set Host or VerifyNames")
	}
	return c, nil
}

func defaultTo[T time.Duration | int](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

func validLocalName(name string) bool {
	return name != "" && len(name) <= 255 && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' })
}

// Info describes an open session. Strings are empty when not applicable.
type Info struct {
	// RemoteAddr and LocalAddr are the connection's ends.
	RemoteAddr, LocalAddr net.Addr
	// Greeting is the text of the 220 reply.
	Greeting string
	// TLSVersion ("TLS 1.3") and TLSCipher are as crypto/tls names them; empty in plaintext.
	TLSVersion, TLSCipher string
	// TLSVerified says that the certificate was checked against a required name.
	TLSVerified bool
	// TLSResumed says that the handshake resumed an earlier session.
	TLSResumed bool
	// Plaintext is why an opportunistic session has no TLS.
	Plaintext string
	// Extensions are the EHLO lines in force, keyword in upper case, in order.
	Extensions []string
	// Pipelining says whether MAIL, RCPT and DATA go in one write, Across whether that
	// write may be another message's content, Chunking whether content goes by BDAT.
	Pipelining, Across, Chunking bool
	// MaxSize is the announced SIZE limit in octets; 0 when none.
	MaxSize int64
	// Messages counts the MAIL commands written.
	Messages int
}

// Session is one open SMTP connection. See the package comment for its use.
type Session struct {
	cfg Config
	raw net.Conn // the TCP connection, below TLS
	out *sender
	rx  *receiver
	ext extensions

	timer *time.Timer
	// more says that bytes followed the last reply in the same read.
	more bool
	// dirty says that the server holds an open transaction: RSET before MAIL. alone says
	// that a BDAT was refused: nothing may go with that RSET.
	dirty, alone bool
	served       bool // a message was answered, and the connection went on
	ahead        ahead

	binding sync.Mutex
	bound   <-chan struct{} // of the context whose end breaks writes
	unbound func() bool

	info      Info
	lines     []byte // scratch for a group of commands
	closeOnce sync.Once
	gone      chan struct{} // closed with the connection
}

// Info returns what is known of the session now.
func (s *Session) Info() Info {
	info := s.info
	info.Extensions = slices.Clone(info.Extensions)
	return info
}

// Done is closed once the server can say nothing more: it closed the connection,
// said 421, broke the protocol, or the session was closed here. An idle session
// whose Done is closed should be dropped with Abort.
func (s *Session) Done() <-chan struct{} { return s.rx.done }

// Quit says QUIT, waits for its reply or the peer's FIN (at most 5 s, and not after
// ctx ends) and closes. Without either it resets the connection and says why. A
// session that the server has ended is only closed; repeating Quit does nothing.
func (s *Session) Quit(ctx context.Context) error {
	if s.rx.ended() { // also when closed: there is nobody to say it to
		s.close(false)
		return nil
	}
	err := s.quit(ctx)
	if err != nil {
		s.Abort()
		return fmt.Errorf("quit: %w", err)
	}
	s.close(false)
	return nil
}

func (s *Session) quit(ctx context.Context) error {
	s.bind(ctx)
	bound := min(quitTimeout, s.cfg.CommandTimeout)
	deadline := time.Now().Add(bound)
	if _, err := s.out.write([]byte("QUIT\r\n"), bound); err != nil && (ctx.Err() != nil || isTimeout(err)) {
		return causeOf(ctx, err)
	}
	// Replies still owed by a broken-off exchange may come first.
	for {
		got, err := s.await(ctx, time.Until(deadline))
		switch {
		case err == nil && got.code/100 == 2, isHangUp(err):
			return nil
		case err != nil:
			return err
		}
	}
}

// Abort resets the connection now (SO_LINGER 0 where possible), also under a running
// Send or Quit of another goroutine, which then fails. Safe to repeat.
func (s *Session) Abort() { s.close(true) }

// close ends the connection once and waits for the receiver, which the closing
// unblocks. It closes below TLS: a close_notify could block on a stuck peer.
func (s *Session) close(reset bool) {
	s.closeOnce.Do(func() {
		if l, ok := s.raw.(interface{ SetLinger(int) error }); ok && reset {
			_ = l.SetLinger(0) // without it the close below is orderly, which is good enough
		}
		close(s.gone)
		s.unbind()
		_ = s.raw.Close() // nothing is left to lose on this connection
	})
	<-s.rx.done
}

// Messages counts the MAIL commands written.
func (s *Session) Messages() int { return s.info.Messages }

func (s *Session) closed() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// bind makes the end of ctx break every write from now on. Once is enough for all
// calls with one context; the session's end undoes it.
func (s *Session) bind(ctx context.Context) {
	s.binding.Lock()
	defer s.binding.Unlock()
	done := ctx.Done()
	if s.bound == done || s.closed() {
		return
	}
	s.release()
	if s.bound = done; done != nil {
		s.unbound = context.AfterFunc(ctx, s.out.cancel)
	}
}

// unbind ends that; it reports whether ctx had ended.
func (s *Session) unbind() (ended bool) {
	s.binding.Lock()
	defer s.binding.Unlock()
	return s.release()
}

// release is unbind under binding.
func (s *Session) release() (ended bool) {
	if s.unbound != nil {
		ended = !s.unbound()
	}
	s.bound, s.unbound = nil, nil
	return ended
}

// await returns the next reply. It waits for a whole reply at most timeout, so a
// server that trickles bytes gains nothing. A reply already here wins over the end
// of ctx.
func (s *Session) await(ctx context.Context, timeout time.Duration) (incoming, error) {
	got, _, err := s.awaitOr(ctx, timeout, nil)
	return got, err
}

// awaitOr also returns when other is signalled and no reply is here.
func (s *Session) awaitOr(ctx context.Context, timeout time.Duration, other <-chan struct{}) (got incoming, woken bool, err error) {
	select {
	case got := <-s.rx.replies:
		got, err = s.received(got)
		return got, false, err
	default:
	}
	s.timer.Reset(timeout)
	defer s.timer.Stop()
	select {
	case got := <-s.rx.replies:
		got, err = s.received(got)
		return got, false, err
	case <-other:
		return incoming{}, true, nil
	case <-s.timer.C:
		err = &timeoutError{what: "no reply", after: timeout}
	case <-ctx.Done():
		err = cancelError(ctx)
	case <-s.rx.done:
		err = ErrClosed
	}
	select {
	case got := <-s.rx.replies:
		got, err = s.received(got)
		return got, false, err
	default:
		return incoming{}, false, err
	}
}

func (s *Session) received(got incoming) (incoming, error) {
	s.rx.taken++
	s.more = got.more
	return got, got.err
}

// pending reports that the server said something while nothing was asked.
func (s *Session) pending() bool { return s.more || len(s.rx.replies) > 0 || s.rx.ended() }
