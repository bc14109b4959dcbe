package bounce

import "strings"

// Reason is why a message failed or was excluded, with Adobe Campaign's values.
type Reason uint8

// The reasons of Adobe Campaign's sending log.
const (
	ReasonNotDefined        Reason = 0
	ReasonUserUnknown       Reason = 1
	ReasonInvalidDomain     Reason = 2
	ReasonUnreachable       Reason = 3
	ReasonAccountDisabled   Reason = 4
	ReasonMailboxFull       Reason = 5
	ReasonNotConnected      Reason = 6
	ReasonAddressMissing    Reason = 7
	ReasonDenylisted        Reason = 8
	ReasonInQuarantine      Reason = 9
	ReasonDouble            Reason = 10
	ReasonExcluded          Reason = 12
	ReasonBadQualityAddress Reason = 14
	ReasonUnqualified       Reason = 15
	ReasonTargetLimited     Reason = 17
	ReasonRefused           Reason = 20
	ReasonErrorIgnored      Reason = 25
	ReasonControlAddress    Reason = 127
)

var reasonNames = []struct {
	reason Reason
	name   string
}{
	{ReasonNotDefined, "Not defined"},
	{ReasonUserUnknown, "User unknown"},
	{ReasonInvalidDomain, "Invalid domain"},
	{ReasonUnreachable, "Unreachable"},
	{ReasonAccountDisabled, "Account disabled"},
	{ReasonMailboxFull, "Mailbox full"},
	{ReasonNotConnected, "Not connected"},
	{ReasonAddressMissing, "Address not specified"},
	{ReasonDenylisted, "Denylisted"},
	{ReasonInQuarantine, "In quarantine"},
	{ReasonDouble, "Double"},
	{ReasonExcluded, "Excluded after arbitration"},
	{ReasonBadQualityAddress, "Bad-quality address"},
	{ReasonUnqualified, "Unqualified address"},
	{ReasonTargetLimited, "Target limited in size"},
	{ReasonRefused, "Refused"},
	{ReasonErrorIgnored, "Error ignored"},
	{ReasonControlAddress, "Control address"},
}

// String returns Adobe's name, "User unknown".
func (r Reason) String() string {
	for _, n := range reasonNames {
		if n.reason == r {
			return n.name
		}
	}
	return nameOf(nil, int(r))
}

// ParseReason is the inverse of String, ignoring case.
func ParseReason(name string) (r Reason, ok bool) {
	for _, n := range reasonNames {
		if strings.EqualFold(n.name, name) {
			return n.reason, true
		}
	}
	return 0, false
}

// Type is the error type of Adobe's sending log.
type Type uint8

const (
	// TypeNone is the zero value: no error.
	TypeNone Type = iota
	// TypeHard: the address is bad.
	TypeHard
	// TypeSoft: counts against the address when its mailbox or domain is the cause.
	TypeSoft
	// TypeIgnored: says nothing about the address.
	TypeIgnored
)

var typeNames = []string{"", "hard", "soft", "ignored"}

// String returns the lower-case name, empty for TypeNone.
func (t Type) String() string { return nameOf(typeNames, int(t)) }
