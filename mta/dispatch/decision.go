package dispatch

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// Decision is a change of what is in force on a path.
type Decision struct {
	Time time.Time
	// Action is cut, raised, rested, resumed, overridden, restored (an override ended), reset,
	// or observed: what a governor that only observes would have done.
	Action string
	// Field is the setting that changed, From and To its values as in a rule file; empty
	// when the path as a whole is meant. To of a rest is its end.
	Field, From, To string
	// Cause is the reply, or the reason in words.
	Cause string
}

// keptDecisions is how many decisions a path remembers.
const keptDecisions = 10

// history is what a path remembers of decisions about it.
type history struct {
	last []Decision // the oldest first
	set  [len(paced)]int64
}

// paced are the settings that change while a path is used.
var paced = [...]mxrules.Field{
	mxrules.FieldConnections, mxrules.FieldMessagesPerConnection, mxrules.FieldMessageRate, mxrules.FieldConnectionRate,
}

func (c *Core) decide(p *path, d Decision) {
	d.Time, d.Cause = c.at, clip(d.Cause)
	if len(p.history.last) == keptDecisions {
		p.history.last = slices.Delete(p.history.last, 0, 1)
	}
	p.history.last = append(p.history.last, d)
	for i, f := range paced {
		if d.Field == f.String() {
			p.history.set[i] = c.now
		}
	}
}

// compare notes each setting that differs from what it was.
func (c *Core) compare(p *path, was pace, action, cause string) {
	now := c.paceOf(p)
	for i, f := range paced {
		if a, b := was.text(f), now.text(f); a != b {
			c.decide(p, Decision{Action: action, Field: paced[i].String(), From: a, To: b, Cause: cause})
		}
	}
}

// changesOf says in words which settings changed, and how: "connections 10 -> 4".
func changesOf(was, now pace) string {
	var words []string
	for _, f := range paced {
		if a, b := was.text(f), now.text(f); a != b {
			words = append(words, f.String()+" "+a+" -> "+b)
		}
	}
	return strings.Join(words, ", ")
}

// text is a setting's value as in a rule file, rates as people would say them.
func (p pace) text(f mxrules.Field) string {
	number := func(n int) string {
		if n == 0 {
			return "unlimited"
		}
		return strconv.Itoa(n)
	}
	switch f {
	case mxrules.FieldConnections:
		return number(p.connections)
	case mxrules.FieldMessagesPerConnection:
		return number(p.each)
	case mxrules.FieldMessageRate:
		return p.rate.Readable().String()
	}
	return ""
}

// setTimes tells since when each setting that changes has its value; those that never
// changed are left out.
func (h *history) setTimes() map[mxrules.Field]time.Time {
	times := map[mxrules.Field]time.Time{}
	for i, f := range paced {
		if h.set[i] != 0 {
			times[f] = moment(h.set[i])
		}
	}
	return times
}

// untilText is the end of a rest; empty when it is not known.
func untilText(until int64) string {
	if until == 0 {
		return ""
	}
	return moment(until).UTC().Format(time.RFC3339)
}

// rateWait is a hold by a rate, a quota or the number of connections: the rule's, the
// operator's, or what was learned from replies.
func (p *path) rateWait(s *mxrules.State) Wait {
	w := Wait{Cause: CauseRate, Until: s.Until, Text: s.Hold.String()}
	now := pace{rate: s.MessageRate, connections: s.MaxConnections}
	rule := pace{rate: p.limits.MessageRate, connections: p.limits.Connections}
	field := mxrules.Field(mxrules.NumFields)
	switch s.Hold {
	case mxrules.HoldMessageRate:
		field = mxrules.FieldMessageRate
	case mxrules.HoldConnections:
		field = mxrules.FieldConnections
	}
	switch {
	case p.gov.Override().Set.Has(field):
		w.Text += " overridden by an operator: " + now.text(field)
	case now.text(field) != rule.text(field):
		w.Cause = CauseLearned
		w.Text = s.Hold.String() + " " + now.text(field) + " learned from replies; the rule allows " + rule.text(field)
	}
	return w
}
