package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/feedback"
	"github.com/veredus/veredus/server/storage/pebblestore"
	"github.com/veredus/veredus/server/suspend"
)

// wantError checks the code and the reason of what a client got.
func wantError(t *testing.T, err error, code codes.Code, reason string) *status.Status {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code || reasonOf(s) != reason {
		t.Errorf("error %v with reason %q; want %v with %q", err, reasonOf(s), code, reason)
	}
	return s
}

func detail[T proto.Message](s *status.Status) (d T) {
	for _, any := range s.Details() {
		if found, ok := any.(T); ok {
			return found
		}
	}
	return d
}

func reasonOf(s *status.Status) string {
	info := detail[*errdetails.ErrorInfo](s)
	if info != nil && info.GetDomain() != "veredus" {
		return "domain " + info.GetDomain()
	}
	return info.GetReason()
}

// fields are the fields of a BadRequest.
func fields(s *status.Status) string {
	var names []string
	for _, v := range detail[*errdetails.BadRequest](s).GetFieldViolations() {
		names = append(names, v.GetField())
	}
	return strings.Join(names, " ")
}

func TestEveryErrorHasItsPlace(t *testing.T) {
	bad := &config.Errors{}
	bad.Add(config.Error{File: "mx.yaml", Line: 3, Text: "connections: 0"})
	cases := []struct {
		err    error
		code   codes.Code
		reason string
		fields string // of a BadRequest
		facts  string // of the ErrorInfo
	}{
		{&campaign.InvalidError{Violations: []campaign.FieldViolation{{Field: "delivery.sender.from", Value: "x", Problem: "is no address", Remedy: "write a@b"}, {Field: "priority"}}}, codes.InvalidArgument, "INVALID_FIELD", "delivery.sender.from priority", ""},
		{&campaign.NotFoundError{Resource: "deliveries/d"}, codes.NotFound, "NOT_FOUND", "", "resource=deliveries/d"},
		{fmt.Errorf("delivery %q: %w", "d", campaign.ErrNotFound), codes.NotFound, "NOT_FOUND", "", ""},
		{fmt.Errorf("suspension %q: %w", "s", suspend.ErrNotFound), codes.NotFound, "NOT_FOUND", "", ""},
		{&campaign.ExistsError{Resource: "deliveries/d"}, codes.AlreadyExists, "ALREADY_EXISTS", "", "resource=deliveries/d"},
		{fmt.Errorf("delivery %q: %w", "d", campaign.ErrExists), codes.AlreadyExists, "ALREADY_EXISTS", "", ""},
		{&campaign.StateError{Delivery: "d", State: campaign.Running, Call: "add recipients"}, codes.FailedPrecondition, "WRONG_STATE", "", "call=add recipients delivery=d state=running"},
		{&campaign.NotPreparedError{Delivery: "d", State: campaign.Draft, Findings: []*veredusv1.Finding{{Field: "subject", Description: "is empty"}}}, codes.FailedPrecondition, "NOT_PREPARED", "", "delivery=d state=draft"},
		{fmt.Errorf("request_id %q: %w", "r", campaign.ErrRequestIDReused), codes.AlreadyExists, "REQUEST_ID_REUSED", "", ""},
		{suspend.ErrRequestIDReused, codes.AlreadyExists, "REQUEST_ID_REUSED", "", ""},
		{&campaign.IndexGapError{Expected: 5, Got: 7}, codes.InvalidArgument, "INDEX_GAP", "first_index", "expected=5 got=7"},
		{campaign.ErrIndexGap, codes.InvalidArgument, "INDEX_GAP", "first_index", ""},
		{campaign.ErrBadCursor, codes.InvalidArgument, "INVALID_FIELD", "page_token", ""},
		{campaign.ErrSuperseded, codes.Aborted, "STREAM_SUPERSEDED", "", ""},
		{&campaign.OverloadedError{What: "streams", RetryAfter: time.Second}, codes.ResourceExhausted, "OVERLOADED", "", ""},
		{campaign.ErrStopping, codes.Unavailable, "STOPPING", "", ""},
		{feedback.ErrStopping, codes.Unavailable, "STOPPING", "", ""},
		{mta.ErrStopped, codes.Unavailable, "STOPPING", "", ""},
		{pebblestore.ErrClosed, codes.Unavailable, "STOPPING", "", ""},
		{errStopping, codes.Unavailable, "STOPPING", "", ""},
		{feedback.ErrNoStart, codes.InvalidArgument, "INVALID_FIELD", "start", ""},
		{feedback.ErrFilterTooLarge, codes.InvalidArgument, "INVALID_FIELD", "filter", ""},
		{fmt.Errorf("%w (version 9)", feedback.ErrMalformedToken), codes.InvalidArgument, "INVALID_FIELD", "token", ""},
		{feedback.ErrOtherStore, codes.FailedPrecondition, "TOKEN_OF_ANOTHER_STORE", "", "field=token"},
		{feedback.ErrBeforeRetention, codes.OutOfRange, "TOKEN_OUT_OF_RANGE", "", "field=token"},
		{feedback.ErrPastEnd, codes.OutOfRange, "TOKEN_OUT_OF_RANGE", "", "field=token"},
		{bad, codes.FailedPrecondition, "BAD_CONFIG", "", ""},
		{fmt.Errorf("reading: %w", context.Canceled), codes.Canceled, "", "", ""},
		{context.DeadlineExceeded, codes.DeadlineExceeded, "", "", ""},
		{status.Error(codes.Unimplemented, "unknown method"), codes.Unimplemented, "", "", ""},
		{errors.New("open /var/lib/veredus: permission denied"), codes.Internal, "INTERNAL", "", ""},
		{fmt.Errorf("secret: %w", status.Error(codes.NotFound, "inner")), codes.Internal, "INTERNAL", "", ""},
		{&mta.StoreError{Doing: "writing", Err: mta.ErrFenced}, codes.Internal, "INTERNAL", "", ""},
		{&panicError{value: "nil map", stack: []byte("server.go:1")}, codes.Internal, "INTERNAL", "", ""},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%T %.40v", c.err, c.err), func(t *testing.T) {
			s, known := statusOf(c.err)
			wantError(t, s.Err(), c.code, c.reason)
			if got := fields(s); got != c.fields {
				t.Errorf("fields %q, want %q", got, c.fields)
			}
			if got := facts(s); got != c.facts {
				t.Errorf("metadata %q, want %q", got, c.facts)
			}
			if known == (c.code == codes.Internal) {
				t.Errorf("known is %v", known)
			}
			if c.code == codes.Internal && s.Message() != "the server failed; its log has the cause" {
				t.Errorf("text %q leaks", s.Message())
			}
			for _, name := range []string{"campaign:", "feedback:", "suspend:", "mta:", "pebble"} {
				if strings.Contains(s.Message(), name) {
					t.Errorf("text %q names a package", s.Message())
				}
			}
		})
	}
}

// facts are the ErrorInfo's metadata in the order of their keys.
func facts(s *status.Status) string {
	text := fmt.Sprint(detail[*errdetails.ErrorInfo](s).GetMetadata())
	return strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(text, "map["), "]"), ":", "=")
}

func TestDetailsCarryWhatAClientNeeds(t *testing.T) {
	overload, _ := statusOf(&campaign.OverloadedError{What: "streams", RetryAfter: 3 * time.Second})
	if d := detail[*errdetails.RetryInfo](overload).GetRetryDelay().AsDuration(); d != 3*time.Second {
		t.Errorf("retry delay %v", d)
	}
	bad := &config.Errors{}
	bad.Add(config.Error{File: "mx.yaml", Line: 3, Text: "connections: 0"})
	reload, _ := statusOf(bad)
	v := detail[*errdetails.PreconditionFailure](reload).GetViolations()
	if len(v) != 1 || v[0].GetSubject() != "mx.yaml:3" || v[0].GetDescription() != "connections: 0" {
		t.Errorf("violations %v", v)
	}
	long, _ := statusOf(&campaign.NotFoundError{Resource: "deliveries/" + strings.Repeat("ö", 5000)})
	if n := len(long.Message()); n > maxText {
		t.Errorf("a text of %d bytes does not fit a header", n)
	}
}

// A reason that nothing maps to would be a promise of the contract that is not kept.
func TestEveryReasonIsUsed(t *testing.T) {
	used := map[string]bool{
		"INVALID_FIELD": true, "WRONG_STATE": true, "NOT_PREPARED": true, "OVERLOADED": true, "BAD_CONFIG": true, "INTERNAL": true,
	}
	for _, s := range sentinels {
		used[reasonName(s.reason)] = true
	}
	for value, name := range veredusv1.ErrorReason_name {
		if short := strings.TrimPrefix(name, "ERROR_REASON_"); value != 0 && !used[short] {
			t.Errorf("nothing has the reason %s", name)
		}
	}
}

func TestAPanicEndsOneCallOnly(t *testing.T) {
	e := &edge{log: NewLog(config.Log{}, testWriter{t}), metrics: newMetrics(), intake: newIntake(config.Default().GRPC, newShed()), admit: func(string) error { return nil }, stopping: make(chan struct{})}
	info := &grpc.UnaryServerInfo{FullMethod: "/test/Call"}
	_, err := e.unary(t.Context(), nil, info, func(ctx context.Context, _ any) (any, error) {
		if PrincipalOf(ctx).Name != "local" {
			t.Error("nobody calls")
		}
		panic("broken")
	})
	wantError(t, err, codes.Internal, "INTERNAL")
}

func TestACallCutOffByTheEndIsUnavailable(t *testing.T) {
	stopping := make(chan struct{})
	e := &edge{log: NewLog(config.Log{}, testWriter{t}), metrics: newMetrics(), intake: newIntake(config.Default().GRPC, newShed()), admit: func(string) error { return nil }, stopping: stopping}
	wantError(t, e.ended(t.Context(), "/test/Call", time.Now(), context.Canceled), codes.Internal, "INTERNAL")
	close(stopping)
	wantError(t, e.ended(t.Context(), "/test/Call", time.Now(), context.Canceled), codes.Unavailable, "STOPPING")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	wantError(t, e.ended(gone, "/test/Call", time.Now(), context.Canceled), codes.Canceled, "")
}

// testWriter sends a log to the test's.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}
