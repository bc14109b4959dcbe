package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// told are the events of some types: the type, what they are about, the text and who
// ordered it.
func (o *office) told(kinds ...veredusv1.FeedbackType) (list []string) {
	o.t.Helper()
	for _, e := range o.events(kinds...) {
		kind := strings.TrimPrefix(e.GetType().String(), "FEEDBACK_TYPE_")
		about := e.GetTenant() + e.GetDelivery() + e.GetSource() + e.GetDestination()
		list = append(list, fmt.Sprintf("%s [%s] %s by %q", kind, about, e.GetText(), e.GetPrincipal()))
	}
	return list
}

func (o *office) wantTold(want []string, kinds ...veredusv1.FeedbackType) {
	o.t.Helper()
	if got := o.told(kinds...); !slices.Equal(got, want) {
		o.t.Errorf("events\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// Whoever stops mail, and lets it go again, is on record with what and why; a repeated
// request is not, and what ends by itself nobody ended.
func TestSuspensionsAreOnRecord(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		ctx := t.Context()
		google := &veredusv1.Selector{Selector: &veredusv1.Selector_Destination{Destination: "destinations/google"}}
		end := time.Now().Add(time.Hour)
		for _, req := range []*veredusv1.SuspendRequest{
			{Selector: tenant("acme"), Reason: "complaints", RequestId: "r1"},
			{Selector: tenant("acme"), Reason: "complaints", RequestId: "r1"},
			{Selector: google, Reason: "asked", EndTime: timestamppb.New(end)},
			{Selector: &veredusv1.Selector{Selector: &veredusv1.Selector_SenderDomain{SenderDomain: "brand.example"}}, Reason: "stolen key"},
			{Selector: everything(), Reason: "fire"},
		} {
			if _, err := o.Suspend(ctx, req); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if _, err := o.Resume(ctx, &veredusv1.ResumeRequest{Selector: everything(), RequestId: "r2"}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Until(end))
		synctest.Wait()
		o.wantTold([]string{
			`PATH_SUSPENDED [acme] suspended: tenant acme; complaints by "local"`,
			`PATH_SUSPENDED [google] suspended: destination google; asked by "local"`,
			`PATH_SUSPENDED [] suspended: sender domain brand.example; stolen key by "local"`,
			`PATH_SUSPENDED [] suspended: everything; fire by "local"`,
			`PATH_RESUMED [] resumed: everything; fire by "local"`,
			`PATH_RESUMED [google] resumed, its time is over: destination google; asked by ""`,
		}, veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_SUSPENDED, veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_RESUMED)
		past, err := o.node.store.PathEvents(ctx, "google")
		if err != nil || len(past) != 2 || !past[1].GetNextAttemptTime().AsTime().Equal(end) {
			t.Errorf("the path's past: %v, %v", past, err)
		}
	})
}

// A stage that an operator set, and the end of a warm-up by their word, are on record with
// their name.
func TestWarmUpOrdersAreOnRecord(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		pools := "pools: {default: {sources: [{name: cold, hostname: a.brand.example, warm_up: {stage: 1}}, {name: warm, hostname: b.brand.example}]}}"
		write(t, o.cfg, strings.Replace(read(t, o.cfg), "relay: {", "relay: {"+pools+", ", 1))
		o.close()
		o.open()
		for _, req := range []*veredusv1.SetWarmUpRequest{
			{Source: "cold", Stage: 3, RequestId: "w1"}, {Source: "cold", Stage: 3, RequestId: "w1"}, {Source: "cold", Off: true},
		} {
			if _, err := o.SetWarmUp(t.Context(), req); err != nil {
				t.Fatal(err)
			}
		}
		o.wantTold([]string{
			`PATH_WARM_UP [cold] warm-up set to stage 3 of 29, 1000 messages a day by "local"`,
			`PATH_WARM_UP [cold] warm-up off because an operator ended it by "local"`,
		}, veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_WARM_UP)
	})
}
