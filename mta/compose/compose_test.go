package compose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var firstClaim = time.Date(2026, 3, 1, 9, 30, 0, 0, time.FixedZone("CET", 3600))

// newsletter is a delivery with nothing but a text part.
func newsletter(text string) Source {
	return Source{From: Mailbox{Address: "news@example.com"}, Subject: "News", Text: text}
}

func compile(t testing.TB, src Source) *Template {
	t.Helper()
	tmpl, err := Compile(src)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	return tmpl
}

func job(variables string) Job {
	return Job{To: "ada@example.org", Variables: []byte(variables), MessageID: "t0ken@bounce.example.com", Date: firstClaim}
}

// text renders one template as the text part and returns what it wrote.
func renderText(t testing.TB, template, variables string) (string, error) {
	t.Helper()
	return renderField(t, "text", template, variables)
}

func renderHTML(t testing.TB, template, variables string) string {
	t.Helper()
	out, err := renderField(t, "html", template, variables)
	if err != nil {
		t.Fatalf("%s: %v", template, err)
	}
	return out
}

func renderField(t testing.TB, field, template, variables string) (string, error) {
	t.Helper()
	f, err := compileFragment(field, template, field == "html", false)
	if err != nil {
		return "", err
	}
	tmpl := &Template{subject: f}
	tmpl.link()
	m := newMessage(tmpl)
	m.run.ctx, m.job = context.Background(), job(variables)
	if err := m.prepare(); err != nil {
		return "", err
	}
	err = m.render(f)
	return string(m.run.buf), err
}

func TestEveryAttemptGetsTheSameBytes(t *testing.T) {
	src := Source{
		From:    Mailbox{Name: "Zo\u00eb from {{ shop }}", Address: "news@example.com"},
		Subject: "For {{ name }}",
		Text:    "{% for pair in extra %}{{ pair[0] }}={{ pair[1] }} {% endfor %}{{ extra }}{{ extra | join: ',' }}{{ extra | json }}",
		HTML:    "<p>{{ extra | map: 'x' | uniq | sort | join }}</p>",
		Headers: []Header{{"X-Shop", "{{ shop }}"}},
	}
	j := job(`{"name":"Ada","shop":"S","extra":{"q":1,"w":2,"e":3,"r":4,"t":5,"y":6,"u":[1,2],"i":{"a":1,"b":2}}}`)
	first, err := compile(t, src).Render(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	j.Date = j.Date.UTC()
	for range 50 {
		again, err := compile(t, src).Render(t.Context(), j)
		if err != nil || string(again.Bytes) != string(first.Bytes) {
			t.Fatalf("an attempt differs: %v\n%s\n%s", err, first.Bytes, again.Bytes)
		}
	}
	if !strings.Contains(string(first.Bytes), "e=3D3 i=3D") {
		t.Errorf("a map does not iterate in the order of its keys:\n%s", first.Bytes)
	}
}

func TestManyRenderingsShareOneTemplate(t *testing.T) {
	tmpl := compile(t, Source{
		From: Mailbox{Address: "news@example.com"}, Subject: "{{ n }}",
		Text: "{% for i in (1..3) %}{% cycle 'a', 'b' %}{% assign x = i | plus: n %}{{ x }}{% endfor %}{{ shared.list | join }}",
		HTML: "{% capture c %}{{ n }}{% endcapture %}{{ c }}{% tablerow i in (1..2) %}{{ i }}{% endtablerow %}",
	})
	shared := map[string]any{"shared": map[string]any{"list": []any{1, "two", 3.5}}}
	done := make(chan error)
	for g := range 4 {
		go func() {
			var err error
			for i := range 50 {
				j := job(fmt.Sprintf(`{"n":%d}`, 100*g+i))
				j.Builtin = shared
				r, e := tmpl.Render(context.Background(), j)
				want := fmt.Sprintf("a%db%da%d1 two 3.5", 100*g+i+1, 100*g+i+2, 100*g+i+3)
				if e != nil || !strings.Contains(string(r.Bytes), want) {
					err = errors.Join(err, e, fmt.Errorf("want %q in %s", want, r.Bytes))
				}
			}
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestMissingNamesWhatTheContentNeeds(t *testing.T) {
	for _, tc := range []struct {
		name, template, variables string
		missing                   []string
	}{
		{"given", "{{ a }} {{ b.c }}", `{"a":1,"b":{"c":2}}`, nil},
		{"given as null", "{{ a }}", `{"a":null}`, nil},
		{"not given", "{{ a }}", `{}`, []string{"a"}},
		{"no variables at all", "{{ a }}", "", []string{"a"}},
		{"in order of use, once", "{{ b }}{{ a }}{{ b }}", `{}`, []string{"b", "a"}},
		{"a property", "{{ a.b.c }}", `{"a":{"b":{}}}`, []string{"a.b.c"}},
		{"of a loop's item", "{% for i in items %}{{ i.price }}{% endfor %}", `{"items":[{"price":1},{}]}`, []string{"items.price"}},
		{"through brackets", "{{ a['x y'] }}", `{"a":{}}`, []string{"a.x y"}},
		{"a whole list", "{% for i in items %}{{ i }}{% endfor %}", `{}`, []string{"items"}},
		{"a list with an else", "{% for i in items %}{{ i }}{% else %}none{% endfor %}", `{}`, nil},
		{"behind a default", "{{ a | default: 'friend' }}", `{}`, nil},
		{"only asked about", "{% if a %}{{ a }}{% endif %}{% unless b %}x{% endunless %}", `{}`, nil},
		{"in a branch not taken", "{% if a %}{{ b }}{% endif %}", `{}`, nil},
		{"assigned before", "{% assign a = 1 %}{{ a }}", `{}`, nil},
		{"captured before", "{% capture a %}x{% endcapture %}{{ a }}", `{}`, nil},
		{"assigned from", "{% assign a = b %}{{ a }}", `{}`, []string{"b"}},
		{"as an argument", "{{ a | append: b }}", `{"a":"x"}`, []string{"b"}},
		{"built in", "{{ recipient.address }}{{ recipient.age }}", `{}`, []string{"recipient.age"}},
		{"in raw text", "{% raw %}{{ a }}{% endraw %}{% comment %}{{ b }}{% endcomment %}", `{}`, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := compile(t, newsletter(tc.template)).Render(t.Context(), job(tc.variables))
			if err != nil || !slices.Equal(r.Missing, tc.missing) {
				t.Errorf("missing %q, want %q (%v)", r.Missing, tc.missing, err)
			}
		})
	}
}

func TestVariablesOfAllTemplates(t *testing.T) {
	tmpl := compile(t, Source{
		From: Mailbox{Name: "{{ sender_name }}", Address: "news@example.com"}, ToName: "{{ first }}",
		Subject: "{{ first | append: last | upcase }}",
		Text:    "{% for item in order.items reversed limit: n %}{{ item.name }}{{ forloop.index }}{% endfor %}{% assign x = y %}{{ x }}",
		HTML:    "{% if a and b.c == 'z' or d contains e %}{% elsif f %}{% endif %}{% case g %}{% when h, 'i' %}{% endcase %}{{ j[k] }}",
		Headers: []Header{{"X-A", "{{ l }}"}},
	})
	want := "a b.c d e f first g h j k l last n order.items sender_name y"
	if got := strings.Join(tmpl.Variables(), " "); got != want {
		t.Errorf("variables\n%s\nwant\n%s", got, want)
	}
}

func TestTheRecipientsVariablesComeBeforeBuiltIns(t *testing.T) {
	tmpl := compile(t, newsletter("{{ recipient.address }}|{{ shop }}|{{ id }}"))
	j := job(`{"shop":"theirs"}`)
	j.Builtin = map[string]any{"shop": "ours", "id": 7}
	r, err := tmpl.Render(t.Context(), j)
	if err != nil || !strings.Contains(string(r.Bytes), "ada@example.org|theirs|7") {
		t.Errorf("%v\n%s", err, r.Bytes)
	}
}

func TestABadJobIsRefused(t *testing.T) {
	tmpl := compile(t, newsletter("x"))
	for field, change := range map[string]func(*Job){
		"to":         func(j *Job) { j.To = "ada@example.org>\r\nBcc: x@y.z" },
		"message_id": func(j *Job) { j.MessageID = "a@b>\r\nX: y" },
		"date":       func(j *Job) { j.Date = time.Time{} },
		"variables":  func(j *Job) { j.Variables = []byte(`[1]`) },
		"builtin":    func(j *Job) { j.Builtin = map[string]any{"x": make(chan int)} },
	} {
		j := job("")
		change(&j)
		_, err := tmpl.Render(t.Context(), j)
		var failed *RenderError
		if !errors.As(err, &failed) || failed.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, variables := range []string{`{"a":1} {}`, `{"a":`, `{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, `"x"`, `null x`, strings.Repeat(" ", MaxVariables+1)} {
		if _, err := tmpl.Render(t.Context(), job(variables)); err == nil {
			t.Errorf("variables %.40q: accepted", variables)
		}
	}
}

func TestACancelledRenderingIsNotTheMessagesFault(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	tmpl := compile(t, newsletter("{% for i in (1..90000) %}{% endfor %}"))
	if _, err := tmpl.Render(ctx, job("")); err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err := tmpl.Render(ctx, job(""))
	var failed *RenderError
	if !errors.Is(err, context.Canceled) || errors.As(err, &failed) {
		t.Errorf("before: %v", err)
	}
	// Cancelled in the middle: the first look at the context is Render's own.
	middle := &expiring{Context: t.Context(), looks: 1}
	_, err = tmpl.Render(middle, job(""))
	if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &failed) || middle.looks > -1 || middle.looks < -3 {
		t.Errorf("in a loop: %v after %d looks", err, middle.looks)
	}
}

// expiring is a context that ends after it was looked at so many times.
type expiring struct {
	context.Context
	looks int
}

func (e *expiring) Err() error {
	if e.looks--; e.looks < 0 {
		return context.DeadlineExceeded
	}
	return nil
}
