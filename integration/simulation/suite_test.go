package simulation

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
)

// scenarios are the files of the suite.
func scenarios(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("scenarios/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func simulated(t testing.TB, file string) *Report {
	t.Helper()
	s, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if raced && recipients(s) > racedMost {
		t.Skip("too large for the race detector")
	}
	r, err := s.Run()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// racedMost is the mail of the largest scenario that the race detector watches, which
// makes it ten times as slow.
const racedMost = 100_000

func recipients(s *Scenario) (n int64) {
	for _, h := range s.HandOvers {
		n += h.Recipients
	}
	return n
}

// Every scenario comes out with figures that make sense: all mail is accounted for,
// nobody beats the oracle by more than bursts and quotas spent early, and our own rules
// are kept.
func TestSuite(t *testing.T) {
	files := scenarios(t)
	if len(files) < 12 {
		t.Fatalf("%d scenarios; the suite has at least twelve", len(files))
	}
	reports := make([]*Report, len(files))
	t.Run("scenarios", func(t *testing.T) {
		for i, file := range files {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
				t.Parallel()
				reports[i] = simulated(t, file)
				makesSense(t, reports[i])
			})
		}
	})
	printSuite(reports)
	if !raced {
		checkBars(t, reports)
	}
}

func makesSense(t *testing.T, r *Report) {
	t.Helper()
	if !(r.Efficiency > 0 && r.Efficiency < 1.15) {
		t.Errorf("efficiency %g is not that of a sender against an oracle", r.Efficiency)
	}
	if r.HiddenEfficiency > r.Efficiency+1e-6 {
		t.Errorf("efficiency %g against the oracle without rules is above %g against the one with them", r.HiddenEfficiency, r.Efficiency)
	}
	if r.LimitOverruns != 0 {
		t.Errorf("%d limits of our own rules were exceeded", r.LimitOverruns)
	}
	for _, p := range r.Receivers {
		f := p.Figures
		if f.Delivered+f.Bounced+f.Expired+f.Waiting != f.Recipients {
			t.Errorf("%s: the ledger does not balance: %+v", p.Name, f)
		}
		if p.Drained && p.Seconds < 0.97*p.OracleSeconds-5 {
			t.Errorf("%s drained in %g s, the oracle in %g s", p.Name, p.Seconds, p.OracleSeconds)
		}
		last := p.Series.Backlog[len(p.Series.Backlog)-1]
		if last != f.Waiting {
			t.Errorf("%s: the series ends with a backlog of %d, %d wait", p.Name, last, f.Waiting)
		}
	}
}

func printSuite(reports []*Report) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "scenario\tefficiency\tpacing\tsteady\tdrained\toracle\trests\tcuts\tmessages\t")
	for _, r := range reports {
		if r != nil {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t\n", r.Scenario, share(r.Efficiency), perCent(r.PacingPercent),
				perCent(r.SteadyPacingPercent), drained(r.Drained, r.Seconds), drained(r.OracleDrained, r.OracleSeconds), r.Rests, r.Cuts, r.Attempts)
		}
	}
	_ = w.Flush()
}

// The same scenario and seed give the same report to the last figure, however many
// processors there are; another seed gives another story.
func TestDeterminism(t *testing.T) {
	for name, text := range map[string]string{"spring-sale.yaml": documented(t), "tiny.yaml": contents(t, "scenarios/tiny.yaml")} {
		var first, again, other bytes.Buffer
		for out, seed := range map[*bytes.Buffer]uint64{&first: 1, &again: 1, &other: 99} {
			s, err := Parse(name, []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			s.Seed = seed
			r, err := s.Run()
			if err != nil {
				t.Fatal(err)
			}
			if err := r.JSON(out); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(first.Bytes(), again.Bytes()) {
			t.Errorf("%s: two runs differ", name)
		}
		if bytes.Equal(first.Bytes(), other.Bytes()) {
			t.Errorf("%s: another seed changes nothing", name)
		}
	}
}

func contents(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
