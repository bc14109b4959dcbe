package simulation

import (
	"path/filepath"
	"strings"
	"testing"
)

// What the governor promises of receivers that it was not made with: those of
// scenarios/shapes say little or something else than they mean, change, or are small.
const (
	shapesMean     = 0.93 // of the efficiencies, each counted as 1 at most
	shapesLeast    = 0.80
	shapesSteady   = 1.0 // per cent of deliveries
	shapesOverall  = 3.0
	shapesRecovery = 600.0 // seconds after a limit was raised
)

func TestShapes(t *testing.T) {
	files, err := filepath.Glob("scenarios/shapes/*.yaml")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	reports := make([]*Report, len(files))
	t.Run("scenarios", func(t *testing.T) {
		for i, file := range files {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
				t.Parallel()
				reports[i] = simulated(t, file)
				keepsBars(t, reports[i])
			})
		}
	})
	printSuite(reports)
	sum, n := 0.0, 0
	for _, r := range reports {
		if r != nil {
			sum += min(r.Efficiency, 1)
			n++
		}
	}
	if n > 0 && sum/float64(n) < shapesMean {
		t.Errorf("mean efficiency %s, the bar is %s", share(sum/float64(n)), share(shapesMean))
	}
}

func keepsBars(t *testing.T, r *Report) {
	t.Helper()
	if r.Efficiency < shapesLeast {
		t.Errorf("efficiency %s, the bar is %s", share(r.Efficiency), share(shapesLeast))
	}
	if r.SteadyPacingPercent > shapesSteady || r.PacingPercent > shapesOverall {
		t.Errorf("deferred for pacing: %s in the steady state, %s overall", perCent(r.SteadyPacingPercent), perCent(r.PacingPercent))
	}
	if r.LimitOverruns > 0 {
		t.Errorf("%d limits of our own rules were exceeded", r.LimitOverruns)
	}
	for _, p := range r.Receivers {
		for _, c := range p.Recoveries {
			if c.After < 0 || c.After > shapesRecovery {
				t.Errorf("a limit that rose at %g s from %g/s to %g/s was used after %g s", c.At, c.From, c.To, c.After)
			}
		}
	}
}
