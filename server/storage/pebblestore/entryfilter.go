package pebblestore

import (
	"errors"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Nearly every recipient has no entry, and that is what must cost next to nothing, at
// each ingest, before each attempt and at each delivery. The database's own filters say so in about
// 20 microseconds, most of them spent on finding the filter; one filter in
// memory says so in less than one, for one and a half octets an entry (less than three
// while it grows; the next start makes it fit).

// maxEntryFilter bounds the filter, in octets. It is enough for 20 million addresses; a store
// with more goes without and asks the disk.
const maxEntryFilter = 32 << 20

// entryFilter knows which addresses may have entries.
type entryFilter struct {
	mu       sync.RWMutex
	layers   layers
	size     int
	complete bool // every address stored is in it
	full     bool // it would be too large, and is none
}

// mayHave reports whether an address may have entries; true while that is not known.
func (f *entryFilter) mayHave(h [hashSize]byte) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return !f.complete || f.layers.has(h)
}

// add notes an address.
func (f *entryFilter) add(h [hashSize]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full {
		return
	}
	f.size += f.layers.add(h)
	f.bound()
}

// earlier puts what was stored before the filter existed in front of what came since.
func (f *entryFilter) earlier(l layers) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, layer := range l {
		f.size += layer.size()
	}
	f.layers, f.complete = append(l, f.layers...), true
	f.bound()
}

// bound gives the filter up when it has grown too large.
func (f *entryFilter) bound() {
	if f.full || f.size > maxEntryFilter {
		f.layers, f.size, f.complete, f.full = nil, 0, false, true
	}
}

// startEntryFilter has the addresses of all entries read in the background: from the index
// by domain, whose rows are a quarter of those of the entries.
func (s *Store) startEntryFilter() {
	count := s.entryCount.Load()
	if count == 0 {
		s.entryFilter.earlier(nil)
		return
	}
	snapshot := s.db.NewSnapshot()
	s.filters.readers.Go(func() {
		defer snapshot.Close()
		l, err := s.readEntryFilter(snapshot, count)
		if err != nil {
			if s.filters.ctx.Err() == nil {
				s.opts.Logger.Error("reading which addresses have entries; each will be looked up on the disk", "error", err)
			}
			return
		}
		s.entryFilter.earlier(l)
	})
}

func (s *Store) readEntryFilter(r pebble.Reader, count int64) (layers, error) {
	// Room for a quarter more spares the next layer, which each look-up would go through.
	capacity := min(max(count+count/4, firstLayer), maxEntryFilter*8/filterBits)
	l := layers{newLayer(int(capacity))}
	prefix := []byte{tableEntryOf}
	err := s.scan(r, prefix, after(prefix), func(k, _ []byte) (bool, error) {
		h, ok := parseEntryOfKey(k)
		if !ok {
			return false, corrupt(errors.New("key of the addresses of a domain"))
		}
		if l[0].left == 0 {
			return false, nil // more than are counted: the filter is too small to be one
		}
		l[0].add(h)
		return true, s.filters.ctx.Err()
	})
	if err == nil && l[0].left == 0 {
		err = errors.New("more than a filter in memory holds")
	}
	return l, err
}
