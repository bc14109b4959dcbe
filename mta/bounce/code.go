package bounce

// Bounce codes, as Momentum and SparkPost number them.
const (
	CodeUndetermined      = 1
	CodeInvalidRecipient  = 10
	CodeSoftBounce        = 20
	CodeDNSFailure        = 21
	CodeMailboxFull       = 22
	CodeTooLarge          = 23
	CodeTimeout           = 24
	CodeAdminFailure      = 25
	CodeNoRecipient       = 30
	CodeGenericBounce     = 40
	CodeMailBlock         = 50
	CodeSpamBlock         = 51
	CodeSpamContent       = 52
	CodeProhibitedAttach  = 53
	CodeRelayingDenied    = 54
	CodeAutoReply         = 60
	CodeTransientFailure  = 70
	CodeSubscribe         = 80
	CodeUnsubscribe       = 90
	CodeChallengeResponse = 100
)

// BounceType is the category of a bounce code.
type BounceType uint8

const (
	// BounceNone is the zero value: not a bounce.
	BounceNone BounceType = iota
	// BounceUndetermined: the reply could not be understood.
	BounceUndetermined
	// BounceHard: the address is bad.
	BounceHard
	// BounceSoft: a failure that may pass.
	BounceSoft
	// BounceBlock: the receiver does not want this mail from us.
	BounceBlock
	// BounceAdmin: our own policy.
	BounceAdmin
)

var bounceTypeNames = []string{"", "undetermined", "hard", "soft", "block", "admin"}

// String returns the lower-case name, empty for BounceNone.
func (t BounceType) String() string { return nameOf(bounceTypeNames, int(t)) }

// codeInfo is one row of the bounce code table.
type codeInfo struct {
	code     int
	name     string
	category BounceType
	reason   Reason
	kind     Type
}

// codeTable follows the published Momentum and SparkPost list; the reason and
// type of each are Adobe's, a failure that says nothing about the address being
// "ignored".
var codeTable = []codeInfo{
	{CodeUndetermined, "Undetermined", BounceUndetermined, ReasonNotDefined, TypeSoft},
	{CodeInvalidRecipient, "Invalid recipient", BounceHard, ReasonUserUnknown, TypeHard},
	{CodeSoftBounce, "Soft bounce", BounceSoft, ReasonUnreachable, TypeSoft},
	{CodeDNSFailure, "DNS failure", BounceSoft, ReasonInvalidDomain, TypeSoft},
	{CodeMailboxFull, "Mailbox full", BounceSoft, ReasonMailboxFull, TypeSoft},
	{CodeTooLarge, "Too large", BounceSoft, ReasonRefused, TypeIgnored},
	{CodeTimeout, "Timeout", BounceSoft, ReasonUnreachable, TypeIgnored},
	{CodeAdminFailure, "Admin failure", BounceAdmin, ReasonUnreachable, TypeIgnored},
	{CodeNoRecipient, "No RCPT", BounceHard, ReasonUserUnknown, TypeIgnored},
	{CodeGenericBounce, "Generic bounce", BounceSoft, ReasonUnreachable, TypeSoft},
	{CodeMailBlock, "Mail block", BounceBlock, ReasonRefused, TypeIgnored},
	{CodeSpamBlock, "Spam block", BounceBlock, ReasonRefused, TypeIgnored},
	{CodeSpamContent, "Spam content", BounceBlock, ReasonRefused, TypeIgnored},
	{CodeProhibitedAttach, "Prohibited attachment", BounceBlock, ReasonRefused, TypeIgnored},
	{CodeRelayingDenied, "Relaying denied", BounceBlock, ReasonRefused, TypeIgnored},
	{CodeAutoReply, "Auto-reply", BounceSoft, ReasonNotDefined, TypeIgnored},
	{CodeTransientFailure, "Transient failure", BounceSoft, ReasonUnreachable, TypeIgnored},
	{CodeSubscribe, "Subscribe", BounceAdmin, ReasonNotDefined, TypeIgnored},
	{CodeUnsubscribe, "Unsubscribe", BounceHard, ReasonNotDefined, TypeIgnored},
	{CodeChallengeResponse, "Challenge-response", BounceSoft, ReasonRefused, TypeSoft},
}

// lookupCode returns the row of a bounce code.
func lookupCode(code int) (codeInfo, bool) {
	for _, c := range codeTable {
		if c.code == code {
			return c, true
		}
	}
	return codeInfo{}, false
}

// CodeName returns the name of a bounce code ("Invalid recipient"), empty for
// an unknown one.
func CodeName(code int) string {
	c, _ := lookupCode(code)
	return c.name
}

// CodeType returns the category of a bounce code, BounceNone for an unknown one.
func CodeType(code int) BounceType {
	c, _ := lookupCode(code)
	return c.category
}
