package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

func TestAnIdleDestinationIsExplainedWithTheAgeOfWhatIsKnown(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	limit := &veredusv1.Limit{
		Field: "message_rate", Value: "20/s", Learned: "3/s", LearnedTime: timestamppb.New(now.Add(-140 * time.Minute)),
		DecaysTo: "20/s", ForgetTime: timestamppb.New(now.Add(300 * time.Hour)),
	}
	var out strings.Builder
	printExplanation(&out, &veredusv1.ExplainDestinationResponse{
		Domain: "a.test", Destination: "a.test",
		Paths: []*veredusv1.Path{{
			Source: "s1", Idle: true, LimitedBy: "none", Limits: &veredusv1.EffectiveLimits{Limits: []*veredusv1.Limit{limit}},
			Override: &veredusv1.PathOverride{Fields: map[string]string{"connections": "1"}, CreateTime: timestamppb.New(now.Add(-time.Hour)), EndTime: timestamppb.New(now.Add(time.Hour))},
		}},
	}, now)
	for _, want := range []string{"no mail", "message_rate", "3/s", "2 h 20 min ago", "20/s", "2026-12-05 00:00:00", "connections 1 since 11:00:00 until 13:00:00"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}
