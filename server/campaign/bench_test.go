package campaign_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/storage/pebblestore"
)

// idleStore takes recipients and forgets them.
type idleStore struct {
	campaign.Recipients
}

func (idleStore) DurableIndex(context.Context, string) (int64, error) { return 0, nil }

func (idleStore) Add(_ context.Context, _ string, items []campaign.Item) (campaign.Added, error) {
	return campaign.Added{DurableIndex: items[len(items)-1].Index, Accepted: int64(len(items))}, nil
}

// nobody excludes nobody.
type nobody struct{}

func (nobody) Exclusions(_ context.Context, queries []address.Query) ([]address.Exclusion, error) {
	return make([]address.Exclusion, len(queries)), nil
}

// listen serves a service on loopback TCP.
func listen(b *testing.B, service veredusv1.CampaignServiceServer) veredusv1.CampaignServiceClient {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer()
	veredusv1.RegisterCampaignServiceServer(server, service)
	go func() { _ = server.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close(); server.Stop() })
	return veredusv1.NewCampaignServiceClient(conn)
}

// BenchmarkAddRecipients uploads recipients of about 300 octets in chunks of 1000 with a
// window of 8, from a client in the same process over loopback TCP: into a store that does
// nothing, without and with asking who is excluded, and into the real one with its syncs. One operation is one recipient.
func BenchmarkAddRecipients(b *testing.B) {
	b.Run("no store", func(b *testing.B) {
		n := newNode(b)
		n.create("d")
		o := n.options(n.store, idleStore{})
		o.Addresses = nil
		benchUpload(b, listen(b, campaign.NewService(o)))
	})
	b.Run("no store, address entries", func(b *testing.B) {
		n := newNode(b)
		n.create("d")
		o := n.options(n.store, idleStore{})
		o.Addresses = nobody{}
		benchUpload(b, listen(b, campaign.NewService(o)))
	})
	b.Run("disk", func(b *testing.B) {
		n := newNode(b)
		store, err := pebblestore.Open(pebblestore.Options{Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		defer store.Close()
		o := n.options(store, store)
		o.Addresses = nobody{}
		s := campaign.NewService(o)
		if _, err := s.CreateDelivery(b.Context(), &veredusv1.CreateDeliveryRequest{DeliveryId: "d"}); err != nil {
			b.Fatal(err)
		}
		benchUpload(b, listen(b, s))
	})
}

func benchUpload(b *testing.B, client veredusv1.CampaignServiceClient) {
	b.ReportAllocs()
	const chunk, window = 1000, 8
	stream, err := client.AddRecipients(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if err := stream.Send(&veredusv1.AddRecipientsRequest{Delivery: "deliveries/d"}); err != nil {
		b.Fatal(err)
	}
	room := make(chan struct{}, window)
	done := make(chan error, 1)
	if _, err := stream.Recv(); err != nil {
		b.Fatal(err)
	}
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				done <- err
				return
			}
			<-room
		}
	}()
	list := benchPeople(chunk)
	b.ResetTimer()
	for first := 1; first <= b.N; first += chunk {
		room <- struct{}{}
		frame := list[:min(chunk, b.N-first+1)]
		for i, r := range frame {
			r.Address = fmt.Sprintf("recipient%d@domain%d.example", first+i, (first+i)%1000)
		}
		if err := stream.Send(&veredusv1.AddRecipientsRequest{FirstIndex: int64(first), Recipients: frame}); err != nil {
			b.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != io.EOF {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "recipients/s")
}

func benchPeople(n int) []*veredusv1.Recipient {
	list := make([]*veredusv1.Recipient, n)
	for i := range list {
		list[i] = &veredusv1.Recipient{
			RecipientId: fmt.Sprintf("crm-%08d", i),
			Variables: []byte(fmt.Sprintf(`{"first_name":"Ada","last_name":"Lovelace","id":%d,"city":"London","offers":[{"name":"Analytical Engine","price":"99.90"},{"name":"Difference Engine","price":"49.90"}],"note":"%s"}`,
				i, long(80))),
		}
	}
	return list
}

func BenchmarkKpis(b *testing.B) {
	c := campaign.Counters{By: map[string]*campaign.DestinationCounters{}}
	for i := range campaign.MaxDestinations {
		c.By[fmt.Sprint(i)] = &campaign.DestinationCounters{Sent: int64(i), FailedBy: map[int32]int64{1: 1, 5: 2}}
	}
	b.ReportAllocs()
	for b.Loop() {
		c.Kpis(0, start)
	}
}
