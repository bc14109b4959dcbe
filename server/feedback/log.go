package feedback

import (
	"context"
	"errors"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// Positions is a place in the log: one sequence number per shard, each the number
// of the next event to read. The embedded store has one shard.
type Positions []uint64

// Errors of Log.Read.
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
	// Read reads up to max events from a position on, and where to go on. It
	// never blocks on writers. Events have their id set; they are shared and must not be
	// changed.
	Read(ctx context.Context, from Positions, max int) (events []*veredusv1.FeedbackEvent, next Positions, err error)
	// Grown returns a channel that is closed when the log grows past the position.
	Grown(past Positions) <-chan struct{}
}
