package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/veredus/veredus/integration/hostile"
	"github.com/veredus/veredus/integration/node"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// The receivers: healthy ones, one that dies, one behind a bad network.
const (
	healthy = 8
	frail   = "frail.example"
	faraway = "faraway.example"
)

// harness runs the rounds.
type harness struct {
	opt   options
	rng   *rand.Rand
	say   func(format string, args ...any)
	node  *node.Node
	net   *hostile.Network
	cable *hostile.Cable
	calm  atomic.Bool // the frail receiver lives
	taken chan int    // gets the receivers' count of messages, if somebody waits

	book    *book
	open    []*mailing // not compared yet
	deck    []int      // phases to come, by index
	singles singles
	follow  *follow
	report  *report
}

// run makes the rounds. The report is nil if nothing began.
func run(ctx context.Context, opt options, say func(format string, args ...any)) (*report, error) {
	say("repeat with -seed %d -rounds %d -messages %d", opt.seed, opt.rounds, opt.messages)
	h := &harness{
		opt: opt, say: say, rng: rand.New(rand.NewPCG(opt.seed, 1)), cable: &hostile.Cable{Seed: opt.seed},
		book: newBook(), report: newReport(opt.seed), taken: make(chan int, 1),
	}
	if err := h.openReceivers(); err != nil {
		return nil, err
	}
	defer h.net.Close()
	var err error
	if h.node, err = node.New(node.Options{
		Dir: opt.dir, DNS: h.net.DNS(), SMTPPort: h.net.Port(), TimeScale: timeScale, Rules: node.Rules(20, patience),
	}); err != nil {
		return nil, err
	}
	defer h.node.Close()
	defer h.die()
	began := time.Now()
	err = h.rounds(ctx)
	h.report.took = time.Since(began)
	h.sum()
	return h.report, errors.Join(err, h.book.verdict(), h.node.Panics())
}

func (h *harness) openReceivers() (err error) {
	receivers := []hostile.Receiver{
		{Domain: frail, Manner: hostile.Frail(h.opt.seed, 6, h.calm.Load)},
		{Domain: faraway, Manner: hostile.Honest, Cable: h.cable},
	}
	for i := range healthy {
		receivers = append(receivers, hostile.Receiver{Domain: healthyDomain(i), Manner: hostile.Honest})
	}
	h.net, err = hostile.Start(receivers...)
	if err == nil {
		h.net.Ledger.Watch(h.sawMessage)
	}
	return err
}

func healthyDomain(i int) string { return fmt.Sprintf("healthy%d.example", i) }

// sawMessage keeps the newest count for who waits for it.
func (h *harness) sawMessage(total int) {
	select {
	case h.taken <- total:
	default:
	}
}

func (h *harness) rounds(ctx context.Context) error {
	if err := h.live(ctx); err != nil {
		return err
	}
	for i := 1; i <= h.opt.rounds; i++ {
		if err := h.round(ctx, i); err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
		if i%h.opt.every == 0 || i == h.opt.rounds {
			if err := h.settleAll(ctx); err != nil {
				return fmt.Errorf("after round %d: %w", i, err)
			}
			if i < h.opt.rounds {
				h.singles.begin(h.node.Conn())
			}
			h.say("%4d rounds, %d kills, %d messages, %d breaches", i, h.report.kills, h.net.Ledger.Total(), h.book.breached)
		}
	}
	return h.reread(ctx)
}

// round begins a delivery, kills the node in a phase, and looks after it.
func (h *harness) round(ctx context.Context, number int) error {
	p := h.deal()
	m := newMailing(number, h.opt.messages)
	h.open = append(h.open, m)
	before := h.report.kills
	if err := p.play(ctx, h, m); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	if err := h.live(ctx); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	h.report.count(p.name, h.report.kills-before)
	for _, m := range h.open {
		if err := h.look(ctx, m); err != nil {
			return fmt.Errorf("behind %s: %w", p.name, err)
		}
	}
	return m.put(ctx, h.node.Campaigns())
}

// deal draws a phase. All come before one comes again.
func (h *harness) deal() phase {
	for {
		if len(h.deck) == 0 {
			h.deck = h.rng.Perm(len(phases))
		}
		p := phases[h.deck[0]]
		h.deck = h.deck[1:]
		if h.opt.only == "" || h.opt.only == p.name {
			return p
		}
	}
}

// live starts the node and follows its feedback from where it was left.
func (h *harness) live(ctx context.Context) error {
	if err := h.node.Start(); err != nil {
		return err
	}
	if err := h.node.Await(ctx); err != nil {
		return err
	}
	h.follow = followOn(h.node.Conn(), h.book)
	h.singles.begin(h.node.Conn())
	return nil
}

// die kills the node. It is an error if it had ended with one.
func (h *harness) die() error {
	ended, how := h.node.Kill()
	if !ended {
		h.report.kills++
	}
	if h.follow != nil {
		h.book.check(h.follow.stop())
		h.follow = nil
	}
	h.singles.end()
	if how != nil {
		return fmt.Errorf("the node ended of itself: %w\n%s", how, h.node.LastWords())
	}
	return nil
}

// moment lets a random time pass.
func (h *harness) moment(least, spread time.Duration) {
	time.Sleep(least + time.Duration(h.rng.Int64N(int64(spread))))
}

// look compares what a restarted node has of a delivery with what was acknowledged.
func (h *harness) look(ctx context.Context, m *mailing) error {
	if !m.created {
		return nil
	}
	d, err := h.node.Campaigns().GetDelivery(ctx, &veredusv1.GetDeliveryRequest{Name: m.name()})
	if err != nil {
		h.book.breach("%s was acknowledged and cannot be read: %v", m.name(), err)
		return err
	}
	l := d.GetKpis().GetLedger()
	h.book.balance(m.name(), l)
	if acked := m.acked.Load(); l.GetAccepted() < acked {
		h.book.breach("%s: %d recipients were acknowledged, %d are there", m.name(), acked, l.GetAccepted())
	}
	if m.started && d.GetState() < veredusv1.DeliveryState_DELIVERY_STATE_RUNNING {
		h.book.breach("%s: an acknowledged start was lost", m.name())
	}
	return nil
}

// timeScale makes retries come after seconds: the first after 4 s.
const timeScale = 300

// patience is the node's with a receiver.
const patience = 3 * time.Second

// Patience with the machine, not with the node.
const (
	drainWithin = 8 * time.Minute
	tellWithin  = 5 * time.Minute
)

// settleAll lets everything through and compares the books of all open deliveries.
func (h *harness) settleAll(ctx context.Context) error {
	h.calm.Store(true)
	h.cable.Calm.Store(true)
	defer h.calm.Store(false)
	defer h.cable.Calm.Store(false)
	ctx, cancel := context.WithTimeout(ctx, drainWithin)
	defer cancel()
	h.singles.end()
	for _, m := range h.open {
		if err := h.drain(ctx, m); err != nil {
			return fmt.Errorf("%s does not end: %w", m.name(), err)
		}
	}
	if !h.book.told(h.open, tellWithin) {
		h.book.breach("the feedback stream does not tell of the end of all deliveries within %v", tellWithin)
	}
	for _, m := range h.open {
		if err := h.compare(ctx, m); err != nil {
			return err
		}
	}
	h.open = nil
	if err := h.settleSingles(ctx); err != nil {
		return err
	}
	listed, err := h.node.Claims()
	if err != nil {
		return err
	}
	h.book.compareCopies(h.net.Ledger.Copies(), listed)
	return nil
}

// drain waits for the end of a delivery; what waits for a retry goes now.
func (h *harness) drain(ctx context.Context, m *mailing) error {
	relay := veredusv1.NewRelayServiceClient(h.node.Conn())
	stream, err := h.node.Campaigns().WatchDelivery(ctx, &veredusv1.WatchDeliveryRequest{Name: m.name(), Interval: durationpb.New(200 * time.Millisecond)})
	if err != nil {
		return err
	}
	for asked := time.Now(); ; {
		w, err := stream.Recv()
		if err != nil {
			return err
		}
		if w.GetDelivery().GetState() == veredusv1.DeliveryState_DELIVERY_STATE_FINISHED {
			return nil
		}
		if time.Since(asked) > 2*time.Second {
			asked = time.Now()
			_, err := relay.RetryNow(ctx, &veredusv1.RetryNowRequest{Selector: &veredusv1.QueueSelector{Delivery: m.name()}, Reason: "crash harness"})
			if err != nil {
				return fmt.Errorf("RetryNow: %w", err)
			}
		}
	}
}

// compare holds what the node says of a delivery that is over against what it told.
func (h *harness) compare(ctx context.Context, m *mailing) error {
	d, err := h.node.Campaigns().GetDelivery(ctx, &veredusv1.GetDeliveryRequest{Name: m.name()})
	if err != nil {
		return err
	}
	h.book.balance(m.name(), d.GetKpis().GetLedger())
	statuses := map[string]veredusv1.LogStatus{}
	for token := ""; ; {
		page, err := h.node.Campaigns().ListMessages(ctx, &veredusv1.ListMessagesRequest{Parent: m.name(), PageSize: 1000, PageToken: token})
		if err != nil {
			return err
		}
		for _, msg := range page.GetMessages() {
			if _, twice := statuses[msg.GetRecipient()]; twice {
				h.book.breach("%s lists %s twice", m.name(), msg.GetRecipient())
			}
			statuses[msg.GetRecipient()] = msg.GetStatus()
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	h.book.compareMailing(m, d.GetKpis().GetLedger(), statuses)
	return nil
}

// reread reads the whole feedback again: it must be what was followed from token to token.
func (h *harness) reread(ctx context.Context) error {
	ids, err := readAll(ctx, h.node.Conn(), h.book.length())
	if err != nil {
		return err
	}
	h.book.compareStream(ids)
	return nil
}

// sum completes the report.
func (h *harness) sum() {
	listed, err := h.node.Claims()
	h.book.check(err)
	h.book.sum(h.report, h.net.Ledger.Copies(), listed)
	h.report.singles = h.singles.all
	h.report.connections = h.net.Connections(faraway)
	h.report.faults = h.cable.Faults()
}
