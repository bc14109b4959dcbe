package rulefile

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/veredus/veredus/mxrules"
)

// MaxRules is the largest number of rules in a file.
const MaxRules = 10_000

func (p *parser) readRules(f *file, node *yaml.Node, providers map[string]bool) {
	items := p.list(node, "rules")
	if len(items) > MaxRules {
		p.addf(node, "%d rules; at most %d are read", len(items), MaxRules)
		return
	}
	lines := make(map[string]int)
	taken := builtinIDs(f)
	for i, item := range items {
		r, ok := p.rule(item, providers)
		if !ok {
			continue
		}
		switch line, twice := lines[r.ID]; {
		case twice:
			p.addf(item, "id %s is used in line %d already; ids must be unique", r.ID, line)
		case taken[r.ID]:
			p.addf(item, "id %s is a built-in rule's; choose another or set builtin: false", r.ID)
		case r.Generic() && i < len(items)-1:
			p.addf(item, `rule %s has no match but is not the last; move it to the end, or match mx: "*" to place it before others`, r.ID)
		}
		lines[r.ID] = item.Line
		f.rules = append(f.rules, r)
	}
}

// builtinIDs are the ids of the built-in rules that will follow the file's.
func builtinIDs(f *file) map[string]bool {
	ids := make(map[string]bool)
	if f.builtin {
		for _, r := range mxrules.BuiltinRules() {
			ids[r.ID] = true
		}
	}
	return ids
}

var ruleKeys = func() string {
	names := []string{"id", "match"}
	for f := range mxrules.Field(mxrules.NumFields) {
		names = append(names, f.String())
	}
	return strings.Join(names, ", ")
}()

// rule reads one rule; ok says that its id and match are known, so that
// comparing it with other rules makes sense.
func (p *parser) rule(node *yaml.Node, providers map[string]bool) (r mxrules.Rule, ok bool) {
	r.At = p.position(node)
	matched, before := true, p.errs.count()
	read := p.mapping(node, "rule", func(key string, value *yaml.Node) bool {
		switch key {
		case "id":
			r.ID, _ = p.text(value, "id")
		case "match":
			matched = p.match(&r, value, providers)
		default:
			return p.setting(&r, key, value)
		}
		return true
	}, ruleKeys)
	if !read {
		return r, false
	}
	if r.ID == "" {
		p.addf(node, "the rule has no id; give it a unique one")
		return r, false
	}
	if err := mxrules.CheckID(r.ID); err != nil {
		p.addf(node, "%v", err)
		return r, false
	}
	if r.Set == 0 && p.errs.count() == before {
		p.addf(node, "rule %s sets nothing; known settings are %s", r.ID, ruleKeys)
	}
	return r, matched
}

func (p *parser) position(node *yaml.Node) mxrules.Position {
	return mxrules.Position{File: p.file, Line: node.Line}
}

const matchKeys = "mx, provider, domain, source"

func (p *parser) match(r *mxrules.Rule, node *yaml.Node, providers map[string]bool) bool {
	ok := p.mapping(node, "match", func(key string, value *yaml.Node) bool {
		switch key {
		case "mx":
			r.Hosts = p.masks(value, key)
		case "domain":
			r.Domains = p.masks(value, key)
		case "provider":
			r.Providers = p.providerNames(value, providers)
		case "source":
			r.Sources = p.sources(value)
		default:
			return false
		}
		return true
	}, matchKeys)
	if ok && len(node.Content) == 0 {
		p.addf(node, "match is empty; give %s, or leave match out in the last rule", matchKeys)
	}
	// A match with errors is not empty on purpose.
	return ok && !r.Generic()
}

func (p *parser) masks(node *yaml.Node, key string) (masks []mxrules.Mask) {
	p.texts(node, key, func(n *yaml.Node, s string) {
		m := mxrules.Mask(s)
		if err := m.Check(); err != nil {
			p.addf(n, "%s: %v", key, err)
			return
		}
		masks = append(masks, m)
	})
	return masks
}

func (p *parser) providerNames(node *yaml.Node, known map[string]bool) (names []string) {
	p.texts(node, "provider", func(n *yaml.Node, s string) {
		if !known[s] {
			p.addf(n, "provider %.40q is not defined; define it under providers, or use a built-in one", s)
			return
		}
		names = append(names, s)
	})
	return names
}

func (p *parser) sources(node *yaml.Node) (prefixes []netip.Prefix) {
	p.texts(node, "source", func(n *yaml.Node, s string) {
		some, err := parseSource(s)
		if err != nil {
			p.addf(n, "source: %v", err)
			return
		}
		prefixes = append(prefixes, some...)
	})
	return prefixes
}

// setting reads the rule's value of one field; false if the key names none.
func (p *parser) setting(r *mxrules.Rule, key string, node *yaml.Node) bool {
	f, ok := fieldByName(key)
	if !ok {
		return false
	}
	if f == mxrules.FieldReactions {
		p.reactions(r, node)
		return true
	}
	if node.Kind == yaml.MappingNode && learned(f) {
		p.bounded(r, f, node)
		return true
	}
	s, ok := p.text(node, key)
	if !ok {
		return true
	}
	if err := set(&r.Limits, f, s); err != nil {
		p.addf(node, "%s: %v", key, err)
		return true
	}
	p.finish(r, f, node)
	return true
}

func fieldByName(name string) (mxrules.Field, bool) {
	for f := range mxrules.Field(mxrules.NumFields) {
		if f.String() == name {
			return f, true
		}
	}
	return 0, false
}

// set gives the field of l the value that s means.
func set(l *mxrules.Limits, f mxrules.Field, s string) (err error) {
	switch f {
	case mxrules.FieldConnections:
		l.Connections, err = count(s)
	case mxrules.FieldMessagesPerConnection:
		l.MessagesPerConnection, err = count(s)
	case mxrules.FieldConnectionRate:
		l.ConnectionRate, err = mxrules.ParseRate(s)
	case mxrules.FieldMessageRate:
		l.MessageRate, err = mxrules.ParseRate(s)
	case mxrules.FieldMessagesPerHour:
		l.MessagesPerHour, err = count(s)
	case mxrules.FieldMessagesPerDay:
		l.MessagesPerDay, err = count(s)
	case mxrules.FieldShared:
		l.Shared, err = scope(s)
	case mxrules.FieldTLS:
		l.TLS, err = mxrules.ParseTLS(s)
	case mxrules.FieldPipelining:
		l.Pipelining, err = mxrules.ParseSwitch(s)
	case mxrules.FieldChunking:
		l.Chunking, err = mxrules.ParseSwitch(s)
	case mxrules.FieldConnectTimeout:
		l.ConnectTimeout, err = timeout(s)
	case mxrules.FieldCommandTimeout:
		l.CommandTimeout, err = timeout(s)
	case mxrules.FieldDataTimeout:
		l.DataTimeout, err = timeout(s)
	case mxrules.FieldFinalDotTimeout:
		l.FinalDotTimeout, err = timeout(s)
	case mxrules.FieldGovernor:
		l.Governor, err = mxrules.ParseMode(s)
	}
	return err
}

func scope(s string) (shared bool, err error) {
	switch s {
	case "shared":
		return true, nil
	case "per_source":
		return false, nil
	}
	return false, fmt.Errorf("%.40q is not a scope; use shared or per_source", s)
}

func timeout(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%.40q is not a duration; write 10s, 4m or 1h30m", s)
	}
	if d <= 0 {
		return 0, fmt.Errorf("%v is out of range; use %v to %v", d, mxrules.MinTimeout, mxrules.MaxTimeout)
	}
	return d, nil
}
