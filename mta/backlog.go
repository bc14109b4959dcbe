package mta

import (
	"cmp"
	"slices"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/route"
)

// runPage is how many runs are read from the directory at a time.
const runPage = 500

// handover is a hand-over as the owner holds it.
type handover struct {
	Handover
	runs    dispatch.Table[run] // by domain number
	gone    bool                // cancelled, finished or expired: its runs are being forgotten
	expired bool                // its validity ended: a sweep ends what is left
	early   map[uint32]early    // by domain number; nil while there is none
}

// early is what was changed of a run before the owner knew it: the page of the directory
// that will announce it may have been read before that.
type early struct {
	due  time.Time // of a retry; zero: none
	move *Move
}

// heardEarly notes the news of a run that is not known yet.
func (ho *handover) heardEarly(domain uint32, due time.Time, move *Move) {
	if ho.early == nil {
		ho.early = map[uint32]early{}
	}
	e := ho.early[domain]
	e.due = earliest(e.due, due)
	if move != nil {
		e.move = move
	}
	ho.early[domain] = e
}

// withEarly is what the directory says of a run, and what was heard of it before.
func (ho *handover) withEarly(s RunState) RunState {
	e, ok := ho.early[s.Domain]
	if !ok {
		return s
	}
	delete(ho.early, s.Domain)
	if !e.due.IsZero() {
		s.NextDue, s.Deferred = earliest(s.NextDue, e.due), max(s.Deferred, 1)
	}
	if e.move != nil {
		s.Pool, s.Instead = e.move.Pool, e.move.Instead
	}
	return s
}

// run is the hand-over's run to the domain of a number; nil when it is not in memory.
func (ho *handover) run(domain uint32) *run { return ho.runs.Get(uint64(domain)) }

// run is the owner's part of a run: where loading goes on. There may be half a million,
// so what only runs with messages in memory need is in active.
type run struct {
	id      dispatch.RunID
	ho      *handover
	domain  string
	active  *active  // nil while nothing is in memory or on its way there
	next    Position // where the next load of fresh mail begins
	mark    Position // settled-below mark last written
	due     int64    // when the earliest retry is due, in Unix nanoseconds; 0: none
	number  uint32
	changes uint32 // counts what made mail of the run loadable
	more    bool   // fresh mail may be left in the store
	dropped bool
}

// active is the part of a run with messages in memory, or on their way there.
type active struct {
	loading bool
	rewind  Position  // lowest fresh message given back while a load is under way
	put     time.Time // earliest retry that came while a load is under way; zero: none
	held    []*held
}

// wake makes the run one with messages in memory.
func (ru *run) wake() *active {
	if ru.active == nil {
		ru.active = &active{rewind: noRewind}
	}
	return ru.active
}

// sleep forgets what a run without messages in memory does not need.
func (ru *run) sleep() {
	if a := ru.active; a != nil && !a.loading && len(a.held) == 0 {
		ru.active = nil
	}
}

func (ru *run) loading() bool { return ru.active != nil && ru.active.loading }

// held are its messages in memory.
func (ru *run) held() []*held {
	if ru.active == nil {
		return nil
	}
	return ru.active.held
}

// nextDue is when its earliest retry is due; zero for none.
func (ru *run) nextDue() time.Time {
	if ru.due == 0 {
		return time.Time{}
	}
	return time.Unix(0, ru.due)
}

func (ru *run) setDue(at time.Time) {
	ru.due = 0
	if !at.IsZero() {
		ru.due = at.UnixNano()
	}
}

// held is a message in memory.
type held struct {
	id      dispatch.MsgID
	msg     *Message
	run     *run // nil for a message that only expires
	inCore  bool // the core knows it
	sending bool
	gone    bool     // its claim was not made
	mailID  string   // Message-ID header, from the claim on
	failing *failing // an operator fails it as soon as it is back; nil: nobody
	job     *job     // while it is sending
	returns int      // how often in a row it was lost at its MAIL
}

// HandOver gives the relay a hand-over, running or paused. It returns at once; the
// runs are read from the directory in the background. Giving one that it has
// already reads the directory again.
func (r *Relay) HandOver(h *Handover) {
	r.post(func(now time.Time) {
		ho := r.adopt(now, h)
		r.expiry.watch(r, ho)
		r.work(func() { r.readDirectory(ho.ID) })
	})
}

// adopt makes the hand-over known to the owner. What the owner was told of its
// pause is newer than what the caller read.
func (r *Relay) adopt(now time.Time, h *Handover) *handover {
	ho := r.handovers[h.ID]
	if ho != nil {
		return ho
	}
	ho = &handover{Handover: *h}
	r.handovers[h.ID] = ho
	if _, resumed := r.resumed[h.Delivery]; resumed {
		ho.Paused = false
	}
	if ho.Paused {
		r.core.Pause(now, dispatch.DeliveryID(ho.Delivery))
	}
	return ho
}

// work runs f in a goroutine that Stop waits for; not at all once Stop began. Owner only.
func (r *Relay) work(f func()) {
	if r.stopping {
		return
	}
	r.workers.Add(1)
	go func() {
		defer r.workers.Done()
		f()
	}()
}

// readDirectory announces a hand-over's runs page by page.
func (r *Relay) readDirectory(id uint64) {
	after, more := uint32(0), true
	for more {
		page, err := r.cfg.Store.Runs(r.calm, id, after, runPage)
		if err != nil {
			r.broken("reading the directory of a hand-over", err)
			return
		}
		if len(page) == 0 || r.call(r.calm, func(now time.Time) { more = r.addRuns(now, id, page) }) != nil {
			return
		}
		after = page[len(page)-1].Domain
	}
}

// broken reports a failed read. Reads fail only with the store; nothing can go on.
func (r *Relay) broken(doing string, err error) {
	if r.calm.Err() == nil {
		r.fail(doing, err)
	}
}

// StoreError is a failure of the store, which the relay cannot survive.
type StoreError struct {
	Doing string
	Err   error
}

// Error says what failed.
func (e *StoreError) Error() string { return "mta: " + e.Doing + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *StoreError) Unwrap() error { return e.Err }

// addRuns announces runs; false when the hand-over is over.
func (r *Relay) addRuns(now time.Time, id uint64, page []RunState) bool {
	ho := r.handovers[id]
	if ho == nil || ho.gone {
		return false
	}
	for _, s := range page {
		if ru := ho.run(s.Domain); ru == nil {
			r.addRun(now, ho, s)
		} else {
			r.growRun(now, ru, s)
		}
	}
	return true
}

// growRun takes in what the directory says of a run that is known: what arrived may
// have been told already, then it counts twice, which costs an empty load.
func (r *Relay) growRun(now time.Time, ru *run, s RunState) {
	if s.Fresh > 0 {
		ru.more = true
		ru.rewindTo(s.Mark)
	}
	if s.Deferred > 0 {
		ru.dueAt(s.NextDue)
	}
	r.core.AddRun(now, r.describe(ru, s))
}

func (r *Relay) addRun(now time.Time, ho *handover, s RunState) *run {
	s = ho.withEarly(s)
	r.lastRun++
	ru := &run{
		id: r.lastRun, ho: ho, number: s.Domain, domain: s.DomainName,
		next: s.Mark, mark: s.Mark, more: s.Fresh > 0,
	}
	ru.setDue(s.NextDue)
	ho.runs.Put(uint64(s.Domain), ru)
	r.runs.Put(uint64(ru.id), ru)
	r.core.AddRun(now, r.describe(ru, s))
	return ru
}

// describe is a run as the core takes it.
func (r *Relay) describe(ru *run, s RunState) dispatch.Run {
	ho := ru.ho
	return dispatch.Run{
		ID: ru.id, Delivery: dispatch.DeliveryID(ho.Delivery), Tenant: ho.Tenant, SenderDomain: ho.SenderDomain,
		Class: ho.Class, Priority: ho.Priority, Pool: ho.poolOf(s), Domain: ru.domain,
		Fresh: s.Fresh, Deferred: s.Deferred, NextDue: s.NextDue,
	}
}

// Arrived tells of one new transactional message of a standing hand-over. It returns at once.
func (r *Relay) Arrived(h *Handover, id MessageID, domain string, expires time.Time) {
	r.post(func(now time.Time) {
		ho := r.adopt(now, h)
		r.expiry.at(r, expires)
		ru := ho.run(id.Domain)
		if ru == nil {
			r.addRun(now, ho, RunState{Domain: id.Domain, DomainName: domain, Mark: id.position(), Fresh: 1})
			return
		}
		ru.more = true
		ru.rewindTo(id.position())
		r.core.Grew(now, ru.id, 1)
	})
}

// noRewind is behind every message.
var noRewind = Position{Lane: 255, Order: 1<<64 - 1}

// dueAt notes a retry in the store. A load under way may not have seen it.
func (ru *run) dueAt(at time.Time) {
	ru.changes++
	ru.setDue(earliest(ru.nextDue(), at))
	if ru.loading() {
		ru.active.put = earliest(ru.active.put, at)
	}
}

// earliest is the earlier of two times of which zero is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// rewindTo makes the next load begin at p at the latest.
func (ru *run) rewindTo(p Position) {
	ru.changes++
	if p.Less(ru.next) {
		ru.next = p
	}
	if ru.loading() && p.Less(ru.active.rewind) {
		ru.active.rewind = p
	}
}

// load reads messages of a run and reports them to the core.
func (r *Relay) load(id dispatch.RunID, fresh, due int) {
	ru := r.runs.Get(uint64(id))
	if ru == nil || ru.ho.gone || ru.ho.expired {
		r.core.Loaded(r.cfg.Now(), dispatch.Loaded{Run: id})
		return
	}
	a := ru.wake()
	a.loading, a.rewind, a.put = true, noRewind, time.Time{}
	inMemory := make(map[MessageID]struct{}, len(a.held))
	for _, h := range a.held {
		inMemory[h.msg.ID] = struct{}{}
	}
	req := LoadRequest{
		Handover: ru.ho.ID, Domain: ru.number, From: ru.next, Fresh: fresh, Due: due, Now: r.cfg.Now(),
		Skip: func(id MessageID) bool { _, ok := inMemory[id]; return ok },
	}
	r.work(func() {
		res, err := r.cfg.Store.Load(r.calm, req)
		if err != nil {
			r.broken("loading messages", err)
			return
		}
		r.post(func(now time.Time) { r.loaded(now, ru, res) })
	})
}

func (r *Relay) loaded(now time.Time, ru *run, res LoadResult) {
	a := ru.active
	a.loading = false
	if ru.dropped {
		return
	}
	ru.next, ru.more = res.Next, res.More
	if a.rewind != noRewind {
		ru.more = true
		ru.rewindTo(a.rewind)
	}
	ru.setDue(earliest(res.NextDue, a.put))
	answer := dispatch.Loaded{Run: ru.id, MoreFresh: ru.more, NextDue: ru.nextDue()}
	for _, batch := range [2][]*Message{res.Due, res.Fresh} {
		for _, m := range batch {
			if h := r.hold(now, ru, m); h != nil {
				answer.Msgs = append(answer.Msgs, dispatch.Msg{ID: h.id, Retry: m.Retry, Source: m.State.Source, Blocked: isBlock(m.State.Last), Engaged: m.ID.Lane == LaneEngaged, Alone: m.State.LostClaims >= maxLostClaims-1})
			}
		}
	}
	ru.sleep()
	r.core.Loaded(now, answer)
	r.forgetIfEmpty(now, ru)
}

// hold takes a loaded message into memory. It answers nil for one that the core
// shall not see: it is here already, has expired, or lost too many claims.
func (r *Relay) hold(now time.Time, ru *run, m *Message) *held {
	if other := r.byID[m.ID]; other != nil {
		if other.run == nil { // expiring: the mark must not pass it
			other.run = ru
			ru.keep(other)
		}
		return nil
	}
	r.lastMsg++
	h := &held{id: r.lastMsg, msg: m, run: ru}
	h.mailID = r.earlierID(m, ru.ho)
	r.byID[m.ID] = h
	ru.keep(h)
	switch {
	case ru.ho.expired || !m.Expires.After(now):
		r.expire(now, h, heldBy(r.core.Waiting(now, ru.id)))
	case m.State.LostClaims >= maxLostClaims:
		r.writer.settle(h, Settlement{
			Message: m, Outcome: Bounced, Time: now, Verdict: bounce.CrashLoop(), Destination: ru.domain, Uncertain: true,
			Text: "three claims were lost to crashes of the relay: each time the process ended while this message was about to be sent, or was being sent", MessageID: h.mailID,
		})
	default:
		h.inCore = true
		r.held[h.id] = h
		return h
	}
	return nil
}

// release forgets a message in memory.
func (r *Relay) release(now time.Time, h *held) {
	delete(r.byID, h.msg.ID)
	delete(r.held, h.id)
	ru := h.run
	if ru == nil {
		return
	}
	list := ru.held()
	if i := slices.Index(list, h); i >= 0 {
		last := len(list) - 1
		list[i], list[last] = list[last], nil
		ru.active.held = list[:last]
		ru.sleep()
	}
}

// keep adds a message in memory.
func (ru *run) keep(h *held) {
	a := ru.wake()
	a.held = append(a.held, h)
}

// forgetIfEmpty drops a run with nothing left in store or memory.
func (r *Relay) forgetIfEmpty(now time.Time, ru *run) {
	if ru.dropped || ru.active != nil || ru.more || ru.due != 0 {
		return
	}
	r.advanceMark(ru, true)
	r.core.DropRun(now, ru.id)
	r.forget(ru)
}

func (r *Relay) forget(ru *run) {
	ru.dropped = true
	ru.ho.runs.Remove(uint64(ru.number))
	r.runs.Remove(uint64(ru.id))
	r.forgetDead()
}

// forgetDead forgets the failures of domains without runs, once they outnumber the runs.
func (r *Relay) forgetDead() {
	if len(r.dead) <= 2*r.runs.Len()+1024 {
		return
	}
	kept := map[string]*route.Error{}
	for ru := range r.runs.All() {
		if failed := r.dead[ru.domain]; failed != nil {
			kept[ru.domain] = failed
		}
	}
	r.dead = kept
}

// markStep is how far a mark advances before it is written again.
const markStep = 256

// advanceMark writes the settled-below mark when it moved far enough, or at the end.
// A standing hand-over's marks are the store's own: a message of lower order may be
// durable there and its arrival not yet be known here.
func (r *Relay) advanceMark(ru *run, end bool) {
	if ru.ho.Arrival.IsZero() {
		return
	}
	low := ru.next
	for _, h := range ru.held() {
		if p := h.msg.ID.position(); !h.msg.Retry && p.Less(low) {
			low = p
		}
	}
	if !ru.mark.Less(low) || !end && low.Lane == ru.mark.Lane && low.Order-ru.mark.Order < markStep {
		return
	}
	ru.mark = low
	r.writer.mark(Mark{Handover: ru.ho.ID, Domain: ru.number, Mark: low})
}

// giveBack returns a message to its run.
func (r *Relay) giveBack(id dispatch.MsgID, claimed bool) {
	h := r.held[id]
	if h == nil {
		return
	}
	if claimed && !h.gone {
		r.writer.release(h)
		return
	}
	r.returned(r.cfg.Now(), h)
}

// postpone leaves a retry that waits for its source to the store until an instant.
func (r *Relay) postpone(id dispatch.MsgID, until time.Time) {
	h := r.held[id]
	if h == nil {
		return
	}
	if until.After(h.msg.Expires) {
		until = h.msg.Expires
	}
	r.writer.hurry([]Hurry{{Message: h.msg, Due: until, Later: true}})
	r.writer.then(func(now time.Time) {
		if h.failing != nil {
			r.returned(now, h)
			return
		}
		r.release(now, h)
		if h.run != nil {
			h.run.dueAt(until)
		}
		r.core.Settled(now, h.id, until, false)
	})
}

// returned makes a message loadable again.
func (r *Relay) returned(now time.Time, h *held) {
	if h.failing != nil {
		r.writer.settle(h, h.failing.end(h, now, cmp.Or(r.core.DestinationOf(h.run.domain), h.run.domain)))
		return
	}
	r.release(now, h)
	ru := h.run
	if h.msg.Retry {
		ru.dueAt(h.msg.State.Due)
	} else {
		ru.more = true
		ru.rewindTo(h.msg.ID.position())
	}
	r.core.Returned(now, h.id)
}

// settled forgets a message whose outcome is durable.
func (r *Relay) settled(now time.Time, h *held, s *Settlement) {
	r.release(now, h)
	h.failing.settled()
	final := s.Outcome != Deferred
	if ru := h.run; ru != nil {
		if !final {
			ru.dueAt(s.Next)
		}
		if h.inCore {
			r.core.Settled(now, h.id, s.Next, final)
		}
		r.advanceMark(ru, false)
		r.forgetIfEmpty(now, ru)
	}
}

// dropStep is how many runs are forgotten at a time, so that the end of a hand-over
// with half a million of them delays nobody.
const dropStep = 1000

// closeHandover ends a hand-over at once, and forgets its runs step by step. Messages
// being sent go on.
func (r *Relay) closeHandover(now time.Time, ho *handover) {
	if ho.gone {
		return
	}
	ho.gone = true
	delete(r.handovers, ho.ID)
	r.core.Pause(now, dispatch.DeliveryID(ho.Delivery))
	r.dropRuns(now, ho)
}

func (r *Relay) dropRuns(now time.Time, ho *handover) {
	n := 0
	for ru := range ho.runs.All() {
		if n++; n > dropStep {
			r.work(func() { r.post(func(now time.Time) { r.dropRuns(now, ho) }) })
			return
		}
		r.core.DropRun(now, ru.id)
		r.forget(ru)
	}
	r.core.DropDelivery(now, dispatch.DeliveryID(ho.Delivery))
}
