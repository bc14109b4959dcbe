package simulation

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"text/tabwriter"

	"github.com/veredus/veredus/mta/simulate"
)

// The bars that our governor must not fall below. They stand just under what it
// reaches over the whole suite; raise them when it gets better.
const (
	leastMean   = 0.98 // of the efficiencies, each counted as 1 at most
	leastOfAll  = 0.92 // of any scenario
	mostSteady  = 1.0  // per cent of deliveries deferred for pacing in the steady state
	mostOverall = 1.0  // per cent over all of a scenario
	leastWins   = 15   // scenarios in which no baseline does as well without more deferrals
)

// A baseline's run takes up to a minute and a half, because most of what it sends is
// refused. So their figures are recorded, and measured anew on request:
//
//	go test ./integration/simulation -run TestBaselines -baselines -timeout 30m
var measureBaselines = flag.Bool("baselines", false, "run the baselines on every scenario and record their figures")

const recordedFile = "testdata/baselines.json"

// score are what is compared of a run.
type score struct {
	Efficiency float64 `json:"efficiency"`
	Pacing     float64 `json:"pacing_percent"`
}

// recorded are the baselines' figures by scenario and name.
type recorded map[string]map[string]score

func readRecorded(t *testing.T) recorded {
	t.Helper()
	data, err := os.ReadFile(recordedFile)
	if err != nil {
		t.Fatal(err)
	}
	r := recorded{}
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// simulatedWith runs a scenario with a baseline in the governor's place.
func simulatedWith(t testing.TB, file string, b baseline) *Report {
	t.Helper()
	s, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := s.Config()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dispatch.Learner = b.make
	res, err := simulate.Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s.report(&cfg, res)
}

// The recorded figures are those of the baselines: all of them on request, otherwise
// a scenario in which they are quick.
func TestBaselines(t *testing.T) {
	if raced {
		t.Skip("too large for the race detector")
	}
	if *measureBaselines {
		recordBaselines(t)
		return
	}
	const quick = "scenarios/load-latency.yaml"
	want := readRecorded(t)["load-latency"]
	for _, b := range baselines {
		if r := simulatedWith(t, quick, b); scoreOf(r) != want[b.name] {
			t.Errorf("%s on %s: %+v, recorded %+v; run the test with -baselines", b.name, quick, scoreOf(r), want[b.name])
		}
	}
}

func scoreOf(r *Report) score { return score{r.Efficiency, r.PacingPercent} }

func recordBaselines(t *testing.T) {
	r := recorded{}
	var mu sync.Mutex
	t.Run("all", func(t *testing.T) {
		for _, file := range scenarios(t) {
			for _, b := range baselines {
				t.Run(file+" "+b.name, func(t *testing.T) {
					t.Parallel()
					report := simulatedWith(t, file, b)
					mu.Lock()
					defer mu.Unlock()
					if r[report.Scenario] == nil {
						r[report.Scenario] = map[string]score{}
					}
					r[report.Scenario][b.name] = scoreOf(report)
				})
			}
		}
	})
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recordedFile, append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// checkBars compares our governor with its bars, the baselines and the oracle.
func checkBars(t *testing.T, reports []*Report) {
	t.Helper()
	others := readRecorded(t)
	mean, wins, n := 0.0, 0, 0
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "scenario\tveredus\t\t")
	for _, b := range baselines {
		fmt.Fprintf(w, "%s\t\t", b.name)
	}
	fmt.Fprintln(w, "oracle\t")
	for _, r := range reports {
		if r == nil {
			continue
		}
		n++
		mean += min(r.Efficiency, 1)
		checkScenario(t, r)
		won := true
		fmt.Fprintf(w, "%s\t%s\t%s\t", r.Scenario, share(r.Efficiency), perCent(r.PacingPercent))
		for _, b := range baselines {
			f, ok := others[r.Scenario][b.name]
			if !ok {
				t.Errorf("%s: %s is not recorded; run TestBaselines with -baselines", r.Scenario, b.name)
			}
			won = won && beats(scoreOf(r), f)
			fmt.Fprintf(w, "%s\t%s\t", share(f.Efficiency), perCent(f.Pacing))
		}
		if won {
			wins++
		}
		fmt.Fprintln(w, "100.0 %\t")
	}
	_ = w.Flush()
	if n == 0 {
		return
	}
	mean /= float64(n)
	fmt.Printf("mean %s, better than every baseline in %d of %d\n", share(mean), wins, n)
	if mean < leastMean {
		t.Errorf("mean efficiency %s, the bar is %s", share(mean), share(leastMean))
	}
	if n == len(reports) && wins < leastWins {
		t.Errorf("better than every baseline in %d scenarios, the bar is %d", wins, leastWins)
	}
}

func checkScenario(t *testing.T, r *Report) {
	t.Helper()
	if r.Efficiency < leastOfAll {
		t.Errorf("%s: efficiency %s, the bar is %s", r.Scenario, share(r.Efficiency), share(leastOfAll))
	}
	if r.SteadyPacingPercent > mostSteady || r.PacingPercent > mostOverall {
		t.Errorf("%s: %s of deliveries deferred for pacing, %s in the steady state; the bars are %s and %s", r.Scenario,
			perCent(r.PacingPercent), perCent(r.SteadyPacingPercent), perCent(mostOverall), perCent(mostSteady))
	}
}

// beats reports whether ours delivers as soon as a baseline or sooner, to a hundredth
// and counted up to the oracle, with no more deferrals, to a hundredth of a per cent:
// the precision of the table.
func beats(ours, other score) bool {
	const hundredth = 0.01
	return min(ours.Efficiency, 1)+hundredth > min(other.Efficiency, 1) && ours.Pacing < other.Pacing+hundredth
}
