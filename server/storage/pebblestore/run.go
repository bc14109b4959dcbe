package pebblestore

import (
	"container/list"
	"math"
)

// maxCachedRuns is how many runs the applier remembers, about 200 B each.
const maxCachedRuns = 20_000

type runKey struct {
	handover uint64
	domain   uint32
}

type runName struct {
	handover uint64
	name     string
}

// runCache holds the runs used last, by number and by name. Of the applier alone.
type runCache struct {
	max    int
	byKey  map[runKey]*list.Element
	byName map[runName]uint32
	recent *list.List // of *cachedRun, most recent first
}

type cachedRun struct {
	key runKey
	run run
}

func newRunCache(max int) *runCache {
	return &runCache{max: max, byKey: map[runKey]*list.Element{}, byName: map[runName]uint32{}, recent: list.New()}
}

func (c *runCache) get(k runKey) *run {
	e := c.byKey[k]
	if e == nil {
		return nil
	}
	c.recent.MoveToFront(e)
	return &e.Value.(*cachedRun).run
}

func (c *runCache) put(k runKey, r run) {
	if e := c.byKey[k]; e != nil {
		e.Value.(*cachedRun).run = r
		c.recent.MoveToFront(e)
		return
	}
	c.byKey[k] = c.recent.PushFront(&cachedRun{k, r})
	c.byName[runName{k.handover, r.name}] = k.domain
	if c.recent.Len() > c.max {
		c.remove(c.recent.Back())
	}
}

func (c *runCache) remove(e *list.Element) {
	old := c.recent.Remove(e).(*cachedRun)
	delete(c.byKey, old.key)
	delete(c.byName, runName{old.key.handover, old.run.name})
}

// forget drops the runs of a hand-over.
func (c *runCache) forget(handover uint64) {
	for e := c.recent.Front(); e != nil; {
		following := e.Next()
		if e.Value.(*cachedRun).key.handover == handover {
			c.remove(e)
		}
		e = following
	}
}

// runWork is a run as one operation makes it.
type runWork struct {
	run
	key     runKey
	scope   scope
	open    bool              // rows of tableOpen are kept
	draft   bool              // its delivery is still being filled
	before  run               // as stored
	retries map[retryRow]bool // rows of the retry list added (true) and removed
	changed bool
}

// knownRun is a run in memory; nil when it is not.
func (t *txn) knownRun(w *work, k runKey) *runWork {
	if r := t.runs[k]; r != nil {
		return r
	}
	if r := t.s.runs.get(k); r != nil {
		return t.keepRun(w, k, *r)
	}
	return nil
}

// runOf finds a run by number; nil when the directory has none.
func (t *txn) runOf(w *work, k runKey) (*runWork, error) {
	if r := t.knownRun(w, k); r != nil {
		return r, nil
	}
	row, err := t.s.get(w.state.scope().run(tableRun, k))
	if err != nil || row == nil {
		return nil, err
	}
	r, err := decodeRun(row)
	if err != nil {
		return nil, err
	}
	return t.keepRun(w, k, r), nil
}

func (t *txn) keepRun(w *work, k runKey, r run) *runWork {
	rw := &runWork{run: r, key: k, scope: w.state.scope(), open: w.state.Transactional, draft: w.draft(), before: r}
	t.runs[k] = rw
	return rw
}

// runNamed finds a run by its domain, adding it to the directory when it is new.
func (t *txn) runNamed(w *work, n runName) (*runWork, error) {
	if k, ok := t.names[n]; ok {
		return t.runOf(w, k)
	}
	if r, known := t.s.drafts.find(n); known {
		return t.draftRun(w, n, r), nil
	}
	domain, ok := t.s.runs.byName[n]
	if !ok {
		no, err := t.s.readNumber(w.state.scope().named(n))
		if err != nil {
			return nil, err
		}
		domain = uint32(no)
	}
	if domain == 0 {
		return t.newRun(w, n), nil
	}
	k := runKey{n.handover, domain}
	t.names[n] = k
	return t.runOf(w, k)
}

// draftRun finds a run of a delivery that is being filled.
func (t *txn) draftRun(w *work, n runName, r draftRun) *runWork {
	if r.domain == 0 {
		return t.newRun(w, n)
	}
	k := runKey{n.handover, r.domain}
	t.names[n] = k
	return t.keepRun(w, k, run{name: n.name, fresh: int64(r.fresh)})
}

// newRun adds a run to the directory.
func (t *txn) newRun(w *work, n runName) *runWork {
	w.state.domains++
	if w.state.domains == 1 && w.draft() {
		t.begun = append(t.begun, n.handover)
	}
	k := runKey{n.handover, w.state.domains}
	t.set(w.state.scope().named(n), number64(uint64(k.domain)))
	t.names[n] = k
	return t.keepRun(w, k, run{name: n.name})
}

// noteRetry remembers that a row of the retry list was added or removed.
func (r *runWork) noteRetry(row retryRow, added bool) {
	if r.retries == nil {
		r.retries = map[retryRow]bool{}
	}
	r.retries[row], r.changed = added, true
}

// addRetry puts a message into its run's retry list.
func (t *txn) addRetry(r *runWork, row retryRow) {
	r.deferred++
	r.noteRetry(row, true)
	t.set(r.scope.retry(r.key, row), nil)
}

// removeRetry takes a message out of its run's retry list.
func (t *txn) removeRetry(r *runWork, row retryRow) {
	r.deferred--
	r.noteRetry(row, false)
	t.delete(r.scope.retry(r.key, row))
}

// flushRuns puts the rows of changed runs into the batch.
func (t *txn) flushRuns() error {
	for _, r := range t.runs {
		if !r.changed {
			continue
		}
		var err error
		if r.nextDue, err = t.earliest(r); err != nil {
			return err
		}
		t.set(r.scope.run(tableRun, r.key), r.encode(nil))
		t.flushOpen(r)
	}
	return nil
}

// flushOpen keeps the list of a standing hand-over's runs with unfinished mail, so
// that a restart does not read every domain that it ever had.
func (t *txn) flushOpen(r *runWork) {
	was, is := r.before.fresh+r.before.deferred > 0, r.fresh+r.deferred > 0
	switch {
	case !r.open || was == is:
	case is:
		t.set(r.scope.run(tableOpen, r.key), nil)
	default:
		t.delete(r.scope.run(tableOpen, r.key))
	}
}

// earliest is when the first retry of a run is due. It reads only when the row that
// was first is gone, and then begins where that row stood: below lie nothing but
// tombstones, and stepping over hundreds of thousands of them takes tens of milliseconds.
func (t *txn) earliest(r *runWork) (int64, error) {
	if r.deferred == 0 {
		return 0, nil
	}
	least, firstGone := int64(math.MaxInt64), false
	for row, present := range r.retries {
		if present {
			least = min(least, row.due)
		} else if row.due <= r.before.nextDue {
			firstGone = true
		}
	}
	if r.before.nextDue == 0 {
		return least, nil
	}
	if !firstGone {
		return min(least, r.before.nextDue), nil
	}
	lower := r.scope.retry(r.key, retryRow{due: r.before.nextDue})
	err := t.s.scan(nil, lower, after(r.scope.run(tableRetry, r.key)), func(k, _ []byte) (bool, error) {
		row, ok := parseRetry(k)
		if present, changed := r.retries[row]; ok && (present || !changed) {
			least = min(least, row.due)
			return false, nil
		}
		return row.due < least, nil
	})
	if least == math.MaxInt64 {
		least = 0
	}
	return least, err
}

func (t *txn) installRuns() {
	for handover := range t.gone {
		t.s.runs.forget(handover)
	}
	for _, handover := range t.emptied {
		t.s.runs.forget(handover)
	}
	for k, r := range t.runs {
		if !t.gone[k.handover] && !r.draft {
			t.s.runs.put(k, r.run)
		}
	}
	t.installDrafts()
}
