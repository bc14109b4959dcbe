package dispatch

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// Warm-up: the cap of a cold source is charged when its messages are claimed, and the
// state goes with the claim, so that it holds over a crash. What a claim that was never
// sent was charged is given back.
//
// Lines that want to open a session or to claim and find no room wait in the queue of
// their source and provider, and are let go one at a time as mail is released, those
// with mail of their own first: greylisted mail, which keeps its source, and that of
// engaged recipients.

// warmth is a source's warm-up.
type warmth struct {
	source   *source // that it belongs to now
	up       *mxrules.WarmUp
	reserved int64 // sessions being opened, or open, for a claim to come
	kept     int64 // engaged recipients' messages that wait for it
	queues   []*warmQueue
	turn     int
	changed  bool
}

// warmQueue is the lines to one provider that wait for room.
type warmQueue struct {
	provider      string
	opens, claims list[line]
	opensNext     bool // whose turn it is
}

func lineInWarm(l *line) *links[line] { return &l.inWarm }

// cold reports whether the source is being warmed up.
func (s *source) cold() bool { return s.warmth != nil && s.warmth.up.Active() }

// setWarmUp gives a source the warm-up that its configuration asks for. What was
// known of the name stays known, also while it has none.
func (c *Core) setWarmUp(s *source) {
	if s.WarmUp == nil {
		if s.warmth != nil {
			s.warmth = nil
			c.warmTimers.stop(s)
		}
		return
	}
	w := c.warmths[s.Name]
	switch {
	case w == nil || w.source.Addr != s.Addr:
		w = &warmth{up: mxrules.NewWarmUp(s.WarmUp, s.Stage)}
		c.warmths[s.Name] = w
		if state, ok := c.warmStates[s.Name]; ok && state.Address == addressText(s.Source) {
			w.up.Restore(c.at, state)
		}
		delete(c.warmStates, s.Name)
	default:
		w.up.SetPlan(c.at, s.WarmUp)
	}
	w.source, s.warmth = s, w
	if c.now != 0 {
		c.warmChanged(w)
	}
	c.warmTimers.arm(s, max(c.now, 1)) // at the next event
}

// addressText is a source's address as its warm-up keeps it; empty for any.
func addressText(s Source) string {
	if !s.Addr.IsValid() {
		return ""
	}
	return s.Addr.String()
}

// RestoreWarmUp gives a source the warm-up that it had before a restart. One of another
// address begins anew.
func (c *Core) RestoreWarmUp(now time.Time, name string, state mxrules.WarmUpState) {
	c.begin(now)
	if s := c.sources[name]; s != nil && s.warmth != nil {
		if state.Address == addressText(s.Source) {
			s.warmth.up.Restore(c.at, state)
			c.warmChanged(s.warmth)
			c.warmTimers.arm(s, max(c.now, 1))
		}
	} else {
		c.warmStates[name] = state
	}
	c.flush()
}

// SetWarmUp puts a source's warm-up at a stage, from 1, or ends it. It answers false
// for a source without one.
func (c *Core) SetWarmUp(now time.Time, name string, stage int, off bool) bool {
	c.begin(now)
	s := c.sources[name]
	if s == nil || s.warmth == nil {
		c.flush()
		return false
	}
	if off {
		s.warmth.up.SwitchOff(c.at, "an operator ended it")
	} else {
		s.warmth.up.SetStage(c.at, stage)
	}
	c.warmChanged(s.warmth)
	c.rewarm(s)
	c.flush()
	return true
}

// Complained reports a complaint about a message that a source had delivered to a
// destination.
func (c *Core) Complained(now time.Time, name, destination string) {
	c.begin(now)
	c.complainedOn(name, destination)
	if s := c.sources[name]; s != nil && s.warmth != nil {
		s.warmth.up.Complained(c.at)
		c.warmChanged(s.warmth)
	}
	c.flush()
}

// warmChanged notes that a warm-up's state has to be kept.
func (c *Core) warmChanged(w *warmth) {
	if !w.changed {
		w.changed = true
		c.changedWarmths = append(c.changedWarmths, w)
	}
}

// warmDue is a source's timer: mail is released, or the day changed.
func (c *Core) warmDue(s *source) {
	w := s.warmth
	if w == nil || s.removed {
		return
	}
	day := w.up.State().Day
	w.up.Tick(c.at)
	if day != 0 && w.up.State().Day != day {
		c.warmChanged(w)
		c.rewarm(s)
	}
	c.warmTimers.arm(s, max(w.up.Next(c.at).UnixNano(), c.now+1))
	c.releases.push(s)
}

// rewarm looks at everything that depends on a source's stage: claims that the cap of
// today does not cover go back, and all its lines may have more or less room.
func (c *Core) rewarm(s *source) {
	w := s.warmth
	c.returnWhere(func(m *msg) bool {
		return m.charged == w && m.state != msgSending && w.up.Over(c.at, m.line.group.dest.provider)
	})
	for g := c.groupOrder.head; g != nil; g = g.inOrder.next {
		c.dirtyGroups.push(g)
	}
}

// rewarmAll is for a clock that was set back: days may be charged that are yet to come.
func (c *Core) rewarmAll() {
	for _, name := range slices.Sorted(maps.Keys(c.sources)) {
		if s := c.sources[name]; s.warmth != nil {
			c.rewarm(s)
			c.warmTimers.arm(s, c.now)
		}
	}
}

// roomToOpen reports whether a cold line may open a session: for what is claimed
// already, or for a message that there is room for. Else the line waits.
func (c *Core) roomToOpen(l *line) bool {
	if !l.source.cold() || l.unsent() > 0 && l.sessions.n == 0 {
		return true
	}
	if l.reserved || l.idle.n+l.opening > 0 {
		return false // that session takes what there is room for
	}
	return c.room(l, func(q *warmQueue) *list[line] { return &q.opens })
}

// roomToClaim reports whether a cold line may claim one more message.
func (c *Core) roomToClaim(l *line) bool {
	return !l.source.cold() || c.room(l, func(q *warmQueue) *list[line] { return &q.claims })
}

// room reports whether there is room beyond what others have reserved, or makes the
// line wait.
func (c *Core) room(l *line, queue func(*warmQueue) *list[line]) bool {
	w := l.source.warmth
	n, at := w.up.Room(c.at, l.group.dest.provider)
	others := w.reserved
	if l.reserved {
		others--
	}
	if n > others {
		return true
	}
	l.heldByWarmUp(c.now)
	if q := queue(w.queueOf(l.group.dest.provider)); l.inWarm.on != q {
		leave(&l.inWarm, l)
		if l.pinned.n > 0 {
			q.pushFront(l)
		} else {
			q.push(l)
		}
	}
	if n == 0 {
		c.warmTimers.armBy(l.source, max(nanos(at), c.now+1))
	}
	return false
}

// warmPause is how long a line may go on between two waits that are told as one.
const warmPause = int64(15 * time.Minute)

// heldByWarmUp notes that the line waits for its source's cap.
func (l *line) heldByWarmUp(now int64) {
	if l.warmLast == 0 || now-l.warmLast > warmPause {
		l.warmSince = now
	}
	l.warmLast = now
}

// queueOf is the queue of a provider, made if need be. Providers without a part of the
// plan share one.
func (w *warmth) queueOf(provider string) *warmQueue {
	if w.up.Plan().ProviderCap(1, provider) == 0 {
		provider = ""
	}
	for _, q := range w.queues {
		if q.provider == provider {
			return q
		}
	}
	q := &warmQueue{provider: provider}
	q.opens.of, q.claims.of = lineInWarm, lineInWarm
	w.queues = append(w.queues, q)
	return q
}

// next takes the line out whose turn it is; nil for none.
func (q *warmQueue) next() *line {
	from, other := &q.claims, &q.opens
	if q.opensNext {
		from, other = other, from
	}
	q.opensNext = !q.opensNext
	if from.n == 0 {
		from = other
	}
	return from.pop()
}

// release lets one waiting line of a source go on, if there is room; what it does with
// that is decided before the next one is asked.
func (c *Core) release(s *source) {
	w := s.warmth
	if w == nil || s.removed {
		return
	}
	for range w.queues {
		q := w.queues[w.turn%len(w.queues)]
		w.turn++
		if q.opens.n+q.claims.n == 0 {
			continue
		}
		n, at := w.up.Room(c.at, q.provider)
		if n > w.reserved {
			l := q.next()
			c.dirtyGroups.push(l.group)
			c.releases.push(s)
			return
		}
		if n == 0 {
			c.warmTimers.armBy(s, max(nanos(at), c.now+1))
		}
	}
}

// reserve keeps room for the first claim of a session being opened.
func (c *Core) reserve(l *line) {
	if l.source.cold() && !l.reserved && l.unsent() == 0 {
		l.reserved = true
		l.source.warmth.reserved++
	}
}

func (c *Core) unreserve(l *line) {
	if !l.reserved {
		return
	}
	l.reserved = false
	if w := l.source.warmth; w != nil {
		w.reserved = max(w.reserved-1, 0)
		c.releases.push(l.source)
	}
}

// charge takes a claimed message from the cap of its line's source.
func (c *Core) charge(l *line, m *msg) {
	w := l.source.warmth
	if w == nil {
		return
	}
	c.unreserve(l)
	w.up.Claimed(c.at, l.group.dest.provider)
	m.charged = w
}

// warmState is what a claim on the line has to keep; nil without a warm-up.
func (c *Core) warmState(s *source) *mxrules.WarmUpState {
	if s.warmth == nil {
		return nil
	}
	state := s.warmth.up.State()
	state.Address = addressText(s.Source)
	return &state
}

// ended reports what became of a message that was charged.
func (c *Core) ended(m *msg, sign mxrules.Sign) {
	w := m.charged
	if w == nil {
		return
	}
	m.charged = nil
	w.up.Ended(c.at, m.line.group.dest.provider, sign)
	c.warmChanged(w)
	c.releases.push(w.source)
}

// noted reports what a connection that did not come about says of the line's source.
func (c *Core) noted(l *line, sign mxrules.Sign) {
	if w := l.source.warmth; w != nil && sign != mxrules.SignNone {
		w.up.Noted(c.at, sign)
		c.warmChanged(w)
	}
}

// stepWarmUpBack carries out what a reaction to a reply on the line wants: its source goes
// one stage of its warm-up back, once a day.
func (c *Core) stepWarmUpBack(l *line, why string) {
	if !l.path.gov.StepsBack() {
		return
	}
	if w := l.source.warmth; w != nil && !w.up.State().SteppedBack {
		w.up.StepBack(c.at, "a reaction to "+clip(why))
		c.warmChanged(w)
		c.rewarm(l.source)
	}
}

// flushWarmths tells what changed since the last time. A change of stage changes what
// all lines may do.
func (c *Core) flushWarmths() (more bool) {
	for len(c.changedWarmths) > 0 {
		w := c.changedWarmths[0]
		c.changedWarmths = c.changedWarmths[1:]
		w.changed = false
		changes := w.up.Changes()
		for _, change := range changes {
			c.emit(Action{Kind: WarmUpChanged, Source: w.source.Source, Step: change.Kind, Text: change.Text, WarmUp: c.warmState(w.source)})
		}
		if len(changes) == 0 {
			c.emit(Action{Kind: WarmUpChanged, Source: w.source.Source, WarmUp: c.warmState(w.source)})
			continue
		}
		c.rewarm(w.source)
		more = true
	}
	return more
}

// keepWithin is for how long, at the pace of its release, messages to engaged recipients
// are kept for a cold source: its best mail, which others would have taken by then, and
// which must not wait for it longer.
const keepWithin = time.Hour

// keepFor is the cold line that a message to an engaged recipient is kept for; nil when
// none has room within the hour. What is beyond goes by any source, in its turn.
func (c *Core) keepFor(m *msg) *line {
	g := m.run.flow.lane.group
	if !m.engaged || m.class() != Bulk {
		return nil
	}
	for _, s := range c.ordered(g, m.run.pool) {
		if !s.cold() || s.stopped {
			continue
		}
		w := s.warmth
		if w.kept >= min(w.up.Left(c.at, g.dest.provider), w.up.ReleasedWithin(keepWithin)) {
			continue
		}
		if n, at := w.up.Room(c.at, g.dest.provider); n == 0 && at.Sub(c.at) > keepWithin {
			continue
		}
		if l := c.lineOf(g, s); c.sendable(l) && l.pinned.n < loadPerLine {
			m.kept = w
			w.kept++
			return l
		}
	}
	return nil
}

// unkeep notes that a message is not kept any more.
func unkeep(m *msg) {
	if m.kept != nil {
		m.kept.kept--
		m.kept = nil
	}
}

// unsent says what the state of a charged message, whose claim ends without a reply,
// means: one that is being sent may have been.
var unsent = [...]mxrules.Sign{
	msgLoaded: mxrules.SignUnsent, msgClaiming: mxrules.SignUnsent, msgClaimed: mxrules.SignUnsent, msgSending: mxrules.SignNone,
	msgReplied: mxrules.SignNone, msgDoomed: mxrules.SignUnsent, msgFailing: mxrules.SignUnsent, msgReturning: mxrules.SignUnsent,
}

// warmHeld reports whether a line's source may send no more to it for now.
func (c *Core) warmHeld(l *line) bool {
	if !l.source.cold() {
		return false
	}
	n, _ := l.source.warmth.up.Room(c.at, l.group.dest.provider)
	return n == 0
}

// warmWait says so.
func (c *Core) warmWait(l *line) Wait {
	up := l.source.warmth.up
	_, at := up.Room(c.at, l.group.dest.provider)
	s := up.State()
	return Wait{Cause: CauseWarmUp, Until: at, Text: fmt.Sprintf("source %s is being warmed up: stage %d of %d, %d of %d messages sent today",
		l.source.Name, s.Stage, len(up.Plan().Caps), s.Sent, up.Cap()), Since: moment(l.warmSince)}
}

// waitsForWarmth reports whether a line has nothing to wait for but its source's cap.
func waitsForWarmth(l *line) bool { return l.inWarm.on != nil && l.source.cold() }

// SourceView is a copy of what is known of a source.
type SourceView struct {
	Source
	Pools  []string
	WarmUp *WarmUpView // nil when it has none
}

// WarmUpView is a copy of a source's warm-up.
type WarmUpView struct {
	State  mxrules.WarmUpState
	Stages int
	// Cap is today's, ProviderCaps those of single providers; they say nothing unless
	// Active.
	Cap          int64
	ProviderCaps map[string]int64
	Active       bool
}

// capFor is what a source's warm-up allows a provider today; 0 for no cap.
func (s *source) capFor(provider string) int64 {
	if s.warmth == nil || !s.warmth.up.Active() {
		return 0
	}
	up := s.warmth.up
	limit := up.Cap()
	if own := up.Plan().ProviderCap(up.State().Stage, provider); own > 0 {
		limit = min(limit, own)
	}
	return limit
}

// Sources lists all sources by name.
func (c *Core) Sources(now time.Time) []SourceView {
	c.begin(now)
	defer c.flush()
	var views []SourceView
	for _, name := range slices.Sorted(maps.Keys(c.sources)) {
		s := c.sources[name]
		v := SourceView{Source: s.Source}
		for _, pool := range slices.Sorted(maps.Keys(c.pools)) {
			if c.pools[pool].has(s) {
				v.Pools = append(v.Pools, pool)
			}
		}
		if s.warmth != nil {
			s.warmth.up.Tick(c.at)
			v.WarmUp = c.warmView(s)
		}
		views = append(views, v)
	}
	return views
}

func (c *Core) warmView(s *source) *WarmUpView {
	up := s.warmth.up
	plan := up.Plan()
	v := &WarmUpView{State: *c.warmState(s), Stages: len(plan.Caps), Cap: up.Cap(), Active: up.Active()}
	for _, p := range plan.Providers {
		if v.ProviderCaps == nil {
			v.ProviderCaps = map[string]int64{}
		}
		v.ProviderCaps[p.Provider] = plan.ProviderCap(v.State.Stage, p.Provider)
	}
	return v
}
