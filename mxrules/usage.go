package mxrules

import (
	"encoding/binary"
	"errors"
	"time"
)

// Usage is the durable form of the hourly and daily meters: the quotas they
// were charged under, and the theoretical arrival times of their next message
// in Unix nanoseconds. Write it with each claim. The zero Usage is no quota.
type Usage struct {
	PerHour int
	// Hour is the whole hourly quota's time, HourBulk that of bulk mail's share.
	Hour, HourBulk int64
	PerDay         int
	Day            int64
}

// Usage is what Claimed has charged so far.
func (g *Governor) Usage() Usage {
	var u Usage
	if g.limits.MessagesPerHour > 0 {
		u.PerHour = g.limits.MessagesPerHour
		u.Hour = g.claimHour.all.tat + g.clock.wall
		u.HourBulk = g.claimHour.bulk.tat + g.clock.wall
	}
	if g.limits.MessagesPerDay > 0 {
		u.PerDay = g.limits.MessagesPerDay
		u.Day = g.claimDay.all.tat + g.clock.wall
	}
	return u
}

// maxClaim is the largest batch of claims (DESIGN.md invariant 4). A stored
// time may lie that many messages and one bucket ahead; more is a clock that
// was set back, which must not stop the path.
const maxClaim = 64

// Restore carries on after a crash or restart from the Usage of the last
// durable claim; the zero Usage is right where none was stored. Call it on each
// path that the process before may have used. What that process sent last is
// not stored, so all else starts with empty buckets: no more is allowed than
// without the crash.
func (g *Governor) Restore(now time.Time, u Usage) {
	t := g.tick(now)
	g.clock.mark(now, t)
	hour, day := hourlyQuota(u.PerHour), dailyQuota(u.PerDay)
	g.restoreMeter(t, &g.claimHour.all, hour.all, u.Hour)
	g.restoreMeter(t, &g.claimHour.bulk, hour.bulk, u.HourBulk)
	g.restoreMeter(t, &g.claimDay.all, day.all, u.Day)
	g.connections.drain(t)
	g.messages.drain(t)
	g.sendHour.drain(t)
	g.sendDay.drain(t)
}

// restoreMeter raises m to what was used of the meter that it was when stored.
func (g *Governor) restoreMeter(t int64, m *meter, was meter, tat int64) {
	if was.interval == 0 {
		m.drain(t)
		return
	}
	was.tat = min(tat-g.clock.wall, t+was.slack+maxClaim*was.interval)
	was.reshape(t, *m)
	m.spend(was.tat)
}

// usageSize is the length of a Usage in binary.
const usageSize = 5 * 8

// AppendBinary appends a form of fixed length; it never fails.
func (u Usage) AppendBinary(b []byte) ([]byte, error) {
	for _, n := range [...]int64{int64(u.PerHour), u.Hour, u.HourBulk, int64(u.PerDay), u.Day} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return b, nil
}

// MarshalBinary is AppendBinary to nothing.
func (u Usage) MarshalBinary() ([]byte, error) {
	return u.AppendBinary(make([]byte, 0, usageSize))
}

// UnmarshalBinary reads what AppendBinary wrote.
func (u *Usage) UnmarshalBinary(b []byte) error {
	if len(b) != usageSize {
		return errors.New("mxrules: stored usage has the wrong length")
	}
	number := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[i*8:])) }
	*u = Usage{PerHour: int(number(0)), Hour: number(1), HourBulk: number(2), PerDay: int(number(3)), Day: number(4)}
	return nil
}
