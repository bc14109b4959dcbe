package campaign

import (
	"context"
	"fmt"
)

// AllRoom waits until no stream holds recipients any more.
func (s *Service) AllRoom(ctx context.Context) error { return s.room.Acquire(ctx, maxIngestBytes) }

// FillStreams makes as many streams as there may be.
func (s *Service) FillStreams() {
	for i := range maxStreams {
		s.streams[fmt.Sprint(i)] = &ingest{}
	}
}
