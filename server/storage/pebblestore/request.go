package pebblestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/veredus/veredus/server/campaign"
)

// keepRequests is how long request ids are remembered; 7 days are promised.
const keepRequests = 8 * 24 * time.Hour

// purgeRequests is how many outdated request ids go with each new one.
const purgeRequests = 8

// requestRow is what a mutating call left behind.
type requestRow struct {
	method   string
	body     []byte
	delivery string // D
	answer   []byte
	at       time.Time
	entries  []byte // address entries answered
}

func (r *requestRow) encode() []byte {
	b := putString(nil, 1, r.method)
	b = putBytes(b, 2, r.body)
	b = putString(b, 3, r.delivery)
	b = putBytes(b, 4, r.answer)
	b = putTime(b, 5, r.at)
	return putBytes(b, 6, r.entries)
}

func decodeRequest(row []byte) (*requestRow, error) {
	r := &requestRow{}
	err := readRow(row, func(field protowire.Number, v value) error {
		switch field {
		case 1:
			r.method = v.string()
		case 2:
			r.body = v.bytes
		case 3:
			r.delivery = v.string()
		case 4:
			r.answer = v.bytes
		case 5:
			r.at = v.time()
		case 6:
			r.entries = v.bytes
		}
		return nil
	})
	return r, err
}

// findRequest is the trace of an earlier call with the request's id; nil when there
// is none, campaign.ErrRequestIDReused when that was another call.
func (s *Store) findRequest(id, method string, body [32]byte) (*requestRow, error) {
	if id == "" {
		return nil, nil
	}
	row, err := s.get(keyName(tableRequest, id))
	if err != nil || row == nil {
		return nil, err
	}
	r, err := decodeRequest(row)
	if err != nil {
		return nil, err
	}
	if r.method != method || !bytes.Equal(r.body, body[:]) {
		return nil, fmt.Errorf("request_id %.128q: %w", id, campaign.ErrRequestIDReused)
	}
	return r, nil
}

// remember leaves the trace of a call in the same write as its effect.
func (t *txn) remember(id string, r requestRow) error {
	if id == "" {
		return nil
	}
	r.at = t.now
	t.set(keyName(tableRequest, id), r.encode())
	t.set(requestAgeKey(t.now, id), nil)
	return t.purgeRequests()
}

// purgeRequests removes a few of the oldest request ids, if outdated. It goes on
// where the last call stopped, so as not to step over what that one removed.
func (t *txn) purgeRequests() error {
	lower := t.s.oldestRequest
	if lower == nil {
		lower = []byte{tableRequestAge}
	}
	left := purgeRequests
	upper := requestAgeKey(t.now.Add(-keepRequests), "")
	if bytes.Compare(lower, upper) >= 0 {
		return nil
	}
	return t.s.scan(nil, lower, upper, func(k, _ []byte) (bool, error) {
		if len(k) < 9 {
			return true, nil
		}
		t.delete(bytes.Clone(k))
		t.delete(keyName(tableRequest, string(k[9:])))
		t.s.oldestRequest = next(k)
		left--
		return left > 0, nil
	})
}

// rememberDelivery leaves the trace of a call that made or changed a delivery.
func (t *txn) rememberDelivery(r campaign.Request, d *campaign.Delivery) error {
	row := requestRow{method: r.Method, body: r.Body[:], delivery: d.ID, answer: []byte(d.ID)}
	if r.Answer != nil && r.ID != "" {
		row.answer = r.Answer(d)
	}
	return t.remember(r.ID, row)
}

// Replay finds the answer of an earlier call with this request id: what
// Request.Answer rendered, or the delivery's id where that was nil.
func (s *Store) Replay(ctx context.Context, req campaign.Request) (answer []byte, found bool, err error) {
	s.mu.RLock()
	number := s.writer.applied
	s.mu.RUnlock()
	r, err := s.findRequest(req.ID, req.Method, req.Body)
	if err != nil || r == nil {
		return nil, false, err
	}
	return r.answer, true, s.writer.await(ctx, number)
}

// number64 renders a row that holds one number.
func number64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
