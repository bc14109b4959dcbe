package compose

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestGoldenMessages(t *testing.T) {
	const html = "<html><body>\n<h1>Hello {{ name }}</h1>\n{% for item in items %}<p>{{ item.title }}: {{ item.price }} \u20ac</p>\n{% endfor %}<a href=\"{{ unsubscribe_url }}\">unsubscribe</a>\n</body></html>\n"
	const text = "Hello {{ name }},\n\n{% for item in items -%}\n* {{ item.title }}: {{ item.price }} \u20ac\n{% endfor %}\nA line that is much longer than seventy-six characters, so that quoted-printable has to break it softly.\n.\nFrom here on.\n"
	const vars = `{"name":"Zo\u00eb <Z>","shop":"Acme & Sons","items":[{"title":"Tea","price":4.5},{"title":"Caf\u00e9","price":12}],"n":12345678901234567890}`
	for name, tc := range map[string]struct {
		src  Source
		vars string
	}{
		"bulk": {Source{
			From: Mailbox{Name: "{{ shop }}", Address: "news@mail.example.com"}, ReplyTo: "Help <help@example.com>", ToName: "{{ name }}",
			Subject: "{{ name }}, your order and a subject that is long enough to be folded over several lines of the header",
			Text:    text, HTML: html, ListID: "weekly", FeedbackID: "spring:acme:bulk:mail.example.com",
			Unsubscribe: UnsubscribeOwnURL, UnsubscribeURL: "https://example.com/u?r={{ recipient.address | url_encode }}&n={{ n }}", UnsubscribeMailto: "leave@example.com?subject=leave {{ n }}",
			Headers: []Header{{"X-Campaign", "spring {{ n }}"}, {"X-Empty", "{{ none }}"}},
		}, vars},
		"text_only": {Source{From: Mailbox{Address: "a@example.com"}, Subject: "Plain", Text: "Plain text.\r\nTwo lines"}, ""},
		"html_only": {Source{From: Mailbox{Name: "A. B. \"C\" (D)", Address: "a@example.com"}, Subject: "Just HTML", HTML: "<p>{{ name }}</p>"}, vars},
		"raw": {Source{
			From: Mailbox{Address: "news@example.com"}, ListID: "<raw.example.com>", Unsubscribe: UnsubscribeOwnURL, UnsubscribeURL: "https://example.com/u",
			Raw: []byte("Received: from secret\nFrom: =?utf-8?q?Zo=C3=AB?= <News@Example.com>\nTo: all@example.com\nBcc: hidden@example.com,\n more@example.com\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nDate: Thu, 1 Jan 1970 00:00:00 +0000\nMessage-ID: <old@example.com>\nList-Unsubscribe: <mailto:old@example.com>\nDKIM-Signature: v=1; b=abc\n\tdef\nX-Mine: kept\n\tfolded\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGr\u00fc\u00dfe {{ name }}\nFrom\rus"),
		}, vars},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := compile(t, tc.src).Render(t.Context(), job(tc.vars))
			if err != nil {
				t.Fatal(err)
			}
			wellFormed(t, r.Bytes, r.EightBit)
			path := filepath.Join("testdata", name+".eml")
			if *update {
				if err := os.WriteFile(path, r.Bytes, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(want, r.Bytes) {
				t.Errorf("%v; differs from %s (run with -update and look at the change):\n%s", err, path, r.Bytes)
			}
		})
	}
}

// fataler is what testing.T and rapid.T share.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// wellFormed checks what holds for every message that leaves.
func wellFormed(t fataler, msg []byte, eightBit bool) {
	t.Helper()
	if !bytes.HasSuffix(msg, []byte("\r\n")) {
		t.Fatalf("does not end in CRLF: %q", msg)
	}
	for line := range bytes.SplitAfterSeq(msg, []byte("\r\n")) {
		text := bytes.TrimSuffix(line, []byte("\r\n"))
		if len(text) > maxLine || bytes.ContainsAny(text, "\r\n\x00") {
			t.Fatalf("bad line of %d octets: %.200q", len(text), text)
		}
	}
	if !eightBit && !isASCII(msg) {
		t.Fatalf("8-bit octets: %q", msg)
	}
}

// fieldNames returns the names of the header fields of msg in order.
func fieldNames(t fataler, msg []byte) (names []string) {
	t.Helper()
	head, _, found := bytes.Cut(msg, []byte("\r\n\r\n"))
	if !found {
		t.Fatalf("no end of header: %q", msg)
	}
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		switch {
		case len(bytes.TrimSpace(line)) == 0:
			t.Fatalf("a blank line in the header: %q", head)
		case line[0] != ' ':
			name, _, _ := strings.Cut(string(line), ":")
			names = append(names, name)
		}
	}
	return names
}

// nasty draws texts that try to get out of where they are put.
func nasty() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.StringOfN(rapid.RuneFrom([]rune("\r\n\t :,;<>@\"\\()=?_.a\u00e9\u4e2d\U0001F600\x00\x7f\u0085\u2028\u200b\ufffd")), 0, 300, -1),
		rapid.SampledFrom([]string{
			"\r\nBcc: evil@example.net", "a\nX: y", "\r\n\r\nbody", "=?utf-8?q?=0D=0ABcc:_x?=", "a@b.c>\r\nRCPT TO:<x@y.z>", "\"", "\\", "\\\"", "a\r\n b", "\n\n", " ",
			strings.Repeat("x", 2000), strings.Repeat("word ", 500), strings.Repeat("\u00e9", 800), strings.Repeat("\"\\", 900), "https://x.example/\r\nX: y", "..", "\r.\r\n", "a,b;c:d",
		}),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 100), func(b []byte) string { return string(b) }),
	)
}

func TestNoVariableGetsOutOfItsPlace(t *testing.T) {
	tmpl := compile(t, Source{
		From: Mailbox{Name: "{{ from }}", Address: "news@example.com"}, ToName: "{{ to }}", Subject: "s {{ subject }}",
		Text: "{{ text }}", HTML: "<p>{{ html }}</p>{{ html | raw }}",
		ListID: "news", FeedbackID: "a:b:c:d", Unsubscribe: UnsubscribeOwnURL, UnsubscribeURL: "https://example.com/{{ url }}",
		Headers: []Header{{"X-First", "v {{ header }}"}, {"X-Quite-Long-Header-Name-That-Leaves-Little-Room-On-Its-First-Line", "v {{ header }}"}},
	})
	want := []string{
		"From", "To", "Subject", "Date", "Message-ID", "List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "Feedback-ID",
		"X-First", "X-Quite-Long-Header-Name-That-Leaves-Little-Room-On-Its-First-Line", "MIME-Version", "Content-Type",
	}
	rapid.Check(t, func(rt *rapid.T) {
		vars := map[string]string{}
		for _, name := range []string{"from", "to", "subject", "text", "html", "url", "header"} {
			vars[name] = nasty().Draw(rt, name)
		}
		data, err := json.Marshal(vars)
		if err != nil {
			rt.Fatal(err)
		}
		r, err := tmpl.Render(t.Context(), job(string(data)))
		if err != nil {
			var failed *RenderError
			if !errors.As(err, &failed) {
				rt.Fatal(err)
			}
			return
		}
		wellFormed(rt, r.Bytes, false)
		if got := fieldNames(rt, r.Bytes); !slices.Equal(got, want) {
			rt.Fatalf("header fields %q\n%s", got, r.Bytes)
		}
		checkMessage(rt, r, vars)
	})
}

// checkMessage reads the message as a receiver does and compares what it says.
func checkMessage(t *rapid.T, r Rendered, vars map[string]string) {
	msg, err := mail.ReadMessage(bytes.NewReader(r.Bytes))
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Bytes)
	}
	dec := &mime.WordDecoder{}
	for field, want := range map[string]string{"Subject": clean("s " + utf(vars["subject"])), "X-First": clean("v " + utf(vars["header"]))} {
		if got, err := dec.DecodeHeader(msg.Header.Get(field)); err != nil || got != want {
			t.Fatalf("%s reads %q, want %q (%v)\n%s", field, got, want, err, r.Bytes)
		}
	}
	if r.Subject != clean("s "+utf(vars["subject"])) {
		t.Fatalf("Rendered.Subject is %q", r.Subject)
	}
	for field, want := range map[string][2]string{"From": {clean(utf(vars["from"])), "news@example.com"}, "To": {clean(utf(vars["to"])), "ada@example.org"}} {
		list, err := msg.Header.AddressList(field)
		if err != nil || len(list) != 1 || list[0].Name != want[0] || list[0].Address != want[1] {
			t.Fatalf("%s: %v, want %q (%v)\n%s", field, list, want, err, r.Bytes)
		}
	}
	url := strings.Trim(msg.Header.Get("List-Unsubscribe"), "<>")
	if !strings.HasPrefix(url, "https://example.com/") || strings.ContainsAny(url, "<> ,\"") {
		t.Fatalf("List-Unsubscribe %q", url)
	}
	_, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(msg.Body, params["boundary"])
	for _, want := range []string{vars["text"], ""} {
		part, err := parts.NextRawPart()
		if err != nil {
			t.Fatalf("%v\n%s", err, r.Bytes)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(part))
		if err != nil || !utf8.Valid(body) {
			t.Fatalf("%v in %q", err, body)
		}
		if got := lineEnds(string(body)); want != "" && got != lineEnds(strings.ReplaceAll(utf(want), "\x00", "\ufffd")) {
			t.Fatalf("text part %q, want %q", got, want)
		}
	}
	if _, err := parts.NextRawPart(); !errors.Is(err, io.EOF) {
		t.Fatalf("a third part: %v", err)
	}
}

// utf is what JSON makes of a text.
func utf(s string) string {
	var out string
	data, err := json.Marshal(s)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		return err.Error()
	}
	return out
}

// lineEnds makes all line ends LF and drops those at the end.
func lineEnds(s string) string {
	return strings.TrimRight(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s), "\n")
}

func TestHeadersFoldAndEncode(t *testing.T) {
	for _, tc := range []struct{ value, want string }{
		{"short", "Subject: short\r\n"},
		{strings.Repeat("word ", 30), "Subject: word word word word word word word word word word word word word\r\n word word word word word word word word word word word word word word word\r\n word word\r\n"},
		{"Gr\u00fc\u00dfe", "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"},
		{"\u4f60\u597d\u4e16\u754c", "Subject: =?utf-8?b?5L2g5aW95LiW55WM?=\r\n"},
		{"looks =?utf-8?q?encoded?=", "Subject: =?utf-8?q?looks_=3D=3Futf-8=3Fq=3Fencoded=3F=3D?=\r\n"},
		{strings.Repeat("x", 71), "Subject: =?utf-8?q?xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx?=\r\n =?utf-8?q?xxxxxxxxxxxxxxxx?=\r\n"},
		{"a  b", "Subject: a  b\r\n"},
		{"", "Subject: \r\n"},
	} {
		if got := string(appendField(nil, "Subject", clean(tc.value))); got != tc.want {
			t.Errorf("%q\n got %q\nwant %q", tc.value, got, tc.want)
		}
	}
}

func TestEveryEncodedLineKeepsToSeventySixCharacters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[A-Z][a-z]{0,40}`).Draw(t, "name")
		value := clean(rapid.StringOfN(rapid.RuneFrom([]rune("abc =?_\u00e9\u4e2d\U0001F600")), 0, 400, -1).Draw(t, "value"))
		field := string(appendField(nil, name, value))
		for line := range strings.SplitSeq(field, "\r\n") {
			if strings.Contains(line, "=?utf-8?") && len(line) > lineWidth {
				t.Fatalf("%d characters in %q", len(line), line)
			}
			if !isASCII([]byte(line)) {
				t.Fatalf("8-bit octets in %q", line)
			}
		}
		_, got, _ := strings.Cut(strings.ReplaceAll(strings.TrimSuffix(field, "\r\n"), "\r\n", ""), ":")
		got, err := new(mime.WordDecoder).DecodeHeader(strings.TrimSpace(got))
		if err != nil || got != value {
			t.Fatalf("%q reads %q, want %q (%v)", field, got, value, err)
		}
	})
}

func TestInternationalLocalPartsNeedSMTPUTF8(t *testing.T) {
	j := job("")
	j.To = "j\u00f6rg@b\u00fccher.example"
	r, err := compile(t, newsletter("x")).Render(t.Context(), j)
	if err != nil || !r.UTF8 || !strings.Contains(string(r.Bytes), "To: j\u00f6rg@xn--bcher-kva.example\r\n") {
		t.Errorf("%v %v\n%s", err, r.UTF8, r.Bytes)
	}
	j.To = "joerg@b\u00fccher.example"
	r, err = compile(t, newsletter("x")).Render(t.Context(), j)
	if err != nil || r.UTF8 || r.EightBit || !isASCII(r.Bytes) {
		t.Errorf("%v %v\n%s", err, r.UTF8, r.Bytes)
	}
}

func TestQuotedLocalPartsStayQuoted(t *testing.T) {
	j := job("")
	j.To = `"a@b\"c"@example.org`
	r, err := compile(t, newsletter("x")).Render(t.Context(), j)
	if err != nil || !strings.Contains(string(r.Bytes), "To: \"a@b\\\"c\"@example.org\r\n") {
		t.Errorf("%v\n%s", err, r.Bytes)
	}
}

func TestUnsubscribeURLsAreCheckedWhenTheyAreKnown(t *testing.T) {
	src := newsletter("{{ unsubscribe_url }}")
	src.Unsubscribe, src.UnsubscribeURL = UnsubscribeOwnURL, "{{ url }}"
	tmpl := compile(t, src)
	for _, tc := range []struct{ url, want string }{
		{"https://example.com/a b<c>,\u00e9", "https://example.com/a%20b%3Cc%3E%2C%C3%A9"},
		{"HTTPS://example.com", "HTTPS://example.com"},
		{"http://example.com", ""},
		{"", ""},
		{"https://", ""},
		{"https:///x", ""},
		{"javascript:alert(1)", ""},
		{"/u", ""},
		{"https://user:pw@example.com/", ""},
		{"https://example.com/" + strings.Repeat("x", 900), ""},
	} {
		r, err := tmpl.Render(t.Context(), job(`{"url":"`+tc.url+`"}`))
		var failed *RenderError
		switch {
		case tc.want == "" && (!errors.As(err, &failed) || failed.Field != "unsubscribe_url"):
			t.Errorf("%q: %v", tc.url, err)
		case tc.want != "" && (err != nil || !strings.Contains(string(r.Bytes), "List-Unsubscribe: <"+tc.want+">\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n")):
			t.Errorf("%q: %v\n%s", tc.url, err, r.Bytes)
		}
	}
}

func TestCompileListsEveryFault(t *testing.T) {
	_, err := Compile(Source{
		From: Mailbox{Name: "{{", Address: "no address"}, ReplyTo: "also none", Text: "{% if %}", HTML: "{{ x | nope }}",
		Headers: []Header{{"Subject", "x"}, {"Bad Name", "x"}, {"Content-Language", "de"}, {"X-Ok", "{{ 'x }}"}, {"Received", "x"}, {"DKIM-Signature", "x"}, {"X:Y", "x"}, {"X-\r\nBcc", "x"}},
		ListID:  "a b", FeedbackID: "a b",
		Unsubscribe: UnsubscribeOwnURL, UnsubscribeURL: "http://example.com", UnsubscribeMailto: "mailto:nobody",
	})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%v", err)
	}
	var fields []string
	for _, e := range joined.Unwrap() {
		var fault *FieldError
		if !errors.As(e, &fault) || fault.Problem == "" || fault.Remedy == "" {
			t.Errorf("%v", e)
			continue
		}
		fields = append(fields, fault.Field)
	}
	slices.Sort(fields)
	want := []string{
		"feedback_id", "from.address", "from.name", "headers[0].name", "headers[1].name", "headers[2].name", "headers[3].value", "headers[4].name", "headers[5].name", "headers[6].name", "headers[7].name",
		"html", "list_id", "reply_to", "subject", "text", "unsubscribe_mailto", "unsubscribe_url",
	}
	if !slices.Equal(fields, want) {
		t.Errorf("faults in %q\nwant %q\n%v", fields, want, err)
	}
}

func TestAnEmptySourceIsRefused(t *testing.T) {
	_, err := Compile(Source{})
	for _, want := range []string{"from.address: is missing", "subject: is missing", "text: and html are both missing"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
