package campaign

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A page token is base64url of: version, the first octets of the query's hash, the
// cursor, the first octets of the hash of all that. So a token of another list, of
// other filters, of a newer version, or one that was cut, is told apart.
const (
	tokenVersion = 1
	tokenQuery   = 8
	tokenSum     = 4
	maxToken     = 512
)

// query is the hash of a list request without what may differ between its pages.
func query(method string, req proto.Message) [tokenQuery]byte {
	clone := proto.Clone(req).ProtoReflect()
	for _, name := range [...]protoreflect.Name{"page_token", "page_size"} {
		if field := clone.Descriptor().Fields().ByName(name); field != nil {
			clone.Clear(field)
		}
	}
	raw, _ := proto.MarshalOptions{Deterministic: true}.Marshal(clone.Interface())
	sum := sha256.Sum256(append([]byte(method+"\x00"), raw...))
	return [tokenQuery]byte(sum[:])
}

// pageToken writes a cursor for the next page; empty when there is none.
func pageToken(query [tokenQuery]byte, cursor []byte) string {
	if len(cursor) == 0 {
		return ""
	}
	raw := append([]byte{tokenVersion}, query[:]...)
	raw = append(raw, cursor...)
	sum := sha256.Sum256(raw)
	return base64.RawURLEncoding.EncodeToString(append(raw, sum[:tokenSum]...))
}

// cursor reads a page token of the query; nil when there is none.
func (v *violations) cursor(query [tokenQuery]byte, token string) []byte {
	if token == "" {
		return nil
	}
	const field, remedy = "page_token", "give next_page_token of the previous answer unchanged, or leave it empty to start anew"
	if len(token) > maxToken {
		v.add(field, token, "is no page token", remedy)
		return nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) <= 1+tokenQuery+tokenSum {
		v.add(field, token, "is no page token", remedy)
		return nil
	}
	body, sum := raw[:len(raw)-tokenSum], sha256.Sum256(raw[:len(raw)-tokenSum])
	switch {
	case string(raw[len(body):]) != string(sum[:tokenSum]):
		v.add(field, token, "is damaged", remedy)
	case body[0] != tokenVersion:
		v.add(field, token, "is of another version", remedy)
	case [tokenQuery]byte(body[1:]) != query:
		v.add(field, token, "belongs to another query", "keep the other fields as they were for the first page")
	default:
		return body[1+tokenQuery:]
	}
	return nil
}

// number is a cursor that is a number.
func number(n uint64) []byte { return binary.AppendUvarint(nil, n) }

// number reads a cursor that is a number; 0 when there is none.
func (v *violations) number(cursor []byte) uint64 {
	if len(cursor) == 0 {
		return 0
	}
	n, used := binary.Uvarint(cursor)
	if used != len(cursor) {
		v.add("page_token", "", "is no page token", "give next_page_token of the previous answer unchanged")
		return 0
	}
	return n
}
