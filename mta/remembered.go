package mta

import (
	"context"
	"sync"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// remembered knows which destinations' paths have got back what was kept of them. What
// was learned of half a million paths stays on disk until mail goes there.
type remembered struct {
	mu   sync.Mutex
	done map[string]chan struct{} // closed when it is done
}

// maxRemembered bounds how many destinations are known; beyond it reading begins anew.
const maxRemembered = 10_000

// begin answers a channel that is closed when the destination's paths have what was
// kept of them; mine says that the caller is to see to that, and to close it.
func (m *remembered) begin(destination string) (done chan struct{}, mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if done, ok := m.done[destination]; ok {
		return done, false
	}
	if m.done == nil || len(m.done) >= maxRemembered {
		m.done = map[string]chan struct{}{}
	}
	done = make(chan struct{})
	m.done[destination] = done
	return done, true
}

// Kept reads what is kept of the paths to a destination for when mail goes there, by
// their keys: it is behind what a path with mail knows. It reads from the store.
func (r *Relay) Kept(ctx context.Context, destination string) (map[string]mxrules.Usage, error) {
	if r.usage == nil {
		return nil, nil
	}
	return r.usage(ctx, destination)
}

// remember gives the paths of a destination back what was kept of them, and returns
// when they have it. It reads from the store: the owner must not call it.
func (r *Relay) remember(ctx context.Context, destination string) {
	if r.usage == nil {
		return
	}
	done, mine := r.remembered.begin(destination)
	if !mine {
		select {
		case <-done:
		case <-ctx.Done():
		}
		return
	}
	defer close(done)
	kept, err := r.usage(r.calm, destination)
	if err != nil {
		r.broken("reading what is known of a destination's paths", err)
		return
	}
	if len(kept) > 0 {
		_ = r.call(r.calm, func(now time.Time) { r.core.Remember(now, destination, kept) })
	}
}
