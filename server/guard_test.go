package server

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/emersion/go-smtp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/inbound"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/config"
)

// bubble is a whole node in memory within a synctest bubble, and its receiver.
type bubble struct {
	*Server
	t    *testing.T
	box  *mailbox
	fs   *vfs.MemFS
	conn *grpc.ClientConn
	veredusv1.CampaignServiceClient
	end []func()
}

// bubbleConfig is a configuration with a key, made outside the bubble.
func bubbleConfig(t *testing.T, yaml string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	key(t, dir, "key.pem")
	return parse(t, dir, "relay: {mode: redirect, redirect: 'elsewhere.example:25', hostname: mta.brand.example}\n"+
		"dkim: {domains: [{domain: brand.example, selector: s1, key_file: key.pem}]}\n"+yaml)
}

// newBubble starts a node; free is its free disk in MiB, 0 when that cannot be told.
func newBubble(t *testing.T, cfg *config.Config, free uint64, now func() time.Time) *bubble {
	t.Helper()
	b := &bubble{t: t, box: &mailbox{tries: map[string]int{}, mail: map[string][]time.Time{}}, fs: vfs.NewMem()}
	b.fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free << 20})
	b.start(cfg, now)
	return b
}

func (b *bubble) start(cfg *config.Config, now func() time.Time) {
	b.t.Helper()
	smtpPort, grpcPort := bufconn.Listen(1<<20), bufconn.Listen(1<<20)
	receiver := smtp.NewServer(b.box)
	receiver.Domain, receiver.ErrorLog = "mx.example", log.New(io.Discard, "", 0)
	go func() { _ = receiver.Serve(smtpPort) }()
	s, err := New(cfg, Options{
		FS: b.fs, GRPC: grpcPort, Resolver: oneHost{}, Now: now,
		Dial: func(ctx context.Context, _ mta.Target) (net.Conn, error) { return smtpPort.DialContext(ctx) },
	})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := s.Start(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///node", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return grpcPort.DialContext(ctx) }))
	if err != nil {
		b.t.Fatal(err)
	}
	b.Server, b.conn, b.CampaignServiceClient = s, conn, veredusv1.NewCampaignServiceClient(conn)
	b.end = []func(){func() { _ = conn.Close() }, func() {
		if err := s.Stop(b.t.Context()); err != nil {
			b.t.Errorf("stop: %v", err)
		}
	}, func() { _ = receiver.Close() }}
}

func (b *bubble) stop() {
	for _, f := range b.end {
		f()
	}
	b.end = nil
}

// free sets the free disk, in MiB, and lets the guard see it.
func (b *bubble) free(mib uint64) {
	b.fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: mib << 20, TotalBytes: 1 << 40, UsedBytes: 1 << 39})
	time.Sleep(1100 * time.Millisecond)
	synctest.Wait()
}

func (b *bubble) sent() (n int) {
	return len(b.box.accepted())
}

func (b *bubble) delivery(id string) (*veredusv1.Delivery, error) {
	return b.CreateDelivery(b.t.Context(), &veredusv1.CreateDeliveryRequest{DeliveryId: id, Delivery: &veredusv1.Delivery{
		Sender:  &veredusv1.Sender{From: "news@brand.example"},
		Content: &veredusv1.Content{Subject: "Hello", Text: "Spring is here."},
	}})
}

// refused checks that an error says what is missing and when to come back.
func (b *bubble) refused(err error) {
	b.t.Helper()
	s := status.Convert(err)
	wait := time.Duration(0)
	for _, d := range s.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			wait = r.GetRetryDelay().AsDuration()
		}
	}
	if s.Code() != codes.ResourceExhausted || wait <= 0 || !strings.Contains(s.Message(), "free or add disk") {
		b.t.Errorf("got %v, come back in %v", err, wait)
	}
}

// The disk fills: first nothing new is taken in, then sending pauses; when there is room
// again both go on by themselves, and every message taken in is sent once.
func TestANearlyFullDisk(t *testing.T) {
	cfg := bubbleConfig(t, "storage: {min_free: 1000MiB, min_free_sending: 500MiB}\n")
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, cfg, 5000, nil)
		defer b.stop()
		d, err := b.delivery("spring")
		if err != nil {
			t.Fatal(err)
		}
		up, err := b.AddRecipients(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		frame := func(first int64, to ...string) {
			f := &veredusv1.AddRecipientsRequest{FirstIndex: first}
			for _, address := range to {
				f.Recipients = append(f.Recipients, &veredusv1.Recipient{Address: address})
			}
			_ = up.Send(f)
		}
		_ = up.Send(&veredusv1.AddRecipientsRequest{Delivery: d.GetName()})
		frame(1, "anna@a.example", "grey@a.example", "greyer@a.example")
		for durable := int64(0); durable < 3; {
			resp, err := up.Recv()
			if err != nil {
				t.Fatal(err)
			}
			durable = resp.GetDurableIndex()
		}

		b.free(900)
		frame(4, "late@a.example")
		_, err = up.Recv()
		b.refused(err)
		_, err = b.delivery("summer")
		b.refused(err)
		if err := b.isReady(); err == nil || !strings.Contains(err.Error(), "nearly full") {
			t.Errorf("ready: %v", err)
		}
		if _, err := b.PrepareDelivery(t.Context(), &veredusv1.PrepareDeliveryRequest{Name: d.GetName()}); err != nil {
			t.Fatal(err) // what is there goes on
		}
		if _, err := b.StartDelivery(t.Context(), &veredusv1.StartDeliveryRequest{Name: d.GetName()}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		if b.sent() != 1 {
			t.Fatalf("%d sent while the disk is low", b.sent())
		}

		b.free(400) // the greylisted mail becomes due now, and waits
		explained, err := veredusv1.NewRelayServiceClient(b.conn).ExplainDestination(t.Context(), &veredusv1.ExplainDestinationRequest{Domain: "a.example"})
		if err != nil || !strings.Contains(explained.GetLimitedBy(), "min_free_sending") || len(explained.GetPaths()) != 1 || explained.GetPaths()[0].GetLimitedBy() != "disk" {
			t.Errorf("explained as %v, %v", explained, err)
		}
		time.Sleep(time.Hour)
		if b.sent() != 1 {
			t.Errorf("%d sent while the disk is scarce", b.sent())
		}
		page, err := b.ListMessages(t.Context(), &veredusv1.ListMessagesRequest{Parent: d.GetName()})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.GetMessages() {
			one, err := b.GetMessage(t.Context(), &veredusv1.GetMessageRequest{Name: m.GetName()})
			if err != nil {
				t.Fatal(err)
			}
			if held := strings.Contains(one.String(), "nearly full"); held == strings.HasPrefix(m.GetRecipient(), "anna") {
				t.Errorf("why it waits: %v", one)
			}
		}
		if _, err := b.Return(t.Context(), inbound.Return{Kind: inbound.Complaint}); !errors.Is(err, errNoRoom) {
			t.Errorf("mail that comes back: %v", err)
		}

		b.free(550) // not enough more
		time.Sleep(time.Hour)
		if b.sent() != 1 {
			t.Error("sending goes on at the limit")
		}
		b.free(5000)
		fates := strings.Join(follow(t, b.conn), " ")
		for _, want := range []string{"path_suspended", "path_resumed", "delivered:grey", "delivered:greyer"} {
			if !strings.Contains(fates, want) {
				t.Errorf("fates: %s", fates)
			}
		}
		for who, times := range b.box.accepted() {
			if len(times) != 1 {
				t.Errorf("%s was sent %d times", who, len(times))
			}
		}
		if err := b.isReady(); err != nil {
			t.Errorf("ready: %v", err)
		}
		if _, err := b.delivery("summer"); err != nil {
			t.Error(err)
		}
	})
}

// A node that starts on a full disk sends nothing until there is room.
func TestAStartOnAFullDisk(t *testing.T) {
	cfg := bubbleConfig(t, "")
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, cfg, 5000, nil)
		mailing(t, b.conn, "grey@a.example")
		time.Sleep(time.Second)
		b.stop()
		b.free(1)
		b.start(cfg, nil)
		time.Sleep(2 * time.Hour)
		if b.sent() != 0 {
			t.Error("sent on a full disk")
		}
		b.free(5000)
		time.Sleep(time.Minute)
		if b.sent() != 1 {
			t.Error("not sent when there was room")
		}
		b.stop()
	})
}
