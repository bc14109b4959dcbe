package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/operator"
)

var _ operator.Orders = (*Store)(nil)

// BeginWork stores work before anything of it is done. Its request is remembered at once,
// without an answer until EndWork.
func (s *Store) BeginWork(ctx context.Context, w operator.Work, req operator.Request) (answer []byte, found bool, err error) {
	err = s.submit(ctx, func(t *txn) error {
		r, err := t.orderBefore(req)
		if err != nil || r != nil {
			found = r != nil
			if found {
				answer = r.answer
			}
			return err
		}
		w.Request = req
		t.set(keyName(tableWork, w.ID), encodeWork(&w))
		return t.remember(req.ID, requestRow{method: req.Method, body: req.Body[:]})
	})
	return answer, found, err
}

// Works lists the work under way, the oldest first, as it is on the disk.
func (s *Store) Works(ctx context.Context) (list []operator.Work, err error) {
	s.mu.RLock()
	number := s.writer.applied
	s.mu.RUnlock()
	prefix := []byte{tableWork}
	err = s.scan(nil, prefix, after(prefix), func(_, v []byte) (bool, error) {
		w, err := decodeWork(v)
		list = append(list, w)
		return true, err
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b operator.Work) int { return a.Created.Compare(b.Created) })
	return list, s.writer.await(ctx, number)
}

// EndWork removes work, writes its event and remembers the answer.
func (s *Store) EndWork(ctx context.Context, id string, finish func(operator.Work) (operator.Event, []byte)) (w operator.Work, err error) {
	err = s.submit(ctx, func(t *txn) error {
		row, err := t.s.get(keyName(tableWork, id))
		if err != nil {
			return err
		}
		if row == nil {
			return fmt.Errorf("work %.100q: %w", id, operator.ErrNotFound)
		}
		if w, err = decodeWork(row); err != nil {
			return err
		}
		event, answer := finish(w)
		t.delete(keyName(tableWork, id))
		if event.Type != veredusv1.FeedbackType_FEEDBACK_TYPE_UNSPECIFIED {
			t.orderEvent(&event)
		}
		return t.remember(w.Request.ID, requestRow{method: w.Request.Method, body: w.Request.Body[:], answer: answer})
	})
	return w, err
}

// worked counts messages that work has changed; work that ended meanwhile counts nothing.
func (t *txn) worked(id string, n int64) error {
	if id == "" || n == 0 {
		return nil
	}
	row, err := t.s.get(keyName(tableWork, id))
	if err != nil || row == nil {
		return err
	}
	w, err := decodeWork(row)
	if err != nil {
		return err
	}
	w.Count += n
	t.set(keyName(tableWork, id), encodeWork(&w))
	return nil
}

// flushWork writes the counts of the operation, of each piece of work once.
func (t *txn) flushWork() error {
	for _, id := range slices.Sorted(maps.Keys(t.works)) {
		if err := t.worked(id, t.works[id]); err != nil {
			return err
		}
	}
	return nil
}

// countWork counts one message that work has changed.
func (t *txn) countWork(id string) {
	if id == "" {
		return
	}
	if t.works == nil {
		t.works = map[string]int64{}
	}
	t.works[id]++
}

// hurry makes a waiting retry due sooner, or later if that is said, if it waits as it did when it was read.
func (t *txn) hurry(h *mta.Hurry) error {
	id := h.Message.ID
	w, err := t.byHandover(id.Handover)
	if err != nil || w == nil || !w.state.active() || t.claimOf(id) != nil {
		return err
	}
	row, err := t.logOf(id)
	if err != nil || row == nil || row.status.final() || !row.state.Due.Equal(h.Message.State.Due) || h.Due.Equal(row.state.Due) || h.Due.After(row.state.Due) && !h.Later {
		return err
	}
	r, err := t.runOf(w, keyOf(id))
	if err != nil || r == nil {
		return err
	}
	t.removeRetry(r, retryAt(id, row.state.Due))
	row.state.Due = h.Due
	t.addRetry(r, retryAt(id, h.Due))
	t.putLog(w, id, row)
	t.touch(w)
	t.countWork(h.Work)
	return nil
}

// moveRun gives a run's mail another pool.
func (t *txn) moveRun(m *mta.Move) error {
	w, err := t.byHandover(m.Handover)
	if err != nil || w == nil || !w.state.active() {
		return err
	}
	r, err := t.runOf(w, runKey{m.Handover, m.Domain})
	if err != nil || r == nil || r.pool == m.Pool && r.instead == m.Instead {
		return err
	}
	r.pool, r.instead, r.changed = m.Pool, m.Instead, true
	if m.Work != "" && r.fresh+r.deferred > 0 {
		if t.works == nil {
			t.works = map[string]int64{}
		}
		t.works[m.Work] += r.fresh + r.deferred
	}
	return nil
}

// PutOverride stores an override, or ends one.
func (s *Store) PutOverride(ctx context.Context, o operator.Override, e operator.Event, req operator.Request) (repeated bool, err error) {
	return s.order(ctx, e, req, func(t *txn) {
		if k := overrideKey(&o); len(o.Fields) > 0 {
			t.set(k, encodeOverride(&o))
		} else {
			t.delete(k)
		}
	})
}

// Note writes an event alone.
func (s *Store) Note(ctx context.Context, e operator.Event, req operator.Request) (repeated bool, err error) {
	return s.order(ctx, e, req, func(*txn) {})
}

// order makes a change with its event, once for each request. An event without a type
// is not written.
func (s *Store) order(ctx context.Context, e operator.Event, req operator.Request, change func(*txn)) (repeated bool, err error) {
	err = s.submit(ctx, func(t *txn) error {
		r, err := t.orderBefore(req)
		if err != nil || r != nil {
			repeated = r != nil
			return err
		}
		change(t)
		if e.Type != veredusv1.FeedbackType_FEEDBACK_TYPE_UNSPECIFIED {
			t.orderEvent(&e)
		}
		return t.remember(req.ID, requestRow{method: req.Method, body: req.Body[:]})
	})
	return repeated, err
}

// orderBefore is the trace of the same request made before; nil when there is none.
func (t *txn) orderBefore(req operator.Request) (*requestRow, error) {
	r, err := t.s.findRequest(req.ID, req.Method, req.Body)
	if errors.Is(err, campaign.ErrRequestIDReused) {
		return nil, fmt.Errorf("request_id %.128q: %w", req.ID, operator.ErrRequestIDReused)
	}
	return r, err
}

// orderEvent appends the record of an order.
func (t *txn) orderEvent(e *operator.Event) {
	n := &veredusv1.FeedbackEvent{
		Time: timestamp(e.Time), Type: e.Type, Tenant: validText(e.Tenant), Source: validText(e.Source),
		Destination: validText(e.Destination), Count: e.Count, Text: capText(e.Text), NextAttemptTime: timestamp(e.Until),
		Principal: validText(e.By),
	}
	if e.Delivery != "" {
		n.Delivery = "deliveries/" + validText(e.Delivery)
	}
	switch e.Type {
	case veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_OVERRIDDEN, veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_SUSPENDED,
		veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_RESUMED:
		t.pathEvent(e.Source, e.Destination)
	}
	t.event(n)
}

// Overrides reads all overrides, by destination and source, once they are durable.
func (s *Store) Overrides(ctx context.Context) (list []operator.Override, err error) {
	s.mu.RLock()
	number := s.writer.applied
	s.mu.RUnlock()
	prefix := []byte{tableOverride}
	err = s.scan(nil, prefix, after(prefix), func(k, v []byte) (bool, error) {
		o, err := decodeOverride(v)
		destination, source, _ := bytes.Cut(k[1:], []byte{0})
		o.Destination, o.Source = string(destination), string(source)
		list = append(list, o)
		return true, err
	})
	if err != nil {
		return nil, err
	}
	return list, s.writer.await(ctx, number)
}

// overrideKey is the row of an override. Names have no NUL.
func overrideKey(o *operator.Override) []byte {
	return keyName(tableOverride, o.Destination+"\x00"+o.Source)
}

func encodeOverride(o *operator.Override) []byte {
	b := putBytes(nil, 1, encodeMetadata(o.Fields))
	b = putString(b, 2, o.Reason)
	b = putTime(b, 3, o.Created)
	return putTime(b, 4, o.End)
}

func decodeOverride(row []byte) (o operator.Override, err error) {
	err = readRow(row, func(field protowire.Number, v value) (err error) {
		switch field {
		case 1:
			o.Fields, err = decodeMetadata(v.bytes)
		case 2:
			o.Reason = v.string()
		case 3:
			o.Created = v.time()
		case 4:
			o.End = v.time()
		}
		return err
	})
	return o, err
}

func encodeWork(w *operator.Work) []byte {
	b := putString(nil, 1, w.ID)
	b = putUint(b, 2, uint64(w.Kind))
	b = putString(b, 3, w.Queue.Delivery)
	b = putString(b, 4, w.Queue.Tenant)
	b = putString(b, 5, w.Queue.Destination)
	b = putString(b, 6, w.Queue.Source)
	b = putTime(b, 7, w.Queue.Arrived)
	b = putString(b, 8, w.Pool)
	b = putString(b, 9, w.Reason)
	b = putTime(b, 10, w.Created)
	b = putInt(b, 11, w.Count)
	b = putString(b, 12, w.Request.ID)
	b = putString(b, 13, w.Request.Method)
	b = putBytes(b, 14, w.Request.Body[:])
	return putString(b, 15, w.By)
}

func decodeWork(row []byte) (w operator.Work, err error) {
	err = readRow(row, func(field protowire.Number, v value) error {
		switch field {
		case 1:
			w.ID = v.string()
		case 2:
			w.Kind = operator.Kind(v.n)
		case 3:
			w.Queue.Delivery = v.string()
		case 4:
			w.Queue.Tenant = v.string()
		case 5:
			w.Queue.Destination = v.string()
		case 6:
			w.Queue.Source = v.string()
		case 7:
			w.Queue.Arrived = v.time()
		case 8:
			w.Pool = v.string()
		case 9:
			w.Reason = v.string()
		case 10:
			w.Created = v.time()
		case 11:
			w.Count = v.int()
		case 12:
			w.Request.ID = v.string()
		case 13:
			w.Request.Method = v.string()
		case 14:
			copy(w.Request.Body[:], v.bytes)
		case 15:
			w.By = v.string()
		}
		return nil
	})
	return w, err
}
