package mxrules

import "time"

// connectionLearner finds how many connections a receiver bears. A refused one
// tells exactly: as many as were open besides it. Where nothing is refused it
// watches what they carry: connections that make every message slower by as much
// as they add are not worth having, so their number follows the throughput.
//
// It begins with a few and doubles while that pays. A cap known from a refusal is
// tried again by one connection after some patience, and by more and more while
// that succeeds.
type connectionLearner struct {
	cap    int // in force; 0 is none
	known  int // from a refusal; 0: none
	phase  phase
	high   int // the rule's; 0 is none
	low    int
	wanted time.Duration // when one more was asked for last
	asked  bool

	refusedAt time.Duration
	raiseAt   time.Duration
	patience  time.Duration
	stride    int // of the next raise
	raised    bool
	peak      int // most that were ready at once of late, since the cap changed
	peakAt    time.Duration
	confirms  int
	waits     int // refusals in a row with none open

	climb climb
}

// climb follows throughput over the number of connections.
type climb struct {
	changed time.Duration // when the number changed: samples begin behind it
	top     int           // most that came about since the cap did
	sum     time.Duration
	n       int
	bestN   int
	best    float64 // messages a second with bestN
	dir     int
	step    int
	mean    float64 // seconds that a message took, over the last samples with this number,
	samples int     // so many, up to smoothOver
	fastest float64 // the least mean seen
	misses  int     // in a row with this step
	restAt  time.Duration
	active  bool
}

// Figures of connection learning.
const (
	firstConnections   = 4
	shortConnPatience  = 20 * time.Second // of a cap that moves, if few are refused for the messages sent:
	connBudget         = 0.002            // refused connections for each of them
	leastConnPatience  = 2 * time.Minute
	mostConnPatience   = 8 * time.Minute
	peakFor            = 30 * time.Second
	wantedFor          = 5 * time.Second
	climbSamples       = 12 // messages, or two on each connection;
	fineSamples        = 48 // or four, where fine differences are to be seen
	smoothOver         = 8  // samples: the least of many single ones would be an accident
	doublingPays       = 1.25
	climbPays          = 1.02
	climbPatience      = 4 * time.Minute
	slowerWorthAClimb  = 1.4 // times the fastest mean
	assumedConnections = 1000
)

func (c *connectionLearner) bound(l *Limits) {
	c.high, c.low = l.Connections, max(l.Bounds.ConnectionsLow, 1)
	if c.phase == phaseStart && c.cap == 0 {
		c.cap = firstConnections
		if n := l.Bounds.ConnectionsStart; n > 0 {
			c.cap = n
		}
		c.patience, c.stride = leastConnPatience, 1
	}
	if c.high > 0 && c.cap >= c.high && c.known == 0 {
		c.uncap()
	}
}

// uncap drops the learned cap: the rule's is what holds.
func (c *connectionLearner) uncap() {
	c.cap, c.known, c.phase = 0, 0, phaseFree
	c.climb.reset(0)
}

// most is the cap in force, or what is assumed without one.
func (c *connectionLearner) most() int {
	if n := lowest(c.cap, c.high); n > 0 {
		return n
	}
	return assumedConnections
}

func (c *connectionLearner) set(t time.Duration, n int) {
	n = max(n, c.low)
	if c.high > 0 && n >= c.high {
		if c.phase != phaseSearch {
			c.uncap()
			c.climb.reset(t)
			return
		}
		n = c.high
	}
	c.cap = n
	c.climb.reset(t)
	c.climb.samples, c.climb.mean, c.climb.top = 0, 0, 0
}

func (c *climb) reset(t time.Duration) { c.changed, c.sum, c.n = t, 0, 0 }

// refused notes a refused connection while so many others are open, and messages go
// at a rate.
func (c *connectionLearner) refused(t time.Duration, open int, rate float64) {
	c.confirms++
	least := min(max(time.Duration(float64(time.Second)/(connBudget*max(rate, 1e-3))), shortConnPatience), leastConnPatience)
	if !c.raised && t-c.refusedAt > 2*time.Second { // the cap has fallen by itself
		c.patience = max(c.patience/2, least)
	}
	if c.most() > open {
		n := max(open, c.low)
		c.phase = phaseHover
		c.set(t, n)
		c.cap = n // also where it equals the rule's
	}
	c.known = c.cap
	c.peak = min(c.peak, c.cap)
	if t-c.refusedAt > 2*time.Second {
		if c.raised && c.stride == 1 {
			c.patience = min(c.patience*16/10, mostConnPatience)
		}
		if c.stride > 2 {
			c.patience = least
		}
	}
	c.refusedAt, c.raised, c.stride = t, false, 1
	c.raiseAt = t + c.patience
	c.climb.active = false
}

// restore goes back to what was known before refusals that meant something else.
func (c *connectionLearner) restore(t time.Duration, before *connectionLearner) {
	wanted, asked := c.wanted, c.asked
	*c = *before
	c.wanted, c.asked, c.peak = wanted, asked, 0
	c.climb.reset(t)
}

// ready notes a connection that came about.
func (c *connectionLearner) ready(t time.Duration, open, ready int) {
	if ready >= c.peak || t-c.peakAt > peakFor {
		c.peak, c.peakAt = ready, t
	}
	c.waits = 0
	if ready > c.climb.top { // what is on its way met fewer
		c.climb.top = ready
		c.climb.reset(t)
	}
	if c.raised && c.known > 0 && open >= c.cap && t-c.refusedAt > time.Second {
		c.known = c.cap
		c.raised = false
		c.stride *= 2
		c.raiseAt = t + time.Second
	}
}

// raise lets one more connection be tried where a cap is known from a refusal.
func (c *connectionLearner) raise(t time.Duration) {
	if c.phase != phaseHover || c.known == 0 || t < c.raiseAt || !c.short(t) || c.raised {
		return
	}
	c.set(t, c.cap+c.stride)
	c.raised = true
	c.raiseAt = t + c.patience
}

// short reports whether more connections were wanted a moment ago.
func (c *connectionLearner) short(t time.Duration) bool { return c.asked && t-c.wanted <= wantedFor }

// served samples the time that a message took on open connections.
func (c *connectionLearner) served(t, took time.Duration, open int) {
	if took <= 0 || t-took < c.climb.changed || c.known > 0 && c.phase == phaseHover {
		return
	}
	k := &c.climb
	if open > c.most() {
		k.reset(t)
		return
	}
	k.sum += took
	k.n++
	samples := max(climbSamples, 2*open)
	if k.active {
		samples = max(fineSamples, 2*samples)
	}
	if k.n < samples {
		return
	}
	mean := k.sum.Seconds() / float64(k.n)
	k.reset(t)
	if open < min(c.most(), c.peakOr(open)) {
		return // not what the cap makes of it
	}
	if mean <= 0 {
		return
	}
	k.smooth(mean)
	if k.fastest == 0 || k.mean < k.fastest {
		k.fastest = k.mean
	}
	c.measured(t, open, float64(open)/mean)
}

// smooth takes a sample's mean into the mean of the last few.
func (k *climb) smooth(mean float64) {
	if k.samples < smoothOver {
		k.samples++
	}
	k.mean += (mean - k.mean) / float64(k.samples)
}

func (c *connectionLearner) peakOr(n int) int { return max(c.peak, n) }

// measured decides by what so many connections carry.
func (c *connectionLearner) measured(t time.Duration, n int, rate float64) {
	k := &c.climb
	switch {
	case c.phase == phaseStart:
		c.double(t, n, rate)
	case k.active && n < c.most():
		// fewer are open than are to be tried
	case k.active:
		c.step(t, n, rate)
	case t >= k.restAt && k.samples == smoothOver && k.mean > slowerWorthAClimb*k.fastest && n > 1:
		k.active, k.misses, k.bestN, k.best, k.dir, k.step = true, 0, n, rate, -1, max(1, n/4)
		c.phase = phaseSearch
		c.set(t, n-k.step)
	case t >= k.restAt && c.cap > 0 && n >= c.cap && c.short(t):
		k.active, k.misses, k.bestN, k.best, k.dir, k.step = true, 0, n, rate, 1, max(1, n/4)
		c.phase = phaseSearch
		c.set(t, n+k.step)
	}
}

// double goes on with the slow start while it pays.
func (c *connectionLearner) double(t time.Duration, n int, rate float64) {
	k := &c.climb
	if k.best > 0 && n > k.bestN && rate < k.best*(1+(doublingPays-1)*float64(n-k.bestN)/float64(k.bestN)) {
		c.phase = phaseSearch
		k.active, k.misses, k.dir, k.step = true, 0, 1, max(1, k.bestN/2)
		if rate > k.best {
			k.bestN, k.best, k.step = n, rate, max(1, n/4)
			k.dir = -1
		}
		c.set(t, k.bestN+k.dir*k.step)
		return
	}
	if n < c.most() || !c.short(t) {
		return // not all in use
	}
	k.bestN, k.best = n, rate
	c.set(t, 2*c.cap)
}

// step compares with the best number so far and picks the next to try.
func (c *connectionLearner) step(t time.Duration, n int, rate float64) {
	k := &c.climb
	if n == k.bestN {
		k.best = rate
	}
	switch better := rate > climbPays*k.best || k.dir < 0 && rate > 0.99*k.best; {
	case n == k.bestN:
	case better:
		k.bestN, k.best, k.misses = n, rate, 0
	default:
		k.miss()
	}
	next := k.bestN + k.dir*k.step
	for k.step >= 1 && (next < c.low || c.high > 0 && next > c.high) {
		k.miss()
		next = k.bestN + k.dir*k.step
	}
	if k.step < 1 {
		k.active, k.restAt, next = false, t+climbPatience, k.bestN
	}
	c.set(t, next)
}

// miss turns a climb round; when both ways were in vain its steps get smaller.
func (k *climb) miss() {
	k.dir = -k.dir
	if k.misses++; k.misses == 2 {
		k.step, k.misses = k.step/2, 0
	}
}

// messageLearner finds how many messages a receiver takes on one connection. A
// refusal tells exactly; after some patience a quarter more is tried.
type messageLearner struct {
	cap      int // 0 is none
	high     int
	low      int
	at       time.Duration // of the last change
	raiseAt  time.Duration
	patience time.Duration
	tried    int // the cap before the raise under way; 0: none
	confirms int
}

const (
	leastMessagePatience = 5 * time.Minute
	mostMessagePatience  = time.Hour
	messageTrial         = 30 * time.Second
)

func (m *messageLearner) bound(l *Limits) {
	m.high, m.low = l.MessagesPerConnection, max(l.Bounds.MessagesPerConnectionLow, 1)
	if m.patience == 0 {
		m.patience = leastMessagePatience
		m.cap = l.Bounds.MessagesPerConnectionStart
		if m.cap > 0 {
			m.raiseAt = messageTrial
		}
	}
	if m.high > 0 && m.cap >= m.high {
		m.cap = 0
	}
}

// refused notes that a connection carried so many before one was refused; 0 is
// not known.
func (m *messageLearner) refused(t time.Duration, carried int) {
	most := lowest(m.cap, m.high)
	if most == 0 {
		most = assumedMessages
	}
	to := most * 8 / 10
	if carried > 0 {
		to = min(carried, most)
	}
	if t-m.at > time.Second || m.tried == 0 {
		m.confirms++
	}
	if m.tried > 0 {
		m.patience = min(m.patience*2, mostMessagePatience)
		m.tried = 0
	}
	m.cap, m.at = max(to, m.low), t
	m.raiseAt = t + m.patience
}

// raise tries more, and again while nothing is refused.
func (m *messageLearner) raise(t time.Duration) {
	if m.cap == 0 || t < m.raiseAt {
		return
	}
	if m.tried > 0 {
		m.patience = leastMessagePatience
	}
	m.tried = m.cap
	m.cap += max(1, m.cap/4)
	m.at, m.raiseAt = t, t+messageTrial
	if m.high > 0 && m.cap >= m.high {
		m.cap, m.tried = 0, 0
	}
}
