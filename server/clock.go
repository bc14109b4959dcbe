package server

import (
	"context"
	"time"
)

const (
	// clockEvery is how often the clock is compared with the time that really passed.
	clockEvery = 30 * time.Second
	// clockStep is the least step back that counts as the clock being set.
	clockStep = time.Minute
)

// watchClock notices that somebody set the clock back, also while the node was down, and
// has the retries follow. Forward needs nothing: they are due earlier.
func (s *Server) watchClock(ctx context.Context) {
	if last, err := s.store.LastEventTime(); err == nil && !last.IsZero() {
		s.setBack(ctx, last.Sub(s.now()))
	}
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	for wall, began := s.now().Round(0), time.Now(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		isWall, is := s.now().Round(0), time.Now()
		s.setBack(ctx, is.Sub(began)-isWall.Sub(wall))
		wall, began = isWall, is
	}
}

// setBack acts on a clock that was set back by a time; less than clockStep is nothing.
func (s *Server) setBack(ctx context.Context, by time.Duration) {
	if by < clockStep {
		return
	}
	s.log.Warn("the clock was set back; what waits for a retry is due so much sooner", "by", by.Round(time.Second))
	if err := s.relay.ClockSetBack(ctx, by); err != nil && ctx.Err() == nil {
		s.log.Error("moving retries behind a clock that was set back", "error", err)
	}
}
