package campaign

import (
	"strings"
	"time"

	"golang.org/x/net/idna"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/compose"
	"github.com/veredus/veredus/mta/dispatch"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// Defaults of a delivery's settings.
const (
	DefaultTenant   = "default"
	DefaultPool     = "default"
	DefaultPriority = 50
)

// HandOver is the delivery as the relay sees it.
func (d *Delivery) HandOver() *mta.Handover {
	h := &mta.Handover{
		ID: d.Handover, Delivery: d.No, Name: "deliveries/" + d.ID, DeliveryID: d.ID,
		Tenant: d.tenant(), SenderDomain: senderDomain(d.Spec.GetSender().GetFrom()),
		Class: dispatch.Bulk, Priority: d.priority(), Pool: d.pool(),
		Content: d.Content, Paused: d.State == Paused, Arrival: d.Started, Expires: d.Expires,
	}
	if d.Transactional {
		h.Class = dispatch.Transactional
		h.Content, h.SenderDomain, h.Arrival, h.Expires = 0, "", time.Time{}, time.Time{}
	}
	return h
}

// Source is what the delivery's mail says, as the composer takes it.
func (d *Delivery) Source() *compose.Source {
	content := d.Spec.GetContent()
	s := &compose.Source{
		From:    compose.Mailbox{Name: d.Spec.GetSender().GetDisplayName(), Address: d.Spec.GetSender().GetFrom()},
		ReplyTo: d.Spec.GetSender().GetReplyTo(),
		Subject: content.GetSubject(), Text: content.GetText(), HTML: content.GetHtml(), Raw: content.GetRfc5322(),
		ListID:            d.Spec.GetListId(),
		UnsubscribeMailto: d.Spec.GetUnsubscribe().GetMailto(),
		FeedbackID:        d.feedbackID(),
	}
	for _, h := range content.GetHeaders() {
		s.Headers = append(s.Headers, compose.Header{Name: h.GetName(), Value: h.GetValue()})
	}
	switch d.Spec.GetUnsubscribe().GetMode() {
	case veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_OWN_URL:
		s.Unsubscribe, s.UnsubscribeURL = compose.UnsubscribeOwnURL, d.Spec.GetUnsubscribe().GetUrl()
	case veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_HOSTED:
		s.Unsubscribe = compose.UnsubscribeHosted
	}
	return s
}

// feedbackID is campaign:tenant:class:sender. The campaign is the label, or the
// delivery where it has none; the sender is the From domain, stable over campaigns.
func (d *Delivery) feedbackID() string {
	campaign, class := d.Spec.GetLabel(), "bulk"
	if campaign == "" {
		campaign = d.ID
	}
	if d.Transactional {
		class = "transactional"
	}
	parts := []string{campaign, d.tenant(), class, senderDomain(d.Spec.GetSender().GetFrom())}
	for i := range parts {
		parts[i] = feedbackPart(parts[i])
	}
	return strings.Join(parts, ":")
}

// feedbackPart keeps what may stand between the colons; 64 octets are enough to tell campaigns apart.
func feedbackPart(s string) string {
	clean := strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && r != ':' {
			return r
		}
		return '-'
	}, s)
	return clean[:min(len(clean), 64)]
}

// hosted reports whether this node takes the delivery's unsubscribes.
func (d *Delivery) hosted() bool {
	return d.Spec.GetUnsubscribe().GetMode() == veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_HOSTED
}

// list is the delivery's List-Id in lower case, as address entries name it.
func (d *Delivery) list() string {
	return compose.ListID(d.Spec.GetListId(), senderDomain(d.Spec.GetSender().GetFrom()))
}

func (d *Delivery) tenant() string {
	if t := d.Spec.GetTenant(); t != "" {
		return t
	}
	return DefaultTenant
}

func (d *Delivery) pool() string {
	if p := d.Spec.GetPool(); p != "" {
		return p
	}
	return DefaultPool
}

func (d *Delivery) priority() int {
	if p := d.Spec.GetPriority(); p != 0 {
		return int(p)
	}
	return DefaultPriority
}

// senderDomain is the domain of an address as an A-label; as it stands when it is none.
func senderDomain(address string) string {
	domain := strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
	if a, err := idna.Lookup.ToASCII(domain); err == nil {
		return a
	}
	return domain
}
