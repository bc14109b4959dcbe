package mxrules

import (
	"encoding/binary"
	"errors"
	"math"
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
	// Learned is what was learned of the path, its times in Unix nanoseconds.
	Learned Memory
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
	u.Learned = g.learner.Memory(time.Duration(g.clock.last)).shift(g.clock.wall)
	if u.Learned.Held != (Held{}) {
		u.Learned.Held.Text = g.trouble
	}
	return u
}

// maxClaim is the largest batch of claims (DESIGN.md invariant 4). A stored
// time may lie that many messages and one bucket ahead; more is a clock that
// was set back, which must not stop the path.
const maxClaim = 64

// claimable is how many messages a path may have claimed: more than maxClaim where
// it has many connections, a quarter more than these.
func (g *Governor) claimable() int64 {
	return int64(max(maxClaim, g.limits.Connections*5/4+1))
}

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
	if !u.Learned.IsZero() {
		g.learner.Recall(time.Duration(t), u.Learned.shift(-g.clock.wall))
		if h := u.Learned.Held; h.Text != "" {
			g.trouble, g.troubleAt = h.Text, time.Unix(0, h.Since)
		}
		g.follow(t)
	}
}

// restoreMeter raises m to what was used of the meter that it was when stored.
func (g *Governor) restoreMeter(t int64, m *meter, was meter, tat int64) {
	if was.interval == 0 {
		m.drain(t)
		return
	}
	was.tat = min(tat-g.clock.wall, t+was.slack+g.claimable()*was.interval)
	was.reshape(t, *m)
	m.spend(was.tat)
}

// Sizes of the binary forms. A Usage of the first version had no version octet and
// nothing learned; a Memory of the first version, which is written where nothing is
// held, ends before what is.
const (
	usageV1Size   = 5 * 8
	usageVersion  = 2
	learnedSize   = 8 + 8 + 2
	memorySize    = 1 + 6*learnedSize
	memoryVersion = 1
	memoryHeld    = 2
)

// AppendBinary appends the binary form, which begins with its version; it never fails.
func (u Usage) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, usageVersion)
	for _, n := range [...]int64{int64(u.PerHour), u.Hour, u.HourBulk, int64(u.PerDay), u.Day} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return u.Learned.AppendBinary(b)
}

// MarshalBinary is AppendBinary to nothing.
func (u Usage) MarshalBinary() ([]byte, error) {
	return u.AppendBinary(nil)
}

// UnmarshalBinary reads what AppendBinary wrote, also in its first version.
func (u *Usage) UnmarshalBinary(b []byte) error {
	var learned Memory
	switch {
	case len(b) == usageV1Size:
	case len(b) > 1+usageV1Size && b[0] == usageVersion:
		if err := learned.UnmarshalBinary(b[1+usageV1Size:]); err != nil {
			return err
		}
		b = b[1:]
	default:
		return errors.New("mxrules: stored usage has a length or version that is not known")
	}
	number := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[i*8:])) }
	*u = Usage{PerHour: int(number(0)), Hour: number(1), HourBulk: number(2), PerDay: int(number(3)), Day: number(4), Learned: learned}
	return nil
}

// AppendBinary appends the binary form, which begins with its version; it never fails.
func (m Memory) AppendBinary(b []byte) ([]byte, error) {
	version := byte(memoryVersion)
	if m.Held != (Held{}) {
		version = memoryHeld
	}
	b = append(b, version)
	for _, l := range m.each() {
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(l.Value))
		b = binary.BigEndian.AppendUint64(b, uint64(l.At))
		b = binary.BigEndian.AppendUint16(b, l.Seen)
	}
	if version == memoryHeld {
		b = m.Held.append(b)
	}
	return b, nil
}

// MarshalBinary is AppendBinary to nothing.
func (m Memory) MarshalBinary() ([]byte, error) {
	return m.AppendBinary(make([]byte, 0, memorySize))
}

// UnmarshalBinary reads what AppendBinary wrote. Figures that make no sense are
// taken for not known: they are worth no error, they are learned anew.
func (m *Memory) UnmarshalBinary(b []byte) error {
	m.Held = Held{}
	switch {
	case len(b) == memorySize && b[0] == memoryVersion:
	case len(b) > memorySize && b[0] == memoryHeld:
		if err := m.Held.parse(b[memorySize:]); err != nil {
			return err
		}
	default:
		return errors.New("mxrules: what was learned is stored with a length or version that is not known")
	}
	b = b[1:]
	for _, l := range m.each() {
		*l = Learned{
			Value: math.Float64frombits(binary.BigEndian.Uint64(b)),
			At:    int64(binary.BigEndian.Uint64(b[8:])),
			Seen:  binary.BigEndian.Uint16(b[16:]),
		}
		if !(l.Value > 0) || l.Value > maxLearned {
			*l = Learned{}
		}
		b = b[learnedSize:]
	}
	return nil
}
