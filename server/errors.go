package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/disk"
	"github.com/veredus/veredus/server/feedback"
	"github.com/veredus/veredus/server/heap"
	"github.com/veredus/veredus/server/learning"
	"github.com/veredus/veredus/server/operator"
	"github.com/veredus/veredus/server/suspend"
)

// This file is the one place where errors become what clients see: a gRPC code, a
// text, and details (google.rpc). ErrorInfo has the domain "veredus" and, as its
// reason, the name of an ErrorReason without ERROR_REASON_. What is not known here is
// INTERNAL, and only the log has its text.

// errorDomain is ErrorInfo's domain.
const errorDomain = "veredus"

// sentinel is an error without fields of its own.
type sentinel struct {
	err    error
	code   codes.Code
	reason veredusv1.ErrorReason
	field  string // of the request, when it is the field's fault
}

// sentinels are compared in order with errors.Is.
var sentinels = []sentinel{
	{campaign.ErrNotFound, codes.NotFound, veredusv1.ErrorReason_ERROR_REASON_NOT_FOUND, ""},
	{suspend.ErrNotFound, codes.NotFound, veredusv1.ErrorReason_ERROR_REASON_NOT_FOUND, ""},
	{operator.ErrNotFound, codes.NotFound, veredusv1.ErrorReason_ERROR_REASON_NOT_FOUND, ""},
	{operator.ErrRequestIDReused, codes.AlreadyExists, veredusv1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED, ""},
	{learning.ErrNotFound, codes.NotFound, veredusv1.ErrorReason_ERROR_REASON_NOT_FOUND, ""},
	{learning.ErrRequestIDReused, codes.AlreadyExists, veredusv1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED, ""},
	{learning.ErrNoFile, codes.FailedPrecondition, veredusv1.ErrorReason_ERROR_REASON_BAD_CONFIG, ""},
	{learning.ErrFile, codes.FailedPrecondition, veredusv1.ErrorReason_ERROR_REASON_BAD_CONFIG, ""},
	{address.ErrNotFound, codes.NotFound, veredusv1.ErrorReason_ERROR_REASON_NOT_FOUND, ""},
	{campaign.ErrExists, codes.AlreadyExists, veredusv1.ErrorReason_ERROR_REASON_ALREADY_EXISTS, ""},
	{campaign.ErrRequestIDReused, codes.AlreadyExists, veredusv1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED, ""},
	{suspend.ErrRequestIDReused, codes.AlreadyExists, veredusv1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED, ""},
	{address.ErrRequestIDReused, codes.AlreadyExists, veredusv1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED, ""},
	{campaign.ErrBadCursor, codes.InvalidArgument, veredusv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "page_token"},
	{campaign.ErrIndexGap, codes.InvalidArgument, veredusv1.ErrorReason_ERROR_REASON_INDEX_GAP, "first_index"},
	{campaign.ErrSuperseded, codes.Aborted, veredusv1.ErrorReason_ERROR_REASON_STREAM_SUPERSEDED, ""},
	{campaign.ErrStopping, codes.Unavailable, veredusv1.ErrorReason_ERROR_REASON_STOPPING, ""},
	{feedback.ErrStopping, codes.Unavailable, veredusv1.ErrorReason_ERROR_REASON_STOPPING, ""},
	{feedback.ErrNoStart, codes.InvalidArgument, veredusv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "start"},
	{feedback.ErrFilterTooLarge, codes.InvalidArgument, veredusv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "filter"},
	{feedback.ErrBadFilter, codes.InvalidArgument, veredusv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "filter"},
	{feedback.ErrMalformedToken, codes.InvalidArgument, veredusv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "token"},
	{feedback.ErrOtherStore, codes.FailedPrecondition, veredusv1.ErrorReason_ERROR_REASON_TOKEN_OF_ANOTHER_STORE, "token"},
	{feedback.ErrBeforeRetention, codes.OutOfRange, veredusv1.ErrorReason_ERROR_REASON_TOKEN_OUT_OF_RANGE, "token"},
	{feedback.ErrPastEnd, codes.OutOfRange, veredusv1.ErrorReason_ERROR_REASON_TOKEN_OUT_OF_RANGE, "token"},
	{mta.ErrStopped, codes.Unavailable, veredusv1.ErrorReason_ERROR_REASON_STOPPING, ""},
	{errStopping, codes.Unavailable, veredusv1.ErrorReason_ERROR_REASON_STOPPING, ""},
	{errStoreClosed, codes.Unavailable, veredusv1.ErrorReason_ERROR_REASON_STOPPING, ""},
}

// errStopping is a call to a server that stops.
var errStopping = errors.New("the server is stopping; connect again")

// answer is an error as a client sees it.
type answer struct {
	code    codes.Code
	reason  veredusv1.ErrorReason
	text    string
	facts   map[string]string // ErrorInfo.metadata
	details []protoadapt.MessageV1
}

// statusOf is what a client sees of an error; known is false for our own faults. It
// is pure.
func statusOf(err error) (s *status.Status, known bool) {
	if a, ok := answerOf(err); ok {
		return a.status(), true
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, "the call was cancelled"), true
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, "the call's deadline passed"), true
	}
	if own, ok := status.FromError(err); ok && !wraps(err) {
		if own.Code() == codes.ResourceExhausted {
			a := tooLarge("", maxFrame)
			return a.status(), true // beyond what is read; trying again cannot help
		}
		return own, true // of grpc itself: a broken stream, an unknown method
	}
	internal := answer{
		code: codes.Internal, reason: veredusv1.ErrorReason_ERROR_REASON_INTERNAL,
		text: "the server failed; its log has the cause",
	}
	return internal.status(), false
}

// tooLargeError is a request with more octets than any request may have.
type tooLargeError struct {
	method string
	size   int
}

// Error names the size and the remedy.
func (e *tooLargeError) Error() string { return tooLarge(e.method, e.size).text }

// bulky are the fields that can make a request large, and how much they may hold.
var bulky = map[string]struct{ field, may string }{
	veredusv1.CampaignService_CreateDelivery_FullMethodName:      {"delivery.content", "at most 1 MiB of content together"},
	veredusv1.CampaignService_UpdateDelivery_FullMethodName:      {"delivery.content", "at most 1 MiB of content together"},
	veredusv1.CampaignService_SendMessage_FullMethodName:         {"content", "at most 1 MiB of content together"},
	veredusv1.CampaignService_AddRecipients_FullMethodName:       {"recipients", "at most 1,000 recipients and 3 MiB in a frame"},
	veredusv1.AddressService_ImportAddressEntries_FullMethodName: {"data", "at most 1 MiB of data in a request"},
}

// tooLarge answers a request of so many octets, or more: the field that is to blame, the
// value and the remedy.
func tooLarge(method string, size int) answer {
	a := answer{code: codes.InvalidArgument, reason: veredusv1.ErrorReason_ERROR_REASON_INVALID_FIELD}
	b, known := bulky[method]
	if !known {
		b.field, b.may = "", fmt.Sprintf("at most %d octets in a request", maxMessage)
	}
	description := fmt.Sprintf("the request is %d octets long; send %s", size, b.may)
	a.text = description
	if b.field != "" {
		a.text = b.field + ": " + description
	}
	a.fault(b.field, description)
	return a
}

// wraps reports whether there is an error inside, with text that is not for clients.
func wraps(err error) bool { return errors.Unwrap(err) != nil }

// answerOf describes the errors of our packages.
func answerOf(err error) (answer, bool) {
	if a, ok := typedAnswer(err); ok {
		return a, true
	}
	for _, s := range sentinels {
		if !errors.Is(err, s.err) {
			continue
		}
		a := answer{code: s.code, reason: s.reason, text: tidy(err.Error())}
		if s.err == errStoreClosed {
			a.text = errStopping.Error()
		}
		if s.code == codes.InvalidArgument {
			a.fault(s.field, a.text)
		} else if s.field != "" {
			a.facts = map[string]string{"field": s.field}
		}
		return a, true
	}
	return answer{}, false
}

// typedAnswer describes errors that carry facts.
func typedAnswer(err error) (answer, bool) {
	var (
		invalid  *campaign.InvalidError
		entry    *address.InvalidError
		noEntry  *address.NotFoundError
		gap      *campaign.IndexGapError
		state    *campaign.StateError
		findings *campaign.NotPreparedError
		overload *campaign.OverloadedError
		large    *tooLargeError
		full     *disk.FullError
		used     *heap.FullError
		missing  *campaign.NotFoundError
		taken    *campaign.ExistsError
		bad      *config.Errors
	)
	switch {
	case errors.As(err, &invalid):
		return invalidAnswer(invalid), true
	case errors.As(err, &entry):
		return invalidEntryAnswer(entry), true
	case errors.As(err, &noEntry):
		return resourceAnswer(codes.NotFound, veredusv1.ErrorReason_ERROR_REASON_NOT_FOUND, noEntry.Resource, noEntry.Error()), true
	case errors.As(err, &gap):
		a := answer{code: codes.InvalidArgument, reason: veredusv1.ErrorReason_ERROR_REASON_INDEX_GAP, text: gap.Error()}
		a.facts = map[string]string{"expected": fmt.Sprint(gap.Expected), "got": fmt.Sprint(gap.Got)}
		a.fault("first_index", gap.Error())
		return a, true
	case errors.As(err, &state):
		a := answer{code: codes.FailedPrecondition, reason: veredusv1.ErrorReason_ERROR_REASON_WRONG_STATE, text: state.Error()}
		a.facts = map[string]string{"state": state.State.String(), "delivery": state.Delivery, "call": state.Call}
		a.precondition("deliveries/"+state.Delivery, state.Error())
		return a, true
	case errors.As(err, &findings):
		return unpreparedAnswer(findings), true
	case errors.As(err, &overload):
		a := answer{code: codes.ResourceExhausted, reason: veredusv1.ErrorReason_ERROR_REASON_OVERLOADED, text: overload.Error()}
		if overload.Field != "" {
			a.facts = map[string]string{"resource": overload.Field, "limit": overload.Limit}
		}
		a.details = append(a.details, &errdetails.RetryInfo{RetryDelay: durationpb.New(overload.RetryAfter)})
		return a, true
	case errors.As(err, &large):
		return tooLarge(large.method, large.size), true
	case errors.As(err, &full):
		return fullAnswer(full), true
	case errors.As(err, &used):
		a := answer{code: codes.ResourceExhausted, reason: veredusv1.ErrorReason_ERROR_REASON_OVERLOADED, text: used.Error()}
		a.facts = map[string]string{"resource": "memory.max", "limit": fmt.Sprint(used.Limit), "used_bytes": fmt.Sprint(used.Used)}
		a.details = append(a.details, &errdetails.RetryInfo{RetryDelay: durationpb.New(used.RetryAfter)})
		return a, true
	case errors.As(err, &missing):
		return resourceAnswer(codes.NotFound, veredusv1.ErrorReason_ERROR_REASON_NOT_FOUND, missing.Resource, missing.Error()), true
	case errors.As(err, &taken):
		return resourceAnswer(codes.AlreadyExists, veredusv1.ErrorReason_ERROR_REASON_ALREADY_EXISTS, taken.Resource, taken.Error()), true
	case errors.As(err, &bad):
		return configAnswer(bad), true
	}
	return answer{}, false
}

// fullAnswer is a refusal for want of disk.
func fullAnswer(e *disk.FullError) answer {
	a := answer{code: codes.ResourceExhausted, reason: veredusv1.ErrorReason_ERROR_REASON_OVERLOADED, text: e.Error()}
	a.facts = map[string]string{"resource": "disk", "free_bytes": fmt.Sprint(e.Free), "min_free_bytes": fmt.Sprint(e.Limit)}
	a.details = append(a.details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	return a
}

func invalidAnswer(e *campaign.InvalidError) answer {
	a := answer{code: codes.InvalidArgument, reason: veredusv1.ErrorReason_ERROR_REASON_INVALID_FIELD, text: e.Error()}
	request := &errdetails.BadRequest{}
	for _, v := range e.Violations {
		request.FieldViolations = append(request.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: v.Field, Description: v.Description(),
		})
	}
	a.details = append(a.details, request)
	return a
}

func invalidEntryAnswer(e *address.InvalidError) answer {
	same := &campaign.InvalidError{}
	for _, v := range e.Violations {
		same.Violations = append(same.Violations, campaign.FieldViolation(v))
	}
	return invalidAnswer(same)
}

func unpreparedAnswer(e *campaign.NotPreparedError) answer {
	a := answer{code: codes.FailedPrecondition, reason: veredusv1.ErrorReason_ERROR_REASON_NOT_PREPARED, text: e.Error()}
	a.facts = map[string]string{"state": e.State.String(), "delivery": e.Delivery}
	failure := &errdetails.PreconditionFailure{}
	for _, f := range e.Findings {
		failure.Violations = append(failure.Violations, &errdetails.PreconditionFailure_Violation{
			Type: reasonName(a.reason), Subject: f.GetField(), Description: f.GetDescription(),
		})
	}
	a.details = append(a.details, failure)
	return a
}

func resourceAnswer(code codes.Code, reason veredusv1.ErrorReason, resource, text string) answer {
	a := answer{code: code, reason: reason, text: text, facts: map[string]string{"resource": resource}}
	kind, _, _ := strings.Cut(resource, "/")
	a.details = append(a.details, &errdetails.ResourceInfo{ResourceType: kind, ResourceName: resource, Description: text})
	return a
}

func configAnswer(e *config.Errors) answer {
	a := answer{
		code: codes.FailedPrecondition, reason: veredusv1.ErrorReason_ERROR_REASON_BAD_CONFIG,
		text: "the configuration has errors and the one in force stays:\n" + e.Error(),
	}
	failure := &errdetails.PreconditionFailure{}
	for _, one := range e.List {
		subject := one.File
		if one.Line > 0 {
			subject = fmt.Sprintf("%s:%d", one.File, one.Line)
		}
		failure.Violations = append(failure.Violations, &errdetails.PreconditionFailure_Violation{
			Type: reasonName(a.reason), Subject: subject, Description: one.Text,
		})
	}
	a.details = append(a.details, failure)
	return a
}

func (a *answer) fault(field, description string) {
	a.details = append(a.details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: field, Description: description},
	}})
}

func (a *answer) precondition(subject, description string) {
	a.details = append(a.details, &errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
		{Type: reasonName(a.reason), Subject: subject, Description: description},
	}})
}

// maxText bounds a status text: it travels in HTTP/2 headers, which clients cap.
const maxText = 2048

func (a *answer) status() *status.Status {
	s := status.New(a.code, clip(a.text, maxText))
	info := &errdetails.ErrorInfo{Reason: reasonName(a.reason), Domain: errorDomain, Metadata: a.facts}
	full, err := s.WithDetails(append([]protoadapt.MessageV1{info}, a.details...)...)
	if err != nil {
		return s // only for details that cannot be marshalled: text that is not UTF-8
	}
	return full
}

// reasonName is an ErrorReason as ErrorInfo has it.
func reasonName(r veredusv1.ErrorReason) string {
	return strings.TrimPrefix(r.String(), "ERROR_REASON_")
}

// tidy removes the names of our packages from a text.
func tidy(text string) string {
	for _, name := range [...]string{"campaign: ", "feedback: ", "suspend: ", "address: ", "operator: ", "mta: ", "pebblestore: "} {
		text = strings.ReplaceAll(text, name, "")
	}
	return text
}

// clip cuts a text to n octets, as valid UTF-8.
func clip(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n-3], "") + "..."
	}
	return strings.ToValidUTF8(s, "")
}
