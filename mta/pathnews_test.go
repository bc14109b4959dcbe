package mta

import (
	"strings"
	"testing"
	"time"
)

// A cut that growth follows within the minute is still told as a cut, with its reply.
func TestGrowthDoesNotHideACut(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	n := pathNews{every: newsEvery}
	say := func(kind RelayEventKind, text string) []RelayEvent {
		at = at.Add(time.Second)
		return n.add(at, RelayEvent{Kind: kind, Source: "a", Destination: "one.example", Text: text})
	}
	if first := say(PathRaisedEvent, "rate up"); len(first) != 1 {
		t.Fatalf("the first change is told at once, got %v", first)
	}
	say(PathThrottledEvent, "421 slow down")
	say(PathRaisedEvent, "rate up again")
	at = at.Add(newsEvery)
	events := n.due(at)
	if len(events) != 1 || events[0].Kind != PathThrottledEvent || !strings.Contains(events[0].Text, "421 slow down") {
		t.Errorf("got %+v, want one cut with its reply", events)
	}
	say(PathRaisedEvent, "rate up")
	if events = n.due(at.Add(newsEvery)); len(events) != 1 || events[0].Kind != PathRaisedEvent {
		t.Errorf("got %+v, want the growth of the next minute", events)
	}
}
