package inbound

import (
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/emersion/go-smtp"

	"github.com/veredus/veredus/mta/returnpath"
)

// session is the SMTP dialogue of one connection. The library calls Data on a goroutine
// of its own when the message comes in chunks (BDAT), and Reset meanwhile.
type session struct {
	server *Server
	line   *line

	mu       sync.Mutex
	envelope envelope
	open     bool // MAIL was taken
	ended    bool // its data came, to the end unless the connection broke
	refused  int  // recipients refused in this session
}

// envelope is that of one message.
type envelope struct {
	sender string // empty for the null reverse-path
	to     []addressee
}

// addressee is a recipient that was taken.
type addressee struct {
	address     string
	unsubscribe bool
}

// maxRefused is how many refused recipients end a session: nobody returns mail to many
// addresses that were never issued, but who guesses them does.
const maxRefused = 20

// newSession is called at the first EHLO, and at the first one within TLS.
func (s *Server) newSession(c *smtp.Conn) (smtp.Session, error) {
	conn := c.Conn()
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	return &session{server: s, line: conn.(*line)}, nil
}

// Refusals. Their texts say what the sender's people need to know.
var (
	errNested      = refusal(503, 5, 5, 1, "A message is under way; send its recipients and data, or RSET")
	errLeaving     = refusal(421, 4, 3, 2, "Closing this connection, try again later")
	errRate        = refusal(450, 4, 7, 1, "Too many messages from your address; try again in a minute")
	errRoom        = refusal(452, 4, 3, 1, "No room for another message now; try again later")
	errRelay       = refusal(550, 5, 7, 1, "Relaying denied: this host takes mail that comes back to it only")
	errUnknown     = refusal(550, 5, 1, 1, "No such address here")
	errForged      = refusal(550, 5, 1, 1, "This address was never issued by this host")
	errGuessing    = refusal(421, 4, 7, 0, "Too many refused recipients")
	errLine        = refusal(554, 5, 6, 0, "The message has a line that is too long")
	errIncomplete  = refusal(451, 4, 4, 2, "The message did not come to its end")
	errUnsettled   = refusal(451, 4, 3, 0, "Cannot process the message now; try again later")
	errNoRecipient = refusal(503, 5, 5, 1, "The message was reset")
)

func refusal(code, class, subject, detail int, text string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{class, subject, detail}, Message: text}
}

// refuse counts a refusal and returns it.
func (s *session) refuse(reason string, err *smtp.SMTPError) error {
	s.server.options.Observe(refused(reason))
	return err
}

// Mail begins a message. Any sender may return mail, and the null one does it most.
func (s *session) Mail(from string, o *smtp.MailOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.line.isLeaving():
		return errLeaving
	case s.open:
		return errNested
	case !s.server.gate.message(s.line.client, s.server.options.Now()):
		return s.refuse(ReasonRate, errRate)
	case !s.server.gate.fits(s.line.client, o.Size):
		return s.refuse(ReasonRoom, errRoom)
	}
	s.open, s.envelope = true, envelope{sender: from}
	return nil
}

// Rcpt takes a recipient that was issued or configured.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line.isLeaving() {
		return errLeaving
	}
	one, reason, err := s.server.addressee(to)
	if err != nil {
		if s.refused++; s.refused >= maxRefused {
			s.line.leave()
			reason, err = ReasonRecipients, errGuessing
		}
		return s.refuse(reason, err)
	}
	for _, known := range s.envelope.to {
		if known == one {
			return nil
		}
	}
	s.envelope.to = append(s.envelope.to, one)
	return nil
}

// addressee decides about a recipient; err is nil for one that is taken.
func (s *Server) addressee(address string) (one addressee, reason string, err *smtp.SMTPError) {
	address = strings.ToLower(address)
	at := strings.LastIndexByte(address, '@')
	local, domain := address[:max(at, 0)], address[at+1:]
	domains := s.options.Domains()
	switch {
	case contains(accepted(s.options.Unsubscribe, domains, "unsubscribe"), address):
		return addressee{address, true}, "", nil
	case contains(accepted(s.options.Addresses, domains, "abuse", "postmaster", "fbl"), address):
		return addressee{address, false}, "", nil
	case !contains(domains, domain):
		return addressee{}, ReasonRelay, errRelay
	}
	switch _, tokenErr := s.options.Tokens.Parse(local); {
	case tokenErr == nil:
		return addressee{address, false}, "", nil
	case errors.Is(tokenErr, returnpath.ErrForged):
		return addressee{}, ReasonForgedToken, errForged
	}
	return addressee{}, ReasonUnknownAddress, errUnknown
}

// accepted is the addresses configured, or the usual ones at each domain.
func accepted(configured func() []string, domains []string, usual ...string) []string {
	if configured != nil {
		if all := configured(); all != nil {
			return all
		}
	}
	all := make([]string, 0, len(usual)*len(domains))
	for _, d := range domains {
		for _, local := range usual {
			all = append(all, local+"@"+d)
		}
	}
	return all
}

// Data reads a message and sees to it. The reply is positive only if whatever follows
// from it is durable.
func (s *session) Data(r io.Reader) error {
	s.server.task(+1)
	defer s.server.task(-1)
	s.line.begin()
	defer s.line.done()
	s.mu.Lock()
	e, open := s.envelope, s.open
	s.ended = open
	s.mu.Unlock()
	if !open || len(e.to) == 0 {
		return errNoRecipient // reset before the first chunk was read
	}
	body := &body{gate: s.server.gate, client: s.line.client, limit: s.server.options.MaxMessageBytes}
	defer body.free()
	if err := body.read(r); err != nil {
		return s.unread(err)
	}
	if s.line.isBroken() { // the library takes the end of a connection in a last chunk for its end
		return s.refuse(ReasonBroken, errIncomplete)
	}
	return s.server.take(s.line, e, body.octets)
}

// unread is the reply to a message that was not read.
func (s *session) unread(err error) error {
	var said *smtp.SMTPError
	switch {
	case errors.Is(err, errNoRoom):
		return s.refuse(ReasonRoom, errRoom)
	case errors.Is(err, smtp.ErrTooLongLine):
		return s.refuse(ReasonLine, errLine)
	case errors.As(err, &said) && said == smtp.ErrDataTooLarge:
		return s.refuse(ReasonSize, said)
	}
	return s.refuse(ReasonBroken, errIncomplete)
}

// Reset forgets the message under way. The library calls it as well behind the data, when
// what was not wanted of them has been read, too.
func (s *session) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		s.line.next()
	}
	s.open, s.ended, s.envelope = false, false, envelope{}
}

// Logout ends the session.
func (s *session) Logout() error { return nil }

// body is the content of a message in memory, within the room that the gate gives.
type body struct {
	gate   *gate
	client *client
	limit  int
	octets []byte
	held   int
}

// errNoRoom: the gate gave no room.
var errNoRoom = errors.New("no room for the message")

// firstRoom is the room a message begins with, in octets: most bounces fit.
const firstRoom = 16 << 10

// read reads r to its end. Room is taken before memory is, by doubling.
func (b *body) read(r io.Reader) error {
	for {
		if len(b.octets) == cap(b.octets) {
			if err := b.grow(); err != nil {
				return err
			}
		}
		n, err := r.Read(b.octets[len(b.octets):cap(b.octets)])
		b.octets = b.octets[:len(b.octets)+n]
		switch {
		case len(b.octets) > b.limit:
			return smtp.ErrDataTooLarge
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func (b *body) grow() error {
	size := min(max(firstRoom, 2*cap(b.octets)), b.limit+1)
	if !b.gate.hold(b.client, size) {
		return errNoRoom
	}
	old := b.held
	b.held += size
	larger := make([]byte, len(b.octets), size)
	copy(larger, b.octets)
	b.octets = larger
	b.gate.release(b.client, old)
	b.held -= old
	return nil
}

func (b *body) free() {
	b.gate.release(b.client, b.held)
	b.held, b.octets = 0, nil
}
