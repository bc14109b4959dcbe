package world

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestBuiltInWorldsAreValid(t *testing.T) {
	for _, w := range []World{Default(), Open(), Default().Compress(1200)} {
		if err := w.Validate(); err != nil {
			t.Errorf("%s: %v", w.Name, err)
		}
	}
	sum := 0
	for _, r := range Default().Receivers {
		for _, d := range r.Domains {
			sum += d.Share
			if d.Share > 0 && !strings.HasSuffix(d.Name, ".example") {
				t.Errorf("%s would get generated mail; only names below .example may", d.Name)
			}
		}
	}
	if sum != 1000 {
		t.Errorf("the default world's shares add up to %d, want 1000", sum)
	}
}

func TestWorldSurvivesJSON(t *testing.T) {
	want := Default()
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got World
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("round trip changed the world:\n%+v\n%+v", got, want)
	}
}

func TestValidateNamesTheMistake(t *testing.T) {
	for _, tc := range []struct {
		name   string
		break_ func(*World)
		want   string
	}{
		{"no receivers", func(w *World) { w.Receivers = nil }, "receivers: the list is empty"},
		{"same name", func(w *World) { w.Receivers[1].Name = "google" }, `receivers[1].name: "google" is used twice`},
		{"same domain", func(w *World) { w.Receivers[1].Domains[0].Name = "Gmail.example" }, `already belongs to receiver "google"`},
		{"catch-all", func(w *World) { w.CatchAll = "nobody" }, `catch_all: there is no receiver "nobody"`},
		{"dialect", func(w *World) { w.Receivers[0].Dialect = "klingon" }, `dialect: there is no "klingon"`},
		{"reply", func(w *World) { w.Receivers[0].Replies = map[Situation]string{SayFull: "nope"} }, `replies.full: reply "nope": begin with a three-digit`},
		{"situation", func(w *World) { w.Receivers[0].Replies = map[Situation]string{"lunch": "250 Ok"} }, `there is no situation "lunch"`},
		{"rate", func(w *World) { w.Receivers[0].Stated.MessageRate = Rate{Count: 3} }, "stated.message_rate: 3 per 0s; give both"},
		{"shares", func(w *World) { w.Receivers[0].Mailboxes = map[Fate]int{FateFull: 700, FateSpam: 301} }, "add up to 1001"},
		{"fate", func(w *World) { w.Receivers[0].Mailboxes = map[Fate]int{"glory": 1} }, `there is no fate "glory"; use one of ok, unknown,`},
		{"mode", func(w *World) { w.Receivers[0].TLS = "maybe" }, `tls: "maybe"; use offered`},
		{"hosts", func(w *World) { w.Receivers[0].Hosts = nil }, "hosts: the list is empty"},
		{"quirk", func(w *World) { w.Receivers[0].Quirks = []Quirk{{Kind: "sulk"}} }, `kind "sulk"`},
		{"outage", func(w *World) { w.Receivers[0].Outages = []Outage{{For: minute, Every: second}} }, "outages[0]"},
		{"penalty", func(w *World) { w.Receivers[0].Hidden.Penalty = Penalty{After: 1} }, "hidden.penalty.for: missing"},
	} {
		w := Default()
		tc.break_(&w)
		if err := w.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one with %q", tc.name, err, tc.want)
		}
	}
}

func TestLookup(t *testing.T) {
	w := Default()
	for domain, want := range map[string]string{
		"gmail.example": "google", "GMAIL.com.": "google", "gone.example": "nxdomain", "nomail.example": "null_mx",
		"any-company.test": "elsewhere", "nobody.invalid": "", "sub.gone.example": "",
	} {
		r, _ := w.Lookup(domain)
		got := ""
		if r != nil {
			got = r.Name
		}
		if got != want {
			t.Errorf("Lookup(%q) = %q, want %q", domain, got, want)
		}
	}
}

func TestCompressShortensOnlyWaiting(t *testing.T) {
	w := Default()
	c := w.Compress(100)
	if got := c.Receiver("greylister").Greylist.Delay.Std(); got != 3*time.Second {
		t.Errorf("greylist delay %v, want 3s", got)
	}
	if got := c.Receiver("flapping").Outages[0].Every.Std(); got != 36*time.Second {
		t.Errorf("outage every %v, want 36s", got)
	}
	if got := c.Magic.GreylistDelay.Std(); got != 3*time.Second {
		t.Errorf("magic greylist delay %v, want 3s", got)
	}
	if !reflect.DeepEqual(c.Receiver("google").Stated, w.Receiver("google").Stated) ||
		c.Receiver("tarpit").Latency != w.Receiver("tarpit").Latency {
		t.Error("limits or latency changed")
	}
	if w.Receiver("greylister").Greylist.Delay.Std() != 5*time.Minute {
		t.Error("the original changed")
	}
}

func TestRecipientsAreDeterministicUniqueAndSpread(t *testing.T) {
	const n = 20_000
	w := Default()
	first := slices.Collect(Recipients(w, n, 7))
	if !slices.Equal(first, slices.Collect(Recipients(w, n, 7))) {
		t.Fatal("the same seed gave other recipients")
	}
	seen, domains := map[string]bool{}, map[string]int{}
	for _, r := range first {
		local, domain, _ := strings.Cut(r.Address, "@")
		if seen[r.Address] || MagicFate(local) != FateNone {
			t.Fatalf("%s: repeated or magic", r.Address)
		}
		if strings.IndexFunc(r.Address, func(c rune) bool { return c <= ' ' || c > '~' || c >= 'A' && c <= 'Z' || c == '\'' }) >= 0 {
			t.Fatalf("%q is not a plain address", r.Address)
		}
		if r.FirstName == "" || r.LastName == "" || r.City == "" {
			t.Fatalf("%+v lacks variables", r)
		}
		seen[r.Address] = true
		domains[domain]++
	}
	for _, r := range w.Receivers {
		for _, d := range r.Domains {
			want := float64(n) * float64(d.Share) / 1000
			if got := float64(domains[d.Name]); got < want*0.7-10 || got > want*1.3+10 {
				t.Errorf("%s: %v recipients, want about %v", d.Name, got, want)
			}
		}
	}
	if other := slices.Collect(Recipients(w, 100, 8)); slices.Equal(other, first[:100]) {
		t.Error("another seed gave the same recipients")
	}
	if len(domains) < 15 {
		t.Errorf("only %d domains: %v", len(domains), slices.Sorted(maps.Keys(domains)))
	}
}

func TestMailboxSharesHold(t *testing.T) {
	w := Default()
	r := w.Receiver("stale")
	count := map[Fate]int{}
	for rec := range Recipients(w, 50_000, 3) {
		local, _, _ := strings.Cut(rec.Address, "@")
		count[r.fateOf(1, local)]++
	}
	for fate, share := range r.Mailboxes {
		if got := count[fate] * 1000 / 50_000; got < share-15 || got > share+15 {
			t.Errorf("%s: %d per mille, want about %d", fate, got, share)
		}
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add("421 4.7.28 Our system has detected\nan unusual rate")
	f.Add("250")
	f.Add("550 5.1.1")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReply(s)
		if err == nil && (r.Code < 200 || r.Code > 599 || strings.Contains(r.Text, "\r")) {
			t.Errorf("ParseReply(%q) = %+v", s, r)
		}
	})
}
