package campaign_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/veredus/veredus/server/campaign"
)

func TestMinutesForgetAfterAnHour(t *testing.T) {
	var m campaign.Minutes
	var newest time.Duration
	for _, c := range []struct {
		at   time.Duration
		n    int64
		want int64 // of the hour up to the newest
	}{
		{0, 5, 5},
		{30 * time.Second, 2, 7},
		{59 * time.Minute, 1, 8},
		{60 * time.Minute, 0, 1},
		{90 * time.Minute, 4, 5},
		{70 * time.Minute, 3, 8}, // late, and within the hour
		{-time.Hour, 9, 8},       // too late
		{10 * time.Hour, 6, 6},
		{12 * time.Hour, 0, 0},
	} {
		m.Add(start.Add(c.at), c.n)
		newest = max(newest, c.at)
		if got := m.LastHour(start.Add(newest)); got != c.want {
			t.Errorf("at %v: %d in the last hour, want %d", c.at, got, c.want)
		}
	}
}

// TestMinutesCountWhatASlidingHourHolds compares with a plain list of what was counted.
func TestMinutesCountWhatASlidingHourHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m campaign.Minutes
		type entry struct{ minute, n int64 }
		var all []entry
		now := start
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "seconds")) * time.Second)
			n := rapid.Int64Range(0, 1000).Draw(t, "n")
			m.Add(now, n)
			all = append(all, entry{now.Unix() / 60, n})
			var want int64
			for _, e := range all {
				if e.minute > now.Unix()/60-60 {
					want += e.n
				}
			}
			if got := m.LastHour(now); got != want {
				t.Fatalf("%d in the last hour, want %d", got, want)
			}
		}
	})
}

func TestACancelTakesWhatIsNeitherFinalNorClaimed(t *testing.T) {
	c := campaign.Counters{
		Accepted: 20, Ignored: map[int32]int64{10: 2}, InRelay: 10, Deferred: 4, Claimed: 3, Sent: 5, Failed: 3, FailedBy: map[int32]int64{1: 3},
		By: map[string]*campaign.DestinationCounters{"a": {Deferred: 3}, "b": {Deferred: 1}},
	}
	if err := c.Balance(); err != nil {
		t.Fatal(err)
	}
	before := c.Clone()
	equal(t, "cancelled", [2]int64{c.Cancel(), c.Cancel()}, [2]int64{7, 0})
	equal(t, "left", [3]int64{c.InRelay, c.Deferred, c.Cancelled}, [3]int64{3, 0, 7})
	equal(t, "by destination", [2]int64{c.By["a"].Cancelled, c.By["b"].Cancelled}, [2]int64{3, 1})
	if err := c.Balance(); err != nil {
		t.Error(err)
	}
	equal(t, "a copy is of its own", [2]int64{before.By["a"].Deferred, before.InRelay}, [2]int64{3, 10})
}

func TestALedgerThatDoesNotBalanceIsFound(t *testing.T) {
	for _, c := range []struct {
		counters campaign.Counters
		want     string
	}{
		{campaign.Counters{Accepted: 1}, "does not balance"},
		{campaign.Counters{Accepted: 1, InRelay: 1, Deferred: 1, Claimed: 1}, "torn"},
		{campaign.Counters{Pending: -1, Sent: 1}, "torn"},
		{campaign.Counters{Accepted: 1, Failed: 1}, "by reason 0"},
	} {
		if err := c.counters.Balance(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.counters, err)
		}
	}
}

// A clock that was set back loses no more than what lies outside the hour.
func TestMinutesWithAClockSetBack(t *testing.T) {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	var m campaign.Minutes
	m.Add(now, 1)
	m.Add(now.Add(-30*time.Minute), 2)
	m.Add(now.Add(-2*time.Hour), 4)
	if got := m.LastHour(now); got != 3 {
		t.Errorf("last hour %d, want 3", got)
	}
}

func TestStartTakesAllThatIsPending(t *testing.T) {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	c := campaign.Counters{Accepted: 7, Pending: 7}
	if n := c.Start(now); n != 7 || c.InRelay != 7 || c.Pending != 0 || c.HandedOver.LastHour(now) != 7 || c.Balance() != nil {
		t.Errorf("started %d: %+v", n, c)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	c := campaign.Counters{Ignored: map[int32]int64{1: 1}, By: map[string]*campaign.DestinationCounters{"a": {FailedBy: map[int32]int64{1: 1}}}}
	n := c.Clone()
	n.Ignored[1], n.By["a"].Sent, n.By["a"].FailedBy[1] = 9, 9, 9
	if c.Ignored[1] != 1 || c.By["a"].Sent != 0 || c.By["a"].FailedBy[1] != 1 {
		t.Error("a clone shares memory")
	}
}
