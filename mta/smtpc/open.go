package smtpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// Open dials, reads the greeting, says EHLO (HELO when EHLO gets a 5xx) and secures
// the connection as cfg.TLS demands:
//
//   - TLSNone never says STARTTLS.
//   - TLSOpportunistic says it when offered. A refusal continues in plaintext on the
//     same connection; a failed handshake closes it and dials once more, in plaintext.
//   - TLSEncrypt fails without TLS; the certificate is not checked.
//   - TLSVerify also checks the certificate's chain and names.
//
// Bytes that arrive between STARTTLS's reply and the handshake end the connection,
// whatever the requirement: someone put them there before encryption began.
//
// The error is an *Error; the connection is closed by then. Open blocks at most for
// the timeouts of cfg and returns soon after ctx ends.
func Open(ctx context.Context, dial DialFunc, cfg Config) (*Session, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, &Error{Reply: Reply{Text: err.Error()}, Closed: true, Err: err}
	}
	s, failure := open(ctx, dial, cfg)
	if failure != nil && failure.handshake && cfg.TLS == mxrules.TLSOpportunistic && ctx.Err() == nil {
		cfg.TLS = mxrules.TLSNone
		why := failure.TLS
		if s, failure = open(ctx, dial, cfg); failure == nil {
			s.info.Plaintext = why
		} else {
			failure.TLS = why
		}
	}
	if failure != nil {
		return nil, failure
	}
	return s, nil
}

func open(ctx context.Context, dial DialFunc, cfg Config) (*Session, *Error) {
	conn, err := connect(ctx, dial, cfg.ConnectTimeout)
	if err != nil {
		return nil, &Error{Reply: Reply{Phase: PhaseConnect, Text: causeText(err)}, Closed: true, Err: err}
	}
	s := newSession(conn, cfg)
	s.bind(ctx)
	failure := s.establish(ctx)
	ended := s.unbind()
	if failure != nil {
		return nil, failure
	}
	if ended {
		return nil, s.broken(PhaseEHLO, cancelError(ctx))
	}
	return s, nil
}

func connect(ctx context.Context, dial DialFunc, timeout time.Duration) (net.Conn, error) {
	limited, cancel := context.WithTimeoutCause(ctx, timeout, &timeoutError{what: "no connection", after: timeout})
	defer cancel()
	conn, err := dial(limited)
	if err == nil && conn == nil {
		return nil, errors.New("the dialler returned neither connection nor error")
	}
	if err != nil && limited.Err() != nil {
		return nil, context.Cause(limited)
	}
	return conn, err
}

func newSession(conn net.Conn, cfg Config) *Session {
	s := &Session{
		cfg:   cfg,
		raw:   conn,
		out:   &sender{raw: conn, w: conn},
		timer: time.NewTimer(cfg.CommandTimeout),
		gone:  make(chan struct{}),
	}
	s.timer.Stop()
	s.info.RemoteAddr, s.info.LocalAddr = conn.RemoteAddr(), conn.LocalAddr()
	s.listen(newReplyParser(conn, cfg.MaxReplyLine, cfg.MaxReplyBytes))
	return s
}

func (s *Session) listen(p replyParser) {
	s.rx = newReceiver(p)
	go s.rx.run(s.gone, s.out)
}

// establish takes a fresh connection to the point where MAIL may be said.
func (s *Session) establish(ctx context.Context) *Error {
	got, err := s.await(ctx, s.cfg.CommandTimeout)
	switch {
	case err != nil:
		return s.broken(PhaseGreeting, err)
	case got.code/100 == 3:
		return s.broken(PhaseGreeting, protocolErrorf("greeting with %d", got.code))
	case got.code/100 != 2:
		return s.refused(ctx, got.in(PhaseGreeting))
	}
	s.info.Greeting = got.in(PhaseGreeting).Text
	if failure := s.hello(ctx); failure != nil {
		return failure
	}
	if failure := s.secure(ctx); failure != nil {
		return failure
	}
	s.info.Pipelining = s.ext.pipelining && s.cfg.Pipelining == mxrules.Auto
	s.info.Across = s.info.Pipelining && s.cfg.Across == mxrules.Auto
	s.info.Chunking = s.ext.chunking && s.cfg.Chunking == mxrules.Auto
	return nil
}

// hello says EHLO, and HELO to a server that knows no EHLO (RFC 5321 section 3.2).
func (s *Session) hello(ctx context.Context) *Error {
	s.ext = extensions{}
	s.info.Extensions, s.info.MaxSize = nil, 0
	ehlo, err := s.ask(ctx, "EHLO "+s.cfg.LocalName)
	if err != nil {
		return s.broken(PhaseEHLO, err)
	}
	if ehlo.code == 250 {
		s.ext = parseExtensions(ehlo.text)
		s.info.Extensions, s.info.MaxSize = s.ext.lines, s.ext.maxSize
		return nil
	}
	if ehlo.code/100 != 5 {
		return s.unwelcome(ctx, ehlo)
	}
	helo, err := s.ask(ctx, "HELO "+s.cfg.LocalName)
	switch {
	case err != nil && ctx.Err() == nil && isHangUp(err):
		return s.refused(ctx, ehlo.in(PhaseEHLO)) // the refusal says more than the hang-up behind it
	case err != nil:
		return s.broken(PhaseEHLO, err)
	case helo.code != 250:
		return s.unwelcome(ctx, helo)
	}
	return nil
}

// unwelcome fails on an EHLO or HELO reply other than 250.
func (s *Session) unwelcome(ctx context.Context, got incoming) *Error {
	if got.code < 400 {
		return s.broken(PhaseEHLO, protocolErrorf("%d in answer to EHLO", got.code))
	}
	return s.refused(ctx, got.in(PhaseEHLO))
}

// secure meets the TLS requirement.
func (s *Session) secure(ctx context.Context) *Error {
	opportunistic := s.cfg.TLS == mxrules.TLSOpportunistic
	switch {
	case s.cfg.TLS == mxrules.TLSNone:
		return nil
	case !s.ext.startTLS && opportunistic:
		s.info.Plaintext = "STARTTLS not offered"
		return nil
	case !s.ext.startTLS:
		return s.withoutTLS(ctx, Reply{Phase: PhaseTLS, Text: "the server does not offer STARTTLS, which is required here"})
	}
	reply, failure := s.sayStartTLS(ctx)
	if failure != nil {
		return failure
	}
	if reply.Code != 220 && opportunistic {
		s.info.Plaintext = "STARTTLS refused: " + reply.String()
		s.listen(s.rx.parser)
		return nil
	}
	if reply.Code != 220 {
		s.listen(s.rx.parser)
		return s.withoutTLS(ctx, reply)
	}
	if failure := s.handshake(ctx); failure != nil {
		return failure
	}
	return s.hello(ctx) // RFC 3207 section 4.2: what was known before is void
}

// sayStartTLS says STARTTLS and returns its reply, 220 or a refusal other than 421,
// with the receiver at rest and nothing buffered.
func (s *Session) sayStartTLS(ctx context.Context) (Reply, *Error) {
	if s.pending() {
		return Reply{}, s.broken(PhaseTLS, protocolErrorf("the server spoke before STARTTLS"))
	}
	s.rx.pauseAt.Store(s.rx.taken + 1)
	got, err := s.ask(ctx, "STARTTLS")
	if err != nil {
		return Reply{}, s.broken(PhaseTLS, err)
	}
	reply := got.in(PhaseTLS)
	if got.code == 421 {
		return reply, s.refused(ctx, reply)
	}
	if err := s.rest(ctx); err != nil {
		return reply, s.broken(PhaseTLS, err)
	}
	if n := s.rx.parser.buffered(); n > 0 || len(s.rx.replies) > 0 {
		return reply, s.broken(PhaseTLS, protocolErrorf("%d octets in plaintext behind the reply to STARTTLS", n))
	}
	if got.code != 220 && got.code < 400 {
		return reply, s.broken(PhaseTLS, protocolErrorf("%d in answer to STARTTLS", got.code))
	}
	return reply, nil
}

// rest waits for the paused receiver to stop. It stops at once, unless a stray reply
// was taken for STARTTLS's.
func (s *Session) rest(ctx context.Context) error {
	s.timer.Reset(s.cfg.CommandTimeout)
	defer s.timer.Stop()
	select {
	case <-s.rx.done:
		return nil
	case <-s.timer.C:
		return protocolErrorf("a reply came before STARTTLS and none after it")
	case <-ctx.Done():
		return cancelError(ctx)
	}
}

// handshake runs TLS over the connection and restarts the receiver on it.
func (s *Session) handshake(ctx context.Context) *Error {
	limited, cancel := context.WithTimeoutCause(ctx, s.cfg.CommandTimeout,
		&timeoutError{what: "no TLS handshake", after: s.cfg.CommandTimeout})
	defer cancel()
	conn := tls.Client(s.raw, tlsConfig(s.cfg))
	if err := conn.HandshakeContext(limited); err != nil {
		if limited.Err() != nil {
			err = context.Cause(limited)
		}
		failure := s.broken(PhaseTLS, fmt.Errorf("%w: %w", ErrTLS, err))
		failure.Reply.Text = ErrTLS.Error() + ": " + causeText(err)
		failure.TLS = failure.Reply.Text
		failure.handshake = ctx.Err() == nil
		return failure
	}
	state := conn.ConnectionState()
	s.info.TLSVersion = tls.VersionName(state.Version)
	s.info.TLSCipher = tls.CipherSuiteName(state.CipherSuite)
	s.info.TLSResumed = state.DidResume
	s.info.TLSVerified = s.cfg.TLS == mxrules.TLSVerify
	s.out.w = conn
	s.listen(newReplyParser(conn, s.cfg.MaxReplyLine, s.cfg.MaxReplyBytes))
	return nil
}

// tlsConfig derives the handshake's configuration. Verification is ours in every
// mode, as crypto/tls can check one name only and shares resumed sessions between modes.
func tlsConfig(cfg Config) *tls.Config {
	config := &tls.Config{}
	if cfg.TLSConfig != nil {
		config = cfg.TLSConfig.Clone()
	}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	if config.MaxVersion != 0 {
		config.MaxVersion = max(config.MaxVersion, config.MinVersion)
	}
	config.ServerName = cfg.Host
	config.InsecureSkipVerify = true
	config.DynamicRecordSizingDisabled = true // a message is one record and one write
	if cfg.TLS != mxrules.TLSVerify {
		return config
	}
	also := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if err := verifyPeer(state, config, cfg.VerifyNames); err != nil || also == nil {
			return err
		}
		return also(state)
	}
	return config
}

// verifyPeer checks the chain and that the leaf carries one of names (RFC 6125).
func verifyPeer(state tls.ConnectionState, config *tls.Config, names []string) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server showed no certificate")
	}
	opts := x509.VerifyOptions{Roots: config.RootCAs, Intermediates: x509.NewCertPool()}
	if config.Time != nil {
		opts.CurrentTime = config.Time()
	}
	for _, c := range state.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	leaf := state.PeerCertificates[0]
	if _, err := leaf.Verify(opts); err != nil {
		return err
	}
	var err error
	for _, name := range names {
		if err = leaf.VerifyHostname(strings.TrimSuffix(name, ".")); err == nil {
			return nil
		}
	}
	return err
}

// ask writes one command and returns its reply. A reply that is there before the
// question answers it when it refuses, and breaks the protocol when it does not.
func (s *Session) ask(ctx context.Context, command string) (incoming, error) {
	if s.pending() {
		got, err := s.await(ctx, s.cfg.CommandTimeout)
		if err == nil && got.code < 400 {
			err = protocolErrorf("%d before anything was asked", got.code)
		}
		return got, err
	}
	s.lines = append(append(s.lines[:0], command...), "\r\n"...)
	if _, err := s.out.write(s.lines, s.cfg.CommandTimeout); err != nil {
		return s.lastWords(ctx, err)
	}
	return s.await(ctx, s.cfg.CommandTimeout)
}

// lastWordsTimeout bounds the search for a reply behind a write that failed: the
// line is down, so what the server said is here or about to be.
const lastWordsTimeout = time.Second

// lastWords returns what the server said when a write failed, as servers that close
// on someone usually say why; failing that, why the write failed.
func (s *Session) lastWords(ctx context.Context, cause error) (incoming, error) {
	wait := lastWordsTimeout
	if isTimeout(cause) || ctx.Err() != nil {
		wait = 0
	}
	got, err := s.await(ctx, wait)
	if err == nil || isHangUp(err) && !errors.Is(err, ErrClosed) || errors.Is(err, ErrProtocol) {
		return got, err
	}
	return got, causeOf(ctx, cause)
}

// refused fails with a reply, and leaves politely where the server still listens.
func (s *Session) refused(ctx context.Context, reply Reply) *Error {
	s.leave(ctx, reply)
	return &Error{Reply: reply, Closed: true}
}

// withoutTLS fails because the server denied TLS.
func (s *Session) withoutTLS(ctx context.Context, reply Reply) *Error {
	s.leave(ctx, reply)
	return &Error{Reply: reply, Closed: true, TLS: reply.String(), Err: ErrTLS}
}

func (s *Session) leave(ctx context.Context, reply Reply) {
	if reply.Code == 421 {
		s.close(false)
		return
	}
	_ = s.Quit(ctx) // the refusal is the news, not how the parting went
}

// broken fails without a reply and resets the connection.
func (s *Session) broken(phase Phase, err error) *Error {
	s.Abort()
	return &Error{Reply: Reply{Phase: phase, Text: causeText(err)}, Closed: true, Err: err}
}

// extensions are what an EHLO reply offers.
type extensions struct {
	lines                          []string
	startTLS, pipelining, chunking bool
	eightBit, utf8, size           bool
	maxSize                        int64
}

// maxExtensions caps the lines kept; the registry holds fewer than fifty.
const maxExtensions = 100

// parseExtensions reads the lines behind the first (RFC 5321 section 4.1.1.1).
// Keywords count in any case; unknown ones and bad parameters are ignored.
func parseExtensions(text string) extensions {
	var ext extensions
	_, rest, _ := strings.Cut(text, "\n")
	for line := range strings.SplitSeq(rest, "\n") {
		keyword, params, _ := strings.Cut(strings.TrimSpace(line), " ")
		keyword, params = strings.ToUpper(keyword), strings.TrimSpace(params)
		if keyword == "" || len(ext.lines) == maxExtensions {
			continue
		}
		ext.lines = append(ext.lines, strings.TrimSpace(keyword+" "+params))
		ext.set(keyword, params)
	}
	return ext
}

func (ext *extensions) set(keyword, params string) {
	switch keyword {
	case "STARTTLS":
		ext.startTLS = true
	case "PIPELINING":
		ext.pipelining = true
	case "CHUNKING":
		ext.chunking = true
	case "8BITMIME":
		ext.eightBit = true
	case "SMTPUTF8":
		ext.utf8 = true
	case "SIZE":
		ext.size = true
		if n, err := strconv.ParseInt(params, 10, 64); err == nil && n > 0 {
			ext.maxSize = n // 0 or absent: no fixed limit (RFC 1870 section 3)
		}
	}
}
