package storagetest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
)

// compare reads everything and returns the first difference from the model.
func (e *engine) compare(m *model) error {
	for _, d := range m.deliveries {
		if err := e.compareDelivery(m, d); err != nil {
			return fmt.Errorf("delivery %s: %w", d.id, err)
		}
	}
	if err := e.compareList(m); err != nil {
		return err
	}
	if err := e.compareEvents(m); err != nil {
		return err
	}
	if e.compared++; e.compared%4 == 0 {
		if err := e.compareFinds(m); err != nil {
			return err
		}
	}
	if err := e.compareAddresses(m); err != nil {
		return err
	}
	if err := e.compareTexts(m); err != nil {
		return err
	}
	got, err := e.store.ListSuspensions(ctx())
	if err != nil {
		return err
	}
	if !slices.Equal(got, m.suspensions) {
		return fmt.Errorf("suspensions: got %+v, want %+v", got, m.suspensions)
	}
	return nil
}

func (e *engine) compareDelivery(m *model, d *delivery) error {
	got, err := e.store.Get(ctx(), d.id)
	if err != nil {
		return err
	}
	if got.State != d.state || got.No != d.no || got.Transactional != d.transactional || !got.Started.Equal(d.started) && !d.transactional {
		return fmt.Errorf("got %s started %v, want %s started %v", got.State, got.Started, d.state, d.started)
	}
	if err := got.Counters.Balance(); err != nil {
		return err
	}
	if err := compareCounters(&got.Counters, d); err != nil {
		return err
	}
	if err := e.compareLog(d); err != nil {
		return err
	}
	if err := e.compareRejected(d); err != nil {
		return err
	}
	if d.active() {
		return e.compareRuns(m, d)
	}
	return nil
}

func compareCounters(got *campaign.Counters, d *delivery) error {
	want := d.counters()
	g := got.Clone()
	g.HandedOver, g.DeliveredBy = campaign.Minutes{}, campaign.Minutes{}
	for name, by := range g.By {
		by.DeliveredBy = campaign.Minutes{}
		if reflect.DeepEqual(by, &campaign.DestinationCounters{FailedBy: map[int32]int64{}}) {
			delete(g.By, name)
		}
	}
	if reflect.DeepEqual(g, want) {
		return nil
	}
	return fmt.Errorf("counters:\n got %s\nwant %s", printCounters(&g), printCounters(&want))
}

func printCounters(c *campaign.Counters) string {
	s := fmt.Sprintf("index %d, accepted %d, rejected %d, pending %d, in relay %d (deferred %d, claimed %d), sent %d, failed %d %v, cancelled %d, attempts %d, ignored %v, complaints %d, unsubscribes %d",
		c.LastIndex, c.Accepted, c.Rejected, c.Pending, c.InRelay, c.Deferred, c.Claimed, c.Sent, c.Failed, c.FailedBy, c.Cancelled, c.Attempts, c.Ignored, c.Complaints, c.Unsubs)
	for _, name := range slices.Sorted(maps.Keys(c.By)) {
		d := c.By[name]
		s += fmt.Sprintf("\n     %s: sent %d, failed %d %v, deferred %d, cancelled %d, attempts %d (%d failed authentication, %d refused content), complaints %d, unsubscribes %d",
			name, d.Sent, d.Failed, d.FailedBy, d.Deferred, d.Cancelled, d.Attempts, d.AuthRejections, d.ContentRejections, d.Complaints, d.Unsubs)
	}
	return s
}

// pageSize is small, so that every listing takes several pages.
const pageSize = 3

// compareLog pages through the sending log, and learns the places of messages.
func (e *engine) compareLog(d *delivery) error {
	seen := map[int64]bool{}
	var cursor []byte
	for {
		page, next, err := e.store.Messages(ctx(), d.id, cursor, pageSize, nil)
		if err != nil {
			return err
		}
		for _, got := range page {
			if err := e.compareEntry(d, got); err != nil {
				return err
			}
			seen[int64(got.ID.Order)] = true
		}
		if cursor = next; cursor == nil {
			break
		}
	}
	if want := len(d.kept()); len(seen) != want {
		return fmt.Errorf("sending log has %d messages, want %d", len(seen), want)
	}
	return nil
}

func (e *engine) compareEntry(d *delivery, got *campaign.LogEntry) error {
	i := slices.IndexFunc(d.messages, func(m *message) bool { return m.index == int64(got.ID.Order) })
	if i < 0 {
		return fmt.Errorf("log has message %d, which was never stored", got.ID.Order)
	}
	m := d.messages[i]
	if m.purged {
		return fmt.Errorf("log has message %d, which was purged", got.ID.Order)
	}
	if m.id == (mta.MessageID{}) {
		m.id = got.ID
	}
	wantReason := m.reason
	if m.ignored != 0 {
		wantReason = m.ignored
	}
	type view struct {
		id          mta.MessageID
		recipient   string
		recipientID string
		truth       campaign.Truth
		attempts    int32
		claimed     bool
		reason      int32
		due         string
	}
	want := view{m.id, "X" + m.address[1:], m.recipientID, m.truth(), int32(m.attempts), m.claimed, wantReason, ""}
	if want.truth == campaign.Deferred && !m.claimed {
		want.due = m.due.String()
	}
	have := view{got.ID, got.Recipient, got.RecipientID, got.Truth, got.AttemptCount, got.Claimed, got.Reason, ""}
	if !got.NextAttempt.IsZero() {
		have.due = got.NextAttempt.String()
	}
	if have != want {
		return fmt.Errorf("log:\n got %+v\nwant %+v", have, want)
	}
	if e.compared%4 != 0 {
		return nil
	}
	full, err := e.store.Message(ctx(), d.id, m.id)
	if err != nil {
		return err
	}
	if full.Truth != want.truth || len(full.Attempts) != m.attempts {
		return fmt.Errorf("message %s: truth %d with %d attempts, want %d with %d", m.name(), full.Truth, len(full.Attempts), want.truth, m.attempts)
	}
	return nil
}

func (e *engine) compareRejected(d *delivery) error {
	if last, err := e.store.DurableIndex(ctx(), d.id); err != nil || last != d.last {
		return fmt.Errorf("durable index %d (%v), want %d", last, err, d.last)
	}
	var after int64
	var got []int64
	for {
		page, err := e.store.Rejected(ctx(), d.id, after, pageSize)
		if err != nil {
			return err
		}
		for _, r := range page {
			got = append(got, r.GetIndex())
		}
		if len(page) < pageSize {
			break
		}
		after = got[len(got)-1]
	}
	want := d.rejected
	if d.purged {
		want = nil
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("rejected %v, want %v", got, want)
	}
	return nil
}

// compareRuns compares the directory and what each run would give the relay.
func (e *engine) compareRuns(m *model, d *delivery) error {
	want := d.runs()
	for _, h := range d.handovers() {
		var after uint32
		for {
			page, err := e.store.Runs(ctx(), h, after, pageSize)
			if err != nil {
				return err
			}
			if len(page) == 0 {
				break
			}
			for _, r := range page {
				k := runID{h, r.Domain}
				if err := e.compareRun(m, k, &r, want[k]); err != nil {
					return fmt.Errorf("run %v: %w", k, err)
				}
				delete(want, k)
			}
			after = page[len(page)-1].Domain
		}
		if err := e.compareUnfinished(m, d, h); err != nil {
			return err
		}
	}
	if len(want) != 0 {
		return fmt.Errorf("runs not listed: %v", want)
	}
	return nil
}

// handovers are those that hold messages.
func (d *delivery) handovers() (list []uint64) {
	for _, m := range d.messages {
		if !slices.Contains(list, m.id.Handover) {
			list = append(list, m.id.Handover)
		}
	}
	slices.Sort(list)
	return list
}

func (e *engine) compareRun(m *model, k runID, got *mta.RunState, run []*message) error {
	fresh, waiting := split(run)
	if int(got.Fresh) != len(fresh) || int(got.Deferred) != len(waiting) {
		return fmt.Errorf("fresh %d, deferred %d, want %d and %d", got.Fresh, got.Deferred, len(fresh), len(waiting))
	}
	var due time.Time
	if len(waiting) > 0 {
		due = waiting[0].due
	}
	if !got.NextDue.Equal(due) {
		return fmt.Errorf("next due %v, want %v", got.NextDue, due)
	}
	if err := e.compareWaiting(m, k, fresh, waiting); err != nil {
		return err
	}
	return e.compareLoad(m, k, fresh, waiting)
}

// compareLoad loads a run bit by bit.
func (e *engine) compareLoad(m *model, k runID, fresh, waiting []*message) error {
	var ready []*message
	var next time.Time
	for _, w := range waiting {
		if !w.due.After(m.now) {
			ready = append(ready, w)
		} else if next.IsZero() {
			next = w.due
		}
	}
	var gotFresh, gotDue []mta.MessageID
	loaded := map[mta.MessageID]bool{}
	for _, c := range m.claimed() {
		loaded[c.id] = true
	}
	req := mta.LoadRequest{Handover: k.handover, Domain: k.domain, Fresh: 2, Due: 2, Now: m.now, Skip: func(id mta.MessageID) bool { return loaded[id] }}
	for {
		res, err := e.store.Load(ctx(), req)
		if err != nil {
			return err
		}
		for _, l := range res.Fresh {
			gotFresh = append(gotFresh, l.ID)
			loaded[l.ID] = true
		}
		for _, l := range res.Due {
			if !l.Retry || l.MessageID == "" {
				return fmt.Errorf("message %s is due: retry %v, Message-ID %q", l.Name, l.Retry, l.MessageID)
			}
			gotDue = append(gotDue, l.ID)
			loaded[l.ID] = true
		}
		if req.From = res.Next; len(res.Due) < 2 && !res.More {
			if !res.NextDue.Equal(next) {
				return fmt.Errorf("load: next due %v, want %v", res.NextDue, next)
			}
			break
		}
	}
	if !slices.Equal(gotFresh, ids(fresh)) || !slices.Equal(gotDue, ids(ready)) {
		return fmt.Errorf("loaded fresh %v and due %v, want %v and %v", gotFresh, gotDue, ids(fresh), ids(ready))
	}
	return nil
}

func ids(list []*message) (ids []mta.MessageID) {
	for _, m := range list {
		ids = append(ids, m.id)
	}
	return ids
}

// compareUnfinished lists a hand-over for expiry.
func (e *engine) compareUnfinished(m *model, d *delivery, handover uint64) error {
	var want []*message
	for _, msg := range d.unfinished() {
		if msg.id.Handover == handover {
			want = append(want, msg)
		}
	}
	slices.SortFunc(want, byPlace)
	by := m.now
	if d.transactional {
		want = slices.DeleteFunc(want, func(m *message) bool { return m.expires.After(by) })
		slices.SortFunc(want, func(a, b *message) int { return cmp.Or(a.expires.Compare(b.expires), byPlace(a, b)) })
	}
	var got []mta.MessageID
	var after mta.MessageID
	asked := handover
	if d.transactional {
		asked = 0
	}
	for {
		page, done, err := e.store.Unfinished(ctx(), asked, by, after, 2)
		if err != nil {
			return err
		}
		for _, l := range page {
			if l.ID.Handover == handover {
				got = append(got, l.ID)
			}
		}
		if done {
			break
		}
		after = page[len(page)-1].ID
	}
	// Claims in a run with nothing else unfinished may be left out: the relay has them.
	got = slices.DeleteFunc(got, e.claimedID(m))
	wanted := slices.DeleteFunc(ids(want), e.claimedID(m))
	if !slices.Equal(got, wanted) {
		return fmt.Errorf("unfinished of hand-over %d: got %v, want %v", handover, got, wanted)
	}
	return nil
}

func (e *engine) claimedID(m *model) func(mta.MessageID) bool {
	claimed := ids(m.claimed())
	return func(id mta.MessageID) bool { return slices.Contains(claimed, id) }
}

func (e *engine) compareList(m *model) error {
	var got []string
	var before uint64
	for {
		page, err := e.store.List(ctx(), before, pageSize)
		if err != nil {
			return err
		}
		for _, d := range page {
			got = append(got, d.ID)
		}
		if len(page) < pageSize {
			break
		}
		before = page[len(page)-1].No
	}
	slices.Reverse(got)
	var want []string
	for _, d := range m.deliveries {
		want = append(want, d.id)
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("deliveries: got %v, want %v", got, want)
	}
	return nil
}

// compareEvents reads the log from its beginning.
func (e *engine) compareEvents(m *model) error {
	oldest, end := e.store.Ends()
	if int(end[0]-oldest[0]) != len(m.events)-m.trimmed {
		return fmt.Errorf("event log has %d events, want %d", end[0]-oldest[0], len(m.events)-m.trimmed)
	}
	maps.DeleteFunc(e.places, func(_ string, i int) bool { return i >= m.trimmed })
	at := oldest
	for i := m.trimmed; i < len(m.events); {
		page, next, err := e.store.Read(ctx(), at, 7)
		if err != nil {
			return err
		}
		for _, got := range page {
			have := event{
				kind: got.GetType(), delivery: got.GetDelivery(), message: got.GetMessage(), recipient: got.GetRecipient(),
				count: got.GetCount(), attempt: got.GetAttempt(), willRetry: got.GetWillRetry(),
				destination: got.GetDestination(), reason: int32(got.GetReason()),
			}
			_, seen := e.places[got.GetId()]
			if have != m.events[i] || seen {
				return fmt.Errorf("event %d (id %s):\n got %+v\nwant %+v", i, got.GetId(), have, m.events[i])
			}
			e.places[got.GetId()] = i
			i++
		}
		if len(page) == 0 || next[0] != at[0]+uint64(len(page)) {
			return fmt.Errorf("event log: position %v behind %d events from %v", next, len(page), at)
		}
		at = next
	}
	if m.trimmed > 0 {
		if _, _, err := e.store.Read(ctx(), feedback.Positions{oldest[0] - 1}, 1); !errors.Is(err, feedback.ErrBeforeRetention) {
			return fmt.Errorf("event log: reading before retention: %v", err)
		}
	}
	if _, _, err := e.store.Read(ctx(), feedback.Positions{end[0] + 1}, 1); err == nil {
		return fmt.Errorf("event log: reading past the end succeeded")
	}
	return nil
}

// compareFinds looks every address and client id up.
func (e *engine) compareFinds(m *model) error {
	byAddress, byID := map[string][]*message{}, map[string][]*message{}
	for _, d := range m.deliveries {
		for _, msg := range d.messages {
			found := []*message{msg}
			if msg.purged {
				found = nil
			}
			byAddress[msg.address] = append(byAddress[msg.address], found...)
			if msg.recipientID != "" {
				byID[msg.recipientID] = append(byID[msg.recipientID], found...)
			}
		}
	}
	for address, want := range byAddress {
		if err := e.compareFind(campaign.Lookup{Folded: address}, want); err != nil {
			return err
		}
	}
	for id, want := range byID {
		if err := e.compareFind(campaign.Lookup{RecipientID: id}, want); err != nil {
			return err
		}
		if len(want) == 0 {
			continue
		}
		one := want[0].delivery
		want = slices.DeleteFunc(slices.Clone(want), func(m *message) bool { return m.delivery != one })
		if err := e.compareFind(campaign.Lookup{RecipientID: id, Delivery: one.id}, want); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) compareFind(by campaign.Lookup, want []*message) error {
	var got []mta.MessageID
	var cursor []byte
	for {
		page, next, err := e.store.Find(ctx(), by, cursor, 2, nil)
		if err != nil {
			return err
		}
		for _, entry := range page {
			got = append(got, entry.ID)
		}
		if cursor = next; cursor == nil {
			break
		}
	}
	wanted := ids(want)
	slices.SortFunc(got, compareIDs)
	slices.SortFunc(wanted, compareIDs)
	if !slices.Equal(got, wanted) {
		return fmt.Errorf("find %+v: got %v, want %v", by, got, wanted)
	}
	return nil
}

// compareHandovers checks what a recovery hands the relay: every active bulk
// delivery, and every standing hand-over with unfinished mail.
func (e *engine) compareHandovers(got []*mta.Handover) error {
	var want, have []uint64
	for _, d := range e.m.deliveries {
		if !d.active() {
			continue
		}
		if !d.transactional {
			want = append(want, d.handover)
		}
		for k := range d.runs() {
			if d.transactional && !slices.Contains(want, k.handover) {
				want = append(want, k.handover)
			}
		}
	}
	for _, h := range got {
		have = append(have, h.ID)
	}
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(have, want) {
		return fmt.Errorf("recovered hand-overs %v, want %v", have, want)
	}
	return nil
}
