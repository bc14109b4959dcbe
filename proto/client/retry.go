package client

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

const (
	// firstDelay is the first wait before connecting again; it doubles.
	firstDelay = 100 * time.Millisecond
	// mostDelay is the longest wait.
	mostDelay = 10 * time.Second
)

// errorDomain is the domain of the ErrorInfo that a node sends.
const errorDomain = "veredus"

// Reason returns why a node refused a call: the reason in the error's ErrorInfo,
// ERROR_REASON_UNSPECIFIED if there is none.
func Reason(err error) veredusv1.ErrorReason {
	for _, detail := range status.Convert(err).Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != errorDomain {
			continue
		}
		for _, name := range [...]string{info.GetReason(), "ERROR_REASON_" + info.GetReason()} {
			if reason, ok := veredusv1.ErrorReason_value[name]; ok {
				return veredusv1.ErrorReason(reason)
			}
		}
	}
	return veredusv1.ErrorReason_ERROR_REASON_UNSPECIFIED
}

// mayPass reports whether a stream that ended with err is worth opening again, and
// how long the node asks to wait. An error that a repeat would only meet again
// (a malformed request, another stream that took over, a message too large for
// the transport) is not.
func mayPass(err error) (wait time.Duration, ok bool) {
	s := status.Convert(err)
	for _, detail := range s.Details() {
		if info, is := detail.(*errdetails.RetryInfo); is {
			return info.GetRetryDelay().AsDuration(), true
		}
	}
	switch s.Code() {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		return 0, true
	case codes.Internal, codes.Unknown:
		// Without a reason of the node's own it is the line: a reset stream, a proxy.
		return 0, Reason(err) == veredusv1.ErrorReason_ERROR_REASON_UNSPECIFIED
	}
	return 0, false
}

// retry counts the failures since the last progress.
type retry struct {
	patience time.Duration // 0: without end
	failures int
	since    time.Time // of the first failure
}

// worked is called on progress.
func (r *retry) worked() { r.failures = 0 }

// next returns how long to wait after a failure at now, jittered; ok is false
// once patience has ended.
func (r *retry) next(now time.Time, asked time.Duration) (wait time.Duration, ok bool) {
	if r.failures == 0 {
		r.since = now
	}
	wait = min(firstDelay<<min(r.failures, 10), mostDelay)
	r.failures++
	wait += time.Duration((rand.Float64() - 0.5) * 0.4 * float64(wait))
	wait = max(wait, min(asked, time.Minute))
	return wait, r.patience <= 0 || now.Add(wait).Sub(r.since) <= r.patience
}

// sleep waits, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
