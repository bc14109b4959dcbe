package simulation

import (
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/veredus/veredus/integration/world/serve"
	"github.com/veredus/veredus/mxrules/rulefile"
)

// documented is the example of docs/simulate.md.
func documented(t testing.TB) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/simulate.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "```yaml\n")
	example, _, ended := strings.Cut(rest, "\n```")
	if !found || !ended {
		t.Fatal("docs/simulate.md has no example")
	}
	return example
}

// The documentation's example works as it stands, and shows every key of the file.
func TestDocumentedExample(t *testing.T) {
	example := documented(t)
	s, err := Parse("spring-sale.yaml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Run()
	if err != nil {
		t.Fatal(err)
	}
	makesSense(t, r)
	if r.Recipients != 30300 || len(r.Receivers) != 2 || r.Receivers[1].Copies != 20 {
		t.Errorf("%d recipients of %d receivers", r.Recipients, len(r.Receivers))
	}
	for _, key := range []string{
		"name", "about", "seed", "duration", "resolution", "steady_after", "together", "network", "round_trip", "node", "commit", "load", "resolve",
		"max_sessions", "pools", "sources", "address", "weight", "rules", "rules_file", "governor", "learned", "age", "qualification", "receivers", "mix", "share", "copies", "domains",
		"hand_overs", "at", "recipients", "over", "class", "priority", "pool", "validity", "to",
	} {
		if !strings.Contains(example, key+":") {
			t.Errorf("the example does not show %s", key)
		}
	}
}

// Mistakes are told with their line and what to do.
func TestMistakes(t *testing.T) {
	const receivers = "receivers:\n  - {name: a, domains: [{name: a.example}], hosts: [{name: mx.a.example}]}\n"
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "empty"},
		{"two documents", receivers + "hand_overs: [{at: 0s, recipients: 1}]\n---\n{}\n", "more than one document"},
		{"unknown key", receivers + "hand_overs: [{at: 0s, recipients: 1}]\nspeed: 1\n", "line 4: unknown key speed"},
		{"unknown key of a receiver", "receivers:\n  - name: a\n    hiden: {}\n", "line 3: unknown key hiden in Receiver"},
		{"type", receivers + "hand_overs: [{at: 0s, recipients: many}]\n", "line 3"},
		{"no receivers", "hand_overs: [{at: 0s, recipients: 1}]\n", "receivers: there are none"},
		{"no mail", receivers, "hand_overs: there are none"},
		{"nobody", receivers + "hand_overs:\n  - {at: 0s, recipients: 0}\n", "s.yaml:4: hand_overs[0].recipients: 0; use 1 to"},
		{"class", receivers + "hand_overs:\n  - {at: 0s, recipients: 1}\n  - {at: 0s, recipients: 1, class: fast}\n", `s.yaml:5: hand_overs[1].class: "fast"; use bulk or transactional`},
		{"pool", receivers + "hand_overs: [{at: 0s, recipients: 1, pool: x}]\n", `there is no pool "x"`},
		{"to", receivers + "hand_overs: [{at: 0s, recipients: 1, to: [b]}]\n", `there is no receiver "b"`},
		{"late", receivers + "duration: 1h\nhand_overs: [{at: 2h, recipients: 1}]\n", "within the duration"},
		{"mix", receivers + "mix: [{receiver: b, share: 1}]\nhand_overs: [{at: 0s, recipients: 1}]\n", `mix[0].receiver: there is no receiver "b"`},
		{"share", receivers + "mix: [{receiver: a, share: -1}]\nhand_overs: [{at: 0s, recipients: 1}]\n", "mix[0].share: -1"},
		{"copies", receivers + "mix: [{receiver: a, share: 1, copies: 1000000}]\nhand_overs: [{at: 0s, recipients: 1}]\n", "mix[0].copies: 1000000; use 1 to"},
		{"source", receivers + "pools: [{name: p, sources: [{name: s}]}]\nhand_overs: [{at: 0s, recipients: 1}]\n", "pools[0].sources[0]"},
		{
			"a source twice", receivers + "pools: [{name: p, sources: [{name: s, address: 192.0.2.1}, {name: s, address: 192.0.2.1}]}]\nhand_overs: [{at: 0s, recipients: 1}]\n",
			"is in pool p already",
		},
		{
			"an address twice", receivers + "pools: [{name: p, sources: [{name: s, address: 192.0.2.1}, {name: t, address: 192.0.2.1}]}]\nhand_overs: [{at: 0s, recipients: 1}]\n",
			`has the address 192.0.2.1 of source "s"`,
		},
		{"address", receivers + "pools: [{name: p, sources: [{name: s, address: 300.1.1.1}]}]\nhand_overs: [{at: 0s, recipients: 1}]\n", "300.1.1.1"},
		{"rules", receivers + "rules: |\n  rules:\n    - id: x\n      conections: 3\nhand_overs: [{at: 0s, recipients: 1}]\n", `unknown key "conections"`},
		{"rules twice", receivers + "rules: \"rules: []\"\nrules_file: mx.yaml\nhand_overs: [{at: 0s, recipients: 1}]\n", "give one of both"},
		{"no rule file", receivers + "rules_file: nowhere.yaml\nhand_overs: [{at: 0s, recipients: 1}]\n", "nowhere.yaml"},
		{"rate", "receivers:\n  - {name: a, hidden: {message_rate: fast}}\n", "fast"},
		{"validity", receivers + "hand_overs: [{at: 0s, recipients: 1, validity: 100h}]\n", "at most 84h"},
		{"resolution", receivers + "resolution: 1ms\nhand_overs: [{at: 0s, recipients: 1}]\n", "wider"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("s.yaml", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// No file, however broken, panics or makes the reader hang.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("scenarios/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add(documented(f))
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse("fuzz.yaml", []byte(text))
		if err != nil || len(s.Receivers) > 20 {
			return
		}
		for _, p := range s.Mix {
			if p.Copies > 10 || p.Domains > 100 {
				return
			}
		}
		if _, err := s.Config(); err != nil {
			t.Logf("refused late: %v", err)
		}
	})
}

// Reports are readable by machines: JSON without infinities, well-formed SVG.
func TestReportForms(t *testing.T) {
	r := simulated(t, "scenarios/tiny.yaml")
	var text, data, drawing strings.Builder
	if err := errors.Join(r.Table(&text), r.JSON(&data), r.SVG(&drawing)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"efficiency", "tiny", "outages", "limit overruns 0", "delivered per hour"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, text.String())
		}
	}
	var back Report
	if err := json.Unmarshal([]byte(data.String()), &back); err != nil || back.Delivered != r.Delivered {
		t.Errorf("the JSON reads as %+v, %v", back.Figures, err)
	}
	d := xml.NewDecoder(strings.NewReader(drawing.String()))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the drawing is no XML: %v", err)
		}
	}
}

// A limit that comes back after an outage is found, with the time it took to use it.
func TestRecoveries(t *testing.T) {
	s := Series{StepSeconds: 30}
	for i := range 60 { // half an hour: 10/s, nothing from 10 to 15 min, 10/s again and used 3 min later
		limit, sent := 10.0, 10.0
		switch minute := i / 2; {
		case minute >= 10 && minute < 15:
			limit, sent = 0, 0
		case minute >= 15 && minute < 17:
			sent = 2
		}
		s.Limit, s.Sent, s.Backlog = append(s.Limit, limit), append(s.Sent, sent), append(s.Backlog, 1000)
	}
	got := recoveries(&s, s.Sent, 0)
	if len(got) != 1 || got[0].At != 15*60 || got[0].After != 180 || got[0].From != 0 || got[0].To != 10 {
		t.Errorf("%+v", got)
	}
}

// Where a step of the series is longer than a minute, its mean tells when in it the limit
// was used; and what waits for full mailboxes is no mail to use a limit with.
func TestRecoveriesInLongSteps(t *testing.T) {
	s := Series{
		StepSeconds: 300,
		Limit:       []float64{10, 2, 2, 10, 10, 10, 10},
		Sent:        []float64{10, 2, 2, 2, 6, 10, 10}, // from the middle of the fifth step on
		Backlog:     []int64{9e3, 8e3, 7e3, 6e3, 5e3, 4e3, 3e3},
	}
	got := recoveries(&s, s.Sent, 0)
	if len(got) != 1 || got[0].After != 480 {
		t.Errorf("%+v, want one after 8 minutes", got)
	}
	for i := range s.Backlog {
		s.Backlog[i] = 30
	}
	if got := recoveries(&s, s.Sent, 0); len(got) != 0 {
		t.Errorf("without mail: %+v", got)
	}
}

// What is exported is what a node and the receivers read: a world, rules, and one
// line for each recipient.
func TestExport(t *testing.T) {
	s, err := Parse("spring-sale.yaml", []byte(documented(t)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := s.Export(dir); err != nil {
		t.Fatal(err)
	}
	open := func(name string) *os.File {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	w, err := serve.Load(open(ExportWorld))
	if err != nil || len(w.Receivers) != 21 {
		t.Errorf("%d receivers, %v", len(w.Receivers), err)
	}
	rules, err := io.ReadAll(open(ExportRules))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rulefile.Parse(ExportRules, rules); err != nil {
		t.Error(err)
	}
	lines, err := csv.NewReader(open(ExportRecipients)).ReadAll()
	if err != nil || len(lines) != 30301 {
		t.Errorf("%d lines, %v", len(lines), err)
	}
	seen := map[string]bool{}
	for _, l := range lines {
		if seen[l[0]] {
			t.Fatalf("%s is there twice", l[0])
		}
		seen[l[0]] = true
	}
}
