package inbound

import (
	"bytes"
	"mime"
	"strings"
	"unicode/utf8"
)

// Header is the fields of a mail or part in order.
type Header struct {
	fields []field
	cut    bool // there were more than the limit
}

// field is one header field, unfolded.
type field struct{ name, value string }

// Get returns the first field of that name, empty if there is none. Case does
// not matter in names.
func (h Header) Get(name string) string {
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			return f.value
		}
	}
	return ""
}

// All returns all fields of that name in order.
func (h Header) All(name string) []string {
	var all []string
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			all = append(all, f.value)
		}
	}
	return all
}

// Has reports whether there is a field of that name, be it empty.
func (h Header) Has(name string) bool {
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			return true
		}
	}
	return false
}

// Text returns the first field of that name with its encoded words read (RFC 2047).
func (h Header) Text(name string) string { return decodeWords(h.Get(name)) }

// Len is the number of fields.
func (h Header) Len() int { return len(h.fields) }

// maxFieldName and maxFieldValue bound one field, in bytes. Longer values are cut.
const (
	maxFieldName  = 100
	maxFieldValue = 64 << 10
)

// readHeader reads fields up to the first blank line or the first line that is
// no field, and returns what follows. An envelope line ("From ...", also quoted)
// between fields is passed over.
func readHeader(raw []byte, limit int) (h Header, body []byte) {
	for at := 0; at < len(raw); {
		line, next := lineAt(raw, at)
		if len(bytes.TrimSpace(line)) == 0 {
			return h, raw[next:]
		}
		folded := next
		for folded < len(raw) && (raw[folded] == ' ' || raw[folded] == '\t') {
			more, after := lineAt(raw, folded)
			if len(bytes.TrimSpace(more)) == 0 {
				break
			}
			folded = after
		}
		if !h.add(line, raw[next:folded], limit) {
			return h, raw[at:]
		}
		at = folded
	}
	return h, nil
}

// add takes a line with the lines folded to it and reports whether it belongs to
// a header. A header may begin in the middle of a field.
func (h *Header) add(line, folded []byte, limit int) bool {
	name := fieldName(line)
	switch {
	case line[0] == ' ' || line[0] == '\t':
		return len(h.fields) == 0
	case name == "":
		return bytes.HasPrefix(line, []byte("From ")) || bytes.HasPrefix(line, []byte(">From "))
	case len(h.fields) >= limit:
		h.cut = true
		return true
	}
	_, value, _ := bytes.Cut(line, []byte(":"))
	h.fields = append(h.fields, field{name, unfold(value, folded)})
	return true
}

// unfold joins the lines of a field with single spaces, cut at maxFieldValue.
func unfold(value, folded []byte) string {
	value = bytes.TrimSpace(value)
	if len(folded) == 0 {
		return string(value[:min(len(value), maxFieldValue)])
	}
	out := append([]byte(nil), value...)
	for line := range bytes.Lines(folded) {
		if len(out) >= maxFieldValue {
			break
		}
		out = append(append(out, ' '), bytes.TrimSpace(line)...)
	}
	return string(bytes.TrimSpace(out[:min(len(out), maxFieldValue)]))
}

// fieldName returns the name of a header field (RFC 5322 section 3.6.8), empty
// if the line is none.
func fieldName(line []byte) string {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || colon > maxFieldName {
		return ""
	}
	name := bytes.TrimRight(line[:colon], " \t")
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return ""
		}
	}
	return string(name)
}

// contentType reads a Content-Type field tolerantly: a broken parameter does not
// cost the others.
func contentType(value string) (kind string, params map[string]string) {
	kind, params, err := mime.ParseMediaType(value)
	if err == nil {
		return kind, params
	}
	head, rest, _ := strings.Cut(value, ";")
	kind = strings.ToLower(strings.TrimSpace(head))
	if main, sub, ok := strings.Cut(kind, "/"); !ok || main == "" || sub == "" || strings.ContainsAny(kind, " \t\"") {
		kind = ""
	}
	params = map[string]string{}
	for _, p := range strings.Split(rest, ";") {
		name, v, ok := strings.Cut(p, "=")
		if name = strings.ToLower(strings.TrimSpace(name)); ok && name != "" {
			params[name] = strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return kind, params
}

var wordDecoder = mime.WordDecoder{CharsetReader: charsetReader}

// decodeWords reads the encoded words of a field; what cannot be read stays.
func decodeWords(value string) string {
	if !strings.Contains(value, "=?") {
		return strings.ToValidUTF8(value, "\ufffd")
	}
	text, err := wordDecoder.DecodeHeader(value)
	if err != nil {
		text = value
	}
	return strings.ToValidUTF8(text, "\ufffd")
}

// clip cuts s to at most n bytes, between characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
