package rulefile

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/veredus/veredus/mxrules"
)

// Difference is a setting that holds otherwise on some paths.
type Difference struct {
	// Destination is whose paths: "provider google", "mx *.acme.example", "domain
	// acme.example", or "everyone else".
	Destination string
	// Source is the range of sources that only is concerned; empty: all.
	Source string
	Field  mxrules.Field
	// Provider names a setting of a provider that differs, such as shared_hosts, in place
	// of Field; empty otherwise.
	Provider string
	// Before and After are what holds.
	Before, After Setting
}

// Name is the setting that differs, as in a rule file.
func (d *Difference) Name() string { return cmp.Or(d.Provider, d.Field.String()) }

// Setting is a value with its origin.
type Setting struct {
	Value  string // as in a rule file
	Origin mxrules.Origin
}

// Bounds of a comparison.
const (
	maxSubjects    = 5000
	maxDiffSources = 64
)

// Diff tells which settings hold otherwise under the new rules, destination by
// destination: every provider, mask on MX hosts and mask on domains that either set
// names, and everyone else; and where a rule is about sources, for these. A change of
// rules that changes nothing in effect is no difference.
func Diff(was, is *mxrules.Rules) []Difference {
	sources := sourcesOf(was, is)
	all := diffProviders(was, is)
	for _, s := range subjectsOf(was, is) {
		plain := s.compare(was, is, netip.Prefix{})
		all = append(all, plain...)
		for _, source := range sources {
			if own := s.compare(was, is, source); !sameDifferences(own, plain) {
				all = append(all, own...)
			}
		}
	}
	return all
}

// diffProviders tells which providers hold domains alone now, or no more.
func diffProviders(was, is *mxrules.Rules) (list []Difference) {
	before := map[string]mxrules.Provider{}
	for _, p := range was.Providers() {
		before[p.Name] = p
	}
	for _, p := range is.Providers() {
		old, known := before[p.Name]
		if !known {
			continue
		}
		add := func(name, a, b string) {
			if a != b {
				list = append(list, Difference{Destination: "provider " + p.Name, Provider: name, Before: Setting{Value: a}, After: Setting{Value: b}})
			}
		}
		add("shared_hosts", strconv.FormatBool(old.SharedHosts), strconv.FormatBool(p.SharedHosts))
		add("own_domains", strings.Join(old.OwnDomains, " "), strings.Join(p.OwnDomains, " "))
	}
	return list
}

// subject is a destination to be compared, with one path to it or several alike.
type subject struct {
	name    string
	queries []mxrules.Query
}

// compare asks both sets about every path of the subject; paths that differ alike are told once.
func (s *subject) compare(was, is *mxrules.Rules, source netip.Prefix) (list []Difference) {
	for _, q := range s.queries {
		if source.IsValid() {
			q.Source = source.Addr()
		}
		before, after := was.Match(q), is.Match(q)
		for f := range mxrules.Field(mxrules.NumFields) {
			a, b := before.Limits.Text(f), after.Limits.Text(f)
			if a == b {
				continue
			}
			d := Difference{
				Destination: s.name, Field: f,
				Before: Setting{a, before.Origins[f]}, After: Setting{b, after.Origins[f]},
			}
			if source.IsValid() {
				d.Source = source.String()
			}
			if !slices.Contains(list, d) {
				list = append(list, d)
			}
		}
	}
	return list
}

func sameDifferences(a, b []Difference) bool {
	return slices.EqualFunc(a, b, func(x, y Difference) bool {
		return x.Field == y.Field && x.Before.Value == y.Before.Value && x.After.Value == y.After.Value
	})
}

// neutral is a host that no rule but one for all hosts is about, and its domain.
const neutral = "neutral.invalid"

func subjectsOf(was, is *mxrules.Rules) []subject {
	list := providerSubjects(was, is)
	seen := map[string]bool{}
	add := func(name string, q mxrules.Query) {
		if !seen[name] && len(list) < maxSubjects {
			seen[name] = true
			list = append(list, subject{name, []mxrules.Query{q}})
		}
	}
	for _, set := range []*mxrules.Rules{was, is} {
		for _, r := range set.All() {
			ruleSubjects(set, &r, add)
		}
	}
	slices.SortStableFunc(list, func(a, b subject) int { return cmp.Compare(a.name, b.name) })
	return append(list, subject{"everyone else", []mxrules.Query{{Host: "mx." + neutral, Domain: neutral}}})
}

// providerSubjects are the providers of either set, each with a host below every suffix.
func providerSubjects(was, is *mxrules.Rules) (list []subject) {
	hosts := map[string][]string{}
	for _, set := range []*mxrules.Rules{was, is} {
		for _, p := range set.Providers() {
			for _, suffix := range p.Suffixes {
				if host := "mx" + suffix; !slices.Contains(hosts[p.Name], host) {
					hosts[p.Name] = append(hosts[p.Name], host)
				}
			}
		}
	}
	for name, of := range hosts {
		s := subject{name: "provider " + name}
		for _, host := range of {
			s.queries = append(s.queries, mxrules.Query{Host: host, Domain: neutral})
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b subject) int { return cmp.Compare(a.name, b.name) })
	return list
}

// ruleSubjects are the masks of a rule. One on hosts or providers and on domains names both.
func ruleSubjects(set *mxrules.Rules, r *mxrules.Rule, add func(string, mxrules.Query)) {
	type place struct{ name, host string }
	var hosts []place
	for _, m := range r.Hosts {
		if m != "*" {
			hosts = append(hosts, place{"mx " + string(m), example(m)})
		}
	}
	for _, name := range r.Providers {
		for _, p := range set.Providers() {
			if strings.EqualFold(p.Name, name) {
				hosts = append(hosts, place{"provider " + p.Name, "mx" + p.Suffixes[0]})
			}
		}
	}
	for _, d := range r.Domains {
		if len(hosts) == 0 {
			add("domain "+string(d), mxrules.Query{Host: "mx." + neutral, Domain: example(d)})
		}
		for _, h := range hosts {
			add(h.name+", domain "+string(d), mxrules.Query{Host: h.host, Domain: example(d)})
		}
	}
	for _, h := range hosts {
		if strings.HasPrefix(h.name, "mx ") {
			add(h.name, mxrules.Query{Host: h.host, Domain: neutral})
		}
	}
}

// example is a name that a mask matches.
func example(m mxrules.Mask) string {
	return strings.NewReplacer("*", "x", "?", "x").Replace(strings.ToLower(strings.TrimSuffix(string(m), ".")))
}

// sourcesOf are the ranges of sources that rules of either set are about, in order.
func sourcesOf(was, is *mxrules.Rules) (list []netip.Prefix) {
	for _, set := range []*mxrules.Rules{was, is} {
		for _, r := range set.All() {
			for _, p := range r.Sources {
				if !slices.Contains(list, p) && len(list) < maxDiffSources {
					list = append(list, p)
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return list
}
