package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/veredus/veredus/mxrules"
)

// DefaultWarmUp is the plan of sources whose warm_up names none.
const DefaultWarmUp = "default"

// WarmUpPlan is a named plan.
type WarmUpPlan struct {
	Name string
	Plan *mxrules.WarmUpPlan
}

// WarmUp is how a source is warmed up.
type WarmUp struct {
	Plan  string // one of Relay.WarmUps
	Stage int    // where it begins, from 1, if nothing else is known of it
}

// WarmUpPlan is the plan of a name; nil for none.
func (r *Relay) WarmUpPlan(name string) *mxrules.WarmUpPlan {
	for _, p := range r.WarmUps {
		if p.Name == name {
			return p.Plan
		}
	}
	return nil
}

// warmUps reads relay.warm_up: the default plan, and others below plans.
func (p *parser) warmUps(c *Config) reader {
	return func(path string, n *yaml.Node) {
		keys := planKeys(p, c, DefaultWarmUp)
		keys["plans"] = func(path string, n *yaml.Node) { p.plans(c, path, n) }
		p.mapping(path, n, keys)
	}
}

// plans reads plans by name.
func (p *parser) plans(c *Config, path string, n *yaml.Node) {
	if !p.plain(n) || n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.errorf(n.Line, "%s must be a mapping of names to plans, not %s", path, kindName(n))
		return
	}
	p.pairs(path, n, func(key, value *yaml.Node) {
		inner := path + "." + key.Value
		p.lines[inner] = key.Line
		if err := name(key.Value); err != nil {
			p.errorf(key.Line, "%s: plan %v", path, err)
			return
		}
		if key.Value == DefaultWarmUp {
			p.errorf(key.Line, "%s: plan %s is relay.warm_up itself; give this one another name", path, DefaultWarmUp)
			return
		}
		p.mapping(inner, value, planKeys(p, c, key.Value))
	})
}

// planKeys are the keys of one plan, which is made.
func planKeys(p *parser, c *Config, name string) section {
	plan := c.Relay.WarmUpPlan(name)
	if plan == nil {
		plan = mxrules.DefaultWarmUpPlan()
		c.Relay.WarmUps = append(c.Relay.WarmUps, WarmUpPlan{Name: name, Plan: plan})
		slices.SortFunc(c.Relay.WarmUps, func(a, b WarmUpPlan) int { return strings.Compare(a.Name, b.Name) })
	}
	return section{
		"caps": func(path string, n *yaml.Node) { plan.Caps = p.caps(path, n) },
		"hours": func(path string, n *yaml.Node) {
			var text string
			p.text(&text, func(s string) (err error) { plan.Hours, err = mxrules.ParseDayHours(s); return err })(path, n)
		},
		"providers": func(path string, n *yaml.Node) { p.planProviders(plan, path, n) },
	}
}

// caps reads messages a day by stage.
func (p *parser) caps(path string, n *yaml.Node) []int64 {
	var caps []int64
	before := p.errs.count()
	p.list(path, n, func(path string, n *yaml.Node) {
		most := 1
		p.integer(&most, 1, mxrules.MaxWarmUpCap)(path, n)
		caps = append(caps, int64(most))
	})
	if before == p.errs.count() && (len(caps) == 0 || len(caps) > mxrules.MaxWarmUpStages) {
		p.errorf(n.Line, "%s has %d stages; list 1 to %d caps, such as [200, 500, 1000]", path, len(caps), mxrules.MaxWarmUpStages)
		return []int64{1} // told once
	}
	return caps
}

// planProviders reads the parts of single providers: a share, or caps of their own.
func (p *parser) planProviders(plan *mxrules.WarmUpPlan, path string, n *yaml.Node) {
	if !p.plain(n) || n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.errorf(n.Line, "%s must be a mapping of providers to shares such as 0.5, or to lists of caps; not %s", path, kindName(n))
		return
	}
	p.pairs(path, n, func(key, value *yaml.Node) {
		inner := path + "." + key.Value
		if err := name(key.Value); err != nil {
			p.errorf(key.Line, "%s: provider %v", path, err)
			return
		}
		one := mxrules.ProviderPlan{Provider: strings.ToLower(key.Value), Share: 1}
		if value.Kind == yaml.SequenceNode {
			one.Share, one.Caps = 0, p.caps(inner, value)
		} else {
			p.number(&one.Share, 0.001, 1)(inner, value)
		}
		if len(plan.Providers) >= mxrules.MaxWarmUpProviders {
			p.errorf(key.Line, "%s has more than %d providers", path, mxrules.MaxWarmUpProviders)
			return
		}
		plan.Providers = append(plan.Providers, one)
	})
}

// sourceWarmUp reads a source's warm_up: on, off, or the stage it begins at and its plan.
func (p *parser) sourceWarmUp(to **WarmUp) reader {
	return func(path string, n *yaml.Node) {
		if n.Kind == yaml.MappingNode {
			w := &WarmUp{Plan: DefaultWarmUp, Stage: 1}
			p.mapping(path, n, section{
				"plan":  p.text(&w.Plan, name),
				"stage": p.integer(&w.Stage, 1, mxrules.MaxWarmUpStages),
			})
			*to = w
			return
		}
		if !p.plain(n) {
			return
		}
		switch strings.ToLower(n.Value) {
		case "on", "true":
			*to = &WarmUp{Plan: DefaultWarmUp, Stage: 1}
		case "off", "false":
			*to = nil
		default:
			p.errorf(n.Line, "%s must be on, off, or a mapping such as {stage: 3, plan: NAME}; not %s", path, kindName(n))
		}
	}
}

// checkWarmUps judges plans, and the sources that name them.
func (p *parser) checkWarmUps(c *Config) {
	for _, w := range c.Relay.WarmUps {
		path := "relay.warm_up"
		if w.Name != DefaultWarmUp {
			path += ".plans." + w.Name
		}
		if err := w.Plan.Check(); err != nil {
			p.errorf(p.line(path), "%s: %v", path, err)
			continue
		}
		c.Warnings = append(c.Warnings, heldPlans(path, w.Plan)...)
	}
	for _, pool := range c.Relay.Pools {
		for i, s := range pool.Sources {
			if s.WarmUp == nil {
				continue
			}
			path := p.sourcePath(pool.Name, i) + ".warm_up"
			plan := c.Relay.WarmUpPlan(s.WarmUp.Plan)
			switch {
			case plan == nil && s.WarmUp.Plan == DefaultWarmUp:
				plan = mxrules.DefaultWarmUpPlan()
			case plan == nil:
				p.errorf(p.line(path), "%s: there is no plan %s; describe it at relay.warm_up.plans.%s, or leave plan out", path, s.WarmUp.Plan, s.WarmUp.Plan)
				continue
			}
			if s.WarmUp.Stage > len(plan.Caps) {
				p.errorf(p.line(path), "%s: stage %d is behind the last of plan %s; use 1 to %d, or leave warm_up out", path, s.WarmUp.Stage, s.WarmUp.Plan, len(plan.Caps))
			}
		}
	}
}

// heldPlans are warnings about parts of a plan by which it may stay at a stage without end.
func heldPlans(path string, plan *mxrules.WarmUpPlan) (list []string) {
	for _, one := range plan.Providers {
		if stage := plan.HeldBy(one.Provider); stage > 0 {
			list = append(list, fmt.Sprintf("%s.providers.%s: %d of the %d messages a day of stage %d are less than 10 %%: a source whose mail goes mostly to %s stays at that stage; give 0.1 or more, or leave it out",
				path, one.Provider, plan.ProviderCap(stage, one.Provider), plan.Cap(stage), stage, one.Provider))
		}
	}
	return list
}

// maxOverflow bounds a chain of overflow pools.
const maxOverflow = 8

// checkOverflow judges where pools overflow to.
func (p *parser) checkOverflow(c *Config) {
	to := map[string]string{}
	for _, pool := range c.Relay.Pools {
		to[pool.Name] = pool.Overflow
	}
	for _, pool := range c.Relay.Pools {
		path := "relay.pools." + pool.Name + ".overflow"
		if pool.Overflow == "" {
			continue
		}
		if !c.hasPool(pool.Overflow) {
			known := strings.Join(slices.Sorted(maps.Keys(to)), ", ")
			p.errorf(p.line(path), "%s: there is no pool %s; known are %s", path, pool.Overflow, known)
			continue
		}
		seen := []string{pool.Name}
		for next := pool.Overflow; next != ""; next = to[next] {
			if next == pool.Name {
				p.errorf(p.line(path), "%s: %s goes in a circle; remove one of these", path, strings.Join(append(seen, next), " -> "))
				break
			}
			if slices.Contains(seen, next) {
				break // a circle behind this pool, told of there
			}
			if seen = append(seen, next); len(seen) > maxOverflow {
				p.errorf(p.line(path), "%s: the chain is longer than %d pools; shorten it", path, maxOverflow)
				break
			}
		}
	}
}

// fillWarmUps makes the default plan known where a source asks for it.
func (c *Config) fillWarmUps() {
	for _, pool := range c.Relay.Pools {
		for _, s := range pool.Sources {
			if s.WarmUp != nil && c.Relay.WarmUpPlan(s.WarmUp.Plan) == nil {
				c.Relay.WarmUps = append(c.Relay.WarmUps, WarmUpPlan{Name: s.WarmUp.Plan, Plan: mxrules.DefaultWarmUpPlan()})
			}
		}
	}
}

// PlanText is a plan in a line, for reports of what changed.
func PlanText(p *mxrules.WarmUpPlan) string {
	text := fmt.Sprintf("%d stages %s, hours %s", len(p.Caps), capsText(p.Caps), p.Hours)
	for _, one := range p.Providers {
		if len(one.Caps) > 0 {
			text += fmt.Sprintf(", %s %s", one.Provider, capsText(one.Caps))
		} else {
			text += fmt.Sprintf(", %s %s", one.Provider, strconv.FormatFloat(one.Share, 'f', -1, 64))
		}
	}
	return text
}

func capsText(caps []int64) string {
	words := make([]string, len(caps))
	for i, n := range caps {
		words[i] = strconv.FormatInt(n, 10)
	}
	return "[" + strings.Join(words, " ") + "]"
}
