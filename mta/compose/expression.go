package compose

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// facts is what can be known about an expression without evaluating it.
type facts struct {
	paths    []string // variables read, with the properties that follow: user.name; may repeat
	filters  []string
	hasGuard bool // a default filter supplies what is missing
}

// examine reads the expression the library will parse. It exists to name
// variables and filters at compile time and to refuse what the library takes
// wrongly: characters that switch its grammar, properties of a range (which
// would call Go methods), and the names empty and blank, which it does not know
// and would take for undefined variables.
func examine(expr string, loop bool) (facts, error) {
	l := &lexer{src: expr, mods: loop}
	for l.skip(); l.pos < len(expr); l.skip() {
		if err := l.next(); err != nil {
			return facts{}, err
		}
	}
	l.endPath()
	return l.facts, nil
}

type lexer struct {
	facts
	src  string
	pos  int
	path string // the path being read, if not empty
	mods bool   // the expression is a loop's, which may end in reversed
	prev byte   // the last character that was not space, 'a' for a word, '"' for a string
}

func (l *lexer) skip() {
	for l.pos < len(l.src) && strings.IndexByte(spaces, l.src[l.pos]) >= 0 {
		l.pos++
	}
}

func (l *lexer) endPath() {
	if l.path != "" {
		l.paths = append(l.paths, l.path)
	}
	l.path = ""
}

func (l *lexer) next() error {
	c := l.src[l.pos]
	switch {
	case c == '"' || c == '\'':
		return l.str(c)
	case c == '.' && strings.HasPrefix(l.src[l.pos:], ".."):
		l.endPath()
		l.pos, l.prev = l.pos+2, '.'
		return nil
	case c == '.' && l.pos+1 < len(l.src) && isNameStart(l.src[l.pos+1:]):
		return l.property()
	case isNameStart(l.src[l.pos:]):
		return l.word()
	case c == '[':
		if l.prev == ')' {
			return fault("assign the value to a variable first", "[ follows a bracket")
		}
		l.endPath()
	case strings.IndexByte("{}%;", c) >= 0:
		return fault("remove it", "the character %q has no meaning in an expression", c)
	default:
		l.endPath()
	}
	if '0' <= c && c <= '9' {
		l.number()
		return nil
	}
	l.pos++
	l.prev = c
	return nil
}

func (l *lexer) str(quote byte) error {
	l.endPath()
	n := strings.IndexByte(l.src[l.pos+1:], quote)
	if n < 0 {
		return fault(fmt.Sprintf("add %c at its end", quote), "a string is not closed")
	}
	l.pos += n + 2
	l.prev = '"'
	return nil
}

// number skips digits and one fraction, so that 1..5 keeps its dots.
func (l *lexer) number() {
	digits := func() {
		for l.pos < len(l.src) && '0' <= l.src[l.pos] && l.src[l.pos] <= '9' {
			l.pos++
		}
	}
	digits()
	if l.pos+1 < len(l.src) && l.src[l.pos] == '.' && '0' <= l.src[l.pos+1] && l.src[l.pos+1] <= '9' {
		l.pos++
		digits()
	}
	l.prev = '0'
}

func (l *lexer) property() error {
	if l.prev == ')' {
		return fault("assign the value to a variable first", "a property follows a bracket")
	}
	l.pos++
	name := l.name()
	if l.path != "" {
		l.path += "." + name
	}
	l.prev = 'a'
	return nil
}

// word reads a variable, a filter's name, a keyword of the language or the name
// of an argument (ending in a colon).
func (l *lexer) word() error {
	name, prev := l.name(), l.prev
	l.endPath()
	l.prev = 'a'
	named := l.pos < len(l.src) && l.src[l.pos] == ':'
	switch {
	case prev == '|':
		l.filters = append(l.filters, name)
		l.hasGuard = l.hasGuard || name == "default"
	case named || slices.Contains(words, name) || l.mods && name == "reversed":
	case name == "empty" || name == "blank":
		return fault("compare with '' or test x.size == 0", "%q is not known", name)
	default:
		l.path = name
	}
	return nil
}

var words = []string{"true", "false", "nil", "and", "or", "contains", "in"}

func (l *lexer) name() string {
	start := l.pos
	for l.pos < len(l.src) && (isWord(l.src[l.pos]) || l.src[l.pos] == '-' || l.src[l.pos] >= utf8.RuneSelf) {
		l.pos++
	}
	if l.pos < len(l.src) && l.src[l.pos] == '?' {
		l.pos++
	}
	return l.src[start:l.pos]
}

func isNameStart(s string) bool {
	c := s[0]
	return c >= utf8.RuneSelf || isWord(c) && (c < '0' || c > '9')
}
