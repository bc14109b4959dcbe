package dispatch

import (
	"time"

	"github.com/veredus/veredus/mxrules"
)

// maxTriggers bounds how many reactions are counted for one delivery.
const maxTriggers = 64

// blamed carries out a reaction that is about the message or its delivery and not about
// the path: of the reply the path then hears only that it was answered. Replies are
// counted for each delivery alone, so that nobody is held for another's mail.
func (c *Core) blamed(l *line, m *msg, e *Evidence) {
	r, ok := l.limits.Reactions.OfMessage(e.Evidence)
	if !ok {
		return
	}
	e.Effect, e.RetryAfter = mxrules.EffectNone, 0
	if r.Do != mxrules.DoHoldDelivery || m == nil || m.run == nil || !m.run.delivery.due(c.now, r) {
		return
	}
	c.emit(Action{Kind: HoldDelivery, Delivery: m.run.delivery.id, Path: l.path.key, Destination: l.path.dest.name, Text: clip(e.Text)})
}

// due counts a reply to the delivery's mail that meets a reaction, and answers whether
// its trigger is met; then counting begins anew.
func (d *delivery) due(now int64, r mxrules.Reaction) bool {
	if r.Count <= 1 {
		return true
	}
	if d.met == nil {
		d.met = map[mxrules.Reaction][]int64{}
	}
	hits := d.met[r]
	if hits == nil && len(d.met) >= maxTriggers {
		return false
	}
	for len(hits) > 0 && now-hits[0] > int64(min(r.Within, 24*time.Hour)) {
		hits = hits[1:]
	}
	hits = append(hits, now)
	if len(hits) >= r.Count {
		delete(d.met, r)
		return true
	}
	d.met[r] = hits
	return false
}
