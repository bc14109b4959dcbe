package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
)

// How things go.
//
// Events go from the front of their log, by one range delete; a reader whose place is
// gone is told so. A delivery that ended goes in two steps: one small write takes away
// content, log, runs, refused items and returns, each by a range delete, and notes in
// the delivery's row that it was purged, so that nobody sees half of it; the sweeper
// then removes recipients with their rows in the indexes, which lie scattered by hash.
// The delivery itself stays, with its counters. Single messages go from the front of their
// runs, which are in the order of arrival. Behind each the ranges are compacted, which is what
// gives the disk back: a range delete alone only hides rows.

// eventTimeField is the field of an event with its time.
const eventTimeField protowire.Number = 2

// TrimEvents removes the events before a time (zero: none), and the oldest beyond a
// size on disk in octets (0: none), in one write, and gives their room back. It
// answers how many went. Places before them answer feedback.ErrBeforeRetention.
func (s *Store) TrimEvents(ctx context.Context, before time.Time, size int64) (trimmed int64, err error) {
	oldest, next := s.Ends()
	upTo := oldest[0]
	if !before.IsZero() {
		if upTo, err = s.eventsBefore(before, upTo, next[0]); err != nil {
			return 0, err
		}
	}
	if size > 0 {
		if upTo, err = s.eventsBeyond(size, upTo, next[0]); err != nil {
			return 0, err
		}
	}
	if upTo == oldest[0] {
		return 0, nil
	}
	if err := s.Trim(ctx, feedback.Positions{upTo}); err != nil {
		return 0, err
	}
	return int64(upTo - oldest[0]), s.reclaim(ctx, eventKey(0), eventKey(upTo))
}

// eventsBefore is the place of the first event at or behind a time. Events are in the
// order of their writes; where a clock was set meanwhile the answer is a place
// with an older event before it and none at it.
func (s *Store) eventsBefore(at time.Time, from, to uint64) (uint64, error) {
	var failed error
	n := sort.Search(int(to-from), func(i int) bool {
		if failed != nil {
			return true
		}
		when, err := s.eventTime(from + uint64(i))
		failed = err
		return !when.Before(at)
	})
	return from + uint64(n), failed
}

// eventTime reads the time of an event.
func (s *Store) eventTime(sequence uint64) (at time.Time, err error) {
	row, err := s.get(eventKey(sequence))
	if err != nil {
		return at, err
	}
	if row == nil {
		return at, corrupt(fmt.Errorf("event %d is missing", sequence))
	}
	err = readRow(row, func(field protowire.Number, v value) error {
		if field != eventTimeField {
			return nil
		}
		var stamp timestamppb.Timestamp
		if err := proto.Unmarshal(v.bytes, &stamp); err != nil {
			return corrupt(err)
		}
		at = stamp.AsTime()
		return nil
	})
	return at, err
}

// eventsBeyond is the first place from which on the log takes at most size octets.
func (s *Store) eventsBeyond(size int64, from, to uint64) (uint64, error) {
	if from == to {
		return from, nil
	}
	if err := s.db.Flush(); err != nil { // only tables are measured
		return from, fmt.Errorf("pebblestore: flushing: %w", err)
	}
	var failed error
	n := sort.Search(int(to-from), func(i int) bool {
		if failed != nil {
			return true
		}
		used, err := s.db.EstimateDiskUsage(eventKey(from+uint64(i)), eventKey(to))
		failed = err
		return used <= uint64(size)
	})
	return from + uint64(n), failed
}

// EventBytes is about how much disk the event log takes.
func (s *Store) EventBytes() (int64, error) {
	oldest, next := s.Ends()
	n, err := s.db.EstimateDiskUsage(eventKey(oldest[0]), eventKey(next[0]))
	return int64(n), err
}

// reclaim gives back the room of removed rows of [start, end). It may take long, and
// ends early with ctx.
func (s *Store) reclaim(ctx context.Context, start, end []byte) error {
	err := s.db.Compact(ctx, start, end, false)
	if err != nil && !errors.Is(err, pebble.ErrCancelledCompaction) {
		return fmt.Errorf("pebblestore: compacting: %w", err)
	}
	return nil
}

// PurgeEnded removes content and messages of the deliveries that ended before a time,
// each in one write; its recipients follow in the background. The deliveries stay, with
// their counters. It answers how many were purged.
func (s *Store) PurgeEnded(ctx context.Context, before time.Time) (purged int64, err error) {
	numbers, err := s.endedBefore(before)
	for _, no := range numbers {
		done := false
		err := s.submit(ctx, func(t *txn) (err error) {
			done, err = t.purge(no, before)
			return err
		})
		if err != nil {
			return purged, err
		}
		if done {
			purged++
		}
	}
	return purged, err
}

// endedBefore lists the deliveries that may be purged.
func (s *Store) endedBefore(before time.Time) (numbers []uint64, err error) {
	prefix := []byte{tableDelivery}
	err = s.scan(nil, prefix, after(prefix), func(k, v []byte) (bool, error) {
		d, err := decodeDelivery(v)
		if err == nil && d.purgeable(before) {
			numbers = append(numbers, be64(k[1:]))
		}
		return true, err
	})
	return numbers, err
}

// purgeable reports whether the delivery ended before a time and still has its messages.
func (d *deliveryState) purgeable(before time.Time) bool {
	if !d.State.Final() || !d.purged.IsZero() {
		return false
	}
	ended := d.Finished
	if ended.IsZero() { // cancelled, and its last claims were lost in a crash
		ended = d.Updated
	}
	return ended.Before(before)
}

// purge removes all of an ended delivery but itself and its counters.
func (t *txn) purge(no uint64, before time.Time) (bool, error) {
	w, err := t.load(no)
	if err != nil || w == nil || !w.state.purgeable(before) || w.state.Counters.InRelay != 0 {
		return false, err
	}
	scope := w.state.scope()
	w.state.purged, w.record, t.kick = t.now, true, true
	t.touch(w)
	t.delete(key8(tableContent, w.state.Content))
	for _, table := range messageTables {
		t.deletePrefix(scope.all(table))
	}
	t.set(key8(tableTrash, no), number64(uint64(scope.tenant)))
	t.emptied = append(t.emptied, w.state.Handover)
	return true, t.endContents(no)
}

// endContents forgets the contents that single messages of a delivery shared.
func (t *txn) endContents(no uint64) error {
	prefix := key8(tableContentOf, no)
	return t.s.scan(nil, prefix, after(prefix), func(k, _ []byte) (bool, error) {
		t.unshared = append(t.unshared, be64(k[9:]))
		return true, nil
	})
}

// messageTables have rows of messages and runs by delivery, beside the recipients.
var messageTables = []byte{tableLog, tableRun, tableOpen, tableDomain, tableRetry, tableReject, tableReturned}

// purgeStep is how many single messages one write removes.
const purgeStep = 1000

// sharedFor is how long behind its last use, as noted, a content may be taken by another
// single message without a note.
const sharedFor = 24 * time.Hour

// PurgeSingles removes the single messages that arrived before a time, with the contents
// that none uses any more, in bounded writes. before must lie further back than any
// message lives: those that are not final stay. It answers how many went.
func (s *Store) PurgeSingles(ctx context.Context, before time.Time) (purged int64, err error) {
	var standing []uint64
	prefix := []byte{tableTransactional}
	err = s.scan(nil, prefix, after(prefix), func(_, v []byte) (bool, error) {
		standing = append(standing, be64(v))
		return true, nil
	})
	for _, no := range standing {
		d, viewed := s.viewNumber(no)
		if err = errors.Join(err, viewed); err != nil || d == nil {
			return purged, err
		}
		n, err := s.purgeSingles(ctx, d, before)
		purged += n
		if err != nil {
			return purged, err
		}
		if err := s.purgeContents(ctx, no, before.Add(-sharedFor)); err != nil {
			return purged, err
		}
	}
	return purged, err
}

func (s *Store) purgeSingles(ctx context.Context, d *deliveryState, before time.Time) (purged int64, err error) {
	scope := d.scope()
	for from := scope.all(tableRecipient); from != nil; {
		var list []single
		if list, from, err = s.oldSingles(d, from, before); err != nil {
			return purged, err
		}
		if len(list) == 0 {
			continue
		}
		err := s.submit(ctx, func(t *txn) error {
			for i := range list {
				t.purgeSingle(d, &list[i])
			}
			return nil
		})
		if err != nil {
			return purged, err
		}
		purged += int64(len(list))
	}
	if purged == 0 {
		return 0, nil
	}
	for _, table := range []byte{tableRecipient, tableLog, tableReturned} {
		if err := s.reclaim(ctx, scope.all(table), after(scope.all(table))); err != nil {
			return purged, err
		}
	}
	return purged, nil
}

// single is a single message to be removed: its key in the table of recipients, and its row.
type single struct {
	key []byte
	row recipient
}

// oldSingles reads up to purgeStep final single messages that arrived before a time, from a
// key on, and where to go on (nil: nowhere). Behind the first of a run that is too young
// it goes to the next: a run is in the order of arrival.
func (s *Store) oldSingles(d *deliveryState, from []byte, before time.Time) (list []single, following []byte, err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: after(d.scope().all(tableRecipient))})
	if err != nil {
		return nil, nil, fmt.Errorf("pebblestore: reading: %w", err)
	}
	defer it.Close()
	for ok := it.First(); ok; {
		if len(list) >= purgeStep {
			return list, bytes.Clone(it.Key()), nil
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, nil, fmt.Errorf("pebblestore: reading: %w", err)
		}
		row, err := decodeRecipient(value)
		if err != nil {
			return nil, nil, err
		}
		k := it.Key()
		if !row.arrival.Before(before) {
			ok = it.SeekGE(after(k[:len(k)-8])) // the next lane
			continue
		}
		final, err := s.isFinal(k, &row)
		if err != nil {
			return nil, nil, err
		}
		if final {
			row.variables, row.metadata = nil, nil // point into the iterator
			list = append(list, single{bytes.Clone(k), row})
		}
		ok = it.Next()
	}
	if err := it.Error(); err != nil {
		return nil, nil, fmt.Errorf("pebblestore: reading: %w", err)
	}
	return list, nil, nil
}

// isFinal reports whether a message has its last status; k is its key as a recipient.
func (s *Store) isFinal(k []byte, row *recipient) (bool, error) {
	if row.ignored != 0 {
		return true, nil
	}
	settled, err := s.get(append([]byte{tableLog}, k[1:]...))
	if err != nil || settled == nil {
		return false, err
	}
	log, err := decodeLog(settled)
	return err == nil && log.status.final(), err
}

func (t *txn) purgeSingle(d *deliveryState, m *single) {
	id, ok := parsePlace(m.key)
	if !ok {
		return
	}
	t.delete(m.key)
	t.delete(append([]byte{tableLog}, m.key[1:]...))
	t.delete(append([]byte{tableReturned}, m.key[1:]...))
	t.deleteIndexes(d.No, id, &m.row)
}

// deleteIndexes removes the rows by which a message is found, and its expiry.
func (t *txn) deleteIndexes(no uint64, id mta.MessageID, r *recipient) {
	hash := hashOf(r.folded)
	t.delete(addressKey(hash, no, 0))
	t.delete(addressKey(hash, no, id.Order))
	if r.recipientID != "" {
		t.delete(appendPlace(indexKey(tableRecipientID, hashOf(r.recipientID), no), id))
	}
	if !r.expires.IsZero() {
		t.delete(expiryKey(r.expires, id))
	}
}

// purgeContents removes the contents that no single message took since a time.
func (s *Store) purgeContents(ctx context.Context, no uint64, since time.Time) error {
	from, prefix := key8(tableContentOf, no), key8(tableContentOf, no)
	for from != nil {
		err := s.submit(ctx, func(t *txn) (err error) {
			from, err = t.purgeContents(from, after(prefix), since)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// purgeContents is one step of it; it answers where to go on (nil: nowhere). A content
// whose use was never noted counts as used now.
func (t *txn) purgeContents(from, end []byte, since time.Time) (following []byte, err error) {
	seen := 0
	err = t.s.scan(nil, from, end, func(k, v []byte) (bool, error) {
		if seen++; seen > purgeStep {
			following = bytes.Clone(k)
			return false, nil
		}
		switch {
		case len(v) == 0:
			t.set(bytes.Clone(k), number64(uint64(nanos(t.now))))
		case timeOf(int64(be64(v))).Before(since):
			t.delete(bytes.Clone(k))
			t.delete(key8(tableContent, be64(k[9:])))
			t.unshared = append(t.unshared, be64(k[9:]))
		}
		return true, nil
	})
	return following, err
}

// saysNow is what a delivery says that was changed since it was read.
func (s *Store) saysNow(d *campaign.Delivery) (*veredusv1.Delivery, error) {
	n, err := s.viewNumber(d.No)
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, notFound(d.ID)
	}
	return s.saysOf(n)
}

// saysOf is what a delivery says; nothing when that was purged.
func (s *Store) saysOf(d *deliveryState) (*veredusv1.Delivery, error) {
	if !d.purged.IsZero() {
		return &veredusv1.Delivery{}, nil
	}
	return s.readSpec(d.Content)
}
