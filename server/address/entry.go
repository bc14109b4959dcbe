// Package address keeps the states of addresses: errors counted, quarantine,
// denylist and allowlist, each within a scope, with the evidence that caused
// it. What follows from an event is decided by pure functions of entry, policy and
// time (see change.go); a Store keeps the entries, and applies those functions in the same
// write as the event. Service is the AddressService of the API.
package address

import (
	"time"

	"github.com/veredus/veredus/mta/bounce"
)

// Status is what an entry says.
type Status uint8

// The statuses, with the numbers of the API.
const (
	// Counting: errors are counted; nothing is excluded.
	Counting Status = iota + 1
	// Quarantined: excluded with reason 9.
	Quarantined
	// Denylisted: excluded with reason 8.
	Denylisted
	// Allowlisted: mailed whatever its errors.
	Allowlisted
)

// Class is which mail an entry is about.
type Class uint8

// The classes, with the numbers of the API.
const (
	// Everything: transactional mail too.
	Everything Class = iota + 1
	// Marketing: mail of deliveries, not single transactional messages.
	Marketing
)

// Origin is how an entry came about.
type Origin uint8

// The origins, with the numbers of the API.
const (
	FromBounce Origin = iota + 1
	FromOutOfBandBounce
	FromComplaint
	FromUnsubscribe
	FromOperator
	FromImport
)

// Scope is where an entry holds.
type Scope struct {
	Tenant string // empty: all tenants
	Class  Class
	List   string // List-Id in lower case; empty: all lists; only with a tenant
}

// Key names an entry: there is at most one for an address and scope.
type Key struct {
	Folded string // address as compared (address.Folded of mta/address)
	Scope  Scope
}

// Entry is the state of an address within a scope.
type Entry struct {
	Key
	Address     string // as it was written first
	Status      Status
	Provisional bool // quarantined during its destination's trouble, see Policy.ProvisionalHold
	Origin      Origin
	Reason      bounce.Reason // of the last error
	Code        int           // bounce code of the last error
	Tag         string
	Errors      int // counted
	Comment     string
	Created     time.Time
	Updated     time.Time
	LastError   time.Time
	// Evidence is what caused each change, latest first, at most MaxEvidence; those that
	// count for Errors are never dropped while they do, so they may be up to MaxThreshold more.
	Evidence []Evidence
}

// MaxEvidence is how many causes an entry keeps.
const MaxEvidence = 20

// Change is what a cause did, in a word.
type Change string

// The changes.
const (
	Counted          Change = "counted"
	WasQuarantined   Change = "quarantined"
	WasProvisional   Change = "provisional"
	WasConfirmed     Change = "confirmed"
	WasReleased      Change = "released"
	WasDenylisted    Change = "denylisted"
	WasAllowlisted   Change = "allowlisted"
	WasCleared       Change = "cleared"
	WasRequalified   Change = "requalified"
	WasOverridden    Change = "overridden" // an error that an allowlist entry made of no effect
	MaxEvidenceText         = 512          // octets
	MaxCommentLength        = 256          // octets
)

// Evidence is one cause of a change.
type Evidence struct {
	Time        time.Time
	Change      Change
	Event       string // id of the feedback event
	Message     string // deliveries/D/messages/M
	ReplyCode   int
	Enhanced    string
	Text        string // capped at MaxEvidenceText
	Phase       string
	Code        int // bounce code
	Rule        string
	Destination string
	Provider    string
	Effect      bounce.AddressEffect // that the rule had
}
