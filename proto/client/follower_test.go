package client_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

var errEnough = errors.New("enough")

// collector keeps the ids of events and stops after so many.
type collector struct {
	ids   []string
	until int
}

func (c *collector) handle(_ context.Context, events []*veredusv1.FeedbackEvent, _ string) error {
	for _, e := range events {
		c.ids = append(c.ids, e.GetId())
	}
	if len(c.ids) >= c.until {
		return errEnough
	}
	return nil
}

func (c *collector) check(t *testing.T, from, to int) {
	t.Helper()
	if len(c.ids) != to-from+1 {
		t.Fatalf("%d events, want %d to %d: %v", len(c.ids), from, to, c.ids)
	}
	for i, id := range c.ids {
		if id != strconv.Itoa(from+i) {
			t.Fatalf("event %d is %s, want %d", i, id, from+i)
		}
	}
}

func TestFollowHandsOverEachEventOnceThroughBrokenLines(t *testing.T) {
	for seed := range uint64(25) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(500)
				n.fail(flaky(seed, 5))
				c := &collector{until: 500}
				f := client.Follower{Client: veredusv1.NewFeedbackServiceClient(n.serve(t)), Handle: c.handle}
				if err := f.Follow(t.Context()); !errors.Is(err, errEnough) {
					t.Fatal(err)
				}
				c.check(t, 1, 500)
			})
		})
	}
}

// The process may end at any batch: what is handled and recorded is not handed
// over again, what is not comes again.
func TestFollowResumesFromTheRecordedToken(t *testing.T) {
	n := newNode(300)
	events := veredusv1.NewFeedbackServiceClient(n.serve(t))
	c := &collector{until: 300}
	token := ""
	for lives := 0; len(c.ids) < 300; lives++ {
		if lives > 300 {
			t.Fatal("no progress")
		}
		batches := 0
		f := client.Follower{
			Client: events, Token: token,
			Handle: func(ctx context.Context, batch []*veredusv1.FeedbackEvent, next string) error {
				if batches++; batches > 3 {
					return errEnough // dies before the batch has an effect
				}
				token = next // recorded with the effect, as in one transaction
				return c.handle(ctx, batch, next)
			},
		}
		if err := f.Follow(t.Context()); !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
	}
	c.check(t, 1, 300)
}

func TestFollowRecordsTokensAlsoWithoutEvents(t *testing.T) {
	n := newNode(20)
	var tokens []string
	f := client.Follower{
		Client: veredusv1.NewFeedbackServiceClient(n.serve(t)), FromNow: true,
		Record: func(token string) error {
			tokens = append(tokens, token)
			if len(tokens) == 1 {
				n.happen(&veredusv1.FeedbackEvent{Id: "21"})
				return nil
			}
			return errEnough
		},
	}
	if err := f.Follow(t.Context()); !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if len(tokens) != 2 || tokens[0] != "20" || tokens[1] != "21" || f.Token != "21" {
		t.Errorf("tokens %v, then %s", tokens, f.Token)
	}
}

func TestFollowLeavesANodeThatWentSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(10)
		var mute atomic.Bool
		mute.Store(true)
		n.fail(func(step string) error {
			if step == "heartbeat" && mute.Load() {
				return errMute
			}
			return nil
		})
		c := &collector{until: 11}
		var after time.Duration
		began := time.Now()
		f := client.Follower{Client: veredusv1.NewFeedbackServiceClient(n.serve(t)), Handle: c.handle}
		f.Reconnect = func(err error, _ time.Duration) {
			after = time.Since(began)
			mute.Store(false)
			n.happen(&veredusv1.FeedbackEvent{Id: "11"})
		}
		if err := f.Follow(t.Context()); !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		c.check(t, 1, 11)
		if after != 30*time.Second {
			t.Errorf("left after %v", after)
		}
	})
}

// A handler may take its time: only the node's silence counts.
func TestFollowWaitsForASlowHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(30)
		c := &collector{until: 30}
		f := client.Follower{
			Client: veredusv1.NewFeedbackServiceClient(n.serve(t)),
			Handle: func(ctx context.Context, events []*veredusv1.FeedbackEvent, token string) error {
				<-time.After(10 * time.Minute)
				return c.handle(ctx, events, token)
			},
			Reconnect: func(err error, _ time.Duration) { t.Errorf("connected again: %v", err) },
		}
		if err := f.Follow(t.Context()); !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		c.check(t, 1, 30)
	})
}

func TestFollowEndsWhereARepeatCannotHelp(t *testing.T) {
	n := newNode(5)
	n.fail(func(string) error { return refusal(codes.OutOfRange, "TOKEN_OUT_OF_RANGE") })
	f := client.Follower{Client: veredusv1.NewFeedbackServiceClient(n.serve(t)), Token: "3"}
	err := f.Follow(t.Context())
	if status.Code(err) != codes.OutOfRange || client.Reason(err) != veredusv1.ErrorReason_ERROR_REASON_TOKEN_OUT_OF_RANGE {
		t.Errorf("error %v", err)
	}
	if f.Token != "3" {
		t.Errorf("the token moved to %q", f.Token)
	}
}

func TestFollowEndsWithItsContextAndItsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(0)
		events := veredusv1.NewFeedbackServiceClient(n.serve(t))
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, errEnough)
		defer cancel()
		if err := (&client.Follower{Client: events}).Follow(ctx); !errors.Is(err, errEnough) {
			t.Errorf("error %v, want the context's cause", err)
		}
		n.fail(func(string) error { return status.Error(codes.Unavailable, "down") })
		err := (&client.Follower{Client: events, Patience: time.Minute}).Follow(t.Context())
		if status.Code(err) != codes.Unavailable {
			t.Errorf("error %v", err)
		}
	})
}
