package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// demoCampaign is the client's side of the demonstration.
type demoCampaign struct {
	d         *demo
	campaigns veredusv1.CampaignServiceClient
	events    veredusv1.FeedbackServiceClient
	addresses veredusv1.AddressServiceClient
	tally     *tally

	totals   client.Totals
	uploaded time.Duration
	started  time.Time
	took     time.Duration
	ended    *veredusv1.Delivery
	size     int // octets of a mail
	excluded exclusions
}

func newCampaign(d *demo, conn *grpc.ClientConn) *demoCampaign {
	c := &demoCampaign{
		d: d, campaigns: veredusv1.NewCampaignServiceClient(conn), events: veredusv1.NewFeedbackServiceClient(conn), addresses: veredusv1.NewAddressServiceClient(conn),
		tally: newTally(&d.box.data, d.recipients),
	}
	c.tally.expect(d.people())
	return c
}

func (c *demoCampaign) run(ctx context.Context) error {
	delivery, err := c.campaigns.CreateDelivery(ctx, &veredusv1.CreateDeliveryRequest{
		DeliveryId: "demo", RequestId: requestID(), Delivery: c.delivery(),
	})
	if err != nil {
		return err
	}
	if err := c.upload(ctx, delivery.GetName()); err != nil {
		return err
	}
	if err := c.prepare(ctx, delivery.GetName()); err != nil {
		return err
	}
	if err := c.send(ctx, delivery.GetName()); err != nil {
		return err
	}
	c.excluded, err = countExclusions(ctx, c.addresses)
	return err
}

func (c *demoCampaign) delivery() *veredusv1.Delivery {
	unsubscribe := &veredusv1.Unsubscribe{Mode: veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_HOSTED}
	if !c.d.hosted {
		unsubscribe = &veredusv1.Unsubscribe{
			Mode: veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_OWN_URL,
			Url:  "https://courier." + sandboxDomain + "/unsubscribe?id={{ id }}",
		}
	}
	return &veredusv1.Delivery{
		Label:  "courier",
		Sender: &veredusv1.Sender{From: "courier@" + sandboxDomain, DisplayName: "The Courier"},
		Content: &veredusv1.Content{
			Subject: "{{ first_name }}, five stories for {{ city }}", Text: newsletterText, Html: newsletterHTML,
		},
		ListId:         "courier." + sandboxDomain,
		ValidityPeriod: durationpb.New(c.d.plan.validity),
		Unsubscribe:    unsubscribe,
	}
}

func (c *demoCampaign) upload(ctx context.Context, name string) error {
	p := newProgress(c.d.out)
	b := p.bar("uploading", int64(c.d.recipients), false)
	began := time.Now()
	up := client.Uploader{Client: c.campaigns, Delivery: name, Progress: func(at client.Progress) { b.set(at.Durable, "") }}
	totals, err := up.Upload(ctx, c.recipients)
	b.done()
	p.close()
	if err != nil {
		return err
	}
	c.totals, c.uploaded = totals, time.Since(began)
	fmt.Fprintf(c.d.out, "uploaded: %s accepted, %s ignored, %s rejected, in %v\n", thousands(totals.Accepted), thousands(totals.Ignored),
		thousands(totals.Rejected), c.uploaded.Round(time.Millisecond))
	return nil
}

// recipients is the world's people as a client.Source.
func (c *demoCampaign) recipients(first int64) iter.Seq2[*veredusv1.Recipient, error] {
	return func(yield func(*veredusv1.Recipient, error) bool) {
		index := int64(0)
		for r := range c.d.people() {
			if index++; index < first {
				continue
			}
			variables, err := json.Marshal(map[string]any{
				"first_name": r.FirstName, "last_name": r.LastName, "city": r.City, "points": r.Points, "id": index,
			})
			if !yield(&veredusv1.Recipient{Address: r.Address, Variables: variables, RecipientId: strconv.FormatInt(index, 10)}, err) {
				return
			}
		}
	}
}

func (c *demoCampaign) prepare(ctx context.Context, name string) error {
	preview, err := c.campaigns.PreviewMessage(ctx, &veredusv1.PreviewMessageRequest{
		Delivery: name, Variables: []byte(`{"first_name":"Ada","last_name":"Lovelace","city":"London","points":1843,"id":1}`),
	})
	if err != nil {
		return err
	}
	c.size = len(preview.GetRfc5322())
	answer, err := c.campaigns.PrepareDelivery(ctx, &veredusv1.PrepareDeliveryRequest{Name: name, RequestId: requestID()})
	if err != nil {
		return err
	}
	for _, f := range answer.GetFindings() {
		fmt.Fprintf(c.d.out, "%s: %s: %s\n", enumName(f.GetSeverity().String(), "SEVERITY_"), f.GetCode(), f.GetDescription())
		if f.GetSeverity() == veredusv1.Severity_SEVERITY_ERROR {
			err = errors.New("the preparation found errors")
		}
	}
	fmt.Fprintf(c.d.out, "prepared: each mail has %.1f KB\n\n", float64(c.size)/1000)
	return err
}

// returnPatience is how long the receivers may take to send back what is left, and
// the node to tell of it, once the delivery has ended: longer than they try.
const returnPatience = time.Minute

// send starts the delivery and follows its feedback to the end: of the delivery,
// and of what came back about it.
func (c *demoCampaign) send(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*c.d.plan.real(c.d.plan.validity)+5*time.Minute,
		errors.New("the delivery has not ended long after its validity did"))
	defer cancel()
	follower := client.Follower{
		Client: c.events, Filter: &veredusv1.FeedbackFilter{Deliveries: []string{name}},
		Handle: func(_ context.Context, events []*veredusv1.FeedbackEvent, _ string) error {
			c.tally.add(events)
			return nil
		},
	}
	c.started = time.Now()
	c.tally.started = c.started
	if _, err := c.campaigns.StartDelivery(ctx, &veredusv1.StartDeliveryRequest{Name: name, RequestId: requestID()}); err != nil {
		return err
	}
	following, enough := context.WithCancelCause(ctx)
	var others sync.WaitGroup
	others.Go(func() {
		c.show(following)
		c.awaitReturns(following)
		enough(errWatched)
	})
	err := follower.Follow(following)
	enough(err)
	others.Wait()
	if !errors.Is(err, errWatched) {
		return err
	}
	c.took = c.tally.took()
	c.ended, err = c.campaigns.GetDelivery(ctx, &veredusv1.GetDeliveryRequest{Name: name})
	return err
}

// awaitReturns waits until the receivers have sent back everything and the
// feedback tells of as much, or patience ends; the ledgers show what is missing.
func (c *demoCampaign) awaitReturns(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, returnPatience)
	defer cancel()
	fmt.Fprintln(c.d.out, "\nwaiting for what mailboxes send back")
	if c.d.box.world.WaitReturns(ctx) != nil {
		return
	}
	ledger := c.d.box.world.Ledger()
	for told := returnedTo(&ledger); !c.tally.returned().covers(told); {
		select {
		case <-c.tally.changed:
		case <-ctx.Done():
			return
		}
	}
}

// show keeps the bars moving until the delivery has ended: one for all, one for each
// provider.
func (c *demoCampaign) show(ctx context.Context) {
	p := newProgress(c.d.out)
	defer p.close()
	all := p.bar("sending", int64(c.d.recipients), false)
	bars := make([]*bar, len(c.tally.providers))
	for i := range c.tally.providers {
		if n := c.tally.providers[i].recipients; n > 0 {
			bars[i] = p.bar("  "+c.tally.providers[i].name, n, true)
		}
	}
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	speed := newSpeed(c.started)
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-c.tally.ended:
			ended = true
		case <-ticker.C:
		}
		providers, total := c.tally.snapshot()
		rate := speed.at(time.Now(), total.sent)
		all.set(total.sent+total.failed, fmt.Sprintf("%s/s  %s", thousands(rate), total.text()))
		for i, b := range bars {
			if b != nil {
				b.set(providers[i].sent+providers[i].failed, providers[i].text())
			}
		}
	}
	all.done()
	for _, b := range bars {
		if b != nil {
			b.done()
		}
	}
}

// exclusions are how many addresses the node knows in which state.
type exclusions struct{ quarantined, denylisted, counting int64 }

// countExclusions asks for all entries, page by page.
func countExclusions(ctx context.Context, addresses veredusv1.AddressServiceClient) (exclusions, error) {
	var x exclusions
	req := &veredusv1.ListAddressEntriesRequest{PageSize: 1000}
	for {
		page, err := addresses.ListAddressEntries(ctx, req)
		if err != nil {
			return x, err
		}
		for _, e := range page.GetEntries() {
			switch e.GetStatus() {
			case veredusv1.AddressStatus_ADDRESS_STATUS_QUARANTINED:
				x.quarantined++
			case veredusv1.AddressStatus_ADDRESS_STATUS_DENYLISTED:
				x.denylisted++
			case veredusv1.AddressStatus_ADDRESS_STATUS_COUNTING:
				x.counting++
			}
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return x, nil
		}
	}
}

// speed is a rate over the last few seconds.
type speed struct {
	times  [12]time.Time
	counts [12]int64
	next   int
}

func newSpeed(start time.Time) *speed {
	s := &speed{}
	for i := range s.times {
		s.times[i] = start
	}
	return s
}

func (s *speed) at(now time.Time, count int64) int64 {
	since, before := s.times[s.next], s.counts[s.next]
	s.times[s.next], s.counts[s.next] = now, count
	s.next = (s.next + 1) % len(s.times)
	return int64(float64(count-before) / max(now.Sub(since).Seconds(), 0.1))
}
