package inbound

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/transform"
)

// text decodes a leaf: transfer encoding, character set, and for HTML its tags.
func (r *reader) text(p *Part, body []byte) string {
	decoded := r.transfer(p, body)
	if len(decoded) > r.limits.Text {
		decoded = decoded[:r.limits.Text]
		r.limited(LimitText)
	}
	text := decodeCharset(decoded, p.Params["charset"])
	if p.Type == "text/html" {
		text = htmlText(text)
	}
	return text
}

// transfer undoes the content transfer encoding (RFC 2045 section 6), passing
// over what is broken.
func (r *reader) transfer(p *Part, body []byte) []byte {
	switch strings.ToLower(strings.TrimSpace(p.Header.Get("Content-Transfer-Encoding"))) {
	case "base64":
		return unixLines(decodeBase64(body))
	case "quoted-printable":
		return decodeQuotedPrintable(body)
	}
	return body
}

// decodeBase64 reads base64 up to the first padding, ignoring foreign bytes.
func decodeBase64(body []byte) []byte {
	clean := make([]byte, 0, len(body))
	for _, c := range body {
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '+', c == '/':
			clean = append(clean, c)
		}
	}
	if len(clean)%4 == 1 {
		clean = clean[:len(clean)-1]
	}
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(clean)))
	n, _ := base64.RawStdEncoding.Decode(out, clean) // the alphabet was checked; only unused bits can be wrong
	return out[:n]
}

// decodeQuotedPrintable reads quoted-printable; a "=" that encodes nothing stays.
func decodeQuotedPrintable(body []byte) []byte {
	out := make([]byte, 0, len(body))
	for i := 0; i < len(body); i++ {
		if body[i] != '=' {
			out = append(out, body[i])
			continue
		}
		if line, next := lineAt(body, i+1); len(bytes.TrimSpace(line)) == 0 && next > i+1 {
			i = next - 1
			continue
		}
		if i+2 < len(body) && isHex(body[i+1]) && isHex(body[i+2]) {
			out = append(out, unhex(body[i+1])<<4|unhex(body[i+2]))
			i += 2
			continue
		}
		out = append(out, '=')
	}
	return out
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' || c >= 'a' && c <= 'f'
}

func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}

// decodeCharset converts to UTF-8. Bytes that say themselves what they are
// (UTF-8, the escapes of ISO-2022-JP) are believed before the label.
func decodeCharset(b []byte, label string) string {
	enc := encodingOf(label)
	switch {
	case bytes.Contains(b, []byte("\x1b$")):
		enc = japanese.ISO2022JP
	case utf8.Valid(b):
		return string(b)
	case enc == nil:
		enc = charmap.Windows1252
	}
	out, _, err := transform.Bytes(enc.NewDecoder(), b)
	if err != nil {
		out = b
	}
	return strings.ToValidUTF8(string(out), "\ufffd")
}

// encodingOf returns the encoding a label names, nil for an unknown one.
func encodingOf(label string) encoding.Encoding {
	enc, err := htmlindex.Get(strings.Trim(strings.TrimSpace(label), `"'`))
	if err != nil {
		return nil
	}
	return enc
}

// charsetReader serves encoded words in other character sets than the standard library's.
func charsetReader(label string, in io.Reader) (io.Reader, error) {
	enc := encodingOf(label)
	if enc == nil {
		return nil, fmt.Errorf("unknown character set %q", clip(label, 40))
	}
	return enc.NewDecoder().Reader(in), nil
}

// htmlText returns the words of an HTML document, with line ends where a
// browser would begin a new line.
func htmlText(doc string) string {
	var out strings.Builder
	z := html.NewTokenizer(strings.NewReader(doc))
	skip := 0
	for {
		switch kind := z.Next(); kind {
		case html.ErrorToken:
			return out.String()
		case html.TextToken:
			if skip == 0 {
				writeWords(&out, string(z.Text()))
			}
		case html.StartTagToken, html.EndTagToken, html.SelfClosingTagToken:
			name, _ := z.TagName()
			tag := atom.Lookup(name)
			skip = skipped(tag, kind, skip)
			if breaksLine(tag) {
				out.WriteByte('\n')
			}
		}
	}
}

// skipped counts the open elements whose text nobody sees.
func skipped(tag atom.Atom, kind html.TokenType, open int) int {
	switch tag {
	case atom.Style, atom.Script, atom.Title, atom.Head:
	case atom.Body:
		return 0
	default:
		return open
	}
	switch {
	case kind == html.StartTagToken:
		return open + 1
	case kind == html.EndTagToken && open > 0:
		return open - 1
	}
	return open
}

func breaksLine(tag atom.Atom) bool {
	switch tag {
	case atom.Br, atom.P, atom.Div, atom.Tr, atom.Td, atom.Th, atom.Table, atom.Li, atom.Ul, atom.Ol, atom.Hr, atom.Pre,
		atom.H1, atom.H2, atom.H3, atom.H4, atom.Blockquote, atom.Body:
		return true
	}
	return false
}

// writeWords writes text with runs of blanks as one.
func writeWords(out *strings.Builder, text string) {
	blank := false
	for _, r := range text {
		if r == ' ' || r == '\t' || r == '\n' || r == '\u00a0' {
			blank = true
			continue
		}
		if blank {
			out.WriteByte(' ')
			blank = false
		}
		out.WriteRune(r)
	}
	if blank {
		out.WriteByte(' ')
	}
}
