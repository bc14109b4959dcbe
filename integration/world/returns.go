package world

import (
	"errors"
	"fmt"
	"mime"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Return is something that comes back about an accepted message: a bounce mail, a
// complaint, an unsubscribe or an automatic reply. A decision at the end of data
// names it; [Return.Compose] writes it.
type Return struct {
	// Fate is the recipient's and says what comes back.
	Fate Fate
	// Recipient and ReturnPath are those of the envelope; ReturnPath may be empty.
	Recipient, ReturnPath string
	// Host is the mail exchanger that took the message, Source where it came from.
	Host   string
	Source netip.Addr
	// Dialect decides the form.
	Dialect string
	// ID is a queue identifier of the receiver's own.
	ID string
	// Accepted is when the message was accepted.
	Accepted time.Time
}

// Outgoing is what a receiver sends: a mail, or with URL set a one-click request.
type Outgoing struct {
	// From and To are the envelope; From is empty for the null sender.
	From, To string
	// Content is the mail, with CRLF line ends.
	Content []byte
	// URL is where to POST "List-Unsubscribe=One-Click" (RFC 8058 section 3.1).
	URL string
}

// ErrNothing is a Return that nothing can come of: a message without a return
// path, or one that does not say how to unsubscribe.
var ErrNothing = errors.New("there is nothing to send back")

// maxReturnField bounds a header field of the original message as it is used here.
const maxReturnField = 8 << 10

// returns is what comes back about the transaction, accepted now.
func (s *Session) returns(now time.Time) []Return {
	var list []Return
	for _, r := range s.rcpts {
		if !r.fate.Returns() {
			continue
		}
		serial := hashOf(s.m.seed, s.from, r.address, now.UTC().Format(time.RFC3339Nano))
		list = append(list, Return{
			Fate: r.fate, Recipient: r.address, ReturnPath: s.from, Host: s.host, Source: s.source,
			Dialect: s.m.r.Dialect, ID: strings.ToUpper(strconv.FormatUint(serial, 36)), Accepted: now,
		})
	}
	return list
}

// Compose writes what comes back, at now. header is the message's own header, as
// [HeaderBlock] returns it. The same arguments give the same mail. The error is
// [ErrNothing], wrapped with what is missing.
func (r Return) Compose(header []byte, now time.Time) (Outgoing, error) {
	if r.Fate == FateUnsubscribe {
		return r.unsubscribe(header, now)
	}
	if !validMailbox(r.ReturnPath) {
		return Outgoing{}, fmt.Errorf("%w: the return path <%s> is no mailbox", ErrNothing, r.ReturnPath)
	}
	m, loop := r.manner(), "fbl@"+domainOf(r.ReturnPath)
	fill := r.filler(header, now, "{loop}", loop)
	switch r.Fate {
	case FateOOBUnknown, FateOOBFull:
		return Outgoing{To: r.ReturnPath, Content: mailText(fill, m.bounce)}, nil
	case FateComplaint:
		return Outgoing{From: m.complainer, To: loop, Content: mailText(fill, m.complaint)}, nil
	case FateAutoReply:
		return Outgoing{To: r.ReturnPath, Content: mailText(fill, m.reply)}, nil
	}
	return Outgoing{}, fmt.Errorf("%w: nothing follows on %q", ErrNothing, r.Fate)
}

// unsubscribe follows List-Unsubscribe (RFC 2369 section 3.2): by the mail it asks
// for, or by one click (RFC 8058), whichever the provider prefers and the message
// offers. One click goes to loopback only, for all this is on one machine.
func (r Return) unsubscribe(header []byte, now time.Time) (Outgoing, error) {
	mailto, link := unsubscribeTargets(header)
	if link != "" && (mailto == nil || r.manner().oneClick) {
		return Outgoing{URL: link}, nil
	}
	if mailto == nil {
		return Outgoing{}, fmt.Errorf("%w: List-Unsubscribe has neither a mail address nor a one-click link to this machine", ErrNothing)
	}
	fill := r.filler(header, now, "{to}", mailto.address, "{wish}", mailto.subject, "{words}", mailto.body)
	out := Outgoing{To: mailto.address, Content: mailText(fill, unsubscribeMail)}
	if isASCII(r.Recipient) && validMailbox(r.Recipient) {
		out.From = r.Recipient
	}
	return out, nil
}

// mailtoTarget is a mailto URL (RFC 6068).
type mailtoTarget struct{ address, subject, body string }

// unsubscribeTargets reads List-Unsubscribe: the first usable mail address, and the
// first link that one click may go to.
func unsubscribeTargets(header []byte) (mailto *mailtoTarget, link string) {
	oneClick := strings.EqualFold(strings.ReplaceAll(HeaderField(header, "list-unsubscribe-post", maxReturnField), " ", ""), "List-Unsubscribe=One-Click")
	rest := HeaderField(header, "list-unsubscribe", maxReturnField)
	for {
		_, after, open := strings.Cut(rest, "<")
		target, next, closed := strings.Cut(after, ">")
		if !open || !closed {
			return mailto, link
		}
		rest = next
		target = strings.ReplaceAll(target, " ", "") // folded
		u, err := url.Parse(target)
		switch {
		case err != nil:
		case u.Scheme == "mailto" && mailto == nil:
			mailto = readMailto(u)
		case oneClick && link == "" && Loopback(u):
			link = target
		}
	}
}

// Loopback reports whether an http or https URL leads to this machine, by its text
// alone.
func Loopback(u *url.URL) bool {
	if u.Scheme != "https" && u.Scheme != "http" {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// readMailto reads address, subject and body, nil when there is no usable address.
// Unlike in forms, a plus sign means itself (RFC 6068 section 5).
func readMailto(u *url.URL) *mailtoTarget {
	address, err := url.PathUnescape(u.Opaque)
	if err != nil || !validMailbox(address) {
		return nil
	}
	m := &mailtoTarget{address: address, subject: "unsubscribe", body: "unsubscribe"}
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		text, err := url.PathUnescape(value)
		switch {
		case err != nil || text == "":
		case strings.EqualFold(name, "subject"):
			m.subject = headerText(text)
		case strings.EqualFold(name, "body"):
			m.body = text
		}
	}
	return m
}

// validMailbox keeps what cannot stand between angle brackets off the wire.
func validMailbox(address string) bool {
	at := strings.LastIndexByte(address, '@')
	if at < 1 || at == len(address)-1 || len(address) > 320 {
		return false
	}
	return !strings.ContainsFunc(address, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '<' || c == '>' })
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c >= 0x80 })
}

// headerText makes a text fit for a header field of its own.
func headerText(text string) string {
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(text, "?"))
	if !isASCII(text) {
		return mime.QEncoding.Encode("utf-8", text)
	}
	return text
}

// typedRecipient is an address as status fields name it. Other characters than
// ASCII are written as RFC 6533 section 3 asks for where the report is ASCII.
func typedRecipient(address string) string {
	if isASCII(address) {
		return "rfc822; " + address
	}
	var b strings.Builder
	b.WriteString("utf-8; ")
	for _, c := range address {
		if c < 0x80 && c != '\\' {
			b.WriteRune(c)
		} else {
			fmt.Fprintf(&b, `\x{%X}`, c)
		}
	}
	return b.String()
}

// filler fills in the forms of mails: the names in braces.
func (r Return) filler(header []byte, now time.Time, more ...string) *strings.Replacer {
	m := r.manner()
	v := m.unknown
	if r.Fate == FateOOBFull {
		v = m.full
	}
	local := strings.NewReplacer("{rcpt}", r.Recipient, "{host}", r.Host, "{id}", r.ID, "{ip}", r.Source.String())
	field := func(name string) string { return headerText(HeaderField(header, name, maxReturnField)) }
	pairs := []string{
		"{rcpt}", r.Recipient, "{typed}", typedRecipient(r.Recipient), "{domain}", domainOf(r.Recipient),
		"{from}", r.ReturnPath, "{sender-domain}", domainOf(r.ReturnPath),
		"{host}", r.Host, "{ip}", r.Source.String(), "{id}", r.ID,
		"{date}", now.UTC().Format(time.RFC1123Z), "{arrived}", r.Accepted.UTC().Format(time.RFC1123Z),
		"{boundary}", "=_" + r.ID + "/" + strconv.FormatInt(r.Accepted.UnixNano(), 36),
		"{status}", v.status, "{diagnostic}", local.Replace(v.diagnostic), "{response}", v.response(local), "{title}", v.title, "{words}", local.Replace(v.words),
		"{subject}", field("subject"), "{message-id}", field("message-id"), "{author}", field("from"),
		"{header}", strings.TrimRight(string(header), "\r\n"),
	}
	return strings.NewReplacer(append(more, pairs...)...)
}

// response is the diagnostic without its type (RFC 3464 section 2.3.6), unfolded.
func (f finding) response(local *strings.Replacer) string {
	_, text, _ := strings.Cut(local.Replace(f.diagnostic), ";")
	return strings.ReplaceAll(strings.TrimSpace(text), "\n ", "\n")
}

// mailText fills a form and gives it the line ends of the wire.
func mailText(fill *strings.Replacer, form string) []byte {
	text := strings.NewReplacer("\r", "", "\x00", "").Replace(fill.Replace(strings.TrimLeft(form, "\n")))
	return []byte(strings.ReplaceAll(text, "\n", "\r\n"))
}
