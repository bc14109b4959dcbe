package simulate

import "time"

// Oracle is what a sender would reach that knows each receiver's hidden limits, keeps
// our own rules, never waits and is never deferred: it sends exactly what the
// receiver's Capacity says, as long as there is mail. What it sends to mailboxes that
// take none is lost to it as to everybody; and where every first attempt is put off
// (Greylister), it makes one for each message and comes back as its schedule of retries
// lets it.
type Oracle struct {
	// Done is when it has sent all, after the start; Finished says that it did
	// before the simulation ends.
	Done     time.Duration
	Finished bool
	// Delivered is how much it delivered, Area the message-seconds under its curve
	// until Done, and Overall until the last destination's Done.
	Delivered, Area, Overall float64
	// Curve is what it delivered by the end of each step of the series, until Done.
	Curve []float64
}

// Steps of the oracle's integration.
const (
	oracleSteps = 50_000
	oracleLeast = 10 * time.Millisecond
	oracleMost  = 5 * time.Second
)

// foresight integrates the oracle's curve for one destination.
type foresight struct {
	cfg   *Config
	index int
	share float64 // delivered of what is sent

	sent, area float64
	at         time.Duration

	first *firsts // nil: nothing is put off
}

// firsts are the first attempts at messages that are all put off for a while.
type firsts struct {
	delay    time.Duration
	spread   time.Duration // of the returns, from then on
	soonest  returns       // at messages that may have come back by now,
	latest   returns       // and at those that must have
	capacity func(now time.Time, delivered float64) float64
	made     float64
	at       []time.Duration // the ends of the steps in which some were made,
	by       []float64       // and how many by then
	ripe     float64         // of them by the end of the step at hand
	next     int             // of at
}

// firstsOf are those of a receiver; nil if it puts nothing off.
func firstsOf(r Receiver, own bool) *firsts {
	g, ok := r.(Greylister)
	if !ok {
		return nil
	}
	delay, spread := g.Greylisting()
	if delay == 0 {
		return nil
	}
	return &firsts{delay: delay, spread: spread, capacity: func(now time.Time, delivered float64) float64 {
		return g.FirstCapacity(now, delivered, own)
	}}
}

// returns sums first attempts over time, up to an instant that never goes back.
type returns struct {
	next      int // of firsts.at
	to        time.Duration
	made, sum float64 // first attempts by then, and their message-seconds
}

func (s *returns) until(t time.Duration, f *firsts) float64 {
	for ; s.next < len(f.at) && f.at[s.next] <= t; s.next++ {
		s.sum += s.made * (f.at[s.next] - s.to).Seconds()
		s.to, s.made = f.at[s.next], f.by[s.next]
	}
	return s.sum + s.made*max(0, (t-s.to).Seconds())
}

// ripen answers how many messages may be delivered by an instant.
func (f *firsts) ripen(t time.Duration) float64 {
	if f.spread > 0 {
		sum := f.soonest.until(t-f.delay, f) - f.latest.until(t-f.delay-f.spread, f)
		f.ripe = max(f.ripe, sum/f.spread.Seconds())
		return f.ripe
	}
	for f.next < len(f.at) && f.at[f.next] <= t-f.delay {
		f.ripe = f.by[f.next]
		f.next++
	}
	return f.ripe
}

// attempt makes first attempts in a step, beside so many deliveries a second.
func (f *firsts) attempt(now time.Time, from, to time.Duration, delivered, arrived float64) {
	room := f.capacity(now, delivered) * (to - from).Seconds()
	if n := min(room, arrived-f.made); n > 0 {
		f.made += n
		f.at, f.by = append(f.at, to), append(f.by, f.made)
	}
}

// arrived is how much mail there is by t.
func (f *foresight) arrived(t time.Duration) float64 {
	n := int64(0)
	for i := range f.cfg.HandOvers {
		h := &f.cfg.HandOvers[i]
		if f.index < len(h.Counts) {
			n += h.arrivedBy(h.Counts[f.index], t)
		}
	}
	return float64(n)
}

// next is the end of the step that begins at f.at: never across a hand-over.
func (f *foresight) next(dt time.Duration) time.Duration {
	end := min(f.at+dt, f.cfg.Duration)
	for i := range f.cfg.HandOvers {
		if at := f.cfg.HandOvers[i].At; at > f.at && at < end {
			end = at
		}
	}
	return end
}

// span is when a destination's first mail comes, the last, and how much in all.
func (c *Config) span(index int) (first, last time.Duration, total float64) {
	first = c.Duration
	for i := range c.HandOvers {
		h := &c.HandOvers[i]
		if index < len(h.Counts) && h.Counts[index] > 0 {
			first, last = min(first, h.At), max(last, h.At+h.Over)
			total += float64(h.Counts[index])
		}
	}
	return first, last, total
}

// oracle runs until all is sent or the simulation ends. note, unless nil, is told what
// was delivered by the end of each step.
func (c *Config) oracle(index int, capacity func(time.Time) float64, attempts *firsts, note func(to time.Duration, delivered float64)) Oracle {
	f := &foresight{cfg: c, index: index, share: 1 - c.Destinations[index].Lost, first: attempts}
	first, last, total := c.span(index)
	dt := min(max(c.Duration/oracleSteps, oracleLeast), oracleMost)
	f.at = first
	for f.at < c.Duration && !(f.at >= last && f.sent >= total) {
		to := f.next(dt)
		middle := c.Start.Add(f.at + (to-f.at)/2)
		limit, mail, before := capacity(middle), f.arrived(to), f.sent
		if f.first != nil {
			mail = f.first.ripen(to)
		}
		done := f.advance(to, limit, mail)
		if f.first != nil {
			f.first.attempt(middle, f.at, to, (f.sent-before)/(to-f.at).Seconds(), f.arrived(to))
		}
		if note != nil {
			note(to, f.sent*f.share)
		}
		f.at = to
		if to >= last && f.sent >= total-1e-6 {
			return Oracle{Done: done, Finished: true, Delivered: f.sent * f.share, Area: (f.area - f.sent*(to-done).Seconds()) * f.share}
		}
	}
	return Oracle{Done: c.Duration, Finished: f.sent >= total, Delivered: f.sent * f.share, Area: f.area * f.share}
}

// advance sends for one step, and answers when in it the mail ran out.
func (f *foresight) advance(to time.Duration, limit, arrived float64) (done time.Duration) {
	step := (to - f.at).Seconds()
	room, mail := limit*step, arrived-f.sent
	done = to
	if mail < room { // the line rises, then lies flat
		rise := step
		if limit > 0 {
			rise = mail / limit
		}
		f.area += f.sent*step + mail*(step-rise/2)
		f.sent = arrived
		return f.at + time.Duration(rise*float64(time.Second))
	}
	f.area += f.sent*step + room*step/2
	f.sent += room
	return done
}
