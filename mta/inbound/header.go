package inbound

import (
	"bytes"
	"mime"
	"strings"
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
	at := 0
	for at < len(raw) {
		line, next := lineAt(raw, at)
		if len(bytes.TrimSpace(line)) == 0 {
			return h, raw[next:]
		}
		if !h.add(line, limit) {
			return h, raw[at:]
		}
		at = next
	}
	return h, nil
}

// add takes one line and reports whether it belongs to a header.
func (h *Header) add(line []byte, limit int) bool {
	if line[0] == ' ' || line[0] == '\t' {
		h.fold(line)
		return true
	}
	name := fieldName(line)
	switch {
	case name == "" && (bytes.HasPrefix(line, []byte("From ")) || bytes.HasPrefix(line, []byte(">From "))):
		return true
	case name == "":
		return false
	case len(h.fields) >= limit:
		h.cut = true
		return true
	}
	_, value, _ := strings.Cut(string(line), ":")
	h.fields = append(h.fields, field{name, clip(strings.TrimSpace(value), maxFieldValue)})
	return true
}

func (h *Header) fold(line []byte) {
	if len(h.fields) == 0 || h.cut {
		return
	}
	f := &h.fields[len(h.fields)-1]
	if len(f.value) < maxFieldValue {
		f.value = strings.TrimSpace(f.value + " " + clip(string(bytes.TrimSpace(line)), maxFieldValue-len(f.value)))
	}
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

// clip cuts s to at most n bytes.
func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
