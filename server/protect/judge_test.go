package protect_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/protect"
)

// defaults are the thresholds of a configuration without the section.
var defaults = protect.FromConfig(config.Default().Protection)

type figures = campaign.Figures

// found are findings in short: cause, destination, and whether it pauses.
func found(list []protect.Finding) []string {
	var out []string
	for _, f := range list {
		what := "warn"
		if f.Pause {
			what = "pause"
		}
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", what, f.Cause, f.Destination)))
	}
	return out
}

func TestThresholdsAreReachedWhereTheyStand(t *testing.T) {
	for _, c := range []struct {
		name string
		at   figures
		want string
	}{
		{"nothing", figures{}, ""},
		{"10 % of 500 is not more than 10 %", figures{Attempts: 500, Hard: 50}, "warn unknown_users"},
		{"more than 10 % of 500", figures{Attempts: 500, Hard: 51}, "pause unknown_users"},
		{"all of 499", figures{Attempts: 499, Hard: 499}, "warn unknown_users"},
		{"all of 249", figures{Attempts: 249, Hard: 249}, ""},
		{"5 % of 250 is not more than half", figures{Attempts: 260, Hard: 13}, ""},
		{"more than 5 % of 250", figures{Attempts: 250, Hard: 13}, "warn unknown_users"},
		{"many attempts, few unknown", figures{Attempts: 1_000_000, Hard: 50_000}, ""},

		{"nine complaints of ten", figures{Sent: 10, Complaints: 9}, "warn complaints"},
		{"ten of 3333", figures{Sent: 3333, Complaints: 10}, "pause complaints"},
		{"ten of 3334 are just below 0.3 %", figures{Sent: 3334, Complaints: 10}, "warn complaints"},
		{"four of ten", figures{Sent: 10, Complaints: 4}, ""},
		{"five of 3333", figures{Sent: 3333, Complaints: 5}, "warn complaints"},
		{"five of 3334", figures{Sent: 3334, Complaints: 5}, ""},
		{"ten of nothing that is still sent", figures{Complaints: 10}, "pause complaints"},

		{"4 of 20 refused", figures{Attempts: 20, AuthRejections: 4}, "pause authentication"},
		{"3 of 20 refused", figures{Attempts: 20, AuthRejections: 3}, "warn authentication"},
		{"19 of 19 refused", figures{Attempts: 19, AuthRejections: 19}, "warn authentication"},
		{"9 of 9 refused", figures{Attempts: 9, AuthRejections: 9}, ""},
		{"1 of 11 refused", figures{Attempts: 11, AuthRejections: 1}, ""},
		{"1 of 10 refused", figures{Attempts: 10, AuthRejections: 1}, "warn authentication"},

		{"10 of 50 contents refused", figures{Attempts: 50, ContentRejections: 10}, "pause content"},
		{"9 of 50 contents refused", figures{Attempts: 50, ContentRejections: 9}, "warn content"},
		{"all of 49 contents refused", figures{Attempts: 49, ContentRejections: 49}, "warn content"},
		{"all of 24 contents refused", figures{Attempts: 24, ContentRejections: 24}, ""},
	} {
		got := found(protect.Judge(protect.Counts{By: map[string]figures{"google": c.at}}, defaults))
		want := []string{}
		if c.want != "" {
			want = append(want, c.want+" google")
		}
		if !slices.Equal(got, want) && len(got)+len(want) > 0 {
			t.Errorf("%s: %q, want %q", c.name, got, want)
		}
	}
}

// A delivery is held for its content only when that is to blame: where other deliveries are
// refused for theirs as well, it is the sender.
func TestContentIsToBlameWhereOthersAreServed(t *testing.T) {
	refused := figures{Attempts: 100, ContentRejections: 100}
	for name, c := range map[string]struct {
		others figures
		want   string
	}{
		"nobody else":           {figures{}, "pause content google"},
		"others are served":     {figures{Attempts: 1000, Sent: 1000}, "pause content google"},
		"others are refused":    {figures{Attempts: 1000, ContentRejections: 100}, "warn content google"},
		"too few others":        {figures{Attempts: 24, ContentRejections: 24}, "pause content google"},
		"others just as little": {figures{Attempts: 1000, ContentRejections: 99}, "pause content google"},
	} {
		list := protect.Judge(protect.Counts{
			By: map[string]figures{"google": refused}, Others: map[string]figures{"google": c.others},
			Refused: map[string]string{"google": "554: spam content"},
		}, defaults)
		if got := found(list); !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s: %q, want %s", name, got, c.want)
		}
		if text := list[0].Text; !strings.Contains(text, "100 of 100 attempts at google") || !strings.Contains(text, "554: spam content") ||
			strings.Contains(text, "it is the sender") == list[0].Pause {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestComplaintsAreJudgedTogetherWhereDestinationsReportThem(t *testing.T) {
	counts := protect.Counts{
		Whole: true, Reports: map[string]bool{"yahoo": true, "comcast": true},
		By: map[string]figures{
			"google":    {Sent: 1_000_000},           // reports nothing
			"yahoo":     {Sent: 1000},                // reported other deliveries
			"comcast":   {Sent: 1000, Complaints: 6}, // below ten alone
			"microsoft": {Sent: 1000, Complaints: 6},
		},
	}
	want := []string{"pause complaints", "warn complaints comcast", "warn complaints microsoft"}
	if got := found(protect.Judge(counts, defaults)); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	counts.By["yahoo"] = figures{Sent: 2001} // 12 of 4001 are just below 0.3 %
	want = []string{"warn complaints comcast", "warn complaints microsoft", "warn complaints"}
	if got := found(protect.Judge(counts, defaults)); !slices.Equal(got, want) {
		t.Errorf("more mail without complaints: %q, want %q", got, want)
	}
	counts.Whole = false
	if got := found(protect.Judge(counts, defaults)); !slices.Equal(got, want[:2]) {
		t.Errorf("a part of the destinations: %q", got)
	}
}

func TestTheSameRejectionFromUnrelatedDomains(t *testing.T) {
	alike := func(n int) map[string][]string {
		var givers []string
		for i := range n {
			givers = append(givers, fmt.Sprintf("mx%d.example d%d.example", i, i))
		}
		return map[string][]string{"550 5.7.1: spf check failed": givers}
	}
	for n, want := range map[int]string{1: "", 2: "", 3: "warn same_rejection", 4: "warn same_rejection", 5: "pause same_rejection", 9: "pause same_rejection"} {
		got := strings.Join(found(protect.Judge(protect.Counts{Alike: alike(n)}, defaults)), ", ")
		if got != want {
			t.Errorf("%d domains: %q, want %q", n, got, want)
		}
	}
}

func TestTextsSayWhyAndWhatToFix(t *testing.T) {
	counts := protect.Counts{
		From: "brand.example", Whole: true, Said: map[string]string{"outlook": "550 5.7.515"},
		Alike: map[string][]string{"550 5.7.1: spf fail": {"a.example a.example", "b.example b.example", "c.example c.example", "d.example d.example", "e.example e.example", "f.example f.example"}},
		By: map[string]figures{
			"outlook":                 {Attempts: 120, AuthRejections: 31},
			campaign.OtherDestination: {Attempts: 520, Hard: 62},
			"yahoo":                   {Sent: 3000, Complaints: 12},
		},
	}
	var texts []string
	for _, f := range protect.Judge(counts, defaults) {
		texts = append(texts, f.String())
	}
	all := strings.Join(texts, "\n")
	for _, part := range []string{
		"paused: 31 of 120 attempts at outlook (25.8 %) were refused with 550 5.7.515: the From domain brand.example fails SPF, DKIM or DMARC",
		"`veredus doctor` shows the exact records", "_dmarc.brand.example",
		`paused: 6 unrelated destinations (a.example, b.example, c.example, d.example, e.example) refuse in the same words, "550 5.7.1: spf fail"`,
		"paused: 62 of 520 attempts at all other destinations together (11.9 %) found no such user",
		"paused: 12 of 3000 messages delivered at yahoo (0.40 %) were reported as spam", "resume",
	} {
		if !strings.Contains(all, part) {
			t.Errorf("no %q in\n%s", part, all)
		}
	}
	if !strings.HasPrefix(protect.Finding{Text: "x"}.Warning().Text, "warning: ") {
		t.Error("a warning does not begin with the word")
	}
}

func TestProtectionCanBeOff(t *testing.T) {
	off := defaults
	off.Enabled = false
	if got := protect.Judge(protect.Counts{By: map[string]figures{"google": {Attempts: 1000, Hard: 1000}}}, off); got != nil {
		t.Errorf("%v", got)
	}
}

// What pauses has passed its half: who is warned at half of everything always hears
// before, and more harm never makes a finding milder.
func TestJudgeIsMonotonous(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := func(name string) int64 { return rapid.Int64Range(0, 2000).Draw(t, name) }
		f := figures{Attempts: n("attempts"), Sent: n("sent"), Hard: n("hard"), AuthRejections: n("auth"), Complaints: n("complaints")}
		worse := f
		worse.Hard += n("more hard")
		worse.AuthRejections += n("more auth")
		worse.Complaints += n("more complaints")
		before := protect.Judge(protect.Counts{By: map[string]figures{"d": f}}, defaults)
		after := protect.Judge(protect.Counts{By: map[string]figures{"d": worse}}, defaults)
		for _, was := range before {
			if !slices.ContainsFunc(after, func(is protect.Finding) bool { return is.Cause == was.Cause && (is.Pause || !was.Pause) }) {
				t.Fatalf("%+v: %v; %+v: %v", f, found(before), worse, found(after))
			}
		}
		for i := 1; i < len(after); i++ {
			if after[i].Pause && !after[i-1].Pause {
				t.Fatalf("a pause behind a warning: %v", found(after))
			}
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	counts := protect.Counts{By: map[string]figures{}, Whole: true}
	for i := range 20 {
		counts.By[fmt.Sprintf("destination%d.example", i)] = figures{Attempts: 100_000, Sent: 97_000, Hard: 900, Complaints: 20}
	}
	b.ReportAllocs()
	for b.Loop() {
		protect.Judge(counts, defaults)
	}
}
