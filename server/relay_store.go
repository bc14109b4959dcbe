package server

import (
	"context"
	"time"

	"github.com/veredus/veredus/mta"
)

// relayStore is the store as the relay sees it, with what the server has to know or
// do on the way.
type relayStore struct {
	mta.Store
	// open is closed when mail may flow: what an operator suspended is in force.
	open chan struct{}
	// wrote is told how long a write took, and settled of what it settled.
	wrote   func(time.Duration)
	settled func([]mta.Settlement)
}

// Runs implements mta.Store. The relay learns of no mail before the door is open.
func (s *relayStore) Runs(ctx context.Context, handover uint64, after uint32, max int) ([]mta.RunState, error) {
	select {
	case <-s.open:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.Store.Runs(ctx, handover, after, max)
}

// Write implements mta.Store.
func (s *relayStore) Write(ctx context.Context, b *mta.Batch) (mta.Written, error) {
	began := time.Now()
	w, err := s.Store.Write(ctx, b)
	if err == nil {
		s.wrote(time.Since(began))
		s.settled(b.Settles)
	}
	return w, err
}
