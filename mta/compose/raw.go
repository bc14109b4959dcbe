package compose

import (
	"bytes"
	"fmt"
	"mime"
	"net/mail"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/veredus/veredus/mta/address"
)

// A complete message given as Source.Raw is kept with these exceptions.
//
//   - Line ends become CRLF. Lines above 998 octets, NUL, and the transfer
//     encoding binary are refused.
//   - Date and Message-ID are ours: the message is new for every recipient, and
//     the identifier carries the token that ties bounces to it.
//   - Bcc, Return-Path, Received and other trace fields, authentication results
//     and signatures are removed: what they say is not true of the new message,
//     or nobody's business.
//   - To is kept if it names the recipient, otherwise replaced by the recipient.
//   - List-Id, List-Unsubscribe, List-Unsubscribe-Post, Feedback-ID, Reply-To and
//     extra headers given in the Source replace those of the same name.
//   - From and Subject stay. There must be exactly one From with one address; if
//     Source.From has an address it must be the same.

type rawMessage struct {
	fields   []rawField
	body     []byte
	subject  string
	to       []string // folded addresses of To
	eightBit bool
	utf8     bool
}

type rawField struct {
	name string // lower case
	text []byte // the whole field with its final CRLF
}

// removed are the fields a raw message loses, beside those that Source replaces.
var removed = []string{
	"bcc", "resent-bcc", "date", "message-id", "return-path", "received", "delivered-to", "x-original-to", "envelope-to",
	"dkim-signature", "domainkey-signature", "authentication-results", "received-spf",
	"arc-seal", "arc-message-signature", "arc-authentication-results",
}

// single are the fields that RFC 5322 section 3.6 and RFC 2045 allow once.
var single = []string{"from", "to", "cc", "reply-to", "subject", "sender", "mime-version", "content-type", "content-transfer-encoding"}

func (c *compiler) raw(src Source) (*rawMessage, address.Address) {
	problems := len(c.problems)
	for field, given := range map[string]string{"subject": src.Subject, "text": src.Text, "html": src.HTML, "from.name": src.From.Name} {
		if given != "" {
			c.refuse(field, given, "is given beside raw", "give either a complete message or its parts")
		}
	}
	slices.SortFunc(c.problems[problems:], func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if len(src.Raw) > MaxRaw {
		c.refuse("raw", "", fmt.Sprintf("is %d octets long", len(src.Raw)), fmt.Sprintf("shorten it to %d", MaxRaw))
		return nil, address.Address{}
	}
	data := normalise(src.Raw)
	if problem := checkLines(data); problem != "" {
		c.refuse("raw", "", problem, "encode the part as quoted-printable or base64")
		return nil, address.Address{}
	}
	m, err := splitRaw(data)
	if err != nil {
		c.refuse("raw", "", err.Error(), "begin with header fields, then an empty line, then the body")
		return nil, address.Address{}
	}
	from := c.rawFrom(m, src.From.Address)
	c.rawFields(m)
	m.drop(src)
	m.read()
	return m, from
}

// normalise makes every CR, LF and CRLF a CRLF, and ends the text with one.
func normalise(data []byte) []byte {
	out := make([]byte, 0, len(data)+len(data)/32+2)
	for i := 0; i < len(data); i++ {
		switch c := data[i]; c {
		case '\r':
			if i+1 < len(data) && data[i+1] == '\n' {
				i++
			}
			out = append(out, "\r\n"...)
		case '\n':
			out = append(out, "\r\n"...)
		default:
			out = append(out, c)
		}
	}
	if !bytes.HasSuffix(out, []byte("\r\n")) {
		out = append(out, "\r\n"...)
	}
	return out
}

func checkLines(data []byte) (problem string) {
	n := 0
	for line := range bytes.SplitSeq(data, []byte("\r\n")) {
		if n++; len(line) > maxLine {
			return fmt.Sprintf("has a line of %d octets, above 998 (line %d)", len(line), n)
		}
	}
	if bytes.IndexByte(data, 0) >= 0 {
		return "holds a NUL octet"
	}
	return ""
}

func splitRaw(data []byte) (*rawMessage, error) {
	m := &rawMessage{}
	for len(data) > 0 {
		if bytes.HasPrefix(data, []byte("\r\n")) {
			data = data[2:]
			break
		}
		end := fieldEnd(data)
		line, _, _ := bytes.Cut(data, []byte("\r\n"))
		name, _, found := strings.Cut(string(line), ":")
		name = strings.TrimRight(name, " \t")
		if !found || !isFieldName(name) {
			return nil, fmt.Errorf("has the header line %q, which is no field", truncate(string(line), 60))
		}
		m.fields = append(m.fields, rawField{strings.ToLower(name), withoutBlankLines(data[:end])})
		data = data[end:]
	}
	m.body = data
	if len(m.body) == 0 {
		m.body = []byte("\r\n")
	}
	return m, nil
}

// withoutBlankLines drops continuation lines of nothing but white space, which
// some receivers take for the end of the header.
func withoutBlankLines(field []byte) []byte {
	var kept []byte
	for line := range bytes.SplitAfterSeq(field, []byte("\r\n")) {
		if len(bytes.Trim(line, " \t\r\n")) > 0 || kept == nil {
			kept = append(kept, line...)
		}
	}
	return kept
}

// fieldEnd returns the length of the field at the start of data with the lines
// that continue it.
func fieldEnd(data []byte) int {
	for i := 0; ; {
		n := bytes.Index(data[i:], []byte("\r\n"))
		if n < 0 {
			return len(data)
		}
		if i += n + 2; i >= len(data) || data[i] != ' ' && data[i] != '\t' {
			return i
		}
	}
}

// value returns the unfolded value of the first field of that name.
func (m *rawMessage) value(name string) (string, bool) {
	for _, f := range m.fields {
		if f.name == name {
			_, value, _ := strings.Cut(string(f.text), ":")
			return strings.TrimSpace(strings.ReplaceAll(value, "\r\n", "")), true
		}
	}
	return "", false
}

func (c *compiler) rawFrom(m *rawMessage, given string) address.Address {
	value, found := m.value("from")
	if !found {
		c.refuse("raw", "", "has no From field", "add one")
		return address.Address{}
	}
	list, err := mail.ParseAddressList(value)
	if err != nil || len(list) != 1 {
		c.refuse("raw", value, "is not a From field with one address", "write From: Name <address>")
		return address.Address{}
	}
	from, err := address.Parse(list[0].Address)
	if err != nil {
		c.badAddress("raw", err)
		return from
	}
	if given == "" {
		return from
	}
	a, err := address.Parse(given)
	c.badAddress("from.address", err)
	if err == nil && a.Folded() != from.Folded() {
		c.refuse("from.address", given, fmt.Sprintf("differs from the raw message's From %q", from), "make them equal or leave it out")
	}
	return from
}

func (c *compiler) rawFields(m *rawMessage) {
	count := map[string]int{}
	for _, f := range m.fields {
		if !utf8.Valid(f.text) {
			c.refuse("raw", f.name, "is a header field that is not UTF-8", "encode it as RFC 2047 says")
		}
		if bytes.IndexFunc(f.text, func(r rune) bool { return r < ' ' && r != '\t' && r != '\r' && r != '\n' || r == 0x7f }) >= 0 {
			c.refuse("raw", f.name, "is a header field with a control character", "remove it")
		}
		if count[f.name]++; count[f.name] == 2 && slices.Contains(single, f.name) {
			c.refuse("raw", f.name, "occurs more than once", "keep one")
		}
	}
	if subject, _ := m.value("subject"); subject == "" {
		c.refuse("raw", "", "has no Subject", "add one")
	}
	if encoding, _ := m.value("content-transfer-encoding"); strings.EqualFold(encoding, "binary") {
		c.refuse("raw", encoding, "is a transfer encoding that mail cannot carry", "use quoted-printable or base64")
	}
}

// drop removes the fields that are ours.
func (m *rawMessage) drop(src Source) {
	gone := slices.Clone(removed)
	unsubscribe := src.UnsubscribeURL != "" || src.UnsubscribeMailto != "" || src.Unsubscribe == UnsubscribeHosted
	for name, given := range map[string]bool{
		"list-id": src.ListID != "", "feedback-id": src.FeedbackID != "", "reply-to": src.ReplyTo != "",
		"list-unsubscribe":      unsubscribe,
		"list-unsubscribe-post": unsubscribe,
	} {
		if given {
			gone = append(gone, name)
		}
	}
	for _, h := range src.Headers {
		gone = append(gone, strings.ToLower(h.Name))
	}
	m.fields = slices.DeleteFunc(m.fields, func(f rawField) bool { return slices.Contains(gone, f.name) })
}

// read takes from the message what every rendering needs of it.
func (m *rawMessage) read() {
	subject, _ := m.value("subject")
	m.subject = subject
	if decoded, err := new(mime.WordDecoder).DecodeHeader(subject); err == nil {
		m.subject = decoded
	}
	m.subject = clean(m.subject)
	if to, found := m.value("to"); found {
		list, err := mail.ParseAddressList(to)
		for i := 0; err == nil && i < len(list); i++ {
			if a, err := address.Parse(list[i].Address); err == nil {
				m.to = append(m.to, a.Folded())
			}
		}
	}
	m.eightBit = !isASCII(m.body)
	for _, f := range m.fields {
		m.utf8 = m.utf8 || !isASCII(f.text)
	}
}

func isASCII(b []byte) bool {
	return bytes.IndexFunc(b, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

// rawHeader writes the fields that are kept, and To if it is ours.
func (m *message) rawHeader() error {
	raw := m.t.raw
	keep := slices.Contains(raw.to, m.to.Folded())
	for _, f := range raw.fields {
		if keep || f.name != "to" {
			m.out = append(m.out, f.text...)
		}
	}
	m.subject, m.eightBit, m.utf8 = raw.subject, raw.eightBit, raw.utf8
	if !keep {
		name, err := m.field(m.t.toName)
		if err != nil {
			return err
		}
		m.out = m.mailbox("To", name, m.to)
	}
	return m.replyTo()
}
