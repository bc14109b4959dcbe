package mxrules

import "time"

// clock turns the caller's times into nanoseconds that start at 0 and never go back.
type clock struct {
	base    time.Time
	started bool
	last    int64
	shift   int64 // sum of the backward steps that were left out
	wall    int64 // Unix time of 0 as the last mark saw it
}

// unordered is the largest step back that is taken for unordered readings of a
// sound clock. Leaving those out as if they were steps would let the clock run
// fast: each way forward would count again.
const unordered = int64(time.Second)

func (c *clock) at(now time.Time) int64 {
	if !c.started {
		c.base, c.started = now, true
	}
	t := int64(now.Sub(c.base)) + c.shift
	if t >= c.last {
		c.last = t
		return t
	}
	if c.last-t > unordered {
		c.shift += c.last - t
	}
	return c.last
}

// time is when the caller's clock will show t.
func (c *clock) time(t int64) time.Time {
	return c.base.Add(time.Duration(t - c.shift))
}

// mark notes what wall time t is.
func (c *clock) mark(now time.Time, t int64) {
	c.wall = now.UnixNano() - t
}
