package learning

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

const (
	defaultPage = 100
	maxPage     = 1000
	maxProvider = 64 // octets of a provider's id
)

// ListReplyTexts implements the call: texts, those said most often first. A page
// reads all texts, at most MaxTexts. A text that is said while a client turns pages
// may change its place, and so be shown twice or not at all.
func (s *Service) ListReplyTexts(ctx context.Context, req *veredusv1.ListReplyTextsRequest) (*veredusv1.ListReplyTextsResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	if _, ok := veredusv1.ReplyTextStatus_name[int32(req.GetStatus())]; !ok {
		return nil, invalid("status", fmt.Sprint(int32(req.GetStatus())), "is no status", "use TO_QUALIFY, KEEP or IGNORE, or leave it unset for all")
	}
	if len(req.GetProvider()) > maxProvider {
		return nil, invalid("provider", req.GetProvider(), "is no provider", `use the id of one, such as "google", or "other"`)
	}
	after, err := parsePlace(req)
	if err != nil {
		return nil, err
	}
	if err := s.flush(ctx); err != nil {
		return nil, err
	}
	top, err := s.top(ctx, req, after, size)
	if err != nil {
		return nil, err
	}
	resp := &veredusv1.ListReplyTextsResponse{}
	if len(top) > size {
		top = top[:size]
		resp.NextPageToken = place{top[size-1].Count, top[size-1].ID}.token(req)
	}
	rules := s.o.Bounces()
	for i := range top {
		resp.ReplyTexts = append(resp.ReplyTexts, textView(&top[i], rules))
	}
	return resp, nil
}

// top are the first size+1 texts behind a place that the request asks for.
func (s *Service) top(ctx context.Context, req *veredusv1.ListReplyTextsRequest, after *place, size int) ([]Text, error) {
	rules := s.o.Bounces()
	var top []Text
	err := s.o.Store.EachReplyText(ctx, func(t *Text) bool {
		if (after == nil || before(after.count, after.id, t.Count, t.ID)) && wanted(t, req, rules) {
			top = append(top, *t)
		}
		if len(top) >= 2*size+1000 {
			top = mostFrequent(top, size+1)
		}
		return ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	return mostFrequent(top, size+1), err
}

func wanted(t *Text, req *veredusv1.ListReplyTextsRequest, rules *bounce.Table) bool {
	if p := req.GetProvider(); p != "" && t.Providers[p] == 0 {
		return false
	}
	want := Status(req.GetStatus())
	return want == 0 || t.statusBy(rules.Qualify(t.input())) == want
}

// mostFrequent sorts texts and keeps the first n.
func mostFrequent(texts []Text, n int) []Text {
	slices.SortFunc(texts, func(a, b Text) int {
		if before(a.Count, a.ID, b.Count, b.ID) {
			return -1
		}
		return 1
	})
	return texts[:min(n, len(texts))]
}

func pageSize(n int32) (int, error) {
	switch {
	case n == 0:
		return defaultPage, nil
	case n < 0 || n > maxPage:
		return 0, invalid("page_size", fmt.Sprint(n), "is out of range", "use 1 to 1000, or 0 for 100")
	}
	return int(n), nil
}

// place is where a page ended.
type place struct {
	count int64
	id    ID
}

const (
	placeVersion = 1
	placeQuery   = 8
	placeSize    = 1 + placeQuery + 8 + len(ID{})
)

// queryOf is the hash of what must not change between pages.
func queryOf(req *veredusv1.ListReplyTextsRequest) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%s", req.GetStatus(), req.GetProvider()))
	return sum[:placeQuery]
}

// token writes a place in a request's list; opaque to clients.
func (p place) token(req *veredusv1.ListReplyTextsRequest) string {
	raw := append([]byte{placeVersion}, queryOf(req)...)
	raw = binary.BigEndian.AppendUint64(raw, uint64(p.count))
	return base64.RawURLEncoding.EncodeToString(append(raw, p.id[:]...))
}

// parsePlace reads the request's token, nil when there is none.
func parsePlace(req *veredusv1.ListReplyTextsRequest) (*place, error) {
	token := req.GetPageToken()
	if token == "" {
		return nil, nil
	}
	const remedy = "give next_page_token of the previous answer unchanged, or leave it empty to start anew"
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) != placeSize || raw[0] != placeVersion {
		return nil, invalid("page_token", token, "is no page token of this list", remedy)
	}
	if string(raw[1:1+placeQuery]) != string(queryOf(req)) {
		return nil, invalid("page_token", token, "belongs to a list with another status or provider", remedy)
	}
	p := &place{count: int64(binary.BigEndian.Uint64(raw[1+placeQuery:]))}
	copy(p.id[:], raw[1+placeQuery+8:])
	return p, nil
}
