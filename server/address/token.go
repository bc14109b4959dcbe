package address

import (
	"crypto/sha256"
	"encoding/base64"

	"google.golang.org/protobuf/proto"
)

// A page token is base64url of: version, the first octets of the filter's hash, the
// store's cursor, the first octets of the hash of all that. So a token of another filter,
// of a newer version, or one that was cut, is told apart.
const (
	tokenVersion = 1
	tokenFilter  = 8
	tokenSum     = 4
	maxToken     = 2 << 10
)

// filterSum is the hash of a filter.
func filterSum(filter proto.Message) [tokenFilter]byte {
	raw, _ := proto.MarshalOptions{Deterministic: true}.Marshal(filter)
	sum := sha256.Sum256(raw)
	return [tokenFilter]byte(sum[:])
}

// pageToken writes a cursor for the next page; empty when there is none.
func pageToken(filter [tokenFilter]byte, cursor []byte) string {
	if len(cursor) == 0 {
		return ""
	}
	raw := append([]byte{tokenVersion}, filter[:]...)
	raw = append(raw, cursor...)
	sum := sha256.Sum256(raw)
	return base64.RawURLEncoding.EncodeToString(append(raw, sum[:tokenSum]...))
}

// cursor reads a page token of the filter; nil when there is none.
func (v *violations) cursor(filter [tokenFilter]byte, token string) []byte {
	if token == "" {
		return nil
	}
	const field, remedy = "page_token", "give next_page_token of the previous answer unchanged, or leave it empty to start anew"
	if len(token) > maxToken {
		v.add(field, token, "is no page token", remedy)
		return nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) <= 1+tokenFilter+tokenSum {
		v.add(field, token, "is no page token", remedy)
		return nil
	}
	body, sum := raw[:len(raw)-tokenSum], sha256.Sum256(raw[:len(raw)-tokenSum])
	switch {
	case string(raw[len(body):]) != string(sum[:tokenSum]):
		v.add(field, token, "is damaged", remedy)
	case body[0] != tokenVersion:
		v.add(field, token, "is of another version", remedy)
	case [tokenFilter]byte(body[1:]) != filter:
		v.add(field, token, "belongs to another filter", "keep the filter as it was for the first page")
	default:
		return body[1+tokenFilter:]
	}
	return nil
}
