package feedback

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// memoryLog is a Log that tests write to.
type memoryLog struct {
	mu      sync.Mutex
	first   uint64 // position of records[0]
	records []Record
	grown   chan struct{}
	reads   int // calls of Records
}

func newMemoryLog() *memoryLog { return &memoryLog{grown: make(chan struct{})} }

func (l *memoryLog) StoreID() [16]byte { return [16]byte{1, 2, 3} }

func (l *memoryLog) Ends() (oldest, next Positions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Positions{l.first}, Positions{l.first + uint64(len(l.records))}
}

func (l *memoryLog) Records(_ context.Context, from Positions, size int) ([]Record, Positions, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if from[0] < l.first {
		return nil, nil, ErrBeforeRetention
	}
	if from[0] > l.first+uint64(len(l.records)) {
		return nil, nil, ErrPastEnd
	}
	var part []Record
	for _, r := range l.records[from[0]-l.first:] {
		if size <= 0 {
			break
		}
		size -= r.Size()
		part = append(part, r)
	}
	return part, Positions{from[0] + uint64(len(part))}, nil
}

func (l *memoryLog) Grown(past Positions) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first+uint64(len(l.records)) > past[0] {
		ready := make(chan struct{})
		close(ready)
		return ready
	}
	return l.grown
}

func (l *memoryLog) write(events ...*veredusv1.FeedbackEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		l.records = append(l.records, recordOf(e))
	}
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *memoryLog) readCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reads
}

func (l *memoryLog) purge(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first, l.records = l.first+uint64(n), l.records[n:]
}

// recordOf is an event as a store keeps it: the id stands beside it.
func recordOf(e *veredusv1.FeedbackEvent) Record {
	bare := proto.CloneOf(e)
	bare.Id = ""
	row, err := proto.Marshal(bare)
	if err != nil {
		panic(err)
	}
	return NewRecord(e, e.GetId(), row)
}

// client is the far end of a stream: it takes what is sent when the test lets it.
type client struct {
	grpc.ServerStream
	ctx     context.Context
	answers chan *veredusv1.StreamFeedbackResponse
}

func (c *client) Context() context.Context { return c.ctx }

func (c *client) Send(r *veredusv1.StreamFeedbackResponse) error {
	wire, err := proto.Marshal(r)
	if err != nil {
		return err
	}
	answer := &veredusv1.StreamFeedbackResponse{}
	if err := proto.Unmarshal(wire, answer); err != nil {
		return err
	}
	select {
	case c.answers <- answer:
		return nil
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

// follow starts a stream; end cancels it and answers its error.
func follow(t *testing.T, l Log, req *veredusv1.StreamFeedbackRequest) (c *client, end func() error) {
	t.Helper()
	return followService(t, NewService(l, make(chan struct{})), req)
}

// followService starts a stream of a service that has others.
func followService(t *testing.T, s *Service, req *veredusv1.StreamFeedbackRequest) (c *client, end func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c = &client{ctx: ctx, answers: make(chan *veredusv1.StreamFeedbackResponse)}
	result := make(chan error, 1)
	go func() { result <- s.StreamFeedback(req, c) }()
	return c, func() error { cancel(); return <-result }
}

func fromOldest() *veredusv1.StreamFeedbackRequest {
	return &veredusv1.StreamFeedbackRequest{Start: &veredusv1.StreamFeedbackRequest_Oldest{Oldest: &emptypb.Empty{}}}
}

func fromNow() *veredusv1.StreamFeedbackRequest {
	return &veredusv1.StreamFeedbackRequest{Start: &veredusv1.StreamFeedbackRequest_Now{Now: &emptypb.Empty{}}}
}

func fromToken(token string) *veredusv1.StreamFeedbackRequest {
	return &veredusv1.StreamFeedbackRequest{Start: &veredusv1.StreamFeedbackRequest_Token{Token: token}}
}

func numbered(from, n int) []*veredusv1.FeedbackEvent {
	var events []*veredusv1.FeedbackEvent
	for i := range n {
		tenant := "even"
		if (from+i)%2 == 1 {
			tenant = "odd"
		}
		events = append(events, &veredusv1.FeedbackEvent{Id: fmt.Sprint(from + i), Tenant: tenant, Type: veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED})
	}
	return events
}

// collect takes answers until n events came.
func collect(c *client, n int) (ids []string, token string) {
	for len(ids) < n {
		r := <-c.answers
		for _, e := range r.GetEvents() {
			ids = append(ids, e.GetId())
		}
		token = r.GetToken()
	}
	return ids, token
}

func wantIDs(t *testing.T, got []string, from, n, step int) {
	t.Helper()
	want := make([]string, 0, n)
	for i := range n {
		want = append(want, fmt.Sprint(from+i*step))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got events %v, want %v", got, want)
	}
}

func TestOrderedUniqueReliable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemoryLog()
		l.write(numbered(0, 700)...)
		c, end := follow(t, l, fromOldest())
		var writers sync.WaitGroup
		writers.Go(func() {
			for i := range 30 {
				time.Sleep(time.Millisecond) // virtual: writes come while the stream reads
				l.write(numbered(700+10*i, 10)...)
			}
		})
		ids, _ := collect(c, 1000)
		writers.Wait()
		wantIDs(t, ids, 0, 1000, 1)
		if err := end(); !errors.Is(err, context.Canceled) {
			t.Fatalf("stream ended with %v", err)
		}
	})
}

func TestBookmarkableFirstAnswerHasTokenEvenForNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemoryLog()
		l.write(numbered(0, 3)...)
		c, end := follow(t, l, fromNow())
		first := <-c.answers
		if len(first.GetEvents()) != 0 || first.GetToken() == "" {
			t.Fatalf("first answer %v", first)
		}
		_ = end()
		l.write(numbered(3, 2)...)
		c, end = follow(t, l, fromToken(first.GetToken()))
		ids, _ := collect(c, 2)
		wantIDs(t, ids, 3, 2, 1)
		_ = end()
	})
}

func TestHeartbeatEveryFiveSecondsWhileNothingMatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemoryLog()
		req := fromOldest()
		req.Filter = &veredusv1.FeedbackFilter{Tenants: []string{"odd"}}
		c, end := follow(t, l, req)
		<-c.answers
		begin := time.Now()
		l.write(numbered(0, 1)...) // does not match
		beat := <-c.answers
		if got := time.Since(begin); got != heartbeat {
			t.Fatalf("token after %v", got)
		}
		at, err := ParseToken(l.StoreID(), beat.GetToken())
		if err != nil || at[0] != 1 {
			t.Fatalf("token does not stand behind what was passed over: %v %v", at, err)
		}
		<-c.answers
		if got := time.Since(begin); got != 2*heartbeat {
			t.Fatalf("second token after %v", got)
		}
		_ = end()
	})
}

func TestTokenDoesNotDependOnFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemoryLog()
		l.write(numbered(0, 10)...)
		req := fromOldest()
		req.Filter = &veredusv1.FeedbackFilter{Tenants: []string{"odd"}}
		c, end := follow(t, l, req)
		ids, token := collect(c, 5)
		wantIDs(t, ids, 1, 5, 2)
		_ = end()
		l.write(numbered(10, 4)...)
		c, end = follow(t, l, fromToken(token))
		ids, _ = collect(c, 4)
		wantIDs(t, ids, 10, 4, 1)
		_ = end()
	})
}

func TestResumableFromEveryToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemoryLog()
		l.write(numbered(0, 40)...)
		for at := range 40 {
			c, end := follow(t, l, fromToken(Token(l.StoreID(), Positions{uint64(at)})))
			ids, _ := collect(c, 40-at)
			wantIDs(t, ids, at, 40-at, 1)
			_ = end()
		}
	})
}

// A reader that stops reading for an hour delays no writer and finds everything afterwards.
func TestSlowSubscriberReadsFromTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemoryLog()
		c, end := follow(t, l, fromOldest())
		begin := time.Now()
		for i := range 500 {
			l.write(numbered(10*i, 10)...)
		}
		if time.Since(begin) != 0 {
			t.Fatal("a writer waited for a reader")
		}
		time.Sleep(time.Hour)
		ids, _ := collect(c, 5000)
		wantIDs(t, ids, 0, 5000, 1)
		_ = end()
	})
}

func TestUnusableTokensAreRefusedNotSilent(t *testing.T) {
	l := newMemoryLog()
	l.write(numbered(0, 10)...)
	l.purge(5)
	for _, c := range []struct {
		name  string
		token string
		want  error
	}{
		{"before retention", Token(l.StoreID(), Positions{4}), ErrBeforeRetention},
		{"past the end", Token(l.StoreID(), Positions{11}), ErrPastEnd},
		{"another store", Token([16]byte{9}, Positions{6}), ErrOtherStore},
		{"no token", "hello", ErrMalformedToken},
		{"a changed token", "AAAA" + Token(l.StoreID(), Positions{6})[4:], ErrMalformedToken},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := NewService(l, nil).StreamFeedback(fromToken(c.token), &client{ctx: t.Context()})
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
		})
	}
	if err := NewService(l, nil).StreamFeedback(&veredusv1.StreamFeedbackRequest{}, &client{ctx: t.Context()}); !errors.Is(err, ErrNoStart) {
		t.Fatalf("no start: %v", err)
	}
}

func TestFiltersThatMatchNothingAreRefused(t *testing.T) {
	for _, f := range []*veredusv1.FeedbackFilter{
		{Types: []veredusv1.FeedbackType{999}},
		{Types: []veredusv1.FeedbackType{0}},
		{Deliveries: []string{"spring"}},
		{Deliveries: []string{"deliveries/"}},
		{Deliveries: []string{"deliveries/a/messages/b"}},
		{Tenants: []string{strings.Repeat("long", 20_000)}},
	} {
		req := fromNow()
		req.Filter = f
		if err := NewService(newMemoryLog(), nil).StreamFeedback(req, &client{ctx: t.Context()}); !errors.Is(err, ErrBadFilter) {
			t.Errorf("%.200v: %v", f, err)
		}
	}
}

func TestStoppingEndsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stopping := make(chan struct{})
		c := &client{ctx: t.Context(), answers: make(chan *veredusv1.StreamFeedbackResponse, 1)}
		result := make(chan error)
		go func() { result <- NewService(newMemoryLog(), stopping).StreamFeedback(fromNow(), c) }()
		synctest.Wait()
		close(stopping)
		if err := <-result; !errors.Is(err, ErrStopping) {
			t.Fatal(err)
		}
	})
}

func FuzzParseToken(f *testing.F) {
	store := [16]byte{7}
	f.Add(Token(store, Positions{1}))
	f.Add(Token(store, Positions{1, 1 << 60, 0}))
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		at, err := ParseToken(store, token)
		if err == nil && Token(store, at) != token {
			t.Fatalf("token %q reads as %v, which writes as %q", token, at, Token(store, at))
		}
	})
}
