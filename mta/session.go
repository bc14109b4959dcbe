package mta

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/mta/smtpc"
)

// session is the owner's end of a session goroutine.
type session struct {
	id     dispatch.SessionID
	open   dispatch.Action
	jobs   chan *held // capacity 1: the core gives one message per credit
	given  *held      // the last one
	closed bool
}

// close asks the session to end politely behind its current transaction. Owner only.
func (s *session) close() {
	if s != nil && !s.closed {
		s.closed = true
		close(s.jobs)
	}
}

// open starts a session.
func (r *Relay) open(a dispatch.Action) {
	s := &session{id: a.Session, open: a, jobs: make(chan *held, 1)}
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
	h.sending = true
	h.stage.Store(stageGiven)
	s.given = h
	s.jobs <- h
}

// steer makes a change that stops mail: behind it no attempt begins of what the core
// does not want sent any more. What was given to a session and has not begun comes
// back untried, and goes again if the change does not concern it.
func (r *Relay) steer(change func()) {
	r.act() // what the core decided before the change
	change()
	for _, s := range r.sessions {
		if s.given != nil {
			s.given.recall()
		}
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
	if !r.post(func(now time.Time) { r.core.SessionOpened(now, s.id) }) {
		sess.Abort()
		return
	}
	r.serve(s, sess)
	r.post(func(now time.Time) { r.sessionEnded(now, s) })
}

// serve sends what the owner gives until the session ends.
func (r *Relay) serve(s *session, sess *smtpc.Session) {
	for {
		select {
		case h, ok := <-s.jobs:
			if !ok {
				_ = sess.Quit(r.ctx)
				return
			}
			if !r.transact(s, sess, h) {
				sess.Abort()
				return
			}
		case <-sess.Done():
			sess.Abort()
			return
		}
	}
}

// sessionEnded forgets a session; a message given to it too late was not tried.
func (r *Relay) sessionEnded(now time.Time, s *session) {
	delete(r.sessions, s.id)
	s.closed = true
	select {
	case h, ok := <-s.jobs:
		if ok {
			h.sending = false
			r.core.Untried(now, s.id, h.id, false)
		}
	default:
	}
	r.core.SessionClosed(now, s.id)
}

func (r *Relay) sessionConfig(s *session) smtpc.Config {
	l := s.open.Limits
	return smtpc.Config{
		LocalName: r.settings.Load().HelloNames[s.open.Source.Name], Host: s.open.Host,
		TLS: l.TLS, TLSConfig: r.cfg.TLS, Pipelining: l.Pipelining, Chunking: l.Chunking,
		ConnectTimeout: l.ConnectTimeout, CommandTimeout: l.CommandTimeout,
		DataTimeout: l.DataTimeout, FinalDotTimeout: l.FinalDotTimeout,
	}
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
		Reply: reply, Provider: set.Rules.ProviderOf(s.open.Host), Host: s.open.Host, Domain: domain,
	})
}

// silence is the evidence of a transaction in which the server said nothing that
// decided: neither trouble nor a sign that the path works.
var silence = dispatch.Evidence{HostFault: true}

// resolve asks for a domain's route.
func (r *Relay) resolve(domain string) {
	r.work(func() {
		rt, err := r.cfg.Resolver.Route(r.calm, domain)
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
