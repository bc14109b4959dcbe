package compose

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/osteele/liquid/expressions"
)

// The rewriter turns scanned tokens into the source that the library compiles.
// Literal text and outputs become tags of ours that refer to tables, so that the
// library's scanner meets only whole tags; each loop body gets a counting tag as
// its first node; a note tag before a loop records a collection that is missing.
// Line ends are kept inside the tags, so that the library's line numbers hold.

const (
	tagLiteral = "literal" // writes fragment.literals[n]
	tagStatic  = "static"  // marks the place of fragment.static[n]
	tagOutput  = "output"  // writes fragment.outputs[n]
	tagNote    = "note"    // evaluates fragment.outputs[n] and writes nothing
	tagSkip    = "skip"    // writes nothing; carries trim marks
	tagStep    = "step"    // counts one loop step that holds n tags
	tagHold    = "hold"    // capture, with a limit
)

// blocks names the tags that have an end tag, with the clauses each allows.
var blocks = map[string][]string{
	"if": {"elsif", "else"}, "unless": {"else"}, "case": {"when", "else"},
	"for": {"else"}, "tablerow": nil, "capture": nil,
}

type block struct {
	name    string
	line    int
	hasElse bool
	tags    int // tags and outputs in the body, without those of loops inside
	step    int // index of the loop's step tag in pieces
	note    int // index of the loop's note tag in pieces, -1 if none
}

type rewriter struct {
	f      *fragment
	pieces []string
	stack  []block
	tags   int
	locals map[string]bool // names the template defines
	seen   map[string]bool // paths already entered
}

// rewrite enters what the tokens hold into f. Text whose place in tokens is set in
// static becomes static.
func rewrite(f *fragment, tokens []token, static []bool) (string, error) {
	w := &rewriter{f: f, locals: map[string]bool{"forloop": true}, seen: map[string]bool{}}
	for i, t := range tokens {
		if static != nil && static[i] {
			w.emit(t, tagStatic+" "+strconv.Itoa(len(f.static)))
			f.static = append(f.static, t.body)
		} else if err := w.token(t); err != nil {
			return "", err
		}
	}
	if n := len(w.stack); n > 0 {
		b := w.stack[n-1]
		return "", &syntaxError{b.line, b.name + " is not closed", fmt.Sprintf("add {%% end%s %%}", b.name)}
	}
	w.names()
	return strings.Join(w.pieces, ""), nil
}

func (w *rewriter) token(t token) error {
	switch t.kind {
	case textToken:
		w.emit(t, tagLiteral+" "+strconv.Itoa(len(w.f.literals)))
		w.f.literals = append(w.f.literals, t.body)
		return nil
	case blankToken:
		w.emit(t, tagSkip)
		return nil
	case objectToken:
		w.count()
		n, err := w.output(t.body)
		w.emit(t, tagOutput+" "+strconv.Itoa(n))
		return at(t.line, err)
	}
	w.count()
	if w.tags > MaxTags {
		return &syntaxError{t.line, fmt.Sprintf("the template has more than %d tags", MaxTags), "split the content or move repetition into a loop"}
	}
	return at(t.line, w.tag(t))
}

// count adds a tag to the innermost loop that repeats it.
func (w *rewriter) count() {
	w.tags++
	for i := len(w.stack) - 1; i >= 0; i-- {
		if w.stack[i].loops() {
			w.stack[i].tags++
			return
		}
	}
}

func (b block) loops() bool { return b.name == "for" || b.name == "tablerow" }

// emit writes one tag with t's trim marks and line ends.
func (w *rewriter) emit(t token, tag string) {
	var b strings.Builder
	b.WriteString("{%")
	if t.left {
		b.WriteByte('-')
	}
	b.WriteByte(' ')
	b.WriteString(tag)
	for range t.lines - strings.Count(tag, "\n") {
		b.WriteByte('\n')
	}
	b.WriteByte(' ')
	if t.right {
		b.WriteByte('-')
	}
	b.WriteString("%}")
	w.pieces = append(w.pieces, b.String())
}

// output enters an expression into the fragment's table.
func (w *rewriter) output(source string) (int, error) {
	known, err := w.examine(source, false)
	if err != nil {
		return 0, err
	}
	expr, err := parse(source)
	if err != nil {
		return 0, fault("write a variable and filters, such as {{ name | upcase }}", "%q is not an expression", truncate(source, 60))
	}
	w.f.outputs = append(w.f.outputs, output{expr, known.hasGuard})
	return len(w.f.outputs) - 1, nil
}

// parse is the library's, whose lexer panics on numbers and names it cannot read.
func parse(source string) (expr expressions.Expression, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New(panicText(p))
		}
	}()
	return expressions.Parse(source)
}

func (w *rewriter) examine(source string, loop bool) (facts, error) {
	known, err := examine(source, loop)
	if err != nil {
		return known, err
	}
	for _, name := range known.filters {
		if _, ok := filters[name]; !ok {
			return known, fault("use one of "+strings.Join(filterNames(), ", "), "there is no filter %q", truncate(name, 40))
		}
		if !slices.Contains(w.f.filters, name) {
			w.f.filters = append(w.f.filters, name)
		}
	}
	for _, path := range known.paths {
		if !w.seen[path] {
			w.seen[path] = true
			w.f.paths = append(w.f.paths, path)
		}
	}
	if len(w.f.paths) > MaxNames {
		return known, fault("gather them in lists or maps", "the template reads more than %d variables", MaxNames)
	}
	return known, nil
}

// names sets the roots of the paths read, without what the template defines.
func (w *rewriter) names() {
	f := w.f
	for _, path := range f.paths {
		f.reads = append(f.reads, read{name: root(path)})
	}
	slices.SortFunc(f.reads, func(a, b read) int { return strings.Compare(a.name, b.name) })
	f.reads = slices.Compact(f.reads)
	f.paths = slices.DeleteFunc(f.paths, func(path string) bool { return w.locals[root(path)] })
	for _, path := range f.paths {
		f.roots = append(f.roots, root(path))
	}
	slices.Sort(f.roots)
	f.roots = slices.Compact(f.roots)
	for i := range f.reads {
		_, f.reads[i].asked = slices.BinarySearch(f.roots, f.reads[i].name)
	}
}

func root(path string) string {
	name, _, _ := strings.Cut(path, ".")
	return name
}

func (w *rewriter) tag(t token) error {
	if name, isEnd := strings.CutPrefix(t.name, "end"); isEnd {
		return w.end(t, name)
	}
	if _, isBlock := blocks[t.name]; isBlock {
		return w.open(t)
	}
	switch t.name {
	case "else", "elsif", "when":
		return w.clause(t)
	case "assign":
		return w.assign(t)
	case "cycle":
		if !slices.ContainsFunc(w.stack, block.loops) {
			return fault("move it into a loop", "cycle stands outside a loop")
		}
		if _, err := w.examine(t.body, false); err != nil {
			return err
		}
	case "break", "continue":
		if !slices.ContainsFunc(w.stack, block.loops) {
			return fault("remove it", "%s stands outside a loop", t.name)
		}
		t.body = ""
	case "include", "render":
		return fault("put the text itself into the content", "the tag %s is not available", t.name)
	default:
		return fault("put literal text of this form between {% raw %} and {% endraw %}", "there is no tag %q", truncate(t.name, 40))
	}
	w.emit(t, strings.TrimSpace(t.name+" "+t.body))
	return nil
}

func (w *rewriter) assign(t token) error {
	name, value, found := strings.Cut(t.body, "=")
	if name = strings.TrimSpace(name); !found || !isPlainName(name) {
		return fault("write {% assign name = value %}", "assign does not name a variable")
	}
	w.locals[name] = true
	n, err := w.output(strings.TrimSpace(value))
	if err != nil {
		return err
	}
	w.emit(t, fmt.Sprintf("assign %s %d", name, n))
	return nil
}

func isPlainName(s string) bool {
	return s != "" && isNameStart(s) && !slices.Contains(words, s) && strings.IndexFunc(s, func(r rune) bool {
		return r < 0x80 && !isWord(byte(r)) && r != '-'
	}) < 0
}

func (w *rewriter) open(t token) error {
	if len(w.stack) >= MaxNesting {
		return fault("simplify the template", "blocks are nested deeper than %d", MaxNesting)
	}
	b := block{name: t.name, line: t.line, note: -1}
	name := t.name
	switch t.name {
	case "capture":
		if !isPlainName(t.body) {
			return fault("write {% capture name %}", "capture does not name a variable")
		}
		w.locals[t.body], name = true, tagHold
	case "for", "tablerow":
		if err := w.loop(t, &b); err != nil {
			return err
		}
		w.stack = append(w.stack, b)
		return nil
	default:
		if _, err := w.examine(t.body, false); err != nil {
			return err
		}
	}
	w.emit(t, name+" "+t.body)
	w.stack = append(w.stack, b)
	return nil
}

// loop writes the loop's tag, before it the note of its collection, and behind
// it room for the step tag, which end completes.
func (w *rewriter) loop(t token, b *block) error {
	variable, collection := cutLoop(t.body)
	if !isPlainName(variable) || collection == "" {
		return fault("write {% "+t.name+" item in items %}", "%s does not name a variable and a collection", t.name)
	}
	known, err := w.examine(collection, true)
	if err != nil {
		return err
	}
	w.locals[variable] = true
	if len(known.paths) > 0 && strings.HasPrefix(collection, known.paths[0]) && !known.hasGuard {
		n, err := w.output(known.paths[0])
		if err != nil {
			return err
		}
		b.note = len(w.pieces)
		w.emit(token{}, tagNote+" "+strconv.Itoa(n))
	}
	w.emit(t, t.name+" "+t.body)
	b.step = len(w.pieces)
	w.pieces = append(w.pieces, "")
	return nil
}

// cutLoop splits "item in items limit: 3" at its in.
func cutLoop(args string) (variable, collection string) {
	n := strings.IndexAny(args, spaces)
	if n < 0 {
		return "", ""
	}
	rest, found := strings.CutPrefix(strings.TrimLeft(args[n:], spaces), "in")
	if !found || rest == "" || isWord(rest[0]) {
		return "", ""
	}
	return args[:n], strings.TrimLeft(rest, spaces)
}

func (w *rewriter) clause(t token) error {
	if len(w.stack) == 0 || !slices.Contains(blocks[w.stack[len(w.stack)-1].name], t.name) {
		return fault("remove it or open the block before it", "%s has no block it belongs to", t.name)
	}
	b := &w.stack[len(w.stack)-1]
	switch {
	case b.hasElse:
		return fault("keep one else, last in its block", "%s follows an else", t.name)
	case t.name == "else":
		b.hasElse, t.body = true, ""
	default:
		if _, err := w.examine(t.body, false); err != nil {
			return err
		}
	}
	w.emit(t, strings.TrimSpace(t.name+" "+t.body))
	return nil
}

func (w *rewriter) end(t token, name string) error {
	n := len(w.stack)
	if n == 0 || w.stack[n-1].name != name {
		open := "no block is open"
		if n > 0 {
			open = fmt.Sprintf("the open block is %s of line %d", w.stack[n-1].name, w.stack[n-1].line)
		}
		return fault("close blocks in reverse order", "end%s does not match: %s", truncate(name, 40), open)
	}
	b := w.stack[n-1]
	w.stack = w.stack[:n-1]
	if b.loops() {
		w.pieces[b.step] = fmt.Sprintf("{%% %s %d %%}", tagStep, b.tags+1)
		if b.hasElse && b.note >= 0 {
			w.pieces[b.note] = ""
		}
	}
	if name == "capture" {
		name = tagHold
	}
	t.body = ""
	w.emit(t, "end"+name)
	return nil
}
