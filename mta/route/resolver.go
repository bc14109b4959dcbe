package route

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

// Config says how a Resolver asks. Its zero value uses the system's name
// servers and is fit for production.
type Config struct {
	// Server is the host:port of the one recursive name server to ask. Empty
	// means those of /etc/resolv.conf, read once by New; search lists are not
	// used, every name is absolute.
	Server string
	// Timeout bounds each try of a question: dial, write and read. 0 means 3 s.
	// A question gets two tries, or one per server if there are more.
	Timeout time.Duration
	// Now tells the time by which answers expire; nil means time.Now.
	Now func() time.Time
	// Dial opens the connection to a server, network being "udp" or "tcp"; a
	// "udp" connection keeps packet borders. Nil means a net.Dialer's.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// MaxInFlight bounds the questions on the wire; the rest wait their turn.
	// 0 means 256.
	MaxInFlight int
	// MaxCache bounds the memory of cached answers, in octets. 0 means 64 MiB.
	MaxCache int
	// ControlNames are names that certainly exist. Each NXDOMAIN is believed
	// only if the server answers for one of them right afterwards. Nil means
	// DefaultControlNames and the names this Resolver found last, so that a
	// closed network without the default names works too; empty and not nil
	// means that every NXDOMAIN is believed.
	ControlNames []string
	// Provider names the mailbox provider that runs a mail host, or returns "".
	// Nil means that none is known.
	Provider func(mxHost string) string
}

// Resolver answers look-ups from the DNS. It caches by TTL, asks each question
// once however many wait for the answer, and is safe for concurrent use.
type Resolver struct {
	servers  []string
	timeout  time.Duration
	now      func() time.Time
	dial     func(ctx context.Context, network, addr string) (net.Conn, error)
	provider func(string) string
	controls *controls
	inFlight chan struct{}
	half     int // of the cache's bound: for answers, and for routes

	answers *cache[question, answer]
	asking  singleflight.Group // by question
	routes  atomic.Pointer[routeBook]
}

// routeBook holds the routes made under one state of the provider table.
type routeBook struct {
	cache   *cache[string, *Route]
	flights singleflight.Group // by domain
}

// New checks the configuration and returns a Resolver. It sends nothing.
func New(c Config) (*Resolver, error) {
	servers, err := servers(c.Server)
	if err != nil {
		return nil, err
	}
	if c.Timeout < 0 || c.MaxInFlight < 0 || c.MaxCache < 0 {
		return nil, fmt.Errorf("dns: timeout %s, queries in flight %d and cache size %d must not be negative", c.Timeout, c.MaxInFlight, c.MaxCache)
	}
	controls, err := newControls(c.ControlNames)
	if err != nil {
		return nil, err
	}
	r := &Resolver{
		servers:  servers,
		timeout:  orDefault(c.Timeout, defaultTimeout),
		now:      c.Now,
		dial:     c.Dial,
		provider: c.Provider,
		controls: controls,
		inFlight: make(chan struct{}, orDefault(c.MaxInFlight, defaultInFlight)),
	}
	r.half = orDefault(c.MaxCache, defaultCache) / 2
	r.answers = newCache[question, answer](r.half)
	r.ForgetRoutes()
	if r.now == nil {
		r.now = time.Now
	}
	if r.dial == nil {
		r.dial = new(net.Dialer).DialContext
	}
	return r, nil
}

const (
	defaultTimeout  = 3 * time.Second
	defaultInFlight = 256
	defaultCache    = 64 << 20
)

func orDefault[T int | time.Duration](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

func servers(server string) ([]string, error) {
	if server == "" {
		return systemServers("/etc/resolv.conf")
	}
	host, port, err := net.SplitHostPort(server)
	if err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("dns.server %q is not host:port; write for example 127.0.0.1:53", server)
	}
	return []string{server}, nil
}

// Route resolves a recipient domain, from the cache when it can. It waits for
// the DNS until ctx ends; others who wait for the same domain are not disturbed
// then. Every error is an *Error.
func (r *Resolver) Route(ctx context.Context, domain string) (*Route, error) {
	name, err := Normalize(domain)
	if err != nil {
		return nil, &Error{Kind: Invalid, Domain: domain, Err: err}
	}
	book := r.routes.Load()
	if route, ok := book.cache.get(name, r.now()); ok {
		return route, nil
	}
	flight := book.flights.DoChan(name, func() (any, error) {
		// A flight outlives the caller that began it: others may have joined.
		route, err := r.route(context.WithoutCancel(ctx), name)
		if err == nil {
			book.cache.put(name, route, route.cost(), route.Expires, r.now())
		}
		return route, err
	})
	route, err := wait[*Route](ctx, flight)
	if err != nil {
		return nil, asError(err, name)
	}
	return route, nil
}

// ForgetRoutes makes the next Route of each domain anew, from the DNS answers
// still cached. Call it when Provider has begun to answer differently.
func (r *Resolver) ForgetRoutes() {
	r.routes.Store(&routeBook{cache: newCache[string, *Route](r.half)})
}

// TXT returns the text records of name, the strings of each joined, following
// CNAMEs. A name without any gives none and no error. Answers are not cached:
// who asks for records of this kind has just changed them. Errors as for Route.
func (r *Resolver) TXT(ctx context.Context, name string) ([]string, error) {
	plain, err := normalizeName(name)
	if err != nil {
		return nil, &Error{Kind: Invalid, Domain: name, Err: err}
	}
	q := question{plain, dns.TypeTXT}
	flight := r.asking.DoChan(q.String(), func() (any, error) {
		return r.resolve(context.WithoutCancel(ctx), q, 0), nil
	})
	a, err := wait[answer](ctx, flight)
	if err == nil && a.failed != nil {
		err = a.failed
	}
	if err != nil {
		return nil, asError(err, plain)
	}
	return a.texts, nil
}

// wait returns the result of a flight unless ctx ends first.
func wait[T any](ctx context.Context, flight <-chan singleflight.Result) (T, error) {
	var none T
	select {
	case res := <-flight:
		if res.Err != nil {
			return none, res.Err
		}
		return res.Val.(T), nil
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// asError makes err an *Error about name.
func asError(err error, name string) *Error {
	var e *Error
	if errors.As(err, &e) && e.Domain == name {
		return e
	}
	if e != nil {
		return &Error{Kind: e.Kind, Domain: name, Err: err, Expires: e.Expires}
	}
	return &Error{Kind: Temporary, Domain: name, Err: err}
}

// route builds the Route of a domain from cached and fresh answers.
func (r *Resolver) route(ctx context.Context, domain string) (*Route, error) {
	mx := r.lookup(ctx, question{domain, dns.TypeMX})
	if mx.failed != nil {
		return nil, mx.failed
	}
	route := &Route{Domain: domain, Expires: mx.expires}
	names, err := mailHosts(domain, mx)
	if err != nil {
		return nil, err
	}
	route.ImplicitMX = mx.records == 0
	route.Destination, route.Provider = destination(domain, names, r.provider)
	if err := r.addHosts(ctx, route, names); err != nil {
		return nil, err
	}
	return route, nil
}

// mailHosts lists the names that receive the mail of domain: its MX hosts, or
// itself when it has no MX record (RFC 5321 section 5.1).
func mailHosts(domain string, mx answer) ([]Host, error) {
	if mx.records == 0 {
		return []Host{{Name: domain}}, nil
	}
	var hosts []Host
	null := false
	for _, h := range mx.hosts {
		if h.Name == "" {
			null = true
			continue
		}
		hosts = append(hosts, h)
	}
	switch {
	case len(hosts) > 0: // a null MX beside others is an error to be ignored (RFC 7505 section 3)
		return hosts, nil
	case null:
		return nil, &Error{Kind: NullMX, Domain: domain, Expires: mx.expires}
	}
	return nil, &Error{Kind: NoHosts, Domain: domain, Err: errors.New("no MX record names a valid host")}
}

// cost estimates the octets that a cached route holds.
func (rt *Route) cost() int {
	const fixed, perAddr, perHost = 240, 24, 56
	n := fixed + len(rt.Domain) + len(rt.Destination)
	for _, h := range rt.Hosts {
		n += perHost + len(h.Name) + perAddr*len(h.Addrs)
	}
	return n
}
