package pebblestore

import (
	"context"
	"time"

	"github.com/veredus/veredus/mta"
)

// Tell appends an event about paths that nothing else is written with.
func (s *Store) Tell(ctx context.Context, e mta.RelayEvent) error {
	return s.submit(ctx, func(t *txn) error {
		t.relayEvent(&e)
		return nil
	})
}

// Bytes is how much disk the store takes, its write-ahead log included. It is 0 once
// the store is closed.
func (s *Store) Bytes() int64 {
	s.writer.mu.RLock()
	defer s.writer.mu.RUnlock()
	if s.writer.closed {
		return 0
	}
	return int64(s.db.Metrics().DiskSpaceUsage())
}

// LastEventTime is the time of the newest event; zero when the log is empty. A clock that
// says less was set back.
func (s *Store) LastEventTime() (time.Time, error) {
	oldest, next := s.Ends()
	if oldest[0] == next[0] {
		return time.Time{}, nil
	}
	return s.eventTime(next[0] - 1)
}
