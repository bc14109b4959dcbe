package route

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// world is a name server made of zone lines. It keeps a ledger of what it was
// asked, and misbehaves where told to.
type world struct {
	records []dns.RR
	lazy    bool                                                     // does not follow CNAMEs
	delay   time.Duration                                            // before each reply
	rules   map[string]func(network string, reply *dns.Msg) *dns.Msg // by question, as in "MX example.com"

	mu      sync.Mutex
	asked   []string // as in "udp MX example.com"
	pending int
	peak    int // most questions pending at once
}

// newWorld reads zone lines, whose TTL is 300 unless they say otherwise.
func newWorld(t testing.TB, lines string) *world {
	t.Helper()
	w := &world{rules: make(map[string]func(string, *dns.Msg) *dns.Msg)}
	for line := range strings.Lines(lines) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		rr, err := dns.NewRR("$TTL 300\n" + line)
		if err != nil {
			t.Fatalf("zone line %q: %v", line, err)
		}
		w.records = append(w.records, rr)
	}
	return w
}

// on makes the world run f on its reply to a question; a nil result means no
// reply.
func (w *world) on(question string, f func(network string, reply *dns.Msg) *dns.Msg) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rules[question] = f
}

// rcode answers a question with a code and nothing else.
func (w *world) rcode(question string, code int) {
	w.on(question, func(_ string, reply *dns.Msg) *dns.Msg {
		reply.Rcode, reply.Answer, reply.Ns = code, nil, nil
		return reply
	})
}

// silent never answers a question.
func (w *world) silent(question string) {
	w.on(question, func(string, *dns.Msg) *dns.Msg { return nil })
}

// count returns how often a question was asked, over any network.
func (w *world) count(question string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, a := range w.asked {
		if strings.HasSuffix(a, " "+question) {
			n++
		}
	}
	return n
}

func (w *world) reply(network string, query *dns.Msg) *dns.Msg {
	q := query.Question[0]
	question := dns.TypeToString[q.Qtype] + " " + strings.TrimSuffix(q.Name, ".")
	w.mu.Lock()
	w.asked = append(w.asked, network+" "+question)
	w.pending++
	w.peak = max(w.peak, w.pending)
	rule, delay := w.rules[question], w.delay
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.pending--
		w.mu.Unlock()
	}()
	if delay > 0 {
		<-time.After(delay)
	}
	reply := new(dns.Msg).SetReply(query)
	reply.RecursionAvailable = true
	w.fill(reply, q.Name, q.Qtype)
	if rule != nil {
		return rule(network, reply)
	}
	return reply
}

// fill answers as a recursive server would.
func (w *world) fill(reply *dns.Msg, name string, qtype uint16) {
	exists := false
	for range 30 {
		alias := ""
		for _, rr := range w.records {
			h := rr.Header()
			if !strings.EqualFold(h.Name, name) {
				continue
			}
			exists = true
			if c, ok := rr.(*dns.CNAME); ok {
				alias = c.Target
			}
			if h.Rrtype == qtype || h.Rrtype == dns.TypeCNAME {
				reply.Answer = append(reply.Answer, rr)
			}
		}
		if alias == "" || w.lazy {
			break
		}
		name, exists = alias, false
	}
	if !exists {
		reply.Rcode = dns.RcodeNameError
	}
	last := len(reply.Answer) - 1
	if !exists || last < 0 || reply.Answer[last].Header().Rrtype != qtype && !w.lazy {
		soa, _ := dns.NewRR(". 600 IN SOA ns. admin. 1 2 3 4 300")
		reply.Ns = append(reply.Ns, soa)
	}
}

// ServeDNS serves the world over real sockets.
func (w *world) ServeDNS(out dns.ResponseWriter, query *dns.Msg) {
	if reply := w.reply(out.LocalAddr().Network(), query); reply != nil {
		_ = out.WriteMsg(reply)
	}
}

// dial serves the world in memory, where virtual time reigns.
func (w *world) dial(_ context.Context, network, _ string) (net.Conn, error) {
	return newMemoryConn(network, func(packet []byte) [][]byte {
		query := new(dns.Msg)
		if err := query.Unpack(packet); err != nil {
			return nil
		}
		reply := w.reply(network, query)
		if reply == nil {
			return nil
		}
		packed, err := reply.Pack()
		if err != nil {
			return nil
		}
		return [][]byte{packed}
	}), nil
}

// resolver returns a Resolver that asks w in memory, trusting every denial
// unless the configuration says otherwise.
func (w *world) resolver(t testing.TB, change ...func(*Config)) *Resolver {
	t.Helper()
	c := Config{Server: "192.0.2.53:53", Dial: w.dial, ControlNames: []string{}}
	for _, f := range change {
		f(&c)
	}
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// memoryConn is a connection to a server function. Over "udp" each write is a
// packet and so is each reply; over "tcp" both are framed by their length.
type memoryConn struct {
	net.Conn // nil: what is not defined here is not called

	stream   bool
	serve    func([]byte) [][]byte
	replies  chan []byte
	closed   chan struct{}
	deadline time.Time
	rest     []byte
}

func newMemoryConn(network string, serve func([]byte) [][]byte) *memoryConn {
	return &memoryConn{stream: network == "tcp", serve: serve, replies: make(chan []byte, 16), closed: make(chan struct{})}
}

func (c *memoryConn) Write(p []byte) (int, error) {
	packet := append([]byte(nil), p...)
	if c.stream {
		packet = packet[2:]
	}
	go func() {
		for _, reply := range c.serve(packet) {
			if c.stream {
				reply = append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)
			}
			select {
			case c.replies <- reply:
			case <-c.closed:
			}
		}
	}()
	return len(p), nil
}

func (c *memoryConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		timer := time.NewTimer(time.Until(c.deadline))
		defer timer.Stop()
		select {
		case c.rest = <-c.replies:
		case <-timer.C:
			return 0, os.ErrDeadlineExceeded
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	if !c.stream {
		c.rest = nil
	}
	return n, nil
}

func (c *memoryConn) SetDeadline(t time.Time) error { c.deadline = t; return nil }

func (c *memoryConn) Close() error { close(c.closed); return nil }
