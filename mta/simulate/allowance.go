package simulate

import (
	"math"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
)

// An oracle keeps our own rules, and a warm-up's caps are among them. They hold for all
// destinations together, so what each may get is shared out before its oracle runs: step
// by step, by the warm-ups themselves, at the best signs.

// allowance is what the warm-ups of the sources let an oracle send.
type allowance struct {
	step   time.Duration
	grants [][]float32 // messages, by destination and step; none behind the last step
}

// Bounds of the steps: what a warm-up releases lapses after some minutes.
const (
	allowanceStep = time.Minute
	mostGrants    = 20_000_000
)

// allowances shares the caps of the warm-ups out; nil where a source that is warm may
// take what others may not send.
func (c *Config) allowances() *allowance {
	sources := c.coldSources()
	if len(sources) == 0 || len(c.Destinations) == 0 {
		return nil
	}
	a := &allowance{
		step:   max(allowanceStep, time.Duration(float64(c.Duration)*float64(len(c.Destinations))/mostGrants)),
		grants: make([][]float32, len(c.Destinations)),
	}
	n := len(c.Destinations)
	s := &sharing{c: c, sources: sources, receivers: make([]Receiver, n), sent: make([]float64, n), owed: make([]float64, n), want: make([]float64, n)}
	for i := range s.receivers {
		s.receivers[i] = c.Destinations[i].Receiver()
	}
	for at := time.Duration(0); at < c.Duration && !s.done(at); at += a.step {
		s.share(at, a)
	}
	return a
}

// coldSources are the warm-ups of all sources that may send, with the pools that mail
// overflows to; nil if one of them is warm.
func (c *Config) coldSources() (list []*mxrules.WarmUp) {
	pools, seen := map[string]bool{}, map[string]bool{}
	var names []string
	for i := range c.HandOvers {
		names = append(names, c.HandOvers[i].Pool)
	}
	for len(names) > 0 {
		name := names[0]
		names = names[1:]
		if pools[name] {
			continue
		}
		pools[name] = true
		for i := range c.Pools {
			p := &c.Pools[i]
			if p.Name != name {
				continue
			}
			if p.Overflow != "" {
				names = append(names, p.Overflow)
			}
			for j := range p.Sources {
				src := &p.Sources[j]
				if seen[src.Name] {
					continue
				}
				seen[src.Name] = true
				w := c.warmUpOf(src)
				if w == nil {
					return nil
				}
				list = append(list, w)
			}
		}
	}
	return list
}

// warmUpOf is a source's warm-up as it is at the start; nil for a source that is warm.
func (c *Config) warmUpOf(src *dispatch.Source) *mxrules.WarmUp {
	if src.WarmUp == nil {
		return nil
	}
	w := mxrules.NewWarmUp(src.WarmUp, src.Stage)
	if state, ok := c.WarmUps[src.Name]; ok {
		w.Restore(c.Start, state)
	}
	w.Tick(c.Start)
	if !w.Active() {
		return nil
	}
	return w
}

// sharing is the caps being shared out.
type sharing struct {
	c         *Config
	sources   []*mxrules.WarmUp
	receivers []Receiver
	sent      []float64 // whole messages, by destination
	owed      []float64 // parts of one
	want      []float64 // in a step
}

// done reports whether there is no mail left, nor any to come.
func (s *sharing) done(at time.Duration) bool {
	for i := range s.receivers {
		_, last, total := s.c.span(i)
		if at < last || s.sent[i] < total {
			return false
		}
	}
	return true
}

// share deals one step out: to each destination what its receiver takes of its mail, to
// all as much where that is more than the warm-ups release, as the core does. What one
// does not want goes to the others.
func (s *sharing) share(at time.Duration, a *allowance) {
	now, middle := s.c.Start.Add(at), s.c.Start.Add(at+a.step/2)
	for i, r := range s.receivers {
		f := foresight{cfg: s.c, index: i}
		s.want[i] = max(0, min(r.Capacity(middle)*a.step.Seconds(), f.arrived(at+a.step)-s.sent[i]))
		a.grants[i] = append(a.grants[i], 0)
	}
	for range sharingRounds {
		most := s.room(now) / max(1, s.wanting())
		for i := range s.receivers {
			some := min(s.want[i], most)
			n, all := s.claim(i, now, some)
			if s.want[i] -= some; !all {
				s.want[i] = 0 // its provider's cap is used up
			}
			a.grants[i][len(a.grants[i])-1] += float32(n)
		}
	}
}

// sharingRounds is how often in a step what some left is dealt out to the others.
const sharingRounds = 3

// wanting is how many destinations have mail that their receivers would take.
func (s *sharing) wanting() (n float64) {
	for _, want := range s.want {
		if want > 0 {
			n++
		}
	}
	return n
}

// room is how much may be sent now.
func (s *sharing) room(now time.Time) (sum float64) {
	for _, w := range s.sources {
		n, _ := w.Room(now, "")
		sum += float64(n)
	}
	return sum
}

// claim charges up to so many messages for a destination to the warm-ups, and answers how
// many there was room for, and whether for all. Only whole ones are; the rest is owed to
// the next step.
func (s *sharing) claim(i int, now time.Time, most float64) (done float64, all bool) {
	most += s.owed[i]
	whole := math.Floor(most)
	provider := s.c.providerOf(i)
	for _, w := range s.sources {
		for done < whole {
			room, _ := w.Room(now, provider)
			n := min(int64(whole-done), room)
			if n <= 0 {
				break
			}
			for range n {
				w.Claimed(now, provider)
				w.Ended(now, provider, mxrules.SignDelivered)
			}
			done += float64(n)
		}
	}
	s.owed[i] = min(most-done, 1) // also one that came too late this time
	s.sent[i] += done
	return done, done == whole
}

// allowed bounds a receiver's capacity by what the warm-ups let it have.
func (c *Config) allowed(i int, capacity func(time.Time) float64) func(time.Time) float64 {
	a := c.allowance
	if a == nil {
		return capacity
	}
	return func(now time.Time) float64 {
		k := int(now.Sub(c.Start) / a.step)
		if k < 0 || k >= len(a.grants[i]) {
			return capacity(now)
		}
		return float64(a.grants[i][k]) / a.step.Seconds()
	}
}

// providerOf is what rules and warm-ups call a destination; empty for none known.
func (c *Config) providerOf(i int) string {
	d := &c.Destinations[i]
	if d.Provider != "" || c.Rules == nil || len(d.Domains) == 0 || len(d.Domains[0].Hosts) == 0 {
		return d.Provider
	}
	return c.Rules.ProviderOf(d.Domains[0].Hosts[0].Name)
}
