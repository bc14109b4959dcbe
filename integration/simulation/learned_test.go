package simulation

import (
	"strings"
	"testing"
)

// bucket is a receiver that takes 5 messages a second, which nobody was told.
const bucket = `
duration: 4h
rules: |
  builtin: false
  rules:
    - {id: ours, connections: 10, message_rate: 100/s, tls: none}
receivers:
  - name: bucket
    domains: [{name: bucket.example}]
    hosts: [{name: mx.bucket.example, preference: 10}]
    hidden: {message_rate: 5/s burst 5}
hand_overs: [{at: 0s, recipients: 6000}]
`

func played(t *testing.T, text string) *Report {
	t.Helper()
	s, err := Parse("bucket.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Run()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A governor that begins with what was learned is deferred less than one that has to
// find it out, and a static one does not learn at all.
func TestLearnedState(t *testing.T) {
	fresh := played(t, bucket+"governor: on\n")
	static := played(t, bucket+"governor: static\n")
	knowing := played(t, bucket+"governor: on\nlearned: [{receiver: bucket, message_rate: 5/s, age: 1h}]\n")
	old := played(t, bucket+"governor: on\nlearned: [{receiver: bucket, message_rate: 5/s, age: 400h}]\n")
	if knowing.PacingDeferrals >= fresh.PacingDeferrals || fresh.PacingDeferrals >= static.PacingDeferrals {
		t.Errorf("pacing deferrals: knowing %d, fresh %d, static %d", knowing.PacingDeferrals, fresh.PacingDeferrals, static.PacingDeferrals)
	}
	if old.PacingDeferrals <= knowing.PacingDeferrals {
		t.Errorf("what is too old is worth nothing: %d pacing deferrals, knowing %d", old.PacingDeferrals, knowing.PacingDeferrals)
	}
	other := played(t, bucket+"governor: on\nlearned: [{receiver: bucket, source: s1, message_rate: 5/s, age: 1h}]\n")
	if other.PacingDeferrals != knowing.PacingDeferrals {
		t.Errorf("the only source is all sources: %d and %d", other.PacingDeferrals, knowing.PacingDeferrals)
	}
}

// Mistakes in what was learned are told with their line.
func TestLearnedMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"governor: eager":                                               `"eager" is not a governor; use static, observe or on`,
		"learned: [{receiver: nobody}]":                                 `there is no receiver "nobody"`,
		"learned: [{receiver: bucket, source: s9}]":                     `there is no source "s9"`,
		"learned: [{receiver: bucket, age: -1s}]":                       "use a duration from 0",
		"learned: [{receiver: bucket, connections: -2}]":                "counts from -2",
		"learned: [{receiver: bucket, message_rate: many}]":             `message_rate: "many" is not a rate`,
		"learned: [{receiver: bucket, connection_rate: 1/fortnight}]":   "connection_rate:",
		"learned: [{receiver: bucket, message_rate: 1/s, speed: fast}]": "unknown key speed",
	} {
		_, err := Parse("bucket.yaml", []byte(bucket+text+"\n"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
