package server

import (
	"context"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/emersion/go-smtp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/route"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/config"
)

// mailbox is a receiver in memory. Its clock is the bubble's.
type mailbox struct {
	mu    sync.Mutex
	tries map[string]int
	mail  map[string][]time.Time // accepted, by recipient
}

// accepted is what came so far.
func (m *mailbox) accepted() map[string][]time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.mail)
}

func (m *mailbox) NewSession(*smtp.Conn) (smtp.Session, error) { return &visit{mailbox: m}, nil }

// visit is one session. Recipients named grey, or grey and something, are accepted at their second try only.
type visit struct {
	*mailbox
	to string
}

func (v *visit) Mail(string, *smtp.MailOptions) error { return nil }

func (v *visit) Rcpt(to string, _ *smtp.RcptOptions) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.to = to
	v.tries[to]++
	switch name, _, _ := strings.Cut(to, "@"); {
	case name == "gone":
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "user unknown"}
	case strings.HasPrefix(name, "grey") && v.tries[to] == 1:
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "greylisted, try again later"}
	}
	return nil
}

func (v *visit) Data(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mail[v.to] = append(v.mail[v.to], time.Now())
	return nil
}

func (v *visit) Reset()        {}
func (v *visit) Logout() error { return nil }

// oneHost leads every domain to one host.
type oneHost struct{}

func (oneHost) Route(_ context.Context, domain string) (*route.Route, error) {
	return &route.Route{
		Domain: domain, Destination: domain, Expires: time.Now().Add(time.Hour),
		Hosts: []route.Host{{Name: "mx." + domain, Preference: 10, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}},
	}, nil
}

// A whole node in memory: recipients come in over gRPC, mail goes out over SMTP,
// their fate streams back. The greylisted message comes 5 to 15 minutes later, which
// takes no time here.
func TestAMailingInVirtualTime(t *testing.T) {
	dir := t.TempDir()
	key(t, dir, "key.pem")
	cfg := parse(t, dir, "relay: {mode: redirect, redirect: 'elsewhere.example:25', hostname: mta.brand.example}\ndkim: {domains: [{domain: brand.example, selector: s1, key_file: key.pem}]}\n")
	box := &mailbox{tries: map[string]int{}, mail: map[string][]time.Time{}}
	inNode(t, cfg, box, func(t *testing.T, conn *grpc.ClientConn) {
		began := time.Now()
		mailing(t, conn, "anna@a.example", "grey@a.example", "gone@b.example")
		fates := follow(t, conn)
		slices.Sort(fates[1:4]) // the first attempts come in any order
		if got := strings.Join(fates, " "); got != "started bounced:gone deferred:grey delivered:anna delivered:grey finished" {
			t.Errorf("fates: %s", got)
		}
		if wait := box.accepted()["grey@a.example"][0].Sub(began); wait < 5*time.Minute || wait > 16*time.Minute {
			t.Errorf("the greylisted message came after %v", wait)
		}
	})
}

// inNode runs a story in a bubble with a node in memory, whose mail goes to box.
func inNode(t *testing.T, cfg *config.Config, box *mailbox, story func(t *testing.T, conn *grpc.ClientConn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		smtpPort, grpcPort := bufconn.Listen(1<<20), bufconn.Listen(1<<20)
		receiver := smtp.NewServer(box)
		receiver.Domain, receiver.ErrorLog = "mx.example", log.New(io.Discard, "", 0)
		go func() { _ = receiver.Serve(smtpPort) }()
		defer receiver.Close()
		s, err := New(cfg, Options{
			FS: vfs.NewMem(), GRPC: grpcPort, Resolver: oneHost{},
			Dial: func(ctx context.Context, _ mta.Target) (net.Conn, error) { return smtpPort.DialContext(ctx) },
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		conn, err := grpc.NewClient("passthrough:///node", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return grpcPort.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := errors.Join(conn.Close(), s.Stop(context.Background())); err != nil {
				t.Error(err)
			}
		}()
		story(t, conn)
	})
}

// mailing makes, fills, prepares and starts a delivery.
func mailing(t *testing.T, conn *grpc.ClientConn, recipients ...string) {
	t.Helper()
	c, ctx := veredusv1.NewCampaignServiceClient(conn), t.Context()
	d, err := c.CreateDelivery(ctx, &veredusv1.CreateDeliveryRequest{DeliveryId: "spring", Delivery: &veredusv1.Delivery{
		Sender:  &veredusv1.Sender{From: "news@brand.example"},
		Content: &veredusv1.Content{Subject: "Hello", Text: "Spring is here."},
	}})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, conn, d.GetName(), recipients...)
	if _, err := c.StartDelivery(ctx, &veredusv1.StartDeliveryRequest{Name: d.GetName()}); err != nil {
		t.Fatal(err)
	}
}

// fill adds recipients to a delivery and prepares it.
func fill(t *testing.T, conn *grpc.ClientConn, name string, recipients ...string) {
	t.Helper()
	c, ctx := veredusv1.NewCampaignServiceClient(conn), t.Context()
	up, err := c.AddRecipients(ctx)
	if err != nil {
		t.Fatal(err)
	}
	frame := &veredusv1.AddRecipientsRequest{FirstIndex: 1}
	for _, r := range recipients {
		frame.Recipients = append(frame.Recipients, &veredusv1.Recipient{Address: r})
	}
	if err := errors.Join(up.Send(&veredusv1.AddRecipientsRequest{Delivery: name}), up.Send(frame), up.CloseSend()); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = up.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if _, err := c.PrepareDelivery(ctx, &veredusv1.PrepareDeliveryRequest{Name: name}); err != nil {
		t.Fatal(err)
	}
}

// follow reads the feedback from its beginning until the delivery is finished: the
// types of the events, with the recipients' local parts.
func follow(t *testing.T, conn *grpc.ClientConn) []string {
	t.Helper()
	stream, err := veredusv1.NewFeedbackServiceClient(conn).StreamFeedback(t.Context(), &veredusv1.StreamFeedbackRequest{
		Start: &veredusv1.StreamFeedbackRequest_Oldest{Oldest: &emptypb.Empty{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var fates []string
	for {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range resp.GetEvents() {
			fate := strings.ToLower(strings.TrimPrefix(e.GetType().String(), "FEEDBACK_TYPE_"))
			if name, _, ok := strings.Cut(e.GetRecipient(), "@"); ok {
				fate += ":" + name
			}
			fates = append(fates, fate)
			if e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_FINISHED {
				return fates
			}
		}
	}
}
