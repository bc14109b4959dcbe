package campaign_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/veredus/veredus/mta/compose"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

// hosted makes a delivery of a list whose unsubscribes the node takes.
func hosted(d *veredusv1.Delivery) {
	d.ListId, d.Unsubscribe = "news", &veredusv1.Unsubscribe{Mode: veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_HOSTED}
	d.Content.Text = "Leave: {{ unsubscribe_url }}"
}

func TestHostedUnsubscribeIsPrepared(t *testing.T) {
	const accepted, capped = "info recipients.accepted recipients 2", "info validity_period.capped validity_period"
	for name, c := range map[string]struct {
		url  string
		list string
		want []string
	}{
		"with a list":          {"https://u.shop.example", "news", []string{capped, accepted}},
		"without":              {"https://u.shop.example", "", []string{"warning unsubscribe.no_list list_id", capped, accepted}},
		"no public listener":   {"", "news", []string{"error unsubscribe.no_public_listener unsubscribe.mode", capped, accepted}},
		"a list that is wrong": {"https://u.shop.example", "a b", []string{"error list_id.invalid list_id", capped, accepted}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.hosted = c.url
			n.create("d", hosted, func(d *veredusv1.Delivery) { d.ListId = c.list })
			n.add("d", people(1, 2)...)
			r := n.prepare("d")
			equal(t, "findings", found(r.GetFindings()), c.want)
			same(t, "stored", n.get("d").GetUnsubscribe(), &veredusv1.Unsubscribe{Mode: veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_HOSTED})
		})
	}
}

func TestAHostedDeliveryNeedsItsListenerAtTheStart(t *testing.T) {
	n := newNode(t)
	n.hosted = "https://u.shop.example"
	n.create("d", hosted)
	n.add("d", people(1, 2)...)
	n.prepare("d")
	n.hosted = ""
	_, err := n.StartDelivery(t.Context(), &veredusv1.StartDeliveryRequest{Name: "deliveries/d"})
	var unfit *campaign.NotPreparedError
	if !errors.As(err, &unfit) || unfit.Findings[0].GetField() != "unsubscribe.mode" {
		t.Error(err)
	}
	n.hosted = "https://u.shop.example"
	equal(t, "state", n.begin("d").GetState(), veredusv1.DeliveryState_DELIVERY_STATE_RUNNING)
	d, err := n.store.Get(t.Context(), "d")
	if err != nil {
		t.Fatal(err)
	}
	src, err := n.store.Content(t.Context(), d.Content)
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := compose.Compile(*src)
	if err != nil || !tmpl.Hosted() || tmpl.ListID() != "news.shop.example" {
		t.Errorf("the relay gets %+v, %v", src, err)
	}
}

func TestThePreviewOfAHostedDelivery(t *testing.T) {
	n := newNode(t)
	n.hosted = "https://u.shop.example/mail"
	n.back["shop.example"] = "bounce.shop.example"
	n.create("d", hosted)
	r, err := n.PreviewMessage(t.Context(), &veredusv1.PreviewMessageRequest{Delivery: "deliveries/d"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"List-Unsubscribe: <https://u.shop.example/mail/u/preview>,\r\n <mailto:unsubscribe@bounce.shop.example?subject=preview>\r\n",
		"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n", "List-Id: <news.shop.example>\r\n", "Leave: https://u.shop.example/mail/u/preview\r\n",
	} {
		if !strings.Contains(string(r.GetRfc5322()), want) {
			t.Errorf("%q is not in\n%s", want, r.GetRfc5322())
		}
	}
	n.hosted = ""
	var unfit *campaign.NotPreparedError
	if _, err := n.PreviewMessage(t.Context(), &veredusv1.PreviewMessageRequest{Delivery: "deliveries/d"}); !errors.As(err, &unfit) || unfit.Findings[0].GetField() != "unsubscribe.mode" {
		t.Error(err)
	}
}

func TestTheModeOfAnUnsubscribeIsUpdated(t *testing.T) {
	const mode = "unsubscribe.mode"
	n := newNode(t)
	n.hosted = "https://u.shop.example"
	n.create("d")
	host := &veredusv1.Delivery{Unsubscribe: &veredusv1.Unsubscribe{Mode: veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_HOSTED}}
	equal(t, "the old URL stands in the way", violated(t, n.update("d", host, mode)), []string{"delivery.unsubscribe.url"})
	if err := n.update("d", host, "unsubscribe"); err != nil {
		t.Fatal(err)
	}
	same(t, "hosted", n.get("d").GetUnsubscribe(), host.GetUnsubscribe())
	mailto := &veredusv1.Delivery{Unsubscribe: &veredusv1.Unsubscribe{Mailto: "leave@shop.example"}}
	equal(t, "a mailto beside", violated(t, n.update("d", mailto, "unsubscribe.mailto")), []string{"delivery.unsubscribe.mailto"})
	own := &veredusv1.Delivery{Unsubscribe: &veredusv1.Unsubscribe{Mode: veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_OWN_URL, Url: "https://shop.example/u"}}
	if err := n.update("d", own, mode, "unsubscribe.url"); err != nil {
		t.Fatal(err)
	}
	same(t, "own", n.get("d").GetUnsubscribe(), own.GetUnsubscribe())
}

func TestSingleMessagesWithAHostedUnsubscribe(t *testing.T) {
	n := newNode(t)
	r := single("r")
	r.Unsubscribe = &veredusv1.Unsubscribe{Mode: veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_HOSTED}
	_, err := n.SendMessage(t.Context(), r)
	equal(t, "no listener", violated(t, err), []string{"unsubscribe.mode"})
	n.hosted = "https://u.shop.example"
	r.Unsubscribe.Url = "https://shop.example/u"
	_, err = n.SendMessage(t.Context(), r)
	equal(t, "a URL beside", violated(t, err), []string{"unsubscribe.url"})
	r.Unsubscribe.Url = ""
	if _, err := n.SendMessage(t.Context(), r); err != nil {
		t.Error(err)
	}
}
