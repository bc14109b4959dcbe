package inbound

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// gate counts what clients hold at this moment: connections, messages of the last
// minute, octets of messages in memory. Each count has a limit in all and one for
// each client, so that nobody can take everything.
type gate struct {
	connections, perClient int   // limits
	octets, octetsEach     int64 // limits
	interval, burst        time.Duration

	mu      sync.Mutex
	open    int
	held    int64
	clients map[netip.Prefix]*client
	sweepAt int // number of clients from which the idle ones are forgotten
}

// client is everybody at one address (IPv6: one /64, which is one customer).
type client struct {
	prefix netip.Prefix
	open   int
	held   int64
	due    time.Time // GCRA: when the messages so far would have been due
}

// minSweep is the number of clients below which none is forgotten.
const minSweep = 1024

// newGate allows messages as a rate: at most a minute's worth at once.
func newGate(connections, perClient, messagesPerMinute int, octets, octetsEach int64) *gate {
	interval := time.Minute / time.Duration(messagesPerMinute)
	return &gate{
		connections: connections, perClient: perClient, octets: octets, octetsEach: octetsEach,
		interval: interval, burst: time.Minute - interval,
		clients: map[netip.Prefix]*client{}, sweepAt: minSweep,
	}
}

// enter counts a connection from addr; leave gives it back. It returns nil and the reason
// (of an Observation) when there is no place for it.
func (g *gate) enter(addr net.Addr, now time.Time) (*client, string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	prefix := clientPrefix(addr)
	c := g.clients[prefix]
	switch {
	case g.open >= g.connections:
		return nil, ReasonConnections
	case c == nil:
		g.sweep(now)
		c = &client{prefix: prefix}
		g.clients[prefix] = c
	case c.open >= g.perClient:
		return nil, ReasonClientConnections
	}
	g.open++
	c.open++
	return c, ""
}

// leave ends a connection of c.
func (g *gate) leave(c *client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	c.open--
}

// sweep forgets clients that hold nothing and whose messages are a minute old,
// when there have become many.
func (g *gate) sweep(now time.Time) {
	if len(g.clients) < g.sweepAt {
		return
	}
	for prefix, c := range g.clients {
		if c.open == 0 && !c.due.After(now) {
			delete(g.clients, prefix)
		}
	}
	g.sweepAt = max(minSweep, 2*len(g.clients))
}

// message counts one message of c, and reports false when c sent too many.
func (g *gate) message(c *client, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	due := c.due
	if due.Before(now) {
		due = now
	}
	if due.Sub(now) > g.burst {
		return false
	}
	c.due = due.Add(g.interval)
	return true
}

// fits reports whether there is room for a message of that announced size now; 0 stands
// for one that announced none.
func (g *gate) fits(c *client, size int64) bool {
	size = max(size, firstRoom)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held+size <= g.octets && c.held+size <= g.octetsEach
}

// hold takes room for n octets; release gives it back. It reports false when there is none.
func (g *gate) hold(c *client, n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held+int64(n) > g.octets || c.held+int64(n) > g.octetsEach {
		return false
	}
	g.held += int64(n)
	c.held += int64(n)
	return true
}

func (g *gate) release(c *client, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held -= int64(n)
	c.held -= int64(n)
}

// holding is the octets held by all.
func (g *gate) holding() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held
}

// clientPrefix is whom an address belongs to. What is no IP address, as in a test,
// is one client.
func clientPrefix(addr net.Addr) netip.Prefix {
	ip := clientAddr(addr)
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	prefix, _ := ip.Prefix(bits) // the zero prefix for no address
	return prefix
}

// clientAddr is the IP address of a connection's other end; the zero value if it has none.
func clientAddr(addr net.Addr) netip.Addr {
	parsed, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Addr{}
	}
	return parsed.Addr().Unmap().WithZone("")
}
