package mxrules

import (
	"math"
	"time"
)

// Figures of Readable: how far a rate may be from a whole number of a unit to be
// written in it, and how large a count is else wanted.
const (
	nearWhole  = 0.001
	manyEvents = 100
	someAnHour = 10
)

// Readable is the rate as people would say it, for explanations: in the smallest unit
// in which it is a whole number (3/s, 200/min), else in one that keeps two or three
// digits (172/min, 5137/h). It is within five per cent of the rate, mostly within a
// half, and has no burst. What an operator wrote is shown as written instead.
func (r Rate) Readable() Rate {
	perSecond := r.PerSecond()
	if perSecond == 0 {
		return Rate{}
	}
	for _, per := range [...]time.Duration{time.Second, time.Minute} {
		n := perSecond * per.Seconds()
		whole := math.Round(n)
		if n >= manyEvents || whole >= 1 && math.Abs(n-whole) <= nearWhole*n {
			return Rate{Count: int(whole), Per: per}
		}
	}
	per := time.Hour
	if perSecond*per.Seconds() < someAnHour {
		per = 24 * time.Hour
	}
	return Rate{Count: int(max(1, math.Round(perSecond*per.Seconds()))), Per: per}
}
