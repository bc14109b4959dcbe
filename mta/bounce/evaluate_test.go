package bounce

import (
	"encoding/csv"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sample is one labelled reply of testdata/replies.csv.
type sample struct {
	reply    string
	accepted []string // acceptable bounce codes
	primary  string
	reason   string
	hardCase string
}

func loadSamples(tb testing.TB) []sample {
	tb.Helper()
	f, err := os.Open("testdata/replies.csv")
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		tb.Fatal(err)
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	var samples []sample
	for _, row := range rows[1:] {
		s := sample{
			reply: row[column["reply"]], accepted: strings.Fields(row[column["momentum_ok"]]), primary: row[column["momentum_primary"]],
			reason: row[column["adobe_reason"]], hardCase: row[column["hard_case"]],
		}
		if s.primary != "" && len(s.accepted) > 0 {
			samples = append(samples, s)
		}
	}
	return samples
}

// score counts as the published scoring of the data set does: a false hard is
// a hard code where none is acceptable, a missed hard the other way round.
type score struct {
	n, ok, undetermined, falseHard, mayNotBeHard, missedHard, mustBeHard int
}

func isHard(code string) bool { return code == "10" || code == "30" || code == "90" }

func (s *score) add(got string, accepted []string) bool {
	anyHard := slices.ContainsFunc(accepted, isHard)
	onlyHard := !slices.ContainsFunc(accepted, func(c string) bool { return !isHard(c) })
	ok := slices.Contains(accepted, got)
	s.n++
	count(&s.ok, ok)
	count(&s.undetermined, got == "1")
	count(&s.mayNotBeHard, !anyHard)
	count(&s.falseHard, !anyHard && isHard(got))
	count(&s.mustBeHard, onlyHard)
	count(&s.missedHard, onlyHard && !isHard(got))
	return ok
}

func count(n *int, yes bool) {
	if yes {
		*n++
	}
}

func percent(part, whole int) float64 { return 100 * float64(part) / float64(max(1, whole)) }

// The floor of the evaluation, in percent. Raise it when the rules improve.
const (
	floorAcceptable     = 98.0
	ceilingUndetermined = 0.5
	ceilingFalseHard    = 0.5
	ceilingMissedHard   = 1.5
)

// TestEvaluation qualifies every labelled reply and fails below the committed floor.
func TestEvaluation(t *testing.T) {
	table := Default()
	var all score
	for _, s := range loadSamples(t) {
		v := table.Qualify(Input{Reply: ParseReply(s.reply)})
		if !all.add(strconv.Itoa(v.Code), s.accepted) {
			t.Logf("code %d by %s, acceptable %v: %s", v.Code, v.Rule, s.accepted, s.reply)
		}
	}
	acceptable := percent(all.ok, all.n)
	undetermined := percent(all.undetermined, all.n)
	falseHard := percent(all.falseHard, all.mayNotBeHard)
	missedHard := percent(all.missedHard, all.mustBeHard)
	t.Logf("%d replies: acceptable %.1f %%, undetermined %.1f %%, false hard %.1f %% (%d of %d), missed hard %.1f %% (%d of %d)",
		all.n, acceptable, undetermined, falseHard, all.falseHard, all.mayNotBeHard, missedHard, all.missedHard, all.mustBeHard)
	if acceptable < floorAcceptable || undetermined > ceilingUndetermined || falseHard > ceilingFalseHard || missedHard > ceilingMissedHard {
		t.Errorf("below the floor: acceptable >= %v, undetermined <= %v, false hard <= %v, missed hard <= %v",
			floorAcceptable, ceilingUndetermined, ceilingFalseHard, ceilingMissedHard)
	}
}

// TestNoGoodAddressIsSuppressed is the promise behind the false hards: whatever
// a reply is taken for, only those that speak of a bad mailbox suppress.
func TestNoGoodAddressIsSuppressed(t *testing.T) {
	table := Default()
	wrong, may := 0, 0
	for _, s := range loadSamples(t) {
		if slices.Contains(s.accepted, "10") {
			continue
		}
		may++
		if v := table.Qualify(Input{Reply: ParseReply(s.reply)}); v.Address == AddressSuppress {
			wrong++
			t.Logf("suppressed by %s, acceptable %v: %s", v.Rule, s.accepted, s.reply)
		}
	}
	if percent(wrong, may) > ceilingFalseHard {
		t.Errorf("%d of %d good addresses suppressed", wrong, may)
	}
}

// TestTemporaryNeverSuppresses tells every labelled reply again with a 4xx code.
func TestTemporaryNeverSuppresses(t *testing.T) {
	table := Default()
	for _, s := range loadSamples(t) {
		r := ParseReply(s.reply)
		r.Code = 451
		v := table.Qualify(Input{Reply: r})
		if v.Address == AddressSuppress || v.Type == TypeHard {
			t.Errorf("%s: a 4xx suppresses by %s", s.reply, v.Rule)
		}
		if !v.WillRetry() && v.Code != CodeAdminFailure {
			t.Errorf("%s: a 4xx is final by %s", s.reply, v.Rule)
		}
	}
}
