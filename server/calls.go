package server

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/suspend"
)

// answers are the answers of calls by their request_id, kept in the store for at least 7 days.
type answers interface {
	Replay(ctx context.Context, req campaign.Request) (answer []byte, found bool, err error)
	Remember(ctx context.Context, req campaign.Request, answer []byte) error
}

// calls answer repeated calls whose effect the store does not hold: what the relay or
// the process took over. The answer is kept behind the effect, so a crash between the
// two lets a repeat take effect once more; that sets the same again.
type calls struct{ store answers }

// before reads the answer that a request had; false when it is new. An id that another
// request had is campaign.ErrRequestIDReused.
func (c calls) before(ctx context.Context, id suspend.Request, answer proto.Message) (bool, error) {
	if id.ID == "" {
		return false, nil
	}
	row, found, err := c.store.Replay(ctx, campaign.Request{ID: id.ID, Method: id.Method, Body: id.Body})
	if err != nil || !found {
		return false, err
	}
	if err := proto.Unmarshal(row, answer); err != nil {
		return false, fmt.Errorf("answer of request_id %.128q: %w", id.ID, err)
	}
	return true, nil
}

// remember keeps the answer of a request.
func (c calls) remember(ctx context.Context, id suspend.Request, answer proto.Message) error {
	if id.ID == "" {
		return nil
	}
	row, err := proto.Marshal(answer)
	if err != nil {
		return err
	}
	return c.store.Remember(context.WithoutCancel(ctx), campaign.Request{ID: id.ID, Method: id.Method, Body: id.Body}, row)
}
