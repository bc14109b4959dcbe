package campaign_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

// line is a stream of recipients without a network: the test says what comes, and when
// answers are read.
type line struct {
	grpc.ServerStream
	ctx    context.Context
	frames chan *veredusv1.AddRecipientsRequest
	acks   chan *veredusv1.AddRecipientsResponse
}

func (l *line) Context() context.Context { return l.ctx }

func (l *line) Recv() (*veredusv1.AddRecipientsRequest, error) {
	select {
	case f, open := <-l.frames:
		if !open {
			return nil, io.EOF
		}
		return f, nil
	case <-l.ctx.Done():
		return nil, l.ctx.Err()
	}
}

func (l *line) Send(a *veredusv1.AddRecipientsResponse) error {
	select {
	case l.acks <- a:
		return nil
	case <-l.ctx.Done():
		return l.ctx.Err()
	}
}

// begin begins an upload, of which the first answer is read. ended has its end.
func begin(t *testing.T, s *campaign.Service, delivery string) (l *line, ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l = &line{ctx: ctx, frames: make(chan *veredusv1.AddRecipientsRequest, 10), acks: make(chan *veredusv1.AddRecipientsResponse)}
	end := make(chan error, 1)
	go func() {
		defer cancel() // as the end of a stream does
		end <- s.AddRecipients(l)
	}()
	l.frames <- &veredusv1.AddRecipientsRequest{Delivery: "deliveries/" + delivery}
	if a := <-l.acks; a.GetDurableIndex() != 0 {
		t.Fatalf("durable: %v", a)
	}
	return l, end
}

// large queues a chunk of nearly 3 MiB.
func (l *line) large(first int) {
	var list []*veredusv1.Recipient
	for i := range 30 {
		r := person(first + i)
		r.Variables = []byte(`{"a":"` + long(99_000) + `"}`)
		list = append(list, r)
	}
	l.frames <- &veredusv1.AddRecipientsRequest{FirstIndex: int64(first), Recipients: list}
}

// overloaded checks that an upload ended for a limit, after so long, and that its text has all the
// words.
func overloaded(t *testing.T, err error, began time.Time, after time.Duration, words ...string) {
	t.Helper()
	var e *campaign.OverloadedError
	if !errors.As(err, &e) || e.RetryAfter <= 0 || time.Since(began) != after {
		t.Fatalf("%v after %v, want an overload after %v", err, time.Since(began), after)
	}
	for _, w := range words {
		if !strings.Contains(e.Error(), w) {
			t.Errorf("%q does not say %q", e.Error(), w)
		}
	}
}

// A client that sends and never reads keeps its room for ten seconds; what it sent is stored
// all the same.
func TestAcknowledgementsThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.create("d")
		l, ended := begin(t, n.Service, "d")
		l.large(1)
		l.large(31)
		began := time.Now()
		overloaded(t, <-ended, began, 10*time.Second, "acknowledgements left unread for 10s", "read them while you send")
		if err := n.AllRoom(t.Context()); err != nil {
			t.Error(err)
		}
		if durable, err := n.store.DurableIndex(t.Context(), "d"); err != nil || durable < 30 {
			t.Errorf("durable %d, %v", durable, err)
		}
	})
}

// While the disk hangs, uploads hold as much as they may together, and wait. The one that
// finds no room is told so; the ones that have room go on when the disk does.
func TestADiskThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		held := &heldStore{Store: n.store, reached: make(chan struct{}), pass: make(chan struct{})}
		o := n.options(n.store, held)
		o.IngestBytes = 8 << 20
		s := campaign.NewService(o)
		n.create("d")
		n.create("e")
		first, ended := begin(t, s, "d")
		first.large(1)
		first.large(31)
		<-held.reached
		synctest.Wait()
		second, refused := begin(t, s, "e")
		began := time.Now()
		second.large(1)
		overloaded(t, <-refused, began, 15*time.Second, fmt.Sprintf("at most %d at a time", 8<<20), "grpc.max_ingest_bytes", "try again in 5s")
		time.Sleep(time.Minute) // of the bubble
		close(held.pass)
		close(first.frames)
		for _, want := range []int64{30, 60} {
			if a := <-first.acks; a.GetDurableIndex() != want {
				t.Errorf("durable %d, want %d", a.GetDurableIndex(), want)
			}
		}
		if err := <-ended; err != nil {
			t.Errorf("the first ended with %v", err)
		}
		if err := s.AllRoom(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
