package pebblestore

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// keptPathEvents is how many of a path's last events are found by its name.
const keptPathEvents = 10

// pathEvents is where the last events of the paths to a destination are found: a row for each path, with
// their places in the log, the oldest first. Events that the log lost are skipped, so that
// the rows need no sweeping. Names have no NUL.
func pathEvents(destination string) []byte {
	return append(keyName(tablePathEvents, destination), 0)
}

// pathEvent notes that the next event is about the paths from a source, or from all when
// that is empty, to a destination.
func (t *txn) pathEvent(source, destination string) {
	if destination == "" {
		return
	}
	key := string(append(pathEvents(destination), source...))
	row, ok := t.pathEvents[key]
	if !ok {
		var err error
		row, err = t.s.get([]byte(key))
		t.keep(err)
	}
	row = append(row, number64(t.nextEvent)...)
	row = row[max(0, len(row)-8*keptPathEvents):]
	if t.pathEvents == nil {
		t.pathEvents = map[string][]byte{}
	}
	t.pathEvents[key] = row
	t.set([]byte(key), row)
}

// PathEvents reads the last events about the paths to a destination, the latest first.
func (s *Store) PathEvents(ctx context.Context, destination string) (list []*veredusv1.FeedbackEvent, err error) {
	s.mu.RLock()
	number := s.writer.applied
	s.mu.RUnlock()
	var places []uint64
	prefix := pathEvents(destination)
	err = s.scan(nil, prefix, after(prefix), func(_, v []byte) (bool, error) {
		for ; len(v) >= 8; v = v[8:] {
			places = append(places, be64(v))
		}
		return true, ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(places)
	for _, place := range slices.Backward(places) {
		row, err := s.get(eventKey(place))
		if err != nil {
			return nil, err
		}
		if row == nil { // trimmed
			continue
		}
		e := &veredusv1.FeedbackEvent{}
		if err := proto.Unmarshal(row, e); err != nil {
			return nil, corrupt(err)
		}
		e.Id = s.eventID(place)
		list = append(list, e)
	}
	return list, s.writer.await(ctx, number)
}
