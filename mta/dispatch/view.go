package dispatch

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// Cause is what holds mail.
type Cause uint8

const (
	// CauseNone: there is no mail, or nothing is known of it.
	CauseNone Cause = iota
	// CauseQueue: nothing but other mail; it goes in its turn.
	CauseQueue
	// CauseRetry: all of it waits for its retry time.
	CauseRetry
	// CauseRest: the path rests after a reply.
	CauseRest
	// CauseBackoff: the path waits after failures before MAIL.
	CauseBackoff
	// CauseRate: a rate, quota or the number of connections.
	CauseRate
	// CauseSuspended: a suspension.
	CauseSuspended
	// CausePaused: its delivery is paused.
	CausePaused
	// CauseDNS: the domain has no route yet.
	CauseDNS
	// CauseSlot: all session slots are taken.
	CauseSlot
	// CauseSource: its pool has no source.
	CauseSource
	// CauseWarmUp: the warm-up of its sources.
	CauseWarmUp
	// CauseLearned: the pace learned from the receiver's replies, below the rule's.
	CauseLearned
)

var causeNames = [...]string{
	"none", "queue", "retry", "rest", "backoff", "rate", "suspended", "paused", "dns", "slot", "source", "warm_up", "learned",
}

// String is a short lower-case name such as "backoff".
func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return "unknown"
}

// Wait is what holds a run's mail.
type Wait struct {
	Cause Cause
	// Until is when that ends, zero if not by time alone or if that is not known.
	Until time.Time
	// Text explains it: the last error of the path or the look-up, the name of
	// the suspension, the limit.
	Text string
	// Since is when it began; zero where that is not known here.
	Since time.Time
}

// HostView is an MX host of a destination.
type HostView struct {
	Name       string
	Preference uint16
	// SkippedUntil is when the host is tried again after a failure on any source;
	// zero when it is not skipped.
	SkippedUntil time.Time
}

// PathView is a path of a destination.
type PathView struct {
	// Key is "source>destination", or "*>destination" when sources share it.
	Key string
	// Source is empty when sources share the path.
	Source string
	// Sessions are open or being opened; InFlight messages are being sent or
	// wait for their outcome to be durable; Claimed ones wait to be sent.
	Sessions, InFlight, Claimed int
	// State is the governor's, Effective the rules' limits and where they stand.
	State     mxrules.State
	Effective mxrules.Effective
	// BackoffUntil is when the path dials again after failures before MAIL, the
	// earliest of its domains'; zero when it may now. LastError is their text, or
	// the last reply that slowed the path.
	BackoffUntil time.Time
	LastError    string
	// Suspended names the suspension that stops all of the path's mail; empty for none.
	Suspended string
	// Override is the operator's word in force; nil for none.
	Override *Override
	// Fresh is what the path began with, Pace what its learner allows, Learned what it
	// knows of the receiver, with its age.
	Fresh   mxrules.State
	Pace    mxrules.Pace
	Learned mxrules.Memory
	// SetAt is since when settings have their value; those that never changed are left out.
	SetAt map[mxrules.Field]time.Time
	// Decisions are the last ones, the latest first.
	Decisions []Decision
	// NextChange is when a limit may be raised next; zero when nothing is below the rule.
	NextChange time.Time
	// WarmUpCap is what the source's warm-up allows this provider today; 0 for no cap.
	WarmUpCap int64
}

// DestinationView is a copy of what is known of a destination.
type DestinationView struct {
	Name     string
	Provider string
	// Domains are up to 100 of its recipient domains with mail, DomainCount how
	// many there are.
	Domains     []string
	DomainCount int
	Hosts       []HostView
	// Ready messages may be sent now, Deferred ones wait for a retry in the
	// store, InFlight ones are being sent or wait for their outcome to be durable.
	Ready, Deferred, InFlight int64
	Sessions                  int
	Suspended                 bool
	Paths                     []PathView
}

// DomainView is a copy of what is known of a recipient domain.
type DomainView struct {
	Domain string
	// Destination is empty while the domain has no route.
	Destination string
	Provider    string
	Hosts       []HostView
	// Expires is when the route is asked for again, if there is mail then.
	Expires time.Time
	// Ready, Deferred and InFlight are as in DestinationView.
	Ready, Deferred, InFlight int64
	NextDue                   time.Time
	// Wait is what holds the domain's mail: of its runs, the one that goes first.
	Wait  Wait
	Paths []PathView
}

// maxDomains bounds the domains that a view lists.
const maxDomains = 100

// Waiting says what holds a run's mail.
func (c *Core) Waiting(now time.Time, id RunID) Wait {
	c.begin(now)
	defer c.flush()
	if r := c.runs.Get(uint64(id)); r != nil {
		return c.waiting(r)
	}
	return Wait{}
}

func (c *Core) waiting(r *run) Wait {
	d := r.domain
	held := r.work != nil && r.work.out > 0
	switch {
	case r.fresh+r.deferred == 0 && !held:
		return Wait{}
	case r.stopped:
		return c.stopOf(r)
	case c.stopped > 0:
		return Wait{Cause: CauseSuspended, Text: c.suspension(Selector{Kind: Everything})}
	case d.group != nil && d.group.dest.stopped:
		return Wait{Cause: CauseSuspended, Text: c.suspension(Selector{Kind: ByDestination, Value: d.group.dest.name})}
	case d.state == domainWaiting && d.shelved:
		return Wait{Cause: CauseBackoff, Until: moment(d.timer.at), Text: d.text()}
	case d.state == domainWaiting:
		return Wait{Cause: CauseDNS, Until: moment(d.timer.at), Text: d.text()}
	case !c.stock(r) && !held:
		return Wait{Cause: CauseRetry, Until: moment(r.retry.at)}
	case d.state == domainDead:
		return Wait{Cause: CauseQueue, Text: d.text()}
	case d.group == nil:
		return Wait{Cause: CauseDNS, Text: "looking up " + d.name}
	}
	return c.waitingOn(r.flow.lane)
}

// stopOf says what stopped a run: its delivery's pause or a suspension.
func (c *Core) stopOf(r *run) Wait {
	if _, paused := c.paused[r.delivery.id]; paused {
		return Wait{Cause: CausePaused}
	}
	sel := Selector{Kind: BySenderDomain, Value: r.sender.domain}
	switch {
	case c.stops.deliveries[r.delivery.id] > 0:
		sel = Selector{Kind: ByDelivery, Delivery: r.delivery.id}
	case c.stops.tenants[r.sender.tenant] > 0:
		sel = Selector{Kind: ByTenant, Value: r.sender.tenant}
	}
	return Wait{Cause: CauseSuspended, Text: c.suspension(sel)}
}

// suspension is the name of the first suspension with this selector.
func (c *Core) suspension(sel Selector) string {
	first := ""
	for name, s := range c.suspends {
		same := s.Kind == sel.Kind && s.Value == sel.Value && s.Delivery == sel.Delivery ||
			s.Kind == Everything && sel.Kind == Everything
		if same && (first == "" || name < first) {
			first = name
		}
	}
	return first
}

// waitingOn is what holds a lane's mail: of its sources' lines, the one that
// goes first.
func (c *Core) waitingOn(l *lane) Wait {
	best := Wait{Cause: CauseSource, Text: "no source of pool " + l.pool.name + " can send"}
	for _, ln := range l.group.lines {
		if !l.pool.reaches(ln.source) || !c.mayMove(ln, l) {
			continue
		}
		if w := c.lineWait(ln); best.Cause == CauseSource || sooner(w, best) {
			best = w
		}
	}
	if best.Cause == CauseSource && len(l.pool.sources) > 0 && len(l.group.lines) == 0 {
		return Wait{Cause: CauseQueue}
	}
	return best
}

// sooner reports whether what a holds goes before what b holds.
func sooner(a, b Wait) bool {
	if a.Cause == CauseSource {
		return false
	}
	if x, y := a.Cause.stands(), b.Cause.stands(); x != y {
		return x < y
	}
	if b.Cause == CauseQueue || a.Cause == CauseQueue {
		return b.Cause != CauseQueue
	}
	return !a.Until.IsZero() && (b.Until.IsZero() || a.Until.Before(b.Until))
}

// stands is how far mail is from being sent for a cause: that of a paused or suspended
// delivery does not go at all, and retries that are not due go behind all that is.
func (c Cause) stands() int {
	switch c {
	case CausePaused, CauseSuspended:
		return 2
	case CauseRetry:
		return 1
	}
	return 0
}

func (c *Core) lineWait(l *line) Wait {
	s := l.path.gov.State(c.at)
	held, until := c.tenantHeld(l)
	switch {
	case l.source.stopped:
		return Wait{Cause: CauseSuspended, Text: c.suspension(Selector{Kind: BySource, Value: l.source.Name})}
	case !c.usable(l):
		return Wait{Cause: CauseSource, Text: "source " + l.source.Name + " was removed"}
	case s.Hold == mxrules.HoldRest:
		return Wait{Cause: CauseRest, Until: s.Until, Text: s.Trouble}
	case held:
		return c.tenantWait(l, until)
	case l.until > c.now && l.open == 0:
		return Wait{Cause: CauseBackoff, Until: moment(l.until), Text: l.failed, Since: moment(l.failedAt)}
	case c.warmHeld(l):
		return c.warmWait(l)
	case l.open > 0 && s.Hold != mxrules.HoldMessageRate && s.Hold != mxrules.HoldHourly && s.Hold != mxrules.HoldDaily:
		return Wait{Cause: CauseQueue}
	case s.Hold != mxrules.HoldNone:
		return l.path.rateWait(&s)
	case l.inSlot.on != nil && l.open == 0:
		return Wait{Cause: CauseSlot, Text: "all session slots are in use"}
	}
	if l.proven {
		return Wait{Cause: CauseQueue}
	}
	return Wait{Cause: CauseQueue, Text: l.failed} // being tried again
}

// Destinations shows the destinations named, in that order; what has neither mail
// nor a path is left out. nil names show all, in the order of their names.
func (c *Core) Destinations(now time.Time, names []string) []DestinationView {
	c.begin(now)
	defer c.flush()
	if names == nil {
		names = slices.Sorted(maps.Keys(c.destinations))
	}
	wanted := make(map[*destination]*DestinationView, len(names))
	views := make([]DestinationView, 0, len(names))
	for _, name := range names {
		if d := c.destinations[name]; d != nil && wanted[d] == nil {
			views = views[:len(views)+1]
			wanted[d] = &views[len(views)-1]
		}
	}
	c.fillViews(wanted)
	return views
}

// Destination is the view of one destination, if it has mail or a path.
func (c *Core) Destination(now time.Time, name string) (DestinationView, bool) {
	c.begin(now)
	defer c.flush()
	d := c.destinations[name]
	if d == nil {
		return DestinationView{}, false
	}
	var v DestinationView
	c.fillViews(map[*destination]*DestinationView{d: &v})
	return v, true
}

func (c *Core) fillViews(wanted map[*destination]*DestinationView) {
	for d, v := range wanted {
		*v = DestinationView{Name: d.name, Provider: d.provider, Sessions: d.held, Suspended: d.stopped}
	}
	for g := c.groupOrder.head; g != nil; g = g.inOrder.next {
		if v := wanted[g.dest]; v != nil {
			c.addGroup(v, g)
		}
	}
	for m := c.loaded.head; m != nil; m = m.inCore.next {
		if m.group == nil {
			continue
		}
		if v := wanted[m.group.dest]; v != nil {
			countMsg(m, &v.Ready, &v.InFlight)
		}
	}
	for _, v := range wanted {
		slices.SortFunc(v.Paths, func(a, b PathView) int { return strings.Compare(a.Key, b.Key) })
		slices.Sort(v.Domains)
	}
}

func (c *Core) addGroup(v *DestinationView, g *group) {
	for d := g.domains.head; d != nil; d = d.inGroup.next {
		v.DomainCount++
		if len(v.Domains) < maxDomains {
			v.Domains = append(v.Domains, d.name)
		}
		for r := d.runs; r != nil; r = r.inDomain {
			countRun(r, &v.Ready, &v.Deferred)
		}
	}
	for _, h := range c.hostViews(g) {
		same := func(o HostView) bool { return o.Name == h.Name }
		if len(v.Hosts) < maxDomains && !slices.ContainsFunc(v.Hosts, same) {
			v.Hosts = append(v.Hosts, h)
		}
	}
	v.Paths = c.addPaths(v.Paths, g)
}

// countRun adds a run's mail in the store. Deferred mail that is due counts as
// deferred: how much of it is due is not known here.
func countRun(r *run, ready, deferred *int64) {
	*ready += r.fresh
	*deferred += r.deferred
}

// countMsg adds a message in memory.
func countMsg(m *msg, ready, inFlight *int64) {
	switch m.state {
	case msgSending, msgReplied, msgFailing:
		*inFlight++
	default:
		*ready++
	}
}

func (c *Core) hostViews(g *group) []HostView {
	views := make([]HostView, len(g.hosts))
	for i, h := range g.hosts {
		views[i] = HostView{Name: h.Name, Preference: h.Preference}
		for _, l := range g.lines {
			if l.cool != nil && l.cool[i] > c.now {
				views[i].SkippedUntil = moment(l.cool[i])
			}
		}
	}
	return views
}

// addPaths adds the paths of a group's lines, each path once.
func (c *Core) addPaths(views []PathView, g *group) []PathView {
	for _, l := range g.lines {
		i := slices.IndexFunc(views, func(v PathView) bool { return v.Key == l.path.key })
		if i < 0 {
			i = len(views)
			views = append(views, c.pathView(l))
		}
		v := &views[i]
		v.Sessions += l.sessions.n
		v.Claimed += l.ready[Bulk].n + l.ready[Transactional].n
		v.InFlight += l.claimed - l.unsent()
		if until := moment(l.until); l.until > c.now && (v.BackoffUntil.IsZero() || until.Before(v.BackoffUntil)) {
			v.BackoffUntil = until
		}
		if l.failed != "" {
			v.LastError = l.failed
		}
	}
	return views
}

func (c *Core) pathView(l *line) PathView {
	p := l.path
	s := p.gov.State(c.at)
	e := c.match(l.group.hosts[0].Name, l.group.dest.provider, l.group.scope, l.source)
	decisions := slices.Clone(p.history.last)
	slices.Reverse(decisions)
	return PathView{
		Key: p.key, Source: p.source.Name, State: s, Effective: e, LastError: s.Trouble, Override: c.overrideOf(p),
		Fresh: p.gov.Fresh(c.at), Pace: p.gov.Pace(), Learned: p.gov.Usage().Learned, SetAt: p.history.setTimes(), Decisions: decisions, NextChange: p.gov.NextChange(c.at),
		WarmUpCap: l.source.capFor(l.group.dest.provider), Suspended: c.stopOfPath(l),
	}
}

// stopOfPath names what stops a line's path; empty for nothing. One that sources share
// is not stopped with one of them.
func (c *Core) stopOfPath(l *line) string {
	switch {
	case c.stopped > 0:
		return c.suspension(Selector{Kind: Everything})
	case l.group.dest.stopped:
		return c.suspension(Selector{Kind: ByDestination, Value: l.group.dest.name})
	case l.source.stopped && l.path.source.Name != "":
		return c.suspension(Selector{Kind: BySource, Value: l.source.Name})
	}
	return ""
}

// Explain is what is known of a recipient domain, if it has mail.
func (c *Core) Explain(now time.Time, name string) (DomainView, bool) {
	c.begin(now)
	defer c.flush()
	d := c.domains[name]
	if d == nil || d.live == 0 {
		return DomainView{}, false
	}
	v := DomainView{Domain: d.name, Expires: moment(d.expires)}
	if g := d.group; g != nil {
		v.Destination, v.Provider = g.dest.name, g.dest.provider
		v.Hosts = c.hostViews(g)
		v.Paths = c.addPaths(nil, g)
	}
	c.addRuns(&v, d)
	return v, true
}

func (c *Core) addRuns(v *DomainView, d *domain) {
	due := none
	for r := d.runs; r != nil; r = r.inDomain {
		countRun(r, &v.Ready, &v.Deferred)
		if r.deferred > 0 {
			due = min(due, r.retry.at)
		}
		if w := c.waiting(r); v.Wait.Cause == CauseNone || w.Cause != CauseNone && sooner(w, v.Wait) {
			v.Wait = w
		}
	}
	v.NextDue = moment(due)
	for m := c.loaded.head; m != nil; m = m.inCore.next {
		if m.run != nil && m.run.domain == d {
			countMsg(m, &v.Ready, &v.InFlight)
		}
	}
}
