package world

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"
)

var began = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

// alone is the model of one receiver.
func alone(t testing.TB, r Receiver) *Model {
	t.Helper()
	if r.Name == "" {
		r.Name = "r"
	}
	r.Domains = []Domain{{Name: "r.example", Share: 1}}
	r.Hosts = []Host{{Name: "mx.r.example", Preference: 10}}
	w := &World{Name: "test", Seed: 1, Receivers: []Receiver{r}}
	if err := w.Validate(); err != nil {
		t.Fatal(err)
	}
	m, err := NewModel(w, r.Name, began)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var source1 = netip.MustParseAddr("192.0.2.1")

// Whoever sends what Capacity says, evenly and over as few connections as that takes,
// is not deferred; whoever sends a fifth more for long is.
func TestCapacityIsWhatIsTaken(t *testing.T) {
	for _, c := range []struct {
		name   string
		hidden Hidden
	}{
		{"token bucket", Hidden{MessageRate: Rate{Count: 20, Per: second, Burst: 5}}},
		{"hourly quota", Hidden{MessagesPerHour: 7200}},
		{"both", Hidden{MessageRate: Rate{Count: 5, Per: second, Burst: 5}, MessagesPerHour: 7200}},
		{"schedule", Hidden{MessageRate: Rate{Count: 10, Per: second, Burst: 2}, Schedule: Schedule{Steps: []Step{{At: 30 * minute, Factor: 0.3}, {At: 60 * minute, Factor: 1.5}}}}},
		{"time of day", Hidden{MessageRate: Rate{Count: 10, Per: second, Burst: 2}, Schedule: Schedule{Every: Duration(time.Hour), Steps: []Step{{At: 10 * minute, Factor: 0.5}, {At: 40 * minute, Factor: 1}}}}},
		{"noise", Hidden{MessageRate: Rate{Count: 10, Per: second, Burst: 2}, Noise: Noise{Percent: 40}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if refused := refusedAt(t, c.hidden, 1); refused > 0 {
				t.Errorf("%d messages sent at capacity were refused", refused)
			}
			if refused := refusedAt(t, c.hidden, 1.2); refused == 0 {
				t.Error("a fifth above capacity nothing is refused in three hours")
			}
		})
	}
}

// refusedAt counts refusals of three hours of mail at so many times the capacity.
func refusedAt(t *testing.T, h Hidden, times float64) (refused int) {
	t.Helper()
	m := alone(t, Receiver{Hidden: h})
	s, d := m.Connect(began, source1, "mx.r.example")
	if !d.Positive() {
		t.Fatal(d)
	}
	defer s.Close()
	for now := began; now.Before(began.Add(3 * time.Hour)); {
		if d := s.Mail(now, "a@b.example"); !d.Positive() {
			refused++
		}
		now = now.Add(time.Duration(float64(time.Second)/(times*m.Capacity(now))) + time.Microsecond)
	}
	return refused
}

// What bounds a receiver's throughput, one limit at a time and together.
func TestCapacity(t *testing.T) {
	latency := Latency{Greeting: 100 * millisecond, Command: 10 * millisecond, EndOfData: 70 * millisecond}
	const message, setup = 0.1, 0.11 // seconds, of this latency
	for _, c := range []struct {
		name   string
		r      Receiver
		sender Sender
		at     time.Duration
		want   float64
	}{
		{"nothing", Receiver{}, AnySender(), 0, math.Inf(1)},
		{"connections", Receiver{Hidden: Hidden{Connections: 4}, Latency: latency}, AnySender(), 0, 4 / message},
		{"connections of two sources", Receiver{Hidden: Hidden{Connections: 4}, Latency: latency}, Sender{Sources: 2}, 0, 8 / message},
		{"connections counted together", Receiver{Hidden: Hidden{Connections: 4, Shared: true}, Latency: latency}, Sender{Sources: 2}, 0, 4 / message},
		{"connections over all", Receiver{Hidden: Hidden{Connections: 4, TotalConnections: 5}, Latency: latency}, Sender{Sources: 2}, 0, 5 / message},
		{"the sender's own connections", Receiver{Hidden: Hidden{Connections: 4}, Latency: latency}, Sender{Sources: 1, Limits: Limits{Connections: 3}}, 0, 3 / message},
		{"messages per connection", Receiver{Hidden: Hidden{Connections: 1, MessagesPerConnection: 10}, Latency: latency}, AnySender(), 0, 1 / (message + setup/10)},
		{"round trips", Receiver{Hidden: Hidden{Connections: 1}, Latency: latency}, Sender{Sources: 1, RoundTrip: 50 * time.Millisecond}, 0, 1 / (message + 0.05)},
		{"round trips in sequence", Receiver{Hidden: Hidden{Connections: 1}, Latency: latency}, Sender{Sources: 1, RoundTrip: 50 * time.Millisecond, Sequential: true}, 0, 1 / (message + 0.2)},
		{"connection rate", Receiver{Hidden: Hidden{ConnectionRate: Rate{Count: 30, Per: minute}, MessagesPerConnection: 10}}, AnySender(), 0, 5},
		{"quota of ours", Receiver{}, Sender{Sources: 1, Limits: Limits{MessagesPerHour: 3600}}, 0, 0.95},
		{"rate of ours, shared", Receiver{}, Sender{Sources: 3, Limits: Limits{MessageRate: Rate{Count: 7, Per: second}, Shared: true}}, 0, 7},
		{"outage", Receiver{Outages: []Outage{{After: minute, For: minute}}}, AnySender(), 90 * time.Second, 0},
		{"nothing is taken", Receiver{Hidden: Hidden{Connections: 4, Schedule: Schedule{Steps: []Step{{At: 0, Factor: 0}}}}, Latency: latency}, AnySender(), 0, 0},
		{"load", Receiver{Latency: Latency{EndOfData: 100 * millisecond, Load: Load{From: 5, Each: 10 * millisecond, Exponent: 2}}}, Sender{Sources: 1, Connections: 100}, 0, 6 / 0.11},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := alone(t, c.r).CapacityFor(began.Add(c.at), c.sender)
			if math.IsInf(c.want, 1) != math.IsInf(got, 1) || !math.IsInf(got, 1) && math.Abs(got-c.want) > 1e-6*c.want {
				t.Errorf("capacity %g, want %g", got, c.want)
			}
		})
	}
}

// A source that is deferred and bounces has less; patience brings it back.
func TestReputation(t *testing.T) {
	m := alone(t, Receiver{
		Hidden: Hidden{
			MessageRate: Rate{Count: 10, Per: second, Burst: 1},
			Reputation:  Reputation{PerDeferral: 0.1, PerBounce: 0.25, Recovery: Duration(time.Hour), Floor: 0.2},
		},
		Mailboxes: map[Fate]int{FateUnknown: 1000},
	})
	s, _ := m.Connect(began, source1, "mx.r.example")
	defer s.Close()
	st := m.source(source1)
	score := func(after time.Duration) string { return fmt.Sprintf("%.2f", m.reputation(began.Add(after), st)) }
	s.Mail(began, "a@b.example")
	s.Mail(began, "a@b.example")
	if got := score(0); got != "0.90" {
		t.Errorf("after a deferral: %s", got)
	}
	s.Rcpt(began, "nobody@r.example")
	if got := score(0); got != "0.65" {
		t.Errorf("after a bounce: %s", got)
	}
	if got := score(15 * time.Minute); got != "0.90" {
		t.Errorf("a quarter of an hour later: %s", got)
	}
	for range 20 {
		s.Rcpt(began.Add(15*time.Minute), "nobody@r.example")
	}
	if got := score(15 * time.Minute); got != "0.20" {
		t.Errorf("at worst: %s", got)
	}
	if c := m.Capacity(began.Add(15 * time.Minute)); c != 10 {
		t.Errorf("the capacity is that of the best reputation, not %g", c)
	}
	if got := score(3 * time.Hour); got != "1.00" {
		t.Errorf("at last: %s", got)
	}
}

// Sources counted together share one bucket; a silent receiver resets.
func TestSharedAndSilent(t *testing.T) {
	m := alone(t, Receiver{Hidden: Hidden{Connections: 1, Shared: true, Silent: true}})
	s1, d := m.Connect(began, source1, "mx.r.example")
	if !d.Positive() {
		t.Fatal(d)
	}
	s2, d := m.Connect(began, netip.MustParseAddr("192.0.2.2"), "mx.r.example")
	if d.Drop != DropReset || d.Code != 0 || d.Cause != CausePacing {
		t.Errorf("the second connection: %v, drop %v, cause %q", d, d.Drop, d.Cause)
	}
	s2.Close()
	s1.Close()
}

// An envelope asked for at once is the same as step by step.
func TestAttempt(t *testing.T) {
	r := Receiver{
		Greylist: Greylist{Delay: 5 * minute}, Latency: Latency{Command: 10 * millisecond},
		Mailboxes: map[Fate]int{FateUnknown: 300, FateFull: 100},
	}
	whole, steps := alone(t, r), alone(t, r)
	a, _ := whole.Connect(began, source1, "mx.r.example")
	b, _ := steps.Connect(began, source1, "mx.r.example")
	defer a.Close()
	defer b.Close()
	for i := range 200 {
		now := began.Add(time.Duration(i) * 4 * time.Second)
		to := fmt.Sprintf("u%d@r.example", i%50)
		got, open := a.Attempt(now, "a@b.example", to)
		mail := b.Mail(now, "a@b.example")
		want := b.Rcpt(now.Add(mail.Delay), to)
		data := b.Data(now.Add(mail.Delay + want.Delay))
		if want.Positive() {
			want = data
		}
		if got.String() != want.String() || got.Cause != want.Cause || got.Delay != 30*time.Millisecond || !open {
			t.Fatalf("%s: %v (%v, open %t), step by step %v", to, got, got.Delay, open, want)
		}
		if got.Positive() {
			a.EndOfData(now)
			b.EndOfData(now)
		}
	}
}

func TestVaryingLimitsAreChecked(t *testing.T) {
	for _, h := range []Hidden{
		{Schedule: Schedule{Steps: []Step{{At: minute, Factor: 1}, {At: minute, Factor: 2}}}},
		{Schedule: Schedule{Steps: []Step{{At: minute, Factor: -1}}}},
		{Schedule: Schedule{Steps: []Step{{At: minute, Factor: math.NaN()}}}},
		{Schedule: Schedule{Every: minute, Steps: []Step{{At: minute, Factor: 1}}}},
		{Noise: Noise{Percent: 100}},
		{Reputation: Reputation{PerBounce: 2}},
		{Reputation: Reputation{Recovery: -1}},
	} {
		r := Receiver{Name: "r", Hidden: h, Domains: []Domain{{Name: "r.example"}}, Hosts: []Host{{Name: "mx.r.example"}}}
		w := &World{Receivers: []Receiver{r}}
		if w.Validate() == nil {
			t.Errorf("%+v is accepted", h)
		}
	}
}
