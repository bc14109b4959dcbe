// Package bounce qualifies SMTP replies: it turns what a receiver said into
// what follows for the message, for the address and for the path, and into the
// bounce code, reason and type that people and reports use.
//
// Call Default (or Load with an operator's own rule file), then Table.Qualify
// for every reply; failures that no server said have constructors of their own
// (Expired, UnknownDomain, NullMX, RenderFailed, Refused...). A Table is
// immutable and safe for concurrent use; replacing it is one pointer swap.
//
// Qualification has three layers, tried in this order: the rules on the text
// (the operator's first, then the embedded ones), the enhanced status code
// where the registry gives it a meaning of its own, and the reply class.
package bounce

import (
	"strconv"
	"time"

	"github.com/veredus/veredus/mta/smtpc"
)

// Input is one reply with what is known about who gave it.
type Input struct {
	// Reply is what the server said, with its phase; Code 0 means that no reply came.
	Reply smtpc.Reply
	// Provider is the mailbox provider's id ("google", "microsoft365" ...); empty
	// when unknown. Rules scoped to a provider also match on Host.
	Provider string
	// Host is the MX host that answered, empty when unknown.
	Host string
	// Domain is the recipient domain, empty when unknown; rules may be scoped to it.
	Domain string
}

// Verdict is what a reply means and what follows from it. It holds no pointer
// into the reply, so it may be kept and copied freely.
type Verdict struct {
	// Code is the bounce code (CodeInvalidRecipient ...); 0 for a positive reply.
	Code int
	// Name is the code's name, "Invalid recipient".
	Name string
	// Category is the code's category: hard, soft, block, admin or undetermined; empty for a positive reply.
	Category string
	// Tag is the finer meaning, for example "mailbox_disabled" or "rate_limit".
	Tag string
	// BounceType is the category as a value.
	BounceType BounceType
	// Type is the error type of Adobe's sending log: hard, soft or ignored.
	Type Type
	// Reason is the failure reason with Adobe's numeric values.
	Reason Reason
	// Disposition decides the message's future.
	Disposition Disposition
	// MaxAttempts caps the attempts of this message when its replies keep this
	// verdict; 0 means that only the validity period ends it.
	MaxAttempts int
	// RetryAfter is the least delay before the next attempt: the one the reply
	// names (kept within 1 min and 12 h), or the rule's own; 0 when there is none.
	RetryAfter time.Duration
	// Charged reports whether the reply advances the message's retry schedule.
	// Path trouble (throttling and blocks at any phase, anything before MAIL) does not.
	Charged bool
	// Address is the effect on the recipient address.
	Address AddressEffect
	// Path is the effect on the path (source and destination).
	Path PathEffect
	// Hold is the effect on the delivery.
	Hold Hold
	// Rule is the id of the rule that matched, or "iana:5.1.1" and "class:4xx"
	// for the layers below the rules.
	Rule string
}

// WillRetry reports whether the message stays in the queue.
func (v Verdict) WillRetry() bool {
	return v.Disposition == Retry || v.Disposition == RetrySoon
}

// Disposition is what becomes of the message.
type Disposition uint8

const (
	// Delivered: the receiver took responsibility.
	Delivered Disposition = iota
	// Final: the message failed, no further attempt.
	Final
	// Retry: another attempt by the retry schedule, within the validity period.
	Retry
	// RetrySoon: one early attempt after 5 to 15 minutes, from the same source
	// with the same return path (greylisting).
	RetrySoon
)

var dispositionNames = []string{"delivered", "final", "retry", "retry_soon"}

// String returns the lower-case name used in rule files and JSON.
func (d Disposition) String() string { return nameOf(dispositionNames, int(d)) }

// AddressEffect is what a failure means for the recipient address.
type AddressEffect uint8

const (
	// AddressNone leaves the address alone.
	AddressNone AddressEffect = iota
	// AddressCount raises the address's error counter by one (at most one a day and one per message).
	AddressCount
	// AddressSuppress quarantines the address at once.
	AddressSuppress
)

var addressNames = []string{"none", "count", "suppress"}

// String returns the lower-case name used in rule files and JSON.
func (a AddressEffect) String() string { return nameOf(addressNames, int(a)) }

// PathEffect is what a reply means for the path it came over.
type PathEffect uint8

const (
	// PathNone leaves the path alone.
	PathNone PathEffect = iota
	// PathSlow lowers the rate.
	PathSlow
	// PathFewerConnections lowers the number of connections.
	PathFewerConnections
	// PathFewerMessages lowers the messages per connection.
	PathFewerMessages
	// PathRest stops the path for a while.
	PathRest
)

var pathNames = []string{"none", "slow", "fewer_connections", "fewer_messages", "rest"}

// String returns the lower-case name used in rule files and JSON.
func (p PathEffect) String() string { return nameOf(pathNames, int(p)) }

// Hold is what a reply means for the whole delivery.
type Hold uint8

const (
	// HoldNone leaves the delivery alone.
	HoldNone Hold = iota
	// HoldContent: the content was refused; watch the delivery.
	HoldContent
	// HoldAuthentication: SPF, DKIM or DMARC failed; stop the delivery and alert, retrying cannot help.
	HoldAuthentication
)

var holdNames = []string{"none", "content", "authentication"}

// String returns the lower-case name used in rule files and JSON.
func (h Hold) String() string { return nameOf(holdNames, int(h)) }

// nameOf returns names[i], or the number in parentheses for a value out of range.
func nameOf(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return "(" + strconv.Itoa(i) + ")"
}

// indexOf is the inverse of nameOf.
func indexOf(names []string, name string) (int, bool) {
	for i, n := range names {
		if n == name {
			return i, true
		}
	}
	return 0, false
}
