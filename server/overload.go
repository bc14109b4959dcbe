package server

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/heap"
)

// How much is taken in at a time.
//
// Every call is counted before its request is read: a call too many is answered
// RESOURCE_EXHAUSTED, with what is too much, the field that sets the limit and when to
// come back, and costs nothing but its header. What was acknowledged is never touched.
// Calls that take something in (single messages, deliveries), calls that
// do not, streams of answers and uploads have limits of their own, so that none of
// them shuts the others out: an operator can pause a delivery whatever floods in.

// limit bounds what is under way. Safe for concurrent use.
type limit struct {
	what  string // in words, for clients
	field string // of the configuration
	most  int64
	shown string // most, for clients
	after time.Duration
	now   atomic.Int64
	shed  prometheus.Counter
}

// take counts n more; a *campaign.OverloadedError when that is too much, and then nothing is
// counted.
func (l *limit) take(n int64) error {
	if l.now.Add(n) <= l.most {
		return nil
	}
	l.now.Add(-n)
	l.shed.Inc()
	return &campaign.OverloadedError{What: l.what, Limit: l.shown, Field: l.field, Remedy: "or raise the limit", RetryAfter: l.after}
}

func (l *limit) give(n int64) { l.now.Add(-n) }

// When a refused client should come back: calls are short, streams are not.
const (
	callsAfter   = time.Second
	streamsAfter = 5 * time.Second
)

// intake is the limits of one server.
type intake struct {
	calls   *limit // that take something in
	others  *limit // that do not
	streams *limit
	uploads *limit
	bytes   *limit // of the requests of calls that take something in
}

func newIntake(c config.GRPC, shed *prometheus.CounterVec) *intake {
	bound := func(name, what, field string, most int64, after time.Duration) *limit {
		return &limit{what: what, field: field, most: most, shown: fmt.Sprint(most), after: after, shed: shed.WithLabelValues(name)}
	}
	in := &intake{
		calls:   bound("calls", "calls under way that take something in", "grpc.max_calls", int64(c.MaxCalls), callsAfter),
		others:  bound("other_calls", "calls under way", "grpc.max_calls", int64(c.MaxCalls), callsAfter),
		streams: bound("streams", "open streams", "grpc.max_streams", int64(c.MaxStreams), streamsAfter),
		uploads: bound("uploads", "open uploads", "grpc.max_uploads", int64(c.MaxUploads), streamsAfter),
		bytes:   bound("bytes", "octets of requests under way", "grpc.max_ingest_bytes", c.MaxIngestBytes, callsAfter),
	}
	in.bytes.shown = config.SizeText(c.MaxIngestBytes)
	return in
}

// of is the limit that a call counts for.
func (in *intake) of(info *grpc.StreamServerInfo) *limit {
	switch {
	case info.IsClientStream && takesIn[info.FullMethod]:
		return in.uploads
	case info.IsClientStream || info.IsServerStream:
		return in.streams
	case takesIn[info.FullMethod]:
		return in.calls
	}
	return in.others
}

// register shows the limits and what is under way.
func (in *intake) register(to *prometheus.Registry) {
	for name, l := range map[string]*limit{"calls": in.calls, "other_calls": in.others, "streams": in.streams, "uploads": in.uploads, "bytes": in.bytes} {
		labels := prometheus.Labels{"limit": name}
		to.MustRegister(
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "veredus_intake", Help: "What is under way, by limit (calls, other_calls, streams, uploads, bytes).", ConstLabels: labels,
			}, func() float64 { return float64(l.now.Load()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "veredus_intake_limit", Help: "How much may be under way, by limit.", ConstLabels: labels,
			}, func() float64 { return float64(l.most) }),
		)
	}
}

func newShed() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "veredus_intake_shed_total", Help: "Calls refused with RESOURCE_EXHAUSTED because of a limit, by limit (calls, other_calls, streams, uploads, bytes, memory).",
	}, []string{"limit"})
}

// ahead registers services so that a call passes the edge before its request is read:
// it makes calls with one request and one answer streams with one of each, which is the
// same on the wire. grpc-go by itself reads the request first, whatever there is room for.
type ahead struct {
	*grpc.Server
	e *edge
}

// RegisterService implements grpc.ServiceRegistrar.
func (a ahead) RegisterService(desc *grpc.ServiceDesc, service any) {
	d := *desc
	d.Streams = append([]grpc.StreamDesc(nil), desc.Streams...)
	for _, m := range desc.Methods {
		d.Streams = append(d.Streams, grpc.StreamDesc{StreamName: m.MethodName, Handler: a.e.single(desc.ServiceName, m)})
	}
	d.Methods = nil
	a.Server.RegisterService(&d, service)
}

// single is how a call with one request and one answer is carried out behind the edge, which
// grpc-go leaves out for streams that are none.
func (e *edge) single(service string, m grpc.MethodDesc) grpc.StreamHandler {
	info := &grpc.StreamServerInfo{FullMethod: "/" + service + "/" + m.MethodName}
	carryOut := func(srv any, ss grpc.ServerStream) error {
		var size int64
		defer func() { e.intake.bytes.give(size) }()
		resp, err := m.Handler(srv, ss.Context(), func(to any) (err error) {
			size, err = e.read(ss, info.FullMethod, to)
			return err
		}, nil)
		if err != nil {
			return err
		}
		return sendable(ss.SendMsg(resp))
	}
	return func(srv any, ss grpc.ServerStream) error { return e.stream(srv, ss, info, carryOut) }
}

// sendable is the end of a call whose answer was sent. One that is too large to be sent is
// our fault.
func sendable(err error) error {
	if status.Code(err) == codes.ResourceExhausted {
		return fmt.Errorf("sending the answer: %w", err)
	}
	return err
}

// readTime is how long a request may take to arrive: one that dawdles holds a place that
// others need.
const readTime = time.Minute

// pressedTime is the same for calls that take nothing in, while memory is short: what steers a
// node is small.
const pressedTime = time.Second

// errDawdling ends a call whose request does not come.
var errDawdling = fmt.Errorf("the request did not arrive within %v: %w", readTime, context.DeadlineExceeded)

// read reads the one request of a call. It answers the octets counted for it, which the caller
// gives back.
func (e *edge) read(ss grpc.ServerStream, method string, to any) (int64, error) {
	if err := e.await(ss, method, to); err != nil {
		return 0, err
	}
	return e.weigh(method, to)
}

// await receives the one request of a call, or the one that begins a stream of answers. While
// memory is short nothing that arrives slowly is waited for, whatever it asks for.
func (e *edge) await(ss grpc.ServerStream, method string, to any) error {
	done := make(chan error, 1)
	go func() { done <- ss.RecvMsg(to) }() // ends at the latest with the stream
	late := time.NewTimer(readTime)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return errDawdling
	case <-e.memory.Pressed():
	}
	if !takesIn[method] {
		late.Reset(pressedTime)
		select {
		case err := <-done:
			return err
		case <-late.C:
		}
	}
	return e.short()
}

// short is the error of what memory is too short for, counted.
func (e *edge) short() error {
	e.metrics.shed.WithLabelValues("memory").Inc()
	return e.memory.Full()
}

// weigh refuses a request that is too large, and counts one that takes something in.
func (e *edge) weigh(method string, request any) (int64, error) {
	m, ok := request.(proto.Message)
	if !ok {
		return 0, nil
	}
	size := proto.Size(m)
	if size > maxMessage {
		return 0, &tooLargeError{method: method, size: size}
	}
	if !takesIn[method] {
		return 0, nil
	}
	if err := e.intake.bytes.take(int64(size)); err != nil {
		return 0, err
	}
	return int64(size), nil
}

// while is a context for an upload: it ends, with the reason as its cause, when memory is
// short. Octets that its client sent on go with the stream.
func (e *edge) while(ctx context.Context, l *limit) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if l == e.intake.uploads {
		pressed := e.memory.Pressed()
		go func() {
			select {
			case <-pressed:
				cancel(e.short())
			case <-ctx.Done():
			}
		}()
	}
	return ctx, cancel
}

// causeOf is the error of a call whose context ended for a reason of ours.
func causeOf(ctx context.Context, err error) error {
	var full *heap.FullError
	if errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &full) {
		return full
	}
	return err
}

var _ grpc.ServiceRegistrar = ahead{}

// newMemoryGuard makes the guard of the process's memory.
func (s *Server) newMemoryGuard() *heap.Guard {
	most := s.cfg.Memory.Max
	if most < 0 {
		most = heap.Default()
	}
	heap.Limit(most)
	used := s.opts.memory
	if used == nil {
		used = heap.Used
	}
	return heap.NewGuard(most, used, s.log)
}
