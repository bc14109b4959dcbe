package mxrules

import "time"

// Memory is what was learned of a path. Zero values are not known.
type Memory struct {
	// MessageRate and ConnectionRate are what the receiver bears, per second.
	MessageRate, ConnectionRate Learned
	// Connections and MessagesPerConnection are its caps.
	Connections, MessagesPerConnection Learned
	// Hourly is its quota of messages in any hour.
	Hourly Learned
	// Rest is how long it last took, in seconds, until it served again after it had
	// refused everything.
	Rest Learned
	// Held is what holds the path by time.
	Held Held
}

// Learned is one figure and the evidence for it.
type Learned struct {
	Value float64
	// At is when it was last confirmed: on the governor's clock in a learner, in
	// Unix nanoseconds in a Usage.
	At int64
	// Seen is how often it was found, up to 65535.
	Seen uint16
}

// Known reports whether there is anything.
func (l Learned) Known() bool { return l.Value > 0 }

func (m *Memory) each() [6]*Learned {
	return [...]*Learned{&m.MessageRate, &m.ConnectionRate, &m.Connections, &m.MessagesPerConnection, &m.Hourly, &m.Rest}
}

// shift moves all times of a memory.
func (m Memory) shift(by int64) Memory {
	for _, l := range m.each() {
		if l.Known() {
			l.At += by
		}
	}
	m.Held = m.Held.shift(by)
	return m
}

// IsZero reports whether nothing was learned.
func (m Memory) IsZero() bool { return m == Memory{} }

// Knowledge is worth less as it ages: it stays whole for fresh, then halves its
// distance to the rule's start with each half-life, and is dropped when stale.
const (
	freshFor  = 6 * time.Hour
	halfLife  = 24 * time.Hour
	staleFrom = 14 * 24 * time.Hour
)
