package simulate

import "github.com/veredus/veredus/mta/dispatch"

// writer makes claims, releases and outcomes durable as the relay's does: one write
// at a time, each with everything that came while the one before was under way.
type writer struct {
	busy        bool
	next, under batch
	spare       batch // memory to be used again
}

// batch is what one write makes durable.
type batch struct {
	claims   []dispatch.MsgID
	releases []uint32
	settles  []settled
}

type settled struct {
	msg     uint32
	outcome Outcome
	next    int64
}

func (b *batch) empty() bool { return len(b.claims)+len(b.releases)+len(b.settles) == 0 }

func (b *batch) clear() {
	b.claims, b.releases, b.settles = b.claims[:0], b.releases[:0], b.settles[:0]
}

func (e *engine) claim(ids []dispatch.MsgID) {
	e.writer.next.claims = append(e.writer.next.claims, ids...)
	e.write()
}

// returned takes a message back from the core.
func (e *engine) returned(i uint32, claimed bool) {
	if !claimed {
		e.giveBack(i)
		return
	}
	e.writer.next.releases = append(e.writer.next.releases, i)
	e.write()
}

func (e *engine) settle(i uint32, o Outcome, next int64) {
	e.writer.next.settles = append(e.writer.next.settles, settled{i, o, next})
	e.write()
}

// write begins a write unless one is under way.
func (e *engine) write() {
	w := &e.writer
	if w.busy || w.next.empty() {
		return
	}
	w.busy = true
	w.next, w.under = w.under, w.next
	e.queue.add(e.now+int64(e.cfg.Timing.Commit), evWritten, 0, 0)
}

// written tells the core what became durable. The next write has begun by then.
func (e *engine) written() {
	w := &e.writer
	done := w.under
	w.under, w.spare, w.busy = w.spare, batch{}, false
	e.write()
	if len(done.claims) > 0 {
		e.core.Claimed(e.t, done.claims)
	}
	for _, i := range done.releases {
		e.giveBack(i)
	}
	for i := range done.settles {
		e.settled(&done.settles[i])
	}
	done.clear()
	w.spare = done
}

func (e *engine) settled(s *settled) {
	m := &e.msgs[s.msg]
	r := m.run
	e.countUnsettled(-1)
	if s.outcome == Deferred && !r.expired {
		r.retries.push(retry{due: s.next, order: m.order, state: m.state})
		e.core.Settled(e.t, msgID(s.msg), instant(s.next), false)
	} else {
		o := s.outcome
		if o == Deferred {
			o = Expired // its run ended while it was being sent
		}
		e.over(r, o, 1)
		e.core.Settled(e.t, msgID(s.msg), instant(e.now), true)
	}
	e.release(s.msg)
	e.forgetIfEmpty(r)
}
