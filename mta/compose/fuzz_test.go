package compose

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime/quotedprintable"
	"strings"
	"testing"
)

// Whatever content and variables say, compiling and rendering end: with a typed
// error or a well-formed message, twice the same, within the limits.
func FuzzCompileAndRender(f *testing.F) {
	for _, seed := range [][3]string{
		{"Hi {{ name }}", "{% for i in items %}{{ i.t | upcase }}{% endfor %}", `{"name":"Ada","items":[{"t":"x"}]}`},
		{"{{ a | append: b }}", "{% for i in (1..9999999) %}{% assign x = x | append: 'y' %}{% endfor %}", `{"a":"\r\nBcc: x","b":1e400}`},
		{"s", "{% capture c %}{{ a }}{% endcapture %}{{ c | raw | newline_to_br }}", `{"a":{"b":{"c":[1,2,[3]]}}}`},
		{"{{ s | truncate: 5 }}", "{% case a %}{% when 1 %}x{% else %}{% tablerow i in a cols: 2 %}{{ i }}{% endtablerow %}{% endcase %}", `{"a":[1,2,3]}`},
		{"{{ d | date: '%Y' }}", "{% if a contains b or c <= d %}{% cycle 'a', 'b' %}{% endif %}{{ a[0].b['c'] | default: 'x' | slice: -3, 2 }}", `{"d":"2026-01-01"}`},
		{"{%- raw -%}{{", "{% comment %}{{{% endcomment %}{{ x | json | url_encode | split: '%' | sort | uniq | join }}", ""},
		{"{{ a | divided_by: b | modulo: c | round: 2 }}", "{{ a | where: 'x', 1 | map: 'y' | sum }}{{ (1..b) | concat: a | reverse }}", `{"a":-9223372036854775808,"b":-1,"c":0}`},
		{"\u00fc{{ a }}", "{% for pair in a limit: b offset: c %}{{ pair[0] }}{{ forloop.rindex }}{% break %}{% else %}{% endfor %}", `{"a":{"x":1,"y":2}}`},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, subject, text, variables string) {
		tmpl, err := Compile(Source{
			From: Mailbox{Name: subject, Address: "a@example.com"}, ToName: subject, Subject: subject, Text: text, HTML: text,
			Headers: []Header{{"X-A", subject}}, Unsubscribe: UnsubscribeOwnURL, UnsubscribeURL: "https://example.com/" + subject,
		})
		if err != nil {
			var fault *FieldError
			if !errors.As(err, &fault) {
				t.Fatalf("%v", err)
			}
			return
		}
		r, err := tmpl.Render(context.Background(), job(variables))
		again, err2 := tmpl.Render(context.Background(), job(variables))
		if err != nil {
			var failed *RenderError
			if !errors.As(err, &failed) || err2 == nil || err.Error() != err2.Error() {
				t.Fatalf("%v, then %v", err, err2)
			}
			return
		}
		if err2 != nil || !bytes.Equal(r.Bytes, again.Bytes) || strings.Join(r.Missing, "\n") != strings.Join(again.Missing, "\n") {
			t.Fatalf("%v: two renderings differ:\n%q\n%q", err2, r.Bytes, again.Bytes)
		}
		if len(r.Bytes) > 4*MaxOutput {
			t.Fatalf("%d octets", len(r.Bytes))
		}
		wellFormed(t, r.Bytes, false)
		names := strings.Join(fieldNames(t, r.Bytes), " ")
		if names = strings.Replace(names, " X-A", "", 1); names != "From To Subject Date Message-ID List-Unsubscribe List-Unsubscribe-Post MIME-Version Content-Type" {
			t.Fatalf("header fields %s", names)
		}
	})
}

func FuzzRaw(f *testing.F) {
	f.Add([]byte(plainRaw), "ada@example.org")
	f.Add([]byte("From: a@b.c\nSubject: =?x?q?y?=\nTo: undisclosed-recipients:;\nX:\n \n y\n\n"), "a@b.cc")
	f.Add([]byte("From : a@b.cc\rSubject:x\r\n\r\r\n"), `"x"@b.cc`)
	f.Fuzz(func(t *testing.T, raw []byte, to string) {
		tmpl, err := Compile(Source{Raw: raw})
		if err != nil {
			return
		}
		j := job("")
		j.To = to
		r, err := tmpl.Render(context.Background(), j)
		if err != nil {
			return
		}
		wellFormed(t, r.Bytes, r.EightBit || r.UTF8)
		seen := map[string]int{}
		for _, name := range fieldNames(t, r.Bytes) {
			seen[strings.ToLower(strings.TrimRight(name, " \t"))]++
		}
		if seen["from"] != 1 || seen["to"] != 1 || seen["date"] != 1 || seen["message-id"] != 1 || seen["bcc"] != 0 || seen["received"] != 0 {
			t.Fatalf("header fields %v in %q", seen, r.Bytes)
		}
	})
}

func FuzzQuotedPrintable(f *testing.F) {
	for _, s := range []string{"", "a", "\r=\n\t", " ", "a \r\n b\t", ".\n..\nFrom x\nFrom", strings.Repeat("x", 76), strings.Repeat("x", 77), strings.Repeat("\u00e9", 40), strings.Repeat("x", 74) + "=", strings.Repeat("x", 75) + " "} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var q quoter
		q.text(text)
		q.finish()
		enc := q.out
		if want := quoteByOctet(nil, text); !bytes.Equal(enc, want) {
			t.Fatalf("%q: encoded %q, want %q", text, enc, want)
		}
		for line := range bytes.SplitSeq(enc, []byte("\r\n")) {
			if len(line) > 76 || bytes.ContainsAny(line, "\r\n") || bytes.HasSuffix(line, []byte(" ")) || bytes.HasSuffix(line, []byte("\t")) || bytes.HasPrefix(line, []byte(".")) || bytes.HasPrefix(line, []byte("From ")) || !isASCII(line) {
				t.Fatalf("%q: line %q", text, line)
			}
		}
		back, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(enc)))
		want := strings.NewReplacer("\r\n", "\r\n", "\r", "\r\n", "\n", "\r\n").Replace(string(text))
		if want != "" && !strings.HasSuffix(want, "\r\n") {
			want += "\r\n"
		}
		if err != nil || string(back) != want {
			t.Fatalf("%q: encoded %q, decoded %q (%v)", text, enc, back, err)
		}
	})
}
