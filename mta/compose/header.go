package compose

import (
	"encoding/base64"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/veredus/veredus/mta/address"
)

// Header lines are folded so that lines stay within 76 characters where white
// space allows it (RFC 5322 section 2.1.1, RFC 2047 section 2). Whatever has no
// white space to fold at, or is not plain ASCII, becomes encoded words.
const (
	lineWidth   = 76
	wordWidth   = 75 // RFC 2047 section 2
	longestWord = 70 // characters without white space that stay unencoded
)

// clean makes any text fit for a header: valid UTF-8 on one line. Every run of
// control characters or line separators, with the spaces around it, becomes one
// space.
func clean(s string) string {
	if isClean(s) {
		return s
	}
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if strings.IndexFunc(s, breaks) >= 0 {
		parts := strings.FieldsFunc(s, breaks)
		kept := parts[:0]
		for _, part := range parts {
			if part = strings.Trim(part, " "); part != "" {
				kept = append(kept, part)
			}
		}
		s = strings.Join(kept, " ")
	}
	return strings.Trim(s, " ")
}

// isClean reports whether s is printable ASCII without spaces around it.
func isClean(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s == "" || s[0] != ' ' && s[len(s)-1] != ' '
}

func breaks(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
}

// appendField appends an unstructured header field, value encoded as it needs.
func appendField(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	if needsEncoding(value) {
		dst, _ = appendEncoded(dst, len(name)+2, value)
	} else {
		dst, _ = appendFolded(dst, len(name)+2, value)
	}
	return append(dst, "\r\n"...)
}

// appendVerbatim appends a header field whose value is known to be printable
// ASCII that must not be changed, such as a Message-ID.
func appendVerbatim(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}

// needsEncoding reports whether cleaned text cannot stand in a header as it is.
func needsEncoding(s string) bool {
	word := 0
	for i := range len(s) {
		if s[i] >= 0x7f {
			return true
		}
		if word++; s[i] == ' ' {
			word = 0
		}
		if word > longestWord {
			return true
		}
	}
	return strings.Contains(s, "=?")
}

// appendFolded appends ASCII text from column col on, folded before spaces.
func appendFolded(dst []byte, col int, s string) ([]byte, int) {
	for first := true; s != ""; first = false {
		space := len(s) - len(strings.TrimLeft(s, " "))
		end := strings.IndexByte(s[space:], ' ')
		if end < 0 {
			end = len(s)
		} else {
			end += space
		}
		if !first && col+end > lineWidth {
			dst, col = append(dst, "\r\n"...), 0
		}
		dst, col, s = append(dst, s[:end]...), col+end, s[end:]
	}
	return dst, col
}

// appendEncoded appends text as encoded words of RFC 2047 from column col on.
// Characters are never split between words.
func appendEncoded(dst []byte, col int, s string) ([]byte, int) {
	open, limit := "=?utf-8?q?", quotedWidth
	if quotedLength(s) > (len(s)+2)/3*6 { // Q stays legible, so it may be half as long again
		open, limit = "=?utf-8?b?", base64Width
	}
	if col > lineWidth/2 {
		dst, col = append(dst, "\r\n "...), 1
	}
	for {
		n := limit(s, min(wordWidth, lineWidth-col)-len(open)-len("?="))
		start := len(dst)
		dst = append(dst, open...)
		if open[8] == 'q' {
			dst = appendQuoted(dst, s[:n])
		} else {
			dst = base64.StdEncoding.AppendEncode(dst, []byte(s[:n]))
		}
		dst = append(dst, "?="...)
		if s = s[n:]; s == "" {
			return dst, col + len(dst) - start
		}
		dst, col = append(dst, "\r\n "...), 1
	}
}

// quotedWidth returns how many octets of s fit room characters of Q encoding.
func quotedWidth(s string, room int) int {
	end := 0
	for i, r := range s {
		n := quotedLength(s[i : i+utf8.RuneLen(r)])
		if room -= n; room < 0 {
			return max(end, 1)
		}
		end = i + utf8.RuneLen(r)
	}
	return len(s)
}

// base64Width is quotedWidth for B encoding.
func base64Width(s string, room int) int {
	n := room / 4 * 3
	if n >= len(s) {
		return len(s)
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return max(n, 1)
}

// plainInWord is what RFC 2047 section 5 (3) allows unencoded even in a phrase.
func plainInWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!*+-/", c) >= 0
}

func quotedLength(s string) int {
	n := 0
	for i := range len(s) {
		if n++; s[i] != ' ' && !plainInWord(s[i]) {
			n += 2
		}
	}
	return n
}

func appendQuoted(dst []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c == ' ':
			dst = append(dst, '_')
		case plainInWord(c):
			dst = append(dst, c)
		default:
			dst = append(dst, '=', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return dst
}

// appendMailbox appends an address field: From, To, Reply-To.
func appendMailbox(dst []byte, name string, display string, a address.Address) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	col := len(name) + 2
	if display == "" {
		return append(appendAddress(dst, a), "\r\n"...)
	}
	switch {
	case needsEncoding(display):
		dst, col = appendEncoded(dst, col, display)
	case isPhrase(display):
		dst, col = appendFolded(dst, col, display)
	default:
		dst, col = appendFolded(dst, col, quote(display))
	}
	if col+len(" <@>")+len(a.Local)+len(a.Domain) > lineWidth {
		dst = append(dst, "\r\n"...)
	}
	return append(appendAddress(append(dst, " <"...), a), ">\r\n"...)
}

func appendAddress(dst []byte, a address.Address) []byte {
	return append(append(append(dst, a.Local...), '@'), a.Domain...)
}

// isPhrase reports whether s is words of atext with single spaces between, which
// need no quotes (RFC 5322 section 3.2.5).
func isPhrase(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c == ' ' && i > 0 && s[i-1] != ' ' {
			continue
		}
		if !plainInWord(c) && strings.IndexByte("#$%&'=?^_`{|}~", c) < 0 {
			return false
		}
	}
	return true
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
