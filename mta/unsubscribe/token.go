// Package unsubscribe makes and reads the sealed token of hosted unsubscribe links
// (RFC 8058) and of their mailto twins. It carries whom to take off which list, so it works
// after the message is long gone; it is encrypted and authenticated, so nobody
// can read an address in it or make one.
//
// A server builds one Keys at start, and another when a key is added. The relay calls Link and
// Mailto for every message, and the listeners call Open for every token that arrives.
package unsubscribe

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math"
	"sync"

	"github.com/veredus/veredus/mta/returnpath"
)

// Errors of this package.
var (
	// ErrInvalid: not a token that a key of ours sealed.
	ErrInvalid = errors.New("not an unsubscribe token of ours")
	// ErrTooLong: the claim makes a token or a link beyond its limit.
	ErrTooLong = errors.New("unsubscribe link is too long")
)

// Claim is what a token says.
type Claim struct {
	Address  string // at most 318 octets, the longest that can be mailed
	Tenant   string
	List     string // List-Id; may be empty
	Delivery string // D of deliveries/D; may be empty
	Message  returnpath.Ref
}

// Key seals and opens tokens. ID is written into the token so that the right key is found;
// Secret must come from a cryptographic random source.
type Key struct {
	ID     uint16
	Secret [32]byte
}

// MaxKeys is how many keys a Keys holds at most.
const MaxKeys = 1000

// MaxToken is the longest token in characters. Ordinary claims give 100 to 200.
const MaxToken = 1200

// Keys seals with one key and opens with all of them, so that links in old mail go on
// working. It is immutable and safe for concurrent use.
type Keys struct {
	current *sealer
	by      map[uint16]*sealer
}

// New takes the keys, the current one last. It fails when there is none or too many, when two share
// an ID, or when a secret is all zero.
func New(keys ...Key) (*Keys, error) {
	if len(keys) == 0 || len(keys) > MaxKeys {
		return nil, fmt.Errorf("unsubscribe keys: %d given; give 1 to %d", len(keys), MaxKeys)
	}
	k := &Keys{by: make(map[uint16]*sealer, len(keys))}
	for _, key := range keys {
		if k.by[key.ID] != nil {
			return nil, fmt.Errorf("unsubscribe keys: id %d is given twice; give every key its own id", key.ID)
		}
		if key.Secret == [32]byte{} {
			return nil, fmt.Errorf("unsubscribe keys: the secret of key %d is empty; fill it with 32 random bytes", key.ID)
		}
		s, err := newSealer(key)
		if err != nil {
			return nil, fmt.Errorf("unsubscribe keys: key %d: %w", key.ID, err)
		}
		k.by[key.ID], k.current = s, s
	}
	return k, nil
}

// A token is base64url, without padding, of
//
//	version (1 octet), key id (2), synthetic IV (16), encrypted claim
//
// sealed as in SIV mode (RFC 5297 section 2, with HMAC-SHA-256 for S2V): the IV is
// the MAC of everything else, so the same claim under the same key makes the same token,
// which a message needs that must be rendered byte for byte the same at every attempt. An AEAD
// with a random nonce would change it, and one with a fixed nonce would break. Of two equal
// tokens an observer learns that they are equal, and they stand in one message.
const (
	version    = 1
	headerSize = 3
	ivSize     = aes.BlockSize
	prefixSize = headerSize + ivSize
)

// encoding refuses texts that differ in unused bits only: a token has one spelling.
var encoding = base64.RawURLEncoding.Strict()

// sealer is a key ready for use.
type sealer struct {
	id    uint16
	block cipher.Block
	macs  sync.Pool // of hash.Hash, keyed
}

// newSealer derives one key for each use, as SIV demands.
func newSealer(key Key) (*sealer, error) {
	encrypt, err := hkdf.Key(sha256.New, key.Secret[:], nil, "veredus unsubscribe encryption", 32)
	if err != nil {
		return nil, err
	}
	authenticate, err := hkdf.Key(sha256.New, key.Secret[:], nil, "veredus unsubscribe authentication", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(encrypt)
	if err != nil {
		return nil, err
	}
	s := &sealer{id: key.ID, block: block}
	s.macs.New = func() any { return hmac.New(sha256.New, authenticate) }
	return s, nil
}

// iv is the MAC of header and claim, cut to 128 bits.
func (s *sealer) iv(header, plain []byte) (iv [ivSize]byte) {
	var sum [sha256.Size]byte
	h := s.macs.Get().(hash.Hash)
	defer s.macs.Put(h)
	h.Reset()
	h.Write(header) // of fixed length, so that it cannot run into the claim
	h.Write(plain)
	copy(iv[:], h.Sum(sum[:0]))
	return iv
}

// Seal makes the token of a claim: letters, digits, - and _, beginning and ending with a letter
// or digit, so that no mail program that looks for links in a text cuts it short. Equal claims give equal
// tokens until the current key changes. The error is an ErrTooLong.
func (k *Keys) Seal(c Claim) (string, error) {
	s := k.current
	raw := make([]byte, prefixSize, 256)
	raw[0] = version
	binary.BigEndian.PutUint16(raw[1:], s.id)
	raw = c.append(raw)
	if len(raw)%3 == 0 {
		raw = append(raw, 0) // the last character then has unused bits, and is never - or _
	}
	if n := encoding.EncodedLen(len(raw)); n > MaxToken {
		return "", fmt.Errorf("%w: the token has %d characters (at most %d)", ErrTooLong, n, MaxToken)
	}
	iv := s.iv(raw[:headerSize], raw[prefixSize:])
	copy(raw[headerSize:], iv[:])
	cipher.NewCTR(s.block, iv[:]).XORKeyStream(raw[prefixSize:], raw[prefixSize:])
	return encoding.EncodeToString(raw), nil
}

// Open reads a token exactly as Seal made it with any of the keys. Whatever else it is
// given, the error is ErrInvalid; it never panics.
func (k *Keys) Open(token string) (Claim, error) {
	raw, ok := decode(token)
	if !ok || len(raw) < prefixSize || raw[0] != version {
		return Claim{}, ErrInvalid
	}
	s := k.by[binary.BigEndian.Uint16(raw[1:])]
	if s == nil {
		return Claim{}, ErrInvalid
	}
	var iv [ivSize]byte
	copy(iv[:], raw[headerSize:])
	plain := raw[prefixSize:]
	cipher.NewCTR(s.block, iv[:]).XORKeyStream(plain, plain)
	if want := s.iv(raw[:headerSize], plain); !hmac.Equal(iv[:], want[:]) {
		return Claim{}, ErrInvalid
	}
	return readClaim(plain)
}

// decode accepts the alphabet and nothing else: the library would pass over line ends.
func decode(token string) ([]byte, bool) {
	if len(token) > MaxToken {
		return nil, false
	}
	for i := range len(token) {
		if c := token[i]; c == '\r' || c == '\n' {
			return nil, false
		}
	}
	raw, err := encoding.DecodeString(token)
	return raw, err == nil
}

// append writes a claim: four texts, each behind its length, then five numbers.
func (c *Claim) append(b []byte) []byte {
	for _, text := range [...]string{c.Address, c.Tenant, c.List, c.Delivery} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	m := c.Message
	for _, n := range [...]uint64{m.Handover, uint64(m.Domain), uint64(m.Lane), m.Order, m.Delivery} {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// readClaim is the inverse of append. What it reads is authentic; a version of this program that
// wrote other things is all it guards against.
func readClaim(b []byte) (c Claim, err error) {
	for _, text := range [...]*string{&c.Address, &c.Tenant, &c.List, &c.Delivery} {
		n, used := binary.Uvarint(b)
		if used <= 0 || n > uint64(len(b)-used) {
			return Claim{}, ErrInvalid
		}
		*text, b = string(b[used:used+int(n)]), b[used+int(n):]
	}
	var numbers [5]uint64
	for i := range numbers {
		n, used := binary.Uvarint(b)
		if used <= 0 {
			return Claim{}, ErrInvalid
		}
		numbers[i], b = n, b[used:]
	}
	if len(b) > 1 || numbers[1] > math.MaxUint32 || numbers[2] > math.MaxUint8 {
		return Claim{}, ErrInvalid
	}
	c.Message = returnpath.Ref{
		Handover: numbers[0], Domain: uint32(numbers[1]), Lane: uint8(numbers[2]), Order: numbers[3], Delivery: numbers[4],
	}
	return c, nil
}
