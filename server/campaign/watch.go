package campaign

import (
	"context"
	"time"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// WatchDelivery streams the delivery without its content whenever it changed, at most
// every interval. It ends after the answer that shows every message final.
func (s *Service) WatchDelivery(r *veredusv1.WatchDeliveryRequest, stream veredusv1.CampaignService_WatchDeliveryServer) error {
	v := violations{}
	id := v.delivery("name", r.GetName())
	interval := v.duration("interval", r.GetInterval(), minWatch, maxWatch, defaultWatch)
	if err := v.err(); err != nil {
		return err
	}
	ctx := stream.Context()
	pace := time.NewTimer(interval)
	defer pace.Stop()
	for {
		changed := s.o.Deliveries.Changed(id) // before reading, so that no change is missed
		d, err := s.get(ctx, id)
		if err != nil {
			return err
		}
		if err := stream.Send(&veredusv1.WatchDeliveryResponse{Delivery: d.brief(s.now())}); err != nil {
			return err
		}
		if d.State.Final() && d.Counters.InRelay == 0 {
			return nil
		}
		pace.Reset(interval)
		if err := wait(ctx, changed, s.o.Stopping); err != nil {
			return err
		}
		if err := wait(ctx, pace.C, s.o.Stopping); err != nil {
			return err
		}
	}
}

// wait returns once something happens; an error when ctx or the service ends first.
func wait[T any](ctx context.Context, happens <-chan T, stopping <-chan struct{}) error {
	select {
	case <-happens:
		return nil
	case <-stopping:
		return ErrStopping
	case <-ctx.Done():
		return ctx.Err()
	}
}
