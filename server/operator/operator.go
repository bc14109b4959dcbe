// Package operator holds what an operator ordered: work on waiting mail, which may
// take minutes and survives a restart, and limits for paths in place of the rules'
// and of what was learned, for a while.
package operator

import (
	"context"
	"errors"
	"time"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// Errors of Orders; drivers wrap them.
var (
	// ErrNotFound: no such work.
	ErrNotFound = errors.New("operator: not found")
	// ErrRequestIDReused: the request_id was used before with another call or body.
	ErrRequestIDReused = errors.New("operator: the request_id was used for another request")
)

// Orders keeps orders. Those that change something return once the change is durable.
type Orders interface {
	// BeginWork stores work before anything of it is done. When the request was made
	// before it stores nothing and answers found: with the answer that EndWork
	// remembered, or nil while that work goes on.
	BeginWork(ctx context.Context, w Work, req Request) (answer []byte, found bool, err error)
	// Works lists the work that was begun and has not ended, the oldest first.
	Works(ctx context.Context) ([]Work, error)
	// EndWork removes work, writes its event and remembers the answer for a repeat of its
	// request: one write. The work that finish gets has its whole count; an event without a
	// type is not written. ErrNotFound.
	EndWork(ctx context.Context, id string, finish func(Work) (Event, []byte)) (Work, error)
	// PutOverride stores an override in place of the one of its source and destination;
	// without fields it only ends that one. The event goes into the same write. A
	// repeated request changes nothing and answers repeated.
	PutOverride(ctx context.Context, o Override, e Event, req Request) (repeated bool, err error)
	// Overrides reads all, also those whose end has come, by destination and source.
	Overrides(ctx context.Context) ([]Override, error)
	// Note writes an event of a change that leaves no row, such as a reset. A repeated
	// request writes nothing and answers repeated.
	Note(ctx context.Context, e Event, req Request) (repeated bool, err error)
	// PathEvents reads the last events about the paths to a destination, at most 10 of each
	// path, the latest first; those of all its paths have no source. What retention took is
	// left out.
	PathEvents(ctx context.Context, destination string) ([]*veredusv1.FeedbackEvent, error)
}

// Work is a change of waiting mail under way.
type Work struct {
	ID      string // chosen by the caller, unique
	Kind    Kind
	Queue   Queue
	Pool    string // Move: where to
	Reason  string
	By      string // who ordered it
	Created time.Time
	// Count is how many messages it has changed, in the same writes as the changes. The
	// relay's writes raise it (mta.Hurry, mta.Settlement); BeginWork stores what it is given.
	Count   int64
	Request Request
}

// Kind is what Work does.
type Kind uint8

// The kinds of work.
const (
	Retry Kind = iota + 1
	Move
	Fail
)

var kindWords = [...]string{"", "retry now", "move to another pool", "fail"}

// String says it in words.
func (k Kind) String() string {
	if int(k) < len(kindWords) {
		return kindWords[k]
	}
	return "unknown"
}

// Queue chooses waiting mail: all fields that are set must hold.
type Queue struct {
	Delivery    string // D of deliveries/D
	Tenant      string
	Destination string
	Source      string // of the last attempt
	// Arrived: it entered the relay then or before; zero: whenever.
	Arrived time.Time
}

// Override is an operator's limits for the paths of a destination.
type Override struct {
	Source      string // empty: all
	Destination string
	Fields      map[string]string // as in a rule file
	Reason      string
	Created     time.Time
	End         time.Time
}

// Active reports whether it holds at now.
func (o *Override) Active(now time.Time) bool { return len(o.Fields) > 0 && now.Before(o.End) }

// Event is the record of an order for those who follow the feedback stream.
type Event struct {
	Type        veredusv1.FeedbackType
	Time        time.Time
	Tenant      string
	Delivery    string // D of deliveries/D
	Source      string
	Destination string
	Count       int64
	Text        string
	Until       time.Time
	By          string // who ordered it; empty: nobody
}

// Request makes a call idempotent. The zero Request is never remembered.
type Request struct {
	ID     string   // the client's request_id
	Method string   // full method name
	Body   [32]byte // SHA-256 of the request without its request_id
}
