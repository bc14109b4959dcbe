package server

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

// pageKind tells the tokens of different lists apart.
type pageKind byte

const (
	suspensionsPage pageKind = iota + 1
	destinationsPage
)

// page is the place in a list behind which the next page begins. Its token is
// opaque to clients.
type page struct {
	kind pageKind
	name string
	size int64 // destinations: messages waiting
}

const pageVersion = 1

func (p page) token() string {
	raw := []byte{pageVersion, byte(p.kind)}
	raw = binary.AppendVarint(raw, p.size)
	return base64.RawURLEncoding.EncodeToString(append(raw, p.name...))
}

// parsePage reads a token; the zero page for none.
func parsePage(kind pageKind, token string) (page, error) {
	if token == "" {
		return page{}, nil
	}
	bad := invalid("page_token", token, "is no page token of this list", "give next_page_token of the previous answer unchanged, or leave it empty to start anew")
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) < 3 || len(raw) > 512 || raw[0] != pageVersion || raw[1] != byte(kind) {
		return page{}, bad
	}
	size, n := binary.Varint(raw[2:])
	if n <= 0 || len(raw) == 2+n {
		return page{}, bad
	}
	return page{kind: kind, size: size, name: string(raw[2+n:])}, nil
}

const (
	defaultPage = 100
	maxPage     = 1000
)

func pageSize(n int32) (int, error) {
	switch {
	case n == 0:
		return defaultPage, nil
	case n < 0 || n > maxPage:
		return 0, invalid("page_size", fmt.Sprint(n), "is out of range", "use 1 to 1000, or 0 for 100")
	}
	return int(n), nil
}
