package simulation

import (
	"maps"
	"slices"
	"strings"

	"github.com/veredus/veredus/mta/simulate"
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

// WarmUpReport is how a source's warm-up went.
type WarmUpReport struct {
	Source string `json:"source"`
	// Days are the UTC days up to that of the last message.
	Days []WarmUpDay `json:"days"`
}

// WarmUpDay is a warm-up at the end of a UTC day, or of the simulation.
type WarmUpDay struct {
	// Day is from 1, the day on which the scenario starts.
	Day int `json:"day"`
	// Active says that caps hold: the warm-up is neither finished nor off.
	Active bool `json:"active"`
	Stage  int  `json:"stage"`
	Stages int  `json:"stages"`
	// Cap is that day's, ProviderCaps those of single providers; 0 and left out where
	// nothing is limited.
	Cap          int64            `json:"cap"`
	ProviderCaps map[string]int64 `json:"provider_caps,omitempty"`
	// Sent are messages charged that day, Delivered those of its attempts that were taken.
	Sent      int64 `json:"sent"`
	Delivered int64 `json:"delivered"`
	// StalledDays are the days in a row that brought too little mail to get on.
	StalledDays int `json:"stalled_days"`
	// Holding says that the last thing it did was not to get on; Why is that in words,
	// empty before the first.
	Holding bool   `json:"holding"`
	Why     string `json:"why,omitempty"`
}

// warmUpReports are the warm-ups by source, in the order of their names.
func warmUpReports(days []simulate.WarmUpDay) (list []WarmUpReport) {
	bySource := map[string][]WarmUpDay{}
	for i := range days {
		d := &days[i]
		one := WarmUpDay{
			Day: d.Day, Active: d.Active, Stage: d.State.Stage, Stages: d.Stages, Sent: d.State.Sent, Delivered: d.State.Delivered,
			StalledDays: d.State.Stalled, Why: d.State.Cause,
		}
		if d.Active {
			one.Cap, one.ProviderCaps = d.Cap, d.ProviderCaps
			one.Holding = one.Why != "" && !strings.HasPrefix(one.Why, "advanced") && !strings.HasPrefix(one.Why, "set to")
		}
		bySource[d.Source] = append(bySource[d.Source], one)
	}
	for _, name := range slices.Sorted(maps.Keys(bySource)) {
		list = append(list, WarmUpReport{Source: name, Days: bySource[name]})
	}
	return list
}
