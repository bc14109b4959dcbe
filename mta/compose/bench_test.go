package compose

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// tenKB is a delivery whose messages have about 10 KB.
func tenKB(html string) Source {
	var body strings.Builder
	body.WriteString("<html><head><style>p { color: #333 }</style></head><body><h1>Hello {{ name }}</h1>")
	body.WriteString(html)
	for body.Len() < 7500 {
		body.WriteString("<p style=\"margin:0\">A paragraph of ordinary newsletter text with a <a href=\"https://example.com/offer\">link</a> in it.</p>\n")
	}
	body.WriteString("<a href=\"{{ unsubscribe_url }}\">unsubscribe</a></body></html>")
	return Source{
		From: Mailbox{Name: "Acme News", Address: "news@example.com"}, ReplyTo: "help@example.com",
		Subject: "{{ name }}, your offers of the week", Text: "Hello {{ name }},\n" + strings.Repeat("Some plain text of the newsletter, one line after the other.\n", 25),
		HTML: body.String(), ListID: "weekly.example.com", FeedbackID: "spring:acme:bulk:example.com",
		Unsubscribe: UnsubscribeOwnURL, UnsubscribeURL: "https://example.com/u?r={{ recipient.address | url_encode }}",
	}
}

func BenchmarkRender(b *testing.B) {
	for _, tc := range []struct{ name, html string }{
		{"slots", "{{ city }} {{ order.total }}"},
		{"loop", "{% for item in items %}<li>{{ item.title | upcase }}: {{ item.price }}{% if item.sale %} sale{% endif %}</li>{% endfor %}"},
		{"constant", ""},
	} {
		b.Run(tc.name, func(b *testing.B) {
			tmpl := compile(b, tenKB(tc.html))
			j := job(`{"name":"Ada Lovelace","city":"London","order":{"total":12.5},"items":[{"title":"Tea","price":4.5,"sale":true},{"title":"Coffee","price":6},{"title":"Cake","price":3},{"title":"Milk","price":1}]}`)
			size := 0
			b.ReportAllocs()
			for b.Loop() {
				r, err := tmpl.Render(context.Background(), j)
				if err != nil {
					b.Fatal(err)
				}
				size = len(r.Bytes)
			}
			b.SetBytes(int64(size))
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	src := tenKB("{% for item in items %}{{ item.title }}{% endfor %}")
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
