package campaign_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

func watch(t *testing.T, client veredusv1.CampaignServiceClient, name string) func() (*veredusv1.Delivery, error) {
	t.Helper()
	stream, err := client.WatchDelivery(t.Context(), &veredusv1.WatchDeliveryRequest{Name: name, Interval: durationpb.New(100 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	return func() (*veredusv1.Delivery, error) {
		r, err := stream.Recv()
		if r.GetDelivery().GetContent() != nil {
			t.Error("a watcher gets content")
		}
		return r.GetDelivery(), err
	}
}

func TestAWatcherSeesADeliveryToItsEnd(t *testing.T) {
	n := newNode(t)
	client := dial(t, n)
	n.running("d", 2)
	all := n.loaded("d")
	next := watch(t, client, "deliveries/d")
	if d, err := next(); err != nil || d.GetState() != veredusv1.DeliveryState_DELIVERY_STATE_RUNNING {
		t.Fatal(d, err)
	}
	for _, m := range all {
		n.claim(m)
		n.settle(m, mta.Delivered, bounce.Verdict{}, "ok")
	}
	var last *veredusv1.Delivery
	for {
		d, err := next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if d.GetKpis().GetLedger().GetSent() < last.GetKpis().GetLedger().GetSent() {
			t.Error("it went back")
		}
		last = d
	}
	equal(t, "the last answer", last.GetState(), veredusv1.DeliveryState_DELIVERY_STATE_FINISHED)
	equal(t, "sent", last.GetKpis().GetSent(), int64(2))
}

func TestAWatcherOfACancelledDeliveryWaitsForWhatIsOnItsWay(t *testing.T) {
	n := newNode(t)
	client := dial(t, n)
	n.running("d", 2)
	m := n.loaded("d")["person1@mail1.example"]
	n.claim(m)
	if _, err := n.CancelDelivery(t.Context(), &veredusv1.CancelDeliveryRequest{Name: "deliveries/d"}); err != nil {
		t.Fatal(err)
	}
	next := watch(t, client, "deliveries/d")
	if d, err := next(); err != nil || d.GetKpis().GetLedger().GetTakenIntoAccount() != 1 {
		t.Fatal(d, err)
	}
	n.settle(m, mta.Delivered, bounce.Verdict{}, "ok")
	d, err := next()
	if err != nil {
		t.Fatal(err)
	}
	same(t, "the last answer", d.GetKpis().GetLedger(), &veredusv1.Ledger{Accepted: 2, Sent: 1, Cancelled: 1})
	if _, err := next(); err != io.EOF {
		t.Error(err)
	}
}

func TestWatchersThatCannotGoOn(t *testing.T) {
	n := newNode(t)
	client := dial(t, n)
	if _, err := watch(t, client, "deliveries/none")(); status.Convert(err).Message() != "deliveries/none does not exist" {
		t.Error(err)
	}
	stream, err := client.WatchDelivery(t.Context(), &veredusv1.WatchDeliveryRequest{Name: "d", Interval: durationpb.New(time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	want := (&campaign.InvalidError{Violations: []campaign.FieldViolation{
		{Field: "name", Value: "d", Problem: "is no delivery's name", Remedy: "write deliveries/{delivery}, the id being 1 to 63 of a-z, 0-9 and hyphen, beginning with a letter"},
		{Field: "interval", Value: "1ms", Problem: "is out of range", Remedy: "use 100ms to 1m0s, or leave it unset for 1s"},
	}}).Error()
	if _, err := stream.Recv(); status.Convert(err).Message() != want {
		t.Error(err)
	}
	for _, gone := range []func(){
		func() {
			must(t)(nil, second(n.DeleteDelivery(t.Context(), &veredusv1.DeleteDeliveryRequest{Name: "deliveries/d"})))
		},
		func() { close(n.stopping) },
	} {
		n.bring("d", campaign.Draft)
		next := watch(t, client, "deliveries/d")
		if _, err := next(); err != nil {
			t.Fatal(err)
		}
		gone()
		if d, err := next(); err == nil {
			t.Errorf("it goes on with %v", d)
		}
	}
}

// answers is a watcher's stream that notes when each answer came.
type answers struct {
	veredusv1.CampaignService_WatchDeliveryServer
	ctx  context.Context
	came chan time.Duration
	from time.Time
}

func (a *answers) Context() context.Context { return a.ctx }

func (a *answers) Send(*veredusv1.WatchDeliveryResponse) error {
	a.came <- time.Since(a.from)
	return nil
}

// TestAWatcherIsAnsweredAtMostEveryInterval changes a delivery often, then seldom.
func TestAWatcherIsAnsweredAtMostEveryInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.running("d", 2)
		a := &answers{ctx: t.Context(), came: make(chan time.Duration, 100), from: time.Now()}
		ended := make(chan error, 1)
		go func() {
			ended <- n.WatchDelivery(&veredusv1.WatchDeliveryRequest{Name: "deliveries/d", Interval: durationpb.New(250 * time.Millisecond)}, a)
		}()
		change := func(i int) {
			if err := n.update("d", &veredusv1.Delivery{Priority: int32(1 + i%100)}, "priority"); err != nil {
				t.Error(err)
			}
		}
		for i := range 60 { // for 600 ms
			change(i)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(1900*time.Millisecond - 5*time.Millisecond) // nothing happens until 2495 ms
		change(70)
		time.Sleep(100 * time.Millisecond)
		change(71) // at 2595 ms, too early for another answer
		time.Sleep(time.Second)
		close(n.stopping)
		if err := <-ended; !errors.Is(err, campaign.ErrStopping) {
			t.Error(err)
		}
		close(a.came)
		var got []string
		for at := range a.came {
			got = append(got, at.String())
		}
		equal(t, "answers at", got, []string{"0s", "250ms", "500ms", "750ms", "2.495s", "2.745s"})
	})
}
