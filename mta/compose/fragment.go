package compose

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
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
	literal  string      // the whole of it, if root is nil
	root     render.Node // nil for a template without Liquid
	config   render.Config
	literals []string
	outputs  []output
	filters  []string // used
	roots    []string // variables read
	paths    []string // the same with their properties
}

type output struct {
	expr    expressions.Expression
	guarded bool // a default filter supplies what is missing
}

// runKey is the binding that holds the *run; no identifier can spell it.
const runKey = " run"

// compileFragment parses one template. It returns a *syntaxError.
func compileFragment(field, src string, html bool) (f *fragment, err error) {
	f = &fragment{field: field, html: html}
	if openAt(src, 0) == len(src) {
		f.literal = src
		return f, nil
	}
	tokens, err := scan(src)
	if err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil { // the library's lexer panics on numbers and names it cannot read
			f, err = nil, at(1, fault("correct the template", "%v", panicText(p)))
		}
	}()
	source, err := rewrite(f, tokens)
	if err != nil {
		return nil, err
	}
	f.config = f.grammar()
	root, failed := f.config.Compile(source, parser.SourceLoc{Pathname: field, LineNo: 1})
	if failed != nil {
		return nil, &syntaxError{failed.LineNumber(), causeText(failed), "correct the template"}
	}
	f.root = root
	return f, nil
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

// render writes the fragment for one recipient. The error is a *RenderError or
// that of the run's context.
func (f *fragment) render(r *run, vars map[string]any, buf *bytes.Buffer) (err error) {
	if f.root == nil {
		return f.renderLiteral(r, buf)
	}
	bindings := make(map[string]any, len(vars)+len(f.roots)+1)
	for _, name := range f.roots {
		bindings[name] = unknown{r, name}
	}
	maps.Copy(bindings, vars)
	bindings[runKey] = r
	config := f.config
	config.Config.Config = expressions.NewConfig()
	for _, name := range f.filters {
		config.AddFilter(name, r.filter(filters[name]))
	}
	defer func() {
		if p := recover(); p != nil {
			err = f.failure(r, 0, errors.New(panicText(p)))
		}
	}()
	r.html = f.html
	if failed := render.Render(f.root, outputWriter{r, buf}, bindings, config); failed != nil {
		return f.failure(r, failed.LineNumber(), errors.New(causeText(failed)))
	}
	return nil
}

func (f *fragment) renderLiteral(r *run, buf *bytes.Buffer) error {
	if r.out += len(f.literal); r.out > MaxOutput {
		return &RenderError{f.field, 0, fmt.Errorf("%w: the message is too large (at most %d)", ErrLimit, MaxOutput)}
	}
	buf.WriteString(f.literal)
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
	var failed expressions.FilterError
	if errors.As(cause, &failed) {
		return truncate(fmt.Sprintf("filter %s: %v", failed.FilterName, failed.Err), 500)
	}
	return truncate(cause.Error(), 500)
}

// panicText is a panic's message; the library adds stack traces to some.
func panicText(p any) string {
	if wrapped, ok := p.(interface{ Cause() error }); ok && wrapped.Cause() != nil {
		p = wrapped.Cause()
	}
	return "panic: " + truncate(fmt.Sprint(p), 300)
}
