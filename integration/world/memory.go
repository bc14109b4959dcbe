package world

import "time"

// memory remembers a little about many keys without growing past twice its
// generation size: when the young generation is full it becomes the old one and
// the former old one is forgotten. Keys in use move to the young generation.
type memory struct {
	young, old map[uint64]memo
	size       int
}

// memo is when a key was first seen and how often.
type memo struct {
	first time.Time
	count int
}

func newMemory(size int) *memory {
	return &memory{young: map[uint64]memo{}, size: size}
}

func (m *memory) get(key uint64) (memo, bool) {
	if v, ok := m.young[key]; ok {
		return v, true
	}
	v, ok := m.old[key]
	return v, ok
}

func (m *memory) put(key uint64, v memo) {
	if _, ok := m.young[key]; !ok && len(m.young) >= m.size {
		m.young, m.old = make(map[uint64]memo, m.size/4), m.young
	}
	m.young[key] = v
}
