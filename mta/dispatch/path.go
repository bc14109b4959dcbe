package dispatch

import (
	"time"

	"github.com/veredus/veredus/mxrules"
)

// path is a source's way to a destination, or all sources' when the rule says
// so: what has connections, rates, quotas and a reputation.
type path struct {
	key    string
	source Source // zero when shared
	dest   *destination
	gov    *mxrules.Governor
	limits mxrules.Limits
	lines  int

	claimed   int           // messages claimed and not settled
	alone     int           // of these, ones that are claimed alone
	open      int           // sessions open that stay
	leaving   int           // sessions asked to close or retiring
	busy      int           // of those that stay, the ones that carry a message
	unused    int           // sessions that have carried nothing yet, those being opened included
	took      time.Duration // of a message, and setup of a session, as means of the last few
	setup     time.Duration
	each      int // messages that a session may carry, as of its last end; 0: no limit
	claimTurn turn
	sendTurn  turn
	holding   bool         // the governor held the last message offered
	sendAt    int64        // until then
	openHold  mxrules.Hold // what held the last line that wanted a connection
	openAt    int64        // until then; 0: not by time

	claimers list[line]    // lines that want to claim
	senders  [2]list[line] // lines with credit and claimed mail, by class
	waiters  list[line]    // lines that wait for a connection
	sessions list[session] // that stay, the oldest first

	changes    uint64 // of the governor that its sessions follow
	told       pace   // last reported, or at the beginning
	observed   pace   // what a governor that only observes would do
	history    history
	swept      *swept // counts for the hourly sweep; nil: nothing yet
	sweepTimer timer
	tenants    map[string]*tenant // domains that are held alone, on hosts that serve many
	refusals   []refusal          // of such domains, the oldest first
	suspended  bool               // reported so
	blocked    bool               // its last rest was by a block of the source's reputation
	restEnd    int64
	kept       kept
	timer      timer // when a rate, quota or rest lets it go on, or it may be forgotten
	inDirty    links[path]

	inUnsettled links[path]
}

func (c *Core) pathOf(key string, src Source, dest *destination, limits mxrules.Limits) *path {
	p := c.paths[key]
	if p != nil {
		return p
	}
	p = &path{key: key, source: src, dest: dest, limits: limits}
	p.gov = c.newGovernor(limits)
	p.claimers.of = func(l *line) *links[line] { return &l.inClaimers }
	p.senders[Bulk].of = func(l *line) *links[line] { return &l.inSenders[Bulk] }
	p.senders[Transactional].of = func(l *line) *links[line] { return &l.inSenders[Transactional] }
	p.waiters.of = func(l *line) *links[line] { return &l.inWaiters }
	p.sessions.of = func(s *session) *links[session] { return &s.inPath }
	dest.paths++
	c.paths[key] = p
	c.takeUp(p)
	if len(c.overrides) > 0 {
		c.override(p)
	}
	p.told = c.paceOf(p)
	return p
}

func (c *Core) newGovernor(limits mxrules.Limits) *mxrules.Governor {
	if c.cfg.Learner == nil {
		return mxrules.NewGovernor(limits, mxrules.WithTimings(c.cfg.Timings))
	}
	return mxrules.NewGovernor(limits, mxrules.WithTimings(c.cfg.Timings), mxrules.WithLearner(c.cfg.Learner(c.cfg.Timings)))
}

// RestoreUsage gives a path the quota meters it had before a restart, what was learned
// of it, and the rest that it was in.
func (c *Core) RestoreUsage(now time.Time, key string, u mxrules.Usage) {
	c.begin(now)
	if p := c.paths[key]; p != nil {
		c.restore(p, u)
	} else if !c.restoreApart(key, u) {
		c.usage[key] = u
	}
	c.flush()
}

// wakePath looks at a path again at an instant; zero means at the next event.
func (c *Core) wakePath(p *path, at time.Time) {
	if !at.IsZero() {
		c.pathTimers.armBy(p, max(at.UnixNano(), c.now+1))
	}
}

func (c *Core) pathDue(p *path) {
	c.dirtyPaths.push(p)
	if p.lines == 0 {
		c.forgetPath(p)
	}
}

// forgetPath drops a path without lines once nothing would be lost by that: its
// governor is as new, its buckets are full and its quotas unused.
func (c *Core) forgetPath(p *path) {
	if p.lines > 0 || p.claimed > 0 {
		return
	}
	s, u := p.gov.State(c.at), p.gov.Usage()
	if s.Open > 0 || len(p.tenants) > 0 || c.mayBeSwept(p) {
		c.pathTimers.arm(p, c.now+int64(linger))
		return
	}
	// A probe after a rest that nobody needed any more ends with the rest's memory.
	asNew := s.Rests == 0 && s.MessageRate == p.limits.MessageRate && (s.Probing || s.Hold == mxrules.HoldNone &&
		s.MaxConnections == p.limits.Connections && s.MessagesPerConnection == p.limits.MessagesPerConnection)
	if last := max(u.Hour, u.HourBulk, u.Day); !asNew || last > c.now {
		c.pathTimers.arm(p, max(last, c.now+int64(linger)))
		return
	}
	c.pathTimers.stop(p)
	c.forgetSweep(p)
	c.dirtyPaths.remove(p)
	c.unsettledWait.remove(p)
	delete(c.paths, p.key)
	p.dest.paths--
	c.forgetDestination(p.dest)
}

// refill is how long a bucket takes to be full again.
func refill(r mxrules.Rate) time.Duration {
	if r.Count <= 0 {
		return 0
	}
	return r.Per / time.Duration(r.Count) * time.Duration(max(r.Burst, 1))
}

// releasePath starts the wait after which a path without lines is forgotten.
func (c *Core) releasePath(p *path) {
	wait := max(refill(p.limits.MessageRate), refill(p.limits.ConnectionRate), time.Second)
	if !c.pressed() {
		wait = max(wait, linger)
	}
	c.pathTimers.arm(p, c.now+int64(wait))
}

// resting reports whether the path takes no message for a while.
func (c *Core) resting(p *path) bool {
	hold, at := p.gov.AllowMessage(c.at, true)
	return hold == mxrules.HoldRest && at.UnixNano() > c.now+int64(soon)
}

// pumpPath claims, sends and serves the lines that wait for a connection.
func (c *Core) pumpPath(p *path) {
	c.claimAll(p)
	c.sendAll(p)
	c.serveWaiters(p)
}

// claimAll lets the lines that want to claim do so in turn.
func (c *Core) claimAll(p *path) {
	for n := p.claimers.n; n > 0; n-- {
		l := p.claimers.pop()
		if c.claimBatch(l) {
			p.claimers.push(l)
			if p.claimed >= c.mostClaimed(p) {
				return
			}
		}
	}
}

// Figures of claiming ahead, in messages.
const (
	claimPerSession = 8 // claimed and not sent, of each class, for each session
	reserveShare    = 8 // a part of MaxClaimed that bulk leaves to transactional mail
)

// ahead is how many messages of a class a line may have claimed and not sent:
// enough for the time a claim takes, but about a second's worth of a rate, and
// no more than there are sessions when the path is held, so that what comes
// later is not behind them.
func (l *line) ahead(now int64) int {
	p := l.path
	if p.holding && p.sendAt > now {
		return l.open
	}
	if t := l.ofTenant(); t != nil && t.apart.Probing() {
		return 1
	}
	n := claimPerSession
	if rate := p.gov.MessageRate().PerSecond(); rate > 0 && rate < claimPerSession {
		n = max(1, int(rate))
	}
	return n * l.open
}

// mayClaim reports whether a line has mail to claim of a class, and room for it.
func (c *Core) mayClaim(l *line, class Class) bool {
	if l.ready[class].n+l.claiming[class] >= l.ahead(c.now) {
		return false
	}
	if class == Bulk && l.claimed >= max(1, c.mostClaimed(l.path)*l.open/max(1, l.path.open)) {
		return false
	}
	return l.pinned.n > 0 && l.pinned.head.class() == class || c.richest(l, class) != nil
}

// fullWindow is how many connections MaxClaimed is enough for: one message on each
// that is being sent, and a quarter more on the way to the disk or from it.
const fullWindow = 51

// mostClaimed is MaxClaimed, and more in proportion on a path with more
// connections than it is enough for: those beyond would never carry a message.
func (c *Core) mostClaimed(p *path) int {
	return c.cfg.MaxClaimed * max(fullWindow, p.open) / fullWindow
}

// fits reports whether the path has room for one more claim.
func (c *Core) fits(p *path, class Class) bool {
	room := c.mostClaimed(p)
	if class == Bulk {
		room -= room / reserveShare
	}
	return p.claimed < room
}

// richest is the queue from which the line takes its next message of a class.
func (c *Core) richest(l *line, class Class) *queue {
	var best *queue
	for _, ln := range l.group.lanes {
		q := &ln.queues[class]
		if len(q.ready) > 0 && (best == nil || q.ready[0].pass < best.ready[0].pass) && c.takes(l, ln, class) {
			best = q
		}
	}
	return best
}

// queueClaims notes that a line wants to claim.
func (c *Core) queueClaims(l *line) {
	if held, _ := c.tenantHeld(l); held {
		return
	}
	if l.open > 0 && c.usable(l) && (c.mayClaim(l, Transactional) || c.mayClaim(l, Bulk)) {
		l.path.claimers.push(l)
		c.dirtyPaths.push(l.path)
	}
}

// claimBatch claims what the line may; blocked says that the path, not the
// line, kept it from more.
func (c *Core) claimBatch(l *line) (blocked bool) {
	p, from := l.path, len(c.ids)
	if !c.usable(l) || l.open == 0 {
		return false
	}
	for {
		transactional, bulk := c.mayClaim(l, Transactional), c.mayClaim(l, Bulk)
		if !transactional && !bulk {
			break
		}
		class := p.claimTurn.next(transactional, bulk)
		if !c.claimable(l, class) {
			if class == Transactional || !transactional || !c.claimable(l, Transactional) {
				blocked = true
				break
			}
			class = Transactional
		}
		p.claimTurn.took(class, bulk)
		c.claimOne(l, class)
	}
	if len(c.ids) > from {
		c.emit(Action{
			Kind: Claim, Msgs: c.ids[from:len(c.ids):len(c.ids)], Usage: p.gov.Usage(), Path: p.key,
			Source: l.source.Source, Destination: p.dest.name, WarmUp: c.warmState(l.source),
		})
	}
	return blocked
}

// claimable reports whether the path's window and quotas, and the source's warm-up, let
// one message of a class be claimed.
func (c *Core) claimable(l *line, class Class) bool {
	p := l.path
	if !c.fits(p, class) || p.alone > 0 && c.nextOf(l, class).alone {
		return false
	}
	hold, at := p.gov.AllowClaim(c.at, class == Transactional)
	if hold != mxrules.HoldNone {
		c.wakePath(p, at)
		return false
	}
	return c.roomToClaim(l)
}

// nextOf is the message that the line claims next of a class; there must be one.
func (c *Core) nextOf(l *line, class Class) *msg {
	if m := l.pinned.head; m != nil && m.class() == class {
		return m
	}
	_, m := c.richest(l, class).head()
	return m
}

func (c *Core) claimOne(l *line, class Class) {
	m := l.pinned.head
	if m != nil && m.class() == class {
		l.pinned.remove(m)
		unkeep(m)
	} else {
		m = c.richest(l, class).take()
	}
	m.line, m.state, m.asked = l, msgClaiming, true
	m.run.work.unclaimed--
	l.claiming[class]++
	l.claimed++
	l.path.claimed++
	if m.alone {
		l.path.alone++
	}
	l.path.gov.Claimed(c.at, 1)
	c.charge(l, m)
	c.ids = append(c.ids, m.id)
	c.refresh(m.run)
}

// Claimed reports that claims are durable. The messages may be sent.
func (c *Core) Claimed(now time.Time, ids []MsgID) {
	c.begin(now)
	for _, id := range ids {
		m := c.msgs[id]
		if m == nil || m.state != msgClaiming {
			continue
		}
		l := m.line
		l.claiming[m.class()]--
		m.state = msgClaimed
		if m.back {
			c.giveBack(m)
			continue
		}
		l.ready[m.class()].push(m)
		c.queueLine(l)
		c.dirtyGroups.push(l.group)
	}
	c.flush()
}

// queueLine keeps a line in the path's queues of those that could send.
func (c *Core) queueLine(l *line) {
	may := (l.idle.n > 0 || c.mayPark(l)) && c.usable(l)
	if held, _ := c.tenantHeld(l); held {
		may = false
	}
	for class := range l.ready {
		ready := may && l.ready[class].n > 0
		l.path.senders[class].set(l, ready)
		if ready {
			c.dirtyPaths.push(l.path)
		}
	}
}

// sendAll sends what sessions have credit for and the governor allows. Lines
// take turns, so that no group waits for another's rate.
func (c *Core) sendAll(p *path) {
	for {
		transactional, bulk := p.senders[Transactional].n > 0, p.senders[Bulk].n > 0
		if !transactional && !bulk {
			return
		}
		if c.brimful() {
			c.unsettledWait.push(p)
			return
		}
		class := p.sendTurn.next(transactional, bulk)
		if !c.allowed(p, class) {
			// The hourly quota keeps a part for transactional mail.
			if class == Transactional || !transactional || !c.allowed(p, Transactional) {
				return
			}
			class = Transactional
		}
		l := p.senders[class].head
		if c.send(l, class) {
			p.sendTurn.took(class, bulk)
		}
		p.senders[class].remove(l) // behind the others
		c.queueLine(l)
	}
}

// allowed asks the governor for one message.
func (c *Core) allowed(p *path, class Class) bool {
	hold, at := p.gov.AllowMessage(c.at, class == Transactional)
	p.holding, p.sendAt = hold != mxrules.HoldNone, nanos(at)
	if p.holding {
		c.wakePath(p, at)
	}
	return !p.holding
}

// holdOf says what keeps a line's path from one more session, and until when.
// None is opened to wait for a rate or a quota, but for one at a time
// shortly before a rate lets the next message go: so lines without a session
// get their part of the rate, and connections are not made for nothing.
func (c *Core) holdOf(l *line) (mxrules.Hold, int64) {
	p := l.path
	transactional := c.transactional(l)
	hold, at := p.gov.AllowMessage(c.at, transactional)
	if hold == mxrules.HoldNone && (l.sessions.n > 0 || l.unsent() == 0) {
		hold, at = p.gov.AllowClaim(c.at, transactional)
	}
	if hold == mxrules.HoldNone && p.plenty() && (l.sessions.n > 0 || p.unused > 0) {
		return mxrules.HoldMessageRate, 0
	}
	if hold != mxrules.HoldNone && !(hold == mxrules.HoldMessageRate && p.short()) {
		early := nanos(at) - int64(c.cfg.IdleTimeout/2)
		if l.sessions.n > 0 || p.unused > 0 {
			return hold, nanos(at)
		}
		if early > c.now {
			return hold, early
		}
	}
	hold, at = p.gov.AllowConnection(c.at)
	return hold, nanos(at)
}

// short reports whether the path has too few sessions to use its rate: so many are
// busy at a time, and so many being opened for those that end after their last
// message.
func (p *path) short() bool {
	rate := p.gov.MessageRate().PerSecond()
	if rate == 0 || p.took == 0 {
		return false
	}
	const reserve = 1.2
	need := reserve * rate * p.took.Seconds()
	if p.each > 0 {
		need += reserve * rate / float64(p.each) * p.setup.Seconds()
	}
	return float64(p.sessions.n) < need
}

// plenty reports whether the path has free sessions for its burst and for a
// twentieth of a second. When messages take longer they are soon in use, and more
// are opened.
func (p *path) plenty() bool {
	rate := p.gov.MessageRate()
	return rate.Count > 0 && !p.short() && p.sessions.n-p.busy >= max(1, rate.Burst)+1+int(rate.PerSecond()/20)
}

// transactional reports whether the line would have transactional mail to send.
func (c *Core) transactional(l *line) bool {
	if l.ready[Transactional].n+l.claiming[Transactional] > 0 || l.pinned.n > 0 && l.pinned.head.class() == Transactional {
		return true
	}
	for _, ln := range l.group.lanes {
		if ln.queues[Transactional].any() && c.takes(l, ln, Transactional) {
			return true
		}
	}
	return false
}

// any reports whether the queue has mail in memory or in the store.
func (q *queue) any() bool { return len(q.ready)+q.starving.n+q.hungry.n > 0 }

// serveWaiters gives free connections to the lines that wait for one, in order.
// A line that still wants more afterwards goes behind the others, and so does one that
// has sessions when there are no connections left: those behind it may have none.
func (c *Core) serveWaiters(p *path) {
	for n := p.waiters.n; n > 0; n-- {
		l := p.waiters.pop()
		if c.lineWants(l) && c.dial(l) == dialHeld {
			if n > 1 && l.sessions.n > 0 && p.openHold == mxrules.HoldConnections {
				p.waiters.push(l)
				continue
			}
			p.waiters.pushFront(l)
			c.reclaimConnection(p, l)
			return
		}
		c.dirtyGroups.push(l.group)
	}
}
