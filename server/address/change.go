package address

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/veredus/veredus/mta/bounce"
)

// Policy is what follows from errors and wishes. DefaultPolicy has the usual figures.
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

// The figures of DefaultPolicy. Threshold and the periods are Adobe Campaign's.
const (
	defaultThreshold       = 5
	defaultErrorFree       = 10 * 24 * time.Hour
	defaultMailboxFull     = 30 * 24 * time.Hour
	defaultProvisionalHold = 24 * time.Hour
	// countEvery is the least time between two errors that count, for one address.
	countEvery = 24 * time.Hour
)

// MaxThreshold bounds Policy.Threshold, and with it the evidence of a counter.
const MaxThreshold = 100

// DefaultPolicy quarantines at the fifth counted error, clears a counter after 10 days
// without an error (30 after Mailbox full), holds provisional entries for a day, and
// keeps entries to the tenant and to the list.
func DefaultPolicy() Policy {
	return Policy{
		Threshold: defaultThreshold, ErrorFree: defaultErrorFree, MailboxFull: defaultMailboxFull,
		ProvisionalHold: defaultProvisionalHold,
	}
}

// ErrorScope is where errors of a tenant's mail are entered: they concern the mailbox,
// so all mail of the tenant, or of all tenants.
func (p Policy) ErrorScope(tenant string) Scope {
	if p.AllTenants {
		tenant = ""
	}
	return Scope{Tenant: tenant, Class: Everything}
}

// ComplaintScope is where complaints are entered: the tenant's marketing mail. A receipt
// or a password still goes.
func (p Policy) ComplaintScope(tenant string) Scope {
	return Scope{Tenant: tenant, Class: Marketing}
}

// UnsubscribeScope is where an unsubscribe from a list (a List-Id, in any letter case) is
// entered: that list, or all of the tenant's marketing mail.
func (p Policy) UnsubscribeScope(tenant, list string) Scope {
	s := Scope{Tenant: tenant, Class: Marketing}
	if !p.TenantUnsubscribe {
		s.List = strings.ToLower(list)
	}
	return s
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

// Failed is the entry after a failure, at Policy.ErrorScope. Effect suppress quarantines at once; count
// raises Errors by one, at most once in 24 hours and once for a message, and
// quarantines at the threshold. What operators, complaints and unsubscribes
// entered stays: a denylist entry as it is, an allowlist entry with the evidence added.
// Status 0 stands for no entry, in e and in the answer.
func Failed(e Entry, c Cause, p Policy) Entry {
	if c.Effect == bounce.AddressNone {
		return e
	}
	if e.Expired(p, c.Time) {
		e = Entry{Key: e.Key}
	}
	switch {
	case e.Status == Denylisted:
		return e
	case e.Status == Allowlisted:
		return e.override(c)
	case e.Status == Quarantined:
		return e.failedAgain(c, p)
	case c.Effect == bounce.AddressSuppress:
		return e.open(c).fail(c).quarantine(c)
	case e.Status == Counting && !e.counts(c):
		return e.fail(c)
	}
	e = e.open(c).fail(c)
	if e.Errors++; e.Errors >= p.Threshold {
		return e.quarantine(c)
	}
	e.Status = Counting
	return e.note(c, Counted)
}

// Succeeded is the entry after a delivery: a counter is cleared and a provisional entry released, both to
// Status 0, which is no entry. Every other one stays.
func Succeeded(e Entry, c Cause) Entry {
	proved := e.Status == Counting || e.Status == Quarantined && e.Provisional
	if !proved || c.Time.Before(e.LastError) {
		return e
	}
	return Entry{Key: e.Key}
}

// Complained is the entry after a complaint, at Policy.ComplaintScope: denylisted. An
// allowlist entry stays, with the evidence added.
func Complained(e Entry, c Cause) Entry {
	switch e.Status {
	case Denylisted:
		return e
	case Allowlisted:
		return e.override(c)
	}
	return e.deny(c)
}

// Unsubscribed is the entry after an unsubscribe, at Policy.UnsubscribeScope: denylisted.
// Nobody can be allowlisted out of a wish of their own, so it replaces an allowlist
// entry of the very scope.
func Unsubscribed(e Entry, c Cause) Entry {
	if e.Status == Denylisted {
		return e
	}
	return e.deny(c)
}

// Released is the entry after an operator's release: a quarantined one is gone (Status 0),
// every other stays.
func Released(e Entry) Entry {
	if e.Status != Quarantined {
		return e
	}
	return Entry{Key: e.Key}
}

// Confirmed is the entry after an operator's confirmation at the time given: a
// provisional one excludes from now on without an end, every other stays.
func Confirmed(e Entry, at time.Time, comment string) Entry {
	if e.Status != Quarantined || !e.Provisional {
		return e
	}
	e.Provisional = false
	return e.note(Cause{Evidence: Evidence{Time: at, Text: comment}}, WasConfirmed)
}

// Doubted is the entry when a surge began at its destination by the attempts that
// quarantined it: provisional. Every other one, and one that an operator or a mail quarantined, stays.
func Doubted(e Entry, at time.Time) Entry {
	if e.Status != Quarantined || e.Provisional || e.Origin != FromBounce {
		return e
	}
	e.Provisional = true
	return e.note(Cause{Evidence: Evidence{Time: at, Text: "its destination began to refuse unusually many addresses"}}, WasProvisional)
}

// Expired reports whether the entry is a counter that time has cleared. Quarantine,
// denylist and allowlist never clear by themselves.
func (e *Entry) Expired(p Policy, now time.Time) bool {
	if e.Status != Counting {
		return false
	}
	keep := p.ErrorFree
	if e.Reason == bounce.ReasonMailboxFull {
		keep = p.MailboxFull
	}
	return now.Sub(e.LastError) >= keep
}

// onProbation reports whether a provisional entry lets mail through to be tested.
func (e *Entry) onProbation(p Policy, now time.Time) bool {
	return e.Provisional && now.Sub(e.LastError) >= p.ProvisionalHold
}

// counts reports whether a further error raises the counter.
func (e *Entry) counts(c Cause) bool {
	last, known := time.Time{}, false
	for i := range e.Evidence {
		ev := &e.Evidence[i]
		if !ev.counted() {
			continue
		}
		if ev.Message != "" && ev.Message == c.Message {
			return false
		}
		if !known || ev.Time.After(last) {
			last, known = ev.Time, true
		}
	}
	if !known {
		last = e.LastError // an imported counter has no evidence
	}
	return c.Time.Sub(last) >= countEvery
}

// counted reports whether an evidence is one of those that Errors counts.
func (ev *Evidence) counted() bool {
	return ev.Effect == bounce.AddressCount &&
		(ev.Change == Counted || ev.Change == WasQuarantined || ev.Change == WasProvisional)
}

// failedAgain is a failure of what is quarantined. A provisional entry is confirmed by a hard
// failure behind its hold, in a normal time of its destination; one
// within the hold says nothing new. A confirmed entry is never made provisional again.
func (e Entry) failedAgain(c Cause, p Policy) Entry {
	confirms := e.onProbation(p, c.Time) && !c.Provisional && c.Effect == bounce.AddressSuppress
	e = e.fail(c)
	if confirms {
		e.Provisional = false
		return e.note(c, WasConfirmed)
	}
	if c.Effect != bounce.AddressSuppress || e.names(c.Message) {
		return e
	}
	// Kept, so that taking back the first reason does not release what had a second.
	return e.note(c, e.quarantineWord())
}

// names reports whether some evidence is of the message.
func (e *Entry) names(message string) bool {
	return message != "" && slices.ContainsFunc(e.Evidence, func(ev Evidence) bool { return ev.Message == message })
}

// open fills what a new entry has.
func (e Entry) open(c Cause) Entry {
	if e.Status == 0 {
		e = Entry{Key: e.Key, Address: c.Address, Created: c.Time}
	}
	e.Origin = c.Origin
	return e
}

// fail keeps what the last error was.
func (e Entry) fail(c Cause) Entry {
	if c.Time.Before(e.LastError) {
		return e
	}
	e.LastError, e.Reason, e.Code, e.Tag = c.Time, c.Reason, c.Code, c.Tag
	return e
}

func (e Entry) quarantine(c Cause) Entry {
	e.Status, e.Provisional = Quarantined, c.Provisional
	return e.note(c, e.quarantineWord())
}

func (e *Entry) quarantineWord() Change {
	if e.Provisional {
		return WasProvisional
	}
	return WasQuarantined
}

func (e Entry) deny(c Cause) Entry {
	e = e.open(c)
	e.Status, e.Provisional, e.Errors = Denylisted, false, 0
	return e.note(c, WasDenylisted)
}

// override keeps, once for a message, what an allowlist entry made of no effect.
func (e Entry) override(c Cause) Entry {
	if e.names(c.Message) {
		return e
	}
	return e.fail(c).note(c, WasOverridden)
}

// note puts the cause in front of the evidence, in a slice of its own.
func (e Entry) note(c Cause, change Change) Entry {
	ev := c.Evidence
	ev.Change, ev.Text = change, clip(ev.Text, MaxEvidenceText)
	kept := make([]Evidence, 0, len(e.Evidence)+1)
	kept = append(kept, ev)
	for _, old := range e.Evidence {
		// What Errors counts outlasts what is only remembered.
		if len(kept) < MaxEvidence || len(kept) <= MaxThreshold && e.Errors > 0 && old.counted() {
			kept = append(kept, old)
		}
	}
	e.Evidence = kept
	if c.Time.After(e.Updated) {
		e.Updated = c.Time
	}
	return e
}

// clip cuts a text to n octets of valid UTF-8.
func clip(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}
