package campaign

import (
	"context"
	"sync"
)

// turns lets calls that change one delivery follow each other. A change is durable
// first and then told to the relay; if two calls crossed in between, the relay would
// hear of them in the wrong order and stay paused where the delivery runs.
type turns struct {
	mu sync.Mutex
	by map[string]*turn
}

type turn struct {
	held  chan struct{} // full while somebody has it
	users int
}

// take waits for the delivery's turn until ctx ends. Call release once.
func (t *turns) take(ctx context.Context, delivery string) (release func(), err error) {
	mine := t.join(delivery)
	select {
	case mine.held <- struct{}{}:
		return func() { <-mine.held; t.leave(delivery, mine) }, nil
	case <-ctx.Done():
		t.leave(delivery, mine)
		return nil, ctx.Err()
	}
}

func (t *turns) join(delivery string) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by = map[string]*turn{}
	}
	mine := t.by[delivery]
	if mine == nil {
		mine = &turn{held: make(chan struct{}, 1)}
		t.by[delivery] = mine
	}
	mine.users++
	return mine
}

func (t *turns) leave(delivery string, mine *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mine.users--; mine.users == 0 {
		delete(t.by, delivery)
	}
}
