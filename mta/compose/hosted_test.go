package compose

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// hosted is a newsletter whose unsubscribes the node takes.
func hosted() Source {
	return Source{
		From: Mailbox{Address: "news@Brand.example"}, Subject: "Hi", Text: "Leave: {{ unsubscribe_url }}",
		HTML: `<a href="{{ unsubscribe_url }}">leave</a>`, ListID: "News", Unsubscribe: UnsubscribeHosted,
	}
}

func hostedJob(links Links) Job {
	return Job{To: "ada@example.net", MessageID: "token@brand.example", Date: time.Unix(1_700_000_000, 0), Links: links}
}

var ownLinks = Links{URL: "https://u.brand.example/u/AQtoken-1_x", Mailto: "mailto:unsubscribe@bounce.brand.example?subject=AQtoken-1_x"}

func TestHostedLinksStandInHeaderAndText(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *Source)
		links  Links
		want   []string
		not    string
	}{
		"both": {func(*Source) {}, ownLinks, []string{
			"List-Unsubscribe: <https://u.brand.example/u/AQtoken-1_x>,\r\n <mailto:unsubscribe@bounce.brand.example?subject=AQtoken-1_x>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
			"List-Id: <News.brand.example>\r\n", "Leave: https://u.brand.example/u/AQtoken-1_x\r\n", `<a href=3D"https://u.brand.example/u/AQtoken-1_x">`,
		}, ""},
		"no mailto": {
			func(*Source) {},
			Links{URL: ownLinks.URL},
			[]string{"List-Unsubscribe: <https://u.brand.example/u/AQtoken-1_x>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"},
			"mailto:",
		},
		"on loopback": {func(*Source) {}, Links{URL: "http://127.0.0.1:8027/u/t"}, []string{"List-Unsubscribe: <http://127.0.0.1:8027/u/t>\r\n"}, ""},
		"a complete message": {func(s *Source) {
			s.Subject, s.Text, s.HTML = "", "", ""
			s.Raw = []byte("From: news@brand.example\nSubject: Hi\nList-Unsubscribe: <https://old.example/u>\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\n\nHello\n")
		}, ownLinks, []string{"List-Unsubscribe: <https://u.brand.example/u/AQtoken-1_x>,\r\n"}, "old.example"},
		"links where the mode is another": {func(s *Source) { s.Unsubscribe = UnsubscribeNone }, ownLinks, []string{"Subject: Hi\r\n"}, "List-Unsubscribe"},
	} {
		t.Run(name, func(t *testing.T) {
			src := hosted()
			c.change(&src)
			tmpl := compile(t, src)
			job := hostedJob(c.links)
			r, err := tmpl.Render(context.Background(), job)
			if err != nil {
				t.Fatal(err)
			}
			text := string(r.Bytes)
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("%q is not in\n%s", want, text)
				}
			}
			if c.not != "" && strings.Contains(text, c.not) {
				t.Errorf("%q is in\n%s", c.not, text)
			}
			again, err := tmpl.Render(context.Background(), job)
			if err != nil || string(again.Bytes) != text {
				t.Errorf("the second rendering differs: %v", err)
			}
			if tmpl.Hosted() != (src.Unsubscribe == UnsubscribeHosted) {
				t.Error("Hosted is wrong")
			}
		})
	}
}

// A message that promises a way out which is not there must not be sent.
func TestAHostedMessageNeedsItsLink(t *testing.T) {
	tmpl := compile(t, hosted())
	for _, links := range []Links{
		{},
		{Mailto: ownLinks.Mailto},
		{URL: "u.brand.example/u/t"},
		{URL: "ftp://u.brand.example/u/t"},
		{URL: "https:///u/t"},
		{URL: "https://u.brand.example/" + strings.Repeat("x", MaxURL)},
		{URL: ownLinks.URL, Mailto: "mailto:nobody"},
	} {
		_, err := tmpl.Render(context.Background(), hostedJob(links))
		var bad *RenderError
		if !errors.As(err, &bad) || bad.Field != "unsubscribe" {
			t.Errorf("%+v: %v", links, err)
		}
	}
	r, err := tmpl.Render(context.Background(), hostedJob(Links{URL: "https://u.brand.example/u/a>b\r\nX: y"}))
	if err != nil || strings.Contains(string(r.Bytes), "\r\nX: y") {
		t.Errorf("a header was injected: %v\n%s", err, r.Bytes)
	}
}

func TestHostedExcludesTheSendersOwnTargets(t *testing.T) {
	src := hosted()
	src.UnsubscribeURL, src.UnsubscribeMailto = "https://brand.example/u", "leave@brand.example"
	_, err := Compile(src)
	for _, field := range []string{"unsubscribe_url", "unsubscribe_mailto"} {
		if err == nil || !strings.Contains(err.Error(), field+":") {
			t.Errorf("%s is not refused: %v", field, err)
		}
	}
}

func TestListIDs(t *testing.T) {
	for _, c := range []struct{ given, want string }{
		{"", ""}, {"News", "news.brand.example"}, {"<News.Shop.example>", "news.shop.example"}, {"a.b", "a.b"},
	} {
		src := hosted()
		src.ListID = c.given
		if got := compile(t, src).ListID(); got != c.want {
			t.Errorf("%q: %q, want %q", c.given, got, c.want)
		}
		if got := ListID(c.given, "brand.example"); got != c.want {
			t.Errorf("ListID(%q) = %q, want %q", c.given, got, c.want)
		}
	}
}
