package pebblestore

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/suspend"
)

// PutSuspension stores a suspension, or gives the one of the same selector the new reason and end.
func (s *Store) PutSuspension(ctx context.Context, n suspend.Suspension, record suspend.Record, req suspend.Request) (answer suspend.Suspension, err error) {
	err = s.submit(ctx, func(t *txn) error {
		repeated, err := t.suspensionBefore(req, &answer)
		if err != nil || repeated {
			return err
		}
		list, err := t.s.suspensions()
		if err != nil {
			return err
		}
		for _, old := range list {
			if old.Selector == n.Selector {
				n.ID, n.Created = old.ID, old.Created
			}
		}
		if n.Created.IsZero() {
			n.Created = t.now
		}
		t.set(keyName(tableSuspension, n.ID), encodeSuspension(&n))
		answer = n
		t.recordSuspension(record, &n)
		return t.rememberSuspension(req, &n)
	})
	return answer, err
}

// DeleteSuspension removes a suspension by id and answers what it was.
func (s *Store) DeleteSuspension(ctx context.Context, id string, record suspend.Record, req suspend.Request) (answer suspend.Suspension, err error) {
	err = s.submit(ctx, func(t *txn) error {
		repeated, err := t.suspensionBefore(req, &answer)
		if err != nil || repeated {
			return err
		}
		row, err := t.s.get(keyName(tableSuspension, id))
		if err != nil {
			return err
		}
		if row == nil {
			return fmt.Errorf("suspension %.100q: %w", id, suspend.ErrNotFound)
		}
		if answer, err = decodeSuspension(row); err != nil {
			return err
		}
		t.delete(keyName(tableSuspension, id))
		t.recordSuspension(record, &answer)
		return t.rememberSuspension(req, &answer)
	})
	return answer, err
}

// ListSuspensions reads all suspensions, ordered by id, once they are durable.
func (s *Store) ListSuspensions(ctx context.Context) ([]suspend.Suspension, error) {
	s.mu.RLock()
	number := s.writer.applied
	s.mu.RUnlock()
	list, err := s.suspensions()
	if err != nil {
		return nil, err
	}
	return list, s.writer.await(ctx, number)
}

func (s *Store) suspensions() (list []suspend.Suspension, err error) {
	prefix := []byte{tableSuspension}
	err = s.scan(nil, prefix, after(prefix), func(_, v []byte) (bool, error) {
		n, err := decodeSuspension(v)
		list = append(list, n)
		return true, err
	})
	return list, err
}

// suspensionBefore answers a repeated call.
func (t *txn) suspensionBefore(req suspend.Request, answer *suspend.Suspension) (bool, error) {
	r, err := t.s.findRequest(req.ID, req.Method, req.Body)
	if errors.Is(err, campaign.ErrRequestIDReused) {
		return false, fmt.Errorf("request_id %.128q: %w", req.ID, suspend.ErrRequestIDReused)
	}
	if err != nil || r == nil {
		return false, err
	}
	*answer, err = decodeSuspension(r.answer)
	return true, err
}

// recordSuspension appends the event of a change.
func (t *txn) recordSuspension(record suspend.Record, n *suspend.Suspension) {
	if record != nil {
		e := record(*n)
		t.orderEvent(&e)
	}
}

func (t *txn) rememberSuspension(req suspend.Request, n *suspend.Suspension) error {
	return t.remember(req.ID, requestRow{method: req.Method, body: req.Body[:], answer: encodeSuspension(n)})
}

func encodeSuspension(n *suspend.Suspension) []byte {
	b := putString(nil, 1, n.ID)
	b = putUint(b, 2, uint64(n.Selector.Kind))
	b = putString(b, 3, n.Selector.Value)
	b = putString(b, 4, n.Reason)
	b = putTime(b, 5, n.Created)
	return putTime(b, 6, n.End)
}

func decodeSuspension(row []byte) (n suspend.Suspension, err error) {
	err = readRow(row, func(field protowire.Number, v value) error {
		switch field {
		case 1:
			n.ID = v.string()
		case 2:
			n.Selector.Kind = suspend.Kind(v.n)
		case 3:
			n.Selector.Value = v.string()
		case 4:
			n.Reason = v.string()
		case 5:
			n.Created = v.time()
		case 6:
			n.End = v.time()
		}
		return nil
	})
	return n, err
}
