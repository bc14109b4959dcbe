package compose

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode/utf8"
)

// body renders the parts and writes them with their MIME header.
func (m *message) body() error {
	m.out = appendVerbatim(m.out, "MIME-Version", "1.0")
	switch {
	case m.t.html == nil:
		return m.part(m.t.text, "text/plain")
	case m.t.text == nil:
		return m.part(m.t.html, "text/html")
	}
	boundary := boundaryOf(m.job.MessageID)
	m.out = appendVerbatim(m.out, "Content-Type", "multipart/alternative;\r\n boundary=\""+boundary+"\"")
	m.out = append(m.out, "\r\n--"+boundary+"\r\n"...)
	if err := m.part(m.t.text, "text/plain"); err != nil {
		return err
	}
	m.out = append(m.out, "\r\n--"+boundary+"\r\n"...)
	if err := m.part(m.t.html, "text/html"); err != nil {
		return err
	}
	m.out = append(m.out, "\r\n--"+boundary+"--\r\n"...)
	return nil
}

// boundaryOf derives the boundary from what is the same in every attempt. "=_"
// cannot occur in quoted-printable text, so no body holds it.
func boundaryOf(messageID string) string {
	sum := sha256.Sum256([]byte("boundary " + messageID))
	return "=_" + hex.EncodeToString(sum[:15])
}

// part writes one part with its header, ending in CRLF.
func (m *message) part(f *fragment, mediaType string) error {
	m.scratch.Reset()
	m.scratch.Grow(m.t.size / 2)
	if err := f.render(m.run, m.vars, &m.scratch); err != nil {
		return err
	}
	m.out = append(m.out, "Content-Type: "+mediaType+"; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"...)
	text := m.scratch.Bytes()
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		text = []byte(strings.ReplaceAll(strings.ToValidUTF8(string(text), string(utf8.RuneError)), "\x00", string(utf8.RuneError)))
	}
	m.out = appendQuotedPrintable(m.out, text)
	return nil
}

// appendQuotedPrintable appends text as RFC 2045 section 6.7 says, in lines of at
// most 76 characters, ending in CRLF. CR, LF and CRLF all end a line. (The
// standard library's writer loses a line end after a lone CR.) As RFC 2049
// section 3 advises, no line begins with a dot or with "From ", which careless
// hosts change.
func appendQuotedPrintable(dst, text []byte) []byte {
	col := 0
	for i := 0; i < len(text); i++ {
		if n := plainRun(text[i:], col); n > 0 {
			dst, col, i = append(dst, text[i:i+n]...), col+n, i+n
		}
		c := text[i]
		if c == '\r' || c == '\n' {
			if c == '\r' && i+1 < len(text) && text[i+1] == '\n' {
				i++
			}
			dst, col = append(dst, "\r\n"...), 0
			continue
		}
		room := lineWidth - 1 // for a soft line break
		last := i+1 == len(text) || text[i+1] == '\r' || text[i+1] == '\n'
		if last {
			room = lineWidth
		}
		plain := isPlain(text[i:], col, last)
		if col >= room || !plain && col+3 > room {
			dst, col = append(dst, "=\r\n"...), 0
			plain = isPlain(text[i:], col, last)
		}
		if plain {
			dst, col = append(dst, c), col+1
		} else {
			dst, col = append(dst, '=', hexDigits[c>>4], hexDigits[c&15]), col+3
		}
	}
	if col > 0 {
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// plainRun returns how many octets at the start of text, in the middle of a line,
// can be copied: those before one that can be copied too.
func plainRun(text []byte, col int) (n int) {
	if col == 0 {
		return 0
	}
	for n+1 < len(text) && col+n < lineWidth-1 && (isGraphic(text[n]) || text[n] == ' ') && isGraphic(text[n+1]) {
		n++
	}
	return n
}

func isGraphic(c byte) bool { return c > ' ' && c < 0x7f && c != '=' }

const hexDigits = "0123456789ABCDEF"

// isPlain reports whether the first octet of text stands for itself at column
// col; last tells that its line ends behind it.
func isPlain(text []byte, col int, last bool) bool {
	switch c := text[0]; {
	case c == ' ' || c == '\t':
		return !last
	case !isGraphic(c):
		return false
	case col > 0:
		return true
	case c == 'F':
		return !bytes.HasPrefix(text, []byte("From "))
	default:
		return c != '.'
	}
}
