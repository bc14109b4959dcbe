package learning

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/veredus/veredus/mta/bounce"
)

// maxFile is the largest file of bounce rules, in bytes; the server reads no larger one.
const maxFile = 4 << 20

// choice is an operator's rule for one text.
type choice struct {
	text     *Text
	tag      string
	code     int // 0: the tag's
	provider string
}

// id is the rule's: the first words, and a hash of what it is about, so that
// another choice for the same text and provider has the same.
func (c *choice) id() string {
	var words []string
	for word := range strings.FieldsSeq(c.text.Normalised) {
		if strings.Trim(word, "abcdefghijklmnopqrstuvwxyz") == "" && len(words) < 4 {
			words = append(words, word)
		}
	}
	head := strings.Join(words, "-")
	if head = head[:min(len(head), 40)]; head == "" {
		head = "text"
	}
	sum := sha256.Sum256([]byte(c.text.Normalised + "\x00" + c.provider))
	return "op." + head + "-" + hex.EncodeToString(sum[:4])
}

// phrase matches the text from end to end, so that the rule says nothing about others.
func (c *choice) phrase() string { return bounce.ExactPhrase(c.text.Normalised, !c.text.isCut()) }

// input is the text as said by the provider that the rule is for, or by none that is known.
func (c *choice) input() bounce.Input {
	return bounce.Input{Reply: c.text.First, Provider: c.provider}
}

// lines is the rule as YAML, the first line without the indentation of the list.
func (c *choice) lines() []string {
	match := fmt.Sprintf("match: {text: [%s]}", quote(c.phrase()))
	if c.provider != "" {
		match = fmt.Sprintf("match: {text: [%s], provider: [%s]}", quote(c.phrase()), quote(c.provider))
	}
	lines := []string{"- id: " + c.id(), "  note: Chosen by an operator for this text alone.", "  " + match}
	if c.tag != "" {
		lines = append(lines, "  tag: "+c.tag)
	}
	if c.code != 0 {
		lines = append(lines, fmt.Sprintf("  code: %d", c.code))
	}
	if example, ok := c.example(); ok {
		lines = append(lines, "  examples: ["+example+"]")
	}
	return lines
}

// example is the first reply; ok is false where one line cannot say it, since it
// reads otherwise than it was said.
func (c *choice) example() (string, bool) {
	reply := c.text.First.String()
	read := bounce.ParseReply(reply)
	if bounce.Normalise(read.Text) != c.text.Normalised || read.Code != c.text.First.Code {
		return "", false
	}
	if c.provider == "" {
		return quote(reply), true
	}
	return fmt.Sprintf("{reply: %s, provider: %s}", quote(reply), quote(c.provider)), true
}

// quote writes a string as JSON does, which YAML reads.
func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // strings do not fail
	return strings.TrimRight(b.String(), "\n")
}

// withRule puts the rule into a file's content: in place of the one written before for
// the same text, else in front of all others, since it is the narrowest. All
// else stays as it is written.
func withRule(content []byte, c *choice) ([]byte, error) {
	doc, err := parseFile(content)
	if err != nil {
		return nil, err
	}
	if at := doc.item(c.id()); at >= 0 {
		in := doc.replaced(at, c.lines())
		if decides(in, c) == nil {
			return in, nil
		}
		if doc, err = parseFile(doc.replaced(at, nil)); err != nil {
			return nil, err
		}
	}
	out, err := doc.inserted(c)
	if err != nil {
		return nil, err
	}
	if len(out) > maxFile {
		return nil, fmt.Errorf("%w: it would have %d bytes, and %d are read; remove rules that are not needed", ErrFile, len(out), maxFile)
	}
	return out, decides(out, c)
}

// decides checks that the content is good and that the rule decides its text.
func decides(content []byte, c *choice) error {
	table, err := bounce.Load(content, "bounce rules")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFile, err)
	}
	if got := table.Qualify(c.input()).Rule; got != c.id() {
		return fmt.Errorf("%w: rule %q would decide the text in place of the new one; remove or narrow it", ErrFile, got)
	}
	return nil
}

// fileText is an operator's file as lines, with its list of rules.
type fileText struct {
	lines []string // without line ends
	eol   string
	key   int // index of the line of "rules:", -1 when there is none
	indent,
	end int // of the items' dashes; the line behind the last item
	starts []int // first line of each item
	nodes  []*yaml.Node
	empty  bool // no document
}

func parseFile(content []byte) (*fileText, error) {
	f := &fileText{eol: "\n", key: -1, indent: 2}
	if bytes.Contains(content, []byte("\r\n")) {
		f.eol = "\r\n"
	}
	if text := strings.TrimSuffix(strings.ReplaceAll(string(content), "\r\n", "\n"), "\n"); text != "" {
		f.lines = strings.Split(text, "\n")
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(content, &doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	if doc.Kind == 0 || doc.Content[0].Tag == "!!null" {
		f.empty = true
		return f, nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode || root.Style&yaml.FlowStyle != 0 {
		return nil, fmt.Errorf("%w: line %d: write it with keys on lines of their own, such as \"rules:\"", ErrFile, root.Line)
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == "rules" {
			return f, f.readRules(root.Content[i], root.Content[i+1])
		}
	}
	return f, nil
}

// readRules finds the items of the list.
func (f *fileText) readRules(key, list *yaml.Node) error {
	f.key = key.Line - 1
	if list.Tag == "!!null" || list.Kind == yaml.SequenceNode && len(list.Content) == 0 {
		rest := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(f.lines[f.key]), "rules:"))
		if rest = strings.TrimSpace(strings.TrimPrefix(strings.TrimPrefix(rest, "[]"), "null")); rest != "" && rest[0] != '#' {
			return fmt.Errorf("%w: line %d: write \"rules:\" alone on its line", ErrFile, key.Line)
		}
		f.lines[f.key] = strings.TrimRight("rules: "+rest, " ")
		f.end = f.key + 1
		return nil
	}
	if list.Kind != yaml.SequenceNode || list.Style&yaml.FlowStyle != 0 {
		return fmt.Errorf("%w: line %d: write the rules as a list of lines that begin with \"-\"", ErrFile, list.Line)
	}
	f.nodes = list.Content
	for _, n := range list.Content {
		at := n.Line - 1
		for at > f.key && !strings.HasPrefix(strings.TrimSpace(f.lines[at]), "-") {
			at--
		}
		f.starts = append(f.starts, at)
	}
	first := f.lines[f.starts[0]]
	f.indent = len(first) - len(strings.TrimLeft(first, " "))
	f.end = f.itemEnd(len(f.starts) - 1)
	return nil
}

// item is the index of the rule with an id, -1 when there is none.
func (f *fileText) item(id string) int {
	return slices.IndexFunc(f.nodes, func(n *yaml.Node) bool { return scalar(n, "id") == id })
}

// scalar is the value of a key of a mapping.
func scalar(n *yaml.Node, key string) string {
	if v := value(n, key); v != nil {
		return v.Value
	}
	return ""
}

func value(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// itemEnd is the line behind an item: what follows is not indented deeper than its dash.
func (f *fileText) itemEnd(i int) int {
	end := f.starts[i] + 1
	for at := end; at < len(f.lines); at++ {
		text := strings.TrimLeft(f.lines[at], " ")
		if text == "" {
			continue // inside a text of several lines, or behind the item
		}
		if len(f.lines[at])-len(text) <= f.indent {
			break
		}
		end = at + 1
	}
	return end
}

// replaced is the content with other lines in place of an item.
func (f *fileText) replaced(i int, rule []string) []byte {
	lines := slices.Clone(f.lines[:f.starts[i]])
	lines = append(lines, f.indented(rule)...)
	return f.content(append(lines, f.lines[f.itemEnd(i):]...))
}

// inserted is the content with the rule in front of the others, but behind the
// rules for one provider and the same text.
func (f *fileText) inserted(c *choice) ([]byte, error) {
	rule := f.indented(c.lines())
	if f.empty || f.key < 0 {
		return f.content(slices.Concat(f.lines, []string{"rules:"}, rule)), nil
	}
	at := f.key + 1
	for i, n := range f.nodes {
		match := value(n, "match")
		if c.provider == "" && match != nil && value(match, "provider") != nil && value(match, "text") != nil &&
			slices.ContainsFunc(value(match, "text").Content, func(p *yaml.Node) bool { return p.Value == c.phrase() }) {
			at = f.itemEnd(i)
		}
	}
	return f.content(slices.Concat(f.lines[:at], rule, f.lines[at:])), nil
}

func (f *fileText) indented(rule []string) []string {
	lines := make([]string, len(rule))
	for i, l := range rule {
		lines[i] = strings.Repeat(" ", f.indent) + l
	}
	return lines
}

func (f *fileText) content(lines []string) []byte {
	return []byte(strings.Join(lines, f.eol) + f.eol)
}

// readFile reads the operator's file; a missing one is empty.
func readFile(path string) (content []byte, mode fs.FileMode, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0o600, nil
	}
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, 0, fmt.Errorf("%w: %s is no file of at most %d bytes", ErrFile, path, maxFile)
	}
	content, err = os.ReadFile(path)
	return content, info.Mode().Perm(), err
}

// replaceFile puts content at path so that after a crash either the old or the new is there, whole.
func replaceFile(path string, content []byte, mode fs.FileMode) (err error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(content)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
