package storagetest

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/operator"
)

// hurry makes some waiting retries due now, or later; others are named by a due time that they
// do not have, and must be passed over.
func (e *engine) hurry() error {
	b := mta.Batch{Epoch: e.m.epoch}
	var chosen []*message
	var due []time.Time
	for _, d := range e.m.deliveries {
		for _, m := range d.messages {
			if !d.active() || !m.waiting || m.final() || e.rng.IntN(2) == 0 {
				continue
			}
			h := mta.Hurry{Message: e.relayed(m), Due: e.m.now, Later: e.rng.IntN(4) == 0}
			if h.Later {
				h.Due = m.due.Add(time.Hour)
			}
			stale := e.rng.IntN(4) == 0
			if stale {
				h.Message.State.Due = m.due.Add(time.Second)
			}
			b.Hurries = append(b.Hurries, h)
			if !stale && !m.claimed && (h.Later || m.due.After(e.m.now)) {
				chosen, due = append(chosen, m), append(due, h.Due)
			}
		}
	}
	if _, err := e.store.Write(ctx(), &b); err != nil {
		return err
	}
	for i, m := range chosen {
		m.due = due[i]
	}
	return nil
}

// compareWaiting reads what waits of a run bit by bit, and counts it.
func (e *engine) compareWaiting(m *model, k runID, fresh, waiting []*message) error {
	req := mta.WaitingRequest{Handover: k.handover, Domain: k.domain, Max: 2}
	if err := e.comparePages(req, append(ids(fresh), ids(waiting)...)); err != nil {
		return err
	}
	var later []*message
	for _, w := range waiting {
		if w.due.After(m.now) {
			later = append(later, w)
		}
	}
	req.Retries, req.Due = true, m.now
	return e.comparePages(req, ids(later))
}

func (e *engine) comparePages(req mta.WaitingRequest, want []mta.MessageID) error {
	var got []mta.MessageID
	counted := req
	for {
		page, err := e.store.Waiting(ctx(), req)
		if err != nil {
			return err
		}
		for _, l := range page.Messages {
			got = append(got, l.ID)
		}
		if page.Done {
			break
		}
		req.After = page.Next
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("waiting (retries %v): got %v, want %v", req.Retries, got, want)
	}
	counted.Count = true
	page, err := e.store.Waiting(ctx(), counted)
	if err != nil || int(page.Count) != len(want) || !page.Done || len(page.Messages) != 0 {
		return fmt.Errorf("waiting (retries %v): counted %d of %d, done %v, %d messages, %v", req.Retries, page.Count, len(want), page.Done, len(page.Messages), err)
	}
	return nil
}

var operatorStories = []story{
	{"work counts what it changed, also when the power fails in the middle", workSurvives},
	{"runs that were moved to another pool stay there", runsMove},
	{"work chooses by source, age and time of the last attempt", workChooses},
	{"an ended work answers its request again", workRepeats},
	{"overrides come back, and go", overridesStay},
	{"the last events of paths are found again", pathEventsStay},
}

// retries defers all n messages of delivery d once from a source, an hour and more ahead.
func (t *teller) retries(n int, source string) (*campaign.Delivery, uint64, []mta.MessageID) {
	t.Helper()
	t.create("d")
	t.fill("d", n, "a.test")
	d := t.start("d")
	epoch := t.recover().Epoch
	res, err := t.Load(ctx(), mta.LoadRequest{Handover: d.Handover, Domain: 1, Fresh: n, Now: storyTime})
	t.check(err)
	b := mta.Batch{Epoch: epoch}
	var list []mta.MessageID
	for i, m := range res.Fresh {
		s := deferred(m, storyTime.Add(time.Hour+time.Duration(i)*time.Second))
		s.Attempt.Source = source
		b.Settles = append(b.Settles, s)
		list = append(list, m.ID)
	}
	claims := mta.Batch{Epoch: epoch}
	for _, m := range res.Fresh {
		claims.Claims = append(claims.Claims, claimOf(m))
	}
	t.write(claims)
	t.write(b)
	return d, epoch, list
}

func retriesOf(d *campaign.Delivery) mta.WaitingRequest {
	return mta.WaitingRequest{Handover: d.Handover, Domain: 1, Retries: true, Due: storyTime, Max: 100}
}

func (t *teller) waiting(req mta.WaitingRequest) []*mta.Message {
	t.Helper()
	page, err := t.Waiting(ctx(), req)
	t.check(err)
	return page.Messages
}

func hurriesOf(list []*mta.Message, work string) (h []mta.Hurry) {
	for _, m := range list {
		h = append(h, mta.Hurry{Message: m, Due: storyTime, Work: work})
	}
	return h
}

// runsMove: a run is told with the pool that its mail was moved to, over power cuts; what waits
// is counted under the work that moved it, once.
func runsMove(t *teller) {
	d, epoch, _ := t.retries(10, "s1")
	_, _, err := t.BeginWork(ctx(), operator.Work{ID: "w", Kind: operator.Move, Pool: "reserve", Created: storyTime}, operator.Request{})
	t.check(err)
	move := mta.Move{Handover: d.Handover, Domain: 1, Pool: "reserve", Instead: "default", Work: "w"}
	t.write(mta.Batch{Epoch: epoch, Moves: []mta.Move{move, move, {Handover: d.Handover, Domain: 99, Pool: "reserve"}, {Handover: 999, Domain: 1}}})
	t.driver.Cut(rand.New(rand.NewPCG(1, 1)))
	t.check(t.driver.Close())
	if t.Store, err = t.driver.Open(func() time.Time { return storyTime }); err != nil {
		t.Fatal(err)
	}
	epoch = t.recover().Epoch
	list, err := t.Runs(ctx(), d.Handover, 0, 10)
	t.check(err)
	if len(list) != 1 || list[0].Pool != "reserve" || list[0].Instead != "default" {
		t.Errorf("runs %+v", list)
	}
	works, err := t.Works(ctx())
	t.check(err)
	if len(works) != 1 || works[0].Count != 10 {
		t.Errorf("works %+v", works)
	}
	t.write(mta.Batch{Epoch: epoch, Moves: []mta.Move{{Handover: d.Handover, Domain: 1}}})
	if list, err := t.Runs(ctx(), d.Handover, 0, 10); err != nil || len(list) != 1 || list[0].Pool != "" {
		t.Errorf("moved back: %+v, %v", list, err)
	}
}

func workSurvives(t *teller) {
	d, epoch, _ := t.retries(10, "s1")
	_, _, err := t.BeginWork(ctx(), operator.Work{ID: "w", Kind: operator.Retry, Reason: "lifted", Created: storyTime}, operator.Request{})
	t.check(err)
	list := t.waiting(retriesOf(d))
	if len(list) != 10 {
		t.Fatalf("%d messages wait", len(list))
	}
	t.write(mta.Batch{Epoch: epoch, Hurries: hurriesOf(list[:4], "w")})
	t.write(mta.Batch{Epoch: epoch, Hurries: hurriesOf(list[:4], "w")}) // done already
	rng := rand.New(rand.NewPCG(1, 1))
	t.driver.Cut(rng)
	t.check(t.driver.Close())
	if t.Store, err = t.driver.Open(func() time.Time { return storyTime }); err != nil {
		t.Fatal(err)
	}
	works, err := t.Works(ctx())
	t.check(err)
	if len(works) != 1 || works[0].Count != 4 || works[0].Reason != "lifted" {
		t.Fatalf("work behind the cut: %+v", works)
	}
	epoch = t.recover().Epoch
	rest := t.waiting(retriesOf(d))
	if len(rest) != 6 {
		t.Errorf("%d messages are left", len(rest))
	}
	fail := mta.Settlement{Message: rest[0], Outcome: mta.Suppressed, Time: storyTime, Verdict: bounce.OwnPolicy("failed_by_operator", bounce.ReasonUnreachable), Text: "lifted", Work: "w"}
	t.write(mta.Batch{Epoch: epoch, Hurries: hurriesOf(rest[1:], "w"), Settles: []mta.Settlement{fail, fail}})
	_, end := t.Ends()
	ended, err := t.EndWork(ctx(), "w", func(w operator.Work) (operator.Event, []byte) {
		return operator.Event{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_QUEUE_CHANGED, Time: storyTime, Count: w.Count, Text: w.Reason}, nil
	})
	t.check(err)
	if ended.Count != 10 {
		t.Errorf("changed %d of 10", ended.Count)
	}
	events, _, err := t.Read(ctx(), end, 10)
	t.check(err)
	if len(events) != 1 || events[0].GetCount() != 10 || events[0].GetText() != "lifted" {
		t.Errorf("events %v", events)
	}
	if res := t.load(d.Handover, 1); len(res.Due) != 9 {
		t.Errorf("%d retries are due", len(res.Due))
	}
	if works, err = t.Works(ctx()); err != nil || len(works) != 0 {
		t.Errorf("work is left: %v, %v", works, err)
	}
}

func workChooses(t *teller) {
	d, _, _ := t.retries(4, "s1")
	for what, n := range map[string]struct {
		change func(*mta.WaitingRequest)
		want   int
	}{
		"source":               {func(r *mta.WaitingRequest) { r.Source = "s1" }, 4},
		"another source":       {func(r *mta.WaitingRequest) { r.Source = "s2" }, 0},
		"settled by then":      {func(r *mta.WaitingRequest) { r.Settled = storyTime }, 4},
		"settled before":       {func(r *mta.WaitingRequest) { r.Settled = storyTime.Add(-time.Second) }, 0},
		"arrived by then":      {func(r *mta.WaitingRequest) { r.Arrived = storyTime }, 4},
		"arrived before":       {func(r *mta.WaitingRequest) { r.Arrived = storyTime.Add(-time.Second) }, 0},
		"due later than":       {func(r *mta.WaitingRequest) { r.Due = storyTime.Add(time.Hour + time.Second) }, 2},
		"in a run of no one's": {func(r *mta.WaitingRequest) { r.Domain = 9 }, 0},
	} {
		req := retriesOf(d)
		n.change(&req)
		list := t.waiting(req)
		req.Count = true
		page, err := t.Waiting(ctx(), req)
		t.check(err)
		if len(list) != n.want || int(page.Count) != n.want {
			t.Errorf("%s: %d messages, counted %d, want %d", what, len(list), page.Count, n.want)
		}
	}
}

func workRepeats(t *teller) {
	req := operator.Request{ID: "r", Method: "RetryNow", Body: [32]byte{1}}
	begin := func(id string, req operator.Request) ([]byte, bool, error) {
		return t.BeginWork(ctx(), operator.Work{ID: id, Kind: operator.Fail, Created: storyTime}, req)
	}
	if _, found, err := begin("w1", req); found || err != nil {
		t.Fatalf("first: %v, %v", found, err)
	}
	if answer, found, err := begin("w2", req); !found || answer != nil || err != nil {
		t.Errorf("while it goes on: %q, %v, %v", answer, found, err)
	}
	works, err := t.Works(ctx())
	t.check(err)
	if len(works) != 1 || works[0].ID != "w1" || works[0].Request != req {
		t.Errorf("works %+v", works)
	}
	_, err = t.EndWork(ctx(), "w1", func(operator.Work) (operator.Event, []byte) {
		return operator.Event{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_QUEUE_CHANGED, Time: storyTime}, []byte("done")
	})
	t.check(err)
	if answer, found, err := begin("w3", req); !found || string(answer) != "done" || err != nil {
		t.Errorf("behind its end: %q, %v, %v", answer, found, err)
	}
	other := req
	other.Body = [32]byte{2}
	if _, _, err := begin("w4", other); err == nil {
		t.Error("the same id with another body is taken")
	}
	if _, err := t.EndWork(ctx(), "w1", nil); err == nil {
		t.Error("work ended twice")
	}
}

func overridesStay(t *teller) {
	o := operator.Override{
		Source: "s1", Destination: "google", Fields: map[string]string{"connections": "2", "message_rate": "5/s"},
		Reason: "asked", Created: storyTime, End: storyTime.Add(time.Hour),
	}
	all := o
	all.Source = ""
	event := operator.Event{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_OVERRIDDEN, Time: storyTime, Destination: "google", Text: "asked"}
	req := operator.Request{ID: "r", Method: "OverridePath"}
	_, from := t.Ends()
	for i := range 2 {
		repeated, err := t.PutOverride(ctx(), o, event, req)
		if t.check(err); repeated != (i > 0) {
			t.Errorf("call %d: repeated %v", i, repeated)
		}
	}
	_, err := t.PutOverride(ctx(), all, event, operator.Request{})
	t.check(err)
	list, err := t.Overrides(ctx())
	t.check(err)
	if !reflect.DeepEqual(list, []operator.Override{all, o}) {
		t.Errorf("overrides %+v", list)
	}
	o.Fields = nil
	_, err = t.PutOverride(ctx(), o, event, operator.Request{})
	t.check(err)
	if list, err = t.Overrides(ctx()); err != nil || len(list) != 1 || list[0].Source != "" {
		t.Errorf("behind its end: %+v, %v", list, err)
	}
	_, err = t.Note(ctx(), event, operator.Request{})
	t.check(err)
	events, _, err := t.Read(ctx(), from, 10)
	if t.check(err); len(events) != 4 {
		t.Errorf("%d events", len(events))
	}
}

func pathEventsStay(t *teller) {
	epoch := t.recover().Epoch
	event := func(source, destination string, i int) mta.RelayEvent {
		return mta.RelayEvent{Kind: mta.PathThrottledEvent, Time: storyTime, Source: source, Destination: destination, Text: fmt.Sprint(source, " ", i)}
	}
	for i := range 6 {
		t.write(mta.Batch{Epoch: epoch, Events: []mta.RelayEvent{event("s1", "a.test", 2*i), event("s1", "a.test.b", i), event("s1", "a.test", 2*i+1)}})
	}
	later := event("s2", "a.test", 0)
	later.Time = storyTime.Add(time.Hour)
	t.write(mta.Batch{Epoch: epoch, Events: []mta.RelayEvent{later, {Kind: mta.RuleChangedEvent, Time: later.Time}}})
	_, err := t.PutOverride(ctx(), operator.Override{Destination: "a.test"}, operator.Event{
		Type: veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_OVERRIDDEN, Time: later.Time, Destination: "a.test", Text: "asked", By: "someone",
	}, operator.Request{})
	t.check(err)
	wantTexts := func(want ...string) {
		t.Helper()
		events, err := t.PathEvents(ctx(), "a.test")
		t.check(err)
		var got []string
		for _, e := range events {
			got = append(got, e.GetText())
		}
		if !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
	}
	all := []string{"asked", "s2 0", "s1 11", "s1 10", "s1 9", "s1 8", "s1 7", "s1 6", "s1 5", "s1 4", "s1 3", "s1 2"}
	wantTexts(all...)
	t.reopen()
	wantTexts(all...)
	_, err = t.TrimEvents(ctx(), storyTime.Add(time.Minute), 0)
	t.check(err)
	wantTexts(all[:2]...)
}
