package pebblestore

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

// maxCachedDeliveries is how many deliveries that neither run nor are paused stay in memory.
const maxCachedDeliveries = 256

// deliveryState is a delivery in memory, as of the last operation applied. Spec
// has no content and is never changed, only replaced; so are the entries of
// Counters.By.
type deliveryState struct {
	campaign.Delivery
	tenant  uint32
	domains uint32    // last number given in its directory of domains
	purged  time.Time // when its content and messages were removed
	number  uint64    // last operation that changed it
	used    uint64    // for eviction
}

func (d *deliveryState) scope() scope { return scope{tenant: d.tenant, delivery: d.No} }

// active reports whether the relay may have work with it.
func (d *deliveryState) active() bool {
	return d.State == campaign.Running || d.State == campaign.Paused
}

// export is a copy for callers.
func (d *deliveryState) export(content *veredusv1.Content) *campaign.Delivery {
	n := d.Delivery
	n.Spec = proto.Clone(d.Spec).(*veredusv1.Delivery)
	n.Spec.Content = content
	n.Counters = d.Counters.Clone()
	return &n
}

// deliveryCache holds deliveries by number. Active ones stay. Guarded by Store.mu.
type deliveryCache struct {
	byNo       map[uint64]*deliveryState
	byHandover map[uint64]uint64 // kept when the delivery goes; numbers are never used again
	tick       uint64
}

func newDeliveryCache() deliveryCache {
	return deliveryCache{byNo: map[uint64]*deliveryState{}, byHandover: map[uint64]uint64{}}
}

func (c *deliveryCache) get(no uint64) *deliveryState {
	d := c.byNo[no]
	if d != nil {
		c.tick++
		d.used = c.tick
	}
	return d
}

func (c *deliveryCache) put(d *deliveryState) {
	c.tick++
	d.used = c.tick
	c.byNo[d.No] = d
	c.evict()
}

func (c *deliveryCache) drop(d *deliveryState) {
	delete(c.byNo, d.No)
}

// evict drops the longest unused inactive deliveries, a quarter of them at a time.
func (c *deliveryCache) evict() {
	if len(c.byNo) <= maxCachedDeliveries {
		return
	}
	var idle []*deliveryState
	for _, d := range c.byNo {
		if !d.active() {
			idle = append(idle, d)
		}
	}
	if len(idle) <= maxCachedDeliveries {
		return
	}
	slices.SortFunc(idle, func(a, b *deliveryState) int { return int(int64(a.used - b.used)) })
	for _, d := range idle[:len(idle)-maxCachedDeliveries*3/4] {
		c.drop(d)
	}
}

// install takes over what an operation made of a delivery.
func (c *deliveryCache) install(w *work, number uint64) {
	if w.deleted {
		c.drop(&w.state)
		return
	}
	by := w.state.Counters.By
	if by == nil && len(w.by) > 0 {
		by = map[string]*campaign.DestinationCounters{}
		w.state.Counters.By = by
	}
	maps.Copy(by, w.by)
	d := c.byNo[w.state.No]
	if d == nil {
		d = &deliveryState{}
		*d = w.state
		d.number = number
		c.put(d)
		return
	}
	used := d.used
	*d = w.state
	d.number, d.used = number, used
}

// delivery finds a delivery's state, reading it when needed; nil when there is
// none. Store.mu must be held for writing.
func (s *Store) delivery(no uint64) (*deliveryState, error) {
	if d := s.cache.get(no); d != nil {
		return d, nil
	}
	d, err := s.readDelivery(no)
	if err != nil || d == nil {
		return nil, err
	}
	d.number = s.writer.applied
	s.cache.put(d)
	return d, nil
}

// maxCachedHandovers bounds deliveryCache.byHandover.
const maxCachedHandovers = 10_000

// numberOf finds a delivery's number by its hand-over, 0 when there is none.
// Store.mu must be held for writing.
func (s *Store) numberOf(handover uint64) (uint64, error) {
	if no, ok := s.cache.byHandover[handover]; ok {
		return no, nil
	}
	row, err := s.get(key8(tableHandover, handover))
	if err != nil || row == nil {
		return 0, err
	}
	if len(s.cache.byHandover) >= maxCachedHandovers {
		clear(s.cache.byHandover)
	}
	no := be64(row)
	s.cache.byHandover[handover] = no
	return no, nil
}

// readDelivery reads a delivery with its counters from its rows.
func (s *Store) readDelivery(no uint64) (*deliveryState, error) {
	row, err := s.get(key8(tableDelivery, no))
	if err != nil || row == nil {
		return nil, err
	}
	d, err := decodeDelivery(row)
	if err != nil {
		return nil, err
	}
	d.No = no
	if row, err = s.get(key8(tableTotals, no)); err != nil {
		return nil, err
	}
	if d.Counters, err = decodeTotals(row); err != nil {
		return nil, err
	}
	if d.domains, err = decodeDomains(row); err != nil {
		return nil, err
	}
	d.Counters.By = map[string]*campaign.DestinationCounters{}
	prefix := key8(tableByDestination, no)
	err = s.scan(nil, prefix, after(prefix), func(k, v []byte) (bool, error) {
		by, err := decodeDestination(v)
		d.Counters.By[string(k[len(prefix):])] = by
		return true, err
	})
	return d, err
}

// fieldDomains is the field of a totals row with the size of the directory.
const fieldDomains = 30

func decodeDomains(row []byte) (n uint32, err error) {
	err = readRow(row, func(field protowire.Number, v value) error {
		if field == fieldDomains {
			n = uint32(v.n)
		}
		return nil
	})
	return n, err
}

func (d *deliveryState) encode() ([]byte, error) {
	spec, err := proto.MarshalOptions{Deterministic: true}.Marshal(d.Spec)
	if err != nil {
		return nil, fmt.Errorf("pebblestore: delivery %s: %w", d.ID, err)
	}
	b := putString(nil, 1, d.ID)
	b = putBytes(b, 2, spec)
	b = putBool(b, 3, d.Transactional)
	b = putUint(b, 4, uint64(d.State))
	b = putUint(b, 5, d.Content)
	b = putUint(b, 6, d.Handover)
	b = putUint(b, 7, uint64(d.tenant))
	for i, t := range []time.Time{d.Created, d.Updated, d.Started, d.Expires, d.Finished} {
		b = putTime(b, protowire.Number(8+i), t)
	}
	b = putBytes(b, 13, encodeProtection(&d.Protection))
	return putTime(b, 14, d.purged), nil
}

func decodeDelivery(row []byte) (*deliveryState, error) {
	d := &deliveryState{}
	d.Spec = &veredusv1.Delivery{}
	times := []*time.Time{&d.Created, &d.Updated, &d.Started, &d.Expires, &d.Finished}
	err := readRow(row, func(field protowire.Number, v value) (err error) {
		switch field {
		case 1:
			d.ID = v.string()
		case 2:
			err = proto.Unmarshal(v.bytes, d.Spec)
		case 3:
			d.Transactional = v.bool()
		case 4:
			d.State = campaign.State(v.n)
		case 5:
			d.Content = v.n
		case 6:
			d.Handover = v.n
		case 7:
			d.tenant = uint32(v.n)
		case 8, 9, 10, 11, 12:
			*times[field-8] = v.time()
		case 13:
			d.Protection, err = decodeProtection(v.bytes)
		case 14:
			d.purged = v.time()
		}
		return err
	})
	return d, err
}

// work is a delivery as one operation makes it.
type work struct {
	state   deliveryState
	by      map[string]*campaign.DestinationCounters // destinations changed
	added   int                                      // of these, new ones
	record  bool                                     // its row is to be written
	counted bool                                     // its counters are to be written
	touched bool
	deleted bool
	moved   int64     // messages that a change of state moved
	latest  time.Time // of the settlements
}

// load finds a delivery for an operation; nil when there is none.
func (t *txn) load(no uint64) (*work, error) {
	if w := t.deliveries[no]; w != nil {
		if w.deleted {
			return nil, nil
		}
		return w, nil
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	d, err := t.s.delivery(no)
	if err != nil || d == nil {
		return nil, err
	}
	w := &work{state: *d, by: map[string]*campaign.DestinationCounters{}}
	w.state.Counters.Ignored = maps.Clone(d.Counters.Ignored)
	w.state.Counters.FailedBy = maps.Clone(d.Counters.FailedBy)
	t.keepWork(w)
	return w, nil
}

func (t *txn) keepWork(w *work) {
	t.deliveries[w.state.No] = w
	t.order = append(t.order, w)
}

// byID finds a delivery by its id: campaign.ErrNotFound when there is none.
func (t *txn) byID(id string) (*work, error) {
	no, err := t.s.readNumber(keyName(tableDeliveryID, id))
	if err != nil {
		return nil, err
	}
	w, err := t.load(no)
	if err == nil && (no == 0 || w == nil) {
		err = notFound(id)
	}
	return w, err
}

func notFound(id string) error { return &campaign.NotFoundError{Resource: "deliveries/" + id} }

// byHandover finds a delivery by its hand-over; nil when it is gone.
func (t *txn) byHandover(handover uint64) (*work, error) {
	t.s.mu.Lock()
	no, err := t.s.numberOf(handover)
	t.s.mu.Unlock()
	if err != nil || no == 0 {
		return nil, err
	}
	return t.load(no)
}

// counters are a delivery's figures, to be changed.
func (t *txn) counters(w *work) *campaign.Counters {
	w.counted = true
	t.touch(w)
	return &w.state.Counters
}

// destination are the figures of a destination, to be changed.
func (t *txn) destination(w *work, name string) *campaign.DestinationCounters {
	w.counted = true
	if d := w.by[name]; d != nil {
		return d
	}
	d := w.state.Counters.By[name]
	switch {
	case d != nil:
		d = d.Clone()
	case name != campaign.OtherDestination && len(w.state.Counters.By)+w.added >= campaign.MaxDestinations-1:
		return t.destination(w, campaign.OtherDestination)
	default:
		d = &campaign.DestinationCounters{FailedBy: map[int32]int64{}}
		w.added++
	}
	w.by[name] = d
	return d
}

// flushDeliveries puts the rows of changed deliveries into the batch.
func (t *txn) flushDeliveries() {
	for _, w := range t.order {
		if w.deleted {
			continue
		}
		no := w.state.No
		if w.record {
			row, err := w.state.encode()
			t.keep(err)
			t.set(key8(tableDelivery, no), row)
			t.flushActive(w)
		}
		if w.counted {
			row := encodeTotals(nil, &w.state.Counters)
			t.set(key8(tableTotals, no), putUint(row, fieldDomains, uint64(w.state.domains)))
			for name, d := range w.by {
				t.set(append(key8(tableByDestination, no), name...), encodeDestination(nil, d))
			}
		}
	}
}

func (t *txn) flushActive(w *work) {
	if w.state.active() {
		t.set(key8(tableActive, w.state.No), nil)
	} else {
		t.delete(key8(tableActive, w.state.No))
	}
}

// tenant is the number of a tenant, given at its first delivery.
func (t *txn) tenant(name string) (uint32, error) {
	if name == "" {
		name = campaign.DefaultTenant
	}
	no, err := t.s.readNumber(keyName(tableTenant, name))
	if err != nil {
		return 0, err
	}
	if no == 0 {
		t.seq.tenant++
		no = t.seq.tenant
		t.set(keyName(tableTenant, name), binary.BigEndian.AppendUint64(nil, no))
	}
	return uint32(no), nil
}

// field reads one field of the row of sequences.
func (q *sequences) field(field protowire.Number, v value) error {
	switch field {
	case 1:
		q.delivery = v.n
	case 2:
		q.handover = v.n
	case 3:
		q.content = v.n
	case 4:
		q.tenant = v.n
	}
	return nil
}

// view is a delivery without content and destinations, for reading rows that belong to it.
func (s *Store) view(id string) (*deliveryState, error) {
	no, err := s.readNumber(keyName(tableDeliveryID, id))
	if err != nil {
		return nil, err
	}
	d, err := s.viewNumber(no)
	if err == nil && d == nil {
		err = notFound(id)
	}
	return d, err
}

// viewNumber is a view by number; nil when the delivery is gone.
func (s *Store) viewNumber(no uint64) (*deliveryState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.delivery(no)
	if err != nil || d == nil {
		return nil, err
	}
	v := *d
	v.Counters.By = nil
	return &v, nil
}

// viewHandover is a view by hand-over; nil when the delivery is gone.
func (s *Store) viewHandover(handover uint64) (*deliveryState, error) {
	s.mu.Lock()
	no, err := s.numberOf(handover)
	s.mu.Unlock()
	if err != nil || no == 0 {
		return nil, err
	}
	return s.viewNumber(no)
}

// settledView is a view that is durable.
func (s *Store) settledView(ctx context.Context, id string) (*deliveryState, error) {
	d, err := s.view(id)
	if err != nil {
		return nil, err
	}
	return d, s.writer.await(ctx, d.number)
}
