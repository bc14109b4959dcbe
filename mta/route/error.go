package route

import (
	"errors"
	"fmt"
	"time"
)

// Kind says what a failed look-up means for the mail that waits on it.
type Kind uint8

const (
	// Invalid: the domain is not a name that may be asked for. Final; no
	// question was sent.
	Invalid Kind = iota + 1
	// NXDomain: the domain does not exist (RFC 2308 section 2.1). Final; the
	// answer was confirmed against the control names.
	NXDomain
	// NullMX: the domain exists and accepts no mail (RFC 7505). Final.
	NullMX
	// NoHosts: the domain exists, but none of its mail hosts has an address.
	// Temporary: its owner may mend it.
	NoHosts
	// Temporary: no usable answer came: timeout, SERVFAIL, REFUSED, a broken
	// reply, or a caller that gave up.
	Temporary
	// Broken: our own resolver denies names that certainly exist, so nothing it
	// denies is believed. Temporary; must never count against an address.
	Broken
)

var kindNames = [...]string{"none", "invalid", "nxdomain", "null_mx", "no_hosts", "temporary", "broken"}

// String returns the lower-case name of the kind, as logs and events show it.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Error is the only error type that look-ups return.
type Error struct {
	Kind   Kind
	Domain string // the name asked for, as given
	Err    error  // the cause; nil when the kind says it all
	// Expires is when the DNS may say otherwise (its negative TTL), for NXDomain
	// and NullMX; zero for the others, whose callers choose when to ask again.
	Expires time.Time
}

// Error describes the failure in words fit for a sending log.
func (e *Error) Error() string {
	text := e.describe()
	if e.Err == nil {
		return text
	}
	return text + ": " + e.Err.Error()
}

func (e *Error) describe() string {
	switch e.Kind {
	case Invalid:
		return fmt.Sprintf("domain %q is not valid", e.Domain)
	case NXDomain:
		return fmt.Sprintf("domain %s does not exist (NXDOMAIN)", e.Domain)
	case NullMX:
		return fmt.Sprintf("domain %s accepts no mail (null MX)", e.Domain)
	case NoHosts:
		return fmt.Sprintf("domain %s has no mail host with an address", e.Domain)
	case Broken:
		return fmt.Sprintf("domain %s: the resolver cannot be trusted", e.Domain)
	default:
		return fmt.Sprintf("domain %s could not be looked up", e.Domain)
	}
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Final reports whether asking again is pointless for the message at hand.
func (e *Error) Final() bool {
	return e.Kind == Invalid || e.Kind == NXDomain || e.Kind == NullMX
}

// Temporary reports the opposite of Final. With Timeout it makes Error a
// net.Error, which DKIM verifiers use to tell "no key" from "no answer".
func (e *Error) Temporary() bool { return !e.Final() }

// Timeout reports whether the cause was a timeout.
func (e *Error) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.Err, &t) && t.Timeout()
}
