package campaign_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

// single is one transactional mail.
func single(request string) *veredusv1.SendMessageRequest {
	return &veredusv1.SendMessageRequest{
		Sender:    &veredusv1.Sender{From: "service@shop.example"},
		Content:   &veredusv1.Content{Subject: "Your code {{ name }}", Text: "It is {{ id }}."},
		Recipient: person(7), RequestId: request,
	}
}

func TestASingleMessage(t *testing.T) {
	n := newNode(t)
	r := single("r1")
	r.Tenant, r.ValidityPeriod = "shop-1", durationpb.New(time.Hour)
	m, err := n.SendMessage(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "answer", m, &veredusv1.Message{
		Name: m.GetName(), Recipient: "person7@mail1.example", RecipientId: "crm-7", Metadata: map[string]string{"segment": "a"},
		Status: veredusv1.LogStatus_LOG_STATUS_TAKEN_INTO_ACCOUNT, Destination: "mail1.example", Tenant: "shop-1",
		ArrivalTime: timestamppb.New(start), ExpireTime: timestamppb.New(start.Add(time.Hour)), UpdateTime: timestamppb.New(start),
	})
	if !strings.HasPrefix(m.GetName(), "deliveries/transactional-shop-1/messages/") {
		t.Error(m.GetName())
	}
	equal(t, "told to the relay", n.relay.heard(), []string{"arrived transactional-shop-1 at mail1.example, expires 2026-03-02 10:00:00"})
	equal(t, "events", n.events("transactional-shop-1"), []string{"taken_into_account"})
	equal(t, "waits", waits(n.message("transactional-shop-1", "person7@mail1.example")), "queue: waits for its turn")

	n.pass(time.Hour)
	second := single("r2")
	second.Tenant = "shop-1"
	if m, err = n.SendMessage(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	equal(t, "validity when unset", m.GetExpireTime().AsTime(), start.Add(85*time.Hour))
	d := n.get("transactional-shop-1")
	equal(t, "transactional", d.GetTransactional(), true)
	same(t, "ledger", d.GetKpis().GetLedger(), &veredusv1.Ledger{Accepted: 2, TakenIntoAccount: 2})
}

func TestSingleMessagesThatAreRefused(t *testing.T) {
	n := newNode(t)
	for i, c := range []struct {
		fields string
		change func(r *veredusv1.SendMessageRequest)
	}{
		{"request_id", func(r *veredusv1.SendMessageRequest) { r.RequestId = "" }},
		{"request_id", func(r *veredusv1.SendMessageRequest) { r.RequestId = long(129) }},
		{"tenant", func(r *veredusv1.SendMessageRequest) { r.Tenant = "A B" }},
		{"sender.from", func(r *veredusv1.SendMessageRequest) { r.Sender = nil }},
		{"sender.from", func(r *veredusv1.SendMessageRequest) { r.Sender.From = "nobody" }},
		{"sender.from", func(r *veredusv1.SendMessageRequest) { r.Sender.From = "a@other.example" }},
		{"content.subject", func(r *veredusv1.SendMessageRequest) { r.Content.Subject = " " }},
		{"content.text", func(r *veredusv1.SendMessageRequest) { r.Content.Text = "{{" }},
		{"content.subject content.text", func(r *veredusv1.SendMessageRequest) { r.Content = nil }},
		{"content.text", func(r *veredusv1.SendMessageRequest) { r.Content.Text = "{% for i in (1..200000) %}x{% endfor %}" }},
		{"content.headers[0].name", func(r *veredusv1.SendMessageRequest) {
			r.Content.Headers = []*veredusv1.Header{{Name: "To", Value: "x"}}
		}},
		{"recipient.address", func(r *veredusv1.SendMessageRequest) { r.Recipient = nil }},
		{"recipient.address", func(r *veredusv1.SendMessageRequest) { r.Recipient.Address = "a@b@c.example" }},
		{"recipient.variables", func(r *veredusv1.SendMessageRequest) { r.Recipient.Variables = []byte("1") }},
		{"recipient.recipient_id", func(r *veredusv1.SendMessageRequest) { r.Recipient.RecipientId = "a\tb" }},
		{"recipient.metadata", func(r *veredusv1.SendMessageRequest) { r.Recipient.Metadata = map[string]string{"": ""} }},
		{"validity_period", func(r *veredusv1.SendMessageRequest) { r.ValidityPeriod = durationpb.New(84*time.Hour + 1) }},
		{"validity_period", func(r *veredusv1.SendMessageRequest) { r.ValidityPeriod = durationpb.New(59 * time.Second) }},
		{"pool", func(r *veredusv1.SendMessageRequest) { r.Pool = "cold" }},
		{"list_id", func(r *veredusv1.SendMessageRequest) { r.ListId = "a b" }},
		{"unsubscribe.url", func(r *veredusv1.SendMessageRequest) {
			r.Unsubscribe = &veredusv1.Unsubscribe{Mode: veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_OWN_URL, Url: "http://insecure.example"}
		}},
	} {
		r := single(fmt.Sprintf("r%d", i))
		c.change(r)
		_, err := n.SendMessage(t.Context(), r)
		equal(t, c.fields, violated(t, err), strings.Fields(c.fields))
	}
	equal(t, "told to the relay", n.relay.heard(), []string(nil))
}

func TestASandboxDividesValidity(t *testing.T) {
	n := newNode(t)
	o := n.options(n.store, n.store)
	o.TimeScale = 3600
	n.Service = campaign.NewService(o)
	equal(t, "a delivery of 5 days", n.running("d", 1).GetExpireTime().AsTime(), start.Add(84*time.Second))
	if err := n.update("d", &veredusv1.Delivery{ValidityPeriod: durationpb.New(2 * time.Hour)}, "validity_period"); err != nil {
		t.Fatal(err)
	}
	equal(t, "of 2 hours", n.get("d").GetExpireTime().AsTime(), start.Add(2*time.Second))
	m, err := n.SendMessage(t.Context(), single("r"))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "a single message", m.GetExpireTime().AsTime(), start.Add(84*time.Second))
}
