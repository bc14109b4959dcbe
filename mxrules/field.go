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
		return checkCount(l.Connections, MaxConnections)
	case FieldMessagesPerConnection:
		return checkCount(l.MessagesPerConnection, MaxMessagesPerConnection)
	case FieldConnectionRate:
		return l.ConnectionRate.Check()
	case FieldMessageRate:
		return l.MessageRate.Check()
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
	}
	return nil
}

func checkCount(n, most int) error {
	if n < 0 || n > most {
		return fmt.Errorf("%d is out of range; use 1 to %d", n, most)
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
		return countText(l.Connections)
	case FieldMessagesPerConnection:
		return countText(l.MessagesPerConnection)
	case FieldConnectionRate:
		return l.ConnectionRate.String()
	case FieldMessageRate:
		return l.MessageRate.String()
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
	default:
		return durationText(*l.timeout(f))
	}
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
	case FieldMessagesPerConnection:
		l.MessagesPerConnection = from.MessagesPerConnection
	case FieldConnectionRate:
		l.ConnectionRate = from.ConnectionRate
	case FieldMessageRate:
		l.MessageRate = from.MessageRate
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
	default:
		*l.timeout(f) = *from.timeout(f)
	}
}
