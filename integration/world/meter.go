package world

import "time"

// bucket is a leaky bucket: level drains at a rate and one event adds one. A
// bucket that never rises above its depth admits at most rate x window + depth
// events in any window, and the converse holds too, so it is an exact test.
type bucket struct {
	level float64
	at    time.Time
}

// drain lets the time since the last call flow out at perSecond.
func (b *bucket) drain(now time.Time, perSecond float64) {
	if gone := now.Sub(b.at).Seconds(); gone > 0 {
		b.level = max(0, b.level-gone*perSecond)
		b.at = now
	}
}

// take adds one event if it stays within depth, and reports whether it did.
func (b *bucket) take(now time.Time, perSecond, depth float64) bool {
	b.drain(now, perSecond)
	if b.level+1 > depth+1e-9 {
		return false
	}
	b.level++
	return true
}

// add adds one event whatever the depth, and returns the level it leaves.
func (b *bucket) add(now time.Time, perSecond float64) float64 {
	b.drain(now, perSecond)
	b.level++
	return b.level
}

// slidingHour counts events of the last hour in slots of one minute. Its oldest
// slot leaves as a whole, so it may count up to a minute too much, never too little.
type slidingHour struct {
	slots   [61]int32
	head    int64
	sum     int
	started bool
}

// advance drops the slots that left the hour.
func (s *slidingHour) advance(now time.Time) {
	minute := now.Unix() / 60
	if !s.started || minute-s.head >= int64(len(s.slots)) {
		*s = slidingHour{head: minute, started: true}
		return
	}
	for s.head < minute {
		s.head++
		slot := &s.slots[s.slot()]
		s.sum -= int(*slot)
		*slot = 0
	}
}

// take counts one event if fewer than limit happened in the last hour.
func (s *slidingHour) take(now time.Time, limit int) bool {
	s.advance(now)
	if s.sum >= limit {
		return false
	}
	s.sum++
	s.slots[s.slot()]++
	return true
}

// slot is the head's place in the ring, also before 1970.
func (s *slidingHour) slot() int64 {
	n := int64(len(s.slots))
	return (s.head%n + n) % n
}
