package pebblestore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

// ignoredDomain is the domain number of ignored recipients: they are in no run.
const ignoredDomain = 0

// maxLifetime is how long the relay keeps any message at most.
const maxLifetime = 84 * time.Hour

// prepared is an item with what can be computed outside the applier.
type prepared struct {
	item   *campaign.Item
	hash   [hashSize]byte
	row    []byte
	reject []byte
}

// hashOf spreads an address or client id over the index. What is found is
// compared with the row it points to.
func hashOf(s string) (h [hashSize]byte) {
	sum := sha256.Sum256([]byte(s))
	copy(h[:], sum[:])
	return h
}

func recipientOf(i *campaign.Item) recipient {
	return recipient{
		address: i.Address, folded: i.Folded, domain: i.Domain, utf8: i.UTF8,
		variables: i.Variables, recipientID: i.RecipientID, metadata: encodeMetadata(i.Metadata),
	}
}

func prepare(items []campaign.Item) ([]prepared, error) {
	list := make([]prepared, len(items))
	size := 0
	for i := range items {
		size += len(items[i].Address) + len(items[i].Variables) + 96
	}
	rows := make([]byte, 0, size)
	for i := range items {
		p := prepared{item: &items[i]}
		if p.item.Reject != nil {
			row, err := proto.Marshal(p.item.Reject)
			if err != nil {
				return nil, fmt.Errorf("pebblestore: refused item %d: %w", p.item.Index, err)
			}
			p.reject = row
		} else {
			start := len(rows)
			r := recipientOf(p.item)
			rows = r.encode(rows)
			p.row = rows[start:len(rows):len(rows)]
			p.hash = hashOf(p.item.Folded)
		}
		list[i] = p
	}
	return list, nil
}

// Add stores a chunk of recipients: one atomic write, all of it or nothing.
func (s *Store) Add(ctx context.Context, delivery string, items []campaign.Item) (added campaign.Added, err error) {
	list, err := prepare(items)
	if err != nil {
		return added, err
	}
	err = s.submit(ctx, func(t *txn) error {
		w, err := t.byID(delivery)
		if err != nil {
			return err
		}
		added, err = t.add(w, list)
		return err
	})
	return added, err
}

func (t *txn) add(w *work, list []prepared) (added campaign.Added, err error) {
	if w.state.State > campaign.Prepared || w.state.Transactional {
		return added, &campaign.StateError{Delivery: w.state.ID, State: w.state.State, Call: "add recipients"}
	}
	last := w.state.Counters.LastIndex
	chunk := chunk{t: t, w: w, seen: make(map[[hashSize]byte]bool, len(list)), known: t.s.filter(w)}
	for i := range list {
		p := &list[i]
		if p.item.Index <= last {
			continue
		}
		if p.item.Index != last+1 {
			return added, &campaign.IndexGapError{Expected: last + 1, Got: p.item.Index}
		}
		last++
		if err := chunk.add(p); err != nil {
			return added, err
		}
	}
	added = campaign.Added{DurableIndex: last, Accepted: chunk.accepted, Ignored: int64(len(chunk.ignored)), IgnoredIndexes: chunk.ignored}
	if last == w.state.Counters.LastIndex {
		return added, nil
	}
	t.counters(w).LastIndex = last
	t.addresses[w.state.No] = chunk.seen
	if w.state.State == campaign.Prepared {
		w.state.State, w.state.Updated, w.record = campaign.Draft, t.now, true
	}
	return added, nil
}

// chunk is what one operation takes in.
type chunk struct {
	t        *txn
	w        *work
	seen     map[[hashSize]byte]bool // addresses that the operation stores
	known    *addressFilter
	accepted int64
	ignored  []int64 // indexes
}

func (c *chunk) add(p *prepared) error {
	counters := c.t.counters(c.w)
	if p.reject != nil {
		c.t.set(c.w.state.scope().reject(p.item.Index), p.reject)
		counters.Rejected++
		return nil
	}
	c.accepted++
	counters.Accepted++
	reason := p.item.Ignore
	if reason == 0 {
		double, err := c.double(p)
		if err != nil {
			return err
		}
		if double {
			reason = int32(veredusv1.FailureReason_FAILURE_REASON_DOUBLE)
		}
	}
	if reason != 0 {
		c.ignored = append(c.ignored, p.item.Index)
		c.t.ignore(c.w, p, reason, uint64(p.item.Index), c.w.state.Handover)
		return nil
	}
	counters.Pending++
	c.seen[p.hash] = true
	_, err := c.t.deliverable(c.w, p, c.w.state.Handover, uint64(p.item.Index), addressKey(p.hash, c.w.state.No, 0))
	return err
}

// double reports whether the delivery has a message to this address already.
func (c *chunk) double(p *prepared) (bool, error) {
	if c.seen[p.hash] {
		return true, nil
	}
	if !c.known.mayHave(p.hash) {
		return false, nil
	}
	return c.t.s.has(addressKey(p.hash, c.w.state.No, 0))
}

// deliverable stores a recipient in its run, under the key it keeps to the end.
func (t *txn) deliverable(w *work, p *prepared, handover, order uint64, index []byte) (mta.MessageID, error) {
	r, err := t.runNamed(w, runName{handover, p.item.Domain})
	if err != nil {
		return mta.MessageID{}, err
	}
	id := mta.MessageID{Handover: handover, Domain: r.key.domain, Lane: p.item.Lane, Order: order}
	at := mta.Position{Lane: id.Lane, Order: id.Order}
	if w.state.Transactional && (r.fresh == 0 || at.Less(r.mark)) {
		r.mark = at // the relay writes no marks here
	}
	r.fresh++
	r.changed = true
	t.recipient(w, p, id, index)
	return id, nil
}

// ignore stores a recipient that is excluded: its row says why, and it is in no run.
func (t *txn) ignore(w *work, p *prepared, reason int32, order, handover uint64) mta.MessageID {
	t.counters(w).Ignored[reason]++
	p.row = putUint(p.row, 8, uint64(reason)+1)
	id := mta.MessageID{Handover: handover, Domain: ignoredDomain, Order: order}
	t.recipient(w, p, id, addressKey(p.hash, w.state.No, order))
	return id
}

// recipient writes a recipient's rows: its data and its places in the indexes.
func (t *txn) recipient(w *work, p *prepared, id mta.MessageID, index []byte) {
	t.key = appendPlace(w.state.scope().append(t.key[:0], tableRecipient), id)
	t.set(t.key, p.row)
	t.set(index, t.key[scopeSize:])
	if p.item.RecipientID != "" {
		t.set(appendPlace(indexKey(tableRecipientID, hashOf(p.item.RecipientID), w.state.No), id), nil)
	}
}

// DurableIndex is the highest index stored.
func (s *Store) DurableIndex(ctx context.Context, delivery string) (int64, error) {
	d, number, err := s.lookup(delivery)
	if err != nil {
		return 0, err
	}
	return d.Counters.LastIndex, s.writer.await(ctx, number)
}

// Send stores one transactional message. One that is to be ignored is stored as
// such, with an event Suppressed; its id's Domain is 0 and the relay has nothing to do.
func (s *Store) Send(ctx context.Context, m campaign.Single, req campaign.Request) (h *mta.Handover, id mta.MessageID, err error) {
	err = s.submit(ctx, func(t *txn) error {
		if h, id, err = t.sentBefore(req); err != nil || h != nil {
			return err
		}
		w, err := t.standing(m.Tenant)
		if err != nil {
			return err
		}
		if h, err = t.standingHandover(w, m.Content); err != nil {
			return err
		}
		if id, err = t.send(w, &m, h.ID); err != nil {
			return err
		}
		answer := append(appendPlace(nil, id), standingName(h)...)
		return t.remember(req.ID, requestRow{method: req.Method, body: req.Body[:], delivery: w.state.ID, answer: answer})
	})
	return h, id, err
}

// sentBefore answers a repeated Send.
func (t *txn) sentBefore(req campaign.Request) (*mta.Handover, mta.MessageID, error) {
	r, err := t.s.findRequest(req.ID, req.Method, req.Body)
	if err != nil || r == nil {
		return nil, mta.MessageID{}, err
	}
	if len(r.answer) < placeSize {
		return nil, mta.MessageID{}, corrupt(errors.New("answer of a request"))
	}
	id, _ := parsePlace(r.answer[:placeSize])
	w, err := t.byID(r.delivery)
	if err != nil {
		return nil, id, err
	}
	return w.state.standing(string(r.answer[placeSize:]), id.Handover), id, nil
}

func transactionalKey(tenant uint32) []byte { return key8(tableTransactional, uint64(tenant)) }

// standingHandover is the hand-over of a transactional delivery for a sender domain
// and pool, made at the first message.
func (t *txn) standingHandover(w *work, spec *veredusv1.Delivery) (*mta.Handover, error) {
	says := campaign.Delivery{Spec: spec}
	name := standingName(says.HandOver())
	k := append(key8(tableStanding, w.state.No), name...)
	no, err := t.s.readNumber(k)
	if err != nil {
		return nil, err
	}
	if no == 0 {
		t.seq.handover++
		no = t.seq.handover
		t.set(k, number64(no))
		t.set(key8(tableHandover, no), number64(w.state.No))
	}
	return w.state.standing(name, no), nil
}

// standing is the tenant's transactional delivery, made when there is none that runs.
func (t *txn) standing(tenant string) (*work, error) {
	if tenant == "" {
		tenant = campaign.DefaultTenant
	}
	no, err := t.tenant(tenant)
	if err != nil {
		return nil, err
	}
	delivery, err := t.s.readNumber(transactionalKey(no))
	if err != nil {
		return nil, err
	}
	if w, err := t.load(delivery); err != nil || w != nil && w.state.active() {
		return w, err
	}
	id, err := t.standingID(tenant)
	if err != nil {
		return nil, err
	}
	w, err := t.create(&campaign.Delivery{
		ID: id, Transactional: true, State: campaign.Running, Started: t.now,
		Spec: &veredusv1.Delivery{Tenant: tenant, Transactional: true},
	}, no)
	if err != nil {
		return nil, err
	}
	t.set(transactionalKey(no), number64(w.state.No))
	return w, nil
}

// standingID is transactional-TENANT where that is free and not too long, else with a number.
func (t *txn) standingID(tenant string) (string, error) {
	id := "transactional-" + tenant
	taken, err := t.s.has(keyName(tableDeliveryID, id))
	if err == nil && !taken && len(id) <= 63 {
		return id, nil
	}
	return fmt.Sprintf("transactional-%d", t.seq.delivery+1), err
}

// send puts one message into the standing delivery.
func (t *txn) send(w *work, m *campaign.Single, handover uint64) (mta.MessageID, error) {
	at := m.Time
	if at.IsZero() {
		at = t.now
	}
	validity := m.Validity
	if validity <= 0 || validity > maxLifetime {
		validity = maxLifetime
	}
	content, err := t.singleContent(w, m.Content)
	if err != nil {
		return mta.MessageID{}, err
	}
	r := recipientOf(&m.Item)
	r.arrival, r.expires, r.content = at, at.Add(validity), content
	p := prepared{item: &m.Item, hash: hashOf(m.Item.Folded), row: r.encode(nil)}
	c := t.counters(w)
	c.LastIndex++
	c.Accepted++
	order := uint64(c.LastIndex)
	if m.Item.Ignore != 0 {
		id := t.ignore(w, &p, m.Item.Ignore, order, handover)
		return id, t.arrived(w, id, &r, veredusv1.FeedbackType_FEEDBACK_TYPE_SUPPRESSED, m.Item.Ignore)
	}
	id, err := t.deliverable(w, &p, handover, order, addressKey(p.hash, w.state.No, order))
	if err != nil {
		return id, err
	}
	c.InRelay++
	c.HandedOver.Add(at, 1)
	t.set(expiryKey(r.expires, id), nil)
	t.expiries = append(t.expiries, nanos(r.expires))
	return id, t.arrived(w, id, &r, veredusv1.FeedbackType_FEEDBACK_TYPE_TAKEN_INTO_ACCOUNT, 0)
}

// arrived appends the event of a single message's arrival.
func (t *txn) arrived(w *work, id mta.MessageID, r *recipient, kind veredusv1.FeedbackType, reason int32) error {
	metadata, err := decodeMetadata(r.metadata)
	if err != nil {
		return err
	}
	t.event(&veredusv1.FeedbackEvent{
		Time: timestamp(r.arrival), Type: kind, Tenant: w.tenantName(), Delivery: w.name(), Message: w.messageName(id),
		RecipientId: validText(r.recipientID), Metadata: metadata, Recipient: validText(r.address),
		Destination: validText(r.domain), Reason: veredusv1.FailureReason(reason),
	})
	return nil
}

// singleContent stores what a single message says. Messages that say the same as one
// of the last few share its content.
func (t *txn) singleContent(w *work, spec *veredusv1.Delivery) (uint64, error) {
	row, err := saysRow(&campaign.Delivery{ID: w.state.ID, Spec: spec, Transactional: true})
	if err != nil {
		return 0, err
	}
	k := contentKey{w.state.No, sha256.Sum256(row)}
	c, known := t.s.contents[k]
	if known && t.now.Sub(c.used).Abs() < sharedFor {
		return c.id, nil
	}
	if !known {
		t.seq.content++
		c.id = t.seq.content
		t.set(key8(tableContent, c.id), row)
	}
	c.used = t.now
	t.contents = append(t.contents, contentSeen{k, c})
	t.set(key88(tableContentOf, w.state.No, c.id), number64(uint64(nanos(c.used))))
	return c.id, nil
}

// contentKey names what a single message says.
type contentKey struct {
	delivery uint64
	sum      [sha256.Size]byte
}

// sharedContent is a content that single messages may share, and when its use was noted last.
type sharedContent struct {
	id   uint64
	used time.Time
}

type contentSeen struct {
	key contentKey
	sharedContent
}

// maxContents is how many contents of single messages are remembered for sharing.
const maxContents = 1000

func (t *txn) installContents() {
	for _, c := range t.contents {
		if len(t.s.contents) >= maxContents {
			clear(t.s.contents)
		}
		t.s.contents[c.key] = c.sharedContent
	}
	for _, id := range t.unshared {
		maps.DeleteFunc(t.s.contents, func(_ contentKey, c sharedContent) bool { return c.id == id })
	}
	for _, w := range t.order {
		if w.deleted {
			clear(t.s.contents)
		}
	}
}

// Rejected lists up to limit refused items behind an index, in order.
func (s *Store) Rejected(ctx context.Context, delivery string, behind int64, limit int) (list []*veredusv1.RejectedRecipient, err error) {
	scope, err := s.scopeOf(ctx, delivery)
	if err != nil || limit <= 0 {
		return nil, err
	}
	err = s.scan(nil, scope.reject(max(behind, 0)+1), after(scope.all(tableReject)), func(_, v []byte) (bool, error) {
		r := &veredusv1.RejectedRecipient{}
		if err := proto.Unmarshal(v, r); err != nil {
			return false, corrupt(err)
		}
		list = append(list, r)
		return len(list) < limit, nil
	})
	return list, err
}

// scopeOf finds a delivery's rows, and waits until what it has is durable.
func (s *Store) scopeOf(ctx context.Context, delivery string) (scope, error) {
	d, err := s.settledView(ctx, delivery)
	if err != nil {
		return scope{}, err
	}
	return d.scope(), nil
}

// Sample reads up to limit recipients spread over the delivery's deliverable ones:
// over its domains, and within each over the order they came in.
func (s *Store) Sample(ctx context.Context, delivery string, limit int) ([]campaign.Sampled, error) {
	d, err := s.settledView(ctx, delivery)
	if err != nil || limit <= 0 || d.domains == 0 || !d.purged.IsZero() {
		return nil, err
	}
	it, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: d.scope().run(tableRecipient, runKey{d.Handover, 1}),
		UpperBound: after(d.scope().handover(tableRecipient, d.Handover)),
	})
	if err != nil {
		return nil, fmt.Errorf("pebblestore: reading: %w", err)
	}
	defer it.Close()
	sample := sampler{scope: d.scope(), it: it, limit: limit, taken: map[mta.MessageID]bool{}}
	if d.Counters.Accepted > int64(limit) {
		for i := range limit {
			at := float64(i) / float64(limit) * float64(d.domains)
			domain := uint32(at)
			order := (at - float64(domain)) * float64(d.Counters.LastIndex)
			sample.seek(mta.MessageID{Handover: d.Handover, Domain: domain + 1, Order: uint64(order)})
		}
	}
	for ok := it.First(); ok && len(sample.list) < limit; ok = it.Next() {
		sample.take()
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("pebblestore: reading: %w", err)
	}
	return sample.list, sample.err
}

// sampler gathers recipients, each once.
type sampler struct {
	scope scope
	it    *pebble.Iterator
	limit int
	taken map[mta.MessageID]bool
	list  []campaign.Sampled
	err   error
}

// seek takes the first recipient from a place on.
func (s *sampler) seek(id mta.MessageID) {
	if s.it.SeekGE(s.scope.message(tableRecipient, id)) {
		s.take()
	}
}

func (s *sampler) take() {
	id, ok := parsePlace(s.it.Key())
	if !ok || s.taken[id] || s.err != nil {
		return
	}
	s.taken[id] = true
	row := append([]byte(nil), s.it.Value()...)
	r, err := decodeRecipient(row)
	if err != nil {
		s.err = err
		return
	}
	s.list = append(s.list, campaign.Sampled{Index: int64(id.Order), Address: r.address, Variables: r.variables})
}
