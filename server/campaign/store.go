package campaign

import (
	"context"
	"time"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
)

// Deliveries keeps deliveries. Every method is safe for concurrent use; those that
// change something return once the change is durable.
type Deliveries interface {
	// Create stores a new delivery. ErrExists when its id is taken.
	Create(ctx context.Context, d *Delivery, req Request) (*Delivery, error)
	// Get reads a delivery by id, with its counters. ErrNotFound.
	Get(ctx context.Context, id string) (*Delivery, error)
	// List reads up to max deliveries without their content, newest first, behind the
	// delivery numbered before (0: from the newest).
	List(ctx context.Context, before uint64, max int) ([]*Delivery, error)
	// Change applies change to the delivery and stores it together with the events
	// it returns, atomically with respect to every other write. change
	// must be quick and must not block; an error of it changes nothing and is returned.
	// What it does to number, id, hand-over, content id and counters is dropped: the
	// store moves the counters when the state changes to Running (Counters.Start) or
	// to Cancelled (Counters.Cancel), gives an event Started or Cancelled with Count
	// 0 that number, and finishes a delivery that starts with nothing to deliver.
	Change(ctx context.Context, id string, req Request, change func(*Delivery) ([]Event, error)) (*Delivery, error)
	// Delete removes a delivery with its rows. may decides whether it may, and gets it
	// without content.
	Delete(ctx context.Context, id string, req Request, may func(*Delivery) error) error
	// Changed returns a channel that is closed at the next change of the delivery's
	// state or counters.
	Changed(id string) <-chan struct{}
	// Replay finds the answer of an earlier call with this request id: found false
	// when there is none, ErrRequestIDReused when its body was another.
	Replay(ctx context.Context, req Request) (answer []byte, found bool, err error)
}

// Recipients takes recipients in and reads them back.
type Recipients interface {
	// Add stores a chunk: one atomic write. It dedupes inside the delivery by folded address,
	// writes rows, counters and rejects, and returns once that is synced. The
	// delivery must be Draft or Prepared (which it returns to Draft); else *StateError.
	// Items at or below the durable index are passed over; ErrIndexGap on a gap.
	Add(ctx context.Context, delivery string, items []Item) (Added, error)
	// DurableIndex is the highest index stored.
	DurableIndex(ctx context.Context, delivery string) (int64, error)
	// Send stores one transactional message in the tenant's standing delivery, which
	// it creates when needed, and its event taken_into_account. The standing delivery
	// has one standing hand-over for each pair of sender domain and pool, so that a
	// run has one of each. It answers the hand-over and the message's id; the
	// same request answers the same.
	Send(ctx context.Context, m Single, req Request) (*mta.Handover, mta.MessageID, error)
	// Sample reads up to max recipients spread over the delivery's accepted ones.
	Sample(ctx context.Context, delivery string, max int) ([]Sampled, error)
	// Rejected lists up to max refused items behind an index.
	Rejected(ctx context.Context, delivery string, after int64, max int) ([]*veredusv1.RejectedRecipient, error)
}

// Exclusions says who must not be mailed; an address.Store has it.
type Exclusions interface {
	// Exclusions tells for each query, in order, what the address's entries say now.
	Exclusions(ctx context.Context, queries []address.Query) ([]address.Exclusion, error)
}

// SendingLog reads messages. The status is derived, not written, for mail that was
// never settled: from the delivery's state.
type SendingLog interface {
	// Message reads one message with its attempts. ErrNotFound.
	Message(ctx context.Context, delivery string, id mta.MessageID) (*LogEntry, error)
	// Messages lists up to max messages of a delivery behind the cursor (nil: from the start), reading a
	// bounded number of rows; next is nil at the end.
	Messages(ctx context.Context, delivery string, cursor []byte, max int, keep func(*LogEntry) bool) (page []*LogEntry, next []byte, err error)
	// Find lists messages by folded address or by client id, over all deliveries or
	// one (delivery not empty), newest delivery last, through an index.
	Find(ctx context.Context, by Lookup, cursor []byte, max int, keep func(*LogEntry) bool) (page []*LogEntry, next []byte, err error)
}

// Request makes a mutating call idempotent. The zero Request is never remembered.
type Request struct {
	ID     string   // the client's request_id
	Method string   // full method name
	Body   [32]byte // SHA-256 of the request without its request_id
	// Answer renders what a repeat is answered with, from the delivery as written; nil
	// remembers the delivery's id as the answer.
	Answer func(*Delivery) []byte
}

// Delivery is a delivery as stored.
type Delivery struct {
	No uint64 // number, increasing by creation
	ID string // D of deliveries/D
	// Spec has what the client said: tenant, sender, label, metadata, validity, mode,
	// pool, list id, unsubscribe, priority, content. Name, state, times and KPIs in it are unset.
	Spec          *veredusv1.Delivery
	Transactional bool
	State         State
	Content       uint64 // id of the stored content; changes with every change of what the mail says
	Handover      uint64 // its hand-over; messages are keyed by it from the first recipient on
	Created       time.Time
	Updated       time.Time
	Started       time.Time
	Expires       time.Time
	Finished      time.Time
	Counters      Counters
	// Protection is what its protection remembers. Its maps are never changed, only replaced.
	Protection Protection
}

// State is where a delivery is in its life.
type State uint8

// The states, in order. Their names are those of the API.
const (
	Draft State = iota + 1
	Prepared
	Running
	Paused
	Finished
	Cancelled
)

// Counters are a delivery's figures, kept in the same writes as what they count.
// They are the relay's truth; what a client sees is a projection (see Kpis).
type Counters struct {
	LastIndex  int64 // highest durable index
	Accepted   int64
	Rejected   int64
	Pending    int64 // accepted, not ignored, not handed over
	InRelay    int64 // taken into account: handed over and not final
	Deferred   int64 // of InRelay: waiting for a retry
	Claimed    int64 // of InRelay: claimed and not settled
	Sent       int64
	Failed     int64
	Cancelled  int64
	Attempts   int64
	Complaints int64
	Unsubs     int64
	// Ignored and FailedBy count by reason (FACTS: Adobe's numbers).
	Ignored  map[int32]int64
	FailedBy map[int32]int64
	// HandedOver and DeliveredBy count by minute of the last hour.
	HandedOver, DeliveredBy Minutes
	// By has the figures by destination, at most MaxDestinations; the rest is under "other".
	By map[string]*DestinationCounters
}

// MaxDestinations is how many destinations a delivery's counters tell apart.
const MaxDestinations = 1000

// DestinationCounters are a delivery's figures at one destination.
type DestinationCounters struct {
	Sent, Failed, Deferred, Attempts, Complaints, Unsubs, Cancelled int64
	// AuthRejections are attempts that were refused because SPF, DKIM or DMARC failed.
	AuthRejections int64
	// ContentRejections are attempts that were refused for what is in the message.
	ContentRejections int64
	FailedBy          map[int32]int64
	DeliveredBy       Minutes
}

// Item is one recipient of a chunk, validated.
type Item struct {
	Index int64
	// Reject is set for a malformed item, which is stored as such; the rest is then unset.
	Reject *veredusv1.RejectedRecipient
	// Ignore is the reason to exclude it (quarantine, denylist), 0 for none; doubles
	// are found by the store.
	Ignore      int32
	Address     string // as it goes on the wire
	Folded      string // compare key
	Domain      string // A-label
	UTF8        bool
	Variables   []byte
	RecipientID string
	Metadata    map[string]string
	Lane        uint8
}

// Added tells what became of a chunk.
type Added struct {
	DurableIndex      int64
	Accepted, Ignored int64
	// IgnoredIndexes are the indexes of those ignored, increasing, so that chunks
	// stored together can be acknowledged one by one. A driver may leave it out.
	IgnoredIndexes []int64
}

// Single is one transactional message.
type Single struct {
	Tenant   string
	Content  *veredusv1.Delivery // sender, content, list_id, unsubscribe, pool as a delivery says them
	Item     Item
	Validity time.Duration
	Time     time.Time
}

// Sampled is one recipient for the analysis.
type Sampled struct {
	Index     int64
	Address   string
	Variables []byte
}

// Lookup asks for messages by exactly one of its first two fields.
type Lookup struct {
	Folded      string // folded address
	RecipientID string
	Delivery    string // D; empty: all
}

// LogEntry is a message as the store knows it, before projection. Its Delivery has no
// content and no counters by destination, and may be shared between entries.
type LogEntry struct {
	Delivery    *Delivery
	ID          mta.MessageID
	Recipient   string
	RecipientID string
	Metadata    map[string]string
	Domain      string
	Truth       Truth
	Arrival     time.Time
	Expires     time.Time
	Updated     time.Time
	// Last settlement's figures; zero before one.
	Reason, FailureType int32
	BounceCode          int32
	Tag, Text           string
	Destination         string
	AttemptCount        int32
	Attempts            []*veredusv1.Attempt // oldest first, at most 100; nil in lists
	NextAttempt         time.Time
	Claimed             bool
	MessageID           string
}

// Truth is the relay's truth about one message, the same in both feedback modes.
type Truth uint8

// The truths. Exactly one of the final ones (Ignored, Sent, Failed, CancelledMessage) holds at the end.
const (
	Pending  Truth = iota + 1
	InRelay        // taken into account, never failed
	Deferred       // taken into account, waiting for a retry
	Sent
	Failed
	Ignored
	CancelledMessage
)

// Event is a delivery event to be stored with a change: started, paused, resumed, cancelled, warning.
type Event struct {
	Type  veredusv1.FeedbackType
	Count int64
	Text  string
}
