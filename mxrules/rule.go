// Package mxrules says what may be done on the path from a source to a
// destination, and how the path reacts to what the receiver answers.
//
// Rules is an ordered set of rules, read by package rulefile or built in.
// Match gives the limits of one path, with the rule and line that each came
// from. A Governor keeps those limits for one path: ask AllowConnection,
// AllowClaim and AllowMessage before acting, report with ConnectionOpened,
// Claimed and MessageSent, and feed replies to Observe, Failed and Worked.
//
// Everything here is pure: no I/O, no goroutines, time is a parameter. Rules
// may be read by many goroutines; a Governor has one owner.
package mxrules

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Position is a place in a rule file. Line is 0 when there is no line.
type Position struct {
	File string
	Line int
}

// String is "file:line", or the file alone.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Rule sets some limits for the paths that it matches. It matches when every
// kind of condition that it has is met; a kind is met when one of its values
// is. A rule without conditions matches every path.
type Rule struct {
	// ID is unique in its set: letters, digits, ".", "-" and "_".
	ID string
	// Hosts are masks on the best MX host.
	Hosts []Mask
	// Providers are provider names.
	Providers []string
	// Domains are masks on the recipient domain.
	Domains []Mask
	// Sources are ranges of local addresses.
	Sources []netip.Prefix

	// Set says which fields of Limits the rule decides.
	Set    Fields
	Limits Limits

	// At is where the rule stands, Pos where each of its fields does.
	At  Position
	Pos [NumFields]Position
}

// Generic reports whether the rule matches every path.
func (r *Rule) Generic() bool {
	return len(r.Hosts) == 0 && len(r.Providers) == 0 && len(r.Domains) == 0 && len(r.Sources) == 0
}

// Equal reports whether two rules say the same, wherever they stand.
func (r *Rule) Equal(o *Rule) bool {
	mine, theirs := r.Limits, o.Limits
	mine.Reactions, theirs.Reactions = nil, nil
	return r.ID == o.ID && r.Set == o.Set && mine == theirs && r.Limits.Reactions.Equal(o.Limits.Reactions) &&
		slices.Equal(r.Hosts, o.Hosts) && slices.Equal(r.Providers, o.Providers) &&
		slices.Equal(r.Domains, o.Domains) && slices.Equal(r.Sources, o.Sources)
}

// maxConditions bounds the values of one rule's conditions.
const maxConditions = 10_000

func (r *Rule) check(known map[string]bool) error {
	if err := CheckID(r.ID); err != nil {
		return err
	}
	if len(r.Hosts)+len(r.Providers)+len(r.Domains)+len(r.Sources) > maxConditions {
		return fmt.Errorf("rule %s: more than %d conditions; split it", r.ID, maxConditions)
	}
	for _, m := range slices.Concat(r.Hosts, r.Domains) {
		if err := m.Check(); err != nil {
			return fmt.Errorf("rule %s: %w", r.ID, err)
		}
	}
	for _, p := range r.Providers {
		if !known[p] {
			return fmt.Errorf("rule %s: provider %.40q is not defined", r.ID, p)
		}
	}
	for _, s := range r.Sources {
		if !s.IsValid() {
			return fmt.Errorf("rule %s: source range is not valid", r.ID)
		}
	}
	if r.Set&^AllFields != 0 {
		return fmt.Errorf("rule %s: unknown fields %b", r.ID, r.Set&^AllFields)
	}
	for f := range Field(NumFields) {
		if !r.Set.Has(f) {
			continue
		}
		if err := r.Limits.Check(f); err != nil {
			return fmt.Errorf("rule %s: %s: %w", r.ID, f, err)
		}
	}
	return nil
}

// CheckID reports whether a rule id is well formed: 1 to 64 letters, digits, ".", "-" and "_".
func CheckID(id string) error {
	if err := checkName(strings.ToLower(id)); err != nil {
		return fmt.Errorf("rule id: %w", err)
	}
	return nil
}

// Rules is an immutable ordered set of rules and the providers that they name.
type Rules struct {
	rules     []Rule
	providers []Provider
}

// NewRules checks and copies rules and providers. Rule ids, provider names and
// MX suffixes must be unique, and every provider named by a rule defined. A
// rule without conditions that is not the last one is kept as a rule on the MX
// mask "*": it matches the same, but is no generic rule. Limits that a rule
// does not set are dropped.
func NewRules(rules []Rule, providers []Provider) (*Rules, error) {
	set := &Rules{rules: make([]Rule, 0, len(rules)), providers: make([]Provider, 0, len(providers))}
	known, err := set.addProviders(providers)
	if err != nil {
		return nil, err
	}
	ids := make(map[string]bool, len(rules))
	for i := range rules {
		r := &rules[i]
		if err := r.check(known); err != nil {
			return nil, err
		}
		if ids[r.ID] {
			return nil, fmt.Errorf("rule id %s is used twice", r.ID)
		}
		ids[r.ID] = true
		set.rules = append(set.rules, r.normal(i == len(rules)-1))
	}
	return set, nil
}

func (set *Rules) addProviders(providers []Provider) (map[string]bool, error) {
	known := make(map[string]bool, len(providers))
	owner := make(map[string]string)
	for _, p := range providers {
		if err := p.Check(); err != nil {
			return nil, err
		}
		if known[p.Name] {
			return nil, fmt.Errorf("provider %s is defined twice", p.Name)
		}
		known[p.Name] = true
		own := Provider{Name: p.Name, SharedHosts: p.SharedHosts, OwnDomains: slices.Clone(p.OwnDomains)}
		for _, s := range p.Suffixes {
			s = strings.ToLower(s)
			if o, taken := owner[s]; taken {
				return nil, fmt.Errorf("MX suffix %s of provider %s belongs to provider %s", s, p.Name, o)
			}
			owner[s] = p.Name
			own.Suffixes = append(own.Suffixes, s)
		}
		set.providers = append(set.providers, own)
	}
	return known, nil
}

// normal is a copy with only the fields that are set and no shared slices.
func (r *Rule) normal(last bool) Rule {
	n := Rule{
		ID: r.ID, Set: r.Set, At: r.At,
		Hosts:     slices.Clone(r.Hosts),
		Providers: slices.Clone(r.Providers),
		Domains:   slices.Clone(r.Domains),
		Sources:   slices.Clone(r.Sources),
	}
	for f := range Field(NumFields) {
		if r.Set.Has(f) {
			n.Limits.copyField(f, &r.Limits)
			n.Pos[f] = r.Pos[f]
		}
	}
	if n.Generic() && !last {
		n.Hosts = []Mask{"*"}
	}
	return n
}

// All is a copy of the rules in order.
func (set *Rules) All() []Rule { return slices.Clone(set.rules) }

// Providers is a copy of the providers in order.
func (set *Rules) Providers() []Provider { return slices.Clone(set.providers) }

// Equal reports whether two sets say the same, wherever their rules stand.
func (set *Rules) Equal(o *Rules) bool {
	return slices.EqualFunc(set.providers, o.providers, Provider.equal) &&
		slices.EqualFunc(set.rules, o.rules, func(a, b Rule) bool { return a.Equal(&b) })
}
