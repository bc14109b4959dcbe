package bounce

import "github.com/veredus/veredus/mta/smtpc"

// The failures below are not said by a server; their rule ids begin with "own:".

// own returns a final verdict of our own making.
func own(tag, id string, code int, reason Reason, address AddressEffect) Verdict {
	v := presetVerdict(preset{tag: tag, code: code, address: address, own: true, reason: reason}, classPermanent)
	v.Disposition, v.MaxAttempts = Final, 0
	v.Charged = true
	v.Rule = "own:" + id
	return v
}

// Expired is the end of a message's validity: Timeout, Unreachable, ignored.
// The last verdict's tag is kept (what held the mail), expiry itself never
// counts against the address. Pass the zero Verdict for a message that was
// never attempted.
func Expired(last Verdict) Verdict {
	tag := last.Tag
	if tag == "" {
		tag = "timeout"
	}
	return own(tag, "expired", CodeTimeout, ReasonUnreachable, AddressNone)
}

// UnknownDomain is NXDOMAIN for the recipient domain: final for this message,
// and the address counts one.
func UnknownDomain() Verdict {
	return own("domain_unknown", "nxdomain", CodeDNSFailure, ReasonInvalidDomain, AddressCount)
}

// NullMX is a recipient domain that says it accepts no mail (RFC 7505).
func NullMX() Verdict {
	return own("null_mx", "null-mx", CodeInvalidRecipient, ReasonUserUnknown, AddressSuppress)
}

// Suppressed is an address excluded after hand-over; reason is
// ReasonDenylisted or ReasonInQuarantine.
func Suppressed(reason Reason) Verdict {
	return own("suppressed", "suppressed", CodeAdminFailure, reason, AddressNone)
}

// RenderFailed is a message whose content could not be rendered.
func RenderFailed() Verdict {
	return own("render_failed", "render", CodeAdminFailure, ReasonUnreachable, AddressNone)
}

// CrashLoop is a message whose claims were lost to crashes three times.
func CrashLoop() Verdict {
	return own("crash_loop", "crash-loop", CodeAdminFailure, ReasonUnreachable, AddressNone)
}

// OwnPolicy is any other failure of our own making, with its tag.
func OwnPolicy(tag string, reason Reason) Verdict {
	return own(tag, "policy", CodeAdminFailure, reason, AddressNone)
}

// NoReply is a failure before or instead of a reply (connect refused, timeout,
// line dropped) in the given phase, with the local cause as text.
func NoReply(phase smtpc.Phase, cause string) Input {
	return Input{Reply: smtpc.Reply{Phase: phase, Text: cause}}
}
