package compose

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"time"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/mta/address"
)

// Job is one recipient of a delivery. Jobs that are equal but for Buffer
// give identical bytes.
type Job struct {
	To        string         // the envelope recipient, as address.Parse accepts it
	Variables []byte         // a JSON object, or nil
	Builtin   map[string]any // more variables, under the recipient's own: text, numbers, booleans, and slices ([]any) and maps (map[string]any) of them
	MessageID string         // without angle brackets: token@domain
	Date      time.Time      // of the first attempt
	Links     Links          // for a hosted unsubscribe; ignored otherwise
	Buffer    []byte         // memory for Rendered.Bytes to be written over, if it is large enough; may be nil
}

// Links are where one recipient gets off the list, for UnsubscribeHosted. They differ by recipient and
// must be the same at every attempt.
type Links struct {
	// URL takes the POST of RFC 8058: absolute, of at most MaxURL octets. It is https, but for
	// a node that is tried out on loopback; that is for the caller to see to.
	URL string
	// Mailto is a mailto: URL beside it; may be empty.
	Mailto string
}

// Rendered is one message, ready to sign and send.
type Rendered struct {
	Bytes    []byte            // the RFC 5322 message; ends in CRLF
	Header   []byte            // the part of Bytes before the empty line; each field ends in CRLF
	Body     []byte            // the part of Bytes behind the empty line
	BodyHash [sha256.Size]byte // of Body in relaxed canonical form (RFC 6376 section 3.4.4), for dkim.Keyring.SignHeader
	EightBit bool              // the body holds octets above 127: needs 8BITMIME (only with Source.Raw)
	UTF8     bool              // a header holds UTF-8: needs SMTPUTF8 (RFC 6531)
	Subject  string            // decoded, for logs
	Missing  []string          // variables that the content needed and that were not given, in order of use
}

// Render makes one recipient's message. What is wrong with this message alone is
// a *RenderError; if ctx ends first, its error is returned.
func (t *Template) Render(ctx context.Context, job Job) (Rendered, error) {
	if err := ctx.Err(); err != nil {
		return Rendered{}, err
	}
	m := t.idle.Get().(*message)
	m.run.ctx, m.job = ctx, job
	if err := m.prepare(); err != nil {
		return Rendered{}, err
	}
	if err := m.compose(); err != nil {
		return Rendered{}, err
	}
	r := Rendered{
		Bytes:    m.out,
		Header:   m.out[:m.start-len("\r\n")],
		Body:     m.out[m.start:],
		BodyHash: m.sum,
		EightBit: m.eightBit,
		UTF8:     m.utf8,
		Subject:  m.subject,
		Missing:  m.run.missing,
	}
	m.reset()
	return r, nil
}

// message is one rendering under way. One that went well is used again, for the
// memory it holds; of its values nothing is kept.
type message struct {
	t        *Template
	run      *run
	job      Job
	to       address.Address
	address  string     // to, written, if a template may read it
	vars     []variable // what Template.names stand for
	scopes   []scope    // of the fragments
	out      []byte
	start    int // of the body in out
	sum      [sha256.Size]byte
	quoter   quoter
	targets  [2]string // memory for unsubscribe
	subject  string
	eightBit bool
	utf8     bool
}

func newMessage(t *Template) *message {
	return &message{
		t: t, run: &run{}, vars: make([]variable, len(t.names)), scopes: make([]scope, t.scopes), quoter: quoter{hash: dkim.NewBodyHash()},
	}
}

// maxKept is how many octets a message that waits for its next use may hold.
const maxKept = 256 << 10

// reset gives the message back for another recipient.
func (m *message) reset() {
	if cap(m.run.buf)+cap(m.quoter.line) > maxKept {
		return
	}
	*m.run = run{buf: m.run.buf, marks: m.run.marks}
	clear(m.vars)
	for i := range m.scopes {
		clear(m.scopes[i].bindings)
		m.scopes[i].bound = false
	}
	m.job, m.to, m.address, m.targets = Job{}, address.Address{}, "", [2]string{}
	m.out, m.subject, m.eightBit, m.utf8 = nil, "", false, false
	m.t.idle.Put(m)
}

// prepare checks the job and gathers the variables.
func (m *message) prepare() error {
	var err error
	if m.to, err = address.Parse(m.job.To); err != nil {
		return &RenderError{Field: "to", Err: err}
	}
	if !isMessageID(m.job.MessageID) {
		return &RenderError{Field: "message_id", Err: fmt.Errorf("%q is no message identifier; use token@domain", truncate(m.job.MessageID, 100))}
	}
	if year := m.job.Date.Year(); year < 1970 || year > 9999 {
		return &RenderError{Field: "date", Err: fmt.Errorf("the year %d is out of range; use 1970 to 9999", year)}
	}
	if err := m.readVariables(m.job.Variables); err != nil {
		return &RenderError{Field: "variables", Err: err}
	}
	if err := m.builtins(); err != nil {
		return &RenderError{Field: "builtin", Err: err}
	}
	return nil
}

// builtins sets the variables that are there without being given. What the
// caller shares between renderings is copied.
func (m *message) builtins() error {
	if len(m.job.Builtin) == 0 {
		if i, read := m.t.places["recipient"]; read && m.vars[i].kind == absent {
			m.vars[i].kind, m.address = builtinAddress, m.to.String()
		}
		return nil
	}
	recipient := map[string]any{"address": m.to.String()}
	for name, v := range m.job.Builtin {
		v = clone(v, 1)
		if more, ok := v.(map[string]any); ok && name == "recipient" {
			maps.Copy(recipient, more)
			continue
		}
		v, err := m.run.convert(v, nil, name, 1)
		if err != nil {
			return err
		}
		if name != "recipient" {
			m.offer(name, v)
		}
	}
	v, err := m.run.convert(recipient, nil, "recipient", 1)
	m.offer("recipient", v)
	return err
}

// offer sets a variable, unless the recipient has one of that name.
func (m *message) offer(name string, v any) {
	if i, read := m.t.places[name]; read && m.vars[i].kind == absent {
		m.vars[i] = variable{kind: known, value: v}
	}
}

// isMessageID accepts the identifiers we make: a dot-atom, an @, a domain.
func isMessageID(s string) bool {
	left, right, found := strings.Cut(s, "@")
	if !found || left == "" || right == "" || len(s) > 320 {
		return false
	}
	for _, part := range []string{left, right} {
		for i := range len(part) {
			if part[i] != '.' && !isAtext(part[i]) {
				return false
			}
		}
	}
	return true
}

// field renders a header's template as clean text on one line.
func (m *message) field(f *fragment) (string, error) {
	if f == nil {
		return "", nil
	}
	value := f.cleaned
	if f.isLiteral() {
		if err := m.count(f); err != nil {
			return "", err
		}
	} else {
		if err := m.render(f); err != nil {
			return "", err
		}
		value = clean(string(m.run.buf))
	}
	if len(value) > MaxHeaderValue {
		return "", &RenderError{Field: f.field, Err: fmt.Errorf("%w: %d octets are too many for a header (at most %d)", ErrLimit, len(value), MaxHeaderValue)}
	}
	return value, nil
}

// compose renders every part and writes the message.
func (m *message) compose() error {
	unsubscribe, err := m.unsubscribe()
	if err != nil {
		return err
	}
	if m.out = m.job.Buffer[:0]; cap(m.out) < m.t.size {
		m.out = make([]byte, 0, m.t.size)
	}
	if m.t.raw != nil {
		err = m.rawHeader()
	} else {
		err = m.header()
	}
	if err != nil {
		return err
	}
	m.out = append(m.out, "Date: "...)
	m.out = m.job.Date.UTC().AppendFormat(m.out, time.RFC1123Z)
	m.out = append(m.out, "\r\nMessage-ID: <"...)
	m.out = append(m.out, m.job.MessageID...)
	m.out = append(m.out, ">\r\n"...)
	m.list(unsubscribe)
	for i := range m.t.headers {
		if err := m.extra(&m.t.headers[i]); err != nil {
			return err
		}
	}
	return m.body()
}

// extra writes an extra header.
func (m *message) extra(h *header) error {
	if h.fixed != nil {
		m.out = append(m.out, h.fixed...)
		return m.count(h.value)
	}
	value, err := m.field(h.value)
	if err == nil && value != "" {
		m.out = appendField(m.out, h.name, value)
	}
	return err
}

// header writes From, To, Reply-To and Subject.
func (m *message) header() error {
	name, err := m.field(m.t.fromName)
	if err != nil {
		return err
	}
	m.out = m.mailbox("From", name, m.t.from)
	if name, err = m.field(m.t.toName); err != nil {
		return err
	}
	m.out = m.mailbox("To", name, m.to)
	if err := m.replyTo(); err != nil {
		return err
	}
	if m.subject, err = m.field(m.t.subject); err != nil {
		return err
	}
	m.out = appendField(m.out, "Subject", m.subject)
	return nil
}

func (m *message) mailbox(field, name string, a address.Address) []byte {
	m.utf8 = m.utf8 || a.UTF8
	return appendMailbox(m.out, field, name, a)
}

func (m *message) replyTo() error {
	value, err := m.field(m.t.replyTo)
	if err != nil || value == "" {
		return err
	}
	name, a, err := parseMailbox(value)
	if err != nil {
		return &RenderError{Field: "reply_to", Err: err}
	}
	m.out = m.mailbox("Reply-To", name, a)
	return nil
}

// unsubscribe renders the targets of List-Unsubscribe and gives the templates
// of the body the URL.
func (m *message) unsubscribe() (targets []string, err error) {
	if m.t.hosted {
		return m.hosted()
	}
	if m.t.unsubscribe != nil {
		value, err := m.field(m.t.unsubscribe)
		if err != nil {
			return nil, err
		}
		if value, err = httpsURL(value); err != nil {
			return nil, &RenderError{Field: m.t.unsubscribe.field, Err: err}
		}
		targets = append(m.targets[:0], value)
		m.unsubscribeURL(value)
	}
	value, err := m.field(m.t.mailto)
	if err != nil || value == "" {
		return targets, err
	}
	if value, err = mailtoURL(value); err != nil {
		return nil, &RenderError{Field: m.t.mailto.field, Err: err}
	}
	return append(targets, value), nil
}

// hosted takes the job's links as they are. A hosted template without them must not be
// sent: it would promise a way out that is not there.
func (m *message) hosted() (targets []string, err error) {
	const field = "unsubscribe"
	links := m.job.Links
	if links.URL == "" {
		return nil, &RenderError{Field: field, Err: errors.New("is hosted by this node, which has no public listener; set public.listen and public.url")}
	}
	if links.URL, err = hostedURL(links.URL); err != nil {
		return nil, &RenderError{Field: field, Err: err}
	}
	m.unsubscribeURL(links.URL)
	targets = append(m.targets[:0], links.URL)
	if links.Mailto == "" {
		return targets, nil
	}
	if links.Mailto, err = mailtoURL(links.Mailto); err != nil {
		return nil, &RenderError{Field: field, Err: err}
	}
	return append(targets, links.Mailto), nil
}

// unsubscribeURL gives the templates the URL, where the recipient's variables leave the name free.
func (m *message) unsubscribeURL(value string) {
	m.offer("unsubscribe_url", value)
}

// list writes List-Id, List-Unsubscribe (RFC 2369), List-Unsubscribe-Post
// (RFC 8058) and Feedback-ID.
func (m *message) list(unsubscribe []string) {
	if m.t.listID != "" {
		m.out = append(append(append(m.out, "List-Id: <"...), m.t.listID...), ">\r\n"...)
	}
	for i, target := range unsubscribe {
		begin := "List-Unsubscribe: <"
		if i > 0 {
			begin = ",\r\n <"
		}
		m.out = append(append(append(m.out, begin...), target...), '>')
	}
	if len(unsubscribe) > 0 {
		m.out = append(m.out, "\r\n"...)
	}
	if m.t.unsubscribe != nil || m.t.hosted {
		m.out = appendVerbatim(m.out, "List-Unsubscribe-Post", "List-Unsubscribe=One-Click")
	}
	if m.t.feedbackID != "" {
		m.out = appendVerbatim(m.out, "Feedback-ID", m.t.feedbackID)
	}
}

// httpsURL checks a URL and writes what a header's angle brackets cannot hold as
// percent escapes.
func httpsURL(s string) (string, error) { return webURL(s, "https") }

// hostedURL is httpsURL for a link of our own, which may be plain on loopback.
func hostedURL(s string) (string, error) {
	if strings.HasPrefix(s, "http://") {
		return webURL(s, "http")
	}
	return webURL(s, "https")
}

func webURL(s, scheme string) (string, error) {
	if isPlainURL(s, scheme) && len(s) <= MaxURL {
		return s, nil
	}
	s = escapeURL(s)
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", fmt.Errorf("%q is no URL", truncate(s, 200))
	case !strings.EqualFold(u.Scheme, scheme) || u.Host == "" || u.Hostname() == "":
		return "", fmt.Errorf("%q is not an absolute %s URL", truncate(s, 200), scheme)
	case u.User != nil:
		return "", fmt.Errorf("%q holds a user name", truncate(s, 200))
	case len(s) > MaxURL:
		return "", fmt.Errorf("%w: the URL has %d octets (at most %d)", ErrLimit, len(s), MaxURL)
	}
	return s, nil
}

// isPlainURL reports whether s is a URL that nobody has to look at more closely: a host,
// a path, and perhaps a query, of letters, digits and a few marks.
func isPlainURL(s, scheme string) bool {
	const mark = "://"
	if !strings.HasPrefix(s, scheme) || !strings.HasPrefix(s[len(scheme):], mark) {
		return false
	}
	host, path, found := strings.Cut(s[len(scheme)+len(mark):], "/")
	for i := range len(host) {
		if c := host[i]; !isWord(c) && c != '-' && c != '.' || c == '_' {
			return false
		}
	}
	for i := range len(path) {
		if c := path[i]; !isWord(c) && strings.IndexByte("-.~/?=&", c) < 0 {
			return false
		}
	}
	return found && host != ""
}

// mailtoURL makes a mailto: URL of an address or checks one.
func mailtoURL(s string) (string, error) {
	s = strings.TrimSpace(s)
	if len(s) >= 7 && strings.EqualFold(s[:7], "mailto:") {
		s = s[7:]
	}
	addr, query, _ := strings.Cut(s, "?")
	plain, err := url.PathUnescape(addr)
	if err != nil {
		plain = addr
	}
	if _, err := address.Parse(plain); err != nil {
		return "", err
	}
	mark := ""
	if query != "" {
		mark = "?"
	}
	s = "mailto:" + escapeURL(addr) + mark + escapeURL(query)
	if len(s) > MaxURL {
		return "", fmt.Errorf("%w: the URL has %d octets (at most %d)", ErrLimit, len(s), MaxURL)
	}
	return s, nil
}

// urlUnsafe says which octets escapeURL escapes.
var urlUnsafe = func() (set [256]bool) {
	for c := range set {
		set[c] = c <= ' ' || c >= 0x7f || strings.IndexByte("<>\"\\,`{|}^", byte(c)) >= 0
	}
	return set
}()

// escapeURL writes spaces, angle brackets, quotes, commas, backslashes and all
// that is not printable ASCII as percent escapes. A comma would part the list of
// RFC 2369 for careless readers.
func escapeURL(s string) string {
	unsafe := 0
	for i := range len(s) {
		if urlUnsafe[s[i]] {
			unsafe++
		}
	}
	if unsafe == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*unsafe)
	for i := range len(s) {
		if c := s[i]; urlUnsafe[c] {
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}
