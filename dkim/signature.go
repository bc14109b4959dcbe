package dkim

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"sync"
	"time"
)

const (
	fieldName = "DKIM-Signature"
	// maxLine is where lines of the field are folded (RFC 5322 section 2.1.1
	// recommends at most 78 octets). The h= tag is longer and stays whole.
	maxLine = 75
)

// workspace is the memory of one signature.
type workspace struct {
	body      *BodyHash
	header    fields
	names     []byte // value of the h= tag
	canonical []byte // the covered fields in canonical form
	bodyHash  []byte // value of the bh= tag
	time      []byte // value of the t= tag
	value     []byte // value of the b= tag
	digest    [sha256.Size]byte
}

// What a workspace keeps of a large header is bounded: octets and fields.
const (
	maxKept       = 64 << 10
	maxKeptFields = 1 << 10
)

var workspaces = sync.Pool{New: func() any { return &workspace{body: NewBodyHash()} }}

func (w *workspace) release() {
	if cap(w.canonical) > maxKept || cap(w.header.list) > maxKeptFields {
		return
	}
	clear(w.header.list[:cap(w.header.list)]) // they hold the message
	workspaces.Put(w)
}

// appendSignatures appends one field for each key. The header was read.
func (w *workspace) appendSignatures(dst []byte, keys []*Key, bodyHash [sha256.Size]byte, now time.Time) ([]byte, error) {
	var err error
	if w.names, err = w.header.appendNames(w.names[:0]); err != nil {
		return nil, err
	}
	w.canonical = w.header.appendCanonical(w.canonical[:0])
	copy(w.digest[:], bodyHash[:])
	w.bodyHash = base64.StdEncoding.AppendEncode(w.bodyHash[:0], w.digest[:])
	w.time = strconv.AppendInt(w.time[:0], now.Unix(), 10)
	for _, k := range keys {
		if dst, err = w.appendSignature(dst, k); err != nil {
			return nil, fmt.Errorf("dkim: sign with the key of %s: %w", RecordName(k), err)
		}
	}
	return dst, nil
}

// appendSignature appends the field of one key. What is signed is the covered
// fields and this one, without the value of b= and without its end (RFC 6376
// section 3.7).
func (w *workspace) appendSignature(dst []byte, k *Key) ([]byte, error) {
	begin, covered := len(dst), len(w.canonical)
	dst = w.appendTags(dst, k)
	w.canonical = append(w.canonical, "dkim-signature:"...)
	w.canonical = appendRelaxed(w.canonical, dst[begin+len(fieldName)+1:])
	w.digest = sha256.Sum256(w.canonical)
	w.canonical = w.canonical[:covered]

	hash := crypto.SHA256
	if k.Algorithm() == algEd25519 {
		hash = 0 // it signs the digest as a message, RFC 8463 section 3
	}
	signature, err := k.Signer.Sign(rand.Reader, w.digest[:], hash)
	if err != nil {
		return nil, err
	}
	w.value = base64.StdEncoding.AppendEncode(w.value[:0], signature)
	return appendFolded(dst, w.value), nil
}

// appendTags appends the field up to the value of its last tag, b=.
func (w *workspace) appendTags(dst []byte, k *Key) []byte {
	t := tags{dst: append(dst, fieldName+":"...)}
	add(&t, "a", k.Algorithm()+"-sha256")
	add(&t, "bh", w.bodyHash)
	add(&t, "c", "relaxed/relaxed")
	add(&t, "d", k.Domain)
	add(&t, "h", w.names)
	add(&t, "s", k.Selector)
	add(&t, "t", w.time)
	add(&t, "v", "1")
	return append(t.dst, "\r\n b="...)
}

// tags writes a tag-list (RFC 6376 section 3.2), folded.
type tags struct {
	dst  []byte
	line int // octets in the present line, without the field's name
}

func add[T string | []byte](t *tags, name string, value T) {
	if t.line+len(name)+len(value)+len(" =;") > maxLine {
		t.dst, t.line = append(t.dst, "\r\n"...), 0
	}
	before := len(t.dst)
	t.dst = append(append(append(t.dst, ' '), name...), '=')
	t.dst = append(append(t.dst, value...), ';')
	t.line += len(t.dst) - before
}

// appendFolded appends the value of b= in lines, the first of which has begun, and
// ends the field.
func appendFolded(dst, value []byte) []byte {
	for room := maxLine - len(" b="); len(value) > room; room = maxLine {
		dst = append(append(dst, value[:room]...), "\r\n "...)
		value = value[room:]
	}
	return append(append(dst, value...), "\r\n"...)
}
