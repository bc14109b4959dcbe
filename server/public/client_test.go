package public

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestAClientIsLimited(t *testing.T) {
	c := newClients(10)
	allowed := func(remote string, n int) int {
		count := 0
		for range n {
			if c.allow(start, remote) {
				count++
			}
		}
		return count
	}
	for _, story := range []struct {
		remote string
		want   int // of 150
	}{
		{"192.0.2.1:1000", 100},
		{"192.0.2.1:2000", 0}, // another port is the same client
		{"[::ffff:192.0.2.1]:1", 0},
		{"192.0.2.2:1000", 100},
		{"[2001:db8::1]:1", 100},
		{"[2001:db8::2%eth0]:1", 0}, // the same /64
		{"[2001:db8:0:1::1]:1", 100},
		{"127.0.0.1:1", 150},
		{"[::1]:1", 150},
		{"10.1.2.3:1", 150},
		{"[fd00::1]:1", 150},
		{"@", 150},
		{"", 150},
	} {
		if got := allowed(story.remote, 150); got != story.want {
			t.Errorf("%s: %d of 150, want %d", story.remote, got, story.want)
		}
	}
	start := start.Add(time.Second)
	count := 0
	for range 50 {
		if c.allow(start, "192.0.2.1:1") {
			count++
		}
	}
	if count != 10 {
		t.Errorf("a second later %d more, want 10", count)
	}
}

// Over any window a client gets at most its rate times the window and its burst.
func TestTheRateHoldsOverAnyWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.IntRange(1, 1000).Draw(t, "rate")
		c := newClients(rate)
		now := start
		var passed []time.Time
		for range rapid.IntRange(1, 300).Draw(t, "requests") {
			now = now.Add(time.Duration(rapid.IntRange(0, 2_000_000_000/rate).Draw(t, "pause")))
			if c.allow(now, "192.0.2.1:1") {
				passed = append(passed, now)
			}
		}
		for i := range passed {
			n := len(passed) - i
			most := passed[len(passed)-1].Sub(passed[i]).Seconds()*float64(rate) + float64(rate*burstSeconds) + 1
			if float64(n) > most {
				t.Fatalf("%d requests from %v on, at most %v", n, passed[i], most)
			}
		}
	})
}

func TestManyClientsAreForgotten(t *testing.T) {
	c := newClients(1)
	now := start
	for i := range 3 * maxClients {
		now = now.Add(time.Microsecond)
		if !c.allow(now, fmt.Sprintf("203.%d.%d.%d:1", i>>16, i>>8&255, i&255)) {
			t.Fatalf("client %d is refused", i)
		}
		if len(c.due) > maxClients {
			t.Fatalf("%d clients are remembered", len(c.due))
		}
	}
	c.allow(now.Add(time.Hour), "198.51.100.1:1")
	if len(c.due) != 1 {
		t.Errorf("an hour later %d clients are remembered", len(c.due))
	}
}

func BenchmarkAllow(b *testing.B) {
	c := newClients(DefaultClientRate)
	now := start
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(10 * time.Millisecond)
		c.allow(now, "192.0.2.1:1000")
	}
}
