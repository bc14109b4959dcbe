package compose

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/veredus/veredus/dkim"
)

// body is what Compile makes of the content: a list of steps that write the body of
// one message. What every message's body begins with is written, encoded and hashed
// already.
type body struct {
	fields []byte // the end of the header: the fields that describe the body
	steps  []step

	start []byte         // the whole lines that every body begins with
	line  stretch        // escaped text of the line that follows
	cr    bool           // start ends in a line end that was a lone CR
	begun *dkim.BodyHash // of start
	fixed bool           // start is all there is
	sum   [sha256.Size]byte
}

// step is one thing to do.
type step struct {
	action  action
	of      *fragment // for renderStep
	gap     int       // for fillStep
	passage passage   // for textStep
	lines   stretch   // for lineStep
}

type action uint8

const (
	renderStep action = iota // render a fragment; the following steps write what came of it
	fillStep                 // write what was rendered before a static text
	textStep                 // write a static text
	endStep                  // end a part
	lineStep                 // write lines
)

// newBody lays out the parts. With both, the boundary is the same in all messages of
// one content, so that it is part of what is encoded and hashed once.
func newBody(text, html *fragment, src Source) *body {
	b := &body{fields: appendVerbatim(nil, "MIME-Version", "1.0")}
	switch {
	case html == nil:
		b.fields = append(b.fields, partHeader("text/plain")...)
		b.part(text)
	case text == nil:
		b.fields = append(b.fields, partHeader("text/html")...)
		b.part(html)
	default:
		boundary := boundaryOf(src.Text, src.HTML)
		b.fields = appendVerbatim(b.fields, "Content-Type", "multipart/alternative;\r\n boundary=\""+boundary+"\"")
		b.write("--" + boundary + "\r\n" + partHeader("text/plain") + "\r\n")
		b.part(text)
		b.write("\r\n--" + boundary + "\r\n" + partHeader("text/html") + "\r\n")
		b.part(html)
		b.write("\r\n--" + boundary + "--\r\n")
	}
	b.begin()
	return b
}

func partHeader(mediaType string) string {
	return "Content-Type: " + mediaType + "; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n"
}

// fixedBody is a body that is given as it is.
func fixedBody(data []byte) *body {
	b := &body{start: data, fixed: true, begun: dkim.NewBodyHash()}
	_, _ = b.begun.Write(data)
	b.sum = b.begun.Sum()
	return b
}

// boundaryOf derives the boundary from the content, so that it is the same in every
// attempt. "=_" cannot occur in quoted-printable text, so no body holds it.
func boundaryOf(text, html string) string {
	sum := sha256.Sum256([]byte("boundary " + strconv.Itoa(len(text)) + " " + text + html))
	return "=_" + hex.EncodeToString(sum[:15])
}

func (b *body) write(lines string) {
	b.steps = append(b.steps, step{action: lineStep, lines: newStretch([]byte(lines))})
}

// part adds the steps of one part.
func (b *body) part(f *fragment) {
	b.steps = append(b.steps, step{action: renderStep, of: f})
	if f.isLiteral() {
		b.pass(readable([]byte(f.literal)))
	} else {
		for i := range len(f.static) + 1 {
			if _, open := slices.BinarySearch(f.gaps, i); open {
				b.steps = append(b.steps, step{action: fillStep, gap: i})
			}
			if i < len(f.static) {
				b.pass([]byte(f.static[i]))
			}
		}
	}
	b.steps = append(b.steps, step{action: endStep})
}

func (b *body) pass(text []byte) {
	if len(text) > 0 {
		b.steps = append(b.steps, step{action: textStep, passage: newPassage(text)})
	}
}

// begin does the steps before the first that depends on the recipient.
func (b *body) begin() {
	b.begun = dkim.NewBodyHash()
	q := quoter{hash: b.begun}
	var left []step
	b.fixed = true
	for _, s := range b.steps {
		if b.fixed = b.fixed && s.action != fillStep; b.fixed && s.action != renderStep {
			q.do(&s)
		} else {
			left = append(left, s)
		}
	}
	b.steps, b.start, b.line, b.cr = left, q.out, newStretch(q.line), q.cr
	q.settle()
	if b.fixed {
		h := dkim.NewBodyHash()
		h.CopyFrom(b.begun)
		b.sum = h.Sum()
	}
}

// size is about how many octets the body will have, and the end of the header.
func (b *body) size() int {
	n := len(b.fields) + len(b.start) + len(b.line.text)
	for i := range b.steps {
		s := &b.steps[i]
		n += len(s.passage.head.text) + len(s.passage.lines.text) + len(s.passage.tail.text) + len(s.lines.text) + 64
	}
	return n
}

// do does what does not depend on the recipient.
func (q *quoter) do(s *step) {
	switch s.action {
	case textStep:
		q.passage(&s.passage)
	case endStep:
		q.finish()
	case lineStep:
		q.lines(&s.lines)
	}
}

// body writes the body for one recipient and hashes it.
func (m *message) body() error {
	b := m.t.body
	m.out = append(append(m.out, b.fields...), "\r\n"...)
	m.start = len(m.out)
	q := &m.quoter
	q.out, q.line, q.cr = append(m.out, b.start...), q.line[:0], b.cr
	q.hashed, q.relax = len(q.out), false
	q.add(&b.line)
	if !b.fixed {
		q.hash.CopyFrom(b.begun)
	}
	for i := range b.steps {
		switch s := &b.steps[i]; s.action {
		case renderStep:
			if err := m.part(s.of); err != nil {
				return err
			}
		case fillStep:
			q.text(readable(m.run.gap(s.gap)))
		default:
			q.do(s)
		}
	}
	if m.sum = b.sum; !b.fixed {
		q.settle()
		m.sum = q.hash.Sum()
	}
	m.out, q.out = q.out, nil
	return nil
}

// part renders a part's template; one without Liquid only counts.
func (m *message) part(f *fragment) error {
	if f.isLiteral() {
		return m.count(f)
	}
	return m.render(f)
}

// readable returns text in which all that is no UTF-8, and NUL, is replaced.
func readable(text []byte) []byte {
	if isText(text) {
		return text
	}
	text = bytes.ToValidUTF8(text, []byte(string(utf8.RuneError)))
	return bytes.ReplaceAll(text, []byte{0}, []byte(string(utf8.RuneError)))
}

// isText reports whether text can be mailed as it is.
func isText(text []byte) bool {
	return utf8.Valid(text) && bytes.IndexByte(text, 0) < 0
}
