package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parser collects errors while it walks the YAML nodes. lines has the line of each
// key that was given, by its dotted path.
type parser struct {
	file  string
	errs  Errors
	lines map[string]int
}

// reader takes the value of the key at path.
type reader func(path string, n *yaml.Node)

// section is what a mapping may hold.
type section map[string]reader

func (p *parser) errorf(line int, format string, args ...any) {
	p.errs.Add(Error{File: p.file, Line: line, Text: fmt.Sprintf(format, args...)})
}

// line is where a key stands; that of the nearest section around it when it was
// left out, 0 when none was given.
func (p *parser) line(path string) int {
	for path != "" {
		if line := p.lines[path]; line > 0 {
			return line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 0
}

// document is the root of the only document; nil for an empty file and after an error.
func (p *parser) document(data []byte) *yaml.Node {
	if len(data) > MaxSize {
		p.errorf(0, "the file has %d bytes; at most %d are read", len(data), MaxSize)
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if !errors.Is(err, io.EOF) {
			p.syntax(err)
		}
		return nil
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		p.errorf(second.Line, "a second document; a configuration is one document")
		return nil
	case !errors.Is(err, io.EOF):
		p.syntax(err)
		return nil
	}
	return doc.Content[0]
}

// syntax reports a YAML error with its line, which stands in yaml's text.
func (p *parser) syntax(err error) {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, what, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				line, text = n, what
			}
		}
	}
	p.errorf(line, "%s", text)
}

// kindName names what a node is, for errors.
func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	if n.Tag == "!!null" {
		return "nothing"
	}
	return fmt.Sprintf("%.60q", n.Value)
}

// plain reports whether the node is written out: files are read as they look.
func (p *parser) plain(n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode || n.Anchor != "" || n.Style&yaml.TaggedStyle != 0 {
		p.errorf(n.Line, "anchors, aliases and tags are not supported; write the value out")
		return false
	}
	return true
}

// mapping reads a section. One with nothing in it is empty.
func (p *parser) mapping(path string, n *yaml.Node, s section) {
	if !p.plain(n) || n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	known := strings.Join(slices.Sorted(maps.Keys(s)), ", ")
	if n.Kind != yaml.MappingNode {
		p.errorf(n.Line, "%s must be a mapping with %s, not %s", named(path), known, kindName(n))
		return
	}
	p.pairs(path, n, func(key, value *yaml.Node) {
		read := s[key.Value]
		if read == nil {
			p.errorf(key.Line, "unknown key %.60q in %s; known are %s", key.Value, named(path), known)
			return
		}
		inner := key.Value
		if path != "" {
			inner = path + "." + key.Value
		}
		p.lines[inner] = key.Line
		read(inner, value)
	})
}

// pairs calls each for every key with its value, once for each key.
func (p *parser) pairs(path string, n *yaml.Node, each func(key, value *yaml.Node)) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case !p.plain(key):
		case key.Kind != yaml.ScalarNode:
			p.errorf(key.Line, "%s where a key of %s is expected", kindName(key), named(path))
		case seen[key.Value]:
			p.errorf(key.Line, "key %.60q of %s is given twice", key.Value, named(path))
		default:
			seen[key.Value] = true
			each(key, n.Content[i+1])
		}
	}
}

func named(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

// list calls each for the items of a list; nothing is an empty list.
func (p *parser) list(path string, n *yaml.Node, each reader) {
	if !p.plain(n) || n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.SequenceNode {
		p.errorf(n.Line, "%s must be a list, not %s", path, kindName(n))
		return
	}
	for i, item := range n.Content {
		inner := fmt.Sprintf("%s[%d]", path, i)
		p.lines[inner] = item.Line
		each(inner, item)
	}
}

// scalar reports whether n is one of the kinds of scalar named by tags.
func (p *parser) scalar(path, what string, n *yaml.Node, tags ...string) bool {
	if !p.plain(n) {
		return false
	}
	if n.Kind != yaml.ScalarNode || !slices.Contains(tags, n.Tag) {
		p.errorf(n.Line, "%s must be %s, not %s", path, what, kindName(n))
		return false
	}
	return true
}

// text reads a text; check, when given, judges it.
func (p *parser) text(to *string, check func(string) error) reader {
	return func(path string, n *yaml.Node) {
		if !p.scalar(path, "a text", n, "!!str", "!!int", "!!float", "!!timestamp") {
			return
		}
		if check != nil {
			if err := check(n.Value); err != nil {
				p.errorf(n.Line, "%s: %v", path, err)
				return
			}
		}
		*to = n.Value
	}
}

func (p *parser) boolean(to *bool) reader {
	return func(path string, n *yaml.Node) {
		if p.scalar(path, "true or false", n, "!!bool") {
			*to = strings.EqualFold(n.Value, "true")
		}
	}
}

// integer reads a whole number of a range.
func (p *parser) integer(to *int, least, most int) reader {
	return func(path string, n *yaml.Node) {
		if !p.scalar(path, "a whole number", n, "!!int") {
			return
		}
		v, err := strconv.Atoi(n.Value)
		if err != nil || v < least || v > most {
			p.errorf(n.Line, "%s: %.40s is out of range; use %d to %d", path, n.Value, least, most)
			return
		}
		*to = v
	}
}

// number reads a number of a range.
func (p *parser) number(to *float64, least, most float64) reader {
	return func(path string, n *yaml.Node) {
		if !p.scalar(path, "a number", n, "!!int", "!!float") {
			return
		}
		v, err := strconv.ParseFloat(n.Value, 64)
		if err != nil || !(v >= least && v <= most) {
			p.errorf(n.Line, "%s: %.40s is out of range; use %s to %s", path, n.Value, decimal(least), decimal(most))
			return
		}
		*to = v
	}
}

func decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// oneOf reads one of some words.
func (p *parser) oneOf(take func(string), words ...string) reader {
	return func(path string, n *yaml.Node) {
		if !p.plain(n) {
			return
		}
		if n.Kind != yaml.ScalarNode || !slices.Contains(words, n.Value) {
			last := len(words) - 1
			p.errorf(n.Line, "%s: %s is unknown; use %s or %s", path, kindName(n), strings.Join(words[:last], ", "), words[last])
			return
		}
		take(n.Value)
	}
}
