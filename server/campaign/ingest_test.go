package campaign_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/status"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

// upload is a stream of recipients as a client has it.
type upload struct {
	t      testing.TB
	stream veredusv1.CampaignService_AddRecipientsClient
}

func open(t testing.TB, client veredusv1.CampaignServiceClient, id string) *upload {
	t.Helper()
	stream, err := client.AddRecipients(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	u := &upload{t, stream}
	u.send(&veredusv1.AddRecipientsRequest{Delivery: "deliveries/" + id})
	return u
}

func (u *upload) send(r *veredusv1.AddRecipientsRequest) {
	u.t.Helper()
	if err := u.stream.Send(r); err != nil && err != io.EOF { // EOF: the stream ended, receive says why
		u.t.Fatal(err)
	}
}

func (u *upload) chunk(first int64, list ...*veredusv1.Recipient) {
	u.t.Helper()
	u.send(&veredusv1.AddRecipientsRequest{FirstIndex: first, Recipients: list})
}

// ack receives an acknowledgement: durable index, accepted, ignored and rejected, and the
// rejected in words.
func (u *upload) ack() (string, string) {
	u.t.Helper()
	a, err := u.stream.Recv()
	if err != nil {
		return "error: " + status.Convert(err).Message(), ""
	}
	var refused []string
	for _, r := range a.GetRejected() {
		refused = append(refused, fmt.Sprintf("%d %s %q %s", r.GetIndex(), r.GetField(), r.GetAddress(), r.GetRecipientId()))
	}
	return fmt.Sprintf("durable %d: +%d -%d !%d", a.GetDurableIndex(), a.GetAccepted(), a.GetIgnored(), len(a.GetRejected())), strings.Join(refused, "\n")
}

func (u *upload) expect(want ...string) {
	u.t.Helper()
	for _, w := range want {
		if got, _ := u.ack(); !strings.HasPrefix(got, w) {
			u.t.Fatalf("%s, want %s", got, w)
		}
	}
}

// end says that there is no more, and expects the stream to end well.
func (u *upload) end() {
	u.t.Helper()
	if err := u.stream.CloseSend(); err != nil {
		u.t.Fatal(err)
	}
	if a, err := u.stream.Recv(); err != io.EOF {
		u.t.Fatalf("%v, %v instead of the end", a, err)
	}
}

func TestRecipientsAreAcknowledgedChunkByChunk(t *testing.T) {
	n := newNode(t)
	client := dial(t, n)
	n.create("d")
	u := open(t, client, "d")
	u.expect("durable 0: +0 -0 !0")
	u.chunk(1, people(1, 1000)...)
	u.expect("durable 1000: +1000 -0 !0")
	for i := range 20 {
		u.chunk(int64(1001+i*10), people(1001+i*10, 1010+i*10)...)
	}
	for i := range 20 {
		u.expect(fmt.Sprintf("durable %d: +10 -0 !0", 1010+i*10))
	}
	u.end()
	same(t, "ledger", n.get("d").GetKpis().GetLedger(), &veredusv1.Ledger{Accepted: 1200, Pending: 1200})
	var all campaign.Ingested
	for _, g := range n.given {
		all.Accepted += g.Accepted
	}
	equal(t, "observed", all, campaign.Ingested{Accepted: 1200})
}

func TestAnUploadGoesOnBehindWhatIsDurable(t *testing.T) {
	n := newNode(t)
	client := dial(t, n)
	n.create("d")
	first := open(t, client, "d")
	first.expect("durable 0")
	first.chunk(1, people(1, 10)...)
	first.expect("durable 10")
	first.end()

	u := open(t, client, "d")
	u.expect("durable 10: +0 -0 !0")
	u.chunk(1, people(1, 5)...) // known wholly
	u.expect("durable 10: +0 -0 !0")
	u.chunk(6, people(6, 15)...) // known in part
	u.expect("durable 15: +5 -0 !0")
	u.chunk(0) // an empty frame asks what is durable
	u.expect("durable 15: +0 -0 !0")
	u.send(&veredusv1.AddRecipientsRequest{Delivery: "deliveries/d", FirstIndex: 16, Recipients: people(16, 16)})
	u.expect("durable 16: +1 -0 !0")
	u.end()
	equal(t, "accepted", n.get("d").GetKpis().GetLedger().GetAccepted(), int64(16))
}

func TestMalformedAndDoubleRecipientsAreToldApart(t *testing.T) {
	n := newNode(t)
	client := dial(t, n)
	n.create("d")
	u := open(t, client, "d")
	u.expect("durable 0")
	u.chunk(1,
		person(1),
		&veredusv1.Recipient{Address: "nobody", RecipientId: "b"},
		&veredusv1.Recipient{Address: "PERSON1@Mail1.example"}, // double
		&veredusv1.Recipient{Address: "ada@b\u00fccher.example", Variables: []byte(`["no object"]`), RecipientId: "d"},
		&veredusv1.Recipient{Address: "ada@b\u00fccher.example", RecipientId: strings.Repeat("x", 129)},
		&veredusv1.Recipient{Address: "ada@b\u00fccher.example", RecipientId: "f", Metadata: map[string]string{"k": strings.Repeat("v", 1024)}},
		&veredusv1.Recipient{Address: "ada@b\u00fccher.example", RecipientId: "g"},
	)
	got, refused := u.ack()
	equal(t, "answer", got, "durable 7: +3 -1 !4")
	equal(t, "refused", refused, strings.Join([]string{
		`2 address "nobody" b`,
		"4 variables \"ada@b\u00fccher.example\" d",
		"5 recipient_id \"ada@b\u00fccher.example\" " + strings.Repeat("x", 125) + "...",
		"6 metadata \"ada@b\u00fccher.example\" f",
	}, "\n"))
	u.end()

	var listed []string
	token := ""
	for {
		page, err := n.ListRejectedRecipients(t.Context(), &veredusv1.ListRejectedRecipientsRequest{Parent: "deliveries/d", PageSize: 2, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.GetRejectedRecipients() {
			listed = append(listed, fmt.Sprintf("%d %s", r.GetIndex(), r.GetField()))
			if !strings.Contains(r.GetDescription(), "; ") {
				t.Errorf("%q does not say how to mend it", r.GetDescription())
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	equal(t, "listed", listed, []string{"2 address", "4 variables", "5 recipient_id", "6 metadata"})
	k := n.get("d").GetKpis()
	same(t, "ledger", k.GetLedger(), &veredusv1.Ledger{Accepted: 3, Ignored: 1, Pending: 2})
	equal(t, "rejected", k.GetRejected(), int64(4))
	equal(t, "ignored", reasons(k.GetIgnoredByReason()), "10:1")
	if _, ok := n.stored("d")["ada@xn--bcher-kva.example"]; !ok {
		t.Error("the domain did not become an A-label")
	}
}

// stored are the delivery's messages by recipient.
func (n *node) stored(id string) map[string]*veredusv1.Message {
	n.t.Helper()
	all := map[string]*veredusv1.Message{}
	list, err := n.ListMessages(n.t.Context(), &veredusv1.ListMessagesRequest{Parent: "deliveries/" + id, PageSize: 1000})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, m := range list.GetMessages() {
		all[m.GetRecipient()] = m
	}
	return all
}

func TestFramesThatEndAnUpload(t *testing.T) {
	big := &veredusv1.Recipient{Address: "a@b.example", Variables: []byte(`{"a":"` + strings.Repeat("x", 99_000) + `"}`)}
	var heavy []*veredusv1.Recipient
	for range 33 {
		heavy = append(heavy, big)
	}
	for _, c := range []struct {
		name  string
		frame *veredusv1.AddRecipientsRequest
		want  string
	}{
		{"gap", &veredusv1.AddRecipientsRequest{FirstIndex: 4, Recipients: people(4, 4)}, "recipient index 4 does not follow: send index 3 next"},
		{"index 0", &veredusv1.AddRecipientsRequest{Recipients: people(1, 1)}, "first_index"},
		{"too many", &veredusv1.AddRecipientsRequest{FirstIndex: 3, Recipients: people(3, 1003)}, "recipients: has 1001 entries"},
		{"too heavy", &veredusv1.AddRecipientsRequest{FirstIndex: 3, Recipients: heavy}, "recipients: is 3"},
		{"other delivery", &veredusv1.AddRecipientsRequest{Delivery: "deliveries/e", FirstIndex: 3, Recipients: people(3, 3)}, "delivery"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			n.create("d")
			u := open(t, dial(t, n), "d")
			u.expect("durable 0")
			u.chunk(1, people(1, 2)...)
			u.send(c.frame)
			u.expect("durable 2: +2", "error: "+c.want) // what came before is durable
		})
	}
}

func TestFirstFrames(t *testing.T) {
	n := newNode(t)
	client := dial(t, n)
	n.bring("started", campaign.Running)
	for _, c := range []struct {
		frame *veredusv1.AddRecipientsRequest
		want  string
	}{
		{&veredusv1.AddRecipientsRequest{}, "delivery: is missing"},
		{&veredusv1.AddRecipientsRequest{Delivery: "started"}, `delivery: "started" is no delivery's name`},
		{&veredusv1.AddRecipientsRequest{Delivery: "deliveries/none"}, "deliveries/none does not exist"},
		{&veredusv1.AddRecipientsRequest{Delivery: "deliveries/started"}, `delivery "started" is running: cannot add recipients`},
		{&veredusv1.AddRecipientsRequest{Delivery: "deliveries/none", Recipients: people(1, 1)}, "recipients: stand in the first frame"},
	} {
		stream, err := client.AddRecipients(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		u := &upload{t, stream}
		u.send(c.frame)
		u.expect("error: " + c.want)
	}
	stream, err := client.AddRecipients(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	(&upload{t, stream}).end() // a stream without any frame
}

func TestAStartMeanwhileEndsAnUpload(t *testing.T) {
	n := newNode(t)
	n.create("d")
	u := open(t, dial(t, n), "d")
	u.expect("durable 0")
	u.chunk(1, people(1, 2)...)
	u.expect("durable 2")
	n.prepare("d")
	n.begin("d")
	u.chunk(3, people(3, 3)...)
	u.expect(`error: delivery "d" is running: cannot add recipients`)
}

func TestASecondUploadEndsTheFirst(t *testing.T) {
	n := newNode(t)
	held := &heldStore{Store: n.store, reached: make(chan struct{}), pass: make(chan struct{})}
	client := dial(t, campaign.NewService(n.options(n.store, held)))
	n.create("d")
	first := open(t, client, "d")
	first.expect("durable 0")
	first.chunk(1, people(1, 10)...)
	<-held.reached // its write is under way

	second := open(t, client, "d")
	answered := make(chan string, 1)
	go func() {
		got, _ := second.ack()
		answered <- got
	}()
	close(held.pass)
	equal(t, "the second is told what the first wrote", <-answered, "durable 10: +0 -0 !0")
	second.chunk(11, people(11, 12)...)
	second.expect("durable 12: +2")
	for {
		got, _ := first.ack()
		if strings.HasPrefix(got, "error") {
			equal(t, "the first ends", got, "error: "+campaign.ErrSuperseded.Error())
			break
		}
	}
	second.end()
	equal(t, "accepted", n.get("d").GetKpis().GetLedger().GetAccepted(), int64(12))
}

// heldStore holds its first write back until it may pass.
type heldStore struct {
	campaign.Recipients
	Store         campaign.Recipients
	reached, pass chan struct{}
	once          sync.Once
}

func (s *heldStore) Add(ctx context.Context, delivery string, items []campaign.Item) (campaign.Added, error) {
	s.once.Do(func() { close(s.reached); <-s.pass })
	return s.Store.Add(ctx, delivery, items)
}

func (s *heldStore) DurableIndex(ctx context.Context, delivery string) (int64, error) {
	return s.Store.DurableIndex(ctx, delivery)
}

// TestManyUploadsOfOneDelivery lets uploads push each other aside: what was
// acknowledged is stored once, and nothing else.
func TestManyUploadsOfOneDelivery(t *testing.T) {
	n := newNode(t)
	client := dial(t, n)
	n.create("d")
	const total = 3000
	var wait sync.WaitGroup
	for range 6 {
		wait.Go(func() {
			for {
				if done, err := pushOn(t, client, total); err != nil || done {
					if err != nil {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	wait.Wait()
	k := n.get("d").GetKpis()
	same(t, "ledger", k.GetLedger(), &veredusv1.Ledger{Accepted: total, Pending: total})
}

// pushOn uploads until it has everything or is pushed aside.
func pushOn(t *testing.T, client veredusv1.CampaignServiceClient, total int64) (done bool, err error) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := client.AddRecipients(ctx)
	if err != nil {
		return false, err
	}
	if err := stream.Send(&veredusv1.AddRecipientsRequest{Delivery: "deliveries/d"}); err != nil && err != io.EOF {
		return false, err
	}
	for {
		a, err := stream.Recv()
		switch {
		case err != nil && strings.Contains(err.Error(), campaign.ErrSuperseded.Error()):
			return false, nil
		case err != nil:
			return false, err
		case a.GetDurableIndex() >= total:
			return true, nil
		}
		first := a.GetDurableIndex() + 1
		_ = stream.Send(&veredusv1.AddRecipientsRequest{FirstIndex: first, Recipients: people(int(first), int(min(first+99, total)))})
	}
}

// TestEveryChunkIsAcknowledgedByItself holds the first write while more chunks gather. They
// may become one write; each has its own answer.
func TestEveryChunkIsAcknowledgedByItself(t *testing.T) {
	n := newNode(t)
	held := &heldStore{Store: n.store, reached: make(chan struct{}), pass: make(chan struct{})}
	counted := &countedStore{Recipients: held, seen: make(chan int, 100)}
	client := dial(t, campaign.NewService(n.options(n.store, counted)))
	n.create("d")
	u := open(t, client, "d")
	u.expect("durable 0")
	u.chunk(1, people(1, 10)...)
	<-held.reached
	u.chunk(11, person(11), person(1), person(12))
	u.chunk(14, &veredusv1.Recipient{Address: "nobody"}, person(13))
	u.chunk(16)
	close(held.pass)
	u.expect("durable 10: +10", "durable 13: +3", "durable 15: +1 -", "durable 15: +0")
	u.end()
	same(t, "ledger", n.get("d").GetKpis().GetLedger(), &veredusv1.Ledger{Accepted: 14, Ignored: 1, Pending: 13})
	equal(t, "the first write", <-counted.seen, 10)
}

// TestAnUploadLargerThanTheRoom sends more than a stream may hold while nothing is stored: it
// waits, goes through, and gives all room back.
func TestAnUploadLargerThanTheRoom(t *testing.T) {
	n := newNode(t)
	held := &heldStore{Store: n.store, reached: make(chan struct{}), pass: make(chan struct{})}
	s := campaign.NewService(n.options(n.store, held))
	n.create("d")
	u := open(t, dial(t, s), "d")
	u.expect("durable 0")
	const chunks = 8
	go func() {
		for i := range chunks {
			var list []*veredusv1.Recipient
			for j := range 30 {
				r := person(i*30 + j)
				r.Variables = []byte(`{"a":"` + long(99_000) + `"}`)
				list = append(list, r)
			}
			u.chunk(int64(i*30+1), list...)
		}
	}()
	<-held.reached
	close(held.pass)
	for i := range chunks {
		u.expect(fmt.Sprintf("durable %d: +30 -0 !0", i*30+30))
	}
	u.end()
	if err := s.AllRoom(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAnUploadThatBreaksGivesItsRoomBack(t *testing.T) {
	n := newNode(t)
	held := &heldStore{Store: n.store, reached: make(chan struct{}), pass: make(chan struct{})}
	s := campaign.NewService(n.options(n.store, held))
	client := dial(t, s)
	n.create("d")
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := client.AddRecipients(ctx)
	if err != nil {
		t.Fatal(err)
	}
	u := &upload{t, stream}
	u.send(&veredusv1.AddRecipientsRequest{Delivery: "deliveries/d"})
	u.expect("durable 0")
	for i := range 8 {
		u.chunk(int64(i*10+1), people(i*10+1, i*10+10)...)
	}
	<-held.reached
	cancel()
	close(held.pass)
	if err := s.AllRoom(t.Context()); err != nil {
		t.Error(err)
	}
}

// countedStore tells how many recipients came in each write.
type countedStore struct {
	campaign.Recipients
	seen chan int
}

func (s *countedStore) Add(ctx context.Context, delivery string, items []campaign.Item) (campaign.Added, error) {
	s.seen <- len(items)
	return s.Recipients.Add(ctx, delivery, items)
}

func TestUploadsEndWhenTheServiceStops(t *testing.T) {
	n := newNode(t)
	client := dial(t, n)
	n.create("d")
	u := open(t, client, "d")
	u.expect("durable 0")
	close(n.stopping)
	u.expect("error: " + campaign.ErrStopping.Error())
	open(t, client, "d").expect("error: " + campaign.ErrStopping.Error())
}

func TestAFailedWriteEndsAnUpload(t *testing.T) {
	n := newNode(t)
	n.create("d")
	client := dial(t, campaign.NewService(n.options(n.store, brokenStore{n.store})))
	u := open(t, client, "d")
	u.expect("durable 0")
	u.chunk(1, people(1, 2)...)
	u.expect("error: disk full")
}

type brokenStore struct{ campaign.Recipients }

func (brokenStore) Add(context.Context, string, []campaign.Item) (campaign.Added, error) {
	return campaign.Added{}, errors.New("disk full")
}
