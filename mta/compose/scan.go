package compose

import (
	"errors"
	"fmt"
	"strings"
)

// The library's scanner is a regular expression that takes quadratic time on
// unclosed delimiters, treats them as text, and loses track of raw and comment
// blocks that hold them. This one is linear, refuses what is unclosed, and what
// it passes on to the library (see rewrite.go) holds nothing but whole tags.

type tokenKind uint8

const (
	textToken   tokenKind = iota // body is literal
	objectToken                  // {{ body }}
	tagToken                     // {% name body %}
	blankToken                   // a comment, which leaves only its outer trim marks
)

type token struct {
	kind        tokenKind
	line        int    // of its first character, from 1
	lines       int    // line ends inside it
	left, right bool   // trims white space before, after it
	name        string // of a tag
	body        string // text, expression or tag arguments
}

// syntaxError is a fault of a template, at a line once at has said which.
type syntaxError struct {
	line    int
	problem string
	remedy  string
}

func (e *syntaxError) Error() string {
	return fmt.Sprintf("line %d: %s; %s", e.line, e.problem, e.remedy)
}

func fault(remedy, problem string, args ...any) error {
	return &syntaxError{problem: fmt.Sprintf(problem, args...), remedy: remedy}
}

// at gives a fault its line, unless it knows a better one.
func at(line int, err error) error {
	var e *syntaxError
	if errors.As(err, &e) && e.line == 0 {
		e.line = line
	}
	return err
}

type scanner struct {
	src    string
	pos    int
	line   int
	tokens []token
}

func scan(src string) ([]token, error) {
	s := &scanner{src: src, line: 1}
	for s.pos < len(src) {
		if len(s.tokens) > 2*MaxTags {
			return nil, &syntaxError{s.line, fmt.Sprintf("the template has more than %d tags", MaxTags), "split the content or move repetition into a loop"}
		}
		if err := s.next(); err != nil {
			return nil, err
		}
	}
	return s.tokens, nil
}

// next adds the token at pos, or two when text comes first.
func (s *scanner) next() error {
	open := openAt(s.src, s.pos)
	s.add(token{kind: textToken, body: s.src[s.pos:open]}, open)
	if open == len(s.src) {
		return nil
	}
	if s.src[open+1] == '{' {
		return s.object()
	}
	t, end, err := s.tag(open)
	switch {
	case err != nil:
		return err
	case t.name == "raw" || t.name == "comment":
		return s.verbatim(t, end)
	}
	s.add(t, end)
	return nil
}

// add appends t, which ends before end, and moves there.
func (s *scanner) add(t token, end int) {
	t.line, t.lines = s.line, strings.Count(s.src[s.pos:end], "\n")
	if t.kind != textToken || t.body != "" {
		s.tokens = append(s.tokens, t)
	}
	s.line += t.lines
	s.pos = end
}

// openAt returns the index of the next {{ or {% at or after from, or len(src).
func openAt(src string, from int) int {
	for i := from; i+1 < len(src); i++ {
		n := strings.IndexByte(src[i:], '{')
		if n < 0 || i+n+1 >= len(src) {
			break
		}
		i += n
		if src[i+1] == '{' || src[i+1] == '%' {
			return i
		}
	}
	return len(src)
}

func (s *scanner) fail(problem, remedy string) error {
	return &syntaxError{s.line, problem, remedy}
}

func (s *scanner) object() error {
	length := strings.Index(s.src[s.pos+2:], "}}")
	if length < 0 {
		return s.fail("{{ is not closed", "close it with }}, or put literal braces between {% raw %} and {% endraw %}")
	}
	t := token{kind: objectToken}
	t.body, t.left, t.right = trimMarks(s.src[s.pos+2 : s.pos+2+length])
	switch {
	case t.body == "":
		return s.fail("{{ }} is empty", "name a variable in it")
	case len(t.body) > MaxExpression:
		return s.fail(fmt.Sprintf("{{ }} holds more than %d octets", MaxExpression), "use assign to split it")
	}
	s.add(t, s.pos+2+length+2)
	return nil
}

// tag reads the tag that opens at index open and returns it with its end.
func (s *scanner) tag(open int) (token, int, error) {
	length := strings.Index(s.src[open+2:], "%}")
	if length < 0 {
		return token{}, 0, s.fail("{% is not closed", "close it with %}, or put literal braces between {% raw %} and {% endraw %}")
	}
	inner, left, right := trimMarks(s.src[open+2 : open+2+length])
	t := token{kind: tagToken, left: left, right: right}
	n := 0
	for n < len(inner) && isWord(inner[n]) {
		n++
	}
	t.name, t.body = inner[:n], strings.Trim(inner[n:], spaces)
	switch {
	case n == 0:
		return t, 0, s.fail("a tag has no name", "write a tag such as {% if x %}")
	case n < len(inner) && strings.IndexByte(spaces, inner[n]) < 0:
		return t, 0, s.fail(fmt.Sprintf("the tag name %q is not followed by a space", truncate(t.name, 40)), "put a space after it")
	case strings.HasSuffix(t.body, "%"):
		return t, 0, s.fail("a tag ends in %%}", "remove one %")
	case len(t.body) > MaxExpression:
		return t, 0, s.fail(fmt.Sprintf("a tag holds more than %d octets", MaxExpression), "use assign to split it")
	}
	return t, open + 2 + length + 2, nil
}

// verbatim reads a raw or comment block whose opening tag ends before body. Its
// content is not Liquid: it runs to the first closing tag.
func (s *scanner) verbatim(open token, body int) error {
	for at := body; ; {
		n := strings.Index(s.src[at:], "{%")
		if n < 0 {
			return s.fail(open.name+" is not closed", fmt.Sprintf("add {%% end%s %%}", open.name))
		}
		at += n
		if right, end, ok := closing(s.src, at, "end"+open.name); ok {
			t := token{kind: blankToken, left: open.left, right: right}
			if open.name == "raw" && body < at {
				t.kind, t.body = textToken, s.src[body:at]
			}
			s.add(t, end)
			return nil
		}
		at += 2
	}
}

// closing reports whether the tag at index at is {% name %}, whether it trims
// what follows it, and where it ends.
func closing(src string, at int, name string) (right bool, end int, ok bool) {
	rest := strings.TrimLeft(strings.TrimPrefix(src[at+2:], "-"), spaces)
	if !strings.HasPrefix(rest, name) {
		return false, 0, false
	}
	rest = strings.TrimLeft(rest[len(name):], spaces)
	trimmed := strings.TrimPrefix(rest, "-")
	if !strings.HasPrefix(trimmed, "%}") {
		return false, 0, false
	}
	return len(trimmed) < len(rest), len(src) - len(trimmed) + 2, true
}

const spaces = " \t\r\n\v\f"

// trimMarks removes the white space control marks and the space inside them.
func trimMarks(inner string) (body string, left, right bool) {
	inner, left = strings.CutPrefix(inner, "-")
	inner, right = strings.CutSuffix(inner, "-")
	return strings.Trim(inner, spaces), left, right
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}
