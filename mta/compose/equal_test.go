package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/veredus/veredus/dkim"
)

// same fails unless Template.Render makes what the reference makes of a source, or
// fails as it does.
func same(t fataler, src Source, jobs ...Job) {
	t.Helper()
	tmpl, err := Compile(src)
	if err != nil {
		var fault *FieldError
		if !errors.As(err, &fault) {
			t.Fatalf("%v", err)
		}
		return
	}
	ref, err := newReference(tmpl, src)
	if err != nil {
		t.Fatalf("the reference refuses what Compile takes: %v", err)
	}
	for _, j := range jobs {
		want, wantErr := ref.render(j)
		got, err := tmpl.Render(context.Background(), j)
		if fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Fatalf("source %+q\nvariables %q\nerror %v\nwant  %v", src, j.Variables, err, wantErr)
		}
		if err != nil {
			continue
		}
		if !bytes.Equal(got.Bytes, want.Bytes) {
			t.Fatalf("source %+q\nvariables %q\nrendered %q\nwant     %q", src, j.Variables, got.Bytes, want.Bytes)
		}
		if got.Subject != want.Subject || got.UTF8 != want.UTF8 || !slices.Equal(got.Missing, want.Missing) {
			t.Fatalf("source %+q\nvariables %q\nsubject %q, UTF-8 %v, missing %q\nwant    %q, %v, %q", src, j.Variables, got.Subject, got.UTF8, got.Missing, want.Subject, want.UTF8, want.Missing)
		}
		inPieces(t, got)
	}
}

// inPieces checks that header, body and the body's hash fit the message.
func inPieces(t fataler, r Rendered) {
	t.Helper()
	if whole := string(r.Header) + "\r\n" + string(r.Body); whole != string(r.Bytes) || !strings.HasSuffix(string(r.Header), "\r\n") || strings.Contains(string(r.Header), "\r\n\r\n") {
		t.Fatalf("header %q and body %q are not the message %q", r.Header, r.Body, r.Bytes)
	}
	h := dkim.NewBodyHash()
	_, _ = h.Write(r.Body)
	if sum := h.Sum(); sum != r.BodyHash || h.Err() != nil {
		t.Fatalf("the body's hash is %x, want %x (%v): %q", r.BodyHash, sum, h.Err(), r.Body)
	}
}

// words of templates and of variables, chosen to meet at the edges that encoding,
// escaping and white space control have.
var (
	plainTexts = []string{
		"", " ", "\n", "\r", "\r\n", "\n\n", "\r\n\r\n", "\t", "  ", " \n", "\t\r\n", ".", "..", "From ", "From", "F", "=", "=20", "x", "Hello, ", "a b", "\u00e9", "\u20ac \u4e2d", "& < > \" '",
		"{", "}", "{ {", "word word word word word word word word word word word word word word word", strings.Repeat("x", 73), strings.Repeat("x", 74), strings.Repeat("x", 75), strings.Repeat("x", 76), strings.Repeat("\u00e9", 30),
		"<p style=\"margin:0\">A paragraph with a <a href=\"https://example.com/?a=b&c=d\">link</a></p>\n", "line\n.\nFrom here\n", "\n.", "\nFrom ", "end \n  indented\t\n", strings.Repeat("long ", 60),
	}
	someOutputs = []string{
		"{{ a }}", "{{ b }}", "{{ c }}", "{{ o.a }}", "{{ o.b.c }}", "{{ o.size }}", "{{ l.first }}", "{{ o }}", "{{ l }}", "{{ gone }}", "{{ gone.too }}", "{{ o.gone }}", "{{ a.x }}", "{{ n }}", "{{ n.x }}", "{{ big }}", "{{ s.x }}",
		"{{ a | upcase }}", "{{ b | default: 'friend' }}", "{{ gone | default: c }}", "{{ a | raw }}", "{{ a | url_encode }}", "{{ l | join: ', ' }}", "{{ l[0] }}", "{{ o['a'] }}", "{{ b | truncate: 3 }}", "{{ a | divided_by: 0 }}", "{{ c | slice: 1 }}",
		"{{ recipient.address }}", "{{ recipient.name }}", "{{ recipient }}", "{{ unsubscribe_url }}", "{{ forloop.index }}", "{{ forloop }}", "{{ true }}", "{{ nil }}", "{{ 'x' }}", "{{ 1 }}", "{{ big | size }}", "{{ o.long }}", "{{ f }}",
		"{{ a\n}}", "{% raw %}{{ a }}{% endraw %}", "{% comment %} no {{ {% endcomment %}",
	}
	someTags = []string{
		"{% if a %}", "{% if gone == nil %}", "{% unless b %}", "{% elsif c %}", "{% else %}", "{% endif %}", "{% endunless %}", "{% for i in l %}", "{{ i }}", "{{ i.x }}", "{{ forloop.index }}", "{% break %}", "{% continue %}", "{% cycle 'a', 'b' %}", "{% endfor %}",
		"{% assign a = b %}", "{% assign x = a | append: c %}", "{{ x }}", "{% capture c %}", "{% endcapture %}", "{% case a %}", "{% when 'x', 'Hello, ' %}", "{% endcase %}", "{% tablerow i in l cols: 2 %}", "{% endtablerow %}", "{% for i in gone %}", "{% for a in (1..3) %}",
	}
	wholeBlocks = []string{
		"{% if a %}A{{ a }}{% endif %}", "{% if gone %}x{% else %} {{ b }}{% endif %}", "{% for i in l %}{{ i }}, {% endfor %}", "{% for i in l %}{% endfor %}", "{% for i in l %}{% cycle '1', '2' %}{% if i == 2 %}{% break %}{% endif %}\n{% endfor %}",
		"{% assign a = 'local' %}", "{% assign x = a | append: c %}", "{{ x }}", "{% capture c %}<{{ a }}>{% endcapture %}", "{% case a %}{% when 'x' %}ex{% else %}other{% endcase %}", "{% tablerow i in l %}{{ i }}{% endtablerow %}",
		"{%- if a -%} x {%- endif -%}", "{% if a -%}  {% endif %}", "{% if a %}  {%- endif %}", "{%- assign y = 1 -%}", "{{- a }}", "{{ a -}}", "{{- gone -}}", "{% if gone %}{%- endif %}", "{% for i in l -%}\n* {{ i }}\n{% endfor %}", "{% raw -%} {{ {%- endraw %}", "{%- comment -%} x {%- endcomment -%}",
	}
)

// template draws a template: flat, of whole blocks, or of any tags at all.
func template() *rapid.Generator[string] {
	text, output := rapid.OneOf(rapid.SampledFrom(plainTexts), rapid.SampledFrom(plainTexts), nasty()), rapid.SampledFrom(someOutputs)
	flat := rapid.OneOf(text, output)
	return rapid.Map(rapid.OneOf(
		rapid.SliceOfN(flat, 0, 12),
		rapid.SliceOfN(rapid.OneOf(flat, flat, rapid.SampledFrom(wholeBlocks)), 0, 12),
		rapid.SliceOfN(rapid.OneOf(flat, rapid.SampledFrom(someTags)), 0, 8),
		rapid.SliceOfN(rapid.OneOf(flat, snippet(2)), 0, 6),
	), func(parts []string) string { return strings.Join(parts, "") })
}

// values draws a recipient's variables, as JSON.
func recipientJSON() *rapid.Generator[string] {
	text := rapid.Map(rapid.OneOf(rapid.SampledFrom(plainTexts), nasty(), rapid.Just(strings.Repeat("y", bulkString)), rapid.Just(strings.Repeat("\u00e9 ", bulkString))), func(s string) string {
		data, err := json.Marshal(s)
		if err != nil {
			panic(err)
		}
		return string(data)
	})
	scalar := rapid.OneOf(text, text, text, rapid.SampledFrom([]string{"0", "-0", "-0.0", "1", "-12", "1.50", "1e3", "1E400", "12345678901234567890", "0.1e-7", "true", "false", "null", `"\ud800"`, `"\u00e9\n"`, "\"\xff\"", `"\/"`, `""`}))
	object := rapid.Map(rapid.SliceOfN(scalar, 4, 4), func(v []string) string {
		return fmt.Sprintf(`{"a":%s,"b":{"c":%s, "c":%s},"long":%s,"\u0061":1}`, v[0], v[1], v[2], v[3])
	})
	list := rapid.Map(rapid.SliceOfN(rapid.OneOf(scalar, object), 0, 4), func(v []string) string { return "[" + strings.Join(v, " ,") + "]" })
	value := rapid.OneOf(scalar, scalar, scalar, object, list)
	member := rapid.Custom(func(t *rapid.T) string {
		name := rapid.SampledFrom([]string{`"a"`, `"b"`, `"c"`, `"o"`, `"l"`, `"n"`, `"s"`, `"f"`, `"big"`, `"\u0062"`, `"unsubscribe_url"`, `"recipient"`, `"forloop"`, `"other"`, `"x"`}).Draw(t, "name")
		v := value
		switch name {
		case `"o"`:
			v = rapid.OneOf(object, object, value)
		case `"l"`:
			v = rapid.OneOf(list, list, value)
		}
		return name + ":" + v.Draw(t, "value")
	})
	return rapid.OneOf(rapid.Map(rapid.SliceOfN(member, 0, 8), func(m []string) string { return "{" + strings.Join(m, ",\n ") + "} " }),
		rapid.SampledFrom([]string{"", "{}", "null", " { } ", "[1]", `{"a":1} {}`, `{"a":01}`, `{"a":"` + "\n" + `"}`, `{"a":1,}`, `{"a" 1}`, `{"a":tru}`, `{"a":.5}`, `{"a":1.}`, `{"a":"\x"}`, `{"a":"\u12g4"}`, `{a:1}`, "{", `{"a":` + strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth) + "}", `{"a":` + strings.Repeat("[", MaxDepth-1) + "1" + strings.Repeat("]", MaxDepth-1) + "}"}))
}

func TestCompiledContentEqualsTheReference(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		parts := template()
		src := Source{
			From: Mailbox{Name: "{{ a }} Shop", Address: "news@example.com"}, Subject: "{{ b }} and " + strings.ReplaceAll(rapid.SampledFrom(someOutputs).Draw(rt, "subject"), "\n", " "),
			Headers: []Header{{"X-Fixed", "a\u00e9 fixed value"}, {"X-Any", rapid.SampledFrom(someOutputs).Draw(rt, "header")}},
			ListID:  "news",
		}
		if kind := rapid.IntRange(0, 3).Draw(rt, "parts"); kind == 0 {
			src.Text = parts.Draw(rt, "text")
		} else if kind == 1 {
			src.HTML = parts.Draw(rt, "html")
		} else {
			src.Text, src.HTML = parts.Draw(rt, "text"), parts.Draw(rt, "html")
		}
		if rapid.Bool().Draw(rt, "hosted") {
			src.Unsubscribe = UnsubscribeHosted
		}
		var jobs []Job
		for range 3 { // in a row, since a rendering uses the memory of the one before
			j := job(recipientJSON().Draw(rt, "variables"))
			j.Links = Links{URL: "https://example.com/u/token", Mailto: "mailto:leave@example.com?subject=x"}
			if rapid.Bool().Draw(rt, "builtin") {
				j.Builtin = map[string]any{"a": "ours", "shop": 5, "recipient": map[string]any{"name": "Ada <A>"}, "l": []any{1, "two"}}
			}
			jobs = append(jobs, j)
		}
		same(rt, src, jobs...)
	})
}

func TestQuotingPieceByPieceEqualsQuotingTheWhole(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		parts := rapid.SliceOfN(rapid.OneOf(rapid.SampledFrom(plainTexts), nasty()), 0, 10).Draw(rt, "parts")
		var q quoter
		for i, part := range parts {
			if part != "" && rapid.Bool().Draw(rt, fmt.Sprint("static ", i)) {
				p := newPassage([]byte(part))
				q.passage(&p)
			} else {
				q.text([]byte(part))
			}
		}
		q.finish()
		if want := quoteByOctet(nil, []byte(strings.Join(parts, ""))); !bytes.Equal(q.out, want) {
			rt.Fatalf("%q\nquoted %q\nwant   %q", parts, q.out, want)
		}
	})
}

// FuzzCompiledContent compares with the reference whatever the fuzzer thinks of.
func FuzzCompiledContent(f *testing.F) {
	for _, text := range append(slices.Clone(plainTexts), wholeBlocks...) {
		f.Add("a"+text+"{{ a }}"+text, "{{ o.a }}"+text+"{{ gone }}", `{"a":"x\n","o":{"a":"<b>"},"l":[1,2]}`)
	}
	f.Fuzz(func(t *testing.T, text, html, variables string) {
		same(t, Source{From: Mailbox{Address: "a@example.com"}, Subject: "s {{ a }}", Text: text, HTML: html}, job(variables), job(`{"a":".","o":{"a":1}}`), job(""))
	})
}

// FuzzVariables compares the one pass over a recipient's JSON with encoding/json.
func FuzzVariables(f *testing.F) {
	for _, seed := range []string{`{"a":1}`, `{"a":"\ud83d\ude00\u00","b":[{},[],{"c":-1.5e+3}]}`, "{\"a\":\"\xff\",\"\xff\":1}", `{"a":{"b":{"b":2},"b":1}}`, " null ", `{"a":[1,2,{"x":"\"\\\/\b\f\n\r\t"}]}`, `{"a":-}`, `{"a":1e}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data string) {
		src := newsletter("{{ a }}|{{ a.b }}|{{ a.b.c }}|{{ b }}|{{ \u00e9 }}|{{ a | json }}|{% for i in b %}{{ i }}{{ i.c | json }}{% endfor %}|{{ b | json }}|{{ a.size }}{{ b.first }}")
		same(t, src, job(data))
	})
}
