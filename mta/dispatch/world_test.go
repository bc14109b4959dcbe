package dispatch

import (
	"container/heap"
	"fmt"
	"hash"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// tester is what testing.T and rapid.T have in common.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Fatal(args ...any)
}

// start is when every test begins; nothing depends on the date.
var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// world is a relay, a store and the internet in virtual time: it carries out
// what the core asks for, answers after delays, and keeps a ledger of its own
// by which it judges every action.
type world struct {
	t     tester
	c     *Core
	cfg   Config
	rules *mxrules.Rules
	now   time.Time
	queue events
	seq   int

	domains  map[string]*peer
	runs     map[RunID]*stored
	msgs     map[MsgID]*letter
	sessions map[SessionID]*wire
	paths    map[string]*ledger
	byDest   map[string]int // sessions
	asking   map[string]bool
	lastMsg  MsgID

	unsettled int
	open      int
	remaining int
	waited    map[string]bool // destinations that waited for a slot after the last event
	waiting   []string        // those that wait after this one

	paused    map[DeliveryID]bool
	suspended map[string]Selector

	// Knobs; the defaults are a quick and friendly world.
	delay   func(ActionKind) time.Duration
	dial    func(Action) *Evidence
	reply   func(Action, *letter) answer
	engaged func(*letter) bool
	suspect func(*letter) bool // earlier claims of it were lost to crashes
	across  func() bool        // whether an envelope goes out behind a content
	lost    func(*letter)      // told of an envelope lost before the core is
	promise bool               // the store always says that there is more
	words   map[string]*words  // operators' overrides by destination
	strict  bool               // no evidence is ever given, so the rules' limits are the limits

	durable *mxrules.WarmUpState // with the last claim that is durable
	claims  int
	written int

	sent    []sending
	changes []Action
	trace   hash.Hash64
	recent  []string
	actions int
	acts    int
	note    func(Action)
}

// peer is a recipient domain of the world.
type peer struct {
	route   Route
	failure *ResolveFailure
	told    struct { // what the core was told last
		hosts []Host
		dest  string
		dead  bool
	}
}

// stored is a run as the store has it.
type stored struct {
	spec    Run
	fresh   []*letter
	retries []*letter
	loading bool
	dropped bool

	remaining int // messages without a final outcome
}

// letter is one message; where it is, and what happened to it.
type letter struct {
	id       MsgID
	run      *stored
	retry    bool
	due      time.Time
	source   string
	blocked  bool
	place    string // "store", "loading", "loaded", "claiming", "claimed", "sending", "replied", "returning", "failing", "done"
	path     string
	attempts int
	done     int
	doneAt   time.Time
}

type wire struct {
	open   Action
	state  string // "opening", "open", "closing", "ended"
	busy   bool
	sent   int
	parked *parked // the message behind the one it carries
	broken bool    // an envelope on it was given up: it ends
	since  time.Time
	credit time.Time
}

// parked is a message that waits with a session. said means that its envelope went out
// behind the content of the one before.
type parked struct {
	a    Action
	l    *letter
	said bool
}

// ledger is what a receiver would count of a path.
type ledger struct {
	key                string
	open, claimed      int
	connects, messages []time.Time
	limits             mxrules.Limits
}

type answer struct {
	after    time.Duration
	evidence Evidence
	dead     bool // the session ends
	untried  bool
	again    time.Duration // a retry is due then; 0: final
	source   string
	blocked  bool // it waits for that source
}

type sending struct {
	at       time.Time
	path     string
	dest     string
	session  SessionID
	class    Class
	delivery DeliveryID
	run      RunID
	domain   string
	retry    bool
}

type event struct {
	at  time.Time
	seq int
	do  func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func newWorld(t tester, cfg Config, pools []Pool, rules *mxrules.Rules) *world {
	w := &world{
		t: t, cfg: cfg.withDefaults(), rules: rules, now: start,
		domains: map[string]*peer{}, runs: map[RunID]*stored{}, msgs: map[MsgID]*letter{},
		sessions: map[SessionID]*wire{}, paths: map[string]*ledger{}, byDest: map[string]int{},
		asking: map[string]bool{}, paused: map[DeliveryID]bool{}, suspended: map[string]Selector{},
		strict: true, waited: map[string]bool{},
	}
	w.delay = func(k ActionKind) time.Duration {
		switch k {
		case Resolve, Open:
			return 20 * time.Millisecond
		case Load, Claim:
			return 2 * time.Millisecond
		}
		return time.Millisecond
	}
	w.across = func() bool { return false }
	w.dial = func(Action) *Evidence { return nil }
	w.reply = func(Action, *letter) answer { return answer{after: 50 * time.Millisecond} }
	w.c = New(cfg, pools, rules)
	return w
}

func onePool(names ...string) []Pool {
	p := Pool{Name: "main"}
	for i, name := range names {
		p.Sources = append(p.Sources, Source{Name: name, Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), Weight: 1})
	}
	return []Pool{p}
}

// limited is a rule set with one rule for all.
func limited(t tester, l mxrules.Limits) *mxrules.Rules {
	t.Helper()
	if l.TLS == 0 {
		l.TLS = mxrules.TLSOpportunistic
	}
	shared := mxrules.Provider{Name: "shared", Suffixes: []string{".d1"}, SharedHosts: true}
	rules, err := mxrules.NewRules([]mxrules.Rule{{ID: "all", Set: mxrules.AllFields, Limits: l}}, []mxrules.Provider{shared})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// host gives a domain a destination with MX hosts in order of preference.
func (w *world) host(domain, dest string, hosts ...string) {
	p := &peer{route: Route{Destination: dest}}
	for i, h := range hosts {
		p.route.Hosts = append(p.route.Hosts, Host{Name: h, Preference: uint16(10 * (i + 1))})
	}
	w.domains[domain] = p
}

// add announces a run with n fresh messages.
func (w *world) add(spec Run, n int) *stored {
	if spec.Pool == "" {
		spec.Pool = "main"
	}
	if spec.Priority == 0 {
		spec.Priority = 1
	}
	r := &stored{spec: spec}
	w.runs[spec.ID] = r
	w.write(r, n)
	spec.Fresh = int64(n)
	w.c.AddRun(w.now, spec)
	w.act()
	return r
}

func (w *world) write(r *stored, n int) {
	r.remaining += n
	w.remaining += n
	for range n {
		w.lastMsg++
		l := &letter{id: w.lastMsg, run: r, place: "store"}
		w.msgs[l.id] = l
		r.fresh = append(r.fresh, l)
	}
}

func (w *world) grow(r *stored, n int) {
	w.write(r, n)
	w.c.Grew(w.now, r.spec.ID, n)
	w.act()
}

func (w *world) do(f func(c *Core)) {
	f(w.c)
	w.act()
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now.Add(d), w.seq, do})
}

// runFor lets virtual time pass.
func (w *world) runFor(d time.Duration) {
	end := w.now.Add(d)
	for w.step(end) {
	}
	w.now = end
}

// runUntil lets time pass until done, at most the time given.
func (w *world) runUntil(most time.Duration, done func() bool) bool {
	end := w.now.Add(most)
	for !done() {
		if !w.step(end) {
			return false
		}
	}
	return true
}

// step handles the next event or timer up to end.
func (w *world) step(end time.Time) bool {
	wake := w.c.Wake()
	if len(w.queue) > 0 && (wake.IsZero() || !wake.Before(w.queue[0].at)) {
		if w.queue[0].at.After(end) {
			return false
		}
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
		w.act()
		return true
	}
	if wake.IsZero() || wake.After(end) {
		return false
	}
	if wake.After(w.now) {
		w.now = wake
	}
	w.c.Tick(w.now)
	w.act()
	if again := w.c.Wake(); !again.IsZero() && !again.After(w.now) {
		w.t.Fatalf("at %v: Wake asks for %v again after Tick", w.now.Sub(start), again.Sub(start))
	}
	return true
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("at %v: %s", w.now.Sub(start), fmt.Sprintf(format, args...))
}

// act carries out what the core asks for until it asks for nothing.
func (w *world) act() {
	for n := 0; ; n++ {
		actions := w.c.Take()
		if len(actions) == 0 {
			break
		}
		w.waiting = w.slotQueue()
		if n > 10000 {
			w.fail("the core never stops asking: %+v", actions[0])
		}
		for i := range actions {
			w.carryOut(actions[i])
		}
	}
	clear(w.waited)
	for _, name := range w.slotQueue() {
		w.waited[name] = true
	}
	if w.acts++; len(w.c.paths) < 100 || w.acts%1000 == 0 {
		w.checkPaths()
	}
	if w.c.unsettled != w.unsettled {
		w.fail("the core counts %d unsettled, the world %d", w.c.unsettled, w.unsettled)
	}
}

// checkPaths compares the core's counts with the world's.
func (w *world) checkPaths() {
	busy := map[*path]int{}
	for _, s := range w.c.sessions {
		if s.load > 0 && !s.leaving {
			busy[s.line.path]++
		}
	}
	for key, p := range w.c.paths {
		if p.busy != busy[p] {
			w.fail("the core counts %d busy sessions on %s of %d", p.busy, key, busy[p])
		}
		if p.busy < 0 || p.unused < 0 || p.open < 0 || p.leaving < 0 {
			w.fail("counts of %s are wrong: %+v", key, p)
		}
		if claimed := w.ledger(key).claimed; p.claimed != claimed {
			w.fail("the core counts %d claimed on %s, the world %d", p.claimed, key, claimed)
		}
	}
}

// slotQueue names the destinations that wait for a session slot that they may have.
func (w *world) slotQueue() (names []string) {
	for kind := range w.c.slotQueues {
		if !w.c.mayProbe(kind) {
			continue
		}
		for d := w.c.slotQueues[kind].head; d != nil; d = d.inSlots[kind].next {
			names = append(names, d.name)
		}
	}
	return names
}

func (w *world) carryOut(a Action) {
	w.actions++
	if w.actions > 100_000+500*len(w.msgs) {
		w.explain()
		w.fail("%d actions for %d messages: %v", w.actions, len(w.msgs), w.recent)
	}
	w.recent = append(w.recent[max(0, len(w.recent)-30):], fmt.Sprint(w.now.Sub(start), " ", a.Kind, " ", a.Path, " ", a.Session, " ", a.Msg, a.Msgs, "\n"))
	if w.trace != nil {
		fmt.Fprintf(w.trace, "%d %+v\n", w.now.UnixNano(), a)
	}
	if w.note != nil {
		w.note(a)
	}
	switch a.Kind {
	case Resolve:
		w.resolve(a)
	case Open:
		w.openSession(a)
	case Load:
		w.load(a)
	case Claim:
		w.claim(a)
	case Send:
		w.send(a)
	case TakeBack:
		w.takeBack(a)
	case Close:
		w.close(a)
	case Return:
		w.giveBack(a)
	case Fail:
		w.failLetter(a)
	case Postpone:
		w.postpone(a)
	case PathChanged:
		w.changes = append(w.changes, a)
	}
}

func (w *world) resolve(a Action) {
	if w.asking[a.Domain] {
		w.fail("%s is asked for twice", a.Domain)
	}
	w.asking[a.Domain] = true
	if len(w.asking) > w.cfg.MaxResolving {
		w.fail("%d look-ups under way", len(w.asking))
	}
	w.after(w.delay(Resolve), func() {
		delete(w.asking, a.Domain)
		p := w.domains[a.Domain]
		if p == nil {
			w.fail("no such domain: %s", a.Domain)
		}
		if p.failure != nil {
			f := *p.failure
			f.Expires = w.now.Add(10 * time.Minute)
			p.told.dead = f.Final
			w.c.Unresolved(w.now, a.Domain, f)
			return
		}
		r := p.route
		r.Expires = w.now.Add(time.Hour)
		p.told.hosts, p.told.dest, p.told.dead = r.Hosts, r.Destination, false
		w.c.Resolved(w.now, a.Domain, r)
	})
}

func (w *world) ledger(path string) *ledger {
	l := w.paths[path]
	if l == nil {
		l = &ledger{key: path}
		w.paths[path] = l
	}
	return l
}

func (w *world) openSession(a Action) {
	p := w.ledger(a.Path)
	p.limits = a.Limits
	p.open++
	w.open++
	w.byDest[a.Destination]++
	p.connects = append(p.connects, w.now)
	w.checkOpen(a, p)
	s := &wire{open: a, state: "opening", since: w.now}
	w.sessions[a.Session] = s
	bad := w.dial(a)
	w.after(w.delay(Open), func() {
		if bad != nil {
			w.ended(s)
			w.c.SessionFailed(w.now, a.Session, *bad)
			return
		}
		s.state, s.credit = "open", w.now
		w.c.SessionOpened(w.now, a.Session)
	})
}

func (w *world) checkOpen(a Action, p *ledger) {
	if w.open > w.cfg.MaxSessions {
		w.fail("%d sessions", w.open)
	}
	limits := w.judged(p.limits, a.Destination)
	if most := limits.Connections; w.strict && most > 0 && p.open > most {
		w.fail("%d connections on %s, %d allowed", p.open, a.Path, most)
	}
	checkRate(w, "connections on "+a.Path, p.connects, limits.ConnectionRate)
	if w.halts(nil, a.Source.Name, a.Destination) {
		w.fail("a session is opened on %s in spite of a suspension", a.Path)
	}
	if w.c.opening > w.c.half() {
		w.fail("%d of %d sessions are being opened", w.c.opening, w.c.cfg.MaxSessions)
	}
	for _, other := range w.waiting {
		if w.waited[other] && other != a.Destination && w.byDest[a.Destination] > w.c.half() {
			w.fail("%s gets session %d while %s waits", a.Destination, w.byDest[a.Destination], other)
		}
	}
	if d := w.domains[a.Domain]; d == nil || !slices.ContainsFunc(d.told.hosts, func(h Host) bool { return h.Name == a.Host }) {
		w.fail("%s is no host of %q", a.Host, a.Domain)
	}
}

// checkRate judges the last event of a series by the definition of a rate: in
// no window more than its burst and what the rate gives.
func checkRate(w *world, what string, at []time.Time, r mxrules.Rate) {
	if r.Count == 0 {
		return
	}
	last := len(at) - 1
	for i := last; i >= 0 && last-i < 300; i-- {
		window := at[last].Sub(at[i])
		n, most := float64(last-i+1), float64(max(r.Burst, 1))+window.Seconds()*r.PerSecond()
		if n > most+1e-6 {
			w.fail("%v %s in %v, %v allowed", n, what, window, most)
		}
	}
}

func (w *world) load(a Action) {
	r := w.runs[a.Run]
	switch {
	case r == nil || r.dropped:
		w.fail("a load of run %d, which is not known", a.Run)
	case r.loading:
		w.fail("a second load of run %d", a.Run)
	case a.Fresh < 0 || a.Due < 0 || a.Fresh+a.Due == 0 || a.Fresh+a.Due > 70:
		w.fail("a load of %d and %d", a.Fresh, a.Due)
	case w.stopped(r):
		w.fail("a load of run %d, which is stopped", a.Run)
	case !w.mayLoad(r):
		w.fail("a load of run %d without a session", a.Run)
	}
	r.loading = true
	w.after(w.delay(Load), func() {
		r.loading = false
		w.c.Loaded(w.now, w.read(r, a.Fresh, a.Due))
	})
}

// mayLoad reports whether the run's domain has a session, or failed for good.
func (w *world) mayLoad(r *stored) bool {
	p := w.domains[r.spec.Domain]
	if p.told.dead {
		return true
	}
	for _, s := range w.sessions {
		if s.state == "open" && s.open.Destination == p.told.dest {
			return true
		}
	}
	return false
}

func (w *world) read(r *stored, fresh, due int) Loaded {
	answer := Loaded{Run: r.spec.ID}
	n := min(fresh, len(r.fresh))
	batch := slices.Clone(r.fresh[:n])
	r.fresh = r.fresh[n:]
	var later []*letter
	for _, l := range r.retries {
		if due > 0 && !l.due.After(w.now) {
			batch = append(batch, l)
			due--
			continue
		}
		if answer.NextDue.IsZero() || l.due.Before(answer.NextDue) {
			answer.NextDue = l.due
		}
		later = append(later, l)
	}
	r.retries = later
	answer.MoreFresh = len(r.fresh) > 0 || w.promise
	for _, l := range batch {
		l.place = "loaded"
		answer.Msgs = append(answer.Msgs, Msg{ID: l.id, Retry: l.retry, Source: l.source, Blocked: l.blocked, Engaged: w.engaged != nil && w.engaged(l), Alone: w.suspect != nil && w.suspect(l)})
	}
	return answer
}

func (w *world) letter(id MsgID, place string) *letter {
	l := w.msgs[id]
	if l == nil || l.place != place {
		w.fail("message %d should be %s and is %+v", id, place, l)
	}
	return l
}

func (w *world) claim(a Action) {
	p := w.ledger(a.Path)
	ids := slices.Clone(a.Msgs)
	for _, id := range ids {
		l := w.letter(id, "loaded")
		if w.stopped(l.run) || w.halts(l.run, a.Source.Name, a.Destination) {
			w.fail("message %d is claimed in spite of a suspension", id)
		}
		l.place, l.path = "claiming", a.Path
		p.claimed++
	}
	if p.claimed > w.cfg.MaxClaimed {
		w.fail("%d claimed on %s", p.claimed, a.Path)
	}
	w.claims++
	number := w.claims
	w.after(w.delay(Claim), func() {
		if number > w.written && a.WarmUp != nil {
			w.written, w.durable = number, a.WarmUp
		}
		for _, id := range ids {
			w.letter(id, "claiming").place = "claimed"
		}
		w.c.Claimed(w.now, ids)
	})
}

func (w *world) send(a Action) {
	l := w.letter(a.Msg, "claimed")
	s := w.sessions[a.Session]
	if s == nil || s.state == "ended" {
		w.c.Untried(w.now, a.Session, a.Msg, false)
		return
	}
	w.unsettled++
	if w.unsettled > w.cfg.MaxUnsettled {
		w.fail("%d unsettled", w.unsettled)
	}
	if s.busy && s.parked == nil && w.cfg.Credit > 1 {
		l.place = "sending"
		if s.parked = (&parked{a: a, l: l, said: w.across()}); s.parked.said {
			w.say(a, l, s)
		}
		return
	}
	if s.busy {
		w.fail("message %d goes to session %d, which is busy", a.Msg, a.Session)
	}
	w.say(a, l, s)
	w.transact(a, l, s)
}

// say writes a message's MAIL.
func (w *world) say(a Action, l *letter, s *wire) {
	w.checkSend(a, l, s)
	l.place = "sending"
	l.attempts++
	s.sent++
	w.sent = append(w.sent, sending{
		w.now, a.Path, a.Destination, a.Session, l.run.spec.Class, l.run.spec.Delivery, a.Run, l.run.spec.Domain, l.retry,
	})
}

func (w *world) transact(a Action, l *letter, s *wire) {
	s.busy = true
	ans := w.reply(a, l)
	w.after(ans.after, func() { w.replied(a, l, s, ans) })
}

// takeBack gives a message back that waits with a session, unless it was begun.
func (w *world) takeBack(a Action) {
	s := w.sessions[a.Session]
	if s != nil && s.parked != nil && s.parked.l.id == a.Msg && (a.Force || !s.parked.said) {
		w.unpark(s, s.state == "open")
	}
}

// unpark gives back what waits with a session.
func (w *world) unpark(s *wire, usable bool) {
	p := s.parked
	if s.parked = nil; p == nil {
		return
	}
	w.unsettled--
	p.l.place = "claimed"
	if p.said {
		s.broken = true
		p.l.attempts--
		if w.lost != nil {
			w.lost(p.l)
		}
		w.c.Lost(w.now, p.a.Session, p.l.id)
		return
	}
	w.c.Untried(w.now, p.a.Session, p.l.id, usable)
}

// recall gives back all that waits, as at every change that stops mail.
func (w *world) recall() {
	for id := SessionID(1); id <= w.c.lastSession; id++ {
		if s := w.sessions[id]; s != nil && s.parked != nil {
			w.unpark(s, s.state == "open")
		}
	}
	w.act()
}

// proceed begins the message that waited for the one that ended.
func (w *world) proceed(s *wire) {
	p := s.parked
	if s.parked = nil; p == nil {
		return
	}
	if !p.said {
		w.say(p.a, p.l, s)
	}
	w.transact(p.a, p.l, s)
}

func (w *world) checkSend(a Action, l *letter, s *wire) {
	p := w.ledger(a.Path)
	p.messages = append(p.messages, w.now)
	limits := w.judged(s.open.Limits, a.Destination)
	switch {
	case s.state != "open":
		w.fail("message %d goes to session %d, which is %s", a.Msg, a.Session, s.state)
	case l.path != a.Path || s.open.Path != a.Path:
		w.fail("message %d is claimed on %s and sent on %s", a.Msg, l.path, a.Path)
	case w.strict && limits.MessagesPerConnection > 0 && s.sent >= limits.MessagesPerConnection:
		w.fail("session %d has carried %d messages", a.Session, s.sent)
	case w.stopped(l.run) || w.halts(l.run, s.open.Source.Name, a.Destination):
		w.fail("message %d is sent in spite of a suspension or pause", a.Msg)
	}
	rate := limits.MessageRate
	if w.cfg.Credit > 1 && rate.Count > 0 { // MAIL may follow its token by a second
		rate.Burst = max(rate.Burst, 1) + int(rate.PerSecond()+1)
	}
	checkRate(w, "messages on "+a.Path, p.messages, rate)
	hosts := w.domains[l.run.spec.Domain].told.hosts
	if !slices.ContainsFunc(hosts, func(h Host) bool { return h.Name == s.open.Host }) {
		w.fail("mail for %s goes to %s", l.run.spec.Domain, s.open.Host)
	}
}

func (w *world) replied(a Action, l *letter, s *wire, ans answer) {
	s.busy = false
	s.credit = w.now
	usable := !ans.dead && s.state == "open" && !s.broken
	if ans.untried {
		w.unsettled--
		l.attempts--
		l.place = "claimed"
		if usable {
			s.sent--
			w.c.Untried(w.now, a.Session, a.Msg, true)
			w.proceed(s)
			return
		}
		w.c.Untried(w.now, a.Session, a.Msg, false)
		w.hangUp(s)
		return
	}
	l.place = "replied"
	w.after(w.delay(Send), func() { w.settle(l, ans) })
	w.c.Replied(w.now, a.Session, a.Msg, ans.evidence, usable)
	if !usable {
		w.hangUp(s)
		return
	}
	w.proceed(s)
}

func (w *world) settle(l *letter, ans answer) {
	w.unsettled--
	w.ledger(l.path).claimed--
	l.path = ""
	if ans.again > 0 {
		l.place, l.retry, l.due, l.source, l.blocked = "store", true, w.now.Add(ans.again), ans.source, ans.blocked
		l.run.retries = append(l.run.retries, l)
		w.c.Settled(w.now, l.id, l.due, false)
		return
	}
	w.end(l)
	w.c.Settled(w.now, l.id, time.Time{}, true)
}

// hangUp ends a session from the peer's side.
func (w *world) hangUp(s *wire) {
	if s.state == "ended" {
		return
	}
	w.unpark(s, false)
	w.ended(s)
	w.c.SessionClosed(w.now, s.open.Session)
}

func (w *world) ended(s *wire) {
	s.state = "ended"
	w.open--
	w.byDest[s.open.Destination]--
	w.ledger(s.open.Path).open--
	delete(w.sessions, s.open.Session)
}

func (w *world) close(a Action) {
	s := w.sessions[a.Session]
	if s == nil || s.state != "open" || s.busy {
		w.fail("a close of session %d: %+v", a.Session, s)
	}
	s.state = "closing"
	w.after(w.delay(Close), func() { w.hangUp(s) })
}

func (w *world) giveBack(a Action) {
	l := w.msgs[a.Msg]
	claimed := l.place == "claimed"
	if l.place != "loaded" && !claimed || claimed != a.Claimed {
		w.fail("message %d is returned, claimed %v, and is %s", a.Msg, a.Claimed, l.place)
	}
	l.place = "returning"
	back := func() {
		if claimed {
			w.ledger(l.path).claimed--
		}
		l.place, l.path = "store", ""
		if l.retry {
			l.run.retries = append(l.run.retries, l)
		} else {
			l.run.fresh = append(l.run.fresh, l)
		}
		w.c.Returned(w.now, a.Msg)
	}
	if claimed {
		w.after(w.delay(Return), back)
	} else {
		back()
	}
}

// postpone puts a retry back until an instant.
func (w *world) postpone(a Action) {
	l := w.letter(a.Msg, "loaded")
	if !l.retry || l.source == "" || !a.Until.After(w.now) {
		w.fail("message %d, retry %v of source %q, is postponed until %v", a.Msg, l.retry, l.source, a.Until)
	}
	l.place = "returning"
	w.after(w.delay(Return), func() {
		l.place, l.due = "store", a.Until
		l.run.retries = append(l.run.retries, l)
		w.c.Settled(w.now, l.id, l.due, false)
	})
}

func (w *world) failLetter(a Action) {
	l := w.letter(a.Msg, "loaded")
	l.place = "failing"
	w.unsettled++
	if w.unsettled > w.cfg.MaxUnsettled {
		w.fail("%d unsettled", w.unsettled)
	}
	w.after(w.delay(Fail), func() {
		w.unsettled--
		w.end(l)
		w.c.Settled(w.now, l.id, time.Time{}, true)
	})
}

// stopped reports whether a run's delivery is paused or suspended.
func (w *world) stopped(r *stored) bool { return w.paused[r.spec.Delivery] || w.halts(r, "", "") }

// halts judges the suspensions by their definition.
func (w *world) halts(r *stored, source, dest string) bool {
	for _, s := range w.suspended {
		switch {
		case s.Kind == Everything,
			s.Kind == BySource && s.Value == source && source != "",
			s.Kind == ByDestination && s.Value == dest && dest != "":
			return true
		case r == nil:
		case s.Kind == ByTenant && s.Value == r.spec.Tenant,
			s.Kind == BySenderDomain && s.Value == r.spec.SenderDomain,
			s.Kind == ByDelivery && s.Delivery == r.spec.Delivery:
			return true
		}
	}
	return false
}

func (w *world) suspend(name string, s Selector) {
	w.suspended[name] = s
	w.do(func(c *Core) { c.Suspend(w.now, name, s) })
	w.recall()
}

func (w *world) unsuspend(name string) {
	delete(w.suspended, name)
	w.do(func(c *Core) { c.Unsuspend(w.now, name) })
}

func (w *world) pause(id DeliveryID) {
	w.paused[id] = true
	w.do(func(c *Core) { c.Pause(w.now, id) })
	w.recall()
}

func (w *world) unpause(id DeliveryID) {
	delete(w.paused, id)
	w.do(func(c *Core) { c.Unpause(w.now, id) })
}

func (w *world) drop(id RunID) {
	if r := w.runs[id]; r != nil && !r.dropped {
		r.dropped = true
		w.remaining -= r.remaining
		w.do(func(c *Core) { c.DropRun(w.now, id) })
		w.recall()
	}
}

// left counts messages that have no final outcome.
func (w *world) left() int { return w.remaining }

// end notes a message's final outcome.
func (w *world) end(l *letter) {
	l.place, l.doneAt = "done", w.now
	l.done++
	if !l.run.dropped {
		l.run.remaining--
		w.remaining--
	}
}

// finish runs to the end of all mail, and says what is stuck if there is no end.
func (w *world) finish(most time.Duration) {
	w.t.Helper()
	if w.runUntil(most, func() bool { return w.left() == 0 }) {
		return
	}
	n := 0
	for id := MsgID(1); id <= w.lastMsg && n < 3; id++ {
		l := w.msgs[id]
		if l.done == 0 && !l.run.dropped {
			wait := w.c.Waiting(w.now, l.run.spec.ID)
			w.t.Errorf("message %d of run %d for %s is %s after %v: %v %q", id, l.run.spec.ID, l.run.spec.Domain, l.place, most, wait.Cause, wait.Text)
			n++
		}
	}
	w.explain()
	w.fail("%d messages are left; Wake %v, last actions: %v", w.left(), w.c.Wake(), w.recent)
}

// explain tells what the core has, when it is stuck.
func (w *world) explain() {
	for _, p := range w.c.paths {
		w.t.Errorf("path %s: claimed %d open %d leaving %d claimers %d waiters %d senders %d %d state %+v", p.key, p.claimed, p.open, p.leaving, p.claimers.n, p.waiters.n, p.senders[0].n, p.senders[1].n, p.gov.State(w.now))
	}
	w.c.eachLine(func(l *line) {
		w.t.Errorf("line %s>%q: %d sessions, %d opening, %d open, %d idle, pinned %d, lanes %+v, ready %d %d, claiming %v, claimed %d, timer %v, waits %v slots %v", l.source.Name, l.group.key, l.sessions.n, l.opening, l.open, l.idle.n, l.pinned.n, laneText(l), l.ready[0].n, l.ready[1].n, l.claiming, l.claimed, l.timer, l.inWaiters.on != nil, l.inSlot.on != nil)
	})
}

// checkDone judges that nothing was lost or doubled.
func (w *world) checkDone() {
	w.t.Helper()
	for id, l := range w.msgs {
		if l.done > 1 || l.done == 0 && !l.run.dropped {
			w.fail("message %d ended %d times", id, l.done)
		}
	}
}

// checkEmpty drops all runs, lets time pass, and looks for what the core still keeps.
func (w *world) checkEmpty() {
	w.t.Helper()
	for id := RunID(1); int(id) <= len(w.runs); id++ {
		w.drop(id)
	}
	w.runFor(300 * time.Hour) // a governor gives a cut of 100 messages back one an hour
	c := w.c
	kept := map[string]int{
		"runs": c.runs.Len(), "deliveries": len(c.deliveries), "domains": len(c.domains), "groups": len(c.groups),
		"destinations": len(c.destinations), "paths": len(c.paths), "flows": len(c.flows), "messages": len(c.msgs),
		"sessions": len(c.sessions), "loaded": c.loaded.n, "held": c.held, "leaving": c.leaving, "unsettled": c.unsettled,
		"resolving": c.resolving, "failing": c.failing, "slots": c.slotQueues[known].n + c.slotQueues[probe].n + c.slotQueues[urgent].n + c.slotQueues[eager].n, "probes": c.probes, "crowd": len(c.crowd.items),
		"again": c.again, "opening": c.opening, "supply": c.supply,
		"retries": len(c.retries.items), "line timers": len(c.lineTimers.items), "path timers": len(c.pathTimers.items),
		"domain timers": len(c.domainTimers.items), "group timers": len(c.groupTimers.items),
		"idle": c.idle.n, "parked": c.parked.n + c.stuck.n, "by age": c.byAge.n, "unsettled wait": c.unsettledWait.n, "dead": c.dead.n,
	}
	for what, n := range kept {
		if n != 0 {
			w.t.Errorf("%d %s are kept at the end", n, what)
		}
	}
	if at := c.Wake(); !at.IsZero() {
		w.t.Errorf("Wake asks for %v at the end", at.Sub(start))
	}
}

// random delays, for property tests.
func (w *world) jitter(rng *rand.Rand) {
	w.delay = func(k ActionKind) time.Duration {
		switch k {
		case Resolve, Open:
			return time.Duration(rng.IntN(2000)) * time.Millisecond
		case Close:
			return time.Duration(rng.IntN(300)) * time.Millisecond
		}
		return time.Duration(rng.IntN(20)) * time.Millisecond
	}
}

func laneText(l *line) string {
	text := ""
	for _, ln := range l.group.lanes {
		text += fmt.Sprintf("%s waits %d", ln.pool.name, ln.waiting)
		for class := range ln.queues {
			q := &ln.queues[class]
			text += fmt.Sprintf(", ready %d starving %d hungry %d loaded %d asked %d", len(q.ready), q.starving.n, q.hungry.n, q.loaded, q.asked)
		}
	}
	return text
}
