package campaign

import "context"

// AllRoom waits until no stream holds recipients any more.
func (s *Service) AllRoom(ctx context.Context) error { return s.room.Acquire(ctx, s.o.IngestBytes) }
