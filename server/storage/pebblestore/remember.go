package pebblestore

import (
	"context"

	"github.com/veredus/veredus/server/campaign"
)

// Remember keeps the answer of a call whose effect the store does not hold; Replay finds
// it. Without an id there is nothing to keep.
func (s *Store) Remember(ctx context.Context, req campaign.Request, answer []byte) error {
	return s.submit(ctx, func(t *txn) error {
		return t.remember(req.ID, requestRow{method: req.Method, body: req.Body[:], answer: answer})
	})
}
