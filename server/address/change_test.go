package address

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/veredus/veredus/mta/bounce"
)

var start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// step is one thing in the story of an address, and what its entry is afterwards.
type step struct {
	after time.Duration // since the step before
	what  string        // hard, count, full, ok, complaint, unsubscribe, release, confirm, allow
	note  string        // surge; or msg=..., since each step has a message of its own
	want  string        // status, errors, provisional
}

func story(e *Entry) string {
	switch {
	case e.Status == 0:
		return "none"
	case e.Status == Counting:
		return fmt.Sprintf("counting %d", e.Errors)
	case e.Provisional:
		return "provisional"
	}
	return e.Status.word()
}

func (s step) apply(e Entry, now time.Time, n int, p Policy) Entry {
	c := Cause{
		Evidence: Evidence{Time: now, Message: fmt.Sprintf("deliveries/d/messages/%d", n), Text: "550 5.1.1 " + s.what, Code: 10, Effect: bounce.AddressSuppress},
		Address:  "Ada@example.com", Origin: FromBounce, Reason: bounce.ReasonUserUnknown, Provisional: s.note == "surge",
	}
	if m, ok := strings.CutPrefix(s.note, "msg="); ok {
		c.Message = m
	}
	if s.what == "count" || s.what == "full" {
		c.Effect, c.Reason = bounce.AddressCount, bounce.ReasonAccountDisabled
	}
	if s.what == "full" {
		c.Reason = bounce.ReasonMailboxFull
	}
	switch s.what {
	case "ok":
		return Succeeded(e, c)
	case "complaint":
		c.Origin = FromComplaint
		return Complained(e, c)
	case "unsubscribe":
		c.Origin = FromUnsubscribe
		return Unsubscribed(e, c)
	case "release":
		return Released(e)
	case "confirm":
		return Confirmed(e, now, "seen it")
	case "allow":
		return put(e, Entry{Address: "ada@example.com", Status: Allowlisted, Origin: FromOperator}, now)
	case "none":
		c.Effect = bounce.AddressNone
	}
	return Failed(e, c, p)
}

// What happens to an address, and what its entry says after each step.
func TestStoriesOfAnAddress(t *testing.T) {
	for name, steps := range map[string][]step{
		"an unknown user is quarantined at once": {{0, "hard", "", "quarantined"}, {day, "ok", "", "quarantined"}, {300 * day, "count", "", "quarantined"}},
		"a reply that is not about the mailbox":  {{0, "none", "", "none"}},
		"five counted errors on five days": {
			{0, "count", "", "counting 1"},
			{day, "count", "", "counting 2"},
			{day, "count", "", "counting 3"},
			{day, "count", "", "counting 4"},
			{day, "count", "", "quarantined"},
		},
		"at most one a day": {{0, "count", "", "counting 1"}, {23 * time.Hour, "count", "", "counting 1"}, {time.Hour, "count", "", "counting 2"}},
		"a day since the last that counted, not since the last": {
			{0, "count", "", "counting 1"}, {13 * time.Hour, "count", "", "counting 1"}, {13 * time.Hour, "count", "", "counting 2"},
		},
		"at most one for a message": {
			{0, "count", "msg=m", "counting 1"},
			{25 * time.Hour, "count", "msg=m", "counting 1"},
			{25 * time.Hour, "count", "msg=other", "counting 2"},
			{25 * time.Hour, "count", "msg=m", "counting 2"},
		},
		"a success clears the counter":          {{0, "count", "", "counting 1"}, {day, "count", "", "counting 2"}, {day, "ok", "", "none"}, {day, "count", "", "counting 1"}},
		"ten days without an error clear it":    {{0, "count", "", "counting 1"}, {10*day - 1, "count", "", "counting 2"}, {10 * day, "count", "", "counting 1"}},
		"thirty days after Mailbox full":        {{0, "full", "", "counting 1"}, {30*day - 1, "full", "", "counting 2"}, {30 * day, "full", "", "counting 1"}},
		"a hard error while counting":           {{0, "count", "", "counting 1"}, {time.Hour, "hard", "", "quarantined"}},
		"a success that was before the error":   {{0, "count", "", "counting 1"}, {-time.Hour, "ok", "", "counting 1"}},
		"an error that was before the last one": {{0, "count", "", "counting 1"}, {-30 * day, "count", "", "counting 1"}},
		"an outage: released by a success":      {{0, "hard", "surge", "provisional"}, {25 * time.Hour, "ok", "", "none"}},
		"an outage: confirmed by the test":      {{0, "hard", "surge", "provisional"}, {25 * time.Hour, "hard", "", "quarantined"}, {day, "ok", "", "quarantined"}},
		"an outage: what was under way within the hold proves nothing": {
			{0, "hard", "surge", "provisional"}, {time.Hour, "hard", "", "provisional"}, {24 * time.Hour, "hard", "", "quarantined"},
		},
		"an outage again at the test":             {{0, "hard", "surge", "provisional"}, {25 * time.Hour, "hard", "surge", "provisional"}, {25 * time.Hour, "hard", "", "quarantined"}},
		"an outage: a counted error is no test":   {{0, "hard", "surge", "provisional"}, {25 * time.Hour, "count", "", "provisional"}},
		"an operator confirms":                    {{0, "hard", "surge", "provisional"}, {0, "confirm", "", "quarantined"}, {25 * time.Hour, "ok", "", "quarantined"}},
		"an operator releases":                    {{0, "hard", "surge", "provisional"}, {0, "release", "", "none"}, {0, "hard", "", "quarantined"}, {0, "release", "", "none"}},
		"a confirmed one never is made uncertain": {{0, "hard", "", "quarantined"}, {day, "hard", "surge", "quarantined"}},
		"a complaint":                             {{0, "complaint", "", "denylisted"}, {day, "ok", "", "denylisted"}, {day, "release", "", "denylisted"}, {400 * day, "hard", "", "denylisted"}},
		"a complaint about what is quarantined":   {{0, "hard", "surge", "provisional"}, {0, "complaint", "", "denylisted"}, {99 * day, "confirm", "", "denylisted"}},
		"an allowlist entry stays": {
			{0, "allow", "", "allowlisted"},
			{0, "hard", "", "allowlisted"},
			{0, "count", "", "allowlisted"},
			{0, "complaint", "", "allowlisted"},
			{0, "ok", "", "allowlisted"},
			{0, "release", "", "allowlisted"},
		},
		"but not against a person's own wish":   {{0, "allow", "", "allowlisted"}, {0, "unsubscribe", "", "denylisted"}},
		"an operator takes an unsubscribe back": {{0, "unsubscribe", "", "denylisted"}, {0, "allow", "", "allowlisted"}},
	} {
		t.Run(name, func(t *testing.T) {
			e, now := Entry{Key: Key{Folded: "ada@example.com", Scope: Scope{"acme", Everything, ""}}}, start
			key := e.Key
			for i, s := range steps {
				now = now.Add(s.after)
				if e = s.apply(e, now, i, DefaultPolicy()); story(&e) != s.want {
					t.Fatalf("step %d (%s): %s, want %s", i, s.what, story(&e), s.want)
				}
				if e.Key != key {
					t.Fatalf("step %d: key %v", i, e.Key)
				}
			}
		})
	}
}

func TestAnEntryTellsHowItCameAbout(t *testing.T) {
	e := Entry{Key: Key{Folded: "ada@example.com", Scope: Scope{"acme", Everything, ""}}}
	for i, s := range []step{{0, "count", "", ""}, {day, "hard", "surge", ""}} {
		e = s.apply(e, start.Add(time.Duration(i)*day), i, DefaultPolicy())
	}
	want := Entry{
		Key: e.Key, Address: "Ada@example.com", Status: Quarantined, Provisional: true, Origin: FromBounce, Reason: bounce.ReasonUserUnknown, Code: 10,
		Errors: 1, Created: start, Updated: start.Add(day), LastError: start.Add(day),
		Evidence: []Evidence{
			{Time: start.Add(day), Change: WasProvisional, Message: "deliveries/d/messages/1", Text: "550 5.1.1 hard", Code: 10, Effect: bounce.AddressSuppress},
			{Time: start, Change: Counted, Message: "deliveries/d/messages/0", Text: "550 5.1.1 count", Code: 10, Effect: bounce.AddressCount},
		},
	}
	if !reflect.DeepEqual(want, e) {
		t.Errorf("%+v\nwant %+v", e, want)
	}
}

func TestEvidenceIsBoundedButKeepsWhatCounts(t *testing.T) {
	p := DefaultPolicy()
	p.Threshold = MaxThreshold
	e := Entry{Key: Key{Folded: "ada@example.com"}}
	for i := range MaxThreshold {
		e = step{what: "full"}.apply(e, start.Add(time.Duration(i)*day), i, p)
	}
	if e.Status != Quarantined || len(e.Evidence) != MaxThreshold {
		t.Errorf("%s with %d causes", story(&e), len(e.Evidence))
	}
	allowed := Entry{Status: Allowlisted}
	for i := range 100 {
		allowed = step{what: "hard"}.apply(allowed, start.Add(time.Duration(i)*day), i, p)
	}
	if len(allowed.Evidence) != MaxEvidence || allowed.Evidence[0].Message != "deliveries/d/messages/99" || allowed.Evidence[0].Change != WasOverridden {
		t.Errorf("%d causes, the latest %+v", len(allowed.Evidence), allowed.Evidence[0])
	}
	long := Failed(Entry{}, Cause{Evidence: Evidence{Time: start, Effect: bounce.AddressSuppress, Text: strings.Repeat("é", 400)}}, p)
	if text := long.Evidence[0].Text; len(text) != MaxEvidenceText || strings.Trim(text, "é") != "" {
		t.Errorf("text of %d octets: %q", len(text), text)
	}
}

// Whatever happens in whatever order, an entry keeps its rules.
func TestEntriesKeepTheirRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := DefaultPolicy()
		p.Threshold = rapid.IntRange(1, 8).Draw(t, "threshold")
		e, now := Entry{Key: Key{Folded: "ada@example.com"}}, start
		whats := []string{"hard", "count", "full", "ok", "complaint", "unsubscribe", "release", "confirm", "allow", "none"}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			s := step{
				what: rapid.SampledFrom(whats).Draw(t, "what"),
				note: rapid.SampledFrom([]string{"", "surge", "msg=same"}).Draw(t, "note"),
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "hours")) * time.Hour)
			before := e
			kept := append([]Evidence(nil), e.Evidence...)
			e = s.apply(e, now, i, p)
			if !slices.Equal(kept, before.Evidence) {
				t.Fatalf("%s changed the evidence of the old entry", s.what)
			}
			check(t, before, e, s, p)
		}
	})
}

func check(t *rapid.T, before, e Entry, s step, p Policy) {
	counted := 0
	for i := range e.Evidence {
		if e.Evidence[i].counted() {
			counted++
		}
	}
	switch {
	case e.Status == Counting && (e.Errors < 1 || e.Errors >= p.Threshold || e.Errors > counted):
		t.Fatalf("counting %d of %d with %d causes", e.Errors, p.Threshold, counted)
	case e.Provisional && e.Status != Quarantined:
		t.Fatalf("provisional though %s", e.Status.word())
	case before.Status == Denylisted && e.Status != Denylisted && s.what != "allow":
		t.Fatalf("%s took a denylist entry away", s.what)
	case before.Status == Allowlisted && e.Status != Allowlisted && s.what != "unsubscribe":
		t.Fatalf("%s took an allowlist entry away", s.what)
	case before.Status == Quarantined && !before.Provisional && (e.Status == 0 && s.what != "release" || e.Provisional):
		t.Fatalf("%s made a quarantine %s", s.what, story(&e))
	case len(e.Evidence) > MaxEvidence+MaxThreshold, e.Status == 0 && len(e.Evidence) > 0:
		t.Fatalf("%d causes", len(e.Evidence))
	}
}

func TestScopesOfAPolicy(t *testing.T) {
	p := DefaultPolicy()
	if p != (Policy{Threshold: 5, ErrorFree: 10 * day, MailboxFull: 30 * day, ProvisionalHold: day}) {
		t.Errorf("%+v", p)
	}
	all := p
	all.AllTenants, all.TenantUnsubscribe = true, true
	for _, tc := range []struct{ got, want Scope }{
		{p.ErrorScope("acme"), Scope{"acme", Everything, ""}},
		{all.ErrorScope("acme"), Scope{"", Everything, ""}},
		{p.ComplaintScope("acme"), Scope{"acme", Marketing, ""}},
		{all.ComplaintScope("acme"), Scope{"acme", Marketing, ""}},
		{p.UnsubscribeScope("acme", "News.Example"), Scope{"acme", Marketing, "news.example"}},
		{p.UnsubscribeScope("acme", ""), Scope{"acme", Marketing, ""}},
		{all.UnsubscribeScope("acme", "News.Example"), Scope{"acme", Marketing, ""}},
	} {
		if tc.got != tc.want {
			t.Errorf("%v, want %v", tc.got, tc.want)
		}
	}
}
