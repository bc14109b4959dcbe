package compose

import (
	"slices"
	"strings"
	"unicode"
)

// A template without tags and white space control is flat: text and outputs, one
// after the other. Flat templates are rendered here, without the library, but for
// the expressions that are more than a variable or a property of one. What they
// write, miss and use up is what the library's rendering would.

// piece is one part of a flat template.
type piece struct {
	text   string   // literal, if out is negative
	static bool     // the text is one of the fragment's static ones
	out    int      // index into fragment.outputs
	line   int      // of the output
	path   []string // the output is this variable's property; nil for any other expression
	slot   int      // the variable's place in Template.names
}

// flatten returns the pieces of a flat template; nil if it is none.
func flatten(tokens []token, static []bool) []piece {
	var pieces []piece
	outputs := 0
	for i, t := range tokens {
		switch {
		case t.left || t.right || t.kind == tagToken:
			return nil
		case t.kind == textToken:
			pieces = append(pieces, piece{text: t.body, static: static != nil && static[i], out: -1})
		case t.kind == objectToken:
			pieces = append(pieces, piece{out: outputs, line: t.line, path: plainPath(t.body)})
			outputs++
		}
	}
	return pieces
}

// plainPath splits a variable with or without properties, such as order.total.
// Anything else that an expression may be gives nil.
func plainPath(expr string) []string {
	path := strings.Split(expr, ".")
	for _, name := range path {
		if name == "" || !isNameStart(name) || slices.Contains(words, name) {
			return nil
		}
		for i := range len(name) {
			if !isWord(name[i]) {
				return nil
			}
		}
	}
	return path
}

// reach is what can be known about a text outside all blocks: whether white space
// control may trim its head and its tail.
type reach struct{ outside, head, tail bool }

// reaches judges each token.
func reaches(tokens []token) []reach {
	all := make([]reach, len(tokens))
	depth, last, trims := 0, -1, false // trims: there was white space control since the last text outside
	for i, t := range tokens {
		trims = trims || t.left
		if t.kind == textToken && depth == 0 {
			if last >= 0 {
				all[last].tail = trims
			}
			all[i] = reach{outside: true, head: trims}
			last, trims = i, false
		}
		trims = trims || t.right
		depth += t.opens()
	}
	if last >= 0 {
		all[last].tail = trims
	}
	return all
}

// opens returns 1 for a tag that opens a block, -1 for one that closes it.
func (t *token) opens() int {
	name, isEnd := strings.CutPrefix(t.name, "end")
	if _, isBlock := blocks[name]; !isBlock || t.kind != tagToken {
		return 0
	}
	if isEnd {
		return -1
	}
	return 1
}

// setApart finds the text that comes out as it stands, once and in the order of the
// template: text outside all blocks, but for white space at its ends that may be
// trimmed, which becomes a token of its own. It returns the tokens, and which of them
// are such text.
func setApart(tokens []token) (all []token, static []bool) {
	for i, r := range reaches(tokens) {
		t := tokens[i]
		from, to := 0, len(t.body)
		if r.head {
			from = to - len(strings.TrimLeftFunc(t.body, unicode.IsSpace))
		}
		if r.tail {
			to = len(strings.TrimRightFunc(t.body, unicode.IsSpace))
		}
		if !r.outside || from >= to {
			all, static = append(all, t), append(static, false)
			continue
		}
		for _, part := range t.cut(from, to) {
			all, static = append(all, part), append(static, strings.TrimSpace(part.body) != "" || to-from == len(t.body))
		}
	}
	return all, static
}

// cut parts a text at two places, without what is empty.
func (t token) cut(from, to int) (parts []token) {
	next := t
	next.right = false
	tags := t.lines - strings.Count(t.body, "\n") // lines of the tags around the text of a raw block
	for _, body := range []string{t.body[:from], t.body[from:to], t.body[to:]} {
		if body == "" {
			continue
		}
		next.body, next.lines = body, strings.Count(body, "\n")+tags
		parts = append(parts, next)
		next.line += next.lines
		next.left, tags = false, 0
	}
	parts[len(parts)-1].right = t.right
	return parts
}

// gapsOf lists the gaps between static texts, by the text each precedes, in which
// something may be written.
func gapsOf(tokens []token, static []bool) (gaps []int) {
	n := 0
	for i, t := range tokens {
		switch {
		case static != nil && static[i]:
			n++
		case t.kind != blankToken && (len(gaps) == 0 || gaps[len(gaps)-1] != n):
			gaps = append(gaps, n)
		}
	}
	return gaps
}

// flat renders a flat fragment. Like the library's rendering it may panic.
func (m *message) flat(f *fragment) error {
	for i := range f.pieces {
		p := &f.pieces[i]
		switch {
		case p.static:
			m.run.spend(len(p.text) / readCost)
			m.run.static(len(p.text))
		case p.out < 0:
			m.run.spend(len(p.text) / readCost)
			m.run.wrote(len(p.text))
			m.run.buf = append(m.run.buf, p.text...)
		default:
			if p.path != nil && m.plain(f, p) {
				continue
			}
			if err := m.output(f, p); err != nil {
				return f.failure(m.run, p.line, errorText(err))
			}
		}
	}
	return nil
}

// output writes any expression.
func (m *message) output(f *fragment, p *piece) error {
	r, out := m.run, f.outputs[p.out]
	r.html = f.html
	r.loud = !out.guarded
	v, err := out.expr.Evaluate(m.scope(f).expressions)
	r.loud = false
	if err != nil || v == nil {
		return err
	}
	_, marked := v.(safe)
	write(r, r.text(v), f.html && !marked)
	return nil
}

// write writes a value's text.
func write[T string | []byte](r *run, text T, escape bool) {
	before := len(r.buf)
	if escape {
		r.buf = appendEscaped(r.buf, text)
	} else {
		r.buf = append(r.buf, text...)
	}
	r.wrote(len(r.buf) - before)
}

// miss records that a variable or property was needed and not given.
func (m *message) miss(name string) {
	m.run.loud = true
	m.run.note(name)
	m.run.loud = false
}

// plain writes a variable or a property that is text, a number, a boolean, null or
// missing, straight from the JSON. It reports whether it was one of these.
func (m *message) plain(f *fragment, p *piece) bool {
	v := &m.vars[p.slot]
	switch v.kind {
	case absent:
		m.miss(p.path[0])
		return true
	case builtinAddress:
		if len(p.path) == 2 && p.path[1] == "address" {
			write(m.run, m.address, f.html)
			return true
		}
		return false
	case known:
		text, ok := v.value.(string)
		if !ok || len(p.path) > 1 || len(text) >= bulkString {
			return false
		}
		write(m.run, text, f.html)
		return true
	}
	return m.scalar(f, p, v.raw)
}

// scalar is plain for a variable that is still JSON. What is large is better decoded
// once than read again wherever a template names it.
func (m *message) scalar(f *fragment, p *piece, raw []byte) bool {
	if len(raw) > bulkString {
		return false
	}
	for i, name := range p.path[1:] {
		if raw[0] != '{' {
			return false
		}
		inner := member(raw, name)
		if inner == nil {
			if name == "size" {
				return false
			}
			m.miss(strings.Join(p.path[:i+2], "."))
			return true
		}
		raw = inner
	}
	switch raw[0] {
	case '{', '[':
		return false
	case 'n':
		return true
	case '"':
		text, ok := plainText(raw)
		if !ok {
			text = []byte(unquote(raw))
		}
		write(m.run, text, f.html)
	case 't', 'f':
		write(m.run, raw, f.html)
	default:
		if !isAsWritten(raw) {
			write(m.run, m.run.text(number(string(raw))), f.html)
			return true
		}
		write(m.run, raw, f.html)
	}
	return true
}

// appendEscaped appends text with the characters that mean something in HTML
// replaced, as html.EscapeString does.
func appendEscaped[T string | []byte](dst []byte, text T) []byte {
	done := 0
	for i := range len(text) {
		var entity string
		switch text[i] {
		case '&':
			entity = "&amp;"
		case '\'':
			entity = "&#39;"
		case '<':
			entity = "&lt;"
		case '>':
			entity = "&gt;"
		case '"':
			entity = "&#34;"
		default:
			continue
		}
		dst = append(dst, text[done:i]...)
		dst = append(dst, entity...)
		done = i + 1
	}
	return append(dst, text[done:]...)
}
