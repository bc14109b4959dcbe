package mta

import "time"

// WaitingRequest asks for messages of one run that wait: fresh mail in order, then
// retries by the time they are due.
type WaitingRequest struct {
	Handover uint64
	Domain   uint32
	// Retries leaves fresh mail out, and retries that are due by Due (zero: none).
	Retries bool
	Due     time.Time
	// Settled leaves out what was settled later; zero: nothing. So work that makes mail
	// due does not meet the same message again and again.
	Settled time.Time
	// Arrived leaves out what entered the relay later; zero: nothing.
	Arrived time.Time
	// Source is that of the last attempt; empty: any, also none.
	Source string
	// After is where to go on, as the answer before said; zero: from the beginning.
	After WaitingPlace
	// Max is the most messages wanted. With Count set messages are counted, not answered,
	// and Max is of no effect.
	Max   int
	Count bool
}

// perMessage reports whether messages have to be read to know whether they are wanted.
func (q *WaitingRequest) perMessage() bool {
	return !q.Settled.IsZero() || !q.Arrived.IsZero() || q.Source != ""
}

// WaitingPlace is a place in a run's waiting mail.
type WaitingPlace struct {
	Fresh   Position // the next fresh message
	Retries bool     // fresh mail was read; Due and Retry are the last retry read
	Due     time.Time
	Retry   Position
}

// WaitingPage is what was read. A page may be short, or empty, without being the last.
type WaitingPage struct {
	Messages []*Message
	Count    int64 // of those that were wanted
	Next     WaitingPlace
	Done     bool // nothing is left behind Next
}

// Hurry makes a waiting retry due sooner, or later if that is said. One that was claimed, settled or made due
// at another time since it was read is passed over.
type Hurry struct {
	Message *Message // as Waiting answered it
	Due     time.Time
	// Later lets Due be behind the time at which it is due now.
	Later bool
	// Work is the operator's work that counts it.
	Work string
}
