package learning

import (
	"fmt"
	"slices"
	"strings"
	"time"

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
	if len(e.Text) <= address.MaxEvidenceText-smtpcCut || v.Rule == e.Rule {
		return v, true
	}
	return j.longVerdict(e.Text)
}

// smtpcCut is how much shorter than its cap a cut text may be: a character, and a mark of omission.
const smtpcCut = 8

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
	errors  int // errors that hold
	before  int // errors there were
	hard    bool
	last    *address.Evidence // latest that holds
	verdict bounce.Verdict    // of last, Rule empty when it is unknown
}

// add judges one evidence, latest first.
func (t *tally) add(e *address.Evidence) {
	if !counts(e) {
		t.kept = append(t.kept, *e)
		return
	}
	t.before++
	v, known := t.judge.verdict(e, t.domain)
	effect := e.Effect
	if known {
		effect = min(effect, v.Address)
	}
	if effect < e.Effect {
		t.removed = append(t.removed, *e)
	}
	if effect == bounce.AddressNone {
		return
	}
	held := *e
	held.Effect = effect
	if effect < e.Effect {
		held.Rule, held.Code, held.Change = v.Rule, v.Code, address.Counted
	}
	t.kept = append(t.kept, held)
	t.errors++
	t.hard = t.hard || effect == bounce.AddressSuppress
	if t.last == nil {
		t.last, t.verdict = &held, v
	}
}

// left is the entry that remains.
func (t *tally) left(p address.Policy, now time.Time) address.Entry {
	e := *t.entry
	gone := t.before - t.errors
	e.Errors = min(e.Errors, max(t.errors, e.Errors-gone))
	if t.errors == 0 && e.Errors <= t.before {
		e.Errors = 0
	}
	switch {
	case e.Status == address.Quarantined && (t.hard || e.Errors >= p.Threshold):
	case t.errors > 0:
		e.Status, e.Provisional, e.Errors = address.Counting, false, max(1, e.Errors)
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
