// Package feedback streams the fate of messages: the Email Feedback Service.
//
// A stream reads the durable log by position, so a reader that keeps up sees
// events as they become durable, and one that does not reads them later from
// disk. Events are encoded once for all, nothing is buffered for anybody, and no reader
// can slow a writer. Streams that wait for something particular are woken when it comes.
package feedback

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

const (
	// heartbeat is how often a token comes while nothing matches.
	heartbeat = 5 * time.Second
	// answerSize bounds the events of an answer, in octets, unless it is a single one, which
	// is a few KiB at most. It is what a stream whose client does not read keeps in memory
	// beside the 64 KiB that gRPC lets it write ahead.
	answerSize = 16 << 10
	// pace is the least time between two reads of a stream that has caught up. A commit
	// every few milliseconds would else make an answer each time.
	pace = 10 * time.Millisecond
	// maxFilterValues bounds a filter.
	maxFilterValues = 1000
	// maxFilterOctets bounds it, too: it is kept for as long as its stream is open.
	maxFilterOctets = 64 << 10
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
	sleepers *sleepers
	stopping chan struct{}
}

// NewService makes the service. Close stopping to end every stream.
func NewService(log Log, stopping chan struct{}) *Service {
	return &Service{log: log, sleepers: newSleepers(log), stopping: stopping}
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
	if !r.filter.everything() {
		r.sleepers, r.sleeper = s.sleepers, s.sleepers.enter(r.filter)
		defer s.sleepers.leave(r.sleeper)
	}
	return r.run(stream.Context(), s.stopping)
}

func checkFilter(f *veredusv1.FeedbackFilter) error {
	if n := proto.Size(f); n > maxFilterOctets {
		return fmt.Errorf("%w: its lists take %d octets, a filter may have %d: use several streams, or filter at the client", ErrBadFilter, n, maxFilterOctets)
	}
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
		_, _, err = s.log.Records(ctx, at, 1)
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
	frames []byte // events to answer
	// caughtUp: the last read took all there was.
	caughtUp bool

	// Of a stream with a filter.
	sleepers *sleepers
	sleeper  *sleeper
}

// run reads until the stream or the service ends.
func (r *reader) run(ctx context.Context, stopping <-chan struct{}) error {
	beat, next := time.NewTimer(heartbeat), time.NewTimer(0)
	defer beat.Stop()
	defer next.Stop()
	for {
		if r.caughtUp {
			r.caughtUp = false
			wait(ctx, stopping, next)
		}
		news := r.news()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-stopping:
			return ErrStopping
		case <-beat.C:
			r.rise()
			if err := r.answer(); err != nil {
				return err
			}
			beat.Reset(heartbeat)
		case <-news:
			r.rise()
			answered, err := r.read(ctx)
			if err != nil {
				return err
			}
			next.Reset(pace)
			if answered {
				beat.Reset(heartbeat)
			}
		}
	}
}

// news is readable once there may be something to read.
func (r *reader) news() <-chan struct{} {
	if r.sleeper == nil {
		return r.log.Grown(r.at)
	}
	return r.sleepers.sleep(r.sleeper, r.at)
}

// rise moves the place behind what was passed over while the stream slept.
func (r *reader) rise() {
	if r.sleeper != nil {
		r.at = r.sleepers.rise(r.sleeper)
	}
}

// wait returns when the timer lets the next read be made, or the stream or the service
// ended.
func wait(ctx context.Context, stopping <-chan struct{}, next *time.Timer) {
	select {
	case <-next.C:
	case <-stopping:
	case <-ctx.Done():
	}
}

// read takes one batch from the log and sends what matches.
func (r *reader) read(ctx context.Context) (answered bool, err error) {
	records, next, err := r.log.Records(ctx, r.at, answerSize)
	if err != nil {
		return false, err
	}
	_, end := r.log.Ends()
	r.at, r.caughtUp = next, !next.behind(end)
	for i := range records {
		if r.filter.matches(&records[i]) {
			r.frames = append(r.frames, records[i].frame...)
		}
	}
	if len(r.frames) == 0 {
		return false, nil
	}
	return true, r.answer()
}

// answer sends the events, of which there may be none, with the token behind them. It blocks
// while the client does not read; nobody waits for that.
func (r *reader) answer() error {
	err := r.send(answerOf(r.frames, Token(r.log.StoreID(), r.at)))
	r.frames = r.frames[:0]
	return err
}
