package smtpc

import "time"

// Envelope is one transaction's sender and recipient.
type Envelope struct {
	// From is the return path without angle brackets; empty is the null path.
	From string
	// To is the recipient, without angle brackets.
	To string
	// Size is the message's size in octets for SIZE=; 0 means the message's length.
	Size int64
	// EightBit says that the content needs 8BITMIME; also found out from the content.
	EightBit bool
	// UTF8 says that header or addresses need SMTPUTF8; also found out from the addresses.
	UTF8 bool
}

// Mail is one message as it goes over a session.
type Mail struct {
	Envelope Envelope
	// Content is the RFC 5322 message with CRLF line ends. It is read, not kept nor changed.
	Content []byte
}

// Result is what became of one message.
type Result struct {
	// Reply decided: the first refusal, or the reply to the final dot. Code is 0 and
	// Text the cause when the deciding reply never came.
	Reply Reply
	// Replies are all replies of the transaction in order, each with its phase.
	Replies []Reply
	// Delivered is true only for a 2xx after the final dot of a transaction whose
	// MAIL, RCPT and DATA were accepted.
	Delivered bool
	// Uncertain says that the whole content was written and no final reply came: the
	// server may have the message.
	Uncertain bool
	// Began says that MAIL was written. Without it nothing was said about this
	// message: unless Local, Reply (a 421 or 5xx in idleness or to RSET, a hang-up) is
	// about the connection, and its Phase is PhaseQuit.
	Began bool
	// Lost says that the server has nothing of this message and that what ended the
	// connection was not the message: its MAIL was written ahead of a reply to something
	// else; or the server hung up (HungUp) or broke inside a group (Broke) and said nothing
	// against it. It was not tried. Reply is about the connection.
	Lost bool
	// HungUp says that the server served messages on this connection, and then closed it
	// without a word before the reply to this one's MAIL.
	HungUp bool
	// Local says that Reply is our own refusal, made before MAIL.
	Local bool
	// Took is how long the server took to the deciding reply, or to the failure: from when
	// MAIL was written, or from the reply to the message before if that came later. 0 if
	// MAIL was not written.
	Took time.Duration
	// Bytes counts the octets of content written, dot-stuffing and final dot included.
	Bytes int64
	// Usable says that the connection can take another message. Otherwise it is closed.
	Usable bool
	// Broke names the grouping inside which the server dropped the connection or broke the
	// protocol: it should be spoken to more simply. Stepwise when nothing broke.
	Broke Grouping
	// Err is the cause when no reply decided, nil otherwise.
	Err error
}

// Failure returns the result as an *Error, nil when delivered.
func (r Result) Failure() *Error {
	if r.Delivered {
		return nil
	}
	return &Error{Reply: r.Reply, Uncertain: r.Uncertain, Closed: !r.Usable, Err: r.Err}
}
