package server

import (
	"net/http"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/feedback"
)

// A token that cannot be gone on with is refused in words, never answered by silence.
func TestTokensThatLeadNowhere(t *testing.T) {
	n := begin(t, sandbox(t), Options{})
	store := n.store.StoreID()
	_, next := n.store.Ends()
	other := store
	other[0]++
	for _, c := range []struct {
		name   string
		req    *veredusv1.StreamFeedbackRequest
		code   codes.Code
		reason string
	}{
		{"no start", &veredusv1.StreamFeedbackRequest{}, codes.InvalidArgument, "INVALID_FIELD"},
		{"rubbish", token("rubbish"), codes.InvalidArgument, "INVALID_FIELD"},
		{"of another store", token(feedback.Token(other, next)), codes.FailedPrecondition, "TOKEN_OF_ANOTHER_STORE"},
		{"past the end", token(feedback.Token(store, feedback.Positions{next[0] + 1000})), codes.OutOfRange, "TOKEN_OUT_OF_RANGE"},
	} {
		stream, err := n.feedback.StreamFeedback(t.Context(), c.req)
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		if s := wantError(t, err, c.code, c.reason); s.Message() == "" {
			t.Errorf("%s: no text", c.name)
		}
	}
}

func token(t string) *veredusv1.StreamFeedbackRequest {
	return &veredusv1.StreamFeedbackRequest{Start: &veredusv1.StreamFeedbackRequest_Token{Token: t}}
}

// Where a stream ended the next one goes on, also over a restart of the node.
func TestATokenOutlivesTheNode(t *testing.T) {
	cfg := sandbox(t)
	first := begin(t, cfg, Options{})
	stream, err := first.feedback.StreamFeedback(t.Context(), &veredusv1.StreamFeedbackRequest{
		Start: &veredusv1.StreamFeedbackRequest_Now{Now: &emptypb.Empty{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := begin(t, cfg, Options{})
	again, err := second.feedback.StreamFeedback(t.Context(), token(resp.GetToken()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Recv(); err != nil {
		t.Errorf("the token of before the restart: %v", err)
	}
}

func TestTheHTTPPortOnlyReads(t *testing.T) {
	n := begin(t, sandbox(t), Options{})
	resp, err := http.Post(n.web+"/metrics", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST /metrics: %d", resp.StatusCode)
	}
}
