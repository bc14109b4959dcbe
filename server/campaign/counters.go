package campaign

import (
	"fmt"
	"maps"
	"time"
)

// OtherDestination gathers the figures of destinations beyond MaxDestinations.
const OtherDestination = "other"

// Minutes counts by minute over the last hour. The zero value is empty.
type Minutes struct {
	// Last is the newest minute counted, in minutes since 1970.
	Last int64
	// Count is the ring: minute m stands in Count[m%60].
	Count [60]uint32
}

// Add counts n at now. What lies more than an hour before the newest minute is dropped.
func (m *Minutes) Add(now time.Time, n int64) {
	minute := now.Unix() / 60
	if minute <= m.Last-60 || n <= 0 || minute < 0 {
		return
	}
	for i := max(m.Last+1, minute-59); i <= minute; i++ {
		m.Count[i%60] = 0
	}
	m.Last = max(m.Last, minute)
	m.Count[minute%60] += uint32(n)
}

// LastHour is the sum over the 60 minutes up to now.
func (m *Minutes) LastHour(now time.Time) int64 {
	oldest := now.Unix()/60 - 59
	var sum int64
	for i := max(oldest, m.Last-59, 0); i <= m.Last; i++ {
		sum += int64(m.Count[i%60])
	}
	return sum
}

// Start moves what is pending into the relay and returns how many messages that are.
func (c *Counters) Start(now time.Time) int64 {
	n := c.Pending
	c.Pending = 0
	c.InRelay += n
	c.HandedOver.Add(now, n)
	return n
}

// Cancel turns everything that is not final and not claimed into Cancelled, and
// returns how many messages that are. Claimed messages keep their real outcome and
// settle later. A second call returns 0. It costs the same whatever the delivery's size.
func (c *Counters) Cancel() int64 {
	n := c.Pending + c.InRelay - c.Claimed
	c.Pending = 0
	c.InRelay = c.Claimed
	c.Deferred = 0
	c.Cancelled += n
	for _, d := range c.By {
		d.Cancelled += d.Deferred
		d.Deferred = 0
	}
	return n
}

// ToDeliver is what was accepted and not ignored.
func (c *Counters) ToDeliver() int64 { return c.Accepted - sum(c.Ignored) }

// Balance returns an error when the ledger does not balance: accepted = ignored +
// pending + in the relay + sent + failed + cancelled, with nothing negative.
func (c *Counters) Balance() error {
	ignored := sum(c.Ignored)
	if c.Accepted != ignored+c.Pending+c.InRelay+c.Sent+c.Failed+c.Cancelled {
		return fmt.Errorf("campaign: ledger does not balance: accepted %d, ignored %d, pending %d, in relay %d, sent %d, failed %d, cancelled %d",
			c.Accepted, ignored, c.Pending, c.InRelay, c.Sent, c.Failed, c.Cancelled)
	}
	if c.Deferred+c.Claimed > c.InRelay || min(c.Pending, c.InRelay, c.Deferred, c.Claimed) < 0 {
		return fmt.Errorf("campaign: ledger is torn: pending %d, in relay %d, of these deferred %d and claimed %d",
			c.Pending, c.InRelay, c.Deferred, c.Claimed)
	}
	if failed := sum(c.FailedBy); failed != c.Failed {
		return fmt.Errorf("campaign: failed is %d, by reason %d", c.Failed, failed)
	}
	return nil
}

// Clone is a deep copy.
func (c *Counters) Clone() Counters {
	n := *c
	n.Ignored = maps.Clone(c.Ignored)
	n.FailedBy = maps.Clone(c.FailedBy)
	if c.By != nil {
		n.By = make(map[string]*DestinationCounters, len(c.By))
		for name, d := range c.By {
			n.By[name] = d.Clone()
		}
	}
	return n
}

// Clone is a deep copy.
func (d *DestinationCounters) Clone() *DestinationCounters {
	n := *d
	n.FailedBy = maps.Clone(d.FailedBy)
	return &n
}

func sum(by map[int32]int64) int64 {
	var n int64
	for _, v := range by {
		n += v
	}
	return n
}
