package virtual

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/integration/memnet"
	"github.com/veredus/veredus/integration/simulation"
	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/mta/simulate"
)

// The simulator is honest: what it says of a scenario is what the real relay comes to
// with real store and SMTP sessions, to within a tenth.
func TestSimulatorIsHonest(t *testing.T) {
	files, err := filepath.Glob("../simulation/honesty/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	if raced {
		files = files[:1]
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			s, err := simulation.Read(file)
			if err != nil {
				t.Fatal(err)
			}
			said, err := s.Run()
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) { compare(t, said, happened(t, s)) })
		})
	}
}

// outcome is what a scenario came to in real sessions.
type outcome struct {
	drained            time.Duration
	delivered, bounced int64
	pacing, grey       int64
	mails, connections int64
}

func compare(t *testing.T, said *simulation.Report, real outcome) {
	t.Helper()
	if !said.Drained {
		t.Fatalf("the simulator says that the mail does not drain: %+v", said.Figures)
	}
	for _, c := range []struct {
		what       string
		said, real float64
		slack      float64
	}{
		{"drain seconds", said.Seconds, real.drained.Seconds(), 2},
		{"delivered", float64(said.Delivered), float64(real.delivered), 0},
		{"bounced", float64(said.Bounced + said.Expired), float64(real.bounced), 0},
		{"pacing deferrals", float64(said.PacingDeferrals), float64(real.pacing), 3},
		{"greylisted", float64(said.Greylisted), float64(real.grey), 3},
		{"transactions", float64(said.Attempts), float64(real.mails), 3},
		{"connections", float64(said.Connections), float64(real.connections), 3},
	} {
		t.Logf("%-16s simulated %8.0f, real %8.0f", c.what, c.said, c.real)
		if diff := c.said - c.real; max(diff, -diff) > 0.1*c.real+c.slack {
			t.Errorf("%s: the simulator says %g, real sessions come to %g", c.what, c.said, c.real)
		}
	}
}

// happened sends a scenario's mail, all of it handed over at once, with the real relay.
func happened(t *testing.T, s *simulation.Scenario) outcome {
	cfg, err := s.Config()
	if err != nil {
		t.Fatal(err)
	}
	w := newModelled(t, s, cfg.Destinations)
	disk := func() time.Duration { return cfg.Timing.Commit / 2 } // before and after
	r := newRig(t, func(r *rig) {
		r.disk = disk
		r.configure(func(c *mta.Config) {
			c.Settings.Rules, c.Settings.Pools, c.Resolver, c.Dial = cfg.Rules, cfg.Pools, w, w.dial
			c.Settings.HelloNames = map[string]string{"s1": "mta1.sender.example", "s2": "mta2.sender.example"}
		})
	})
	defer pass(time.Minute) // behind the close: what receivers still say to nobody
	defer r.close()
	var recipients []string
	for _, d := range cfg.Destinations[0].Domains {
		for i := range cfg.HandOvers[0].Counts[0] / int64(len(cfg.Destinations[0].Domains)) {
			recipients = append(recipients, fmt.Sprintf("u0-%d@%s", i, d.Name))
		}
	}
	r.start("d1", mta.MaxValidity, recipients...)
	begin := time.Now()
	d := r.await("d1", s.Duration.Std()+time.Hour)
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.seen
	out.drained = time.Since(begin)
	out.delivered = d.Counters.Sent
	out.bounced = d.Counters.Failed
	return out
}

// modelled is the receivers of a scenario behind SMTP over connections in memory.
type modelled struct {
	mu     sync.Mutex
	models map[string]*world.Model // by host
	routes map[string]*route.Route
	seen   outcome
}

func newModelled(t *testing.T, s *simulation.Scenario, destinations []simulate.Destination) *modelled {
	t.Helper()
	w := &modelled{models: map[string]*world.Model{}, routes: map[string]*route.Route{}}
	data := &world.World{Name: s.Name, Seed: s.Seed, Receivers: s.Receivers}
	for _, d := range destinations {
		m, err := world.NewModel(data, d.Name, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for _, dom := range d.Domains {
			r := &route.Route{Domain: dom.Name, Destination: d.Name, Provider: d.Provider, Expires: time.Now().Add(100 * time.Hour)}
			for _, h := range dom.Hosts {
				r.Hosts = append(r.Hosts, route.Host{Name: h.Name, Preference: h.Preference, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.99")}})
				w.models[h.Name] = m
			}
			w.routes[dom.Name] = r
		}
	}
	return w
}

// Route implements mta.Resolver.
func (w *modelled) Route(_ context.Context, domain string) (*route.Route, error) {
	if r := w.routes[domain]; r != nil {
		return r, nil
	}
	return nil, &route.Error{Kind: route.NXDomain, Domain: domain, Expires: time.Now().Add(time.Hour)}
}

func (w *modelled) dial(_ context.Context, to mta.Target) (net.Conn, error) {
	client, server := memnet.Pipe(64 << 10)
	go (&modelledConn{w: w, conn: server, in: bufio.NewReader(server), host: to.Host, source: to.Source.Addr}).serve()
	return client, nil
}

// modelledConn is one connection to a modelled receiver.
type modelledConn struct {
	w       *modelled
	conn    *memnet.Conn
	in      *bufio.Reader
	host    string
	source  netip.Addr
	session *world.Session
	inMail  bool
}

// ask lets the model decide, and counts why it refused.
func (c *modelledConn) ask(decide func(now time.Time) world.Decision) world.Decision {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	d := decide(time.Now())
	switch d.Cause {
	case world.CausePacing:
		c.w.seen.pacing++
	case world.CauseGreylist:
		c.w.seen.grey++
	}
	return d
}

func (c *modelledConn) serve() {
	defer c.conn.Close()
	d := c.ask(func(now time.Time) (d world.Decision) {
		c.w.seen.connections++
		c.session, d = c.w.models[c.host].Connect(now, c.source, c.host)
		return d
	})
	defer c.leave()
	for c.reply(d) {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return
		}
		d = c.command(strings.TrimSpace(line))
	}
}

func (c *modelledConn) leave() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.session.Close()
}

// reply speaks when it is time, and reports whether the line goes on.
func (c *modelledConn) reply(d world.Decision) bool {
	if d.Delay > 0 {
		time.Sleep(d.Delay)
	}
	if d.Drop == world.DropSilent || d.Drop == world.DropReset {
		return false
	}
	if d.Drop == world.DropAfterReply || d.Code == 221 {
		c.leave()
	}
	lines := strings.Split(strings.TrimSpace(d.Enhanced+" "+d.Text), "\n")
	for i, line := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		if _, err := fmt.Fprintf(c.conn, "%d%s%s\r\n", d.Code, sep, line); err != nil {
			return false
		}
	}
	return d.Drop == world.Stay && d.Code != 221
}

func (c *modelledConn) command(line string) world.Decision {
	verb, rest, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		d := c.ask(func(now time.Time) world.Decision { return c.session.Hello(now, true) })
		d.Enhanced = ""
		d.Text += "\nPIPELINING\nENHANCEDSTATUSCODES\n8BITMIME"
		return d
	case "MAIL":
		d := c.ask(func(now time.Time) world.Decision {
			c.w.seen.mails++
			return c.session.Mail(now, bracketed(rest))
		})
		c.inMail = d.Positive()
		return d
	case "RCPT":
		if c.inMail {
			return c.ask(func(now time.Time) world.Decision { return c.session.Rcpt(now, bracketed(rest)) })
		}
	case "DATA":
		if c.inMail {
			return c.data()
		}
	case "RSET":
		c.inMail = false
		return world.Decision{Code: 250, Text: "Ok"}
	case "QUIT":
		return world.Decision{Code: 221, Text: "Bye"}
	}
	return world.Decision{Code: 503, Enhanced: "5.5.1", Text: "Bad sequence of commands"}
}

// data takes the content, if there is anybody to take it for.
func (c *modelledConn) data() world.Decision {
	d := c.ask(func(now time.Time) world.Decision { return c.session.Data(now) })
	if d.Code != 354 || !c.reply(d) {
		return d
	}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return world.Decision{Drop: world.DropSilent}
		}
		if line == ".\r\n" {
			break
		}
	}
	c.inMail = false
	return c.ask(func(now time.Time) world.Decision { return c.session.EndOfData(now) })
}

// bracketed is what stands between the angle brackets.
func bracketed(arg string) string {
	_, rest, _ := strings.Cut(arg, "<")
	in, _, _ := strings.Cut(rest, ">")
	return in
}
