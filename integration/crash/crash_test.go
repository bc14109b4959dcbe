package main

import (
	"context"
	"flag"
	"strings"
	"testing"

	"github.com/veredus/veredus/integration/hostile"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

var (
	seed   = flag.Uint64("crash.seed", 0, "seed of the phases and moments; 0 takes one from the clock")
	rounds = flag.Int("crash.rounds", len(phases), "how many rounds")
)

func TestNothingAcknowledgedIsLost(t *testing.T) {
	opt := options{rounds: *rounds, messages: 120, every: 8, seed: *seed, dir: t.TempDir()}
	if err := opt.check(); err != nil {
		t.Fatal(err)
	}
	report, err := run(context.Background(), opt, t.Logf)
	if report != nil {
		t.Log("\n" + report.String())
	}
	if err != nil {
		t.Fatal(err)
	}
	if report.messages != opt.rounds*opt.messages+report.singles || report.singles == 0 || report.lost > 0 {
		t.Errorf("%d messages, %d lost", report.messages, report.lost)
	}
}

// The harness is of use only if it finds what it looks for.
func TestBreachesAreFound(t *testing.T) {
	delivered := func(id string) *veredusv1.FeedbackEvent {
		return &veredusv1.FeedbackEvent{
			Id: "e" + id, Type: veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED,
			Delivery: "deliveries/d", Recipient: "r" + id + "@a.example", MessageId: id,
		}
	}
	failed := func(id string, code int32) *veredusv1.FeedbackEvent {
		e := delivered(id)
		e.Type, e.BounceCode, e.DeliveryUncertain = veredusv1.FeedbackType_FEEDBACK_TYPE_BOUNCED, code, code == 25
		return e
	}
	deferred := func(id string) *veredusv1.FeedbackEvent {
		e := delivered(id)
		e.Id, e.Type, e.WillRetry, e.DeliveryUncertain, e.RemoteHost = "u"+id, veredusv1.FeedbackType_FEEDBACK_TYPE_DEFERRED, true, true, "mx.a.example"
		return e
	}
	one := hostile.Copies{Taken: 1, Confirmed: 1}
	two := hostile.Copies{Taken: 2, Confirmed: 2}
	type copies map[string]hostile.Copies
	for name, tt := range map[string]struct {
		events []*veredusv1.FeedbackEvent
		copies copies
		listed map[string]int
		want   string // empty: no breach
	}{
		"all is well":                 {events: []*veredusv1.FeedbackEvent{delivered("1")}, copies: copies{"1": one}},
		"told and not there":          {events: []*veredusv1.FeedbackEvent{delivered("1")}, want: "took 0 copies"},
		"taken and never confirmed":   {events: []*veredusv1.FeedbackEvent{delivered("1")}, copies: copies{"1": {Taken: 1}}, want: "said so of none"},
		"there and not told":          {copies: copies{"1": one}, want: "of which no event tells"},
		"repeated silently":           {events: []*veredusv1.FeedbackEvent{delivered("1")}, copies: copies{"1": two}, want: "taken 2 times"},
		"repeated behind a restart":   {events: []*veredusv1.FeedbackEvent{delivered("1")}, copies: copies{"1": two}, listed: map[string]int{"1": 1}},
		"repeated behind uncertainty": {events: []*veredusv1.FeedbackEvent{deferred("1"), delivered("1")}, copies: copies{"1": two}},
		"another mail the second time": {
			events: []*veredusv1.FeedbackEvent{deferred("1"), delivered("1")},
			copies: copies{"1": {Taken: 2, Confirmed: 1, Differ: true}}, want: "differ",
		},
		"told twice":           {events: []*veredusv1.FeedbackEvent{delivered("1"), delivered("1")}, copies: copies{"1": one}, want: "told twice"},
		"failed for nothing":   {events: []*veredusv1.FeedbackEvent{failed("1", 20)}, want: "failed with code 20"},
		"three lost claims":    {events: []*veredusv1.FeedbackEvent{failed("1", 25)}, listed: map[string]int{"1": 3}},
		"given up for certain": {events: []*veredusv1.FeedbackEvent{func() *veredusv1.FeedbackEvent { e := failed("1", 25); e.DeliveryUncertain = false; return e }()}, listed: map[string]int{"1": 3}, want: "calls it uncertain"},
		"only two lost claims": {events: []*veredusv1.FeedbackEvent{failed("1", 25)}, listed: map[string]int{"1": 2}, want: "after 2 lost claims"},
		"two names for one":    {events: []*veredusv1.FeedbackEvent{deferred("1"), func() *veredusv1.FeedbackEvent { e := delivered("1"); e.MessageId = "2"; return e }()}, copies: copies{"1": one, "2": one}, want: "two Message-IDs"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook()
			b.hear(tt.events, "token")
			b.compareCopies(tt.copies, tt.listed)
			wants(t, b, tt.want)
		})
	}
}

func TestBreachesOfADeliveryAreFound(t *testing.T) {
	const sent, held = veredusv1.LogStatus_LOG_STATUS_SENT, veredusv1.LogStatus_LOG_STATUS_TAKEN_INTO_ACCOUNT
	m := newMailing(1, 2)
	first, second := m.people[0].GetAddress(), m.people[1].GetAddress()
	told := func(addresses ...string) (events []*veredusv1.FeedbackEvent) {
		for i, a := range addresses {
			events = append(events, &veredusv1.FeedbackEvent{
				Id: strings.Repeat("x", i+1), Type: veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED,
				Delivery: m.name(), Recipient: a, MessageId: a,
			})
		}
		return events
	}
	full := &veredusv1.Ledger{Accepted: 2, Sent: 2}
	type list map[string]veredusv1.LogStatus
	for name, tt := range map[string]struct {
		events []*veredusv1.FeedbackEvent
		ledger *veredusv1.Ledger
		list   list
		want   string
	}{
		"all is well":         {told(first, second), full, list{first: sent, second: sent}, ""},
		"one is not told":     {told(first), full, list{first: sent, second: sent}, "never told"},
		"one is told twice":   {told(first, second, first), full, list{first: sent, second: sent}, "2 final events"},
		"one is not listed":   {told(first, second), full, list{first: sent}, "the list has 1"},
		"one is not final":    {told(first, second), full, list{first: sent, second: held}, "is listed as"},
		"the ledger is short": {told(first, second), &veredusv1.Ledger{Accepted: 1, Sent: 1}, list{first: sent, second: sent}, "2 recipients went in"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook()
			b.hear(tt.events, "token")
			b.compareMailing(m, tt.ledger, tt.list)
			wants(t, b, tt.want)
		})
	}
	b := newBook()
	b.hear(told(first, second), "token")
	b.compareStream([]string{"x", "y"})
	wants(t, b, "was followed")
}

func wants(t *testing.T, b *book, want string) {
	t.Helper()
	err := b.verdict()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("found %v, want %q", err, want)
	}
}
