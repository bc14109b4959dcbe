package campaign

import (
	"context"
	"errors"
	"fmt"

	"github.com/veredus/veredus/mta/compose"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// SendMessage sends one transactional mail through the tenant's standing delivery.
// It answers once the message is durable, and a repeated request as the first time.
func (s *Service) SendMessage(ctx context.Context, r *veredusv1.SendMessageRequest) (*veredusv1.Message, error) {
	single, err := s.single(r)
	if err != nil {
		return nil, err
	}
	req, err := request(veredusv1.CampaignService_SendMessage_FullMethodName, r.GetRequestId(), r)
	if err != nil {
		return nil, err
	}
	release, err := s.turns.take(ctx, "request "+req.ID) // so that the relay hears of it once
	if err != nil {
		return nil, err
	}
	defer release()
	_, repeated, err := s.o.Deliveries.Replay(ctx, req)
	if err != nil {
		return nil, err
	}
	if !repeated {
		if err := s.sendable(ctx, single); err != nil {
			return nil, err
		}
		if err := s.excludeSingle(ctx, single); err != nil {
			return nil, err
		}
	}
	h, id, err := s.o.Recipients.Send(ctx, *single, req)
	if err != nil {
		return nil, err
	}
	e, err := s.o.Log.Message(context.WithoutCancel(ctx), h.DeliveryID, id)
	if err != nil {
		return nil, named(err, messageName(h.DeliveryID, id))
	}
	if !repeated && e.Truth != Ignored {
		s.o.Relay.Arrived(h, id, single.Item.Domain, e.Expires)
	}
	return e.arrived(), nil
}

// single checks a request's fields.
func (s *Service) single(r *veredusv1.SendMessageRequest) (*Single, error) {
	spec := &veredusv1.Delivery{
		Tenant: r.GetTenant(), Sender: r.GetSender(), Content: r.GetContent(),
		Pool: r.GetPool(), ListId: r.GetListId(), Unsubscribe: r.GetUnsubscribe(),
	}
	v := violations{}
	v.spec("", spec, s.o.HasPool)
	v.whole("", spec)
	if r.GetSender().GetFrom() == "" {
		v.add("sender.from", "", "is missing", "give the sender's address, of a domain that has a DKIM key")
	}
	m := &Single{
		Tenant: r.GetTenant(), Content: said(spec), Time: s.now(),
		Validity: v.duration("validity_period", r.GetValidityPeriod(), minValidity, MaxLifetime, MaxLifetime),
	}
	if field, problem, remedy := fill(&m.Item, r.GetRecipient()); problem != "" {
		value := ""
		if field == "address" {
			value = r.GetRecipient().GetAddress()
		}
		v.add("recipient."+field, value, problem, remedy)
	}
	if r.GetRequestId() == "" {
		v.add("request_id", "", "is missing", "give each mail an id of its own, so that a repeated call does not send it twice")
	}
	v.requestID(r.GetRequestId())
	if m.Tenant == "" {
		m.Tenant = DefaultTenant
	}
	m.Validity = s.lifetime(m.Validity)
	return m, v.err()
}

// sendable makes sure that the message can be composed and signed: it is sent without
// anybody preparing it.
func (s *Service) sendable(ctx context.Context, m *Single) error {
	d := &Delivery{ID: "single", Spec: m.Content, Transactional: true, State: Running}
	v := violations{}
	if domain := senderDomain(m.Content.GetSender().GetFrom()); len(s.o.Keys(domain)) == 0 {
		v.add("sender.from", m.Content.GetSender().GetFrom(), fmt.Sprintf("is of the domain %s, which has no DKIM key", domain),
			"use an address of a domain that has one, or add one to dkim.domains")
	}
	if d.hosted() && s.hostedURL() == "" {
		v.add("unsubscribe.mode", "UNSUBSCRIBE_MODE_HOSTED", "needs a public listener, and this node has none", "set public.listen and public.url, or use UNSUBSCRIBE_MODE_OWN_URL")
	}
	t, err := compose.Compile(*d.Source())
	for _, bad := range fieldErrors(err) {
		v.add(apiField(bad.Field), bad.Value, bad.Problem, bad.Remedy)
	}
	if err := v.err(); err != nil {
		return err
	}
	_, err = t.Render(ctx, s.job(d, m.Item.Address, m.Item.Variables, m.Time))
	var bad *compose.RenderError
	if !errors.As(err, &bad) {
		return err
	}
	field := apiField(bad.Field)
	if field == "" {
		field = "recipient.variables"
	}
	return invalid(field, "", printable(bad.Error(), 300), "correct the template or the variables")
}
