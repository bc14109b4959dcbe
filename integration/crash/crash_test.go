// Package crash kills the relay. Receivers, relay and client are processes of
// their own, over real TCP; the relay is ended by SIGKILL at seeded moments of
// ingest, start, sending and settling, and afterwards the books are compared.
package crash

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

var seed = flag.Uint64("crash.seed", 0, "seed of the moments; 0 takes one from the clock")

const (
	recipients   = 8000
	ingestKills  = 6
	startKills   = 3
	sendingKills = 12
)

func TestNothingAcknowledgedIsLost(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -crash.seed=%d", *seed)
	h := newHarness(t, rand.New(rand.NewPCG(*seed, 1)))
	h.ingest()
	h.startDelivery()
	h.sending()
	h.compare()
}

// harness is the client's process: it runs the others.
type harness struct {
	t       *testing.T
	rnd     *rand.Rand
	binary  string
	dir     string
	config  string
	addr    string
	control string
	node    *exec.Cmd
	nodeLog *os.File
	conn    *grpc.ClientConn
	people  []*veredusv1.Recipient
	acked   int64
	kills   int
}

func newHarness(t *testing.T, rnd *rand.Rand) *harness {
	h := &harness{t: t, rnd: rnd, dir: t.TempDir()}
	h.binary = filepath.Join(h.dir, "veredus")
	if out, err := exec.Command("go", "build", "-o", h.binary, "github.com/veredus/veredus/cmd/veredus").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var err error
	if h.nodeLog, err = os.Create(filepath.Join(h.dir, "node.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.cleanUp)
	h.configure(h.startReceivers())
	open := world.Open()
	for p := range world.Recipients(open, recipients, 1) {
		h.people = append(h.people, &veredusv1.Recipient{Address: p.Address, RecipientId: p.Address})
	}
	return h
}

func (h *harness) cleanUp() {
	h.kill()
	_ = h.nodeLog.Close()
	if h.t.Failed() {
		log, _ := os.ReadFile(h.nodeLog.Name())
		lines := strings.Split(string(log), "\n")
		h.t.Logf("the end of the node's log:\n%s", strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
}

// endpoints is what `veredus receivers` prints.
type endpoints struct {
	DNS      string `json:"dns"`
	SMTPPort int    `json:"smtp_port"`
	Control  string `json:"control"`
}

func (h *harness) startReceivers() endpoints {
	cmd := exec.Command(h.binary, "receivers", "--world", "open", "--control", "127.0.0.1:0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		h.t.Fatalf("receivers: %v", err)
	}
	var e endpoints
	if err := json.Unmarshal(line, &e); err != nil {
		h.t.Fatalf("receivers printed %q: %v", line, err)
	}
	h.control = e.Control
	return e
}

// configure writes the node's configuration, its key and the key's record.
func (h *harness) configure(e endpoints) {
	key := filepath.Join(h.dir, "key.pem")
	out, err := exec.Command(h.binary, "dkim", "keygen", "--domain", "brand.example", "--selector", "s1", "--out", key, "--json").Output()
	if err != nil {
		h.t.Fatalf("dkim keygen: %v", err)
	}
	var record struct{ Name, Value string }
	if err := json.Unmarshal(out, &record); err != nil || record.Value == "" {
		h.t.Fatalf("dkim keygen printed %q: %v", out, err)
	}
	body, _ := json.Marshal(map[string]string{"name": record.Name, "value": record.Value})
	resp, err := http.Post(h.control+"/txt", "application/json", strings.NewReader(string(body)))
	if err != nil || resp.StatusCode/100 != 2 {
		h.t.Fatalf("publishing the key: %v %v", resp, err)
	}
	h.addr = freeAddress(h.t)
	h.config = filepath.Join(h.dir, "veredus.yaml")
	text := fmt.Sprintf(`data_dir: data
grpc: {listen: %q}
http: {listen: ""}
dns: {server: %q}
relay:
  hostname: mta.brand.example
  smtp_port: %d
  mode: live
  allow_private_addresses: true
  pools:
    default:
      sources: [{name: s1, address: 127.0.0.1, hostname: mta.brand.example}]
dkim:
  domains: [{domain: brand.example, selector: s1, key_file: key.pem, bounce_domain: bounce.brand.example}]
mx_rules: mx.yaml
`, h.addr, e.DNS, e.SMTPPort)
	rules := "rules:\n  - id: everyone\n    connections: 20\n    connection_rate: unlimited\n    message_rate: unlimited\n    messages_per_connection: 500\n"
	for name, content := range map[string]string{h.config: text, filepath.Join(h.dir, "mx.yaml"): rules} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
}

// freeAddress finds a port that the node can have again after each kill.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// boot starts the node and waits until it answers.
func (h *harness) boot() {
	h.t.Helper()
	h.node = exec.Command(h.binary, "serve", "--config", h.config)
	h.node.Stdout, h.node.Stderr = h.nodeLog, h.nodeLog
	if err := h.node.Start(); err != nil {
		h.t.Fatal(err)
	}
	var err error
	if h.conn, err = client.Dial(h.addr); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		_, err := h.campaigns().ListDeliveries(ctx, &veredusv1.ListDeliveriesRequest{PageSize: 1}, grpc.WaitForReady(true))
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			h.t.Fatalf("the node does not answer: %v", err)
		}
	}
}

// kill ends the node by SIGKILL.
func (h *harness) kill() {
	if h.node == nil {
		return
	}
	_ = h.node.Process.Kill()
	_ = h.node.Wait()
	_ = h.conn.Close()
	h.node = nil
	h.kills++
}

func (h *harness) campaigns() veredusv1.CampaignServiceClient {
	return veredusv1.NewCampaignServiceClient(h.conn)
}

// moment is a random time to live.
func (h *harness) moment(least, spread time.Duration) <-chan time.Time {
	return time.After(least + time.Duration(h.rnd.Int64N(int64(spread))))
}

const name = "deliveries/crash"

// ingest uploads in parts; the node is killed in each but the last.
func (h *harness) ingest() {
	for round := 1; round <= ingestKills+1; round++ {
		h.boot()
		h.create()
		h.checkAcked()
		upTo := len(h.people) * round / (ingestKills + 1)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- h.upload(ctx, h.people[:upTo]) }()
		if round <= ingestKills {
			<-h.moment(5*time.Millisecond, 150*time.Millisecond)
			h.kill()
			cancel()
			<-done
			continue
		}
		if err := <-done; err != nil {
			h.t.Fatalf("upload: %v", err)
		}
		cancel()
	}
}

func (h *harness) create() {
	_, err := h.campaigns().CreateDelivery(context.Background(), &veredusv1.CreateDeliveryRequest{
		DeliveryId: "crash", RequestId: "create",
		Delivery: &veredusv1.Delivery{
			Sender:  &veredusv1.Sender{From: "news@brand.example"},
			Content: &veredusv1.Content{Subject: "Hello", Text: "Hello {{ recipient.address }}"},
		},
	})
	if err != nil {
		h.t.Fatalf("create: %v", err)
	}
}

func (h *harness) upload(ctx context.Context, people []*veredusv1.Recipient) error {
	up := &client.Uploader{
		Client: h.campaigns(), Delivery: name, ChunkSize: 20, Window: 2,
		Progress: func(p client.Progress) { h.acked = max(h.acked, p.Durable) },
	}
	_, err := up.Upload(ctx, client.Slice(people))
	return err
}

// checkAcked compares what the restarted node has with what was acknowledged.
func (h *harness) checkAcked() {
	d := h.get()
	if have := d.GetKpis().GetLedger().GetAccepted() + d.GetKpis().GetRejected(); have < h.acked {
		h.t.Fatalf("%d recipients were acknowledged, %d are there after the kill", h.acked, have)
	}
}

func (h *harness) get() *veredusv1.Delivery {
	h.t.Helper()
	d, err := h.campaigns().GetDelivery(context.Background(), &veredusv1.GetDeliveryRequest{Name: name})
	if err != nil {
		h.t.Fatalf("get: %v", err)
	}
	l := d.GetKpis().GetLedger()
	if l.GetAccepted() != l.GetIgnored()+l.GetPending()+l.GetTakenIntoAccount()+l.GetSent()+l.GetFailed()+l.GetCancelled() {
		h.t.Errorf("the ledger does not balance: %v", l)
	}
	return d
}

// startDelivery prepares and starts; the node is killed around the calls.
func (h *harness) startDelivery() {
	started := false
	for round := 0; ; round++ {
		if started && h.get().GetState() < veredusv1.DeliveryState_DELIVERY_STATE_RUNNING {
			h.t.Fatal("an acknowledged start was lost")
		}
		done := make(chan error, 1)
		go func() { done <- h.prepareAndStart() }()
		if round == startKills {
			if err := <-done; err != nil {
				h.t.Fatal(err)
			}
			return
		}
		<-h.moment(0, 60*time.Millisecond)
		h.kill()
		started = started || <-done == nil
		h.boot()
	}
}

func (h *harness) prepareAndStart() error {
	ctx := context.Background()
	d, err := h.campaigns().GetDelivery(ctx, &veredusv1.GetDeliveryRequest{Name: name})
	if err != nil {
		return err
	}
	if d.GetState() == veredusv1.DeliveryState_DELIVERY_STATE_DRAFT {
		if _, err := h.campaigns().PrepareDelivery(ctx, &veredusv1.PrepareDeliveryRequest{Name: name}); err != nil {
			return err
		}
	}
	_, err = h.campaigns().StartDelivery(ctx, &veredusv1.StartDeliveryRequest{Name: name, RequestId: "start"})
	return err
}

// sending lets the node send and kills it, again and again, then lets it finish.
func (h *harness) sending() {
	for range sendingKills {
		<-h.moment(150*time.Millisecond, 500*time.Millisecond)
		if h.get().GetState() == veredusv1.DeliveryState_DELIVERY_STATE_FINISHED {
			h.t.Error("the delivery finished before all kills were made: give it more recipients")
			break
		}
		h.kill()
		h.boot()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	stream, err := h.campaigns().WatchDelivery(ctx, &veredusv1.WatchDeliveryRequest{Name: name})
	if err != nil {
		h.t.Fatal(err)
	}
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			h.t.Fatalf("watch: %v; %v", err, h.get().GetKpis())
		}
	}
}

// story is what the feedback stream tells of one message.
type story struct {
	finals    int
	delivered bool
	code      int32
	messageID string
}

// compare holds client, relay and receivers against each other.
func (h *harness) compare() {
	if h.kills < 20 {
		h.t.Errorf("only %d kills", h.kills)
	}
	stories, uncertain := h.readFeedback()
	lost := h.readClaims()
	copies := h.readReceivers()
	d := h.get()
	ledger := d.GetKpis().GetLedger()
	if ledger.GetAccepted() != recipients || ledger.GetSent()+ledger.GetFailed() != recipients {
		h.t.Errorf("ledger %v, want %d accepted and final", ledger, recipients)
	}
	if len(stories) != recipients {
		h.t.Errorf("feedback tells of %d messages, want %d", len(stories), recipients)
	}
	var delivered int64
	for recipient, s := range stories {
		switch {
		case s.finals != 1:
			h.t.Errorf("%s has %d final events", recipient, s.finals)
		case s.delivered && copies[s.messageID] == 0:
			h.t.Errorf("%s is told as delivered, and no receiver has it", recipient)
		case !s.delivered && (s.code != 25 || lost[s.messageID] < 3):
			h.t.Errorf("%s failed with code %d after %d lost claims", recipient, s.code, lost[s.messageID])
		}
		if s.delivered {
			delivered++
		}
	}
	if delivered != ledger.GetSent() {
		h.t.Errorf("%d delivered events, %d sent in the ledger", delivered, ledger.GetSent())
	}
	repeated := 0
	for id, n := range copies {
		if n == 1 {
			continue
		}
		repeated++
		if lost[id] == 0 && !uncertain[id] {
			h.t.Errorf("%s was repeated %d times; no restart listed it and no event calls it uncertain", id, n)
		}
	}
	h.t.Logf("%d kills, %d messages delivered, %d claims listed by restarts, %d repeated", h.kills, delivered, len(lost), repeated)
}

func (h *harness) readFeedback() (stories map[string]*story, uncertain map[string]bool) {
	stories, uncertain = map[string]*story{}, map[string]bool{}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stream, err := veredusv1.NewFeedbackServiceClient(h.conn).StreamFeedback(ctx, &veredusv1.StreamFeedbackRequest{
		Start: &veredusv1.StreamFeedbackRequest_Oldest{Oldest: &emptypb.Empty{}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			h.t.Fatalf("feedback: %v", err)
		}
		for _, e := range r.GetEvents() {
			if e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_FINISHED {
				return stories, uncertain
			}
			h.tell(stories, uncertain, e)
		}
	}
}

func (h *harness) tell(stories map[string]*story, uncertain map[string]bool, e *veredusv1.FeedbackEvent) {
	if e.GetRecipient() == "" {
		return
	}
	if e.GetDeliveryUncertain() {
		uncertain[e.GetMessageId()] = true
	}
	if e.GetWillRetry() {
		return
	}
	s := stories[e.GetRecipient()]
	if s == nil {
		s = &story{}
		stories[e.GetRecipient()] = s
	}
	s.finals++
	s.code, s.messageID = e.GetBounceCode(), e.GetMessageId()
	s.delivered = e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED
}

// readClaims counts, by Message-ID, how often restarts listed it as claimed and unsettled.
func (h *harness) readClaims() map[string]int {
	listed := map[string]int{}
	f, err := os.Open(filepath.Join(h.dir, "data", "claimed-unsettled.jsonl"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var line struct {
			MessageID string `json:"message_id"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			h.t.Fatal(err)
		}
		listed[line.MessageID]++
	}
	return listed
}

// readReceivers counts accepted copies by Message-ID.
func (h *harness) readReceivers() map[string]int {
	resp, err := http.Get(h.control + "/messages")
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	copies := map[string]int{}
	var verdicts []string
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		var line struct {
			MessageID string `json:"message_id"`
			DKIM      string `json:"dkim"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			h.t.Fatal(err)
		}
		copies[strings.Trim(line.MessageID, "<>")]++
		if !slices.Contains(verdicts, line.DKIM) {
			verdicts = append(verdicts, line.DKIM)
		}
	}
	h.t.Logf("%d messages at the receivers, DKIM verdicts %v", len(copies), verdicts)
	return copies
}
