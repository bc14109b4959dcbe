package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Every recipient is looked up before it is stored, whether its delivery has the
// address already. The rows of the index lie all over the disk, and the database's
// own bloom filters only know whether any delivery ever had the address, which for
// a list that is mailed each week is always so. A filter in memory for each delivery
// under upload spares all but one in a hundred of these reads.

const (
	filterBits    = 10 // per address: 1 % of false alarms with filterProbes
	filterProbes  = 7
	firstLayer    = 64 << 10 // addresses of the first layer; each has four times the one before
	maxFilterSize = 64 << 20 // octets of all filters together
)

// layer is one bloom filter of fixed capacity.
type layer struct {
	bits []uint64
	left int
}

func newLayer(capacity int) *layer {
	return &layer{bits: make([]uint64, capacity*filterBits/64), left: capacity}
}

func (l *layer) size() int { return len(l.bits) * 8 }

// add notes a hash; has reports whether it may have been noted. The bits are chosen by
// double hashing.
func (l *layer) add(h [hashSize]byte) {
	a, b, n := spread(h), step(h), uint64(len(l.bits)*64)
	for range filterProbes {
		l.bits[a%n/64] |= 1 << (a % n % 64)
		a += b
	}
	l.left--
}

func (l *layer) has(h [hashSize]byte) bool {
	a, b, n := spread(h), step(h), uint64(len(l.bits)*64)
	for range filterProbes {
		if l.bits[a%n/64]&(1<<(a%n%64)) == 0 {
			return false
		}
		a += b
	}
	return true
}

func spread(h [hashSize]byte) uint64 { return binary.LittleEndian.Uint64(h[:8]) }
func step(h [hashSize]byte) uint64   { return binary.LittleEndian.Uint64(h[8:]) | 1 }

// layers grow as addresses come.
type layers []*layer

func (l *layers) add(h [hashSize]byte) (grown int) {
	if n := len(*l); n == 0 || (*l)[n-1].left == 0 {
		capacity := firstLayer << (2 * min(n, 5))
		*l = append(*l, newLayer(capacity))
		grown = (*l)[n].size()
	}
	(*l)[len(*l)-1].add(h)
	return grown
}

func (l layers) has(h [hashSize]byte) bool {
	for _, layer := range l {
		if layer.has(h) {
			return true
		}
	}
	return false
}

// addressFilter knows the addresses of one delivery.
type addressFilter struct {
	added layers // since it exists; of the applier alone
	used  uint64
	size  int

	mu       sync.Mutex
	earlier  layers // from before
	complete bool   // earlier is
}

// mayHave reports whether the delivery may have the address; true while that is not known.
func (f *addressFilter) mayHave(h [hashSize]byte) bool {
	if f.added.has(h) {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.complete || f.earlier.has(h)
}

// filters are those of the deliveries under upload. Of the applier alone.
type filters struct {
	byDelivery map[uint64]*addressFilter
	tick       uint64
	size       int
	readers    sync.WaitGroup
	ctx        context.Context
	cancel     context.CancelFunc
}

func (fs *filters) start() {
	fs.byDelivery = map[uint64]*addressFilter{}
	fs.ctx, fs.cancel = context.WithCancel(context.Background())
}

func (fs *filters) stop() {
	fs.cancel()
	fs.readers.Wait()
}

// filter is the delivery's. When it has recipients already, from before a restart or
// since its filter had to go, these are read in the background.
func (s *Store) filter(w *work) *addressFilter {
	fs := &s.filters
	f := fs.byDelivery[w.state.No]
	if f == nil {
		f = &addressFilter{complete: w.state.Counters.Pending == 0}
		fs.byDelivery[w.state.No] = f
		if !f.complete {
			snapshot, scope := s.db.NewSnapshot(), w.state.scope()
			fs.readers.Go(func() { s.readFilter(f, snapshot, scope) })
		}
	}
	fs.tick++
	f.used = fs.tick
	return f
}

// readFilter fills in the addresses stored before the filter existed.
func (s *Store) readFilter(f *addressFilter, snapshot *pebble.Snapshot, sc scope) {
	defer snapshot.Close()
	var earlier layers
	err := s.scan(snapshot, sc.all(tableRecipient), after(sc.all(tableRecipient)), func(_, v []byte) (bool, error) {
		r, err := decodeRecipient(v)
		if r.ignored == 0 {
			earlier.add(hashOf(r.folded))
		}
		return true, errors.Join(err, s.filters.ctx.Err())
	})
	if err != nil {
		return // the filter stays incomplete; every address is looked up
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.earlier, f.complete = earlier, true
}

// note adds addresses that were stored. When the filters grow too large those used
// longest ago go.
func (fs *filters) note(delivery uint64, hashes map[[hashSize]byte]bool) {
	f := fs.byDelivery[delivery]
	if f == nil {
		return
	}
	for h := range hashes {
		grown := f.added.add(h)
		f.size += grown
		fs.size += grown
	}
	for fs.size > maxFilterSize {
		fs.drop(fs.oldest())
	}
}

func (fs *filters) oldest() (delivery uint64) {
	var used uint64
	for no, f := range fs.byDelivery {
		if used == 0 || f.used < used {
			delivery, used = no, f.used
		}
	}
	return delivery
}

// drop forgets a delivery's filter.
func (fs *filters) drop(delivery uint64) {
	if f := fs.byDelivery[delivery]; f != nil {
		fs.size -= f.size
		delete(fs.byDelivery, delivery)
	}
}
