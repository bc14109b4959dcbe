package simulation

import (
	"maps"
	"slices"

	"github.com/veredus/veredus/mxrules"
)

// WarmUp says that a source is being warmed up.
type WarmUp struct {
	// Stage is where it is at the start, from 1 (default).
	Stage int `yaml:"stage" json:"stage"`
	// Caps are messages a UTC day, by stage; the scenario begins at a midnight. Left
	// out: the built-in table.
	Caps []int64 `yaml:"caps,omitempty" json:"caps,omitempty"`
	// Hours of the UTC day in which they are released, such as "08-20"; left out: all.
	Hours string `yaml:"hours,omitempty" json:"hours,omitempty"`
	// Providers get a share, above 0 to 1, of each cap.
	Providers map[string]float64 `yaml:"providers,omitempty" json:"providers,omitempty"`
}

// plan is the plan that a warm-up goes by.
func (w *WarmUp) plan() (*mxrules.WarmUpPlan, error) {
	plan := mxrules.DefaultWarmUpPlan()
	if len(w.Caps) > 0 {
		plan.Caps = w.Caps
	}
	if w.Hours != "" {
		var err error
		if plan.Hours, err = mxrules.ParseDayHours(w.Hours); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.Providers)) {
		plan.Providers = append(plan.Providers, mxrules.ProviderPlan{Provider: name, Share: w.Providers[name]})
	}
	return plan, plan.Check()
}

// checkWarmUp judges a source's warm-up.
func (s *Scenario) checkWarmUp(at string, w *WarmUp) error {
	if w == nil {
		return nil
	}
	plan, err := w.plan()
	if err != nil {
		return s.problem(at+".warm_up", "%v", err)
	}
	if w.Stage < 0 || w.Stage > len(plan.Caps) {
		return s.problem(at+".warm_up", "stage %d: use 1 to %d", w.Stage, len(plan.Caps))
	}
	return nil
}

// checkOverflow judges where pools overflow to; a chain ends after a few pools, also
// one that goes in a circle.
func (s *Scenario) checkOverflow(pools map[string]bool) error {
	for _, p := range s.Pools {
		if p.Overflow != "" && (!pools[p.Overflow] || p.Overflow == p.Name) {
			return s.problem("pools", "pool %s: overflow %q is no other pool", p.Name, p.Overflow)
		}
	}
	return nil
}

// warmUp is a source's warm-up as a configuration says it: by a plan of its own.
func (r *relayFile) warmUp(src *Source) any {
	w := src.WarmUp
	if w == nil {
		return nil
	}
	plan := map[string]any{}
	if len(w.Caps) > 0 {
		plan["caps"] = w.Caps
	}
	if w.Hours != "" {
		plan["hours"] = w.Hours
	}
	if len(w.Providers) > 0 {
		plan["providers"] = w.Providers
	}
	if r.WarmUp == nil {
		r.WarmUp = map[string]any{"plans": map[string]any{}}
	}
	name := "plan-" + src.Name
	r.WarmUp["plans"].(map[string]any)[name] = plan
	return map[string]any{"stage": max(w.Stage, 1), "plan": name}
}
