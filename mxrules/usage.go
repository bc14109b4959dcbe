package mxrules

import "time"

// Usage is the durable form of the hourly and daily meters: the theoretical
// arrival times of their next message in Unix nanoseconds, 0 where nothing was
// charged. Write it with each claim.
type Usage struct {
	// Hour is the whole hourly quota's, HourBulk bulk mail's share of it, Day the daily quota's.
	Hour     int64
	HourBulk int64
	Day      int64
}

// Usage is what Claimed has charged so far.
func (g *Governor) Usage() Usage {
	return Usage{
		Hour:     g.wallTAT(&g.claimHour.all),
		HourBulk: g.wallTAT(&g.claimHour.bulk),
		Day:      g.wallTAT(&g.claimDay.all),
	}
}

func (g *Governor) wallTAT(m *meter) int64 {
	if m.interval == 0 || m.tat == 0 {
		return 0
	}
	return m.tat + g.clock.wall
}

// maxClaim is the largest batch of claims (DESIGN.md invariant 4). A stored
// time may lie that many messages and one bucket ahead; more is a clock that
// was set back, which must not stop the path.
const maxClaim = 64

// Restore carries on after a crash or restart from the Usage of the last
// durable claim; the zero Usage is right where none was stored. Call it on each
// path that the process before may have used. When that process sent its last
// message is not stored, so rates and charged quotas start with empty buckets:
// no more is allowed than without the crash.
func (g *Governor) Restore(now time.Time, u Usage) {
	t := g.tick(now)
	g.clock.mark(now, t)
	g.restoreMeter(t, &g.claimHour.all, u.Hour)
	g.restoreMeter(t, &g.claimHour.bulk, u.HourBulk)
	g.restoreMeter(t, &g.claimDay.all, u.Day)
	g.connections.drain(t)
	g.messages.drain(t)
	if u.Hour != 0 {
		g.sendHour.drain(t)
	}
	if u.Day != 0 {
		g.sendDay.drain(t)
	}
}

func (g *Governor) restoreMeter(t int64, m *meter, tat int64) {
	if tat == 0 {
		return
	}
	ahead := t + m.slack + maxClaim*m.interval
	m.spend(min(tat-g.clock.wall, ahead))
}
