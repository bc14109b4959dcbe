package dispatch

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// Hosts of Microsoft 365, Google, Mimecast and their like receive for many organisations
// that have nothing to do with each other, and much of what they refuse is one
// organisation's own word: its filter, its block list, its full licence. So a reply that
// would rest or hold such a path does so for the recipient's domain first: the domain
// leaves the group that it shares with others and rests alone, at one source, while all
// other mail goes on. Only when several unrelated domains say the same within a while is
// it taken for the provider's word, and rests the path. What is said while the path is
// probed after a rest is the path's, too: then nothing else is known of it.
//
// Rests of a domain are as those of a path: they double, and end with one cautious probe.

// Figures of shared hosts.
const (
	// unanimous is how many unrelated domains make a reply the provider's word.
	unanimous = 3
	// recently is within how long they have to say the same, in first rests (15 min each).
	recently = 2
	// maxRefusals is how many domains' last words a path remembers, maxTenants how many
	// domains rest alone on it; beyond that it rests as a whole.
	maxRefusals = 64
	maxTenants  = 1000
)

// tenant is a recipient domain that rests, or is held, alone on a path.
type tenant struct {
	path    *path
	domain  string
	apart   *mxrules.Apart
	blocked bool  // the last rest was by a block of the source's reputation
	carried int   // messages with sessions
	timer   timer // when a hold ends, or it may be forgotten
}

// refusal is the last word of a domain's host that would rest or hold the path.
type refusal struct {
	domain, parent string
	word           string
	at             int64
}

// ofTenant is what is held of the line's domain alone; nil for nothing.
func (l *line) ofTenant() *tenant {
	if l.group.tenant == "" {
		return nil
	}
	return l.path.tenants[l.group.tenant]
}

// tenantHeld reports whether the line's domain alone is held, and until when; 0 means
// until the probe under way has ended.
func (c *Core) tenantHeld(l *line) (held bool, until int64) {
	t := l.ofTenant()
	if t == nil {
		return false, 0
	}
	ok, at := t.apart.Allow(c.at, t.carried)
	return !ok, nanos(at)
}

// rests reports whether the line takes no message for a while: its path rests, or its
// domain alone does.
func (c *Core) rests(l *line) bool {
	if c.resting(l.path) {
		return true
	}
	held, until := c.tenantHeld(l)
	return held && until > c.now+int64(soon)
}

// heard takes the evidence of a reply about a domain's mail, nil for no one domain's.
func (c *Core) heard(l *line, d *domain, e Evidence) {
	if c.tenantsWord(l, d, &e) {
		c.holdApart(l.path, d, &e)
		if e.Connection {
			return // nothing is said of the path
		}
		if e.RetryAfter = 0; e.Effect == mxrules.EffectRest {
			e.Effect = mxrules.EffectNone
		}
	}
	if d != nil && e.Effect == mxrules.EffectNone && len(l.path.tenants) > 0 {
		c.servedApart(l.path.tenants[d.name], &e)
	}
	c.observe(l.path, e)
	c.stepWarmUpBack(l, e.Text)
}

// tenantsWord reports whether a reply that would rest or hold the path is taken for the
// word of the recipient's domain alone.
func (c *Core) tenantsWord(l *line, d *domain, e *Evidence) bool {
	p := l.path
	holds := e.Effect == mxrules.EffectRest || e.Effect == mxrules.EffectSlow && e.RetryAfter > 0 && !e.Connection
	if p.limits.Governor == mxrules.GovernorOn && e.RetryAfter == 0 && e.ReplyCode()/100 == 4 {
		return false // a rate to a governor that learns: nothing rests, and less is sent
	}
	if !holds || d == nil || c.rules == nil || !c.rules.SharesHosts(p.dest.provider, d.name) || strings.HasSuffix(p.key, "/"+d.name) {
		return false
	}
	if _, named := l.limits.Reactions.For(e.Evidence); named {
		return false // an operator's rule decides
	}
	spread := c.note(p, d.name, wordOf(e))
	if p.gov.Pace().Probing {
		return false
	}
	return !spread && (p.tenants[d.name] != nil || len(p.tenants) < maxTenants)
}

// wordOf is what makes two replies the same: the tag of their qualification, or else
// their codes.
func wordOf(e *Evidence) string {
	if e.Tag != "" {
		return e.Tag
	}
	text := e.Text
	if _, after, ok := strings.Cut(text, ": "); ok {
		text = after
	}
	words := strings.Fields(text[:min(len(text), 40)])
	return strings.Join(words[:min(len(words), 2)], " ")
}

// only is the one domain that the group's hosts are asked for; nil when there are several.
func (g *group) only() *domain {
	if g.domains.n != 1 {
		return nil
	}
	return g.domains.head
}

// note remembers a domain's refusal, and answers whether so many unrelated domains say
// the same that it is the provider's word.
func (c *Core) note(p *path, domain, word string) bool {
	parent := parentOf(domain)
	window := recently * int64(max(c.cfg.Timings.RestFirst, time.Millisecond))
	kept := p.refusals[:0]
	for _, r := range p.refusals {
		if r.at > c.now-window && r.at <= c.now && r.domain != domain {
			kept = append(kept, r)
		}
	}
	if len(kept) >= maxRefusals {
		kept = kept[:copy(kept, kept[1:])]
	}
	p.refusals = append(kept, refusal{domain, parent, strings.Clone(word), c.now})
	parents := make([]string, 0, unanimous)
	for _, r := range p.refusals {
		if r.word != word {
			continue
		}
		known := false
		for _, o := range parents {
			known = known || o == r.parent
		}
		if !known {
			if parents = append(parents, r.parent); len(parents) == unanimous {
				return true
			}
		}
	}
	return false
}

// parentOf is the name that a domain shares with those that belong to the same
// organisation, as far as that can be told without a list of public suffixes: its last
// two labels, or three behind a country's short second level such as co.uk.
func parentOf(domain string) string {
	labels := strings.Split(domain, ".")
	n := len(labels)
	keep := 2
	if n > 2 && len(labels[n-1]) == 2 && len(labels[n-2]) <= 3 {
		keep = 3
	}
	return strings.Join(labels[max(0, n-keep):], ".")
}

// holdApart makes a domain rest, or wait, alone.
func (c *Core) holdApart(p *path, d *domain, e *Evidence) {
	t := p.tenants[d.name]
	if t == nil {
		t = c.tenantOf(p, d.name)
		c.apart[d.name]++
	}
	e.Text = clip(e.Text)
	if t.apart.Refused(c.at, e.Evidence) {
		_, until := t.apart.Allow(c.at, 0)
		if e.Effect == mxrules.EffectRest {
			t.blocked = e.Sign == mxrules.SignBlocked
		}
		text := d.name + " alone: " + e.Text
		c.decide(p, Decision{Action: "rested", To: untilText(nanos(until)), Cause: text})
		c.report(p, PathSuspended, text, nanos(until))
		c.keepApart(t)
	}
	if g := d.group; g != nil && g.tenant != d.name {
		c.join(d, c.groupOf(g.dest.name, g.dest.provider, g.hosts, d.name))
	}
	c.tenantDue(t)
}

// tenantOf makes a tenant of a path.
func (c *Core) tenantOf(p *path, domain string) *tenant {
	t := &tenant{path: p, domain: domain, apart: mxrules.NewApart(c.cfg.Timings)}
	if p.tenants == nil {
		p.tenants = map[string]*tenant{}
	}
	p.tenants[domain] = t
	return t
}

// servedApart notes that mail for a tenant is accepted, or refused for its own reasons.
func (c *Core) servedApart(t *tenant, e *Evidence) {
	if t == nil || !t.apart.Served(c.at) {
		return
	}
	if t.blocked {
		t.blocked = false
		c.wakeTenant(t)
	}
	text := t.domain + " alone: its mail is accepted again"
	if e.ReplyCode() >= 400 {
		text = t.domain + " alone: it is served again"
	}
	c.decide(t.path, Decision{Action: "resumed", Cause: text})
	c.report(t.path, PathResumed, text, 0)
	c.keepApart(t)
	c.tenantDue(t)
}

// sentApart notes that a message of the line was given to a session.
func (c *Core) sentApart(l *line, m *msg) {
	if t := l.ofTenant(); t != nil {
		t.carried++
		m.tenant = t
		t.apart.Sent(c.at)
	}
}

// landed notes that a message is no longer with a session.
func (c *Core) landed(m *msg) {
	if t := m.tenant; t != nil {
		m.tenant = nil
		t.carried--
		c.wakeTenant(t)
	}
}

// tenantDue looks at a tenant again: it forgets one that nothing is known of any more.
func (c *Core) tenantDue(t *tenant) {
	spent, next := t.apart.Spent(c.at)
	if spent {
		if t.carried == 0 {
			c.dropTenant(t)
			return
		}
		next = c.at.Add(soon) // its messages are still under way
	}
	if _, until := t.apart.Allow(c.at, 0); !until.IsZero() && until.Before(next) {
		next = until
	}
	c.tenantTimers.arm(t, max(next.UnixNano(), c.now+1))
	c.wakeTenant(t)
}

// dropTenant forgets a tenant, and lets its domain share sessions again.
func (c *Core) dropTenant(t *tenant) {
	if t.path.tenants[t.domain] != t {
		return
	}
	c.tenantTimers.stop(t)
	delete(t.path.tenants, t.domain)
	c.emit(Action{Kind: Keep, Path: t.path.key + alone + t.domain})
	if c.apart[t.domain]--; c.apart[t.domain] > 0 {
		c.wakeTenant(t)
		return
	}
	delete(c.apart, t.domain)
	if d := c.domains[t.domain]; d != nil && d.group != nil && d.group.tenant == t.domain {
		c.join(d, c.groupOf(d.group.dest.name, d.group.dest.provider, d.group.hosts, t.domain))
	}
	c.dirtyPaths.push(t.path)
}

// dropTenants forgets all tenants of a path.
func (c *Core) dropTenants(p *path) {
	p.refusals = nil
	for _, name := range slices.Sorted(maps.Keys(p.tenants)) {
		c.dropTenant(p.tenants[name])
	}
}

// wakeTenant looks again at what waits for a tenant.
func (c *Core) wakeTenant(t *tenant) {
	d := c.domains[t.domain]
	if d == nil || d.group == nil {
		return
	}
	for _, l := range d.group.lines {
		if l.path == t.path {
			c.queueLine(l)
		}
	}
	c.dirtyPaths.push(t.path)
	c.dirtyGroups.push(d.group)
}

// tenantWait is what holds a line's domain alone.
func (c *Core) tenantWait(l *line, until int64) Wait {
	t := l.ofTenant()
	text := "for " + t.domain + " alone; other mail to " + l.group.dest.name + " goes on: " + t.apart.Trouble()
	return Wait{Cause: CauseRest, Until: moment(until), Text: text, Since: t.apart.Since()}
}
