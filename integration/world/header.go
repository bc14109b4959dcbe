package world

import (
	"bytes"
	"strings"
)

// maxHeaderBlock bounds what is kept of the header of a message that something
// comes back about.
const maxHeaderBlock = 32 << 10

// HeaderBlock returns a copy of a message's header in whole lines with CRLF ends,
// without the blank line that ends it; of a very long one the beginning.
func HeaderBlock(content []byte) []byte {
	var block []byte
	for len(content) > 0 {
		line, rest, _ := bytes.Cut(content, []byte("\n"))
		line = bytes.TrimRight(line, "\r")
		if len(line) == 0 || len(block)+len(line) > maxHeaderBlock {
			break
		}
		block = append(append(block, line...), '\r', '\n')
		content = rest
	}
	return block
}

// HeaderField returns the unfolded, trimmed value of the first header field of a
// message called name (lower case), at most limit octets of it; empty if there is
// none.
func HeaderField(content []byte, name string, limit int) string {
	for len(content) > 0 {
		line, rest, _ := bytes.Cut(content, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			return ""
		}
		if len(line) > len(name) && line[len(name)] == ':' && strings.EqualFold(string(line[:len(name)]), name) {
			return unfold(line[len(name)+1:], rest, limit)
		}
		content = rest
	}
	return ""
}

// unfold joins a field's first line with the continuation lines behind it (RFC
// 5322 section 2.2.3).
func unfold(first, rest []byte, limit int) string {
	value := bytes.Clone(bytes.TrimSpace(first))
	for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') && len(value) < limit {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		value = append(append(value, ' '), bytes.TrimSpace(line)...)
	}
	return strings.TrimSpace(string(value[:min(len(value), limit)]))
}
