package feedback

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
)

// Errors of ParseToken.
var (
	// ErrMalformedToken: it is not a token of this service.
	ErrMalformedToken = errors.New("feedback: token is malformed: give one that the stream answered, unchanged")
	// ErrOtherStore: it is a token of another store.
	ErrOtherStore = errors.New("feedback: token belongs to another store: start with oldest or now")
)

const (
	tokenVersion = 1
	tokenSum     = 4
	maxShards    = 1024
)

// Token writes positions of a store as an opaque text: version, store, positions,
// checksum. It does not depend on any filter.
func Token(store [16]byte, at Positions) string {
	raw := append([]byte{tokenVersion}, store[:]...)
	raw = binary.AppendUvarint(raw, uint64(len(at)))
	for _, p := range at {
		raw = binary.AppendUvarint(raw, p)
	}
	sum := sha256.Sum256(raw)
	return base64.RawURLEncoding.EncodeToString(append(raw, sum[:tokenSum]...))
}

// ParseToken reads a token of the store. The errors are ErrMalformedToken and ErrOtherStore.
func ParseToken(store [16]byte, token string) (Positions, error) {
	if len(token) > 16*maxShards {
		return nil, ErrMalformedToken
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) < 1+len(store)+1+tokenSum {
		return nil, ErrMalformedToken
	}
	body, sum := raw[:len(raw)-tokenSum], sha256.Sum256(raw[:len(raw)-tokenSum])
	if string(raw[len(body):]) != string(sum[:tokenSum]) {
		return nil, ErrMalformedToken
	}
	if body[0] != tokenVersion {
		return nil, fmt.Errorf("%w (version %d; this service writes %d)", ErrMalformedToken, body[0], tokenVersion)
	}
	if string(body[1:17]) != string(store[:]) {
		return nil, ErrOtherStore
	}
	return parsePositions(body[17:])
}

func parsePositions(raw []byte) (Positions, error) {
	count, n := binary.Uvarint(raw)
	if n <= 0 || count == 0 || count > maxShards {
		return nil, ErrMalformedToken
	}
	raw = raw[n:]
	at := make(Positions, 0, count)
	for range count {
		p, n := binary.Uvarint(raw)
		if n <= 0 {
			return nil, ErrMalformedToken
		}
		at, raw = append(at, p), raw[n:]
	}
	if len(raw) != 0 {
		return nil, ErrMalformedToken
	}
	return at, nil
}
