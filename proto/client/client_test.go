package client_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

func TestDialSpeaksPlaintextOnLoopback(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	veredusv1.RegisterCampaignServiceServer(server, newNode(0))
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	conn, err := client.Dial(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	d, err := veredusv1.NewCampaignServiceClient(conn).GetDelivery(context.Background(), &veredusv1.GetDeliveryRequest{Name: "deliveries/d"})
	if err != nil || d.GetName() != "deliveries/d" {
		t.Errorf("%v, %v", d, err)
	}
}

func TestDialNamesABadAddress(t *testing.T) {
	if _, err := client.Dial("localhost"); err == nil || !strings.Contains(err.Error(), "give host:port") {
		t.Errorf("error %v", err)
	}
}

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "127.8.9.1": true, "::1": true, "::ffff:127.0.0.1": true,
		"10.0.0.1": false, "0.0.0.0": false, "mail.example.com": false, "localhost.example.com": false, "": false,
	} {
		if client.Loopback(host) != want {
			t.Errorf("Loopback(%q) is not %v", host, want)
		}
	}
}
