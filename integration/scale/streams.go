package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// subscribersRole is the first argument of the process that holds the streams. It is not
// that of the receivers: what they do must not delay what is measured.
const subscribersRole = "subscribers"

// opened is what that process prints when all streams are open.
const opened = "opened"

// arrival is an event about recipient u<Number>: when the node says that it happened, and
// when it came, in nanoseconds since 1970.
type arrival struct{ Number, Happened, Came int64 }

// subscribers is that process as the measurement sees it; nil is none.
type subscribers struct {
	r        *rig
	cmd      *exec.Cmd
	out      *bufio.Reader
	from, to time.Time     // the measured span
	used     time.Duration // CPU before it
	sent     int64         // messages before it
}

// follow opens the streams, and takes what they cost the node's memory.
func (r *rig) follow(ctx context.Context) error {
	if r.sc.Streams == 0 {
		return nil
	}
	r.sink.replied = make([]atomic.Int64, r.sc.Recipients)
	before := status(r.node.pid(), "VmRSS")
	self, err := os.Executable()
	if err != nil {
		return err
	}
	w := &subscribers{r: r, cmd: exec.Command(self, subscribersRole, r.node.addr, strconv.Itoa(r.sc.Streams))}
	w.cmd.Stderr = os.Stderr
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := w.cmd.Start(); err != nil {
		return err
	}
	w.out = bufio.NewReader(out)
	if line, err := w.out.ReadString('\n'); err != nil {
		return fmt.Errorf("the streams were not opened: %q: %w", line, err)
	}
	pause(ctx, 3*time.Second)
	r.res.StreamKB = (status(r.node.pid(), "VmRSS") - before) * 1024 / float64(r.sc.Streams)
	logf("%d streams open, %.0f KB each", r.sc.Streams, r.res.StreamKB)
	r.readers = w
	return nil
}

// begin begins the measured span.
func (w *subscribers) begin() {
	if w != nil {
		w.from, w.used, w.sent = time.Now(), cpuTime(w.cmd.Process.Pid), w.r.sink.taken.Load()
	}
}

// pause ends it; the streams stay open.
func (w *subscribers) pause() {
	if w != nil {
		sent := float64(w.r.sink.taken.Load() - w.sent)
		w.to, w.r.res.Subscribers = time.Now(), (cpuTime(w.cmd.Process.Pid)-w.used).Seconds()/sent*1000
	}
}

// end ends the process and takes how long events needed from the 250 of the receiver to
// the subscriber, and of that until the node had read the 250. Mail of the measured span counts.
func (w *subscribers) end() error {
	if w == nil {
		return nil
	}
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	var took, read []time.Duration
	for {
		var a arrival
		err := binary.Read(w.out, binary.LittleEndian, &a)
		if errors.Is(err, io.EOF) {
			w.r.res.Feedback, w.r.res.ReplyRead = latenciesOf(took), latenciesOf(read)
			return w.cmd.Wait()
		}
		if err != nil {
			return fmt.Errorf("reading what the subscribers saw: %w", err)
		}
		if replied := w.r.sink.replied[a.Number].Load(); replied >= w.from.UnixNano() && replied < w.to.UnixNano() {
			took = append(took, time.Duration(a.Came-replied))
			read = append(read, time.Duration(a.Happened-replied))
		}
	}
}

// runSubscribers opens the streams: of a hundred, one reads everything, nine one delivery
// that says nothing, and ninety are asleep: their filter matches nothing. On SIGTERM it
// writes the arrivals to standard output.
func runSubscribers(addr, streams string) error {
	n, err := strconv.Atoi(streams)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var conn *grpc.ClientConn
	var reading sync.WaitGroup
	readers := make([]subscriber, n)
	for i := range readers {
		if i%100 == 0 { // a node bounds the streams of a connection
			if conn, err = client.Dial(addr); err != nil {
				return err
			}
			defer conn.Close()
		}
		r := &readers[i]
		if err := r.open(ctx, conn, i); err != nil {
			return err
		}
		reading.Go(func() { r.read(ctx) })
	}
	fmt.Println(opened)
	<-ctx.Done()
	reading.Wait()
	return write(os.Stdout, readers)
}

func write(to io.Writer, readers []subscriber) error {
	out := bufio.NewWriter(to)
	for i := range readers {
		if err := errors.Join(readers[i].err, binary.Write(out, binary.LittleEndian, readers[i].came)); err != nil {
			return err
		}
	}
	return out.Flush()
}

// subscriber is one stream. It takes events as they are on the wire: to decode all would
// take the processors that node and receivers run on.
type subscriber struct {
	stream grpc.ClientStream
	keep   bool // it reads everything, and notes when
	came   []arrival
	err    error
}

// open opens stream i, and returns when the node answered.
func (s *subscriber) open(ctx context.Context, conn *grpc.ClientConn, i int) (err error) {
	req := &veredusv1.StreamFeedbackRequest{Start: &veredusv1.StreamFeedbackRequest_Now{Now: &emptypb.Empty{}}}
	switch {
	case i%100 == 0:
		s.keep = true
	case i%100 < 10:
		req.Filter = &veredusv1.FeedbackFilter{Deliveries: []string{fmt.Sprintf("deliveries/other-%d", i)}}
	default:
		req.Filter = &veredusv1.FeedbackFilter{Tenants: []string{"nobody"}}
	}
	s.stream, err = conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, veredusv1.FeedbackService_StreamFeedback_FullMethodName, grpc.ForceCodecV2(wire{}))
	if err == nil {
		err = errors.Join(s.stream.SendMsg(req), s.stream.CloseSend(), s.stream.RecvMsg(new([]byte)))
	}
	return err
}

// read takes what comes until ctx ends.
func (s *subscriber) read(ctx context.Context) {
	var answer []byte
	for {
		err := s.stream.RecvMsg(&answer)
		now := time.Now().UnixNano()
		if err == nil && s.keep {
			err = s.note(answer, now)
		}
		if err != nil {
			if ctx.Err() == nil {
				s.err = err
			}
			return
		}
	}
}

// note takes the arrivals of an answer's events about mail to u0, u1, …
func (s *subscriber) note(answer []byte, now int64) error {
	const events, happened, recipient = 1, 2, 9 // fields of StreamFeedbackResponse and FeedbackEvent
	return fields(answer, func(field protowire.Number, event []byte) error {
		if field != events {
			return nil
		}
		var at timestamppb.Timestamp
		return fields(event, func(field protowire.Number, value []byte) error {
			if field == happened {
				return proto.Unmarshal(value, &at)
			}
			local, _, _ := bytes.Cut(value, []byte{'@'})
			if field != recipient || len(local) < 2 || local[0] != 'u' {
				return nil
			}
			n, err := strconv.ParseInt(string(local[1:]), 10, 64)
			s.came = append(s.came, arrival{n, at.AsTime().UnixNano(), now})
			return err
		})
	})
}

// fields calls each for every field of a message that is a string, octets or a message.
func fields(message []byte, each func(protowire.Number, []byte) error) error {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		size := protowire.ConsumeFieldValue(field, kind, message)
		if size < 0 {
			return protowire.ParseError(size)
		}
		if kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(message)
			if err := each(field, value); err != nil {
				return err
			}
		}
		message = message[size:]
	}
	return nil
}

// wire encodes requests, and leaves answers as they are.
type wire struct{}

func (wire) Name() string { return "proto" }

func (wire) Marshal(v any) (mem.BufferSlice, error) {
	data, err := proto.Marshal(v.(proto.Message))
	return mem.BufferSlice{mem.SliceBuffer(data)}, err
}

func (wire) Unmarshal(data mem.BufferSlice, v any) error {
	to := v.(*[]byte)
	*to = slices.Grow((*to)[:0], data.Len())[:data.Len()]
	data.CopyTo(*to)
	return nil
}
