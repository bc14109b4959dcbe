package mta

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mxrules"
)

// What waits while a write is under way goes into the next one, all of it; nothing
// waits for time to pass when none is.
func TestWritesGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		ids := store.add(bulk(1), 1, "a@a.example", "b@a.example", "c@a.example", "d@a.example", "e@a.example")
		const disk = 10 * time.Millisecond
		store.before = func(call string) error {
			if call == "Write" {
				time.Sleep(disk)
			}
			return nil
		}
		r := started(t, config(t, store, nil))
		settle := func(id MessageID) {
			m := store.rows[id].copy()
			r.writer.settle(&held{msg: m}, Settlement{Message: m, Outcome: Delivered, Time: time.Now()})
		}
		began := time.Now()
		settle(ids[0])
		time.Sleep(disk / 2) // the first is being written
		for _, id := range ids[1:4] {
			settle(id)
		}
		r.writer.claim([]Claim{{Message: store.rows[ids[4]].copy()}}, nil, "s1>a.example", mxrules.Usage{Hour: 7})
		r.writer.mark(Mark{Handover: 1, Domain: 1, Mark: Position{Order: 3}})
		durable := make(chan time.Duration, 1)
		r.writer.then(func(time.Time) { durable <- time.Since(began) })
		if took := <-durable; took != 2*disk {
			t.Errorf("durable after %v, want %v", took, 2*disk)
		}
		if !slices.Equal(store.writes, []int{1, 4}) {
			t.Errorf("writes of %v", store.writes)
		}
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// void is a store that keeps nothing and takes no time.
type void struct{ Store }

func (void) Recover(context.Context, time.Time) (*Recovery, error) { return &Recovery{Epoch: 1}, nil }

func (void) Write(context.Context, *Batch) (Written, error) { return Written{}, nil }

// One message's claim and settlement, 64 at a time, through writer and owner.
func BenchmarkClaimSettle(b *testing.B) {
	b.ReportAllocs()
	r := New(config(b, void{}, nil))
	if _, err := r.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	const batch = 64
	ho := &handover{Handover: *bulk(1)}
	ru := &run{id: 1, ho: ho, number: 1, domain: "a.example", more: true}
	msgs := make([]*held, batch)
	claims := make([]Claim, batch)
	durable := make(chan struct{}, 1)
	done := func(time.Time) { durable <- struct{}{} }
	order := uint64(0)
	b.ResetTimer()
	for n := 0; n < b.N; n += batch {
		now := time.Now()
		for i := range msgs {
			order++
			msgs[i] = &held{msg: &Message{ID: MessageID{1, 1, 0, order}, Expires: now.Add(time.Hour)}, run: ru}
			claims[i] = Claim{Message: msgs[i].msg, Time: now}
		}
		_ = r.call(b.Context(), func(time.Time) {
			for _, h := range msgs {
				ru.keep(h)
				r.byID[h.msg.ID] = h
			}
			r.writer.claim(claims, msgs, "s1>a.example", mxrules.Usage{})
			r.writer.then(done)
		})
		<-durable
		for _, h := range msgs {
			r.writer.settle(h, Settlement{Message: h.msg, Outcome: Delivered, Time: now, Verdict: bounce.Verdict{}})
		}
		r.writer.then(done)
		<-durable
	}
	b.StopTimer()
	if err := r.Stop(b.Context()); err != nil {
		b.Fatal(err)
	}
}
