package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// silence is how long a stream may say nothing before it counts as dead: a node
// sends a token at least every 5 s.
const silence = 30 * time.Second

// Follower follows feedback over streams that may break: it connects again and
// goes on right behind the last batch it handed over, so that each event is handed
// over once. Across restarts of the process the same holds if the token that was
// recorded last is the one of the last batch handled: either record it together
// with the batch's effects inside Handle, or in Record and let effects be
// idempotent by event id.
type Follower struct {
	// Client is the node.
	Client veredusv1.FeedbackServiceClient
	// Token is where to start; empty means FromNow or the oldest event kept.
	Token string
	// FromNow starts with what happens from now on, if there is no Token.
	FromNow bool
	// Filter is what to see; nil is everything.
	Filter *veredusv1.FeedbackFilter
	// Handle gets the events in order, with the token that resumes behind them.
	// The next batch waits for it; the node meanwhile keeps events on disk. Its
	// error ends Follow.
	Handle func(ctx context.Context, events []*veredusv1.FeedbackEvent, token string) error
	// Record, if set, is called with each token: after Handle, and also where a
	// batch had no events. Its error ends Follow.
	Record func(token string) error
	// Patience is how long to try without an answer; 0 means without end.
	Patience time.Duration
	// Reconnect, if set, is called before each wait after a broken connection.
	Reconnect func(err error, wait time.Duration)
}

// Follow hands over events until ctx ends, a callback fails or the node refuses:
// OUT_OF_RANGE if the token lies before what the node still keeps,
// FAILED_PRECONDITION if it belongs to another store. It always returns an error:
// the cause of ctx, the callback's, or the node's with its gRPC status. Afterwards
// f.Token resumes where it ended.
func (f *Follower) Follow(ctx context.Context) error {
	retry := retry{patience: f.Patience}
	for {
		err := f.session(ctx, &retry)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var own *handlerError
		if errors.As(err, &own) {
			return own.error
		}
		asked, ok := mayPass(err)
		if !ok {
			return fmt.Errorf("following feedback: %w", err)
		}
		wait, ok := retry.next(time.Now(), asked)
		if !ok {
			return fmt.Errorf("following feedback: no answer for %v: %w", f.Patience, err)
		}
		if f.Reconnect != nil {
			f.Reconnect(err, wait)
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// handlerError is an error of the caller's, not of the line.
type handlerError struct{ error }

// errSilent is a stream without a sign of life.
var errSilent = status.Errorf(codes.Unavailable, "the node said nothing for %v", silence)

// session follows one stream until it ends.
func (f *Follower) session(ctx context.Context, retry *retry) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	stream, err := f.Client.StreamFeedback(ctx, f.request())
	if err != nil {
		return err
	}
	for {
		watchdog.Reset(silence)
		answer, err := stream.Recv()
		watchdog.Stop()
		switch {
		case context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return status.Error(codes.Unavailable, "the node ended the stream")
		case err != nil:
			return err
		}
		retry.worked()
		if err := f.take(ctx, answer); err != nil {
			return &handlerError{err}
		}
	}
}

// take hands over one batch. The token moves only once the batch was handled.
func (f *Follower) take(ctx context.Context, answer *veredusv1.StreamFeedbackResponse) error {
	if len(answer.GetEvents()) > 0 && f.Handle != nil {
		if err := f.Handle(ctx, answer.GetEvents(), answer.GetToken()); err != nil {
			return err
		}
	}
	moved := f.Token != answer.GetToken()
	f.Token = answer.GetToken()
	if moved && f.Record != nil {
		return f.Record(f.Token)
	}
	return nil
}

func (f *Follower) request() *veredusv1.StreamFeedbackRequest {
	req := &veredusv1.StreamFeedbackRequest{Filter: f.Filter}
	switch {
	case f.Token != "":
		req.Start = &veredusv1.StreamFeedbackRequest_Token{Token: f.Token}
	case f.FromNow:
		req.Start = &veredusv1.StreamFeedbackRequest_Now{Now: &emptypb.Empty{}}
	default:
		req.Start = &veredusv1.StreamFeedbackRequest_Oldest{Oldest: &emptypb.Empty{}}
	}
	return req
}
