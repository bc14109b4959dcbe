package smtpc

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
	t          testing.TB
	plans      []plan
	extensions string

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
		extensions := rapid.SampledFrom([]string{"", "PIPELINING", "CHUNKING", "PIPELINING\r\n250 CHUNKING"}).Draw(rt, "extensions")
		late := rapid.SliceOfN(rapid.Bool(), len(plans), len(plans)).Draw(rt, "late")
		var failure string
		synctest.Test(t, func(t *testing.T) { failure = runLedger(t, plans, extensions, late) })
		if failure != "" {
			rt.Fatal(failure)
		}
	})
}

// writer is a Next that writes letters until a run has enough. Some come late.
type writer struct {
	l     *ledger
	late  []bool
	most  int
	count int
	ready chan struct{}
	gave  *Mail
}

func (w *writer) Ready() <-chan struct{} { return w.ready }

func (w *writer) Take() *Mail {
	if !w.l.left() || w.count == w.most {
		return nil
	}
	if at := w.count % len(w.late); w.late[at] {
		w.late[at] = false
		time.AfterFunc(time.Second, func() {
			select {
			case w.ready <- struct{}{}:
			default:
			}
		})
		return nil
	}
	w.gave = &Mail{Envelope: testEnvelope(), Content: fmt.Appendf(nil, "Subject: %d\r\n\r\n.x\r\n", w.count)}
	w.count++
	return w.gave
}

func runLedger(t *testing.T, plans []plan, extensions string, late []bool) string {
	l := &ledger{
		t: t, plans: plans, extensions: extensions,
		taken: map[string]bool{}, confirmed: map[string]bool{}, refused: map[string]bool{},
	}
	dial := func(context.Context) (net.Conn, error) {
		client, end := memnet.Pipe(testWindow)
		go l.serve(end)
		return client, nil
	}
	w := &writer{l: l, late: slices.Clone(late), most: 4 * len(plans), ready: make(chan struct{}, 1)}
	var s *Session
	for m := (*Mail)(nil); ; {
		if m == nil {
			m = w.Take()
		}
		if m == nil {
			m = w.Take() // that was late
		}
		if m == nil {
			break
		}
		if s == nil {
			var err error
			if s, err = Open(t.Context(), dial, testConfig()); err != nil {
				return err.Error()
			}
		}
		w.gave = nil
		got := s.Carry(t.Context(), m, w)
		checkResult(t, got)
		synctest.Wait()
		if complaint := l.compare(string(m.Content), got); complaint != "" {
			s.Abort()
			return fmt.Sprintf("%s: %s: %s", m.Content, complaint, describe(got))
		}
		if m = w.gave; m == nil && !got.Usable {
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

// chunks reports whether contents go out with their envelopes.
func (l *ledger) chunks() bool { return strings.HasSuffix(l.extensions, "CHUNKING") }

func (l *ledger) compare(body string, got Result) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken, confirmed, refused := l.taken[body], l.confirmed[body], l.refused[body]
	switch {
	case l.violation != "":
		return l.violation
	case got.Delivered != confirmed:
		return fmt.Sprintf("delivered %t, the receiver confirmed %t", got.Delivered, confirmed)
	case got.Uncertain && l.chunks() && !confirmed && !refused:
		return "" // all went out in one flight: who knows what was read of it
	case got.Uncertain != (taken && !confirmed && !refused):
		return fmt.Sprintf("uncertain %t, the receiver took it %t, confirmed %t, refused %t", got.Uncertain, taken, confirmed, refused)
	case refused && got.Reply.Phase != PhaseEndOfData:
		return "the receiver refused the content"
	case got.Lost && taken:
		return "lost, and the receiver has it"
	}
	return ""
}

func (l *ledger) serve(conn *memnet.Conn) {
	defer conn.Close()
	c := &ledgerConn{ledger: l, conn: conn, r: bufio.NewReader(conn)}
	c.say("220 mx")
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return
		}
		verb, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		if verb == "EHLO" && c.extensions != "" {
			c.say("250-mx\r\n" + strings.Replace("250 "+c.extensions, "250 PIPELINING\r", "250-PIPELINING\r", 1))
		} else if verb == "BDAT" {
			if !c.chunk(arg) {
				return
			}
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
	return c.take(content.String())
}

// chunk takes all of a chunk before it answers.
func (c *ledgerConn) chunk(arg string) bool {
	size, _, last := strings.Cut(arg, " ")
	n, err := strconv.Atoi(size)
	content := make([]byte, n)
	if err == nil {
		_, err = io.ReadFull(c.r, content)
	}
	if err != nil || !last {
		return false
	}
	if !c.mail || !c.rcpt {
		c.say("503 no recipient")
		return true
	}
	if c.plan.data == "4" {
		return c.answer(c.plan.data, "")
	}
	return c.take(string(content))
}

func (c *ledgerConn) take(body string) bool {
	valid := c.mail && c.rcpt
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
