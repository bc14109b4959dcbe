// Package suspend holds what an operator stopped: suspensions of everything, a
// tenant, a delivery, a sender domain, a source or a destination. They are kept
// over a restart and end by themselves when an end was given.
package suspend

import (
	"context"
	"errors"
	"time"

	"github.com/veredus/veredus/server/operator"
)

// Errors of Suspensions; drivers wrap them.
var (
	// ErrNotFound: no such suspension.
	ErrNotFound = errors.New("suspend: not found")
	// ErrRequestIDReused: the request_id was used before with another call or body.
	ErrRequestIDReused = errors.New("suspend: the request_id was used for another request")
)

// Suspensions keeps suspensions. Those that change something return once the change is durable.
type Suspensions interface {
	// PutSuspension stores s. When its selector is suspended already, that
	// suspension gets the new reason and end and keeps its id and creation; it
	// answers what is stored then. A repeated request answers as the first time. The
	// record of what is stored goes into the same write, once for each request.
	PutSuspension(ctx context.Context, s Suspension, record Record, req Request) (Suspension, error)
	// DeleteSuspension removes one by id and answers what it was. ErrNotFound. A
	// repeated request answers as the first time. The record of what was removed goes into
	// the same write.
	DeleteSuspension(ctx context.Context, id string, record Record, req Request) (Suspension, error)
	// ListSuspensions reads all, also those whose end has come, ordered by id.
	ListSuspensions(ctx context.Context) ([]Suspension, error)
}

// Record makes the event of a change from the suspension that was stored or removed. It
// must be pure; nil: no event.
type Record func(Suspension) operator.Event

// Suspension is a selector out of work.
type Suspension struct {
	ID       string // S of suspensions/S, chosen by the caller, unique
	Selector Selector
	Reason   string
	Created  time.Time
	End      time.Time // when it ends by itself; zero: never
}

// Active reports whether it holds at now.
func (s *Suspension) Active(now time.Time) bool { return s.End.IsZero() || now.Before(s.End) }

// Selector names what is suspended.
type Selector struct {
	Kind Kind
	// Value is the tenant, the delivery's id D, the sender domain, the source or the
	// destination; empty for Everything.
	Value string
}

// Kind is what a Selector's value is.
type Kind uint8

// The kinds of the API's Selector.
const (
	Everything Kind = iota + 1
	Tenant
	Delivery
	SenderDomain
	Source
	Destination
)

// Request makes a call idempotent. The zero Request is never remembered.
type Request struct {
	ID     string   // the client's request_id
	Method string   // full method name
	Body   [32]byte // SHA-256 of the request without its request_id
}
