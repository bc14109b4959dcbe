package main

import (
	"strings"
	"testing"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

func TestReasonsByProvider(t *testing.T) {
	const (
		unknown = veredusv1.FailureReason_FAILURE_REASON_USER_UNKNOWN
		full    = veredusv1.FailureReason_FAILURE_REASON_MAILBOX_FULL
		refused = veredusv1.FailureReason_FAILURE_REASON_REFUSED
	)
	counts := func(pairs ...any) (list []*veredusv1.ReasonCount) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, &veredusv1.ReasonCount{Reason: pairs[i].(veredusv1.FailureReason), Count: int64(pairs[i+1].(int))})
		}
		return list
	}
	var out strings.Builder
	any := printReasons(&out, "failed at", reasonRows([]*veredusv1.DestinationKpis{
		{Destination: "google", ToDeliver: 2000, Hard: 30, Soft: 4, FailedByReason: counts(unknown, 30, full, 4)},
		{Destination: "quiet.example", ToDeliver: 10, FailedByReason: counts(unknown, 0)},
		{Destination: "yahoo", ToDeliver: 100, Soft: 41, FailedByReason: counts(full, 40, refused, 1)},
	}))
	want := `failed at  mailbox full  user unknown  refused  hard   soft
google                4            30           1.5%   0.2%
yahoo                40                      1  0.0%  41.0%
`
	if !any || out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	out.Reset()
	if printReasons(&out, "failed at", reasonRows([]*veredusv1.DestinationKpis{{Destination: "google", ToDeliver: 5}})) || out.Len() > 0 {
		t.Errorf("without failures: %q", out.String())
	}
}

func TestHardAndSoftReasons(t *testing.T) {
	for value := range veredusv1.FailureReason_name {
		r := veredusv1.FailureReason(value)
		hard := value == 1
		soft := value >= 2 && value <= 6 || value == 20
		if hardReason(r) != hard || softReason(r) != soft {
			t.Errorf("%s: hard %v, soft %v", r, hardReason(r), softReason(r))
		}
	}
}
