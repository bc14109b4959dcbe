package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// mailing is a round's delivery, and what the client was told of it.
type mailing struct {
	id     string
	people []*veredusv1.Recipient

	acked    atomic.Int64 // the highest index said to be durable
	created  bool         // so was its creation
	uploaded bool
	started  bool
}

func newMailing(number, size int) *mailing {
	m := &mailing{id: fmt.Sprintf("round-%05d", number)}
	for i := range size {
		domain := healthyDomain(i % healthy)
		switch i % (healthy + 2) {
		case healthy:
			domain = frail
		case healthy + 1:
			domain = faraway
		}
		address := fmt.Sprintf("r%d.%d@%s", number, i, domain)
		m.people = append(m.people, &veredusv1.Recipient{Address: address, RecipientId: address})
	}
	return m
}

func (m *mailing) name() string { return "deliveries/" + m.id }

// put takes the delivery from wherever it is to its start.
func (m *mailing) put(ctx context.Context, c veredusv1.CampaignServiceClient) error {
	return errors.Join(m.create(ctx, c), m.upload(ctx, c), m.start(ctx, c))
}

func (m *mailing) create(ctx context.Context, c veredusv1.CampaignServiceClient) error {
	if m.created {
		return nil
	}
	_, err := c.CreateDelivery(ctx, &veredusv1.CreateDeliveryRequest{
		DeliveryId: m.id, RequestId: "create " + m.id,
		Delivery: &veredusv1.Delivery{
			Sender:  &veredusv1.Sender{From: "news@brand.example"},
			Content: &veredusv1.Content{Subject: "Hello", Text: "Hello {{ recipient.address }}\n"},
		},
	})
	m.created = m.created || err == nil
	return err
}

func (m *mailing) upload(ctx context.Context, c veredusv1.CampaignServiceClient) error {
	if m.uploaded {
		return nil
	}
	up := &client.Uploader{
		Client: c, Delivery: m.name(), ChunkSize: 20, Window: 3,
		Progress: func(p client.Progress) { m.acked.Store(max(m.acked.Load(), p.Durable)) },
	}
	totals, err := up.Upload(ctx, client.Slice(m.people))
	if err == nil && totals.Accepted != int64(len(m.people)) {
		err = fmt.Errorf("%s: %d of %d recipients accepted", m.name(), totals.Accepted, len(m.people))
	}
	m.uploaded = err == nil
	return err
}

func (m *mailing) start(ctx context.Context, c veredusv1.CampaignServiceClient) error {
	if m.started {
		return nil
	}
	d, err := c.GetDelivery(ctx, &veredusv1.GetDeliveryRequest{Name: m.name()})
	if err != nil {
		return err
	}
	if d.GetState() == veredusv1.DeliveryState_DELIVERY_STATE_DRAFT {
		if _, err := c.PrepareDelivery(ctx, &veredusv1.PrepareDeliveryRequest{Name: m.name()}); err != nil {
			return err
		}
	}
	_, err = c.StartDelivery(ctx, &veredusv1.StartDeliveryRequest{Name: m.name(), RequestId: "start " + m.id})
	m.started = err == nil
	return err
}

// follow is one life's subscription.
type follow struct {
	cancel context.CancelFunc
	done   chan error
}

// followOn subscribes behind the last batch that the book has.
func followOn(conn *grpc.ClientConn, b *book) *follow {
	ctx, cancel := context.WithCancel(context.Background())
	f := &follow{cancel: cancel, done: make(chan error, 1)}
	follower := &client.Follower{
		Client: veredusv1.NewFeedbackServiceClient(conn), Token: b.token,
		Handle: func(_ context.Context, events []*veredusv1.FeedbackEvent, token string) error {
			b.hear(events, token)
			return nil
		},
	}
	go func() { f.done <- follower.Follow(ctx) }()
	return f
}

// stop ends it. A token that the node refuses is an error; a broken line is not.
func (f *follow) stop() error {
	f.cancel()
	if err := <-f.done; err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("resuming feedback: %w", err)
	}
	return nil
}

// readAll reads the ids of the oldest n events, and those that come along with them.
func readAll(ctx context.Context, conn *grpc.ClientConn, n int) (ids []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, tellWithin)
	defer cancel()
	stream, err := veredusv1.NewFeedbackServiceClient(conn).StreamFeedback(ctx, &veredusv1.StreamFeedbackRequest{
		Start: &veredusv1.StreamFeedbackRequest_Oldest{Oldest: &emptypb.Empty{}},
	})
	if err != nil {
		return nil, err
	}
	for len(ids) < n {
		r, err := stream.Recv()
		if err != nil {
			return ids, fmt.Errorf("reading all feedback, behind %d of %d events: %w", len(ids), n, err)
		}
		for _, e := range r.GetEvents() {
			ids = append(ids, e.GetId())
		}
	}
	return ids, nil
}
