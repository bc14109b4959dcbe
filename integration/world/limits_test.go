package world

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestAuditConnections(t *testing.T) {
	a := NewAudit("x", Limits{Connections: 2})
	for i, step := range []struct {
		open bool
		want int
	}{{true, 0}, {true, 0}, {true, 1}, {false, 0}, {true, 1}, {false, 0}, {false, 0}, {true, 0}} {
		if !step.open {
			a.Close(alice)
			continue
		}
		if full := a.Full(alice); full != (step.want > 0) {
			t.Errorf("step %d: Full = %v", i, full)
		}
		found := a.Open(begin, alice)
		if len(found) != step.want {
			t.Errorf("step %d: %v, want %d violations", i, found, step.want)
		}
	}
	if found := a.Open(begin, bob); len(found) > 0 {
		t.Errorf("another source: %v", found)
	}
}

func TestAuditSharedLimitCountsAllSources(t *testing.T) {
	a := NewAudit("x", Limits{Connections: 1, Shared: true})
	a.Open(begin, alice)
	found := a.Open(begin, bob)
	if len(found) != 1 || found[0].Source != "all" || found[0].Limit != LimitConnections || found[0].Seen != 2 || found[0].Allowed != 1 {
		t.Errorf("%+v", found)
	}
}

func TestAuditMessagesPerConnectionHasNoSlack(t *testing.T) {
	a := NewAudit("x", Limits{MessagesPerConnection: 3})
	for n := 1; n <= 4; n++ {
		if found := a.Message(begin, alice, n); len(found) > 0 != (n > 3) {
			t.Errorf("message %d: %v", n, found)
		}
	}
}

func TestAuditQuotas(t *testing.T) {
	a := NewAudit("x", Limits{MessagesPerHour: 3600, MessagesPerDay: 86400 * 2})
	violations := 0
	for i := range 7200 {
		violations += len(a.Message(begin.Add(time.Duration(i)*time.Second), alice, i))
	}
	if violations != 0 {
		t.Errorf("exactly the quota: %d violations", violations)
	}
	at := begin.Add(2 * time.Hour)
	for range 8 {
		for _, v := range a.Message(at, alice, 1) {
			if v.Limit == LimitMessagesPerHour {
				violations++
			}
		}
	}
	if violations != 2 { // five seconds' burst and one second's worth are free
		t.Errorf("eight at once: %d violations of the hourly quota, want 2", violations)
	}
}

// TestAuditAgreesWithTheDefinition compares the audit with the sentence it
// implements, tried on every window: rate x window + burst + one second's worth.
func TestAuditAgreesWithTheDefinition(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 300 {
		rate := Rate{Count: 1 + rng.IntN(50), Per: Duration(time.Duration(1+rng.IntN(20)) * 500 * time.Millisecond), Burst: rng.IntN(5)}
		a := NewAudit("x", Limits{MessageRate: rate})
		var events []time.Time
		now := begin
		gap := rng.Int64N(int64(2*time.Second)) + 1
		for range 200 {
			if rng.IntN(3) > 0 {
				now = now.Add(time.Duration(rng.Int64N(gap)))
			}
			events = append(events, now)
			got := len(a.Message(now, alice, 1)) > 0
			if want := breaks(events, rate); got != want {
				t.Fatalf("seed %d, round %d, rate %+v, event %d: violation %v, want %v", seed, round, rate, len(events), got, want)
			}
			if got {
				break // afterwards the audit forgives the excess it reported
			}
		}
	}
}

// breaks says whether any window that ends with the last event holds too many.
func breaks(events []time.Time, rate Rate) bool {
	last := events[len(events)-1]
	for i, first := range events {
		allowed := rate.PerSecond()*last.Sub(first).Seconds() + rate.burst() + rate.PerSecond()
		if float64(len(events)-i) > allowed+1e-6 {
			return true
		}
	}
	return false
}

func TestAuditCountsEachExcessOnce(t *testing.T) {
	a := NewAudit("x", Limits{ConnectionRate: Rate{Count: 1, Per: second, Burst: 1}})
	violations := 0
	for range 10 {
		violations += len(a.Open(begin, alice))
	}
	if violations != 8 {
		t.Errorf("ten connections at once where two may be: %d violations, want 8", violations)
	}
}

func TestRateText(t *testing.T) {
	for text, want := range map[string]Rate{
		"100/s": {Count: 100, Per: second}, "6000/min burst 50": {6000, minute, 50}, "3/10s burst 2": {3, 10 * second, 2},
		"50000/h": {Count: 50000, Per: 60 * minute}, "unlimited": {},
	} {
		var got Rate
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want || got.String() != text {
			t.Errorf("%q: %+v (%s), %v, want %+v", text, got, got, err, want)
		}
	}
	for _, text := range []string{"", "5", "/s", "0/s", "-1/s", "5/x", "5/0s", "5/s burst", "5/s burst 0", "5/s burst x", "5/s fast"} {
		if err := new(Rate).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken for a rate", text)
		}
	}
}
