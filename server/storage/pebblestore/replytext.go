package pebblestore

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/veredus/veredus/server/learning"
)

// Providers of a text are told apart up to a number; the rest are one.
const (
	maxTextProviders = 10
	otherProviders   = "other"
)

func replyTextKey(id learning.ID) []byte { return append([]byte{tableReplyText}, id[:]...) }

// AddReplyTexts adds what was said to the texts kept, in one write.
func (s *Store) AddReplyTexts(ctx context.Context, texts []learning.Text) error {
	if len(texts) == 0 {
		return ctx.Err()
	}
	return s.submit(ctx, func(t *txn) error {
		changed := map[learning.ID]*learning.Text{}
		for i := range texts {
			if err := t.addReplyText(changed, &texts[i]); err != nil {
				return err
			}
		}
		for i := range texts {
			if n := changed[texts[i].ID]; n != nil {
				t.set(replyTextKey(n.ID), encodeReplyText(n))
				delete(changed, n.ID)
			}
		}
		return nil
	})
}

func (t *txn) addReplyText(changed map[learning.ID]*learning.Text, n *learning.Text) (err error) {
	known := changed[n.ID]
	if known == nil {
		if known, err = t.s.replyText(n.ID); err != nil {
			return err
		}
	}
	if known == nil {
		first := *n
		first.Providers = mergeProviders(nil, n.Providers)
		changed[n.ID] = &first
		return nil
	}
	known.Count += n.Count
	known.Providers = mergeProviders(known.Providers, n.Providers)
	known.LastTime, known.Verdict = n.LastTime, n.Verdict
	changed[n.ID] = known
	return nil
}

// mergeProviders adds counts by provider, the most frequent first, as long as there is
// room; the others are counted together.
func mergeProviders(known, added map[string]int64) map[string]int64 {
	all := maps.Clone(known)
	if all == nil {
		all = map[string]int64{}
	}
	names := slices.SortedFunc(maps.Keys(added), func(a, b string) int {
		return cmp.Or(cmp.Compare(added[b], added[a]), cmp.Compare(a, b))
	})
	for _, name := range names {
		_, has := all[name]
		named := len(all)
		if _, other := all[otherProviders]; other {
			named--
		}
		if !has && named >= maxTextProviders {
			all[otherProviders] += added[name]
		} else {
			all[name] += added[name]
		}
	}
	return all
}

// ReplyText reads one text.
func (s *Store) ReplyText(ctx context.Context, id learning.ID) (*learning.Text, error) {
	if err := s.awaitApplied(ctx); err != nil {
		return nil, err
	}
	n, err := s.replyText(id)
	if err == nil && n == nil {
		err = noReplyText(id)
	}
	return n, err
}

func noReplyText(id learning.ID) error {
	return fmt.Errorf("reply text %s: %w", hex.EncodeToString(id[:]), learning.ErrNotFound)
}

// replyText reads one text; nil when there is none.
func (s *Store) replyText(id learning.ID) (*learning.Text, error) {
	row, err := s.get(replyTextKey(id))
	if err != nil || row == nil {
		return nil, err
	}
	return decodeReplyText(id, row)
}

// SetReplyTextStatus sets an operator's word.
func (s *Store) SetReplyTextStatus(ctx context.Context, id learning.ID, status learning.Status) (n *learning.Text, err error) {
	err = s.submit(ctx, func(t *txn) error {
		if n, err = t.s.replyText(id); err != nil {
			return err
		}
		if n == nil {
			return noReplyText(id)
		}
		n.Status = status
		t.set(replyTextKey(id), encodeReplyText(n))
		return nil
	})
	return n, err
}

// EachReplyText calls each for every text, in the order of their ids, as they stood at the call.
func (s *Store) EachReplyText(ctx context.Context, each func(*learning.Text) bool) error {
	if err := s.awaitApplied(ctx); err != nil {
		return err
	}
	snapshot := s.db.NewSnapshot()
	defer snapshot.Close()
	prefix := []byte{tableReplyText}
	return s.scan(snapshot, prefix, after(prefix), func(k, row []byte) (bool, error) {
		var id learning.ID
		copy(id[:], k[1:])
		n, err := decodeReplyText(id, row)
		if err != nil {
			return false, err
		}
		return each(n), ctx.Err()
	})
}

// DeleteReplyTexts removes texts; ones that are not there are passed over.
func (s *Store) DeleteReplyTexts(ctx context.Context, ids []learning.ID) error {
	return s.submit(ctx, func(t *txn) error {
		for _, id := range ids {
			t.delete(replyTextKey(id))
		}
		return nil
	})
}

func encodeReplyText(n *learning.Text) []byte {
	b := putString(nil, 1, n.Normalised)
	b = putBytes(b, 2, encodeReply(nil, &n.First))
	b = putInt(b, 3, n.Count)
	for _, name := range slices.Sorted(maps.Keys(n.Providers)) {
		b = putBytes(b, 4, protowire.AppendVarint(protowire.AppendString(nil, name), uint64(n.Providers[name])))
	}
	b = putTime(b, 5, n.FirstTime)
	b = putTime(b, 6, n.LastTime)
	b = putUint(b, 7, uint64(n.Status))
	return putBytes(b, 8, encodeVerdict(nil, &n.Verdict))
}

func decodeReplyText(id learning.ID, row []byte) (*learning.Text, error) {
	n := &learning.Text{ID: id, Providers: map[string]int64{}}
	err := readRow(row, func(field protowire.Number, v value) (err error) {
		switch field {
		case 1:
			n.Normalised = v.string()
		case 2:
			n.First, err = decodeReply(v.bytes)
		case 3:
			n.Count = v.int()
		case 4:
			err = decodeProvider(n.Providers, v.bytes)
		case 5:
			n.FirstTime = v.time()
		case 6:
			n.LastTime = v.time()
		case 7:
			n.Status = learning.Status(v.n)
		case 8:
			n.Verdict, err = decodeVerdict(v.bytes)
		}
		return err
	})
	return n, err
}

func decodeProvider(into map[string]int64, b []byte) error {
	name, n := protowire.ConsumeString(b)
	if n < 0 {
		return corrupt(protowire.ParseError(n))
	}
	count, l := protowire.ConsumeVarint(b[n:])
	if l < 0 {
		return corrupt(protowire.ParseError(l))
	}
	into[name] = int64(count)
	return nil
}
