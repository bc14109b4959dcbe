package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

// maxRowsRead is how many rows a page of the sending log reads at most, whatever
// its filter passes over.
const maxRowsRead = 5000

// Message reads one message with its attempts. Its Delivery has no content and no
// counters by destination.
func (s *Store) Message(ctx context.Context, delivery string, id mta.MessageID) (*campaign.LogEntry, error) {
	d, err := s.settledView(ctx, delivery)
	if err != nil {
		return nil, err
	}
	var e *campaign.LogEntry
	if d.purged.IsZero() {
		e, err = s.entry(s.db, d, id)
	}
	if err == nil && e == nil {
		err = &campaign.NotFoundError{Resource: "deliveries/" + delivery + "/messages/" + id.String()}
	}
	return e, err
}

// entry reads a message's entry with its attempts; nil when there is no such message.
func (s *Store) entry(r pebble.Reader, d *deliveryState, id mta.MessageID) (*campaign.LogEntry, error) {
	row, err := get(r, d.scope().message(tableRecipient, id))
	if err != nil || row == nil {
		return nil, err
	}
	settled, err := get(r, d.scope().message(tableLog, id))
	if err != nil {
		return nil, err
	}
	return s.logEntry(d, id, row, settled, true)
}

// logEntry derives an entry from a message's rows and its delivery. What was never
// settled has no row of the log: its truth is the delivery's.
func (s *Store) logEntry(d *deliveryState, id mta.MessageID, recipientRow, settledRow []byte, attempts bool) (*campaign.LogEntry, error) {
	r, err := decodeRecipient(recipientRow)
	if err != nil {
		return nil, err
	}
	e := &campaign.LogEntry{
		Delivery: &d.Delivery, ID: id, Recipient: r.address, RecipientID: r.recipientID, Domain: r.domain,
		Arrival: d.Started, Expires: d.Expires, Updated: latest(d.Created, d.Started), Destination: r.domain,
	}
	if d.Transactional {
		e.Arrival, e.Expires, e.Updated = r.arrival, r.expires, r.arrival
	}
	if e.Metadata, err = decodeMetadata(r.metadata); err != nil {
		return nil, err
	}
	s.mu.RLock()
	c := s.claims[id]
	s.mu.RUnlock()
	if c != nil {
		e.Claimed, e.MessageID = true, c.messageID
	}
	if r.ignored != 0 {
		e.Truth, e.Reason = campaign.Ignored, r.ignored-1
		return e, nil
	}
	if settledRow == nil {
		e.Truth = unsettledTruth(d, e.Claimed)
		return e, nil
	}
	row, err := decodeLog(settledRow)
	if err != nil {
		return nil, err
	}
	return e, s.settledEntry(d, e, row, attempts)
}

// unsettledTruth is the truth of a message that was never settled.
func unsettledTruth(d *deliveryState, claimed bool) campaign.Truth {
	switch {
	case d.State == campaign.Cancelled && !claimed:
		return campaign.CancelledMessage
	case d.State < campaign.Running:
		return campaign.Pending
	}
	return campaign.InRelay
}

func (s *Store) settledEntry(d *deliveryState, e *campaign.LogEntry, row *logRow, attempts bool) error {
	e.Updated = row.updated
	e.Reason, e.FailureType = int32(row.verdict.Reason), int32(row.verdict.Type)
	e.BounceCode, e.Tag, e.Text = int32(row.verdict.Code), row.verdict.Tag, row.text
	e.AttemptCount = int32(row.state.Attempts)
	if row.destination != "" {
		e.Destination = row.destination
	}
	if row.messageID != "" {
		e.MessageID = row.messageID
	}
	switch {
	case row.status == logDelivered:
		e.Truth = campaign.Sent
	case row.status.final():
		e.Truth = campaign.Failed
	case d.State == campaign.Cancelled && !e.Claimed:
		e.Truth = campaign.CancelledMessage
	default:
		e.Truth = campaign.Deferred
		if !e.Claimed {
			e.NextAttempt = row.state.Due
		}
	}
	if attempts {
		return decodeAttempts(e, row)
	}
	return nil
}

func decodeAttempts(e *campaign.LogEntry, row *logRow) error {
	for _, raw := range row.attempts {
		a := &veredusv1.Attempt{}
		if err := proto.Unmarshal(raw, a); err != nil {
			return corrupt(err)
		}
		e.Attempts = append(e.Attempts, a)
	}
	return nil
}

// Messages lists up to limit messages of a delivery that keep wants, in the order of
// their keys. It reads at most maxRowsRead rows: a page may be short or empty with
// more behind it. The entries share their Delivery and have no attempts.
func (s *Store) Messages(ctx context.Context, delivery string, cursor []byte, limit int, keep func(*campaign.LogEntry) bool) (page []*campaign.LogEntry, following []byte, err error) {
	d, err := s.settledView(ctx, delivery)
	if err != nil {
		return nil, nil, err
	}
	if len(cursor) != 0 && len(cursor) != placeSize {
		return nil, nil, campaign.ErrBadCursor
	}
	if !d.purged.IsZero() {
		return nil, nil, nil
	}
	snapshot := s.db.NewSnapshot()
	defer snapshot.Close()
	lower := d.scope().all(tableRecipient)
	if len(cursor) != 0 {
		lower = next(append(lower, cursor...))
	}
	logs, err := snapshot.NewIter(&pebble.IterOptions{
		LowerBound: append([]byte{tableLog}, lower[1:]...), UpperBound: after(d.scope().all(tableLog)),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("pebblestore: reading: %w", err)
	}
	defer logs.Close()
	logs.First()
	p := pager{limit: limit, keep: keep}
	err = s.scan(snapshot, lower, after(d.scope().all(tableRecipient)), func(k, v []byte) (bool, error) {
		if p.full() {
			return false, nil
		}
		settled, err := alongside(logs, k)
		if err != nil {
			return false, err
		}
		id, ok := parsePlace(k)
		if !ok {
			return false, corrupt(errors.New("recipient key"))
		}
		e, err := s.logEntry(d, id, bytes.Clone(v), settled, false)
		if err != nil {
			return false, err
		}
		p.take(e, k[len(k)-placeSize:])
		return true, nil
	})
	return p.page, p.following(), err
}

// alongside moves an iterator over the log to the message of a recipient row; nil when it has none.
func alongside(logs *pebble.Iterator, k []byte) ([]byte, error) {
	for logs.Valid() && bytes.Compare(logs.Key()[1:], k[1:]) < 0 {
		logs.Next()
	}
	if err := logs.Error(); err != nil {
		return nil, fmt.Errorf("pebblestore: reading: %w", err)
	}
	if !logs.Valid() || !bytes.Equal(logs.Key()[1:], k[1:]) {
		return nil, nil
	}
	return logs.ValueAndErr()
}

// pager gathers a page of the sending log.
type pager struct {
	limit  int
	keep   func(*campaign.LogEntry) bool
	page   []*campaign.LogEntry
	read   int
	cursor []byte // behind the last row read
	more   bool   // there is a row behind it
}

// full is asked for every row before it is read.
func (p *pager) full() bool {
	p.more = len(p.page) >= p.limit || p.read >= maxRowsRead
	return p.more
}

func (p *pager) take(e *campaign.LogEntry, cursor []byte) {
	p.read++
	p.cursor = append(p.cursor[:0], cursor...)
	if e != nil && (p.keep == nil || p.keep(e)) {
		p.page = append(p.page, e)
	}
}

// following is the cursor of the next page; nil at the end.
func (p *pager) following() []byte {
	if !p.more {
		return nil
	}
	return bytes.Clone(p.cursor)
}

// Find lists messages by folded address or client id, in the order of their
// deliveries' creation. Rows of deleted deliveries are passed over.
func (s *Store) Find(ctx context.Context, by campaign.Lookup, cursor []byte, limit int, keep func(*campaign.LogEntry) bool) (page []*campaign.LogEntry, following []byte, err error) {
	f, err := s.finder(ctx, by, keep)
	if err != nil {
		return nil, nil, err
	}
	if len(cursor) > len(f.prefix)+64 {
		return nil, nil, campaign.ErrBadCursor
	}
	lower := f.prefix
	if len(cursor) != 0 {
		lower = next(append(bytes.Clone(f.prefix), cursor...))
	}
	f.pager.limit = limit
	err = s.scan(nil, lower, after(f.prefix), f.row)
	return f.page, f.following(), err
}

// finder is one look-up through an index.
type finder struct {
	pager
	ctx    context.Context
	s      *Store
	by     campaign.Lookup
	prefix []byte
}

func (s *Store) finder(ctx context.Context, by campaign.Lookup, keep func(*campaign.LogEntry) bool) (*finder, error) {
	f := &finder{pager: pager{keep: keep}, ctx: ctx, s: s, by: by}
	table, hash := byte(tableAddress), hashOf(by.Folded)
	if by.RecipientID != "" {
		table, hash = tableRecipientID, hashOf(by.RecipientID)
	}
	f.prefix = append([]byte{table}, hash[:]...)
	if by.Delivery == "" {
		return f, nil
	}
	d, err := s.view(by.Delivery)
	if err != nil {
		return nil, err
	}
	f.prefix = indexKey(table, hash, d.No)
	return f, nil
}

func (f *finder) row(k, v []byte) (bool, error) {
	if f.full() {
		return false, nil
	}
	e, err := f.find(k, v)
	if err != nil {
		return false, err
	}
	f.take(e, k[len(f.prefix):])
	return true, nil
}

// find reads the message that a row of an index points to; nil when it is gone or
// is another's with the same hash.
func (f *finder) find(k, v []byte) (*campaign.LogEntry, error) {
	if k[0] == tableRecipientID {
		v = k
	}
	d, err := f.s.viewNumber(be64(k[indexPrefix:]))
	if err != nil || d == nil || !d.purged.IsZero() {
		return nil, err
	}
	if err := f.s.writer.await(f.ctx, d.number); err != nil {
		return nil, err
	}
	id, ok := parsePlace(v)
	if !ok {
		return nil, corrupt(errors.New("index row"))
	}
	row, err := f.s.get(d.scope().message(tableRecipient, id))
	if err != nil || row == nil {
		return nil, err
	}
	r, err := decodeRecipient(row)
	if err != nil || f.by.Folded != "" && r.folded != f.by.Folded || f.by.RecipientID != "" && r.recipientID != f.by.RecipientID {
		return nil, err
	}
	settled, err := f.s.get(d.scope().message(tableLog, id))
	if err != nil {
		return nil, err
	}
	return f.s.logEntry(d, id, row, settled, false)
}

// latest is the later of two times.
func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
