package mxrules

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Field names one member of Limits, the unit in which rules are merged.
type Field uint8

// The fields of Limits, in the order in which they are printed.
const (
	FieldConnections Field = iota
	FieldMessagesPerConnection
	FieldConnectionRate
	FieldMessageRate
	FieldMessagesPerHour
	FieldMessagesPerDay
	FieldShared
	FieldTLS
	FieldPipelining
	FieldChunking
	FieldConnectTimeout
	FieldCommandTimeout
	FieldDataTimeout
	FieldFinalDotTimeout
	FieldGovernor
	FieldReactions

	// NumFields is the number of fields, for arrays indexed by Field.
	NumFields = iota
)

var fieldNames = [NumFields]string{
	"connections",
	"messages_per_connection",
	"connection_rate",
	"message_rate",
	"messages_per_hour",
	"messages_per_day",
	"scope",
	"tls",
	"pipelining",
	"chunking",
	"connect_timeout",
	"command_timeout",
	"data_timeout",
	"final_dot_timeout",
	"governor",
	"reactions",
}

// String is the field's name in rule files, such as "messages_per_connection".
func (f Field) String() string {
	if int(f) < len(fieldNames) {
		return fieldNames[f]
	}
	return "field(" + strconv.Itoa(int(f)) + ")"
}

// Fields is a set of fields; the zero value is empty.
type Fields uint32

// AllFields is the set of every field.
const AllFields Fields = 1<<NumFields - 1

// FieldsOf is the set of the fields given.
func FieldsOf(fields ...Field) Fields {
	var s Fields
	for _, f := range fields {
		s |= 1 << f
	}
	return s
}

// Has reports whether f is in the set.
func (s Fields) Has(f Field) bool { return s&(1<<f) != 0 }

// With is the set with f added.
func (s Fields) With(f Field) Fields { return s | 1<<f }

// Ranges of limits. They keep every product of the meters inside 64 bits and
// turn a mistyped figure into an error.
const (
	// MaxConnections bounds Limits.Connections.
	MaxConnections = 10_000
	// MaxMessagesPerConnection bounds Limits.MessagesPerConnection.
	MaxMessagesPerConnection = 1_000_000
	// MaxQuota bounds Limits.MessagesPerHour and Limits.MessagesPerDay.
	MaxQuota = 1_000_000_000
	// MinTimeout and MaxTimeout bound every timeout that is set.
	MinTimeout = 10 * time.Millisecond
	MaxTimeout = time.Hour
)

// Check reports whether the field's value is in range; the error names the
// value and the range. Zero values (no limit, default timeout) are in range.
func (l Limits) Check(f Field) error {
	switch f {
	case FieldConnections:
		return checkCountBounds(l.Bounds.ConnectionsStart, l.Bounds.ConnectionsLow, l.Connections, MaxConnections)
	case FieldMessagesPerConnection:
		return checkCountBounds(l.Bounds.MessagesPerConnectionStart, l.Bounds.MessagesPerConnectionLow, l.MessagesPerConnection, MaxMessagesPerConnection)
	case FieldConnectionRate:
		return checkRateBounds(l.Bounds.ConnectionRateStart, l.Bounds.ConnectionRateLow, l.ConnectionRate)
	case FieldMessageRate:
		return checkRateBounds(l.Bounds.MessageRateStart, l.Bounds.MessageRateLow, l.MessageRate)
	case FieldMessagesPerHour:
		return checkCount(l.MessagesPerHour, MaxQuota)
	case FieldMessagesPerDay:
		return checkCount(l.MessagesPerDay, MaxQuota)
	case FieldTLS:
		if l.TLS > TLSVerify {
			return fmt.Errorf("TLS requirement %d is not known", l.TLS)
		}
	case FieldPipelining:
		return checkSwitch(l.Pipelining)
	case FieldChunking:
		return checkSwitch(l.Chunking)
	case FieldConnectTimeout, FieldCommandTimeout, FieldDataTimeout, FieldFinalDotTimeout:
		return checkTimeout(*l.timeout(f))
	case FieldGovernor:
		if l.Governor > GovernorOn {
			return fmt.Errorf("governor %d is not known", l.Governor)
		}
	case FieldReactions:
		return l.Reactions.Check()
	}
	return nil
}

func checkCount(n, most int) error {
	if n < 0 || n > most {
		return fmt.Errorf("%d is out of range; use 1 to %d", n, most)
	}
	return nil
}

// checkCountBounds also sees that low is at most start, and start at most the limit.
func checkCountBounds(start, low, high, most int) error {
	for _, n := range [...]int{high, start, low} {
		if err := checkCount(n, most); err != nil {
			return err
		}
	}
	if start != 0 && high != 0 && start > high || low != 0 && high != 0 && low > high || start != 0 && low > start {
		return fmt.Errorf("low %d, start %d, high %s; give them in rising order", low, start, countText(high))
	}
	return nil
}

func checkRateBounds(start, low, high Rate) error {
	for _, r := range [...]Rate{high, start, low} {
		if err := r.Check(); err != nil {
			return err
		}
	}
	over := func(a, b Rate) bool { return !a.IsZero() && !b.IsZero() && a.PerSecond() > b.PerSecond() }
	if over(start, high) || over(low, high) || over(low, start) {
		return fmt.Errorf("low %v, start %v, high %v; give them in rising order", low, start, high)
	}
	return nil
}

func checkSwitch(s Switch) error {
	if s > Off {
		return fmt.Errorf("switch %d is not known", s)
	}
	return nil
}

func checkTimeout(d time.Duration) error {
	if d != 0 && (d < MinTimeout || d > MaxTimeout) {
		return fmt.Errorf("%v is out of range; use %v to %v", d, MinTimeout, MaxTimeout)
	}
	return nil
}

// timeout is the place of one of the four timeout fields.
func (l *Limits) timeout(f Field) *time.Duration {
	switch f {
	case FieldConnectTimeout:
		return &l.ConnectTimeout
	case FieldCommandTimeout:
		return &l.CommandTimeout
	case FieldDataTimeout:
		return &l.DataTimeout
	default:
		return &l.FinalDotTimeout
	}
}

// Text is the field's value as rule files write it: "10", "unlimited",
// "100/s burst 20", "shared", "encrypt", "off", "4m".
func (l Limits) Text(f Field) string {
	switch f {
	case FieldConnections:
		b := &l.Bounds
		return countBoundsText(b.ConnectionsStart, b.ConnectionsLow, l.Connections)
	case FieldMessagesPerConnection:
		b := &l.Bounds
		return countBoundsText(b.MessagesPerConnectionStart, b.MessagesPerConnectionLow, l.MessagesPerConnection)
	case FieldConnectionRate:
		return rateBoundsText(l.Bounds.ConnectionRateStart, l.Bounds.ConnectionRateLow, l.ConnectionRate)
	case FieldMessageRate:
		return rateBoundsText(l.Bounds.MessageRateStart, l.Bounds.MessageRateLow, l.MessageRate)
	case FieldMessagesPerHour:
		return countText(l.MessagesPerHour)
	case FieldMessagesPerDay:
		return countText(l.MessagesPerDay)
	case FieldShared:
		if l.Shared {
			return "shared"
		}
		return "per_source"
	case FieldTLS:
		return l.TLS.String()
	case FieldPipelining:
		return l.Pipelining.String()
	case FieldChunking:
		return l.Chunking.String()
	case FieldGovernor:
		return l.Governor.String()
	case FieldReactions:
		return l.Reactions.String()
	default:
		return durationText(*l.timeout(f))
	}
}

// boundsText is the form of a limit with bounds: "{start: 2, low: 1, high: 10}".
func boundsText(start, low, high string) string {
	s := "{"
	if start != "" {
		s += "start: " + start + ", "
	}
	if low != "" {
		s += "low: " + low + ", "
	}
	return s + "high: " + high + "}"
}

func countBoundsText(start, low, high int) string {
	if start == 0 && low == 0 {
		return countText(high)
	}
	given := func(n int) string {
		if n == 0 {
			return ""
		}
		return countText(n)
	}
	return boundsText(given(start), given(low), countText(high))
}

func rateBoundsText(start, low, high Rate) string {
	if start.IsZero() && low.IsZero() {
		return high.String()
	}
	given := func(r Rate) string {
		if r.IsZero() {
			return ""
		}
		return r.String()
	}
	return boundsText(given(start), given(low), high.String())
}

func countText(n int) string {
	if n == 0 {
		return "unlimited"
	}
	return strconv.Itoa(n)
}

// durationText drops the zero units that time.Duration prints: 4m, not 4m0s.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// copyField sets one field of l to its value in from.
func (l *Limits) copyField(f Field, from *Limits) {
	switch f {
	case FieldConnections:
		l.Connections = from.Connections
		l.Bounds.ConnectionsStart, l.Bounds.ConnectionsLow = from.Bounds.ConnectionsStart, from.Bounds.ConnectionsLow
	case FieldMessagesPerConnection:
		l.MessagesPerConnection = from.MessagesPerConnection
		l.Bounds.MessagesPerConnectionStart = from.Bounds.MessagesPerConnectionStart
		l.Bounds.MessagesPerConnectionLow = from.Bounds.MessagesPerConnectionLow
	case FieldConnectionRate:
		l.ConnectionRate = from.ConnectionRate
		l.Bounds.ConnectionRateStart, l.Bounds.ConnectionRateLow = from.Bounds.ConnectionRateStart, from.Bounds.ConnectionRateLow
	case FieldMessageRate:
		l.MessageRate = from.MessageRate
		l.Bounds.MessageRateStart, l.Bounds.MessageRateLow = from.Bounds.MessageRateStart, from.Bounds.MessageRateLow
	case FieldMessagesPerHour:
		l.MessagesPerHour = from.MessagesPerHour
	case FieldMessagesPerDay:
		l.MessagesPerDay = from.MessagesPerDay
	case FieldShared:
		l.Shared = from.Shared
	case FieldTLS:
		l.TLS = from.TLS
	case FieldPipelining:
		l.Pipelining = from.Pipelining
	case FieldChunking:
		l.Chunking = from.Chunking
	case FieldGovernor:
		l.Governor = from.Governor
	case FieldReactions:
		l.Reactions = from.Reactions
	default:
		*l.timeout(f) = *from.timeout(f)
	}
}
