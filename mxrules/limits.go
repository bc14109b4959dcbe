package mxrules

import (
	"fmt"
	"time"
)

// TLS is what a path demands of transport security.
type TLS uint8

const (
	// TLSNone never starts TLS.
	TLSNone TLS = iota
	// TLSOpportunistic starts TLS when offered and falls back to plaintext (RFC 7435).
	TLSOpportunistic
	// TLSEncrypt refuses to send without TLS; the certificate is not verified.
	TLSEncrypt
	// TLSVerify refuses to send unless the certificate is valid for the MX host name.
	TLSVerify
)

var tlsNames = [...]string{"none", "opportunistic", "encrypt", "verify"}

// String is the requirement's name in rule files.
func (t TLS) String() string {
	if int(t) < len(tlsNames) {
		return tlsNames[t]
	}
	return fmt.Sprintf("tls(%d)", uint8(t))
}

// ParseTLS reads none, opportunistic, encrypt or verify.
func ParseTLS(s string) (TLS, error) {
	for i, name := range tlsNames {
		if s == name {
			return TLS(i), nil
		}
	}
	return 0, fmt.Errorf("%.40q is not a TLS requirement; use none, opportunistic, encrypt or verify", s)
}

// Switch turns a protocol feature off, or leaves it to what the server offers.
type Switch uint8

const (
	// Auto uses the feature when the server offers it.
	Auto Switch = iota
	// Off never uses it.
	Off
)

// String is "auto" or "off".
func (s Switch) String() string {
	switch s {
	case Auto:
		return "auto"
	case Off:
		return "off"
	}
	return fmt.Sprintf("switch(%d)", uint8(s))
}

// ParseSwitch reads auto or off.
func ParseSwitch(s string) (Switch, error) {
	switch s {
	case "auto":
		return Auto, nil
	case "off":
		return Off, nil
	}
	return 0, fmt.Errorf("%.40q is not a switch; use auto or off", s)
}

// Rate is Count per Per, with at most Burst at once. The zero Rate is no limit.
type Rate struct {
	Count int
	Per   time.Duration
	// Burst is how many may pass at once after idleness; 0 means 1.
	Burst int
}

// Mode is how a path's limits follow what receivers answer.
type Mode uint8

const (
	// GovernorStatic reacts with fixed cuts that time takes back.
	GovernorStatic Mode = iota
	// GovernorObserve does the same, and learns beside it what it would do.
	GovernorObserve
	// GovernorOn learns and acts by it.
	GovernorOn
)

var modeNames = [...]string{"static", "observe", "on"}

// String is the mode's name in rule files.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("governor(%d)", uint8(m))
}

// ParseMode reads static, observe or on.
func ParseMode(s string) (Mode, error) {
	for i, name := range modeNames {
		if s == name {
			return Mode(i), nil
		}
	}
	return 0, fmt.Errorf("%.40q is not a governor; use static, observe or on", s)
}

// Bounds are where learning begins and how low it may go, for the fields of
// Limits that it concerns; the limit itself is how high. Zero values are the
// default: the start is the limit itself, approached within seconds, and low is
// one message a minute, one connection and one message on it.
type Bounds struct {
	ConnectionsStart, ConnectionsLow                     int
	MessagesPerConnectionStart, MessagesPerConnectionLow int
	ConnectionRateStart, ConnectionRateLow               Rate
	MessageRateStart, MessageRateLow                     Rate
}

// Limits is what may be done on one path. A zero count or rate is no limit; a
// zero timeout is the default (DESIGN.md figures, RFC 5321 section 4.5.3.2).
type Limits struct {
	// Connections caps connections open at once, from dial to close.
	Connections int
	// ConnectionRate caps new connections.
	ConnectionRate Rate
	// MessagesPerConnection caps MAIL commands on one connection.
	MessagesPerConnection int
	// MessageRate caps MAIL commands.
	MessageRate Rate
	// MessagesPerHour and MessagesPerDay are quotas, metered continuously and
	// kept over a crash. 5 % of the hourly one is kept for transactional mail.
	MessagesPerHour int
	MessagesPerDay  int
	// Shared makes all sources together one path; otherwise each source has its own.
	Shared bool

	// Governor is how the limits follow what the receiver answers, Bounds within
	// what; Reactions, if there are any, come before its own.
	Governor  Mode
	Bounds    Bounds
	Reactions *Reactions

	// TLS is the requirement of sessions.
	TLS TLS
	// Pipelining allows RFC 2920 groups, Chunking RFC 3030 BDAT.
	Pipelining Switch
	Chunking   Switch

	// ConnectTimeout bounds the TCP handshake (default 10 s).
	ConnectTimeout time.Duration
	// CommandTimeout bounds each reply (default 1 min).
	CommandTimeout time.Duration
	// DataTimeout bounds sending a block of content without progress (default 4 min).
	DataTimeout time.Duration
	// FinalDotTimeout bounds the reply to the final dot (default 10 min, RFC 5321 section 4.5.3.2.6).
	FinalDotTimeout time.Duration
}
