// Package learning remembers the distinct texts of failed replies: how often each
// was said and by whom, what the rules made of it, and what an operator decided. It
// turns an operator's choice into a rule, and shows what changed rules would
// have made of the past.
//
// Table collects what the relay settles and keeps it in a Store; Service is the part of
// RelayService that lists texts, qualifies them and requalifies the past.
package learning

import (
	"context"
	"errors"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
)

// MaxTexts is how many distinct texts are kept. Beyond it those go that were said
// least often, of equals the one that was longest unsaid, unless they have an operator's word: a hostile
// receiver can invent texts without end, but each of them is said once.
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
	// Verdict is what the rules made of First when the text was last said.
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

// Errors of the package.
var (
	// ErrNotFound: no such text.
	ErrNotFound = errors.New("learning: no such reply text")
	// ErrNoFile: the configuration names no file that a rule could be written to.
	ErrNoFile = errors.New("no file of bounce rules is configured, so that a rule cannot be written; set bounce_rules to a file (it is made when it is missing) and reload")
	// ErrFile: the operator's file cannot take the rule.
	ErrFile = errors.New("the file of bounce rules cannot take the rule")
	// ErrRequestIDReused: the request_id was used before with another call or body.
	ErrRequestIDReused = errors.New("the request_id was used for another request; use a new one")
)
