// Package compose turns what a delivery says into the bytes one recipient gets.
//
// Compile reads the content once: it parses every Liquid template, checks every
// header and lists everything that is wrong. Render then makes one recipient's
// RFC 5322 message, at the moment it is sent and again, byte for byte the same,
// at every later attempt. Content and variables are taken as hostile: whatever
// they hold, a message costs bounded time and memory, no header can be injected,
// lines keep to 998 octets and end in CRLF.
//
// What is the same for every recipient is made once: Compile encodes all text that no
// variable changes into quoted-printable lines and hashes what every body begins with,
// as DKIM signs it. Render fills in what varies, encodes the lines that it stands in, and
// answers header, body and the body's hash. Templates of text and outputs alone are
// rendered without the Liquid library, and of the variables only those that a template
// names are decoded. The result is what the library's rendering of the whole, encoded
// from its beginning, would be.
//
// # Liquid
//
// Templates are Liquid as github.com/osteele/liquid parses and evaluates it,
// with these differences. Values are escaped in HTML parts unless marked with
// the filter raw (or safe). There is no include, no clock and no randomness.
// Maps iterate in the order of their keys. Whole numbers keep all digits. Every
// template, value and loop is subject to the limits below. Where filters of the
// library differ from the Liquid reference (truncatewords, slice, modulo and
// division of negative numbers), the reference holds.
//
// Templates see the recipient's variables, and where those leave the names free:
// recipient.address, the address mailed; unsubscribe_url, the rendered or hosted
// unsubscribe URL (in text and HTML); and the caller's Job.Builtin.
package compose

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of one message. Those that name "work" are in units of about ten
// nanoseconds or one octet held, whichever is scarcer.
const (
	MaxOutput      = 1 << 20  // octets that all templates of a message write together, before MIME encoding
	MaxSteps       = 100_000  // iterations of all loops of a message together
	MaxValue       = 1 << 20  // octets of one value that a variable, capture or filter holds
	MaxWork        = 32 << 20 // units of work of one message: octets through filters and captures, 8 per tag or output in a loop
	MaxTemplate    = 1 << 20  // octets of one template's source
	MaxNesting     = 50       // blocks inside one another
	MaxTags        = 20_000   // tags and outputs in one template
	MaxNames       = 1_000    // different variables that one template reads
	MaxExpression  = 4 << 10  // octets inside one {{ }} or {% %}
	MaxRaw         = 10 << 20 // octets of a complete message given as Raw
	MaxVariables   = 1 << 20  // octets of Job.Variables
	MaxDepth       = 64       // nesting of Job.Variables
	MaxHeaders     = 50       // extra headers
	MaxHeaderValue = 4 << 10  // octets of one rendered header value, before encoding
	maxLine        = 998      // octets of a line without CRLF, RFC 5322 section 2.1.1
	maxMissing     = 100      // names that Rendered.Missing lists
	MaxURL         = 900      // octets of an unsubscribe URL: it cannot be folded
	maxHeaderName  = 76       // octets of an extra header's name
	maxFeedbackID  = 512      // octets
	bulkString     = 4 << 10  // octets from which merely reading a value counts as work
	readCost       = 8        // octets read or copied per unit of work
	itemSize       = 16       // octets a list entry counts beside its text
)

// Source is what a delivery says. Every string marked Liquid is a template.
type Source struct {
	From    Mailbox // the Address is fixed, the Name Liquid
	ReplyTo string  // Liquid, optional: address or Name <address>
	ToName  string  // Liquid, optional: the recipient's display name

	Subject string // Liquid
	Text    string // Liquid; Text or HTML or both
	HTML    string // Liquid, values escaped

	// Raw is a complete RFC 5322 message instead of Subject, Text and HTML. It is
	// not a template. Its body goes out as it is, with line ends made CRLF; of
	// its header, see the package's raw.go for what is kept and what is ours.
	Raw []byte

	Headers []Header // extra headers, in this order
	ListID  string   // optional: the identifier of RFC 2919; without a dot, the From domain is added

	Unsubscribe       Mode   // how a recipient gets off the list
	UnsubscribeURL    string // Liquid, for UnsubscribeOwnURL: an https URL taking the POST of RFC 8058
	UnsubscribeMailto string // Liquid, optional: an address or mailto: URL beside the URL
	FeedbackID        string // optional, fixed: campaign:tenant:class:sender
}

// Mailbox is a display name and an address.
type Mailbox struct {
	Name    string
	Address string
}

// Header is an extra header; Value is Liquid. A header whose value renders to
// nothing is left out.
type Header struct {
	Name  string
	Value string
}

// Mode says who takes unsubscribe requests.
type Mode uint8

const (
	// UnsubscribeNone sends no List-Unsubscribe header (but a mailto one if given).
	UnsubscribeNone Mode = iota
	// UnsubscribeOwnURL points at the sender's own UnsubscribeURL.
	UnsubscribeOwnURL
	// UnsubscribeHosted points at Job.Links: a page of the node that sends, and its mail address.
	UnsubscribeHosted
)

// FieldError is one thing wrong with a Source. Compile joins all it finds with
// errors.Join.
type FieldError struct {
	Field   string // the field of Source in snake case: subject, headers[2].value
	Value   string // the refused value, cut to a printable length
	Problem string // what is wrong with it
	Remedy  string // what to do about it
}

// Error names the field, the value, the problem and the remedy.
func (e *FieldError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("%s: %s; %s", e.Field, e.Problem, e.Remedy)
	}
	return fmt.Sprintf("%s: %q %s; %s", e.Field, e.Value, e.Problem, e.Remedy)
}

func fieldError(field, value, problem, remedy string) *FieldError {
	return &FieldError{Field: field, Value: truncate(value, 100), Problem: problem, Remedy: remedy}
}

// truncate cuts s for an error message.
func truncate(s string, keep int) string {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if len(s) <= keep {
		return s
	}
	for keep > 0 && !utf8.RuneStart(s[keep]) {
		keep--
	}
	return s[:keep] + "..."
}
