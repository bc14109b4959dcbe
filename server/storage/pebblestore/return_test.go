package pebblestore

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/inbound"
	"github.com/veredus/veredus/mta/returnpath"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/server/campaign"
)

// unknownUser is the verdict on "550 5.1.1 no such user".
var unknownUser = bounce.Verdict{
	Code: bounce.CodeInvalidRecipient, Name: "Invalid recipient", Category: "hard", BounceType: bounce.BounceHard,
	Tag: "user_unknown", Type: bounce.TypeHard, Reason: bounce.ReasonUserUnknown, Disposition: bounce.Final,
	Address: bounce.AddressSuppress, Rule: "user-unknown",
}

// lateBounce is a bounce mail about a delivered message.
func lateBounce(d *campaign.Delivery, id mta.MessageID) inbound.Return {
	return inbound.Return{
		Kind: inbound.OutOfBandBounce, Time: time.Now(), Verdict: unknownUser, RemoteMTA: "mx.a.test",
		Ref:   returnpath.Ref{Handover: id.Handover, Domain: id.Domain, Lane: id.Lane, Order: id.Order, Delivery: d.No},
		Reply: smtpc.Reply{Phase: smtpc.PhaseRCPT, Code: 550, Enhanced: "5.1.1", Text: "no such user"},
	}
}

// A bounce mail that comes back before its message's own settlement is on the disk waits
// for it; one about a message whose transaction hangs is told after a while that it was not sent.
func TestABounceMailSoonerThanItsSettlement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		s := open(t, vfs.NewMem())
		defer s.Close()
		must[*campaign.Delivery](t)(s.Create(ctx, draft("d"), campaign.Request{}))
		must[campaign.Added](t)(s.Add(ctx, "d", items(1, 3, "a.test")))
		d := start(t, s, "d")
		epoch := must[*mta.Recovery](t)(s.Recover(ctx, time.Now())).Epoch
		messages := must[mta.LoadResult](t)(s.Load(ctx, mta.LoadRequest{Handover: d.Handover, Domain: 1, Fresh: 3, Now: time.Now()})).Fresh
		claims := mta.Batch{Epoch: epoch}
		for _, m := range messages {
			claims.Claims = append(claims.Claims, mta.Claim{Message: m, Time: time.Now(), MessageID: "m@x"})
		}
		must[mta.Written](t)(s.Write(ctx, &claims))
		effects := make(chan inbound.Effect)
		bounces := func(m *mta.Message, ctx context.Context) {
			effect, err := s.Return(ctx, lateBounce(d, m.ID))
			if err != nil {
				effect = 0
			}
			effects <- effect
		}
		go bounces(messages[0], ctx)
		time.Sleep(time.Second)
		synctest.Wait()
		must[mta.Written](t)(s.Write(ctx, &mta.Batch{Epoch: epoch, Settles: []mta.Settlement{settlement(messages[0], mta.Delivered, time.Now())}}))
		if got := <-effects; got != inbound.Applied {
			t.Errorf("a bounce mail just before the settlement: %s", got)
		}
		began := time.Now()
		go bounces(messages[1], ctx)
		if got, waited := <-effects, time.Since(began); got != inbound.NotSent || waited != landing {
			t.Errorf("a bounce mail during a long transaction: %s after %v", got, waited)
		}
		given, cancel := context.WithCancel(ctx)
		go bounces(messages[2], given)
		synctest.Wait()
		cancel()
		if got := <-effects; got != 0 {
			t.Errorf("a caller that gave up: %s", got)
		}
		after := must[*campaign.Delivery](t)(s.Get(ctx, "d"))
		if c := &after.Counters; c.Sent != 0 || c.Failed != 1 || c.Claimed != 2 || c.Balance() != nil {
			t.Errorf("counters %+v", c)
		}
	})
}
