package rulefile

import (
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// kindName names what a node is, for errors.
func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias (not supported)"
	}
	if n.Tag == "!!null" {
		return "nothing"
	}
	return fmt.Sprintf("%.40q", n.Value)
}

// plain reports whether the node has no anchor and no tag of its own: files
// are read as they look.
func (p *parser) plain(n *yaml.Node) bool {
	if n.Anchor != "" || n.Style&yaml.TaggedStyle != 0 {
		p.addf(n, "anchors and tags are not supported; write the value out")
		return false
	}
	return true
}

// mapping calls each for every key and its value; each says whether it knows the key.
func (p *parser) mapping(n *yaml.Node, what string, each func(key string, value *yaml.Node) bool, keys string) bool {
	if n.Kind != yaml.MappingNode {
		p.addf(n, "%s must be a mapping with %s, not %s", what, keys, kindName(n))
		return false
	}
	if !p.plain(n) {
		return false
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || !p.plain(key) {
			p.addf(key, "%s where a key is expected", kindName(key))
			continue
		}
		if seen[key.Value] {
			p.addf(key, "key %.40q is given twice", key.Value)
			continue
		}
		seen[key.Value] = true
		if !each(key.Value, n.Content[i+1]) {
			p.addf(key, "unknown key %.40q in %s; known are %s", key.Value, what, keys)
		}
	}
	return true
}

// list is the items of a sequence; none for an absent one.
func (p *parser) list(n *yaml.Node, what string) []*yaml.Node {
	if n == nil || !p.plain(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		p.addf(n, "%s must be a list, not %s", what, kindName(n))
		return nil
	}
	return n.Content
}

// text is a scalar's text.
func (p *parser) text(n *yaml.Node, what string) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		p.addf(n, "%s must be a text, not %s", what, kindName(n))
		return "", false
	}
	return n.Value, p.plain(n)
}

// texts calls each for a scalar or for every item of a list.
func (p *parser) texts(n *yaml.Node, what string, each func(n *yaml.Node, s string)) {
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = p.list(n, what)
		if len(items) == 0 {
			p.addf(n, "%s is an empty list; give a value or leave it out", what)
		}
	}
	for _, item := range items {
		if s, ok := p.text(item, what); ok {
			each(item, s)
		}
	}
}

func (p *parser) boolean(n *yaml.Node, to *bool) {
	switch {
	case n.Kind != yaml.ScalarNode || n.Tag != "!!bool":
		p.addf(n, "builtin must be true or false, not %s", kindName(n))
	case p.plain(n):
		*to = n.Value[0] == 't' || n.Value[0] == 'T'
	}
}

// count reads a positive number, or "unlimited" as 0.
func count(s string) (int, error) {
	if s == "unlimited" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("%.40q is not a whole number or unlimited", s)
	}
	if n == 0 {
		return 0, fmt.Errorf("0 would stop all mail; use 1 or more, or unlimited (suspend the destination to stop mail)")
	}
	return n, nil
}
