package world

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Limits are what the sender's rules allow at one receiver, as plain data. A
// zero count or rate is no limit.
type Limits struct {
	// Connections caps connections open at once.
	Connections int `json:"connections,omitempty" yaml:"connections,omitempty"`
	// ConnectionRate caps new connections.
	ConnectionRate Rate `json:"connection_rate,omitzero" yaml:"connection_rate,omitempty"`
	// MessagesPerConnection caps MAIL commands on one connection.
	MessagesPerConnection int `json:"messages_per_connection,omitempty" yaml:"messages_per_connection,omitempty"`
	// MessageRate caps MAIL commands.
	MessageRate Rate `json:"message_rate,omitzero" yaml:"message_rate,omitempty"`
	// MessagesPerHour and MessagesPerDay are quotas, metered continuously: each is
	// a rate with a burst of five seconds' worth, at least one message.
	MessagesPerHour int `json:"messages_per_hour,omitempty" yaml:"messages_per_hour,omitempty"`
	MessagesPerDay  int `json:"messages_per_day,omitempty" yaml:"messages_per_day,omitempty"`
	// Shared counts all sources together; otherwise each source address has its
	// own limits.
	Shared bool `json:"shared,omitempty" yaml:"shared,omitempty"`
}

// Validate names the first field that makes no sense.
func (l Limits) Validate() error { return l.validate("limits") }

func (l Limits) validate(field string) error {
	if min(l.Connections, l.MessagesPerConnection, l.MessagesPerHour, l.MessagesPerDay) < 0 {
		return fmt.Errorf("%s: counts must not be negative", field)
	}
	return errors.Join(l.ConnectionRate.validate(field+".connection_rate"), l.MessageRate.validate(field+".message_rate"))
}

// LimitName names a field of [Limits] in a [Violation].
type LimitName string

// The limits an audit checks.
const (
	LimitConnections           LimitName = "connections"
	LimitConnectionRate        LimitName = "connection_rate"
	LimitMessagesPerConnection LimitName = "messages_per_connection"
	LimitMessageRate           LimitName = "message_rate"
	LimitMessagesPerHour       LimitName = "messages_per_hour"
	LimitMessagesPerDay        LimitName = "messages_per_day"
)

// Violation is one event that a stated limit did not allow.
type Violation struct {
	Time     time.Time `json:"time"`
	Receiver string    `json:"receiver"`
	// Source is the sender's address, "all" where the limit is shared.
	Source string    `json:"source"`
	Limit  LimitName `json:"limit"`
	// Allowed and Seen are counts: of connections, of messages on a connection,
	// or, for rates, of events beyond what had flowed off when this one came.
	Allowed float64 `json:"allowed"`
	Seen    float64 `json:"seen"`
}

// Audit checks what one receiver sees against the limits stated for it.
// Connections at once and messages per connection have no slack; rates and
// quotas may reach, in any window, rate x window + burst + one second's worth.
// An Audit is not safe for concurrent use.
type Audit struct {
	receiver string
	limits   Limits
	sources  map[netip.Addr]*audited
}

type audited struct {
	open                                 int
	connections, messages, hourly, daily bucket
}

// maxSources bounds what is remembered about senders; idle ones go first.
const maxSources = 4096

// NewAudit returns an audit that has seen nothing yet.
func NewAudit(receiver string, limits Limits) *Audit {
	return &Audit{receiver: receiver, limits: limits, sources: map[netip.Addr]*audited{}}
}

// SetLimits replaces the limits, as a reloaded rule file does. What was already
// seen keeps counting; open connections above a new cap are no violation until
// another one opens.
func (a *Audit) SetLimits(l Limits) { a.limits = l }

// Limits returns the limits in force.
func (a *Audit) Limits() Limits { return a.limits }

// Full reports whether one more connection from source would break the cap on
// connections at once.
func (a *Audit) Full(source netip.Addr) bool {
	return a.limits.Connections > 0 && a.of(source).open >= a.limits.Connections
}

// Open records a new connection and returns what it violates. Every Open is
// followed by one Close.
func (a *Audit) Open(now time.Time, source netip.Addr) []Violation {
	s := a.of(source)
	s.open++
	var found []Violation
	if limit := a.limits.Connections; limit > 0 && s.open > limit {
		found = append(found, a.violation(now, source, LimitConnections, float64(limit), float64(s.open)))
	}
	return a.meter(found, now, source, &s.connections, LimitConnectionRate, a.limits.ConnectionRate)
}

// Close records that a connection of source has ended.
func (a *Audit) Close(source netip.Addr) {
	if s := a.of(source); s.open > 0 {
		s.open--
	}
}

// Message records a MAIL command, the nth on its connection counting from 1,
// and returns what it violates.
func (a *Audit) Message(now time.Time, source netip.Addr, nth int) []Violation {
	s := a.of(source)
	var found []Violation
	if limit := a.limits.MessagesPerConnection; limit > 0 && nth > limit {
		found = append(found, a.violation(now, source, LimitMessagesPerConnection, float64(limit), float64(nth)))
	}
	found = a.meter(found, now, source, &s.messages, LimitMessageRate, a.limits.MessageRate)
	found = a.meter(found, now, source, &s.hourly, LimitMessagesPerHour, quota(a.limits.MessagesPerHour, time.Hour))
	return a.meter(found, now, source, &s.daily, LimitMessagesPerDay, quota(a.limits.MessagesPerDay, 24*time.Hour))
}

// quota is a number of messages in a long period as the rate that meters it.
func quota(n int, per time.Duration) Rate {
	return Rate{Count: n, Per: Duration(per), Burst: int(int64(n) * int64(5*time.Second) / int64(per))}
}

// meter adds one event to a bucket. Beyond the depth it is a violation, and the
// bucket is set back to full, so that each excess event counts once.
func (a *Audit) meter(found []Violation, now time.Time, source netip.Addr, b *bucket, name LimitName, rate Rate) []Violation {
	if !rate.Limited() {
		return found
	}
	perSecond := rate.PerSecond()
	depth := rate.burst() + perSecond
	level := b.add(now, perSecond)
	if level <= depth+1e-6 {
		return found
	}
	b.level = depth
	return append(found, a.violation(now, source, name, depth, level))
}

func (a *Audit) violation(now time.Time, source netip.Addr, name LimitName, allowed, seen float64) Violation {
	who := source.String()
	if a.limits.Shared {
		who = "all"
	}
	return Violation{Time: now, Receiver: a.receiver, Source: who, Limit: name, Allowed: allowed, Seen: seen}
}

func (a *Audit) of(source netip.Addr) *audited {
	if a.limits.Shared {
		source = netip.Addr{}
	}
	s := a.sources[source]
	if s == nil {
		evictIdle(a.sources, func(s *audited) bool { return s.open == 0 })
		s = &audited{}
		a.sources[source] = s
	}
	return s
}

// evictIdle makes room when a table of sources is full.
func evictIdle[S any](sources map[netip.Addr]S, idle func(S) bool) {
	if len(sources) < maxSources {
		return
	}
	for k, s := range sources {
		if idle(s) {
			delete(sources, k)
		}
	}
}
