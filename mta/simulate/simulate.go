// Package simulate sends mail to modelled receivers in virtual time. What decides
// is production's own: a dispatch.Core with its mxrules.Governors. What this package
// plays is everything around them: the store as counters, the writer with its commit
// latency, sessions with their round trips, retries, arrivals and the end of validity.
//
// Fill a Config and call Run; it answers a Result with everything that happened, and
// what an oracle that knows each receiver's hidden limits would have reached. Nothing
// here reads a clock or a random source: the same Config gives the same Result, on
// any machine and any number of cores.
//
// Memory follows activity: mail that was never attempted is a number, a message has a
// record while it is in memory, and one that waits for a retry has 32 octets.
package simulate

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
)

// MaxValidity is the longest a message is tried (FACTS: 3.5 days); it is the
// default of HandOver.Validity.
const MaxValidity = 84 * time.Hour

// Epoch is the default of Config.Start: a Monday's midnight, so that hours of the
// day and of the simulation agree.
func Epoch() time.Time { return time.Date(2026, time.January, 5, 0, 0, 0, 0, time.UTC) }

// Config is one simulation.
type Config struct {
	// Start is the instant at which it begins; default Epoch.
	Start time.Time
	// Duration is the longest it lasts; it ends when nothing is left to do. Required.
	Duration time.Duration
	// Seed of every random choice.
	Seed uint64
	// Dispatch bounds the core, as in production.
	Dispatch dispatch.Config
	// Pools and Rules are the core's; nil rules are no limits.
	Pools []dispatch.Pool
	Rules *mxrules.Rules
	// Judge reads replies and plans retries. Required.
	Judge Judge
	// Timing is how long the node's own work takes.
	Timing Timing
	// Destinations are the receivers.
	Destinations []Destination
	// HandOvers are the mail, in any order.
	HandOvers []HandOver
	// Resolution is the width of the steps of the series; 0 chooses one.
	Resolution time.Duration
	// SteadyAfter is when the steady state begins, from the first hand-over on;
	// default 10 min.
	SteadyAfter time.Duration
	// Together keeps all destinations in one core. Otherwise each has a core of its
	// own, side by side on all processors, whenever the bounds that they share
	// (sessions, unsettled messages) are proven not to bind. Sources that are warmed
	// up have one cap for all destinations, so that these are together then.
	Together bool
	// WarmUps are the warm-ups of sources by name as they are at Start, Usage the
	// quota meters and what was learned by path key.
	WarmUps map[string]mxrules.WarmUpState
	Usage   map[string]mxrules.Usage
	// Forecast asks for what holds mail (Part.Held), and leaves out the oracle and
	// all that is measured against it.
	Forecast bool

	allowance *allowance // what warm-ups let oracles send; nil: all
}

// Timing is how long the node's own work takes. Zero durations are zero.
type Timing struct {
	// Commit is one durable write of the store; claims and outcomes that come
	// meanwhile share the next one.
	Commit time.Duration
	// Load is one read of messages, Resolve one look-up.
	Load    time.Duration
	Resolve time.Duration
}

// Destination is one receiver and how it is reached.
type Destination struct {
	// Name identifies it; Group sums it with others in reports (default Name).
	Name  string
	Group string
	// Provider is what rules call it; empty asks the rules by the MX host.
	Provider string
	// Receiver makes the receiver as it is at the beginning, each time the same. It
	// must be safe for concurrent use; what it makes need not be.
	Receiver func() Receiver
	// RoundTrip is the network's, 0 in memory.
	RoundTrip time.Duration
	// Domains are the recipient domains; at least one.
	Domains []Domain
	// Lost is the share of recipients, 0 to 1, who can never be delivered to:
	// mailboxes that do not exist, are full or refuse. The oracle loses them too.
	Lost float64
}

// Domain is one recipient domain.
type Domain struct {
	Name string
	// Hosts are its mail exchangers in order of preference.
	Hosts []dispatch.Host
	// Share weighs the domain among its destination's; 0 gets no mail unless all are 0.
	Share int
	// Failure, if set, is what look-ups answer instead of hosts.
	Failure *dispatch.ResolveFailure
}

// HandOver is mail that enters the relay.
type HandOver struct {
	// At is when, after the start. Over spreads the arrivals evenly; 0 is all at once.
	At   time.Duration
	Over time.Duration
	// Counts are the recipients of each destination, by its index.
	Counts []int64
	// Class, Priority (1 to 100) and Pool are as in dispatch.Run.
	Class    dispatch.Class
	Priority int
	Pool     string
	// Validity is how long each message is tried from its arrival on; default and
	// most MaxValidity.
	Validity time.Duration
}

// Receiver is a mailbox provider's mail exchangers, asked in virtual time.
type Receiver interface {
	// Connect answers a connection that arrives at now. The Conn is nil if there is
	// nobody to talk to; otherwise it is closed exactly once.
	Connect(now time.Time, from Caller) (Conn, Answer)
	// Capacity is how many messages per second the receiver takes at now from all
	// the scenario's sources, at best reputation and without a deferral, while they
	// keep their own rules.
	Capacity(now time.Time) float64
}

// Caller is who connects, and how.
type Caller struct {
	Source netip.Addr
	Host   string
	TLS    mxrules.TLS
}

// Conn is one connection.
type Conn interface {
	// Envelope answers MAIL, RCPT and DATA of a transaction, pipelined, of which the
	// first arrives at now. Unless the answer refuses, or says that it is Whole,
	// Content follows.
	Envelope(now time.Time, m *Message) Answer
	// Content answers the final dot that arrives at now.
	Content(now time.Time) Answer
	// Close ends the connection.
	Close(now time.Time)
}

// Answer is what a receiver does at one step.
type Answer struct {
	// Refused says that the step failed, for this Cause, with this Reply: code 0 if
	// the line ended without one.
	Refused bool
	Cause   Cause
	Reply   Reply
	// Closes says that the receiver ends the connection with the answer.
	Closes bool
	// Whole, on an envelope, says that the content was decided on too; Refused is then
	// about that.
	Whole bool
	// Dirty says that an open transaction is left, so that a round trip for RSET
	// precedes the next.
	Dirty bool
	// Delay is the receiver's own time until the answer; RoundTrips are those of the
	// network: of Connect those behind the greeting, else 0.
	Delay      time.Duration
	RoundTrips int
	// Overruns counts the limits of our own rules that the step broke.
	Overruns int
}

// Cause is why a receiver refused.
type Cause uint8

// The causes. Only pacing says something about how fast a receiver wants mail.
const (
	CauseNone Cause = iota
	// CausePacing is a limit: throttling replies, refused or dropped connections.
	CausePacing
	// CauseGreylist asks to come back.
	CauseGreylist
	// CauseOutage is a receiver that does not serve.
	CauseOutage
	// CauseMailbox is the state of the recipient's mailbox.
	CauseMailbox
	// CauseOther is everything else: content, blocks, policy, faults.
	CauseOther

	// NumCauses is the number of causes, for arrays indexed by Cause.
	NumCauses = iota
)

var causeNames = [NumCauses]string{"none", "pacing", "greylist", "outage", "mailbox", "other"}

// String is a short lower-case name such as "pacing".
func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return "unknown"
}

// Phase is the step that a reply answers.
type Phase uint8

// The phases.
const (
	PhaseConnect Phase = iota + 1
	PhaseGreeting
	PhaseHello
	PhaseTLS
	PhaseMail
	PhaseRcpt
	PhaseData
	PhaseEndOfData
)

// Reply is what a receiver said. Code is 0 when it said nothing; Text then says
// what happened to the line.
type Reply struct {
	Phase    Phase
	Code     int
	Enhanced string
	Text     string
}

// Place is where a reply came from.
type Place struct {
	Source, Host, Destination, Domain string
	// Reactions are those of the rule in force.
	Reactions *mxrules.Reactions
}

// Message is one recipient's mail, as far as it matters to receivers and retries.
type Message struct {
	// Domain is the recipient domain; HandOver, Run and Order identify the message.
	Domain   string
	HandOver int
	Run      int
	Order    int64
	Class    dispatch.Class
	Expires  time.Time
	State    State
}

// State is what a message carries from attempt to attempt, as in the relay.
type State struct {
	Attempts, Charged, Blocked, Unmatched uint16
	// Soon says that the last reply asked for one early retry (greylisting).
	Soon bool
	// Source is the index from 1 of the source that the next attempt is pinned to.
	Source uint8
}

// Outcome is what an attempt made of a message.
type Outcome uint8

// The outcomes.
const (
	Delivered Outcome = iota
	Deferred
	Bounced
	Expired
)

// Fate is what a reply makes of a message, and says of the path.
type Fate struct {
	Outcome Outcome
	// Next is when to try again, for Deferred.
	Next time.Time
	// State is what the next attempt starts with; Pinned keeps its source.
	State    State
	Pinned   bool
	Evidence dispatch.Evidence
}

// Judge reads replies and plans retries as the relay does. It must be safe for
// concurrent use and depend on nothing but its arguments.
type Judge interface {
	// Transaction judges the refusal that ended a transaction.
	Transaction(now time.Time, at Place, m *Message, r Reply) Fate
	// Connection judges a session that did not come about.
	Connection(at Place, r Reply) dispatch.Evidence
}

// Bounds of a Config: a year, and as much mail as counts in 64 bits of nanoseconds' area.
const (
	maxDuration = 366 * 24 * time.Hour
	maxCount    = 1 << 40
	maxSources  = 255
)

func (c *Config) check() error {
	switch {
	case c.Duration <= 0 || c.Duration > maxDuration:
		return fmt.Errorf("duration %v: give a positive one of at most %v", c.Duration, maxDuration)
	case c.Judge == nil:
		return errors.New("judge: missing; give what qualifies replies")
	case len(c.Destinations) == 0:
		return errors.New("destinations: none; give at least one receiver")
	case len(c.HandOvers) == 0:
		return errors.New("hand-overs: none; give at least one")
	case min(c.Timing.Commit, c.Timing.Load, c.Timing.Resolve, c.Resolution, c.SteadyAfter) < 0:
		return errors.New("timing, resolution, steady state: durations must not be negative")
	}
	for i := range c.Destinations {
		if err := c.Destinations[i].check(); err != nil {
			return fmt.Errorf("destination %d %q: %w", i, c.Destinations[i].Name, err)
		}
	}
	for i := range c.HandOvers {
		if err := c.HandOvers[i].check(len(c.Destinations)); err != nil {
			return fmt.Errorf("hand-over %d: %w", i, err)
		}
	}
	return nil
}

func (d *Destination) check() error {
	switch {
	case d.Name == "" || d.Receiver == nil || len(d.Domains) == 0:
		return errors.New("name, receiver and domains are required")
	case d.RoundTrip < 0 || !(d.Lost >= 0 && d.Lost <= 1):
		return fmt.Errorf("round trip %v, lost %v: give a duration from 0 and a share from 0 to 1", d.RoundTrip, d.Lost)
	}
	for _, dom := range d.Domains {
		if dom.Name == "" || dom.Share < 0 || dom.Failure == nil && len(dom.Hosts) == 0 {
			return fmt.Errorf("domain %q: a name, a share from 0, and hosts or a failure are required", dom.Name)
		}
	}
	return nil
}

func (h *HandOver) check(destinations int) error {
	if len(h.Counts) > destinations {
		return fmt.Errorf("%d counts for %d destinations", len(h.Counts), destinations)
	}
	if h.At < 0 || h.Over < 0 || h.At > maxDuration || h.Over > maxDuration {
		return fmt.Errorf("at %v, over %v: give durations from 0 to %v", h.At, h.Over, maxDuration)
	}
	if h.Validity < 0 || h.Validity > MaxValidity {
		return fmt.Errorf("validity %v: at most %v", h.Validity, MaxValidity)
	}
	for _, n := range h.Counts {
		if n < 0 || n > maxCount {
			return fmt.Errorf("count %d: use 0 to %d", n, int64(maxCount))
		}
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.Start.IsZero() {
		c.Start = Epoch()
	}
	if c.SteadyAfter == 0 {
		c.SteadyAfter = 10 * time.Minute
	}
	if c.Dispatch.MaxSessions <= 0 {
		c.Dispatch.MaxSessions = 1000
	}
	if c.Dispatch.MaxUnsettled <= 0 {
		c.Dispatch.MaxUnsettled = 1024
	}
	if c.Dispatch.Credit <= 0 {
		c.Dispatch.Credit = 2
	}
	hand := make([]HandOver, len(c.HandOvers))
	for i, h := range c.HandOvers {
		if h.Validity == 0 {
			h.Validity = MaxValidity
		}
		hand[i] = h
	}
	c.HandOvers = hand
	return c
}
