package address

import (
	"context"
	"errors"
	"time"

	"github.com/veredus/veredus/mta/bounce"
)

// Errors of Store; drivers wrap them.
var (
	// ErrNotFound: no such entry.
	ErrNotFound = errors.New("address: no such entry")
	// ErrRequestIDReused: the request_id was used before with another call or body.
	ErrRequestIDReused = errors.New("address: the request_id was used for another request")
)

// MaxWrite is how many entries one call of a Store takes.
const MaxWrite = 1000

// Store keeps entries: ten million of them on disk, found by address in
// microseconds. Methods are safe for concurrent use; those that change something
// return once the change is durable.
type Store interface {
	// Exclusions tells for each query, in order, what its entries say now. It may
	// be called for every recipient: what is not there costs next to nothing.
	Exclusions(ctx context.Context, queries []Query) ([]Exclusion, error)
	// AddressEntries reads the entries of one address in every scope; like the next, it leaves out counters that time has cleared.
	AddressEntries(ctx context.Context, folded string) ([]Entry, error)
	// ListAddressEntries reads up to max entries that the filter keeps, behind the cursor
	// (nil: from the start); it reads a bounded number of rows, so a page may be
	// short; next is nil at the end. With Filter.Domain it reads that domain's rows only.
	ListAddressEntries(ctx context.Context, f Filter, cursor []byte, max int) (page []Entry, next []byte, err error)
	// ChangeAddressEntries applies change to the entry of each key, in one atomic write, at most MaxWrite of
	// them. change gets the entry as stored (Status 0 when there is none) and answers
	// the new one; Status 0 deletes it. What equals the old one is not written. change must be quick, must not block, and may be called more than once.
	// audit, unless empty, is the text of an event FEEDBACK_TYPE_ADDRESSES_CHANGED,
	// written with them when any changed, with their number as count; its id becomes the
	// Event of evidence that was added without one. It answers the
	// entries afterwards, in the order of keys. A repeated request changes nothing and
	// answers as the first time.
	ChangeAddressEntries(ctx context.Context, keys []Key, req Request, audit string, change func(Entry) Entry) ([]Entry, error)
	// Unsubscribe denylists as u says, counts and tells it on its message where that still exists: one write.
	// Repeating it changes nothing and answers applied false.
	Unsubscribe(ctx context.Context, u Unsubscription) (applied bool, err error)
	// UnsubscribeKeys are the keys of hosted links by number, the current one last; made when there is none.
	UnsubscribeKeys(ctx context.Context) ([]LinkKey, error)
	// RotateUnsubscribeKey adds a key and answers all. A repeated request answers as the first time.
	RotateUnsubscribeKey(ctx context.Context, req Request) ([]LinkKey, error)
}

// LinkKey seals hosted unsubscribe links.
type LinkKey struct {
	ID     uint16 // from 1, rising
	Secret [32]byte
}

// Request makes a call idempotent. The zero Request is never remembered.
type Request struct {
	ID     string   // the client's request_id
	Method string   // full method name
	Body   [32]byte // SHA-256 of the request without its request_id
	// Answer, unless empty, is remembered as the call's answer, for Options.Replay.
	Answer string
}

// Query asks whether mail would be excluded.
type Query struct {
	Folded string
	Tenant string
	List   string // List-Id in lower case; empty: none
	Class  Class  // of the mail: Marketing for a delivery's, Everything for transactional
}

// Exclusion is the answer. Reason is ReasonNotDefined when mail may go, ReasonErrorIgnored
// when an allowlist entry overrides what would exclude, else ReasonDenylisted or ReasonInQuarantine.
type Exclusion struct {
	Reason bounce.Reason
	// By is the key of the entry that decides; zero when there is none.
	By Key
}

// Excluded reports whether mail must not go.
func (e Exclusion) Excluded() bool {
	return e.Reason == bounce.ReasonDenylisted || e.Reason == bounce.ReasonInQuarantine
}

// Filter chooses entries. Every field that is set must hold.
type Filter struct {
	Status      Status
	Tenant      *string // scope's tenant; "" is all tenants' entries; nil: any
	List        string
	Domain      string    // A-label, lower case
	Start, End  time.Time // of Updated: at or after, before
	Text        string    // in lower case, contained in the latest evidence's text
	Reason      bounce.Reason
	Provisional bool
	Origin      Origin
}

// Unsubscription is one wish to get no more mail.
type Unsubscription struct {
	Address string
	Tenant  string
	List    string // List-Id; empty: the whole tenant's marketing mail
	// Delivery is D of deliveries/D, and Message the place of the message in it
	// (mta.MessageID's text); both for the event and the counters, where they still exist.
	Delivery, Message string
	Time              time.Time
	Text              string // how it came: "one-click POST", "mail from ..."
}
