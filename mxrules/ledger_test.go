package mxrules

import (
	"fmt"
	"math/bits"
	"time"
)

// ledger is a receiver's memory of events at true times, in nanoseconds.
type ledger struct {
	name  string
	rate  Rate
	times []int64
}

func (l *ledger) note(t int64) { l.times = append(l.times, t) }

// overrun finds a window with more than rate x window + burst events. Windows
// from event to event are the tightest.
func (l *ledger) overrun() error {
	if l.rate.IsZero() {
		return nil
	}
	burst := max(l.rate.Burst, 1)
	for i := range l.times {
		for j := i + burst; j < len(l.times); j++ {
			over, window := j-i+1-burst, l.times[j]-l.times[i]
			if product(int64(over), int64(l.rate.Per)).moreThan(product(window, int64(l.rate.Count))) {
				return fmt.Errorf("%s: %d events in %v exceed %v", l.name, j-i+1, time.Duration(window), l.rate)
			}
		}
	}
	return nil
}

type uint128 struct{ hi, lo uint64 }

func product(a, b int64) uint128 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	return uint128{hi, lo}
}

func (a uint128) moreThan(b uint128) bool {
	return a.hi > b.hi || a.hi == b.hi && a.lo > b.lo
}
