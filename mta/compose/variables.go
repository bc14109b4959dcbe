package compose

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// Of a recipient's variables only those that a template names are decoded, and of
// these most only where they are written. One pass over the JSON checks it, as
// strictly as encoding/json does, and notes where the named values stand.

// variable is one name that the templates of a delivery read.
type variable struct {
	kind  variableKind
	raw   []byte // checked JSON, if kind is undecoded
	value any    // if kind is known
}

type variableKind uint8

const (
	absent variableKind = iota
	undecoded
	known
	builtinAddress // recipient, with its address only, before anybody needs it as a value
)

// errNotPlain makes the scan fall back on encoding/json, which says what is wrong.
var errNotPlain = errors.New("not a plain JSON object")

// read checks the job's variables and finds those that the templates name.
func (m *message) readVariables(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if len(data) <= MaxVariables && m.scanVariables(data) == nil {
		return nil
	}
	for i := range m.vars {
		m.vars[i] = variable{}
	}
	given, err := m.run.decode(data)
	if err != nil {
		return err
	}
	for i, name := range m.t.names {
		if v, found := given[name]; found {
			m.vars[i] = variable{kind: known, value: v}
		}
	}
	return nil
}

func (m *message) scanVariables(data []byte) error {
	s := jsonScanner{data: data}
	if s.space(); !s.accept('{') {
		return errNotPlain
	}
	ok := s.members(1, func(key, value []byte) {
		if i, found := m.t.place(key); found {
			m.vars[i] = variable{kind: undecoded, raw: value}
		}
	})
	if s.space(); !ok || s.pos < len(data) {
		return errNotPlain
	}
	return nil
}

// place finds a JSON key among the names that the templates read.
func (t *Template) place(key []byte) (int, bool) {
	if text, ok := plainText(key); ok {
		i, found := t.places[string(text)]
		return i, found
	}
	i, found := t.places[unquote(key)]
	return i, found
}

// value decodes a variable, once.
func (m *message) value(i int) any {
	v := &m.vars[i]
	switch v.kind {
	case undecoded:
		b := builder{run: m.run, scan: jsonScanner{data: v.raw}}
		v.kind, v.value = known, b.value(nil, m.t.names[i])
	case builtinAddress:
		f := &fields{run: m.run, key: "recipient", all: map[string]any{"address": m.address}}
		f.octet = itemSize + len("address") + len(m.address)
		v.kind, v.value = known, object{f}
	}
	return v.value
}

// jsonScanner checks JSON (RFC 8259) of at most MaxDepth levels. It accepts nothing
// that encoding/json refuses.
type jsonScanner struct {
	data []byte
	pos  int
}

func (s *jsonScanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

func (s *jsonScanner) accept(c byte) bool {
	if s.pos < len(s.data) && s.data[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

// value reads one value at a depth, counted as message.convert does.
func (s *jsonScanner) value(depth int) bool {
	if s.pos >= len(s.data) || depth > MaxDepth {
		return false
	}
	switch c := s.data[s.pos]; c {
	case '"':
		return s.str()
	case '{':
		s.pos++
		return s.members(depth+1, func(_, _ []byte) {})
	case '[':
		s.pos++
		return s.entries(depth+1, func([]byte) {})
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	}
	return s.number()
}

// members reads an object behind its brace, whose values are at a depth. It tells
// each key, with its quotes, and value.
func (s *jsonScanner) members(depth int, tell func(key, value []byte)) bool {
	if s.space(); s.accept('}') {
		return true
	}
	for {
		s.space()
		from := s.pos
		if s.pos >= len(s.data) || s.data[s.pos] != '"' || !s.str() {
			return false
		}
		key := s.data[from:s.pos]
		if s.space(); !s.accept(':') {
			return false
		}
		s.space()
		from = s.pos
		if !s.value(depth) {
			return false
		}
		tell(key, s.data[from:s.pos])
		if s.space(); s.accept('}') {
			return true
		}
		if !s.accept(',') {
			return false
		}
	}
}

// entries reads an array behind its bracket and tells each entry.
func (s *jsonScanner) entries(depth int, tell func(value []byte)) bool {
	if s.space(); s.accept(']') {
		return true
	}
	for {
		s.space()
		from := s.pos
		if !s.value(depth) {
			return false
		}
		tell(s.data[from:s.pos])
		if s.space(); s.accept(']') {
			return true
		}
		if !s.accept(',') {
			return false
		}
	}
}

func (s *jsonScanner) word(w string) bool {
	if len(s.data)-s.pos < len(w) || string(s.data[s.pos:s.pos+len(w)]) != w {
		return false
	}
	s.pos += len(w)
	return true
}

// str reads a string with its quotes.
func (s *jsonScanner) str() bool {
	for s.pos++; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return true
		case c == '\\':
			if s.pos++; !s.escape() {
				return false
			}
		case c < ' ':
			return false
		}
	}
	return false
}

// escape reads what follows a backslash, up to its last octet.
func (s *jsonScanner) escape() bool {
	if s.pos >= len(s.data) {
		return false
	}
	switch s.data[s.pos] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		for range 4 {
			if s.pos++; s.pos >= len(s.data) || !isHex(s.data[s.pos]) {
				return false
			}
		}
		return true
	}
	return false
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func (s *jsonScanner) number() bool {
	s.accept('-')
	if !s.accept('0') && !s.digits() {
		return false
	}
	if s.accept('.') && !s.digits() {
		return false
	}
	if s.accept('e') || s.accept('E') {
		if !s.accept('+') {
			s.accept('-')
		}
		return s.digits()
	}
	return true
}

func (s *jsonScanner) digits() bool {
	from := s.pos
	for s.pos < len(s.data) && '0' <= s.data[s.pos] && s.data[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > from
}

// plainText returns what is between the quotes of a checked JSON string, if that is
// the string's value.
func plainText(quoted []byte) ([]byte, bool) {
	text := quoted[1 : len(quoted)-1]
	for _, c := range text {
		if c == '\\' || c >= utf8.RuneSelf {
			return text, c != '\\' && bytes.IndexByte(text, '\\') < 0 && utf8.Valid(text)
		}
	}
	return text, true
}

// unquote returns the value of a checked JSON string.
func unquote(quoted []byte) string {
	if text, ok := plainText(quoted); ok {
		return string(text)
	}
	var text string
	if err := json.Unmarshal(quoted, &text); err != nil {
		return "" // the scanner accepts no string that encoding/json refuses
	}
	return text
}

// isAsWritten reports whether a checked JSON number is written in a template as it
// stands: whole numbers, and decimals of at most 15 digits, which a float64 holds,
// without a zero at the end.
func isAsWritten(number []byte) bool {
	digits, point := 0, -1
	for i, c := range number {
		switch {
		case '0' <= c && c <= '9':
			digits++
		case c == '.':
			point = i
		case c != '-':
			return false
		}
	}
	if point < 0 {
		return string(number) != "-0"
	}
	return digits <= 15 && number[len(number)-1] != '0'
}

// member finds a property in a checked JSON object; of several the last counts, as
// for encoding/json. It returns nil if there is none.
func member(raw []byte, name string) (found []byte) {
	s := jsonScanner{data: raw, pos: 1}
	s.members(1, func(key, value []byte) {
		if text, ok := plainText(key); ok && string(text) == name || !ok && unquote(key) == name {
			found = value
		}
	})
	return found
}

// builder makes values of checked JSON, as run.convert makes them of what
// encoding/json made.
type builder struct {
	run  *run
	scan jsonScanner
}

func (b *builder) value(up *fields, key string) any {
	s := &b.scan
	from := s.pos
	switch s.data[from] {
	case '{':
		s.pos++
		return b.object(up, key)
	case '[':
		s.pos++
		return b.list(up, key)
	}
	s.value(1)
	switch raw := s.data[from:s.pos]; raw[0] {
	case '"':
		return unquote(raw)
	case 't':
		return true
	case 'f':
		return false
	case 'n':
		return nil
	default:
		return number(string(raw))
	}
}

func (b *builder) object(up *fields, key string) object {
	s := &b.scan
	f := &fields{run: b.run, up: up, key: key, all: map[string]any{}}
	for s.space(); !s.accept('}'); s.space() {
		s.accept(',')
		s.space()
		from := s.pos
		s.str()
		name := unquote(s.data[from:s.pos])
		s.space()
		s.accept(':')
		s.space()
		f.all[name] = b.value(f, name)
	}
	for name, v := range f.all {
		f.octet += itemSize + len(name) + sizeOf(v)
	}
	return object{f}
}

func (b *builder) list(up *fields, key string) list {
	s := &b.scan
	holder := &fields{run: b.run, up: up, key: key}
	all := []any{}
	for s.space(); !s.accept(']'); s.space() {
		s.accept(',')
		s.space()
		all = append(all, b.value(holder, ""))
	}
	return b.run.newList(all)
}
