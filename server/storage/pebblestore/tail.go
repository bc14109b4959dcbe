package pebblestore

import (
	"sync"

	"google.golang.org/protobuf/proto"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/feedback"
)

// tailSize is how many of the last events are kept encoded, about 1 KB each: those that
// readers who keep up ask for, be there one or a thousand.
const tailSize = 4096

// tail holds the last durable events.
type tail struct {
	mu     sync.Mutex
	events [tailSize]struct {
		place  uint64 // behind the event's sequence number; 0: none
		record feedback.Record
	}
}

// add takes the events before next, which are durable.
func (t *tail) add(records []feedback.Record, next uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, r := range records {
		sequence := next - uint64(len(records)-i)
		kept := &t.events[sequence%tailSize]
		kept.place, kept.record = sequence+1, r
	}
}

// read takes events of [from, upTo) within a budget; false when it has not got the first.
func (t *tail) read(from, upTo uint64, b budget) ([]feedback.Record, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var records []feedback.Record
	for ; from < upTo; from++ {
		kept := &t.events[from%tailSize]
		if kept.place != from+1 || !b.take(kept.record.Size()) {
			break
		}
		records = append(records, kept.record)
	}
	return records, len(records) > 0
}

// budget bounds what is read at a time, but for the first event.
type budget struct{ events, octets int }

func (b *budget) take(octets int) bool {
	if b.events <= 0 || b.octets <= 0 {
		return false
	}
	b.events, b.octets = b.events-1, b.octets-octets
	return true
}

// readEvents reads the events of [from, upTo) from disk within a budget: none when the first was
// removed.
func (s *Store) readEvents(from, upTo uint64, b budget) (records []feedback.Record, err error) {
	err = s.scan(nil, eventKey(from), eventKey(upTo), func(k, v []byte) (bool, error) {
		sequence := be64(k[3:])
		if sequence != from+uint64(len(records)) {
			return false, nil // a part was removed; the caller sees that some are missing
		}
		e := &veredusv1.FeedbackEvent{}
		if err := proto.Unmarshal(v, e); err != nil {
			return false, corrupt(err)
		}
		r := feedback.NewRecord(e, s.eventID(sequence), v)
		if !b.take(r.Size()) {
			return false, nil
		}
		records = append(records, r)
		return true, nil
	})
	return records, err
}
