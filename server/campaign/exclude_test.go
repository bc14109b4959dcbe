package campaign_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
)

// exclusions are address entries, each a query that it excludes; those of no list hold for all, and
// those about everything for marketing, too.
type exclusions struct {
	mu      sync.Mutex
	entries map[address.Query]bounce.Reason
	asked   []address.Query
	fail    error
}

func (e *exclusions) put(q address.Query, reason bounce.Reason) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.entries == nil {
		e.entries = map[address.Query]bounce.Reason{}
	}
	e.entries[q] = reason
}

// Exclusions implements campaign.Exclusions.
func (e *exclusions) Exclusions(_ context.Context, queries []address.Query) ([]address.Exclusion, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = slices.Clone(queries)
	answers := make([]address.Exclusion, len(queries))
	for i, q := range queries {
		wide := q
		wide.List = ""
		everything := wide
		everything.Class = address.Everything
		for _, entry := range []address.Query{q, wide, everything} {
			if reason := e.entries[entry]; reason != 0 {
				answers[i].Reason = reason
				break
			}
		}
	}
	return answers, e.fail
}

func folded(i int) string { return fmt.Sprintf("person%d@mail%d.example", i, i%3) }

func TestExcludedRecipientsAreIgnored(t *testing.T) {
	n := newNode(t)
	marketing := func(i int, list string) address.Query {
		return address.Query{Folded: folded(i), Tenant: "default", List: list, Class: address.Marketing}
	}
	n.excluded.put(marketing(1, ""), bounce.ReasonDenylisted)
	n.excluded.put(marketing(2, "news.shop.example"), bounce.ReasonDenylisted)
	n.excluded.put(marketing(3, "other.shop.example"), bounce.ReasonDenylisted)
	n.excluded.put(marketing(4, ""), bounce.ReasonErrorIgnored) // allowlisted
	n.excluded.put(address.Query{Folded: folded(5), Tenant: "default", Class: address.Everything}, bounce.ReasonInQuarantine)
	n.create("d", func(d *veredusv1.Delivery) { d.ListId = "News" })

	u := open(t, dial(t, n), "d")
	u.expect("durable 0")
	list := people(1, 6)
	list = slices.Insert(list, 1, &veredusv1.Recipient{Address: "nobody"})
	list[0].Address = "PERSON1@Mail1.example" // letter case does not matter
	u.chunk(1, list...)
	u.expect("durable 7: +6 -3 !1")
	u.end()
	equal(t, "asked", len(n.excluded.asked), 6)
	equal(t, "asked about", n.excluded.asked[0], address.Query{Folded: folded(1), Tenant: "default", List: "news.shop.example", Class: address.Marketing})

	r := n.prepare("d")
	equal(t, "findings", found(r.GetFindings()), []string{
		"info validity_period.capped validity_period", "info recipients.accepted recipients 6",
		"info recipients.ignored recipients 2", "info recipients.ignored recipients 1", "info recipients.rejected recipients 1",
	})
	for i, reason := range map[int]veredusv1.FailureReason{
		1: veredusv1.FailureReason_FAILURE_REASON_DENYLISTED, 2: veredusv1.FailureReason_FAILURE_REASON_DENYLISTED,
		5: veredusv1.FailureReason_FAILURE_REASON_IN_QUARANTINE,
	} {
		name := folded(i)
		if i == 1 {
			name = "PERSON1@mail1.example"
		}
		m := n.message("d", name)
		equal(t, name, m.GetStatus(), veredusv1.LogStatus_LOG_STATUS_IGNORED)
		equal(t, name, m.GetReason(), reason)
	}
	equal(t, "to deliver", r.GetDelivery().GetKpis().GetToDeliver(), int64(3))
}

func TestUploadsEndWhenExclusionsCannotBeAsked(t *testing.T) {
	n := newNode(t)
	n.create("d")
	n.excluded.fail = errors.New("disk on fire")
	u := open(t, dial(t, n), "d")
	u.expect("durable 0")
	u.chunk(1, person(1))
	u.expect("error: asking which of 1 recipients are excluded: disk on fire")
	if last, err := n.store.DurableIndex(t.Context(), "d"); last != 0 || err != nil {
		t.Errorf("%d recipients are stored, %v", last, err)
	}
	if _, err := n.SendMessage(t.Context(), single("r")); !errors.Is(err, n.excluded.fail) {
		t.Error(err)
	}
}

// Transactional mail goes to those who want no marketing; but mail with a hosted unsubscribe is mail
// of a list.
func TestWhoGetsSingleMessages(t *testing.T) {
	n := newNode(t)
	n.hosted = "https://u.shop.example"
	n.excluded.put(address.Query{Folded: folded(7), Tenant: "default", Class: address.Marketing}, bounce.ReasonDenylisted)
	m, err := n.SendMessage(t.Context(), single("r1"))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "transactional", m.GetStatus(), veredusv1.LogStatus_LOG_STATUS_TAKEN_INTO_ACCOUNT)
	equal(t, "asked about", n.excluded.asked[0], address.Query{Folded: folded(7), Tenant: "default", Class: address.Everything})
	n.relay.heard()

	leaving := single("r2")
	leaving.ListId, leaving.Unsubscribe = "tips", &veredusv1.Unsubscribe{Mode: veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_HOSTED}
	m, err = n.SendMessage(t.Context(), leaving)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "of a list", m.GetStatus(), veredusv1.LogStatus_LOG_STATUS_IGNORED)
	equal(t, "reason", m.GetReason(), veredusv1.FailureReason_FAILURE_REASON_DENYLISTED)
	equal(t, "asked about", n.excluded.asked[0], address.Query{Folded: folded(7), Tenant: "default", List: "tips.shop.example", Class: address.Marketing})

	n.excluded.put(address.Query{Folded: folded(7), Tenant: "default", Class: address.Everything}, bounce.ReasonInQuarantine)
	m, err = n.SendMessage(t.Context(), single("r3"))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "quarantined", m.GetReason(), veredusv1.FailureReason_FAILURE_REASON_IN_QUARANTINE)
	equal(t, "told to the relay", n.relay.heard(), []string(nil))

	n.excluded.entries = nil
	again, err := n.SendMessage(t.Context(), single("r3"))
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(again, m) {
		t.Errorf("a repeated call answers %v, first %v", again, m)
	}
}

func TestNobodyIsExcludedWithoutEntries(t *testing.T) {
	n := newNode(t)
	o := n.options(n.store, n.store)
	o.Addresses, o.HostedURL = nil, nil
	n.Service = campaign.NewService(o)
	n.create("d")
	u := open(t, dial(t, n), "d")
	u.chunk(1, people(1, 3)...)
	u.expect("durable 0", "durable 3: +3 -0 !0")
	u.end()
}
