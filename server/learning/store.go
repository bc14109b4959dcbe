// Package learning remembers the distinct texts of failed replies: how often each
// was said and by whom, what the rules made of it, and what an operator decided. It
// turns an operator's choice into a rule, and shows what changed rules would
// have made of the past.
package learning

import (
	"context"
	"errors"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
)

// MaxTexts is how many distinct texts are kept; beyond it the one that was longest
// unsaid and has no operator's word goes. A hostile receiver can invent texts without end.
const MaxTexts = 100_000

// Store keeps texts. Methods are safe for concurrent use.
type Store interface {
	// AddReplyTexts adds counts to texts, in one write that is durable on return. A text that is new is
	// stored as given; of a known one Count is added, Providers are merged, and Last, Verdict are replaced.
	AddReplyTexts(ctx context.Context, texts []Text) error
	// ReplyText reads one. ErrNotFound.
	ReplyText(ctx context.Context, id ID) (*Text, error)
	// SetReplyTextStatus sets an operator's word, durably, and answers the text. ErrNotFound.
	SetReplyTextStatus(ctx context.Context, id ID, status Status) (*Text, error)
	// EachReplyText calls each for every text, in no order, until it answers false.
	EachReplyText(ctx context.Context, each func(*Text) bool) error
	// DeleteReplyTexts removes texts.
	DeleteReplyTexts(ctx context.Context, ids []ID) error
}

// ID is the first half of the SHA-256 of the normalised text.
type ID [16]byte

// Text is one distinct text.
type Text struct {
	ID         ID
	Normalised string
	First      smtpc.Reply // as it was said first, capped at 2 KiB
	Count      int64
	Providers  map[string]int64 // at most 10 and "other"
	FirstTime  time.Time
	LastTime   time.Time
	Status     Status // an operator's; 0: none, so that the rule decides
	// Verdict is what was made of it when it was last said.
	Verdict bounce.Verdict
}

// Status is what an operator decided.
type Status uint8

// The statuses, with the numbers of the API.
const (
	ToQualify Status = iota + 1
	Keep
	Ignore
)

// ErrNotFound: no such text.
var ErrNotFound = errors.New("learning: no such reply text")
