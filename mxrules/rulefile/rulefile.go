// Package rulefile reads and prints MX rules as YAML.
//
// A file has rules, optionally providers of its own, and optionally builtin:
//
//	# false leaves the built-in providers and rules out; the default is true.
//	builtin: true
//
//	# Providers by MX host suffix. One with the name of a built-in provider replaces it.
//	providers:
//	  - name: acme
//	    suffixes: [.mx.acme.example]
//	    shared_hosts: true              # its hosts serve many unrelated organisations: a path rests for
//	                                    # the domain that refuses first, and as a whole only when several do
//	    own_domains: [acme.example]     # but these are the provider's: their word counts for all of it
//
//	# In order: for each setting the first rule that matches and has it decides.
//	rules:
//	  - id: acme-from-new-sources       # unique; letters, digits, . - _
//	    match:                          # every kind given must be met, by one of its values
//	      mx: "*.mx.acme.example"       # mask on the best MX host; * and ? are wildcards
//	      provider: acme                # one name or a list, built-in or from providers
//	      domain: [acme.example, "*.acme.example"]
//	      source: 192.0.2.0/28          # address, prefix or first-last
//	    connections: 2                  # open at once: 1 to 10000 or unlimited
//	    messages_per_connection: 20     # 1 to 1000000 or unlimited
//	    connection_rate: 30/min         # COUNT/UNIT: s, min, h, d or a duration
//	    message_rate: 6000/min burst 50 # at most 50 at once; 1 if not said
//	    messages_per_hour: 20000        # metered continuously, 5 % kept for transactional mail
//	    messages_per_day: 200000        # metered continuously
//	    scope: shared                   # shared by all sources, or per_source
//	    tls: encrypt                    # none, opportunistic, encrypt or verify
//	    pipelining: auto                # auto or off
//	    chunking: off                   # auto or off
//	    connect_timeout: 10s            # 10ms to 1h, as all timeouts
//	    data_timeout: 4m                # without progress while content is sent
//	    final_dot_timeout: 10m          # for the reply to the whole message
//	    command_timeout: 1m             # for every other reply
//	    governor: on                    # learns what the receiver bears; static: fixed cuts; observe: static, and learns beside
//	    reactions:                      # before the governor's own; the first that fits a reply decides
//	      - tag: reputation             # the qualification's word for the reply, and
//	        text: "rate of unsolicited" # a part of it; one of both is enough
//	        trigger: 3 in 60s           # or first
//	        do: rest                    # nothing, slow, fewer_connections, fewer_messages, rest, step_back (of the
//	                                    # warm-up), hold_delivery or retry_soon; the last two need no path trouble
//	        for: 2h                     # of a rest; as long as the governor thinks if not said
//	  - id: everyone                    # without match: every path; only as the last rule
//	    connections: 8
//
// Connections, messages_per_connection, connection_rate and message_rate may have
// bounds: {start: 5/s, low: 1/min, high: 100/s}. High is the hard limit, as a plain
// value is; learning begins at start and never goes below low.
//
// The file's rules come first and decide their settings for built-in providers
// too; what they leave open comes from the built-in rules, which Print shows.
// The built-in generic rule always ends the set, so that no limit is missing by
// omission; "unlimited" lifts one on purpose.
//
// Parsing is strict: unknown or repeated keys, wrong types and values out of
// range are errors with their line. All errors of a file are reported together.
package rulefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/veredus/veredus/mxrules"
)

// MaxSize is the largest file read, in bytes.
const MaxSize = 1 << 20

// Parse reads a rule file; name stands in errors and in the positions of rules.
// A file that cannot be used gives Errors.
func Parse(name string, data []byte) (*mxrules.Rules, error) {
	p := &parser{file: name}
	root := p.document(data)
	if root == nil {
		return nil, p.err()
	}
	f := p.read(root)
	if p.errs.count() > 0 {
		return nil, p.err()
	}
	set, err := mxrules.NewRules(f.all())
	if err != nil {
		p.addf(root, "%v", err)
		return nil, p.err()
	}
	return set, nil
}

// file is what a rule file says.
type file struct {
	builtin   bool
	providers []mxrules.Provider
	rules     []mxrules.Rule
}

// all is the whole set: the file's rules before the built-in ones.
func (f *file) all() ([]mxrules.Rule, []mxrules.Provider) {
	rules, providers := slices.Clone(f.rules), slices.Clone(f.providers)
	if !f.builtin {
		if n := len(rules); n == 0 || !rules[n-1].Generic() || rules[n-1].Set != mxrules.AllFields {
			rules = append(rules, mxrules.BuiltinGeneric())
		}
		return rules, providers
	}
	own := make(map[string]bool)
	for _, p := range f.providers {
		own[p.Name] = true
	}
	for _, p := range mxrules.BuiltinProviders() {
		if !own[p.Name] {
			providers = append(providers, p)
		}
	}
	return append(rules, mxrules.BuiltinRules()...), providers
}

// parser collects errors while it walks the YAML nodes.
type parser struct {
	file string
	errs Errors
}

// document is the root mapping of the only document; nil after an error.
func (p *parser) document(data []byte) *yaml.Node {
	if len(data) > MaxSize {
		p.add(0, fmt.Sprintf("the file has %d bytes; at most %d are read", len(data), MaxSize))
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		p.syntax(err, data)
		return nil
	}
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case err == nil:
		p.add(second.Line, "a second document; a rule file is one document")
		return nil
	case !errors.Is(err, io.EOF):
		p.syntax(err, data)
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		p.addf(root, "%s where a mapping with rules is expected", kindName(root))
		return nil
	}
	return root
}

// syntax reports a YAML error with its line, which stands in yaml's text.
func (p *parser) syntax(err error, data []byte) {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	if errors.Is(err, io.EOF) {
		p.add(0, "the file is empty; write at least: rules: []")
		return
	}
	line := 0
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if number, text, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				line, msg = n, text
			}
		}
	}
	if strings.Contains(msg, "alphabetic or numeric") || strings.Contains(msg, "unknown anchor") {
		msg += `; put masks that begin with * in quotes: "*.example.com"`
	}
	p.add(line, msg)
}

func (p *parser) read(root *yaml.Node) *file {
	f := &file{builtin: true}
	var rules, providers *yaml.Node
	p.mapping(root, "file", func(key string, value *yaml.Node) bool {
		switch key {
		case "builtin":
			p.boolean(value, &f.builtin)
		case "providers":
			providers = value
		case "rules":
			rules = value
		default:
			return false
		}
		return true
	}, "builtin, providers, rules")
	names := p.readProviders(f, providers)
	p.readRules(f, rules, names)
	return f
}

// readProviders fills the file's providers and returns every name that rules may use.
func (p *parser) readProviders(f *file, node *yaml.Node) map[string]bool {
	names := make(map[string]bool)
	owners := make(map[string]string) // suffix -> provider
	for _, item := range p.list(node, "providers") {
		provider, ok := p.provider(item)
		if !ok {
			continue
		}
		if names[provider.Name] {
			p.addf(item, "provider %s is defined twice; give all its suffixes in one place", provider.Name)
			continue
		}
		names[provider.Name] = true
		f.providers = append(f.providers, provider)
		for _, s := range provider.Suffixes {
			if o, taken := owners[s]; taken {
				p.addf(item, "suffix %s belongs to provider %s already", s, o)
			}
			owners[s] = provider.Name
		}
	}
	if f.builtin {
		p.addBuiltin(node, names, owners)
	}
	return names
}

func (p *parser) addBuiltin(node *yaml.Node, names map[string]bool, owners map[string]string) {
	for _, b := range mxrules.BuiltinProviders() {
		if names[b.Name] {
			continue
		}
		names[b.Name] = true
		for _, s := range b.Suffixes {
			if o, taken := owners[s]; taken {
				p.addf(node, "suffix %s of provider %s belongs to the built-in provider %s; name yours %s to replace it, or set builtin: false", s, o, b.Name, b.Name)
			}
		}
	}
}

func (p *parser) provider(node *yaml.Node) (mxrules.Provider, bool) {
	var out mxrules.Provider
	ok := p.mapping(node, "provider", func(key string, value *yaml.Node) bool {
		switch key {
		case "name":
			out.Name, _ = p.text(value, "name")
		case "suffixes":
			p.texts(value, "suffixes", func(n *yaml.Node, s string) {
				out.Suffixes = append(out.Suffixes, strings.ToLower(s))
			})
		case "shared_hosts":
			p.boolean(value, &out.SharedHosts)
		case "own_domains":
			p.texts(value, "own_domains", func(n *yaml.Node, s string) {
				out.OwnDomains = append(out.OwnDomains, strings.ToLower(s))
			})
		default:
			return false
		}
		return true
	}, "name, suffixes, shared_hosts, own_domains")
	if !ok {
		return out, false
	}
	if err := out.Check(); err != nil {
		p.addf(node, "%v", err)
		return out, false
	}
	return out, true
}
