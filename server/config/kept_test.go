package config

import (
	"strings"
	"testing"
	"time"
)

func TestWhatIsKept(t *testing.T) {
	for _, c := range []struct {
		text      string
		storage   Storage
		retention Retention
	}{
		{"", Storage{1 << 30, 512 << 20}, Retention{30 * day, 8 << 30, 60 * day}},
		{"storage: {min_free: 10GiB, min_free_sending: 1.5GB}", Storage{10 << 30, 1_500_000_000}, Retention{30 * day, 8 << 30, 60 * day}},
		{"storage: {min_free: 100MiB}", Storage{100 << 20, 50 << 20}, Retention{30 * day, 8 << 30, 60 * day}},
		{"storage: {min_free: 0}", Storage{}, Retention{30 * day, 8 << 30, 60 * day}},
		{"retention: {events_age: 90m, events_size: 2097152, messages: 10d}", Storage{1 << 30, 512 << 20}, Retention{90 * time.Minute, 2 << 20, 10 * day}},
		{"retention: {events_age: 0, events_size: 0, messages: 0}", Storage{1 << 30, 512 << 20}, Retention{}},
	} {
		got, err := Parse("v.yaml", []byte(c.text))
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got.Storage != c.storage || got.Retention != c.retention {
			t.Errorf("%s: got %+v %+v", c.text, got.Storage, got.Retention)
		}
	}
}

func TestWhatCannotBeKept(t *testing.T) {
	for text, want := range map[string]string{
		"storage:\n  min_free: lots":                        "v.yaml:2: storage.min_free: \"lots\" is no size",
		"storage:\n  min_free: -1GiB":                       "is no size",
		"storage:\n  min_free: .nan":                        "is no size",
		"storage:\n  min_free: 1e300TiB":                    "is no size",
		"storage: {min_free: 1GiB, min_free_sending: 2GiB}": "taking in must stop first",
		"storage: {min_fre: 1GiB}":                          "unknown key",
		"retention:\n  events_age: 30":                      "v.yaml:2: retention.events_age: \"30\" is no time span",
		"retention: {events_age: -5d}":                      "is no time span",
		"retention: {events_age: xd}":                       "is no time span",
		"retention: {events_age: 1e99d}":                    "is no time span",
		"retention: {messages: 2s}":                         "is no time span",
		"retention: {events_size: 10}":                      "use 1MiB or more",
		"retention: {events_age: [1d]}":                     "must be a time span",
		"retention: {forever: true}":                        "unknown key",
	} {
		if _, err := Parse("v.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func TestAShortLifeOfMessagesIsToldOff(t *testing.T) {
	c, err := Parse("v.yaml", []byte("retention: {messages: 1d}"))
	if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "keep them 8d or more") {
		t.Errorf("got %v, %v", c, err)
	}
}
