package rulefile

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

const learning = `builtin: false
rules:
  - id: learns
    match: {mx: mx.example}
    connections: {start: 2, low: 1, high: 20}
    messages_per_connection: {start: 10, high: unlimited}
    connection_rate: {low: 1/min, high: 60/min}
    message_rate: {start: 5/s, low: 1/min, high: 100/s burst 20}
    governor: on
    reactions:
      - {tag: reputation, trigger: 3 in 60s, do: rest, for: 2h}
      - {text: "Too Many", do: fewer_connections}
      - {tag: rate_limit, text: tenant, trigger: first, do: nothing}
  - id: everyone
    governor: static
`

func TestBoundsAndReactions(t *testing.T) {
	set := mustParse(t, learning)
	l := set.Match(mxrules.Query{Host: "mx.example"}).Limits
	want := mxrules.Bounds{
		ConnectionsStart: 2, ConnectionsLow: 1, MessagesPerConnectionStart: 10,
		ConnectionRateLow: mxrules.Rate{Count: 1, Per: time.Minute},
		MessageRateStart:  mxrules.Rate{Count: 5, Per: time.Second}, MessageRateLow: mxrules.Rate{Count: 1, Per: time.Minute},
	}
	if l.Bounds != want || l.Connections != 20 || l.MessagesPerConnection != 0 || l.MessageRate.Burst != 20 {
		t.Errorf("bounds %+v of %+v, want %+v", l.Bounds, l, want)
	}
	reactions := []mxrules.Reaction{
		{Tag: "reputation", Count: 3, Within: time.Minute, Do: mxrules.DoRest, For: 2 * time.Hour},
		{Text: "Too Many", Do: mxrules.DoFewerConnections},
		{Tag: "rate_limit", Text: "tenant", Do: mxrules.DoNothing},
	}
	if wanted, _ := mxrules.NewReactions(reactions); l.Governor != mxrules.GovernorOn || !l.Reactions.Equal(wanted) {
		t.Errorf("governor %v with %v, want on with %v", l.Governor, l.Reactions, wanted)
	}
	if got := set.Match(mxrules.Query{Host: "other.example"}).Limits; got.Governor != mxrules.GovernorStatic || got.Reactions != nil {
		t.Errorf("everyone else: governor %v with %v, want static", got.Governor, got.Reactions)
	}
}

func TestBoundsAndReactionsAreFreeOfLossInPrint(t *testing.T) {
	set := mustParse(t, learning)
	var out bytes.Buffer
	if err := Print(set, &out); err != nil {
		t.Fatal(err)
	}
	again := mustParse(t, out.String())
	if !set.Equal(again) {
		t.Errorf("not the same after printing:\n%s", out.String())
	}
}

func TestWrongBoundsAndReactions(t *testing.T) {
	tests := []struct{ setting, want string }{
		{"connections: {start: 5, high: 2}", "rising order"},
		{"connections: {start: 5}", "high is missing"},
		{"connections: {start: unlimited, high: 9}", "cannot be unlimited"},
		{"connections: {most: 5, high: 9}", `unknown key "most"`},
		{"message_rate: {low: 9/s, start: 5/s, high: 20/s}", "rising order"},
		{"message_rate: {low: fast, high: 20/s}", "is not a rate"},
		{"messages_per_hour: {start: 5, high: 9}", "must be a text"},
		{"governor: automatic", "use static, observe or on"},
		{"reactions: often", "must be a list"},
		{"reactions: [{do: rest}]", "names no reply"},
		{"reactions: [{tag: x}]", "without do"},
		{"reactions: [{tag: x, do: panic}]", "is not what a reaction can do"},
		{"reactions: [{tag: x, do: slow, for: 1h}]", "only a rest lasts"},
		{"reactions: [{tag: x, do: rest, trigger: often}]", "is not a trigger"},
		{"reactions: [{tag: x, do: rest, trigger: 5000 in 60s}]", "use 1 to 1000"},
		{"reactions: [{tag: x, do: rest, trigger: 5 in 1ms}]", "use 1s to"},
		{`reactions: [{text: "a\"b", do: rest}]`, "quote"},
	}
	for _, tt := range tests {
		_, err := Parse("mx.yaml", []byte("rules:\n  - id: a\n    match: {mx: a.example}\n    "+tt.setting+"\n"))
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "mx.yaml:") {
			t.Errorf("%s: error %v, want a line and %q", tt.setting, err, tt.want)
		}
	}
}
