package server

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/emersion/go-smtp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/operator"
)

// office is a node in a bubble with a mailbox behind every domain.
type office struct {
	t    *testing.T
	fs   vfs.FS
	cfg  string
	box  *mailbox
	smtp *bufconn.Listener
	node *Server
	conn *grpc.ClientConn
	relayClient
}

// open starts a node over the office's disk.
func (o *office) open() {
	o.t.Helper()
	port := bufconn.Listen(1 << 20)
	s, err := New(load(o.t, o.cfg), Options{
		FS: o.fs, GRPC: port, Resolver: oneHost{},
		Dial: func(ctx context.Context, _ mta.Target) (net.Conn, error) { return o.smtp.DialContext(ctx) },
	})
	if err != nil {
		o.t.Fatal(err)
	}
	if err := s.Start(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
	o.conn, err = grpc.NewClient("passthrough:///node", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return port.DialContext(ctx) }))
	if err != nil {
		o.t.Fatal(err)
	}
	o.node, o.relayClient = s, veredusv1.NewRelayServiceClient(o.conn)
}

func (o *office) close() {
	o.t.Helper()
	_ = o.conn.Close()
	if err := o.node.Stop(context.Background()); err != nil {
		o.t.Error(err)
	}
}

// inOffice tells a story in a bubble.
func inOffice(t *testing.T, story func(t *testing.T, o *office)) {
	t.Helper()
	dir := t.TempDir()
	key(t, dir, "key.pem")
	write(t, dir+"/veredus.yaml", "relay: {mode: redirect, redirect: 'elsewhere.example:25', hostname: mta.brand.example}\ndkim: {domains: [{domain: brand.example, selector: s1, key_file: key.pem}]}\n")
	synctest.Test(t, func(t *testing.T) {
		o := &office{
			t: t, fs: vfs.NewMem(), cfg: dir + "/veredus.yaml", smtp: bufconn.Listen(1 << 20),
			box: &mailbox{tries: map[string]int{}, mail: map[string][]time.Time{}},
		}
		receiver := smtp.NewServer(o.box)
		receiver.Domain, receiver.ErrorLog = "mx.example", log.New(io.Discard, "", 0)
		go func() { _ = receiver.Serve(o.smtp) }()
		defer receiver.Close()
		o.open()
		defer func() { o.close() }()
		story(t, o)
	})
}

// delivered is how many recipients have mail.
func (o *office) delivered() int {
	return len(o.box.accepted())
}

// greys are recipients whose first attempt is greylisted.
func greys(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("grey@d%02d.example", i)
	}
	return list
}

// events are those of some types, in order.
func (o *office) events(kinds ...veredusv1.FeedbackType) []*veredusv1.FeedbackEvent {
	o.t.Helper()
	from, _ := o.node.store.Ends()
	events, _, err := o.node.store.Read(o.t.Context(), from, 10_000)
	if err != nil {
		o.t.Fatal(err)
	}
	return slices.DeleteFunc(events, func(e *veredusv1.FeedbackEvent) bool { return !slices.Contains(kinds, e.GetType()) })
}

// texts are the texts of events of a type, with their counts.
func (o *office) texts(kind veredusv1.FeedbackType) (list []string) {
	o.t.Helper()
	for _, e := range o.events(kind) {
		list = append(list, fmt.Sprintf("%d %s", e.GetCount(), e.GetText()))
	}
	return list
}

// A greylisted mailing is made due by an operator: counted first, then done, told once, and
// the same request answers the same, over a restart too.
func TestRetryNowOverTheAPI(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		mailing(t, o.conn, greys(30)...)
		time.Sleep(time.Minute)
		synctest.Wait()
		req := &veredusv1.RetryNowRequest{Selector: &veredusv1.QueueSelector{Delivery: "deliveries/spring"}, DryRun: true}
		dry, err := o.RetryNow(t.Context(), req)
		if err != nil || dry.GetCount() != 30 || len(dry.GetSample()) != 20 || !strings.Contains(dry.GetSample()[0].GetErrorText(), "greylisted") {
			t.Fatalf("dry run: %v, %v", dry, err)
		}
		if o.delivered() != 0 || len(o.texts(veredusv1.FeedbackType_FEEDBACK_TYPE_QUEUE_CHANGED)) != 0 {
			t.Error("the dry run changed something")
		}
		req = &veredusv1.RetryNowRequest{Selector: &veredusv1.QueueSelector{Delivery: "deliveries/spring"}, Reason: "asked", RequestId: "r1"}
		done, err := o.RetryNow(t.Context(), req)
		if err != nil || done.GetCount() != 30 || len(done.GetSample()) != 20 {
			t.Fatalf("retry: %v, %v", done, err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if o.delivered() != 30 {
			t.Errorf("%d delivered within 10 s", o.delivered())
		}
		o.close()
		o.open()
		if again, err := o.RetryNow(t.Context(), req); err != nil || again.GetCount() != 30 || len(again.GetSample()) != 20 {
			t.Errorf("the same request: %v, %v", again, err)
		}
		if got := o.texts(veredusv1.FeedbackType_FEEDBACK_TYPE_QUEUE_CHANGED); !slices.Equal(got, []string{"30 retry now: delivery spring; asked"}) {
			t.Errorf("events %q", got)
		}
		_, err = o.RetryNow(t.Context(), &veredusv1.RetryNowRequest{Selector: &veredusv1.QueueSelector{Tenant: "default"}, RequestId: "r1"})
		wantError(t, err, codes.AlreadyExists, "REQUEST_ID_REUSED")
	})
}

// Mail to one destination is failed; the delivery's other mail goes on, and what was ordered
// before a stop goes on behind it.
func TestFailMessagesOverTheAPI(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		mailing(t, o.conn, greys(10)...)
		time.Sleep(time.Minute)
		synctest.Wait()
		sel := &veredusv1.QueueSelector{Destination: "destinations/d03.example"}
		done, err := o.FailMessages(t.Context(), &veredusv1.FailMessagesRequest{Selector: sel, Reason: "closed"})
		if err != nil || done.GetCount() != 1 || done.GetSample()[0].GetRecipient() != "grey@d03.example" {
			t.Fatalf("failed: %v, %v", done, err)
		}
		d, err := o.node.store.Get(t.Context(), "spring")
		if err != nil || d.Counters.Failed != 1 || d.Counters.FailedBy[3] != 1 || d.Counters.InRelay != 9 {
			t.Errorf("counters %+v, %v", d.Counters, err)
		}
		// Ordered, and cut off before anything was done.
		w := operator.Work{ID: "w", Kind: operator.Fail, Queue: operator.Queue{Delivery: "spring", Arrived: time.Now()}, Reason: "over", Created: time.Now()}
		if _, _, err := o.node.store.BeginWork(t.Context(), w, operator.Request{}); err != nil {
			t.Fatal(err)
		}
		o.close()
		o.open()
		time.Sleep(time.Second)
		synctest.Wait()
		d, err = o.node.store.Get(t.Context(), "spring")
		if err != nil || d.Counters.Failed != 10 || d.Finished.IsZero() {
			t.Errorf("behind the restart: %+v, %v", d.Counters, err)
		}
		got := o.texts(veredusv1.FeedbackType_FEEDBACK_TYPE_QUEUE_CHANGED)
		if len(got) != 2 || got[0] != "1 fail: destination d03.example; closed" || !strings.HasPrefix(got[1], "9 fail: delivery spring, arrived by ") {
			t.Errorf("events %q", got)
		}
	})
}

// What is wrong with an order is said with its field, before anything happens.
func TestOrdersThatAreRefused(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		mailing(t, o.conn, "grey@a.example")
		time.Sleep(time.Minute)
		ctx := t.Context()
		retry := func(sel *veredusv1.QueueSelector) error {
			_, err := o.RetryNow(ctx, &veredusv1.RetryNowRequest{Selector: sel, DryRun: true})
			return err
		}
		move := func(sel *veredusv1.QueueSelector, pool string) error {
			_, err := o.MoveToPool(ctx, &veredusv1.MoveToPoolRequest{Selector: sel, Pool: pool})
			return err
		}
		word := func(destination string, end time.Duration, fields map[string]string) error {
			p := &veredusv1.PathOverride{Fields: fields}
			if end != 0 {
				p.EndTime = timestamppb.New(time.Now().Add(end))
			}
			_, err := o.OverridePath(ctx, &veredusv1.OverridePathRequest{Destination: destination, Override: p})
			return err
		}
		two := map[string]string{"connections": "2"}
		for field, err := range map[string]error{
			"selector":                  retry(nil),
			"selector.destination":      retry(&veredusv1.QueueSelector{Destination: "b.example"}),
			"selector.source":           retry(&veredusv1.QueueSelector{Source: "nobody"}),
			"selector.older_than":       retry(&veredusv1.QueueSelector{OlderThan: durationpb.New(-time.Second)}),
			"selector.delivery":         retry(&veredusv1.QueueSelector{Delivery: "spring"}),
			"pool":                      move(&veredusv1.QueueSelector{Delivery: "deliveries/spring"}, "nowhere"),
			"selector.source move":      move(&veredusv1.QueueSelector{Source: "nobody"}, "default"),
			"override.end_time":         word("a.example", 0, two),
			"override.end_time too far": word("a.example", 31*24*time.Hour, two),
			"override.fields":           word("a.example", time.Hour, map[string]string{"connections": "0"}),
			"override.fields fixed":     word("a.example", time.Hour, map[string]string{"tls": "none"}),
			"destination":               word("", time.Hour, two),
		} {
			want, _, _ := strings.Cut(field, " ")
			if s := wantError(t, err, codes.InvalidArgument, "INVALID_FIELD"); fields(s) != want {
				t.Errorf("%s: fault with %q: %v", field, fields(s), err)
			}
		}
		_, err := o.FailMessages(ctx, &veredusv1.FailMessagesRequest{Selector: &veredusv1.QueueSelector{Tenant: "default"}})
		if s := wantError(t, err, codes.InvalidArgument, "INVALID_FIELD"); fields(s) != "reason" {
			t.Errorf("no reason: %v", err)
		}
		wantError(t, retry(&veredusv1.QueueSelector{Delivery: "deliveries/none"}), codes.NotFound, "NOT_FOUND")
	})
}

// An override holds over a restart, is explained, and ends by itself with a record of it.
func TestAnOverrideOverTheAPI(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		var to []string
		for i := range 10 {
			to = append(to, fmt.Sprintf("grey%d@d00.example", i))
		}
		mailing(t, o.conn, to...)
		time.Sleep(time.Minute)
		resp, err := o.OverridePath(t.Context(), &veredusv1.OverridePathRequest{
			Destination: "d00.example", RequestId: "r",
			Override: &veredusv1.PathOverride{
				Fields:  map[string]string{"message_rate": "3/min", "connections": "1"},
				EndTime: timestamppb.New(time.Now().Add(5 * time.Minute)), Reason: "asked",
			},
		})
		if err != nil || len(resp.GetPaths()) != 1 || resp.GetPaths()[0].GetOverride().GetReason() != "asked" {
			t.Fatalf("override: %v, %v", resp, err)
		}
		ordered := time.Now()
		time.Sleep(5 * time.Second)
		o.close()
		o.open()
		time.Sleep(time.Second)
		e, err := o.ExplainDestination(t.Context(), &veredusv1.ExplainDestinationRequest{Domain: "d00.example"})
		if err != nil {
			t.Fatal(err)
		}
		if e.GetBacklog() != 10 || !strings.Contains(e.GetLimitedBy(), "no mail is due") {
			t.Errorf("backlog %d, limited by %s", e.GetBacklog(), e.GetLimitedBy())
		}
		if _, err := o.RetryNow(t.Context(), &veredusv1.RetryNowRequest{Selector: &veredusv1.QueueSelector{Destination: "d00.example"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		e, err = o.ExplainDestination(t.Context(), &veredusv1.ExplainDestinationRequest{Domain: "d00.example"})
		if err != nil || len(e.GetPaths()) != 1 {
			t.Fatalf("explained: %v, %v", e, err)
		}
		if n := o.delivered(); n < 1 || n > 2 {
			t.Errorf("%d delivered in 30 s at 3/min", n)
		}
		if !strings.Contains(e.GetLimitedBy(), "overridden by an operator") || e.GetLimitedSince() == nil || e.GetDrainTime() == nil {
			t.Errorf("limited by %s since %v, drains in %v", e.GetLimitedBy(), e.GetLimitedSince(), e.GetDrainTime())
		}
		path := e.GetPaths()[0]
		if since := path.GetOverride().GetCreateTime().AsTime(); !since.Equal(ordered) {
			t.Errorf("the override holds since %v, ordered %v", since, ordered)
		}
		past := func(d *veredusv1.PathDecision) bool {
			return d.GetAction() == "overridden" && d.GetTime().AsTime().Equal(ordered) && strings.Contains(d.GetCause(), "message_rate 3/min; asked")
		}
		if !slices.ContainsFunc(path.GetDecisions(), past) {
			t.Errorf("decisions of before the restart: %v", path.GetDecisions())
		}
		for _, l := range path.GetLimits().GetLimits() {
			if at := l.GetSetTime().AsTime(); l.GetSetBy() == "override" && !at.Equal(ordered) {
				t.Errorf("%s is set since %v", l.GetField(), at)
			}
			if l.GetField() == "message_rate" && (l.GetEffective() != "3/m" && l.GetEffective() != "3/min" || l.GetSetBy() != "override" || l.GetLow() == "") {
				t.Errorf("message_rate: %v", l)
			}
			if l.GetField() == "tls" && l.GetSetBy() != "rule" {
				t.Errorf("tls: %v", l)
			}
		}
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		want := []string{"0 overridden: connections 1, message_rate 3/min; asked", "0 the override ended: its time is over; asked"}
		if got := o.texts(veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_OVERRIDDEN); !slices.Equal(got, want) {
			t.Errorf("events %q", got)
		}
		if list, err := o.node.store.Overrides(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("rows are left: %v, %v", list, err)
		}
		if _, err := o.ResetPath(t.Context(), &veredusv1.ResetPathRequest{Destination: "d00.example", Reason: "test"}); err != nil {
			t.Error(err)
		}
	})
}

// Paths may be chosen by the mail that waits for them; a dry run shows what would be
// changed and changes nothing.
func TestPathsChosenByTheirMail(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		mailing(t, o.conn, "grey0@d00.example", "grey1@d01.example", "fine@d02.example")
		time.Sleep(time.Minute)
		ctx := t.Context()
		word := &veredusv1.PathOverride{Fields: map[string]string{"connections": "1"}, EndTime: timestamppb.New(time.Now().Add(time.Hour)), Reason: "asked"}
		order := &veredusv1.OverridePathRequest{Selector: &veredusv1.QueueSelector{Tenant: "default"}, Override: word, DryRun: true, RequestId: "r"}
		dry, err := o.OverridePath(ctx, order)
		if err != nil || !slices.Equal(dry.GetDestinations(), []string{"d00.example", "d01.example"}) || dry.GetCount() != 2 ||
			len(dry.GetPaths()) != 2 || dry.GetPaths()[0].GetOverride().GetReason() != "asked" {
			t.Fatalf("dry run: %v, %v", dry, err)
		}
		reset := &veredusv1.ResetPathRequest{Selector: &veredusv1.QueueSelector{OlderThan: durationpb.New(time.Second)}, DryRun: true}
		if a, err := o.ResetPath(ctx, reset); err != nil || a.GetCount() != 2 {
			t.Errorf("dry reset: %v, %v", a, err)
		}
		if list, err := o.node.store.Overrides(ctx); err != nil || len(list) != 0 || len(o.texts(veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_OVERRIDDEN)) != 0 {
			t.Errorf("a dry run left %v, %v", list, err)
		}
		order.DryRun, order.RequestId = false, "s"
		for range 2 {
			if a, err := o.OverridePath(ctx, order); err != nil || a.GetCount() != 2 || a.GetPaths()[1].GetOverride().GetReason() != "asked" {
				t.Errorf("override: %v, %v", a, err)
			}
		}
		reset.DryRun = false
		if a, err := o.ResetPath(ctx, reset); err != nil || len(a.GetDestinations()) != 2 {
			t.Errorf("reset: %v, %v", a, err)
		}
		if n := len(o.texts(veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_OVERRIDDEN)); n != 4 {
			t.Errorf("%d events, want one of each destination and order", n)
		}
		for field, sel := range map[string]*veredusv1.OverridePathRequest{
			"selector":                {Selector: &veredusv1.QueueSelector{Tenant: "default"}, Destination: "d00.example", Override: word},
			"selector of no mail":     {Selector: &veredusv1.QueueSelector{Tenant: "nobody"}, Override: word},
			"selector.source":         {Selector: &veredusv1.QueueSelector{Source: "nobody"}, Override: word},
			"selector that is nobody": {Selector: &veredusv1.QueueSelector{}, Override: word},
		} {
			_, err := o.OverridePath(ctx, sel)
			want, _, _ := strings.Cut(field, " ")
			if s := wantError(t, err, codes.InvalidArgument, "INVALID_FIELD"); fields(s) != want {
				t.Errorf("%s: fault with %q: %v", field, fields(s), err)
			}
		}
	})
}

// The pace of the last minutes tells how long a backlog takes; what is older counts no more.
func TestPaceOfTheLastMinutes(t *testing.T) {
	p := newPaces()
	at := noon
	for range 300 {
		p.settled([]mta.Settlement{{Outcome: mta.Delivered, Time: at, Destination: "x", Attempt: &mta.Attempt{Duration: 200 * time.Millisecond}}})
		at = at.Add(time.Second)
	}
	rate, latency := p.of("x", at)
	if rate < 0.95 || rate > 1.05 || latency != 200*time.Millisecond {
		t.Errorf("%v a second, %v", rate, latency)
	}
	if got := drain(600, rate); got < 9*time.Minute || got > 11*time.Minute {
		t.Errorf("600 take %v", got)
	}
	if rate, _ := p.of("x", at.Add(10*time.Minute)); rate != 0 {
		t.Errorf("ten minutes later %v a second", rate)
	}
	if drain(5, 0) != 0 || drain(0, 1) != 0 || drain(1<<60, 1) != maxDrain {
		t.Error("bounds of the time to drain")
	}
}

// What paths may send now bounds the pace of the last minutes, a rest comes before it, and
// what stands still has no end.
func TestDrainTimeKnowsWhatHolds(t *testing.T) {
	warming := []dispatch.PathView{{WarmUpCap: 8640}, {State: mxrules.State{MessageRate: mxrules.Rate{Count: 1, Per: time.Second}}}}
	free := []dispatch.PathView{{WarmUpCap: 8640}, {}}
	rest := dispatch.Wait{Cause: dispatch.CauseRest, Until: noon.Add(time.Hour)}
	for _, c := range []struct {
		name  string
		rate  float64
		paths []dispatch.PathView
		wait  dispatch.Wait
		want  time.Duration
	}{
		{"the pace of other mail", 100, warming, dispatch.Wait{Cause: dispatch.CauseWarmUp}, 1000 * time.Second},
		{"nothing sent yet", 0, warming, dispatch.Wait{}, 1000 * time.Second},
		{"slower than allowed", 0.55, warming, dispatch.Wait{}, 2000 * time.Second},
		{"no limit", 11, free, dispatch.Wait{}, 100 * time.Second},
		{"behind a rest", 11, free, rest, time.Hour + 100*time.Second},
		{"paused", 11, free, dispatch.Wait{Cause: dispatch.CausePaused}, 0},
		{"too much", 0, []dispatch.PathView{{WarmUpCap: 1}}, dispatch.Wait{}, maxDrain},
	} {
		if got := drainTime(1100, c.rate, c.paths, c.wait, noon); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Each limit tells the rule's value, where a path begins, what was learned and what set the
// value in force.
func TestLimitsAreExplained(t *testing.T) {
	rule := mxrules.Limits{Connections: 10, MessagesPerConnection: 50, MessageRate: mxrules.Rate{Count: 100, Per: time.Second}, Governor: mxrules.GovernorStatic}
	g := mxrules.NewGovernor(rule)
	fresh := g.State(noon)
	g.Observe(noon, mxrules.Evidence{Effect: mxrules.EffectSlow, Text: "421 slow"})
	g.SetOverride(noon, mxrules.Override{Set: mxrules.FieldsOf(mxrules.FieldConnections), Limits: mxrules.Limits{Connections: 3}})
	p := &dispatch.PathView{
		Effective: mxrules.Effective{Limits: rule}, State: g.State(noon), Fresh: fresh, Pace: g.Pace(),
		SetAt:    map[mxrules.Field]time.Time{mxrules.FieldMessageRate: noon},
		Override: &dispatch.Override{Values: g.Override(), Until: noon.Add(time.Hour)},
		Source:   "a", WarmUpCap: 500,
	}
	want := map[string]string{
		"connections":             "10 10 1  3 override",
		"messages_per_connection": "50 50 1  50 rule",
		"message_rate":            "100/s 100/s 1/min 50/s 50/s reaction",
		"tls":                     "none none   none rule",
		"messages_per_day":        "unlimited unlimited   500 warm_up",
	}
	for _, l := range pathLimits(p, noon).GetLimits() {
		got := strings.Join([]string{l.GetValue(), l.GetStart(), l.GetLow(), l.GetLearned(), l.GetEffective(), l.GetSetBy()}, " ")
		got = strings.ReplaceAll(got, "100/2s", "50/s")
		if w, ok := want[l.GetField()]; ok && got != w {
			t.Errorf("%s: %q, want %q", l.GetField(), got, w)
		}
	}
}

// By destination, age or source only mail moves: its delivery and the rest of it stay. It
// stays moved over a restart, and until the delivery itself gets another pool.
func TestMoveSomeMailToAPool(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		pools := "pools: {default: {sources: [{name: a, hostname: a.brand.example}]}, reserve: {sources: [{name: b, hostname: b.brand.example}]}, third: {sources: [{name: c, hostname: c.brand.example}]}}"
		write(t, o.cfg, strings.Replace(read(t, o.cfg), "relay: {", "relay: {"+pools+", ", 1))
		o.close()
		o.open()
		mailing(t, o.conn, "grey0@d00.example", "grey1@d00.example", "grey2@d01.example")
		time.Sleep(time.Minute)
		ctx := t.Context()
		move := func(sel *veredusv1.QueueSelector, pool string, dry bool) int64 {
			t.Helper()
			a, err := o.MoveToPool(ctx, &veredusv1.MoveToPoolRequest{Selector: sel, Pool: pool, DryRun: dry})
			if err != nil || int(a.GetCount()) != len(a.GetSample()) {
				t.Fatalf("move: %v, %v", a, err)
			}
			return a.GetCount()
		}
		d00 := &veredusv1.QueueSelector{Destination: "d00.example"}
		if n, m := move(d00, "reserve", true), move(d00, "reserve", false); n != 2 || m != 2 {
			t.Errorf("%d would move and %d moved, want 2", n, m)
		}
		if n := move(d00, "reserve", false); n != 0 {
			t.Errorf("%d moved again", n)
		}
		for sel, want := range map[*veredusv1.QueueSelector]int64{
			{Source: "a"}: 1 + 2, {OlderThan: durationpb.New(time.Hour)}: 0, {OlderThan: durationpb.New(time.Second)}: 3,
		} {
			if n := move(sel, "third", true); n != want {
				t.Errorf("%v: %d would move, want %d", sel, n, want)
			}
		}
		if d, err := o.node.store.Get(ctx, "spring"); err != nil || d.Spec.GetPool() == "reserve" {
			t.Errorf("the delivery moved as well: %v", err)
		}
		o.close()
		o.open()
		time.Sleep(time.Second)
		if n := move(d00, "reserve", true); n != 0 {
			t.Errorf("behind a restart %d are where they were", n)
		}
		if _, err := o.RetryNow(ctx, &veredusv1.RetryNowRequest{Selector: &veredusv1.QueueSelector{Tenant: "default"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		at, _ := o.node.store.Ends()
		events, _, err := o.node.store.Read(ctx, at, 1000)
		if err != nil {
			t.Fatal(err)
		}
		by := map[string]int{}
		for _, e := range events {
			if e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED {
				by[e.GetDestination()+" by "+e.GetSource()]++
			}
		}
		for _, e := range events {
			if ordered := e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_QUEUE_CHANGED; ordered != (e.GetPrincipal() == "local") {
				t.Errorf("ordered by %q: %v", e.GetPrincipal(), e)
			}
		}
		if by["d00.example by b"] != 2 || by["d01.example by a"] != 1 {
			t.Errorf("delivered %v", by)
		}
		if got := o.texts(veredusv1.FeedbackType_FEEDBACK_TYPE_QUEUE_CHANGED); len(got) == 0 || got[0] != "2 move to pool reserve: destination d00.example" {
			t.Errorf("events %q", got)
		}
	})
}

// Waiting mail of a tenant moves to another pool; what moved already is not counted again,
// and single messages stay where they were sent.
func TestMoveToPoolOverTheAPI(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		pools := "pools: {default: {sources: [{name: a, hostname: a.brand.example}]}, reserve: {sources: [{name: b, hostname: b.brand.example}]}}"
		write(t, o.cfg, strings.Replace(read(t, o.cfg), "relay: {", "relay: {"+pools+", ", 1))
		o.close()
		o.open()
		mailing(t, o.conn, greys(7)...)
		c := veredusv1.NewCampaignServiceClient(o.conn)
		if _, err := c.SendMessage(t.Context(), &veredusv1.SendMessageRequest{
			Sender: &veredusv1.Sender{From: "service@brand.example"}, Content: &veredusv1.Content{Subject: "Code", Text: "1234"},
			Recipient: &veredusv1.Recipient{Address: "grey@single.example"}, RequestId: "m1",
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		req := &veredusv1.MoveToPoolRequest{Selector: &veredusv1.QueueSelector{Tenant: "default"}, Pool: "reserve", DryRun: true}
		dry, err := o.MoveToPool(t.Context(), req)
		if err != nil || dry.GetCount() != 7 || len(dry.GetSample()) != 7 {
			t.Fatalf("dry run: %v, %v", dry, err)
		}
		req.DryRun = false
		for i, want := range []int64{7, 0} {
			if done, err := o.MoveToPool(t.Context(), req); err != nil || done.GetCount() != want {
				t.Errorf("move %d: %v, %v", i, done, err)
			}
		}
		d, err := o.node.store.Get(t.Context(), "spring")
		if err != nil || d.Spec.GetPool() != "reserve" {
			t.Errorf("pool %q, %v", d.Spec.GetPool(), err)
		}
		if _, err := o.RetryNow(t.Context(), &veredusv1.RetryNowRequest{Selector: &veredusv1.QueueSelector{Delivery: "deliveries/spring"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		from := map[string]int{}
		at, _ := o.node.store.Ends()
		events, _, err := o.node.store.Read(t.Context(), at, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED {
				from[e.GetSource()]++
			}
		}
		if from["b"] != 7 || from["a"] != 1 {
			t.Errorf("delivered by source: %v", from)
		}
	})
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
