package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// deliveryName accepts "spring" for "deliveries/spring".
func deliveryName(id string) string {
	if strings.HasPrefix(id, "deliveries/") {
		return id
	}
	return "deliveries/" + id
}

func deliveryID(name string) string { return strings.TrimPrefix(name, "deliveries/") }

// requestID makes a mutating call idempotent.
func requestID() string { return fmt.Sprintf("cli-%016x%016x", rand.Uint64(), rand.Uint64()) }

// persist repeats a call while the node is away, for up to two minutes. The
// request carries a request_id, so that a repeat has no second effect.
func persist[Req, Resp any](ctx context.Context, call func(context.Context, Req, ...grpc.CallOption) (Resp, error), req Req) (Resp, error) {
	for wait, began := 100*time.Millisecond, time.Now(); ; wait = min(2*wait, 5*time.Second) {
		resp, err := call(ctx, req)
		if status.Code(err) != codes.Unavailable || time.Since(began) > 2*time.Minute {
			return resp, err
		}
		select {
		case <-ctx.Done():
			return resp, context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// final reports whether nothing of a delivery will change by itself any more.
func final(d *veredusv1.Delivery) bool {
	switch d.GetState() {
	case veredusv1.DeliveryState_DELIVERY_STATE_FINISHED:
		return true
	case veredusv1.DeliveryState_DELIVERY_STATE_CANCELLED:
		l := d.GetKpis().GetLedger()
		return l.GetTakenIntoAccount() == 0 && l.GetPending() == 0
	}
	return false
}

func stateName(d *veredusv1.Delivery) string {
	return enumName(d.GetState().String(), "DELIVERY_STATE_")
}

// follow calls show with the delivery as it changes and returns it once it is
// final. It survives broken connections.
func follow(ctx context.Context, campaigns veredusv1.CampaignServiceClient, name string, interval time.Duration, show func(*veredusv1.Delivery)) (*veredusv1.Delivery, error) {
	var away time.Time // since when the node has not answered
	for {
		d, err := followStream(ctx, campaigns, name, interval, func(d *veredusv1.Delivery) {
			away = time.Time{}
			show(d)
		})
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err == nil || status.Code(err) != codes.Unavailable {
			return d, err
		}
		if away.IsZero() {
			away = time.Now()
		}
		if time.Since(away) > 5*time.Minute {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

func followStream(ctx context.Context, campaigns veredusv1.CampaignServiceClient, name string, interval time.Duration, show func(*veredusv1.Delivery)) (*veredusv1.Delivery, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := campaigns.WatchDelivery(ctx, &veredusv1.WatchDeliveryRequest{Name: name, Interval: durationpb.New(interval)})
	if err != nil {
		return nil, err
	}
	for {
		answer, err := stream.Recv()
		if err == io.EOF {
			return nil, status.Error(codes.Unavailable, "the node ended the stream")
		}
		if err != nil {
			return nil, err
		}
		show(answer.GetDelivery())
		if final(answer.GetDelivery()) {
			return answer.GetDelivery(), nil
		}
	}
}

// printKpis is the table at the end of a delivery.
func printKpis(out io.Writer, d *veredusv1.Delivery) {
	k := d.GetKpis()
	l := k.GetLedger()
	fmt.Fprintf(out, "\n%s is %s\n", d.GetName(), stateName(d))
	pairs(out,
		"accepted", thousands(l.GetAccepted()),
		"ignored", nonZero(l.GetIgnored()),
		"rejected", nonZero(k.GetRejected()),
		"to deliver", thousands(k.GetToDeliver()),
		"pending", nonZero(l.GetPending()),
		"in the relay", nonZero(l.GetTakenIntoAccount()),
		"sent", thousands(k.GetSent()),
		"failed", thousands(l.GetFailed()),
		"cancelled", nonZero(l.GetCancelled()),
		"success", successPercent(k),
		"hard / soft", fmt.Sprintf("%s / %s", percent(k.GetHard(), k.GetToDeliver()), percent(k.GetSoft(), k.GetToDeliver())),
		"complaints", nonZero(k.GetComplaints()),
		"unsubscribes", nonZero(k.GetUnsubscribes()),
		"attempts", thousands(k.GetAttempts()),
	)
	if len(k.GetByDestination()) > 0 {
		fmt.Fprintln(out)
		printDestinations(out, k.GetByDestination())
		printDestinationReasons(out, k.GetByDestination())
	}
	if len(k.GetFailedByReason()) > 0 {
		fmt.Fprintln(out)
		t := newTable("failed because", "messages", "share")
		for _, r := range k.GetFailedByReason() {
			t.row(reasonName(r.GetReason()), r.GetCount(), percent(r.GetCount(), k.GetToDeliver()))
		}
		t.print(out)
	}
}

func printDestinations(out io.Writer, destinations []*veredusv1.DestinationKpis) {
	t := newTable("destination", "to deliver", "sent", "failed", "deferred", "attempts", "success")
	for _, d := range destinations {
		success := "-"
		if d.SuccessPercent != nil {
			success = fmt.Sprintf("%.1f%%", d.GetSuccessPercent())
		}
		t.row(d.GetDestination(), d.GetToDeliver(), d.GetSent(), d.GetFailed(), d.GetDeferred(), d.GetAttempts(), success)
	}
	t.print(out)
}

// printDestinationReasons is why mail failed at each destination.
func printDestinationReasons(out io.Writer, destinations []*veredusv1.DestinationKpis) {
	var table strings.Builder
	if printReasons(&table, "failed at", reasonRows(destinations)) {
		fmt.Fprintf(out, "\n%s", table.String())
	}
}

func successPercent(k *veredusv1.Kpis) string {
	if k == nil || k.SuccessPercent == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f%%", k.GetSuccessPercent())
}

func nonZero(n int64) string {
	if n == 0 {
		return ""
	}
	return thousands(n)
}

// reasonName is a failure reason in words.
func reasonName(r veredusv1.FailureReason) string {
	if name := enumName(r.String(), "FAILURE_REASON_"); name != "" {
		return name
	}
	return "not defined"
}

// summary is a delivery's figures as JSON, with numbers as numbers.
type summary struct {
	Delivery       string   `json:"delivery"`
	State          string   `json:"state"`
	Accepted       int64    `json:"accepted"`
	Ignored        int64    `json:"ignored"`
	Rejected       int64    `json:"rejected"`
	ToDeliver      int64    `json:"to_deliver"`
	Pending        int64    `json:"pending"`
	InRelay        int64    `json:"taken_into_account"`
	Sent           int64    `json:"sent"`
	Failed         int64    `json:"failed"`
	Cancelled      int64    `json:"cancelled"`
	SuccessPercent *float64 `json:"success_percent"`
	Attempts       int64    `json:"attempts"`
	Hard           int64    `json:"hard"`
	Soft           int64    `json:"soft"`
	Complaints     int64    `json:"complaints"`
	Unsubscribes   int64    `json:"unsubscribes"`

	ByReason      []reasonSummary      `json:"by_reason"`
	ByDestination []destinationSummary `json:"by_destination"`
}

type reasonSummary struct {
	Reason string `json:"reason"`
	Count  int64  `json:"count"`
}

type destinationSummary struct {
	Destination    string          `json:"destination"`
	ToDeliver      int64           `json:"to_deliver"`
	Sent           int64           `json:"sent"`
	Failed         int64           `json:"failed"`
	Deferred       int64           `json:"deferred"`
	Attempts       int64           `json:"attempts"`
	SuccessPercent *float64        `json:"success_percent"`
	Hard           int64           `json:"hard"`
	Soft           int64           `json:"soft"`
	Complaints     int64           `json:"complaints"`
	Unsubscribes   int64           `json:"unsubscribes"`
	ByReason       []reasonSummary `json:"by_reason"`
}

func summarise(d *veredusv1.Delivery) *summary {
	k := d.GetKpis()
	l := k.GetLedger()
	s := &summary{
		Delivery: d.GetName(), State: stateName(d),
		Accepted: l.GetAccepted(), Ignored: l.GetIgnored(), Rejected: k.GetRejected(), ToDeliver: k.GetToDeliver(),
		Pending: l.GetPending(), InRelay: l.GetTakenIntoAccount(), Sent: k.GetSent(), Failed: l.GetFailed(), Cancelled: l.GetCancelled(),
		Attempts: k.GetAttempts(), Hard: k.GetHard(), Soft: k.GetSoft(), Complaints: k.GetComplaints(), Unsubscribes: k.GetUnsubscribes(),
		ByReason: reasons(k.GetFailedByReason()), ByDestination: []destinationSummary{},
	}
	if k != nil {
		s.SuccessPercent = k.SuccessPercent
	}
	for _, to := range k.GetByDestination() {
		s.ByDestination = append(s.ByDestination, destinationSummary{
			to.GetDestination(), to.GetToDeliver(), to.GetSent(), to.GetFailed(), to.GetDeferred(), to.GetAttempts(), to.SuccessPercent,
			to.GetHard(), to.GetSoft(), to.GetComplaints(), to.GetUnsubscribes(), reasons(to.GetFailedByReason()),
		})
	}
	return s
}

func reasons(counts []*veredusv1.ReasonCount) []reasonSummary {
	list := []reasonSummary{}
	for _, c := range counts {
		list = append(list, reasonSummary{reasonName(c.GetReason()), c.GetCount()})
	}
	return list
}
