package dispatch

import (
	"slices"
	"strings"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// kept is what of a path's rests the caller was last asked to keep. Rests do not wait
// for the next claim to be written: during one there is none.
type kept struct {
	until, connectUntil time.Duration
	rests               int
	probing             bool
}

// worthKeeping is the shortest wait that is kept for a restart by itself.
const worthKeeping = 5 * time.Second

// keep asks for a path's rests to be kept when they changed.
func (c *Core) keep(p *path) {
	pace := p.gov.Pace()
	now := kept{pace.RestUntil, pace.ConnectUntil, pace.Rests, pace.Probing}
	if now.connectUntil < p.kept.connectUntil+worthKeeping {
		now.connectUntil = p.kept.connectUntil
	}
	if now.until < p.kept.until+worthKeeping && now.rests == p.kept.rests && now.probing == p.kept.probing {
		now.until = p.kept.until
	}
	if now == p.kept {
		return
	}
	p.kept = now
	c.emit(Action{Kind: Keep, Path: p.key, Usage: p.gov.Usage()})
}

// takeUp gives a new path what was kept of it, and the domains held alone on it.
func (c *Core) takeUp(p *path) {
	if u, ok := c.usage[p.key]; ok {
		delete(c.usage, p.key)
		c.restore(p, u)
	}
	held := c.heldApart[p.key]
	delete(c.heldApart, p.key)
	for _, h := range held {
		t := c.tenantOf(p, h.domain)
		t.apart.Restore(c.at, h.held)
		c.tenantDue(t)
	}
}

// restore gives a path what was kept of it, and shows a rest that goes on.
func (c *Core) restore(p *path, u mxrules.Usage) {
	p.gov.Restore(c.at, u)
	s := p.gov.State(c.at)
	if s.Hold != mxrules.HoldRest {
		return
	}
	p.suspended, p.restEnd = true, c.now
	if !s.Until.IsZero() {
		p.restEnd = s.Until.UnixNano()
	}
	p.history.last = append(p.history.last, Decision{
		Time: s.Since, Action: "rested", To: untilText(p.restEnd), Cause: clip(s.Trouble),
	})
}

// alone is between the key of a path and the name of a domain that is held alone on it,
// in the key under which that is kept. No domain has a colon.
const alone = "/alone:"

// heldApart is a domain that a process before held alone on a path.
type heldApart struct {
	domain string
	held   mxrules.Held
}

// restoreApart keeps what is known of a domain for its path; it answers false when the
// key is a path's own. Its mail gets sessions of its own from the beginning.
func (c *Core) restoreApart(key string, u mxrules.Usage) bool {
	path, domain, ok := strings.Cut(key, alone)
	if !ok {
		return false
	}
	a := mxrules.NewApart(c.cfg.Timings)
	a.Restore(c.at, u.Learned.Held)
	if spent, _ := a.Spent(c.at); spent || len(c.heldApart[path]) >= maxTenants {
		return true
	}
	c.heldApart[path] = append(c.heldApart[path], heldApart{domain, u.Learned.Held})
	c.apart[domain]++
	return true
}

// keepApart asks for what holds a domain alone to be kept.
func (c *Core) keepApart(t *tenant) {
	u := mxrules.Usage{Learned: mxrules.Memory{Held: t.apart.Held(c.at)}}
	c.emit(Action{Kind: Keep, Path: t.path.key + alone + t.domain, Usage: u})
}

// forgetApart forgets the domains held alone on paths that have no mail since the
// restart; it answers their keys.
func (c *Core) forgetApart(source, destination string) (keys []string) {
	for path, list := range c.heldApart {
		if !concerns(path, source, destination) {
			continue
		}
		delete(c.heldApart, path)
		for _, h := range list {
			keys = append(keys, path+alone+h.domain)
			if c.apart[h.domain]--; c.apart[h.domain] == 0 {
				delete(c.apart, h.domain)
			}
		}
	}
	slices.Sort(keys)
	return keys
}
