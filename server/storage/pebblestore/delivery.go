package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"github.com/veredus/veredus/mta/compose"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

// Create stores a new delivery: Draft unless d says otherwise. It gives it its
// number, hand-over and content.
func (s *Store) Create(ctx context.Context, d *campaign.Delivery, req campaign.Request) (answer *campaign.Delivery, err error) {
	err = s.submit(ctx, func(t *txn) error {
		if answer, err = t.repeated(req); err != nil || answer != nil {
			return err
		}
		tenant, err := t.tenant(d.Spec.GetTenant())
		if err != nil {
			return err
		}
		w, err := t.create(d, tenant)
		if err != nil {
			return err
		}
		answer = w.state.export(proto.CloneOf(d.Spec.GetContent()))
		return t.rememberDelivery(req, answer)
	})
	return answer, err
}

// repeated answers a repeated call with the delivery as it is now; nil when the call is new.
func (t *txn) repeated(req campaign.Request) (*campaign.Delivery, error) {
	r, err := t.s.findRequest(req.ID, req.Method, req.Body)
	if err != nil || r == nil {
		return nil, err
	}
	w, err := t.byID(r.delivery)
	if err != nil {
		return nil, err
	}
	content, err := t.s.saysOf(&w.state)
	return w.state.export(content.GetContent()), err
}

// create makes a delivery of a tenant.
func (t *txn) create(d *campaign.Delivery, tenant uint32) (*work, error) {
	taken, err := t.s.has(keyName(tableDeliveryID, d.ID))
	if err != nil {
		return nil, err
	}
	if taken {
		return nil, &campaign.ExistsError{Resource: "deliveries/" + d.ID}
	}
	w := &work{by: map[string]*campaign.DestinationCounters{}, record: true, counted: true}
	t.seq.delivery++
	t.seq.handover++
	w.state = deliveryState{Delivery: *d, tenant: tenant}
	n := &w.state
	n.No, n.Handover = t.seq.delivery, t.seq.handover
	n.Spec = proto.CloneOf(d.Spec)
	n.Counters = campaign.Counters{
		Ignored: map[int32]int64{}, FailedBy: map[int32]int64{},
		By: map[string]*campaign.DestinationCounters{},
	}
	if n.State == 0 {
		n.State = campaign.Draft
	}
	if n.Created.IsZero() {
		n.Created = t.now
	}
	if n.Updated.IsZero() {
		n.Updated = n.Created
	}
	if err := t.putContent(n); err != nil {
		return nil, err
	}
	t.set(keyName(tableDeliveryID, n.ID), number64(n.No))
	t.set(key8(tableHandover, n.Handover), number64(n.No))
	t.keepWork(w)
	t.touch(w)
	return w, nil
}

// putContent stores what the delivery's mail says under a new id and takes it out of Spec.
func (t *txn) putContent(d *deliveryState) error {
	row, err := saysRow(&d.Delivery)
	if err != nil {
		return err
	}
	t.seq.content++
	d.Content = t.seq.content
	d.Spec.Content = nil
	t.set(key8(tableContent, d.Content), row)
	return nil
}

// saysRow renders all that decides what a delivery's mail says.
func saysRow(d *campaign.Delivery) ([]byte, error) {
	says := &veredusv1.Delivery{
		Name: d.ID, Tenant: d.Spec.GetTenant(), Label: d.Spec.GetLabel(), Transactional: d.Transactional,
		Sender: d.Spec.GetSender(), Content: d.Spec.GetContent(),
		ListId: d.Spec.GetListId(), Unsubscribe: d.Spec.GetUnsubscribe(),
	}
	row, err := proto.MarshalOptions{Deterministic: true}.Marshal(says)
	if err != nil {
		return nil, fmt.Errorf("pebblestore: content of delivery %s: %w", d.ID, err)
	}
	return row, nil
}

// readSpec reads what saysRow wrote.
func (s *Store) readSpec(content uint64) (*veredusv1.Delivery, error) {
	row, err := s.get(key8(tableContent, content))
	if err != nil {
		return nil, err
	}
	if row == nil {
		return nil, fmt.Errorf("content %d: %w", content, campaign.ErrNotFound)
	}
	says := &veredusv1.Delivery{}
	if err := proto.Unmarshal(row, says); err != nil {
		return nil, corrupt(err)
	}
	return says, nil
}

// Content reads what a delivery or single message says.
func (s *Store) Content(_ context.Context, id uint64) (*compose.Source, error) {
	says, err := s.readSpec(id)
	if err != nil {
		return nil, err
	}
	d := campaign.Delivery{ID: says.GetName(), Spec: says, Transactional: says.GetTransactional()}
	return d.Source(), nil
}

// Get reads a delivery by id, with content and counters.
func (s *Store) Get(ctx context.Context, id string) (*campaign.Delivery, error) {
	d, number, err := s.lookup(id)
	if err != nil {
		return nil, err
	}
	says, err := s.readSpec(d.Content)
	if errors.Is(err, campaign.ErrNotFound) { // purged, or replaced just now
		says, err = s.saysNow(d)
	}
	if err != nil {
		return nil, err
	}
	d.Spec.Content = says.GetContent()
	return d, s.writer.await(ctx, number)
}

// lookup reads a delivery without content, and the operation to await before showing it.
func (s *Store) lookup(id string) (*campaign.Delivery, uint64, error) {
	no, err := s.readNumber(keyName(tableDeliveryID, id))
	if err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.delivery(no)
	if err != nil {
		return nil, 0, err
	}
	if no == 0 || d == nil {
		return nil, 0, notFound(id)
	}
	return d.export(nil), d.number, nil
}

// List reads up to limit deliveries without content, newest first, behind the
// delivery numbered before (0: from the newest).
func (s *Store) List(ctx context.Context, before uint64, limit int) ([]*campaign.Delivery, error) {
	numbers, err := s.listNumbers(before, limit)
	if err != nil {
		return nil, err
	}
	var list []*campaign.Delivery
	var newest uint64
	for _, no := range numbers {
		s.mu.Lock()
		d, err := s.delivery(no)
		if err == nil && d != nil {
			list = append(list, d.export(nil))
			newest = max(newest, d.number)
		}
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	return list, s.writer.await(ctx, newest)
}

func (s *Store) listNumbers(before uint64, limit int) (numbers []uint64, err error) {
	upper := after([]byte{tableDelivery})
	if before != 0 {
		upper = key8(tableDelivery, before)
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{tableDelivery}, UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("pebblestore: reading: %w", err)
	}
	defer it.Close()
	for ok := it.Last(); ok && len(numbers) < limit; ok = it.Prev() {
		numbers = append(numbers, be64(it.Key()[1:]))
	}
	return numbers, it.Error()
}

// Change applies change to the delivery. What change does to counters, number, id
// and hand-over is dropped; the store moves the counters when the state changes: to
// Running from before it, all that is pending enters the relay; to Cancelled, all
// that is not final and not claimed is cancelled. An event Started or Cancelled whose
// Count is 0 gets that number. A delivery that starts with nothing to deliver
// becomes Finished in the same write.
func (s *Store) Change(ctx context.Context, id string, req campaign.Request, change func(*campaign.Delivery) ([]campaign.Event, error)) (answer *campaign.Delivery, err error) {
	err = s.submit(ctx, func(t *txn) error {
		if answer, err = t.repeated(req); err != nil || answer != nil {
			return err
		}
		w, err := t.byID(id)
		if err != nil {
			return err
		}
		if answer, err = t.change(w, change); err != nil {
			return err
		}
		return t.rememberDelivery(req, answer)
	})
	return answer, err
}

func (t *txn) change(w *work, change func(*campaign.Delivery) ([]campaign.Event, error)) (*campaign.Delivery, error) {
	says, err := t.s.saysOf(&w.state)
	if err != nil {
		return nil, err
	}
	d := w.state.export(says.GetContent())
	list, err := change(d)
	if err != nil {
		return nil, err
	}
	content := proto.CloneOf(d.Spec.GetContent())
	if err := t.replace(w, d); err != nil {
		return nil, err
	}
	t.publishChange(w, list)
	return w.state.export(content), nil
}

// replace makes d, as a client's change left it, the delivery's state.
func (t *txn) replace(w *work, d *campaign.Delivery) error {
	old := w.state.State
	n := &w.state
	spec := proto.CloneOf(d.Spec)
	n.Spec, n.State = spec, d.State
	n.Updated, n.Started, n.Expires, n.Finished = d.Updated, d.Started, d.Expires, d.Finished
	n.Protection = d.Protection
	w.record = true
	t.touch(w)
	if old > campaign.Prepared || n.Transactional {
		n.Spec.Content = nil // can no longer change
		return t.move(w, old)
	}
	was, err := t.s.get(key8(tableContent, n.Content))
	if err != nil {
		return err
	}
	now, err := saysRow(&n.Delivery)
	if err != nil {
		return err
	}
	if bytes.Equal(was, now) {
		n.Spec.Content = nil
		return t.move(w, old)
	}
	t.delete(key8(tableContent, n.Content))
	if err := t.putContent(n); err != nil {
		return err
	}
	return t.move(w, old)
}

// move moves the counters by a change of state.
func (t *txn) move(w *work, old campaign.State) error {
	n := &w.state
	switch {
	case old == n.State:
	case n.State == campaign.Running && old < campaign.Running:
		if n.Started.IsZero() {
			n.Started = t.now
		}
		w.moved = t.counters(w).Start(n.Started)
	case n.State == campaign.Cancelled:
		w.moved = t.cancel(w)
	}
	return nil
}

// cancel cancels the delivery's unfinished messages.
func (t *txn) cancel(w *work) int64 {
	c := t.counters(w)
	by := c.By
	c.By = map[string]*campaign.DestinationCounters{}
	for name, d := range by {
		if d.Deferred > 0 {
			c.By[name] = t.cancelled(w, name, d)
		}
	}
	n := c.Cancel()
	c.By = by
	return n
}

// cancelled is a destination's figures, to be changed.
func (t *txn) cancelled(w *work, name string, d *campaign.DestinationCounters) *campaign.DestinationCounters {
	if w.by[name] == nil {
		w.by[name] = d.Clone()
	}
	return w.by[name]
}

// publishChange stores the events of a change, and finishes what has nothing to deliver.
func (t *txn) publishChange(w *work, list []campaign.Event) {
	for _, e := range list {
		counts := e.Type == veredusv1.FeedbackType_FEEDBACK_TYPE_STARTED || e.Type == veredusv1.FeedbackType_FEEDBACK_TYPE_CANCELLED
		if counts && e.Count == 0 {
			e.Count = w.moved
		}
		t.deliveryEvent(w, e, t.now)
	}
	t.finishIfDone(w, t.now)
}

// finishIfDone makes a bulk delivery with nothing left in the relay Finished.
func (t *txn) finishIfDone(w *work, at time.Time) bool {
	if w.state.Transactional || !w.state.active() || w.state.Counters.InRelay != 0 {
		return false
	}
	w.state.State, w.state.Finished = campaign.Finished, at
	w.record = true
	t.touch(w)
	t.deliveryEvent(w, campaign.Event{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_FINISHED}, at)
	return true
}

// Delete removes a delivery with all its rows. The rows of the indexes by address and
// recipient_id follow in the background; look-ups pass over them.
func (s *Store) Delete(ctx context.Context, id string, req campaign.Request, may func(*campaign.Delivery) error) error {
	return s.submit(ctx, func(t *txn) error {
		if r, err := s.findRequest(req.ID, req.Method, req.Body); err != nil || r != nil {
			return err
		}
		w, err := t.byID(id)
		if err != nil {
			return err
		}
		d := w.state.export(nil)
		if err := may(d); err != nil {
			return err
		}
		if err := t.remove(w); err != nil {
			return err
		}
		return t.rememberDelivery(req, d)
	})
}

func (t *txn) remove(w *work) error {
	no, scope := w.state.No, w.state.scope()
	t.touch(w)
	w.deleted, t.kick = true, true
	t.delete(keyName(tableDeliveryID, w.state.ID))
	for _, table := range []byte{tableDelivery, tableActive, tableTotals} {
		t.delete(key8(table, no))
	}
	t.delete(key8(tableContent, w.state.Content))
	t.deletePrefix(key8(tableByDestination, no))
	for _, table := range messageTables {
		t.deletePrefix(scope.all(table))
	}
	if w.state.Transactional {
		t.delete(transactionalKey(scope.tenant))
	}
	t.set(key8(tableTrash, no), number64(uint64(scope.tenant)))
	return t.removeHandovers(w)
}

// removeHandovers removes a delivery's hand-overs with what is claimed of them.
func (t *txn) removeHandovers(w *work) error {
	handovers := []uint64{w.state.Handover}
	standing := key8(tableStanding, w.state.No)
	err := t.s.scan(nil, standing, after(standing), func(_, v []byte) (bool, error) {
		handovers = append(handovers, be64(v))
		return true, nil
	})
	t.deletePrefix(standing)
	for _, h := range handovers {
		t.gone[h] = true
		t.delete(key8(tableHandover, h))
	}
	for claimed := range t.s.claims {
		if t.gone[claimed.Handover] {
			t.endClaim(claimed)
		}
	}
	return err
}

// Changed returns a channel that is closed at the next change of the delivery's
// state or counters, once that is durable.
func (s *Store) Changed(id string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.watchers[id]
	if c == nil {
		c = make(chan struct{})
		s.watchers[id] = c
	}
	return c
}
