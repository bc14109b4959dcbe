package compose

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/osteele/liquid"
	"github.com/osteele/liquid/parser"
	"pgregory.net/rapid"
)

const sample = `{"name":"Ada","n":3,"f":2.5,"yes":true,"no":false,"nothing":null,"empty_text":"","words":"one two  three",
	"list":["c","a","b","a"],"numbers":[3,1,2],"items":[{"t":"x","p":3},{"t":"y","p":1}],"user":{"first":"Ada","tags":["q","r"]},
	"html":"<b>&amp;</b>","day":"2026-03-01","lines":"a\nb"}`

// fromLibrary renders with the library as it is.
func fromLibrary(template, variables string) (string, error) {
	var vars map[string]any
	d := json.NewDecoder(strings.NewReader(variables))
	d.UseNumber()
	if err := d.Decode(&vars); err != nil {
		return "", err
	}
	vars = withNumbers(vars).(map[string]any)
	out, err := liquid.NewEngine().ParseAndRenderString(template, vars)
	if err != nil {
		return "", err
	}
	return out, nil
}

// withNumbers makes whole numbers ints, as loops of the library need them.
func withNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		return number(string(v))
	case []any:
		for i := range v {
			v[i] = withNumbers(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = withNumbers(v[key])
		}
	}
	return v
}

func TestTemplatesRenderAsTheLibraryDoes(t *testing.T) {
	for _, template := range []string{
		"plain text", "", "{{ name }}", "{{name}}", "a {{- name -}} b", "{{ name }}{{ missing }}{{ nothing }}!", "{{ user.first }} {{ user['first'] }} {{ user.none }}",
		"{{ list[0] }} {{ list[-1] }} {{ list[9] }} {{ list.first }} {{ list.last }} {{ list.size }} {{ user.tags.size }}",
		"{{ n }} {{ f }} {{ yes }} {{ no }} {{ 'lit' }} {{ \"lit\" }} {{ 12 }} {{ 1.5 }} {{ true }} {{ nil }}",
		"{% if name == 'Ada' %}A{% elsif n > 2 %}B{% else %}C{% endif %}", "{% if missing %}A{% else %}B{% endif %}", "{% unless no %}A{% else %}B{% endunless %}",
		"{% if n >= 3 and f < 3 or missing %}A{% endif %}{% if n != 3 %}B{% endif %}{% if n <= 2 %}C{% endif %}",
		"{% if list contains 'a' %}A{% endif %}{% if name contains 'd' %}B{% endif %}{% if user contains 'first' %}C{% endif %}{% if list contains 'z' %}D{% endif %}",
		"{% if empty_text == '' %}A{% endif %}{% if nothing == nil %}B{% endif %}{% if list == list %}C{% endif %}",
		"{% case n %}{% when 1, 2 %}low{% when 3 %}three{% else %}other{% endcase %}", "{% case name %}{% when 'Bob' or 'Ada' %}known{% endcase %}",
		"{% for x in list %}{{ x }}{% endfor %}", "{% for x in list reversed %}{{ x }}{% endfor %}", "{% for x in list limit: 2 offset: 1 %}{{ x }}{% endfor %}",
		"{% for x in missing %}{{ x }}{% else %}none{% endfor %}", "{% for x in user.tags %}{{ forloop.index }}/{{ forloop.length }}{{ x }}{% unless forloop.last %},{% endunless %}{% endfor %}",
		"{% for i in (1..5) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}", "{% for i in (1..n) %}{{ i }}{% endfor %}{{ i }}",
		"{% for x in items %}{% for y in list %}{{ x.t }}{{ y }}{{ forloop.rindex0 }} {% endfor %}{% endfor %}", "{% for x in list %}{% cycle 'odd', 'even' %}{% endfor %}",
		"{% for x in list %}{% cycle 'g': '1', '2' %}{% cycle 'h': 'a', 'b', 'c' %}{% endfor %}", "{% tablerow x in list cols: 2 %}{{ x }}{% endtablerow %}",
		"{% assign x = name %}{{ x }}{% assign x = n | plus: 1 %}{{ x }}", "{% capture c %}[{{ name }}]{% endcapture %}{{ c }}{{ c }}", "{% assign a = words | split: ' ' %}{{ a[1] }}{{ a.size }}",
		"{% for w in words | split: ' ' %}{{ w }};{% endfor %}", "{% comment %}{% if %}{{ x {% endcomment %}after", "{% raw %}{{ name }}{% if x %}{% endraw %}", "a{%- raw -%} b {%- endraw -%} c", "{%- comment -%} x {%- endcomment -%}  y",
		" {%- if yes -%} a {%- endif -%} b", "{% for x in list -%}\n  {{ x }}\n{%- endfor %}", "x\n{%- assign a = 1 %}\n{{- a }}\n", "{{ name -}}   {{- n }}",
		"{{ name | upcase }}{{ name | downcase }}{{ 'abc' | capitalize }}{{ name | append: '!' | prepend: '?' }}", "{{ ' x ' | strip }}|{{ ' x ' | lstrip }}|{{ ' x ' | rstrip }}|{{ lines | strip_newlines }}",
		"{{ 'aXbXc' | replace: 'X', '-' }}{{ 'aXbXc' | replace_first: 'X', '-' }}{{ 'aXbXc' | remove: 'X' }}{{ 'aXbXc' | remove_first: 'X' }}", "{{ html | escape }}{{ html | escape_once }}{{ html | strip_html }}",
		"{{ 'a b&c=d/é' | url_encode }}{{ 'a+b%26' | url_decode }}", "{{ list | join: '-' }}{{ list | sort | join }}{{ list | reverse | join }}{{ list | uniq | join }}{{ numbers | sort | join: ',' }}", "{{ list | first }}{{ list | last }}{{ list | size }}{{ name | size }}",
		"{{ items | map: 't' | join: ',' }}{{ list | concat: numbers | join }}{{ items | sort: 'p' | map: 't' | join }}", "{{ 'Hello' | slice: 1, 3 }}{{ 'Hello' | slice: -2 }}{{ 'Hello' | slice: -3, 2 }}",
		"{{ n | plus: 2 }}{{ n | minus: 5 }}{{ n | times: 4 }}{{ f | times: 2 }}{{ 7 | divided_by: 2 }}{{ 7 | divided_by: 2.0 }}{{ 7 | modulo: 3 }}{{ -4 | abs }}", "{{ 1.2 | ceil }}{{ 1.8 | floor }}{{ 2.5 | round }}{{ 1.2345 | round: 2 }}",
		"{{ missing | default: 'd' }}{{ empty_text | default: 'd' }}{{ no | default: 'd' }}{{ name | default: 'd' }}", "{{ day | date: '%d.%m.%Y' }} {{ day | date: '%A, %B %-d, %Y %H:%M' }} {{ day | date }}", "{{ user.tags | json }}{{ name | json }}{{ n | json }}",
		"{{ 'a, b, c, d' | truncate: 7 }}{{ 'short' | truncate: 10 }}", "{{ list }}{{ numbers }}", "€ {{ name }} ü", "{{ words | split: 'zz' | join }}", "{{ '' | split: ',' | size }}", "{{ 'a,b,,' | split: ',' | size }}", "{{ (1..3) | join: '+' }}", "}} %} { % {", "{{ name }} }} %}",
	} {
		want, err := fromLibrary(template, sample)
		if err != nil {
			t.Fatalf("the library refuses %s: %v", template, err)
		}
		got, err := renderText(t, template, sample)
		if err != nil || got != want {
			t.Errorf("%s\n got %q (%v)\nwant %q", template, got, err, want)
		}
	}
}

// snippet generates templates from parts on which the library and we must agree.
func snippet(depth int) *rapid.Generator[string] {
	leaves := []string{
		"text", " ", "\n", "  two  ", "{ ", "}", " %", "'", "{{ name }}", "{{- name }}", "{{ name -}}", "{{- n -}}", "{{ missing }}", "{{ user.first | upcase }}", "{{ i }}",
		"{% assign v = n | plus: 1 %}", "{%- assign v = name -%}", "{{ v }}", "{% raw %}{{ x }}{% endraw %}", "{%- raw %} r {% endraw -%}", "{% comment %} {% for %} {% endcomment %}", "{%- comment %}c{% endcomment -%}", "{{ list | join: '{% if %}' }}",
	}
	if depth == 0 {
		return rapid.SampledFrom(leaves)
	}
	inner := rapid.SliceOfN(snippet(depth-1), 0, 4)
	mark := rapid.SampledFrom([]string{"", "-"})
	return rapid.OneOf(rapid.SampledFrom(leaves), rapid.Custom(func(t *rapid.T) string {
		body := strings.Join(inner.Draw(t, "body"), "")
		a, b, c, d := mark.Draw(t, "a"), mark.Draw(t, "b"), mark.Draw(t, "c"), mark.Draw(t, "d")
		tag := func(l, text, r string) string { return "{%" + l + " " + text + " " + r + "%}" }
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			return tag(a, "if yes", b) + body + tag(c, "endif", d)
		case 1:
			return tag(a, "if missing", b) + body + tag(c, "else", d) + body + tag(b, "endif", a)
		case 2:
			return tag(a, "for i in list", b) + body + tag(c, "endfor", d)
		case 3:
			return tag(a, "for i in missing", b) + body + tag(d, "else", c) + body + tag(c, "endfor", d)
		case 4:
			return tag(a, "capture v", b) + body + tag(c, "endcapture", d)
		}
		return tag(a, "unless no", b) + body + tag(c, "endunless", d)
	}))
}

func TestAnyTemplateOfKnownPartsRendersAsTheLibraryDoes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		template := strings.Join(rapid.SliceOfN(snippet(3), 1, 6).Draw(rt, "template"), "")
		want, err := fromLibrary(template, sample)
		if err != nil {
			rt.Skip(err)
		}
		got, err := renderText(t, template, sample)
		if err != nil || got != want {
			rt.Fatalf("%s\n got %q (%v)\nwant %q", template, got, err, want)
		}
	})
}

// The library must see the tags that we wrote and no others, on the lines where
// they stood.
func FuzzRewriteIsWhatTheLibraryScans(f *testing.F) {
	for _, s := range []string{"a{{ x }}b", "{% for x in y %}{{ x }}{% endfor %}", "{%- if a == '%' -%}\n{%endif%}", "{% raw %}{{{% endraw %}", "{% comment %}{{{%endcomment%}", "{%if a contains '{%'%}{%endif%}", "{{ '{{' }}", "{%cycle 'a%'%}", "{{ a\n| upcase\n}}\n{{ b }}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, template string) {
		tokens, err := scan(template)
		if err != nil {
			return
		}
		frag := &fragment{}
		w := &rewriter{f: frag, locals: map[string]bool{}, seen: map[string]bool{}}
		var lines []int
		for _, tok := range tokens {
			had := len(w.pieces)
			if err := w.token(tok); err != nil {
				return
			}
			for range w.pieces[had:] {
				lines = append(lines, tok.line)
			}
		}
		var pieces []string
		var at []int
		for i, piece := range w.pieces {
			if piece != "" {
				pieces, at = append(pieces, piece), append(at, lines[i])
			}
		}
		n := 0
		for _, seen := range parser.Scan(strings.Join(pieces, ""), parser.SourceLoc{LineNo: 1}, nil) {
			switch seen.Type {
			case parser.TagTokenType:
				if n >= len(pieces) || seen.Source != pieces[n] || seen.SourceLoc.LineNo != at[n] {
					t.Fatalf("%q: piece %d of %q is seen as %q on line %d", template, n, pieces, seen.Source, seen.SourceLoc.LineNo)
				}
				n++
			case parser.TextTokenType, parser.ObjTokenType:
				t.Fatalf("%q: rewritten as %q, in which the library sees %v", template, pieces, seen)
			}
		}
		if n != len(pieces) {
			t.Fatalf("%q: the library sees %d of %q", template, n, pieces)
		}
	})
}

func TestWhereWeDifferFromTheLibrary(t *testing.T) {
	for _, tc := range []struct{ template, want string }{
		{"{{ -7 | divided_by: 2 }} {{ -7 | modulo: 3 }} {{ 7.5 | divided_by: 2 }}", "-4 2 3.75"},
		{"{{ 'one two three' | truncatewords: 3 }} {{ 'one two three' | truncatewords: 2 }}", "one two three one two..."},
		{"{{ 'Hello' | truncate: 2 }} {{ 'ééééé' | truncate: 4 }}", "... é..."},
		{"{{ 'élan' | capitalize }}", "Élan"},
		{"{{ user }}", `{"first":"Ada","tags":["q","r"]}`},
		{"{{ user | join: ',' }}", "Ada,qr"},
		{"{{ items | where: 't', 'y' | map: 'p' | join }} {{ items | sum: 'p' }} {{ 5 | at_most: 3 }} {{ 1 | at_least: 3 }}", "1 4 3 3"},
		{"{{ name | date: '%Y' }}|{{ missing | date: '%Y' }}", "Ada|"},
		{"{{ 'x' | join }}{{ 3 | first }}", "x3"},
		{"{{ 9223372036854775807 | plus: 1 }}", "9223372036854776000"},
		{"{{ '12' | plus: '3.5' }} {{ 'x' | plus: 1 }}", "15.5 1"},
		{"{{ lines | newline_to_br }}", "a<br />\nb"},
		{"{{ 'abc' | slice: 1, -1 }}|{{ 'abc' | slice: 9 }}|{{ 'abc' | slice: -9 }}", "||"},
		{"{{ name\n  | upcase\n}}", "ADA"},
	} {
		if got, err := renderText(t, tc.template, sample); err != nil || got != tc.want {
			t.Errorf("%s\n got %q (%v)\nwant %q", tc.template, got, err, tc.want)
		}
	}
}

func TestNumbersKeepTheirDigits(t *testing.T) {
	for _, tc := range []struct{ json, template, want string }{
		{`{"n":9007199254740993}`, "{{ n }} {{ n | plus: 1 }}", "9007199254740993 9007199254740994"},
		{`{"n":9223372036854775807}`, "{{ n }} {{ n | minus: 1 }}", "9223372036854775807 9223372036854775806"},
		{`{"n":123456789012345678901234567890}`, "{{ n }}{% if n %}!{% endif %}", "123456789012345678901234567890!"},
		{`{"n":-0}`, "{{ n }}", "0"},
		{`{"n":1e3}`, "{{ n }}", "1000"},
		{`{"n":0.1}`, "{{ n | plus: 0.2 }}", "0.30000000000000004"},
		{`{"n":1e999}`, "{{ n }}", "1e999"},
		{`{"n":2}`, "{% for i in (1..n) %}{{ i }}{% endfor %}{% if n > 1 %}y{% endif %}{% if n == 2 %}e{% endif %}", "12ye"},
	} {
		if got, err := renderText(t, tc.template, tc.json); err != nil || got != tc.want {
			t.Errorf("%s with %s: %q, want %q (%v)", tc.template, tc.json, got, tc.want, err)
		}
	}
}

func TestHTMLPartsEscapeValues(t *testing.T) {
	const evil = `{"x":"<script>alert('1')</script> & \"q\"","u":{"x":"<i>"},"l":["<i>","<b>"],"nl":"<a>\n<b>","ok":"<em>ok</em>"}`
	const escaped = "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &#34;q&#34;"
	for _, tc := range []struct{ template, want string }{
		{"<p>{{ x }}</p>", "<p>" + escaped + "</p>"},
		{"{{ u.x }}{{ u }}{{ l }}", "&lt;i&gt;{&#34;x&#34;:&#34;\\u003ci\\u003e&#34;}&lt;i&gt;&lt;b&gt;"},
		{"{% for i in l %}{{ i }}{% endfor %}", "&lt;i&gt;&lt;b&gt;"},
		{"{% assign y = x %}{{ y }}", escaped},
		{"{% capture y %}<b>{{ x }}</b>{% endcapture %}{{ y }}", "<b>" + escaped + "</b>"},
		{"{% capture y %}{{ ok }}{% endcapture %}{{ y | upcase }}", "&amp;LT;EM&amp;GT;OK&amp;LT;/EM&amp;GT;"},
		{"{{ ok | raw }}{{ ok | safe }}", "<em>ok</em><em>ok</em>"},
		{"{{ ok | raw | append: x }}", "<em>ok</em>" + escaped},
		{"{{ x | append: ok }}", escaped + "&lt;em&gt;ok&lt;/em&gt;"},
		{"{{ x | escape }}", escaped},
		{"{{ x | escape | append: '!' }}", escaped + "!"},
		{"{{ '&amp;<' | escape_once }}", "&amp;&lt;"},
		{"{{ nl | newline_to_br }}", "&lt;a&gt;<br />\n&lt;b&gt;"},
		{"{{ nl | escape | newline_to_br }}", "&lt;a&gt;<br />\n&lt;b&gt;"},
		{"{{ missing | default: x }}", escaped},
		{"{{ ok | raw | upcase }}", "&lt;EM&gt;OK&lt;/EM&gt;"},
		{"{% assign y = ok | raw %}{{ y }}{% if y == '<em>ok</em>' %}same{% endif %}{% if '<em>ok</em>' == y %}same{% endif %}", "<em>ok</em>samesame"},
		{"{% raw %}<{{ x }}>{% endraw %}", "<{{ x }}>"},
		{"{{ l | join: '<br>' }}", "&lt;i&gt;&lt;br&gt;&lt;b&gt;"},
	} {
		if got := renderHTML(t, tc.template, evil); got != tc.want {
			t.Errorf("%s\n got %s\nwant %s", tc.template, got, tc.want)
		}
	}
	if got, err := renderText(t, "{{ x }}{{ ok | escape }}", evil); err != nil || got != `<script>alert('1')</script> & "q"&lt;em&gt;ok&lt;/em&gt;` {
		t.Errorf("a text part escapes: %q, %v", got, err)
	}
}

func TestTemplatesHaveNoClock(t *testing.T) {
	for _, template := range []string{"{{ 'now' | date: '%Y' }}", "{{ 'today' | date }}", "{% assign n = 'NOW' %}{{ n | date: '%s' }}"} {
		if out, err := renderText(t, template, "{}"); err == nil || !strings.Contains(err.Error(), "no clock") {
			t.Errorf("%s gives %q, %v", template, out, err)
		}
	}
	if out, err := renderText(t, "{{ now }}{{ today }}{{ 'now' }}", "{}"); err != nil || out != "now" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := renderText(t, "{{ list | sample }}", sample); err == nil {
		t.Error("there is a filter sample")
	}
	for _, format := range []string{"%999999999d", "%0999N", "%-_100Y", strings.Repeat("%c", 600)} {
		if out, err := renderText(t, "{{ day | date: '"+format+"' }}", sample); err == nil {
			t.Errorf("format %.20q gives %.20q", format, out)
		}
	}
}

func TestDatesDoNotDependOnTheMachine(t *testing.T) {
	for in, want := range map[string]string{
		"2026-03-01":                      "2026-03-01 00:00 +0000",
		"2026-03-01T10:20:30Z":            "2026-03-01 10:20 +0000",
		"2026-03-01T10:20:30+02:00":       "2026-03-01 10:20 +0200",
		"Sun, 01 Mar 2026 10:20:30 -0500": "2026-03-01 10:20 -0500",
		"1 March 2026":                    "2026-03-01 00:00 +0000",
		"March 1, 2026":                   "2026-03-01 00:00 +0000",
		"1772359230":                      "2026-03-01 10:00 +0000",
	} {
		got, err := renderText(t, "{{ d | date: '%Y-%m-%d %H:%M %z' }}", `{"d":"`+in+`"}`)
		if err != nil || got != want {
			t.Errorf("%s: %s, want %s (%v)", in, got, want, err)
		}
	}
}

func TestSyntaxErrorsNameLineAndRemedy(t *testing.T) {
	for _, tc := range []struct{ template, want string }{
		{"a\n{{ name", "line 2: {{ is not closed; close it with }}"},
		{"a\n\n{% if x", "line 3: {% is not closed"},
		{"{{ }}", "line 1: {{ }} is empty"},
		{"{% if x %}\n{% for y in z %}", "line 2: for is not closed; add {% endfor %}"},
		{"{% if x %}{% endfor %}", "endfor does not match: the open block is if of line 1"},
		{"{% endif %}", "endif does not match: no block is open"},
		{"{% else %}", "else has no block"},
		{"{% if x %}{% else %}{% else %}{% endif %}", "else follows an else"},
		{"{% for x in y %}{% when 1 %}{% endfor %}", "when has no block"},
		{"{% include 'x' %}", "the tag include is not available"},
		{"{% render 'x' %}", "the tag render is not available"},
		{"{% nonsense %}", `there is no tag "nonsense"`},
		{"{% step 1 %}", `there is no tag "step"`},
		{"{% output 0 %}", `there is no tag "output"`},
		{"{% hold x %}{% endhold %}", `there is no tag "hold"`},
		{"x\n{{ a | shout }}", `line 2: there is no filter "shout"; use one of abs, append`},
		{"{{ a | }}", "is not an expression"},
		{"{{ a b }}", "is not an expression"},
		{"{{ 'a }}", "a string is not closed"},
		{"{{ %assign x = 1 }}", `the character '%' has no meaning`},
		{"{{ a; b }}", `the character ';' has no meaning`},
		{"{{ (1..9).AsArray }}", "a property follows a bracket"},
		{"{{ (1..9) ['AsArray'] }}", "[ follows a bracket"},
		{"{% for i in (1..9).AsArray %}{% endfor %}", "a property follows a bracket"},
		{"{% if x == blank %}{% endif %}", `"blank" is not known`},
		{"{% assign = 1 %}", "assign does not name a variable"},
		{"{% assign a.b = 1 %}", "assign does not name a variable"},
		{"{% capture %}{% endcapture %}", "capture does not name a variable"},
		{"{% for x %}{% endfor %}", "for does not name a variable and a collection"},
		{"{% for x in %}{% endfor %}", "for does not name a variable and a collection"},
		{"{% break %}", "break stands outside a loop"},
		{"{% cycle 'a' %}", "cycle stands outside a loop"},
		{"{% if %}{% endif %}", "line 1"},
		{"a\n{% for x in y sideways: 2 %}{% endfor %}", "line 2"},
		{"{% if(x) %}{% endif %}", `tag name "if" is not followed by a space`},
		{"{% %}", "a tag has no name"},
		{"{% comment %}", "comment is not closed; add {% endcomment %}"},
	} {
		_, err := compileFragment("text", tc.template, false, false)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s\n got %v\nwant %s", tc.template, err, tc.want)
		}
	}
}

func TestRenderErrorsNameFieldAndLine(t *testing.T) {
	for _, tc := range []struct{ template, want string }{
		{"a\n\n{{ n | divided_by: 0 }}", "text: line 3: filter divided_by: division by zero"},
		{"{{ n | append }}", "text: line 1: filter append: takes 1 argument, not 0"},
		{"{% raw %}\n{% endraw %}{{ 'x' | slice: 'y' }}", `text: line 2: filter slice: "y" is not a whole number`},
		{"{% comment %}\n\n{% endcomment %}{% for i in (1..name) %}{% endfor %}", "text: line 3"},
		{"{% for i in list limit: name %}{% endfor %}", "text: line 1: loop limit must be an integer"},
		{"{{ 'a%zz' | url_decode }}", "filter url_decode: invalid URL escape"},
	} {
		_, err := renderText(t, tc.template, sample)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s\n got %v\nwant %s", tc.template, err, tc.want)
		}
	}
}
