package compose

import (
	"bytes"
	"slices"

	"github.com/veredus/veredus/dkim"
)

// Quoted-printable (RFC 2045 section 6.7) is made in two steps, so that text which is
// the same for every recipient goes through the first only once. The first escapes
// and leaves the lines whole (escaped text); the second breaks them softly, which
// depends on all that stands before in the same line. CR, LF and CRLF all end a line.
// As RFC 2049 section 3 advises, no line begins with a dot or with "From ", which
// careless hosts change.

// passage is a static text of a body, encoded as far as that can be done once.
type passage struct {
	head   stretch // escaped text up to the first line end
	lines  stretch // encoded lines from behind the first line end to behind the last
	tail   stretch // escaped text behind the last line end
	breaks bool    // there is a line end; without one, all is in head
	lf     bool    // begins with an LF, which ends no line behind a CR
	cr     bool    // ends in a CR
}

// stretch is escaped or encoded text. White space never ends a line of it.
type stretch struct {
	text      []byte
	relax     bool   // text differs from its relaxed canonical form (RFC 6376 section 3.4.4)
	canonical []byte // that form, if it differs
}

func newStretch(text []byte) stretch {
	if isCanonical(text) {
		return stretch{text: text}
	}
	return stretch{text, true, appendRelaxed(nil, text)}
}

// isCanonical reports whether text has neither a TAB nor two spaces in a row.
func isCanonical(text []byte) bool {
	return bytes.IndexByte(text, '\t') < 0 && !bytes.Contains(text, twoSpaces)
}

// size is how many octets the passage holds.
func (p *passage) size() int {
	n := 0
	for _, s := range [...]*stretch{&p.head, &p.lines, &p.tail} {
		n += len(s.text) + len(s.canonical)
	}
	return n
}

// appendRelaxed appends text with every run of white space as one space.
func appendRelaxed(dst, text []byte) []byte {
	for i, c := range text {
		if c == '\t' {
			c = ' '
		}
		if c != ' ' || i == 0 || text[i-1] != ' ' && text[i-1] != '\t' {
			dst = append(dst, c)
		}
	}
	return dst
}

var twoSpaces = []byte("  ")

// newPassage encodes a static text, which is not empty.
func newPassage(text []byte) passage {
	p := passage{lf: text[0] == '\n', cr: text[len(text)-1] == '\r'}
	first := bytes.IndexAny(text, "\r\n")
	if first < 0 {
		p.head = newStretch(appendEscapes(nil, text))
		return p
	}
	p.breaks = true
	p.head = newStretch(appendEscapes(nil, text[:first]))
	last := bytes.LastIndexAny(text, "\r\n") + 1
	behind := first + 1
	if text[first] == '\r' && behind < last && text[behind] == '\n' {
		behind++
	}
	q := quoter{out: make([]byte, 0, last-behind+(last-behind)/8)}
	q.text(text[behind:last])
	p.lines = newStretch(q.out)
	p.tail = newStretch(appendEscapes(nil, text[last:]))
	return p
}

// quoter writes quoted-printable text piece by piece. Its output is whole lines, which
// it hashes as DKIM signs them.
type quoter struct {
	out    []byte
	line   []byte         // escaped text of the line under way
	relax  bool           // line differs from its canonical form
	cr     bool           // the last octet was a CR
	hash   *dkim.BodyHash // nil if nobody asks
	hashed int            // octets of out that hash knows
}

// relaxed hashes what was written from an index on, which is not canonical, and all
// before it, which is.
func (q *quoter) relaxed(from int) {
	if q.hash == nil {
		return
	}
	q.hash.WriteCanonical(q.out[q.hashed:from])
	_, _ = q.hash.Write(q.out[from:])
	q.hashed = len(q.out)
}

// settle hashes all that was written, which ends in a whole line.
func (q *quoter) settle() {
	q.hash.WriteCanonical(q.out[q.hashed:])
	q.hashed = len(q.out)
}

// text adds any text.
func (q *quoter) text(s []byte) {
	for len(s) > 0 {
		if s[0] == '\n' && q.cr {
			q.cr, s = false, s[1:]
			continue
		}
		q.cr = false
		end := lineEnd(s)
		from := len(q.line)
		q.line = appendEscapes(q.line, s[:end])
		q.relax = q.relax || !isCanonical(q.line[max(from-1, 0):])
		if end == len(s) {
			return
		}
		q.end()
		q.cr = s[end] == '\r'
		s = s[end+1:]
	}
}

// lineEnd returns the index of the first CR or LF, or the length.
func lineEnd(s []byte) int {
	for i := range len(s) {
		if s[i] == '\n' || s[i] == '\r' {
			return i
		}
	}
	return len(s)
}

// passage adds a static text.
func (q *quoter) passage(p *passage) {
	if !p.breaks {
		q.add(&p.head)
		q.cr = false
		return
	}
	if !p.lf || !q.cr {
		q.add(&p.head)
		q.end()
	}
	q.lines(&p.lines)
	q.add(&p.tail)
	q.cr = p.cr
}

// add adds escaped text to the line under way.
func (q *quoter) add(s *stretch) {
	n := len(q.line)
	q.relax = q.relax || s.relax || n > 0 && q.line[n-1] == ' ' && len(s.text) > 0 && s.text[0] == ' '
	q.line = append(q.line, s.text...)
}

// lines adds encoded lines.
func (q *quoter) lines(s *stretch) {
	from := len(q.out)
	if q.out = append(q.out, s.text...); s.relax && q.hash != nil {
		q.hash.WriteCanonical(q.out[q.hashed:from])
		q.hash.WriteCanonical(s.canonical)
		q.hashed = len(q.out)
	}
}

// finish ends the part: text that does not end its last line gets a line end.
func (q *quoter) finish() {
	if len(q.line) > 0 {
		q.end()
	}
	q.cr = false
}

// end ends the line. White space before a line end is escaped, and only there.
func (q *quoter) end() {
	line := q.line
	if n := len(line) - 1; n >= 0 && (line[n] == ' ' || line[n] == '\t') {
		line = appendHex(line[:n], line[n])
	}
	from := len(q.out)
	q.out = append(appendBroken(q.out, line), "\r\n"...)
	if q.relax {
		q.relaxed(from)
	}
	q.line, q.relax = line[:0], false
}

// appendBroken appends a line of escaped text, broken softly so that at most 76
// characters stand in a line, the last "=" included, and no escape is torn.
func appendBroken(dst, line []byte) []byte {
	for {
		room := lineWidth
		if c := startEscape(line); c != 0 {
			dst, line, room = appendHex(dst, c), line[1:], room-3
		}
		if len(line) <= room {
			return append(dst, line...)
		}
		n := room - 1
		switch {
		case line[n-1] == '=':
			n--
		case line[n-2] == '=':
			n -= 2
		}
		dst = append(append(dst, line[:n]...), "=\r\n"...)
		line = line[n:]
	}
}

// startEscape returns the first character of a line if it must not begin one as it is.
func startEscape(line []byte) byte {
	switch {
	case len(line) == 0:
	case line[0] == '.':
		return '.'
	case line[0] == 'F' && (bytes.HasPrefix(line, []byte("From ")) || bytes.HasPrefix(line, []byte("From=20"))):
		return 'F'
	}
	return 0
}

// appendEscapes appends escaped text: white space and printable ASCII but "=" as it
// is. The text has no line ends.
func appendEscapes(dst, text []byte) []byte {
	dst = slices.Grow(dst, len(text))
	done := 0
	for i := range len(text) {
		if c := text[i]; standsForItself[c] {
			continue
		} else {
			dst = append(dst, text[done:i]...)
			dst = appendHex(dst, c)
		}
		done = i + 1
	}
	return append(dst, text[done:]...)
}

// standsForItself says which octets of escaped text stand for themselves.
var standsForItself = func() (set [256]bool) {
	for c := range set {
		set[c] = c == '\t' || c >= ' ' && c < 0x7f && c != '='
	}
	return set
}()

func appendHex(dst []byte, c byte) []byte {
	return append(dst, '=', hexDigits[c>>4], hexDigits[c&15])
}

const hexDigits = "0123456789ABCDEF"
