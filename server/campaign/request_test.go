package campaign_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

// TestARepeatedRequestAnswersAsTheFirstTime makes every mutating call twice, with the
// delivery moved on in between, and once more with another body.
func TestARepeatedRequestAnswersAsTheFirstTime(t *testing.T) {
	const id = "the request"
	for _, c := range []struct {
		name    string
		state   campaign.State
		request func() proto.Message
		call    func(n *node, ctx context.Context, r proto.Message) (proto.Message, error)
		other   func(r proto.Message)
		told    []string // to the relay, by the first call alone
	}{
		{
			"create", 0, func() proto.Message {
				return &veredusv1.CreateDeliveryRequest{Delivery: spec(), RequestId: id}
			},
			func(n *node, ctx context.Context, r proto.Message) (proto.Message, error) {
				return n.CreateDelivery(ctx, r.(*veredusv1.CreateDeliveryRequest))
			},
			func(r proto.Message) { r.(*veredusv1.CreateDeliveryRequest).DeliveryId = "mine" },
			nil,
		},
		{
			"update", campaign.Draft, func() proto.Message {
				return &veredusv1.UpdateDeliveryRequest{
					Delivery:   &veredusv1.Delivery{Name: "deliveries/d", Label: "summer"},
					UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"label"}}, RequestId: id,
				}
			},
			func(n *node, ctx context.Context, r proto.Message) (proto.Message, error) {
				return n.UpdateDelivery(ctx, r.(*veredusv1.UpdateDeliveryRequest))
			},
			func(r proto.Message) { r.(*veredusv1.UpdateDeliveryRequest).Delivery.Label = "winter" },
			nil,
		},
		{
			"prepare", campaign.Draft, func() proto.Message {
				return &veredusv1.PrepareDeliveryRequest{Name: "deliveries/d", RequestId: id}
			},
			func(n *node, ctx context.Context, r proto.Message) (proto.Message, error) {
				return n.PrepareDelivery(ctx, r.(*veredusv1.PrepareDeliveryRequest))
			},
			func(r proto.Message) { r.(*veredusv1.PrepareDeliveryRequest).Name = "deliveries/e" },
			nil,
		},
		{
			"start", campaign.Prepared, func() proto.Message {
				return &veredusv1.StartDeliveryRequest{Name: "deliveries/d", RequestId: id}
			},
			func(n *node, ctx context.Context, r proto.Message) (proto.Message, error) {
				return n.StartDelivery(ctx, r.(*veredusv1.StartDeliveryRequest))
			},
			func(r proto.Message) { r.(*veredusv1.StartDeliveryRequest).Name = "deliveries/e" },
			[]string{"hand over d"},
		},
		{
			"pause", campaign.Running, func() proto.Message {
				return &veredusv1.PauseDeliveryRequest{Name: "deliveries/d", RequestId: id, Reason: "lunch"}
			},
			func(n *node, ctx context.Context, r proto.Message) (proto.Message, error) {
				return n.PauseDelivery(ctx, r.(*veredusv1.PauseDeliveryRequest))
			},
			func(r proto.Message) { r.(*veredusv1.PauseDeliveryRequest).Reason = "tea" },
			[]string{"pause 1"},
		},
		{
			"resume", campaign.Paused, func() proto.Message {
				return &veredusv1.ResumeDeliveryRequest{Name: "deliveries/d", RequestId: id}
			},
			func(n *node, ctx context.Context, r proto.Message) (proto.Message, error) {
				return n.ResumeDelivery(ctx, r.(*veredusv1.ResumeDeliveryRequest))
			},
			func(r proto.Message) { r.(*veredusv1.ResumeDeliveryRequest).Name = "deliveries/e" },
			[]string{"unpause 1"},
		},
		{
			"cancel", campaign.Running, func() proto.Message {
				return &veredusv1.CancelDeliveryRequest{Name: "deliveries/d", RequestId: id}
			},
			func(n *node, ctx context.Context, r proto.Message) (proto.Message, error) {
				return n.CancelDelivery(ctx, r.(*veredusv1.CancelDeliveryRequest))
			},
			func(r proto.Message) { r.(*veredusv1.CancelDeliveryRequest).Reason = "tea" },
			[]string{"cancel 1"},
		},
		{
			"delete", campaign.Draft, func() proto.Message {
				return &veredusv1.DeleteDeliveryRequest{Name: "deliveries/d", RequestId: id}
			},
			func(n *node, ctx context.Context, r proto.Message) (proto.Message, error) {
				return n.DeleteDelivery(ctx, r.(*veredusv1.DeleteDeliveryRequest))
			},
			func(r proto.Message) { r.(*veredusv1.DeleteDeliveryRequest).Name = "deliveries/e" },
			nil,
		},
		{
			"send", 0, func() proto.Message { return single(id) },
			func(n *node, ctx context.Context, r proto.Message) (proto.Message, error) {
				return n.SendMessage(ctx, r.(*veredusv1.SendMessageRequest))
			},
			func(r proto.Message) { r.(*veredusv1.SendMessageRequest).Content.Subject = "Other" },
			[]string{"arrived transactional-default at mail1.example, expires 2026-03-05 21:00:00"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			if c.state != 0 {
				n.bring("d", c.state)
			}
			n.relay.heard()
			first, err := c.call(n, t.Context(), c.request())
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "told to the relay", n.relay.heard(), c.told)

			n.pass(time.Hour)
			delete(n.keys, "shop.example")
			if c.name != "delete" && c.state != 0 {
				_, _ = n.CancelDelivery(t.Context(), &veredusv1.CancelDeliveryRequest{Name: "deliveries/d"})
				n.relay.heard()
			}
			second, err := c.call(n, t.Context(), c.request())
			if err != nil {
				t.Fatal(err)
			}
			same(t, "the second answer", second, first)
			equal(t, "told to the relay again", n.relay.heard(), []string(nil))

			other := c.request()
			c.other(other)
			if _, err := c.call(n, t.Context(), other); !errors.Is(err, campaign.ErrRequestIDReused) {
				t.Errorf("another body with the same id: %v", err)
			}
		})
	}
}

func TestARequestIDIsOfOneMethod(t *testing.T) {
	n := newNode(t)
	n.bring("d", campaign.Running)
	if _, err := n.PauseDelivery(t.Context(), &veredusv1.PauseDeliveryRequest{Name: "deliveries/d", RequestId: "r"}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.ResumeDelivery(t.Context(), &veredusv1.ResumeDeliveryRequest{Name: "deliveries/d", RequestId: "r"}); !errors.Is(err, campaign.ErrRequestIDReused) {
		t.Error(err)
	}
}

func TestARefusedRequestIsNotRemembered(t *testing.T) {
	n := newNode(t)
	n.bring("d", campaign.Draft)
	req := &veredusv1.StartDeliveryRequest{Name: "deliveries/d", RequestId: "r"}
	if _, err := n.StartDelivery(t.Context(), req); err == nil {
		t.Fatal("a draft started")
	}
	n.prepare("d")
	if _, err := n.StartDelivery(t.Context(), req); err != nil {
		t.Error(err)
	}
}

func TestTheSameRequestManyTimesAtOnceIsOne(t *testing.T) {
	n := newNode(t)
	const many = 20
	names := make([]string, many)
	var wait sync.WaitGroup
	for i := range many {
		wait.Go(func() {
			m, err := n.SendMessage(t.Context(), single("r"))
			if err != nil {
				t.Error(err)
			}
			names[i] = m.GetName()
		})
	}
	wait.Wait()
	for _, name := range names {
		equal(t, "name", name, names[0])
	}
	equal(t, "told to the relay", fmt.Sprint(len(n.relay.heard())), "1")
	equal(t, "messages", n.get("transactional-default").GetKpis().GetLedger().GetAccepted(), int64(1))
}

func TestCallsOnOneDeliveryReachTheRelayInTheirOrder(t *testing.T) {
	n := newNode(t)
	n.running("d", 1)
	n.relay.heard()
	var wait sync.WaitGroup
	for i := range 40 {
		wait.Go(func() {
			var err error
			if i%2 == 0 {
				_, err = n.PauseDelivery(t.Context(), &veredusv1.PauseDeliveryRequest{Name: "deliveries/d"})
			} else {
				_, err = n.ResumeDelivery(t.Context(), &veredusv1.ResumeDeliveryRequest{Name: "deliveries/d"})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	told := n.relay.heard()
	last := map[veredusv1.DeliveryState]string{
		veredusv1.DeliveryState_DELIVERY_STATE_PAUSED: "pause 1", veredusv1.DeliveryState_DELIVERY_STATE_RUNNING: "unpause 1",
	}
	equal(t, "the last thing told", told[len(told)-1], last[n.get("d").GetState()])
}

func TestACallWaitsForItsTurnOnlyAsLongAsItsClient(t *testing.T) {
	n := newNode(t)
	n.bring("d", campaign.Draft)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.CancelDelivery(ctx, &veredusv1.CancelDeliveryRequest{Name: "deliveries/d"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
