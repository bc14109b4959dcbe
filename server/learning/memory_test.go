package learning

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/server/address"
)

// memory is a Store in memory.
type memory struct {
	mu     sync.Mutex
	texts  map[ID]Text
	writes int
	err    error         // of the next writes
	gate   chan struct{} // each write waits for it unless nil
}

func newMemory() *memory { return &memory{texts: map[ID]Text{}} }

func (m *memory) AddReplyTexts(_ context.Context, texts []Text) error {
	if m.gate != nil {
		<-m.gate
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	m.writes++
	for _, t := range texts {
		known, ok := m.texts[t.ID]
		if !ok {
			t.Providers = maps.Clone(t.Providers)
			m.texts[t.ID] = t
			continue
		}
		known.Providers = maps.Clone(known.Providers)
		known.add(&t)
		known.LastTime, known.Verdict = t.LastTime, t.Verdict
		m.texts[t.ID] = known
	}
	return nil
}

func (m *memory) ReplyText(_ context.Context, id ID) (*Text, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.texts[id]
	if !ok {
		return nil, ErrNotFound
	}
	t.Providers = maps.Clone(t.Providers)
	return &t, nil
}

func (m *memory) SetReplyTextStatus(_ context.Context, id ID, status Status) (*Text, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.texts[id]
	if !ok {
		return nil, ErrNotFound
	}
	t.Status = status
	m.texts[id] = t
	return &t, nil
}

func (m *memory) EachReplyText(_ context.Context, each func(*Text) bool) error {
	m.mu.Lock()
	texts := slices.Collect(maps.Values(m.texts))
	m.mu.Unlock()
	for i := range texts {
		if !each(&texts[i]) {
			return nil
		}
	}
	return nil
}

func (m *memory) DeleteReplyTexts(_ context.Context, ids []ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		delete(m.texts, id)
	}
	return nil
}

func (m *memory) all() []Text {
	m.mu.Lock()
	defer m.mu.Unlock()
	return mostFrequent(slices.Collect(maps.Values(m.texts)), len(m.texts))
}

// book is Entries in memory, in pages of two.
type book struct {
	entries map[address.Key]address.Entry
	audits  []string
	largest int // keys in one change
	// meanwhile is called before each change, as another client might change an entry.
	meanwhile func(*book)
}

func newBook(entries ...address.Entry) *book {
	b := &book{entries: map[address.Key]address.Entry{}}
	for _, e := range entries {
		b.entries[e.Key] = e
	}
	return b
}

func (b *book) ListAddressEntries(_ context.Context, f address.Filter, cursor []byte, _ int) ([]address.Entry, []byte, error) {
	keys := slices.SortedFunc(maps.Keys(b.entries), func(x, y address.Key) int { return strings.Compare(x.Folded, y.Folded) })
	var page []address.Entry
	for _, k := range keys {
		if k.Folded <= string(cursor) || b.entries[k].Status != f.Status {
			continue
		}
		if len(page) == 2 {
			return page, []byte(page[1].Folded), nil
		}
		page = append(page, b.entries[k])
	}
	return page, nil, nil
}

func (b *book) ChangeAddressEntries(_ context.Context, keys []address.Key, _ address.Request, audit string, change func(address.Entry) address.Entry) ([]address.Entry, error) {
	if b.meanwhile != nil {
		b.meanwhile(b)
	}
	b.audits = append(b.audits, audit)
	b.largest = max(b.largest, len(keys))
	var after []address.Entry
	for _, k := range keys {
		was := b.entries[k]
		was.Key = k
		change(was) // a store may ask more than once
		is := change(was)
		after = append(after, is)
		if b.entries[k] = is; is.Status == 0 {
			delete(b.entries, k)
		}
	}
	return after, nil
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// rules compiles an operator's rules.
func rules(t testing.TB, yaml string) *bounce.Table {
	t.Helper()
	table, err := bounce.Load([]byte(yaml), "own.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func policy() address.Policy {
	return address.Policy{Threshold: 5, ErrorFree: 240 * time.Hour, MailboxFull: 720 * time.Hour}
}
