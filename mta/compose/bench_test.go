package compose

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// tenKB is a delivery whose messages have about 10 KB in two parts, with a hosted
// unsubscribe link. greeting stands in both parts, and name in the subject.
func tenKB(name, greeting, more string) Source {
	var body strings.Builder
	body.WriteString("<html><head><style>p { color: #333 }</style></head><body><h1>" + greeting + "</h1>\n" + more)
	for body.Len() < 7500 {
		body.WriteString("<p style=\"margin:0\">A paragraph of ordinary newsletter text with a <a href=\"https://example.com/offer\">link</a> in it.</p>\n")
	}
	body.WriteString("<a href=\"{{ unsubscribe_url }}\">unsubscribe</a></body></html>")
	return Source{
		From: Mailbox{Name: "Acme News", Address: "news@example.com"}, ReplyTo: "help@example.com",
		Subject: name + ", your offers of the week", Text: greeting + "\n" + strings.Repeat("Some plain text of the newsletter, one line after the other.\n", 25),
		HTML: body.String(), ListID: "weekly.example.com", FeedbackID: "spring:acme:bulk:example.com", Unsubscribe: UnsubscribeHosted,
	}
}

func BenchmarkRender(b *testing.B) {
	const five = "Hello {{ first_name }} {{ last_name }} of {{ city }}, your {{ points }} points are worth {{ order.total }}"
	fixed := tenKB("Hello", "Hello", "")
	fixed.HTML = strings.ReplaceAll(fixed.HTML, "{{ unsubscribe_url }}", "https://example.com/leave")
	oneLine := tenKB("{{ first_name }}", five, "")
	oneLine.HTML = strings.ReplaceAll(oneLine.HTML, "\n", "")
	indented := tenKB("{{ first_name }}", five, "")
	indented.HTML = strings.ReplaceAll(indented.HTML, "\n", "\n    ")
	for _, tc := range []struct {
		name string
		src  Source
	}{
		{"slots", tenKB("{{ first_name }}", five, "")},
		{"filters", tenKB("{{ first_name | upcase }}", strings.ReplaceAll(five, "first_name", "first_name | default: 'friend'"), "")},
		{"loop", tenKB("{{ first_name }}", five, "{% for item in items %}<li>{{ item.title | upcase }}: {{ item.price }}{% if item.sale %} sale{% endif %}</li>{% endfor %}")},
		{"trimmed", tenKB("{{ first_name }}", five, "{%- if city -%} {{ city }} {%- endif -%}")},
		{"in one line", oneLine},
		{"indented", indented},
		{"link only", tenKB("Hello", "Hello", "")},
		{"constant", fixed},
	} {
		b.Run(tc.name, func(b *testing.B) {
			tmpl := compile(b, tc.src)
			j := job(`{"first_name":"Ada","last_name":"Lovelace","city":"London","points":1250,"order":{"total":12.5},"items":[{"title":"Tea","price":4.5,"sale":true},{"title":"Coffee","price":6},{"title":"Cake","price":3},{"title":"Milk","price":1}]}`)
			j.Links = Links{URL: "https://mail.example.com/u/AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_", Mailto: "mailto:u-AbCdEfGhIjKlMnOpQrStUvWxYz0123456789@bounce.example.com"}
			size := 0
			b.ReportAllocs()
			for b.Loop() {
				r, err := tmpl.Render(context.Background(), j)
				if err != nil {
					b.Fatal(err)
				}
				size, j.Buffer = len(r.Bytes), r.Bytes
			}
			b.SetBytes(int64(size))
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	src := tenKB("{{ name }}", "Hello {{ name }}", "{% for item in items %}{{ item.title }}{% endfor %}")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(src); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWorstTemplate(b *testing.B) {
	template := "{% assign a = s | replace: 'x', ' ' %}{% for i in (1..100000) %}{{ a }}{%- assign x = 1 -%}{% endfor %}"
	vars := fmt.Sprintf(`{"s":%q}`, strings.Repeat("x", 500_000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := renderText(b, template, vars); err == nil {
			b.Fatal("no limit met")
		}
	}
}
