package mxrules

import "time"

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

// Switch turns a protocol feature off, or leaves it to what the server offers.
type Switch uint8

const (
	// Auto uses the feature when the server offers it.
	Auto Switch = iota
	// Off never uses it.
	Off
)

// Rate is Count per Per, with at most Burst at once. The zero Rate is no limit.
type Rate struct {
	Count int
	Per   time.Duration
	// Burst is how many may pass at once after idleness; 0 means 1.
	Burst int
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
