package dispatch

import (
	"slices"
	"strings"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// line is one source's way to one group: what has sessions, host cool-downs and
// the back-off after failures before MAIL. So a failing tenant of a large
// provider rests alone, while throttling rests the path of all.
type line struct {
	path   *path
	group  *group
	source *source
	limits mxrules.Limits // of sessions: TLS, timeouts, features, messages per connection

	sessions list[session] // from Open to their end, closing ones too
	idle     list[session] // with credit, the last used first
	spare    list[session] // that carry one message and may be given the next
	opening  int
	open     int // open and not asked to close

	pinned   list[msg]    // loaded for this source alone
	ready    [2]list[msg] // claimed, by class
	claiming [2]int
	claimed  int // claimed and not settled

	cool       []int64 // until when each host is skipped; nil: none
	failed     string  // why, the last time
	level      int     // back-offs in a row
	until      int64   // end of the back-off
	failedAt   int64   // when the first of the back-offs in a row began
	servedAt   int64   // when a message was answered last
	servedHost int     // by which host
	barren     int     // sessions in a row that served nothing
	proven     bool    // a host has worked since the last failure
	obsolete   bool    // by new rules: drains, another line takes over
	timer      timer   // when to try again

	inClaimers links[line]
	inSenders  [2]links[line]
	inWaiters  links[line]
	inSlot     links[line]
	inWarm     links[line] // waits for its source's warm-up
	reserved   bool        // of the source's room, for a session's first claim
	warmSince  int64       // since when the warm-up holds it, shorter releases between left out
	warmLast   int64       // when it was held last
}

// lineOf finds or makes the line of a source to a group.
func (c *Core) lineOf(g *group, src *source) *line {
	for _, l := range g.lines {
		if l.source == src && !l.obsolete {
			return l
		}
	}
	l := &line{group: g, source: src, level: g.level}
	l.sessions.of = func(s *session) *links[session] { return &s.inLine }
	l.idle.of = func(s *session) *links[session] { return &s.inCredit }
	l.spare.of = func(s *session) *links[session] { return &s.inSpare }
	l.pinned.of = msgQueued
	l.ready[Bulk].of, l.ready[Transactional].of = msgQueued, msgQueued
	key, limits, shared := c.pathFor(g, src)
	l.limits = limits
	owner := src.Source
	if shared {
		owner = Source{}
	}
	l.path = c.pathOf(key, owner, g.dest, limits)
	c.tighten(l.path, limits)
	l.path.lines++
	g.lines = append(g.lines, l)
	return l
}

// tighten makes the path keep the limits of one more line. Lines of one path
// differ when rules name some of its MX hosts; then the strictest hold.
func (c *Core) tighten(p *path, limits mxrules.Limits) {
	if p.lines > 0 {
		limits = strictest(p.limits, limits)
	}
	if limits != p.limits {
		p.limits = limits
		p.gov.SetLimits(c.at, limits)
	}
}

// strictest takes the lower of each count and rate of a path.
func strictest(a, b mxrules.Limits) mxrules.Limits {
	a.Connections = lower(a.Connections, b.Connections)
	a.MessagesPerConnection = lower(a.MessagesPerConnection, b.MessagesPerConnection)
	a.MessagesPerHour = lower(a.MessagesPerHour, b.MessagesPerHour)
	a.MessagesPerDay = lower(a.MessagesPerDay, b.MessagesPerDay)
	a.ConnectionRate = slower(a.ConnectionRate, b.ConnectionRate)
	a.MessageRate = slower(a.MessageRate, b.MessageRate)
	return a
}

// lower is the lower of two counts of which 0 is no limit.
func lower(a, b int) int {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func slower(a, b mxrules.Rate) mxrules.Rate {
	if a.IsZero() || !b.IsZero() && b.PerSecond() < a.PerSecond() {
		return b
	}
	return a
}

// dropLine ends a line without sessions and messages.
func (c *Core) dropLine(l *line) {
	c.lineTimers.stop(l)
	leave(&l.inClaimers, l)
	leave(&l.inSenders[Bulk], l)
	leave(&l.inSenders[Transactional], l)
	leave(&l.inWaiters, l)
	leave(&l.inWarm, l)
	c.unreserve(l)
	c.leaveSlots(l)
	l.path.lines--
	if l.path.lines == 0 {
		c.releasePath(l.path)
	}
}

// dropSpentLines drops the lines of removed sources once they have drained.
func (c *Core) dropSpentLines(g *group) {
	g.lines = slices.DeleteFunc(g.lines, func(l *line) bool {
		spent := (l.source.removed || l.obsolete) && l.sessions.n == 0 && l.claimed == 0 && l.pinned.n == 0
		if spent {
			c.dropLine(l)
		}
		return spent
	})
}

// usable reports whether the line may open sessions and send at all.
func (c *Core) usable(l *line) bool {
	return c.stopped == 0 && !l.group.dest.stopped && !l.source.stopped && !l.source.removed && !l.obsolete
}

// sendable reports whether mail pinned to the line's source can wait for it.
func (c *Core) sendable(l *line) bool {
	return c.usable(l) && l.until <= c.now && !c.rests(l)
}

// pinLine is the line that a loaded message has to wait for; nil if any will do, also
// because its source cannot send in time.
func (c *Core) pinLine(m *msg) *line {
	if m.pin == nil || m.pin.removed || !m.run.pool.reaches(m.pin) {
		return c.keepFor(m)
	}
	l := c.lineOf(m.run.flow.lane.group, m.pin)
	if !c.sendable(l) || l.pinned.n >= loadPerLine && !l.source.cold() {
		return nil
	}
	return l
}

// unpin lets any source take what was pinned to a line, but for what has to wait for
// that one.
func (c *Core) unpin(l *line) {
	for m := l.pinned.head; m != nil; m = l.pinned.head {
		l.pinned.remove(m)
		unkeep(m)
		m.line = nil
		if until, waits := c.waitsForSource(m); waits || m.blocked && m.pin != nil {
			m.run.work.unclaimed--
			c.postpone(m, max(until, c.now+int64(leastPostponed)))
			c.refresh(m.run)
			continue
		}
		m.pin = nil
		m.run.flow.add(m.run, m)
		m.run.flow.place()
	}
}

// comingSoon reports whether a line without a session waits for a moment only.
func (c *Core) comingSoon(l *line) bool {
	if !c.usable(l) {
		return false
	}
	end := c.now + int64(soon)
	return l.timer.armed() && l.timer.at <= end ||
		waitsForWarmth(l) && l.source.timer.at <= end ||
		l.path.waiters.head == l && c.now < l.path.openAt && l.path.openAt <= end
}

// unsent is how many messages the line has claimed and not sent.
func (l *line) unsent() int {
	return l.ready[Bulk].n + l.ready[Transactional].n + l.claiming[Bulk] + l.claiming[Transactional]
}

// wants reports whether a lane has more mail waiting than sessions to take it.
func (c *Core) wants(l *lane) bool {
	waiting := l.waiting
	if c.stopped > 0 || l.group.dest.stopped {
		return false
	}
	for _, ln := range l.group.lines {
		if !l.pool.reaches(ln.source) {
			continue
		}
		waiting += int64(ln.unsent() - ln.pinned.n - ln.opening)
		if !waitsForWarmth(ln) {
			waiting -= int64(ln.idle.n)
		}
	}
	return waiting > 0
}

// wantsOwn reports whether a line has mail of its own and no session for it.
func (l *line) wantsOwn() bool { return l.unsent()+l.pinned.n > 0 && l.opening+l.open == 0 }

// lineWants reports whether a line should get one more session.
func (c *Core) lineWants(l *line) bool {
	if !c.eligible(l) {
		return false
	}
	if l.wantsOwn() {
		return true
	}
	for _, ln := range l.group.lanes {
		if c.serves(l, ln) && c.wants(ln) {
			return true
		}
	}
	return false
}

// openOwn opens a session for mail that only this line can send.
func (c *Core) openOwn(l *line) {
	if l.wantsOwn() && c.eligible(l) {
		c.open(l)
	}
}

// openFor opens sessions for a lane until its mail has enough, or no source may.
func (c *Core) openFor(l *lane) {
	for c.wants(l) {
		ln := c.choose(l)
		if ln == nil {
			return
		}
		c.open(ln)
	}
}

// eligible reports whether the line itself may ask for a connection now. When
// its back-off is what is missing, it is looked at again at its end.
func (c *Core) eligible(l *line) bool {
	if !c.usable(l) || l.timer.armed() || l.inWaiters.on != nil || l.inSlot.on != nil {
		return false
	}
	if !l.proven && l.opening > 0 {
		return false // one at a time until a host is known to work
	}
	if l.until > c.now {
		c.lineTimers.arm(l, l.until)
		return false
	}
	if held, until := c.tenantHeld(l); held {
		if until > 0 {
			c.lineTimers.arm(l, max(until, c.now+1))
		}
		return false
	}
	if t := l.ofTenant(); t != nil && t.apart.Probing() && l.sessions.n > 0 {
		return false // one at a time, too, until it is known to be served again
	}
	return !c.draining(l) && c.roomToOpen(l)
}

// draining reports whether an older line of the same source still has sessions.
func (c *Core) draining(l *line) bool {
	for _, o := range l.group.lines {
		if o.obsolete && o.source == l.source && o.sessions.n > 0 {
			return true
		}
	}
	return false
}

// host picks the host to dial: by preference, at random among equals, none that
// cools down.
func (c *Core) host(l *line) int {
	best, ties := -1, 0
	for i := range l.group.hosts {
		if l.cool != nil && l.cool[i] > c.now {
			continue
		}
		if best >= 0 && l.group.hosts[i].Preference != l.group.hosts[best].Preference {
			break
		}
		ties++
		if best < 0 || c.rng.IntN(ties) == 0 {
			best = i
		}
	}
	return max(best, 0)
}

// hostFault skips a host for a while. When none is left the line backs off and
// all are tried anew after that.
func (c *Core) hostFault(l *line, host int, text string) {
	l.proven = false
	l.failed = clip(text)
	if l.cool == nil {
		l.cool = make([]int64, len(l.group.hosts))
	}
	l.cool[host] = c.now + int64(c.cfg.HostCooldown)
	for _, until := range l.cool {
		if until <= c.now {
			return
		}
	}
	c.backOff(l)
}

// backOff keeps the line from dialling for a minute, doubling to an hour.
func (c *Core) backOff(l *line) {
	l.cool, l.proven = nil, false
	if l.until > c.now {
		return // dials under way when the wait began
	}
	if l.level == 0 {
		l.failedAt = c.now
	}
	l.until = c.now + min(c.backoff(l.level), l.mostBackoff(c.now))
	l.level = min(l.level+1, maxLevel)
	if l.path.open == 0 {
		c.reportSuspended(l.path, l.failed, l.until)
	}
}

// A destination that served a source not long ago has an outage rather than an end:
// it is asked again often enough to be back soon after it is.
const (
	lateService = 24 * time.Hour
	soonBack    = 2 * time.Minute
)

// mostBackoff is the longest the line waits between two dials.
func (l *line) mostBackoff(now int64) int64 {
	if l.limits.Governor == mxrules.GovernorOn && l.servedAt != 0 && now-l.servedAt < int64(lateService) {
		return int64(soonBack)
	}
	return none
}

// worked notes that a host of the line serves.
func (c *Core) worked(l *line) {
	l.level, l.barren, l.until, l.group.level = 0, 0, 0, 0
	if l.timer.armed() {
		c.lineTimers.stop(l)
		c.dirtyGroups.push(l.group)
	}
}

// maxText bounds the reply texts kept for explanations, in bytes.
const maxText = 512

func clip(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(strings.Clone(text[:maxText]), "") // a rune may have been cut
}
