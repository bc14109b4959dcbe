package mxrules

import (
	"strings"
	"testing"
	"time"
)

func TestParseRate(t *testing.T) {
	tests := []struct {
		text string
		want Rate
	}{
		{"100/s", Rate{Count: 100, Per: time.Second}},
		{"6000/min", Rate{Count: 6000, Per: time.Minute}},
		{"50000/h", Rate{Count: 50_000, Per: time.Hour}},
		{"1/d", Rate{Count: 1, Per: 24 * time.Hour}},
		{"5/10s", Rate{Count: 5, Per: 10 * time.Second}},
		{"100/s burst 20", Rate{Count: 100, Per: time.Second, Burst: 20}},
		{"100/s burst 1", Rate{Count: 100, Per: time.Second}},
		{"unlimited", Rate{}},
	}
	for _, tt := range tests {
		if got, err := ParseRate(tt.text); err != nil || got != tt.want {
			t.Errorf("ParseRate(%q) = %+v, %v; want %+v", tt.text, got, err, tt.want)
		}
	}
}

func TestParseRateRefuses(t *testing.T) {
	for _, text := range []string{
		"", "100", "/s", "100/", "0/s", "-1/s", "1.5/s", "100/fortnight", "100/s burst", "100/s burst 0",
		"100/s bursts 5", "100/s burst 5 6", "1/48h", "1/-1s", "2000000/s", "1/d burst 2", "9999999999999999999/s", "1/1ns",
	} {
		if r, err := ParseRate(text); err == nil {
			t.Errorf("ParseRate(%q) = %v, want an error", text, r)
		} else if !strings.Contains(err.Error(), "rate") {
			t.Errorf("ParseRate(%q): %v does not say what is wrong", text, err)
		}
	}
}

func FuzzParseRate(f *testing.F) {
	for _, s := range []string{"100/s", "6000/min burst 50", "1/24h", "3/1h30m", "unlimited", "1/1e9s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRate(s)
		if err != nil {
			return
		}
		again, err := ParseRate(r.String())
		if err != nil || again != r {
			t.Fatalf("%q is %+v, printed %q, read as %+v, %v", s, r, r.String(), again, err)
		}
		g := NewGovernor(Limits{MessageRate: r})
		if hold, _ := g.AllowMessage(start, false); hold != HoldNone {
			t.Fatalf("%q holds the first message", s)
		}
	})
}

func TestQuotasAsRates(t *testing.T) {
	tests := []struct {
		limits Limits
		want   string
	}{
		{Limits{}, "unlimited and unlimited"},
		{Limits{MessagesPerHour: 20, MessagesPerDay: 1}, "20/h and 1/d"},
		{Limits{MessagesPerHour: 7200, MessagesPerDay: 1_000_000}, "7200/h burst 10 and 1000000/d burst 57"},
	}
	for _, tt := range tests {
		if got := tt.limits.HourlyRate().String() + " and " + tt.limits.DailyRate().String(); got != tt.want {
			t.Errorf("%+v is metered as %s, want %s", tt.limits, got, tt.want)
		}
	}
}

func TestNamesOfLimits(t *testing.T) {
	for want := range TLSVerify + 1 {
		if got, err := ParseTLS(want.String()); err != nil || got != want {
			t.Errorf("ParseTLS(%q) = %v, %v", want, got, err)
		}
	}
	for want := range Off + 1 {
		if got, err := ParseSwitch(want.String()); err != nil || got != want {
			t.Errorf("ParseSwitch(%q) = %v, %v", want, got, err)
		}
	}
	if _, err := ParseTLS("yes"); err == nil {
		t.Error(`ParseTLS("yes") succeeded`)
	}
	if _, err := ParseSwitch("on"); err == nil {
		t.Error(`ParseSwitch("on") succeeded`)
	}
	seen := make(map[string]bool)
	for f := range Field(NumFields) {
		if f.String() == "" || seen[f.String()] {
			t.Errorf("field %d has no name of its own", f)
		}
		seen[f.String()] = true
	}
}
