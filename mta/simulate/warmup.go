package simulate

import (
	"time"

	"github.com/veredus/veredus/mta/dispatch"
)

// WarmUpDay is a source's warm-up at the end of a UTC day with mail, or of the simulation.
type WarmUpDay struct {
	Source string
	// Day is from 1, the day of the start.
	Day int
	dispatch.WarmUpView
}

const dayLong = 24 * time.Hour

// noteWarmUps keeps how the day went. Warm-ups make all destinations share one engine, so
// that its core knows them as they are.
func (e *engine) noteWarmUps() {
	if !e.cfg.warming() {
		return
	}
	for _, v := range e.core.Sources(e.t) {
		if v.WarmUp != nil {
			day := v.WarmUp.State.Day - e.start/int64(dayLong) + 1
			e.warmUps = append(e.warmUps, WarmUpDay{Source: v.Name, Day: int(day), WarmUpView: *v.WarmUp})
		}
	}
}
