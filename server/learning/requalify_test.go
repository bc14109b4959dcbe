package learning

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
)

// history is what became of an address: each reply came a day and a minute after the one before.
func history(t testing.TB, table *bounce.Table, name string, replies ...string) address.Entry {
	t.Helper()
	e := address.Entry{Key: address.Key{Folded: name + "@example.com", Scope: address.Scope{Tenant: "default", Class: address.Everything}}}
	for i, reply := range replies {
		in := bounce.Input{Reply: bounce.ParseReply(reply)}
		v := table.Qualify(in)
		e = address.Failed(e, address.Cause{
			Evidence: address.Evidence{
				Time: noon.Add(time.Duration(i) * (24*time.Hour + time.Minute)), Event: fmt.Sprintf("e%d", i), Message: fmt.Sprintf("deliveries/d/messages/%d", i),
				ReplyCode: in.Reply.Code, Enhanced: in.Reply.Enhanced, Text: in.Reply.Text, Phase: "rcpt", Code: v.Code, Rule: v.Rule, Effect: v.Address,
			},
			Address: name + "@example.com", Origin: address.FromBounce, Reason: v.Reason, Tag: v.Tag,
		}, address.DefaultPolicy())
	}
	return e
}

const outage = "550 5.1.1 zorkmid: user unknown"

// ours says that the outage's text speaks of a rate.
const ours = "rules:\n  - {id: own.outage, match: {text: [\"^ zorkmid user unknown $\"]}, tag: rate_limit}\n"

func (d *desk) requalify(dryRun bool) *veredusv1.RequalifyResponse {
	d.t.Helper()
	resp, err := d.Requalify(d.t.Context(), &veredusv1.RequalifyRequest{DryRun: dryRun, Comment: "the outage of March"})
	if err != nil {
		d.t.Fatal(err)
	}
	return resp
}

func (d *desk) putInForce(yaml string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bounces = rules(d.t, yaml)
}

func TestAChangedRuleUndoesWhatRestedOnIt(t *testing.T) {
	old := bounce.Default()
	d := newDesk(t, "",
		history(t, old, "hit", outage),
		history(t, old, "really-gone", "550 5.1.1 no such user"),
		history(t, old, "hit-and-gone", "550 5.1.1 no such user", outage),
		history(t, old, "full", "552 5.2.2 mailbox full"),
		history(t, old, "full-and-hit", "552 5.2.2 mailbox full", "552 5.2.2 mailbox full", outage),
	)
	d.say(3, "", outage)
	d.say(1, "", "552 5.2.2 mailbox full")
	if resp := d.requalify(true); resp.GetTextCount() != 0 || resp.GetEntryCount() != 0 {
		t.Fatalf("with the rules of then: %v", resp)
	}
	d.putInForce(ours)
	before := fmt.Sprint(d.book.entries)
	shown := d.requalify(true)
	if fmt.Sprint(d.book.entries) != before || len(d.book.audits) != 0 {
		t.Error("a dry run changed something")
	}
	if shown.GetTextCount() != 1 || shown.GetTexts()[0].GetOldBounceCode() != 10 || shown.GetTexts()[0].GetOldAddressEffect() != "suppress" ||
		shown.GetTexts()[0].GetReplyText().GetQualification().GetRule() != "own.outage" {
		t.Errorf("texts: %v", shown.GetTexts())
	}
	type row struct {
		was, is address.Status
		errors  int32
	}
	want := map[string]row{
		"hit@example.com":          {address.Quarantined, 0, 0},
		"hit-and-gone@example.com": {address.Quarantined, address.Quarantined, 0},
		"full-and-hit@example.com": {address.Quarantined, address.Counting, 2},
	}
	if shown.GetEntryCount() != int64(len(want)) {
		t.Errorf("%d entries", shown.GetEntryCount())
	}
	for _, e := range shown.GetEntries() {
		got := row{address.Status(e.GetOldStatus()), address.Status(e.GetNewStatus()), e.GetNewErrorCount()}
		if got != want[e.GetAddress()] || len(e.GetEvidence()) != 1 || e.GetEvidence()[0].GetText() != "zorkmid: user unknown" || e.GetEvidence()[0].GetEvent() == "" {
			t.Errorf("%s: %+v, evidence %v", e.GetAddress(), got, e.GetEvidence())
		}
	}
	done := d.requalify(false)
	if !proto.Equal(done, shown) {
		t.Errorf("applied: %v", done)
	}
	for _, e := range d.book.entries {
		if w, changed := want[e.Address]; changed && (e.Status != w.is || e.Evidence[0].Change != address.WasRequalified) {
			t.Errorf("%s: %+v", e.Address, e)
		}
	}
	if _, left := d.book.entries[address.Key{Folded: "hit@example.com", Scope: address.Scope{Tenant: "default", Class: address.Everything}}]; left {
		t.Error("an entry without cause is left")
	}
	for _, audit := range d.book.audits {
		if audit != "requalified by the rules of today: the outage of March" {
			t.Error(audit)
		}
	}
	if again := d.requalify(false); again.GetTextCount() != 0 || again.GetEntryCount() != 0 {
		t.Errorf("again: %v", again)
	}
	if texts := d.store.all(); texts[0].Count != 3 || texts[0].Verdict.Rule != "own.outage" || texts[0].Providers[other] != 3 {
		t.Errorf("%+v", texts[0])
	}
}

// A quarantine at the threshold falls with one of its errors; the counter keeps the rest.
func TestAThresholdIsNoLongerReached(t *testing.T) {
	const full = "552 5.2.2 zorkmid: mailbox full"
	d := newDesk(t, "", history(t, bounce.Default(), "five", full, "552 5.2.2 mailbox full", full, "552 5.2.2 mailbox full", "552 5.2.2 mailbox full"))
	d.putInForce("rules:\n  - {id: own.size, match: {text: [\"^ zorkmid mailbox full $\"]}, tag: too_large}\n")
	resp := d.requalify(false)
	if len(resp.GetEntries()) != 1 || resp.GetEntries()[0].GetOldStatus() != veredusv1.AddressStatus_ADDRESS_STATUS_QUARANTINED ||
		resp.GetEntries()[0].GetNewStatus() != veredusv1.AddressStatus_ADDRESS_STATUS_COUNTING || resp.GetEntries()[0].GetNewErrorCount() != 3 || len(resp.GetEntries()[0].GetEvidence()) != 2 {
		t.Errorf("%v", resp.GetEntries())
	}
	for _, e := range d.book.entries {
		again := address.Failed(e, address.Cause{Evidence: address.Evidence{Time: noon.Add(200 * time.Hour), Effect: bounce.AddressCount, Rule: "full.phrase"}}, address.DefaultPolicy())
		if again.Errors != 4 || again.Status != address.Counting {
			t.Errorf("the next error: %+v", again)
		}
	}
}

// Requalifying never adds: a reply that suppresses today and counted then still counts.
func TestNothingIsAdded(t *testing.T) {
	e := history(t, bounce.Default(), "full", "552 5.2.2 mailbox full")
	d := newDesk(t, "", e)
	d.putInForce("rules:\n  - {id: own.gone, match: {text: [\"^ mailbox full $\"]}, tag: user_unknown}\n")
	if resp := d.requalify(false); resp.GetEntryCount() != 0 || len(d.book.audits) != 0 {
		t.Errorf("%v", resp)
	}
}

func TestWhatNoRuleEnteredStays(t *testing.T) {
	at := func(change func(*address.Entry)) address.Entry {
		e := history(t, bounce.Default(), "x", outage)
		change(&e)
		return e
	}
	for what, e := range map[string]address.Entry{
		"an operator's":       at(func(e *address.Entry) { e.Origin = address.FromOperator }),
		"an import's":         at(func(e *address.Entry) { e.Origin = address.FromImport }),
		"a denylisted one":    at(func(e *address.Entry) { e.Status = address.Denylisted }),
		"an allowlisted one":  at(func(e *address.Entry) { e.Status = address.Allowlisted }),
		"a dead domain":       at(func(e *address.Entry) { e.Evidence[0].Rule, e.Evidence[0].ReplyCode = "own:nxdomain", 0 }),
		"one without words":   at(func(e *address.Entry) { e.Evidence[0].Text, e.Evidence[0].Enhanced = "", "" }),
		"one confirmed by us": address.Confirmed(at(func(e *address.Entry) { e.Provisional = true }), noon, "checked by telephone"),
		"one without evidence": at(func(e *address.Entry) {
			e.Evidence = nil
		}),
	} {
		if u, changed := undo(e, &judge{rules: rules(t, ours)}, policy(), noon); changed {
			t.Errorf("%s: %+v", what, u)
		}
	}
}

// Evidence keeps 512 octets of a reply; the rest is found among the texts that changed.
func TestLongRepliesAreFoundByTheirBeginning(t *testing.T) {
	long := "550 5.1.1 zorkmid user unknown " + strings.Repeat("the quick brown fox jumps over lazy dogs ", 20)
	d := newDesk(t, "", history(t, bounce.Default(), "long", long), history(t, bounce.Default(), "else", "550 5.1.1 plover user unknown "+long[30:]))
	name := d.say(1, "", long)
	d.qualify(&veredusv1.QualifyReplyTextRequest{Name: name, Tag: "rate_limit"})
	if resp := d.requalify(false); resp.GetEntryCount() != 1 || resp.GetEntries()[0].GetAddress() != "long@example.com" {
		t.Errorf("%v", resp.GetEntries())
	}
}

// An entry that another client changed between the page and the write is judged anew.
func TestEntriesAreJudgedAsTheyAre(t *testing.T) {
	d := newDesk(t, "", history(t, bounce.Default(), "a", outage), history(t, bounce.Default(), "b", outage))
	d.putInForce(ours)
	d.book.meanwhile = func(b *book) {
		for k, e := range b.entries {
			if e.Address == "a@example.com" {
				e.Status = address.Denylisted
				b.entries[k] = e
			}
		}
	}
	resp := d.requalify(false)
	if resp.GetEntryCount() != 1 || resp.GetEntries()[0].GetAddress() != "b@example.com" || len(d.book.entries) != 1 {
		t.Errorf("%v", resp)
	}
}

func TestRequalifyEndsWithItsCall(t *testing.T) {
	d := newDesk(t, "", history(t, bounce.Default(), "a", outage))
	d.putInForce(ours)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Requalify(ctx, &veredusv1.RequalifyRequest{}); err == nil || len(d.book.audits) != 0 {
		t.Errorf("%v", err)
	}
	_, err := d.Requalify(t.Context(), &veredusv1.RequalifyRequest{Comment: strings.Repeat("x", 257)})
	refused(t, err, "comment")
}

// Whatever happened to an address: undoing leaves no more than there was, a second
// time finds nothing, and rules that did not change undo nothing.
func TestUndoingOnlyTakesAway(t *testing.T) {
	old, changed := bounce.Default(), rules(t, ours+"  - {id: own.two, match: {text: [plover]}, tag: mailbox_full}\n  - {id: own.three, match: {text: [gronk]}, tag: policy}\n")
	replies := []string{outage, "550 5.1.1 no such user", "552 5.2.2 mailbox full", "550 plover user unknown", "550 gronk mailbox full", "550 5.7.1 blocked", "450 gronk over quota"}
	rapid.Check(t, func(r *rapid.T) {
		said := rapid.SliceOfN(rapid.SampledFrom(replies), 1, 8).Draw(r, "replies")
		e := history(t, old, "x", said...)
		if e.Status == 0 {
			return
		}
		if _, changed := undo(e, &judge{rules: old}, policy(), noon); changed {
			r.Fatalf("undone by the same rules: %+v", e)
		}
		later := noon.Add(1000 * time.Hour)
		u, did := undo(e, &judge{rules: changed}, policy(), later)
		if !did {
			return
		}
		if len(u.removed) == 0 || u.entry.Status > e.Status || u.entry.Status == address.Counting && (u.entry.Errors < 1 || u.entry.Errors >= policy().Threshold) {
			r.Fatalf("%+v becomes %+v", e, u.entry)
		}
		if u.entry.Errors > len(said) || u.entry.Key != e.Key {
			r.Fatalf("%d errors become %d", e.Errors, u.entry.Errors)
		}
		if _, again := undo(u.entry, &judge{rules: changed}, policy(), later); again {
			r.Fatalf("undone twice: %+v", u.entry)
		}
	})
}

func BenchmarkUndo(b *testing.B) {
	e := history(b, bounce.Default(), "x", "552 5.2.2 mailbox full", "552 5.2.2 mailbox full", "552 5.2.2 mailbox full")
	j := &judge{rules: bounce.Default()}
	b.ReportAllocs()
	for b.Loop() {
		undo(e, j, policy(), noon)
	}
}
