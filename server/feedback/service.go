// Package feedback streams the fate of messages: the Email Feedback Service.
//
// A stream reads the durable log by position, so a reader that keeps up sees
// events as they become durable, and one that does not reads them later from
// disk. Nothing is buffered for anybody, and no reader can slow a writer.
package feedback

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

const (
	// heartbeat is how often a token comes while nothing matches.
	heartbeat = 5 * time.Second
	// readMax is how many events are read, and so answered, at a time: at most about
	// 1 MiB, since an event is at most 4 KiB.
	readMax = 256
	// matchedPace and missedPace are the least times between two reads of a stream that has
	// caught up: behind a batch with events for it, and behind one without. A commit every
	// few milliseconds would else wake every stream each time.
	matchedPace = 10 * time.Millisecond
	missedPace  = 25 * time.Millisecond
	// maxFilterValues bounds a filter.
	maxFilterValues = 1000
)

// ErrNoStart is a request that does not say where to start.
var ErrNoStart = errors.New("feedback: start is required: set oldest, now or token")

// ErrFilterTooLarge is a filter with too many values.
var ErrFilterTooLarge = errors.New("feedback: filter has more than 1000 values in a field: use several streams, or filter at the client")

// ErrBadFilter is a filter with a value that nothing can match.
var ErrBadFilter = errors.New("feedback: filter has a value that matches nothing")

// ErrStopping ends the streams of a service that stops.
var ErrStopping = errors.New("feedback: the service is stopping: resume with the last token")

// Service is FeedbackService over a Log.
type Service struct {
	veredusv1.UnimplementedFeedbackServiceServer
	log      Log
	stopping chan struct{}
}

// NewService makes the service. Close stopping to end every stream.
func NewService(log Log, stopping chan struct{}) *Service {
	return &Service{log: log, stopping: stopping}
}

// StreamFeedback implements the call.
func (s *Service) StreamFeedback(req *veredusv1.StreamFeedbackRequest, stream veredusv1.FeedbackService_StreamFeedbackServer) error {
	if err := checkFilter(req.GetFilter()); err != nil {
		return err
	}
	at, err := s.start(stream.Context(), req)
	if err != nil {
		return err
	}
	r := &reader{log: s.log, filter: newFilter(req.GetFilter()), at: at, send: stream.Send}
	if err := r.answer(); err != nil {
		return err
	}
	return r.run(stream.Context(), s.stopping)
}

func checkFilter(f *veredusv1.FeedbackFilter) error {
	for _, n := range [...]int{len(f.GetTenants()), len(f.GetDeliveries()), len(f.GetTypes()), len(f.GetDestinations()), len(f.GetRecipientIds())} {
		if n > maxFilterValues {
			return ErrFilterTooLarge
		}
	}
	for i, t := range f.GetTypes() {
		if _, known := veredusv1.FeedbackType_name[int32(t)]; !known || t == veredusv1.FeedbackType_FEEDBACK_TYPE_UNSPECIFIED {
			return fmt.Errorf("%w: types[%d] %d is no type of event: give one of FeedbackType", ErrBadFilter, i, t)
		}
	}
	for i, name := range f.GetDeliveries() {
		if id, ok := strings.CutPrefix(name, "deliveries/"); !ok || id == "" || strings.Contains(id, "/") {
			return fmt.Errorf("%w: deliveries[%d] %.80q: write deliveries/{delivery}", ErrBadFilter, i, name)
		}
	}
	return nil
}

// start finds the position to begin at, and refuses one that cannot be read.
func (s *Service) start(ctx context.Context, req *veredusv1.StreamFeedbackRequest) (Positions, error) {
	oldest, next := s.log.Ends()
	switch from := req.GetStart().(type) {
	case *veredusv1.StreamFeedbackRequest_Oldest:
		return oldest, nil
	case *veredusv1.StreamFeedbackRequest_Now:
		return next, nil
	case *veredusv1.StreamFeedbackRequest_Token:
		at, err := ParseToken(s.log.StoreID(), from.Token)
		if err != nil {
			return nil, err
		}
		_, _, err = s.log.Read(ctx, at, 1)
		return at, err
	}
	return nil, ErrNoStart
}

// reader is one stream's place.
type reader struct {
	log    Log
	filter filter
	at     Positions
	send   func(*veredusv1.StreamFeedbackResponse) error
	batch  []*veredusv1.FeedbackEvent
	// caughtUp: the last read took all there was.
	caughtUp bool
}

// run reads until the stream or the service ends.
func (r *reader) run(ctx context.Context, stopping <-chan struct{}) error {
	beat, pace := time.NewTimer(heartbeat), time.NewTimer(0)
	defer beat.Stop()
	defer pace.Stop()
	for {
		if r.caughtUp {
			r.caughtUp = false
			wait(ctx, stopping, pace)
		}
		grown := r.log.Grown(r.at)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-stopping:
			return ErrStopping
		case <-beat.C:
			if err := r.answer(); err != nil {
				return err
			}
			beat.Reset(heartbeat)
		case <-grown:
			answered, err := r.read(ctx)
			if err != nil {
				return err
			}
			pace.Reset(missedPace)
			if answered {
				pace.Reset(matchedPace)
				beat.Reset(heartbeat)
			}
		}
	}
}

// wait returns when the pace lets the next read be made, or the stream or the service
// ended.
func wait(ctx context.Context, stopping <-chan struct{}, pace *time.Timer) {
	select {
	case <-pace.C:
	case <-stopping:
	case <-ctx.Done():
	}
}

// read takes one batch from the log and sends what matches.
func (r *reader) read(ctx context.Context) (answered bool, err error) {
	events, next, err := r.log.Read(ctx, r.at, readMax)
	if err != nil {
		return false, err
	}
	r.at, r.batch, r.caughtUp = next, r.batch[:0], len(events) < readMax
	for _, e := range events {
		if r.filter.matches(e) {
			r.batch = append(r.batch, e)
		}
	}
	if len(r.batch) == 0 {
		return false, nil
	}
	return true, r.answer()
}

// answer sends the batch, which may be empty, with the token behind it. It blocks
// while the client does not read; nobody waits for that.
func (r *reader) answer() error {
	err := r.send(&veredusv1.StreamFeedbackResponse{Events: r.batch, Token: Token(r.log.StoreID(), r.at)})
	clear(r.batch)
	r.batch = r.batch[:0]
	return err
}
