package mxrules

import (
	"net/netip"
	"strings"
	"time"
)

// Query is one path to find limits for.
type Query struct {
	// Host is the best MX host.
	Host string
	// Provider is the provider's name; "" looks it up by Host.
	Provider string
	// Domain is the recipient domain.
	Domain string
	// Source is the local address; the zero Addr meets no rule with sources.
	Source netip.Addr
}

// Origin is where an effective value comes from. Rule is "default" where no
// rule sets the field.
type Origin struct {
	Rule string
	File string
	Line int
}

// Effective is what holds on one path.
type Effective struct {
	Limits Limits
	// Rule is the id of the first rule that matches; "default" if none does.
	Rule string
	// Origins says for each field which rule set it.
	Origins [NumFields]Origin
}

const defaultOrigin = "default"

// Defaults are the values of fields that no rule sets: TLS when offered, no
// limits, and the timeouts of FACTS.md section 6 and RFC 5321 section 4.5.3.2.6.
func Defaults() Limits {
	return Limits{
		TLS:             TLSOpportunistic,
		ConnectTimeout:  10 * time.Second,
		CommandTimeout:  time.Minute,
		DataTimeout:     4 * time.Minute,
		FinalDotTimeout: 10 * time.Minute,
	}
}

// Match gives the limits of a path: for each field the value of the first
// matching rule that sets it. It does not allocate.
func (set *Rules) Match(q Query) Effective {
	if q.Provider == "" {
		q.Provider = set.ProviderOf(q.Host)
	}
	q.Source = q.Source.Unmap()
	e := Effective{Limits: Defaults(), Rule: defaultOrigin}
	for f := range e.Origins {
		e.Origins[f].Rule = defaultOrigin
	}
	missing := AllFields
	for i := range set.rules {
		r := &set.rules[i]
		if !r.matches(&q) {
			continue
		}
		if e.Rule == defaultOrigin {
			e.Rule = r.ID
		}
		e.take(r, r.Set&missing)
		missing &^= r.Set
		if missing == 0 {
			break
		}
	}
	return e
}

func (e *Effective) take(r *Rule, fields Fields) {
	for f := range Field(NumFields) {
		if fields.Has(f) {
			e.Limits.copyField(f, &r.Limits)
			e.Origins[f] = Origin{Rule: r.ID, File: r.Pos[f].File, Line: r.Pos[f].Line}
		}
	}
}

func (r *Rule) matches(q *Query) bool {
	return (len(r.Hosts) == 0 || anyMask(r.Hosts, q.Host)) &&
		(len(r.Providers) == 0 || anyName(r.Providers, q.Provider)) &&
		(len(r.Domains) == 0 || anyMask(r.Domains, q.Domain)) &&
		(len(r.Sources) == 0 || anyPrefix(r.Sources, q.Source))
}

func anyMask(masks []Mask, name string) bool {
	for _, m := range masks {
		if m.Match(name) {
			return true
		}
	}
	return false
}

func anyName(names []string, name string) bool {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

func anyPrefix(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
