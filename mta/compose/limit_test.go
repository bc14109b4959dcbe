package compose

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func TestHostileTemplatesEndAtALimit(t *testing.T) {
	big := fmt.Sprintf(`{"s":%q,"l":[%s1]}`, strings.Repeat("x", 500_000), strings.Repeat("1,", 20_000))
	grow := "{% assign a = s %}{% for i in (1..100) %}{% assign a = a | append: a %}{% endfor %}"
	for name, template := range map[string]string{
		"steps: empty loop":          "{% for i in (1..30000000) %}{% endfor %}",
		"steps: one too many":        "{% for i in (1..100001) %}{% endfor %}",
		"steps: nested":              "{% for i in (1..400) %}{% for j in (1..400) %}{% endfor %}{% endfor %}",
		"steps: trimmed tag":         "{%- for i in (1..30000000) -%}  {%- endfor -%}",
		"steps: no spaces":           "{%for i in (1..30000000)%}{%endfor%}",
		"steps: with else":           "{% for i in (1..30000000) %}{% else %}x{% endfor %}",
		"steps: in an else":          "{% for i in l offset: 99999 %}{% else %}{% for i in (1..30000000) %}{% endfor %}{% endfor %}",
		"steps: continue":            "{% for i in (1..30000000) %}{% continue %}{% endfor %}",
		"steps: tablerow":            "{% capture x %}{% for i in (1..20) %}{% tablerow j in (1..30000000) %}{% break %}{% endtablerow %}{% endfor %}{% endcapture %}{% for i in (1..30000000) %}{% endfor %}",
		"steps: after raw":           "{% raw %}{% for %}{% endraw %}{% for i in (1..30000000) %}{% endfor %}",
		"steps: after comment":       "{% comment %}{% for x in y %}{{ {% endcomment %}{% for i in (1..30000000) %}{% endfor %}",
		"steps: after quoted tag":    "{{ '{% for x in y %}' }}{% for i in (1..30000000) %}{% endfor %}",
		"steps: over several lines":  "{% for i\nin\n(1..30000000)\n%}{% endfor %}",
		"steps: reversed":            "{% for i in (1..30000000) reversed %}{% endfor %}",
		"steps: all loops together":  strings.Repeat("{% for i in (1..60000) %}{% endfor %}", 2),
		"value: doubling":            grow,
		"value: doubling in HTML":    strings.ReplaceAll(grow, "= s", "= s | escape"),
		"value: prepend":             strings.ReplaceAll(grow, "append", "prepend"),
		"value: replace":             "{{ s | replace: 'x', s }}",
		"value: replace nothing":     "{{ s | replace: '', s }}",
		"value: join":                "{{ l | join: s }}",
		"value: concat":              "{% for i in (1..100) %}{% assign l = l | concat: l %}{% endfor %}",
		"value: split":               "{{ s | split: '' | size }}",
		"value: range as list":       "{{ (1..1000000000) | join }}",
		"value: range to the end":    "{{ (0..9223372036854775806) | size }}",
		"value: range kept":          "{% assign r = (1..1000000000) %}",
		"value: newlines":            "{{ s | replace: 'x', '\n' | newline_to_br }}",
		"value: url_encode":          "{{ s | replace: 'x', '&' | url_encode }}",
		"value: capture":             "{% capture c %}{% for i in (1..100) %}{{ s }}{% endfor %}{% endcapture %}",
		"value: capture of text":     "{% capture c %}{% for i in (1..100000) %}" + strings.Repeat("y", 1000) + "{% endfor %}{% endcapture %}",
		"value: json":                "{% assign c = s | append: s | json | json %}{{ c | append: c }}",
		"output":                     "{% for i in (1..100) %}{{ s }}{% endfor %}",
		"output of text":             "{% for i in (1..100000) %}" + strings.Repeat("y", 100) + "{% endfor %}",
		"output of cycle":            "{% for i in (1..100000) %}{% cycle '" + strings.Repeat("y", 1000) + "' %}{% endfor %}",
		"output of tablerow":         "{% tablerow i in (1..100000) %}{% endtablerow %}",
		"work: filters":              "{% for i in (1..100000) %}{% assign a = s | upcase %}{% endfor %}",
		"work: filters in condition": "{% for i in (1..100000) %}{% assign a = s | size %}{% if a == 1 %}{% endif %}{% endfor %}",
		"work: contains":             "{% for i in (1..100000) %}{% if s contains 'yyy' %}{% endif %}{% endfor %}",
		"work: list contains":        "{% for i in (1..100000) %}{% if l contains 'yyy' %}{% endif %}{% endfor %}",
		"work: equal texts":          "{% assign a = s | append: 'a' %}{% assign b = s | append: 'b' %}{% for i in (1..100000) %}{% if a == b %}{% endif %}{% endfor %}",
		"work: case":                 "{% assign a = s | append: 'a' %}{% assign b = s | append: 'b' %}{% for i in (1..100000) %}{% case a %}{% when b %}{% endcase %}{% endfor %}",
		"work: equal lists":          "{% assign a = l | concat: l %}{% assign b = l | concat: l %}{% for i in (1..100000) %}{% if a == b %}{% endif %}{% endfor %}",
		"work: sort":                 "{% for i in (1..100000) %}{% assign a = l | sort %}{% endfor %}",
		"work: uniq":                 "{% for i in (1..100000) %}{% assign a = l | uniq %}{% endfor %}",
		"work: trimmed text":         "{% for i in (1..100000) %}" + strings.Repeat(" ", 100_000) + "{%- assign x = 1 -%}{% endfor %}",
		"work: trimmed values":       "{% assign a = s | replace: 'x', ' ' %}{% for i in (1..100000) %}{{ a }}{%- assign x = 1 -%}{% endfor %}",
		"work: long body":            "{% for i in (1..100000) %}" + strings.Repeat("{% if s %}{% endif %}", 5000) + "{% endfor %}",
		"work: many held":            "{% assign a = s %}" + strings.Repeat("{% assign a = a | append: 'x' %}", 5000),
		"work: body of conditions":   "{% for i in (1..100000) %}" + strings.Repeat("{% if n == 1 %}{% endif %}", 5000) + "{% endfor %}",
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := renderText(t, template, big)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrLimit) {
				t.Errorf("%v, want a limit", err)
			}
			want, _, _ := strings.Cut(name, ":")
			want, _, _ = strings.Cut(want, " ")
			said := map[string]string{"steps": "too many steps", "value": "too", "output": "too large", "work": "too much work"}[want]
			if err != nil && !strings.Contains(err.Error(), said) {
				t.Errorf("%v, want %q", err, said)
			}
			if grown := (after.TotalAlloc - before.TotalAlloc) >> 20; grown > 600 {
				t.Errorf("allocated %d MiB on the way", grown)
			}
		})
	}
}

func TestWhatLimitsAllow(t *testing.T) {
	const anyLength = -1
	mib := strings.Repeat("x", 1<<20)
	for name, tc := range map[string]struct {
		template string
		length   int
	}{
		"100,000 steps":                   {"{% for i in (1..100000) %}{% assign x = i | plus: 1 %}{% endfor %}ok", 2},
		"100,000 steps in two loops":      {strings.Repeat("{% for i in (1..50000) %}{% endfor %}", 2) + "ok", 2},
		"a value of 1 MiB":                {"{% assign a = '" + strings.Repeat("x", 1024) + "' %}{% for i in (1..10) %}{% assign a = a | append: a %}{% endfor %}{{ a | size }}", 7},
		"a capture of 1 MiB":              {"{% capture c %}" + mib[:1<<19] + mib[:1<<19-100] + "{% endcapture %}ok", 2},
		"1 MiB of output":                 {mib, 1 << 20},
		"1 MiB of output from a loop":     {"{% for i in (1..1024) %}" + mib[:1024] + "{% endfor %}", 1 << 20},
		"a loop that breaks early":        {"{% for i in (1..30000000) %}{% if i == 5 %}{% break %}{% endif %}{% endfor %}ok", 2},
		"a table of a thousand rich rows": {"{% for i in (1..1000) %}" + strings.Repeat("{% if i > 3 %}{{ i | times: 3 | plus: 1 }}{% endif %}", 30) + "{% endfor %}", anyLength},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := renderText(t, tc.template, "{}")
			if err != nil || tc.length != anyLength && len(out) != tc.length {
				t.Errorf("%d octets, want %d: %v", len(out), tc.length, err)
			}
		})
	}
}

func TestOneOctetMoreThanTheLimitsAllow(t *testing.T) {
	mib := strings.Repeat("x", 1<<20)
	grown := "{% assign a = '" + strings.Repeat("x", 1024) + "' %}{% for i in (1..10) %}{% assign a = a | append: a %}{% endfor %}"
	for name, template := range map[string]string{
		"value":   grown + "{% assign a = a | append: 'y' %}",
		"capture": "{% capture c %}" + mib[:1<<20-40] + "{{ '" + strings.Repeat("y", 41) + "' }}{% endcapture %}",
		"output":  mib[:1<<20-40] + "{{ '" + strings.Repeat("y", 41) + "' }}",
	} {
		if _, err := renderText(t, template, "{}"); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheLimitCountsAllPartsOfAMessage(t *testing.T) {
	half := strings.Repeat("x", 1<<19)
	src := newsletter(half)
	src.HTML = half
	src.Subject = "x"
	var failed *RenderError
	if _, err := compile(t, src).Render(t.Context(), job("")); !errors.As(err, &failed) || !errors.Is(err, ErrLimit) || failed.Field != "html" {
		t.Errorf("text and html of half a MiB and a subject: %v", err)
	}
	loop := "{% for i in (1..60000) %}{% endfor %}"
	src = newsletter(loop)
	src.HTML = loop
	if _, err := compile(t, src).Render(t.Context(), job("")); !errors.Is(err, ErrLimit) {
		t.Errorf("60,000 steps in text and in html: %v", err)
	}
}

func TestHostileTemplatesCannotHangTheCompiler(t *testing.T) {
	for name, tc := range map[string]struct{ template, problem string }{
		"unclosed output, many times":  {strings.Repeat("{{x", 300_000), "{{ is not closed"},
		"unclosed tags and outputs":    {strings.Repeat("{% a {{x}}", 90_000), "{% is not closed"},
		"tags that end in %%}":         {strings.Repeat("{% if a %%}{{x}}", 60_000), "%%}"},
		"only opening braces":          {strings.Repeat("{", 1<<20), "{{ is not closed"},
		"blocks in blocks":             {strings.Repeat("{% if a %}", 10_000), "nested deeper"},
		"loops in loops":               {strings.Repeat("{% for i in a %}", 10_000), "nested deeper"},
		"captures in captures":         {strings.Repeat("{% capture i %}", 10_000), "nested deeper"},
		"brackets in brackets":         {"{{ " + strings.Repeat("(", 1<<19) + "1" + strings.Repeat(")", 1<<18) + " }}", "more than 4096"},
		"brackets, as many as allowed": {"{{ " + strings.Repeat("(", 2000) + "1" + strings.Repeat(")", 2000) + " }}", ""},
		"a long chain of filters":      {"{{ a" + strings.Repeat("|upcase", 580) + " }}", ""},
		"a long list of cycles":        {"{% for i in a %}{% cycle " + strings.Repeat("'',", 1300) + "'' %}{% endfor %}", ""},
		"very many tags":               {strings.Repeat("{{a}}", 200_000), "more than 20000 tags"},
		"as many tags as allowed":      {strings.Repeat("{{a}}", MaxTags), ""},
		"very many names":              {manyNames(2_000), "more than 1000 variables"},
		"a raw block without end":      {strings.Repeat("{% raw %}", 100_000), "raw is not closed"},
		"a comment without end":        {strings.Repeat("{% comment %}", 70_000), "comment is not closed"},
		"many raw blocks":              {strings.Repeat("{%raw%}{%endraw%}", 15_000), ""},
		"a large number":               {"{{ 99999999999999999999999 }}", "is not an expression"},
		"spaces":                       {"{%" + strings.Repeat(" ", 1<<19) + "%}", "no name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := compileFragment("text", tc.template, false, false)
			if tc.problem == "" && err != nil || tc.problem != "" && (err == nil || !strings.Contains(err.Error(), tc.problem)) {
				t.Errorf("%v, want %q", err, tc.problem)
			}
			if tc.problem == "" {
				if _, err := renderText(t, tc.template, `{"a":[1]}`); err != nil {
					t.Errorf("rendering: %v", err)
				}
			}
		})
	}
}

func manyNames(n int) string {
	var b strings.Builder
	b.WriteString("{{ '' ")
	for i := range n {
		fmt.Fprintf(&b, "}}{{a%d", i)
	}
	return b.String() + "}}"
}

func TestAPanickingFilterFailsItsMessageOnly(t *testing.T) {
	r := &run{ctx: t.Context()}
	bad := r.filter(filter{name: "bad", apply: func(*run, any, []any) (any, error) { panic("broken") }})
	if _, err := bad("x"); err == nil || !strings.Contains(err.Error(), "panic: broken") {
		t.Errorf("filter: %v", err)
	}
	for _, template := range []string{"{% if forloop == forloop %}{% endif %}", "{% for i in (1..2) %}{% if forloop == forloop %}{% endif %}{% endfor %}"} {
		_, err := renderText(t, template, "{}")
		var failed *RenderError
		if strings.Contains(template, "for i") && (!errors.As(err, &failed) || !strings.Contains(err.Error(), "panic")) {
			t.Errorf("%s: %v", template, err)
		}
		if err != nil && strings.Contains(err.Error(), "goroutine") {
			t.Errorf("a stack trace reaches the message's log: %v", err)
		}
	}
}

// However often a template names a large value, it is read once or little of it.
func TestLargeValuesAreNotReadAgainAndAgain(t *testing.T) {
	digits := strings.Repeat("0", 500_000)
	for name, tc := range map[string]struct{ output, variables string }{
		"a property":       {"{{ o.last }}", `{"o":{"long":"` + digits + `","last":1}}`},
		"a number":         {"{{ n }}", `{"n":1e` + digits + `0}`},
		"an empty text":    {"{{ o.e }}", `{"o":{"` + digits + `":1,"e":""}}`},
		"a missing thing":  {"{{ o.none }}", `{"o":["` + digits + `"]}`},
		"many small reads": {"{{ o.last }}", `{"o":{"long":"` + digits[:3000] + `","last":1}}`},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := compile(t, newsletter(strings.Repeat(tc.output, 5_000))).Render(t.Context(), job(tc.variables))
			if err != nil || len(r.Bytes) > 100_000 {
				t.Errorf("%d octets: %v", len(r.Bytes), err)
			}
		})
	}
}
