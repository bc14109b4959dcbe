// Package disks runs a node on a disk that fails: whatever the disk refuses, nothing is
// acknowledged that is not on it, the process says why it ends and ends with an error,
// and the next one, on a healthy disk, has all that was acknowledged.
//
// The node is this test's own binary, started again with a fault before its file system; client
// and receiver are the test. All goes over real TCP on loopback.
package disks

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/emersion/go-smtp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/veredus/veredus/dkim"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/storage/faults"
)

var seed = flag.Uint64("disks.seed", 0, "seed of the moments; 0 takes one from the clock")

// Environment of the process that is the node.
const (
	configEnv = "VEREDUS_DISKS_CONFIG"
	faultEnv  = "VEREDUS_DISKS_FAULT"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(configEnv); path != "" {
		if err := serve(path, os.Getenv(faultEnv)); err != nil {
			fmt.Fprintln(os.Stderr, "node:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serve is the node.
func serve(path, fault string) error {
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	var plans []faults.Plan
	if fault != "" {
		p, err := faults.Parse(fault)
		if err != nil {
			return err
		}
		plans = append(plans, p)
	}
	g, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s, err := server.New(cfg, server.Options{
		FS: faults.Wrap(vfs.Default, plans...), GRPC: g, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := s.Start(ctx); err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	fmt.Println(g.Addr())
	return s.Run(ctx, signals)
}

// inbox is the receiver of all mail. It counts what it accepted.
type inbox struct {
	mu  sync.Mutex
	got map[string]int
}

func (b *inbox) NewSession(*smtp.Conn) (smtp.Session, error) { return &visit{inbox: b}, nil }

type visit struct {
	*inbox
	to string
}

func (v *visit) Mail(string, *smtp.MailOptions) error { return nil }

func (v *visit) Rcpt(to string, _ *smtp.RcptOptions) error {
	v.to = to
	return nil
}

func (v *visit) Data(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.got[v.to]++
	return nil
}

func (v *visit) Reset()        {}
func (v *visit) Logout() error { return nil }

// rig is one round: a store, its receiver, and the client's book.
type rig struct {
	t      *testing.T
	config string
	box    *inbox

	node   *exec.Cmd
	stderr *bytes.Buffer
	conn   *grpc.ClientConn

	acked   int64 // durable index that was acknowledged
	started bool  // the start was
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, box: &inbox{got: map[string]int{}}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	receiver := smtp.NewServer(r.box)
	receiver.Domain, receiver.ErrorLog = "mx.example", log.New(io.Discard, "", 0)
	go func() { _ = receiver.Serve(l) }()
	t.Cleanup(func() { _ = receiver.Close() })
	dir := t.TempDir()
	signer, err := dkim.GenerateRSA(1024)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := dkim.MarshalPEM(signer)
	if err != nil {
		t.Fatal(err)
	}
	r.config = filepath.Join(dir, "veredus.yaml")
	text := fmt.Sprintf("data_dir: data\nrelay: {mode: redirect, redirect: %q, hostname: mta.brand.example}\nstorage: {min_free: 0}\n"+
		"dkim: {domains: [{domain: brand.example, selector: s1, key_file: key.pem}]}\n", l.Addr())
	if err := errors.Join(dkim.WriteKeyFile(filepath.Join(dir, "key.pem"), pem), os.WriteFile(r.config, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return r
}

// run starts the node with a fault; false when it ended before it served.
func (r *rig) run(fault string) bool {
	r.t.Helper()
	r.stderr = &bytes.Buffer{}
	r.node = exec.Command(os.Args[0])
	r.node.Env = append(os.Environ(), configEnv+"="+r.config, faultEnv+"="+fault)
	r.node.Stderr = r.stderr
	out, err := r.node.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.node.Start(); err != nil {
		r.t.Fatal(err)
	}
	node := r.node
	r.t.Cleanup(func() { _ = node.Process.Kill() })
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return false
	}
	r.conn, err = grpc.NewClient(strings.TrimSpace(addr), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.t.Fatal(err)
	}
	return true
}

// died waits until the node ended of itself, and checks what it says.
func (r *rig) died() {
	r.t.Helper()
	err := r.wait()
	if r.conn != nil {
		_ = r.conn.Close()
		r.conn = nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		r.t.Errorf("the node ended with %v, want exit status 1\n%s", err, tail(r.stderr.String()))
	}
	if said := r.stderr.String(); !strings.Contains(said, "injected") || strings.Contains(said, "panic:") {
		r.t.Errorf("the node does not say why it ended:\n%s", tail(said))
	}
}

// patience is with the machine, not with the node: rounds take seconds.
const patience = 3 * time.Minute

// wait waits for the node's end; one that hangs is made to say where.
func (r *rig) wait() error {
	node := r.node
	late := time.AfterFunc(patience, func() { _ = node.Process.Signal(syscall.SIGQUIT) })
	defer late.Stop()
	err := node.Wait()
	if strings.Contains(r.stderr.String(), "SIGQUIT: quit") {
		r.t.Logf("the node hung:\n%s", r.stderr.String())
	}
	return err
}

// stop ends the node gracefully.
func (r *rig) stop() {
	r.t.Helper()
	_ = r.conn.Close()
	_ = r.node.Process.Signal(syscall.SIGTERM)
	if err := r.wait(); err != nil {
		r.t.Errorf("the node stopped with %v\n%s", err, tail(r.stderr.String()))
	}
}

func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

const (
	recipients = 400
	delivery   = "deliveries/spring"
)

func address(i int64) string { return fmt.Sprintf("user%d@d%d.example", i, i%7) }

// ingest uploads what is missing, and keeps what was acknowledged; an error ends it.
func (r *rig) ingest(ctx context.Context) error {
	c := veredusv1.NewCampaignServiceClient(r.conn)
	_, err := c.CreateDelivery(ctx, &veredusv1.CreateDeliveryRequest{DeliveryId: "spring", RequestId: "create", Delivery: &veredusv1.Delivery{
		Sender:  &veredusv1.Sender{From: "news@brand.example"},
		Content: &veredusv1.Content{Subject: "Hello", Text: "Spring is here."},
	}})
	if err != nil {
		return err
	}
	up, err := c.AddRecipients(ctx)
	if err != nil {
		return err
	}
	if err := up.Send(&veredusv1.AddRecipientsRequest{Delivery: delivery}); err != nil {
		return err
	}
	resp, err := up.Recv()
	if err != nil {
		return err
	}
	if resp.GetDurableIndex() < r.acked {
		r.t.Errorf("%d recipients were acknowledged, %d are there", r.acked, resp.GetDurableIndex())
	}
	for next := resp.GetDurableIndex() + 1; next <= recipients; {
		frame := &veredusv1.AddRecipientsRequest{FirstIndex: next}
		for range 5 {
			frame.Recipients = append(frame.Recipients, &veredusv1.Recipient{Address: address(next)})
			next++
		}
		if err := up.Send(frame); err != nil {
			_, err = up.Recv()
			return err
		}
		for r.acked < next-1 {
			resp, err := up.Recv()
			if err != nil {
				return err
			}
			r.acked = resp.GetDurableIndex()
		}
	}
	_ = up.CloseSend()
	_, err = up.Recv()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}

// begin prepares and starts the delivery.
func (r *rig) begin(ctx context.Context) error {
	c := veredusv1.NewCampaignServiceClient(r.conn)
	if !r.started {
		if _, err := c.PrepareDelivery(ctx, &veredusv1.PrepareDeliveryRequest{Name: delivery}); err != nil {
			return err
		}
	}
	_, err := c.StartDelivery(ctx, &veredusv1.StartDeliveryRequest{Name: delivery, RequestId: "start"})
	r.started = r.started || err == nil
	return err
}

// follow reads all feedback until the delivery has finished: deliveries told by recipient.
func (r *rig) follow(ctx context.Context) (map[string]int, error) {
	stream, err := veredusv1.NewFeedbackServiceClient(r.conn).StreamFeedback(ctx, &veredusv1.StreamFeedbackRequest{
		Start: &veredusv1.StreamFeedbackRequest_Oldest{Oldest: &emptypb.Empty{}},
	})
	if err != nil {
		return nil, err
	}
	told := map[string]int{}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return told, err
		}
		for _, e := range resp.GetEvents() {
			switch e.GetType() {
			case veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED:
				told[e.GetRecipient()]++
			case veredusv1.FeedbackType_FEEDBACK_TYPE_FINISHED:
				return told, nil
			}
		}
	}
}

// healthy runs the node on a healthy disk to the delivery's end, and compares the books.
func (r *rig) healthy(ctx context.Context) {
	r.t.Helper()
	if !r.run("") {
		r.t.Fatalf("the node does not start on a healthy disk:\n%s", tail(r.stderr.String()))
	}
	if !r.started {
		if err := r.ingest(ctx); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := r.begin(ctx); err != nil {
		r.t.Fatal(err)
	}
	told, err := r.follow(ctx)
	if err != nil {
		r.t.Fatalf("%v\n%s", err, tail(r.stderr.String()))
	}
	r.stop()
	repeats, allowed := 0, r.repeatsAllowed()
	r.box.mu.Lock()
	defer r.box.mu.Unlock()
	for i := range int64(recipients) {
		who := address(i + 1)
		if told[who] != 1 || r.box.got[who] == 0 {
			r.t.Errorf("%s: received %d times, told %d times", who, r.box.got[who], told[who])
		}
		repeats += max(r.box.got[who]-1, 0)
	}
	if repeats > allowed {
		r.t.Errorf("%d messages came twice; %d were claimed and unsettled", repeats, allowed)
	}
	r.t.Logf("%d acknowledged, 0 lost, %d came twice of at most %d", r.acked, repeats, allowed)
}

// repeatsAllowed is how many messages the restarts reported as claimed and unsettled.
func (r *rig) repeatsAllowed() int {
	list, err := os.ReadFile(filepath.Join(filepath.Dir(r.config), "data", server.ClaimsFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	return bytes.Count(list, []byte("\n"))
}

// A fault comes early enough to come: what the slowest disk writes when 400 messages go, with
// many outcomes in a write, is 40 operations.
func TestADiskThatFails(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -disks.seed=%d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 0))
	for _, round := range []struct{ when, fault string }{
		{"ingest", fmt.Sprintf("sync err=eio after=%d", 25+rng.IntN(50))},
		{"ingest", fmt.Sprintf("room err=enospc after=%d", 55+rng.IntN(40))},
		{"ingest", fmt.Sprintf("write path=.log err=eio times=1 after=%d", 10+rng.IntN(60))},
		{"sending", fmt.Sprintf("sync err=eio after=%d", 12+rng.IntN(8))},
		{"sending", fmt.Sprintf("room err=enospc after=%d", 16+rng.IntN(10))},
		{"sending", fmt.Sprintf("sync err=eio times=1 delay=5ms after=%d", 12+rng.IntN(8))},
		{"start", fmt.Sprintf("sync err=eio after=%d", rng.IntN(5))},
		{"start", fmt.Sprintf("read err=eio after=%d", rng.IntN(4))},
	} {
		t.Run(round.when+" "+round.fault, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r := newRig(t)
			r.fail(ctx, round.when, round.fault)
			r.healthy(ctx)
		})
	}
}

// fail has the node meet a fault.
func (r *rig) fail(ctx context.Context, when, fault string) {
	r.t.Helper()
	if when != "ingest" {
		if !r.run("") {
			r.t.Fatalf("no start:\n%s", tail(r.stderr.String()))
		}
		if err := r.ingest(ctx); err != nil {
			r.t.Fatal(err)
		}
		r.stop()
	}
	serves := r.run(fault)
	switch {
	case when == "start" && serves:
		r.t.Fatalf("it serves:\n%s", tail(r.stderr.String()))
	case !serves:
	case when == "ingest":
		if err := r.ingest(ctx); err == nil {
			r.t.Error("everything was acknowledged on a disk that fails")
		}
	case when == "sending":
		if err := r.begin(ctx); err == nil {
			_, _ = r.follow(ctx)
		}
	}
	r.died()
}

// A slow disk is no fault: everything takes longer, and nothing ends.
func TestASlowDisk(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r := newRig(t)
	if !r.run("sync delay=10ms") {
		t.Fatalf("no start:\n%s", tail(r.stderr.String()))
	}
	if err := errors.Join(r.ingest(ctx), r.begin(ctx)); err != nil {
		t.Fatal(err)
	}
	if told, err := r.follow(ctx); err != nil || len(told) != recipients {
		t.Errorf("%d told, %v", len(told), err)
	}
	r.stop()
}
