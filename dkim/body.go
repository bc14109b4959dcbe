package dkim

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"fmt"
	"hash"
	"math/bits"
)

// bodyBuffer is how much canonical text is gathered before it is hashed: whole
// blocks of SHA-256, few enough to stay in the nearest cache.
const bodyBuffer = 1024

// BodyHash hashes a body in relaxed canonical form (RFC 6376 section 3.4.4) as it
// is written, in pieces of any size. It is not safe for concurrent use, but any
// number of others may CopyFrom one that nobody writes to.
type BodyHash struct {
	sum    hash.Hash
	state  []byte // of CopyFrom
	digest [sha256.Size]byte

	buf [bodyBuffer]byte
	n   int // octets of buf in use

	ends  int  // line ends held back: they count only when text follows
	space bool // white space held back: it counts only when text follows in its line
	cr    bool // the last octet was a CR
	text  bool // the canonical body is not empty

	octets int64 // written so far
	bare   int64 // 1 + place of the first CR or LF that stands alone
}

// NewBodyHash makes the hash of an empty body.
func NewBodyHash() *BodyHash { return &BodyHash{sum: sha256.New()} }

// Reset makes h the hash of an empty body again.
func (h *BodyHash) Reset() {
	h.sum.Reset()
	h.n, h.ends, h.octets, h.bare = 0, 0, 0, 0
	h.space, h.cr, h.text = false, false, false
}

// CopyFrom makes h go on where o is, whatever h was before: a beginning that many
// bodies share is hashed once. It only reads o.
func (h *BodyHash) CopyFrom(o *BodyHash) {
	h.state = marshal(o.sum, h.state[:0])
	unmarshal(h.sum, h.state)
	copy(h.buf[:], o.buf[:o.n])
	h.n, h.ends, h.octets, h.bare = o.n, o.ends, o.octets, o.bare
	h.space, h.cr, h.text = o.space, o.cr, o.text
}

// marshal and unmarshal copy the state of a SHA-256 without allocating, which
// hash.Cloner cannot.
func marshal(from hash.Hash, state []byte) []byte {
	state, err := from.(encoding.BinaryAppender).AppendBinary(state)
	if err != nil {
		panic(fmt.Sprintf("dkim: the state of SHA-256 cannot be read: %v", err)) // the standard library always can
	}
	return state
}

func unmarshal(to hash.Hash, state []byte) {
	if err := to.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		panic(fmt.Sprintf("dkim: the state of SHA-256 cannot be set: %v", err)) // the state is SHA-256's own
	}
}

// Write adds a piece of the body. It never fails; what is wrong with the body is
// said by Err.
func (h *BodyHash) Write(p []byte) (int, error) {
	for i := 0; i < len(p); {
		c := p[i]
		if h.cr && c != '\n' {
			h.lone(i - 1)
			h.cr = false
		}
		switch c {
		case '\r':
			h.cr = true
			i++
		case '\n':
			if !h.cr {
				h.lone(i)
			}
			h.cr, h.space = false, false
			h.ends++
			i++
		case ' ', '\t':
			h.space = true
			i++
		default:
			n := plain(p[i:])
			h.hash(p[i : i+n])
			i += n
		}
	}
	h.octets += int64(len(p))
	return len(p), nil
}

// lone notes a CR or LF that stands alone, at place i of the present piece.
func (h *BodyHash) lone(i int) {
	if h.bare == 0 {
		h.bare = h.octets + int64(i) + 1
	}
}

// Err reports the first CR or LF that is not part of a CRLF: a server on the way
// would have to refuse or mend it (RFC 5321 section 2.3.8). The hash of such a body
// is of no use. A CR at the very end counts, so ask when all is written.
func (h *BodyHash) Err() error {
	switch {
	case h.bare != 0:
		return fmt.Errorf("dkim: the body has a bare CR or LF at octet %d; end every line with CRLF", h.bare-1)
	case h.cr:
		return fmt.Errorf("dkim: the body has a bare CR at octet %d, its last; end every line with CRLF", h.octets-1)
	}
	return nil
}

// Sum returns the hash, as if the body ended here. It may be called once; Reset or
// CopyFrom begin anew.
func (h *BodyHash) Sum() [sha256.Size]byte {
	if h.text {
		h.put("\r\n") // the end of the last line, also when it was not written
	}
	h.flush()
	h.sum.Sum(h.digest[:0])
	return h.digest
}

// hash adds text, with the line ends and the white space that were held back.
func (h *BodyHash) hash(text []byte) {
	for ; h.ends > 0; h.ends-- {
		h.put("\r\n")
	}
	if h.space {
		h.put(" ")
		h.space = false
	}
	h.text = true
	if len(text) >= bodyBuffer {
		h.flush()
		h.sum.Write(text)
		return
	}
	n := copy(h.buf[h.n:], text)
	h.n += n
	if n < len(text) {
		h.flush()
		h.n = copy(h.buf[:], text[n:])
	}
}

func (h *BodyHash) put(s string) {
	if h.n+len(s) > bodyBuffer {
		h.flush()
	}
	h.n += copy(h.buf[h.n:], s)
}

func (h *BodyHash) flush() {
	h.sum.Write(h.buf[:h.n])
	h.n = 0
}

// plain returns the length of the beginning of p that is its own canonical form: it
// has no TAB, no two spaces in a row, no space at the end of a line or at its own end,
// and CR and LF only between two lines that begin with text. The first octet of p must
// be text.
//
// Eight octets are judged at once: ten kilobytes cost some microseconds this way,
// less than their hash.
func plain(p []byte) int {
	i, before := 1, uint64(0) // before: the octet before i is a space
	for i+8 <= len(p) {
		word := binary.LittleEndian.Uint64(p[i:])
		spaces := zeros(word ^ 0x2020202020202020)
		stops := zeros(word&0xE0E0E0E0E0E0E0E0) | spaces&(spaces<<8|before)
		if stops == 0 {
			i, before = i+8, spaces>>56
			continue
		}
		i += bits.TrailingZeros64(stops) / 8
		switch c := p[i]; {
		case c == '\r' && lineFollows(p, i):
			i, before = i+len("\r\n?"), 0
		case c == ' ' || breaks(c):
			return trimmed(p, i)
		default:
			i, before = i+1, 0 // another control character is text
		}
	}
	for ; i < len(p); i++ {
		if c := p[i]; breaks(c) || c == ' ' && p[i-1] == ' ' {
			break
		}
	}
	return trimmed(p, i)
}

// lineFollows reports whether the CR at p[i] ends a line without white space at its
// end, and the next one begins with text.
func lineFollows(p []byte, i int) bool {
	if i+2 >= len(p) || p[i-1] == ' ' || p[i+1] != '\n' {
		return false
	}
	next := p[i+2]
	return next != ' ' && !breaks(next)
}

// zeros sets the highest bit of each octet that is zero, exactly.
func zeros(word uint64) uint64 {
	const low = 0x7F7F7F7F7F7F7F7F
	return ^((word&low + low) | word | low)
}

func breaks(c byte) bool { return c == '\r' || c == '\n' || c == '\t' }

// trimmed takes one space from the end of p[:n].
func trimmed(p []byte, n int) int {
	if p[n-1] == ' ' {
		n--
	}
	return n
}
