package pebblestore

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
)

// How writes go.
//
// One goroutine, the applier, takes operations in order. Each builds its own batch
// from what it reads, sees all that came before it, and is applied to the database
// without waiting for the disk; then the state in memory changes with it. A
// failed operation leaves neither batch nor state behind. A second goroutine, the
// finisher, waits for the syncs in the same order, and only then makes events
// readable, wakes watchers and answers. While one sync runs, the applier works on, and the
// next sync covers all that gathered meanwhile: a group commit without a timer.
//
// The log on disk holds the batches in order. So what survives a power loss is
// always all operations up to some point, which is never before an answer given.
//
// Readers of deliveries see the state in memory, and wait until the last operation
// that touched it is durable. That is why nothing that could be lost is ever shown.

const (
	maxQueued   = 256  // operations waiting to be applied
	maxUnsynced = 1024 // operations applied and not synced; Pebble allows 4095

	maxUnsyncedBytes = 16 << 20 // octets applied and not synced, but for one operation
)

// operation is one atomic write.
type operation struct {
	apply func(*txn) error
	done  chan error
}

// applied is an operation on its way to the disk.
type applied struct {
	op      operation
	err     error // what apply said; then there is nothing to sync
	batch   *pebble.Batch
	size    int64
	number  uint64
	events  uint64 // next event's sequence behind it
	told    []feedback.Record
	changed []string
}

// writer owns the two goroutines.
type writer struct {
	queue    chan operation
	unsynced chan applied
	finished sync.WaitGroup

	unsyncedBytes atomic.Int64

	mu     sync.RWMutex // held for reading while sending to queue
	closed bool

	applied uint64 // number of the last operation applied; guarded by Store.mu

	durable struct {
		sync.Mutex
		number  uint64
		failed  error
		waiting chan struct{} // closed at the next step
	}
}

func (w *writer) start(s *Store) {
	w.queue = make(chan operation, maxQueued)
	w.unsynced = make(chan applied, maxUnsynced)
	w.durable.waiting = make(chan struct{})
	w.finished.Add(2)
	go func() {
		defer w.finished.Done()
		defer close(w.unsynced)
		for op := range w.queue {
			a := s.apply(op)
			size := w.unsyncedBytes.Add(a.size)
			w.unsynced <- a
			if size > maxUnsyncedBytes {
				_ = w.await(context.Background(), a.number)
			}
		}
	}()
	go func() {
		defer w.finished.Done()
		for a := range w.unsynced {
			s.finish(a)
			w.unsyncedBytes.Add(-a.size)
		}
	}()
}

// stop waits for all that was submitted; false when it was stopped already.
func (w *writer) stop() bool {
	w.mu.Lock()
	closed := w.closed
	w.closed = true
	w.mu.Unlock()
	if closed {
		return false
	}
	close(w.queue)
	w.finished.Wait()
	return true
}

// submit has an operation applied and waits until it is durable. When the queue is
// full it waits for room until ctx ends; once taken, the operation is carried out.
func (s *Store) submit(ctx context.Context, apply func(*txn) error) error {
	op := operation{apply: apply, done: make(chan error, 1)}
	if err := s.writer.enqueue(ctx, op); err != nil {
		return err
	}
	return <-op.done
}

func (w *writer) enqueue(ctx context.Context, op operation) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return ErrClosed
	}
	select {
	case w.queue <- op:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// apply carries an operation out, up to the disk.
func (s *Store) apply(op operation) applied {
	a := applied{op: op}
	if a.err = s.writer.failure(); a.err != nil {
		return a
	}
	t := s.begin()
	if a.err = t.run(op.apply); a.err != nil || t.batch.Empty() {
		_ = t.batch.Close()
		return a
	}
	a.size = int64(t.batch.Len())
	if s.opts.unsafeNoSync {
		a.err = s.db.Apply(t.batch, pebble.NoSync)
	} else {
		a.err = s.db.ApplyNoSyncWait(t.batch, pebble.Sync)
		a.batch = t.batch
	}
	if a.err != nil {
		a.batch = nil
		s.fail(a.err)
		return a
	}
	t.install()
	a.number, a.events, a.told, a.changed = t.number, t.nextEvent, t.told, t.changed
	return a
}

// finish waits for the disk, publishes and answers.
func (s *Store) finish(a applied) {
	if a.batch != nil {
		if err := a.batch.SyncWait(); err != nil {
			a.err = fmt.Errorf("pebblestore: writing: %w", err)
			s.fail(a.err)
		} else {
			_ = a.batch.Close()
		}
	}
	if a.err == nil {
		a.err = s.writer.failure()
	}
	if a.err == nil && a.number != 0 {
		s.writer.advance(a.number)
		s.events.publish(a.told, a.events)
		s.notify(a.changed)
	}
	a.op.done <- a.err
}

// fail refuses everything from now on, and ends the process.
func (s *Store) fail(err error) {
	s.writer.refuse(fmt.Errorf("pebblestore: an earlier write failed: %w", err))
	(&logger{log: s.opts.Logger, exit: s.opts.exit}).Fatalf("%v", err)
}

func (w *writer) failure() error {
	w.durable.Lock()
	defer w.durable.Unlock()
	return w.durable.failed
}

func (w *writer) refuse(err error) {
	w.durable.Lock()
	defer w.durable.Unlock()
	if w.durable.failed == nil {
		w.durable.failed = err
		close(w.durable.waiting)
		w.durable.waiting = make(chan struct{})
	}
}

// advance says that all operations up to number are durable.
func (w *writer) advance(number uint64) {
	w.durable.Lock()
	defer w.durable.Unlock()
	w.durable.number = number
	close(w.durable.waiting)
	w.durable.waiting = make(chan struct{})
}

// await returns once the operation is durable.
func (w *writer) await(ctx context.Context, number uint64) error {
	for {
		w.durable.Lock()
		done, failed, waiting := w.durable.number >= number, w.durable.failed, w.durable.waiting
		w.durable.Unlock()
		if done || failed != nil {
			return failed
		}
		select {
		case <-waiting:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// notify wakes the watchers of deliveries.
func (s *Store) notify(deliveries []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range deliveries {
		if c := s.watchers[id]; c != nil {
			close(c)
			delete(s.watchers, id)
		}
	}
}

// txn is an operation while it is built: its batch, and the state as it will be.
// What it holds replaces the store's state once the batch was applied, or is dropped.
type txn struct {
	s      *Store
	batch  *pebble.Batch
	now    time.Time
	number uint64

	seq        sequences
	epoch      uint64
	nextEvent  uint64
	told       []feedback.Record // events, those before nextEvent
	deliveries map[uint64]*work
	order      []*work // deliveries in the order of their first touch
	runs       map[runKey]*runWork
	claims     map[mta.MessageID]*claim // nil: ended
	logs       map[mta.MessageID]*logRow
	changed    []string
	names      map[runName]runKey
	gone       map[uint64]bool // hand-overs deleted
	contents   []contentSeen
	swept      []byte                             // behind the last recipient that the sweeper removed
	unshared   []uint64                           // contents that are gone
	emptied    []uint64                           // hand-overs whose runs are gone
	begun      []uint64                           // hand-overs that got their first run
	expiries   []int64                            // of single messages that arrived
	addresses  map[uint64]map[[hashSize]byte]bool // stored, by delivery
	entries    map[string][]*entryWork            // address entries looked up, by folded address
	entryOrder []*entryWork                       // of them, those changed, in order
	entryCount int64                              // how many there will be
	reader     *entryReader                       // nil until an address is looked up
	works      map[string]int64                   // messages that operators' work changed, by its id
	pathEvents map[string][]byte                  // rows of paths that got events, by key
	kick       bool                               // wake the sweeper
	key, row   []byte                             // scratch

	err error // first failure of the batch
}

func (s *Store) begin() *txn {
	return &txn{
		s: s, batch: s.db.NewBatch(), now: s.opts.Now().UTC(), number: s.writer.applied + 1,
		seq: s.seq, epoch: s.epoch, nextEvent: s.events.applied,
		deliveries: map[uint64]*work{}, runs: map[runKey]*runWork{},
		claims: map[mta.MessageID]*claim{}, logs: map[mta.MessageID]*logRow{},
		names: map[runName]runKey{}, addresses: map[uint64]map[[hashSize]byte]bool{}, gone: map[uint64]bool{},
	}
}

// run builds the batch.
func (t *txn) run(apply func(*txn) error) error {
	defer t.closeReader()
	if err := apply(t); err != nil {
		return err
	}
	if err := t.flushRuns(); err != nil {
		return err
	}
	if err := t.flushWork(); err != nil {
		return err
	}
	t.flushDeliveries()
	t.flushEntries()
	if t.seq != t.s.seq {
		t.set(metaSequences, t.seq.encode())
	}
	if t.epoch != t.s.epoch {
		t.set(metaEpoch, binary.BigEndian.AppendUint64(nil, t.epoch))
	}
	return t.err
}

// install makes the state of memory that of the batch.
func (t *txn) install() {
	s := t.s
	s.seq, s.epoch, s.events.applied = t.seq, t.epoch, t.nextEvent
	t.installEntries()
	t.installRuns()
	t.installContents()
	if t.swept != nil {
		s.swept = t.swept
	}
	for no, hashes := range t.addresses {
		s.filters.note(no, hashes)
	}
	for _, w := range t.order {
		if w.state.State > campaign.Prepared {
			s.filters.drop(w.state.No)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writer.applied = t.number
	for _, w := range t.order {
		s.cache.install(w, t.number)
	}
	for id, c := range t.claims {
		if c == nil {
			delete(s.claims, id)
		} else {
			s.claims[id] = c
		}
	}
	for _, expires := range t.expiries {
		s.expiry.arrived(expires)
	}
	if t.kick {
		s.sweep.wake()
	}
}

func (t *txn) set(k, v []byte) { t.keep(t.batch.Set(k, v, nil)) }

func (t *txn) delete(k []byte) { t.keep(t.batch.Delete(k, nil)) }

// deletePrefix removes all rows whose key begins with k.
func (t *txn) deletePrefix(k []byte) { t.keep(t.batch.DeleteRange(k, after(k), nil)) }

func (t *txn) keep(err error) {
	if err != nil && t.err == nil {
		t.err = fmt.Errorf("pebblestore: building a write: %w", err)
	}
}

// touch notes that watchers of a delivery are to be woken.
func (t *txn) touch(w *work) {
	if !w.touched {
		w.touched = true
		t.changed = append(t.changed, w.state.ID)
	}
}
