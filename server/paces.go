package server

import (
	"sync"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
)

const (
	// paceMinutes is over how many minutes the pace of a destination is measured.
	paceMinutes = 5
	// leastPaced is the least time that a pace is the mean of.
	leastPaced = 10 * time.Second
	// keepPaces is how many destinations are measured; the one that was longest without
	// an outcome leaves first.
	keepPaces = 2000
)

// paces measure how fast destinations take mail. Safe for concurrent use; a nil one
// knows nothing.
type paces struct {
	mu    sync.Mutex
	clock uint64
	by    map[string]*pace
}

// pace is one destination's, by minute.
type pace struct {
	used    uint64
	first   time.Time // of all outcomes seen
	last    time.Time // of the attempts
	minutes [paceMinutes + 1]paceMinute
}

type paceMinute struct {
	minute   int64 // since 1970
	ended    int64 // messages that came to their end
	attempts int64
	took     time.Duration // all of them together
}

func newPaces() *paces { return &paces{by: map[string]*pace{}} }

// settled takes what was settled.
func (p *paces) settled(list []mta.Settlement) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range list {
		p.add(&list[i])
	}
}

func (p *paces) add(s *mta.Settlement) {
	p.clock++
	d := p.by[s.Destination]
	if d == nil {
		p.makeRoom()
		d = &pace{first: s.Time}
		p.by[s.Destination] = d
	}
	d.used = p.clock
	if s.Attempt != nil {
		d.last = s.Time
	}
	n := s.Time.Unix() / 60
	m := &d.minutes[n%int64(len(d.minutes))]
	if m.minute != n {
		*m = paceMinute{minute: n}
	}
	if s.Outcome != mta.Deferred {
		m.ended++
	}
	if s.Attempt != nil {
		m.attempts++
		m.took += s.Attempt.Duration
	}
}

// makeRoom forgets the destination that was longest without an outcome.
func (p *paces) makeRoom() {
	if len(p.by) < keepPaces {
		return
	}
	oldest, least := "", p.clock
	for name, d := range p.by {
		if d.used <= least {
			oldest, least = name, d.used
		}
	}
	delete(p.by, oldest)
}

// of is how many messages a second came to their end at a destination in the last
// minutes, and how long an attempt took on average; zero where nothing happened.
func (p *paces) of(destination string, now time.Time) (rate float64, latency time.Duration) {
	if p == nil {
		return 0, 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.by[destination]
	if d == nil {
		return 0, 0
	}
	var sum paceMinute
	this := now.Unix() / 60
	for _, m := range d.minutes {
		if m.minute > this-paceMinutes-1 && m.minute <= this {
			sum.ended += m.ended
			sum.attempts += m.attempts
			sum.took += m.took
		}
	}
	since := time.Unix((this-paceMinutes)*60, 0)
	if d.first.After(since) {
		since = d.first
	}
	rate = float64(sum.ended) / max(now.Sub(since), leastPaced).Seconds()
	if sum.attempts > 0 {
		latency = sum.took / time.Duration(sum.attempts)
	}
	return rate, latency
}

// last is when the last attempt at a destination ended; zero where none is known.
func (p *paces) last(destination string) time.Time {
	if p == nil {
		return time.Time{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.by[destination]; d != nil {
		return d.last
	}
	return time.Time{}
}

// maxDrain is the longest time to drain that is told: nothing waits longer than its validity.
const maxDrain = mta.MaxValidity

// drainTime is how long a destination's backlog takes: at the pace of the last minutes, but
// not above what its paths allow now, and behind a rest or back-off. It is 0 when
// nothing waits, or stands still for as long as nobody does anything about it.
func drainTime(backlog int64, rate float64, paths []dispatch.PathView, wait dispatch.Wait, now time.Time) time.Duration {
	switch wait.Cause {
	case dispatch.CausePaused, dispatch.CauseSuspended, dispatch.CauseSource:
		return 0
	}
	if allowed := allowedRate(paths); allowed > 0 && (rate == 0 || allowed < rate) {
		rate = allowed
	}
	took := drain(backlog, rate)
	switch wait.Cause {
	case dispatch.CauseRest, dispatch.CauseBackoff, dispatch.CauseDNS, dispatch.CauseRetry:
		if took > 0 && wait.Until.After(now) {
			took += wait.Until.Sub(now).Round(time.Second)
		}
	}
	return min(took, maxDrain)
}

// allowedRate is what all paths together may send a second; 0 when one of them has no limit.
func allowedRate(paths []dispatch.PathView) (sum float64) {
	for i := range paths {
		rate := pathRate(&paths[i])
		if rate == 0 {
			return 0
		}
		sum += rate
	}
	return sum
}

// pathRate is what a path may send a second by the limits in force; 0 for no limit.
func pathRate(p *dispatch.PathView) (rate float64) {
	limits := p.Effective.Limits
	atMost := func(limit float64) {
		if limit > 0 && (rate == 0 || limit < rate) {
			rate = limit
		}
	}
	atMost(p.State.MessageRate.PerSecond())
	atMost(float64(limits.MessagesPerHour) / 3600)
	atMost(float64(limits.MessagesPerDay) / 86400)
	atMost(float64(p.WarmUpCap) / 86400)
	return rate
}

// drain is how long a backlog takes at a rate a second; 0 when nothing waits or moves.
func drain(backlog int64, rate float64) time.Duration {
	if backlog <= 0 || rate <= 0 {
		return 0
	}
	return time.Duration(min(float64(backlog)/rate, maxDrain.Seconds()) * float64(time.Second)).Round(time.Second)
}
