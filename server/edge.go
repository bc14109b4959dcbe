package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/heap"
)

// Limits of the gRPC port.
const (
	// maxMessage bounds one message in either direction: a chunk of recipients has
	// 3 MiB at most.
	maxMessage = 4 << 20
	// maxFrame is how large a message is read to its end, to be refused in words. One beyond
	// is refused by grpc-go, in its own.
	maxFrame = 32 << 20
	// streamWindow and connWindow are how many octets a client may send that nobody has
	// read yet. Without them grpc-go would raise either to 16 MiB, for each stream.
	streamWindow = 256 << 10
	connWindow   = 4 << 20
	// spareStreams is how many calls of one connection may be waiting to be refused.
	spareStreams = 100
	// minPing is the least time between a client's pings.
	minPing = 10 * time.Second
	// pingAfter is when a silent client is asked whether it lives, and pingWait how
	// long it may take to answer.
	pingAfter = 2 * time.Minute
	pingWait  = 20 * time.Second
	// connectWait bounds the handshake of a new connection.
	connectWait = 20 * time.Second
)

// edge is what every call passes: it says who calls, survives panics, turns errors
// into what clients may see, counts and logs.
type edge struct {
	log     *slog.Logger
	metrics *metrics
	intake  *intake
	memory  *heap.Guard
	// admit refuses calls that there is no room for, and frames of their streams.
	admit    func(method string) error
	stopping <-chan struct{}
}

// newGRPC makes the gRPC server behind the edge.
func newGRPC(cfg config.GRPC, e *edge) (*grpc.Server, error) {
	opts := []grpc.ServerOption{
		grpc.UnaryInterceptor(e.unary),
		grpc.StreamInterceptor(e.stream),
		grpc.MaxRecvMsgSize(maxFrame),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.MaxConcurrentStreams(mostStreams(cfg)),
		grpc.ConnectionTimeout(connectWait),
		grpc.WaitForHandlers(true), // nothing may use the store behind its end
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingWait}),
	}
	if cfg.TLS.Cert != "" {
		creds, err := credentials.NewServerTLSFromFile(cfg.TLS.Cert, cfg.TLS.Key)
		if err != nil {
			return nil, fmt.Errorf("grpc.tls: %w", err)
		}
		opts = append(opts, grpc.Creds(creds))
	}
	return grpc.NewServer(opts...), nil
}

// mostStreams is how many calls one connection may have under way: more than there may be,
// so that the one too many is answered, and does not wait in its client without a word.
func mostStreams(c config.GRPC) uint32 {
	return uint32(2*c.MaxCalls + c.MaxStreams + c.MaxUploads + spareStreams)
}

// unary is passed by calls of services that are not registered ahead: health.
func (e *edge) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	began := time.Now()
	err = survive(func() error {
		if err := e.admit(info.FullMethod); err != nil {
			return err
		}
		resp, err = handler(withPrincipal(ctx), req)
		return err
	})
	if err != nil {
		return nil, e.ended(ctx, info.FullMethod, began, err)
	}
	return resp, e.ended(ctx, info.FullMethod, began, nil)
}

func (e *edge) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	began := time.Now()
	if info.IsClientStream || info.IsServerStream {
		open := e.metrics.streams.WithLabelValues(info.FullMethod)
		open.Inc()
		defer open.Dec()
	}
	err := survive(func() error {
		if err := e.admit(info.FullMethod); err != nil {
			return err
		}
		l := e.intake.of(info)
		if err := l.take(1); err != nil {
			return err
		}
		defer l.give(1)
		ctx, end := e.while(withPrincipal(ss.Context()), l)
		defer end(nil)
		passed := &stream{ServerStream: ss, ctx: ctx, admit: func() error { return e.admit(info.FullMethod) }}
		if info.IsServerStream && !info.IsClientStream {
			passed.receive = func(m any) error { return e.await(ss, info.FullMethod, m) }
		}
		return causeOf(ctx, handler(srv, passed))
	})
	return e.ended(ss.Context(), info.FullMethod, began, err)
}

// stream is a stream whose context says who calls, and whose frames need room.
type stream struct {
	grpc.ServerStream
	ctx     context.Context
	admit   func() error
	receive func(m any) error // of the one request of a stream of answers; else nil
}

// Context implements grpc.ServerStream.
func (s *stream) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream. A frame that there is no room for ends the stream; what
// was taken before is stored and acknowledged.
func (s *stream) RecvMsg(m any) error {
	receive := s.ServerStream.RecvMsg
	if s.receive != nil {
		receive = s.receive
	}
	if err := receive(m); err != nil {
		return err
	}
	return s.admit()
}

// panicError is a handler's panic.
type panicError struct {
	value any
	stack []byte
}

// Error says where it happened.
func (e *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.value, e.stack) }

// survive turns a panic into an error: one broken call must not end the relay.
func survive(call func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{value: v, stack: debug.Stack()}
		}
	}()
	return call()
}

// ended maps, logs and counts the end of a call.
func (e *edge) ended(ctx context.Context, method string, began time.Time, err error) error {
	if err == nil {
		e.metrics.calls.WithLabelValues(method, codes.OK.String()).Inc()
		return nil
	}
	s, known := statusOf(e.ours(ctx, err))
	e.metrics.calls.WithLabelValues(method, s.Code().String()).Inc()
	level, text := slog.LevelDebug, "call refused"
	if !known {
		level, text = slog.LevelError, "call failed"
	}
	e.log.Log(ctx, level, text, "method", method, "code", s.Code().String(), "error", err, "took", time.Since(began))
	return s.Err()
}

// ours tells a call that our stopping cut off from one that its client gave up.
func (e *edge) ours(ctx context.Context, err error) error {
	if !errors.Is(err, context.Canceled) || ctx.Err() != nil {
		return err
	}
	select {
	case <-e.stopping:
		return errStopping
	default:
		return fmt.Errorf("cancelled inside: %v", err)
	}
}
