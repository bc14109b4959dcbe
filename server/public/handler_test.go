package public

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/returnpath"
	"github.com/veredus/veredus/mta/unsubscribe"
	"github.com/veredus/veredus/server/address"
)

// start is when every story begins.
var start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// claim is of a mail to ada.
var claim = unsubscribe.Claim{
	Address: "Ada@brand.example", Tenant: "shop", List: "news.shop.example", Delivery: "spring",
	Message: returnpath.Ref{Handover: 7, Domain: 3, Lane: 1, Order: 123456, Delivery: 9},
}

// form is the body of RFC 8058 section 3.2, and urlencoded its type.
const (
	form       = "List-Unsubscribe=One-Click"
	urlencoded = "application/x-www-form-urlencoded"
)

// world is a handler over a store that remembers what it was told.
type world struct {
	*Handler
	t testing.TB

	mu    sync.Mutex
	keys  *unsubscribe.Keys
	gone  map[string]bool // who is off which list
	told  []address.Unsubscription
	fail  error
	takes time.Duration // to store one
	seen  []Result
	spent []time.Duration
}

func newWorld(t testing.TB, change ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t, keys: keysOf(t, 1), gone: map[string]bool{}}
	o := Options{
		Keys: func() *unsubscribe.Keys {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.keys
		},
		Suppressor: w,
		Observe: func(r Result, took time.Duration) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.seen, w.spent = append(w.seen, r), append(w.spent, took)
		},
		Now: func() time.Time { return start },
	}
	for _, c := range change {
		c(&o)
	}
	w.Handler = NewHandler(o)
	return w
}

// keysOf are keys with the ids 1 to n.
func keysOf(t testing.TB, n int) *unsubscribe.Keys {
	t.Helper()
	var list []unsubscribe.Key
	for i := range n {
		list = append(list, unsubscribe.Key{ID: uint16(i + 1), Secret: [32]byte{byte(i + 1)}})
	}
	k, err := unsubscribe.New(list...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Unsubscribe implements Suppressor.
func (w *world) Unsubscribe(ctx context.Context, u address.Unsubscription) (bool, error) {
	w.mu.Lock()
	takes := w.takes
	w.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := cmp.Or(w.fail, ctx.Err()); err != nil {
		return false, err
	}
	w.told = append(w.told, u)
	key := strings.ToLower(u.Address) + " " + u.Tenant + " " + u.List
	applied := !w.gone[key]
	w.gone[key] = true
	return applied, nil
}

func (w *world) path(c unsubscribe.Claim) string {
	w.t.Helper()
	link, err := unsubscribe.Link("", w.keys, c)
	if err != nil {
		w.t.Fatal(err)
	}
	return link
}

// ask makes a request from a client on the internet and checks what every answer promises.
func (w *world) ask(method, path, contentType, body string) *httptest.ResponseRecorder {
	w.t.Helper()
	r := httptest.NewRequest(method, "https://u.shop.example/", strings.NewReader(body))
	r.URL.Path = path
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	answer := httptest.NewRecorder()
	w.ServeHTTP(answer, r)
	modest(w.t, answer)
	return answer
}

// modest checks that an answer sets no cookie, leads nowhere and loads nothing.
func modest(t testing.TB, a *httptest.ResponseRecorder) {
	t.Helper()
	if a.Code >= 300 && a.Code < 400 {
		t.Errorf("status %d is a redirect", a.Code)
	}
	for _, never := range []string{"Set-Cookie", "Location", "Refresh", "Access-Control-Allow-Origin"} {
		if value := a.Header().Get(never); value != "" {
			t.Errorf("the answer has %s: %s", never, value)
		}
	}
	for name, want := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
		"X-Robots-Tag": "noindex, nofollow", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
	} {
		if got := a.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, part := range []string{"default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "style-src 'sha256-"} {
		if got := a.Header().Get("Content-Security-Policy"); !strings.Contains(got, part) {
			t.Errorf("the policy %q lacks %q", got, part)
		}
	}
	for _, never := range []string{"<script", "http://", "https://", "src=", "href=", "url(", "@import"} {
		if strings.Contains(a.Body.String(), never) {
			t.Errorf("the page holds %q:\n%s", never, a.Body)
		}
	}
}

func (w *world) said(a *httptest.ResponseRecorder, status int, texts ...string) {
	w.t.Helper()
	if a.Code != status {
		w.t.Errorf("status %d, want %d", a.Code, status)
	}
	for _, text := range texts {
		if !strings.Contains(a.Body.String(), text) {
			w.t.Errorf("%q is not in\n%s", text, a.Body)
		}
	}
}

func (w *world) results(want ...Result) {
	w.t.Helper()
	if !slices.Equal(w.seen, want) {
		w.t.Errorf("observed %v, want %v", w.seen, want)
	}
}

func (w *world) untouched() {
	w.t.Helper()
	if len(w.told) > 0 {
		w.t.Errorf("the store was told %+v", w.told)
	}
}

// Scanners, prefetchers and link checkers follow every link in a mail.
func TestLookingChangesNothing(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			r := httptest.NewRequest(method, w.path(claim)+"?"+form, strings.NewReader(form))
			r.Header.Set("Content-Type", urlencoded)
			r.Header.Set("Sec-Purpose", "prefetch;prerender")
			r.Header.Set("X-HTTP-Method-Override", "POST")
			a := httptest.NewRecorder()
			w.ServeHTTP(a, r)
			modest(t, a)
			w.said(a, 200, "<h1>Unsubscribe</h1>", "A***@brand.example", "news.shop.example", `<form method="post">`)
		}
	}
	w.untouched()
	w.results(Shown, Shown, Shown, Shown, Shown, Shown)
}

func TestThePageNamesNobody(t *testing.T) {
	for given, want := range map[string]string{
		"Ada@brand.example": "A***@brand.example", "a@b.example": "***@b.example", `"a b"@c.example`: "***@c.example",
		"élan@b.example": "é***@b.example", "é@b.example": "***@b.example", "nobody": "***", "": "***", "@b.example": "***@b.example",
	} {
		if got := masked(given); got != want {
			t.Errorf("%q is shown as %q, want %q", given, got, want)
		}
	}
	w := newWorld(t)
	hostile := claim
	hostile.Address, hostile.List = `<script>x@"><img.example`, `</dd><script>alert(1)</script>`
	a := w.ask(http.MethodGet, w.path(hostile), "", "")
	w.said(a, 200, "&lt;/dd&gt;&lt;script&gt;")
	noList := claim
	noList.List = ""
	if a := w.ask(http.MethodGet, w.path(noList), "", ""); strings.Contains(a.Body.String(), "<dt>List") {
		t.Errorf("a list is named in\n%s", a.Body)
	}
}

func multipartBody(t testing.TB, pairs ...string) (contentType, body string) {
	t.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	for i := 0; i < len(pairs); i += 2 {
		if err := m.WriteField(pairs[i], pairs[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	return m.FormDataContentType(), b.String()
}

func TestAPostUnsubscribes(t *testing.T) {
	multi, body := multipartBody(t, "List-Unsubscribe", "One-Click")
	padded, paddedBody := multipartBody(t, "other", strings.Repeat("x", 1000), "list-unsubscribe", " one-click\r\n")
	button, buttonBody := multipartBody(t, "List-Unsubscribe", "One-Click", "page", "1")
	for name, c := range map[string]struct{ contentType, body, how string }{
		"urlencoded":        {urlencoded, form, "one-click POST"},
		"multipart":         {multi, body, "one-click POST"},
		"with a charset":    {urlencoded + "; charset=UTF-8", form, "one-click POST"},
		"without a type":    {"", form, "one-click POST"},
		"as text":           {"text/plain", form + "\r\n", "one-click POST"},
		"with other fields": {urlencoded, "a=b&list-unsubscribe=one-click&c", "one-click POST"},
		"more parts":        {padded, paddedBody, "one-click POST"},
		"the button":        {urlencoded, form + "&page=1", "unsubscribe page"},
		"the button, parts": {button, buttonBody, "unsubscribe page"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.said(w.ask(http.MethodPost, w.path(claim), c.contentType, c.body), 200, "You are unsubscribed", "A***@brand.example", "news.shop.example")
			want := address.Unsubscription{
				Address: "Ada@brand.example", Tenant: "shop", List: "news.shop.example", Delivery: "spring",
				Message: mta.MessageID{Handover: 7, Domain: 3, Lane: 1, Order: 123456}.String(), Time: start, Text: c.how,
			}
			if !slices.Equal(w.told, []address.Unsubscription{want}) {
				t.Errorf("the store was told %+v, want %+v", w.told, want)
			}
			w.results(Unsubscribed)
		})
	}
}

func TestOtherPostsChangeNothing(t *testing.T) {
	multi, body := multipartBody(t, "List-Unsubscribe", "Two-Click")
	many, manyBody := multipartBody(t, slices.Concat(slices.Repeat([]string{"a", "b"}, maxParts), []string{"List-Unsubscribe", "One-Click"})...)
	for name, c := range map[string]struct {
		contentType, body string
		status            int
	}{
		"empty":                {urlencoded, "", 400},
		"another value":        {urlencoded, "List-Unsubscribe=No", 400},
		"another first":        {urlencoded, "List-Unsubscribe=No&" + form, 400},
		"another field":        {urlencoded, "unsubscribe=One-Click", 400},
		"bad escapes":          {urlencoded, form + "&%zz", 400},
		"JSON":                 {"application/json", `{"List-Unsubscribe":"One-Click"}`, 400},
		"multipart, other":     {multi, body, 400},
		"multipart, cut":       {multi, body[:len(body)/2], 400},
		"multipart, too many":  {many, manyBody, 400},
		"multipart, no bounds": {"multipart/form-data", body, 400},
		"multipart, garbage":   {multi, strings.Repeat("\x00-", 1000), 400},
		"too large":            {urlencoded, form + "&x=" + strings.Repeat("x", maxBody), 413},
		"too large, parts":     {multi, body + strings.Repeat("x", maxBody), 413},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.said(w.ask(http.MethodPost, w.path(claim), c.contentType, c.body), c.status, "Nothing was changed")
			w.untouched()
			w.results(Malformed)
		})
	}
}

// What the URL says after its token asks for nothing.
func TestAQueryIsNoWish(t *testing.T) {
	w := newWorld(t)
	r := httptest.NewRequest(http.MethodPost, w.path(claim)+"?"+form, http.NoBody)
	a := httptest.NewRecorder()
	w.ServeHTTP(a, r)
	w.said(a, 400)
	w.untouched()
}

func TestUnsubscribingTwice(t *testing.T) {
	w := newWorld(t)
	first := w.ask(http.MethodPost, w.path(claim), urlencoded, form)
	again := w.ask(http.MethodPost, w.path(claim), urlencoded, form)
	w.said(first, 200)
	w.said(again, 200)
	if first.Body.String() != again.Body.String() {
		t.Error("the second answer differs")
	}
	w.results(Unsubscribed, Repeated)
}

func TestTheButtonOfThePageWorks(t *testing.T) {
	w := newWorld(t)
	page := w.ask(http.MethodGet, w.path(claim), "", "").Body.String()
	var fields []string
	for _, m := range regexp.MustCompile(`name="([^"]+)" value="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		fields = append(fields, m[1]+"="+m[2])
	}
	w.said(w.ask(http.MethodPost, w.path(claim), urlencoded, strings.Join(fields, "&")), 200)
	w.results(Shown, Unsubscribed)
}

func TestLinksOutliveTheirKeyAndTheirMessage(t *testing.T) {
	w := newWorld(t)
	old := w.path(claim)
	short := w.path(unsubscribe.Claim{Address: "ada@brand.example", Tenant: "shop"})
	w.keys = keysOf(t, 3)
	w.said(w.ask(http.MethodGet, old, "", ""), 200)
	w.said(w.ask(http.MethodPost, old, urlencoded, form), 200)
	w.said(w.ask(http.MethodPost, short, urlencoded, form), 200)
	if m := w.told[1]; m.Message != "" || m.Delivery != "" || m.List != "" {
		t.Errorf("%+v names a message", m)
	}
	w.keys = keysOf(t, 1)
	w.results(Shown, Unsubscribed, Unsubscribed)
}

func TestTokensThatAreNotOurs(t *testing.T) {
	w := newWorld(t)
	good := w.path(claim)
	w.keys = keysOf(t, 2)
	later := w.path(claim)
	w.keys = keysOf(t, 1)
	paths := []string{
		later, strings.ToUpper(good), "/u/" + strings.ToUpper(good[3:]), "/u/" + strings.ToLower(good[3:]), good[:len(good)-1], good + "A", good + " ",
		good + "\r\n", "/u/x", "/u/preview", "/u/" + strings.Repeat("A", 5000), "/u/\x00", "/u/" + good,
	}
	for _, path := range paths {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
			w.said(w.ask(method, path, urlencoded, form), 404)
		}
	}
	w.said(w.ask(http.MethodGet, good[:len(good)-5], "", ""), 404, "This link does not work", "copy all of it")
	w.untouched()
}

func TestNothingElseIsServed(t *testing.T) {
	w := newWorld(t)
	good := w.path(claim)
	for _, path := range []string{"", "/", "*", "/u", "/u/", "//u/" + good[3:], "/U/" + good[3:], good + "/", "/x" + good, "/u/../u/" + good[3:], "/metrics", "/robots.txt", "/favicon.ico"} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodOptions} {
			w.said(w.ask(method, path, urlencoded, form), 404)
		}
	}
	for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions, http.MethodTrace, http.MethodConnect, "post", "X"} {
		a := w.ask(method, good, urlencoded, form)
		w.said(a, 405)
		if got := a.Header().Get("Allow"); got != "GET, HEAD, POST" {
			t.Errorf("Allow: %q", got)
		}
	}
	w.untouched()
}

func TestALinkBelowAPath(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Path = "/mail" })
	good := w.path(claim)
	for path, status := range map[string]int{
		"/mail" + good: 200, good: 200, "/mailbox" + good: 404, "/mail" + good[1:]: 404, "/mail/mail" + good: 404, "/mail": 404, "/mail/": 404,
	} {
		w.said(w.ask(http.MethodGet, path, "", ""), status)
	}
}

func TestAFailingStoreIsTriedAgainLater(t *testing.T) {
	w := newWorld(t)
	w.fail = errors.New("disk on fire")
	a := w.ask(http.MethodPost, w.path(claim), urlencoded, form)
	w.said(a, 503, "try again")
	if got := a.Header().Get("Retry-After"); got != "120" {
		t.Errorf("Retry-After: %q", got)
	}
	if strings.Contains(a.Body.String(), "fire") {
		t.Errorf("the answer tells of our inside:\n%s", a.Body)
	}
	w.fail = nil
	w.said(w.ask(http.MethodPost, w.path(claim), urlencoded, form), 200)
	w.results(Failed, Unsubscribed)
}

func TestAClientThatHangsUpIsUnsubscribed(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, w.path(claim), strings.NewReader(form))
	w.ServeHTTP(httptest.NewRecorder(), r)
	w.results(Unsubscribed)
}

// The time that is observed is the time until the suppression is durable.
func TestTheTimeToSuppressionIsObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Now = nil })
		w.takes = 3 * time.Second
		w.said(w.ask(http.MethodPost, w.path(claim), urlencoded, form), 200)
		w.takes = time.Hour
		w.said(w.ask(http.MethodPost, w.path(claim), urlencoded, form), 503)
		w.results(Unsubscribed, Failed)
		if want := []time.Duration{3 * time.Second, storeWait}; !slices.Equal(w.spent, want) {
			t.Errorf("took %v, want %v", w.spent, want)
		}
	})
}

func TestMoreUnsubscribesThanTheStoreCanTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Now = nil })
		w.takes = actingWait + time.Second
		path := w.path(claim)
		var all sync.WaitGroup
		for range maxActing + 10 {
			all.Go(func() { w.ask(http.MethodPost, path, urlencoded, form) })
		}
		synctest.Wait()
		w.said(w.ask(http.MethodGet, path, "", ""), 200) // looking goes on
		all.Wait()
		count := map[Result]int{}
		for _, r := range w.seen {
			count[r]++
		}
		if count[Overloaded] != 10 || count[Unsubscribed] != 1 || count[Repeated] != maxActing-1 {
			t.Error(count)
		}
		w.takes = 0
		w.said(w.ask(http.MethodPost, path, urlencoded, form), 200) // the places were given back
	})
}

func TestUnsubscribesByMail(t *testing.T) {
	w := newWorld(t)
	token := strings.TrimPrefix(w.path(claim), unsubscribe.Path)
	for _, subject := range []string{"", "unsubscribe", "Please unsubscribe ada@brand.example", token[1:], strings.ToUpper(token), strings.Repeat("a ", maxWords) + token, strings.Repeat("x", 1<<20)} {
		if ok, err := w.ByMail(t.Context(), subject); ok || err != nil {
			t.Errorf("%.60q: %v, %v", subject, ok, err)
		}
	}
	w.untouched()
	w.seen = nil
	for _, subject := range []string{token, "  Re: " + token + "\t", "unsubscribe " + token} {
		if ok, err := w.ByMail(t.Context(), subject); !ok || err != nil {
			t.Errorf("%q: %v, %v", subject, ok, err)
		}
	}
	if w.told[0].Text != "mail to the unsubscribe address" || w.told[0].Address != "Ada@brand.example" {
		t.Errorf("%+v", w.told[0])
	}
	w.fail = errors.New("disk on fire")
	if ok, err := w.ByMail(t.Context(), token); !ok || !errors.Is(err, w.fail) {
		t.Errorf("%v, %v", ok, err)
	}
	w.results(Unsubscribed, Repeated, Repeated, Failed)
}

func FuzzPost(f *testing.F) {
	multi, body := multipartBody(f, "List-Unsubscribe", "One-Click", "page", "1")
	f.Add("POST", "", urlencoded, form)
	f.Add("POST", "", multi, body)
	f.Add("POST", "x", "multipart/form-data; boundary=a", "--a\r\n\r\nx")
	f.Add("GET", "", "", "")
	f.Add("HEAD", "/..", "a/b; c=\"", "%")
	w := newWorld(f, func(o *Options) { o.ClientRate = 1 << 30 })
	good := w.path(claim)
	f.Fuzz(func(t *testing.T, method, suffix, contentType, body string) {
		w.mu.Lock()
		w.told, w.seen, w.spent = nil, nil, nil
		w.mu.Unlock()
		r := &http.Request{
			Method: method, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body)), RemoteAddr: "192.0.2.1:1234",
		}
		r.URL = httptest.NewRequest(http.MethodGet, "/", nil).URL
		r.URL.Path = good + suffix
		a := httptest.NewRecorder()
		w.ServeHTTP(a, r)
		modest(t, a)
		switch a.Code {
		case 200, 400, 404, 405, 413:
		default:
			t.Errorf("status %d", a.Code)
		}
		acted := len(w.told) > 0
		if acted && (method != http.MethodPost || suffix != "" || a.Code != 200 || !strings.Contains(strings.ToLower(body), "one")) {
			t.Errorf("%q %q %q %q unsubscribed", method, suffix, contentType, body)
		}
	})
}

func BenchmarkPost(b *testing.B) {
	w := newWorld(b, func(o *Options) { o.Suppressor, o.Observe = idle{}, nil })
	path := w.path(claim)
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form))
		r.RemoteAddr = "127.0.0.1:1"
		a := httptest.NewRecorder()
		if w.ServeHTTP(a, r); a.Code != 200 {
			b.Fatal(a.Code)
		}
	}
}

// idle suppresses nobody.
type idle struct{}

func (idle) Unsubscribe(context.Context, address.Unsubscription) (bool, error) { return true, nil }

func TestAClientThatAsksTooMuchWaits(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.ClientRate = 1 })
	path := w.path(claim)
	for range burstSeconds {
		w.said(w.ask(http.MethodGet, path, "", ""), 200)
	}
	a := w.ask(http.MethodPost, path, urlencoded, form)
	w.said(a, 429, "try again")
	if got := a.Header().Get("Retry-After"); got != "5" {
		t.Errorf("Retry-After: %q", got)
	}
	w.untouched()
}
