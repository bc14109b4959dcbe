package smtpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// opened is Open's outcome in one line.
func opened(s *Session, err error) string {
	if err != nil {
		return err.Error()
	}
	info := s.Info()
	text := "open"
	if info.TLSVersion != "" {
		text += ", " + info.TLSVersion
	}
	if info.TLSVerified {
		text += " verified"
	}
	if info.Plaintext != "" {
		text += ", plaintext: " + info.Plaintext
	}
	return text + ", " + strings.Join(info.Extensions, "; ")
}

func TestOpen(t *testing.T) {
	tests := []struct {
		name, script string
		want         string
		after        time.Duration
	}{
		{
			name:   "extensions in any case, with and without parameters",
			script: "S: 220 mx\nC: EHLO out.veredus.example\nS: 250-mx at your service\nS: 250-pipelining\nS: 250-Size 1000\nS: 250-\nS: 250 AUTH plain Login\n",
			want:   "open, PIPELINING; SIZE 1000; AUTH plain Login",
		},
		{
			name:   "a greeting of several lines",
			script: "S: 220-mx.example.com\nS: 220-be nice\nS: 220\nC: EHLO out.veredus.example\nS: 250 mx\n",
			want:   "open, ",
		},
		{
			name:   "HELO when EHLO is unknown",
			script: "S: 220 mx\nC: EHLO out.veredus.example\nS: 502 5.5.1 what\nC: HELO out.veredus.example\nS: 250 mx\n",
			want:   "open, ",
		},
		{
			name:   "both refused",
			script: "S: 220 mx\nC: EHLO out.veredus.example\nS: 550 5.7.1 blocked\nC: HELO out.veredus.example\nS: 554 5.7.1 blocked still\nC: QUIT\nS: 221 bye\n",
			want:   "ehlo: 554 5.7.1 blocked still",
		},
		{
			name:   "EHLO refused and hung up",
			script: "S: 220 mx\nC: EHLO out.veredus.example\nS: 550 5.7.1 blocked\nCLOSE\n",
			want:   "ehlo: 550 5.7.1 blocked",
		},
		{
			name:   "EHLO deferred",
			script: "S: 220 mx\nC: EHLO out.veredus.example\nS: 450 4.7.1 later\nC: QUIT\nS: 221 bye\n",
			want:   "ehlo: 450 4.7.1 later",
		},
		{
			name:   "greeted with 554",
			script: "S: 554-5.7.1 no\nS: 554 5.7.1 mail from you\nC: QUIT\nS: 221 bye\n",
			want:   "greeting: 554 5.7.1 no mail from you",
		},
		{
			name:   "greeted with 554, QUIT ignored",
			script: "S: 554 no\nC: QUIT\nSTALL\n",
			want:   "greeting: 554 no",
			after:  5 * time.Second,
		},
		{
			name:   "greeted with 421",
			script: "S: 421 4.7.0 too many connections\nWAIT 1h\n",
			want:   "greeting: 421 4.7.0 too many connections",
		},
		{
			name:   "421 behind the greeting",
			script: "S: 220 mx\nS: 421 4.7.0 too many connections\n",
			want:   "ehlo: 421 4.7.0 too many connections",
		},
		{name: "greeted with 354", script: "S: 354 go\n", want: "greeting: protocol error: greeting with 354"},
		{name: "greeted by something else", script: "S: SSH-2.0-OpenSSH_9.6\n", want: `greeting: protocol error: not an SMTP reply: "SSH-2.0-OpenSSH_9.6"`},
		{name: "EHLO answered 220", script: "S: 220 mx\nC: EHLO out.veredus.example\nS: 220 mx\n", want: "ehlo: protocol error: 220 in answer to EHLO"},
		{name: "the answer before the question", script: "S: 220 mx\nS: 250 mx\n", want: "ehlo: protocol error: 250 before anything was asked"},
		{name: "no greeting", script: "STALL\n", want: "greeting: no reply within 1m0s", after: time.Minute},
		{name: "a trickled greeting", script: "TRICKLE 1s\n", want: "greeting: no reply within 1m0s", after: time.Minute},
		{name: "closed at once", script: "CLOSE\n", want: "greeting: connection closed by the server"},
		{name: "reset at once", script: "RESET\n", want: "greeting: connection reset by peer"},
		{name: "cut greeting", script: "s: 220 mx\nCLOSE\n", want: "greeting: connection closed by the server in the middle of a reply"},
		{name: "EHLO flood", script: "S: 220 mx\nC: EHLO out.veredus.example\n" + `FLOOD 250-X\r\n`, want: "ehlo: protocol error: reply longer than 32768 octets"},
		{name: "silence after EHLO", script: "S: 220 mx\nC: EHLO out.veredus.example\nSTALL\n", want: "ehlo: no reply within 1m0s", after: time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sv := newServer(t, tt.script)
				start := time.Now()
				s, err := Open(t.Context(), sv.dial, testConfig())
				if got := opened(s, err); got != tt.want {
					t.Errorf("\n got %s\nwant %s", got, tt.want)
				}
				if took := time.Since(start); took != tt.after {
					t.Errorf("took %s, want %s", took, tt.after)
				}
				checkOpenError(t, err)
				if s != nil {
					s.Abort()
				}
				sv.wait()
			})
		})
	}
}

func checkOpenError(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var e *Error
	switch {
	case !errors.As(err, &e):
		t.Errorf("%T is no *Error", err)
	case !e.Closed || e.Uncertain:
		t.Errorf("flags: %+v", e)
	case e.Reply.Code == 0 && e.Err == nil:
		t.Errorf("neither reply nor cause: %+v", e)
	case e.Reply.Code == 0 && e.Reply.Text == "":
		t.Errorf("no text: %+v", e)
	}
}

const offered = `
	S: 220 mx.example.com ESMTP
	C: EHLO out.veredus.example
	S: 250-mx.example.com
	S: 250-PIPELINING
	S: 250 starttls
	C: STARTTLS
`

const secured = `
	S: 220 2.0.0 ready
	TLS
	C: EHLO out.veredus.example
	S: 250-mx.example.com
	S: 250 SIZE 1000
`

const unoffered = `
	S: 220 mx.example.com ESMTP
	C: EHLO out.veredus.example
	S: 250 mx.example.com
`

func TestOpenTLS(t *testing.T) {
	tests := []struct {
		name, script string
		require      mxrules.TLS
		change       func(*Config, *server)
		want         string
		tls          string // Error.TLS contains
	}{
		{name: "none does not ask", require: mxrules.TLSNone, script: strings.TrimSuffix(offered, "\tC: STARTTLS\n"), want: "open, PIPELINING; STARTTLS"},
		{name: "opportunistic", require: mxrules.TLSOpportunistic, script: offered + secured, want: "open, TLS 1.3, SIZE 1000"},
		{name: "opportunistic, not offered", require: mxrules.TLSOpportunistic, script: unoffered, want: "open, plaintext: STARTTLS not offered, "},
		{
			name: "opportunistic, refused: goes on here", require: mxrules.TLSOpportunistic,
			script: offered + "S: 454 4.7.0 not now\n" + group0 + "S: 250 ok\nS: 550 no\nS: 503 no\n",
			want:   "open, plaintext: STARTTLS refused: 454 4.7.0 not now, PIPELINING; STARTTLS",
		},
		{
			name: "opportunistic, handshake garbage: once more in plaintext", require: mxrules.TLSOpportunistic,
			script: offered + "S: 220 ready\nTLS-BROKEN\nSTALL\n---\n" + strings.TrimSuffix(offered, "\tC: STARTTLS\n"),
			want:   "open, plaintext: TLS failed: tls: first record does not look like a TLS handshake, PIPELINING; STARTTLS",
		},
		{
			name: "opportunistic, hung up in the handshake, then not there", require: mxrules.TLSOpportunistic,
			script: offered + "S: 220 ready\nWAIT 1s\nCLOSE\n---\nS: 421 busy\n",
			want:   "greeting: 421 busy", tls: "TLS failed",
		},
		{
			name: "opportunistic, silent handshake", require: mxrules.TLSOpportunistic,
			script: offered + "S: 220 ready\nSTALL\n---\n" + unoffered,
			want:   "open, plaintext: TLS failed: no TLS handshake within 1m0s, ",
		},
		{
			name: "opportunistic: bytes before the handshake end it", require: mxrules.TLSOpportunistic,
			script: offered + "S: 220 ready\nS: 250 injected\n",
			want:   "tls: protocol error: 14 octets in plaintext behind the reply to STARTTLS",
		},
		{
			name: "opportunistic: bytes behind a refusal end it", require: mxrules.TLSOpportunistic,
			script: offered + "S: 454 no\nS: 250 injected\n",
			want:   "tls: protocol error: 14 octets in plaintext behind the reply to STARTTLS",
		},
		{
			name: "a word before STARTTLS", require: mxrules.TLSOpportunistic,
			script: strings.Replace(offered, "C: STARTTLS\n", "S: 220 ready\n", 1),
			want:   "tls: protocol error: the server spoke before STARTTLS",
		},
		{name: "opportunistic, 421", require: mxrules.TLSOpportunistic, script: offered + "S: 421 down\n", want: "tls: 421 down"},
		{name: "STARTTLS answered 250", require: mxrules.TLSOpportunistic, script: offered + "S: 250 ok\n", want: "tls: protocol error: 250 in answer to STARTTLS"},
		{name: "an untrusted certificate is enough to encrypt", require: mxrules.TLSEncrypt, script: offered + secured, want: "open, TLS 1.3, SIZE 1000"},
		{
			name: "encrypt, not offered", require: mxrules.TLSEncrypt, script: unoffered + "C: QUIT\nS: 221 bye\n",
			want: "tls: the server does not offer STARTTLS, which is required here", tls: "does not offer",
		},
		{
			name: "encrypt, refused", require: mxrules.TLSEncrypt, script: offered + "S: 454 4.7.0 not now\nC: QUIT\nS: 221 bye\n",
			want: "tls: 454 4.7.0 not now", tls: "454",
		},
		{
			name: "encrypt, broken handshake: no second connection", require: mxrules.TLSEncrypt, script: offered + "S: 220 ready\nTLS-BROKEN\nSTALL\n",
			want: "tls: TLS failed: tls: first record does not look like a TLS handshake", tls: "TLS failed",
		},
		{
			name: "verify", require: mxrules.TLSVerify, script: offered + secured, want: "open, TLS 1.3 verified, SIZE 1000",
			change: func(c *Config, _ *server) { c.TLSConfig = trusted() },
		},
		{
			name: "verify by one of several names", require: mxrules.TLSVerify, script: offered + secured, want: "open, TLS 1.3 verified, SIZE 1000",
			change: func(c *Config, _ *server) {
				c.TLSConfig, c.VerifyNames = trusted(), []string{"other.example", "mx.example.com."}
			},
		},
		{
			name: "verify, wrong name", require: mxrules.TLSVerify, script: offered + "S: 220 ready\nTLS\n",
			change: func(c *Config, _ *server) { c.TLSConfig, c.VerifyNames = trusted(), []string{"other.example"} },
			want:   "tls: TLS failed: x509: certificate is valid for mx.example.com, not other.example", tls: "x509",
		},
		{
			name: "verify, unknown authority", require: mxrules.TLSVerify, script: offered + "S: 220 ready\nTLS\n",
			change: func(c *Config, _ *server) { c.TLSConfig = &tls.Config{RootCAs: x509.NewCertPool()} },
			want:   "tls: TLS failed: x509: certificate signed by unknown authority", tls: "x509",
		},
		{
			name: "TLS 1.1 is too old", require: mxrules.TLSEncrypt, script: offered + "S: 220 ready\nTLS\n",
			change: func(c *Config, sv *server) {
				sv.tls.MinVersion, sv.tls.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
				c.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS10}
			},
			want: "tls: TLS failed: remote error: tls: protocol version not supported", tls: "version",
		},
		{
			name: "TLS 1.2 will do", require: mxrules.TLSEncrypt, script: offered + secured,
			change: func(_ *Config, sv *server) { sv.tls.MaxVersion = tls.VersionTLS12 },
			want:   "open, TLS 1.2, SIZE 1000",
		},
		{
			name: "refused once encrypted", require: mxrules.TLSEncrypt,
			script: offered + "S: 220 ready\nTLS\nC: EHLO out.veredus.example\nS: 421 4.7.0 no\n",
			want:   "ehlo: 421 4.7.0 no",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sv := newServer(t, tt.script)
				cfg := testConfig()
				cfg.TLS = tt.require
				if tt.change != nil {
					tt.change(&cfg, sv)
				}
				s, err := Open(t.Context(), sv.dial, cfg)
				if got := opened(s, err); got != tt.want {
					t.Errorf("\n got %s\nwant %s", got, tt.want)
				}
				checkOpenError(t, err)
				var e *Error
				if errors.As(err, &e) && (!strings.Contains(e.TLS, tt.tls) || (e.TLS == "") != (tt.tls == "")) {
					t.Errorf("Error.TLS %q, want %q in it", e.TLS, tt.tls)
				}
				if s != nil && strings.Contains(tt.script, "MAIL FROM") {
					s.Send(t.Context(), testEnvelope(), []byte(testMessage))
				}
				if s != nil {
					s.Abort()
				}
				sv.wait()
			})
		})
	}
}

// group0 is group for a server without SIZE.
const group0 = `
	C: MAIL FROM:<b-1@bounce.veredus.example>
	C: RCPT TO:<ann@example.com>
	C: DATA
`

func TestSendOverTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv := newServer(t, offered+`
			S: 220 2.0.0 ready
			TLS
			C: EHLO out.veredus.example
			S: 250-mx.example.com
			S: 250 PIPELINING
			`+group0+`
			S: 250 ok
			S: 250 ok
			S: 354 go
			DATA
			S: 250 2.0.0 queued
			WAIT 30s
			`+group0+`
			S: 250 ok
			S: 250 ok
			S: 354 go
			DATA
			S: 421 enough`)
		cfg := testConfig()
		cfg.TLS, cfg.TLSConfig = mxrules.TLSVerify, trusted()
		s := mustOpen(t, sv, cfg)
		body := large()
		if got := s.Send(t.Context(), testEnvelope(), body); describe(got) != "end_of_data: 250 2.0.0 queued [delivered]" {
			t.Errorf("got %s", describe(got))
		}
		if got := s.Send(t.Context(), testEnvelope(), body); describe(got) != "end_of_data: 421 enough [closed]" {
			t.Errorf("got %s", describe(got))
		}
		if heard := sv.wait(); !slices.Equal(heard, []string{string(body), string(body)}) {
			t.Errorf("content changed under way")
		}
	})
}

// Over TLS an early refusal breaks a blocked write of content too.
func TestEarlyReplyOverTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv := newServer(t, offered+`
			S: 220 2.0.0 ready
			TLS
			C: EHLO out.veredus.example
			S: 250-mx.example.com
			S: 250 PIPELINING
			`+group0+`
			S: 250 ok
			S: 250 ok
			S: 354 go
			SWALLOW 70000
			WAIT 30s
			S: 552 5.3.4 too big
			STALL`)
		sv.window = 32 << 10
		cfg := testConfig()
		cfg.TLS = mxrules.TLSEncrypt
		s := mustOpen(t, sv, cfg)
		start := time.Now()
		if got := s.Send(t.Context(), testEnvelope(), large()); describe(got) != "end_of_data: 552 5.3.4 too big [closed]" {
			t.Errorf("got %s", describe(got))
		}
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("took %s", took)
		}
		sv.wait()
	})
}

func TestSessionResumption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hello := offered + secured + "C: QUIT\nS: 221 bye\n"
		sv := newServer(t, hello+"---\n"+hello+"---\n"+offered+"S: 220 ready\nTLS\n")
		base := trusted()
		base.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		cfg := testConfig()
		cfg.TLS, cfg.TLSConfig = mxrules.TLSEncrypt, base
		for _, resumed := range []bool{false, true} {
			s := mustOpen(t, sv, cfg)
			if got := s.Info().TLSResumed; got != resumed {
				t.Errorf("resumed %t, want %t", got, resumed)
			}
			if err := s.Quit(t.Context()); err != nil {
				t.Error(err)
			}
		}
		// A session that was never verified must not be resumed into a verified one.
		cfg.TLS, cfg.VerifyNames = mxrules.TLSVerify, []string{"other.example"}
		if _, err := Open(t.Context(), sv.dial, cfg); !errors.Is(err, ErrTLS) {
			t.Errorf("verified by resumption: %v", err)
		}
		sv.wait()
	})
}

func TestOpenRefusesBadConfig(t *testing.T) {
	tests := []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.LocalName = "" }, "LocalName"},
		{func(c *Config) { c.LocalName = "a b" }, "LocalName"},
		{func(c *Config) { c.LocalName = "a\r\nMAIL FROM:<x@y>" }, "LocalName"},
		{func(c *Config) { c.LocalName = "b\u00fccher.example" }, "LocalName"},
		{func(c *Config) { c.Host, c.TLS = "", mxrules.TLSVerify }, "VerifyNames"},
	}
	for _, tt := range tests {
		cfg := testConfig()
		tt.change(&cfg)
		_, err := Open(t.Context(), func(context.Context) (net.Conn, error) {
			t.Error("dialled")
			return nil, net.ErrClosed
		}, cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %s named", err, tt.want)
		}
	}
}

func TestOpenDialFailures(t *testing.T) {
	hang := func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	tests := []struct {
		name  string
		dial  DialFunc
		want  string
		is    error
		after time.Duration
	}{
		{"refused", func(context.Context) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		}, "connect: connection refused", syscall.ECONNREFUSED, 0},
		{"no answer", hang, "connect: no connection within 10s", os.ErrDeadlineExceeded, 10 * time.Second},
		{"nothing", func(context.Context) (net.Conn, error) { return nil, nil }, "connect: the dialler returned neither connection nor error", nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				_, err := Open(t.Context(), tt.dial, testConfig())
				if err == nil || err.Error() != tt.want || tt.is != nil && !errors.Is(err, tt.is) {
					t.Errorf("got %v, want %s", err, tt.want)
				}
				if took := time.Since(start); took != tt.after {
					t.Errorf("took %s", took)
				}
				checkOpenError(t, err)
			})
		})
	}
}

func TestOpenCancelled(t *testing.T) {
	scripts := map[string]string{
		"greeting":  "STALL",
		"ehlo":      "S: 220 mx\nC: EHLO out.veredus.example\nSTALL",
		"starttls":  offered + "STALL",
		"handshake": offered + "S: 220 ready\nSTALL",
		"tls ehlo":  offered + "S: 220 ready\nTLS\nSTALL",
		"quit":      "S: 554 no\nC: QUIT\nSTALL",
	}
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sv := newServer(t, script)
				cfg := testConfig()
				cfg.TLS = mxrules.TLSOpportunistic
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				start := time.Now()
				_, err := Open(ctx, sv.dial, cfg)
				if name != "quit" && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); took != 3*time.Second {
					t.Errorf("took %s", took)
				}
				checkOpenError(t, err)
				sv.wait()
			})
		})
	}
}

func TestInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv := newServer(t, greeted+group+"S: 250 ok\nS: 550 5.1.1 no\nS: 503 no\n")
		s := mustOpen(t, sv, testConfig())
		s.Send(t.Context(), testEnvelope(), []byte(testMessage))
		info := s.Info()
		if info.RemoteAddr.String() != "192.0.2.2:25" || info.MaxSize != 100000 || info.Messages != 1 ||
			!info.Pipelining || info.Greeting != "mx.example.com ESMTP" || len(info.Extensions) != 3 {
			t.Errorf("%+v", info)
		}
		s.Abort()
		sv.wait()
	})
}
