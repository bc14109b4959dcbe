package dispatch

import (
	"fmt"
	"strings"

	"github.com/veredus/veredus/mxrules"
)

// growthTold is how far a limit of a path grows beyond what was last told until it is
// told again: by a quarter.
const growthTold = 1.25

// pace is what is in force on a path; zero counts and rates are no limit.
type pace struct {
	rate        mxrules.Rate
	connections int
	each        int // messages per connection
}

func (c *Core) paceOf(p *path) pace {
	s := p.gov.State(c.at)
	return pace{rate: s.MessageRate, connections: s.MaxConnections, each: s.MessagesPerConnection}
}

// grown reports what a learner changed by itself since it was last told: growth of the
// path's limits beyond a quarter, also of one that is lifted, and as much of a fall.
func (c *Core) grown(p *path) {
	if learned := p.gov.Pace(); learned.Probing || learned.Failures > 0 {
		return // one message, or connection, at a time for a while
	}
	now := c.paceOf(p)
	c.moved(p, p.told.towards(now, 1), "raised", "messages were accepted", PathRaised)
	c.moved(p, p.told.towards(now, -1), "cut", "learned from how messages and connections went", PathThrottled)
}

// towards is the pace with the settings of another one that are more than a quarter
// above it (1) or below it (-1).
func (p pace) towards(o pace, way int) pace {
	if leap(p.rate.PerSecond(), o.rate.PerSecond()) == way {
		p.rate = o.rate
	}
	if leap(float64(p.connections), float64(o.connections)) == way {
		p.connections = o.connections
	}
	if leap(float64(p.each), float64(o.each)) == way {
		p.each = o.each
	}
	return p
}

// leap is whether a limit rose (1) or fell (-1) by more than a quarter; 0 is no limit.
func leap(was, now float64) int {
	switch {
	case was == now:
		return 0
	case now == 0 || was > 0 && now > growthTold*was:
		return 1
	case was == 0 || was > growthTold*now:
		return -1
	}
	return 0
}

// moved reports a change of the pace that was told.
func (c *Core) moved(p *path, to pace, action, cause string, change PathChange) {
	var words []string
	for _, f := range paced {
		if a, b := p.told.text(f), to.text(f); a != b {
			c.decide(p, Decision{Action: action, Field: f.String(), From: a, To: b, Cause: cause})
			words = append(words, fmt.Sprintf("%v %s -> %s", f, a, b))
		}
	}
	if len(words) > 0 {
		p.told = to
		c.report(p, change, strings.Join(words, ", "), 0)
	}
}

// wouldDo notes what the governor of a path that only observes would do now, when that
// differs from what it would have done before by more than a quarter.
func (c *Core) wouldDo(p *path, cause string) {
	if p.limits.Governor != mxrules.GovernorObserve {
		return
	}
	o, ok := p.gov.Observed()
	now := pace{rate: o.MessageRate, connections: o.Connections, each: o.MessagesPerConnection}
	if !ok || now.connections == p.observed.connections && now.each == p.observed.each && alike(now.rate, p.observed.rate) {
		return
	}
	if cause == "" {
		cause = "messages were accepted"
	}
	var words []string
	for _, f := range paced {
		if a, b := p.observed.text(f), now.text(f); a != b {
			c.decide(p, Decision{Action: "observed", Field: f.String(), From: a, To: b, Cause: cause})
			words = append(words, fmt.Sprintf("%v %s -> %s", f, a, b))
		}
	}
	p.observed = now
	c.report(p, PathObserved, "would change "+strings.Join(words, ", ")+": "+cause, 0)
}

// alike reports whether two rates differ by no more than a quarter.
func alike(a, b mxrules.Rate) bool {
	x, y := a.PerSecond(), b.PerSecond()
	return a == b || x > 0 && y > 0 && x <= growthTold*y && y <= growthTold*x
}
