package main

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/integration/world/serve"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

func TestDemoBalances(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	r := veredus(t, "demo", "--recipients", "300", "--json")
	if r.status != exitOK {
		t.Fatalf("status %d\n%s\n%s", r.status, r.out, r.err)
	}
	if strings.Count(r.out, "\n") != 1 {
		t.Errorf("stdout has more than one line:\n%s", r.out)
	}
	var got demoResult
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatal(err)
	}
	l := got.Ledger
	if got.Recipients != 300 || got.Accepted != 300 || got.Sent+got.Failed+got.Cancelled+got.Ignored != 300 || got.Sent < 200 {
		t.Errorf("counts: %s", r.out)
	}
	if l.Unique != got.Sent || l.DKIMVerified != l.Messages || l.Missing != 0 || l.Duplicates != 0 || l.LimitViolations != 0 {
		t.Errorf("ledger: %+v", l)
	}
	var sent, failed int64
	for _, p := range got.ByProvider {
		sent, failed = sent+p.Sent, failed+p.Failed
		if p.Sent != p.Received {
			t.Errorf("%s: sent %d, received %d", p.Provider, p.Sent, p.Received)
		}
	}
	if sent != got.Sent || failed != got.Failed || len(got.ByProvider) < 10 || len(got.ByReason) == 0 {
		t.Errorf("tables: %s", r.out)
	}
	for _, text := range []string{"demo-google", "validity", "retries", "greylisted", "Both ledgers agree."} {
		if !strings.Contains(r.err, text) {
			t.Errorf("%q does not occur in what people read:\n%s", text, r.err)
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
