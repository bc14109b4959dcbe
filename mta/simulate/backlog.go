package simulate

import (
	"time"

	"github.com/veredus/veredus/mta/dispatch"
)

// run is the mail of one hand-over for one recipient domain: counters, the orders
// of messages given back, and those that wait for a retry.
type run struct {
	dest   *destination
	domain string
	hand   uint32 // index of its hand-over
	index  uint32

	total   int64 // that the hand-over brings
	arrived int64
	next    int64   // order of the next fresh message
	back    []int64 // orders of fresh messages given back
	retries retries

	held    int32 // messages in memory
	loading bool
	known   bool // to the core
	expired bool
}

// fresh is how many messages in the store were never attempted.
func (r *run) fresh() int64 { return r.arrived - r.next + int64(len(r.back)) }

// waiting is how many messages are in the store.
func (r *run) waiting() int64 { return r.fresh() + int64(len(r.retries)) }

// takeFresh takes the order of a fresh message out.
func (r *run) takeFresh() int64 {
	if n := len(r.back); n > 0 {
		order := r.back[n-1]
		r.back = r.back[:n-1]
		return order
	}
	r.next++
	return r.next - 1
}

// retry is a message that waits for its next attempt.
type retry struct {
	due   int64
	order int64
	state State
}

// retries is a binary heap by due time, equals by order.
type retries []retry

func (h retries) before(i, j int) bool {
	return h[i].due < h[j].due || h[i].due == h[j].due && h[i].order < h[j].order
}

func (h *retries) push(x retry) {
	*h = append(*h, x)
	s := *h
	for i := len(s) - 1; i > 0; {
		parent := (i - 1) / 2
		if !s.before(i, parent) {
			return
		}
		s[i], s[parent] = s[parent], s[i]
		i = parent
	}
}

func (h *retries) pop() retry {
	s := *h
	first, last := s[0], len(s)-1
	s[0] = s[last]
	s = s[:last]
	for i := 0; ; {
		least := 2*i + 1
		if least >= len(s) {
			break
		}
		if right := least + 1; right < len(s) && s.before(right, least) {
			least = right
		}
		if !s.before(least, i) {
			break
		}
		s[i], s[least] = s[least], s[i]
		i = least
	}
	*h = s
	if c := cap(s); c > 1024 && len(s) < c/4 {
		*h = append(make(retries, 0, c/2), s...)
	}
	return first
}

// due is when the earliest is due, 0 when there is none.
func (h retries) due() int64 {
	if len(h) == 0 {
		return 0
	}
	return h[0].due
}

// message is one in memory.
type message struct {
	run     *run
	order   int64
	due     int64 // of a retry
	state   State
	isRetry bool
	returns uint8 // how often in a row it was lost at its MAIL

	// What its transaction came to, until that is durable.
	outcome Outcome
	next    int64
}

// hold makes a record for a message that comes into memory.
func (e *engine) hold(r *run, order int64) uint32 {
	var i uint32
	if n := len(e.freeMsgs); n > 0 {
		i = e.freeMsgs[n-1]
		e.freeMsgs = e.freeMsgs[:n-1]
	} else {
		i = uint32(len(e.msgs))
		e.msgs = append(e.msgs, message{})
	}
	e.msgs[i] = message{run: r, order: order}
	r.held++
	return i
}

// release forgets a message in memory.
func (e *engine) release(i uint32) {
	e.msgs[i].run.held--
	e.msgs[i].run = nil
	e.freeMsgs = append(e.freeMsgs, i)
}

// msgID and the like turn places in tables into the core's identifiers and back.
func msgID(i uint32) dispatch.MsgID  { return dispatch.MsgID(i) + 1 }
func msgAt(id dispatch.MsgID) uint32 { return uint32(id - 1) }
func runID(i uint32) dispatch.RunID  { return dispatch.RunID(i) + 1 }
func runAt(id dispatch.RunID) uint32 { return uint32(id - 1) }
func instant(nanos int64) time.Time  { return time.Unix(0, nanos) }

// makeRuns lays out the runs of all hand-overs for the engine's destinations.
func (e *engine) makeRuns() {
	e.hands = make([][]*run, len(e.cfg.HandOvers))
	for h := range e.cfg.HandOvers {
		hand := &e.cfg.HandOvers[h]
		for _, d := range e.dests {
			if d.index >= len(hand.Counts) || hand.Counts[d.index] == 0 {
				continue
			}
			for i, n := range d.spec.Deal(hand.Counts[d.index]) {
				if n > 0 {
					e.makeRun(d, d.spec.Domains[i].Name, h, n)
				}
			}
		}
	}
}

func (e *engine) makeRun(d *destination, domain string, hand int, n int64) {
	r := &run{dest: d, domain: domain, hand: uint32(hand), index: uint32(len(e.runs)), total: n}
	e.runs = append(e.runs, r)
	e.hands[hand] = append(e.hands[hand], r)
	e.left += n
	d.tally.Recipients += n
	d.part(r).Recipients += n
}

// Deal divides n recipients among the destination's domains by their shares, equally
// if none has one.
func (d *Destination) Deal(n int64) []int64 {
	shares, sum := make([]int64, len(d.Domains)), int64(0)
	for i := range d.Domains {
		shares[i] = int64(d.Domains[i].Share)
		sum += shares[i]
	}
	if sum == 0 {
		for i := range shares {
			shares[i] = 1
		}
		sum = int64(len(shares))
	}
	dealt, upTo := int64(0), int64(0)
	for i, s := range shares {
		upTo += s
		end := int64(float64(n) * (float64(upTo) / float64(sum)))
		if upTo == sum {
			end = n
		}
		shares[i] = end - dealt
		dealt = end
	}
	return shares
}

// arrivedBy is how many of n messages of a hand-over arrived by t after the start.
func (h *HandOver) arrivedBy(n int64, t time.Duration) int64 {
	switch {
	case t < h.At:
		return 0
	case h.Over == 0 || t >= h.At+h.Over:
		return n
	}
	return int64(float64(n) * (float64(t-h.At) / float64(h.Over)))
}

// arrivalOf is when a message of a run of n arrives.
func (h *HandOver) arrivalOf(order, n int64) time.Duration {
	if h.Over == 0 {
		return h.At
	}
	return h.At + time.Duration(float64(h.Over)*(float64(order+1)/float64(n)))
}

// step is the time between two arrivals of a hand-over that comes spread, at least
// a tenth of a second: what comes within it comes at once.
func (h *HandOver) step() time.Duration {
	total := int64(0)
	for _, n := range h.Counts {
		total += n
	}
	return max(h.Over/time.Duration(max(total, 1)), 100*time.Millisecond)
}

// arrive lets the mail of a hand-over in that is due, and plans the next.
func (e *engine) arrive(hand uint32) {
	h := &e.cfg.HandOvers[hand]
	since := time.Duration(e.now - e.start)
	for _, r := range e.hands[hand] {
		if n := h.arrivedBy(r.total, since) - r.arrived; n > 0 {
			r.arrived += n
			r.dest.bin(e).Arrived += n
			e.announce(r, n)
		}
	}
	if end := h.At + h.Over; since < end {
		e.queue.add(e.start+int64(min(since+h.step(), end)), evArrival, hand, 0)
	}
}

// announce tells the core of n more messages of a run.
func (e *engine) announce(r *run, n int64) {
	if r.known {
		e.core.Grew(e.t, runID(r.index), int(n))
		return
	}
	h := &e.cfg.HandOvers[r.hand]
	r.known = true
	e.core.AddRun(e.t, dispatch.Run{
		ID: runID(r.index), Delivery: dispatch.DeliveryID(r.hand) + 1, Class: h.Class, Priority: h.Priority,
		Pool: h.Pool, Domain: r.domain, Fresh: r.fresh(), Deferred: int64(len(r.retries)), NextDue: maybe(r.retries.due()),
	})
}

// maybe is an instant of which 0 is none.
func maybe(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return instant(nanos)
}

// load begins a read of a run's messages.
func (e *engine) load(a *dispatch.Action) {
	r := e.runs[runAt(a.Run)]
	r.loading = true
	e.queue.add(e.now+int64(e.cfg.Timing.Load), evLoaded, r.index, uint32(a.Fresh)<<16|uint32(a.Due))
}

// loaded ends a read: retries that are due first, then fresh mail.
func (e *engine) loaded(index, counts uint32) {
	r := e.runs[index]
	r.loading = false
	if !r.known {
		e.core.Loaded(e.t, dispatch.Loaded{Run: runID(index)})
		return
	}
	e.loadedMsgs = e.loadedMsgs[:0]
	for n := counts & 0xffff; n > 0 && len(r.retries) > 0 && r.retries[0].due <= e.now; n-- {
		e.loadRetry(r)
	}
	for n := counts >> 16; n > 0 && r.fresh() > 0; n-- {
		if order := r.takeFresh(); !e.overdue(r, order) {
			e.loadedMsgs = append(e.loadedMsgs, dispatch.Msg{ID: msgID(e.hold(r, order))})
		}
	}
	e.core.Loaded(e.t, dispatch.Loaded{
		Run: runID(index), Msgs: e.loadedMsgs, MoreFresh: r.fresh() > 0, NextDue: maybe(r.retries.due()),
	})
	e.forgetIfEmpty(r)
}

func (e *engine) loadRetry(r *run) {
	x := r.retries.pop()
	if e.overdue(r, x.order) {
		return
	}
	i := e.hold(r, x.order)
	m := &e.msgs[i]
	m.due, m.state, m.isRetry = x.due, x.state, true
	spec := dispatch.Msg{ID: msgID(i), Retry: true}
	if s := x.state.Source; s != 0 {
		spec.Source, spec.Blocked = e.sources[s-1], !x.state.Soon
	}
	e.loadedMsgs = append(e.loadedMsgs, spec)
}

// expires is when a message's validity ends.
func (e *engine) expires(r *run, order int64) int64 {
	h := &e.cfg.HandOvers[r.hand]
	return e.start + int64(h.arrivalOf(order, r.total)+h.Validity)
}

// overdue ends a message whose validity ended while it was in the store.
func (e *engine) overdue(r *run, order int64) bool {
	if e.cfg.HandOvers[r.hand].Over == 0 || e.expires(r, order) > e.now {
		return false // a hand-over that came at once is swept at its end
	}
	e.over(r, Expired, 1)
	return true
}

// forgetIfEmpty drops a run with nothing left in store or memory, as the relay does.
func (e *engine) forgetIfEmpty(r *run) {
	if r.known && !r.loading && r.held == 0 && r.waiting() == 0 {
		r.known = false
		e.core.DropRun(e.t, runID(r.index))
	}
}

// giveBack makes a message loadable again.
func (e *engine) giveBack(i uint32) {
	m := &e.msgs[i]
	r := m.run
	switch {
	case r.expired:
		e.over(r, Expired, 1)
	case m.isRetry:
		r.retries.push(retry{due: m.due, order: m.order, state: m.state})
	default:
		r.back = append(r.back, m.order)
	}
	e.release(i)
	e.core.Returned(e.t, msgID(i))
	e.forgetIfEmpty(r)
}

// postpone leaves a retry to the backlog until an instant.
func (e *engine) postpone(i uint32, until int64) {
	m := &e.msgs[i]
	r := m.run
	if r.expired {
		e.giveBack(i)
		return
	}
	r.retries.push(retry{due: until, order: m.order, state: m.state})
	e.release(i)
	e.core.Settled(e.t, msgID(i), instant(until), false)
	e.forgetIfEmpty(r)
}

// expire ends what is left of a hand-over whose validity ended. What is in memory
// and not being sent comes back and ends then.
func (e *engine) expire(hand uint32) {
	for _, r := range e.hands[hand] {
		e.over(r, Expired, r.waiting())
		r.next, r.back, r.retries, r.expired = r.arrived, nil, nil, true
		if r.known {
			r.known = false
			e.core.DropRun(e.t, runID(r.index))
		}
	}
}

// over counts the end of n messages.
func (e *engine) over(r *run, o Outcome, n int64) {
	if n == 0 {
		return
	}
	e.left -= n
	r.dest.last = time.Duration(e.now - e.start)
	r.dest.ended(e, o, n)
	r.dest.part(r).ended(r.dest.last, o, n)
}
