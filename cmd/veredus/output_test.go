package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

func TestTableSetsFiguresRight(t *testing.T) {
	table := newTable("provider", "sent", "success")
	table.row("google", int64(1234567), "98.1%")
	table.row("Straße", int64(7), "-")
	var out strings.Builder
	table.print(&out)
	want := `provider       sent  success
google    1,234,567    98.1%
Straße            7        -
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}

func TestEventLines(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	at := timestamppb.New(now)
	cases := []struct {
		event *veredusv1.FeedbackEvent
		want  string
	}{
		{
			&veredusv1.FeedbackEvent{Time: at, Type: veredusv1.FeedbackType_FEEDBACK_TYPE_STARTED, Delivery: "deliveries/d", Count: 12000},
			"12:00:00 started       deliveries/d 12,000 messages",
		},
		{
			&veredusv1.FeedbackEvent{Time: at, Type: veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED, Message: "m", Recipient: "a@b.example", Destination: "b.example", ReplyCode: 250, EnhancedCode: "2.0.0", Text: "OK\r\n queued"},
			"12:00:00 delivered     a@b.example [b.example] 250 2.0.0 OK   queued",
		},
		{&veredusv1.FeedbackEvent{
			Time: at, Type: veredusv1.FeedbackType_FEEDBACK_TYPE_DEFERRED, Message: "m", Recipient: "a@b.example", ReplyCode: 452, Text: "452 4.2.2 \x1b[31mfull", EnhancedCode: "4.2.2",
			Reason: veredusv1.FailureReason_FAILURE_REASON_MAILBOX_FULL, WillRetry: true, NextAttemptTime: timestamppb.New(now.Add(30 * time.Hour)),
		}, "12:00:00 deferred      a@b.example 452 4.2.2  [31mfull (mailbox full) again at 2026-03-05 18:00:00"},
		{
			&veredusv1.FeedbackEvent{Time: at, Type: veredusv1.FeedbackType_FEEDBACK_TYPE_DEFERRED, Message: "m", Recipient: "a@b.example", Text: "connection reset", DeliveryUncertain: true},
			"12:00:00 deferred      a@b.example connection reset (it may have been delivered)",
		},
		{
			&veredusv1.FeedbackEvent{Time: at, Type: veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_SUSPENDED, Source: "a", Destination: "google", Text: "421 slow down"},
			"12:00:00 path_suspended a google 421 slow down",
		},
	}
	for _, c := range cases {
		if got := eventLine(c.event, now); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

// The library's JSON has random spaces; ours has none.
func TestProtoJSONIsStable(t *testing.T) {
	var out strings.Builder
	if err := printProto(&out, &veredusv1.Message{Name: "deliveries/d/messages/m", Reason: veredusv1.FailureReason_FAILURE_REASON_REFUSED, BounceCode: 50}); err != nil {
		t.Fatal(err)
	}
	if want := `{"name":"deliveries/d/messages/m","reason":"FAILURE_REASON_REFUSED","bounce_code":50}` + "\n"; out.String() != want {
		t.Errorf("%s", out.String())
	}
}

func TestProgressWithoutATerminalPrintsTheEnd(t *testing.T) {
	var out strings.Builder
	p := newProgress(&out)
	b, detail := p.bar("sending", 2000, false), p.bar("google", 10, true)
	for i := range int64(2001) {
		b.set(i, "fast")
		detail.set(i, "")
	}
	b.done()
	detail.done()
	p.close()
	if out.String() != "sending 2,000 of 2,000  fast\n" {
		t.Errorf("%q", out.String())
	}
}

func TestFirstAttemptRate(t *testing.T) {
	var f firstAttempts
	if f.rate() != 0 {
		t.Error("a rate of nothing")
	}
	for i := range 1000 { // 100 a second for 9 s, then a slow tail
		at := time.Duration(i) * 10 * time.Millisecond
		if i >= 900 {
			at = time.Duration(i) * time.Second
		}
		f.add(at)
	}
	if got := f.rate(); got != 100 {
		t.Errorf("%v messages/s, want 100", got)
	}
}
