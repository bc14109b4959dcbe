package forecast

import (
	"sync"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
)

// History remembers what destinations have shown, since the process began. It is safe
// for concurrent use, and holds the destinations used last only.
type History struct {
	mu       sync.Mutex
	now, was map[string]*Figures // two generations
}

// Figures of History.
const (
	// generation is how many destinations make one, about 100 B each.
	generation = 5000
	// memory is over how many attempts a share, and recent over how many messages a
	// latency is a mean.
	memory = 2000
	recent = 64
)

// Settled learns from outcomes. What was put off for the path's sake is left out: a
// forecast keeps to a pace at which that does not come.
func (h *History) Settled(list []mta.Settlement) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range list {
		s := &list[i]
		if s.Attempt == nil || s.Destination == "" || s.Outcome == mta.Deferred && s.Verdict.Path != bounce.PathNone {
			continue
		}
		h.of(s.Destination, true).add(s.Outcome, s.Attempt.Duration)
	}
}

// Of is what a destination has shown; zero when nothing is known.
func (h *History) Of(destination string) Figures {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.of(destination, false); f != nil {
		return *f
	}
	return Figures{}
}

func (h *History) of(name string, create bool) *Figures {
	f := h.now[name]
	if f != nil {
		return f
	}
	if f = h.was[name]; f == nil {
		if !create {
			return nil
		}
		f = &Figures{}
	}
	if len(h.now) >= generation || h.now == nil {
		h.was, h.now = h.now, map[string]*Figures{}
	}
	h.now[name] = f
	return f
}

func (f *Figures) add(o mta.Outcome, took time.Duration) {
	f.Attempts++
	n := float64(min(f.Attempts, memory))
	is := func(yes bool) float64 {
		if yes {
			return 1
		}
		return 0
	}
	f.Deferred += (is(o == mta.Deferred) - f.Deferred) / n
	f.Bounced += (is(o == mta.Bounced) - f.Bounced) / n
	if o != mta.Delivered || took <= 0 {
		return
	}
	if f.Latency == 0 {
		f.Latency = took
	}
	f.Latency += (took - f.Latency) / time.Duration(min(f.Attempts, recent))
}
