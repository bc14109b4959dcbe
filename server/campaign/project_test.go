package campaign_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

var (
	unknown = bounce.Verdict{Code: 10, Reason: bounce.ReasonUserUnknown, Type: bounce.TypeHard, Disposition: bounce.Final}
	full    = bounce.Verdict{Code: 22, Reason: bounce.ReasonMailboxFull, Type: bounce.TypeSoft, Disposition: bounce.Retry}
	expired = bounce.Verdict{Code: 24, Reason: bounce.ReasonUnreachable, Type: bounce.TypeIgnored, Disposition: bounce.Final}
)

// TestLogAndSuccessByFeedbackMode walks ten messages through every step that the two
// modes show differently, and reads the log and the KPIs behind each.
func TestLogAndSuccessByFeedbackMode(t *testing.T) {
	steps := []struct {
		name string
		do   func(n *node, all map[string]*mta.Message)
		who  string // the message whose status is shown
		// status, reason and success percent: first without EFS, then with it
		noEFS, efs string
	}{
		{
			"handed to the relay", func(*node, map[string]*mta.Message) {}, "person1",
			"SENT - 100", "TAKEN_INTO_ACCOUNT - 0",
		},
		{
			"delivered", attempt("person1", mta.Delivered, bounce.Verdict{}), "person1",
			"SENT - 100", "SENT - 10",
		},
		{
			"hard bounce", attempt("person2", mta.Bounced, unknown), "person2",
			"FAILED USER_UNKNOWN 90", "FAILED USER_UNKNOWN 10",
		},
		{
			"soft bounce", attempt("person3", mta.Deferred, full), "person3",
			"SENT MAILBOX_FULL 90", "TAKEN_INTO_ACCOUNT MAILBOX_FULL 10",
		},
		{
			"a retry succeeds", attempt("person3", mta.Delivered, bounce.Verdict{}), "person3",
			"SENT - 90", "SENT - 20",
		},
		{
			"soft bounce of another", attempt("person4", mta.Deferred, full), "person4",
			"SENT MAILBOX_FULL 90", "TAKEN_INTO_ACCOUNT MAILBOX_FULL 20",
		},
		{
			"its retries fail", attempt("person4", mta.Bounced, full), "person4",
			"FAILED MAILBOX_FULL 80", "FAILED MAILBOX_FULL 20",
		},
		{
			"validity ends", attempt("person5", mta.Expired, expired), "person5",
			"FAILED UNREACHABLE 70", "FAILED UNREACHABLE 20",
		},
		{
			"cancelled", func(n *node, _ map[string]*mta.Message) {
				if _, err := n.CancelDelivery(n.t.Context(), &veredusv1.CancelDeliveryRequest{Name: "deliveries/d"}); err != nil {
					n.t.Fatal(err)
				}
			}, "person6",
			"CANCELLED - 20", "CANCELLED - 20",
		},
	}
	for _, mode := range []veredusv1.FeedbackMode{veredusv1.FeedbackMode_FEEDBACK_MODE_NO_EFS, veredusv1.FeedbackMode_FEEDBACK_MODE_EFS} {
		n := newNode(t)
		n.running("d", 10, func(d *veredusv1.Delivery) { d.FeedbackMode = mode })
		all := map[string]*mta.Message{}
		for address, m := range n.loaded("d") {
			all[address[:strings.IndexByte(address, '@')]] = m
		}
		for _, step := range steps {
			n.pass(time.Minute)
			step.do(n, all)
			want := step.efs
			if mode == veredusv1.FeedbackMode_FEEDBACK_MODE_NO_EFS {
				want = step.noEFS
			}
			if got := n.shown("d", step.who); got != want {
				t.Errorf("%s, %s: %s, want %s", step.name, mode, got, want)
			}
			n.balances("d", mode)
		}
	}
}

// attempt claims and settles one message.
func attempt(who string, outcome mta.Outcome, verdict bounce.Verdict) func(*node, map[string]*mta.Message) {
	return func(n *node, all map[string]*mta.Message) {
		n.claim(all[who])
		n.settle(all[who], outcome, verdict, "said the server")
	}
}

// shown is what a client sees of a message, and the success of its delivery.
func (n *node) shown(delivery, who string) string {
	n.t.Helper()
	list, err := n.ListMessages(n.t.Context(), &veredusv1.ListMessagesRequest{Parent: "deliveries/" + delivery})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, m := range list.GetMessages() {
		if !strings.HasPrefix(m.GetRecipient(), who+"@") {
			continue
		}
		reason := "-"
		if m.GetReason() != 0 {
			reason = strings.TrimPrefix(m.GetReason().String(), "FAILURE_REASON_")
		}
		return fmt.Sprintf("%s %s %v", strings.TrimPrefix(m.GetStatus().String(), "LOG_STATUS_"), reason, n.get(delivery).GetKpis().GetSuccessPercent())
	}
	n.t.Fatalf("%s is not in the log", who)
	return ""
}

// balances checks that log and KPIs tell the same.
func (n *node) balances(delivery string, mode veredusv1.FeedbackMode) {
	n.t.Helper()
	k := n.get(delivery).GetKpis()
	l := k.GetLedger()
	if l.GetAccepted() != l.GetIgnored()+l.GetPending()+l.GetTakenIntoAccount()+l.GetSent()+l.GetFailed()+l.GetCancelled() {
		n.t.Errorf("the ledger does not balance: %v", l)
	}
	list, err := n.ListMessages(n.t.Context(), &veredusv1.ListMessagesRequest{
		Parent: "deliveries/" + delivery, Status: veredusv1.LogStatus_LOG_STATUS_SENT,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	if int64(len(list.GetMessages())) != k.GetSent() {
		n.t.Errorf("%s: the log shows %d as Sent, the KPIs %d", mode, len(list.GetMessages()), k.GetSent())
	}
}

func TestKpis(t *testing.T) {
	minutes := func(n int64) (m campaign.Minutes) {
		m.Add(start, n)
		return m
	}
	c := campaign.Counters{
		Accepted: 120, Rejected: 3, InRelay: 20, Deferred: 5, Claimed: 2, Sent: 60, Failed: 18, Cancelled: 2, Attempts: 90, Complaints: 1, Unsubs: 4,
		Ignored:    map[int32]int64{10: 15, 9: 5, 8: 0},
		FailedBy:   map[int32]int64{0: 1, 1: 4, 2: 1, 3: 2, 4: 1, 5: 3, 6: 1, 8: 2, 20: 3},
		HandedOver: minutes(100), DeliveredBy: minutes(60),
		By: map[string]*campaign.DestinationCounters{
			"small":                   {Sent: 10, DeliveredBy: minutes(10)},
			"large":                   {Sent: 50, Failed: 18, Deferred: 5, Cancelled: 2, Attempts: 80, FailedBy: map[int32]int64{1: 4, 5: 14}},
			campaign.OtherDestination: {Sent: 500, FailedBy: map[int32]int64{}},
			"never":                   {},
		},
	}
	k := c.Kpis(veredusv1.FeedbackMode_FEEDBACK_MODE_EFS, start)
	same(t, "ledger", k.GetLedger(), &veredusv1.Ledger{Accepted: 120, Ignored: 20, TakenIntoAccount: 20, Sent: 60, Failed: 18, Cancelled: 2})
	equal(t, "to deliver, sent", [2]int64{k.GetToDeliver(), k.GetSent()}, [2]int64{100, 60})
	equal(t, "success", k.GetSuccessPercent(), 60.0)
	equal(t, "hard, soft", [2]int64{k.GetHard(), k.GetSoft()}, [2]int64{4, 11})
	equal(t, "rejected, attempts, deferred", [3]int64{k.GetRejected(), k.GetAttempts(), k.GetDeferred()}, [3]int64{3, 90, 5})
	equal(t, "complaints, unsubscribes", [2]int64{k.GetComplaints(), k.GetUnsubscribes()}, [2]int64{1, 4})
	equal(t, "last hour", [2]int64{k.GetHandedOverLastHour(), k.GetDeliveredLastHour()}, [2]int64{100, 60})
	equal(t, "failed by reason", reasons(k.GetFailedByReason()), "1:4 5:3 20:3 3:2 8:2 0:1 2:1 4:1 6:1")
	equal(t, "ignored by reason", reasons(k.GetIgnoredByReason()), "10:15 9:5")

	var names []string
	for _, d := range k.GetByDestination() {
		names = append(names, d.GetDestination())
	}
	equal(t, "destinations", names, []string{"large", "small", "never", "other"})
	large := k.GetByDestination()[0]
	same(t, "the largest", large, &veredusv1.DestinationKpis{
		Destination: "large", Sent: 50, Failed: 18, Deferred: 5, Cancelled: 2, Attempts: 80, Hard: 4, Soft: 14, ToDeliver: 75,
		FailedByReason: []*veredusv1.ReasonCount{{Reason: 5, Count: 14}, {Reason: 1, Count: 4}},
		SuccessPercent: proto.Float64(100 * 50.0 / 75),
	})
	if k.GetByDestination()[2].SuccessPercent != nil {
		t.Error("a destination with nothing to deliver has a success")
	}

	k = c.Kpis(veredusv1.FeedbackMode_FEEDBACK_MODE_NO_EFS, start.Add(time.Hour))
	equal(t, "sent without EFS", k.GetSent(), int64(80))
	equal(t, "success without EFS", k.GetSuccessPercent(), 80.0)
	equal(t, "an hour later", [2]int64{k.GetHandedOverLastHour(), k.GetDeliveredLastHour()}, [2]int64{0, 0})
	equal(t, "to deliver at the largest", k.GetByDestination()[0].GetSuccessPercent(), 100*55.0/75)

	if k := (&campaign.Counters{Accepted: 2, Ignored: map[int32]int64{10: 2}}).Kpis(0, start); k.SuccessPercent != nil {
		t.Errorf("nothing to deliver, and a success of %v", *k.SuccessPercent)
	}
}

func reasons(list []*veredusv1.ReasonCount) string {
	var texts []string
	for _, r := range list {
		texts = append(texts, fmt.Sprintf("%d:%d", r.GetReason(), r.GetCount()))
	}
	return strings.Join(texts, " ")
}

func TestDestinationsBeyondTheShownOnesAddUp(t *testing.T) {
	c := campaign.Counters{By: map[string]*campaign.DestinationCounters{campaign.OtherDestination: {Sent: 7}}}
	want := int64(7)
	for i := range 500 {
		d := &campaign.DestinationCounters{Sent: int64(i), Attempts: int64(i), FailedBy: map[int32]int64{1: 1}}
		d.DeliveredBy.Add(start, int64(i))
		c.By[fmt.Sprintf("d%d", i)] = d
		want += int64(i)
	}
	list := c.Kpis(0, start).GetByDestination()
	equal(t, "shown", len(list), 200)
	equal(t, "first", list[0].GetDestination(), "d499")
	equal(t, "last", list[199].GetDestination(), campaign.OtherDestination)
	var sent, hard, lastHour int64
	for _, d := range list {
		sent, hard, lastHour = sent+d.GetSent(), hard+d.GetHard(), lastHour+d.GetDeliveredLastHour()
	}
	equal(t, "sum of sent, hard and last hour", [3]int64{sent, hard, lastHour}, [3]int64{want, 500, want - 7})
	if again := c.Kpis(0, start).GetByDestination(); again[199].GetSent() != list[199].GetSent() {
		t.Error("reading the figures changed them")
	}
}
