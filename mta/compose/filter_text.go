package compose

import (
	"bytes"
	"encoding/json"
	"html"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

func textFilters() []filter {
	return []filter{
		{"append", 1, 1, appendText},
		{"prepend", 1, 1, prependText},
		{"capitalize", 0, 0, onText(capitalize)},
		{"downcase", 0, 0, onText(strings.ToLower)},
		{"upcase", 0, 0, onText(strings.ToUpper)},
		{"strip", 0, 0, onText(strings.TrimSpace)},
		{"lstrip", 0, 0, onText(func(s string) string { return strings.TrimLeftFunc(s, unicode.IsSpace) })},
		{"rstrip", 0, 0, onText(func(s string) string { return strings.TrimRightFunc(s, unicode.IsSpace) })},
		{"strip_newlines", 0, 0, onText(strings.NewReplacer("\r\n", "", "\n", "").Replace)},
		{"strip_html", 0, 0, onText(stripHTML)},
		{"newline_to_br", 0, 0, newlineToBR},
		{"escape", 0, 0, escape},
		{"h", 0, 0, escape},
		{"escape_once", 0, 0, escapeOnce},
		{"raw", 0, 0, markSafe},
		{"safe", 0, 0, markSafe},
		{"url_encode", 0, 0, onText(url.QueryEscape)},
		{"url_decode", 0, 0, urlDecode},
		{"remove", 1, 1, replaceText(-1)},
		{"remove_first", 1, 1, replaceText(1)},
		{"replace", 2, 2, replaceText(-1)},
		{"replace_first", 2, 2, replaceText(1)},
		{"slice", 1, 2, slice},
		{"split", 1, 1, split},
		{"truncate", 0, 2, truncateText},
		{"truncatewords", 0, 2, truncateWords},
		{"json", 0, 0, toJSON},
		{"inspect", 0, 0, toJSON},
		{"default", 1, 1, orDefault},
	}
}

// onText makes a filter of a function whose result is at most a few times as
// long as its input.
func onText(f func(string) string) func(*run, any, []any) (any, error) {
	return func(r *run, in any, _ []any) (any, error) { return f(r.text(in)), nil }
}

// markup is v as HTML: escaped, unless it is HTML already.
func (r *run) markup(v any) string {
	if s, ok := v.(safe); ok {
		return string(s)
	}
	return html.EscapeString(r.text(v))
}

// appendText keeps HTML HTML: what is joined to it is escaped.
func appendText(r *run, in any, args []any) (any, error) {
	return r.concatenate(in, args[0], in), nil
}

func prependText(r *run, in any, args []any) (any, error) {
	return r.concatenate(args[0], in, in), nil
}

func (r *run) concatenate(a, b, input any) any {
	if _, ok := input.(safe); ok {
		left, right := r.markup(a), r.markup(b)
		r.fits(len(left) + len(right))
		return safe(left + right)
	}
	left, right := r.text(a), r.text(b)
	r.fits(len(left) + len(right))
	return left + right
}

func capitalize(s string) string {
	first, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return s
	}
	return string(unicode.ToUpper(first)) + s[n:]
}

// stripHTML removes everything between < and >.
func stripHTML(s string) string {
	var b strings.Builder
	for {
		open := strings.IndexByte(s, '<')
		if open < 0 {
			break
		}
		end := strings.IndexByte(s[open:], '>')
		if end < 0 {
			break
		}
		b.WriteString(s[:open])
		s = s[open+end+1:]
	}
	b.WriteString(s)
	return b.String()
}

// newlineToBR gives HTML in an HTML part, so its input is escaped first there.
func newlineToBR(r *run, in any, _ []any) (any, error) {
	if r.html {
		return safe(strings.ReplaceAll(r.markup(in), "\n", "<br />\n")), nil
	}
	return strings.ReplaceAll(r.text(in), "\n", "<br />\n"), nil
}

// escape gives text that an HTML part does not escape again.
func escape(r *run, in any, _ []any) (any, error) {
	return r.escaped(html.EscapeString(r.text(in))), nil
}

func escapeOnce(r *run, in any, _ []any) (any, error) {
	return r.escaped(html.EscapeString(html.UnescapeString(r.text(in)))), nil
}

func (r *run) escaped(s string) any {
	if r.html {
		return safe(s)
	}
	return s
}

func markSafe(r *run, in any, _ []any) (any, error) { return safe(r.text(in)), nil }

func urlDecode(r *run, in any, _ []any) (any, error) { return url.QueryUnescape(r.text(in)) }

// replaceText replaces at most n occurrences, all if n is negative. The length
// of the result is known before it is built.
func replaceText(n int) func(*run, any, []any) (any, error) {
	return func(r *run, in any, args []any) (any, error) {
		s, old, with := r.text(in), r.text(args[0]), r.text(argument(args, 1, nil))
		found := strings.Count(s, old)
		if n >= 0 {
			found = min(found, n)
		}
		r.fits(len(s) + found*(len(with)-len(old)))
		return strings.Replace(s, old, with, n), nil
	}
}

// slice takes a part of a text (in characters) or list: start, counted from the
// end if negative, and length, 1 by default.
func slice(r *run, in any, args []any) (any, error) {
	start, err := integer(args[0])
	if err != nil {
		return nil, err
	}
	length, err := integer(argument(args, 1, 1))
	if err != nil {
		return nil, err
	}
	if l, ok := in.(list); ok {
		from, to := span(start, length, len(l.all))
		return r.newList(l.all[from:to]), nil
	}
	s := r.text(in)
	r.spend(4 * len(s))
	runes := []rune(s)
	from, to := span(start, length, len(runes))
	return string(runes[from:to]), nil
}

func span(start, length, size int) (from, to int) {
	if start < 0 {
		start += size
	}
	if start < 0 || start > size || length <= 0 {
		return 0, 0
	}
	return start, start + min(length, size-start)
}

// split drops empty texts at the end, as Liquid does; a single space splits at
// any white space.
func split(r *run, in any, args []any) (any, error) {
	s, sep := r.text(in), r.text(args[0])
	var parts []string
	switch {
	case s == "":
	case sep == " ":
		r.fits((strings.Count(s, " ") + 1) * itemSize)
		parts = strings.Fields(s)
	default:
		r.fits((strings.Count(s, sep) + 1) * itemSize)
		parts = strings.Split(s, sep)
	}
	for len(parts) > 0 && parts[len(parts)-1] == "" {
		parts = parts[:len(parts)-1]
	}
	all := make([]any, len(parts))
	for i, part := range parts {
		all[i] = part
	}
	return r.newList(all), nil
}

// truncateText cuts to a length in characters, 50 by default, that includes the
// ellipsis.
func truncateText(r *run, in any, args []any) (any, error) {
	length, err := integer(argument(args, 0, 50))
	if err != nil {
		return nil, err
	}
	s, ellipsis := r.text(in), r.text(argument(args, 1, "..."))
	if utf8.RuneCountInString(s) <= length {
		return s, nil
	}
	keep := max(0, length-utf8.RuneCountInString(ellipsis))
	for i := range s {
		if keep == 0 {
			s = s[:i]
			break
		}
		keep--
	}
	r.fits(len(s) + len(ellipsis))
	return s + ellipsis, nil
}

// truncateWords cuts to a number of words, 15 by default.
func truncateWords(r *run, in any, args []any) (any, error) {
	count, err := integer(argument(args, 0, 15))
	if err != nil {
		return nil, err
	}
	s, ellipsis := r.text(in), r.text(argument(args, 1, "..."))
	r.spend(itemSize * len(s) / 2)
	words := strings.Fields(s)
	if count = max(count, 1); len(words) <= count {
		return s, nil
	}
	return strings.Join(words[:count], " ") + ellipsis, nil
}

func toJSON(r *run, in any, _ []any) (any, error) { return r.json(in), nil }

func (r *run) json(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	if err := e.Encode(r.plain(v)); err != nil {
		return "null" // an infinite number is all that JSON cannot say
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// plain is v in the types that encoding/json writes.
func (r *run) plain(v any) any {
	switch v := v.(type) {
	case safe:
		return string(v)
	case list:
		all := make([]any, len(v.all))
		for i := range all {
			all[i] = r.plain(v.all[i])
		}
		return all
	case object:
		all := make(map[string]any, len(v.all))
		for key, entry := range v.all {
			all[key] = r.plain(entry)
		}
		return all
	case nil, bool, int, float64, string:
		return v
	}
	return nil
}

// orDefault replaces nothing, false, and empty text, lists and maps.
func orDefault(_ *run, in any, args []any) (any, error) {
	empty := in == nil || in == false || in == "" || in == safe("")
	switch v := in.(type) {
	case list:
		empty = len(v.all) == 0
	case object:
		empty = len(v.all) == 0
	}
	if empty {
		return args[0], nil
	}
	return in, nil
}
