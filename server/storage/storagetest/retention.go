package storagetest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/inbound"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
)

// What goes when it was kept long enough.

// purge removes events, ended deliveries' messages or single messages. In the middle of a
// power cut only what is one write.
func (e *engine) purge() error {
	switch e.rng.IntN(3) {
	case 0:
		return e.trimEvents()
	case 1:
		return e.purgeEnded()
	}
	return e.purgeSingles()
}

func (e *engine) trimEvents() error {
	n, err := e.store.TrimEvents(ctx(), e.m.now.Add(time.Hour), 0)
	if err == nil && n != int64(len(e.m.events)-e.m.trimmed) {
		err = fmt.Errorf("trimmed %d events, want %d", n, len(e.m.events)-e.m.trimmed)
	}
	e.m.trimmed = len(e.m.events)
	return err
}

func (e *engine) purgeEnded() error {
	var ended []*delivery
	for _, d := range e.m.deliveries {
		if d.state.Final() && !d.purged && d.counters().InRelay == 0 {
			ended = append(ended, d)
		}
	}
	if e.cutting && len(ended) > 1 {
		return nil
	}
	for _, d := range ended {
		d.purged = true
		for _, m := range d.messages {
			m.purged = true
		}
	}
	e.last = nil
	n, err := e.store.PurgeEnded(ctx(), e.m.now.Add(time.Hour))
	if err == nil && n != int64(len(ended)) {
		err = fmt.Errorf("purged %d deliveries, want %d", n, len(ended))
	}
	return err
}

func (e *engine) purgeSingles() error {
	before := e.m.now.Add(-time.Duration(e.rng.IntN(60)) * time.Minute)
	var old []*message
	deliveries := map[*delivery]bool{}
	for _, d := range e.m.deliveries {
		for _, m := range d.messages {
			if d.transactional && m.arrival.Before(before) && m.final() && !m.purged {
				old, deliveries[d] = append(old, m), true
			}
		}
	}
	if e.cutting && len(deliveries) > 1 {
		return nil
	}
	for _, m := range old {
		m.purged = true
	}
	e.last = nil // the relay does not settle again what ended weeks ago
	n, err := e.store.PurgeSingles(ctx(), before)
	if err == nil && n != int64(len(old)) {
		err = fmt.Errorf("purged %d single messages, want %d", n, len(old))
	}
	return err
}

// kept are a delivery's messages that were not purged.
func (d *delivery) kept() []*message {
	return slices.DeleteFunc(slices.Clone(d.messages), func(m *message) bool { return m.purged })
}

var retentionStories = []story{
	{"events go by age, and their readers are told", eventsGoByAge},
	{"events go by size", eventsGoBySize},
	{"a delivery is purged when it ended long enough ago", deliveriesArePurged},
	{"mail that comes back about a purged message finds nothing", returnsFindNothing},
	{"single messages go by their arrival, and what waits stays", singlesGo},
	{"contents of single messages go with the last that used them", contentsGo},
}

// sent makes a delivery whose n messages were all delivered at a time.
func (t *teller) sent(id string, n int, at time.Time) (*campaign.Delivery, []mta.MessageID) {
	t.Helper()
	t.create(id)
	t.fill(id, n, "a.test", "b.test")
	d := t.start(id)
	epoch := t.recover().Epoch
	var ids []mta.MessageID
	var b mta.Batch
	for domain := uint32(1); domain <= 2; domain++ {
		for _, m := range t.load(d.Handover, domain).Fresh {
			b.Claims = append(b.Claims, claimOf(m))
			s := success(m, at)
			s.Outcome = mta.Delivered
			b.Settles = append(b.Settles, s)
			ids = append(ids, m.ID)
		}
	}
	t.write(mta.Batch{Epoch: epoch, Claims: b.Claims})
	t.write(mta.Batch{Epoch: epoch, Settles: b.Settles})
	return d, ids
}

func eventsGoByAge(t *teller) {
	t.sent("old", 4, storyTime)
	_, middle := t.Ends()
	t.sent("new", 4, storyTime.Add(48*time.Hour))
	_, end := t.Ends()
	if n, err := t.TrimEvents(ctx(), storyTime.Add(-time.Hour), 0); err != nil || n != 0 {
		t.Fatalf("nothing is so old: %d, %v", n, err)
	}
	// The start of "new" is an event of storyTime, too.
	n, err := t.TrimEvents(ctx(), storyTime.Add(time.Hour), 0)
	t.check(err)
	oldest, after := t.Ends()
	if uint64(n) != oldest[0] || oldest[0] != middle[0]+1 || after[0] != end[0] {
		t.Fatalf("trimmed %d, kept from %d to %d; the old end at %d", n, oldest[0], after[0], middle[0])
	}
	if _, _, err := t.Read(ctx(), feedback.Positions{0}, 1); !errors.Is(err, feedback.ErrBeforeRetention) {
		t.Errorf("reading what is gone: %v", err)
	}
	events, next, err := t.Read(ctx(), oldest, 100)
	if err != nil || next[0] != end[0] || len(events) != int(end[0]-oldest[0]) || events[0].GetDelivery() != "deliveries/new" {
		t.Errorf("kept: %d events, next %v, %v", len(events), next, err)
	}
	if d := t.balanced("old"); d.Counters.Sent != 4 {
		t.Errorf("counters changed: %+v", d.Counters)
	}
	// All may go; the log goes on where it was.
	_, err = t.TrimEvents(ctx(), storyTime.Add(1000*time.Hour), 0)
	t.check(err)
	if oldest, after := t.Ends(); oldest[0] != end[0] || after[0] != end[0] {
		t.Errorf("an empty log reaches from %v to %v, want %v", oldest, after, end)
	}
	t.reopen()
	if oldest, after := t.Ends(); oldest[0] != end[0] || after[0] != end[0] {
		t.Errorf("reopened it reaches from %v to %v, want %v", oldest, after, end)
	}
}

// reopen closes the store and opens it again.
func (t *teller) reopen() {
	t.Helper()
	t.check(t.driver.Close())
	s, err := t.driver.Open(func() time.Time { return storyTime })
	t.check(err)
	t.Store = s
}

func eventsGoBySize(t *teller) {
	for i := range 20 {
		t.sent(fmt.Sprint("d", i), 20, storyTime)
	}
	_, end := t.Ends()
	if n, err := t.TrimEvents(ctx(), time.Time{}, 1<<30); err != nil || n != 0 {
		t.Fatalf("trimmed %d of a small log, %v", n, err)
	}
	n, err := t.TrimEvents(ctx(), time.Time{}, 1)
	t.check(err)
	if oldest, after := t.Ends(); n == 0 || uint64(n) != oldest[0] || after[0] != end[0] {
		t.Errorf("trimmed %d, kept from %v to %v", n, oldest, after)
	}
}

func deliveriesArePurged(t *teller) {
	t.sent("old", 6, storyTime)
	_, later := t.sent("new", 6, storyTime.Add(48*time.Hour))
	t.create("draft")
	t.fill("draft", 2, "a.test")
	t.create("cancelled")
	t.fill("cancelled", 2, "a.test")
	_, err := t.Change(ctx(), "cancelled", campaign.Request{}, func(d *campaign.Delivery) ([]campaign.Event, error) {
		d.State, d.Updated = campaign.Cancelled, storyTime
		return []campaign.Event{{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_CANCELLED}}, nil
	})
	t.check(err)
	if n, err := t.PurgeEnded(ctx(), storyTime); err != nil || n != 0 {
		t.Fatalf("at its end: purged %d, %v", n, err)
	}
	for _, want := range []int64{2, 0} { // old and cancelled, once
		if n, err := t.PurgeEnded(ctx(), storyTime.Add(time.Hour)); err != nil || n != want {
			t.Fatalf("purged %d, want %d: %v", n, want, err)
		}
	}
	d := t.balanced("old")
	if d.State != campaign.Finished || d.Counters.Sent != 6 || len(d.Counters.By) == 0 || d.Spec.GetContent() != nil || d.Spec.GetLabel() != storyDelivery("old").Spec.GetLabel() {
		t.Errorf("what is left: %+v", d)
	}
	for id, want := range map[string]int{"old": 0, "cancelled": 0, "new": 6, "draft": 2} {
		page, _, err := t.Messages(ctx(), id, nil, 100, nil)
		if err != nil || len(page) != want {
			t.Errorf("%s has %d messages, %v", id, len(page), err)
		}
		rows, err := t.Sample(ctx(), id, 100)
		if err != nil || len(rows) != want {
			t.Errorf("%s has a sample of %d, %v", id, len(rows), err)
		}
	}
	if _, err := t.Message(ctx(), "new", later[0]); err != nil {
		t.Error(err)
	}
	if _, err := t.Message(ctx(), "old", mta.MessageID{Handover: d.Handover, Domain: 1, Lane: later[0].Lane, Order: 2}); !errors.Is(err, campaign.ErrNotFound) {
		t.Errorf("a message that is gone: %v", err)
	}
	t.check(t.Delete(ctx(), "old", campaign.Request{}, func(*campaign.Delivery) error { return nil }))
	if _, err := t.Get(ctx(), "old"); !errors.Is(err, campaign.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
}

func returnsFindNothing(t *teller) {
	d, ids := t.sent("old", 2, storyTime)
	_, err := t.PurgeEnded(ctx(), storyTime.Add(time.Hour))
	t.check(err)
	for _, kind := range []inbound.ReturnKind{inbound.OutOfBandBounce, inbound.Complaint, inbound.Unsubscribe} {
		t.returns(inbound.UnknownMessage, kind, d, ids[0])
	}
	// The link in it still works; its event names the delivery, no message.
	u := address.Unsubscription{Address: "user2@a.test", Delivery: "old", Message: ids[0].String(), Time: storyTime}
	from := t.end()
	t.unsubscribes(u, true)
	if told := t.told(from); len(told) != 1 || told[0].GetMessage() != "" || told[0].GetDelivery() != "deliveries/old" {
		t.Errorf("told %v", told)
	}
	t.balanced("old")
}

// single sends a single message that arrives at a time.
func (t *teller) single(name string, at time.Time, text string) (*mta.Handover, mta.MessageID) {
	t.Helper()
	h, id, err := t.Send(ctx(), campaign.Single{
		Tenant: "default", Time: at, Validity: time.Hour,
		Item: campaign.Item{Index: 1, Address: name + "@a.test", Folded: name + "@a.test", Domain: "a.test", RecipientID: name},
		Content: &veredusv1.Delivery{
			Tenant: "default", Sender: &veredusv1.Sender{From: "shop@one.example"},
			Content: &veredusv1.Content{Subject: "Receipt", Text: text},
		},
	}, campaign.Request{})
	t.check(err)
	return h, id
}

func singlesGo(t *teller) {
	epoch := t.recover().Epoch
	h, _ := t.single("sent", storyTime, "Thank you")
	t.single("waits", storyTime, "Thank you")
	t.single("young", storyTime.Add(24*time.Hour), "Thank you")
	for _, m := range t.load(h.ID, 1).Fresh {
		if m.Recipient != "waits@a.test" {
			t.write(mta.Batch{Epoch: epoch, Claims: []mta.Claim{claimOf(m)}})
			t.write(mta.Batch{Epoch: epoch, Settles: []mta.Settlement{success(m, storyTime)}})
		}
	}
	n, err := t.PurgeSingles(ctx(), storyTime.Add(time.Hour))
	if err != nil || n != 1 {
		t.Fatalf("purged %d, %v", n, err)
	}
	var left []string
	page, _, err := t.Messages(ctx(), h.DeliveryID, nil, 100, nil)
	t.check(err)
	for _, e := range page {
		left = append(left, e.RecipientID)
	}
	slices.Sort(left)
	if !slices.Equal(left, []string{"waits", "young"}) {
		t.Errorf("left are %q", left)
	}
	for _, by := range []campaign.Lookup{{Folded: "sent@a.test"}, {RecipientID: "sent"}} {
		if page, _, err := t.Find(ctx(), by, nil, 10, nil); err != nil || len(page) != 0 {
			t.Errorf("found %v, %v", page, err)
		}
	}
	if c := t.balanced(h.DeliveryID).Counters; c.Sent != 2 || c.InRelay != 1 {
		t.Errorf("counters %+v", c)
	}
	if fresh := t.load(h.ID, 1).Fresh; len(fresh) != 1 || fresh[0].Recipient != "waits@a.test" {
		t.Errorf("what waits: %v", fresh)
	}
}

func contentsGo(t *teller) {
	t.recover()
	h, _ := t.single("a", storyTime, "Thank you")
	m := t.load(h.ID, 1).Fresh[0]
	_, err := t.PurgeSingles(ctx(), storyTime)
	t.check(err)
	if _, err := t.Content(ctx(), m.Content); err != nil {
		t.Fatalf("a content in use: %v", err)
	}
	_, err = t.PurgeSingles(ctx(), storyTime.Add(48*time.Hour))
	t.check(err)
	if _, err := t.Content(ctx(), m.Content); !errors.Is(err, campaign.ErrNotFound) {
		t.Errorf("a content that was used last two days before: %v", err)
	}
	// The same words again are a new content, not the one that is gone.
	_, id := t.single("b", storyTime, "Thank you")
	for _, m := range t.load(h.ID, 1).Fresh {
		if m.ID != id {
			continue
		}
		if _, err := t.Content(ctx(), m.Content); err != nil {
			t.Errorf("content of a new message: %v", err)
		}
	}
}
