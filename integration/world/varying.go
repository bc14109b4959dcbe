package world

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Schedule varies a receiver's limits by the clock. Each step sets the factor from
// its instant on; before the first one it is 1.
type Schedule struct {
	// Steps come in the order of their instants, which count from the world's start.
	Steps []Step `json:"steps,omitempty" yaml:"steps,omitempty"`
	// Every, if set, repeats the steps: 24h makes them times of the day. Before the
	// first step of a round the last one's factor holds.
	Every Duration `json:"every,omitempty" yaml:"every,omitempty"`
}

// Step is one change of a [Schedule].
type Step struct {
	At Duration `json:"at" yaml:"at"`
	// Factor multiplies the limits; 0 takes nothing, 1 is the limits as stated.
	Factor float64 `json:"factor" yaml:"factor"`
}

// Noise varies the limits at random, the same way for the same seed.
type Noise struct {
	// Percent is how far they stray to either side, 0 to 99.
	Percent int `json:"percent" yaml:"percent"`
	// Every is how long each of their values holds; default 1 min.
	Every Duration `json:"every,omitempty" yaml:"every,omitempty"`
}

// Reputation makes limits shrink for a source that is deferred and bounces, and grow
// again with time. It is 1 at best; limits are multiplied by it.
type Reputation struct {
	// PerDeferral and PerBounce are what one refusal by a hidden limit, and one
	// recipient who does not exist, take off.
	PerDeferral float64 `json:"per_deferral,omitempty" yaml:"per_deferral,omitempty"`
	PerBounce   float64 `json:"per_bounce,omitempty" yaml:"per_bounce,omitempty"`
	// Recovery is how long it takes to grow back from 0 to 1; default 24h.
	Recovery Duration `json:"recovery,omitempty" yaml:"recovery,omitempty"`
	// Floor is the least it becomes; default 0.05.
	Floor float64 `json:"floor,omitempty" yaml:"floor,omitempty"`
}

// Load is latency that grows with the connections open at once, of all sources:
// by Each x (open - From) ^ Exponent beyond From of them.
type Load struct {
	From int      `json:"from,omitempty" yaml:"from,omitempty"`
	Each Duration `json:"each" yaml:"each"`
	// Exponent is 1 by default; with 2 more connections soon deliver less.
	Exponent float64 `json:"exponent,omitempty" yaml:"exponent,omitempty"`
}

// Defaults of Reputation and Noise, and the longest delay that load causes: a
// sender's timeout would not wait longer (RFC 5321 section 4.5.3.2.6).
const (
	defaultRecovery = 24 * time.Hour
	defaultFloor    = 0.05
	defaultNoise    = time.Minute
	maxLoadDelay    = 10 * time.Minute
)

func (s Schedule) compress(factor float64) Schedule {
	steps := make([]Step, len(s.Steps))
	for i, step := range s.Steps {
		steps[i] = Step{At: step.At.divide(factor), Factor: step.Factor}
	}
	return Schedule{Steps: steps, Every: s.Every.divide(factor)}
}

func (s Schedule) validate() error {
	for i, step := range s.Steps {
		if step.At < 0 || i > 0 && step.At <= s.Steps[i-1].At || s.Every > 0 && step.At >= s.Every {
			return fmt.Errorf("hidden.schedule.steps[%d].at: %v; give instants from 0 in rising order, below every", i, step.At.Std())
		}
		if !(step.Factor >= 0 && step.Factor <= maxFactor) {
			return fmt.Errorf("hidden.schedule.steps[%d].factor: %g; use 0 to %d", i, step.Factor, maxFactor)
		}
	}
	if s.Every < 0 {
		return fmt.Errorf("hidden.schedule.every: %v; give a positive duration or leave it out", s.Every.Std())
	}
	return nil
}

// maxFactor bounds a step's factor.
const maxFactor = 1000

func (n Noise) validate() error {
	if n.Percent < 0 || n.Percent > 99 || n.Every < 0 {
		return fmt.Errorf("hidden.noise: %d per cent every %v; use 0 to 99 and a positive duration", n.Percent, n.Every.Std())
	}
	return nil
}

func (r Reputation) validate() error {
	for _, v := range [...]float64{r.PerDeferral, r.PerBounce, r.Floor} {
		if !(v >= 0 && v <= 1) {
			return fmt.Errorf("hidden.reputation: %g; use shares from 0 to 1", v)
		}
	}
	if r.Recovery < 0 {
		return errors.New("hidden.reputation.recovery: must not be negative")
	}
	return nil
}

func (l Load) validate() error {
	if l.From < 0 || l.Each < 0 || !(l.Exponent >= 0 && l.Exponent <= 4) {
		return fmt.Errorf("latency.load: from %d, each %v, exponent %g; none may be negative, the exponent at most 4", l.From, l.Each.Std(), l.Exponent)
	}
	return nil
}

// delay is what load adds to a reply while so many connections are open.
func (l Load) delay(open int) time.Duration {
	over := open - l.From
	if l.Each <= 0 || over <= 0 {
		return 0
	}
	exponent := l.Exponent
	if exponent == 0 {
		exponent = 1
	}
	d := float64(l.Each) * math.Pow(float64(over), exponent)
	return time.Duration(min(d, float64(maxLoadDelay)))
}

func (h *Hidden) varies() bool {
	r := h.Reputation
	return len(h.Schedule.Steps) > 0 || h.Noise.Percent > 0 || r.PerDeferral > 0 || r.PerBounce > 0
}

// factorAt is the schedule's factor after so long.
func (s *Schedule) factorAt(since time.Duration) float64 {
	f := 1.0
	if s.Every > 0 && len(s.Steps) > 0 {
		since %= s.Every.Std()
		f = s.Steps[len(s.Steps)-1].Factor
	}
	for _, step := range s.Steps {
		if since < step.At.Std() {
			break
		}
		f = step.Factor
	}
	return f
}

// common is the factor that holds for all sources at now.
func (m *Model) common(now time.Time) float64 {
	since := now.Sub(m.start)
	f := m.r.Hidden.Schedule.factorAt(since)
	if n := m.r.Hidden.Noise; n.Percent > 0 {
		every := n.Every.Std()
		if every == 0 {
			every = defaultNoise
		}
		u := float64(mix(m.salt^uint64(since/every))>>11) / (1 << 53)
		f *= 1 + float64(n.Percent)/100*(2*u-1)
	}
	return f
}

// factor is what a source's limits are multiplied by at now.
func (m *Model) factor(now time.Time, st *sourceState) float64 {
	if !m.varies {
		return 1
	}
	return m.common(now) * m.reputation(now, st)
}

// reputation is a source's, from the floor to 1.
func (m *Model) reputation(now time.Time, st *sourceState) float64 {
	r := &m.r.Hidden.Reputation
	if st.sunk == 0 {
		return 1
	}
	recovery := r.Recovery.Std()
	if recovery == 0 {
		recovery = defaultRecovery
	}
	if gone := now.Sub(st.sunkAt); gone > 0 {
		st.sunk = max(0, st.sunk-gone.Seconds()/recovery.Seconds())
		st.sunkAt = now
	}
	return 1 - st.sunk
}

// sink takes something off a source's reputation.
func (m *Model) sink(now time.Time, st *sourceState, by float64) {
	if by <= 0 {
		return
	}
	m.reputation(now, st)
	floor := m.r.Hidden.Reputation.Floor
	if floor == 0 {
		floor = defaultFloor
	}
	st.sunk, st.sunkAt = min(1-floor, st.sunk+by), now
}

// bounced notes a recipient who does not exist.
func (m *Model) bounced(now time.Time, st *sourceState, d Decision) {
	if d.Code >= 500 && d.Cause == CauseMailbox {
		m.sink(now, st, m.r.Hidden.Reputation.PerBounce)
	}
}

// scaled is a count under a factor: none under 0, else at least 1.
func scaled(n int, f float64) int {
	switch {
	case f == 1:
		return n
	case f <= 0:
		return 0
	}
	return max(1, int(float64(n)*f))
}
