package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/integration/world/serve"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// demonstrate runs the demonstration with mail that lives so long, in real time.
func demonstrate(t *testing.T, life time.Duration) (got demoResult, out, said string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := (&demo{life: life}).command()
	cmd.SetArgs([]string{"--recipients", "300", "--json"})
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v\n%s\n%s", err, stdout.String(), stderr.String())
	}
	if strings.Count(stdout.String(), "\n") != 1 {
		t.Errorf("stdout has more than one line:\n%s", stdout.String())
	}
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	return got, stdout.String(), stderr.String()
}

// unsent is the mail that nobody took while it lived.
func (r *demoResult) unsent() (n int64) {
	for _, reason := range r.ByReason {
		if reason.Reason == "unreachable" {
			n += reason.Count
		}
	}
	return n
}

// Mail lives for seconds. Where it dies unsent on a busy machine it lives longer.
func TestDemoBalances(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	got, out, said := demonstrate(t, 0)
	for life := time.Minute; got.unsent() > 5 && life <= 4*time.Minute; life *= 4 {
		got, out, said = demonstrate(t, life)
	}
	l := got.Ledger
	if got.Recipients != 300 || got.Accepted != 300 || got.Sent+got.Failed+got.Cancelled+got.Ignored != 300 || got.Sent < 200 {
		t.Errorf("counts: %s", out)
	}
	if l.Unique != got.Sent+got.LateBounces || l.DKIMVerified != l.Messages || l.Missing != 0 || l.Duplicates != 0 || l.LimitViolations != 0 {
		t.Errorf("ledger: %+v", l)
	}
	var sent, failed int64
	for _, p := range got.ByProvider {
		sent, failed = sent+p.Sent, failed+p.Failed
		if p.Sent+p.LateBounces != p.Received {
			t.Errorf("%s: sent %d, %d late bounces, received %d", p.Provider, p.Sent, p.LateBounces, p.Received)
		}
	}
	if sent != got.Sent || failed != got.Failed || len(got.ByProvider) < 10 || len(got.ByReason) == 0 {
		t.Errorf("tables: %s", out)
	}
	// Three providers have each kind of magic mailbox; others may add to that.
	replies := l.Returns[world.FateAutoReply]
	if got.LateBounces < 6 || got.Complaints < 3 || got.Unsubscribes < 3 || replies.Accepted < 3 ||
		l.LateBounces != got.LateBounces || l.Complaints != got.Complaints || l.Unsubscribes != got.Unsubscribes {
		t.Errorf("what came back: %s", out)
	}
	if clicks := l.Returns[world.FateUnsubscribe].OneClick; clicks == 0 || clicks == got.Unsubscribes {
		t.Errorf("%d of %d unsubscribes by one click, want some of both kinds", clicks, got.Unsubscribes)
	}
	if got.Denylisted != got.Complaints+got.Unsubscribes || got.Quarantined == 0 {
		t.Errorf("%d denylisted, %d quarantined", got.Denylisted, got.Quarantined)
	}
	for _, text := range []string{"failed at", "late bounces", "unsubscribes", "demo-google", "validity", "retries", "greylisted", "Both ledgers agree."} {
		if !strings.Contains(said, text) {
			t.Errorf("%q does not occur in what people read:\n%s", text, said)
		}
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// dump writes a receivers' ledger with these messages.
func dump(ids []string) func(io.Writer) error {
	return func(out io.Writer) error {
		for _, id := range ids {
			if err := printJSON(out, serve.Record{MessageID: "<" + id + ">", Recipient: "a@b.example"}); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestWhatComesBackIsCompared(t *testing.T) {
	w := world.Default()
	event := func(kind veredusv1.FeedbackType) *veredusv1.FeedbackEvent {
		return &veredusv1.FeedbackEvent{Message: "deliveries/d/messages/m", MessageId: "m", Type: kind, Recipient: "a@gmail.example"}
	}
	bounce, complaint := event(veredusv1.FeedbackType_FEEDBACK_TYPE_OUT_OF_BAND_BOUNCE), event(veredusv1.FeedbackType_FEEDBACK_TYPE_COMPLAINT)
	unsubscribed := event(veredusv1.FeedbackType_FEEDBACK_TYPE_UNSUBSCRIBED)
	sent := func(f world.Fate, c serve.ReturnCounts) map[world.Fate]serve.ReturnCounts {
		return map[world.Fate]serve.ReturnCounts{f: c}
	}
	fine := serve.ReturnCounts{Due: 1, Sent: 1, Accepted: 1}
	for _, c := range []struct {
		name    string
		told    []*veredusv1.FeedbackEvent
		sent    map[world.Fate]serve.ReturnCounts
		problem string
	}{
		{"a late bounce", []*veredusv1.FeedbackEvent{bounce}, sent(world.FateOOBFull, fine), ""},
		{"an automatic reply", nil, sent(world.FateAutoReply, fine), ""},
		{"a complaint not told", nil, sent(world.FateComplaint, fine), "sent back 1 complaints that we accepted, but we reported 0"},
		{"a complaint invented", []*veredusv1.FeedbackEvent{complaint}, nil, "sent back 0 complaints"},
		{"told twice", []*veredusv1.FeedbackEvent{unsubscribed, unsubscribed}, sent(world.FateUnsubscribe, fine), "but we reported 2"},
		{"refused", nil, sent(world.FateAutoReply, serve.ReturnCounts{Due: 1, Sent: 1, Refused: 1}), "of 1 returns for autoreply: 1 refused"},
		{"not sent", nil, sent(world.FateOOBFull, serve.ReturnCounts{Due: 2, Waiting: 1, GivenUp: 1}), "2 not sent"},
	} {
		tally := newTally(&w, 10)
		tally.add(c.told)
		l, err := tally.compare(&serve.Snapshot{Returns: c.sent}, dump(nil))
		if err != nil {
			t.Fatal(err)
		}
		if found := strings.Join(l.problems, "; "); c.problem == "" && found != "" || !strings.Contains(found, c.problem) {
			t.Errorf("%s: problems %q, want %q", c.name, found, c.problem)
		}
	}
}

func TestLedgersAreCompared(t *testing.T) {
	type feedback struct {
		id        string
		kind      veredusv1.FeedbackType
		uncertain bool
	}
	const (
		delivered = veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED
		deferred  = veredusv1.FeedbackType_FEEDBACK_TYPE_DEFERRED
		expired   = veredusv1.FeedbackType_FEEDBACK_TYPE_EXPIRED
	)
	cases := []struct {
		name    string
		ours    []feedback
		theirs  []string
		counts  serve.Counts
		problem string // "" if both agree
	}{
		{"both agree", []feedback{{"1", delivered, false}, {"2", delivered, false}}, []string{"2", "1"}, serve.Counts{Messages: 2, DKIMVerified: 2}, ""},
		{
			"a lost reply and a repeat",
			[]feedback{{"1", deferred, true}, {"1", delivered, false}},
			[]string{"1", "1"},
			serve.Counts{Messages: 2, DKIMVerified: 2, DuplicatesProvoked: 1},
			"",
		},
		{"a lost reply, then expired", []feedback{{"1", deferred, true}, {"1", expired, false}}, []string{"1"}, serve.Counts{Messages: 1, DKIMVerified: 1}, ""},
		{
			"missing there",
			[]feedback{{"1", delivered, false}, {"2", delivered, false}},
			[]string{"1"},
			serve.Counts{Messages: 1, DKIMVerified: 1},
			"1 messages that we reported as delivered are at no receiver",
		},
		{"unexpected there", []feedback{{"1", delivered, false}}, []string{"1", "2"}, serve.Counts{Messages: 2, DKIMVerified: 2}, "we did not report it as delivered"},
		{"reported twice", []feedback{{"1", delivered, false}, {"1", delivered, false}}, []string{"1"}, serve.Counts{Messages: 1, DKIMVerified: 1}, "reported as delivered twice"},
		{"sent twice", []feedback{{"1", delivered, false}}, []string{"1", "1"}, serve.Counts{Messages: 2, DKIMVerified: 2, Duplicates: 1}, "sent again although"},
		{"a bad signature", []feedback{{"1", delivered, false}}, []string{"1"}, serve.Counts{Messages: 1, DKIMFailed: 1}, "no good DKIM signature"},
		{"no signature", []feedback{{"1", delivered, false}}, []string{"1"}, serve.Counts{Messages: 1, DKIMMissing: 1}, "no good DKIM signature"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := world.Default()
			tally := newTally(&w, 10)
			for _, f := range c.ours {
				e := &veredusv1.FeedbackEvent{Message: "deliveries/d/messages/" + f.id, MessageId: f.id, Type: f.kind, Recipient: "a@gmail.example", DeliveryUncertain: f.uncertain}
				tally.add([]*veredusv1.FeedbackEvent{e})
			}
			l, err := tally.compare(&serve.Snapshot{Counts: c.counts}, dump(c.theirs))
			if err != nil {
				t.Fatal(err)
			}
			found := strings.Join(l.problems, "; ")
			if c.problem == "" && found != "" || !strings.Contains(found, c.problem) {
				t.Errorf("problems %q, want %q", found, c.problem)
			}
		})
	}
}
