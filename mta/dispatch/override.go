package dispatch

import (
	"slices"
	"strings"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// Override is an operator's limits for the paths of a destination, present and later ones.
type Override struct {
	// Source is whose paths; empty: all. On paths that sources share only the latter hold.
	Source      string
	Destination string
	// Values hold in place of the rule's and of what was learned. Without fields the
	// override of this source and destination ends.
	Values mxrules.Override
	// Since is when it was ordered, Until when it ends by itself; zero: never.
	Since time.Time
	Until time.Time
	// Reason is shown with the paths.
	Reason string
}

type overrideKey struct{ source, destination string }

// Override puts an override in force at once, in place of the one of the same source
// and destination. Sessions beyond a lower cap end after their message.
func (c *Core) Override(now time.Time, o Override) {
	c.begin(now)
	key := overrideKey{o.Source, o.Destination}
	delete(c.overrides, key)
	if o.Values.Set != 0 && (o.Until.IsZero() || o.Until.After(now)) {
		c.overrides[key] = &o
	}
	c.overridden(o.Destination)
	c.flush()
}

// endOverrides ends those whose time has come.
func (c *Core) endOverrides() {
	var ended []string
	for key, o := range c.overrides {
		if !o.Until.IsZero() && o.Until.UnixNano() <= c.now {
			delete(c.overrides, key)
			ended = append(ended, key.destination)
		}
	}
	slices.Sort(ended)
	for _, destination := range slices.Compact(ended) {
		c.overridden(destination)
	}
	c.armOverrides()
}

// armOverrides finds when the next override ends.
func (c *Core) armOverrides() {
	c.overrideEnd = none
	for _, o := range c.overrides { // a minimum does not depend on the order
		if !o.Until.IsZero() {
			c.overrideEnd = min(c.overrideEnd, o.Until.UnixNano())
		}
	}
}

// overridden brings the paths of a destination in line with the overrides in force.
func (c *Core) overridden(destination string) {
	c.armOverrides()
	for _, p := range c.pathsOf("", destination) {
		was, had := c.paceOf(p), p.gov.Override().Set
		c.override(p)
		action, cause := "overridden", ""
		if p.gov.Override().Set == 0 {
			action = "restored"
		} else if o := c.overrideOf(p); o != nil {
			cause = o.Reason
		}
		if had|p.gov.Override().Set != 0 {
			c.compare(p, was, action, cause)
		}
		p.told = c.paceOf(p)
		c.trim(p)
		c.wakeLines(p)
	}
}

// override gives a path's governor what is overridden: the word about its source goes
// before the word about all.
func (c *Core) override(p *path) {
	var values mxrules.Override
	if o := c.overrides[overrideKey{"", p.dest.name}]; o != nil {
		values = values.Over(o.Values)
	}
	if o := c.overrides[overrideKey{p.source.Name, p.dest.name}]; o != nil && p.source.Name != "" {
		values = values.Over(o.Values)
	}
	p.gov.SetOverride(c.at, values)
}

// overrideOf is the override that a path shows: that of its source, or that of all.
func (c *Core) overrideOf(p *path) *Override {
	o := c.overrides[overrideKey{p.source.Name, p.dest.name}]
	if o == nil {
		o = c.overrides[overrideKey{"", p.dest.name}]
	}
	if o == nil {
		return nil
	}
	shown := *o
	return &shown
}

// pathsOf are the paths of a destination in the order of their keys; source empty is all.
func (c *Core) pathsOf(source, destination string) []*path {
	var list []*path
	for _, p := range c.paths {
		if p.dest.name == destination && (source == "" || p.source.Name == source) {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *path) int { return strings.Compare(a.key, b.key) })
	return list
}

// wakeLines looks at a path and everything that waits for it again.
func (c *Core) wakeLines(p *path) {
	c.dirtyPaths.push(p)
	c.eachLine(func(l *line) {
		if l.path == p {
			c.queueLine(l)
			c.dirtyGroups.push(l.group)
		}
	})
}

// ResetPaths makes the paths of a destination forget what they learned, their reactions,
// rests and back-offs: they begin as at first. What was used of quotas stays used. It
// answers the meters of those that had something to forget, by path key, to be kept in
// place of what was kept. source empty is all, of a shared path too.
func (c *Core) ResetPaths(now time.Time, source, destination string) map[string]mxrules.Usage {
	c.begin(now)
	kept := map[string]mxrules.Usage{}
	for _, p := range c.pathsOf(source, destination) {
		p.gov.Reset(now)
		p.history.set, p.told = [len(paced)]int64{}, c.paceOf(p)
		c.decide(p, Decision{Action: "reset", Cause: "by an operator"})
		p.restEnd = 0
		c.dropTenants(p)
		c.eachLine(func(l *line) {
			if l.path == p {
				l.cool, l.failed = nil, ""
				c.worked(l)
			}
		})
		if p.suspended {
			p.suspended = false
			c.report(p, PathResumed, "reset by an operator", 0)
		}
		c.trim(p)
		c.wakeLines(p)
		kept[p.key] = p.gov.Usage()
	}
	for key, u := range c.usage {
		if concerns(key, source, destination) {
			c.usage[key] = u.Forget()
			kept[key] = c.usage[key]
		}
	}
	for _, key := range c.forgetApart(source, destination) {
		kept[key] = mxrules.Usage{}
	}
	c.flush()
	return kept
}

// concerns reports whether a path's key is one of a destination's, and a source's unless
// that is empty.
func concerns(key, source, destination string) bool {
	from, to, _ := strings.Cut(key, ">")
	to, _, _ = strings.Cut(to, "/")
	return to == destination && (source == "" || source == from)
}
