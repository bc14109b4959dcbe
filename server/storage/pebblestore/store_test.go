package pebblestore

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/smtpc"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
)

var quiet = slog.New(slog.DiscardHandler)

// open opens a store on fs, closed at the test's end unless that was done before.
func open(t testing.TB, fs vfs.FS, change ...func(*Options)) *Store {
	t.Helper()
	o := Options{Dir: "store", FS: fs, Logger: quiet}
	for _, c := range change {
		c(&o)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func draft(id string) *campaign.Delivery {
	return &campaign.Delivery{ID: id, Spec: &veredusv1.Delivery{
		Sender:  &veredusv1.Sender{From: "news@example.com"},
		Content: &veredusv1.Content{Subject: "Hello", Text: "Hello {{name}}"},
		Label:   "spring",
	}}
}

func item(index int, address, domain string) campaign.Item {
	return campaign.Item{
		Index: int64(index), Address: address + "@" + domain, Folded: address + "@" + domain, Domain: domain,
		Variables: []byte(`{"name":"` + address + `"}`), RecipientID: "id-" + address,
		Metadata: map[string]string{"k": address},
	}
}

func items(from, n int, domains ...string) (list []campaign.Item) {
	for i := from; i < from+n; i++ {
		list = append(list, item(i, fmt.Sprintf("user%d", i), domains[i%len(domains)]))
	}
	return list
}

func start(t testing.TB, s *Store, id string) *campaign.Delivery {
	t.Helper()
	d, err := s.Change(context.Background(), id, campaign.Request{}, func(d *campaign.Delivery) ([]campaign.Event, error) {
		d.State = campaign.Running
		d.Started = s.opts.Now()
		d.Expires = d.Started.Add(84 * time.Hour)
		return []campaign.Event{{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_STARTED}}, nil
	})
	check(t, err)
	return d
}

// settlement is the outcome of an attempt on m.
func settlement(m *mta.Message, o mta.Outcome, at time.Time) mta.Settlement {
	n := *m
	n.State.Attempts++
	reply := smtpc.Reply{Phase: smtpc.PhaseEndOfData, Code: 250, Text: "ok"}
	if o != mta.Delivered {
		reply = smtpc.Reply{Phase: smtpc.PhaseRCPT, Code: 450, Enhanced: "4.2.0", Text: "later"}
	}
	n.State.LastReply = reply
	s := mta.Settlement{
		Message: &n, Outcome: o, Time: at, Destination: m.Domain, MessageID: "id@" + m.Domain,
		Attempt: &mta.Attempt{Number: n.State.Attempts, Time: at, Source: "s1", RemoteHost: "mx." + m.Domain, Reply: reply},
	}
	if o == mta.Deferred {
		s.Next, s.Text = at.Add(20*time.Minute), reply.Text
	}
	return s
}

func TestLifeOfADelivery(t *testing.T) {
	ctx := context.Background()
	s := open(t, vfs.NewMem())
	must[*campaign.Delivery](t)(s.Create(ctx, draft("d1"), campaign.Request{}))
	added := must[campaign.Added](t)(s.Add(ctx, "d1", items(1, 10, "a.test", "b.test")))
	if added.DurableIndex != 10 || added.Accepted != 10 || added.Ignored != 0 {
		t.Fatalf("added %+v", added)
	}
	d := start(t, s, "d1")
	rec := must[*mta.Recovery](t)(s.Recover(ctx, time.Now()))
	if len(rec.Handovers) != 1 || rec.Epoch != 1 || len(rec.Lost) != 0 {
		t.Fatalf("recovery %+v", rec)
	}
	runs := must[[]mta.RunState](t)(s.Runs(ctx, d.Handover, 0, 10))
	if len(runs) != 2 || runs[0].Fresh != 5 {
		t.Fatalf("runs %+v", runs)
	}
	var msgs []*mta.Message
	for _, r := range runs {
		res := must[mta.LoadResult](t)(s.Load(ctx, mta.LoadRequest{Handover: d.Handover, Domain: r.Domain, Fresh: 10, Due: 10, Now: time.Now()}))
		if res.More || len(res.Fresh) != 5 {
			t.Fatalf("load %+v", res)
		}
		msgs = append(msgs, res.Fresh...)
	}
	b := mta.Batch{Epoch: 1}
	for _, m := range msgs {
		b.Claims = append(b.Claims, mta.Claim{Message: m, Time: time.Now(), MessageID: "m@x"})
	}
	must[mta.Written](t)(s.Write(ctx, &b))
	b = mta.Batch{Epoch: 1}
	for _, m := range msgs {
		b.Settles = append(b.Settles, settlement(m, mta.Delivered, time.Now()))
	}
	w := must[mta.Written](t)(s.Write(ctx, &b))
	if len(w.Finished) != 1 {
		t.Fatalf("written %+v", w)
	}
	got := must[*campaign.Delivery](t)(s.Get(ctx, "d1"))
	if got.State != campaign.Finished || got.Counters.Sent != 10 || got.Counters.Balance() != nil {
		t.Fatalf("finished delivery %+v", got)
	}
	events, _, err := s.Read(ctx, feedback.Positions{0}, 100)
	check(t, err)
	if len(events) != 12 {
		t.Fatalf("%d events", len(events))
	}
}
