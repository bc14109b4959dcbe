package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/veredus/veredus/integration/hostile"
	"github.com/veredus/veredus/integration/node"
	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

const (
	healthy     = 12
	frail       = "frail.example"
	faraway     = "faraway.example"
	timeScale   = 60            // a retry comes after 20 s, not minutes
	validity    = 2 * time.Hour // so two minutes: what hostile receivers hold soon stays the same
	subscribers = 10
	sampleEvery = 10 * time.Second
	reloadEvery = time.Minute
	patience    = 3 * time.Second  // the node's with a receiver
	lastWait    = 10 * time.Minute // for everything to become final behind the load
)

// soak is one run.
type soak struct {
	opt  options
	node *node.Node
	net  *hostile.Network

	deliveries []string // finished uploads; the loader's
	finals     atomic.Int64
	delivered  atomic.Int64
	accepted   atomic.Int64
	streams    atomic.Int64 // subscriptions so far
	samples    []sample
	uncertain  map[string]int // events that say delivery_uncertain, by Message-ID; keepBooks has it until the end
}

func run(ctx context.Context, opt options) error {
	fmt.Printf("repeat with -minutes %g -messages %d -seed %d\n", opt.load.Minutes(), opt.size, opt.seed)
	s := &soak{opt: opt, uncertain: map[string]int{}}
	var err error
	if s.net, err = openReceivers(opt.seed); err != nil {
		return err
	}
	defer s.net.Close()
	s.node, err = node.New(node.Options{Dir: opt.dir, DNS: s.net.DNS(), SMTPPort: s.net.Port(), TimeScale: timeScale, Rules: node.Rules(10, patience)})
	if err != nil {
		return err
	}
	defer s.node.Close()
	if err := errors.Join(s.node.Start(), s.node.Await(ctx)); err != nil {
		return err
	}
	if err := s.soak(ctx); err != nil {
		return err
	}
	drifts, calm := judge(s.samples, s.opt.load)
	fmt.Print("\n", table(s.samples), "\n", drifts)
	return errors.Join(calm, s.books(ctx), s.node.Stop(), s.node.Panics())
}

func openReceivers(seed uint64) (*hostile.Network, error) {
	never := func() bool { return false }
	receivers := []hostile.Receiver{
		{Domain: frail, Manner: hostile.Frail(seed, 10, never)},
		{Domain: faraway, Manner: hostile.Honest, Cable: &hostile.Cable{Seed: seed}},
		{Domain: "fuzzed.example", Manner: hostile.Fuzzed(seed)},
	}
	for i := range healthy {
		receivers = append(receivers, hostile.Receiver{Domain: fmt.Sprintf("healthy%d.example", i), Manner: hostile.Honest})
	}
	for _, name := range hostile.Manners() {
		receivers = append(receivers, hostile.Receiver{Domain: name + ".example", Manner: hostile.Script(name)})
	}
	return hostile.Start(receivers...)
}

// soak keeps the load up, and watches until all is final.
func (s *soak) soak(ctx context.Context) error {
	began := time.Now()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var running sync.WaitGroup
	defer running.Wait()
	defer end(nil)
	do := func(f func(ctx context.Context) error) {
		running.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				end(err)
			}
		})
	}
	do(s.keepBooks)
	loaded, stopLoad := context.WithCancel(ctx) // and no deadline, of which the node would know
	defer stopLoad()
	defer time.AfterFunc(s.opt.load, stopLoad).Stop()
	over := make(chan struct{})
	do(func(ctx context.Context) error { defer close(over); return s.load(ctx, loaded) })
	for i := range subscribers {
		do(func(context.Context) error { return s.comeAndGo(loaded, uint64(i)) })
	}
	sampling, reloading := time.NewTicker(sampleEvery), time.NewTicker(reloadEvery)
	defer sampling.Stop()
	defer reloading.Stop()
	late := time.After(s.opt.load + lastWait)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-late:
			return fmt.Errorf("%d of %d messages are not final %v after the load", s.accepted.Load()-s.finals.Load(), s.accepted.Load(), lastWait)
		case <-reloading.C:
			s.node.Signal(syscall.SIGHUP)
		case <-sampling.C:
			if err := s.sample(time.Since(began)); err != nil {
				return err
			}
		}
		select {
		case <-over:
			if s.finals.Load() >= s.accepted.Load() {
				return nil
			}
		default:
		}
	}
}

// load begins a delivery every second while loaded lasts; the last one is whole.
func (s *soak) load(ctx, loaded context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for number := 1; ; number++ {
		if err := s.deliver(ctx, number); err != nil {
			return fmt.Errorf("delivery %d: %w", number, err)
		}
		select {
		case <-tick.C:
		case <-loaded.Done():
			return nil
		}
	}
}

func (s *soak) deliver(ctx context.Context, number int) error {
	c, id := s.node.Campaigns(), fmt.Sprintf("soak-%06d", number)
	name := "deliveries/" + id
	_, err := c.CreateDelivery(ctx, &veredusv1.CreateDeliveryRequest{DeliveryId: id, Delivery: &veredusv1.Delivery{
		Sender:         &veredusv1.Sender{From: "news@" + node.Domain},
		Content:        &veredusv1.Content{Subject: "Hello", Text: "Hello {{ recipient.address }}\n"},
		ValidityPeriod: durationpb.New(validity),
	}})
	if err != nil {
		return err
	}
	people := people(number, s.opt.size)
	if _, err := (&client.Uploader{Client: c, Delivery: name}).Upload(ctx, client.Slice(people)); err != nil {
		return err
	}
	if _, err := c.PrepareDelivery(ctx, &veredusv1.PrepareDeliveryRequest{Name: name}); err != nil {
		return err
	}
	s.accepted.Add(int64(len(people)))
	if _, err := c.StartDelivery(ctx, &veredusv1.StartDeliveryRequest{Name: name}); err != nil {
		return err
	}
	s.deliveries = append(s.deliveries, name)
	_, err = c.ListMessages(ctx, &veredusv1.ListMessagesRequest{Parent: name, PageSize: 50})
	return err
}

// people are nine parts healthy; of the tenth each delivery takes other hostile ones.
func people(number, size int) (list []*veredusv1.Recipient) {
	others := append([]string{"frail", "faraway", "frail", "faraway", "fuzzed"}, hostile.Manners()...)
	for i := range size {
		domain := fmt.Sprintf("healthy%d.example", i%healthy)
		if i%10 == 9 {
			domain = others[(number*size/10+i/10)%len(others)] + ".example"
		}
		list = append(list, &veredusv1.Recipient{Address: fmt.Sprintf("r%d.%d@%s", number, i, domain)})
	}
	return list
}

// keepBooks follows all feedback from the beginning.
func (s *soak) keepBooks(ctx context.Context) error {
	f := client.Follower{
		Client: veredusv1.NewFeedbackServiceClient(s.node.Conn()),
		Handle: func(_ context.Context, events []*veredusv1.FeedbackEvent, _ string) error {
			for _, e := range events {
				if e.GetDeliveryUncertain() {
					s.uncertain[e.GetMessageId()]++
				}
				if e.GetRecipient() == "" || e.GetWillRetry() {
					continue
				}
				if e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED {
					s.delivered.Add(1)
				}
				s.finals.Add(1)
			}
			return nil
		},
	}
	return f.Follow(ctx)
}

// comeAndGo subscribes again and again, each time for a while: to everything from the
// beginning, to what is new, or to what follows the last time; some read slowly.
func (s *soak) comeAndGo(loaded context.Context, number uint64) error {
	rng := rand.New(rand.NewPCG(s.opt.seed, number))
	token := ""
	for loaded.Err() == nil {
		req := &veredusv1.StreamFeedbackRequest{Start: &veredusv1.StreamFeedbackRequest_Now{Now: &emptypb.Empty{}}}
		switch kind := rng.IntN(4); {
		case kind == 0:
			req.Start = &veredusv1.StreamFeedbackRequest_Oldest{Oldest: &emptypb.Empty{}}
		case kind < 3 && token != "":
			req.Start = &veredusv1.StreamFeedbackRequest_Token{Token: token}
		}
		ctx, cancel := context.WithTimeout(loaded, time.Duration(1+rng.IntN(20))*time.Second)
		slow := rng.IntN(3) == 0
		stream, err := veredusv1.NewFeedbackServiceClient(s.node.Conn()).StreamFeedback(ctx, req)
		for err == nil {
			var answer *veredusv1.StreamFeedbackResponse
			if answer, err = stream.Recv(); err == nil {
				token = answer.GetToken()
			}
			if slow {
				wait(ctx, 200*time.Millisecond)
			}
		}
		cancel()
		// The node knows the deadline too, and may see it pass first.
		if code := status.Code(err); code != codes.Canceled && code != codes.DeadlineExceeded {
			return fmt.Errorf("subscriber %d: %w", number, err)
		}
		s.streams.Add(1)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (s *soak) sample(at time.Duration) error {
	f, err := s.node.Figures()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, s.node.LastWords())
	}
	taken := sample{Figures: f, at: at, accepted: s.accepted.Load(), finals: s.finals.Load(), streams: s.streams.Load()}
	s.samples = append(s.samples, taken)
	fmt.Println(taken)
	return nil
}

// books compares what went in with what came of it.
func (s *soak) books(ctx context.Context) error {
	var ledger veredusv1.Ledger
	for _, name := range s.deliveries {
		d, err := s.node.Campaigns().GetDelivery(ctx, &veredusv1.GetDeliveryRequest{Name: name})
		if err != nil {
			return err
		}
		l := d.GetKpis().GetLedger()
		ledger.Accepted += l.GetAccepted()
		ledger.Sent += l.GetSent()
		ledger.Failed += l.GetFailed()
	}
	taken, twice, silent := 0, 0, 0
	for id, c := range s.net.Ledger.Copies() {
		taken++
		twice += c.Taken - 1
		silent += max(0, c.Taken-1-s.uncertain[id])
	}
	fmt.Printf("\n%d messages: %d sent, %d failed; %d final events; the receivers have %d, and %d copies too many; %d subscriptions\n",
		ledger.Accepted, ledger.Sent, ledger.Failed, s.finals.Load(), taken, twice, s.streams.Load())
	if silent > 0 {
		return fmt.Errorf("%d copies too many of which no event says that a delivery was uncertain", silent)
	}
	if ledger.Accepted != s.accepted.Load() || ledger.Sent+ledger.Failed != ledger.Accepted || s.finals.Load() != ledger.Accepted || s.delivered.Load() != ledger.Sent {
		return fmt.Errorf("the books do not agree: %d accepted, %d final events, %d of them delivered, ledger %v", s.accepted.Load(), s.finals.Load(), s.delivered.Load(), &ledger)
	}
	return nil
}
