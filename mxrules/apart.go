package mxrules

import "time"

// Apart is what is held of one recipient domain on a path whose hosts serve many
// organisations: rests that end with one cautious probe, longer each time they follow
// each other, and waits that a reply names. The path itself goes on for all others. It
// has one owner, takes time from its caller as a Governor does, and never blocks.
type Apart struct {
	clock   clock
	timings Timings
	rests   rests

	trouble string
}

// NewApart is a domain that nothing holds. Zero timings are the default ones.
func NewApart(t Timings) *Apart { return &Apart{timings: t.valid()} }

// tick moves its clock to now, and shortens the next rest for time without trouble.
func (a *Apart) tick(now time.Time) time.Duration {
	t := time.Duration(a.clock.at(now))
	a.rests.ease(t, a.timings.Recover)
	return t
}

// Refused takes a reply with an effect on its path as one about the domain alone: a
// rest begins, or goes on; of any other effect the delay that the reply names is kept.
// It answers whether that changed until when the domain is held.
func (a *Apart) Refused(now time.Time, e Evidence) bool {
	t, before := a.tick(now), a.rests.until
	switch {
	case e.Effect == EffectRest:
		a.rests.begin(t, &e, &a.timings)
	case e.RetryAfter > 0 && e.Effect != EffectNone:
		a.rests.wait(t, EffectSlow, t+a.timings.named(e.RetryAfter))
	}
	if a.rests.until == before {
		return false
	}
	a.trouble = e.Text
	return true
}

// Allow reports whether a message may be sent now; if not, until when: to ask again then,
// or, if that is the zero time, when the probe under way has ended. carried is how many
// messages for the domain are under way.
func (a *Apart) Allow(now time.Time, carried int) (bool, time.Time) {
	t := a.tick(now)
	switch r := &a.rests; {
	case t < r.until:
		return false, a.clock.time(int64(r.until))
	case r.probing && carried > 0:
		return false, time.Time{}
	case r.probing && t < r.probeNext:
		return false, a.clock.time(int64(r.probeNext))
	}
	return true, time.Time{}
}

// Held is what holds the domain, with the reply that caused it, for Restore.
func (a *Apart) Held(now time.Time) Held {
	t := a.tick(now)
	h := a.rests.held(t)
	if h == (Held{}) {
		return h
	}
	a.clock.mark(now, int64(t))
	h = h.shift(a.clock.wall)
	h.Text = a.trouble
	return h
}

// Restore takes up what Held answered in a process before.
func (a *Apart) Restore(now time.Time, h Held) {
	t := a.tick(now)
	a.clock.mark(now, int64(t))
	a.rests.recall(t, h.shift(-a.clock.wall), &a.timings)
	a.trouble = h.Text
}

// Sent records a message's MAIL: after a rest it is the probe.
func (a *Apart) Sent(now time.Time) { a.rests.note(a.tick(now), EventSent, &a.timings) }

// Served records a reply that is no trouble. It answers whether that ended a rest.
func (a *Apart) Served(now time.Time) bool {
	t, was := a.tick(now), a.rests.probing
	a.rests.note(t, EventServed, &a.timings)
	return was && !a.rests.probing
}

// Probing reports whether the domain rests, or is tried after its rest.
func (a *Apart) Probing() bool { return a.rests.probing }

// Rests is how many rests came in a row.
func (a *Apart) Rests() int { return a.rests.level }

// Since is when the last hold began.
func (a *Apart) Since() time.Time { return a.clock.time(int64(a.rests.since)) }

// Length is how long the present or last hold lasts.
func (a *Apart) Length() time.Duration { return a.rests.until - a.rests.since }

// Trouble is the reply that caused the last hold.
func (a *Apart) Trouble() string { return a.trouble }

// Spent reports whether nothing is held and nothing remembered; if not, next is when
// that may be looked at again, as far as time alone decides it: never the zero time.
func (a *Apart) Spent(now time.Time) (spent bool, next time.Time) {
	t := a.tick(now)
	r := &a.rests
	end := max(r.until, r.next())
	if r.level == 0 {
		end = r.until
	}
	if r.level == 0 && t >= r.until {
		return true, now
	}
	return false, a.clock.time(int64(max(end, t+1)))
}
