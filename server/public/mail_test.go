package public

import (
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/mta/compose"
	"github.com/veredus/veredus/mta/unsubscribe"
)

// A mail as Gmail and Yahoo demand it: an https URL and the one-click header, both covered by the
// signature (RFC 8058 section 4); and what stands in it works, by POST and by mail.
func TestFromTheMailToTheSuppression(t *testing.T) {
	const base, bounces = "https://u.shop.example/mail", "bounce.shop.example"
	w := newWorld(t, func(o *Options) { o.Path = "/mail" })
	tmpl, err := compose.Compile(compose.Source{
		From: compose.Mailbox{Address: "news@shop.example"}, Subject: "Spring", Text: "Leave: {{ unsubscribe_url }}",
		ListID: "News", Unsubscribe: compose.UnsubscribeHosted,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := claim
	c.List = tmpl.ListID()
	link, err := unsubscribe.Link(base, w.keys, c)
	if err != nil {
		t.Fatal(err)
	}
	m, err := tmpl.Render(t.Context(), compose.Job{
		To: c.Address, MessageID: "token@" + bounces, Date: start,
		Links: compose.Links{URL: link, Mailto: unsubscribe.Mailto(bounces, w.keys, c)},
	})
	if err != nil {
		t.Fatal(err)
	}
	signed, lookup := sign(t, m.Bytes)
	verdicts, err := dkim.Verify(signed, lookup)
	if err != nil || len(verdicts) != 1 || verdicts[0].Result != dkim.Pass {
		t.Fatal(verdicts, err)
	}
	for _, name := range []string{"list-unsubscribe", "list-unsubscribe-post", "list-id"} {
		if !slices.ContainsFunc(verdicts[0].Fields, func(f string) bool { return strings.EqualFold(strings.TrimSpace(f), name) }) {
			t.Errorf("%s is not signed: %v", name, verdicts[0].Fields)
		}
	}

	got, err := mail.ReadMessage(strings.NewReader(string(signed)))
	if err != nil {
		t.Fatal(err)
	}
	targets := strings.Split(got.Header.Get("List-Unsubscribe"), ", ")
	if len(targets) != 2 {
		t.Fatal(targets)
	}
	web, err := url.Parse(strings.Trim(targets[0], "<>"))
	if err != nil {
		t.Fatal(err)
	}
	w.said(w.ask(http.MethodPost, web.Path, urlencoded, got.Header.Get("List-Unsubscribe-Post")), 200)
	post, err := url.Parse(strings.Trim(targets[1], "<>"))
	if err != nil || post.Opaque != "unsubscribe@"+bounces {
		t.Fatal(post, err)
	}
	if ok, err := w.ByMail(t.Context(), post.Query().Get("subject")); !ok || err != nil {
		t.Error(ok, err)
	}
	w.results(Unsubscribed, Repeated)
	if w.told[0].List != "news.shop.example" || w.told[0].Address != c.Address {
		t.Errorf("%+v", w.told[0])
	}
}

func sign(t *testing.T, message []byte) (signed []byte, lookup func(string) ([]string, error)) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key, err := dkim.NewKey("shop.example", "s1", private)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := dkim.NewKeyring([]*dkim.Key{key})
	if err != nil {
		t.Fatal(err)
	}
	if signed, err = ring.Sign(message, "shop.example"); err != nil {
		t.Fatal(err)
	}
	return signed, func(string) ([]string, error) { return []string{dkim.Record(key)}, nil }
}
