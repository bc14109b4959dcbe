package campaign_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

func long(n int) string { return strings.Repeat("x", n) }

func manyKeys(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprint(i)] = ""
	}
	return m
}

func TestMalformedDeliveries(t *testing.T) {
	n := newNode(t)
	for _, c := range []struct {
		fields string // found fault with, without "delivery."
		change func(d *veredusv1.Delivery)
	}{
		{"tenant", func(d *veredusv1.Delivery) { d.Tenant = "Big Shop" }},
		{"tenant", func(d *veredusv1.Delivery) { d.Tenant = long(64) }},
		{"sender.from", func(d *veredusv1.Delivery) { d.Sender.From = "news at shop.example" }},
		{"sender.display_name", func(d *veredusv1.Delivery) { d.Sender.DisplayName = long(257) }},
		{"sender.display_name", func(d *veredusv1.Delivery) { d.Sender.DisplayName = "a\r\nBcc: b@c.example" }},
		{"sender.reply_to", func(d *veredusv1.Delivery) { d.Sender.ReplyTo = "Ada <ada@shop.example>" }},
		{"content", func(d *veredusv1.Delivery) { d.Content.Text, d.Content.Html = long(600_000), long(500_000) }},
		{"content.headers[1].name", func(d *veredusv1.Delivery) {
			d.Content.Headers = []*veredusv1.Header{{Name: "X-A", Value: "{{"}, {Name: "DKIM-Signature"}}
		}},
		{"content.headers[0].name", func(d *veredusv1.Delivery) { d.Content.Headers = []*veredusv1.Header{{Name: "X A"}} }},
		{"content.headers", func(d *veredusv1.Delivery) { d.Content.Headers = make([]*veredusv1.Header, 51) }},
		{"label", func(d *veredusv1.Delivery) { d.Label = long(257) }},
		{"label", func(d *veredusv1.Delivery) { d.Label = "a\nb" }},
		{"metadata", func(d *veredusv1.Delivery) { d.Metadata = manyKeys(65) }},
		{"metadata", func(d *veredusv1.Delivery) { d.Metadata = map[string]string{"k": long(8192)} }},
		{"metadata", func(d *veredusv1.Delivery) { d.Metadata = map[string]string{"": "v"} }},
		{"validity_period", func(d *veredusv1.Delivery) { d.ValidityPeriod = durationpb.New(time.Minute - 1) }},
		{"validity_period", func(d *veredusv1.Delivery) { d.ValidityPeriod = durationpb.New(30*24*time.Hour + 1) }},
		{"validity_period", func(d *veredusv1.Delivery) { d.ValidityPeriod = &durationpb.Duration{Seconds: 1 << 60} }},
		{"feedback_mode", func(d *veredusv1.Delivery) { d.FeedbackMode = 7 }},
		{"pool", func(d *veredusv1.Delivery) { d.Pool = "cold" }},
		{"list_id", func(d *veredusv1.Delivery) { d.ListId = long(256) }},
		{"unsubscribe.mode", func(d *veredusv1.Delivery) { d.Unsubscribe = &veredusv1.Unsubscribe{Mode: 4} }},
		{"unsubscribe.url", func(d *veredusv1.Delivery) { d.Unsubscribe.Mode = veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_HOSTED }},
		{"unsubscribe.url unsubscribe.mailto", func(d *veredusv1.Delivery) {
			d.Unsubscribe.Mode, d.Unsubscribe.Mailto = veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_HOSTED, "leave@shop.example"
		}},
		{"unsubscribe.url", func(d *veredusv1.Delivery) { d.Unsubscribe.Url = "" }},
		{"unsubscribe.url", func(d *veredusv1.Delivery) { d.Unsubscribe.Url = "https://" + long(3000) }},
		{"unsubscribe.mode", func(d *veredusv1.Delivery) { d.Unsubscribe.Mode = 0 }},
		{"unsubscribe.mailto", func(d *veredusv1.Delivery) { d.Unsubscribe.Mailto = long(1025) }},
		{"priority", func(d *veredusv1.Delivery) { d.Priority = 101 }},
		{"priority", func(d *veredusv1.Delivery) { d.Priority = -1 }},
		{"label priority", func(d *veredusv1.Delivery) { d.Label, d.Priority = "\x00", 200 }},
	} {
		d := spec()
		c.change(d)
		_, err := n.CreateDelivery(t.Context(), &veredusv1.CreateDeliveryRequest{Delivery: d})
		want := strings.Fields(c.fields)
		for i := range want {
			want[i] = "delivery." + want[i]
		}
		equal(t, c.fields, violated(t, err), slices.Compact(want))
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("an error of %d octets", len(err.Error()))
		}
	}
}

func TestAFullDeliveryIsKeptAsItWasSaid(t *testing.T) {
	n := newNode(t)
	d := spec()
	d.Name, d.State, d.Transactional, d.Kpis = "deliveries/other", 5, true, &veredusv1.Kpis{Sent: 9} // output only
	d.CreateTime = timestamppb.New(start.Add(-time.Hour))
	d.Tenant, d.Label, d.Metadata = "shop-1", "spring", map[string]string{"a": "b"}
	d.ValidityPeriod, d.FeedbackMode, d.Pool, d.ListId, d.Priority = durationpb.New(time.Hour), veredusv1.FeedbackMode_FEEDBACK_MODE_NO_EFS, "warm", "news.shop.example", 70
	d.Content.Headers = []*veredusv1.Header{{Name: "X-Campaign", Value: "{{ name }}"}}
	d.Sender.ReplyTo = "answers@shop.example"
	given := proto.CloneOf(d)
	created := must(t)(n.CreateDelivery(t.Context(), &veredusv1.CreateDeliveryRequest{DeliveryId: "spring", Delivery: d}))
	same(t, "the request", d, given)

	want := proto.CloneOf(given)
	want.Name, want.State, want.Transactional = "deliveries/spring", veredusv1.DeliveryState_DELIVERY_STATE_DRAFT, false
	want.CreateTime, want.UpdateTime = timestamppb.New(start), timestamppb.New(start)
	want.Kpis = &veredusv1.Kpis{Ledger: &veredusv1.Ledger{}}
	same(t, "created", created, want)
	same(t, "read", n.get("spring"), want)

	plain := must(t)(n.CreateDelivery(t.Context(), &veredusv1.CreateDeliveryRequest{}))
	same(t, "defaults", plain, &veredusv1.Delivery{
		Name: plain.GetName(), Tenant: "default", State: veredusv1.DeliveryState_DELIVERY_STATE_DRAFT,
		FeedbackMode: veredusv1.FeedbackMode_FEEDBACK_MODE_EFS, Pool: "default", Priority: 50,
		CreateTime: timestamppb.New(start), UpdateTime: timestamppb.New(start), Kpis: &veredusv1.Kpis{Ledger: &veredusv1.Ledger{}},
	})
	if got := n.get(strings.TrimPrefix(plain.GetName(), "deliveries/")); got.GetName() != plain.GetName() {
		t.Errorf("a chosen id does not read back: %s", got.GetName())
	}
	_, err := n.CreateDelivery(t.Context(), &veredusv1.CreateDeliveryRequest{DeliveryId: "spring"})
	var taken *campaign.ExistsError
	if !errors.As(err, &taken) || taken.Resource != "deliveries/spring" {
		t.Error(err)
	}
}

func TestMalformedRequests(t *testing.T) {
	n := newNode(t)
	ctx := t.Context()
	n.bring("d", campaign.Draft)
	mask := func(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }
	update := func(d *veredusv1.Delivery, paths ...string) error {
		_, err := n.UpdateDelivery(ctx, &veredusv1.UpdateDeliveryRequest{Delivery: d, UpdateMask: mask(paths...)})
		return err
	}
	list := func(r *veredusv1.ListMessagesRequest) error { _, err := n.ListMessages(ctx, r); return err }
	named := &veredusv1.Delivery{Name: "deliveries/d", Priority: 300, Sender: &veredusv1.Sender{From: "nobody"}}
	deliveries := func(r *veredusv1.ListDeliveriesRequest) error { _, err := n.ListDeliveries(ctx, r); return err }
	for _, c := range []struct {
		want string
		err  error
	}{
		{"delivery_id", second(n.CreateDelivery(ctx, &veredusv1.CreateDeliveryRequest{DeliveryId: "9lives"}))},
		{"delivery_id", second(n.CreateDelivery(ctx, &veredusv1.CreateDeliveryRequest{DeliveryId: "a_b"}))},
		{"delivery_id", second(n.CreateDelivery(ctx, &veredusv1.CreateDeliveryRequest{DeliveryId: "a" + long(63)}))},
		{"request_id", second(n.CreateDelivery(ctx, &veredusv1.CreateDeliveryRequest{RequestId: long(129)}))},
		{"name", second(n.GetDelivery(ctx, nil))},
		{"name", second(n.GetDelivery(ctx, &veredusv1.GetDeliveryRequest{Name: "d"}))},
		{"name", second(n.GetDelivery(ctx, &veredusv1.GetDeliveryRequest{Name: "deliveries/"}))},
		{"name", second(n.GetDelivery(ctx, &veredusv1.GetDeliveryRequest{Name: "deliveries/d/messages/x"}))},
		{"name", second(n.GetMessage(ctx, &veredusv1.GetMessageRequest{Name: "deliveries/d"}))},
		{"name", second(n.GetMessage(ctx, &veredusv1.GetMessageRequest{Name: "deliveries/d/messages/!"}))},
		{"name reason", second(n.PauseDelivery(ctx, &veredusv1.PauseDeliveryRequest{Name: "x", Reason: long(257)}))},
		{"name request_id", second(n.CancelDelivery(ctx, &veredusv1.CancelDeliveryRequest{Name: "x", RequestId: "\n"}))},
		{"name", second(n.StartDelivery(ctx, &veredusv1.StartDeliveryRequest{}))},
		{"name", second(n.PrepareDelivery(ctx, &veredusv1.PrepareDeliveryRequest{}))},
		{"name", second(n.DeleteDelivery(ctx, &veredusv1.DeleteDeliveryRequest{}))},
		{"delivery.name update_mask", update(nil)},
		{"update_mask", update(named, "name")},
		{"update_mask", update(named, "tenant")},
		{"update_mask", update(named, "*")},
		{"update_mask", update(named, "kpis.sent")},
		{"update_mask", update(named, "content.colour")},
		{"update_mask", update(named, "validity_period.seconds")},
		{"update_mask", update(named, "metadata.a")},
		{"delivery.priority", update(named, "priority", "label")},
		{"delivery.sender.from", update(named, "sender.from")},
		{"page_size", deliveries(&veredusv1.ListDeliveriesRequest{PageSize: 1001})},
		{"page_size", deliveries(&veredusv1.ListDeliveriesRequest{PageSize: -1})},
		{"tenant label state", deliveries(&veredusv1.ListDeliveriesRequest{Tenant: "A", State: 9, Label: long(300)})},
		{"page_token", deliveries(&veredusv1.ListDeliveriesRequest{PageToken: "nonsense"})},
		{"page_token", deliveries(&veredusv1.ListDeliveriesRequest{PageToken: long(5000)})},
		{"parent", list(&veredusv1.ListMessagesRequest{})},
		{"parent", list(&veredusv1.ListMessagesRequest{Parent: "deliveries/-"})},
		{"recipient", list(&veredusv1.ListMessagesRequest{Parent: "deliveries/-", Recipient: "nobody"})},
		{"recipient_id", list(&veredusv1.ListMessagesRequest{Parent: "deliveries/-", RecipientId: long(129)})},
		{"status reason destination updated_since", list(&veredusv1.ListMessagesRequest{
			Parent: "deliveries/d", Status: 77, Reason: veredusv1.FailureReason(11).Enum(), Destination: long(254), UpdatedSince: &timestamppb.Timestamp{Seconds: 1 << 50},
		})},
		{"parent", second(n.ListRejectedRecipients(ctx, &veredusv1.ListRejectedRecipientsRequest{Parent: "deliveries/-"}))},
		{"page_size", second(n.ListRejectedRecipients(ctx, &veredusv1.ListRejectedRecipientsRequest{Parent: "deliveries/d", PageSize: 9999}))},
	} {
		equal(t, c.want, violated(t, c.err), strings.Fields(c.want))
	}
	if err := update(named, "label"); err != nil {
		t.Errorf("a field outside the mask: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestWhatDoesNotExist(t *testing.T) {
	n := newNode(t)
	ctx := t.Context()
	n.bring("d", campaign.Draft)
	message := n.stored("d")["person1@mail1.example"].GetName()
	for _, c := range []struct {
		resource string
		err      error
	}{
		{"deliveries/none", second(n.GetDelivery(ctx, &veredusv1.GetDeliveryRequest{Name: "deliveries/none"}))},
		{"deliveries/none", n.update("none", &veredusv1.Delivery{}, "label")},
		{"deliveries/none", second(n.PrepareDelivery(ctx, &veredusv1.PrepareDeliveryRequest{Name: "deliveries/none"}))},
		{"deliveries/none", second(n.StartDelivery(ctx, &veredusv1.StartDeliveryRequest{Name: "deliveries/none"}))},
		{"deliveries/none", second(n.DeleteDelivery(ctx, &veredusv1.DeleteDeliveryRequest{Name: "deliveries/none"}))},
		{"deliveries/none", second(n.ListMessages(ctx, &veredusv1.ListMessagesRequest{Parent: "deliveries/none"}))},
		{"deliveries/none", second(n.ListMessages(ctx, &veredusv1.ListMessagesRequest{Parent: "deliveries/none", RecipientId: "x"}))},
		{"deliveries/none", second(n.ListRejectedRecipients(ctx, &veredusv1.ListRejectedRecipientsRequest{Parent: "deliveries/none"}))},
		{strings.Replace(message, "/d/", "/none/", 1), second(n.GetMessage(ctx, &veredusv1.GetMessageRequest{Name: strings.Replace(message, "/d/", "/none/", 1)}))},
	} {
		var missing *campaign.NotFoundError
		if !errors.As(c.err, &missing) || missing.Resource != c.resource {
			t.Errorf("%s: %v", c.resource, c.err)
		}
	}
}

func TestUpdate(t *testing.T) {
	n := newNode(t)
	n.create("d", func(d *veredusv1.Delivery) { d.Metadata = map[string]string{"a": "b"} })
	n.pass(time.Minute)
	change := &veredusv1.Delivery{
		Content: &veredusv1.Content{Subject: "New", Text: "not in the mask"}, Label: "summer", Priority: 10,
		Unsubscribe: &veredusv1.Unsubscribe{Url: "https://shop.example/leave"},
	}
	if err := n.update("d", change, "content.subject", "label", "metadata", "priority", "unsubscribe.url", "sender.display_name", "content.headers"); err != nil {
		t.Fatal(err)
	}
	d := n.get("d")
	same(t, "content", d.GetContent(), &veredusv1.Content{Subject: "New", Text: spec().GetContent().GetText()})
	same(t, "sender", d.GetSender(), &veredusv1.Sender{From: "news@shop.example"})
	same(t, "unsubscribe", d.GetUnsubscribe(), &veredusv1.Unsubscribe{Mode: veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_OWN_URL, Url: "https://shop.example/leave"})
	equal(t, "label, priority", fmt.Sprint(d.GetLabel(), d.GetPriority()), "summer10")
	equal(t, "metadata", len(d.GetMetadata()), 0)
	equal(t, "update time", d.GetUpdateTime().AsTime(), start.Add(time.Minute))

	err := n.update("d", &veredusv1.Delivery{}, "unsubscribe.mode")
	equal(t, "a URL without its mode", violated(t, err), []string{"delivery.unsubscribe.mode"})
	err = n.update("d", &veredusv1.Delivery{Content: &veredusv1.Content{Text: long(1<<20 - 1)}}, "content.text")
	equal(t, "too large together", violated(t, err), []string{"delivery.content"})

	n.add("d", person(1))
	n.prepare("d")
	n.pass(time.Minute)
	if err := n.update("d", change, "content.subject"); err != nil {
		t.Fatal(err)
	}
	equal(t, "state behind a change that changes nothing", n.get("d").GetState(), veredusv1.DeliveryState_DELIVERY_STATE_PREPARED)
}

func TestValidityChangedWhileRunning(t *testing.T) {
	n := newNode(t)
	n.running("d", 1)
	n.relay.heard()
	for _, c := range []struct{ given, applies time.Duration }{
		{2 * time.Hour, 2 * time.Hour}, {84 * time.Hour, 84 * time.Hour}, {100 * time.Hour, 84 * time.Hour}, {time.Minute, time.Minute},
	} {
		n.pass(time.Minute)
		if err := n.update("d", &veredusv1.Delivery{ValidityPeriod: durationpb.New(c.given), Pool: "warm"}, "validity_period", "pool"); err != nil {
			t.Fatal(err)
		}
		equal(t, "expires", n.get("d").GetExpireTime().AsTime(), start.Add(c.applies))
		equal(t, "told to the relay", n.relay.heard(), []string{fmt.Sprintf("update 1: warm, 50, %s", start.Add(c.applies).Format(time.DateTime))})
	}
}

func TestListDeliveries(t *testing.T) {
	n := newNode(t)
	for i := range 25 {
		n.create(fmt.Sprintf("d%02d", i), func(d *veredusv1.Delivery) {
			d.Tenant, d.Label = fmt.Sprintf("tenant-%d", i%2), fmt.Sprintf("label %d", i%5)
		})
	}
	if _, err := n.CancelDelivery(t.Context(), &veredusv1.CancelDeliveryRequest{Name: "deliveries/d04"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		request *veredusv1.ListDeliveriesRequest
		want    []string
		pages   int
	}{
		{&veredusv1.ListDeliveriesRequest{Tenant: "tenant-1", Label: "label 1"}, []string{"d21", "d11", "d01"}, 1},
		{&veredusv1.ListDeliveriesRequest{Tenant: "tenant-1", Label: "label 1", PageSize: 1}, []string{"d21", "d11", "d01"}, 3},
		{&veredusv1.ListDeliveriesRequest{State: veredusv1.DeliveryState_DELIVERY_STATE_CANCELLED}, []string{"d04"}, 1},
		{&veredusv1.ListDeliveriesRequest{Label: "label 4", PageSize: 5}, []string{"d24", "d19", "d14", "d09", "d04"}, 1},
		{&veredusv1.ListDeliveriesRequest{Tenant: "nobody"}, nil, 1},
	} {
		var got []string
		pages := 0
		for {
			page, err := n.ListDeliveries(t.Context(), c.request)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, d := range page.GetDeliveries() {
				got = append(got, strings.TrimPrefix(d.GetName(), "deliveries/"))
				if d.GetContent() != nil || d.GetKpis() == nil {
					t.Error("a list has content, or no KPIs")
				}
			}
			if c.request.PageToken = page.GetNextPageToken(); c.request.PageToken == "" {
				break
			}
		}
		equal(t, "names", got, c.want)
		if pages > c.pages+1 || pages < c.pages {
			t.Errorf("%d pages for %d deliveries", pages, len(got))
		}
	}
	first, err := n.ListDeliveries(t.Context(), &veredusv1.ListDeliveriesRequest{PageSize: 3})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.ListDeliveries(t.Context(), &veredusv1.ListDeliveriesRequest{PageSize: 9, PageToken: first.GetNextPageToken()}); err != nil {
		t.Errorf("another page size: %v", err)
	}
	_, err = n.ListDeliveries(t.Context(), &veredusv1.ListDeliveriesRequest{Tenant: "tenant-1", PageToken: first.GetNextPageToken()})
	equal(t, "a token of another query", violated(t, err), []string{"page_token"})
	_, err = n.ListRejectedRecipients(t.Context(), &veredusv1.ListRejectedRecipientsRequest{Parent: "deliveries/d00", PageToken: first.GetNextPageToken()})
	equal(t, "a token of another list", violated(t, err), []string{"page_token"})
}
