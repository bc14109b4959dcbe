package address

import (
	"time"

	"github.com/veredus/veredus/mta/bounce"
)

// Policy is what follows from errors and wishes. DefaultPolicy has the figures of FACTS section 5.
type Policy struct {
	// Threshold is how many counted errors quarantine an address, 1 to 100.
	Threshold int
	// ErrorFree is how long without an error clears the counter; MailboxFull the same after
	// errors of reason Mailbox full.
	ErrorFree, MailboxFull time.Duration
	// AllTenants makes entries that errors cause hold for all tenants, not the message's own.
	AllTenants bool
	// TenantUnsubscribe makes an unsubscribe hold for all lists of the tenant.
	TenantUnsubscribe bool
	// ProvisionalHold is how long a provisional entry excludes; then the next mail puts it to the test.
	ProvisionalHold time.Duration
}

// Cause is one thing that happened to an address.
type Cause struct {
	Evidence // Effect says count or suppress; Time is when it happened
	Address  string
	Origin   Origin
	Reason   bounce.Reason
	Tag      string
	// Provisional: its destination refuses unusually many addresses just now.
	Provisional bool
}
