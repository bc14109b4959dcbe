package compose

import (
	"errors"
	"fmt"
	"html"
	"io"
	"strconv"
	"strings"

	"github.com/osteele/liquid/expressions"
	"github.com/osteele/liquid/parser"
	"github.com/osteele/liquid/render"
	"github.com/osteele/liquid/tags"
)

// fragment is one compiled template: the subject, a header's value, the text.
// Once compiled it is only read, so any number of renderings may share it.
type fragment struct {
	field    string
	html     bool
	literal  string      // the whole of it, if it has no Liquid
	cleaned  string      // the literal as a header's value
	pieces   []piece     // of a flat template
	root     render.Node // of any other template with Liquid
	static   []string    // texts that are not written but have their place marked, in order; see setApart
	gaps     []int       // the gaps before static texts, by number, that may hold something
	config   render.Config
	literals []string
	outputs  []output
	filters  []string // used
	roots    []string // variables read that it does not define itself
	paths    []string // the same with their properties
	reads    []read   // all names read, sorted
	scope    int      // its place in message.scopes, from 1; 0 if it needs none
}

// read is a name that a template reads.
type read struct {
	name  string
	asked bool // of the recipient: the template does not define it
	slot  int  // its place in Template.names
}

type output struct {
	expr    expressions.Expression
	guarded bool // a default filter supplies what is missing
}

// runKey is the binding that holds the *run; no identifier can spell it.
const runKey = " run"

// isLiteral reports whether the template has no Liquid.
func (f *fragment) isLiteral() bool { return f.pieces == nil && f.root == nil }

// compileFragment parses one template. In a body its text stays apart from what is
// written, as fragment.static, so that it is encoded once. The error is a
// *syntaxError.
func compileFragment(field, src string, html, body bool) (*fragment, error) {
	f := &fragment{field: field, html: html}
	if openAt(src, 0) == len(src) {
		if f.literal = src; !body {
			f.cleaned = clean(src)
		}
		return f, nil
	}
	tokens, err := scan(src)
	if err != nil {
		return nil, err
	}
	var static []bool
	if body && isText([]byte(src)) {
		tokens, static = setApart(tokens)
	}
	f.gaps = gapsOf(tokens, static)
	return f, f.compile(tokens, static, flatten(tokens, static))
}

// compile reads the tokens. Flat pieces, if there are any, spare it the library.
func (f *fragment) compile(tokens []token, static []bool, flat []piece) (err error) {
	defer func() {
		if p := recover(); p != nil { // the library's lexer panics on numbers and names it cannot read
			err = at(1, fault("correct the template", "%v", panicText(p)))
		}
	}()
	source, err := rewrite(f, tokens, static)
	if err != nil {
		return err
	}
	if f.pieces = flat; flat != nil {
		return nil
	}
	f.config = f.grammar()
	root, failed := f.config.Compile(source, parser.SourceLoc{Pathname: f.field, LineNo: 1})
	if failed != nil {
		return &syntaxError{failed.LineNumber(), causeText(failed), "correct the template"}
	}
	f.root = root
	return nil
}

// grammar is the library's with the tags of ours.
func (f *fragment) grammar() render.Config {
	c := render.NewConfig()
	tags.AddStandardTags(&c)
	c.UnregisterTag("include")
	c.AddTag(tagSkip, func(string) (func(io.Writer, render.Context) error, error) {
		return func(io.Writer, render.Context) error { return nil }, nil
	})
	c.AddTag(tagLiteral, f.literalTag)
	c.AddTag(tagStatic, f.staticTag)
	c.AddTag(tagOutput, f.outputTag)
	c.AddTag(tagNote, f.noteTag)
	c.AddTag(tagStep, stepTag)
	c.AddTag("assign", f.assignTag)
	c.AddTag("cycle", cycleTag)
	c.AddBlock(tagHold).Compiler(f.holdTag)
	return c
}

type renderTag = func(io.Writer, render.Context) error

func runOf(ctx render.Context) *run { return ctx.Get(runKey).(*run) }

func (f *fragment) literalTag(args string) (renderTag, error) {
	n, err := strconv.Atoi(args)
	if err != nil {
		return nil, err
	}
	text := []byte(f.literals[n])
	return func(w io.Writer, ctx render.Context) error {
		runOf(ctx).spend(len(text) / readCost) // trim marks may keep it from ever reaching a writer of ours
		_, err := w.Write(text)
		return err
	}, nil
}

// staticTag marks the place of a static text. White space control does not change such
// texts: an empty write ends a trimming that waits for what follows, and another what
// the library holds back for a trimming to come.
func (f *fragment) staticTag(args string) (renderTag, error) {
	n, err := strconv.Atoi(args)
	if err != nil {
		return nil, err
	}
	length := len(f.static[n])
	return func(w io.Writer, ctx render.Context) error {
		r := runOf(ctx)
		r.spend(length / readCost)
		_, trimmed := w.Write(nil)
		_, flushed := w.Write(nil)
		r.static(length)
		return errors.Join(trimmed, flushed)
	}, nil
}

func (f *fragment) outputTag(args string) (renderTag, error) {
	n, err := strconv.Atoi(args)
	if err != nil {
		return nil, err
	}
	out := f.outputs[n]
	return func(w io.Writer, ctx render.Context) error {
		r := runOf(ctx)
		v, err := r.evaluate(ctx, out)
		if err != nil || v == nil {
			return err
		}
		text := r.text(v)
		if _, marked := v.(safe); f.html && !marked {
			text = html.EscapeString(text)
		}
		_, err = io.WriteString(w, text)
		return err
	}, nil
}

func (f *fragment) noteTag(args string) (renderTag, error) {
	n, err := strconv.Atoi(args)
	if err != nil {
		return nil, err
	}
	out := f.outputs[n]
	return func(_ io.Writer, ctx render.Context) error {
		_, err := runOf(ctx).evaluate(ctx, out)
		return err
	}, nil
}

// stepTag counts the steps of the loop whose body it begins.
func stepTag(args string) (renderTag, error) {
	n, err := strconv.Atoi(args)
	if err != nil {
		return nil, err
	}
	return func(_ io.Writer, ctx render.Context) error {
		runOf(ctx).step(n)
		return nil
	}, nil
}

func (f *fragment) assignTag(args string) (renderTag, error) {
	name, index, _ := strings.Cut(args, " ")
	n, err := strconv.Atoi(index)
	if err != nil {
		return nil, err
	}
	out := f.outputs[n]
	return func(_ io.Writer, ctx render.Context) error {
		r := runOf(ctx)
		v, err := r.evaluate(ctx, out)
		if err != nil {
			return err
		}
		ctx.Set(name, r.hand(r.keep(v)))
		return nil
	}, nil
}

// holdTag is capture. What an HTML template captures is HTML.
func (f *fragment) holdTag(node render.BlockNode) (renderTag, error) {
	name := strings.TrimSpace(node.Args)
	return func(_ io.Writer, ctx render.Context) error {
		r := runOf(ctx)
		w := &captureWriter{run: r}
		if err := ctx.RenderChildren(w); err != nil {
			return err
		}
		if f.html {
			ctx.Set(name, r.hand(safe(w.buf.String())))
		} else {
			ctx.Set(name, r.hand(w.buf.String()))
		}
		return nil
	}, nil
}

// cycleTag stands in for the library's, whose closure writes a shared variable.
func cycleTag(args string) (renderTag, error) {
	stmt, err := expressions.ParseStatement(expressions.CycleStatementSelector, args)
	if err != nil {
		return nil, err
	}
	cycle := stmt.Cycle
	return func(w io.Writer, ctx render.Context) error {
		loop, _ := ctx.Get("forloop").(map[string]any)
		counts, ok := loop[".cycles"].(map[string]int)
		if !ok {
			return errors.New("cycle stands outside a loop")
		}
		n := counts[cycle.Group]
		counts[cycle.Group] = n + 1
		_, err := io.WriteString(w, cycle.Values[n%len(cycle.Values)])
		return err
	}, nil
}

// evaluate gives the value of an output or assignment, recording what it misses.
func (r *run) evaluate(ctx render.Context, out output) (any, error) {
	r.loud = !out.guarded
	v, err := ctx.Evaluate(out.expr)
	r.loud = false
	return v, err
}

// scope is what one message's evaluation of one fragment by the library needs.
type scope struct {
	bound       bool
	bindings    map[string]any
	config      render.Config
	expressions expressions.Context
}

// scope binds the variables that the fragment reads, once for each message.
func (m *message) scope(f *fragment) *scope {
	s := &m.scopes[f.scope-1]
	if s.bindings == nil {
		s.bindings = make(map[string]any, len(f.reads)+1)
		s.config = f.config
		s.config.Config.Config = expressions.NewConfig()
		for _, name := range f.filters {
			s.config.AddFilter(name, m.run.filter(filters[name]))
		}
		s.expressions = expressions.NewContext(s.bindings, s.config.Config.Config)
	}
	if s.bound {
		return s
	}
	s.bound = true
	s.bindings[runKey] = m.run
	for _, read := range f.reads {
		if m.vars[read.slot].kind != absent {
			s.bindings[read.name] = m.run.hand(m.value(read.slot))
		} else if read.asked {
			s.bindings[read.name] = unknown{m.run, read.name}
		}
	}
	return s
}

// render makes the fragment's text for one recipient: run.buf, with the places of the
// fragment's static texts in run.marks. The error is a *RenderError or that of the
// run's context.
func (m *message) render(f *fragment) (err error) {
	m.run.begin()
	if f.isLiteral() {
		return m.literal(f)
	}
	defer func() {
		if p := recover(); p != nil {
			err = f.failure(m.run, 0, errors.New(panicText(p)))
		}
	}()
	if f.pieces != nil {
		return m.flat(f)
	}
	s := m.scope(f)
	m.run.html = f.html
	if failed := render.Render(f.root, outputWriter{m.run}, s.bindings, s.config); failed != nil {
		return f.failure(m.run, failed.LineNumber(), errors.New(causeText(failed)))
	}
	return nil
}

func (m *message) literal(f *fragment) error {
	if err := m.count(f); err != nil {
		return err
	}
	m.run.buf = append(m.run.buf, f.literal...)
	return nil
}

// count counts a fragment without Liquid as written.
func (m *message) count(f *fragment) error {
	if m.run.out += len(f.literal); m.run.out > MaxOutput {
		return &RenderError{f.field, 0, fmt.Errorf("%w: the message is too large (at most %d)", ErrLimit, MaxOutput)}
	}
	return nil
}

// failure prefers the reason for which the run was ended to what became of it on
// its way through the library.
func (f *fragment) failure(r *run, line int, err error) error {
	if r.err != nil {
		err = r.err
	}
	if ctxErr := r.ctx.Err(); ctxErr != nil && errors.Is(err, ctxErr) {
		return ctxErr
	}
	return &RenderError{Field: f.field, Line: line, Err: err}
}

// causeText is the library's message without its location.
func causeText(err render.Error) string {
	cause := err.Cause()
	if cause == nil {
		_, text, found := strings.Cut(err.Error(), ": ")
		if !found {
			text = err.Error()
		}
		return truncate(strings.TrimSuffix(text, " in "+err.Path()), 500)
	}
	return errorText(cause).Error()
}

// errorText is the text of what an expression's evaluation failed with.
func errorText(cause error) error {
	var failed expressions.FilterError
	if errors.As(cause, &failed) {
		return errors.New(truncate(fmt.Sprintf("filter %s: %v", failed.FilterName, failed.Err), 500))
	}
	return errors.New(truncate(cause.Error(), 500))
}

// panicText is a panic's message; the library adds stack traces to some.
func panicText(p any) string {
	if wrapped, ok := p.(interface{ Cause() error }); ok && wrapped.Cause() != nil {
		p = wrapped.Cause()
	}
	return "panic: " + truncate(fmt.Sprint(p), 300)
}
