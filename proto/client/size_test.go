package client_test

import (
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// A request that no node would read is refused here, in words: nobody has to be there.
func TestRequestsThatAreTooLarge(t *testing.T) {
	conn, err := client.Dial("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	campaigns, big := veredusv1.NewCampaignServiceClient(conn), strings.Repeat("x", 5_000_000)
	for _, c := range []struct {
		field string
		call  func() error
	}{
		{"delivery.content.html", func() error {
			_, err := campaigns.CreateDelivery(t.Context(), &veredusv1.CreateDeliveryRequest{Delivery: &veredusv1.Delivery{Content: &veredusv1.Content{Html: big, Text: "x"}}})
			return err
		}},
		{"content.rfc5322", func() error {
			_, err := campaigns.SendMessage(t.Context(), &veredusv1.SendMessageRequest{Content: &veredusv1.Content{Rfc5322: []byte(big)}})
			return err
		}},
		{"content.headers", func() error {
			_, err := campaigns.SendMessage(t.Context(), &veredusv1.SendMessageRequest{Content: &veredusv1.Content{Headers: []*veredusv1.Header{{Name: "X-Big", Value: big}}}})
			return err
		}},
	} {
		s := status.Convert(c.call())
		if s.Code() != codes.InvalidArgument || !strings.HasPrefix(s.Message(), c.field+": is 50000") || !strings.Contains(s.Message(), "at most 4194304") {
			t.Errorf("%s: %v", c.field, s)
		}
		if client.Reason(s.Err()) != veredusv1.ErrorReason_ERROR_REASON_INVALID_FIELD {
			t.Errorf("%s: reason %v", c.field, client.Reason(s.Err()))
		}
		if bad, ok := s.Details()[1].(*errdetails.BadRequest); !ok || bad.GetFieldViolations()[0].GetField() != c.field {
			t.Errorf("%s: details %v", c.field, s.Details())
		}
	}
}
