package storagetest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/mxrules"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
	"github.com/veredus/veredus/server/operator"
	"github.com/veredus/veredus/server/suspend"
)

// story is a promise that random operations do not reach.
type story struct {
	name string
	tell func(*teller)
}

var stories = []story{
	{"a stale epoch writes nothing", staleEpoch},
	{"a repeated request answers as the first time", repeatedRequests},
	{"a change of content gets a new content id, and only that", contentIDs},
	{"what is recovered", recovery},
	{"a mark moves where loading begins", marks},
	{"the feedback log wakes its readers", wakesReaders},
	{"watchers wake when a delivery changes", wakesWatchers},
	{"a sample spreads over domains and order", sampleSpreads},
	{"a row of the log keeps the last 100 attempts", manyAttempts},
	{"a start with nothing to deliver finishes at once", emptyStart},
	{"every field of a recipient comes back", wholeRecipient},
	{"a state survives the log unchanged", wholeState},
}

// teller tells a story on an open store.
type teller struct {
	*testing.T
	Store
	driver Driver
}

var storyTime = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

func (t *teller) check(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (t *teller) create(id string) *campaign.Delivery {
	t.Helper()
	d, err := t.Create(ctx(), storyDelivery(id), campaign.Request{})
	t.check(err)
	return d
}

func storyDelivery(id string) *campaign.Delivery {
	return &campaign.Delivery{ID: id, Spec: &veredusv1.Delivery{
		Sender:  &veredusv1.Sender{From: "news@example.com", DisplayName: "News"},
		Content: &veredusv1.Content{Subject: "Hello", Text: "Hello {{name}}"},
	}}
}

// fill gives the delivery n recipients over some domains.
func (t *teller) fill(id string, n int, domains ...string) {
	t.Helper()
	var items []campaign.Item
	for i := range n {
		domain := domains[i%len(domains)]
		address := fmt.Sprintf("u%d@%s", i+1, domain)
		items = append(items, campaign.Item{Index: int64(i + 1), Address: address, Folded: address, Domain: domain})
	}
	_, err := t.Add(ctx(), id, items)
	t.check(err)
}

func (t *teller) start(id string) *campaign.Delivery {
	t.Helper()
	d, err := t.Change(ctx(), id, campaign.Request{}, func(d *campaign.Delivery) ([]campaign.Event, error) {
		d.State, d.Started, d.Expires = campaign.Running, storyTime, storyTime.Add(84*time.Hour)
		return []campaign.Event{{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_STARTED}}, nil
	})
	t.check(err)
	return d
}

func (t *teller) recover() *mta.Recovery {
	t.Helper()
	r, err := t.Recover(ctx(), storyTime)
	t.check(err)
	return r
}

func (t *teller) load(handover uint64, domain uint32) mta.LoadResult {
	t.Helper()
	res, err := t.Load(ctx(), mta.LoadRequest{Handover: handover, Domain: domain, Fresh: 100, Due: 100, Now: storyTime.Add(time.Hour)})
	t.check(err)
	return res
}

func (t *teller) write(b mta.Batch) mta.Written {
	t.Helper()
	w, err := t.Write(ctx(), &b)
	t.check(err)
	return w
}

func claimOf(m *mta.Message) mta.Claim {
	return mta.Claim{Message: m, Time: storyTime, MessageID: m.ID.String() + "@example.com"}
}

// deferred is a temporary failure of a message, due again at a time.
func deferred(m *mta.Message, due time.Time) mta.Settlement {
	n := *m
	n.State.Attempts++
	return mta.Settlement{
		Message: &n, Outcome: mta.Deferred, Time: storyTime, Next: due, Destination: m.Domain,
		Attempt: &mta.Attempt{Number: n.State.Attempts, Time: storyTime, Reply: smtpc.Reply{Phase: smtpc.PhaseRCPT, Code: 450}},
	}
}

func staleEpoch(t *teller) {
	t.create("d")
	t.fill("d", 2, "a.test")
	d := t.start("d")
	first := t.recover().Epoch
	m := t.load(d.Handover, 1).Fresh[0]
	second := t.recover().Epoch
	_, end := t.Ends()
	_, err := t.Write(ctx(), &mta.Batch{
		Epoch: first, Claims: []mta.Claim{claimOf(m)},
		Usage: map[string]mxrules.Usage{"s>a": {Hour: 1}}, WarmUps: map[string]mxrules.WarmUpState{"s": {Stage: 1}},
		Events: []mta.RelayEvent{{Kind: mta.PathSuspendedEvent, Time: storyTime}},
	})
	if !errors.Is(err, mta.ErrFenced) {
		t.Fatalf("got %v, want ErrFenced", err)
	}
	if _, now := t.Ends(); now[0] != end[0] {
		t.Errorf("a fenced write left %d events", now[0]-end[0])
	}
	got, err := t.Get(ctx(), "d")
	t.check(err)
	if got.Counters.Claimed != 0 {
		t.Errorf("a fenced claim counts")
	}
	r := t.recover()
	if len(t.usage(r, "a")) != 0 || len(r.WarmUps) != 0 || len(r.Lost) != 0 || r.Epoch != second+1 {
		t.Errorf("behind a fenced write: %+v", r)
	}
}

// usage is what is kept of the paths to a destination.
func (t *teller) usage(r *mta.Recovery, destination string) map[string]mxrules.Usage {
	kept, err := r.Usage(ctx(), destination)
	t.check(err)
	return kept
}

func repeatedRequests(t *teller) {
	req := campaign.Request{ID: "r1", Method: "CreateDelivery", Body: [32]byte{1}, Answer: func(d *campaign.Delivery) []byte { return []byte("made " + d.ID) }}
	_, err := t.Create(ctx(), storyDelivery("d"), req)
	t.check(err)
	again, err := t.Create(ctx(), storyDelivery("d"), req)
	t.check(err)
	if again.ID != "d" {
		t.Errorf("repeated create: got %q", again.ID)
	}
	answer, found, err := t.Replay(ctx(), req)
	t.check(err)
	if !found || string(answer) != "made d" {
		t.Errorf("replay: got %q, %v", answer, found)
	}
	other := req
	other.Body = [32]byte{2}
	if _, err := t.Create(ctx(), storyDelivery("e"), other); !errors.Is(err, campaign.ErrRequestIDReused) {
		t.Errorf("another body: got %v", err)
	}
	other = req
	other.Method = "UpdateDelivery"
	if _, _, err := t.Replay(ctx(), other); !errors.Is(err, campaign.ErrRequestIDReused) {
		t.Errorf("another method: got %v", err)
	}
	if _, err := t.Create(ctx(), storyDelivery("d"), campaign.Request{}); !errors.Is(err, campaign.ErrExists) {
		t.Errorf("taken id: got %v", err)
	}
	t.repeatedChange()
	t.repeatedSuspension()
}

func (t *teller) repeatedChange() {
	calls := 0
	change := func(d *campaign.Delivery) ([]campaign.Event, error) {
		calls++
		d.Spec.Label = fmt.Sprintf("label %d", calls)
		return nil, nil
	}
	req := campaign.Request{ID: "r2", Method: "UpdateDelivery"}
	for range 2 {
		d, err := t.Change(ctx(), "d", req, change)
		t.check(err)
		if d.Spec.GetLabel() != "label 1" || calls != 1 {
			t.Errorf("repeated change: label %q after %d calls", d.Spec.GetLabel(), calls)
		}
	}
	refused := errors.New("refused")
	failing := campaign.Request{ID: "r3", Method: "UpdateDelivery"}
	if _, err := t.Change(ctx(), "d", failing, func(*campaign.Delivery) ([]campaign.Event, error) { return nil, refused }); !errors.Is(err, refused) {
		t.Errorf("refused change: got %v", err)
	}
	if _, found, err := t.Replay(ctx(), failing); found || err != nil {
		t.Errorf("a refused change was remembered: %v, %v", found, err)
	}
}

func (t *teller) repeatedSuspension() {
	s := suspend.Suspension{ID: "s1", Selector: suspend.Selector{Kind: suspend.Everything}, Reason: "test", Created: storyTime}
	put := suspend.Request{ID: "r4", Method: "Suspend"}
	record := func(what string) suspend.Record {
		return func(n suspend.Suspension) operator.Event {
			return operator.Event{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_SUSPENDED, Time: storyTime, Text: what + " " + n.ID, By: "someone"}
		}
	}
	from := t.end()
	_, err := t.PutSuspension(ctx(), s, record("put"), put)
	t.check(err)
	end := suspend.Request{ID: "r5", Method: "Resume"}
	for range 2 {
		got, err := t.DeleteSuspension(ctx(), "s1", record("end"), end)
		t.check(err)
		if got != s {
			t.Errorf("repeated resume: got %+v", got)
		}
	}
	if got, err := t.PutSuspension(ctx(), s, record("again"), put); err != nil || got != s {
		t.Errorf("repeated suspend: got %+v, %v", got, err)
	}
	if list, err := t.ListSuspensions(ctx()); err != nil || len(list) != 0 {
		t.Errorf("a repeated suspend had an effect: %v, %v", list, err)
	}
	if _, err := t.DeleteSuspension(ctx(), "s1", record("nothing"), suspend.Request{}); !errors.Is(err, suspend.ErrNotFound) {
		t.Errorf("no such suspension: got %v", err)
	}
	var told []string
	for _, e := range t.told(from) {
		told = append(told, e.GetText()+" by "+e.GetPrincipal())
	}
	if want := []string{"put s1 by someone", "end s1 by someone"}; !slices.Equal(told, want) {
		t.Errorf("events of suspensions: %q, want %q", told, want)
	}
}

func contentIDs(t *teller) {
	d := t.create("d")
	src, err := t.Content(ctx(), d.Content)
	t.check(err)
	if src.Subject != "Hello" || src.From.Address != "news@example.com" || src.From.Name != "News" {
		t.Errorf("content: %+v", src)
	}
	same, err := t.Change(ctx(), "d", campaign.Request{}, func(d *campaign.Delivery) ([]campaign.Event, error) {
		d.Spec.Priority = 7
		return nil, nil
	})
	t.check(err)
	if same.Content != d.Content || same.Spec.GetPriority() != 7 || same.Spec.GetContent().GetSubject() != "Hello" {
		t.Errorf("a change of priority: content %d, was %d; spec %v", same.Content, d.Content, same.Spec)
	}
	other, err := t.Change(ctx(), "d", campaign.Request{}, func(d *campaign.Delivery) ([]campaign.Event, error) {
		d.Spec.Content.Subject = "Bye"
		return nil, nil
	})
	t.check(err)
	if src, err = t.Content(ctx(), other.Content); err != nil || src.Subject != "Bye" || other.Content == d.Content {
		t.Errorf("a change of subject: content %d, was %d: %+v, %v", other.Content, d.Content, src, err)
	}
}

func recovery(t *teller) {
	t.create("running")
	t.fill("running", 3, "a.test")
	t.create("draft")
	d := t.start("running")
	first := t.recover()
	msgs := t.load(d.Handover, 1).Fresh
	usage := map[string]mxrules.Usage{"s1>a.test": {Hour: 5, HourBulk: 6, Day: 7}, "*>a.test/vip.test": {Day: 8}}
	t.write(mta.Batch{Epoch: first.Epoch, Usage: map[string]mxrules.Usage{"s1>a.test.other": {Day: 9}}})
	warm := mxrules.WarmUpState{Address: "192.0.2.1", Stage: 3, Day: 20_000, Sent: 4, Pending: 2, Providers: []mxrules.ProviderSent{{Provider: "google", Sent: 1}}}
	t.write(mta.Batch{
		Epoch: first.Epoch, Claims: []mta.Claim{claimOf(msgs[0]), claimOf(msgs[1])}, Usage: usage,
		WarmUps: map[string]mxrules.WarmUpState{"s1": warm},
	})
	t.write(mta.Batch{Epoch: first.Epoch, Releases: []mta.MessageID{msgs[1].ID}})
	r := t.recover()
	if len(r.Handovers) != 1 || r.Handovers[0].DeliveryID != "running" || r.Handovers[0].Expires != d.Expires {
		t.Errorf("hand-overs: %+v", r.Handovers)
	}
	if len(r.Lost) != 1 || r.Lost[0].ID != msgs[0].ID || r.Lost[0].Claims != 1 {
		t.Errorf("lost: %+v", r.Lost)
	}
	if kept := t.usage(r, "a.test"); !reflect.DeepEqual(kept, usage) {
		t.Errorf("usage: %+v", kept)
	}
	if !reflect.DeepEqual(r.WarmUps["s1"], warm) {
		t.Errorf("warm-up: %+v", r.WarmUps)
	}
	res := t.load(d.Handover, 1)
	if len(res.Due) != 1 || res.Due[0].State.LostClaims != 1 || !res.Due[0].State.FirstClaim.Equal(storyTime) || len(res.Fresh) != 2 {
		t.Errorf("after the loss: %d fresh, due %+v", len(res.Fresh), res.Due)
	}
}

func marks(t *teller) {
	t.create("d")
	t.fill("d", 5, "a.test")
	d := t.start("d")
	epoch := t.recover().Epoch
	t.write(mta.Batch{Epoch: epoch, Marks: []mta.Mark{{Handover: d.Handover, Domain: 1, Mark: mta.Position{Order: 3}}}})
	t.write(mta.Batch{Epoch: epoch, Marks: []mta.Mark{{Handover: d.Handover, Domain: 1, Mark: mta.Position{Order: 2}}}})
	runs, err := t.Runs(ctx(), d.Handover, 0, 10)
	t.check(err)
	if runs[0].Mark != (mta.Position{Order: 3}) {
		t.Errorf("mark %+v, want order 3: it never moves back", runs[0].Mark)
	}
	if res := t.load(d.Handover, 1); len(res.Fresh) != 3 || res.Fresh[0].ID.Order != 3 {
		t.Errorf("load begins at %+v", res.Fresh[0].ID)
	}
}

func wakesReaders(t *teller) {
	epoch := t.recover().Epoch
	_, end := t.Ends()
	grown := t.Grown(end)
	select {
	case <-grown:
		t.Fatal("grown before anything happened")
	default:
	}
	t.write(mta.Batch{Epoch: epoch, Events: []mta.RelayEvent{{Kind: mta.PathSuspendedEvent, Time: storyTime, Source: "s1", Destination: "a.test", Text: "rests", Until: storyTime.Add(time.Hour)}}})
	<-grown
	<-t.Grown(end)
	events, next, err := t.Read(ctx(), end, 10)
	t.check(err)
	if len(events) != 1 || events[0].GetSource() != "s1" || events[0].GetText() != "rests" || next[0] != end[0]+1 {
		t.Errorf("got %v, next %v", events, next)
	}
	if _, _, err := t.Read(ctx(), feedback.Positions{next[0] + 1}, 1); !errors.Is(err, feedback.ErrPastEnd) {
		t.Errorf("past the end: got %v", err)
	}
}

func wakesWatchers(t *teller) {
	t.create("d")
	changed, other := t.Changed("d"), t.Changed("e")
	t.fill("d", 1, "a.test")
	<-changed
	select {
	case <-other:
		t.Error("a watcher of another delivery woke")
	default:
	}
	select {
	case <-t.Changed("d"):
		t.Error("a new watch woke without a change")
	default:
	}
}

func sampleSpreads(t *teller) {
	t.create("d")
	t.fill("d", 300, "a.test", "b.test", "c.test")
	sample, err := t.Sample(ctx(), "d", 30)
	t.check(err)
	byDomain, late := map[string]int{}, 0
	for _, s := range sample {
		byDomain[s.Address[len(s.Address)-6:]]++
		if s.Index > 150 {
			late++
		}
	}
	if len(sample) != 30 || len(byDomain) != 3 || late < 8 || late > 22 {
		t.Errorf("%d sampled, by domain %v, %d of the later half", len(sample), byDomain, late)
	}
	all, err := t.Sample(ctx(), "d", 1000)
	t.check(err)
	var got []int64
	for _, s := range all {
		got = append(got, s.Index)
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != 300 {
		t.Errorf("a sample of all has %d", len(got))
	}
}

func manyAttempts(t *teller) {
	t.create("d")
	t.fill("d", 1, "a.test")
	d := t.start("d")
	epoch := t.recover().Epoch
	m := t.load(d.Handover, 1).Fresh[0]
	for range 120 {
		t.write(mta.Batch{Epoch: epoch, Claims: []mta.Claim{claimOf(m)}})
		t.write(mta.Batch{Epoch: epoch, Settles: []mta.Settlement{deferred(m, storyTime)}})
		m = t.load(d.Handover, 1).Due[0]
	}
	e, err := t.Message(ctx(), "d", m.ID)
	t.check(err)
	if len(e.Attempts) != 100 || e.Attempts[0].GetNumber() != 21 || e.AttemptCount != 120 {
		t.Errorf("%d attempts kept from number %d of %d", len(e.Attempts), e.Attempts[0].GetNumber(), e.AttemptCount)
	}
}

func emptyStart(t *teller) {
	t.create("d")
	_, err := t.Add(ctx(), "d", []campaign.Item{{Index: 1, Address: "a@b.test", Folded: "a@b.test", Domain: "b.test", Ignore: 9}})
	t.check(err)
	if d := t.start("d"); d.State != campaign.Finished {
		t.Errorf("state %s", d.State)
	}
	if r := t.recover(); len(r.Handovers) != 0 {
		t.Errorf("hand-overs %+v", r.Handovers)
	}
}

func wholeRecipient(t *teller) {
	t.create("d")
	in := campaign.Item{
		Index: 1, Address: "Jürgen@xn--mnchen-3ya.example", Folded: "jürgen@xn--mnchen-3ya.example", Domain: "xn--mnchen-3ya.example",
		UTF8: true, Variables: []byte(`{"a":[1,2]}`), RecipientID: "crm-1", Metadata: map[string]string{"x": "1", "y": ""}, Lane: 3,
	}
	_, err := t.Add(ctx(), "d", []campaign.Item{in})
	t.check(err)
	d := t.start("d")
	m := t.load(d.Handover, 1).Fresh[0]
	if m.Recipient != in.Address || m.Domain != in.Domain || !m.UTF8 || string(m.Variables) != string(in.Variables) || m.RecipientID != in.RecipientID || m.ID.Lane != 3 {
		t.Errorf("loaded %+v", m)
	}
	if m.Name != "deliveries/d/messages/"+m.ID.String() || !m.Arrival.Equal(storyTime) || !m.Expires.Equal(d.Expires) || m.Content != 0 {
		t.Errorf("loaded %+v", m)
	}
	epoch := t.recover().Epoch
	_, end := t.Ends()
	t.write(mta.Batch{Epoch: epoch, Claims: []mta.Claim{claimOf(m)}})
	t.write(mta.Batch{Epoch: epoch, Settles: []mta.Settlement{deferred(m, storyTime.Add(time.Minute))}})
	events, _, err := t.Read(ctx(), end, 1)
	t.check(err)
	ev := events[0]
	if ev.GetRecipient() != in.Address || ev.GetRecipientId() != "crm-1" || len(ev.GetMetadata()) != 2 || ev.GetMetadata()["x"] != "1" || ev.GetReplyCode() != 450 || ev.GetPhase() != "rcpt" {
		t.Errorf("event %v", ev)
	}
}

func wholeState(t *teller) {
	t.create("d")
	t.fill("d", 1, "a.test")
	d := t.start("d")
	epoch := t.recover().Epoch
	m := t.load(d.Handover, 1).Fresh[0]
	t.write(mta.Batch{Epoch: epoch, Claims: []mta.Claim{claimOf(m)}})
	s := deferred(m, storyTime.Add(time.Minute))
	s.Message.State = mta.MessageState{
		Attempts: 1, Charged: 2, Blocked: 3, Unmatched: 4, LostClaims: 5, Source: "s1",
		LastReply: smtpc.Reply{Phase: smtpc.PhaseDATA, Code: 451, Enhanced: "4.7.1", Text: "greylisted\nplease wait"},
	}
	s.Message.State.Last.Tag, s.Message.State.Last.Rule = "greylist", "r1"
	t.write(mta.Batch{Epoch: epoch, Settles: []mta.Settlement{s}})
	want := s.Message.State
	want.FirstClaim, want.Due = storyTime, storyTime.Add(time.Minute)
	got := t.load(d.Handover, 1).Due[0]
	if got.State != want || !got.Retry {
		t.Errorf("state:\n got %+v\nwant %+v", got.State, want)
	}
	if got.MessageID != m.ID.String()+"@example.com" {
		t.Errorf("Message-ID %q is not the claim's", got.MessageID)
	}
}
