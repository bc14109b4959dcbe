// Package returnpath makes and reads the signed tokens that tie what comes back
// (bounce mail, complaints, unsubscribes) to the message it is about: the local part
// of the return path, <token>@<bounce domain>, and the left side of the Message-ID. A
// token names a message and its delivery, holds nothing secret, and cannot be made
// without a key. The two are signed apart, so that who has read a Message-ID, which
// goes around in every answer and archive, does not know the return path.
//
// A server builds one Keys at start, calls Token and MessageID for every message, Parse
// for every address that arrives and ParseAny for what stands in a mail.
package returnpath

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math"
	"sync"
)

// MaxLength is the longest token in characters: it fits the 64 octets of a
// local part (RFC 5321 section 4.5.3.1.1). Ordinary numbers give 40 to 50.
const MaxLength = 63

// Errors of Parse. A malformed text never was a token; a forged one looks like a
// token but no key of ours signed it.
var (
	ErrMalformed = errors.New("not a return path token")
	ErrForged    = errors.New("return path token is not signed by any key of ours")
)

// Ref is what a token says. Any values are allowed and come back unchanged.
type Ref struct {
	Handover uint64 // the hand-over that brought the message into the relay
	Domain   uint32 // the recipient domain within the hand-over
	Lane     uint8  // the lane of its run
	Order    uint64 // the place of the message in its run
	Delivery uint64 // the delivery
}

// Key signs tokens. ID is written into the token so that the right key is found;
// Secret must come from a cryptographic random source.
type Key struct {
	ID     byte
	Secret [32]byte
}

// MaxKeys is how many keys a Keys may hold, the current one included.
const MaxKeys = 16

// Keys signs with one key and accepts several, so that a key can be replaced
// while bounces of older mail still arrive. Safe for concurrent use.
type Keys struct {
	keys []*signer // the current key first
}

type signer struct {
	id   byte
	macs sync.Pool // of hash.Hash, keyed
}

// NewKeys takes the key that signs and the older ones that Parse still accepts.
// It fails if two keys share an ID, a secret is all zero, or there are too many.
func NewKeys(current Key, older ...Key) (*Keys, error) {
	if len(older) >= MaxKeys {
		return nil, fmt.Errorf("return path keys: %d keys given; keep at most %d", len(older)+1, MaxKeys)
	}
	k := &Keys{}
	seen := map[byte]bool{}
	for _, key := range append([]Key{current}, older...) {
		switch {
		case seen[key.ID]:
			return nil, fmt.Errorf("return path keys: id %d is given twice; give every key its own id", key.ID)
		case key.Secret == [32]byte{}:
			return nil, fmt.Errorf("return path keys: the secret of key %d is empty; fill it with 32 random bytes", key.ID)
		}
		seen[key.ID] = true
		k.keys = append(k.keys, newSigner(key))
	}
	return k, nil
}

func newSigner(key Key) *signer {
	s := &signer{id: key.ID}
	s.macs.New = func() any { return hmac.New(sha256.New, key.Secret[:]) }
	return s
}

// The token is base32 of payload and MAC, in one of two forms told apart by
// length alone:
//
//	compact: version, key id, the five numbers as varints, MAC; at most 62 characters
//	wide:    the five numbers at full width, MAC, 3 bits of version; 63 characters
//
// Only numbers near the top of their range need the wide form. It has no room
// for a key id, so every key is tried.
const (
	version     = 1
	macSize     = 10 // octets: 80 bits of HMAC-SHA256
	compactMax  = 38 // octets: 61 characters
	wideNumbers = 8 + 4 + 1 + 8 + 8
	wideSize    = wideNumbers + macSize + 1
	wideVersion = version << 5
)

var alphabet = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// use is what a token is made for; its signature covers it.
type use string

const (
	forReturnPath use = "veredus return path "
	forMessageID  use = "veredus message id "
)

// Token returns the return path's token of ref: 1 to MaxLength characters of a-z and 2-7.
func (k *Keys) Token(ref Ref) string {
	return string(k.AppendToken(make([]byte, 0, MaxLength+1), ref))
}

// MessageID returns the Message-ID's token of ref, of the same form.
func (k *Keys) MessageID(ref Ref) string {
	return string(k.append(make([]byte, 0, MaxLength+1), ref, forMessageID))
}

// AppendToken appends the return path's token of ref to dst.
func (k *Keys) AppendToken(dst []byte, ref Ref) []byte { return k.append(dst, ref, forReturnPath) }

func (k *Keys) append(dst []byte, ref Ref, u use) []byte {
	var space [2 + 3*binary.MaxVarintLen64 + binary.MaxVarintLen32 + 2 + macSize]byte
	s := k.keys[0]
	raw := append(space[:0], version, s.id)
	for _, n := range [...]uint64{ref.Handover, uint64(ref.Domain), uint64(ref.Lane), ref.Order, ref.Delivery} {
		raw = binary.AppendUvarint(raw, n)
	}
	if len(raw)+macSize > compactMax {
		return k.appendWide(dst, ref, u)
	}
	return alphabet.AppendEncode(dst, s.appendMAC(raw, raw, u))
}

func (k *Keys) appendWide(dst []byte, ref Ref, u use) []byte {
	raw := make([]byte, 0, wideSize)
	raw = binary.BigEndian.AppendUint64(raw, ref.Handover)
	raw = binary.BigEndian.AppendUint32(raw, ref.Domain)
	raw = append(raw, ref.Lane)
	raw = binary.BigEndian.AppendUint64(raw, ref.Order)
	raw = binary.BigEndian.AppendUint64(raw, ref.Delivery)
	raw = append(k.keys[0].appendMAC(raw, raw, u), wideVersion)
	dst = alphabet.AppendEncode(dst, raw)
	return dst[:len(dst)-1] // the last character holds five zero bits
}

// appendMAC appends the truncated MAC of payload to dst. Payloads of the two
// forms differ in length or first octet, so none signs as the other.
func (s *signer) appendMAC(dst, payload []byte, u use) []byte {
	var sum [sha256.Size]byte
	h := s.macs.Get().(hash.Hash)
	defer s.macs.Put(h)
	h.Reset()
	h.Write([]byte(u))
	h.Write([]byte{byte(len(payload)), s.id})
	h.Write(payload)
	return append(dst, h.Sum(sum[:0])[:macSize]...)
}

func (s *signer) signed(payload, mac []byte, u use) bool {
	var want [macSize]byte
	return hmac.Equal(s.appendMAC(want[:0], payload, u), mac)
}

// Parse returns what a return path's token says, upper and lower case alike. It fails with
// ErrMalformed or ErrForged, wrapped in nothing, and never panics.
func (k *Keys) Parse(token string) (Ref, error) { return k.parse(token, forReturnPath) }

// ParseAny is Parse for either token.
func (k *Keys) ParseAny(token string) (Ref, error) {
	ref, err := k.parse(token, forMessageID)
	if err == ErrForged {
		ref, err = k.parse(token, forReturnPath)
	}
	return ref, err
}

func (k *Keys) parse(token string, u use) (Ref, error) {
	if len(token) == MaxLength {
		return k.parseWide(token, u)
	}
	raw, err := decode(token)
	if err != nil || len(raw) < 2+5+macSize || len(raw) > compactMax || raw[0] != version {
		return Ref{}, ErrMalformed
	}
	payload, mac := raw[:len(raw)-macSize], raw[len(raw)-macSize:]
	for _, s := range k.keys {
		if s.id == payload[1] && s.signed(payload, mac, u) {
			return compactRef(payload[2:])
		}
	}
	return Ref{}, ErrForged
}

func (k *Keys) parseWide(token string, u use) (Ref, error) {
	raw, err := decode(token + "a")
	if err != nil || raw[wideSize-1] != wideVersion {
		return Ref{}, ErrMalformed
	}
	payload, mac := raw[:wideNumbers], raw[wideNumbers:wideNumbers+macSize]
	for _, s := range k.keys {
		if s.signed(payload, mac, u) {
			return Ref{
				Handover: binary.BigEndian.Uint64(payload),
				Domain:   binary.BigEndian.Uint32(payload[8:]),
				Lane:     payload[12],
				Order:    binary.BigEndian.Uint64(payload[13:]),
				Delivery: binary.BigEndian.Uint64(payload[21:]),
			}, nil
		}
	}
	return Ref{}, ErrForged
}

// decode accepts exactly the texts that encoding produces, in any case: base32
// has unused bits at its end, and a change there must not go unnoticed.
func decode(token string) ([]byte, error) {
	if len(token) > MaxLength+1 {
		return nil, ErrMalformed
	}
	var lower, again [MaxLength + 1]byte
	for i := range len(token) {
		c := token[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	raw, err := alphabet.AppendDecode(nil, lower[:len(token)])
	if err != nil || string(alphabet.AppendEncode(again[:0], raw)) != string(lower[:len(token)]) {
		return nil, ErrMalformed
	}
	return raw, nil
}

func compactRef(payload []byte) (Ref, error) {
	var n [5]uint64
	for i := range n {
		v, used := binary.Uvarint(payload)
		if used <= 0 {
			return Ref{}, ErrMalformed
		}
		n[i], payload = v, payload[used:]
	}
	if len(payload) != 0 || n[1] > math.MaxUint32 || n[2] > math.MaxUint8 {
		return Ref{}, ErrMalformed
	}
	return Ref{Handover: n[0], Domain: uint32(n[1]), Lane: uint8(n[2]), Order: n[3], Delivery: n[4]}, nil
}
