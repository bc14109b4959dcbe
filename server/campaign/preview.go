package campaign

import (
	"context"
	"errors"

	"github.com/veredus/veredus/mta/compose"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// previewAddress is the recipient of a preview that names none.
const previewAddress = "recipient@example.com"

// PreviewMessage renders one message as it would be sent, unsigned.
func (s *Service) PreviewMessage(ctx context.Context, r *veredusv1.PreviewMessageRequest) (*veredusv1.PreviewMessageResponse, error) {
	v := violations{}
	id := v.delivery("delivery", r.GetDelivery())
	v.variables("variables", r.GetVariables())
	v.address("address", r.GetAddress())
	if err := v.err(); err != nil {
		return nil, err
	}
	d, err := s.get(ctx, id)
	if err != nil {
		return nil, err
	}
	t, findings := d.compile()
	if from := d.Spec.GetSender().GetFrom(); from == "" {
		findings = append(findings, failure("sender.missing_from", "sender.from", "the sender's address is missing; give one"))
	}
	if d.hosted() && s.hostedURL() == "" {
		findings = append(findings, failure("unsubscribe.no_public_listener", "unsubscribe.mode", noListener))
	}
	if len(findings) > 0 {
		return nil, &NotPreparedError{Delivery: id, State: d.State, Findings: findings}
	}
	to := r.GetAddress()
	if to == "" {
		to = previewAddress
	}
	out, err := t.Render(ctx, s.job(d, to, r.GetVariables(), s.now()))
	var bad *compose.RenderError
	switch {
	case errors.As(err, &bad):
		return nil, unrenderable(d, bad)
	case err != nil:
		return nil, err
	}
	return &veredusv1.PreviewMessageResponse{Rfc5322: out.Bytes, MissingVariables: out.Missing}, nil
}

// variables checks a message's variables.
func (v *violations) variables(field string, raw []byte) {
	if problem, remedy := variablesProblem(raw); problem != "" {
		v.add(field, "", problem, remedy)
	}
}

// unrenderable blames a rendering that failed on the delivery's content, or on what came
// with the request.
func unrenderable(d *Delivery, bad *compose.RenderError) error {
	text := printable(bad.Error(), 300)
	if field := apiField(bad.Field); field != "" {
		return &NotPreparedError{Delivery: d.ID, State: d.State, Findings: []*veredusv1.Finding{failure("content.render_failed", field, text)}}
	}
	if bad.Field == "to" {
		return invalid("address", "", text, "give another address")
	}
	return invalid("variables", "", text, "correct them and try again")
}
