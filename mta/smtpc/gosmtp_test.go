package smtpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/veredus/veredus/mxrules"
)

// mailbox is a go-smtp backend that keeps what it takes.
type mailbox struct {
	mu   sync.Mutex
	mail map[string]string // recipient to content
}

func (m *mailbox) NewSession(*smtp.Conn) (smtp.Session, error) { return &visit{box: m}, nil }

type visit struct {
	box *mailbox
	to  string
}

func (v *visit) Reset()                               { v.to = "" }
func (v *visit) Logout() error                        { return nil }
func (v *visit) Mail(string, *smtp.MailOptions) error { return nil }

func (v *visit) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	v.to = to
	return nil
}

func (v *visit) Data(r io.Reader) error {
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if strings.Contains(string(content), "spam") {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "spam"}
	}
	v.box.mu.Lock()
	defer v.box.mu.Unlock()
	v.box.mail[v.to] = string(content)
	return nil
}

// startGoSMTP serves on loopback until the test ends.
func startGoSMTP(t *testing.T, config *tls.Config) (*mailbox, DialFunc) {
	t.Helper()
	box := &mailbox{mail: map[string]string{}}
	srv := smtp.NewServer(box)
	srv.Domain, srv.TLSConfig, srv.MaxMessageBytes = "mx.example.com", config, 1<<20
	srv.ErrorLog = log.New(io.Discard, "", 0)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	t.Cleanup(func() {
		_ = srv.Close()
		if err := <-served; err != nil && !errors.Is(err, smtp.ErrServerClosed) {
			t.Error(err)
		}
	})
	return box, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
	}
}

func TestAgainstGoSMTP(t *testing.T) {
	for _, require := range []mxrules.TLS{mxrules.TLSNone, mxrules.TLSOpportunistic, mxrules.TLSEncrypt, mxrules.TLSVerify} {
		for _, pipelining := range []mxrules.Switch{mxrules.Auto, mxrules.Off} {
			t.Run(fmt.Sprintf("tls %d pipelining off %d", require, pipelining), func(t *testing.T) {
				box, dial := startGoSMTP(t, serverTLS("mx.example.com"))
				cfg := testConfig()
				cfg.TLS, cfg.TLSConfig, cfg.Pipelining = require, trusted(), pipelining
				s, err := Open(t.Context(), dial, cfg)
				if err != nil {
					t.Fatal(err)
				}
				if secured := s.Info().TLSVersion != ""; secured != (require != mxrules.TLSNone) {
					t.Errorf("TLS %q", s.Info().TLSVersion)
				}
				correspond(t, s, box)
				if err := s.Quit(t.Context()); err != nil {
					t.Errorf("Quit: %v", err)
				}
			})
		}
	}
}

// correspond sends good and bad mail in turns and compares with the mailbox.
func correspond(t *testing.T, s *Session, box *mailbox) {
	t.Helper()
	const rounds = 5
	for n := range rounds {
		body := strings.Repeat(fmt.Sprintf(".%d\r\n..\r\n", n), 1+n*5000)
		steps := []struct{ to, body, want string }{
			{"nobody@example.com", body, "rcpt: 550 5.1.1 no such user"},
			{"spam@example.com", "Subject: spam\r\n", "end_of_data: 554 5.7.1 spam"},
			{fmt.Sprintf("user%d@example.com", n), body, "end_of_data: 250 2.0.0 OK: queued [delivered]"},
		}
		for _, st := range steps {
			got := s.Send(t.Context(), Envelope{From: testFrom, To: st.to}, []byte(st.body))
			if describe(got) != st.want {
				t.Errorf("got %s, want %s", describe(got), st.want)
			}
			checkResult(t, got)
		}
		box.mu.Lock()
		if box.mail[fmt.Sprintf("user%d@example.com", n)] != body {
			t.Errorf("message %d changed under way", n)
		}
		box.mu.Unlock()
	}
	if got := s.Info().Messages; got != 3*rounds {
		t.Errorf("%d messages counted", got)
	}
}

// Sessions that run ahead as far as they may, over TLS and TCP, with contents of all
// sizes around those of records and buffers.
func TestManySessionsAgainstGoSMTP(t *testing.T) {
	for _, chunking := range []mxrules.Switch{mxrules.Auto, mxrules.Off} {
		box, dial := startGoSMTP(t, serverTLS("mx.example.com"))
		cfg := testConfig()
		cfg.TLS, cfg.Chunking = mxrules.TLSOpportunistic, chunking
		const sessions, messages = 8, 25
		var running sync.WaitGroup
		for n := range sessions {
			running.Go(func() {
				s, err := Open(t.Context(), dial, cfg)
				if err != nil {
					t.Error(err)
					return
				}
				var mail []*Mail
				for m := range messages {
					mail = append(mail, &Mail{
						Envelope: Envelope{To: fmt.Sprintf("u%d-%d@example.com", n, m)},
						Content:  []byte(testMessage + strings.Repeat(".dotted\r\n", m*100)),
					})
				}
				for _, got := range carryAll(t.Context(), s, mail) {
					if !got.Delivered {
						t.Error(describe(got))
					}
				}
				if err := s.Quit(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		running.Wait()
		if len(box.mail) != sessions*messages {
			t.Errorf("%d messages arrived", len(box.mail))
		}
		for to, content := range box.mail {
			var n, m int
			_, _ = fmt.Sscanf(to, "u%d-%d@", &n, &m) // of our own making
			if content != testMessage+strings.Repeat(".dotted\r\n", m*100) {
				t.Errorf("the message to %s changed under way", to)
			}
		}
	}
}

// A server over its size limit refuses what was announced too small, over real TCP.
func TestSizeAgainstGoSMTP(t *testing.T) {
	_, dial := startGoSMTP(t, nil)
	s, err := Open(t.Context(), dial, testConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Abort()
	got := s.Send(t.Context(), testEnvelope(), []byte(strings.Repeat("x\r\n", 1<<20)))
	if !got.Local || got.Reply.Code != 552 || !got.Usable {
		t.Errorf("got %s", describe(got))
	}
}
