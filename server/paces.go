package server

import (
	"sync"
	"time"

	"github.com/veredus/veredus/mta"
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

// maxDrain is the longest time to drain that is told: nothing waits longer than its validity.
const maxDrain = mta.MaxValidity

// drain is how long a backlog takes at a rate a second; 0 when nothing waits or moves.
func drain(backlog int64, rate float64) time.Duration {
	if backlog <= 0 || rate <= 0 {
		return 0
	}
	return time.Duration(min(float64(backlog)/rate, maxDrain.Seconds()) * float64(time.Second)).Round(time.Second)
}
