package virtual

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/veredus/veredus/integration/memnet"
	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/route"
)

// receivers are the mail hosts of every domain: mx.<domain>, unless the domain has others.
type receivers struct {
	mu       sync.Mutex
	start    time.Time
	hosts    map[string][]string      // by domain: its hosts in order of preference
	scripts  map[string][]string      // by recipient: replies of successive attempts; the last one stays
	attempts map[string][]time.Time   // by recipient: instants of RCPT
	bodies   map[string][]string      // by recipient: contents whose final dot came
	accepted map[string][]string      // by recipient: of these, those not refused
	mails    []mail                   // every MAIL with its RCPT, in order
	down     map[string]time.Time     // by domain or host: refuses connections until then
	greeting map[string]string        // by domain or host: greeting instead of 220
	hangUp   map[string]string        // by domain or host: the verb behind which the line ends
	gates    map[string]chan struct{} // by recipient: the final reply waits for it
	delays   map[string]time.Duration // by recipient: the final reply takes so long
	session  map[string]int           // by domain or host: messages it takes on one connection
	latency  func() time.Duration     // before each reply; nil: none
	distance time.Duration            // one way
	manner   map[string]string        // by host: chunking, or how it breaks inside groups
	conns    int
	ledgers  map[string]*ledger // by host
}

// mail is one transaction seen by a receiver, from its MAIL or the RSET that clears
// the way for it.
type mail struct {
	at     time.Time
	to     string
	source string
}

// ledger is what one host saw of its clients.
type ledger struct {
	dials   []time.Time
	mails   []time.Time
	open    int
	most    int // connections open at once
	longest int // messages on one connection
}

func newReceivers() *receivers {
	return &receivers{
		start: time.Now(), hosts: map[string][]string{}, scripts: map[string][]string{}, attempts: map[string][]time.Time{},
		bodies: map[string][]string{}, accepted: map[string][]string{}, down: map[string]time.Time{}, greeting: map[string]string{}, hangUp: map[string]string{},
		manner: map[string]string{},
		gates:  map[string]chan struct{}{}, delays: map[string]time.Duration{}, session: map[string]int{}, ledgers: map[string]*ledger{},
	}
}

// Route implements mta.Resolver. nx.example does not exist; null.example accepts no mail.
func (w *receivers) Route(_ context.Context, domain string) (*route.Route, error) {
	expires := time.Now().Add(time.Hour)
	switch domain {
	case "nx.example":
		return nil, &route.Error{Kind: route.NXDomain, Domain: domain, Expires: expires}
	case "null.example":
		return nil, &route.Error{Kind: route.NullMX, Domain: domain, Expires: expires}
	}
	names := w.hosts[domain]
	if names == nil {
		names = []string{"mx." + domain}
	}
	r := &route.Route{Domain: domain, Destination: domain, Expires: expires}
	for i, name := range names {
		r.Hosts = append(r.Hosts, route.Host{
			Name: name, Preference: uint16(10 * (i + 1)), Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.2")},
		})
	}
	return r, nil
}

// of is what a table says of a host, by its name or its domain's.
func of[V any](table map[string]V, host string) V {
	if v, ok := table[host]; ok {
		return v
	}
	return table[strings.TrimPrefix(host, "mx.")]
}

// dialer is the network as a process sees it.
func (w *receivers) dialer(p *process) func(context.Context, mta.Target) (net.Conn, error) {
	return func(ctx context.Context, t mta.Target) (net.Conn, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if p.killed() {
			return nil, errKilled
		}
		l := w.ledger(t.Host)
		l.dials = append(l.dials, time.Now())
		w.conns++
		if time.Now().Before(of(w.down, t.Host)) {
			return nil, fmt.Errorf("connection refused")
		}
		l.open++
		l.most = max(l.most, l.open)
		client, server := w.line()
		go func() {
			defer w.hungUp(l)
			c := &caller{w: w, p: p, l: l, conn: server, in: bufio.NewReader(server), host: t.Host, source: t.Source.Name}
			c.serve()
		}()
		return client, nil
	}
}

// line is a connection's; the caller holds the lock.
func (w *receivers) line() (client, server *memnet.Conn) {
	if w.distance > 0 {
		return memnet.Distant(64<<10, w.distance)
	}
	return memnet.Pipe(64 << 10)
}

// ledger is a host's; the caller holds the lock.
func (w *receivers) ledger(host string) *ledger {
	l := w.ledgers[host]
	if l == nil {
		l = &ledger{}
		w.ledgers[host] = l
	}
	return l
}

// seen is a copy of a host's ledger.
func (w *receivers) seen(host string) ledger {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := *w.ledger(host)
	l.dials, l.mails = slices.Clone(l.dials), slices.Clone(l.mails)
	return l
}

func (w *receivers) hungUp(l *ledger) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.open--
}

// kill makes everything that a process does from now on have no effect.
func (w *receivers) kill(p *process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(p.dead)
}

// change changes what the receivers do.
func (w *receivers) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// say scripts the replies to a recipient's attempts. A reply to RCPT begins with
// its code; "dot 550 ..." answers the final dot; "drop" takes the content and ends
// the line before its reply; "" accepts. A 421 ends the line.
func (w *receivers) say(recipient string, replies ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.scripts[recipient] = replies
}

func (w *receivers) attempt(recipient string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.attempts[recipient])
	w.attempts[recipient] = append(w.attempts[recipient], time.Now())
	script := w.scripts[recipient]
	if len(script) == 0 {
		return ""
	}
	return script[min(n, len(script)-1)]
}

// instants are a recipient's attempts since the beginning.
func (w *receivers) instants(recipient string) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []time.Duration
	for _, at := range w.attempts[recipient] {
		list = append(list, at.Sub(w.start))
	}
	return list
}

func (w *receivers) received(recipient string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.bodies[recipient])
}

// inbox is what a recipient has.
func (w *receivers) inbox(recipient string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.accepted[recipient])
}

func (w *receivers) total() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, bodies := range w.bodies {
		n += len(bodies)
	}
	return n
}

// connections counts those that are open.
func (w *receivers) connections() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.ledgers {
		n += l.open
	}
	return n
}

// seenMails are all transactions so far.
func (w *receivers) seenMails() []mail {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.mails)
}

// caller is one connection as its receiver sees it.
type caller struct {
	w      *receivers
	p      *process
	l      *ledger
	conn   net.Conn
	in     *bufio.Reader
	host   string
	source string
	mails  int
	at     int    // place of this transaction among all
	reset  bool   // it began with RSET
	script string // what this transaction's recipient gets
	to     string
}

func (c *caller) serve() {
	defer c.conn.Close()
	c.w.mu.Lock()
	greeting := of(c.w.greeting, c.host)
	c.w.mu.Unlock()
	if greeting == "" {
		greeting = "220 mx ESMTP"
	}
	if !c.say(greeting) {
		return
	}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil || !c.hear(strings.TrimSpace(line)) {
			return
		}
	}
}

// say writes a reply after its latency. It reports whether the line goes on.
func (c *caller) say(reply string) bool {
	c.w.mu.Lock()
	latency := c.w.latency
	c.w.mu.Unlock()
	if latency != nil {
		time.Sleep(latency())
	}
	if c.gone() {
		return false
	}
	_, err := fmt.Fprintf(c.conn, "%s\r\n", reply)
	return err == nil && !strings.HasPrefix(reply, "421") && !strings.HasPrefix(reply, "221")
}

// gone reports that the process behind the line was killed; a line without its
// process is silent until it breaks.
func (c *caller) gone() bool {
	if !c.p.killed() {
		return false
	}
	<-c.p.reaped
	return true
}

// hear answers one command. It reports whether the line goes on.
func (c *caller) hear(line string) bool {
	if c.gone() {
		return false
	}
	verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
	c.w.mu.Lock()
	last := of(c.w.hangUp, c.host) == verb
	most := of(c.w.session, c.host)
	c.w.mu.Unlock()
	reply := "250 2.0.0 ok"
	switch verb {
	case "EHLO":
		reply = "250-mx\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES"
		if strings.Contains(c.manner(), "chunking") {
			reply = "250-CHUNKING\r\n250-mx\r\n250-CHUNKING\r\n250 PIPELINING"
		}
	case "RSET":
		c.began()
		c.reset = true
	case "MAIL":
		if !c.reset {
			c.began()
		}
		c.reset = false
		c.count()
		if last {
			return false
		}
		if most > 0 && c.mails > most {
			return c.say("421 4.5.3 too many messages in this session")
		}
	case "RCPT":
		reply = c.recipient(line)
	case "DATA":
		if c.script == "" || c.script[0] == 'd' {
			return c.say("354 go") && c.content()
		}
		reply = "503 5.5.1 no recipient"
	case "BDAT":
		return c.chunk(line)
	case "QUIT":
		reply = "221 2.0.0 bye"
	}
	return c.say(reply) && !last
}

func (c *caller) manner() string {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return of(c.w.manner, c.host)
}

// chunk takes a message in one piece and answers. It reports whether the line goes on.
func (c *caller) chunk(line string) bool {
	var octets int
	if _, err := fmt.Sscanf(line, "BDAT %d LAST", &octets); err != nil {
		return c.say("501 5.5.4 " + err.Error())
	}
	body := make([]byte, octets)
	if _, err := io.ReadFull(c.in, body); err != nil {
		return false
	}
	switch {
	case c.script != "" && c.script[0] != 'd':
		return c.say("503 5.5.1 no recipient")
	case c.manner() == "chunking, not really":
		return c.say("500 5.5.1 command unrecognized")
	}
	return c.taken(string(body))
}

// count counts a MAIL.
func (c *caller) count() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.mails++
	c.l.mails = append(c.l.mails, time.Now())
	c.l.longest = max(c.l.longest, c.mails)
}

// began notes a transaction.
func (c *caller) began() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.at = len(c.w.mails)
	c.w.mails = append(c.w.mails, mail{at: time.Now(), source: c.source})
}

func (c *caller) recipient(line string) string {
	c.to = line[strings.IndexByte(line, '<')+1 : strings.IndexByte(line, '>')]
	c.script = c.w.attempt(c.to)
	c.w.mu.Lock()
	c.w.mails[c.at].to = c.to
	c.w.mu.Unlock()
	if c.script != "" && c.script[0] >= '4' && c.script[0] <= '5' {
		return c.script
	}
	return "250 2.1.5 ok"
}

// content takes a message and answers its final dot. It reports whether the line goes on.
func (c *caller) content() bool {
	var body strings.Builder
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		body.WriteString(line)
	}
	if c.manner() == "deaf behind content" && c.in.Buffered() > 0 {
		_ = c.take(body.String()) && c.say("250 2.0.0 queued")
		return false
	}
	return c.taken(body.String())
}

// taken takes a message and answers it. It reports whether the line goes on.
func (c *caller) taken(body string) bool {
	if !c.take(body) {
		return false
	}
	if c.script == "drop" {
		return false
	}
	reply := strings.TrimPrefix(c.script, "dot ")
	if reply == "" {
		reply = "250 2.0.0 queued"
	}
	return c.say(reply)
}

// take keeps a message, unless its process is dead, and waits as long as its recipient wants.
func (c *caller) take(body string) bool {
	c.w.mu.Lock()
	if c.p.killed() {
		c.w.mu.Unlock()
		return !c.gone()
	}
	c.w.bodies[c.to] = append(c.w.bodies[c.to], body)
	if c.script == "" || c.script == "drop" {
		c.w.accepted[c.to] = append(c.w.accepted[c.to], body)
	}
	gate, delay := c.w.gates[c.to], c.w.delays[c.to]
	c.w.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if delay == 0 {
		return true // a timer that is due at once is what the race detector crashes of (golang/go#78156)
	}
	select {
	case <-time.After(delay):
	case <-c.p.reaped:
	}
	return true
}
