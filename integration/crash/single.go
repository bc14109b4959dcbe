package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// singles sends single messages, one after another, as long as the node lives. A call that
// got no answer is made again in the node's next life, with the same request id.
type singles struct {
	number int // of the message under way

	mu   sync.Mutex
	open []string // acknowledged and not compared yet, by name
	all  int

	stop chan struct{}
	done sync.WaitGroup
}

// singleEvery is the pause between two single messages.
const singleEvery = 10 * time.Millisecond

// begin goes on in a new life.
func (s *singles) begin(conn *grpc.ClientConn) {
	s.stop = make(chan struct{})
	s.done.Go(func() {
		tick := time.NewTicker(singleEvery)
		defer tick.Stop()
		for s.send(veredusv1.NewCampaignServiceClient(conn)) {
			select {
			case <-tick.C:
			case <-s.stop:
				return
			}
		}
	})
}

// end waits for the call under way. The next life may begin.
func (s *singles) end() {
	if s.stop != nil {
		close(s.stop)
		s.done.Wait()
		s.stop = nil
	}
}

// send sends one message; false when the node is gone.
func (s *singles) send(c veredusv1.CampaignServiceClient) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	m, err := c.SendMessage(ctx, &veredusv1.SendMessageRequest{
		RequestId: fmt.Sprintf("single %d", s.number),
		Sender:    &veredusv1.Sender{From: "shop@brand.example"},
		Content:   &veredusv1.Content{Subject: "Your order", Text: "Thank you.\n"},
		Recipient: &veredusv1.Recipient{Address: fmt.Sprintf("single%d@%s", s.number, healthyDomain(s.number%healthy))},
	})
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	s.all++
	s.open = append(s.open, m.GetName())
	return true
}

// take answers the names of messages acknowledged since it was called last. Behind end.
func (s *singles) take() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names, s.open = s.open, nil
	return names
}

// settleSingles waits for the ends of all single messages that were acknowledged, and
// compares what the node says of them with what it told.
func (h *harness) settleSingles(ctx context.Context) error {
	for _, name := range h.singles.take() {
		s := h.book.storyOf(name, tellWithin)
		m, err := h.node.Campaigns().GetMessage(ctx, &veredusv1.GetMessageRequest{Name: name})
		switch {
		case err != nil:
			h.book.breach("%s was acknowledged and cannot be read: %v", name, err)
		case s.finals != 1:
			h.book.breach("%s was acknowledged and has %d final events; it is listed as %v", name, s.finals, m.GetStatus())
		case s.delivered != (m.GetStatus() == veredusv1.LogStatus_LOG_STATUS_SENT):
			h.book.breach("%s is listed as %v, and told as delivered: %t", name, m.GetStatus(), s.delivered)
		}
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}
