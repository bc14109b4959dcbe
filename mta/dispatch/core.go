package dispatch

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// none is an instant that never comes.
const none = int64(math.MaxInt64)

// Figures of the core that no rule sets.
const (
	// linger is how long a destination without mail is remembered, so that a short
	// lull does not ask for its route again.
	linger = 10 * time.Minute
	// soon is how long messages stay in memory while their path waits for time.
	soon = 10 * time.Second
	// maxRouteLife bounds Route.Expires, so that a clock that was set back for a
	// moment cannot pin a route; minRouteLife keeps a time to live of zero from
	// asking for every message.
	maxRouteLife = 24 * time.Hour
	minRouteLife = 10 * time.Second
)

// Core is the dispatch state machine. The zero value is not usable; New makes one.
type Core struct {
	cfg Config
	rng *rand.Rand

	at  time.Time // time of the event under way
	now int64     // the same in Unix nanoseconds

	rules   *mxrules.Rules
	masks   []mxrules.Mask // on recipient domains, of all rules
	pools   map[string]*pool
	sources map[string]*source
	version uint64 // of the pools

	warmths        map[string]*warmth             // by source, also of sources that have none now
	warmStates     map[string]mxrules.WarmUpState // restored, of sources not warmed up yet
	warmTimers     timers[source]
	releases       list[source] // whose waiting lines may have room
	changedWarmths []*warmth

	deliveries map[DeliveryID]*delivery
	inOrder    list[delivery]
	senders    map[sender]*sender
	runs       Table[run] // by RunID
	retries    timers[run]

	domains      map[string]*domain
	domainTimers timers[domain]
	lookups      [2]list[delivery] // with domains waiting for a look-up, by class
	lookupTurn   turn
	resolving    int
	again        int          // of these, look-ups that follow a failure
	supply       int          // domains with mail that goes out now
	paced        int64        // when the last look-up was due that had to keep the pace
	trickle      bool         // the next look-up is one in spite of a crowd
	lookupAt     int64        // when one that waits for the pace is due; none
	dead         list[domain] // domains that failed for good and have mail
	failing      int          // messages asked for or held, to be failed
	failQueue    list[msg]    // loaded, waiting for room among the unsettled

	destinations map[string]*destination
	groups       map[string]*group
	groupOrder   list[group]
	groupTimers  timers[group]
	flows        map[flowKey]*flow
	paths        map[string]*path
	pathTimers   timers[path]
	lineTimers   timers[line]
	tenantTimers timers[tenant]
	sweepTimers  timers[path]
	apart        map[string]int           // domains that are tenants of so many paths
	usage        map[string]mxrules.Usage // restored, of paths not used yet
	heldApart    map[string][]heldApart   // restored, of domains held alone on paths not used yet
	overrides    map[overrideKey]*Override
	overrideEnd  int64 // when the next of them ends; none

	msgs     map[MsgID]*msg
	loaded   list[msg] // every message in memory, by age
	freeMsgs []*msg
	freeWork []*work

	sessions    map[SessionID]*session
	lastSession SessionID
	byAge       list[session]
	idle        list[session] // with credit, the longest idle first
	parked      list[session] // with a message that waits for the one before, the longest first
	stuck       list[session] // with one that was asked for and did not come back
	held        int           // slots in use: sessions from Open to their end
	leaving     int           // of these, asked to close or retiring
	slotQueues  [kinds]list[destination]
	opening     int // sessions being opened
	probes      int // of these, on lines not known to work
	slotTurn    turn
	hastes      int // probes in a row that did not wait behind others for a slot
	crowd       crowd
	turnAt      int64 // when a session's turn ends that others wait for; none

	ready, deferred int64 // as in each destination

	unsettled     int
	unsettledWait list[path]

	stopped  int // suspensions of everything
	suspends map[string]Selector
	stops    stops
	paused   map[DeliveryID]struct{}

	dirtyPaths  list[path]
	dirtyGroups list[group]

	out, spare  []Action
	ids, idPool []MsgID
}

// New makes a core that knows no mail yet. rules nil means no limits.
func New(cfg Config, pools []Pool, rules *mxrules.Rules) *Core {
	c := &Core{
		cfg:          cfg.withDefaults(),
		rng:          rand.New(rand.NewPCG(cfg.Seed, 0x7665726564757321)),
		pools:        map[string]*pool{},
		sources:      map[string]*source{},
		warmths:      map[string]*warmth{},
		warmStates:   map[string]mxrules.WarmUpState{},
		deliveries:   map[DeliveryID]*delivery{},
		senders:      map[sender]*sender{},
		domains:      map[string]*domain{},
		destinations: map[string]*destination{},
		groups:       map[string]*group{},
		flows:        map[flowKey]*flow{},
		apart:        map[string]int{},
		paths:        map[string]*path{},
		usage:        map[string]mxrules.Usage{},
		heldApart:    map[string][]heldApart{},
		overrides:    map[overrideKey]*Override{},
		overrideEnd:  none,
		msgs:         map[MsgID]*msg{},
		sessions:     map[SessionID]*session{},
		suspends:     map[string]Selector{},
		stops:        newStops(),
		paused:       map[DeliveryID]struct{}{},
		turnAt:       none,
		lookupAt:     none,
	}
	c.warmTimers.of = func(s *source) *timer { return &s.timer }
	c.releases.of = func(s *source) *links[source] { return &s.inReleases }
	c.inOrder.of = func(d *delivery) *links[delivery] { return &d.inOrder }
	c.retries.of = func(r *run) *timer { return &r.retry }
	c.domainTimers.of = func(d *domain) *timer { return &d.timer }
	for class := range c.lookups {
		c.lookups[class].of = func(d *delivery) *links[delivery] { return &d.lookups[class].inTurn }
	}
	c.dead.of = func(d *domain) *links[domain] { return &d.trouble.inDead }
	c.failQueue.of = msgQueued
	c.groupOrder.of = func(g *group) *links[group] { return &g.inOrder }
	c.groupTimers.of = func(g *group) *timer { return &g.timer }
	c.pathTimers.of = func(p *path) *timer { return &p.timer }
	c.lineTimers.of = func(l *line) *timer { return &l.timer }
	c.sweepTimers.of = func(p *path) *timer { return &p.sweepTimer }
	c.tenantTimers.of = func(t *tenant) *timer { return &t.timer }
	c.loaded.of = func(m *msg) *links[msg] { return &m.inCore }
	c.byAge.of = func(s *session) *links[session] { return &s.inCore }
	c.idle.of = func(s *session) *links[session] { return &s.inIdle }
	c.parked.of = func(s *session) *links[session] { return &s.inParked }
	c.stuck.of = c.parked.of
	for kind := range c.slotQueues {
		c.slotQueues[kind].of = func(d *destination) *links[destination] { return &d.inSlots[kind] }
	}
	c.unsettledWait.of = func(p *path) *links[path] { return &p.inUnsettled }
	c.dirtyPaths.of = func(p *path) *links[path] { return &p.inDirty }
	c.dirtyGroups.of = func(g *group) *links[group] { return &g.inDirty }
	c.setRules(rules)
	c.setPools(pools)
	return c
}

func (c Config) withDefaults() Config {
	orInt := func(n *int, value int) {
		if *n <= 0 {
			*n = value
		}
	}
	orTime := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	orInt(&c.MaxSessions, 1000)
	orInt(&c.MaxUnsettled, 1024)
	orInt(&c.MaxClaimed, 64)
	orInt(&c.MaxResolving, 64)
	orInt(&c.Credit, 1)
	orInt(&c.MaxGroups, 16_384)
	orTime(&c.IdleTimeout, 5*time.Second)
	orTime(&c.HostCooldown, 5*time.Minute)
	timings := mxrules.DefaultTimings()
	orTime(&c.Timings.BackoffFirst, timings.BackoffFirst)
	orTime(&c.Timings.BackoffMax, timings.BackoffMax)
	orTime(&c.Timings.RestFirst, timings.RestFirst)
	orTime(&c.Timings.Quota, timings.Quota)
	return c
}

// Take answers the actions since the last Take, in the order to carry them out.
// The slice and its Msgs are valid until the next Take; events may be reported
// while going through it.
func (c *Core) Take() []Action {
	taken := c.out
	c.out, c.spare = c.spare[:0], taken
	c.ids, c.idPool = c.idPool[:0], c.ids
	return taken
}

func (c *Core) emit(a Action) { c.out = append(c.out, a) }

// Wake is when Tick is due; zero when nothing waits for time.
func (c *Core) Wake() time.Time {
	at := min(c.retries.next(), c.domainTimers.next(), c.groupTimers.next(),
		c.pathTimers.next(), c.lineTimers.next(), c.tenantTimers.next(), c.sweepTimers.next(), c.warmTimers.next(), c.turnAt, c.idleEnd(), c.parkEnd(), c.lookupAt, c.overrideEnd)
	if at == none {
		return time.Time{}
	}
	return time.Unix(0, at)
}

// Tick reports that the time asked for by Wake came. An early one does no harm.
func (c *Core) Tick(now time.Time) {
	c.begin(now)
	c.flush()
}

// begin starts an event. A clock that steps back takes the waits with it, so
// that none gets longer; one that steps forward ends them early.
func (c *Core) begin(now time.Time) {
	t := now.UnixNano()
	if back := t - c.now; back < 0 && c.now != 0 {
		c.stepBack(back)
	}
	c.at, c.now = now, t
	c.fire()
}

func (c *Core) stepBack(by int64) {
	c.domainTimers.shift(by)
	c.groupTimers.shift(by)
	c.pathTimers.shift(by)
	c.lineTimers.shift(by)
	c.tenantTimers.shift(by)
	c.sweepTimers.shift(by)
	for s := c.byAge.head; s != nil; s = s.inCore.next {
		s.opened += by
		s.creditAt += by
		s.idleSince += by
		s.parkedAt += by
	}
	if c.turnAt != none {
		c.turnAt += by
	}
	c.paced += by
	for g := c.groupOrder.head; g != nil; g = g.inOrder.next {
		g.shift(by)
	}
	c.rewarmAll()
}

// fire handles every timer that is due.
func (c *Core) fire() {
	for r := c.retries.due(c.now); r != nil; r = c.retries.due(c.now) {
		c.refresh(r)
	}
	for d := c.domainTimers.due(c.now); d != nil; d = c.domainTimers.due(c.now) {
		c.domainDue(d)
	}
	for g := c.groupTimers.due(c.now); g != nil; g = c.groupTimers.due(c.now) {
		c.groupDue(g)
	}
	for p := c.pathTimers.due(c.now); p != nil; p = c.pathTimers.due(c.now) {
		c.pathDue(p)
	}
	for l := c.lineTimers.due(c.now); l != nil; l = c.lineTimers.due(c.now) {
		c.dirtyGroups.push(l.group)
	}
	for p := c.sweepTimers.due(c.now); p != nil; p = c.sweepTimers.due(c.now) {
		c.sweep(p)
	}
	for t := c.tenantTimers.due(c.now); t != nil; t = c.tenantTimers.due(c.now) {
		c.tenantDue(t)
	}
	for s := c.warmTimers.due(c.now); s != nil; s = c.warmTimers.due(c.now) {
		c.warmDue(s)
	}
	c.closeIdle()
	c.unpark()
	if c.overrideEnd <= c.now {
		c.endOverrides()
	}
	if c.turnAt <= c.now {
		c.turnAt = none
	}
}

// flush decides until nothing is left to decide.
func (c *Core) flush() {
	for {
		switch {
		case c.dirtyPaths.n > 0:
			c.pumpPath(c.dirtyPaths.pop())
		case c.dirtyGroups.n > 0:
			c.pumpGroup(c.dirtyGroups.pop())
		case c.releases.n > 0:
			c.release(c.releases.pop())
		case c.unsettledWait.n > 0 && !c.brimful():
			c.pumpPath(c.unsettledWait.pop())
		case c.failQueue.n > 0 && !c.brimful():
			c.fail(c.failQueue.pop())
		case c.pumpSlots():
		case c.flushWarmths():
		case c.relieve():
		default:
			c.pumpLookups()
			c.pumpDead()
			return
		}
	}
}

// nanos is an instant in Unix nanoseconds; zero stays 0.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// moment is the inverse of nanos; none becomes zero too.
func moment(t int64) time.Time {
	if t == 0 || t == none {
		return time.Time{}
	}
	return time.Unix(0, t)
}

// turn deals slots between transactional and bulk mail while both are ready:
// of ten in a row at most nine are transactional.
type turn struct{ transactional int8 }

const maxTransactional = 9

// next is the class whose turn it is; one of them must be ready.
func (t turn) next(transactional, bulk bool) Class {
	if transactional && (!bulk || t.transactional < maxTransactional) {
		return Transactional
	}
	return Bulk
}

// took records a slot used; bulk says whether bulk mail was ready then.
func (t *turn) took(class Class, bulk bool) {
	if class == Transactional && bulk {
		t.transactional++
		return
	}
	t.transactional = 0
}
