package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/veredus/veredus/integration/node"
	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

const (
	healthy = 4
	size    = 1200 // messages of a healthy delivery
	// patience is the node's with a receiver.
	patience = 8 * time.Second
	// late is when a test gives up waiting.
	late = 5 * time.Minute
)

// rules give healthy receivers more time: they must not seem dead on a busy machine.
func rules() string {
	return "rules:\n  - {id: healthy, match: {domain: \"healthy*.example\"}, connect_timeout: 5m, command_timeout: 5m, data_timeout: 5m, final_dot_timeout: 5m}\n" +
		strings.TrimPrefix(node.Rules(10, patience), "rules:\n")
}

// All scripts stand beside healthy receivers, over real TCP, and the node is a process of
// its own. Healthy mail goes at its first attempt while the others hold what they got; when they are given
// up, goroutines and descriptors are what they were.
func TestOthersDoNotNotice(t *testing.T) {
	r := newRig(t)
	r.send("first", r.healthyPeople()) // connects, learns, and warms what is cold
	r.finish("first")
	r.send("before", r.healthyPeople())
	alone := r.finish("before")
	r.quiet()
	before := r.figures()

	r.send("attacked", r.attackedPeople(8))
	r.engaged()
	r.send("beside", r.healthyPeople())
	beside := r.finish("beside")
	worst := r.figures()
	for _, e := range r.events("deliveries/beside") {
		if e.GetRecipient() != "" && (e.GetType() != veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED || e.GetAttempt() != 1) {
			t.Errorf("%s: %v at attempt %d: %s", e.GetRecipient(), e.GetType(), e.GetAttempt(), e.GetText())
		}
	}
	if l := r.ledger("deliveries/attacked"); l.GetTakenIntoAccount() == 0 || l.GetSent() > 0 {
		t.Errorf("of the attacked: %v; delivered: %q", l, r.deliveredTo("deliveries/attacked", int(l.GetSent())))
	}
	if worst.Resident > before.Resident+150 || worst.Descriptors > before.Descriptors+400 || worst.Goroutines > before.Goroutines+1600 {
		t.Errorf("among attackers %+v, before %+v", worst, before)
	}

	r.cancel("attacked")
	after := r.back(before)
	r.stop()
	t.Logf("%d messages to %d healthy destinations: %.0f/s alone, %.0f/s beside %d attackers", size, healthy, rate(alone), rate(beside), len(Manners()))
	t.Logf("before %+v, among them %+v, after %+v", before, worst, after)
}

func rate(took time.Duration) float64 { return size / took.Seconds() }

// rig is a node and all its receivers.
type rig struct {
	t    *testing.T
	node *node.Node
	net  *Network
}

func newRig(t *testing.T) *rig {
	receivers := []Receiver{}
	for i := range healthy {
		receivers = append(receivers, Receiver{Domain: fmt.Sprintf("healthy%d.example", i), Manner: Honest})
	}
	for _, name := range Manners() {
		receivers = append(receivers, Receiver{Domain: name + ".example", Manner: Script(name)})
	}
	r := &rig{t: t}
	var err error
	if r.net, err = Start(receivers...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.net.Close() })
	r.node, err = node.New(node.Options{Dir: t.TempDir(), DNS: r.net.DNS(), SMTPPort: r.net.Port(), TimeScale: 60, Rules: rules()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.node.Close() })
	r.check(r.node.Start())
	r.check(r.node.Await(t.Context()))
	return r
}

func (r *rig) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%v\n%s", err, r.node.LastWords())
	}
}

func (r *rig) healthyPeople() (people []*veredusv1.Recipient) {
	for i := range size {
		people = append(people, &veredusv1.Recipient{Address: fmt.Sprintf("r%d@healthy%d.example", i, i%healthy)})
	}
	return people
}

func (r *rig) attackedPeople(each int) (people []*veredusv1.Recipient) {
	for _, name := range Manners() {
		for i := range each {
			people = append(people, &veredusv1.Recipient{Address: fmt.Sprintf("r%d@%s.example", i, name)})
		}
	}
	return people
}

func (r *rig) send(id string, people []*veredusv1.Recipient) {
	r.t.Helper()
	ctx, c, name := r.t.Context(), r.node.Campaigns(), "deliveries/"+id
	_, err := c.CreateDelivery(ctx, &veredusv1.CreateDeliveryRequest{DeliveryId: id, Delivery: &veredusv1.Delivery{
		Sender:  &veredusv1.Sender{From: "news@" + node.Domain},
		Content: &veredusv1.Content{Subject: "Hello", Text: strings.Repeat("Some words to fill a page.\n", 400)},
	}})
	r.check(err)
	_, err = (&client.Uploader{Client: c, Delivery: name}).Upload(ctx, client.Slice(people))
	r.check(err)
	_, err = c.PrepareDelivery(ctx, &veredusv1.PrepareDeliveryRequest{Name: name})
	r.check(err)
	_, err = c.StartDelivery(ctx, &veredusv1.StartDeliveryRequest{Name: name})
	r.check(err)
}

// finish waits for a delivery's end and answers how long the relay took from its start.
func (r *rig) finish(id string) time.Duration {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), late)
	defer cancel()
	stream, err := r.node.Campaigns().WatchDelivery(ctx, &veredusv1.WatchDeliveryRequest{Name: "deliveries/" + id})
	r.check(err)
	for {
		if _, err = stream.Recv(); errors.Is(err, io.EOF) {
			break
		}
		r.check(err)
	}
	events := r.events("deliveries/" + id)
	return events[len(events)-1].GetTime().AsTime().Sub(events[0].GetTime().AsTime())
}

// events are a finished delivery's, from started to finished; of one that is not, so far.
func (r *rig) events(name string) (events []*veredusv1.FeedbackEvent) {
	r.t.Helper()
	r.follow(name, func(e *veredusv1.FeedbackEvent) bool {
		events = append(events, e)
		return e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_FINISHED
	})
	return events
}

// deliveredTo names the first n recipients of a delivery that are told as delivered.
func (r *rig) deliveredTo(name string, n int) (people []string) {
	r.t.Helper()
	if n == 0 {
		return nil
	}
	r.follow(name, func(e *veredusv1.FeedbackEvent) bool {
		if e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED {
			people = append(people, e.GetRecipient())
		}
		return len(people) == n
	})
	return people
}

// follow shows a delivery's events from the oldest on, until enough is true.
func (r *rig) follow(name string, enough func(*veredusv1.FeedbackEvent) bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), late)
	defer cancel()
	stream, err := veredusv1.NewFeedbackServiceClient(r.node.Conn()).StreamFeedback(ctx, &veredusv1.StreamFeedbackRequest{
		Start:  &veredusv1.StreamFeedbackRequest_Oldest{Oldest: &emptypb.Empty{}},
		Filter: &veredusv1.FeedbackFilter{Deliveries: []string{name}},
	})
	r.check(err)
	for {
		answer, err := stream.Recv()
		r.check(err)
		if slices.ContainsFunc(answer.GetEvents(), enough) {
			return
		}
	}
}

func (r *rig) ledger(name string) *veredusv1.Ledger {
	d, err := r.node.Campaigns().GetDelivery(r.t.Context(), &veredusv1.GetDeliveryRequest{Name: name})
	r.check(err)
	return d.GetKpis().GetLedger()
}

func (r *rig) cancel(id string) {
	_, err := r.node.Campaigns().CancelDelivery(r.t.Context(), &veredusv1.CancelDeliveryRequest{Name: "deliveries/" + id})
	r.check(err)
}

func (r *rig) figures() node.Figures {
	f, err := r.node.Figures()
	r.check(err)
	return f
}

// engaged waits until every attacker has been dialled.
func (r *rig) engaged() {
	r.until(func() bool {
		for _, name := range Manners() {
			if r.net.Connections(name+".example") == 0 {
				return false
			}
		}
		return true
	}, "attackers were not dialled")
}

// quiet waits until no receiver has a connection.
func (r *rig) quiet() {
	r.until(func() bool {
		r.net.mu.Lock()
		defer r.net.mu.Unlock()
		return len(r.net.open) == 0
	}, "connections stay open")
}

// back waits until the node takes no more than before, but for some files.
func (r *rig) back(before node.Figures) (after node.Figures) {
	r.until(func() bool {
		after = r.figures()
		return after.Goroutines <= before.Goroutines+10 && after.Descriptors <= before.Descriptors+20
	}, "the node does not give back what it took")
	return after
}

// until asks again and again.
func (r *rig) until(is func() bool, otherwise string) {
	r.t.Helper()
	over := time.After(late)
	for tick := time.Tick(100 * time.Millisecond); !is(); {
		select {
		case <-tick:
		case <-over:
			r.t.Fatalf("%s: %+v\n%s", otherwise, r.figures(), r.node.LastWords())
		}
	}
}

func (r *rig) stop() {
	r.check(r.node.Stop())
	r.check(r.node.Panics())
}
