package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// DNS answers questions.
type DNS interface {
	// Lookup asks for the records of a name: qtype is dns.TypeA, TypeAAAA, TypeMX, TypePTR or
	// TypeTXT. A name that does not exist, and one without such records, have an
	// empty answer. An error means that nothing is known.
	Lookup(ctx context.Context, name string, qtype uint16) (Answer, error)
}

// Answer is the records of one question.
type Answer struct {
	Addrs []netip.Addr // A, AAAA
	Hosts []Host       // MX
	Names []string     // PTR, lower case, without the dot at the end
	Texts []string     // TXT, the strings of each joined
}

// Host is one MX record. Name is empty for the null MX (RFC 7505).
type Host struct {
	Preference uint16
	Name       string
}

const (
	questionTimeout = 3 * time.Second
	tries           = 2
	maxRecords      = 200
	udpSize         = 1232 // of the DNS flag day 2020
)

// Client asks recursive name servers, each twice at most, by UDP and, when the
// answer is cut off, by TCP. It is safe for concurrent use.
type Client struct{ servers []string }

// NewClient makes a client of one server (host:port), or, with "", of those in
// /etc/resolv.conf. It sends nothing.
func NewClient(server string) (*Client, error) {
	if server != "" {
		if _, _, err := net.SplitHostPort(server); err != nil {
			return nil, fmt.Errorf("dns.server %q is not host:port; write for example 127.0.0.1:53", server)
		}
		return &Client{servers: []string{server}}, nil
	}
	conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return nil, fmt.Errorf("name servers of the system: %w; set dns.server", err)
	}
	c := &Client{}
	for _, s := range conf.Servers {
		c.servers = append(c.servers, net.JoinHostPort(s, conf.Port))
	}
	if len(c.servers) == 0 {
		return nil, errors.New("/etc/resolv.conf names no server; set dns.server")
	}
	return c, nil
}

// Lookup implements DNS. It takes 3 s for each server and try at most.
func (c *Client) Lookup(ctx context.Context, name string, qtype uint16) (Answer, error) {
	if _, ok := dns.IsDomainName(name); !ok || len(name) > 253 {
		return Answer{}, nil // no such name can exist
	}
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(udpSize, false)
	var last error
	for range tries {
		for _, server := range c.servers {
			reply, err := exchange(ctx, q, server)
			if err == nil {
				return read(reply, qtype), nil
			}
			last = err
			if ctx.Err() != nil {
				break
			}
		}
	}
	return Answer{}, fmt.Errorf("%s of %s: %w", dns.TypeToString[qtype], clip(name, 253), last)
}

func exchange(ctx context.Context, q *dns.Msg, server string) (*dns.Msg, error) {
	udp := dns.Client{Net: "udp", Timeout: questionTimeout, UDPSize: udpSize}
	reply, _, err := udp.ExchangeContext(ctx, q, server)
	if err == nil && reply.Truncated {
		tcp := dns.Client{Net: "tcp", Timeout: questionTimeout}
		reply, _, err = tcp.ExchangeContext(ctx, q, server)
	}
	if err != nil {
		return nil, err
	}
	if reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("%s answers %s", server, dns.RcodeToString[reply.Rcode])
	}
	return reply, nil
}

// read takes the records of one type. A recursive server puts them behind the CNAMEs
// that led there.
func read(reply *dns.Msg, qtype uint16) (a Answer) {
	for _, rr := range reply.Answer[:min(len(reply.Answer), maxRecords)] {
		if rr.Header().Rrtype != qtype {
			continue
		}
		switch r := rr.(type) {
		case *dns.A:
			a.address(r.A)
		case *dns.AAAA:
			a.address(r.AAAA)
		case *dns.MX:
			a.Hosts = append(a.Hosts, Host{Preference: r.Preference, Name: plain(r.Mx)})
		case *dns.PTR:
			a.Names = append(a.Names, plain(r.Ptr))
		case *dns.TXT:
			a.Texts = append(a.Texts, strings.Join(r.Txt, ""))
		}
	}
	return a
}

func (a *Answer) address(ip net.IP) {
	if addr, ok := netip.AddrFromSlice(ip); ok {
		a.Addrs = append(a.Addrs, addr.Unmap())
	}
}

// plain is a name in lower case without the dot at its end.
func plain(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// memo asks each question once, and a bounded number at a time.
type memo struct {
	dns  DNS
	room chan struct{}
	mu   sync.Mutex
	by   map[question]*remembered
}

type question struct {
	name  string
	qtype uint16
}

type remembered struct {
	done chan struct{}
	a    Answer
	err  error
}

// maxQuestions is how many questions are on the wire at a time.
const maxQuestions = 32

func newMemo(d DNS) *memo {
	return &memo{dns: d, room: make(chan struct{}, maxQuestions), by: map[question]*remembered{}}
}

// Lookup implements DNS. All callers share one context's end.
func (m *memo) Lookup(ctx context.Context, name string, qtype uint16) (Answer, error) {
	q := question{plain(name), qtype}
	m.mu.Lock()
	r, known := m.by[q]
	if !known {
		r = &remembered{done: make(chan struct{})}
		m.by[q] = r
	}
	m.mu.Unlock()
	if !known {
		r.a, r.err = m.ask(ctx, q)
		close(r.done)
	}
	select {
	case <-r.done:
		return r.a, r.err
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
}

func (m *memo) ask(ctx context.Context, q question) (Answer, error) {
	select {
	case m.room <- struct{}{}:
		defer func() { <-m.room }()
		return m.dns.Lookup(ctx, q.name, q.qtype)
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
}

// addresses are the IPv4 and IPv6 addresses of a host.
func addresses(ctx context.Context, d DNS, host string) ([]netip.Addr, error) {
	four, err := d.Lookup(ctx, host, dns.TypeA)
	if err != nil {
		return nil, err
	}
	six, err := d.Lookup(ctx, host, dns.TypeAAAA)
	if err != nil && len(four.Addrs) == 0 {
		return nil, err
	}
	return append(four.Addrs[:len(four.Addrs):len(four.Addrs)], six.Addrs...), nil
}
