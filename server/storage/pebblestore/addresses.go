package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
)

// Exclusions tells for each query what the entries of its address say now. It reads
// outside the applier: any number of calls run side by side. What it reads may not be
// synced yet, but every write that follows from the answer comes behind it in the log,
// so that neither survives without the other.
func (s *Store) Exclusions(ctx context.Context, queries []address.Query) ([]address.Exclusion, error) {
	answers := make([]address.Exclusion, len(queries))
	if s.entryCount.Load() == 0 || len(queries) == 0 {
		return answers, ctx.Err()
	}
	asked := s.mayHaveEntries(queries)
	if len(asked) == 0 {
		return answers, ctx.Err()
	}
	r, err := newEntryReader(s.db)
	if err != nil {
		return nil, err
	}
	policy, now := s.opts.Policy(), s.opts.Now()
	for _, a := range asked {
		q := &queries[a.index]
		var list []address.Entry
		if err = ctx.Err(); err == nil {
			list, err = r.entries(q.Folded, a.hash, func(scope []byte) bool { return covered(scope, q) })
		}
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		if len(list) > 0 {
			answers[a.index] = address.Decide(list, *q, policy, now)
		}
	}
	return answers, r.close()
}

// asked is a query whose address may have entries.
type asked struct {
	index int
	hash  [hashSize]byte
}

// mayHaveEntries are the queries to look up, in the order in which their entries lie: those that
// are near each other are in the same blocks.
func (s *Store) mayHaveEntries(queries []address.Query) (list []asked) {
	for i := range queries {
		if h := hashOf(queries[i].Folded); s.entryFilter.mayHave(h) {
			list = append(list, asked{i, h})
		}
	}
	slices.SortFunc(list, func(a, b asked) int { return bytes.Compare(a.hash[:], b.hash[:]) })
	return list
}

// AddressEntries reads the entries of one address in every scope, ordered by scope. A counter that
// time has cleared is left out.
func (s *Store) AddressEntries(ctx context.Context, folded string) ([]address.Entry, error) {
	if err := s.awaitApplied(ctx); err != nil {
		return nil, err
	}
	r, err := newEntryReader(s.db)
	if err != nil {
		return nil, err
	}
	list, err := r.entries(folded, hashOf(folded), nil)
	policy, now := s.opts.Policy(), s.opts.Now()
	list = slices.DeleteFunc(list, func(e address.Entry) bool { return e.Expired(policy, now) })
	return list, errors.Join(err, r.close())
}

// awaitApplied waits until everything applied so far is durable.
func (s *Store) awaitApplied(ctx context.Context) error {
	s.mu.RLock()
	number := s.writer.applied
	s.mu.RUnlock()
	return s.writer.await(ctx, number)
}

// ListAddressEntries reads up to limit entries that the filter keeps, in the order of
// their addresses' hashes. It reads at most maxRowsRead rows.
func (s *Store) ListAddressEntries(ctx context.Context, f address.Filter, cursor []byte, limit int) (page []address.Entry, following []byte, err error) {
	if err := s.awaitApplied(ctx); err != nil {
		return nil, nil, err
	}
	l := entryLister{s: s, filter: &f, limit: limit, policy: s.opts.Policy(), now: s.opts.Now()}
	prefix := []byte{tableEntry}
	if f.Domain != "" {
		prefix = entryDomain(f.Domain)
		l.skip = len(prefix)
	} else {
		l.skip = 1
	}
	lower := prefix
	if len(cursor) != 0 {
		lower = next(append(bytes.Clone(prefix), cursor...))
	}
	snapshot := s.db.NewSnapshot()
	defer snapshot.Close()
	err = s.scan(snapshot, lower, after(prefix), func(k, row []byte) (bool, error) {
		if l.read >= maxRowsRead || len(l.page) >= l.limit {
			l.more = true
			return false, ctx.Err()
		}
		if k[0] == tableEntryOf {
			if row, err = get(snapshot, append([]byte{tableEntry}, k[l.skip:]...)); err != nil || row == nil {
				return row == nil, err
			}
		}
		return true, l.take(k[l.skip:], row)
	})
	if err != nil || !l.more {
		return l.page, nil, err
	}
	return l.page, l.cursor, nil
}

// entryLister gathers a page of entries.
type entryLister struct {
	s      *Store
	filter *address.Filter
	policy address.Policy
	now    time.Time
	limit  int
	skip   int // octets of a key in front of the hash
	read   int
	page   []address.Entry
	cursor []byte
	more   bool
}

func (l *entryLister) take(place, row []byte) error {
	l.read++
	l.cursor = append(l.cursor[:0], place...)
	e, err := decodeEntry(append([]byte{tableEntry}, place...), row)
	if err == nil && l.filter.Keeps(e) && !e.Expired(l.policy, l.now) {
		l.page = append(l.page, *e)
	}
	return err
}

// ChangeAddressEntries applies change to the entry of each key, in one atomic write.
// When the audit event is written and all entries changed are of one tenant, the event is that tenant's.
func (s *Store) ChangeAddressEntries(ctx context.Context, keys []address.Key, req address.Request, audit string, change func(address.Entry) address.Entry) (answer []address.Entry, err error) {
	if len(keys) > address.MaxWrite {
		return nil, fmt.Errorf("pebblestore: %d address entries in one write: give at most %d", len(keys), address.MaxWrite)
	}
	for i := range keys {
		if err := checkKey(&keys[i]); err != nil {
			return nil, err
		}
	}
	err = s.submit(ctx, func(t *txn) error {
		r, err := t.s.addressRequest(req)
		if err != nil {
			return err
		}
		if r != nil {
			answer, err = decodeAnswer(keys, r.entries)
			return err
		}
		if answer, err = t.changeEntries(keys, audit, change); err != nil || req.ID == "" {
			return err
		}
		return t.remember(req.ID, requestRow{
			method: req.Method, body: req.Body[:], answer: []byte(req.Answer), entries: encodeAnswer(answer),
		})
	})
	return answer, err
}

// addressRequest is the trace of an earlier call; nil when there is none.
func (s *Store) addressRequest(req address.Request) (*requestRow, error) {
	r, err := s.findRequest(req.ID, req.Method, req.Body)
	if errors.Is(err, campaign.ErrRequestIDReused) {
		err = fmt.Errorf("request_id %.128q: %w", req.ID, address.ErrRequestIDReused)
	}
	return r, err
}

// encodeAnswer renders the entries of a call, in order; one that does not exist is an empty row.
func encodeAnswer(list []address.Entry) (b []byte) {
	for i := range list {
		var row []byte
		if list[i].Status != 0 {
			row = encodeEntry(&list[i])
		}
		b = protowire.AppendBytes(b, row)
	}
	return b
}

func decodeAnswer(keys []address.Key, b []byte) (list []address.Entry, err error) {
	for i := 0; len(b) > 0; i++ {
		row, n := protowire.ConsumeBytes(b)
		if n < 0 || i >= len(keys) {
			return nil, corrupt(errors.New("answer of a request"))
		}
		e, err := decodeEntryRow(row)
		if err != nil {
			return nil, err
		}
		e.Key = keys[i]
		list, b = append(list, *e), b[n:]
	}
	return list, nil
}

// changeEntries changes entries, and tells of it where audit says how.
func (t *txn) changeEntries(keys []address.Key, audit string, change func(address.Entry) address.Entry) ([]address.Entry, error) {
	var changed []*entryWork
	count := int64(0)
	event := ""
	if audit != "" {
		event = t.s.eventID(t.nextEvent)
	}
	for _, k := range keys {
		e, err := t.entry(k)
		if err != nil {
			return nil, err
		}
		n := change(cloneEntry(e.entry))
		stamp(n.Evidence, e.entry.Evidence, event)
		if t.putEntry(e, n) {
			count++
			changed = append(changed, e)
		}
	}
	if count > 0 && audit != "" {
		t.event(&veredusv1.FeedbackEvent{
			Time: timestamp(t.now), Type: veredusv1.FeedbackType_FEEDBACK_TYPE_ADDRESSES_CHANGED,
			Tenant: commonTenant(changed), Count: count, Text: capText(audit),
		})
	}
	answer := make([]address.Entry, len(keys))
	for i, k := range keys {
		e, err := t.entry(k)
		if err != nil {
			return nil, err
		}
		answer[i] = cloneEntry(e.entry)
	}
	return answer, nil
}

// stamp names the event as the cause of evidence that is new and names none.
func stamp(list, before []address.Evidence, event string) {
	for i := range list {
		if list[i].Event == "" && !slices.Contains(before, list[i]) {
			list[i].Event = event
		}
	}
}

// commonTenant is the tenant that all entries belong to; empty when there is no one tenant.
func commonTenant(list []*entryWork) string {
	tenant := list[0].entry.Scope.Tenant
	for _, e := range list {
		if e.entry.Scope.Tenant != tenant {
			return ""
		}
	}
	return validText(tenant)
}

func cloneEntry(e address.Entry) address.Entry {
	e.Evidence = slices.Clone(e.Evidence)
	return e
}

// entryWork is an address entry as an operation makes it.
type entryWork struct {
	entry   address.Entry // Status 0: none
	row     []byte        // as it will be stored; nil: none
	changed bool
	existed bool // before the operation
}

// entriesOf finds the entries of an address in every scope. It costs next to nothing
// when there are none.
func (t *txn) entriesOf(folded string) ([]*entryWork, error) {
	if list, ok := t.entries[folded]; ok {
		return list, nil
	}
	if t.s.entryCount.Load() == 0 { // those of this operation are in t.entries
		return nil, nil
	}
	hash := hashOf(folded)
	if !t.s.entryFilter.mayHave(hash) {
		return nil, nil
	}
	if t.reader == nil {
		var err error
		if t.reader, err = newEntryReader(t.s.db); err != nil {
			return nil, err
		}
	}
	stored, err := t.reader.entries(folded, hash, nil)
	if err != nil || len(stored) == 0 {
		return nil, err
	}
	var list []*entryWork
	policy := t.s.opts.Policy()
	for i := range stored {
		e := &entryWork{entry: address.Entry{Key: stored[i].Key}, existed: true}
		if !stored[i].Expired(policy, t.now) { // else it is as if it were gone
			e.entry, e.row = stored[i], encodeEntry(&stored[i])
		}
		list = append(list, e)
	}
	t.keepEntries(folded, list)
	return list, nil
}

// closeReader lets go of what looking addresses up held.
func (t *txn) closeReader() {
	if t.reader != nil {
		t.keep(t.reader.close())
	}
}

func (t *txn) keepEntries(folded string, list []*entryWork) {
	if t.entries == nil {
		t.entries = map[string][]*entryWork{}
	}
	t.entries[folded] = list
}

// entry finds one entry; with Status 0 when there is none.
func (t *txn) entry(k address.Key) (*entryWork, error) {
	list, err := t.entriesOf(k.Folded)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if e.entry.Scope == k.Scope {
			return e, nil
		}
	}
	e := &entryWork{entry: address.Entry{Key: k}}
	t.keepEntries(k.Folded, append(list, e))
	return e, nil
}

// putEntry makes n the entry, and reports whether that changes anything. Status 0 deletes it.
func (t *txn) putEntry(e *entryWork, n address.Entry) (changed bool) {
	n.Key = e.entry.Key
	if n.Status == 0 {
		n = address.Entry{Key: n.Key}
	} else if n.Created.IsZero() {
		n.Created = t.now
	}
	var row []byte
	if n.Status != 0 {
		row = encodeEntry(&n)
	}
	if bytes.Equal(row, e.row) {
		return false
	}
	if !e.changed {
		e.changed = true
		t.entryOrder = append(t.entryOrder, e)
	}
	e.entry, e.row = n, row
	return true
}

// installEntries makes the entries that the operation added known.
func (t *txn) installEntries() {
	t.s.entryCount.Store(t.entryCount)
	for _, e := range t.entryOrder {
		if e.row != nil && !e.existed {
			t.s.entryFilter.add(hashOf(e.entry.Folded))
		}
	}
}

// flushEntries puts the rows of changed entries into the batch.
func (t *txn) flushEntries() {
	count := t.s.entryCount.Load()
	t.entryCount = count
	for _, e := range t.entryOrder {
		k := entryKey(&e.entry.Key)
		index := entryOfKey(domainOf(e.entry.Folded), k)
		switch exists := e.row != nil; {
		case exists:
			t.set(k, e.row)
			if !e.existed {
				t.set(index, nil)
				t.entryCount++
			}
		case e.existed:
			t.delete(k)
			t.delete(index)
			t.entryCount--
		}
	}
	if added := t.entryCount - count; added > 0 {
		t.keep(t.clearCounters(min(clearPerEntry*int(added), maxCleared)))
	}
	if t.entryCount != count {
		t.set(metaEntries, number64(uint64(t.entryCount)))
	}
}

// Each entry added makes the store look at the next few, all around the table again and
// again, and remove the counters that time has cleared: nobody sees those any more, but
// they would gather on the disk for ever.
const (
	clearPerEntry = 4
	maxCleared    = 64 // in one write
)

func (t *txn) clearCounters(rows int) error {
	policy := t.s.opts.Policy()
	lower := t.s.nextCounter
	if lower == nil {
		lower = []byte{tableEntry}
	}
	var last []byte
	err := t.s.scan(nil, lower, after([]byte{tableEntry}), func(k, row []byte) (bool, error) {
		e, err := decodeEntry(k, row)
		if err != nil {
			return false, err
		}
		if e.Expired(policy, t.now) && !t.changes(&e.Key) {
			key := bytes.Clone(k)
			t.delete(key)
			t.delete(entryOfKey(domainOf(e.Folded), key))
			t.entryCount--
		}
		last = next(k)
		rows--
		return rows > 0, nil
	})
	if rows > 0 {
		last = nil // the end: begin anew
	}
	t.s.nextCounter = last
	return err
}

// changes reports whether the operation writes an entry.
func (t *txn) changes(k *address.Key) bool {
	return slices.ContainsFunc(t.entries[k.Folded], func(e *entryWork) bool { return e.changed && e.entry.Key == *k })
}
