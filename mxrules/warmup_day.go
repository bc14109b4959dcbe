package mxrules

import (
	"fmt"
	"time"
)

// roll brings the state to the day of now. A day before the state's is waited for:
// what was sent in it is not known any more.
func (w *WarmUp) roll(now time.Time) {
	s, today := &w.state, dayOf(now)
	switch {
	case s.Day == 0:
		s.Day, s.LastSent, s.Since = today, today, now.UnixNano()
		w.finishBehindLast()
		w.drain(now, 0)
	case today > s.Day:
		w.endDay()
		s.begin(today)
		w.fade()
		w.drain(dayStart(today), 0)
	case s.Day-today > maxAhead: // the clock had been set wrong: nothing more today
		s.begin(today)
		s.Sent = max(s.Sent, w.plan.Cap(s.Stage))
		s.LastSent = min(s.LastSent, today)
	}
}

// begin clears a day's counts. What is claimed and may still be sent counts again.
func (s *WarmUpState) begin(day int64) {
	s.Before = s.Delivered
	if day != s.Day+1 {
		s.Before = 0
	}
	s.Day = day
	s.Sent = s.Pending
	s.Delivered, s.Deferred, s.Bounced, s.Blocked, s.Complaints = 0, 0, 0, 0, 0
	s.SteppedBack, s.HeldToday = false, false
	kept := s.Providers[:0]
	for _, p := range s.Providers {
		p.Sent = p.Pending
		kept = append(kept, p)
	}
	s.Providers = kept
}

// endDay judges the day that ends.
func (w *WarmUp) endDay() {
	s := &w.state
	if !w.Active() || s.SteppedBack || s.Sent == 0 && s.Complaints == 0 {
		return
	}
	most := w.plan.Cap(s.Stage)
	reached := w.reached()
	enough := float64(s.Delivered) > advanceShare*float64(most) ||
		2*reached > s.Sent && float64(reached) >= leastReached*float64(most) && float64(s.Delivered) > advanceShare*float64(s.Sent)
	switch why := s.reasonToHold(); {
	case why != "":
		w.held(fmt.Sprintf("held at stage %d of %d: %s", s.Stage, len(w.plan.Caps), why))
	case enough:
		w.advance()
	default:
		w.stall(most, reached > 0)
	}
}

// reached is how much of the day's mail went to providers whose own cap it used up, or
// nearly so. More of it would have gone, so the day says nothing of too little mail; and
// when that is most of the day's mail, and no small part of the stage, the caps allowed no
// more, and the day was full.
func (w *WarmUp) reached() (n int64) {
	for _, p := range w.state.Providers {
		if most := w.plan.ProviderCap(w.state.Stage, p.Provider); most > 0 && float64(p.Sent) > advanceShare*float64(most) {
			n += p.Sent
		}
	}
	return n
}

func (w *WarmUp) advance() {
	s := &w.state
	delivered, most := s.Delivered, w.plan.Cap(s.Stage)
	s.Stage++
	s.Stalled, s.Since = 0, (s.Day+1)*day
	if s.Stage > len(w.plan.Caps) {
		w.finishBehindLast()
		return
	}
	w.changed(WarmUpAdvanced, fmt.Sprintf("advanced to stage %d of %d, %d messages a day: %d of %d were delivered",
		s.Stage, len(w.plan.Caps), w.plan.Cap(s.Stage), delivered, most))
}

// stall notes a day that was not full. It counts as one with too little mail unless a
// provider's cap was reached, or it is the first of a stage that began in the middle of it.
func (w *WarmUp) stall(most int64, capped bool) {
	s := &w.state
	switch {
	case capped:
		s.Stalled = 0
	case s.Since <= s.Day*day:
		s.Stalled++
	}
	why := fmt.Sprintf("%d of %d were delivered; the next stage takes more than %.0f %%", s.Delivered, most, advanceShare*100)
	if capped {
		why += "; a provider's own cap held mail back"
	}
	if s.Stalled < maxStalled {
		w.held(fmt.Sprintf("held at stage %d of %d: %s", s.Stage, len(w.plan.Caps), why))
		return
	}
	s.Status = WarmUpOff
	w.changed(WarmUpSwitchedOff, fmt.Sprintf("off because %d days in a row brought too little mail for the next stage (stage %d of %d: %s); nothing is limited any more",
		s.Stalled, s.Stage, len(w.plan.Caps), why))
}

// finishBehindLast ends a warm-up whose last stage is done.
func (w *WarmUp) finishBehindLast() {
	s := &w.state
	if s.Stage <= len(w.plan.Caps) || s.Status != WarmUpRunning {
		return
	}
	s.Stage, s.Status = len(w.plan.Caps)+1, WarmUpDone
	w.changed(WarmUpFinished, fmt.Sprintf("finished: all %d stages are done", len(w.plan.Caps)))
}

// fade takes a stage back for every 30 days without mail.
func (w *WarmUp) fade() {
	s := &w.state
	if s.Status == WarmUpOff {
		return
	}
	steps := (s.Day-s.LastSent)/idleStep - s.Idle
	if steps <= 0 {
		return
	}
	s.Idle += steps
	before := s.Stage
	s.Stage = int(max(1, int64(s.Stage)-steps))
	if s.Stage == before {
		return
	}
	s.Status, s.Since, s.Stalled = WarmUpRunning, s.Day*day, 0
	w.changed(WarmUpSteppedBack, fmt.Sprintf("stepped back to stage %d of %d, %d messages a day: no mail for %d days",
		s.Stage, len(w.plan.Caps), w.plan.Cap(s.Stage), s.Day-s.LastSent))
}

// attempts is how many of the day's attempts say something.
func (s *WarmUpState) attempts() int64 { return s.Delivered + s.Deferred + s.Bounced + s.Blocked }

// above reports a share that is too large, of enough messages.
func above(n, of int64, share float64, least int64) bool {
	return n >= least && float64(n) > share*float64(max(of, 1))
}

// reasonToHold is why the signs of the day are not good enough; empty when they are.
func (s *WarmUpState) reasonToHold() string {
	all, mail := s.attempts(), max(s.Delivered, s.Before)
	switch {
	case above(s.Complaints, mail, holdComplaints, leastComplaints):
		return words(s.Complaints, "complaints", mail, "delivered", holdComplaints)
	case above(s.Blocked, all, holdBlocked, leastBlocked):
		return words(s.Blocked, "blocks", all, "attempts", holdBlocked)
	case above(s.Bounced, all, holdBounced, leastBounced):
		return words(s.Bounced, "unknown recipients", all, "attempts", holdBounced)
	case above(s.Deferred, all, holdDeferred, leastBounced):
		return words(s.Deferred, "deferrals", all, "attempts", holdDeferred)
	}
	return ""
}

// reasonToStepBack is why the signs of the day are bad; empty when they are not.
func (s *WarmUpState) reasonToStepBack() string {
	all, mail := s.attempts(), max(s.Delivered, s.Before)
	switch {
	case above(s.Complaints, mail, backComplaints, worstComplaints):
		return words(s.Complaints, "complaints", mail, "delivered", backComplaints)
	case above(s.Blocked, all, backBlocked, worstBlocked):
		return words(s.Blocked, "blocks", all, "attempts", backBlocked)
	case above(s.Bounced, all, backBounced, worstBounced):
		return words(s.Bounced, "unknown recipients", all, "attempts", backBounced)
	}
	return ""
}

func words(n int64, what string, of int64, among string, limit float64) string {
	return fmt.Sprintf("%d %s of %d %s are more than %g %%", n, what, of, among, limit*100)
}

// Since is when the stage began.
func (w *WarmUp) Since() time.Time {
	if w.state.Since == 0 {
		return time.Time{}
	}
	return time.Unix(0, w.state.Since).UTC()
}
