package serve

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
)

// body is the content of one message, from a pool.
type body struct{ data []byte }

var bodies = sync.Pool{New: func() any { return new(body) }}

func newBody() *body {
	b := bodies.Get().(*body)
	b.data = b.data[:0]
	return b
}

// free returns the body to the pool, unless it grew unusually large.
func (b *body) free() {
	if cap(b.data) <= 256<<10 {
		bodies.Put(b)
	}
}

// flaws are what is wrong with the form of a content.
type flaws struct {
	tooBig   bool // more than the maximum; the rest was thrown away
	bareLF   bool // RFC 5321 section 2.3.8
	bareCR   bool
	longLine bool // more than 998 octets (RFC 5322 section 2.1.1)
	eightBit bool // octets above 127 that were not announced
}

func (f flaws) list() []string {
	var texts []string
	for _, flaw := range []struct {
		has  bool
		text string
	}{
		{f.bareLF, "content with a bare LF"},
		{f.bareCR, "content with a bare CR"},
		{f.longLine, "content with a line above 998 octets"},
		{f.eightBit, "8-bit content without BODY=8BITMIME"},
	} {
		if flaw.has {
			texts = append(texts, flaw.text)
		}
	}
	return texts
}

// maxTextLine is RFC 5322 section 2.1.1's 998 octets and the line end.
const maxTextLine = 1000

// readContent reads up to and without the line holding a single dot, undoing dot
// stuffing (RFC 5321 section 4.5.2). Only CRLF ends a line; a lone LF is kept and
// reported. Content beyond limit is read but not kept.
func readContent(br *bufio.Reader, b *body, limit int, sevenBit bool) (flaws, error) {
	var f flaws
	lineStart, lineLen := true, 0
	var last byte = '\n'
	for {
		chunk, err := br.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return f, err
		}
		if lineStart && chunk[0] == '.' {
			if len(chunk) == 3 && chunk[1] == '\r' && chunk[2] == '\n' {
				return f, nil
			}
			chunk = chunk[1:]
		}
		lineLen += len(chunk)
		f.longLine = f.longLine || lineLen > maxTextLine
		complete := f.inspect(chunk, last, sevenBit)
		last = chunk[len(chunk)-1]
		lineStart = complete
		if err == nil {
			lineLen = 0
		}
		if f.tooBig = f.tooBig || len(b.data)+len(chunk) > limit; !f.tooBig {
			b.data = append(b.data, chunk...)
		}
	}
}

// inspect looks for line-end and 8-bit flaws in a piece of content that holds at
// most one LF, as its last octet. It reports whether the piece ends a line by CRLF.
func (f *flaws) inspect(chunk []byte, before byte, sevenBit bool) bool {
	end := len(chunk)
	ended, crlf := chunk[end-1] == '\n', false
	f.bareCR = f.bareCR || (before == '\r' && chunk[0] != '\n')
	if ended {
		end--
		if end > 0 {
			before = chunk[end-1]
		}
		crlf = before == '\r'
		f.bareLF = f.bareLF || !crlf
		if crlf && end > 0 {
			end--
		}
	}
	if i := bytes.IndexByte(chunk[:end], '\r'); i >= 0 && (ended || i < end-1) {
		f.bareCR = true
	}
	if sevenBit && !f.eightBit {
		f.eightBit = hasHighOctet(chunk[:end])
	}
	return crlf
}

// hasHighOctet looks at eight octets at a time: it sees all content there is.
func hasHighOctet(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b)&0x8080808080808080 != 0 {
			return true
		}
	}
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

// maxField bounds a header field's value as the ledger keeps it.
const maxField = 998
