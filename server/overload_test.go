package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/heap"
	"github.com/veredus/veredus/server/storage/faults"
)

// busy is a service whose calls take as long as the test wants.
type busy struct {
	veredusv1.UnimplementedCampaignServiceServer
	begun chan string
	free  chan struct{}
}

func (b *busy) wait(ctx context.Context, what string) error {
	b.begun <- what
	select {
	case <-b.free:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *busy) SendMessage(ctx context.Context, r *veredusv1.SendMessageRequest) (*veredusv1.Message, error) {
	return &veredusv1.Message{Name: r.GetRequestId()}, b.wait(ctx, "send "+PrincipalOf(ctx).Name)
}

func (b *busy) PauseDelivery(ctx context.Context, r *veredusv1.PauseDeliveryRequest) (*veredusv1.Delivery, error) {
	return &veredusv1.Delivery{Name: r.GetName()}, nil
}

func (b *busy) WatchDelivery(_ *veredusv1.WatchDeliveryRequest, s veredusv1.CampaignService_WatchDeliveryServer) error {
	return b.wait(s.Context(), "watch")
}

func (b *busy) AddRecipients(s veredusv1.CampaignService_AddRecipientsServer) error {
	return b.wait(s.Context(), "upload")
}

// front is an edge in memory with a busy service behind it.
type front struct {
	veredusv1.CampaignServiceClient
	busy   *busy
	edge   *edge
	memory atomic.Int64
}

// newFront begins an edge that takes in little. Call it inside of a bubble.
func newFront(t *testing.T) *front {
	t.Helper()
	c := config.GRPC{MaxCalls: 3, MaxStreams: 2, MaxUploads: 1, MaxIngestBytes: config.LeastIngestBytes}
	f := &front{busy: &busy{begun: make(chan string, 100), free: make(chan struct{})}}
	m, log := newMetrics(), NewLog(config.Log{}, testWriter{t})
	f.edge = &edge{
		log: log, metrics: m, intake: newIntake(c, m.shed), stopping: make(chan struct{}),
		memory: heap.NewGuard(config.LeastMemory, f.memory.Load, log),
	}
	f.edge.admit = func(method string) error {
		if takesIn[method] {
			return f.edge.memory.Admit()
		}
		return nil
	}
	s, err := newGRPC(c, f.edge)
	if err != nil {
		t.Fatal(err)
	}
	veredusv1.RegisterCampaignServiceServer(ahead{s, f.edge}, f.busy)
	port := bufconn.Listen(1 << 20)
	go func() { _ = s.Serve(port) }()
	conn, err := grpc.NewClient("passthrough:///front", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return port.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		s.Stop()
	})
	f.CampaignServiceClient = veredusv1.NewCampaignServiceClient(conn)
	return f
}

// await waits until so many calls began.
func (f *front) await(n int) {
	for range n {
		<-f.busy.begun
	}
}

// refused checks an answer to a call too many: code, reason, when to come back, and what the text
// names.
func refused(t *testing.T, err error, names ...string) {
	t.Helper()
	s := wantError(t, err, codes.ResourceExhausted, "OVERLOADED")
	if detail[*errdetails.RetryInfo](s).GetRetryDelay().AsDuration() <= 0 {
		t.Errorf("no delay in %v", err)
	}
	for _, name := range names {
		if !strings.Contains(s.Message(), name) {
			t.Errorf("%q does not name %q", s.Message(), name)
		}
	}
}

// A thousand calls at once, where three may be: three are carried out, the others told to come
// back, and steering goes on.
func TestAFloodOfSingleMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		var done sync.WaitGroup
		for range 3 {
			done.Go(func() {
				if _, err := f.SendMessage(t.Context(), &veredusv1.SendMessageRequest{}); err != nil {
					t.Error(err)
				}
			})
		}
		f.await(3)
		var flood sync.WaitGroup
		for range 1000 {
			flood.Go(func() {
				_, err := f.SendMessage(t.Context(), &veredusv1.SendMessageRequest{})
				refused(t, err, "at most 3 at a time", "grpc.max_calls", "try again in 1s")
			})
		}
		flood.Wait()
		if d, err := f.PauseDelivery(t.Context(), &veredusv1.PauseDeliveryRequest{Name: "deliveries/d"}); err != nil || d.GetName() != "deliveries/d" {
			t.Errorf("pausing meanwhile: %v, %v", d, err)
		}
		close(f.busy.free)
		done.Wait()
		synctest.Wait()
		m, err := f.SendMessage(t.Context(), &veredusv1.SendMessageRequest{RequestId: "r"})
		if err != nil || m.GetName() != "r" {
			t.Errorf("afterwards: %v, %v", m, err)
		}
		if now := f.edge.intake.calls.now.Load(); now != 0 {
			t.Errorf("%d calls are counted for ever", now)
		}
	})
}

// One client opens ten thousand streams on one connection: each is answered.
func TestTenThousandStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		watch := func(ctx context.Context) error {
			s, err := f.WatchDelivery(ctx, &veredusv1.WatchDeliveryRequest{})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		}
		ctx, hangUp := context.WithCancel(t.Context())
		var open sync.WaitGroup
		for range 2 {
			open.Go(func() { wantError(t, watch(ctx), codes.Canceled, "") })
		}
		f.await(2)
		for range 10 {
			var flood sync.WaitGroup
			for range 1000 {
				flood.Go(func() {
					refused(t, watch(t.Context()), "open streams: at most 2", "grpc.max_streams", "try again in 5s")
				})
			}
			flood.Wait()
		}
		hangUp()
		open.Wait()
		synctest.Wait()
		close(f.busy.free)
		if err := watch(t.Context()); err != io.EOF {
			t.Errorf("a stream behind the flood: %v", err)
		}
	})
}

func TestTooManyUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		upload := func() error {
			s, err := f.AddRecipients(t.Context())
			if err == nil {
				_, err = s.Recv()
			}
			return err
		}
		first := make(chan error, 1)
		go func() { first <- upload() }()
		f.await(1)
		refused(t, upload(), "open uploads: at most 1", "grpc.max_uploads")
		close(f.busy.free)
		if err := <-first; err != io.EOF {
			t.Errorf("the first: %v", err)
		}
	})
}

// Requests under way hold 8 MiB together: two of 3 MiB, no third.
func TestLargeRequestsShareTheirRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		large := &veredusv1.SendMessageRequest{Content: &veredusv1.Content{Text: strings.Repeat("x", 3<<20)}}
		var done sync.WaitGroup
		for range 2 {
			done.Go(func() {
				if _, err := f.SendMessage(t.Context(), large); err != nil {
					t.Error(err)
				}
			})
		}
		f.await(2)
		_, err := f.SendMessage(t.Context(), large)
		refused(t, err, "octets of requests under way: at most 8MiB", "grpc.max_ingest_bytes")
		close(f.busy.free)
		done.Wait()
		synctest.Wait()
		if now := f.edge.intake.bytes.now.Load(); now != 0 {
			t.Errorf("%d octets are counted for ever", now)
		}
	})
}

// Content beyond what any request may hold is answered with its field, its size and the remedy;
// grpc-go's own text says none of that.
func TestContentThatIsFarTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		for _, size := range []int{4<<20 + 1, 20 << 20} {
			content := &veredusv1.Content{Html: strings.Repeat("x", size)}
			_, err := f.SendMessage(t.Context(), &veredusv1.SendMessageRequest{Content: content})
			s := wantError(t, err, codes.InvalidArgument, "INVALID_FIELD")
			if fields(s) != "content" || !strings.Contains(s.Message(), fmt.Sprint(size)[:4]) || !strings.Contains(s.Message(), "at most 1 MiB") {
				t.Errorf("%d octets: %q", size, s.Message())
			}
			_, err = f.CreateDelivery(t.Context(), &veredusv1.CreateDeliveryRequest{Delivery: &veredusv1.Delivery{Content: content}})
			if s := wantError(t, err, codes.InvalidArgument, "INVALID_FIELD"); fields(s) != "delivery.content" {
				t.Errorf("%d octets: fields %q", size, fields(s))
			}
		}
	})
}

// A request of which only the beginning comes keeps its place for a minute.
func TestARequestThatDawdles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		began := time.Now()
		err := f.edge.dawdle(t)
		if s := status.Convert(err); s.Code() != codes.DeadlineExceeded || time.Since(began) != readTime {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// So does a stream of answers whose question does not come.
func TestAStreamThatDawdles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		never := make(chan struct{})
		defer close(never)
		info := &grpc.StreamServerInfo{FullMethod: veredusv1.FeedbackService_StreamFeedback_FullMethodName, IsServerStream: true}
		began := time.Now()
		err := f.edge.stream(nil, silent{never: never}, info, func(_ any, ss grpc.ServerStream) error {
			return ss.RecvMsg(&veredusv1.StreamFeedbackRequest{})
		})
		if s := status.Convert(err); s.Code() != codes.DeadlineExceeded || time.Since(began) != readTime {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// dawdle carries out a call whose request never comes.
func (e *edge) dawdle(t *testing.T) error {
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	info := &grpc.StreamServerInfo{FullMethod: veredusv1.CampaignService_SendMessage_FullMethodName}
	return e.stream(nil, silent{never: never}, info, func(_ any, ss grpc.ServerStream) error {
		_, err := e.read(ss, info.FullMethod, &veredusv1.SendMessageRequest{})
		return err
	})
}

// silent is a stream on which nothing comes.
type silent struct {
	grpc.ServerStream
	never chan struct{}
}

func (s silent) Context() context.Context { return context.Background() }

func (s silent) RecvMsg(any) error {
	<-s.never
	return io.EOF
}

// Short memory refuses what is new and ends uploads, whose octets go with them; steering goes on.
func TestMemoryRunsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t)
		ctx, end := context.WithCancel(t.Context())
		defer end()
		go f.edge.memory.Run(ctx)
		up, err := f.AddRecipients(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f.await(1)
		f.memory.Store(config.LeastMemory + 1)
		_, err = up.Recv()
		refused(t, err, "uses 128 MiB", "may use 128 (memory.max)", "try again in 10s")
		_, err = f.SendMessage(t.Context(), &veredusv1.SendMessageRequest{})
		refused(t, err, "memory.max")
		if _, err := f.PauseDelivery(t.Context(), &veredusv1.PauseDeliveryRequest{}); err != nil {
			t.Errorf("pausing meanwhile: %v", err)
		}
		f.memory.Store(0)
		time.Sleep(time.Second) // of the bubble
		close(f.busy.free)
		if _, err := f.SendMessage(t.Context(), &veredusv1.SendMessageRequest{}); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// A whole node whose memory is short says so, and shows its limits.
func TestANodeShowsItsIntake(t *testing.T) {
	var used atomic.Int64
	cfg := sandbox(t)
	cfg.Memory.Max = config.LeastMemory
	n := begin(t, cfg, Options{memory: used.Load})
	used.Store(1 << 40)
	n.Server.memory.Look()
	_, err := n.campaigns.SendMessage(t.Context(), &veredusv1.SendMessageRequest{})
	refused(t, err, "memory.max")
	_, body := n.get(t, "/metrics")
	for _, want := range []string{`veredus_intake_limit{limit="calls"} 1000`, `veredus_intake{limit="uploads"} 0`, `veredus_intake_shed_total{limit="memory"} 1`} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// Six hundred clients send a message each through fifty places, to a disk whose syncs take
// long. Who is refused comes back. Every message is taken once, and none is lost.
func TestAFloodOnASlowDisk(t *testing.T) {
	dir := t.TempDir()
	key(t, dir, "key.pem")
	cfg := parse(t, dir, "grpc: {max_calls: 50}\ndkim: {domains: [{domain: brand.example, selector: s1, key_file: key.pem}]}\n")
	slow, err := faults.Parse("sync delay=20ms")
	if err != nil {
		t.Fatal(err)
	}
	n := begin(t, cfg, Options{FS: faults.Wrap(vfs.NewMem(), slow)})
	const clients = 600
	var shed atomic.Int64
	var all sync.WaitGroup
	names := make([]string, clients)
	for i := range clients {
		all.Go(func() {
			var refusals int64
			names[i], refusals = insist(t, n.campaigns, i)
			shed.Add(refusals)
		})
	}
	all.Wait()
	for i, name := range names {
		m, err := n.campaigns.GetMessage(t.Context(), &veredusv1.GetMessageRequest{Name: name})
		if err != nil || m.GetRecipient() != addressee(i) {
			t.Fatalf("message %q of %s: %v, %v", name, addressee(i), m, err)
		}
	}
	if shed.Load() == 0 {
		t.Error("nobody was refused")
	}
	if now := n.intake.calls.now.Load(); now != 0 {
		t.Errorf("%d calls are counted for ever", now)
	}
}

func addressee(i int) string { return fmt.Sprintf("u%d@a.example", i) }

// insist sends one message until it is taken: its name, and how often it was refused. It comes back
// sooner than it is told to.
func insist(t *testing.T, campaigns veredusv1.CampaignServiceClient, i int) (name string, refusals int64) {
	for ; t.Context().Err() == nil; refusals++ {
		m, err := campaigns.SendMessage(t.Context(), &veredusv1.SendMessageRequest{
			Sender: &veredusv1.Sender{From: "news@brand.example"}, Content: &veredusv1.Content{Subject: "Hello", Text: "Dear reader"},
			Recipient: &veredusv1.Recipient{Address: addressee(i)}, RequestId: fmt.Sprint("r", i),
		})
		if err == nil {
			return m.GetName(), refusals
		}
		refused(t, err, "grpc.max_calls")
		delay := detail[*errdetails.RetryInfo](status.Convert(err)).GetRetryDelay().AsDuration()
		if delay <= 0 {
			return "", refusals
		}
		<-time.After(delay / 20)
	}
	return "", refusals
}
