package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/smtp"
	"net/textproto"
	"strings"
	"syscall"
	"time"
)

const (
	// returnDialTimeout and returnTimeout bound reaching the sender and the whole of
	// one transaction with it.
	returnDialTimeout = 10 * time.Second
	returnTimeout     = time.Minute
	// maxReturnReply bounds what is read of the other side's replies.
	maxReturnReply = 64 << 10
)

// refusal is a permanent failure: there is no use in trying again.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }

// Unwrap returns the failure.
func (r *refusal) Unwrap() error { return r.err }

// returnSender is the client side of the world: mail over SMTP, one-click requests
// over HTTP. It reaches this machine only.
type returnSender struct {
	dialer net.Dialer
	web    *http.Client
}

func newReturnSender() returnSender {
	s := returnSender{dialer: net.Dialer{Timeout: returnDialTimeout, Control: onlyLoopback}}
	s.web = &http.Client{
		Timeout: returnTimeout,
		Transport: &http.Transport{
			DialContext: s.dialer.DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: maxReturnReply,
			// Who answers on loopback is this machine; no authority vouches for that.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
		},
		// RFC 8058 section 3.1 wants no redirects.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s
}

// onlyLoopback refuses to connect anywhere else, whatever a name resolved to.
func onlyLoopback(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !ap.Addr().Unmap().IsLoopback() {
		return &refusal{fmt.Errorf("%s is not on this machine", address)}
	}
	return nil
}

// send makes one try. A *refusal is final; any other error is worth another try.
func (s *returnSender) send(ctx context.Context, to string, p *parcel) error {
	ctx, cancel := context.WithTimeout(ctx, returnTimeout)
	defer cancel()
	if p.out.URL != "" {
		return s.click(ctx, p.out.URL)
	}
	err := s.mail(ctx, to, p)
	var answer *textproto.Error
	if errors.As(err, &answer) && answer.Code >= 500 {
		return &refusal{err}
	}
	return err
}

// click makes a one-click request as RFC 8058 section 3.1 says: a POST of the one
// pair, without cookies and without following redirects.
func (s *returnSender) click(ctx context.Context, link string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, link, strings.NewReader("List-Unsubscribe=One-Click"))
	if err != nil {
		return &refusal{err}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := s.web.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.CopyN(io.Discard, resp.Body, maxReturnReply)
	err = fmt.Errorf("one-click request answered with %s", resp.Status)
	switch {
	case resp.StatusCode/100 == 2:
		return nil
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500:
		return err
	}
	return &refusal{err}
}

// capped is a connection of which little is read: replies are short.
type capped struct {
	net.Conn
	in io.Reader
}

func (c capped) Read(p []byte) (int, error) { return c.in.Read(p) }

// mail makes one SMTP transaction.
func (s *returnSender) mail(ctx context.Context, to string, p *parcel) error {
	conn, err := s.dialer.DialContext(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return errors.Join(err, conn.Close())
		}
	}
	c, err := smtp.NewClient(capped{conn, io.LimitReader(conn, maxReturnReply)}, p.host)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer func() { _ = c.Close() }()
	if err := c.Hello(p.host); err != nil {
		return err
	}
	if err := c.Mail(p.out.From); err != nil {
		return err
	}
	if err := c.Rcpt(p.out.To); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(p.out.Content); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_ = c.Quit() // the mail is theirs whatever they say to that
	return nil
}
