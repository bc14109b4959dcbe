package mxrules

import (
	"fmt"
	"time"
)

// Counts are what an hourly sweep looks at of one path.
type Counts struct {
	// Attempts and Unknown are the last hour's messages that were answered, and those
	// of them with bounce code 10, invalid recipient.
	Attempts, Unknown int64
	// Delivered and Complaints are those of the last 24 hours.
	Delivered, Complaints int64
}

// Thresholds of the sweep: Momentum's default rules (adaptive_sweep_rule,
// adaptive_attempt_threshold, adaptive_fbl_volume_threshold).
const (
	SweepAttempts      = 2000  // attempts below which bounces say nothing
	SweepDelivered     = 20000 // delivered mail below which complaints say nothing
	unknownThrottle    = 0.03
	unknownSuspend     = 0.10
	complaintsThrottle = 0.002
	complaintsSuspend  = 0.005
	sweepSuspension    = 4 * time.Hour
)

// Swept is what follows from a sweep.
type Swept struct {
	// Do is DoNothing, DoSlow or DoRest, For how long a rest lasts.
	Do  Do
	For time.Duration
	// Text says why.
	Text string
}

// Sweep judges an hour's bounces and a day's complaints: a list with so many unknown
// recipients, or mail that so many complain of, ends in a block before long. It is
// pure; feed its result to Sweep of the path's governor.
func (c Counts) Sweep() Swept {
	var s Swept
	judge := func(n, of, least int64, slow, rest float64, what string) {
		if of < least || n <= 0 {
			return
		}
		switch share := float64(n) / float64(of); {
		case share >= rest && s.Do != DoRest:
			s = Swept{DoRest, sweepSuspension, fmt.Sprintf("%.2f %% %s (%d of %d); %.2g %% suspends", 100*share, what, n, of, 100*rest)}
		case share >= slow && s.Do == DoNothing:
			s = Swept{DoSlow, 0, fmt.Sprintf("%.2f %% %s (%d of %d); %.2g %% slows", 100*share, what, n, of, 100*slow)}
		}
	}
	judge(c.Unknown, c.Attempts, SweepAttempts, unknownThrottle, unknownSuspend, "unknown recipients in an hour")
	judge(c.Complaints, c.Delivered, SweepDelivered, complaintsThrottle, complaintsSuspend, "complaints in a day")
	return s
}

// Sweep puts what follows from a sweep in force.
func (g *Governor) Sweep(now time.Time, s Swept) {
	if s.Do == DoNothing {
		return
	}
	t := g.tick(now)
	g.noteTrouble(now, s.Text)
	g.learner.Refused(time.Duration(t), Evidence{Effect: s.Do.effect(), Text: s.Text, ordered: s.For})
	g.follow(t)
}
