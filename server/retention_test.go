package server

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// What was kept long enough goes: a token from before is told so, the delivery stays with
// its figures, and its messages do not.
func TestRetentionSeenByAClient(t *testing.T) {
	cfg := bubbleConfig(t, "retention: {events_age: 1h, messages: 2h}\n")
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, cfg, 0, nil)
		defer b.stop()
		mailing(t, b.conn, "anna@a.example", "gone@b.example")
		follow(t, b.conn)
		feedback := veredusv1.NewFeedbackServiceClient(b.conn)
		first := func(req *veredusv1.StreamFeedbackRequest) (*veredusv1.StreamFeedbackResponse, error) {
			stream, err := feedback.StreamFeedback(t.Context(), req)
			if err != nil {
				return nil, err
			}
			return stream.Recv()
		}
		fromOldest := &veredusv1.StreamFeedbackRequest{Start: &veredusv1.StreamFeedbackRequest_Oldest{Oldest: &emptypb.Empty{}}}
		start, err := first(fromOldest)
		if err != nil {
			t.Fatal(err)
		}
		token := &veredusv1.StreamFeedbackRequest{Start: &veredusv1.StreamFeedbackRequest_Token{Token: start.GetToken()}}
		list := func() []*veredusv1.Message {
			page, err := b.ListMessages(t.Context(), &veredusv1.ListMessagesRequest{Parent: "deliveries/spring"})
			if err != nil {
				t.Fatal(err)
			}
			return page.GetMessages()
		}
		time.Sleep(30 * time.Minute)
		if _, err := first(token); err != nil {
			t.Errorf("within retention: %v", err)
		}
		time.Sleep(time.Hour)
		if _, err := first(token); status.Code(err) != codes.OutOfRange {
			t.Errorf("a token before retention: %v", err)
		}
		if _, err := first(fromOldest); err != nil {
			t.Errorf("from the oldest kept: %v", err)
		}
		messages := list()
		if len(messages) != 2 {
			t.Fatalf("%d messages within retention", len(messages))
		}
		time.Sleep(2 * time.Hour)
		if left := list(); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		if _, err := b.GetMessage(t.Context(), &veredusv1.GetMessageRequest{Name: messages[0].GetName()}); status.Code(err) != codes.NotFound {
			t.Errorf("a message that is gone: %v", err)
		}
		d, err := b.GetDelivery(t.Context(), &veredusv1.GetDeliveryRequest{Name: "deliveries/spring"})
		if err != nil || d.GetKpis().GetSent() != 1 || d.GetContent() != nil {
			t.Errorf("the delivery: %v, %v", d, err)
		}
		if _, err := b.CancelDelivery(t.Context(), &veredusv1.CancelDeliveryRequest{Name: "deliveries/spring"}); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("cancelling it: %v", err)
		}
		if _, err := b.delivery("spring"); status.Code(err) != codes.AlreadyExists {
			t.Errorf("its id: %v", err)
		}
		if _, err := b.DeleteDelivery(t.Context(), &veredusv1.DeleteDeliveryRequest{Name: "deliveries/spring"}); err != nil {
			t.Error(err)
		}
		if _, err := b.delivery("spring"); err != nil {
			t.Errorf("its id behind a delete: %v", err)
		}
	})
}
