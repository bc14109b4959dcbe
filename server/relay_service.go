package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/address"
	"github.com/veredus/veredus/mta/dispatch"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/suspend"
)

// relayViews is what the service shows of the relay; *mta.Relay has it.
type relayViews interface {
	QueueSizes(ctx context.Context) ([]dispatch.QueueSize, error)
	Destinations(ctx context.Context, names []string) ([]dispatch.DestinationView, error)
	Destination(ctx context.Context, name string) (dispatch.DestinationView, bool, error)
	Explain(ctx context.Context, domain string) (dispatch.DomainView, bool, error)
}

// unimplemented is a step down, so that the methods of texts come before its own.
type unimplemented struct {
	veredusv1.UnimplementedRelayServiceServer
}

// relayService is RelayService.
type relayService struct {
	unimplemented
	texts
	*operations
	*forecaster
	*identities
	relay       relayViews
	resolver    mta.Resolver
	suspensions *suspensions
	replies     *replies
	paces       *paces
	settings    func() *settings
	reload      func(context.Context, *veredusv1.ReloadConfigRequest) (*veredusv1.ReloadConfigResponse, error)
	now         func() time.Time
}

const (
	destinationsPrefix = "destinations/"
	suspensionsPrefix  = "suspensions/"
	deliveriesPrefix   = "deliveries/"
)

// invalid is an error of one field.
func invalid(field, value, problem, remedy string) error {
	return &campaign.InvalidError{Violations: []campaign.FieldViolation{
		{Field: field, Value: clip(value, 100), Problem: problem, Remedy: remedy},
	}}
}

// Suspend implements the call.
func (s *relayService) Suspend(ctx context.Context, req *veredusv1.SuspendRequest) (*veredusv1.Suspension, error) {
	now := s.now()
	sel, err := s.selector(req.GetSelector())
	if err != nil {
		return nil, err
	}
	if err := s.checkSuspend(ctx, req, sel, now); err != nil {
		return nil, err
	}
	id, err := requestOf(veredusv1.RelayService_Suspend_FullMethodName, req.GetRequestId(), req)
	if err != nil {
		return nil, err
	}
	n := suspend.Suspension{ID: newID(), Selector: sel, Reason: req.GetReason(), Created: now.UTC()}
	if end := req.GetEndTime(); end != nil {
		n.End = end.AsTime()
	}
	stored, err := s.suspensions.put(ctx, n, id)
	if err != nil {
		return nil, err
	}
	return suspensionView(&stored), nil
}

// maxReason bounds a suspension's reason, in bytes.
const maxReason = 256

// checkSuspend judges what may differ between a first call and its repeat only
// when there is no request_id: an end that passed meanwhile is no fault of a repeat.
func (s *relayService) checkSuspend(ctx context.Context, req *veredusv1.SuspendRequest, sel suspend.Selector, now time.Time) error {
	if n := len(req.GetReason()); n == 0 || n > maxReason {
		return invalid("reason", "", fmt.Sprintf("has %d bytes", n), "say in 1 to 256 bytes why mail is stopped")
	}
	end := req.GetEndTime()
	if end != nil && !end.IsValid() {
		return invalid("end_time", end.String(), "is no time", "give a time of the years 1 to 9999, or leave it out")
	}
	if req.GetRequestId() == "" && end != nil && !end.AsTime().After(now) {
		return invalid("end_time", end.AsTime().Format(time.RFC3339), "is not in the future", "give a later time, or leave it out to suspend until Resume")
	}
	if sel.Kind != suspend.Source {
		return s.deliveryExists(ctx, sel)
	}
	known := s.settings().sources()
	if _, ok := known[sel.Value]; !ok {
		names := make([]string, 0, len(known))
		for name := range known {
			names = append(names, name)
		}
		slices.Sort(names)
		return invalid("selector.source", sel.Value, "is no source", "use one of "+clip(strings.Join(names, ", "), 500))
	}
	return nil
}

func (s *relayService) deliveryExists(ctx context.Context, sel suspend.Selector) error {
	if sel.Kind != suspend.Delivery {
		return nil
	}
	_, err := s.suspensions.number(ctx, sel.Value)
	return err
}

// Resume implements the call.
func (s *relayService) Resume(ctx context.Context, req *veredusv1.ResumeRequest) (*veredusv1.Suspension, error) {
	id, named := strings.CutPrefix(req.GetName(), suspensionsPrefix)
	var sel suspend.Selector
	switch {
	case req.GetName() != "" && req.GetSelector() != nil:
		return nil, invalid("selector", "", "is given beside name", "give one of both")
	case req.GetName() != "":
		if !named || id == "" || len(id) > 64 {
			return nil, invalid("name", req.GetName(), "is no suspension", "write suspensions/S as ListSuspensions answers it")
		}
	default:
		var err error
		if sel, err = s.selector(req.GetSelector()); err != nil {
			return nil, err
		}
	}
	request, err := requestOf(veredusv1.RelayService_Resume_FullMethodName, req.GetRequestId(), req)
	if err != nil {
		return nil, err
	}
	removed, err := s.suspensions.remove(ctx, id, sel, request)
	if err != nil {
		return nil, err
	}
	return suspensionView(&removed), nil
}

// ListSuspensions implements the call.
func (s *relayService) ListSuspensions(ctx context.Context, req *veredusv1.ListSuspensionsRequest) (*veredusv1.ListSuspensionsResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := parsePage(suspensionsPage, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	list, err := s.suspensions.list(ctx)
	if err != nil {
		return nil, err
	}
	resp := &veredusv1.ListSuspensionsResponse{}
	for i := range list {
		if list[i].ID <= after.name {
			continue
		}
		if len(resp.Suspensions) == size {
			last := strings.TrimPrefix(resp.Suspensions[size-1].GetName(), suspensionsPrefix)
			resp.NextPageToken = page{kind: suspensionsPage, name: last}.token()
			break
		}
		resp.Suspensions = append(resp.Suspensions, suspensionView(&list[i]))
	}
	return resp, nil
}

// ReloadConfig implements the call.
func (s *relayService) ReloadConfig(ctx context.Context, req *veredusv1.ReloadConfigRequest) (*veredusv1.ReloadConfigResponse, error) {
	return s.reload(ctx, req)
}

// selector reads and checks a selector.
func (s *relayService) selector(sel *veredusv1.Selector) (suspend.Selector, error) {
	var out suspend.Selector
	field, remedy := "", ""
	switch v := sel.GetSelector().(type) {
	case *veredusv1.Selector_Everything:
		if !v.Everything {
			return out, invalid("selector.everything", "false", "selects nothing", "set it to true, or set another field")
		}
		return suspend.Selector{Kind: suspend.Everything}, nil
	case *veredusv1.Selector_Tenant:
		out = suspend.Selector{Kind: suspend.Tenant, Value: v.Tenant}
		field, remedy = "selector.tenant", "name a tenant"
	case *veredusv1.Selector_Delivery:
		id, ok := strings.CutPrefix(v.Delivery, deliveriesPrefix)
		if !ok || strings.Contains(id, "/") {
			id = ""
		}
		out = suspend.Selector{Kind: suspend.Delivery, Value: id}
		field, remedy = "selector.delivery", "write deliveries/D"
	case *veredusv1.Selector_SenderDomain:
		domain, err := domainName("selector.sender_domain", v.SenderDomain)
		return suspend.Selector{Kind: suspend.SenderDomain, Value: domain}, err
	case *veredusv1.Selector_Source:
		out = suspend.Selector{Kind: suspend.Source, Value: v.Source}
		field, remedy = "selector.source", "name a source of relay.pools"
	case *veredusv1.Selector_Destination:
		out = suspend.Selector{Kind: suspend.Destination, Value: strings.ToLower(strings.TrimPrefix(v.Destination, destinationsPrefix))}
		field, remedy = "selector.destination", "write destinations/D as ListDestinations answers it"
	default:
		return out, invalid("selector", "", "is not set", "set one of everything, tenant, delivery, sender_domain, source, destination")
	}
	if out.Value == "" || len(out.Value) > 255 {
		return out, invalid(field, out.Value, "does not name anything", remedy)
	}
	return out, nil
}

func suspensionView(n *suspend.Suspension) *veredusv1.Suspension {
	v := &veredusv1.Suspension{
		Name: suspensionsPrefix + n.ID, Selector: selectorView(n.Selector),
		Reason: n.Reason, CreateTime: timestamppb.New(n.Created),
	}
	if !n.End.IsZero() {
		v.EndTime = timestamppb.New(n.End)
	}
	return v
}

func selectorView(sel suspend.Selector) *veredusv1.Selector {
	v := &veredusv1.Selector{}
	switch sel.Kind {
	case suspend.Everything:
		v.Selector = &veredusv1.Selector_Everything{Everything: true}
	case suspend.Tenant:
		v.Selector = &veredusv1.Selector_Tenant{Tenant: sel.Value}
	case suspend.Delivery:
		v.Selector = &veredusv1.Selector_Delivery{Delivery: deliveriesPrefix + sel.Value}
	case suspend.SenderDomain:
		v.Selector = &veredusv1.Selector_SenderDomain{SenderDomain: sel.Value}
	case suspend.Source:
		v.Selector = &veredusv1.Selector_Source{Source: sel.Value}
	case suspend.Destination:
		v.Selector = &veredusv1.Selector_Destination{Destination: destinationsPrefix + sel.Value}
	}
	return v
}

// newID is a suspension's id: 16 hexadecimal digits nobody can guess.
func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// maxRequestID bounds a request_id, in bytes.
const maxRequestID = 128

// requestOf identifies a mutating call: the same request_id with the same body is
// the same request. Without a request_id nothing is remembered.
func requestOf(method, id string, body proto.Message) (suspend.Request, error) {
	if len(id) > maxRequestID {
		return suspend.Request{}, invalid("request_id", id, fmt.Sprintf("has %d bytes", len(id)), "use at most 128")
	}
	if id == "" {
		return suspend.Request{}, nil
	}
	clone := proto.Clone(body).ProtoReflect()
	clone.Clear(clone.Descriptor().Fields().ByName("request_id"))
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(clone.Interface())
	if err != nil {
		return suspend.Request{}, fmt.Errorf("request %s: %w", method, err)
	}
	return suspend.Request{ID: id, Method: method, Body: sha256.Sum256(raw)}, nil
}

// domainName reads a domain as an A-label, from A-labels or Unicode.
func domainName(field, s string) (string, error) {
	domain, err := address.ParseDomain(strings.TrimSuffix(s, "."))
	var bad *address.Error
	if errors.As(err, &bad) {
		return "", invalid(field, s, bad.Problem, bad.Remedy)
	}
	return domain, err
}
