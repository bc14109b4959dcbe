package client_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// node is a Veredus node as far as a client can see: it stores recipients by
// index, keeps a log of events, and breaks streams when told to.
type node struct {
	veredusv1.UnimplementedCampaignServiceServer
	veredusv1.UnimplementedFeedbackServiceServer

	// breaks is asked at each step of a stream; an error ends the stream.
	breaks atomic.Pointer[func(step string) error]

	mu      sync.Mutex
	stored  []*veredusv1.Recipient // index i+1
	streams int

	log   []*veredusv1.FeedbackEvent
	grown chan struct{}
}

func newNode(events int) *node {
	n := &node{grown: make(chan struct{})}
	for i := range events {
		n.log = append(n.log, &veredusv1.FeedbackEvent{Id: strconv.Itoa(i + 1)})
	}
	return n
}

// fail sets what breaks streams.
func (n *node) fail(breaks func(step string) error) { n.breaks.Store(&breaks) }

func (n *node) fault(step string) error {
	if breaks := n.breaks.Load(); breaks != nil {
		return (*breaks)(step)
	}
	return nil
}

// serve runs the node behind an in-memory listener and returns a connection to it.
func (n *node) serve(t testing.TB) *grpc.ClientConn {
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	veredusv1.RegisterCampaignServiceServer(server, n)
	veredusv1.RegisterFeedbackServiceServer(server, n)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///node",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return conn
}

func (n *node) AddRecipients(stream veredusv1.CampaignService_AddRecipientsServer) error {
	n.mu.Lock()
	n.streams++
	durable := int64(len(n.stored))
	n.mu.Unlock()
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if err := n.fault("open"); err != nil {
		return err
	}
	if err := stream.Send(&veredusv1.AddRecipientsResponse{DurableIndex: durable}); err != nil {
		return err
	}
	for {
		frame, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return n.fault("end")
		}
		if err != nil {
			return err
		}
		if err := n.chunk(stream, frame); err != nil {
			return err
		}
	}
}

func (n *node) chunk(stream veredusv1.CampaignService_AddRecipientsServer, frame *veredusv1.AddRecipientsRequest) error {
	if err := n.fault("received"); err != nil {
		return err
	}
	ack, err := n.store(frame)
	if err != nil {
		return err
	}
	if err := n.fault("durable"); err != nil {
		return err
	}
	return stream.Send(ack)
}

// store takes a chunk as the contract says: what is durable already is passed
// over, a gap is an error, an empty address is rejected.
func (n *node) store(frame *veredusv1.AddRecipientsRequest) (*veredusv1.AddRecipientsResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(frame.GetRecipients()) > 1000 {
		return nil, status.Error(codes.InvalidArgument, "chunk too large")
	}
	ack := &veredusv1.AddRecipientsResponse{}
	for i, r := range frame.GetRecipients() {
		index := frame.GetFirstIndex() + int64(i)
		switch next := int64(len(n.stored)) + 1; {
		case index > next:
			return nil, status.Errorf(codes.InvalidArgument, "gap: expected %d, got %d", next, index)
		case index < next:
			continue
		}
		n.stored = append(n.stored, r)
		if r.GetAddress() == "" {
			ack.Rejected = append(ack.Rejected, &veredusv1.RejectedRecipient{Index: index, Field: "address"})
			continue
		}
		ack.Accepted++
	}
	ack.DurableIndex = int64(len(n.stored))
	return ack, nil
}

func (n *node) GetDelivery(_ context.Context, req *veredusv1.GetDeliveryRequest) (*veredusv1.Delivery, error) {
	if err := n.fault("get"); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	k := &veredusv1.Kpis{Ledger: &veredusv1.Ledger{}}
	for _, r := range n.stored {
		if r.GetAddress() == "" {
			k.Rejected++
		} else {
			k.Ledger.Accepted++
		}
	}
	return &veredusv1.Delivery{Name: req.GetName(), Kpis: k}, nil
}

func (n *node) StreamFeedback(req *veredusv1.StreamFeedbackRequest, stream veredusv1.FeedbackService_StreamFeedbackServer) error {
	at := 0
	switch from := req.GetStart().(type) {
	case *veredusv1.StreamFeedbackRequest_Now:
		n.mu.Lock()
		at = len(n.log)
		n.mu.Unlock()
	case *veredusv1.StreamFeedbackRequest_Token:
		var err error
		if at, err = strconv.Atoi(from.Token); err != nil {
			return refusal(codes.InvalidArgument, "INVALID_FIELD")
		}
	}
	if err := n.answer(stream, nil, at); err != nil {
		return err
	}
	for {
		events, grown := n.after(at)
		if len(events) > 0 {
			at += len(events)
			if err := n.answer(stream, events, at); err != nil {
				return err
			}
			continue
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-grown:
		case <-time.After(5 * time.Second):
			if err := n.fault("heartbeat"); errors.Is(err, errMute) {
				<-stream.Context().Done()
				return nil
			}
			if err := n.answer(stream, nil, at); err != nil {
				return err
			}
		}
	}
}

// errMute makes a node silent.
var errMute = errors.New("mute")

func (n *node) answer(stream veredusv1.FeedbackService_StreamFeedbackServer, events []*veredusv1.FeedbackEvent, at int) error {
	if err := n.fault("before"); err != nil {
		return err
	}
	if err := stream.Send(&veredusv1.StreamFeedbackResponse{Events: events, Token: strconv.Itoa(at)}); err != nil {
		return err
	}
	return n.fault("after")
}

// after is at most seven events behind a position.
func (n *node) after(at int) ([]*veredusv1.FeedbackEvent, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log[at:min(at+7, len(n.log))], n.grown
}

func (n *node) happen(e *veredusv1.FeedbackEvent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.log = append(n.log, e)
	close(n.grown)
	n.grown = make(chan struct{})
}

// flaky breaks a stream at one step in every so many, by seed.
func flaky(seed uint64, every int) func(string) error {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0))
	return func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if random.IntN(every) != 0 {
			return nil
		}
		switch random.IntN(3) {
		case 0:
			return status.Error(codes.Unavailable, "the line broke")
		case 1:
			return status.Error(codes.Internal, "stream terminated by RST_STREAM")
		}
		return overloaded(time.Second)
	}
}

func refusal(code codes.Code, reason string) error {
	s, err := status.New(code, "refused").WithDetails(&errdetails.ErrorInfo{Domain: "veredus", Reason: reason})
	if err != nil {
		return err
	}
	return s.Err()
}

func overloaded(wait time.Duration) error {
	s, err := status.New(codes.ResourceExhausted, "overloaded").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
	if err != nil {
		return err
	}
	return s.Err()
}
