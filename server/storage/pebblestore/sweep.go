package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"sync"
)

// sweepStep is how many recipients one step of the sweeper removes.
const sweepStep = 1000

// sweeper removes what deleted deliveries left in the indexes, in bounded steps that
// take their turn among the other writes.
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
		left, err := s.anyTrash()
		if err != nil || !left {
			return err
		}
		if err := s.submit(ctx, (*txn).sweep); err != nil {
			return err
		}
	}
}

func (s *Store) anyTrash() (found bool, err error) {
	prefix := []byte{tableTrash}
	err = s.scan(nil, prefix, after(prefix), func(_, _ []byte) (bool, error) {
		found = true
		return false, nil
	})
	return found, err
}

// sweep is one step: some recipients of the first deleted delivery, or its end.
func (t *txn) sweep() error {
	var trash []byte
	var sc scope
	prefix := []byte{tableTrash}
	err := t.s.scan(nil, prefix, after(prefix), func(k, v []byte) (bool, error) {
		trash, sc = bytes.Clone(k), scope{tenant: uint32(be64(v)), delivery: be64(k[1:])}
		return false, nil
	})
	if err != nil || trash == nil {
		return err
	}
	removed, err := t.sweepRecipients(sc)
	if err != nil || removed {
		return err
	}
	if removed, err = t.sweepContents(sc.delivery); err != nil || removed {
		return err
	}
	t.delete(trash)
	return nil
}

// sweepRecipients removes the first recipients of a deleted delivery with their index rows.
func (t *txn) sweepRecipients(sc scope) (removed bool, err error) {
	no := sc.delivery
	lower, upper := sc.all(tableRecipient), after(sc.all(tableRecipient))
	var last []byte
	n := 0
	err = t.s.scan(nil, lower, upper, func(k, v []byte) (bool, error) {
		id, ok := parsePlace(k)
		r, err := decodeRecipient(v)
		if err != nil || !ok {
			return false, err
		}
		hash := hashOf(r.folded)
		t.delete(addressKey(hash, no, 0))
		t.delete(addressKey(hash, no, id.Order))
		if r.recipientID != "" {
			t.delete(appendPlace(indexKey(tableRecipientID, hashOf(r.recipientID), no), id))
		}
		if !r.expires.IsZero() {
			t.delete(expiryKey(r.expires, id))
		}
		last = bytes.Clone(k)
		n++
		return n < sweepStep, nil
	})
	if last != nil {
		t.keep(t.batch.DeleteRange(lower, next(last), nil))
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
