// Package hostile is receivers that break the rules of SMTP, beside some that keep them:
// one domain, one address on loopback and one manner each, a DNS server that leads
// there, and a ledger of what was taken. [Start] begins, [Network.Close] ends it.
//
// The manners are of three kinds: [Honest] takes everything; [Frail] takes mail and dies
// at seeded moments of it; [Manners] are scripts that attack their client. A [Cable] in
// front of a receiver is a network that fails at seeded moments.
//
// Linux is required, because only Linux takes the whole of 127.0.0.0/8.
package hostile

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Receiver is who receives a domain's mail. Exactly one host does, mx.DOMAIN.
type Receiver struct {
	// Domain is lower case, without a dot at its end.
	Domain string
	// Manner plays each connection; it ends when the connection does.
	Manner Manner
	// Cable, if set, is what connections come through.
	Cable *Cable
}

// Manner plays one connection to its end. It returns soon after c is closed.
type Manner func(c *Conn)

// maxReceivers is how many addresses the network has.
const maxReceivers = 254

// Network is running receivers. Safe for concurrent use.
type Network struct {
	// Ledger is what the receivers took.
	Ledger Ledger

	receivers map[string]int // by domain
	list      []Receiver
	port      int
	listeners []net.Listener
	names     *dns.Server
	dns       string
	serving   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	done   chan struct{} // closed with it
	open   map[net.Conn]struct{}
	count  []atomic.Int64 // connections, by receiver
}

// Start serves receivers until Close.
func Start(receivers ...Receiver) (*Network, error) {
	if len(receivers) > maxReceivers {
		return nil, fmt.Errorf("%d receivers: give at most %d", len(receivers), maxReceivers)
	}
	n := &Network{
		receivers: map[string]int{}, list: receivers, open: map[net.Conn]struct{}{},
		count: make([]atomic.Int64, len(receivers)), done: make(chan struct{}),
	}
	n.Ledger.copies = map[string]*Copies{}
	for i, r := range receivers {
		n.receivers[r.Domain] = i
	}
	if err := errors.Join(n.listen(), n.serveNames()); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	for i, l := range n.listeners {
		n.serving.Go(func() { n.accept(l, i) })
	}
	return n, nil
}

// address is where receiver i is.
func address(i int) string { return fmt.Sprintf("127.78.0.%d", i+1) }

// listen takes one port at all addresses: a free one of the first that all others have.
func (n *Network) listen() error {
	for i := range n.list {
		l, err := net.Listen("tcp", net.JoinHostPort(address(i), fmt.Sprint(n.port)))
		if err != nil {
			return err
		}
		n.port = l.Addr().(*net.TCPAddr).Port
		n.listeners = append(n.listeners, l)
	}
	return nil
}

// Port is the port of all receivers.
func (n *Network) Port() int { return n.port }

// DNS is the host:port of the DNS server.
func (n *Network) DNS() string { return n.dns }

// Connections is how many connections came to a domain's receiver so far.
func (n *Network) Connections(domain string) int64 {
	i, ok := n.receivers[domain]
	if !ok {
		return 0
	}
	return n.count[i].Load()
}

// HangUp cuts every connection that is open now.
func (n *Network) HangUp() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.open {
		_ = c.Close() // its reader notices
	}
}

// Close ends everything and waits for it.
func (n *Network) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	close(n.done)
	n.mu.Unlock()
	var errs []error
	for _, l := range n.listeners {
		errs = append(errs, l.Close())
	}
	if n.names != nil {
		errs = append(errs, n.names.Shutdown())
	}
	n.HangUp()
	n.serving.Wait()
	return errors.Join(errs...)
}

// accept takes the connections of receiver i.
func (n *Network) accept(l net.Listener, i int) {
	r := &n.list[i]
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		number := n.count[i].Add(1)
		if !n.enter(conn) {
			continue
		}
		n.serving.Go(func() {
			defer n.leave(conn)
			inner := conn
			if r.Cable != nil {
				end := r.Cable.lay(conn, number, &n.serving)
				defer end.Close()
				inner = end
			}
			r.Manner(newConn(inner, n, r.Domain, number))
		})
	}
}

// enter keeps a connection until leave; false when the network is closed already.
func (n *Network) enter(c net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		_ = c.Close()
		return false
	}
	n.open[c] = struct{}{}
	return true
}

func (n *Network) leave(c net.Conn) {
	_ = c.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.open, c)
}

// serveNames begins the DNS server, on UDP.
func (n *Network) serveNames() error {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	n.dns = conn.LocalAddr().String()
	started := make(chan struct{})
	n.names = &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(n.answer), NotifyStartedFunc: func() { close(started) }}
	n.serving.Go(func() { _ = n.names.ActivateAndServe() })
	<-started
	return nil
}

func (n *Network) answer(w dns.ResponseWriter, q *dns.Msg) {
	reply := new(dns.Msg)
	reply.SetReply(q)
	if len(q.Question) == 1 {
		if rr := n.record(q.Question[0]); rr != nil {
			reply.Answer = append(reply.Answer, rr)
		} else if !n.knows(q.Question[0].Name) {
			reply.Rcode = dns.RcodeNameError
		}
	}
	_ = w.WriteMsg(reply) // a lost answer is asked for again
}

// knows reports whether a name exists.
func (n *Network) knows(name string) bool {
	_, ok := n.receiver(name)
	return ok
}

// receiver is the index of the receiver of a domain or host name.
func (n *Network) receiver(name string) (int, bool) {
	i, ok := n.receivers[strings.TrimSuffix(strings.TrimPrefix(dns.CanonicalName(name), "mx."), ".")]
	return i, ok
}

const ttl = uint32(time.Hour / time.Second)

func (n *Network) record(q dns.Question) dns.RR {
	head := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}
	i, ok := n.receiver(q.Name)
	host := strings.HasPrefix(dns.CanonicalName(q.Name), "mx.")
	switch {
	case q.Qtype == dns.TypeMX && ok && !host:
		return &dns.MX{Hdr: head, Preference: 10, Mx: "mx." + n.list[i].Domain + "."}
	case q.Qtype == dns.TypeA && ok && host:
		return &dns.A{Hdr: head, A: net.ParseIP(address(i))}
	}
	return nil
}
