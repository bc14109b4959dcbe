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

// grown reports growth of a path's limits beyond a quarter since they were last told.
// A limit that is lifted has grown.
func (c *Core) grown(p *path) {
	now, was := c.paceOf(p), p.told
	var words []string
	if rate := was.rate.PerSecond(); rate > 0 && (now.rate.IsZero() || now.rate.PerSecond() > growthTold*rate) {
		words = append(words, fmt.Sprintf("message_rate %v -> %v", was.rate, now.rate))
	}
	if outgrew(was.connections, now.connections) {
		words = append(words, "connections "+countChange(was.connections, now.connections))
	}
	if outgrew(was.each, now.each) {
		words = append(words, "messages_per_connection "+countChange(was.each, now.each))
	}
	if len(words) > 0 {
		c.compare(p, was, "raised", "messages were accepted")
		p.told = now
		c.report(p, PathRaised, strings.Join(words, ", "), 0)
	}
}

// outgrew compares counts of which 0 is no limit.
func outgrew(was, now int) bool {
	return was > 0 && (now == 0 || float64(now) > growthTold*float64(was))
}

func countChange(was, now int) string {
	if now == 0 {
		return fmt.Sprintf("%d -> unlimited", was)
	}
	return fmt.Sprintf("%d -> %d", was, now)
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
