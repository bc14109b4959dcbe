package world

import (
	"strconv"
	"time"
)

// Decision is what a receiver does at one step of a session.
type Decision struct {
	// Code is the reply code, 0 when no reply is given.
	Code int
	// Enhanced is the enhanced status code (RFC 3463), empty for none.
	Enhanced string
	// Text is the reply's text; "\n" separates the lines of a multi-line reply.
	Text string
	// Delay is how long the reply waits.
	Delay time.Duration
	// Drop says whether and how the connection ends.
	Drop Drop
	// Cause is why the receiver decided so.
	Cause Cause
	// Accepted is set at the end of data when the receiver keeps the message,
	// with or without saying so.
	Accepted bool
	// Returns is what comes back about the message once its reply was given.
	Returns []Return
}

// Positive reports a 2xx or 3xx reply.
func (d Decision) Positive() bool { return d.Code >= 200 && d.Code < 400 }

// String renders the reply as one line.
func (d Decision) String() string {
	if d.Code == 0 {
		return "(" + d.Drop.String() + ")"
	}
	s := strconv.Itoa(d.Code)
	if d.Enhanced != "" {
		s += " " + d.Enhanced
	}
	return s + " " + d.Text
}

// Drop is how a connection ends with a decision.
type Drop uint8

// The ways to end a connection.
const (
	// Stay keeps the connection.
	Stay Drop = iota
	// DropAfterReply closes it when the reply has been written.
	DropAfterReply
	// DropSilent closes it without a reply.
	DropSilent
	// DropReset resets it without a reply.
	DropReset
)

var dropNames = [...]string{"stay", "close after reply", "close without reply", "reset"}

// String names the way.
func (d Drop) String() string {
	if int(d) < len(dropNames) {
		return dropNames[d]
	}
	return "drop(" + strconv.Itoa(int(d)) + ")"
}

// Cause is why a receiver decided as it did. Pacing is told apart from all else,
// because only pacing says something about how fast the receiver wants mail.
type Cause string

// The causes.
const (
	// CauseNone is plain agreement.
	CauseNone Cause = ""
	// CausePacing is a hidden limit or the penalty box.
	CausePacing Cause = "pacing"
	// CauseGreylist asks to come back.
	CauseGreylist Cause = "greylist"
	// CauseOutage is a receiver that does not serve now.
	CauseOutage Cause = "outage"
	// CauseMailbox is the state of the recipient's mailbox.
	CauseMailbox Cause = "mailbox"
	// CauseBlock is a block of the source.
	CauseBlock Cause = "block"
	// CauseContent is a judgement on the content.
	CauseContent Cause = "content"
	// CausePolicy is a demand the session does not meet: TLS, relaying.
	CausePolicy Cause = "policy"
	// CauseFault is a line dropped or a reply spoilt for no good reason.
	CauseFault Cause = "fault"
)
