package virtual

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/inbound"
	"github.com/veredus/veredus/mta/returnpath"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
)

const day = 24 * time.Hour

// heedful makes the relay ask the store before each attempt, as a node does.
func heedful(r *rig) {
	r.configure(func(c *mta.Config) {
		c.Excluded = func(ctx context.Context, a mta.Addressee) (bounce.Reason, error) {
			answers, err := r.store.Exclusions(ctx, []address.Query{{Folded: a.Recipient, Tenant: a.Tenant, List: a.List, Class: address.Marketing}})
			if err != nil || !answers[0].Excluded() {
				return bounce.ReasonNotDefined, err
			}
			return answers[0].Reason, nil
		}
	})
}

// entry is the tenant's entry of an address; Status 0 when there is none.
func (r *rig) entry(recipient string) address.Entry {
	r.t.Helper()
	list, err := r.store.AddressEntries(r.t.Context(), recipient)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(list) > 1 {
		r.t.Fatalf("%d entries of %s: %+v", len(list), recipient, list)
	}
	if len(list) == 0 {
		return address.Entry{}
	}
	return list[0]
}

// idle lets long time go by with the node off: an open store ticks ten times a second.
func (r *rig) idle(d time.Duration) {
	r.t.Helper()
	r.close()
	time.Sleep(d)
	r.open()
}

// A mailbox that is full counts one a day and one a message, however often it is
// tried; at five the address is quarantined, and the next mail to it fails without an attempt.
func TestSoftErrorsLeadIntoQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, heedful)
		defer r.close()
		r.world.say("full@a.example", "452 4.2.2 mailbox full")
		for i := 1; i <= 5; i++ {
			r.start(fmt.Sprintf("d%d", i), 20*time.Hour, "full@a.example")
			r.start(fmt.Sprintf("twin%d", i), 20*time.Hour, "full@a.example") // on the same day
			pass(20 * time.Hour)
			r.idle(5 * time.Hour)
			e := r.entry("full@a.example")
			want := address.Counting
			if i == 5 {
				want = address.Quarantined
			}
			if e.Status != want || e.Errors != i || e.Reason != bounce.ReasonMailboxFull {
				t.Fatalf("day %d: status %d, %d errors, reason %v; want status %d, %d", i, e.Status, e.Errors, e.Reason, want, i)
			}
		}
		e := r.entry("full@a.example")
		for _, v := range e.Evidence {
			if v.Event == "" || v.Message == "" || v.ReplyCode != 452 || !strings.Contains(v.Text, "mailbox full") || v.Rule == "" {
				t.Errorf("evidence %+v", v)
			}
		}
		before := len(r.world.instants("full@a.example"))
		r.start("last", time.Hour, "full@a.example", "ok@a.example")
		d := r.await("last", 2*time.Hour)
		if d.Counters.Failed != 1 || d.Counters.Sent != 1 || d.Counters.FailedBy[int32(bounce.ReasonInQuarantine)] != 1 {
			t.Errorf("counters %+v", d.Counters)
		}
		if n := len(r.world.instants("full@a.example")); n != before {
			t.Errorf("%d more attempts", n-before)
		}
		if h := r.history("full@a.example"); !strings.HasPrefix(h[len(h)-1], "suppressed@") {
			t.Errorf("history ends with %s", h[len(h)-1])
		}
	})
}

// A success clears the counter; so does time: ten days without an error, thirty after
// a full mailbox.
func TestCountersClear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, heedful)
		defer r.close()
		const to = "a@a.example"
		r.world.say(to, "452 4.2.2 mailbox full")
		r.start("one", 20*time.Hour, to)
		pass(20 * time.Hour)
		r.idle(5 * time.Hour)
		if e := r.entry(to); e.Errors != 1 {
			t.Fatalf("%+v", e)
		}
		r.world.say(to, "")
		r.start("two", time.Hour, to)
		pass(time.Hour)
		if e := r.entry(to); e.Status != 0 {
			t.Errorf("after a success: %+v", e)
		}
		r.world.say(to, "452 4.2.2 mailbox full")
		r.start("three", time.Hour, to)
		pass(time.Hour)
		r.idle(29 * day)
		r.start("four", time.Hour, to)
		pass(time.Hour)
		if e := r.entry(to); e.Errors != 2 {
			t.Errorf("after 29 days: %+v", e)
		}
		r.idle(31 * day)
		r.start("five", time.Hour, to)
		pass(time.Hour)
		if e := r.entry(to); e.Errors != 1 {
			t.Errorf("31 days after that: %+v", e)
		}
	})
}

// ref names a delivered message, as the token of its return path does.
func (r *rig) ref(recipient string) returnpath.Ref {
	r.t.Helper()
	list := r.events(recipient)
	last := list[len(list)-1]
	_, id, _ := strings.Cut(last.GetMessage(), "/messages/")
	place, err := mta.ParseMessageID(id)
	if err != nil {
		r.t.Fatal(err)
	}
	_, delivery, _ := strings.Cut(last.GetDelivery(), "/")
	d := r.delivery(delivery)
	return returnpath.Ref{Handover: place.Handover, Domain: place.Domain, Lane: place.Lane, Order: place.Order, Delivery: d.No}
}

func (r *rig) comes(ret inbound.Return) inbound.Effect {
	r.t.Helper()
	ret.Time = time.Now()
	effect, err := r.store.Return(r.t.Context(), ret)
	if err != nil {
		r.t.Fatal(err)
	}
	return effect
}

// A bounce that comes by mail a week later moves Sent to Failed, once, in a delivery that
// was finished long ago; in both feedback modes the figures follow from it. The next mail to the
// address is not sent.
func TestALateBounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, heedful)
		defer r.close()
		for mode, id := range map[veredusv1.FeedbackMode]string{
			veredusv1.FeedbackMode_FEEDBACK_MODE_EFS: "efs", veredusv1.FeedbackMode_FEEDBACK_MODE_NO_EFS: "without",
		} {
			to := id + "@a.example"
			r.startAs(id, time.Hour, &veredusv1.Delivery{FeedbackMode: mode}, to, "other-"+to)
			r.await(id, time.Hour)
			r.idle(7 * day)
			verdict := bounce.Default().Qualify(bounce.Input{Reply: bounce.ParseReply("550 5.1.1 user unknown")})
			late := inbound.Return{Kind: inbound.OutOfBandBounce, Ref: r.ref(to), Verdict: verdict, Reply: bounce.ParseReply("550 5.1.1 user unknown"), Recipients: []string{to}}
			if e := r.comes(late); e != inbound.Applied {
				t.Fatalf("%s: %v", id, e)
			}
			if e := r.comes(late); e == inbound.Applied {
				t.Errorf("%s: applied twice", id)
			}
			d := r.delivery(id)
			if d.State != campaign.Finished || d.Counters.Sent != 1 || d.Counters.Failed != 1 || d.Counters.FailedBy[int32(bounce.ReasonUserUnknown)] != 1 {
				t.Errorf("%s: %v %+v", id, d.State, d.Counters)
			}
			if k := d.API(time.Now()).GetKpis(); k.GetSuccessPercent() != 50 || k.GetSent() != 1 || k.GetHard() != 1 {
				t.Errorf("%s: KPIs %v", id, k)
			}
			list := r.events(to)
			last := list[len(list)-1]
			if typeName(last) != "out_of_band_bounce" || last.GetBounceCode() != 10 || last.GetReplyCode() != 550 || last.GetWillRetry() || last.GetRecipient() != to {
				t.Errorf("%s: last event %v", id, last)
			}
			if e := r.entry(to); e.Status != address.Quarantined || e.Origin != address.FromOutOfBandBounce || e.Evidence[0].Event != last.GetId() {
				t.Errorf("%s: entry %+v", id, e)
			}
		}
	})
}

// Who complains while the next mail is queued does not get it.
func TestAComplaintStopsQueuedMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, heedful)
		defer r.close()
		const to = "reader@a.example"
		r.start("first", time.Hour, to)
		r.await("first", time.Hour)
		ref := r.ref(to)
		r.world.say(to, "451 4.7.1 greylisted, try again later")
		r.start("second", 10*time.Hour, to)
		pass(time.Minute)
		if e := r.comes(inbound.Return{Kind: inbound.Complaint, Ref: ref, Recipients: []string{to}, Confirm: true}); e != inbound.Applied {
			t.Fatal(e)
		}
		d := r.await("second", 11*time.Hour)
		if d.Counters.FailedBy[int32(bounce.ReasonDenylisted)] != 1 {
			t.Errorf("counters %+v", d.Counters)
		}
		if n := len(r.world.instants(to)); n != 2 {
			t.Errorf("%d attempts", n)
		}
		if k := r.delivery("first").API(time.Now()).GetKpis(); k.GetComplaints() != 1 || k.GetSent() != 1 {
			t.Errorf("KPIs of the first %v", k)
		}
		if e := r.comes(inbound.Return{Kind: inbound.Complaint, Ref: ref, Recipients: []string{"someone@else.example"}, Confirm: true}); e != inbound.OtherRecipient {
			t.Errorf("somebody else's complaint: %v", e)
		}
	})
}

// An outage that refuses every address suppresses nobody for good: the entries it makes
// are provisional, and the first success after the hold releases them.
func TestAnOutageSuppressesNobodyForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, heedful)
		defer r.close()
		people := many(400, "a.example")
		r.start("before", 5*time.Hour, people...)
		r.await("before", 5*time.Hour)
		for _, to := range people[:120] {
			r.world.say(to, "550 5.1.1 user unknown")
		}
		r.idle(3 * time.Hour) // what is usual there outlasts a restart
		r.start("during", 5*time.Hour, people[:120]...)
		r.await("during", 5*time.Hour)
		quarantined, provisional := 0, 0
		for _, to := range people[:120] {
			switch e := r.entry(to); {
			case e.Provisional:
				provisional++
			case e.Status == address.Quarantined:
				quarantined++
			}
		}
		if provisional != 120 || quarantined != 0 { // also those quarantined before it was noticed
			t.Errorf("%d entries are provisional, %d are not", provisional, quarantined)
		}
		for _, to := range people[:120] {
			r.world.say(to, "")
		}
		r.idle(2 * day)
		r.start("after", 5*time.Hour, people[:120]...)
		d := r.await("after", 5*time.Hour)
		if d.Counters.Sent != int64(provisional) {
			t.Errorf("%d sent of %d whose entries are provisional", d.Counters.Sent, provisional)
		}
		for _, to := range people[:120] {
			if e := r.entry(to); e.Provisional {
				t.Fatalf("still provisional after a success: %+v", e)
			}
		}
	})
}
