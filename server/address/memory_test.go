package address

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// memory is a Store in a map.
type memory struct {
	mu       sync.Mutex
	policy   Policy
	now      func() time.Time
	entries  map[Key]Entry
	requests map[string]remembered
	audits   []string // each with its count
	rows     int      // most rows that a listing reads; 0: any
	twice    bool     // calls change two times, as a Store may
	fail     func(write int) error
	writes   int
	keys     []LinkKey
}

type remembered struct {
	call    Request
	entries []Entry
}

var _ Store = (*memory)(nil)

func newMemory(now func() time.Time) *memory {
	return &memory{policy: DefaultPolicy(), now: now, entries: map[Key]Entry{}, requests: map[string]remembered{}, twice: true}
}

func (m *memory) service() *Service {
	return NewService(Options{Store: m, Policy: func() Policy { return m.policy }, Replay: m.replay, Now: m.now})
}

func (m *memory) seen(req Request) (remembered, bool, error) {
	r, found := m.requests[req.ID]
	if found && (r.call.Method != req.Method || r.call.Body != req.Body) {
		return r, false, fmt.Errorf("memory: %w", ErrRequestIDReused)
	}
	return r, found && req.ID != "", nil
}

func (m *memory) replay(_ context.Context, req Request) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, found, err := m.seen(req)
	return []byte(r.call.Answer), found, err
}

func (m *memory) sorted() []Entry {
	var list []Entry
	for _, e := range m.entries {
		if !e.Expired(m.policy, m.now()) {
			e.Evidence = slices.Clone(e.Evidence)
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(EntryName(a.Key), EntryName(b.Key)) })
	return list
}

func (m *memory) Exclusions(_ context.Context, queries []Query) ([]Exclusion, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	answers := make([]Exclusion, len(queries))
	for i, q := range queries {
		answers[i] = Decide(m.sorted(), q, m.policy, m.now())
	}
	return answers, nil
}

func (m *memory) AddressEntries(_ context.Context, folded string) ([]Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(m.sorted(), func(e Entry) bool { return e.Folded != folded }), nil
}

func (m *memory) ListAddressEntries(_ context.Context, f Filter, cursor []byte, most int) (page []Entry, next []byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	read := 0
	for _, e := range m.sorted() {
		name := EntryName(e.Key)
		if name <= string(cursor) {
			continue
		}
		if len(page) == most || m.rows > 0 && read == m.rows {
			return page, next, nil
		}
		read++
		next = []byte(name)
		if f.Keeps(&e) {
			page = append(page, e)
		}
	}
	return page, nil, nil
}

func (m *memory) ChangeAddressEntries(ctx context.Context, keys []Key, req Request, audit string, change func(Entry) Entry) ([]Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, found, err := m.seen(req)
	if found || err != nil {
		return r.entries, err
	}
	if len(keys) > MaxWrite {
		return nil, fmt.Errorf("memory: %d keys", len(keys))
	}
	if m.writes++; m.fail != nil {
		if err := m.fail(m.writes); err != nil {
			return nil, err
		}
	}
	var answer []Entry
	count := 0
	for _, k := range keys {
		old := m.entries[k]
		old.Key = k
		n := change(old)
		if m.twice {
			n = change(old)
		}
		if n.Status == 0 {
			n = Entry{Key: k}
		}
		if fmt.Sprint(n) != fmt.Sprint(old) {
			count++
		}
		if delete(m.entries, k); n.Status != 0 {
			m.entries[k] = n
		}
		answer = append(answer, n)
	}
	if count > 0 && audit != "" {
		m.audits = append(m.audits, fmt.Sprintf("%d: %s", count, audit))
	}
	if req.ID != "" {
		m.requests[req.ID] = remembered{req, answer}
	}
	return answer, nil
}

func (m *memory) Unsubscribe(ctx context.Context, u Unsubscription) (bool, error) {
	return false, fmt.Errorf("memory: no unsubscribes")
}

func (m *memory) UnsubscribeKeys(context.Context) ([]LinkKey, error) { return m.keys, nil }

func (m *memory) RotateUnsubscribeKey(_ context.Context, req Request) ([]LinkKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, found, err := m.seen(req); found || err != nil {
		return m.keys, err
	}
	m.keys = append(m.keys, LinkKey{ID: uint16(len(m.keys) + 1)})
	if req.ID != "" {
		m.requests[req.ID] = remembered{call: req}
	}
	return m.keys, nil
}

// nowhere is a Store that changes and keeps nothing, for benchmarks.
type nowhere struct{ Store }

func (nowhere) ChangeAddressEntries(_ context.Context, keys []Key, _ Request, _ string, change func(Entry) Entry) ([]Entry, error) {
	for _, k := range keys {
		change(Entry{Key: k})
	}
	return nil, nil
}
