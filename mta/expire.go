package mta

import (
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
)

const (
	// sweepPage is how many messages expire in one write, so that the end of a
	// large run delays nobody.
	sweepPage = 256
	// sweepAgain is the wait for messages that were in memory when a sweep passed;
	// it doubles up to sweepRarely, for a transaction may take its time and a sweep
	// looks at every run.
	sweepAgain  = time.Second
	sweepRarely = 30 * time.Second
	// clockLook is the longest the relay goes without looking at the clock, which
	// may be set.
	clockLook = time.Minute
)

// expiry watches the ends of validity. It belongs to the owner.
type expiry struct {
	own      time.Time // earliest expiry of a message with its own validity; zero: none known
	sweeping bool      // own validities are being swept
	sweeps   map[uint64]bool
	armed    *time.Timer
}

// watch looks after a hand-over's common expiry, or after its messages' own.
func (e *expiry) watch(r *Relay, ho *handover) {
	if ho.Expires.IsZero() {
		e.at(r, r.cfg.Now()) // what expired while the relay was down
		return
	}
	e.arm(r)
}

// at notes that a message with its own validity expires at t.
func (e *expiry) at(r *Relay, t time.Time) {
	if e.own.IsZero() || t.Before(e.own) {
		e.own = t
		e.arm(r)
	}
}

// arm sets the timer to the next expiry.
func (e *expiry) arm(r *Relay) {
	if r.stopping {
		return
	}
	next := e.own
	if e.sweeping {
		next = time.Time{}
	}
	for _, ho := range r.handovers {
		if !ho.Expires.IsZero() && !e.sweeps[ho.ID] && (next.IsZero() || ho.Expires.Before(next)) {
			next = ho.Expires
		}
	}
	e.stop()
	if next.IsZero() {
		return
	}
	wait := min(max(next.Sub(r.cfg.Now()), 0), clockLook)
	e.armed = time.AfterFunc(wait, func() { r.post(func(now time.Time) { e.look(r, now) }) })
}

// stop ends the timer.
func (e *expiry) stop() {
	if e.armed != nil {
		e.armed.Stop()
	}
}

// look starts the sweeps that are due.
func (e *expiry) look(r *Relay, now time.Time) {
	for _, ho := range r.handovers {
		if ho.Expires.IsZero() || ho.Expires.After(now) || e.sweeps[ho.ID] || r.stopping {
			continue
		}
		if e.sweeps == nil {
			e.sweeps = map[uint64]bool{}
		}
		e.sweeps[ho.ID] = true
		ho.expired = true // nothing is loaded any more
		r.steer(func() { r.recallAll(now, ho) })
		r.work(func() { r.sweep(ho) })
	}
	if !e.own.IsZero() && !e.own.After(now) && !e.sweeping && !r.stopping {
		e.own, e.sweeping = time.Time{}, true
		r.work(func() { r.sweepOwn(now) })
	}
	e.arm(r)
}

// recallAll has everything of a hand-over given back that is in memory and not being sent.
func (r *Relay) recallAll(now time.Time, ho *handover) {
	for _, h := range r.held {
		if h.run.ho == ho {
			r.core.Recall(now, h.id)
		}
	}
}

// sweep expires everything unfinished of a hand-over, and then forgets it.
func (r *Relay) sweep(ho *handover) {
	for wait := sweepAgain; r.sweepOnce(ho.ID, time.Time{}, ho); wait = min(2*wait, sweepRarely) {
		if !r.pause(wait) {
			return
		}
	}
	_ = r.call(r.calm, func(now time.Time) {
		delete(r.expiry.sweeps, ho.ID)
		r.closeHandover(now, ho)
	})
}

// sweepOwn expires the messages whose own validity ended, and finds the next end.
func (r *Relay) sweepOwn(by time.Time) {
	again := r.sweepOnce(0, by, nil)
	next, _, err := r.cfg.Store.Unfinished(r.calm, 0, by.Add(2*MaxValidity), MessageID{}, 1)
	if err != nil {
		r.broken("looking for the next expiry", err)
		return
	}
	_ = r.call(r.calm, func(now time.Time) {
		r.expiry.sweeping = false
		if again {
			r.expiry.at(r, now.Add(sweepAgain))
		} else if len(next) > 0 {
			r.expiry.at(r, maxTime(next[0].Expires, now.Add(sweepAgain)))
		}
		r.expiry.arm(r)
	})
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// pause waits on the relay's time; false when it stops.
func (r *Relay) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.calm.Done():
		return false
	}
}

// sweepOnce goes over the unfinished messages once, page by page, each page made
// durable before the next is read: those of one hand-over, or those of standing
// ones that expire by a time. It answers whether some were in memory, and so have to
// be looked for again.
func (r *Relay) sweepOnce(handover uint64, by time.Time, ho *handover) (again bool) {
	after := MessageID{}
	for {
		page, done, err := r.cfg.Store.Unfinished(r.calm, handover, by, after, sweepPage)
		if err != nil {
			r.broken("reading unfinished messages", err)
			return false
		}
		if len(page) > 0 {
			skipped, ok := r.expirePage(page, ho)
			if !ok {
				return false
			}
			// Only a pass that finds nothing left is the last one of a hand-over.
			again = again || skipped || ho != nil
			last := page[len(page)-1].ID
			if ho == nil {
				r.recount(page)
			} else {
				r.dropSwept(ho, after.Domain, last.Domain)
			}
			after = last
		}
		if done || len(page) == 0 {
			return again
		}
	}
}

// dropSwept forgets the runs that a sweep is through with, so that the end of the
// hand-over has little left to do.
func (r *Relay) dropSwept(ho *handover, from, to uint32) {
	if from == to {
		return
	}
	_ = r.call(r.calm, func(now time.Time) {
		for number := from; number < to; number++ {
			if ru := ho.run(number); ru != nil && len(ru.held()) == 0 {
				r.core.DropRun(now, ru.id)
				r.forget(ru)
			}
		}
	})
}

// expirePage expires those messages of a page that are not in memory, and waits
// until that is durable. Those in memory are given back unless being sent. ho is
// their hand-over; nil: each its own.
func (r *Relay) expirePage(page []*Message, ho *handover) (skipped, ok bool) {
	durable := make(chan struct{})
	if r.call(r.calm, func(now time.Time) {
		why := reasons{r: r, now: now}
		for _, m := range page {
			if h := r.byID[m.ID]; h != nil {
				skipped = true
				if h.inCore && !h.sending {
					r.core.Recall(now, h.id)
				}
				continue
			}
			h := &held{msg: m}
			r.byID[m.ID] = h
			of := ho
			if of == nil {
				of = r.handovers[m.ID.Handover]
			}
			if of != nil {
				h.mailID = r.earlierID(m, of)
			}
			r.expire(now, h, why.of(of, m.ID.Domain))
		}
		r.writer.then(func(time.Time) { close(durable) })
	}) != nil {
		return skipped, false
	}
	select {
	case <-durable:
		return skipped, true
	case <-r.calm.Done():
		return skipped, false
	}
}

// reasons says what holds runs, asking once for messages of one run in a row.
type reasons struct {
	r    *Relay
	now  time.Time
	run  *run
	text string
}

func (w *reasons) of(ho *handover, domain uint32) string {
	if ho == nil || ho.run(domain) == nil {
		return ""
	}
	if ru := ho.run(domain); ru != w.run {
		w.run, w.text = ru, heldBy(w.r.core.Waiting(w.now, ru.id))
	}
	return w.text
}

// recount corrects what is known of the runs of standing hand-overs of which a sweep
// took mail. The core knows it still, and would open sessions for mail that is gone.
func (r *Relay) recount(page []*Message) {
	seen := map[runName]bool{}
	for _, m := range page {
		name := runName{m.ID.Handover, m.ID.Domain}
		if !seen[name] {
			seen[name] = true
			r.recountRun(name)
		}
	}
}

// runName is a run's place in the store.
type runName struct {
	handover uint64
	domain   uint32
}

func (r *Relay) recountRun(name runName) {
	var ru *run
	var changes uint32
	find := func(time.Time) {
		if ho := r.handovers[name.handover]; ho != nil && ho.run(name.domain) != nil {
			ru = ho.run(name.domain)
			changes = ru.changes
		}
	}
	if r.call(r.calm, find) != nil || ru == nil {
		return
	}
	left, err := r.cfg.Store.Runs(r.calm, name.handover, name.domain-1, 1)
	if err != nil {
		r.broken("reading the directory of a hand-over", err)
		return
	}
	var is RunState
	if len(left) > 0 && left[0].Domain == name.domain {
		is = left[0]
	}
	_ = r.call(r.calm, func(now time.Time) {
		if ru.changes != changes || ru.active != nil {
			return
		}
		ru.more = is.Fresh > 0
		ru.setDue(is.NextDue)
		r.core.Recount(now, ru.id, is.Fresh, is.Deferred, is.NextDue)
		r.forgetIfEmpty(now, ru)
	})
}

// expire settles a message in memory as expired; why says what held it.
func (r *Relay) expire(now time.Time, h *held, why string) {
	r.writer.settle(h, expired(h, why, now))
	r.observe("", Expired, bounce.CodeTimeout, nil)
}

// expired is the end of a message's validity. The last reply's code, tag and text
// are kept; a message that was never attempted tells what held it.
func expired(h *held, why string, now time.Time) Settlement {
	m := h.msg
	destination := ""
	if m.State.Attempts == 0 {
		destination = m.Domain
	}
	text := m.State.LastReply.String()
	if text == "" {
		text = "the validity period ended before an attempt could be made"
		if why != "" {
			text += ": " + why
		}
	}
	return Settlement{
		Message: m, Outcome: Expired, Time: now, Verdict: bounce.Expired(m.State.Last),
		Text: text, Destination: destination, MessageID: h.mailID,
	}
}

var causeTexts = map[dispatch.Cause]string{
	dispatch.CauseRest:      "the path rests",
	dispatch.CauseBackoff:   "the path backs off",
	dispatch.CauseRate:      "limited by rate",
	dispatch.CauseSuspended: "suspended",
	dispatch.CausePaused:    "the delivery is paused",
	dispatch.CauseDNS:       "no route to the domain",
	dispatch.CauseSlot:      "no session slot",
	dispatch.CauseSource:    "no source",
	dispatch.CauseLearned:   "limited by the pace learned from replies",
	dispatch.CauseWarmUp:    "the sources are being warmed up",
}

// heldBy says in words what holds mail; empty when nothing but its turn does.
func heldBy(w dispatch.Wait) string {
	cause := causeTexts[w.Cause]
	switch {
	case cause == "" || w.Text == "":
		return cause + w.Text
	default:
		return cause + ": " + w.Text
	}
}
