package campaign

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// CreateDelivery creates a delivery in state Draft.
func (s *Service) CreateDelivery(ctx context.Context, r *veredusv1.CreateDeliveryRequest) (*veredusv1.Delivery, error) {
	v := violations{}
	if id := r.GetDeliveryId(); id != "" && !deliveryID(id) {
		v.add("delivery_id", id, "is no id", "use 1 to 63 of a-z, 0-9 and hyphen, beginning with a letter; or leave it empty")
	}
	v.requestID(r.GetRequestId())
	v.spec("delivery.", r.GetDelivery(), s.o.HasPool)
	v.whole("delivery.", r.GetDelivery())
	if err := v.err(); err != nil {
		return nil, err
	}
	req, err := request(veredusv1.CampaignService_CreateDelivery_FullMethodName, r.GetRequestId(), r)
	if err != nil {
		return nil, err
	}
	answer := &veredusv1.Delivery{}
	if found, err := s.replay(ctx, req, answer); found || err != nil {
		return answer, err
	}
	now := s.now()
	req.Answer = func(d *Delivery) []byte { return remember(d.API(now)) }
	d := &Delivery{ID: r.GetDeliveryId(), Spec: said(r.GetDelivery()), State: Draft, Created: now, Updated: now}
	if d.ID == "" {
		d.ID = newID()
	}
	created, err := s.o.Deliveries.Create(ctx, d, req)
	if err != nil {
		return nil, named(err, deliveryName(d.ID))
	}
	return created.API(now), nil
}

// newID is an id that nobody has: 80 random bits.
func newID() string { return "d-" + strings.ToLower(rand.Text()[:16]) }

// said is what a client can say of a delivery, without what is output only.
func said(d *veredusv1.Delivery) *veredusv1.Delivery {
	spec := &veredusv1.Delivery{}
	if d != nil {
		spec = proto.CloneOf(d)
	}
	spec.Name, spec.State, spec.Transactional, spec.Kpis = "", 0, false, nil
	spec.CreateTime, spec.UpdateTime, spec.StartTime, spec.ExpireTime, spec.FinishTime = nil, nil, nil, nil, nil
	if spec.Tenant == "" {
		spec.Tenant = DefaultTenant
	}
	spec.ProtoReflect().SetUnknown(nil)
	return spec
}

// GetDelivery gets a delivery with its KPIs.
func (s *Service) GetDelivery(ctx context.Context, r *veredusv1.GetDeliveryRequest) (*veredusv1.Delivery, error) {
	v := violations{}
	id := v.delivery("name", r.GetName())
	if err := v.err(); err != nil {
		return nil, err
	}
	d, err := s.get(ctx, id)
	if err != nil {
		return nil, err
	}
	return d.API(s.now()), nil
}

func (s *Service) get(ctx context.Context, id string) (*Delivery, error) {
	d, err := s.o.Deliveries.Get(ctx, id)
	return d, named(err, deliveryName(id))
}

const (
	// maxListed is how many deliveries a page reads at most, whatever its filter passes over.
	maxListed = 2000
	// maxListBytes ends a page early: clients take answers of 4 MiB.
	maxListBytes = 2 << 20
)

// ListDeliveries lists deliveries, newest first, without content.
func (s *Service) ListDeliveries(ctx context.Context, r *veredusv1.ListDeliveriesRequest) (*veredusv1.ListDeliveriesResponse, error) {
	v := violations{}
	size := v.page(r.GetPageSize())
	v.tenant("tenant", r.GetTenant())
	v.text("label", r.GetLabel(), maxLabel)
	if _, known := veredusv1.DeliveryState_name[int32(r.GetState())]; !known {
		v.add("state", fmt.Sprint(int32(r.GetState())), "is no state", "use a DELIVERY_STATE, or leave it unspecified for all")
	}
	q := query(veredusv1.CampaignService_ListDeliveries_FullMethodName, r)
	before := v.number(v.cursor(q, r.GetPageToken()))
	if err := v.err(); err != nil {
		return nil, err
	}
	now, answer := s.now(), &veredusv1.ListDeliveriesResponse{}
	for read, bytes := 0, 0; read < maxListed; {
		page, err := s.o.Deliveries.List(ctx, before, size)
		if err != nil {
			return nil, err
		}
		for _, d := range page {
			if len(answer.Deliveries) == size || bytes > maxListBytes {
				answer.NextPageToken = pageToken(q, number(before))
				return answer, nil
			}
			before = d.No
			if d.listed(r) {
				api := d.brief(now)
				answer.Deliveries, bytes = append(answer.Deliveries, api), bytes+proto.Size(api)
			}
		}
		if len(page) < size {
			return answer, nil
		}
		read += len(page)
	}
	answer.NextPageToken = pageToken(q, number(before))
	return answer, nil
}

// listed reports whether a list's filter takes the delivery.
func (d *Delivery) listed(r *veredusv1.ListDeliveriesRequest) bool {
	return (r.GetTenant() == "" || r.GetTenant() == d.tenant()) &&
		(r.GetState() == 0 || r.GetState() == d.State.API()) &&
		(r.GetLabel() == "" || r.GetLabel() == d.Spec.GetLabel())
}

// DeleteDelivery deletes a delivery that the relay has not, with its log.
func (s *Service) DeleteDelivery(ctx context.Context, r *veredusv1.DeleteDeliveryRequest) (*emptypb.Empty, error) {
	id, req, err := control(veredusv1.CampaignService_DeleteDelivery_FullMethodName, r)
	if err != nil {
		return nil, err
	}
	release, err := s.turns.take(ctx, id)
	if err != nil {
		return nil, err
	}
	defer release()
	answer := &emptypb.Empty{}
	req.Answer = func(*Delivery) []byte { return remember(answer) }
	if found, err := s.replay(ctx, req, answer); found || err != nil {
		return answer, err
	}
	err = s.o.Deliveries.Delete(ctx, id, req, func(d *Delivery) error {
		_, err := d.after(CallDelete)
		return err
	})
	if err != nil {
		return nil, named(err, deliveryName(id))
	}
	return answer, nil
}

// StartDelivery hands a Prepared delivery to the relay.
func (s *Service) StartDelivery(ctx context.Context, r *veredusv1.StartDeliveryRequest) (*veredusv1.Delivery, error) {
	id, req, err := control(veredusv1.CampaignService_StartDelivery_FullMethodName, r)
	if err != nil {
		return nil, err
	}
	now, started := s.now(), false
	return s.change(ctx, id, req, now, func(d *Delivery) ([]Event, error) {
		if _, err := d.after(CallStart); err != nil || d.State == Running {
			return nil, err
		}
		if lack := s.lack(d); len(lack) > 0 {
			return nil, &NotPreparedError{Delivery: d.ID, State: d.State, Findings: lack}
		}
		d.State, d.Updated, d.Started, d.Expires, started = Running, now, now, s.expiry(d, now), true
		return []Event{{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_STARTED, Count: d.Counters.Pending}}, nil
	}, func(_ context.Context, d *Delivery) error {
		if started && d.State == Running { // Finished already when there is nothing to deliver
			s.o.Relay.HandOver(d.HandOver())
		}
		return nil
	})
}

// PauseDelivery stops new attempts at once.
func (s *Service) PauseDelivery(ctx context.Context, r *veredusv1.PauseDeliveryRequest) (*veredusv1.Delivery, error) {
	return s.steer(ctx, r, veredusv1.CampaignService_PauseDelivery_FullMethodName, CallPause,
		Event{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_PAUSED, Text: r.GetReason()})
}

// ResumeDelivery continues a Paused delivery.
func (s *Service) ResumeDelivery(ctx context.Context, r *veredusv1.ResumeDeliveryRequest) (*veredusv1.Delivery, error) {
	return s.steer(ctx, r, veredusv1.CampaignService_ResumeDelivery_FullMethodName, CallResume,
		Event{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_RESUMED})
}

// CancelDelivery ends a delivery: what is not final becomes Cancelled.
func (s *Service) CancelDelivery(ctx context.Context, r *veredusv1.CancelDeliveryRequest) (*veredusv1.Delivery, error) {
	return s.steer(ctx, r, veredusv1.CampaignService_CancelDelivery_FullMethodName, CallCancel,
		Event{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_CANCELLED, Text: r.GetReason()})
}

// steer makes a call that changes only the state, with its event.
func (s *Service) steer(ctx context.Context, r controlRequest, method string, call Call, event Event) (*veredusv1.Delivery, error) {
	id, req, err := control(method, r)
	if err != nil {
		return nil, err
	}
	now := s.now()
	return s.change(ctx, id, req, now, func(d *Delivery) ([]Event, error) {
		next, err := d.after(call)
		if err != nil || next == d.State {
			return nil, err
		}
		d.State, d.Updated = next, now
		if call == CallResume {
			d.Protection = d.Protection.resumed(&d.Counters)
		}
		if next == Cancelled && d.Counters.Claimed == 0 {
			d.Finished = now
		}
		return []Event{event}, nil
	}, s.tell)
}

// tell makes the relay do as the delivery's state says.
func (s *Service) tell(ctx context.Context, d *Delivery) error {
	switch d.State {
	case Paused:
		return s.o.Relay.Pause(ctx, d.No)
	case Running:
		return s.o.Relay.Unpause(ctx, d.No)
	case Cancelled:
		return s.o.Relay.Cancel(ctx, d.No)
	}
	return nil
}

// controlRequest is a request that names a delivery and has an id.
type controlRequest interface {
	proto.Message
	GetName() string
	GetRequestId() string
}

// control checks a request that names a delivery.
func control(method string, r controlRequest) (id string, req Request, err error) {
	v := violations{}
	id = v.delivery("name", r.GetName())
	v.requestID(r.GetRequestId())
	if with, ok := r.(interface{ GetReason() string }); ok {
		v.text("reason", with.GetReason(), maxReason)
	}
	if err := v.err(); err != nil {
		return "", Request{}, err
	}
	req, err = request(method, r.GetRequestId(), r)
	return id, req, err
}

// change applies a change, then lets the relay know, and answers the delivery as it
// was right behind the change. Nobody else changes the delivery meanwhile. Once the
// change is durable the relay hears of it, whether or not the client still waits.
func (s *Service) change(ctx context.Context, id string, req Request, now time.Time,
	change func(*Delivery) ([]Event, error), effect func(context.Context, *Delivery) error,
) (*veredusv1.Delivery, error) {
	release, err := s.turns.take(ctx, id)
	if err != nil {
		return nil, err
	}
	defer release()
	answer := &veredusv1.Delivery{}
	if found, err := s.replay(ctx, req, answer); found || err != nil {
		return answer, err
	}
	req.Answer = func(d *Delivery) []byte { return remember(d.API(now)) }
	d, err := s.o.Deliveries.Change(ctx, id, req, change)
	if err != nil {
		return nil, named(err, deliveryName(id))
	}
	// A relay that has stopped makes no attempts; the next one reads the state.
	if err := effect(context.WithoutCancel(ctx), d); err != nil && !errors.Is(err, mta.ErrStopped) {
		return nil, fmt.Errorf("campaign: telling the relay of delivery %s: %w", id, err)
	}
	return d.API(now), nil
}
