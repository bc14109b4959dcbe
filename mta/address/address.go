// Package address holds the grammar of the mail addresses Veredus sends to and
// from: what RFC 5321 section 4.1.2 allows in MAIL and RCPT, with the
// internationalised local parts of RFC 6531 and domain names as A-labels
// (RFC 5890). Call Parse on everything that came from outside; an Address that
// Parse returned can be written into an SMTP command or a header as it is.
package address

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Limits of RFC 5321 section 4.5.3.1 and RFC 1035 section 2.3.4, in octets.
const (
	MaxLocal  = 64  // local part, as written on the wire (UTF-8 and quotes counted)
	MaxDomain = 253 // domain name without the root's dot
	MaxLabel  = 63  // one label of it
)

// maxInput bounds what Parse looks at: a U-label may be longer than its
// A-label, but never by more than this leaves room for.
const maxInput = MaxLocal + 1 + 4*MaxDomain

// Address is one mailbox. The zero value is no address.
type Address struct {
	// Local is the part before the @, exactly as it goes on the wire: a
	// dot-atom, or a quoted-string with its quotes.
	Local string
	// Domain is the part after the @: lower case, A-labels, no final dot.
	Domain string
	// UTF8 tells that Local is not ASCII: the mail needs SMTPUTF8 (RFC 6531).
	UTF8 bool
}

// String returns the address as it stands in an SMTP path without its angle
// brackets. Parse(a.String()) gives a again.
func (a Address) String() string { return a.Local + "@" + a.Domain }

// Folded returns the key under which two spellings of one mailbox compare
// equal: the whole address in lower case. RFC 5321 section 2.4 lets a host
// distinguish case in local parts; none worth mailing does.
func (a Address) Folded() string { return strings.ToLower(a.Local) + "@" + a.Domain }

// IsZero reports whether a is the zero Address.
func (a Address) IsZero() bool { return a.Local == "" && a.Domain == "" }

// Error says why a value is not an address that can be mailed.
type Error struct {
	Value   string // the refused value, cut to a printable length
	Problem string // what is wrong with it
	Remedy  string // what to do about it
}

// Error names the field, the value, the problem and the remedy.
func (e *Error) Error() string {
	return fmt.Sprintf("address %q: %s; %s", e.Value, e.Problem, e.Remedy)
}

func refuse(value, problem, remedy string) (Address, error) {
	return Address{}, &Error{Value: truncate(value), Problem: problem, Remedy: remedy}
}

func truncate(s string) string {
	const keep = 100
	if len(s) <= keep {
		return s
	}
	return strings.ToValidUTF8(s[:keep], "") + "..."
}

// Parse reads one address of the form local@domain. It accepts dot-atom and
// quoted-string local parts and internationalised domains, which it turns into
// A-labels. It refuses what RFC 5321 does not allow and, beyond that: spaces and
// angle brackets even inside quotes, address literals, domains without a dot,
// with a final dot or with an all-numeric last label, and local parts not in
// normalisation form C. The error is an *Error.
func Parse(s string) (Address, error) {
	switch {
	case s == "":
		return refuse(s, "is empty", "give an address such as name@example.com")
	case len(s) > maxInput:
		return refuse(s, fmt.Sprintf("is %d octets long", len(s)), "a local part has at most 64 octets and a domain 253")
	case !utf8.ValidString(s):
		return refuse(s, "is not valid UTF-8", "send the address in UTF-8")
	}
	if r, bad := forbidden(s); bad {
		return refuse(s, fmt.Sprintf("contains the character %U", r), "remove spaces, angle brackets and control characters; a display name belongs in its own field")
	}
	at, problem := splitAt(s)
	if problem != "" {
		return refuse(s, problem, "write it as local@domain with exactly one @ outside quotes")
	}
	local, domain := s[:at], s[at+1:]
	if problem := checkLocal(local); problem != "" {
		return refuse(s, problem, "correct the part before the @ (RFC 5321 section 4.1.2)")
	}
	ascii, problem, remedy := parseDomain(domain)
	if problem != "" {
		return refuse(s, problem, remedy)
	}
	return Address{Local: local, Domain: ascii, UTF8: !isASCII(local)}, nil
}

// forbidden finds a character no envelope address may hold in any position.
func forbidden(s string) (rune, bool) {
	for _, r := range s {
		switch {
		case r <= ' ', r == 0x7f, r == '<', r == '>':
			return r, true
		case r >= 0x80 && (unicode.IsControl(r) || unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError):
			return r, true
		}
	}
	return 0, false
}

// splitAt returns the index of the @ between local part and domain.
func splitAt(s string) (at int, problem string) {
	if s[0] == '"' {
		end := quotedEnd(s)
		if end < 0 || end+1 >= len(s) || s[end+1] != '@' {
			return 0, "has a quoted local part that does not end in \"@"
		}
		at = end + 1
	} else {
		at = strings.IndexByte(s, '@')
	}
	switch {
	case at < 0:
		return 0, "has no @"
	case at == 0:
		return 0, "has nothing before the @"
	case at == len(s)-1:
		return 0, "has nothing after the @"
	case strings.IndexByte(s[at+1:], '@') >= 0:
		return 0, "has more than one @"
	}
	return at, ""
}

// quotedEnd returns the index of the closing quote of s, which begins with one.
func quotedEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

func checkLocal(local string) (problem string) {
	if len(local) > MaxLocal {
		return fmt.Sprintf("has a local part of %d octets, above 64", len(local))
	}
	if !isASCII(local) && !norm.NFC.IsNormalString(local) {
		return "has a local part that is not in Unicode normalisation form C"
	}
	if local[0] == '"' {
		return "" // splitAt saw it closed, forbidden saw its characters
	}
	if local[0] == '.' || local[len(local)-1] == '.' || strings.Contains(local, "..") {
		return "has a dot at the edge of the local part or two in a row"
	}
	for i := range len(local) {
		if c := local[i]; c != '.' && c < 0x80 && !isAtext(c) {
			return fmt.Sprintf("has the character %q in an unquoted local part", c)
		}
	}
	return ""
}

// isAtext is RFC 5322 section 3.2.3.
func isAtext(c byte) bool {
	return isLDH(c) || strings.IndexByte("!#$%&'*+/=?^_`{|}~", c) >= 0
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
