package server

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/veredus/veredus/server/config"
)

func TestRedactHidesLocalParts(t *testing.T) {
	for text, want := range map[string]string{
		"no address":                         "no address",
		"anna@example.com":                   "***@example.com",
		"<anna.smith+x@example.com> refused": "<***@example.com> refused",
		`550 "john doe"@example.com unknown`: "550 ***@example.com unknown",
		`"a \" b"@example.com`:               "***@example.com",
		"björn@exämple.com":                  "***@exämple.com",
		"a@b.example,c@d.example":            "***@b.example,***@d.example",
		"an @ alone, @handle and trailing@":  "an @ alone, @handle and trailing@",
		"o'neil@[192.0.2.1]":                 "***@[192.0.2.1]",
		"mailto:anna@example.com?to=x@y":     "mailto:***@***@y", // rather too much than too little
	} {
		if got := Redact(text); got != want {
			t.Errorf("Redact(%q) = %q, want %q", text, got, want)
		}
	}
}

type parcel struct{ to string }

func (n parcel) LogValue() slog.Value { return slog.GroupValue(slog.String("to", n.to)) }

func TestTheLogHidesAddressesWhereverTheyStand(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out strings.Builder
		log := NewLog(config.Log{Format: format}, &out).With("owner", "anna@example.com").WithGroup("g")
		log.Info("mail to anna@example.com", "error", errors.New("anna@example.com: unknown"), "n", 3,
			slog.Group("inner", "to", "anna@example.com"), "value", parcel{"anna@example.com"}, "list", []string{"anna@example.com"},
			"message_id", "token@bounce.example")
		if got := out.String(); strings.Contains(got, "anna") || strings.Count(got, "***@example.com") != 6 || !strings.Contains(got, "token@bounce.example") {
			t.Errorf("%s: %s", format, got)
		}
	}
}

func TestThePlainLogHidesNothing(t *testing.T) {
	var out strings.Builder
	NewLog(config.Log{Plain: true}, &out).Info("mail to anna@example.com")
	if !strings.Contains(out.String(), "anna@example.com") {
		t.Error(out.String())
	}
}

func TestTheLogHasItsLevel(t *testing.T) {
	var out strings.Builder
	log := NewLog(config.Log{Level: slog.LevelWarn}, &out)
	log.Info("quiet")
	log.Warn("loud")
	if got := out.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "loud") {
		t.Error(got)
	}
}

func FuzzRedact(f *testing.F) {
	for _, seed := range []string{"a@b", `"@"@x`, "@@", "ö@ö", `\"@a`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := Redact(s)
		if strings.Count(once, "@") > strings.Count(s, "@") {
			t.Errorf("Redact(%q) = %q has more addresses", s, once)
		}
		if twice := Redact(once); !strings.Contains(s, `"`) && twice != once {
			t.Errorf("Redact(%q) = %q, again %q", s, once, twice)
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Redact("message to anna.smith@example.com was refused by mx.example.com: 550 5.1.1 <anna.smith@example.com> unknown")
	}
}
