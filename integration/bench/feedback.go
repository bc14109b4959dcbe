//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// follower is a subscriber of everything: what it waits behind the receiver's acceptance of
// a message is the latency of feedback.
type follower struct {
	told []int64 // Unix nanoseconds by message
	seen atomic.Int64
	end  context.CancelFunc
	done chan error
}

// follow subscribes from now on, for messages of the load.
func (n *node) follow(ctx context.Context, messages int) (*follower, error) {
	ctx, end := context.WithCancel(ctx)
	stream, err := veredusv1.NewFeedbackServiceClient(n.conn).StreamFeedback(ctx, &veredusv1.StreamFeedbackRequest{
		Start: &veredusv1.StreamFeedbackRequest_Now{Now: &emptypb.Empty{}},
	})
	if err == nil {
		_, err = stream.Recv() // it has begun: the first answer has a token and no events
	}
	if err != nil {
		end()
		return nil, err
	}
	f := &follower{told: make([]int64, messages), end: end, done: make(chan error, 1)}
	go func() {
		for {
			answer, err := stream.Recv()
			if err != nil {
				if ctx.Err() != nil {
					err = nil
				}
				f.done <- err
				return
			}
			now := time.Now().UnixNano()
			for _, e := range answer.GetEvents() {
				i := indexOf([]byte(e.GetRecipient()))
				if e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED && i >= 0 && i < len(f.told) {
					f.told[i] = now
					f.seen.Add(1)
				}
			}
		}
	}()
	return f, nil
}

// stop ends the subscription once every message was told of. Only then may told be read.
func (f *follower) stop(ctx context.Context) error {
	for end := time.Now().Add(feedbackPatience); f.seen.Load() < int64(len(f.told)) && time.Now().Before(end); {
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			break
		}
	}
	f.end()
	return <-f.done
}

// feedbackPatience is how long behind the end of the delivery its last events may come.
const feedbackPatience = 10 * time.Second

// waits are the sorted seconds between the receiver's acceptance of each message and its event.
func (f *follower) waits(accepted []int64) ([]float64, error) {
	waits := make([]float64, len(f.told))
	for i, told := range f.told {
		if told == 0 {
			return nil, fmt.Errorf("no event tells that %s was delivered", address(i))
		}
		waits[i] = time.Duration(told - accepted[i]).Seconds()
	}
	slices.Sort(waits)
	return waits, nil
}
