package mta

import (
	"context"
	"errors"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/compose"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/mxrules"
)

// ErrFenced is returned by a Store whose epoch was overtaken by a later start of
// the relay. Nothing was written.
var ErrFenced = errors.New("mta: another process took over the store")

// Store is where the relay's mail lives. Methods may block on disk; they are safe
// for concurrent use. All but Write only read.
type Store interface {
	// Recover begins a new epoch: every message that was claimed and not settled is
	// put back as a retry due at now, with its LostClaims raised. It answers
	// with what the relay needs to go on. Called once, before anything else.
	Recover(ctx context.Context, now time.Time) (*Recovery, error)
	// Runs lists up to max runs with unfinished mail of a hand-over, in order of
	// domain number, behind number after (0: from the start; numbers begin at 1).
	Runs(ctx context.Context, handover uint64, after uint32, max int) ([]RunState, error)
	// Load reads messages of one run.
	Load(ctx context.Context, req LoadRequest) (LoadResult, error)
	// Content reads what a delivery or message says.
	Content(ctx context.Context, id uint64) (*compose.Source, error)
	// Unfinished lists up to max messages that are not final, in key order behind
	// after: of one hand-over, or, with handover 0, those that expire by `by`
	// according to their own validity (transactional). The answer's last message is the
	// next call's after; done says that nothing is left behind it.
	Unfinished(ctx context.Context, handover uint64, by time.Time, after MessageID, max int) (msgs []*Message, done bool, err error)
	// Waiting reads messages of one run that wait: neither claimed nor final.
	Waiting(ctx context.Context, req WaitingRequest) (WaitingPage, error)
	// Write makes claims, releases and settlements durable in one atomic write,
	// with the counters and events that follow from them. It returns
	// once that is synced. An error wrapping ErrFenced wrote nothing.
	Write(ctx context.Context, b *Batch) (Written, error)
}

// MessageID is a message's place: the run of its hand-over to its recipient
// domain, and its order in there. It never changes.
type MessageID struct {
	Handover uint64
	Domain   uint32 // number of the recipient domain in the hand-over's directory, from 1
	Lane     uint8  // messages of a lower lane come first
	Order    uint64 // increasing within a hand-over
}

// Recovery is the state that the relay starts with.
type Recovery struct {
	// Epoch is this start's number, which every Batch carries.
	Epoch uint64
	// Handovers are those with unfinished mail, running or paused.
	Handovers []*Handover
	// Lost are messages that were claimed and not settled: the upper bound of
	// possible repeats.
	Lost []LostClaim
	// Usage reads the quota meters, and what was learned, of the paths to a destination,
	// by path key; it reads nothing else. nil when nothing was kept.
	Usage func(ctx context.Context, destination string) (map[string]mxrules.Usage, error)
	// WarmUps are the warm-ups of sources by name.
	WarmUps map[string]mxrules.WarmUpState
}

// LostClaim is a message that was claimed when the process ended.
type LostClaim struct {
	ID        MessageID
	Name      string // deliveries/D/messages/M
	MessageID string // Message-ID header without angle brackets
	Claims    int    // claims lost so far, this one included
}

// Handover is the set of messages that entered the relay together, or a standing
// set: the transactional messages of one tenant, sender domain and pool.
type Handover struct {
	ID           uint64
	Delivery     uint64 // number of the delivery
	Name         string // deliveries/D
	DeliveryID   string // D
	Tenant       string
	SenderDomain string // domain of the From address, A-label
	Class        dispatch.Class
	Priority     int
	Pool         string
	Content      uint64 // 0 when each message has its own (transactional)
	Paused       bool
	// Arrival is the start; zero for the standing transactional hand-over, whose
	// messages have their own.
	Arrival time.Time
	// Expires is when all its messages expire; zero when each has its own.
	Expires time.Time
}

// RunState is a run's durable state.
type RunState struct {
	Domain     uint32
	DomainName string // A-label
	// Mark is the settled-below mark: every message of a lower order (lane by lane)
	// was settled at least once. Load begins here. In a standing hand-over, whose marks
	// the relay never writes, the store sets it to each new message that finds the
	// run without fresh mail.
	Mark     Position
	Fresh    int64
	Deferred int64
	NextDue  time.Time // earliest retry; zero when none
	// Pool is where its mail was moved to, in place of the hand-over's pool Instead: it
	// counts only while that is the hand-over's. Empty: not moved.
	Pool, Instead string
}

// Position is a place in a run: everything before it, by lane and then order, lies below.
type Position struct {
	Lane  uint8
	Order uint64
}

// Less reports whether p comes before q.
func (p Position) Less(q Position) bool {
	return p.Lane < q.Lane || p.Lane == q.Lane && p.Order < q.Order
}

// LoadRequest asks for messages of one run.
type LoadRequest struct {
	Handover uint64
	Domain   uint32
	// From is where fresh mail is read from; messages that were settled before, or
	// for which Skip answers true, are passed over.
	From Position
	// Fresh and Due are the most messages wanted of each kind.
	Fresh, Due int
	// Now decides which retries are due.
	Now time.Time
	// Skip names messages in memory. Not called after Load returned.
	Skip func(MessageID) bool
}

// LoadResult is what was read.
type LoadResult struct {
	// Due are retries, earliest first; Fresh are messages never settled, in order.
	Due, Fresh []*Message
	// Next is where the next load of fresh mail goes on; More says whether any is left there.
	Next Position
	More bool
	// NextDue is the due time of the earliest retry that was neither returned nor skipped.
	NextDue time.Time
}

// Message is one recipient's mail as the relay holds it while it is loaded.
type Message struct {
	ID          MessageID
	Name        string // deliveries/D/messages/M
	Recipient   string // address as it goes on the wire
	Domain      string // recipient domain, A-label
	UTF8        bool   // needs SMTPUTF8
	Variables   []byte // JSON object or nil
	RecipientID string
	Metadata    []byte // opaque to the relay; echoed in events
	Content     uint64 // 0: the hand-over's
	Arrival     time.Time
	Expires     time.Time
	// Retry is set when it was settled before and waits in the retry list.
	Retry bool
	// MessageID is the Message-ID header of its earlier attempts without angle
	// brackets, kept by the next one; empty before the first claim.
	MessageID string
	// State is what earlier attempts left behind; zero before the first.
	State MessageState
}

// MessageState is what a message carries from attempt to attempt.
type MessageState struct {
	// Attempts counts transactions from MAIL; Charged those that advance the retry
	// schedule; Blocked those refused by a 50 or 51 said with 5xx; Unmatched those
	// refused by a 5xx that no rule names.
	Attempts, Charged, Blocked, Unmatched int
	// LostClaims counts claims lost to crashes.
	LostClaims int
	// FirstClaim is the Date of the mail; zero before the first claim.
	FirstClaim time.Time
	// Due is when the retry became due; zero when fresh.
	Due time.Time
	// Source pins the next attempt to a source (greylisting).
	Source string
	// Last is the verdict, and LastReply the reply, of the last attempt.
	Last      bounce.Verdict
	LastReply smtpc.Reply
}

// Batch is one atomic write of the relay.
type Batch struct {
	Epoch    uint64
	Claims   []Claim
	Releases []MessageID // claims given back untried
	Settles  []Settlement
	// Hurries are waiting retries to be made due sooner.
	Hurries []Hurry
	// Moves are runs that go to other pools than their hand-over's.
	Moves []Move
	// Marks are settled-below marks that advanced.
	Marks []Mark
	// Usage are quota meters to keep, by path key; charged with the claims.
	Usage map[string]mxrules.Usage
	// WarmUps are warm-ups to keep, by source; charged with the claims.
	WarmUps map[string]mxrules.WarmUpState
	// Events are relay events (path_throttled, path_suspended, path_resumed, rule_changed).
	Events []RelayEvent
}

// Claim is the durable promise, before a message's first MAIL, that it is about to
// be sent. A claim of a message that is final already is dropped (Written.Gone).
type Claim struct {
	Message   *Message
	Time      time.Time
	MessageID string // Message-ID header without angle brackets
}

// Move gives a run's mail another pool than that of its hand-over, which is Instead; an
// empty Pool takes that back. Work is that under which its waiting mail is counted.
type Move struct {
	Handover      uint64
	Domain        uint32
	Pool, Instead string
	Work          string
}

// Mark is a run's settled-below mark.
type Mark struct {
	Handover uint64
	Domain   uint32
	Mark     Position
}

// Outcome is what an attempt, or the want of one, made of a message.
type Outcome uint8

const (
	// Delivered is final: 2xx to the final dot.
	Delivered Outcome = iota + 1
	// Deferred is tried again at Settlement.Next.
	Deferred
	// Bounced is final: refused.
	Bounced
	// Expired is final: the validity ended.
	Expired
	// Suppressed is final: excluded after hand-over, or failed by our own policy.
	Suppressed
)

// Settlement is the end of an attempt. The store turns it into the row of the
// sending log, the counters, the feedback event and the retry, in one write. If
// the delivery was cancelled meanwhile, a Deferred settlement ends Cancelled.
type Settlement struct {
	Message *Message // State is the new one, to be kept for the next attempt
	Outcome Outcome
	Time    time.Time
	// Attempt is nil when no transaction was made.
	Attempt *Attempt
	// Uncertain, without an Attempt: what ended before it can be told of may have delivered it.
	Uncertain bool
	// Verdict is the qualification: of the reply, or of the failure without one.
	Verdict bounce.Verdict
	// Text is the error text shown in log and event; empty when delivered.
	Text string
	// Next is when to try again; zero unless Deferred.
	Next time.Time
	// Destination is where it was bound; the recipient domain when never resolved.
	// Empty: where its last attempt went.
	Destination string
	// MessageID is the Message-ID header without angle brackets.
	MessageID string
	// Provider is the mailbox provider of the host that answered; empty when none is known.
	Provider string
	// Work is the operator's work that ends the message and counts it; empty for none.
	Work string
}

// Attempt is one SMTP transaction, from its MAIL.
type Attempt struct {
	Number        int
	Time          time.Time // MAIL was written
	Duration      time.Duration
	Source        string
	RemoteHost    string
	RemoteAddress string // host:port
	Reply         smtpc.Reply
	TLSVersion    string
	// Uncertain: the line ended between the content and the final reply.
	Uncertain bool
}

// RelayEvent is something that happened to a path or to the rules.
type RelayEvent struct {
	Kind        RelayEventKind
	Time        time.Time
	Source      string
	Destination string
	Text        string
	Until       time.Time
	By          string // who ordered it; empty: nobody
}

// RelayEventKind is the type of a RelayEvent.
type RelayEventKind uint8

// The relay events of the Email Feedback Service.
const (
	PathThrottledEvent RelayEventKind = iota + 1
	PathSuspendedEvent
	PathResumedEvent
	RuleChangedEvent
	PathRaisedEvent
	PathWarmUpEvent
)

// Written tells what a Write found.
type Written struct {
	// Gone are claims that were not made, since the message is final: its delivery
	// was cancelled, or it expired. They must not be sent.
	Gone []MessageID
	// Finished are hand-overs with no unfinished message left.
	Finished []uint64
}

// String is the event's name in the Email Feedback Service.
func (k RelayEventKind) String() string {
	switch k {
	case PathThrottledEvent:
		return "path_throttled"
	case PathSuspendedEvent:
		return "path_suspended"
	case PathResumedEvent:
		return "path_resumed"
	case RuleChangedEvent:
		return "rule_changed"
	case PathRaisedEvent:
		return "path_raised"
	case PathWarmUpEvent:
		return "path_warm_up"
	}
	return "unknown"
}
