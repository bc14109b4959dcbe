package inbound

import (
	"bytes"
	"strings"
)

// Limits bound what Parse looks at. A zero field means its default. What lies
// beyond is left out and named in Mail.Limited; it is never an error, since the
// part of a bounce that matters stands at its beginning.
type Limits struct {
	// Bytes of the mail considered; 4 MiB by default.
	Bytes int
	// Depth of nested parts and attached messages; 10 by default.
	Depth int
	// Parts in all; 100 by default.
	Parts int
	// Fields of one header; 1,000 by default.
	Fields int
	// Text of one part after decoding, in bytes; 256 KiB by default.
	Text int
}

func (l Limits) orDefault() Limits {
	return Limits{
		Bytes: positive(l.Bytes, 4<<20), Depth: positive(l.Depth, 10), Parts: positive(l.Parts, 100),
		Fields: positive(l.Fields, 1000), Text: positive(l.Text, 256<<10),
	}
}

func positive(n, otherwise int) int {
	if n > 0 {
		return n
	}
	return otherwise
}

// Limit is a bound that a mail went beyond.
type Limit string

// The bounds of Limits.
const (
	LimitBytes  Limit = "bytes"
	LimitDepth  Limit = "depth"
	LimitParts  Limit = "parts"
	LimitFields Limit = "fields"
	LimitText   Limit = "text"
)

// Mail is a parsed mail. Its parts are read; nothing in it refers to the bytes
// given to Parse.
type Mail struct {
	// Root is the mail itself as a part.
	Root *Part
	// Limited names each bound the mail went beyond, in the order met.
	Limited []Limit
	// Malformed names what was broken and read all the same, such as a multipart
	// without a boundary; at most one entry of a kind.
	Malformed []string
}

// Part is a mail, an attached message or one part of a multipart.
type Part struct {
	// Header is the part's own header; an attached message's stands in its only child.
	Header Header
	// Type is the media type in lower case, "text/plain" when absent or broken.
	Type string
	// Params are the parameters of Content-Type, names in lower case.
	Params map[string]string
	// Text is the decoded text of a leaf that carries text, with LF line ends.
	Text string
	// Parts are the children: of a multipart, or the one message of a message/rfc822.
	Parts []*Part
}

// Message reports whether the part encloses a message or its header
// (RFC 2046 section 5.2.1, RFC 6532 section 3.7, RFC 3462 section 2).
func (p *Part) Message() bool {
	switch p.Type {
	case "message/rfc822", "message/global", "text/rfc822-headers", "text/rfc822-header", "message/rfc822-headers",
		"message/global-headers", "message/partial", "text/rfc822", "message/news":
		return true
	}
	return false
}

// Parse reads a mail as it came, with CRLF or LF line ends. It takes any bytes:
// what is broken is read as far as it makes sense. Time and memory are linear in
// the bytes considered.
func Parse(raw []byte, limits Limits) *Mail {
	r := &reader{limits: limits.orDefault(), mail: &Mail{}}
	if len(raw) > r.limits.Bytes {
		raw = raw[:r.limits.Bytes]
		r.limited(LimitBytes)
	}
	r.mail.Root = r.message(unixLines(raw), 1)
	return r.mail
}

// unixLines returns a copy with LF line ends and without a mailbox's From_ line.
func unixLines(raw []byte) []byte {
	raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
	out := make([]byte, 0, len(raw))
	for i, c := range raw {
		switch {
		case c == '\r' && i+1 < len(raw) && raw[i+1] == '\n':
		case c == '\r':
			out = append(out, '\n')
		default:
			out = append(out, c)
		}
	}
	out = bytes.TrimLeft(out, "\n")
	if bytes.HasPrefix(out, []byte("From ")) || bytes.HasPrefix(out, []byte(">From ")) {
		if end := bytes.IndexByte(out, '\n'); end >= 0 {
			out = out[end+1:]
		}
	}
	return out
}

// reader is one pass over a mail.
type reader struct {
	limits Limits
	mail   *Mail
	parts  int
}

func (r *reader) limited(l Limit) {
	for _, known := range r.mail.Limited {
		if known == l {
			return
		}
	}
	r.mail.Limited = append(r.mail.Limited, l)
}

func (r *reader) malformed(what string) {
	for _, known := range r.mail.Malformed {
		if known == what {
			return
		}
	}
	r.mail.Malformed = append(r.mail.Malformed, what)
}

// message reads a header and what follows it.
func (r *reader) message(raw []byte, depth int) *Part {
	r.parts++
	header, body := readHeader(raw, r.limits.Fields)
	if header.cut {
		r.limited(LimitFields)
	}
	p := &Part{Header: header}
	p.Type, p.Params = contentType(header.Get("Content-Type"))
	if p.Type == "" {
		p.Type = "text/plain"
	}
	r.body(p, body, depth)
	return p
}

// body fills a part from its bytes, by its type.
func (r *reader) body(p *Part, body []byte, depth int) {
	switch {
	case strings.HasPrefix(p.Type, "multipart/"):
		r.multipart(p, body, depth)
	case p.Message():
		if depth >= r.limits.Depth || r.parts >= r.limits.Parts {
			r.limited(LimitDepth)
			return
		}
		p.Parts = []*Part{r.message(bytes.TrimLeft(r.transfer(p, body), "\n"), depth+1)}
	case textual(p.Type):
		p.Text = r.text(p, body)
	}
}

// textual reports whether a leaf is worth reading.
func textual(kind string) bool {
	return strings.HasPrefix(kind, "text/") || strings.HasPrefix(kind, "message/") || kind == "application/json"
}

// multipart splits a body at its boundary (RFC 2046 section 5.1). Without a
// boundary parameter the first line that looks like one is taken; a multipart
// without any boundary is read as text.
func (r *reader) multipart(p *Part, body []byte, depth int) {
	boundary := p.Params["boundary"]
	if boundary == "" || !hasBoundary(body, boundary) {
		guessed := guessBoundary(body)
		r.malformed("boundary")
		if guessed == "" {
			p.Type, p.Text = "text/plain", r.text(p, body)
			return
		}
		boundary = guessed
	}
	if depth >= r.limits.Depth {
		r.limited(LimitDepth)
		return
	}
	for _, raw := range r.split(body, boundary) {
		p.Parts = append(p.Parts, r.message(raw, depth+1))
	}
}

// split returns the bodies between boundary lines, at most as many as the limit
// on parts still allows. What precedes the first boundary is dropped.
func (r *reader) split(body []byte, boundary string) [][]byte {
	delimiter := []byte("--" + boundary)
	var parts [][]byte
	start := -1
	for at := 0; at < len(body); {
		line, next := lineAt(body, at)
		kind := boundaryKind(line, delimiter)
		if kind == 0 {
			at = next
			continue
		}
		if start >= 0 {
			parts = append(parts, body[start:at])
		}
		start = next
		if kind == closing {
			start = -1
			break
		}
		if r.parts+len(parts) >= r.limits.Parts {
			r.limited(LimitParts)
			return parts
		}
		at = next
	}
	if start >= 0 && start < len(body) {
		parts = append(parts, body[start:])
		r.malformed("unterminated")
	}
	return parts
}

// The kinds of boundary lines.
const (
	opening = 1 + iota
	closing
)

func boundaryKind(line, delimiter []byte) int {
	if !bytes.HasPrefix(line, delimiter) {
		return 0
	}
	switch rest := bytes.TrimRight(line[len(delimiter):], " \t"); string(rest) {
	case "":
		return opening
	case "--":
		return closing
	}
	return 0
}

func hasBoundary(body []byte, boundary string) bool {
	delimiter := []byte("--" + boundary)
	for at := 0; at < len(body); {
		line, next := lineAt(body, at)
		if boundaryKind(line, delimiter) != 0 {
			return true
		}
		at = next
	}
	return false
}

// guessBoundary returns the first line that may be a boundary: two dashes, some
// characters without a space, and a header field below.
func guessBoundary(body []byte) string {
	for at := 0; at < len(body); {
		line, next := lineAt(body, at)
		line = bytes.TrimRight(line, " \t")
		if len(line) > 4 && bytes.HasPrefix(line, []byte("--")) && !bytes.ContainsAny(line, " \t") {
			below, _ := lineAt(body, next)
			if len(bytes.Trim(line, "-")) > 0 && fieldName(below) != "" {
				return string(line[2:])
			}
		}
		at = next
	}
	return ""
}

// lineAt returns the line that begins at i, without its end, and where the next begins.
func lineAt(b []byte, i int) (line []byte, next int) {
	if end := bytes.IndexByte(b[i:], '\n'); end >= 0 {
		return b[i : i+end], i + end + 1
	}
	return b[i:], len(b)
}

// walk visits the part and those below it in order until visit says no to going deeper.
func (p *Part) walk(visit func(*Part) bool) {
	if !visit(p) {
		return
	}
	for _, c := range p.Parts {
		c.walk(visit)
	}
}
