package campaign_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"pgregory.net/rapid"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

// bring makes a delivery of one recipient in a state.
func (n *node) bring(id string, state campaign.State) {
	n.t.Helper()
	n.create(id)
	n.add(id, person(1))
	if state == campaign.Draft {
		return
	}
	n.prepare(id)
	if state == campaign.Prepared {
		return
	}
	n.begin(id)
	var err error
	switch state {
	case campaign.Paused:
		_, err = n.PauseDelivery(n.t.Context(), &veredusv1.PauseDeliveryRequest{Name: "deliveries/" + id})
	case campaign.Cancelled:
		_, err = n.CancelDelivery(n.t.Context(), &veredusv1.CancelDeliveryRequest{Name: "deliveries/" + id})
	case campaign.Finished:
		m := n.loaded(id)["person1@mail1.example"]
		n.claim(m)
		n.settle(m, mta.Delivered, bounce.Verdict{}, "ok")
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// calls are what a client can ask of a delivery.
var calls = []struct {
	name string
	make func(n *node, id string) error
}{
	{"change content", func(n *node, id string) error {
		return n.update(id, &veredusv1.Delivery{Content: &veredusv1.Content{Subject: "Other"}}, "content.subject")
	}},
	{"change metadata", func(n *node, id string) error {
		return n.update(id, &veredusv1.Delivery{Metadata: map[string]string{"a": "b"}}, "metadata")
	}},
	{"change priority", func(n *node, id string) error {
		return n.update(id, &veredusv1.Delivery{Priority: 90, Pool: "warm"}, "priority", "pool")
	}},
	{"add recipients", func(n *node, id string) error { return n.tryAdd(id, person(2)) }},
	{"prepare", func(n *node, id string) error {
		_, err := n.PrepareDelivery(n.t.Context(), &veredusv1.PrepareDeliveryRequest{Name: "deliveries/" + id})
		return err
	}},
	{"start", func(n *node, id string) error {
		_, err := n.StartDelivery(n.t.Context(), &veredusv1.StartDeliveryRequest{Name: "deliveries/" + id})
		return err
	}},
	{"pause", func(n *node, id string) error {
		_, err := n.PauseDelivery(n.t.Context(), &veredusv1.PauseDeliveryRequest{Name: "deliveries/" + id, Reason: "lunch"})
		return err
	}},
	{"resume", func(n *node, id string) error {
		_, err := n.ResumeDelivery(n.t.Context(), &veredusv1.ResumeDeliveryRequest{Name: "deliveries/" + id})
		return err
	}},
	{"cancel", func(n *node, id string) error {
		_, err := n.CancelDelivery(n.t.Context(), &veredusv1.CancelDeliveryRequest{Name: "deliveries/" + id, Reason: "wrong price"})
		return err
	}},
	{"delete", func(n *node, id string) error {
		_, err := n.DeleteDelivery(n.t.Context(), &veredusv1.DeleteDeliveryRequest{Name: "deliveries/" + id})
		return err
	}},
}

func (n *node) update(id string, d *veredusv1.Delivery, paths ...string) error {
	d.Name = "deliveries/" + id
	_, err := n.UpdateDelivery(n.t.Context(), &veredusv1.UpdateDeliveryRequest{Delivery: d, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
	return err
}

// TestEveryCallInEveryState has one row for each state and one column for each call: the
// state behind it, "-" where the call is refused, "gone" where nothing is left.
func TestEveryCallInEveryState(t *testing.T) {
	table := []struct {
		state campaign.State
		after string
	}{
		//                  content   metadata  priority  recipients prepare   start    pause   resume   cancel     delete
		{campaign.Draft, "  draft     draft     draft     draft      prepared  -        -       -        cancelled  gone"},
		{campaign.Prepared, "draft    prepared  prepared  draft      prepared  running  -       -        cancelled  gone"},
		{campaign.Running, "-         -         running   -          -         running  paused  running  cancelled  -"},
		{campaign.Paused, " -         -         paused    -          -         -        paused  running  cancelled  -"},
		{campaign.Finished, "-        -         -         -          -         -        -       -        -          gone"},
		{campaign.Cancelled, "-       -         -         -          -         -        -       -        cancelled  gone"},
	}
	n := newNode(t)
	for _, row := range table {
		for i, want := range strings.Fields(row.after) {
			id := fmt.Sprintf("%s-%d", row.state, i)
			n.bring(id, row.state)
			if got := n.outcome(id, row.state, calls[i].make(n, id)); got != want {
				t.Errorf("%s of a delivery that is %s: %s, want %s", calls[i].name, row.state, got, want)
			}
		}
	}
}

// TestRandomCalls makes calls and settles messages at random: the state follows the table,
// the ledger balances, and the relay was last told what holds.
func TestRandomCalls(t *testing.T) {
	asks := []campaign.Call{
		campaign.CallEdit, campaign.CallDescribe, campaign.CallTune, campaign.CallEdit, campaign.CallPrepare,
		campaign.CallStart, campaign.CallPause, campaign.CallResume, campaign.CallCancel,
	}
	n := newNode(t)
	count := 0
	rapid.Check(t, func(rt *rapid.T) {
		count++
		id := fmt.Sprintf("d%d", count)
		n.bring(id, campaign.Draft)
		want := campaign.Draft
		for i := range rapid.IntRange(1, 30).Draw(rt, "calls") {
			n.pass(time.Second)
			ask := rapid.IntRange(0, len(asks)).Draw(rt, "call")
			if ask == len(asks) {
				want = n.settleOne(id, want)
				continue
			}
			edited := ask == 0 && n.get(id).GetContent().GetSubject() == "Other" // so that nothing changes
			err := calls[ask].make(n, id)
			next, allowed := want.After(asks[ask])
			var refused *campaign.StateError
			if allowed != (err == nil) || err != nil && !errors.As(err, &refused) {
				rt.Fatalf("call %d, %s in state %s: %v", i, calls[ask].name, want, err)
			}
			if allowed && !edited {
				want = next
			}
			n.check(rt, id, want)
		}
	})
}

// settleOne delivers one message, if the delivery runs, and answers the state behind it.
func (n *node) settleOne(id string, state campaign.State) campaign.State {
	n.t.Helper()
	if state != campaign.Running {
		return state
	}
	all := n.loaded(id)
	for _, m := range all {
		n.claim(m)
		n.settle(m, mta.Delivered, bounce.Verdict{}, "ok")
		break
	}
	if len(all) == 1 {
		return campaign.Finished
	}
	return state
}

func (n *node) check(rt *rapid.T, id string, want campaign.State) {
	d, err := n.store.Get(n.t.Context(), id)
	if err != nil {
		rt.Fatal(err)
	}
	if d.State != want {
		rt.Fatalf("the delivery is %s, not %s", d.State, want)
	}
	if err := d.Counters.Balance(); err != nil {
		rt.Fatal(err)
	}
	told, doing := n.relay.last[d.No], ""
	switch {
	case want == campaign.Paused:
		doing = "pause"
	case want == campaign.Running && told == "pause":
		doing = "unpause"
	case want == campaign.Cancelled:
		doing = "cancel"
	}
	if doing != "" && told != doing {
		rt.Fatalf("the delivery is %s, and the relay was last told to %s", want, told)
	}
}

func (n *node) outcome(id string, before campaign.State, err error) string {
	n.t.Helper()
	d, missing := n.store.Get(n.t.Context(), id)
	var refused *campaign.StateError
	switch {
	case errors.As(err, &refused):
		if refused.State != before || d.State != before || !strings.Contains(err.Error(), before.String()) {
			n.t.Errorf("%v: the delivery was %s and is %s", err, before, d.State)
		}
		return "-"
	case err != nil:
		n.t.Fatal(err)
	case errors.Is(missing, campaign.ErrNotFound):
		return "gone"
	}
	if err := d.Counters.Balance(); err != nil {
		n.t.Error(err)
	}
	return d.State.String()
}

func TestTheLifeOfADelivery(t *testing.T) {
	n := newNode(t)
	created := n.create("spring")
	same(t, "a new delivery", created.GetKpis().GetLedger(), &veredusv1.Ledger{})
	n.add("spring", people(1, 5)...)
	n.prepare("spring")
	equal(t, "before the start", n.relay.heard(), []string(nil))

	n.pass(0)
	d := n.begin("spring")
	same(t, "started", d.GetKpis().GetLedger(), &veredusv1.Ledger{Accepted: 5, TakenIntoAccount: 5})
	if got := d.GetExpireTime().AsTime().Sub(d.GetStartTime().AsTime()); got != campaign.MaxLifetime {
		t.Errorf("expires %v behind the start, want 84 h", got)
	}
	n.begin("spring")
	equal(t, "start, twice", n.relay.heard(), []string{"hand over spring"})

	m := n.loaded("spring")["person1@mail1.example"]
	n.claim(m)
	for range 2 {
		if _, err := n.PauseDelivery(t.Context(), &veredusv1.PauseDeliveryRequest{Name: "deliveries/spring", Reason: "lunch"}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := n.ResumeDelivery(t.Context(), &veredusv1.ResumeDeliveryRequest{Name: "deliveries/spring"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.update("spring", &veredusv1.Delivery{ValidityPeriod: durationpb.New(3600e9), Priority: 80}, "validity_period", "priority"); err != nil {
		t.Fatal(err)
	}
	cancelled := must(t)(n.CancelDelivery(t.Context(), &veredusv1.CancelDeliveryRequest{Name: "deliveries/spring", Reason: "wrong price"}))
	same(t, "cancelled, one on its way", cancelled.GetKpis().GetLedger(), &veredusv1.Ledger{Accepted: 5, TakenIntoAccount: 1, Cancelled: 4})
	n.settle(m, mta.Delivered, bounce.Verdict{}, "ok")
	same(t, "it keeps its real outcome", n.get("spring").GetKpis().GetLedger(), &veredusv1.Ledger{Accepted: 5, Sent: 1, Cancelled: 4})

	equal(t, "told to the relay", n.relay.heard(), []string{
		"pause 1", "pause 1", "unpause 1", "unpause 1", "update 1: default, 80, 2026-03-02 10:00:00", "cancel 1",
	})
	equal(t, "events", n.events("spring"), []string{
		"started 5", "paused: lunch", "resumed", "cancelled 4: wrong price", "delivered",
	})
}

func TestADeliveryWithNothingToDeliverFinishesAtOnce(t *testing.T) {
	n := newNode(t)
	n.create("empty")
	if _, err := n.store.Add(t.Context(), "empty", []campaign.Item{
		{Index: 1, Address: "a@b.example", Folded: "a@b.example", Domain: "b.example", Ignore: int32(veredusv1.FailureReason_FAILURE_REASON_IN_QUARANTINE)},
	}); err != nil {
		t.Fatal(err)
	}
	if got := n.prepare("empty").GetDelivery().GetState(); got != veredusv1.DeliveryState_DELIVERY_STATE_PREPARED {
		t.Fatal(got)
	}
	d := n.begin("empty")
	equal(t, "state", d.GetState(), veredusv1.DeliveryState_DELIVERY_STATE_FINISHED)
	equal(t, "finish time", d.GetFinishTime().AsTime(), start)
	equal(t, "told to the relay", n.relay.heard(), []string(nil))
	equal(t, "events", n.events("empty"), []string{"started", "finished"})
}

func TestTheStartLooksForTheKeyAgain(t *testing.T) {
	n := newNode(t)
	n.create("d")
	n.add("d", person(1))
	n.prepare("d")
	delete(n.keys, "shop.example")
	_, err := n.StartDelivery(t.Context(), &veredusv1.StartDeliveryRequest{Name: "deliveries/d"})
	var lacking *campaign.NotPreparedError
	if !errors.As(err, &lacking) || len(lacking.Findings) != 1 || lacking.Findings[0].GetCode() != "sender.no_dkim_key" {
		t.Fatalf("start without a key: %v", err)
	}
	equal(t, "state", n.get("d").GetState(), veredusv1.DeliveryState_DELIVERY_STATE_PREPARED)
}

func TestARelayThatStoppedDoesNotUndoACall(t *testing.T) {
	n := newNode(t)
	n.running("d", 1)
	n.relay.fail = mta.ErrStopped
	d := must(t)(n.PauseDelivery(t.Context(), &veredusv1.PauseDeliveryRequest{Name: "deliveries/d"}))
	equal(t, "state", d.GetState(), veredusv1.DeliveryState_DELIVERY_STATE_PAUSED)
}

func TestTheStandingDeliveryIsPausedButNeverChanged(t *testing.T) {
	n := newNode(t)
	if _, err := n.SendMessage(t.Context(), single("r1")); err != nil {
		t.Fatal(err)
	}
	const id = "transactional-default"
	var refused *campaign.StateError
	for _, c := range calls[:6] {
		if c.name != "start" && !errors.As(c.make(n, id), &refused) {
			t.Errorf("%s of the standing delivery was not refused", c.name)
		}
	}
	n.relay.heard()
	for _, c := range calls[6:8] {
		if err := c.make(n, id); err != nil {
			t.Error(err)
		}
	}
	equal(t, "told to the relay", n.relay.heard(), []string{"pause 1", "unpause 1"})
}
