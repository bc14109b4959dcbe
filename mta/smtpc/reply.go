package smtpc

import (
	"strconv"
	"strings"
)

// Phase is the step of an SMTP session a reply answers, or in which a session
// failed without one. Its text form appears in events, logs and rule files.
type Phase uint8

const (
	// PhaseNone is the zero value: nothing was said yet.
	PhaseNone Phase = iota
	// PhaseDNS is the look-up of the recipient domain.
	PhaseDNS
	// PhaseConnect is the TCP handshake.
	PhaseConnect
	// PhaseGreeting is the 220 line (RFC 5321 section 3.1).
	PhaseGreeting
	// PhaseEHLO is EHLO or HELO (RFC 5321 section 4.1.1.1).
	PhaseEHLO
	// PhaseTLS is STARTTLS and the handshake behind it (RFC 3207).
	PhaseTLS
	// PhaseMAIL is the MAIL command (RFC 5321 section 4.1.1.2).
	PhaseMAIL
	// PhaseRCPT is the RCPT command (RFC 5321 section 4.1.1.3).
	PhaseRCPT
	// PhaseDATA is the DATA command up to its 354 (RFC 5321 section 4.1.1.4).
	PhaseDATA
	// PhaseEndOfData is the reply to the final dot.
	PhaseEndOfData
	// PhaseQuit is RSET between transactions and QUIT.
	PhaseQuit
)

var phaseNames = [...]string{"none", "dns", "connect", "greeting", "ehlo", "tls", "mail", "rcpt", "data", "end_of_data", "quit"}

// String returns the lower-case name used in events and rule files.
func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return "phase(" + strconv.Itoa(int(p)) + ")"
}

// ParsePhase is the inverse of String; ok is false for an unknown name.
func ParsePhase(name string) (p Phase, ok bool) {
	for i, n := range phaseNames {
		if strings.EqualFold(n, name) {
			return Phase(i), true
		}
	}
	return PhaseNone, false
}

// BeforeMAIL reports whether a temporary failure in this phase belongs to the
// path rather than to a message: nothing about a message was said yet.
func (p Phase) BeforeMAIL() bool { return p < PhaseMAIL }

// Reply is what the remote server said. A reply that never came has Code 0 and
// Text with the local cause (for example "connection reset by peer").
type Reply struct {
	// Phase is the step that was answered.
	Phase Phase
	// Code is the three-digit reply code (RFC 5321 section 4.2), 0 when no reply came.
	Code int
	// Enhanced is the enhanced status code "x.y.z" (RFC 3463), empty when absent.
	Enhanced string
	// Text is the reply's text without codes, lines joined by "\n", capped by the session.
	Text string
}

// Positive reports a 2xx or 3xx reply.
func (r Reply) Positive() bool { return r.Code >= 200 && r.Code < 400 }

// Permanent reports a 5xx reply.
func (r Reply) Permanent() bool { return r.Code >= 500 && r.Code < 600 }

// String renders the reply as one line, for logs and reasons.
func (r Reply) String() string {
	var b strings.Builder
	if r.Code != 0 {
		b.WriteString(strconv.Itoa(r.Code))
		b.WriteByte(' ')
	}
	if r.Enhanced != "" {
		b.WriteString(r.Enhanced)
		b.WriteByte(' ')
	}
	b.WriteString(strings.ReplaceAll(r.Text, "\n", " "))
	return strings.TrimSpace(b.String())
}
