package storagetest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/inbound"
	"github.com/veredus/veredus/mta/smtpc"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/learning"
)

var addressStories = []story{
	{"errors are counted, then quarantine, with their events as evidence", countedErrors},
	{"a domain that does not exist counts one", unknownDomain},
	{"a delivery clears the counter and releases what was provisional", successClears},
	{"when a destination refuses everybody its new entries are provisional", outage},
	{"an allowlisted address keeps the code, with reason 25", allowlisted},
	{"a late bounce moves Sent to Failed, whatever state its delivery is in", lateBounces},
	{"a late bounce tells all that is known", lateBounceEvent},
	{"what comes back about mail that never arrived has no effect", neverArrived},
	{"a complaint ends marketing mail and no other", complaint},
	{"an unsubscribe works when everything else is gone", unsubscribePurged},
	{"an unsubscribe from a list leaves the others", unsubscribeList},
	{"an unsubscribe holds again after an operator let the address back in", unsubscribeAgain},
	{"unsubscribe keys are made once and never lost", linkKeys},
	{"exclusions come before doubles", exclusionBeforeDouble},
	{"a single message to an excluded address is never sent", excludedSingle},
	{"a warning changes nothing but the log", warning},
	{"rejections for failed authentication are counted", authRejections},
	{"address entries outlive deliveries", entriesOutlive},
	{"every field of an address entry comes back", wholeEntry},
	{"address entries are filtered", filteredEntries},
	{"bad keys of address entries are refused", badKeys},
	{"a change of addresses leaves its answer for repeats", replayedChange},
	{"a text has at most ten providers", textProviders},
}

// failure is a bounce that says something about the address.
func failure(m *mta.Message, at time.Time, effect bounce.AddressEffect) mta.Settlement {
	n := *m
	n.State.Attempts++
	s := mta.Settlement{
		Message: &n, Outcome: mta.Bounced, Time: at, Destination: "provider", Text: "no such user", MessageID: "mid@example.com", Provider: "google",
		Attempt: &mta.Attempt{
			Number: n.State.Attempts, Time: at, Source: "s1", RemoteHost: "mx.a.test",
			Reply: smtpc.Reply{Phase: smtpc.PhaseRCPT, Code: 550, Enhanced: "5.1.1", Text: "no such user"},
		},
		Verdict: bounce.Verdict{
			Code: 10, Category: "hard", BounceType: bounce.BounceHard, Tag: "user_unknown", Type: bounce.TypeHard, Reason: bounce.ReasonUserUnknown,
			Disposition: bounce.Final, Address: effect, Rule: "user-unknown",
		},
	}
	if effect == bounce.AddressCount {
		s.Verdict.Code, s.Verdict.Reason, s.Verdict.Tag = 22, bounce.ReasonMailboxFull, "mailbox_full"
		s.Verdict.BounceType, s.Verdict.Category, s.Verdict.Type = bounce.BounceSoft, "soft", bounce.TypeSoft
	}
	return s
}

func success(m *mta.Message, at time.Time) mta.Settlement {
	n := *m
	n.State.Attempts++
	return mta.Settlement{
		Message: &n, Outcome: mta.Delivered, Time: at, Destination: "provider", MessageID: "mid@example.com",
		Attempt: &mta.Attempt{Number: n.State.Attempts, Time: at, Source: "s1", Reply: smtpc.Reply{Phase: smtpc.PhaseEndOfData, Code: 250}},
	}
}

// mail starts a delivery to u1@a.test ... and gives its messages and the epoch.
func (t *teller) mail(id string, n int) ([]*mta.Message, uint64) {
	t.Helper()
	t.create(id)
	t.fill(id, n, "a.test")
	d := t.start(id)
	epoch := t.recover().Epoch
	res, err := t.Load(ctx(), mta.LoadRequest{Handover: d.Handover, Domain: 1, Fresh: n, Now: storyTime})
	t.check(err)
	return res.Fresh, epoch
}

// settle claims messages and settles them.
func (t *teller) settle(epoch uint64, settles ...mta.Settlement) {
	t.Helper()
	b := mta.Batch{Epoch: epoch}
	for _, s := range settles {
		b.Claims = append(b.Claims, claimOf(s.Message))
	}
	t.write(b)
	t.write(mta.Batch{Epoch: epoch, Settles: settles})
}

func (t *teller) excluded(q address.Query) bounce.Reason {
	t.Helper()
	got, err := t.Exclusions(ctx(), []address.Query{q})
	t.check(err)
	return got[0].Reason
}

// marketing asks about a delivery's mail without a list.
func marketing(folded string) address.Query {
	return address.Query{Folded: folded, Tenant: campaign.DefaultTenant, Class: address.Marketing}
}

// only is the one entry of an address.
func (t *teller) only(folded string) address.Entry {
	t.Helper()
	list, err := t.AddressEntries(ctx(), folded)
	t.check(err)
	if len(list) != 1 {
		t.Fatalf("%s has %d entries: %+v", folded, len(list), list)
	}
	return list[0]
}

func (t *teller) none(folded string) {
	t.Helper()
	if list, err := t.AddressEntries(ctx(), folded); err != nil || len(list) != 0 {
		t.Fatalf("%s has entries: %+v (%v)", folded, list, err)
	}
}

// put makes an entry as an operator does.
func (t *teller) put(e address.Entry) {
	t.Helper()
	if e.Address == "" {
		e.Address = e.Folded
	}
	e.Created, e.Updated = storyTime, storyTime
	_, err := t.ChangeAddressEntries(ctx(), []address.Key{e.Key}, address.Request{}, "", func(address.Entry) address.Entry { return e })
	t.check(err)
}

// told reads the events behind a position.
func (t *teller) told(from uint64) []*veredusv1.FeedbackEvent {
	t.Helper()
	events, _, err := t.Read(ctx(), []uint64{from}, 1000)
	t.check(err)
	return events
}

func (t *teller) end() uint64 {
	_, next := t.Ends()
	return next[0]
}

func (t *teller) returns(want inbound.Effect, kind inbound.ReturnKind, d *campaign.Delivery, id mta.MessageID, change ...func(*inbound.Return)) {
	t.Helper()
	m := message{id: id, delivery: &delivery{no: d.No}}
	r := inbound.Return{Kind: kind, Ref: m.ref(), Time: storyTime.Add(time.Hour), Text: "it came back"}
	if kind == inbound.OutOfBandBounce {
		r.Verdict = failure(&mta.Message{}, storyTime, bounce.AddressSuppress).Verdict
		r.Reply = smtpc.Reply{Phase: smtpc.PhaseRCPT, Code: 550, Enhanced: "5.1.1", Text: "no such user"}
	}
	for _, c := range change {
		c(&r)
	}
	if got, err := t.Return(ctx(), r); err != nil || got != want {
		t.Fatalf("return of kind %d: %s (%v), want %s", kind, got, err, want)
	}
}

func (t *teller) balanced(id string) *campaign.Delivery {
	t.Helper()
	d, err := t.Get(ctx(), id)
	t.check(err)
	t.check(d.Counters.Balance())
	return d
}

func countedErrors(t *teller) {
	for day := range 6 {
		id := fmt.Sprintf("d%d", day)
		msgs, epoch := t.mail(id, 2)
		at := storyTime.AddDate(0, 0, day-6)
		from := t.end()
		s := failure(msgs[0], at, bounce.AddressCount)
		s.Outcome, s.Next = mta.Deferred, at.Add(time.Hour)
		t.settle(epoch, s)
		if day > 4 {
			break
		}
		e := t.only("u1@a.test")
		want := address.Counting
		if day == 4 {
			want = address.Quarantined
		}
		if e.Errors != day+1 || e.Status != want || e.Reason != bounce.ReasonMailboxFull || e.Address != "u1@a.test" {
			t.Fatalf("after %d errors: %+v", day+1, e)
		}
		ev, cause := e.Evidence[0], t.told(from)[0]
		if ev.Event != cause.GetId() || ev.Message != cause.GetMessage() || ev.Text != "no such user" || ev.ReplyCode != 550 ||
			ev.Enhanced != "5.1.1" || ev.Phase != "rcpt" || ev.Rule != "user-unknown" || ev.Destination != "provider" || ev.Provider != "google" || !ev.Time.Equal(at) {
			t.Fatalf("evidence %+v of event %+v", ev, cause)
		}
		if got := t.excluded(marketing("u1@a.test")); (got == bounce.ReasonInQuarantine) != (day == 4) {
			t.Fatalf("after %d errors: %s", day+1, got)
		}
	}
	t.none("u2@a.test")
}

func unknownDomain(t *teller) {
	msgs, epoch := t.mail("d", 2)
	s := mta.Settlement{Message: msgs[0], Outcome: mta.Bounced, Time: storyTime, Verdict: bounce.UnknownDomain(), Text: "no such domain"}
	expired := mta.Settlement{Message: msgs[1], Outcome: mta.Expired, Time: storyTime, Verdict: bounce.Expired(s.Verdict), Text: "validity ended"}
	t.write(mta.Batch{Epoch: epoch, Settles: []mta.Settlement{s, expired}})
	if e := t.only("u1@a.test"); e.Errors != 1 || e.Status != address.Counting || e.Evidence[0].Text != "no such domain" || e.Evidence[0].Rule != "own:nxdomain" {
		t.Errorf("entry %+v", e)
	}
	t.none("u2@a.test")
}

func successClears(t *teller) {
	everything := address.Scope{Tenant: campaign.DefaultTenant, Class: address.Everything}
	yesterday := storyTime.AddDate(0, 0, -1)
	t.put(address.Entry{Key: address.Key{Folded: "u1@a.test", Scope: everything}, Status: address.Counting, Errors: 3, LastError: yesterday})
	t.put(address.Entry{Key: address.Key{Folded: "u2@a.test", Scope: everything}, Status: address.Quarantined, Provisional: true, LastError: yesterday})
	t.put(address.Entry{Key: address.Key{Folded: "u3@a.test", Scope: everything}, Status: address.Quarantined, LastError: yesterday})
	other := address.Scope{Tenant: "other", Class: address.Everything}
	t.put(address.Entry{Key: address.Key{Folded: "u4@a.test", Scope: other}, Status: address.Counting, Errors: 3, LastError: yesterday})
	t.put(address.Entry{Key: address.Key{Folded: "u5@a.test", Scope: address.Scope{Class: address.Everything}}, Status: address.Counting, Errors: 3, LastError: yesterday})
	msgs, epoch := t.mail("d", 5)
	var settles []mta.Settlement
	for _, m := range msgs {
		settles = append(settles, success(m, storyTime))
	}
	t.settle(epoch, settles...)
	t.none("u1@a.test")
	t.none("u2@a.test")
	t.none("u5@a.test")
	if e := t.only("u3@a.test"); e.Status != address.Quarantined {
		t.Errorf("confirmed quarantine: %+v", e)
	}
	if e := t.only("u4@a.test"); e.Errors != 3 {
		t.Errorf("another tenant's counter: %+v", e)
	}
}

func outage(t *teller) {
	msgs, epoch := t.mail("d", 400)
	at := storyTime.Add(-time.Hour)
	for i, m := range msgs {
		s := success(m, at.Add(time.Duration(i)*time.Second))
		if i >= 250 {
			s = failure(m, at.Add(time.Duration(i)*time.Second), bounce.AddressSuppress)
		}
		t.settle(epoch, s)
	}
	last := t.only("u400@a.test")
	if last.Status != address.Quarantined || !last.Provisional || last.Evidence[0].Change != address.WasProvisional {
		t.Errorf("an entry made in an outage: %+v", last)
	}
	page, _, err := t.ListAddressEntries(ctx(), address.Filter{Domain: "a.test", Provisional: true}, nil, 1000)
	t.check(err)
	if len(page) < 100 || len(page) > 150 {
		t.Errorf("%d provisional entries of 150 unknown users", len(page))
	}
}

func allowlisted(t *teller) {
	key := address.Key{Folded: "u1@a.test", Scope: address.Scope{Class: address.Everything}}
	t.put(address.Entry{Key: key, Status: address.Allowlisted, Origin: address.FromOperator})
	msgs, epoch := t.mail("d", 2)
	from := t.end()
	t.settle(epoch, failure(msgs[0], storyTime, bounce.AddressSuppress), success(msgs[1], storyTime))
	e := t.only("u1@a.test")
	if e.Status != address.Allowlisted || len(e.Evidence) != 1 || e.Evidence[0].Change != address.WasOverridden {
		t.Errorf("entry %+v", e)
	}
	ev := t.told(from)[0]
	if ev.GetReason() != veredusv1.FailureReason_FAILURE_REASON_ERROR_IGNORED || ev.GetBounceCode() != 10 || ev.GetTag() != "user_unknown" || ev.GetFailureType() != veredusv1.FailureType(bounce.TypeIgnored) {
		t.Errorf("event %v", ev)
	}
	d := t.balanced("d")
	if d.Counters.FailedBy[25] != 1 || d.Counters.Failed != 1 || d.Counters.By["provider"].FailedBy[25] != 1 {
		t.Errorf("counters %+v", d.Counters)
	}
	log, err := t.Message(ctx(), "d", msgs[0].ID)
	t.check(err)
	if log.Reason != 25 || log.BounceCode != 10 || log.Truth != campaign.Failed {
		t.Errorf("log %+v", log)
	}
}

func lateBounces(t *teller) {
	for _, state := range []campaign.State{campaign.Running, campaign.Paused, campaign.Finished, campaign.Cancelled} {
		id := "in-" + strings.ToLower(state.String())
		msgs, epoch := t.mail(id, 3)
		t.settle(epoch, success(msgs[0], storyTime), success(msgs[1], storyTime))
		if state == campaign.Finished {
			t.settle(epoch, success(msgs[2], storyTime))
		} else if state != campaign.Running {
			_, err := t.Change(ctx(), id, campaign.Request{}, func(d *campaign.Delivery) ([]campaign.Event, error) {
				d.State = state
				return nil, nil
			})
			t.check(err)
		}
		before := t.balanced(id)
		t.returns(inbound.Applied, inbound.OutOfBandBounce, before, msgs[0].ID)
		t.returns(inbound.Repeated, inbound.OutOfBandBounce, before, msgs[0].ID)
		d := t.balanced(id)
		c, by := d.Counters, d.Counters.By["provider"]
		if d.State != state || c.Sent != before.Counters.Sent-1 || c.Failed != 1 || c.FailedBy[1] != 1 || by.Sent != c.Sent || by.Failed != 1 || by.FailedBy[1] != 1 {
			t.Errorf("%s: delivery %s, counters %+v, at the provider %+v", state, d.State, c, by)
		}
		log, err := t.Message(ctx(), id, msgs[0].ID)
		t.check(err)
		if log.Truth != campaign.Failed || log.Reason != 1 || log.BounceCode != 10 || log.Text != "it came back" || len(log.Attempts) != 1 || log.AttemptCount != 1 {
			t.Errorf("%s: log %+v", state, log)
		}
	}
	if e := t.only("u1@a.test"); e.Status != address.Quarantined || e.Origin != address.FromOutOfBandBounce {
		t.Errorf("entry %+v", e)
	}
}

func lateBounceEvent(t *teller) {
	t.create("d")
	_, err := t.Add(ctx(), "d", []campaign.Item{{
		Index: 1, Address: "U@a.test", Folded: "u@a.test", Domain: "a.test", RecipientID: "crm-1", Metadata: map[string]string{"k": "v"},
	}})
	t.check(err)
	d := t.start("d")
	epoch := t.recover().Epoch
	m := t.load(d.Handover, 1).Fresh[0]
	t.settle(epoch, success(m, storyTime))
	from := t.end()
	t.returns(inbound.Applied, inbound.OutOfBandBounce, d, m.ID, func(r *inbound.Return) {
		r.Confirm, r.Recipients, r.RemoteMTA, r.Text = true, []string{"u@a.test"}, "mx9.a.test", ""
	})
	ev := t.told(from)[0]
	if e := t.only("u@a.test"); e.Evidence[0].Event != ev.GetId() || e.Evidence[0].Text != "no such user" || e.Address != "U@a.test" {
		t.Errorf("entry %+v", e)
	}
	ev.Id = ""
	want := &veredusv1.FeedbackEvent{
		Time: ev.GetTime(), Type: veredusv1.FeedbackType_FEEDBACK_TYPE_OUT_OF_BAND_BOUNCE, Tenant: "default", Delivery: "deliveries/d",
		Message: m.Name, RecipientId: "crm-1", Metadata: map[string]string{"k": "v"}, Recipient: "U@a.test", Destination: "provider",
		Source: "s1", RemoteHost: "mx9.a.test", Attempt: 1, Phase: "rcpt", ReplyCode: 550, EnhancedCode: "5.1.1", Text: "no such user",
		Disposition: veredusv1.Disposition_DISPOSITION_FINAL, BounceCode: 10, Tag: "user_unknown", Rule: "user-unknown", Category: "hard",
		FailureType: veredusv1.FailureType_FAILURE_TYPE_HARD, Reason: veredusv1.FailureReason_FAILURE_REASON_USER_UNKNOWN,
		QueueTime: ev.GetQueueTime(), MessageId: ev.GetMessageId(),
	}
	if ev.GetQueueTime().AsDuration() != time.Hour || ev.GetMessageId() == "" || !ev.GetTime().AsTime().Equal(storyTime.Add(time.Hour)) || ev.String() != want.String() {
		t.Errorf("event\n got %v\nwant %v", ev, want)
	}
}

func neverArrived(t *teller) {
	msgs, epoch := t.mail("d", 5)
	refused := failure(msgs[1], storyTime, bounce.AddressNone)
	uncertain := deferred(msgs[2], storyTime)
	uncertain.Attempt.Uncertain = true
	t.settle(epoch, deferred(msgs[0], storyTime), refused, uncertain)
	d := t.balanced("d")
	before, from := d.Counters, t.end()
	for i, want := range []inbound.Effect{inbound.UnknownMessage, inbound.Applied, inbound.Applied, inbound.UnknownMessage} {
		t.returns(inbound.NotSent, inbound.OutOfBandBounce, d, msgs[i].ID)
		if want == inbound.UnknownMessage {
			t.returns(want, inbound.Complaint, d, msgs[i].ID)
			t.returns(want, inbound.Unsubscribe, d, msgs[i].ID)
		}
	}
	t.returns(inbound.UnknownMessage, inbound.OutOfBandBounce, d, mta.MessageID{Handover: d.Handover, Domain: 1, Order: 999})
	t.returns(inbound.UnknownMessage, inbound.OutOfBandBounce, &campaign.Delivery{No: d.No + 1}, msgs[0].ID)
	t.returns(inbound.UnknownMessage, inbound.Complaint, d, mta.MessageID{Handover: 999, Domain: 1, Order: 1})
	if after := t.balanced("d").Counters; !reflect.DeepEqual(after, before) || t.end() != from {
		t.Errorf("counters %+v, were %+v; %d events", after, before, t.end()-from)
	}
	t.returns(inbound.Applied, inbound.Complaint, d, msgs[1].ID)
	t.returns(inbound.Applied, inbound.Complaint, d, msgs[2].ID)
}

func complaint(t *teller) {
	msgs, epoch := t.mail("d", 1)
	t.settle(epoch, success(msgs[0], storyTime))
	d, from := t.balanced("d"), t.end()
	other := func(r *inbound.Return) { r.Confirm, r.Recipients = true, []string{"somebody@b.test"} }
	t.returns(inbound.OtherRecipient, inbound.Complaint, d, msgs[0].ID, other)
	t.returns(inbound.Applied, inbound.Complaint, d, msgs[0].ID)
	t.returns(inbound.Repeated, inbound.Complaint, d, msgs[0].ID)
	d = t.balanced("d")
	if c := d.Counters; c.Complaints != 1 || c.By["provider"].Complaints != 1 || c.Sent != 1 {
		t.Errorf("counters %+v", c)
	}
	events := t.told(from)
	if len(events) != 1 || events[0].GetType() != veredusv1.FeedbackType_FEEDBACK_TYPE_COMPLAINT || events[0].GetMessage() != msgs[0].Name {
		t.Errorf("events %v", events)
	}
	e := t.only("u1@a.test")
	if e.Status != address.Denylisted || e.Origin != address.FromComplaint || e.Evidence[0].Event != events[0].GetId() {
		t.Errorf("entry %+v", e)
	}
	q := marketing("u1@a.test")
	if got := t.excluded(q); got != bounce.ReasonDenylisted {
		t.Errorf("marketing mail after a complaint: %s", got)
	}
	q.Class = address.Everything
	if got := t.excluded(q); got != bounce.ReasonNotDefined {
		t.Errorf("a receipt after a complaint: %s", got)
	}
}

// link is what the unsubscribe link in a message says.
func link(d string, m *mta.Message, list string) address.Unsubscription {
	return address.Unsubscription{
		Address: m.Recipient, Tenant: campaign.DefaultTenant, List: list, Delivery: d, Message: m.ID.String(),
		Time: storyTime.Add(time.Hour), Text: "one-click POST",
	}
}

func (t *teller) unsubscribes(u address.Unsubscription, want bool) {
	t.Helper()
	if got, err := t.Unsubscribe(ctx(), u); err != nil || got != want {
		t.Fatalf("unsubscribe: applied %v (%v), want %v", got, err, want)
	}
}

func unsubscribePurged(t *teller) {
	msgs, epoch := t.mail("d", 2)
	t.settle(epoch, success(msgs[0], storyTime), success(msgs[1], storyTime))
	t.check(t.Delete(ctx(), "d", campaign.Request{}, func(*campaign.Delivery) error { return nil }))
	from := t.end()
	t.unsubscribes(link("d", msgs[0], ""), true)
	t.unsubscribes(link("d", msgs[0], ""), false)
	events := t.told(from)
	if len(events) != 1 || events[0].GetDelivery() != "deliveries/d" || events[0].GetMessage() != "" || events[0].GetRecipient() != "u1@a.test" || events[0].GetTenant() != "default" {
		t.Errorf("events %v", events)
	}
	if e := t.only("u1@a.test"); e.Status != address.Denylisted || e.Evidence[0].Event != events[0].GetId() {
		t.Errorf("entry %+v", e)
	}
	t.create("d") // another delivery of the same id
	t.unsubscribes(link("d", msgs[1], ""), true)
	if last := t.told(from)[1]; last.GetDelivery() != "" || last.GetRecipient() != "u2@a.test" {
		t.Errorf("event %v", last)
	}
	if d := t.balanced("d"); d.Counters.Unsubs != 0 {
		t.Errorf("an unsubscribe counts for another delivery of the same id")
	}
}

func unsubscribeList(t *teller) {
	d := storyDelivery("d")
	d.Spec.ListId = "<News.Example>"
	_, err := t.Create(ctx(), d, campaign.Request{})
	t.check(err)
	t.fill("d", 2, "a.test")
	started := t.start("d")
	epoch := t.recover().Epoch
	msgs := t.load(started.Handover, 1).Fresh
	t.settle(epoch, success(msgs[0], storyTime), success(msgs[1], storyTime))
	t.unsubscribes(link("d", msgs[0], "news.example"), true)
	t.unsubscribes(link("d", msgs[0], "NEWS.example"), false)
	t.returns(inbound.Applied, inbound.Unsubscribe, started, msgs[1].ID)
	t.returns(inbound.Repeated, inbound.Unsubscribe, started, msgs[1].ID)
	c := t.balanced("d").Counters
	if c.Unsubs != 2 || c.By["provider"].Unsubs != 2 || c.Sent != 2 {
		t.Errorf("counters %+v", c)
	}
	for _, folded := range []string{"u1@a.test", "u2@a.test"} {
		q := marketing(folded)
		for list, want := range map[string]bounce.Reason{"news.example": bounce.ReasonDenylisted, "other.example": 0, "": 0} {
			if q.List = list; t.excluded(q) != want {
				t.Errorf("%s, list %q: %s, want %s", folded, list, t.excluded(q), want)
			}
		}
	}
}

func unsubscribeAgain(t *teller) {
	msgs, epoch := t.mail("d", 1)
	t.settle(epoch, success(msgs[0], storyTime))
	u := link("d", msgs[0], "news.example")
	t.unsubscribes(u, true)
	key := t.only("u1@a.test").Key
	_, err := t.ChangeAddressEntries(ctx(), []address.Key{key}, address.Request{}, "let back in", func(address.Entry) address.Entry { return address.Entry{} })
	t.check(err)
	t.none("u1@a.test")
	t.unsubscribes(u, true)
	t.only("u1@a.test")
	if c := t.balanced("d").Counters; c.Unsubs != 1 {
		t.Errorf("%d unsubscribes of one message", c.Unsubs)
	}
}

func linkKeys(t *teller) {
	first, err := t.UnsubscribeKeys(ctx())
	t.check(err)
	again, err := t.UnsubscribeKeys(ctx())
	t.check(err)
	if len(first) != 1 || first[0].ID != 1 || first[0].Secret == [32]byte{} || !slices.Equal(first, again) {
		t.Fatalf("%d keys, then %d", len(first), len(again))
	}
	req := address.Request{ID: "rotate-1", Method: "Rotate"}
	second, err := t.RotateUnsubscribeKey(ctx(), req)
	t.check(err)
	third, err := t.RotateUnsubscribeKey(ctx(), address.Request{})
	t.check(err)
	repeated, err := t.RotateUnsubscribeKey(ctx(), req)
	t.check(err)
	if len(second) != 2 || len(third) != 3 || third[2].ID != 3 || third[0] != first[0] || third[1].Secret == third[2].Secret || !slices.Equal(repeated, second) {
		t.Errorf("%d, %d and, repeated, %d keys", len(second), len(third), len(repeated))
	}
	if _, err := t.RotateUnsubscribeKey(ctx(), address.Request{ID: "rotate-1", Method: "Put"}); !errors.Is(err, address.ErrRequestIDReused) {
		t.Errorf("a request_id used twice: %v", err)
	}
	for i := len(third); ; i++ {
		if _, err := t.RotateUnsubscribeKey(ctx(), address.Request{}); err != nil {
			if i < 1000 || !strings.Contains(err.Error(), "rotate less often") {
				t.Errorf("after %d keys: %v", i, err)
			}
			return
		}
	}
}

func exclusionBeforeDouble(t *teller) {
	t.create("d")
	item := func(index int64, ignore bounce.Reason) campaign.Item {
		return campaign.Item{Index: index, Address: "a@b.test", Folded: "a@b.test", Domain: "b.test", Ignore: int32(ignore)}
	}
	added, err := t.Add(ctx(), "d", []campaign.Item{
		item(1, bounce.ReasonInQuarantine), item(2, bounce.ReasonInQuarantine), item(3, 0), item(4, 0), item(5, bounce.ReasonDenylisted),
	})
	t.check(err)
	d := t.balanced("d")
	if added.Ignored != 4 || d.Counters.Ignored[9] != 2 || d.Counters.Ignored[8] != 1 || d.Counters.Ignored[10] != 1 || d.Counters.Pending != 1 {
		t.Errorf("added %+v, counters %+v", added, d.Counters)
	}
	if k := d.Counters.Kpis(veredusv1.FeedbackMode_FEEDBACK_MODE_EFS, storyTime); k.GetToDeliver() != 1 || k.GetLedger().GetIgnored() != 4 || len(k.GetIgnoredByReason()) != 3 {
		t.Errorf("KPIs %v", k)
	}
}

func excludedSingle(t *teller) {
	from := t.end()
	h, id, err := t.Send(ctx(), campaign.Single{
		Tenant: campaign.DefaultTenant, Content: storyDelivery("x").Spec, Time: storyTime,
		Item: campaign.Item{Address: "a@b.test", Folded: "a@b.test", Domain: "b.test", Ignore: int32(bounce.ReasonInQuarantine)},
	}, campaign.Request{ID: "r1"})
	t.check(err)
	events := t.told(from)
	if len(events) != 1 || events[0].GetType() != veredusv1.FeedbackType_FEEDBACK_TYPE_SUPPRESSED || events[0].GetReason() != veredusv1.FailureReason_FAILURE_REASON_IN_QUARANTINE {
		t.Errorf("events %v", events)
	}
	log, err := t.Message(ctx(), h.DeliveryID, id)
	t.check(err)
	d := t.balanced(h.DeliveryID)
	if log.Truth != campaign.Ignored || log.Reason != 9 || d.Counters.Ignored[9] != 1 || d.Counters.InRelay != 0 {
		t.Errorf("log %+v, counters %+v", log, d.Counters)
	}
	if runs, err := t.Runs(ctx(), h.ID, 0, 10); err != nil || len(runs) != 0 {
		t.Errorf("runs %+v, %v", runs, err)
	}
	r := t.recover()
	made, err := t.Write(ctx(), &mta.Batch{Epoch: r.Epoch, Claims: []mta.Claim{claimOf(&mta.Message{ID: id})}})
	t.check(err)
	if len(made.Gone) != 1 {
		t.Error("an ignored message can be claimed")
	}
	t.returns(inbound.UnknownMessage, inbound.Complaint, d, id)
}

func warning(t *teller) {
	msgs, epoch := t.mail("d", 1)
	t.settle(epoch, success(msgs[0], storyTime))
	before, from := t.balanced("d"), t.end()
	after, err := t.Change(ctx(), "d", campaign.Request{}, func(*campaign.Delivery) ([]campaign.Event, error) {
		return []campaign.Event{{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_WARNING, Text: "half of the hard bounces allowed"}}, nil
	})
	t.check(err)
	events := t.told(from)
	if len(events) != 1 || events[0].GetType() != veredusv1.FeedbackType_FEEDBACK_TYPE_WARNING || events[0].GetText() != "half of the hard bounces allowed" || events[0].GetDelivery() != "deliveries/d" {
		t.Errorf("events %v", events)
	}
	if after.State != campaign.Finished || !reflect.DeepEqual(after.Counters, before.Counters) {
		t.Errorf("a warning made %s of a finished delivery: %+v", after.State, after.Counters)
	}
}

func authRejections(t *teller) {
	msgs, epoch := t.mail("d", 3)
	auth, content := failure(msgs[0], storyTime, bounce.AddressNone), failure(msgs[2], storyTime, bounce.AddressNone)
	auth.Verdict.Hold, content.Verdict.Hold = bounce.HoldAuthentication, bounce.HoldContent
	t.settle(epoch, auth, content, success(msgs[1], storyTime))
	d := t.balanced("d")
	if by := d.Counters.By["provider"]; by.AuthRejections != 1 || by.ContentRejections != 1 || by.Attempts != 3 {
		t.Errorf("counters %+v", by)
	}
	k := d.Counters.Kpis(veredusv1.FeedbackMode_FEEDBACK_MODE_EFS, storyTime).GetByDestination()[0]
	if k.GetAuthRejections() != 1 || k.GetContentRejections() != 1 {
		t.Errorf("KPIs %v", k)
	}
}

func entriesOutlive(t *teller) {
	msgs, epoch := t.mail("d", 1)
	t.settle(epoch, failure(msgs[0], storyTime, bounce.AddressSuppress))
	t.check(t.Delete(ctx(), "d", campaign.Request{}, func(*campaign.Delivery) error { return nil }))
	t.only("u1@a.test")
	t.returns(inbound.UnknownMessage, inbound.OutOfBandBounce, &campaign.Delivery{No: 1}, msgs[0].ID)
	t.check(t.driver.Close())
	s, err := t.driver.Open(func() time.Time { return storyTime })
	t.check(err)
	t.Store = s
	if t.excluded(marketing("u1@a.test")) != bounce.ReasonInQuarantine {
		t.Error("quarantine was forgotten with its delivery")
	}
}

func wholeEntry(t *teller) {
	at := func(n int) time.Time { return storyTime.Add(time.Duration(n) * time.Second) }
	want := address.Entry{
		Key:     address.Key{Folded: "j\u00fcrgen@a.test", Scope: address.Scope{Tenant: "acme", Class: address.Marketing, List: "news.example"}},
		Address: "J\u00fcrgen@a.test", Status: address.Quarantined, Provisional: true, Origin: address.FromOutOfBandBounce, Reason: bounce.ReasonAccountDisabled,
		Code: 10, Tag: "mailbox_disabled", Errors: 7, Comment: "a remark", Created: at(1), Updated: at(2), LastError: at(3),
	}
	for i, c := range []address.Change{
		address.Counted, address.WasQuarantined, address.WasProvisional, address.WasConfirmed, address.WasReleased, address.WasDenylisted,
		address.WasAllowlisted, address.WasCleared, address.WasRequalified, address.WasOverridden, "something new",
	} {
		want.Evidence = append(want.Evidence, address.Evidence{
			Time: at(i), Change: c, Event: fmt.Sprint("e", i), Message: "deliveries/d/messages/m", ReplyCode: 550, Enhanced: "5.2.1", Text: "disabled",
			Phase: "rcpt", Code: 10, Rule: "r1", Destination: "provider", Provider: "google", Effect: bounce.AddressSuppress,
		})
	}
	got, err := t.ChangeAddressEntries(ctx(), []address.Key{want.Key}, address.Request{}, "", func(e address.Entry) address.Entry {
		if e.Status != 0 || e.Key != want.Key {
			t.Errorf("given %+v", e)
		}
		return want
	})
	t.check(err)
	if read := t.only(want.Folded); !reflect.DeepEqual(read, want) || !reflect.DeepEqual(got, []address.Entry{want}) {
		t.Errorf("entry:\n got %+v\nwant %+v", read, want)
	}
}

func filteredEntries(t *teller) {
	key := func(folded, tenant, list string) address.Key {
		return address.Key{Folded: folded, Scope: address.Scope{Tenant: tenant, Class: address.Marketing, List: list}}
	}
	t.put(address.Entry{Key: key("a@a.test", "", ""), Status: address.Denylisted, Origin: address.FromOperator})
	t.put(address.Entry{Key: key("b@a.test", "acme", "news.example"), Status: address.Denylisted, Origin: address.FromUnsubscribe})
	t.put(address.Entry{Key: key("c@b.test", "acme", ""), Status: address.Quarantined, Provisional: true, Reason: bounce.ReasonUserUnknown, Evidence: []address.Evidence{
		{Text: "No Such USER"}, {Text: "an older text"},
	}})
	t.put(address.Entry{Key: key("d@xa.test", "acme", ""), Status: address.Counting, Errors: 1, LastError: storyTime})
	all, acme := "", "acme"
	for _, tc := range []struct {
		filter address.Filter
		want   string
	}{
		{address.Filter{}, "a b c d"},
		{address.Filter{Status: address.Denylisted}, "a b"},
		{address.Filter{Tenant: &all}, "a"},
		{address.Filter{Tenant: &acme}, "b c d"},
		{address.Filter{List: "news.example"}, "b"},
		{address.Filter{Domain: "a.test"}, "a b"},
		{address.Filter{Domain: "a"}, ""},
		{address.Filter{Start: storyTime}, "a b c d"},
		{address.Filter{Start: storyTime.Add(1)}, ""},
		{address.Filter{End: storyTime}, ""},
		{address.Filter{End: storyTime.Add(1)}, "a b c d"},
		{address.Filter{Text: "such user"}, "c"},
		{address.Filter{Text: "older"}, ""},
		{address.Filter{Reason: bounce.ReasonUserUnknown}, "c"},
		{address.Filter{Provisional: true}, "c"},
		{address.Filter{Origin: address.FromUnsubscribe}, "b"},
		{address.Filter{Domain: "a.test", Origin: address.FromUnsubscribe}, "b"},
	} {
		page, next, err := t.ListAddressEntries(ctx(), tc.filter, nil, 100)
		t.check(err)
		var got []string
		for _, e := range page {
			got = append(got, e.Folded[:1])
		}
		slices.Sort(got)
		if strings.Join(got, " ") != tc.want || next != nil {
			t.Errorf("%+v: got %v, want %s", tc.filter, got, tc.want)
		}
	}
}

func badKeys(t *teller) {
	good := address.Key{Folded: "a@b.test", Scope: address.Scope{Tenant: "acme", Class: address.Everything}}
	same := func(e address.Entry) address.Entry { return e }
	for problem, spoil := range map[string]func(*address.Key){
		"local@domain":     func(k *address.Key) { k.Folded = "nobody" },
		"zero octet":       func(k *address.Key) { k.Scope.Tenant = "a\x00b" },
		"class 0":          func(k *address.Key) { k.Scope.Class = 0 },
		"without a tenant": func(k *address.Key) { k.Scope.Tenant, k.Scope.List = "", "news.example" },
	} {
		k := good
		spoil(&k)
		if _, err := t.ChangeAddressEntries(ctx(), []address.Key{good, k}, address.Request{}, "", same); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%+v: got %v, want %q", k, err, problem)
		}
	}
	many := make([]address.Key, address.MaxWrite+1)
	if _, err := t.ChangeAddressEntries(ctx(), many, address.Request{}, "", same); err == nil {
		t.Error("more than MaxWrite keys in one write")
	}
}

func replayedChange(t *teller) {
	key := address.Key{Folded: "a@b.test", Scope: address.Scope{Class: address.Everything}}
	req := address.Request{ID: "r1", Method: "Put", Body: [32]byte{1}, Answer: "denied"}
	from := t.end()
	for range 2 {
		got, err := t.ChangeAddressEntries(ctx(), []address.Key{key}, req, "denied by hand", func(e address.Entry) address.Entry {
			e.Address, e.Status, e.Errors = e.Folded, address.Denylisted, e.Errors+1
			return e
		})
		t.check(err)
		if len(got) != 1 || got[0].Errors != 1 || got[0].Key != key {
			t.Errorf("answer %+v", got)
		}
	}
	answer, found, err := t.Replay(ctx(), campaign.Request{ID: req.ID, Method: req.Method, Body: req.Body})
	t.check(err)
	if events := t.told(from); !found || string(answer) != "denied" || len(events) != 1 || events[0].GetCount() != 1 || events[0].GetText() != "denied by hand" {
		t.Errorf("answer %q, events %v", answer, events)
	}
	other := req
	other.Body = [32]byte{2}
	if _, err := t.ChangeAddressEntries(ctx(), nil, other, "", nil); !errors.Is(err, address.ErrRequestIDReused) {
		t.Errorf("another body: %v", err)
	}
	empty := address.Request{ID: "r2", Method: "Release", Answer: "released 7"}
	if _, err := t.ChangeAddressEntries(ctx(), nil, empty, "", nil); err != nil {
		t.Errorf("an answer alone: %v", err)
	}
	if answer, found, err := t.Replay(ctx(), campaign.Request{ID: "r2", Method: "Release"}); err != nil || !found || string(answer) != "released 7" {
		t.Errorf("answer %q, %v", answer, err)
	}
}

func textProviders(t *teller) {
	id := learning.ID{1}
	for i := range 15 {
		t.check(t.AddReplyTexts(ctx(), []learning.Text{{
			ID: id, Normalised: "no", Count: 2, Providers: map[string]int64{fmt.Sprintf("p%02d", i): 2}, FirstTime: storyTime, LastTime: storyTime,
		}}))
	}
	got, err := t.ReplyText(ctx(), id)
	t.check(err)
	if got.Count != 30 || len(got.Providers) != 11 || got.Providers["other"] != 10 || got.Providers["p09"] != 2 {
		t.Errorf("text %+v", got)
	}
	t.check(t.DeleteReplyTexts(ctx(), []learning.ID{id, {2}}))
	if _, err := t.ReplyText(ctx(), id); !errors.Is(err, learning.ErrNotFound) {
		t.Errorf("a deleted text: %v", err)
	}
	if _, err := t.SetReplyTextStatus(ctx(), id, learning.Keep); !errors.Is(err, learning.ErrNotFound) {
		t.Errorf("a word on a deleted text: %v", err)
	}
}
