package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"sync"
)

// sweepStep is how many recipients one step of the sweeper removes.
const sweepStep = 1000

// sweeper removes what deleted and purged deliveries left: recipients and their rows in the
// indexes, in bounded steps that take their turn among the other writes.
type sweeper struct {
	kick   chan struct{}
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func (w *sweeper) start(s *Store) {
	ctx, cancel := context.WithCancel(context.Background())
	w.kick, w.cancel = make(chan struct{}, 1), cancel
	w.wake()
	w.done.Add(1)
	go func() {
		defer w.done.Done()
		for {
			select {
			case <-w.kick:
			case <-ctx.Done():
				return
			}
			if err := s.sweepAll(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, ErrClosed) {
				s.opts.Logger.Error("removing rows of deleted deliveries", "error", err)
			}
		}
	}()
}

// wake makes the sweeper look for work. It never blocks.
func (w *sweeper) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

func (w *sweeper) stop() {
	w.cancel()
	w.done.Wait()
}

// sweepAll goes on until nothing is left.
func (s *Store) sweepAll(ctx context.Context) error {
	for {
		trash, err := s.anyTrash()
		if err != nil || trash == nil {
			return err
		}
		done := false
		err = s.submit(ctx, func(t *txn) (err error) {
			done, err = t.sweep(*trash)
			return err
		})
		if err == nil && done {
			err = s.reclaimDelivery(ctx, *trash)
		}
		if err != nil {
			return err
		}
	}
}

// anyTrash is the first delivery with something left to remove; nil when there is none.
func (s *Store) anyTrash() (found *scope, err error) {
	prefix := []byte{tableTrash}
	err = s.scan(nil, prefix, after(prefix), func(k, v []byte) (bool, error) {
		found = &scope{tenant: uint32(be64(v)), delivery: be64(k[1:])}
		return false, nil
	})
	return found, err
}

// reclaimDelivery gives back the room of a delivery's rows.
func (s *Store) reclaimDelivery(ctx context.Context, sc scope) error {
	for _, table := range append([]byte{tableRecipient}, messageTables...) {
		if err := s.reclaim(ctx, sc.all(table), after(sc.all(table))); err != nil {
			return err
		}
	}
	return nil
}

// sweep is one step: some recipients of a delivery, or its end.
func (t *txn) sweep(sc scope) (done bool, err error) {
	removed, err := t.sweepRecipients(sc)
	if err != nil || removed {
		return false, err
	}
	if removed, err = t.sweepContents(sc.delivery); err != nil || removed {
		return false, err
	}
	t.delete(key8(tableTrash, sc.delivery))
	return true, nil
}

// sweepRecipients removes the first recipients of a delivery with their index rows. It
// goes on where the last step stopped: range deletes that all began at the delivery's
// first recipient would cost the square of their number.
func (t *txn) sweepRecipients(sc scope) (removed bool, err error) {
	lower := sc.all(tableRecipient)
	if bytes.HasPrefix(t.s.swept, lower) {
		lower = t.s.swept
	}
	var last []byte
	n := 0
	err = t.s.scan(nil, lower, after(sc.all(tableRecipient)), func(k, v []byte) (bool, error) {
		id, ok := parsePlace(k)
		r, err := decodeRecipient(v)
		if err != nil || !ok {
			return false, err
		}
		t.deleteIndexes(sc.delivery, id, &r)
		last = append(last[:0], k...)
		n++
		return n < sweepStep, nil
	})
	if last != nil {
		t.swept = next(last)
		t.keep(t.batch.DeleteRange(lower, t.swept, nil))
	}
	return n > 0, err
}

// sweepContents removes contents that single messages of a deleted delivery owned.
func (t *txn) sweepContents(no uint64) (removed bool, err error) {
	prefix := key8(tableContentOf, no)
	n := 0
	err = t.s.scan(nil, prefix, after(prefix), func(k, _ []byte) (bool, error) {
		t.delete(bytes.Clone(k))
		t.delete(key8(tableContent, be64(k[9:])))
		n++
		return n < sweepStep, nil
	})
	return n > 0, err
}
