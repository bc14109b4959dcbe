package dkim

import "bytes"

// WriteCanonical is Write for whole lines that are their own canonical form: each ends
// in CRLF and begins where a line does, none has a TAB, two spaces in a row or a space
// at its end. Nobody checks it, which spares text that many bodies share the search
// for white space; what else is written gives a hash that no verifier agrees with.
func (h *BodyHash) WriteCanonical(lines []byte) {
	text := lines
	for bytes.HasSuffix(text, crlf) {
		text = text[:len(text)-len(crlf)]
	}
	if len(text) > 0 {
		h.hash(text)
	}
	h.ends += (len(lines) - len(text)) / len(crlf)
	h.octets += int64(len(lines))
}
