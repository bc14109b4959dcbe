package pebblestore

import (
	"sync"

	"google.golang.org/protobuf/proto"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// tailSize is how many of the last events are kept decoded, about 1 KB each: those that
// readers who keep up ask for, be there one or a thousand.
const tailSize = 4096

// tail holds the last events that somebody read. They are shared: nobody changes them.
type tail struct {
	mu     sync.Mutex
	events [tailSize]struct {
		place uint64 // behind the event's sequence number; 0: none
		event *veredusv1.FeedbackEvent
	}
}

// recentEvents reads the events of [from, upTo), which are among the last tailSize. While
// one reader decodes them, those who want the same wait and get them.
func (s *Store) recentEvents(from, upTo uint64) ([]*veredusv1.FeedbackEvent, error) {
	t := &s.events.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	events := make([]*veredusv1.FeedbackEvent, 0, upTo-from)
	for ; from < upTo; from++ {
		kept := &t.events[from%tailSize]
		if kept.place != from+1 {
			break
		}
		events = append(events, kept.event)
	}
	if from == upTo {
		return events, nil
	}
	more, err := s.readEvents(from, upTo)
	for i, e := range more {
		kept := &t.events[(from+uint64(i))%tailSize]
		kept.place, kept.event = from+uint64(i)+1, e
	}
	return append(events, more...), err
}

// readEvents reads the events of [from, upTo) from disk: fewer when some were removed.
func (s *Store) readEvents(from, upTo uint64) (events []*veredusv1.FeedbackEvent, err error) {
	err = s.scan(nil, eventKey(from), eventKey(upTo), func(k, v []byte) (bool, error) {
		e := &veredusv1.FeedbackEvent{}
		if err := proto.Unmarshal(v, e); err != nil {
			return false, corrupt(err)
		}
		sequence := be64(k[3:])
		if sequence != from+uint64(len(events)) {
			return false, nil // a part was removed; the caller sees that some are missing
		}
		e.Id = s.eventID(sequence)
		events = append(events, e)
		return true, nil
	})
	return events, err
}
