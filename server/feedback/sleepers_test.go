package feedback

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

func filtered(f *veredusv1.FeedbackFilter) *veredusv1.StreamFeedbackRequest {
	req := fromNow()
	req.Filter = f
	return req
}

// Nine hundred streams that nothing happens for read nothing; the log is looked through
// once for all of them.
func TestSleepersAreNotWokenByWhatIsNotTheirs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemoryLog()
		service := NewService(l, make(chan struct{}))
		var ends []func() error
		for i := range 900 {
			f := &veredusv1.FeedbackFilter{Tenants: []string{"odd"}, Deliveries: []string{fmt.Sprint("deliveries/", i)}}
			c, end := followService(t, service, filtered(f))
			<-c.answers
			ends = append(ends, end)
		}
		synctest.Wait()
		const commits = 50
		for i := range commits {
			l.write(numbered(10*i, 10)...)
			time.Sleep(time.Millisecond) // virtual
		}
		synctest.Wait()
		if reads := l.readCount(); reads > 2*commits {
			t.Errorf("the log was read %d times for %d commits", reads, commits)
		}
		for _, end := range ends {
			_ = end()
		}
	})
}

// What a sleeping stream passed over may be purged: its next token stands behind it.
func TestSleepersOutliveThePurgeOfWhatIsNotTheirs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemoryLog()
		c, end := follow(t, l, filtered(&veredusv1.FeedbackFilter{RecipientIds: []string{"7"}}))
		<-c.answers
		synctest.Wait()
		l.write(numbered(0, 100)...)
		synctest.Wait()
		l.purge(100)
		beat := <-c.answers
		at, err := ParseToken(l.StoreID(), beat.GetToken())
		if err != nil || at[0] != 100 || len(beat.GetEvents()) != 0 {
			t.Fatalf("got %v, token at %v, %v", beat, at, err)
		}
		e := numbered(100, 1)[0]
		e.RecipientId = "7"
		l.write(e)
		ids, _ := collect(c, 1)
		wantIDs(t, ids, 100, 1, 1)
		_ = end()
	})
}

// Streams of all kinds of filters, some slow, each get exactly what matches, in order.
func TestEveryStreamGetsWhatMatchesItsFilter(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { everyStream(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func everyStream(t *testing.T, random *rand.Rand) {
	l := newMemoryLog()
	service := NewService(l, make(chan struct{}))
	type listener struct {
		c    *client
		end  func() error
		f    filter
		slow time.Duration
		want []string
		got  chan []string
	}
	var listeners []*listener
	for range 12 {
		f := someFilter(random)
		c, end := followService(t, service, filtered(f))
		<-c.answers
		listeners = append(listeners, &listener{c: c, end: end, f: newFilter(f), slow: time.Duration(random.IntN(3)) * 20 * time.Millisecond, got: make(chan []string, 1)})
	}
	var written []*veredusv1.FeedbackEvent
	for i := range 400 {
		written = append(written, someEvent(random, i))
	}
	for _, x := range listeners {
		for _, e := range written {
			if r := recordOf(e); x.f.matches(&r) {
				x.want = append(x.want, e.GetId())
			}
		}
		go func() {
			var ids []string
			for len(ids) < len(x.want) {
				time.Sleep(x.slow) // virtual
				for _, e := range (<-x.c.answers).GetEvents() {
					ids = append(ids, e.GetId())
				}
			}
			x.got <- ids
		}()
	}
	for rest := written; len(rest) > 0; {
		n := min(len(rest), 1+random.IntN(20))
		l.write(rest[:n]...)
		rest = rest[n:]
		time.Sleep(time.Duration(random.IntN(15)) * time.Millisecond) // virtual
	}
	for i, x := range listeners {
		if got := <-x.got; !slices.Equal(got, x.want) {
			t.Errorf("stream %d got %v, want %v", i, got, x.want)
		}
		_ = x.end()
	}
}

// someFilter has one to three fields, or none.
func someFilter(random *rand.Rand) *veredusv1.FeedbackFilter {
	f := &veredusv1.FeedbackFilter{}
	for range random.IntN(4) {
		value := fmt.Sprint(random.IntN(3))
		switch random.IntN(5) {
		case 0:
			f.Tenants = append(f.Tenants, value)
		case 1:
			f.Deliveries = append(f.Deliveries, "deliveries/"+value)
		case 2:
			f.Destinations = append(f.Destinations, value)
		case 3:
			f.RecipientIds = append(f.RecipientIds, value)
		case 4:
			f.Types = append(f.Types, veredusv1.FeedbackType(1+random.IntN(3)))
		}
	}
	return f
}

func someEvent(random *rand.Rand, i int) *veredusv1.FeedbackEvent {
	value := func() string { return fmt.Sprint(random.IntN(3)) }
	return &veredusv1.FeedbackEvent{
		Id: fmt.Sprint(i), Type: veredusv1.FeedbackType(1 + random.IntN(3)), Tenant: value(),
		Delivery: "deliveries/" + value(), Destination: value(), RecipientId: value(),
	}
}

// A record is on the wire what the event would be, whatever is in it.
func FuzzRecord(f *testing.F) {
	f.Add("id", "a@b.test", "text", int32(550))
	f.Add("", "", "", int32(0))
	f.Fuzz(func(t *testing.T, id, recipient, text string, code int32) {
		e := &veredusv1.FeedbackEvent{Recipient: recipient, Text: text, ReplyCode: code}
		row, err := proto.Marshal(e)
		e.Id = id
		if _, invalid := proto.Marshal(e); err != nil || invalid != nil {
			t.Skip("not UTF-8")
		}
		r := NewRecord(e, id, row)
		if got, err := r.Event(); err != nil || !proto.Equal(got, e) {
			t.Fatalf("decoded: %v, %v; want %v", got, err, e)
		}
		wire, err := proto.Marshal(answerOf(slices.Concat(r.frame, r.frame), "token"))
		if err != nil {
			t.Fatal(err)
		}
		got, want := &veredusv1.StreamFeedbackResponse{}, &veredusv1.StreamFeedbackResponse{Events: []*veredusv1.FeedbackEvent{e, e}, Token: "token"}
		if err := proto.Unmarshal(wire, got); err != nil || !proto.Equal(got, want) {
			t.Fatalf("answered: %v, %v; want %v", got, err, want)
		}
	})
}
