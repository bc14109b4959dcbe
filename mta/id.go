package mta

import (
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
)

// idAlphabet is Crockford's base32 in lower case: it sorts like the bytes it stands for.
var idAlphabet = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// String is the id as it stands in a resource name, `deliveries/D/messages/M`: an
// opaque lower-case word.
func (id MessageID) String() string {
	var b [26]byte
	out := binary.AppendUvarint(b[:0], id.Handover)
	out = binary.AppendUvarint(out, uint64(id.Domain))
	out = append(out, id.Lane)
	out = binary.AppendUvarint(out, id.Order)
	return idAlphabet.EncodeToString(out)
}

// ParseMessageID is the inverse of String. Only the exact form that String gives is accepted.
func ParseMessageID(s string) (MessageID, error) {
	bad := fmt.Errorf("message id %q is malformed: give one that the service answered", clip(s, 24))
	raw, err := idAlphabet.DecodeString(strings.ToLower(s))
	if err != nil || len(s) > 42 {
		return MessageID{}, bad
	}
	var id MessageID
	n := 0
	if id.Handover, n = binary.Uvarint(raw); n <= 0 {
		return MessageID{}, bad
	}
	raw = raw[n:]
	domain, n := binary.Uvarint(raw)
	if n <= 0 || domain > 1<<32-1 || len(raw) < n+2 {
		return MessageID{}, bad
	}
	id.Domain, id.Lane, raw = uint32(domain), raw[n], raw[n+1:]
	if id.Order, n = binary.Uvarint(raw); n != len(raw) || id.String() != s {
		return MessageID{}, bad
	}
	return id, nil
}

// position is the message's place in its run.
func (id MessageID) position() Position { return Position{Lane: id.Lane, Order: id.Order} }

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}
