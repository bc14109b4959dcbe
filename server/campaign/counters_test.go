package campaign

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Minutes agrees with a list of all that was added.
func TestMinutes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
		var m Minutes
		now := start
		added := map[int64]int64{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 7200).Draw(t, "seconds")) * time.Second)
			n := rapid.Int64Range(0, 1000).Draw(t, "n")
			m.Add(now, n)
			added[now.Unix()/60] += n
			var want int64
			for minute, n := range added {
				if minute > now.Unix()/60-60 {
					want += n
				}
			}
			if got := m.LastHour(now); got != want {
				t.Fatalf("last hour %d, want %d", got, want)
			}
		}
		if got := m.LastHour(now.Add(time.Hour)); got != 0 {
			t.Fatalf("an hour later %d", got)
		}
	})
}

// A clock that was set back loses no more than what lies outside the hour.
func TestMinutesWithAClockSetBack(t *testing.T) {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	var m Minutes
	m.Add(now, 1)
	m.Add(now.Add(-30*time.Minute), 2)
	m.Add(now.Add(-2*time.Hour), 4)
	if got := m.LastHour(now); got != 3 {
		t.Errorf("last hour %d, want 3", got)
	}
}

func TestCancelLeavesWhatIsClaimed(t *testing.T) {
	c := Counters{
		Accepted: 20, Ignored: map[int32]int64{10: 2}, Pending: 1, InRelay: 12, Deferred: 4, Claimed: 3, Sent: 5,
		By: map[string]*DestinationCounters{"google": {Deferred: 4, Sent: 5}},
	}
	if err := c.Balance(); err != nil {
		t.Fatal(err)
	}
	if n := c.Cancel(); n != 10 || c.InRelay != 3 || c.Deferred != 0 || c.Cancelled != 10 {
		t.Errorf("cancelled %d: %+v", n, c)
	}
	if d := c.By["google"]; d.Deferred != 0 || d.Cancelled != 4 {
		t.Errorf("google: %+v", d)
	}
	if n := c.Cancel(); n != 0 || c.Balance() != nil {
		t.Errorf("cancelled again: %d, %v", n, c.Balance())
	}
}

func TestStartTakesAllThatIsPending(t *testing.T) {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	c := Counters{Accepted: 7, Pending: 7}
	if n := c.Start(now); n != 7 || c.InRelay != 7 || c.Pending != 0 || c.HandedOver.LastHour(now) != 7 || c.Balance() != nil {
		t.Errorf("started %d: %+v", n, c)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	c := Counters{Ignored: map[int32]int64{1: 1}, By: map[string]*DestinationCounters{"a": {FailedBy: map[int32]int64{1: 1}}}}
	n := c.Clone()
	n.Ignored[1], n.By["a"].Sent, n.By["a"].FailedBy[1] = 9, 9, 9
	if c.Ignored[1] != 1 || c.By["a"].Sent != 0 || c.By["a"].FailedBy[1] != 1 {
		t.Error("a clone shares memory")
	}
}

func TestBalanceFindsADrift(t *testing.T) {
	for name, c := range map[string]Counters{
		"lost":    {Accepted: 1},
		"claimed": {Accepted: 1, InRelay: 1, Claimed: 1, Deferred: 1},
		"reason":  {Accepted: 1, Failed: 1},
	} {
		if c.Balance() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
