package campaign_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/veredus/veredus/dkim"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

// found are the findings in words: severity, code, field and count.
func found(list []*veredusv1.Finding) []string {
	var texts []string
	for _, f := range list {
		text := fmt.Sprintf("%s %s %s", strings.ToLower(strings.TrimPrefix(f.GetSeverity().String(), "SEVERITY_")), f.GetCode(), f.GetField())
		if f.GetCount() > 0 {
			text += fmt.Sprintf(" %d", f.GetCount())
		}
		texts = append(texts, text)
	}
	return texts
}

func TestFindings(t *testing.T) {
	const accepted, capped = "info recipients.accepted recipients 2", "info validity_period.capped validity_period"
	for _, c := range []struct {
		name     string
		change   func(d *veredusv1.Delivery)
		node     func(n *node)
		prepared bool
		want     []string
		says     string // in the first finding
	}{
		{"nothing wrong", func(d *veredusv1.Delivery) { d.ValidityPeriod = durationpb.New(time.Hour) }, nil, true, []string{accepted}, "2 of them get mail"},
		{"default validity", nil, nil, true, []string{capped, accepted}, "5 days"},
		{"long validity", func(d *veredusv1.Delivery) { d.ValidityPeriod = durationpb.New(100 * time.Hour) }, nil, true, []string{capped, accepted}, "100h0m0s"},
		{
			"empty", func(d *veredusv1.Delivery) { d.Sender, d.Content, d.Unsubscribe = nil, nil, nil }, nil, false, []string{
				"error sender.missing_from sender.from", "error content.missing_subject content.subject", "error content.missing_body content.text",
				"warning unsubscribe.missing unsubscribe.mode", capped, accepted,
			}, "is missing",
		},
		{"no key", func(d *veredusv1.Delivery) { d.Sender.From = "a@other.example" }, nil, false, []string{"error sender.no_dkim_key sender.from", capped, accepted}, "other.example"},
		{
			"weak key", nil, func(n *node) {
				key := *n.keys["shop.example"][0]
				key.Warnings = []string{"has 1024 bits"}
				n.keys["shop.example"] = []*dkim.Key{&key}
			}, true, []string{"warning sender.weak_dkim_key sender.from", capped, accepted}, "1024 bits",
		},
		{
			"return path elsewhere", nil, func(n *node) { n.back["shop.example"] = "bounces.provider.example" }, true,
			[]string{"warning sender.bounce_domain sender.from", capped, accepted},
			"bounces.provider.example is outside shop.example",
		},
		{"return path below", nil, func(n *node) { n.back["shop.example"] = "bounces.shop.example" }, true, []string{capped, accepted}, ""},
		{
			"template that does not parse", func(d *veredusv1.Delivery) { d.Content.Text = "line\n{% if %}" }, nil, false,
			[]string{"error content.invalid content.text", capped, accepted},
			"line 2",
		},
		{
			"headers, list and mailto", func(d *veredusv1.Delivery) {
				d.Content.Headers = []*veredusv1.Header{{Name: "X-Campaign", Value: "{{"}}
				d.ListId, d.Unsubscribe.Mailto = "not an id", "nobody"
			}, nil, false, []string{
				"error content.invalid content.headers[0].value", "error list_id.invalid list_id", "error unsubscribe.invalid unsubscribe.mailto", capped, accepted,
			}, "",
		},
		{
			"missing variables", func(d *veredusv1.Delivery) { d.Content.Html = "<p>{{ city }} {{ order.total }} {{ name }}</p>" }, nil, true,
			[]string{"warning content.missing_variable content 2", "warning content.missing_variable content 2", capped, accepted},
			`"city" is missing for 2 of 2`,
		},
		{
			"missing for one", func(d *veredusv1.Delivery) { d.Content.Text = "{{ name }} {{ gift }}" },
			func(n *node) {
				n.add("d", &veredusv1.Recipient{Address: "p@q.example", Variables: []byte(`{"name":"P","id":1,"gift":"book"}`)})
			}, true,
			[]string{"warning content.missing_variable content 2", capped, "info recipients.accepted recipients 3"},
			"2 of 3",
		},
		{
			"empty subject", func(d *veredusv1.Delivery) { d.Content.Subject = "{{ greeting }}" }, nil, true, []string{
				"warning content.empty_subject content.subject 2", "warning content.missing_variable content 2", capped, accepted,
			}, "is empty",
		},
		{
			"rendering fails", func(d *veredusv1.Delivery) {
				d.Content.Text = "{% for i in (1..200000) %}x{% endfor %}"
			}, nil, false, []string{"error content.render_failed content.text 2", capped, accepted}, "2 of 2",
		},
		{
			"unsubscribe URL for nobody", func(d *veredusv1.Delivery) { d.Unsubscribe.Url = "{{ leave }}" }, nil, false,
			[]string{"error content.render_failed unsubscribe.url 2", capped, accepted},
			"",
		},
		{"no unsubscribe", func(d *veredusv1.Delivery) { d.Unsubscribe = nil }, nil, true, []string{"warning unsubscribe.missing unsubscribe.mode", capped, accepted}, "RFC 8058"},
		{
			"mailto alone is not one click", func(d *veredusv1.Delivery) {
				d.Unsubscribe = &veredusv1.Unsubscribe{Mailto: "leave@shop.example"}
			}, nil, true,
			[]string{"warning unsubscribe.missing unsubscribe.mode", capped, accepted},
			"",
		},
		{
			"complete message", func(d *veredusv1.Delivery) {
				d.Sender.DisplayName, d.Unsubscribe = "", nil
				d.Content = &veredusv1.Content{Rfc5322: []byte("From: news@shop.example\nSubject: Hi\nList-Unsubscribe: <https://shop.example/u>\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\n\nHello\n")}
			}, nil, true, []string{capped, accepted}, "",
		},
		{
			"complete message beside parts", func(d *veredusv1.Delivery) { d.Content.Rfc5322 = []byte("Subject: Hi\n\nHello\n") }, nil, false, []string{
				"error sender.invalid sender.display_name", "error content.invalid content.subject", "error content.invalid content.text", "error content.invalid content.rfc5322", capped, accepted,
			}, "",
		},
		{
			"ignored and rejected", nil, func(n *node) {
				n.add("d", person(1))
				if _, err := n.store.Add(n.t.Context(), "d", []campaign.Item{{Index: 4, Reject: &veredusv1.RejectedRecipient{Index: 4, Field: "address"}}}); err != nil {
					n.t.Fatal(err)
				}
			}, true, []string{
				capped, "info recipients.accepted recipients 3", "info recipients.ignored recipients 1", "info recipients.rejected recipients 1",
			}, "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			n.create("d", func(d *veredusv1.Delivery) {
				if c.change != nil {
					c.change(d)
				}
			})
			n.add("d", people(1, 2)...)
			if c.node != nil {
				c.node(n)
			}
			r := n.prepare("d")
			equal(t, "findings", found(r.GetFindings()), c.want)
			equal(t, "prepared", r.GetDelivery().GetState() == veredusv1.DeliveryState_DELIVERY_STATE_PREPARED, c.prepared)
			equal(t, "stored state", n.get("d").GetState(), r.GetDelivery().GetState())
			if !strings.Contains(r.GetFindings()[0].GetDescription(), c.says) {
				t.Errorf("%q does not say %q", r.GetFindings()[0].GetDescription(), c.says)
			}
			if t.Failed() {
				t.Log(r.GetFindings())
			}
		})
	}
}

func TestADeliveryWithoutRecipientsIsNotPrepared(t *testing.T) {
	n := newNode(t)
	n.create("d", func(d *veredusv1.Delivery) { d.Unsubscribe = nil })
	equal(t, "findings", found(n.prepare("d").GetFindings()), []string{
		"error recipients.none recipients", "warning unsubscribe.missing unsubscribe.mode", "info validity_period.capped validity_period",
	})
}

func TestAPreparedDeliveryThatLostItsKeyIsADraftAgain(t *testing.T) {
	n := newNode(t)
	n.bring("d", campaign.Prepared)
	delete(n.keys, "shop.example")
	equal(t, "state", n.prepare("d").GetDelivery().GetState(), veredusv1.DeliveryState_DELIVERY_STATE_DRAFT)
}

// growingStore adds a recipient whenever the analysis has taken its sample.
type growingStore struct {
	campaign.Recipients
	n     *node
	times int
}

func (s *growingStore) Sample(ctx context.Context, delivery string, most int) ([]campaign.Sampled, error) {
	list, err := s.Recipients.Sample(ctx, delivery, most)
	if s.times > 0 {
		s.times--
		s.n.add(delivery, person(100+s.times))
	}
	return list, err
}

func TestADeliveryThatChangesDuringItsAnalysis(t *testing.T) {
	for _, c := range []struct {
		times int
		state veredusv1.DeliveryState
		first string
	}{
		{2, veredusv1.DeliveryState_DELIVERY_STATE_PREPARED, "info validity_period.capped validity_period"},
		{3, veredusv1.DeliveryState_DELIVERY_STATE_DRAFT, "error delivery.changed "},
	} {
		n := newNode(t)
		n.bring("d", campaign.Draft)
		s := campaign.NewService(n.options(n.store, &growingStore{n.store, n, c.times}))
		r, err := s.PrepareDelivery(t.Context(), &veredusv1.PrepareDeliveryRequest{Name: "deliveries/d", RequestId: "r"})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "state", r.GetDelivery().GetState(), c.state)
		equal(t, "first finding", found(r.GetFindings())[0], c.first)
		again, err := s.PrepareDelivery(t.Context(), &veredusv1.PrepareDeliveryRequest{Name: "deliveries/d", RequestId: "r"})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "the repeated answer", again, r)
	}
}

func TestPreview(t *testing.T) {
	n := newNode(t)
	n.create("d", func(d *veredusv1.Delivery) { d.Content.Html = "<p>{{ name }} {{ city }}</p>" })
	r, err := n.PreviewMessage(t.Context(), &veredusv1.PreviewMessageRequest{Delivery: "deliveries/d", Variables: []byte(`{"name":"<Ada>","id":7}`)})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"From: The Shop <news@shop.example>\r\n", "To: recipient@example.com\r\n", "Subject: Hello <Ada>\r\n",
		"List-Unsubscribe: <https://shop.example/u/7>\r\n", "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
		"Feedback-ID: d:default:bulk:shop.example\r\n", "<p>&lt;Ada&gt; </p>",
	} {
		if !strings.Contains(string(r.GetRfc5322()), want) {
			t.Errorf("%q is not in\n%s", want, r.GetRfc5322())
		}
	}
	equal(t, "missing", r.GetMissingVariables(), []string{"city"})

	for _, bad := range []*veredusv1.PreviewMessageRequest{
		{Delivery: "deliveries/d", Variables: []byte(`"no object"`)},
		{Delivery: "deliveries/d", Address: "nobody"},
		{Delivery: "d"},
	} {
		_, err := n.PreviewMessage(t.Context(), bad)
		equal(t, "violations", len(violated(t, err)), 1)
	}
	if _, err := n.PreviewMessage(t.Context(), &veredusv1.PreviewMessageRequest{Delivery: "deliveries/none"}); !errors.Is(err, campaign.ErrNotFound) {
		t.Error(err)
	}
	n.create("broken", func(d *veredusv1.Delivery) { d.Content.Text = "{{" })
	var unfit *campaign.NotPreparedError
	if _, err := n.PreviewMessage(t.Context(), &veredusv1.PreviewMessageRequest{Delivery: "deliveries/broken"}); !errors.As(err, &unfit) || unfit.Findings[0].GetField() != "content.text" {
		t.Error(err)
	}
	n.create("endless", func(d *veredusv1.Delivery) { d.Content.Text = "{% for i in (1..200000) %}x{% endfor %}" })
	if _, err := n.PreviewMessage(t.Context(), &veredusv1.PreviewMessageRequest{Delivery: "deliveries/endless"}); !errors.As(err, &unfit) || unfit.Findings[0].GetField() != "content.text" {
		t.Error(err)
	}
}
