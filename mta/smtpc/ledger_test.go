package smtpc

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/veredus/veredus/integration/memnet"
)

// act is how a server answers one step.
type act string

var acts = []act{"2", "2", "2", "4", "5", "421", "close", "reset", "hang", "garbage", "cut"}

// plan is how a server treats one transaction.
type plan struct {
	mail, rcpt, data, final, rset act
	// open makes DATA be answered 354 even without a recipient.
	open bool
}

func drawPlan(t *rapid.T) plan {
	draw := func(name string) act { return rapid.SampledFrom(acts).Draw(t, name) }
	return plan{draw("mail"), draw("rcpt"), draw("data"), draw("final"), draw("rset"), rapid.Bool().Draw(t, "open")}
}

// ledger is the receivers' own account of a run.
type ledger struct {
	t     testing.TB
	plans []plan

	mu        sync.Mutex
	next      int
	taken     map[string]bool // contents received whole for an accepted recipient
	confirmed map[string]bool // of these, 2xx said
	refused   map[string]bool // of these, 4xx or 5xx said
	violation string
}

// ledgerConn keeps RFC 5321's state for one connection.
type ledgerConn struct {
	*ledger
	conn       *memnet.Conn
	r          *bufio.Reader
	plan       plan
	mail, rcpt bool
}

// TestLedger drives random transactions against random servers and compares what the
// session reports with what the servers know.
func TestLedger(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		plans := rapid.SliceOfN(rapid.Custom(drawPlan), 1, 12).Draw(rt, "plans")
		pipelining := rapid.Bool().Draw(rt, "pipelining")
		var failure string
		synctest.Test(t, func(t *testing.T) { failure = runLedger(t, plans, pipelining) })
		if failure != "" {
			rt.Fatal(failure)
		}
	})
}

func runLedger(t *testing.T, plans []plan, pipelining bool) string {
	l := &ledger{t: t, plans: plans, taken: map[string]bool{}, confirmed: map[string]bool{}, refused: map[string]bool{}}
	dial := func(context.Context) (net.Conn, error) {
		client, end := memnet.Pipe(testWindow)
		go l.serve(end, pipelining)
		return client, nil
	}
	var s *Session
	for n := 0; l.left() && n < 4*len(plans); n++ {
		if s == nil {
			var err error
			if s, err = Open(t.Context(), dial, testConfig()); err != nil {
				return err.Error()
			}
		}
		body := fmt.Sprintf("Subject: %d\r\n\r\n.x\r\n", n)
		got := s.Send(t.Context(), testEnvelope(), []byte(body))
		checkResult(t, got)
		synctest.Wait()
		if complaint := l.compare(body, got); complaint != "" {
			s.Abort()
			return fmt.Sprintf("message %d: %s: %s", n, complaint, describe(got))
		}
		if !got.Usable {
			s = nil
		}
	}
	if s != nil {
		s.Abort()
	}
	synctest.Wait()
	return l.violation
}

func (l *ledger) left() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next < len(l.plans)
}

func (l *ledger) compare(body string, got Result) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken, confirmed, refused := l.taken[body], l.confirmed[body], l.refused[body]
	switch {
	case l.violation != "":
		return l.violation
	case got.Delivered != confirmed:
		return fmt.Sprintf("delivered %t, the receiver confirmed %t", got.Delivered, confirmed)
	case got.Uncertain != (taken && !confirmed && !refused):
		return fmt.Sprintf("uncertain %t, the receiver took it %t, confirmed %t, refused %t", got.Uncertain, taken, confirmed, refused)
	case refused && got.Reply.Phase != PhaseEndOfData:
		return "the receiver refused the content"
	}
	return ""
}

func (l *ledger) serve(conn *memnet.Conn, pipelining bool) {
	defer conn.Close()
	c := &ledgerConn{ledger: l, conn: conn, r: bufio.NewReader(conn)}
	c.say("220 mx")
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if verb == "EHLO" && pipelining {
			c.say("250-mx\r\n250 PIPELINING")
		} else if !c.command(verb) {
			return
		}
	}
}

func (c *ledgerConn) say(text string) {
	_, _ = c.conn.Write([]byte(text + "\r\n")) // a client that left shows in the next read
}

// command obeys one command; false ends the connection.
func (c *ledgerConn) command(verb string) bool {
	switch verb {
	case "EHLO":
		c.say("250 mx")
	case "RSET":
		c.mail, c.rcpt = false, false
		return c.answer(c.plan.rset, "250 flushed")
	case "MAIL":
		if c.mail {
			c.violate("MAIL inside a transaction")
		}
		c.mu.Lock()
		c.plan = c.plans[min(c.next, len(c.plans)-1)]
		c.next++
		c.mu.Unlock()
		c.mail = c.plan.mail == "2"
		return c.answer(c.plan.mail, "250 sender ok")
	case "RCPT":
		if !c.mail && !c.plan.open {
			c.say("503 no MAIL")
			return true
		}
		c.rcpt = c.plan.rcpt == "2"
		return c.answer(c.plan.rcpt, "250 rcpt ok")
	case "DATA":
		return c.data()
	case "QUIT":
		c.say("221 bye")
		return false
	default:
		c.violate("unknown command " + verb)
	}
	return true
}

func (c *ledgerConn) data() bool {
	if !c.mail && !c.rcpt && !c.plan.open || !c.rcpt && !c.plan.open {
		c.say("503 no recipient")
		return true
	}
	if c.plan.data != "2" {
		return c.answer(c.plan.data, "")
	}
	c.say("354 go")
	var content strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		content.WriteString(strings.TrimPrefix(line, "."))
	}
	valid, body := c.mail && c.rcpt, content.String()
	c.mail, c.rcpt = false, false
	if body == "" {
		return c.answer(c.plan.final, "250 queued nothing")
	}
	if !valid {
		c.violate("content without sender and recipient")
	}
	c.mu.Lock()
	c.taken[body] = true
	c.confirmed[body] = c.plan.final == "2"
	c.refused[body] = c.plan.final == "4" || c.plan.final == "5" || c.plan.final == "421"
	c.mu.Unlock()
	return c.answer(c.plan.final, "250 queued")
}

func (c *ledgerConn) violate(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.violation = what
}

func (c *ledgerConn) answer(a act, yes string) bool {
	switch a {
	case "2":
		c.say(yes)
	case "4":
		c.say("451-4.3.0 try\r\n451 4.3.0 later")
	case "5":
		c.say("550 5.7.1 no")
	case "421":
		c.say("421 4.3.2 closing")
		return false
	case "garbage":
		c.say("2x0 ok")
	case "cut":
		_, _ = c.conn.Write([]byte("250 o"))
		return false
	case "reset":
		_ = c.conn.SetLinger(0)
		return false
	case "hang":
		_, err := c.r.ReadString('\x00') // never comes: waits for the client to leave
		return err == nil
	default:
		return false
	}
	return true
}
