package public

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/veredus/veredus/mta/unsubscribe"
)

// page is an answer: short words, no scripts, nothing from elsewhere.
type page struct {
	status int
	Title  string
	Text   string
	// Address and List say what the page is about; empty where it is about nothing.
	Address, List string
	Button        bool          // the form with the button
	later         time.Duration // when to come back; 0: need not
	allow         string        // the methods, with 405
}

// Pages that are always the same.
var (
	notFoundPage = page{status: http.StatusNotFound, Title: "Not found", Text: "There is nothing here."}
	invalidPage  = page{
		status: http.StatusNotFound, Title: "This link does not work",
		Text: "It may have been cut off: open the message again and use its unsubscribe link, or copy all of it. Links in previews and test messages do not work.",
	}
	notAllowedPage = page{
		status: http.StatusMethodNotAllowed, Title: "Not allowed", Text: "This address takes GET, HEAD and POST.",
		allow: "GET, HEAD, POST",
	}
	malformedPage = page{
		status: http.StatusBadRequest, Title: "Nothing was changed",
		Text: "The request does not say List-Unsubscribe=One-Click (RFC 8058). Open the link in a browser and use the button.",
	}
	tooLongPage = page{
		status: http.StatusRequestEntityTooLarge, Title: "Nothing was changed",
		Text: "The request is too large. Open the link in a browser and use the button.",
	}
	limitedPage = page{
		status: http.StatusTooManyRequests, Title: "Too many requests", Text: "Please try again in a few seconds.", later: 5 * time.Second,
	}
	laterPage = page{
		status: http.StatusServiceUnavailable, Title: "Not done yet", Text: "Your wish could not be stored just now. Please try again in a few minutes.", later: retryAfter,
	}
)

func refusal(err error) page {
	if errors.Is(err, errTooLong) {
		return tooLongPage
	}
	return malformedPage
}

// askPage is what the link shows.
func askPage(c unsubscribe.Claim) page {
	return page{status: http.StatusOK, Title: "Unsubscribe", Text: "Press the button to get no more of this mail.", Address: masked(c.Address), List: c.List, Button: true}
}

// donePage is the answer to a POST, the first and every later one.
func donePage(c unsubscribe.Claim) page {
	return page{status: http.StatusOK, Title: "You are unsubscribed", Text: "You will get no more of this mail.", Address: masked(c.Address), List: c.List}
}

// masked shows enough of an address for its owner to know it: j***@example.com. A link
// may be forwarded with the mail.
func masked(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return "***"
	}
	_, first := utf8.DecodeRuneInString(address)
	if first >= at || address[0] == '"' {
		first = 0
	}
	return address[:first] + "***" + address[at:]
}

const style = `body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:12vh auto;padding:0 1rem;color:#1a1a1a;background:#fff}` +
	`dt{font-weight:600}dd{margin:0 0 .5rem;overflow-wrap:anywhere}` +
	`button{font:inherit;padding:.6rem 1.4rem;border:2px solid #0b3d91;border-radius:.3rem;background:#0b3d91;color:#fff;cursor:pointer}` +
	`button:focus-visible{outline:3px solid #ffb000;outline-offset:2px}`

// layout posts to the address that it came from, whatever path a proxy gave it.
var layout = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex, nofollow">
<title>{{.Title}}</title>
<style>` + style + `</style>
</head>
<body>
<main>
<h1>{{.Title}}</h1>
{{- if .Address}}
<dl>
<dt>Address</dt><dd>{{.Address}}</dd>
{{- if .List}}
<dt>List</dt><dd>{{.List}}</dd>
{{- end}}
</dl>
{{- end}}
<p>{{.Text}}</p>
{{- if .Button}}
<form method="post">
<input type="hidden" name="` + wishName + `" value="` + wishValue + `">
<button type="submit" name="` + pageName + `" value="1">Unsubscribe</button>
</form>
{{- end}}
</main>
</body>
</html>
`))

// policy lets the page do what it does and no more: its own style, and its form to where it came from.
var policy = func() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}()

// write answers with the page. The token in the URL must not leave by a Referer, a cache or a search engine.
func (p page) write(w http.ResponseWriter) {
	var body bytes.Buffer
	if err := layout.Execute(&body, p); err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	header := w.Header()
	for name, value := range map[string]string{
		"Content-Type":            "text/html; charset=utf-8",
		"Cache-Control":           "no-store",
		"Referrer-Policy":         "no-referrer",
		"X-Robots-Tag":            "noindex, nofollow",
		"Content-Security-Policy": policy,
		"X-Content-Type-Options":  "nosniff",
		"X-Frame-Options":         "DENY",
	} {
		header.Set(name, value)
	}
	if p.allow != "" {
		header.Set("Allow", p.allow)
	}
	if p.later > 0 {
		header.Set("Retry-After", seconds(p.later))
	}
	w.WriteHeader(p.status)
	_, _ = w.Write(body.Bytes())
}
