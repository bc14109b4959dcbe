package campaign_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// message reads one message by its recipient.
func (n *node) message(delivery, recipient string) *veredusv1.Message {
	n.t.Helper()
	m, err := n.GetMessage(n.t.Context(), &veredusv1.GetMessageRequest{Name: n.stored(delivery)[recipient].GetName()})
	if err != nil {
		n.t.Fatal(err)
	}
	return m
}

// waits is what a message waits for, in words.
func waits(m *veredusv1.Message) string {
	if m.GetWaitingFor() == nil {
		return "nothing"
	}
	text := strings.ToLower(strings.TrimPrefix(m.GetWaitingFor().GetCause().String(), "WAIT_CAUSE_"))
	if at := m.GetWaitingFor().GetNextAttemptTime(); at != nil {
		text += " until " + at.AsTime().Format("15:04")
	}
	return text + ": " + m.GetWaitingFor().GetText()
}

func TestWhatAMessageWaitsFor(t *testing.T) {
	n := newNode(t)
	const who = "person1@mail1.example"
	n.bring("d", 1)
	equal(t, "a draft", waits(n.message("d", who)), "not_started: the delivery was not started")
	n.prepare("d")
	n.begin("d")
	m := n.loaded("d")[who]
	hour := start.Add(time.Hour)
	for _, c := range []struct {
		wait dispatch.Wait
		want string
	}{
		{dispatch.Wait{}, "queue: waits for its turn"},
		{dispatch.Wait{Cause: dispatch.CauseQueue, Until: hour}, "queue: waits for its turn"},
		{dispatch.Wait{Cause: dispatch.CauseSlot, Text: "all sessions are taken"}, "queue: all sessions are taken"},
		{dispatch.Wait{Cause: dispatch.CauseSource, Text: "pool empty"}, "queue: pool empty"},
		{dispatch.Wait{Cause: dispatch.CauseRest, Until: hour, Text: "421 slow down"}, "path_rest until 10:00: 421 slow down"},
		{dispatch.Wait{Cause: dispatch.CauseBackoff, Until: hour, Text: "connection refused"}, "path_rest until 10:00: connection refused"},
		{dispatch.Wait{Cause: dispatch.CauseRate, Until: hour}, "rate until 10:00: the path is at the limit of its rate"},
		{dispatch.Wait{Cause: dispatch.CauseSuspended, Text: "by Ada"}, "suspended: by Ada"},
		{dispatch.Wait{Cause: dispatch.CauseDNS, Until: hour, Text: "SERVFAIL"}, "dns until 10:00: SERVFAIL"},
	} {
		n.relay.waits[m.ID] = c.wait
		equal(t, c.wait.Cause.String(), waits(n.message("d", who)), c.want)
	}

	n.claim(m)
	n.relay.sending = map[mta.MessageID]bool{m.ID: true}
	equal(t, "in a transaction", waits(n.message("d", who)), "sending: it is being sent now")
	n.relay.sending = nil
	n.settle(m, mta.Deferred, full, "452 over quota")
	n.relay.waits[m.ID] = dispatch.Wait{Cause: dispatch.CauseRest, Until: hour}
	equal(t, "deferred", waits(n.message("d", who)), "retry_timer until 09:20: waits for its retry after: 452 over quota")
	n.relay.waits[m.ID] = dispatch.Wait{Cause: dispatch.CauseSuspended, Until: start.Add(time.Minute)}
	equal(t, "deferred and suspended", waits(n.message("d", who)), "suspended until 09:20: suspended by an operator")
	n.pass(20 * time.Minute)
	n.relay.waits[m.ID] = dispatch.Wait{Cause: dispatch.CauseRest, Until: hour, Text: "421 slow down"}
	equal(t, "due, and the path rests", waits(n.message("d", who)), "path_rest until 10:00: 421 slow down")
	if _, err := n.PauseDelivery(t.Context(), &veredusv1.PauseDeliveryRequest{Name: "deliveries/d"}); err != nil {
		t.Fatal(err)
	}
	equal(t, "paused", waits(n.message("d", who)), "paused: the delivery is paused")
	n.relay.fail = mta.ErrStopped
	equal(t, "stopped", waits(n.message("d", who)), "unspecified: the relay has stopped")
	n.relay.fail = errors.New("broken")
	if _, err := n.GetMessage(t.Context(), &veredusv1.GetMessageRequest{Name: n.stored("d")[who].GetName()}); err == nil {
		t.Error("a broken relay went unnoticed")
	}
	n.relay.fail = nil
	if _, err := n.CancelDelivery(t.Context(), &veredusv1.CancelDeliveryRequest{Name: "deliveries/d"}); err != nil {
		t.Fatal(err)
	}
	equal(t, "cancelled", waits(n.message("d", who)), "nothing")
}

func TestAMessageTellsItsWholeStory(t *testing.T) {
	n := newNode(t)
	n.running("d", 1)
	const who = "person1@mail1.example"
	m := n.loaded("d")[who]
	n.claim(m)
	n.settle(m, mta.Deferred, full, "452 over quota")
	n.pass(20 * time.Minute)
	n.claim(m)
	n.settle(m, mta.Delivered, bounce.Verdict{}, "250 ok")
	got := n.message("d", who)
	equal(t, "attempts", len(got.GetAttempts()), 2)
	first, last := got.GetAttempts()[0], got.GetAttempts()[1]
	equal(t, "first", fmt.Sprint(first.GetNumber(), first.GetTime().AsTime().Format(" 15:04 "), first.GetPhase(), first.GetText(), first.GetDisposition()), "1 09:00 end_of_data452 over quotaDISPOSITION_RETRY")
	equal(t, "last", fmt.Sprint(last.GetNumber(), last.GetTime().AsTime().Format(" 15:04 "), last.GetSource(), last.GetRemoteHost(), last.GetDisposition()), "2 09:20 s1mx.mail1.exampleDISPOSITION_DELIVERED")
	got.Attempts = nil
	same(t, "message", got, &veredusv1.Message{
		Name: got.GetName(), Recipient: who, RecipientId: "crm-1", Metadata: map[string]string{"segment": "a"},
		Status: veredusv1.LogStatus_LOG_STATUS_SENT, ErrorText: got.GetErrorText(), Destination: "provider of mail1.example",
		ArrivalTime: timestamppb.New(start), ExpireTime: timestamppb.New(start.Add(84 * time.Hour)), UpdateTime: timestamppb.New(start.Add(20 * time.Minute)),
		AttemptCount: 2, MessageId: "token@mail1.example", Tenant: "default",
	})
}

func TestListMessages(t *testing.T) {
	n := newNode(t)
	n.running("d", 30)
	n.running("e", 3)
	all := n.loaded("d")
	n.pass(time.Hour)
	for i := 1; i <= 9; i++ {
		m := all[person(i).GetAddress()]
		n.claim(m)
		switch i % 3 {
		case 0:
			n.settle(m, mta.Bounced, unknown, "no such user")
		case 1:
			n.settle(m, mta.Deferred, full, "over quota")
		case 2:
			n.settle(m, mta.Bounced, bounce.Verdict{Code: 1, Type: bounce.TypeSoft}, "what?")
		}
	}
	ids := func(from ...int) []string {
		var list []string
		for _, i := range from {
			list = append(list, fmt.Sprintf("crm-%d", i))
		}
		return list
	}
	for _, c := range []struct {
		name    string
		request *veredusv1.ListMessagesRequest
		want    []string
	}{
		{"failed", &veredusv1.ListMessagesRequest{Status: veredusv1.LogStatus_LOG_STATUS_FAILED}, ids(2, 3, 5, 6, 8, 9)},
		{"reason", &veredusv1.ListMessagesRequest{Reason: veredusv1.FailureReason_FAILURE_REASON_MAILBOX_FULL.Enum()}, ids(1, 4, 7)},
		{"reason not defined", &veredusv1.ListMessagesRequest{Reason: veredusv1.FailureReason_FAILURE_REASON_UNSPECIFIED.Enum()}, ids(2, 5, 8)},
		{"destination", &veredusv1.ListMessagesRequest{Destination: "provider of mail0.example"}, ids(3, 6, 9)},
		{"changed since", &veredusv1.ListMessagesRequest{UpdatedSince: timestamppb.New(start.Add(time.Minute))}, ids(1, 2, 3, 4, 5, 6, 7, 8, 9)},
		{"in small pages", &veredusv1.ListMessagesRequest{Status: veredusv1.LogStatus_LOG_STATUS_FAILED, PageSize: 1}, ids(2, 3, 5, 6, 8, 9)},
		{"by address", &veredusv1.ListMessagesRequest{Recipient: "PERSON2@Mail2.example"}, ids(2)},
		{"by id", &veredusv1.ListMessagesRequest{RecipientId: "crm-3"}, ids(3)},
		{"by address and id", &veredusv1.ListMessagesRequest{Recipient: "person2@mail2.example", RecipientId: "crm-3"}, nil},
		{"by id and status", &veredusv1.ListMessagesRequest{RecipientId: "crm-3", Status: veredusv1.LogStatus_LOG_STATUS_SENT}, nil},
		{"everywhere by address", &veredusv1.ListMessagesRequest{Parent: "deliveries/-", Recipient: "person2@mail2.example"}, ids(2, 2)},
		{"everywhere by id, in pages", &veredusv1.ListMessagesRequest{Parent: "deliveries/-", RecipientId: "crm-1", PageSize: 1}, ids(1, 1)},
		{"everywhere, nobody", &veredusv1.ListMessagesRequest{Parent: "deliveries/-", RecipientId: "crm-99"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.request.Parent == "" {
				c.request.Parent = "deliveries/d"
			}
			var got []string
			for {
				page, err := n.ListMessages(t.Context(), c.request)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range page.GetMessages() {
					got = append(got, m.GetRecipientId())
					if len(m.GetAttempts()) > 0 {
						t.Error("a list holds attempts")
					}
				}
				if c.request.PageToken = page.GetNextPageToken(); c.request.PageToken == "" {
					break
				}
			}
			slices.Sort(got)
			equal(t, "found", got, c.want)
		})
	}
}

func TestListsSayWhatTheyKnowOfWaiting(t *testing.T) {
	n := newNode(t)
	n.running("d", 2)
	m := n.loaded("d")["person1@mail1.example"]
	n.claim(m)
	n.settle(m, mta.Deferred, full, "over quota")
	list := n.stored("d")
	equal(t, "deferred", waits(list["person1@mail1.example"]), "retry_timer until 09:20: waits for its retry after: over quota")
	equal(t, "only the relay knows", waits(list["person2@mail2.example"]), "nothing")
}
