package learning

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/server/address"
)

// judge says what kept evidence means under the rules of today.
type judge struct {
	rules *bounce.Table
	// long are texts with another meaning than before that are longer than what evidence keeps of
	// them; what is cut off cannot be qualified again by itself.
	long []longText
}

type longText struct {
	normalised string
	verdict    bounce.Verdict
}

// verdict qualifies the evidence's reply again. known is false when that cannot be
// told: a failure that no server said, or a reply that was cut and is
// not among the long texts; then what was is kept.
func (j *judge) verdict(e *address.Evidence, domain string) (v bounce.Verdict, known bool) {
	if e.Rule == "" || strings.HasPrefix(e.Rule, "own:") || e.Text == "" && e.Enhanced == "" {
		return v, false
	}
	reply := smtpc.Reply{Code: e.ReplyCode, Enhanced: e.Enhanced, Text: e.Text}
	reply.Phase, _ = smtpc.ParsePhase(e.Phase)
	if reply.Code == 0 { // a bounce mail without the code, which speaks of a failure for good
		reply.Code = 550
		if strings.HasPrefix(e.Enhanced, "4") {
			reply.Code = 450
		}
	}
	v = j.rules.Qualify(bounce.Input{Reply: reply, Provider: e.Provider, Domain: domain})
	if len(e.Text) < cutEvidence {
		return v, true
	}
	if whole, found := j.longVerdict(e.Text); found {
		return whole, true
	}
	return v, v.Rule == e.Rule
}

// cutEvidence is from how many octets on a text may have been cut at a character's border.
const cutEvidence = address.MaxEvidenceText - utf8.UTFMax + 1

// longVerdict finds the text that the cut one begins.
func (j *judge) longVerdict(text string) (bounce.Verdict, bool) {
	head := bounce.Normalise(text)
	if i := strings.LastIndexByte(head, ' '); i > 0 {
		head = head[:i+1] // the last word may be cut
	}
	for i := range j.long {
		if strings.HasPrefix(j.long[i].normalised, head) {
			return j.long[i].verdict, true
		}
	}
	return bounce.Verdict{}, false
}

// counts reports whether an evidence is an error that was held against the address.
func counts(e *address.Evidence) bool {
	switch e.Change {
	case address.Counted, address.WasQuarantined, address.WasProvisional, address.WasConfirmed:
		return e.Effect != bounce.AddressNone && e.Rule != ""
	}
	return false
}

// ends reports whether an evidence ended what was counted before it.
func ends(e *address.Evidence) bool {
	switch e.Change {
	case address.WasReleased, address.WasCleared, address.WasAllowlisted, address.WasDenylisted:
		return true
	}
	return false
}

// isWord reports whether an evidence is an operator's word for the quarantine, which no rule undoes.
func isWord(e *address.Evidence) bool {
	return e.Rule == "" && (e.Change == address.WasConfirmed || e.Change == address.WasQuarantined)
}

// undoing is what new rules leave of an entry.
type undoing struct {
	entry   address.Entry      // afterwards; Status 0: it goes
	removed []address.Evidence // what no longer holds, latest first
}

// undo takes out of an entry that errors caused what the rules no longer hold
// against the address: the counter drops, and a quarantine that no longer has
// its cause ends. It never adds anything: neither an error nor a quarantine. changed is
// false when all holds, and for entries of another origin. It is pure.
func undo(e address.Entry, j *judge, p address.Policy, now time.Time) (u undoing, changed bool) {
	caused := e.Origin == address.FromBounce || e.Origin == address.FromOutOfBandBounce
	if !caused || e.Status != address.Counting && e.Status != address.Quarantined {
		return undoing{}, false
	}
	_, domain, _ := strings.Cut(e.Folded, "@")
	t := tally{entry: &e, judge: j, domain: domain}
	for i := range e.Evidence {
		if isWord(&e.Evidence[i]) {
			return undoing{}, false
		}
		if ends(&e.Evidence[i]) {
			t.kept = append(t.kept, e.Evidence[i:]...)
			break
		}
		t.add(&e.Evidence[i])
	}
	if len(t.removed) == 0 {
		return undoing{}, false
	}
	return undoing{entry: t.left(p, now), removed: t.removed}, true
}

// tally sums up what holds.
type tally struct {
	entry   *address.Entry
	judge   *judge
	domain  string
	kept    []address.Evidence
	removed []address.Evidence
	counted []*address.Evidence // that Errors counts from now on, as far as evidence tells
	errors  int                 // by which Errors changes
	hard    bool                // a suppressing error holds
	last    *address.Evidence   // latest that holds
	verdict bounce.Verdict      // of last, zero when it is not known
}

// countEvery is how far apart errors are that count, see address.Failed.
const countEvery = 24 * time.Hour

// add judges one evidence, latest first.
func (t *tally) add(e *address.Evidence) {
	if !counts(e) {
		t.kept = append(t.kept, *e)
		return
	}
	held := *e
	v, known := t.judge.verdict(e, t.domain)
	if known {
		held.Effect = min(e.Effect, v.Address)
	}
	switch {
	case held.Effect == e.Effect:
		t.hard = t.hard || e.Effect == bounce.AddressSuppress
	case e.Effect == bounce.AddressCount:
		t.removed, t.errors = append(t.removed, *e), t.errors-1
		return
	default:
		t.removed = append(t.removed, *e)
		if held.Effect == bounce.AddressNone || t.counts(e) {
			return
		}
		held.Change, held.Rule, held.Code = address.Counted, v.Rule, v.Code
		t.errors++
	}
	if held.Effect == bounce.AddressCount {
		t.counted = append(t.counted, &held)
	}
	t.kept = append(t.kept, held)
	if t.last == nil {
		t.last, t.verdict = &held, v
	}
}

// counts reports whether an error that no longer suppresses is counted with another
// one: of the same message, or of the same day.
func (t *tally) counts(e *address.Evidence) bool {
	return slices.ContainsFunc(t.counted, func(c *address.Evidence) bool {
		return c.Message != "" && c.Message == e.Message || c.Time.Sub(e.Time).Abs() < countEvery
	})
}

// left is the entry that remains.
func (t *tally) left(p address.Policy, now time.Time) address.Entry {
	e := *t.entry
	e.Errors = max(0, e.Errors+t.errors)
	switch {
	case e.Status == address.Quarantined && (t.hard || e.Errors >= p.Threshold):
	case e.Errors > 0:
		e.Status, e.Provisional = address.Counting, false
	default:
		return address.Entry{Key: e.Key} // nothing is left of it
	}
	if t.last != nil {
		e.Code, e.LastError = t.last.Code, t.last.Time
		if t.verdict.Rule != "" {
			e.Reason, e.Tag = t.verdict.Reason, t.verdict.Tag
		}
	}
	e.Updated = now
	e.Evidence = append([]address.Evidence{t.note(now)}, t.kept...)
	e.Evidence = trimmed(e.Evidence)
	return e
}

// trimmed drops the oldest evidence that counts for nothing until the rest may be kept.
func trimmed(list []address.Evidence) []address.Evidence {
	for i := len(list) - 1; i > 0 && len(list) > address.MaxEvidence; i-- {
		if !counts(&list[i]) {
			list = slices.Delete(list, i, i+1)
		}
	}
	return list
}

// note is the evidence of the undoing itself.
func (t *tally) note(now time.Time) address.Evidence {
	n := t.removed[0]
	text := "no longer held against the address: " + n.Text
	if len(t.removed) > 1 {
		text = fmt.Sprintf("%d errors are no longer held against the address, the last: %s", len(t.removed), n.Text)
	}
	return address.Evidence{
		Time: now, Change: address.WasRequalified, Message: n.Message, ReplyCode: n.ReplyCode, Enhanced: n.Enhanced,
		Text: cut(text, address.MaxEvidenceText), Phase: n.Phase, Code: n.Code, Rule: n.Rule, Destination: n.Destination, Provider: n.Provider,
	}
}
