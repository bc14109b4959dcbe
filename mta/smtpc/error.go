package smtpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

var (
	// ErrProtocol is wrapped by failures caused by a reply that is not SMTP, is over
	// a cap, or came when it could not.
	ErrProtocol = errors.New("protocol error")
	// ErrTLS is wrapped by failures to get the transport security demanded.
	ErrTLS = errors.New("TLS failed")
	// ErrClosed is the cause when the session was already closed.
	ErrClosed = errors.New("session is closed")
)

// Error is everything a bounce classifier or a path needs to know about a failed
// session or transaction.
type Error struct {
	// Reply is the refusal with its phase; Code is 0 and Text the cause when none came.
	Reply Reply
	// Uncertain says that the line ended or timed out between the last content byte
	// and the final reply, so that the server may have taken the message.
	Uncertain bool
	// Closed says that the connection is no longer usable (it is closed already).
	Closed bool
	// TLS is why TLS could not be had, empty when TLS is not the matter.
	TLS string
	// Err is the cause when it was not a reply, nil otherwise.
	Err error

	// handshake marks what an opportunistic session answers with plaintext.
	handshake bool
}

// Error renders phase and reply as one line.
func (e *Error) Error() string { return e.Reply.Phase.String() + ": " + e.Reply.String() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// timeoutError is a deadline of ours that passed.
type timeoutError struct {
	what  string
	after time.Duration
}

func (e *timeoutError) Error() string   { return fmt.Sprintf("%s within %s", e.what, e.after) }
func (e *timeoutError) Timeout() bool   { return true }
func (e *timeoutError) Is(t error) bool { return t == os.ErrDeadlineExceeded }

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// isHangUp reports the end of the connection by the peer, orderly or not.
func isHangUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, ErrClosed)
}

// isSilence reports a hang-up with not even a part of a reply.
func isSilence(err error) bool {
	return isHangUp(err) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrClosed)
}

func isProtocol(err error) bool { return errors.Is(err, ErrProtocol) }

func protocolErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

func cancelError(ctx context.Context) error {
	return fmt.Errorf("cancelled by the sender: %w", context.Cause(ctx))
}

// causeOf prefers the end of ctx over the I/O error that it provoked.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return cancelError(ctx)
	}
	return err
}

// causeText is an error as a reply's text: what happened, without the addresses and
// ports that package net puts around it.
func causeText(err error) string {
	var errno syscall.Errno
	var op *net.OpError
	switch {
	case err == nil:
		return "no cause given"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed by the server in the middle of a reply"
	case errors.Is(err, io.EOF):
		return "connection closed by the server"
	case errors.As(err, &op) && errors.As(op.Err, &errno):
		return errno.Error()
	}
	return strings.ToValidUTF8(err.Error(), "\uFFFD")
}
