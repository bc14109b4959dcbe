package mta

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/veredus/veredus/mta/compose"
	"github.com/veredus/veredus/mxrules"
)

// flood is a store with endless mail for some domains, which keeps nothing.
type flood struct {
	void
	mu    sync.Mutex
	ends  uint64 // messages of each run
	left  int    // messages not settled yet
	done  chan struct{}
	start time.Time
}

func (f *flood) Runs(_ context.Context, handover uint64, after uint32, _ int) (list []RunState, err error) {
	for d := after + 1; d <= floodDomains; d++ {
		list = append(list, RunState{Domain: d, DomainName: fmt.Sprintf("d%d.example", d), Fresh: int64(f.ends), Mark: Position{Order: 1}})
	}
	return list, nil
}

const floodDomains = 20

func (f *flood) Load(_ context.Context, req LoadRequest) (res LoadResult, err error) {
	at := req.From.Order
	for ; len(res.Fresh) < req.Fresh && at <= f.ends; at++ {
		id := MessageID{Handover: req.Handover, Domain: req.Domain, Order: at}
		if !req.Skip(id) {
			res.Fresh = append(res.Fresh, &Message{
				ID: id, Recipient: "u@a.example", Domain: "a.example", Arrival: f.start, Expires: f.start.Add(MaxValidity),
			})
		}
	}
	res.Next, res.More = Position{Order: at}, at <= f.ends
	return res, nil
}

func (f *flood) Content(context.Context, uint64) (*compose.Source, error) { return says("hello"), nil }

func (f *flood) Write(_ context.Context, b *Batch) (Written, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left > 0 && len(b.Settles) > 0 {
		if f.left -= len(b.Settles); f.left <= 0 {
			close(f.done)
		}
	}
	return Written{}, nil
}

// One message all the way: loaded, claimed, composed, signed with RSA-2048, sent over
// a connection in memory, settled in a store that takes no time.
func BenchmarkSend(b *testing.B) {
	b.ReportAllocs()
	f := &flood{ends: uint64(b.N/floodDomains + 1), done: make(chan struct{}), start: time.Now()}
	f.left = int(f.ends) * floodDomains
	cfg := config(b, f, (&receiver{}).serve)
	unlimited, err := mxrules.NewRules(nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	cfg.Settings.Rules = unlimited
	r := New(cfg)
	if _, err := r.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	r.HandOver(bulk(1))
	<-f.done
	b.StopTimer()
	if err := r.Stop(b.Context()); err != nil {
		b.Fatal(err)
	}
}
