package mta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/mxrules"
)

// session is the owner's end of a session goroutine.
type session struct {
	id     dispatch.SessionID
	open   dispatch.Action
	lane   *lane
	given  []*job // that may not have begun yet
	closed bool
	opened time.Time
}

// close asks the session to end politely behind its current transaction. Owner only.
func (s *session) close() {
	if s != nil && !s.closed {
		s.closed = true
		s.lane.close()
	}
}

// give notes a job, and forgets those that cannot be had back any more. Owner only.
func (s *session) give(j *job) {
	s.given = append(slices.DeleteFunc(s.given, func(j *job) bool { return j.stage.Load() >= jobCarried }), j)
}

// open starts a session.
func (r *Relay) open(a dispatch.Action) {
	s := &session{id: a.Session, open: a, lane: newLane()}
	r.sessions[s.id] = s
	r.work(func() { r.runSession(s) })
}

// send gives a claimed message to a session with credit.
func (r *Relay) send(id dispatch.SessionID, msg dispatch.MsgID) {
	s, h := r.sessions[id], r.held[msg]
	if h == nil {
		return
	}
	if s == nil || s.closed {
		r.core.Untried(r.cfg.Now(), id, msg, false)
		return
	}
	j := &job{h: h, s: s}
	h.sending, h.job = true, j
	s.give(j)
	s.lane.add(j)
	r.prepares.add(j)
}

// takeBack has a message back from a session that stalls. One that was begun is left to
// it, unless it must come back at any rate.
func (r *Relay) takeBack(a *dispatch.Action) {
	h := r.held[a.Msg]
	if h == nil || h.job == nil || h.job.s.id != a.Session || !a.Force && h.job.stage.Load() == jobBegun {
		return
	}
	r.recalled(r.cfg.Now(), h.job, h.job.recall(), true)
}

// takenBack tells the core of a job that is not tried.
func (r *Relay) takenBack(now time.Time, j *job, usable bool) {
	j.h.sending, j.h.job = false, nil
	r.core.Untried(now, j.s.id, j.h.id, usable)
}

// recalled tells the core of a job recalled from a stage, unless that is another's task.
func (r *Relay) recalled(now time.Time, j *job, from uint32, usable bool) {
	if from != jobRecalled {
		j.s.lane.signal() // the one behind it may be ready
	}
	switch from {
	case jobGiven, jobPrepared:
		r.takenBack(now, j, usable)
	case jobBegun:
		j.h.sending, j.h.job = false, nil
		r.core.Lost(now, j.s.id, j.h.id)
	}
}

// recall has back what was given to a session and is not carried yet. Owner only.
func (r *Relay) recall(now time.Time, s *session, usable bool) {
	for _, j := range s.given {
		r.recalled(now, j, j.recall(), usable)
	}
	s.given = nil
}

// steer makes a change that stops mail: behind it no attempt begins of what the core
// does not want sent any more. What was given to a session and has not begun comes
// back untried, and goes again if the change does not concern it.
func (r *Relay) steer(change func()) {
	r.act() // what the core decided before the change
	change()
	now := r.cfg.Now()
	for _, s := range r.sessions {
		r.recall(now, s, true)
	}
	r.act()
}

// runSession is the life of one session, in its own goroutine.
func (r *Relay) runSession(s *session) {
	sess, err := smtpc.Open(r.calm, r.dialer(s), r.sessionConfig(s))
	if err != nil {
		evidence := r.openFailure(s, err)
		r.post(func(now time.Time) {
			delete(r.sessions, s.id)
			s.closed = true
			r.core.SessionFailed(now, s.id, evidence)
		})
		return
	}
	if !r.post(func(now time.Time) { s.opened = now; r.core.SessionOpened(now, s.id) }) {
		sess.Abort()
		return
	}
	c := r.serve(s, sess)
	r.post(func(now time.Time) { r.sessionEnded(now, s, c) })
}

// serve sends what the owner gives until the session ends.
func (r *Relay) serve(s *session, sess *smtpc.Session) *carrier {
	c := newCarrier(r, s, sess)
	for j := c.next(); j != nil; j = c.next() {
		if !c.carry(j) {
			break
		}
	}
	c.end()
	return c
}

// sessionEnded forgets a session; a message given to it too late was not tried.
func (r *Relay) sessionEnded(now time.Time, s *session, c *carrier) {
	delete(r.sessions, s.id)
	s.closed = true
	r.recall(now, s, false)
	switch {
	case c.hungUp == 0:
		r.hangUps.carried(s.open.Path, c.said)
	case r.hangUps.again(s.open.Path, c.hungUp, s.opened, now):
		r.core.SessionFailed(now, s.id, cappedAt(s.open.Host, c.hungUp))
		return
	}
	r.core.SessionClosed(now, s.id)
}

func (r *Relay) sessionConfig(s *session) smtpc.Config {
	l := s.open.Limits
	c := smtpc.Config{
		LocalName: r.settings.Load().HelloNames[s.open.Source.Name], Host: s.open.Host,
		TLS: l.TLS, TLSConfig: r.cfg.TLS, Pipelining: l.Pipelining, Chunking: l.Chunking,
		ConnectTimeout: l.ConnectTimeout, CommandTimeout: l.CommandTimeout,
		DataTimeout: l.DataTimeout, FinalDotTimeout: l.FinalDotTimeout,
	}
	now := r.cfg.Now()
	for g, use := range map[smtpc.Grouping]*mxrules.Switch{
		smtpc.Grouped: &c.Pipelining, smtpc.Across: &c.Across, smtpc.Chunked: &c.Chunking,
	} {
		if !r.manners.bears(s.open.Host, g, now) {
			*use = mxrules.Off
		}
	}
	return c
}

// dialer tries the host's addresses in order (RFC 5321 section 5.1). The route comes
// from the resolver's cache.
func (r *Relay) dialer(s *session) smtpc.DialFunc {
	return func(ctx context.Context) (net.Conn, error) {
		addrs, err := r.addresses(ctx, s.open.Domain, s.open.Host)
		if err != nil {
			return nil, err
		}
		var failures []error
		for i, addr := range addrs {
			conn, err := r.dial(ctx, Target{Source: s.open.Source, Host: s.open.Host, Addr: addr}, len(addrs)-i)
			if err == nil {
				return conn, nil
			}
			failures = append(failures, err)
			if ctx.Err() != nil {
				break
			}
		}
		return nil, errors.Join(failures...)
	}
}

// leastDial is the least time that one of several addresses gets.
const leastDial = 2 * time.Second

// dial tries one address, with its share of the time left for so many: one that
// swallows packets leaves time for the next.
func (r *Relay) dial(ctx context.Context, t Target, of int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok && of > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, max(time.Until(deadline)/time.Duration(of), leastDial))
		defer cancel()
	}
	return r.cfg.Dial(ctx, t)
}

func (r *Relay) addresses(ctx context.Context, domain, host string) ([]netip.Addr, error) {
	rt, err := r.cfg.Resolver.Route(ctx, domain)
	if err != nil {
		return nil, err
	}
	for _, h := range rt.Hosts {
		if h.Name == host {
			return h.Addrs, nil
		}
	}
	return nil, fmt.Errorf("%s is no longer a mail host of %s", host, domain)
}

// openFailure qualifies a session that did not come about. A throttle or block
// reply speaks about the path; anything else is the host's fault.
func (r *Relay) openFailure(s *session, err error) dispatch.Evidence {
	reply := smtpc.Reply{Phase: smtpc.PhaseConnect, Text: err.Error()}
	var failed *smtpc.Error
	if errors.As(err, &failed) {
		reply = failed.Reply
	}
	return r.cfg.Schedule.refusal(reply, func(reply smtpc.Reply) bounce.Verdict { return r.qualify(s, reply, s.open.Domain) })
}

func (r *Relay) qualify(s *session, reply smtpc.Reply, domain string) bounce.Verdict {
	set := r.settings.Load()
	return set.Bounces.Qualify(bounce.Input{
		Reply: ownWords(reply), Provider: set.Rules.ProviderOf(s.open.Host), Host: s.open.Host, Domain: domain,
	})
}

// ownWords leaves out what a server said that kept to no protocol: it is quoted in our
// text, and must not choose what that is qualified as.
func ownWords(reply smtpc.Reply) smtpc.Reply {
	if own := smtpc.ErrProtocol.Error(); reply.Code == 0 && strings.HasPrefix(reply.Text, own) {
		reply.Text = own
	}
	return reply
}

// silence is the evidence of a transaction in which the server said nothing that
// decided: neither trouble nor a sign that the path works.
var silence = dispatch.Evidence{HostFault: true}

// resolve asks for a domain's route.
func (r *Relay) resolve(domain string) {
	r.work(func() {
		rt, err := r.cfg.Resolver.Route(r.calm, domain)
		if err == nil {
			r.remember(r.calm, cmp.Or(rt.Destination, domain))
		}
		r.post(func(now time.Time) {
			if err != nil {
				r.unresolved(now, domain, err)
				return
			}
			delete(r.dead, domain)
			r.core.Resolved(now, domain, routeOf(rt))
		})
	})
}

func routeOf(rt *route.Route) dispatch.Route {
	out := dispatch.Route{Destination: rt.Destination, Provider: rt.Provider, Expires: rt.Expires}
	for _, h := range rt.Hosts {
		out.Hosts = append(out.Hosts, dispatch.Host{Name: h.Name, Preference: h.Preference})
	}
	return out
}

func (r *Relay) unresolved(now time.Time, domain string, err error) {
	var failed *route.Error
	if !errors.As(err, &failed) {
		failed = &route.Error{Kind: route.Temporary, Domain: domain, Err: err}
	}
	if failed.Final() {
		r.dead[domain] = failed
	}
	r.core.Unresolved(now, domain, dispatch.ResolveFailure{Final: failed.Final(), Text: failed.Error(), Expires: failed.Expires})
}

// failDead ends a message whose domain failed for good.
func (r *Relay) failDead(id dispatch.MsgID) {
	h := r.held[id]
	if h == nil {
		return
	}
	failed := r.dead[h.run.domain]
	if failed == nil {
		failed = &route.Error{Kind: route.NXDomain, Domain: h.run.domain}
	}
	v := bounce.UnknownDomain()
	if failed.Kind == route.NullMX {
		v = bounce.NullMX()
	}
	m := h.msg
	m.State.Last, m.State.LastReply = v, smtpc.Reply{Phase: smtpc.PhaseDNS, Text: failed.Error()}
	r.writer.settle(h, Settlement{
		Message: m, Outcome: Bounced, Time: r.cfg.Now(), Verdict: v, Text: failed.Error(), Destination: h.run.domain,
		MessageID: h.mailID,
	})
	r.observe("", Bounced, v.Code, nil)
}

func (r *Relay) observe(provider string, o Outcome, code int, a *Attempt) {
	if r.cfg.Observe == nil {
		return
	}
	seen := Observation{Provider: provider, Outcome: o, Code: code, Attempt: a != nil}
	if a != nil {
		seen.Duration = a.Duration
	}
	r.cfg.Observe(seen)
}
