package dispatch

import (
	"time"

	"github.com/veredus/veredus/mxrules"
)

// Every hour each path that had mail is swept: so many unknown recipients in the hour, or
// complaints in a day, end in a block before long, so the path slows down or rests
// before the receiver says a word (mxrules.Counts has the thresholds). The counts are
// kept in memory: a restart begins them anew.

// dayHours is how many hours complaints are counted over.
const dayHours = 24

// swept are a path's counts. An hour begins with the first message answered in it.
type swept struct {
	attempts, unknown     int64
	delivered, complaints [dayHours]int64 // by hour, as a ring
	latest                int64           // the hour that the ring has come to
	began                 bool            // the present hour has begun
}

// sweepHour is an hour on the relay's clock.
func (c *Core) sweepHour() int64 { return int64(max(c.cfg.Timings.Quota, time.Millisecond)) }

// sweepOf is a path's counts, with the ring turned to now.
func (c *Core) sweepOf(p *path) *swept {
	s := p.swept
	if s == nil {
		s = &swept{latest: c.now / c.sweepHour()}
		p.swept = s
	}
	hour := c.now / c.sweepHour()
	for n := 0; s.latest < hour && n < dayHours; n++ {
		s.latest++
		s.delivered[s.latest%dayHours], s.complaints[s.latest%dayHours] = 0, 0
	}
	s.latest = max(s.latest, hour)
	return s
}

// answeredOn counts what a reply said of a message.
func (c *Core) answeredOn(p *path, sign mxrules.Sign) {
	s := c.sweepOf(p)
	s.attempts++
	switch sign {
	case mxrules.SignBounced:
		s.unknown++
	case mxrules.SignDelivered:
		s.delivered[s.latest%dayHours]++
	}
	c.beginSweep(p, s)
}

func (c *Core) beginSweep(p *path, s *swept) {
	if !s.began {
		s.began = true
		c.sweepTimers.arm(p, c.now+c.sweepHour())
	}
}

// complainedOn counts a complaint about a message that a source had delivered.
func (c *Core) complainedOn(source, destination string) {
	for _, p := range c.pathsOf("", destination) {
		if p.source.Name == source || p.source.Name == "" {
			s := c.sweepOf(p)
			s.complaints[s.latest%dayHours]++
			c.beginSweep(p, s)
		}
	}
}

// counts are those of the hour and of the day.
func (s *swept) counts() mxrules.Counts {
	n := mxrules.Counts{Attempts: s.attempts, Unknown: s.unknown}
	for i := range dayHours {
		n.Delivered += s.delivered[i]
		n.Complaints += s.complaints[i]
	}
	return n
}

// mayBeSwept reports whether a path had so much mail in the last day that complaints
// about it will say something.
func (c *Core) mayBeSwept(p *path) bool {
	return p.swept != nil && c.sweepOf(p).counts().Delivered >= mxrules.SweepDelivered
}

// sweep judges a path at the end of its hour.
func (c *Core) sweep(p *path) {
	s := c.sweepOf(p)
	counts := s.counts()
	s.attempts, s.unknown, s.began = 0, 0, false
	found := counts.Sweep()
	if found.Do == mxrules.DoNothing {
		return
	}
	if p.limits.Governor == mxrules.GovernorObserve {
		c.decide(p, Decision{Action: "observed", Cause: found.Text})
		c.report(p, PathObserved, "would "+found.Do.String()+": "+found.Text, 0)
		return
	}
	found.For = time.Duration(float64(found.For) * float64(c.sweepHour()) / float64(time.Hour))
	was := p.gov.State(c.at)
	p.gov.Sweep(c.at, found)
	c.tell(p, was, found.Text, false)
}

// forgetSweep ends the counts of a path that is forgotten.
func (c *Core) forgetSweep(p *path) {
	c.sweepTimers.stop(p)
	p.swept = nil
}
