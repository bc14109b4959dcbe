package server

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// At 3600 times the speed the 84 hours of a mailing are 84 seconds.
func TestTheSandboxRunsFaster(t *testing.T) {
	dir := t.TempDir()
	key(t, dir, "key.pem")
	n := begin(t, parse(t, dir, "sandbox: {time_scale: 3600}\ndkim: {domains: [{domain: brand.example, selector: s1, key_file: key.pem}]}\n"), Options{})
	mailing(t, n.conn, "anna@a.example")
	d, err := n.campaigns.GetDelivery(t.Context(), &veredusv1.GetDeliveryRequest{Name: "deliveries/spring"})
	if err != nil {
		t.Fatal(err)
	}
	if life := d.GetExpireTime().AsTime().Sub(d.GetStartTime().AsTime()); life != 84*time.Second {
		t.Errorf("a mailing lives %v", life)
	}
	m, err := n.campaigns.SendMessage(t.Context(), &veredusv1.SendMessageRequest{
		RequestId: "r1", Recipient: &veredusv1.Recipient{Address: "anna@a.example"}, ValidityPeriod: durationpb.New(time.Hour),
		Sender:  &veredusv1.Sender{From: "news@brand.example"},
		Content: &veredusv1.Content{Subject: "Hello", Text: "Spring is here."},
	})
	if err != nil {
		t.Fatal(err)
	}
	if life := m.GetExpireTime().AsTime().Sub(m.GetArrivalTime().AsTime()); life != time.Second {
		t.Errorf("a message lives %v", life)
	}
}
