// Package dispatch decides which message goes on which path, now or later. It is
// a pure, deterministic state machine: callers feed it events with the time they
// happened and carry out the actions it answers. It does no I/O, starts no
// goroutine and reads no clock; randomness comes from a seed; no decision depends
// on map order. It is used from one goroutine.
//
// The life of mail in here: AddRun announces backlog of one hand-over for one
// recipient domain. The core asks for the domain's route (Resolve), picks a path
// (source -> destination), opens a session (Open) and only then loads messages
// (Load), so that a dead destination never holds any. Loaded messages are claimed
// in batches (Claim), sent one at a time on a session with credit (Send), and
// forgotten once their outcome is durable (Settled).
//
// Each method of Core reports an event and the time it happened, or asks for a
// view; afterwards the caller carries out Take and arms a timer for Wake. Events
// about what the core does not know, or not any more, are ignored.
package dispatch

import (
	"net/netip"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// Identifiers are given by the caller and opaque to the core, but for SessionID,
// which the core gives.
type (
	// RunID names the messages of one hand-over to one recipient domain.
	RunID uint64
	// DeliveryID names a delivery.
	DeliveryID uint64
	// MsgID names a loaded message.
	MsgID uint64
	// SessionID names a session, from its Open on.
	SessionID uint64
)

// Class is the first level of fairness.
type Class uint8

const (
	// Bulk mail shares a path by weighted round robin between deliveries.
	Bulk Class = iota
	// Transactional mail takes up to 90 % of a path's slots while bulk waits.
	Transactional
)

// Config bounds the core. Zero values get the defaults named.
type Config struct {
	// MaxSessions caps sessions over all destinations, dials included (default 1000).
	MaxSessions int
	// MaxUnsettled caps messages sent whose outcome is not durable (default 1024).
	MaxUnsettled int
	// MaxClaimed caps messages of one path claimed and not settled (default 64). A
	// path with more than 51 connections open may have more in proportion.
	MaxClaimed int
	// MaxResolving caps look-ups under way (default 64).
	MaxResolving int
	// Credit is how many messages a session may be given at once, 1 or 2 (default 1): the
	// second while the first is on the wire, to be made ready and begun behind it.
	Credit int
	// MaxGroups is how many sets of MX hosts with mail are kept in memory with all
	// that is needed to send there (default 16384). Beyond it no more domains of bulk
	// mail are looked up; half of it is the mark from which those without mail, and those
	// whose hosts could not be reached, are forgotten until they are needed.
	MaxGroups int
	// IdleTimeout is how long a session without mail stays open (default 5 s).
	IdleTimeout time.Duration
	// HostCooldown is how long a host that failed to connect, greet or handshake is skipped (default 5 min).
	HostCooldown time.Duration
	// Timings are the governors' durations.
	Timings mxrules.Timings
	// Seed of every random choice.
	Seed uint64
	// Learner, if set, makes the learners of paths instead of their rules' governors,
	// for comparisons.
	Learner func(mxrules.Timings) mxrules.Learner
}

// Source is a sending identity.
type Source struct {
	Name   string
	Addr   netip.Addr
	Weight int // share among a pool's sources, from 1
	// WarmUp is the plan by which it is warmed up; nil for none. Stage is where it
	// begins, from 1, if nothing else is known of it. The plan is not changed.
	WarmUp *mxrules.WarmUpPlan
	Stage  int
}

// Pool is a named set of sources.
type Pool struct {
	Name    string
	Sources []Source
	// Overflow names the pool that takes what these sources may not send for their
	// warm-up; empty for none.
	Overflow string
	// MoveBlocked lets mail that a source may not send for a block of its reputation go
	// by the other sources. Otherwise it waits for that source.
	MoveBlocked bool
}

// Run is backlog: the messages of one hand-over to one recipient domain.
type Run struct {
	ID           RunID
	Delivery     DeliveryID
	Tenant       string
	SenderDomain string
	Class        Class
	Priority     int // 1..100, weight among bulk deliveries
	Pool         string
	Domain       string // recipient domain, A-label
	// Fresh is how many messages were never attempted; Deferred how many wait for
	// a retry, the earliest of which is due at NextDue (zero when none).
	Fresh    int64
	Deferred int64
	NextDue  time.Time
}

// Host is one MX host; hosts come in preference order, equals adjacent.
type Host struct {
	Name       string
	Preference uint16
}

// Route is where mail for a domain goes.
type Route struct {
	Destination string
	Provider    string
	Hosts       []Host
	Expires     time.Time // the domain is resolved anew behind this, when there is mail
}

// ResolveFailure is why a domain has no route.
type ResolveFailure struct {
	// Final makes every message of the domain's runs end (Fail): NXDOMAIN, null MX.
	Final bool
	// Text is shown as the reason of waiting mail.
	Text string
	// Expires is when a Final answer is asked for again (negative TTL). Temporary
	// failures back off 1 min doubling to 1 h (Timings) by themselves.
	Expires time.Time
}

// Msg is a loaded message.
type Msg struct {
	ID MsgID
	// Retry is set when it comes from the retry list.
	Retry bool
	// Source pins it to a source (greylisting); empty: any of the pool.
	Source string
	// Blocked is set when Source was refused it for a block of its reputation: then it
	// waits for that source, unless the pool moves such mail.
	Blocked bool
	// Alone is set when earlier claims of it were lost to crashes: of such messages a
	// path has one at a time claimed, so that only one that brings the process down
	// is ended for that.
	Alone bool
	// Engaged is set when its recipient opened or clicked lately.
	Engaged bool
}

// Loaded answers a Load.
type Loaded struct {
	Run  RunID
	Msgs []Msg
	// MoreFresh says that fresh messages are left in the store.
	MoreFresh bool
	// NextDue is when the earliest retry left in the store is due; zero when none.
	NextDue time.Time
}

// Evidence is what a reply, or a failure without one, says about a path.
type Evidence struct {
	mxrules.Evidence
	// HostFault marks a failure of this host to connect, greet or handshake that is
	// no throttle or block reply: the host is skipped and the next MX tried. When
	// no host is left the path backs off.
	HostFault bool
	// Sign is what it says of the source's reputation, for its warm-up.
	Sign mxrules.Sign
}

// ActionKind says what an Action asks for.
type ActionKind uint8

const (
	// Resolve asks for Domain's route; answered by Resolved or Unresolved.
	Resolve ActionKind = iota + 1
	// Open asks for Session to Host under Source with TLS; answered by SessionOpened or SessionFailed.
	Open
	// Load asks for up to Fresh fresh and Due due messages of Run, whichever exist;
	// answered by Loaded.
	Load
	// Claim asks for Msgs to be durably claimed on the path, together with Usage;
	// answered by Claimed.
	Claim
	// Send asks Session to send Msg, whose claim is durable; answered by Replied,
	// then (any time later) Settled; or by Untried or Lost.
	Send
	// TakeBack asks for Msg, which waits with Session for the message before it, to be
	// given back: answered by Untried, or by nothing new if its envelope is on the wire.
	// With Force it comes back all the same, at the session's cost: answered by Lost.
	TakeBack
	// Close asks for a polite end of an idle Session; answered by SessionClosed.
	Close
	// Return gives Msg back to its run: it is dropped from memory and its claim, if
	// Claimed, released; answered by Returned once it can be loaded again.
	Return
	// Postpone leaves Msg, a retry, to the store until Until: it is dropped from memory;
	// answered by Settled, not final, once that is durable.
	Postpone
	// Fail asks for Msg to be ended by its domain's final failure; answered by Settled.
	Fail
	// WarmUpChanged asks for WarmUp of Source to be kept with the next durable write;
	// with a Text it reports a Step of the warm-up, too.
	WarmUpChanged
	// HoldDelivery asks for Delivery to be paused: replies to its mail at Destination, the
	// last of them Text, met a reaction of the rule.
	HoldDelivery
	// Keep asks for Usage of Path to be kept durably: a rest began or ended there. The
	// zero Usage is to be forgotten.
	Keep
	// PathChanged reports that a path was slowed, rested, resumed or raised (Path, Change, Text, Until).
	PathChanged
)

// PathChange is what happened to a path.
type PathChange uint8

const (
	// PathThrottled: slower, fewer connections or fewer messages per connection.
	PathThrottled PathChange = iota + 1
	// PathSuspended: rests or backs off until Until.
	PathSuspended
	// PathResumed: works again.
	PathResumed
	// PathRaised: a limit grew beyond a quarter since it was last told.
	PathRaised
	// PathObserved: a governor that only observes would have changed something.
	PathObserved
)

// Action is something the caller shall do. Which fields are set follows from Kind.
type Action struct {
	Kind        ActionKind
	Domain      string
	Run         RunID
	Fresh, Due  int
	Msg         MsgID
	Claimed     bool
	Force       bool    // TakeBack
	Msgs        []MsgID // valid until the next call of Take
	Session     SessionID
	Delivery    DeliveryID // HoldDelivery
	Source      Source
	Destination string
	Host        string
	Limits      mxrules.Limits       // Open: timeouts, TLS, features in force; Domain is one whose route names Host
	Usage       mxrules.Usage        // Claim, Keep: the path's quota meters including this claim
	WarmUp      *mxrules.WarmUpState // Claim, WarmUpChanged: of Source, this claim included; nil without a warm-up
	Step        mxrules.ChangeKind   // WarmUpChanged
	Path        string               // key of the path: "source>destination", or "*>destination" when shared
	Change      PathChange
	Text        string // PathChanged, Fail: why
	Until       time.Time
}

// SelectorKind is what a suspension names.
type SelectorKind uint8

const (
	// Everything stops all new attempts.
	Everything SelectorKind = iota + 1
	// ByTenant, ByDelivery, BySenderDomain, BySource and ByDestination stop theirs.
	ByTenant
	ByDelivery
	BySenderDomain
	BySource
	ByDestination
)

// Selector is what a suspension stops. Value is the tenant, sender domain, source
// or destination; Delivery names the delivery.
type Selector struct {
	Kind     SelectorKind
	Value    string
	Delivery DeliveryID
}
