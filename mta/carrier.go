package mta

import (
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
)

// carrier sends a session's messages, in the session's goroutine. It is the
// smtpc.Next of its session: what is ready goes out behind what is on the wire.
type carrier struct {
	r      *Relay
	s      *session
	sess   *smtpc.Session
	ahead  *job      // begun behind the one under way
	said   int       // MAIL commands of messages reported
	ended  time.Time // the last of them
	hungUp int       // messages it had carried when its server hung up in silence, with no pause; 0: it did not
	remote string
	tls    string
}

func newCarrier(r *Relay, s *session, sess *smtpc.Session) *carrier {
	info := sess.Info()
	c := &carrier{r: r, s: s, sess: sess, tls: info.TLSVersion}
	if info.RemoteAddr != nil {
		c.remote = info.RemoteAddr.String()
	}
	return c
}

// Ready is smtpc.Next.
func (c *carrier) Ready() <-chan struct{} { return c.s.lane.ready }

// Take is smtpc.Next.
func (c *carrier) Take() *smtpc.Mail {
	if c.r.manners.any() && !c.r.manners.bears(c.s.open.Host, smtpc.Across, c.r.cfg.Now()) {
		return nil
	}
	if c.ahead, _ = c.begin(); c.ahead == nil {
		return nil
	}
	return &c.ahead.wire
}

// next is the message to be sent next: the one begun already, or else the first that
// comes; nil when the session ends.
func (c *carrier) next() *job {
	if j := c.ahead; j != nil {
		c.ahead = nil
		return j
	}
	for {
		j, last := c.begin()
		if j != nil || last {
			return j
		}
		select {
		case <-c.s.lane.ready:
		case <-c.sess.Done():
			return nil
		}
	}
}

// begin takes the next message that may still be sent; nil with last when the session
// is to end.
func (c *carrier) begin() (j *job, last bool) {
	for {
		if j, last = c.s.lane.take(); j == nil {
			return nil, last
		}
		if j.move(jobPrepared, jobBegun) && c.mayCarry(j) {
			return j, false
		}
	}
}

// mayCarry asks once more, just before MAIL, whether a message may be sent.
func (c *carrier) mayCarry(j *job) bool {
	r := c.r
	if r.ctx.Err() != nil {
		r.untried(j, true)
		return false
	}
	now := r.cfg.Now()
	if !j.h.msg.Expires.After(now) {
		r.untold(j, expired(j.h, "", now))
		return false
	}
	reason, err := bounce.ReasonNotDefined, j.err
	if err == nil {
		reason, err = r.excluded(j.mail.to)
	}
	switch {
	case reason != bounce.ReasonNotDefined:
		r.untold(j, suppressed(j.s, j.h, reason, now))
	case err != nil:
		r.untold(j, r.unprepared(j.s, j.h, err, now))
	default:
		j.began = now
		return true
	}
	return false
}

// carry sends a message and reports what became of it. It answers whether the session
// can take another.
func (c *carrier) carry(j *job) bool {
	if !j.move(jobBegun, jobCarried) {
		c.sess.Abort() // its envelope is on the wire, and it was recalled
		return false
	}
	c.simplify()
	res := c.sess.Carry(c.r.ctx, &j.wire, c)
	j.wire.Content, j.mail.bytes = nil, nil
	if res.Broke != smtpc.Stepwise {
		c.fallBack(&res)
	}
	if res.HungUp && j.began.Sub(c.ended) < breather {
		c.hungUp = c.said
	}
	switch {
	case res.Lost && j.mayReturn(&res):
		c.r.lost(j, res.Reply.Phase != smtpc.PhaseQuit)
	case !res.Began && !res.Local:
		c.r.untried(j, res.Usable)
	default:
		c.r.report(c, j, &res, c.said)
	}
	if res.Began {
		c.said++
	}
	c.ended = c.r.cfg.Now()
	return res.Usable || c.ahead != nil // what was begun is heard out
}

// end closes the session: politely when nothing else ended it.
func (c *carrier) end() {
	select {
	case <-c.sess.Done():
		c.sess.Abort()
	default:
		_ = c.sess.Quit(c.r.ctx) // the connection is over, however the parting goes
	}
}

// simplify keeps the session from what its host did not bear on other sessions.
func (c *carrier) simplify() {
	m := &c.r.manners
	if !m.any() {
		return
	}
	now := c.r.cfg.Now()
	for _, g := range [...]smtpc.Grouping{smtpc.Grouped, smtpc.Chunked} {
		if !m.bears(c.s.open.Host, g, now) {
			c.sess.Simplify(g)
		}
	}
}

// fallBack remembers that the host broke inside a group, and makes an event of it.
func (c *carrier) fallBack(res *smtpc.Result) {
	r, host := c.r, c.s.open.Host
	keep := r.cfg.Schedule.Scaled(lapseKept)
	if !r.manners.broke(host, res.Broke, r.cfg.Now(), keep) {
		return
	}
	text := lapseText(host, res.Broke, res.Reply.Phase.String()+" "+res.Reply.String(), keep)
	r.post(func(now time.Time) {
		r.tell(r.news.add(now, RelayEvent{
			Kind: PathThrottledEvent, Source: c.s.open.Source.Name, Destination: c.s.open.Destination, Text: text,
		}))
	})
}

func (c *carrier) attempt(res *smtpc.Result, number int, began, now time.Time) *Attempt {
	return &Attempt{
		Number: number, Time: began, Duration: now.Sub(began), Source: c.s.open.Source.Name, RemoteHost: c.s.open.Host,
		RemoteAddress: c.remote, Reply: res.Reply, TLSVersion: c.tls, Uncertain: res.Uncertain,
	}
}

var _ smtpc.Next = (*carrier)(nil)
