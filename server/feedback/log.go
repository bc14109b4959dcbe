package feedback

import (
	"context"
	"errors"
)

// Positions is a place in the log: one sequence number per shard, each the number
// of the next event to read. The embedded store has one shard.
type Positions []uint64

// behind says that some shard's events between p and q are not read at p. Both are of one log.
func (p Positions) behind(q Positions) bool {
	for i := range p {
		if p[i] < q[i] {
			return true
		}
	}
	return false
}

// furthest is the further of two places, in each shard.
func furthest(p, q Positions) Positions {
	far := make(Positions, len(p))
	for i := range p {
		far[i] = max(p[i], q[i])
	}
	return far
}

// Errors of Log.Records.
var (
	// ErrBeforeRetention: the position's events were purged.
	ErrBeforeRetention = errors.New("feedback: position lies before the oldest event kept")
	// ErrPastEnd: no event was ever written there.
	ErrPastEnd = errors.New("feedback: position lies past the end of the log")
)

// Log is the durable event log. Events become readable only once durable, in
// commit order.
type Log interface {
	// StoreID is the identity of the store, 16 random bytes from its creation.
	StoreID() [16]byte
	// Ends are the oldest positions that can be read and those behind the last event.
	Ends() (oldest, next Positions)
	// Records reads events from a position on, of up to size octets together but at least
	// one if there is any, and where to go on. It never blocks on writers. Events have
	// their id set.
	Records(ctx context.Context, from Positions, size int) (records []Record, next Positions, err error)
	// Grown returns a channel that is closed when the log grows past the position.
	Grown(past Positions) <-chan struct{}
}
