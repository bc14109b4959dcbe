package server

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/server/config"
)

// changes lists what new settings change, one line each. It is pure.
func changes(was, is *settings) []string {
	return slices.Concat(
		ruleChanges(was.rules, is.rules),
		bounceChanges(was.bounceSource, is.bounceSource),
		keyChanges(was, is),
		poolChanges(was.cfg, is.cfg),
		policyChanges(was.cfg, is.cfg),
	)
}

// policyChanges compares what is done with addresses and with deliveries that do harm.
func policyChanges(was, is *config.Config) []string {
	before, after := policies(was), policies(is)
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if before[key] != after[key] {
			lines = append(lines, fmt.Sprintf("%s: %s -> %s", key, before[key], after[key]))
		}
	}
	return lines
}

func policies(c *config.Config) map[string]string {
	scope, unsubscribe := "tenant", "list"
	if c.Addresses.AllTenants {
		scope = "all"
	}
	if c.Addresses.TenantUnsubscribe {
		unsubscribe = "tenant"
	}
	p := &c.Protection
	return map[string]string{
		"inbound.addresses":            strings.Join(c.Inbound.Addresses, " "),
		"inbound.unsubscribe":          strings.Join(c.Inbound.Unsubscribe, " "),
		"addresses.threshold":          fmt.Sprint(c.Addresses.Threshold),
		"addresses.scope":              scope,
		"addresses.unsubscribe":        unsubscribe,
		"protection.enabled":           fmt.Sprint(p.Enabled),
		"protection.hard_percent":      fmt.Sprint(p.HardPercent),
		"protection.hard_after":        fmt.Sprint(p.HardAfter),
		"protection.complaint_percent": fmt.Sprint(p.ComplaintPercent),
		"protection.complaint_least":   fmt.Sprint(p.ComplaintLeast),
		"protection.auth_percent":      fmt.Sprint(p.AuthPercent),
		"protection.auth_after":        fmt.Sprint(p.AuthAfter),
		"protection.auth_domains":      fmt.Sprint(p.AuthDomains),
		"protection.content_percent":   fmt.Sprint(p.ContentPercent),
		"protection.content_after":     fmt.Sprint(p.ContentAfter),
		"storage.min_free":             config.SizeText(c.Storage.MinFree),
		"storage.min_free_sending":     config.SizeText(c.Storage.MinFreeSending),
		"retention.events_age":         fmt.Sprint(c.Retention.EventsAge),
		"retention.events_size":        config.SizeText(c.Retention.EventsSize),
		"retention.messages":           fmt.Sprint(c.Retention.Messages),
	}
}

// ruleChanges compares MX rules by id.
func ruleChanges(was, is *mxrules.Rules) []string {
	if was.Equal(is) {
		return nil
	}
	lines := providerChanges(was, is)
	before, after := map[string]mxrules.Rule{}, map[string]bool{}
	for _, r := range was.All() {
		before[r.ID] = r
	}
	for _, r := range is.All() {
		after[r.ID] = true
		old, known := before[r.ID]
		if !known {
			lines = append(lines, fmt.Sprintf("mx_rules: rule %q added", r.ID))
			continue
		}
		lines = append(lines, ruleChange(&old, &r)...)
	}
	for _, r := range was.All() {
		if !after[r.ID] {
			lines = append(lines, fmt.Sprintf("mx_rules: rule %q removed", r.ID))
		}
	}
	if len(lines) == 0 {
		lines = append(lines, "mx_rules: the order of the rules changed")
	}
	return lines
}

// ruleChange compares one rule, field by field.
func ruleChange(old, r *mxrules.Rule) []string {
	var lines []string
	for f := range mxrules.Field(mxrules.NumFields) {
		before, after := "unset", "unset"
		if old.Set.Has(f) {
			before = old.Limits.Text(f)
		}
		if r.Set.Has(f) {
			after = r.Limits.Text(f)
		}
		if before != after {
			lines = append(lines, fmt.Sprintf("mx_rules: rule %q: %s %s -> %s", r.ID, f, before, after))
		}
	}
	if len(lines) == 0 && !old.Equal(r) || !sameMatch(old, r) {
		lines = append(lines, fmt.Sprintf("mx_rules: rule %q: matches other paths", r.ID))
	}
	return lines
}

func sameMatch(a, b *mxrules.Rule) bool {
	return slices.Equal(a.Hosts, b.Hosts) && slices.Equal(a.Providers, b.Providers) &&
		slices.Equal(a.Domains, b.Domains) && slices.Equal(a.Sources, b.Sources)
}

func providerChanges(was, is *mxrules.Rules) []string {
	before, after := suffixes(was), suffixes(is)
	return named("mx_rules: provider", before, after, func(old, now string) string {
		return fmt.Sprintf("suffixes %s -> %s", old, now)
	})
}

func suffixes(r *mxrules.Rules) map[string]string {
	out := map[string]string{}
	for _, p := range r.Providers() {
		out[p.Name] = strings.Join(p.Suffixes, " ")
	}
	return out
}

// named compares things by name: added, removed, or changed as how says.
func named(what string, was, is map[string]string, how func(old, now string) string) []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(is)) {
		switch old, known := was[name]; {
		case !known:
			lines = append(lines, fmt.Sprintf("%s %q added", what, name))
		case old != is[name]:
			lines = append(lines, fmt.Sprintf("%s %q: %s", what, name, how(old, is[name])))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if _, known := is[name]; !known {
			lines = append(lines, fmt.Sprintf("%s %q removed", what, name))
		}
	}
	return lines
}

// bounceChanges compares the operator's bounce rules by id.
func bounceChanges(was, is []byte) []string {
	if bytes.Equal(was, is) {
		return nil
	}
	before, after := rulesByID(was), rulesByID(is)
	lines := named("bounce_rules: rule", before, after, func(string, string) string { return "changed" })
	if len(lines) == 0 && len(before)+len(after) > 0 {
		lines = append(lines, "bounce_rules: providers, the order of the rules or comments changed")
	}
	return lines
}

// rulesByID is the text of each rule of a file that was found to be sound.
func rulesByID(source []byte) map[string]string {
	var doc struct {
		Rules []yaml.Node `yaml:"rules"`
	}
	if yaml.Unmarshal(source, &doc) != nil {
		return nil
	}
	rules := map[string]string{}
	for i := range doc.Rules {
		var id struct {
			ID string `yaml:"id"`
		}
		text, err := yaml.Marshal(&doc.Rules[i])
		if err == nil && doc.Rules[i].Decode(&id) == nil {
			rules[id.ID] = string(text)
		}
	}
	return rules
}

// keyChanges compares signing keys by record name, and return paths by domain.
func keyChanges(was, is *settings) []string {
	lines := named("dkim: key", records(was.keys), records(is.keys), func(string, string) string { return "replaced by another" })
	return append(lines, named("dkim: domain", returnPaths(was.cfg), returnPaths(is.cfg), func(old, now string) string {
		return fmt.Sprintf("bounce_domain %s -> %s", old, now)
	})...)
}

// records is the public half of each key by its place in the DNS.
func records(keys []*dkim.Key) map[string]string {
	out := map[string]string{}
	for _, k := range keys {
		out[dkim.RecordName(k)] = dkim.Record(k)
	}
	return out
}

func returnPaths(cfg *config.Config) map[string]string {
	out := map[string]string{}
	for _, d := range cfg.DKIM.Domains {
		if d.BounceDomain != "" {
			out[d.Domain] = d.BounceDomain
		} else if out[d.Domain] == "" {
			out[d.Domain] = "the From domain"
		}
	}
	return out
}

// poolChanges compares sources by pool and name.
func poolChanges(was, is *config.Config) []string {
	how := func(old, now string) string { return fmt.Sprintf("%s -> %s", old, now) }
	lines := named("pools: source", sourceTexts(was), sourceTexts(is), how)
	lines = append(lines, named("pools: overflow of", overflows(was), overflows(is), how)...)
	lines = append(lines, named("pools: move_blocked of", moves(was), moves(is), how)...)
	return append(lines, named("warm_up: plan", plans(was), plans(is), how)...)
}

// overflows are the pools that others overflow to.
func overflows(cfg *config.Config) map[string]string {
	out := map[string]string{}
	for _, p := range cfg.Relay.Pools {
		if p.Overflow != "" {
			out[p.Name] = p.Overflow
		}
	}
	return out
}

// moves are the pools in which mail of a blocked source goes by others.
func moves(cfg *config.Config) map[string]string {
	out := map[string]string{}
	for _, p := range cfg.Relay.Pools {
		if p.MoveBlocked {
			out[p.Name] = "true"
		}
	}
	return out
}

func plans(cfg *config.Config) map[string]string {
	out := map[string]string{}
	for _, p := range cfg.Relay.WarmUps {
		out[p.Name] = config.PlanText(p.Plan)
	}
	return out
}

func sourceTexts(cfg *config.Config) map[string]string {
	out := map[string]string{}
	for _, p := range cfg.Relay.Pools {
		for _, s := range p.Sources {
			address := "any address"
			if s.Address.IsValid() {
				address = s.Address.String()
			}
			text := fmt.Sprintf("%s as %s, weight %d", address, s.Hostname, s.Weight)
			if s.WarmUp != nil {
				text += fmt.Sprintf(", warm-up by plan %s from stage %d", s.WarmUp.Plan, s.WarmUp.Stage)
			}
			out[p.Name+"/"+s.Name] = text
		}
	}
	return out
}
