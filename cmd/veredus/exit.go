package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The exit statuses of all commands.
const (
	exitOK          = 0
	exitFailed      = 1   // it did not work, or what was checked is not as it should be
	exitUsage       = 2   // the command line or a file given on it is wrong
	exitRefused     = 3   // the preparation of a delivery found errors; nothing was sent
	exitInterrupted = 130 // SIGINT or SIGTERM
)

// usageError is a wrong command line.
type usageError struct {
	cmd *cobra.Command
	err error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{cmd, fmt.Errorf(format, args...)}
}

// exitError is an error with a status of its own.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exitStatus(ctx context.Context, err error) int {
	var usage *usageError
	var own *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &own):
		return own.status
	case errors.As(err, &usage):
		return exitUsage
	case ctx.Err() != nil:
		return exitInterrupted
	}
	return exitFailed
}

// explainError is what the user reads: what is wrong, in whose words, and what to do.
func explainError(err error) string {
	var usage *usageError
	if errors.As(err, &usage) {
		text := "veredus: " + err.Error()
		if usage.cmd != nil {
			text += fmt.Sprintf("\nRun '%s --help' for help and an example.", usage.cmd.CommandPath())
		}
		return text
	}
	if errors.Is(err, context.Canceled) && status.Code(err) == codes.Unknown {
		return "veredus: interrupted"
	}
	if _, ok := status.FromError(err); ok {
		return "veredus: " + explainStatus(err)
	}
	return "veredus: " + err.Error()
}

// explainStatus says what a node answered: the text, then each field at fault.
func explainStatus(err error) string {
	s := status.Convert(err)
	var b strings.Builder
	b.WriteString(strings.Replace(err.Error(), fmt.Sprintf("rpc error: code = %s desc = ", s.Code()), "", 1))
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				if !strings.Contains(b.String(), v.GetDescription()) {
					fmt.Fprintf(&b, "\n  %s: %s", v.GetField(), v.GetDescription())
				}
			}
		case *errdetails.PreconditionFailure:
			for _, v := range d.GetViolations() {
				if !strings.Contains(b.String(), v.GetDescription()) {
					fmt.Fprintf(&b, "\n  %s: %s", v.GetSubject(), v.GetDescription())
				}
			}
		}
	}
	return b.String()
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef(cmd, "unexpected argument %q", args[0])
	}
	return nil
}

// exactArgs wants one argument for each name.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usagef(cmd, "%s is missing", names[len(args)])
		}
		if len(args) > len(names) {
			return usagef(cmd, "unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

// atMostOneArg allows one argument.
func atMostOneArg(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef(cmd, "unexpected argument %q", args[1])
	}
	return nil
}
