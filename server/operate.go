package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/operator"
)

// operations is the part of RelayService by which operators change waiting mail and paths.
type operations struct {
	works     *works
	overrides *overrides
	relay     relayViews
	resolver  mta.Resolver
	settings  func() *settings
	// repeated reports whether the same request was made before.
	repeated func(ctx context.Context, req operator.Request) (bool, error)
	now      func() time.Time
	kept     pathStore
}

// RetryNow implements the call.
func (s *operations) RetryNow(ctx context.Context, req *veredusv1.RetryNowRequest) (*veredusv1.RetryNowResponse, error) {
	return s.change(ctx, operator.Work{Kind: operator.Retry, Reason: req.GetReason()}, queueCall{
		selector: req.GetSelector(), method: veredusv1.RelayService_RetryNow_FullMethodName,
		id: req.GetRequestId(), body: req, dryRun: req.GetDryRun(),
	})
}

// FailMessages implements the call.
func (s *operations) FailMessages(ctx context.Context, req *veredusv1.FailMessagesRequest) (*veredusv1.FailMessagesResponse, error) {
	if req.GetReason() == "" {
		return nil, invalid("reason", "", "is missing", "say in 1 to 256 bytes why; it becomes the messages' error text")
	}
	a, err := s.change(ctx, operator.Work{Kind: operator.Fail, Reason: req.GetReason()}, queueCall{
		selector: req.GetSelector(), method: veredusv1.RelayService_FailMessages_FullMethodName,
		id: req.GetRequestId(), body: req, dryRun: req.GetDryRun(),
	})
	if err != nil {
		return nil, err
	}
	return &veredusv1.FailMessagesResponse{Count: a.GetCount(), Sample: a.GetSample()}, nil
}

// MoveToPool implements the call.
func (s *operations) MoveToPool(ctx context.Context, req *veredusv1.MoveToPoolRequest) (*veredusv1.MoveToPoolResponse, error) {
	if err := s.checkMove(req); err != nil {
		return nil, err
	}
	a, err := s.change(ctx, operator.Work{Kind: operator.Move, Reason: req.GetReason(), Pool: req.GetPool()}, queueCall{
		selector: req.GetSelector(), method: veredusv1.RelayService_MoveToPool_FullMethodName,
		id: req.GetRequestId(), body: req, dryRun: req.GetDryRun(),
	})
	if err != nil {
		return nil, err
	}
	return &veredusv1.MoveToPoolResponse{Count: a.GetCount(), Sample: a.GetSample()}, nil
}

// checkMove refuses a pool that there is not.
func (s *operations) checkMove(req *veredusv1.MoveToPoolRequest) error {
	if pool := req.GetPool(); !s.settings().hasPool(pool) {
		var names []string
		for _, p := range s.settings().pools() {
			names = append(names, p.Name)
		}
		return invalid("pool", pool, "is no pool", "use one of "+clip(strings.Join(names, ", "), 500))
	}
	return nil
}

// queueCall is what the calls on waiting mail have in common.
type queueCall struct {
	selector *veredusv1.QueueSelector
	method   string
	id       string
	body     proto.Message
	dryRun   bool
}

// change counts, or orders and awaits, a change of waiting mail.
func (s *operations) change(ctx context.Context, w operator.Work, call queueCall) (*veredusv1.RetryNowResponse, error) {
	if n := len(w.Reason); n > maxReason {
		return nil, invalid("reason", w.Reason, fmt.Sprintf("has %d bytes", n), "use at most 256")
	}
	id, err := requestOf(call.method, call.id, call.body)
	if err != nil {
		return nil, err
	}
	req := operator.Request(id)
	if w.Queue, err = s.queue(call.selector); err != nil {
		return nil, err
	}
	if again, err := s.again(ctx, req); err != nil || again && !call.dryRun {
		if err != nil {
			return nil, err
		}
		return s.works.do(ctx, w, req)
	}
	q, err := s.works.queue(ctx, &w.Queue)
	if err != nil {
		return nil, err
	}
	if err := s.known(ctx, q); err != nil {
		return nil, err
	}
	if call.dryRun {
		return s.count(ctx, &w, q)
	}
	if w.Kind == operator.Move && !partial(q) { // deliveries move as a whole: it is known at once how many
		picked, _, err := s.works.movable(ctx, q, w.Pool)
		if err != nil {
			return nil, err
		}
		w.Count = picked.Count
	}
	w.ID, w.Created, w.By = newID(), s.now().UTC(), PrincipalOf(ctx).Name
	return s.works.do(ctx, w, req)
}

// again reports whether the request was made before: then what it names need not be there any more.
func (s *operations) again(ctx context.Context, req operator.Request) (bool, error) {
	if req.ID == "" {
		return false, nil
	}
	return s.repeated(ctx, req)
}

// count is the dry run.
func (s *operations) count(ctx context.Context, w *operator.Work, q mta.Queue) (*veredusv1.RetryNowResponse, error) {
	var picked mta.Picked
	var err error
	switch {
	case w.Kind != operator.Move:
		picked, err = s.works.relay.CountWaiting(ctx, q, w.Kind == operator.Retry)
	case partial(q):
		picked, err = s.works.relay.MoveRuns(ctx, q, mta.Order{}, w.Pool)
	default:
		picked, _, err = s.works.movable(ctx, q, w.Pool)
	}
	if err != nil {
		return nil, err
	}
	return &veredusv1.RetryNowResponse{Count: picked.Count, Sample: samples(picked.Sample)}, nil
}

// maxAge bounds older_than: nothing waits longer than its validity.
const maxAge = 30 * 24 * time.Hour

// queue reads and checks a selector.
func (s *operations) queue(sel *veredusv1.QueueSelector) (q operator.Queue, err error) {
	if sel == nil || proto.Equal(sel, &veredusv1.QueueSelector{}) {
		return q, invalid("selector", "", "is empty", "set delivery, tenant, destination, source or older_than: all mail is never meant by omission")
	}
	if name := sel.GetDelivery(); name != "" {
		id, ok := strings.CutPrefix(name, deliveriesPrefix)
		if !ok || id == "" || strings.Contains(id, "/") || len(id) > 255 {
			return q, invalid("selector.delivery", name, "is no delivery", "write deliveries/D")
		}
		q.Delivery = id
	}
	for field, value := range map[string]string{"selector.tenant": sel.GetTenant(), "selector.destination": sel.GetDestination(), "selector.source": sel.GetSource()} {
		if len(value) > 255 {
			return q, invalid(field, value, "is too long", "give a name of at most 255 bytes")
		}
	}
	q.Tenant, q.Source = sel.GetTenant(), sel.GetSource()
	q.Destination = destinationName(sel.GetDestination())
	if sel.GetOlderThan() == nil {
		return q, nil
	}
	age, err := duration("selector.older_than", sel.GetOlderThan())
	q.Arrived = s.now().Add(-age)
	return q, err
}

// duration reads an age.
func duration(field string, d *durationpb.Duration) (time.Duration, error) {
	if d.CheckValid() != nil || d.AsDuration() <= 0 || d.AsDuration() > maxAge {
		return 0, invalid(field, d.AsDuration().String(), "is out of range", "give more than 0 s and at most 30 days")
	}
	return d.AsDuration(), nil
}

// destinationName accepts destinations/D and D.
func destinationName(name string) string {
	return strings.ToLower(strings.TrimPrefix(name, destinationsPrefix))
}

// known refuses names that mean nothing: a mistyped one must not look like an empty queue.
func (s *operations) known(ctx context.Context, q mta.Queue) error {
	if q.Destination != "" {
		if found, err := s.hasDestination(ctx, q.Destination); err != nil || !found {
			if err != nil {
				return err
			}
			return invalid("selector.destination", q.Destination, "has no mail",
				"name one that ListDestinations answers; ExplainDestination tells the destination of a recipient domain")
		}
	}
	if _, configured := s.settings().sources()[q.Source]; q.Source == "" || configured {
		return nil
	}
	picked, err := s.works.relay.CountWaiting(ctx, mta.Queue{Source: q.Source}, false)
	if err != nil || picked.Count > 0 { // one that is configured no more
		return err
	}
	return s.unknownSource("selector.source", q.Source)
}

func (s *operations) unknownSource(field, name string) error {
	var names []string
	for known := range s.settings().sources() {
		names = append(names, known)
	}
	slices.Sort(names)
	return invalid(field, name, "is no source", "use one of "+clip(strings.Join(names, ", "), 500))
}

// hasDestination reports whether mail is waiting for a destination, or was a moment ago.
func (s *operations) hasDestination(ctx context.Context, name string) (bool, error) {
	_, found, err := s.relay.Destination(ctx, name)
	if err != nil || found {
		return found, err
	}
	return s.works.relay.HasMail(ctx, mta.Queue{Destination: name})
}

// startOverrides puts the overrides of paths into force, before mail flows.
func (s *Server) startOverrides(ctx context.Context) error {
	s.overrides = &overrides{store: s.store, relay: s.relay, now: s.now, log: s.log}
	return s.overrides.start(ctx)
}

// startWorks takes up work on waiting mail that the end of the process before broke off.
func (s *Server) startWorks(ctx context.Context) error {
	s.works = &works{store: s.store, relay: s.relay, number: s.deliveryNumber, move: s.moveDelivery, now: s.now, log: s.log}
	if err := s.works.start(ctx); err != nil {
		return fmt.Errorf("work on waiting mail: %w", err)
	}
	return nil
}

func (s *Server) stopOperator() {
	if s.overrides != nil {
		s.overrides.stop()
	}
	if s.works != nil {
		s.works.stop()
	}
}

// moveDelivery changes a delivery's pool as UpdateDelivery does.
func (s *Server) moveDelivery(ctx context.Context, id, pool string) error {
	_, err := s.campaigns.UpdateDelivery(ctx, &veredusv1.UpdateDeliveryRequest{
		Delivery:   &veredusv1.Delivery{Name: deliveriesPrefix + id, Pool: pool},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"pool"}},
	})
	return err
}

func (s *Server) operations() *operations {
	return &operations{
		kept:  pathStore{usage: s.relay.Kept, events: s.store.PathEvents},
		works: s.works, overrides: s.overrides, relay: s.relay, resolver: s.resolver, settings: s.settings.Load, now: s.now,
		repeated: func(ctx context.Context, req operator.Request) (bool, error) {
			_, found, err := s.store.Replay(ctx, campaign.Request{ID: req.ID, Method: req.Method, Body: req.Body})
			return found, err
		},
	}
}
