package world

import (
	"errors"
	"fmt"
	"strings"
)

// Receiver is one mailbox provider, as data.
type Receiver struct {
	// Name identifies the receiver in ledgers and reports.
	Name string `json:"name" yaml:"name"`
	// Dialect is the vocabulary of replies: gmail, yahoo, outlook, apple,
	// orange, gmx, postfix, exim or exchange. Default postfix.
	Dialect string `json:"dialect,omitempty" yaml:"dialect,omitempty"`
	// Replies overrides single replies of the dialect; see [Situation] for the
	// keys and [ParseReply] for the form.
	Replies map[Situation]string `json:"replies,omitempty" yaml:"replies,omitempty"`
	// DNS says what the name servers answer for the domains. Default "mx".
	DNS DNSMode `json:"dns,omitempty" yaml:"dns,omitempty"`
	// Domains are the recipient domains.
	Domains []Domain `json:"domains" yaml:"domains"`
	// Hosts are the mail exchangers, none for null_mx, nxdomain and servfail.
	Hosts []Host `json:"hosts,omitempty" yaml:"hosts,omitempty"`
	// TLS is what the hosts offer. Default "offered".
	TLS TLSMode `json:"tls,omitempty" yaml:"tls,omitempty"`

	// Stated are the limits that the sender's own rules state for this receiver.
	// The model does not act on them: an [Audit] finds who breaks them.
	Stated Limits `json:"stated,omitzero" yaml:"stated,omitempty"`
	// Hidden are the limits the receiver enforces with replies and never publishes.
	Hidden Hidden `json:"hidden,omitzero" yaml:"hidden,omitempty"`
	// Greylist, when its delay is set, refuses the first attempt of each
	// (source network, return path, recipient).
	Greylist Greylist `json:"greylist,omitzero" yaml:"greylist,omitempty"`
	// Latency delays replies.
	Latency Latency `json:"latency,omitzero" yaml:"latency,omitempty"`
	// Mailboxes is the share of local parts, in per mille, that meets each fate.
	// What remains is ordinary mailboxes.
	Mailboxes map[Fate]int `json:"mailboxes,omitempty" yaml:"mailboxes,omitempty"`
	// Outages are the periods in which the receiver does not answer.
	Outages []Outage `json:"outages,omitempty" yaml:"outages,omitempty"`
	// Quirks are the ways in which the receiver breaks the protocol.
	Quirks []Quirk `json:"quirks,omitempty" yaml:"quirks,omitempty"`
}

// Domain is one recipient domain of a receiver.
type Domain struct {
	// Name is the domain, in A-label form.
	Name string `json:"name" yaml:"name"`
	// Share weighs the domain in [Recipients]; 0 never occurs there.
	Share int `json:"share,omitempty" yaml:"share,omitempty"`
}

// Host is one mail exchanger.
type Host struct {
	// Name is the host name. "{tenant}" in it becomes the recipient domain with
	// dots turned into dashes, as Microsoft 365 names its hosts.
	Name string `json:"name" yaml:"name"`
	// Preference is the MX preference; lower comes first (RFC 5321 section 5.1).
	Preference uint16 `json:"preference" yaml:"preference"`
	// Dead leaves the host's address without a listener.
	Dead bool `json:"dead,omitempty" yaml:"dead,omitempty"`
}

// NameFor returns the host's name as the MX record of domain gives it.
func (h Host) NameFor(domain string) string {
	return strings.ReplaceAll(h.Name, "{tenant}", strings.ReplaceAll(canonicalName(domain), ".", "-"))
}

// PerTenant reports whether each domain has its own host of this kind.
func (h Host) PerTenant() bool { return strings.Contains(h.Name, "{tenant}") }

// DNSMode is what name servers answer for a receiver's domains.
type DNSMode string

// The DNS modes.
const (
	// DNSMX answers MX records that lead to the hosts. It is the default.
	DNSMX DNSMode = "mx"
	// DNSImplicit has no MX record: the domain's own address is the host
	// (RFC 5321 section 5.1).
	DNSImplicit DNSMode = "implicit"
	// DNSNullMX says that the domain takes no mail (RFC 7505).
	DNSNullMX DNSMode = "null_mx"
	// DNSNXDomain says that the domain does not exist.
	DNSNXDomain DNSMode = "nxdomain"
	// DNSServFail makes the look-up fail.
	DNSServFail DNSMode = "servfail"
)

// TLSMode is what a receiver offers of STARTTLS (RFC 3207).
type TLSMode string

// The TLS modes.
const (
	// TLSOffered lets the sender choose. It is the default.
	TLSOffered TLSMode = "offered"
	// TLSOff does not know STARTTLS.
	TLSOff TLSMode = "off"
	// TLSRequired refuses MAIL before STARTTLS.
	TLSRequired TLSMode = "required"
	// TLSBroken offers STARTTLS and closes the line in the handshake.
	TLSBroken TLSMode = "broken"
)

// Hidden are limits that the receiver enforces without publishing them. Each is
// counted per source address unless it says otherwise; zero is no limit.
type Hidden struct {
	// Connections caps connections open at once.
	Connections int `json:"connections,omitempty" yaml:"connections,omitempty"`
	// TotalConnections caps connections open at once over all sources.
	TotalConnections int `json:"total_connections,omitempty" yaml:"total_connections,omitempty"`
	// ConnectionRate caps new connections.
	ConnectionRate Rate `json:"connection_rate,omitzero" yaml:"connection_rate,omitempty"`
	// MessagesPerConnection caps MAIL commands on one connection; the next is
	// answered 421 and the line closed.
	MessagesPerConnection int `json:"messages_per_connection,omitempty" yaml:"messages_per_connection,omitempty"`
	// MessageRate caps messages with a token bucket.
	MessageRate Rate `json:"message_rate,omitzero" yaml:"message_rate,omitempty"`
	// MessagesPerHour caps messages in any hour.
	MessagesPerHour int `json:"messages_per_hour,omitempty" yaml:"messages_per_hour,omitempty"`
	// At is where MessageRate and MessagesPerHour are enforced. Default "mail".
	At Stage `json:"at,omitempty" yaml:"at,omitempty"`
	// Penalty is the box for sources that keep breaking the limits above.
	Penalty Penalty `json:"penalty,omitzero" yaml:"penalty,omitempty"`
	// Shared counts all source addresses together instead of each on its own.
	Shared bool `json:"shared,omitempty" yaml:"shared,omitempty"`
	// Silent resets connections that a limit refuses, instead of saying why.
	Silent bool `json:"silent,omitempty" yaml:"silent,omitempty"`
	// Schedule, Noise and Reputation make connections, rates and the hourly quota
	// vary; their factors multiply.
	Schedule   Schedule   `json:"schedule,omitzero" yaml:"schedule,omitempty"`
	Noise      Noise      `json:"noise,omitzero" yaml:"noise,omitempty"`
	Reputation Reputation `json:"reputation,omitzero" yaml:"reputation,omitempty"`
}

// Stage is a point of a transaction where a limit may be enforced.
type Stage string

// The stages.
const (
	AtMail      Stage = "mail"
	AtRcpt      Stage = "rcpt"
	AtEndOfData Stage = "end_of_data"
)

// Penalty refuses a source altogether after it broke hidden limits too often.
type Penalty struct {
	// After is how many refusals by a hidden limit within Window lead into the box; 0 is never.
	After int `json:"after" yaml:"after"`
	// Window is the time in which they count; default 1 min.
	Window Duration `json:"window,omitempty" yaml:"window,omitempty"`
	// For is how long the box lasts.
	For Duration `json:"for" yaml:"for"`
	// Extend starts the time again with each knock on the door.
	Extend bool `json:"extend,omitempty" yaml:"extend,omitempty"`
}

// Greylist refuses the unknown for a while.
type Greylist struct {
	// Delay is how long a new triple is refused; 0 is no greylisting.
	Delay Duration `json:"delay" yaml:"delay"`
	// Expire forgets a triple that did not come back; default 36 h.
	Expire Duration `json:"expire,omitempty" yaml:"expire,omitempty"`
}

// Latency delays replies. Jitter spreads each delay evenly by up to that share
// of itself in per cent, decided by seed, connection and step.
type Latency struct {
	// Greeting delays the 220.
	Greeting Duration `json:"greeting,omitempty" yaml:"greeting,omitempty"`
	// Command delays every other reply before the content.
	Command Duration `json:"command,omitempty" yaml:"command,omitempty"`
	// EndOfData delays the reply to the final dot.
	EndOfData Duration `json:"end_of_data,omitempty" yaml:"end_of_data,omitempty"`
	// Jitter is in per cent, 0 to 100.
	Jitter int `json:"jitter,omitempty" yaml:"jitter,omitempty"`
	// Load makes the reply to the final dot later, the more connections are open.
	Load Load `json:"load,omitzero" yaml:"load,omitempty"`
}

// Outage is a period in which the receiver does not serve. It begins After the
// world's start, lasts For and, if Every is set, comes again that often.
type Outage struct {
	After Duration   `json:"after,omitempty" yaml:"after,omitempty"`
	For   Duration   `json:"for" yaml:"for"`
	Every Duration   `json:"every,omitempty" yaml:"every,omitempty"`
	Mode  OutageMode `json:"mode,omitempty" yaml:"mode,omitempty"`
}

// OutageMode is how a receiver fails.
type OutageMode string

// The outage modes.
const (
	// OutageReset resets each connection. It is the default.
	OutageReset OutageMode = "reset"
	// OutageRefuse greets with 421.
	OutageRefuse OutageMode = "refuse"
	// OutageSilent closes the line without a word.
	OutageSilent OutageMode = "silent"
)

// Quirk is one way of breaking the protocol.
type Quirk struct {
	Kind QuirkKind `json:"kind" yaml:"kind"`
	// Every shows the quirk only on each n-th connection, starting with the
	// n-th; 0 and 1 mean on all.
	Every int `json:"every,omitempty" yaml:"every,omitempty"`
}

// QuirkKind names a way of breaking the protocol.
type QuirkKind string

// The quirks.
const (
	// QuirkLFLineEnds ends reply lines with a bare LF.
	QuirkLFLineEnds QuirkKind = "lf_line_ends"
	// QuirkNoEnhanced leaves enhanced status codes out.
	QuirkNoEnhanced QuirkKind = "no_enhanced"
	// QuirkBareCode says nothing but the three digits.
	QuirkBareCode QuirkKind = "bare_code"
	// QuirkLowerCase writes EHLO keywords in lower case.
	QuirkLowerCase QuirkKind = "lower_case"
	// QuirkMixedMultiline gives the lines of the EHLO reply different codes
	// (against RFC 5321 section 4.2.1).
	QuirkMixedMultiline QuirkKind = "mixed_multiline"
	// QuirkEarlyReply answers 250 to the content before the content ended, and
	// not again after it.
	QuirkEarlyReply QuirkKind = "early_reply"
	// QuirkDataWithoutRcpt answers 354 to DATA when no recipient was accepted.
	QuirkDataWithoutRcpt QuirkKind = "data_without_rcpt"
	// QuirkDropAtHello closes the line at EHLO.
	QuirkDropAtHello QuirkKind = "drop_at_hello"
	// QuirkNoEHLO answers 502 to EHLO and knows only HELO.
	QuirkNoEHLO QuirkKind = "no_ehlo"
)

var quirkKinds = map[QuirkKind]bool{
	QuirkLFLineEnds: true, QuirkNoEnhanced: true, QuirkBareCode: true, QuirkLowerCase: true, QuirkMixedMultiline: true,
	QuirkEarlyReply: true, QuirkDataWithoutRcpt: true, QuirkDropAtHello: true, QuirkNoEHLO: true,
}

func (r Receiver) compress(factor float64) Receiver {
	r.Greylist.Delay = r.Greylist.Delay.divide(factor)
	r.Greylist.Expire = r.Greylist.Expire.divide(factor)
	r.Hidden.Penalty.For = r.Hidden.Penalty.For.divide(factor)
	r.Hidden.Penalty.Window = r.Hidden.Penalty.Window.divide(factor)
	r.Hidden.Schedule = r.Hidden.Schedule.compress(factor)
	r.Hidden.Noise.Every = r.Hidden.Noise.Every.divide(factor)
	r.Hidden.Reputation.Recovery = r.Hidden.Reputation.Recovery.divide(factor)
	outages := make([]Outage, len(r.Outages))
	for i, o := range r.Outages {
		o.After, o.For, o.Every = o.After.divide(factor), o.For.divide(factor), o.Every.divide(factor)
		outages[i] = o
	}
	r.Outages = outages
	return r
}

func (r *Receiver) validate() error {
	errs := []error{r.validateNames(), r.validateModes(), r.validateLimits(), r.validateShares()}
	if _, err := newVocabulary(r.Dialect, r.Replies); err != nil {
		errs = append(errs, err)
	}
	for i, o := range r.Outages {
		if o.For <= 0 || o.After < 0 || o.Every < 0 || (o.Every > 0 && o.Every < o.For) {
			errs = append(errs, fmt.Errorf("outages[%d]: for must be positive and not above every", i))
		}
		if !oneOf(o.Mode, "", OutageReset, OutageRefuse, OutageSilent) {
			errs = append(errs, fmt.Errorf("outages[%d].mode: %q; use reset, refuse or silent", i, o.Mode))
		}
	}
	for i, q := range r.Quirks {
		if !quirkKinds[q.Kind] || q.Every < 0 {
			errs = append(errs, fmt.Errorf("quirks[%d]: kind %q every %d; use a known kind and a count from 0", i, q.Kind, q.Every))
		}
	}
	return errors.Join(errs...)
}

func (r *Receiver) validateNames() error {
	if r.Name == "" {
		return errors.New("name: missing")
	}
	for i, d := range r.Domains {
		if d.Name == "" || d.Share < 0 || d.Share > maxShare || len(d.Name) > 253 || strings.ContainsAny(d.Name, " @\r\n\t") {
			return fmt.Errorf("domains[%d]: name %q, share %d; give a host name and a share of 0 to %d", i, d.Name, d.Share, maxShare)
		}
	}
	if len(r.Hosts) > maxHosts {
		return fmt.Errorf("hosts: %d listed; at most %d fit", len(r.Hosts), maxHosts)
	}
	for i, h := range r.Hosts {
		if h.Name == "" || len(h.Name) > 200 || strings.ContainsAny(h.Name, " @\r\n\t") {
			return fmt.Errorf("hosts[%d].name: %q; give a host name", i, h.Name)
		}
	}
	return nil
}

// maxHosts keeps all hosts of a receiver, tenants included, inside one octet's addresses.
const maxHosts = 40

func (r *Receiver) validateModes() error {
	var errs []error
	if !oneOf(r.DNS, "", DNSMX, DNSImplicit, DNSNullMX, DNSNXDomain, DNSServFail) {
		errs = append(errs, fmt.Errorf("dns: %q; use mx, implicit, null_mx, nxdomain or servfail", r.DNS))
	}
	if !oneOf(r.TLS, "", TLSOffered, TLSOff, TLSRequired, TLSBroken) {
		errs = append(errs, fmt.Errorf("tls: %q; use offered, off, required or broken", r.TLS))
	}
	if !oneOf(r.Hidden.At, "", AtMail, AtRcpt, AtEndOfData) {
		errs = append(errs, fmt.Errorf("hidden.at: %q; use mail, rcpt or end_of_data", r.Hidden.At))
	}
	if r.HasHosts() && len(r.Hosts) == 0 {
		errs = append(errs, errors.New("hosts: the list is empty; a receiver of dns mode mx or implicit needs at least one host"))
	}
	return errors.Join(errs...)
}

func (r *Receiver) validateLimits() error {
	h := r.Hidden
	errs := []error{
		r.Stated.validate("stated"),
		h.ConnectionRate.validate("hidden.connection_rate"),
		h.MessageRate.validate("hidden.message_rate"),
		h.Schedule.validate(), h.Noise.validate(), h.Reputation.validate(), r.Latency.Load.validate(),
	}
	if min(h.Connections, h.TotalConnections, h.MessagesPerConnection, h.MessagesPerHour, h.Penalty.After) < 0 {
		errs = append(errs, errors.New("hidden: counts must not be negative"))
	}
	if h.Penalty.After > 0 && h.Penalty.For <= 0 {
		errs = append(errs, errors.New("hidden.penalty.for: missing; say how long the penalty lasts"))
	}
	l := r.Latency
	if min(l.Greeting, l.Command, l.EndOfData, r.Greylist.Delay, r.Greylist.Expire, h.Penalty.Window) < 0 || l.Jitter < 0 || l.Jitter > 100 {
		errs = append(errs, errors.New("latency, greylist, penalty: delays must not be negative and jitter is 0 to 100 per cent"))
	}
	return errors.Join(errs...)
}

// maxShare bounds a domain's share, so that sums of shares are exact.
const maxShare = 1_000_000

func (r *Receiver) validateShares() error {
	sum := 0
	for fate, share := range r.Mailboxes {
		if !fate.known() || fate == FateNone {
			return fmt.Errorf("mailboxes: there is no fate %q; use one of %s", fate, strings.Join(FateNames(), ", "))
		}
		if share < 0 || share > 1000 {
			return fmt.Errorf("mailboxes.%s: %d; use 0 to 1000 per mille", fate, share)
		}
		sum += share
	}
	if sum > 1000 {
		return fmt.Errorf("mailboxes: the shares add up to %d per mille; at most 1000", sum)
	}
	return nil
}

// HasHosts reports whether the receiver's domains lead to hosts at all.
func (r *Receiver) HasHosts() bool {
	return oneOf(r.DNS, "", DNSMX, DNSImplicit)
}

func oneOf[T comparable](v T, allowed ...T) bool {
	for _, a := range allowed {
		if v == a {
			return true
		}
	}
	return false
}
