package serve

import (
	"net/netip"
	"sync"
	"time"

	"github.com/veredus/veredus/integration/world"
)

// site is one receiver being served: its model and the audit of its stated
// limits, both under one lock, since neither is safe for concurrent use.
type site struct {
	name  string
	index int // in the ledger

	mu    sync.Mutex
	model *world.Model
	audit *world.Audit
	live  map[*conn]struct{}
}

// connect asks the model about a new connection and audits it.
func (s *site) connect(c *conn, now time.Time) (world.Decision, []world.Violation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var d world.Decision
	c.session, d = s.model.Connect(now, c.source, c.host)
	if s.audit.Full(c.source) {
		s.reap()
		if peerGone(c.tcp) {
			return d, nil
		}
	}
	c.audited = true
	s.live[c] = struct{}{}
	return d, s.audit.Open(now, c.source)
}

// reap ends, for the audit, connections whose peer has ended them already. A
// sender may close one connection and open the next before our goroutines have
// seen the first one's end; that is no violation.
func (s *site) reap() {
	for c := range s.live {
		if peerGone(c.tcp) {
			s.release(c)
		}
	}
}

// release ends a connection for the audit.
func (s *site) release(c *conn) {
	if c.audited {
		c.audited = false
		delete(s.live, c)
		s.audit.Close(c.source)
	}
}

// leave ends a connection for audit and model. It may be called again.
func (s *site) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(c)
	c.session.Close()
}

// mail audits a MAIL command and asks the model about it.
func (s *site) mail(c *conn, now time.Time, from string) (world.Decision, []world.Violation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	violations := s.audit.Message(now, c.source, c.mails)
	return c.session.Mail(now, from), violations
}

// ask runs one question to the model under the lock.
func (s *site) ask(question func() world.Decision) world.Decision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return question()
}

// sourceOf is the sender's address of a connection.
func sourceOf(c *conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.tcp.RemoteAddr().String())
	if err != nil {
		return netip.IPv4Unspecified()
	}
	return ap.Addr().Unmap()
}
