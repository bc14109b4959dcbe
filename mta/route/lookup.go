package route

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// degradedTTL bounds the life of a route of which some host could not be looked
// up, so that the host joins soon after its name server is back.
const degradedTTL = time.Minute

// addHosts looks up the addresses of all names at once and keeps the hosts that
// have any. When none has, the gravest failure among the look-ups is the error.
func (r *Resolver) addHosts(ctx context.Context, route *Route, names []Host) error {
	found := make([]addresses, len(names))
	var wg sync.WaitGroup
	for i, h := range names {
		wg.Go(func() { found[i] = r.addresses(ctx, h.Name) })
	}
	wg.Wait()
	var failed *Error
	for i, h := range names {
		failed = graver(failed, found[i].failed)
		if len(found[i].addrs) == 0 {
			continue
		}
		h.Addrs = found[i].addrs
		route.Hosts = append(route.Hosts, h)
		route.Expires = earlier(route.Expires, found[i].expires)
	}
	switch {
	case len(route.Hosts) == 0 && failed != nil:
		return &Error{Kind: failed.Kind, Domain: route.Domain, Err: failed}
	case len(route.Hosts) == 0:
		return &Error{Kind: NoHosts, Domain: route.Domain}
	case failed != nil:
		route.Expires = earlier(route.Expires, r.now().Add(degradedTTL))
	}
	return nil
}

// addresses are what the DNS tells of one mail host.
type addresses struct {
	addrs   []netip.Addr // IPv4 first
	expires time.Time    // of the first to expire
	failed  *Error       // the gravest failure, which is never a denial
}

// addresses asks for both families of a host. One of them is enough: name
// servers that fail only on AAAA are common. That a host does not exist is its
// domain's own mistake, no failure of the look-up.
func (r *Resolver) addresses(ctx context.Context, host string) addresses {
	var four, six answer
	var wg sync.WaitGroup
	wg.Go(func() { six = r.lookup(ctx, question{host, dns.TypeAAAA}) })
	four = r.lookup(ctx, question{host, dns.TypeA})
	wg.Wait()
	var all addresses
	for _, a := range []answer{four, six} {
		if a.failed != nil && !a.failed.Final() {
			all.failed = graver(all.failed, a.failed)
		}
		if len(a.addrs) > 0 {
			all.addrs = append(all.addrs, a.addrs...)
			all.expires = earlier(all.expires, a.expires)
		}
	}
	return all
}

// graver returns the failure that says more against our own resolver.
func graver(a, b *Error) *Error {
	if a == nil || b != nil && b.Kind > a.Kind {
		return b
	}
	return a
}

// earlier returns the earlier of two instants; the zero time is no instant.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// lookup answers q from the cache or the wire. However many ask at once, one
// question is sent.
func (r *Resolver) lookup(ctx context.Context, q question) answer {
	if a, ok := r.answers.get(q, r.now()); ok {
		return a
	}
	res := <-r.asking.DoChan(q.String(), func() (any, error) {
		// The flight before this one may have ended after the look above.
		if a, ok := r.answers.get(q, r.now()); ok {
			return a, nil
		}
		a := r.resolve(ctx, q, 0)
		r.answers.put(q, a, a.cost(), a.expires, r.now())
		return a, nil
	})
	return res.Val.(answer)
}

// resolve sends q, and again for the target of a CNAME about which the server
// said nothing; depth counts these links. A failure is part of the answer, with
// the time for which it may be remembered.
func (r *Resolver) resolve(ctx context.Context, q question, depth int) answer {
	reply, err := r.exchange(ctx, q)
	if err != nil {
		return r.failure(q, Temporary, err, failureTTL)
	}
	s, err := read(q, reply)
	if err != nil {
		return r.failure(q, Temporary, err, failureTTL)
	}
	switch {
	case s.nxdomain:
		if err := r.confirm(ctx); err != nil {
			return r.failure(q, Broken, err, 0)
		}
		return r.failure(q, NXDomain, nil, s.ttl)
	case s.alias != "":
		return r.follow(ctx, q, s, depth+1)
	case s.records > 0:
		r.controls.learn(q.name)
	}
	s.expires = r.now().Add(s.ttl)
	return s.answer
}

// follow asks for the canonical name that a reply ended in.
func (r *Resolver) follow(ctx context.Context, q question, s section, depth int) answer {
	if depth > maxCNAMEs {
		return r.failure(q, Temporary, fmt.Errorf("%s: more than %d CNAMEs in a row", q, maxCNAMEs), failureTTL)
	}
	if err := checkName(s.alias, true); err != nil {
		return r.failure(q, Temporary, fmt.Errorf("%s: CNAME to %q: %w", q, s.alias, err), failureTTL)
	}
	expires := r.now().Add(s.aliasTTL)
	a := r.resolve(ctx, question{s.alias, q.qtype}, depth)
	a.expires = earlier(a.expires, expires)
	if a.failed != nil && a.failed.Final() {
		a.failed.Expires = a.expires
	}
	return a
}

// failure is an answer that holds nothing but an error, kept for ttl.
func (r *Resolver) failure(q question, kind Kind, err error, ttl time.Duration) answer {
	a := answer{failed: &Error{Kind: kind, Domain: q.name, Err: err}, expires: r.now().Add(ttl)}
	if a.failed.Final() {
		a.failed.Expires = a.expires
	}
	return a
}
