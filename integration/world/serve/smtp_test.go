package serve

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"net/textproto"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/veredus/veredus/integration/world"
)

const message = "From: <news@sender.example>\r\nTo: <a@b.example>\r\nSubject: hello\r\nMessage-ID: <%s@sender.example>\r\n\r\nHello.\r\n..dotted\r\n"

// start serves a world for the length of a test.
func start(t testing.TB, cfg Config) *World {
	t.Helper()
	w, err := Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// alone is a world of one receiver, x, for x.example.
func alone(r world.Receiver) Config {
	r.Name, r.Domains = "x", []world.Domain{{Name: "x.example", Share: 1}}
	r.Hosts = []world.Host{{Name: "mx.x.example"}}
	return Config{World: world.World{Name: "alone", Receivers: []world.Receiver{r}}}
}

// addressOf finds a domain's best mail exchanger the way a sender does.
func addressOf(t testing.TB, w *World, domain string) string {
	t.Helper()
	mx := query(t, w, domain, dns.TypeMX)
	if len(mx.Answer) == 0 {
		t.Fatalf("%s has no MX: %v", domain, mx)
	}
	a := query(t, w, mx.Answer[0].(*dns.MX).Mx, dns.TypeA)
	return net.JoinHostPort(a.Answer[0].(*dns.A).A.String(), strconv.Itoa(w.SMTPPort()))
}

// patience is how long tests wait for what does not come, on the slowest machine.
const patience = 5 * time.Minute

// client is a hand-written SMTP client that says exactly what a test wants.
type client struct {
	t    testing.TB
	conn net.Conn
	*textproto.Reader
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &client{t, conn, textproto.NewReader(bufio.NewReader(conn))}
}

// greet dials, reads the banner and says EHLO.
func greet(t testing.TB, addr string) *client {
	t.Helper()
	c := dial(t, addr)
	c.want(220)
	c.say(250, "EHLO sender.example")
	return c
}

func (c *client) send(lines ...string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, strings.Join(lines, "\r\n")+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
}

// want reads one reply and checks its code.
func (c *client) want(code int) string {
	c.t.Helper()
	_, text, err := c.ReadResponse(code)
	if err != nil {
		c.t.Fatalf("want %d: %v", code, err)
	}
	return text
}

func (c *client) say(code int, line string) string {
	c.t.Helper()
	c.send(line)
	return c.want(code)
}

// wantEnd checks that the server closes without another word.
func (c *client) wantEnd() {
	c.t.Helper()
	if line, err := c.ReadLine(); err == nil {
		c.t.Fatalf("got %q, want the end of the connection", line)
	}
}

// mail sends one message to one recipient up to the reply to the final dot.
func (c *client) mail(code int, to, id string) string {
	c.t.Helper()
	c.say(250, "MAIL FROM:<b@sender.example>")
	c.say(250, "RCPT TO:<"+to+">")
	c.say(354, "DATA")
	return c.say(code, fmt.Sprintf(message, id)+".")
}

func query(t testing.TB, w *World, name string, kind uint16) *dns.Msg {
	t.Helper()
	return queryOver(t, w, "udp", name, kind)
}

func queryOver(t testing.TB, w *World, network, name string, kind uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	answer, _, err := (&dns.Client{Net: network, Timeout: patience}).Exchange(m, w.DNSAddr())
	if err != nil {
		t.Fatalf("query %s: %v", name, err)
	}
	return answer
}

func TestGoClientSendsThroughTLS(t *testing.T) {
	w := start(t, Config{World: world.Default()})
	conn, err := smtp.Dial(addressOf(t, w, "gmail.example"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.CertificatePEM())
	if err := conn.StartTLS(&tls.Config{RootCAs: pool, ServerName: "gmail-smtp-in.l.google.com"}); err != nil {
		t.Fatal(err)
	}
	if ok, _ := conn.Extension("STARTTLS"); ok {
		t.Error("STARTTLS offered inside TLS")
	}
	if err := errors.Join(conn.Mail("b@sender.example"), conn.Rcpt("ok@gmail.example")); err != nil {
		t.Fatal(err)
	}
	body, err := conn.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(body, message, "tls-1"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(body.Close(), conn.Quit()); err != nil {
		t.Fatal(err)
	}
	s := w.Ledger()
	if s.Messages != 1 || s.Unique != 1 || s.DKIMMissing != 1 || s.ProtocolErrors != 0 || w.Accepted("OK@gmail.example") != 1 || !w.Has("<tls-1@sender.example>") {
		t.Errorf("%+v", s)
	}
}

func TestPipelinedTransactions(t *testing.T) {
	w := start(t, alone(world.Receiver{}))
	c := greet(t, addressOf(t, w, "x.example"))
	c.send("MAIL FROM:<b@sender.example> BODY=8BITMIME SIZE=500", "RCPT TO:<one@x.example>", "RCPT TO:<unknown@x.example>", "DATA")
	c.want(250)
	c.want(250)
	if text := c.want(550); !strings.HasPrefix(text, "5.1.1 ") {
		t.Errorf("unknown user: %q", text)
	}
	c.want(354)
	c.send(fmt.Sprintf(message, "p1")+".", "MAIL FROM:<b@sender.example>", "RCPT TO:<unknown@x.example>", "DATA", "RSET", "QUIT")
	for _, code := range []int{250, 250, 550, 554, 250, 221} {
		c.want(code)
	}
	c.wantEnd()
	if s := w.Ledger(); s.Messages != 1 || s.Mails != 2 || s.Refused != 3 || s.ProtocolErrors != 0 {
		t.Errorf("%+v", s.Counts)
	}
}

func TestContentArrivesWithoutStuffing(t *testing.T) {
	for _, tc := range []struct {
		in, want string
		flaws    []string
	}{
		{"a\r\n..b\r\n.\r\n", "a\r\n.b\r\n", nil},
		{".\r\n", "", nil},
		{"..\r\n.\r\n", ".\r\n", nil},
		{"a\n.\n.\r\nb\r\n.\r\n", "a\n.\n.\r\nb\r\n", []string{"content with a bare LF"}},
		{"a\r\n.\nb\r\n.\r\n", "a\r\n\nb\r\n", []string{"content with a bare LF"}},
		{"a\rb\r\n.\r\n", "a\rb\r\n", []string{"content with a bare CR"}},
		{"a\r\r\n.\r\n", "a\r\r\n", []string{"content with a bare CR"}},
		{strings.Repeat("x", 998) + "\r\n.\r\n", strings.Repeat("x", 998) + "\r\n", nil},
		{strings.Repeat("x", 999) + "\r\n.\r\n", strings.Repeat("x", 999) + "\r\n", []string{"content with a line above 998 octets"}},
		{"\xc3\xa9\r\n.\r\n", "\xc3\xa9\r\n", []string{"8-bit content without BODY=8BITMIME"}},
	} {
		for _, size := range []int{16, 17, 18, 4096} { // pieces break at other places
			b := newBody()
			f, err := readContent(bufio.NewReaderSize(strings.NewReader(tc.in), size), b, 1<<20, true)
			if err != nil {
				t.Errorf("%q: %v", tc.in, err)
			}
			if got := string(b.data); got != tc.want || fmt.Sprint(f.list()) != fmt.Sprint(tc.flaws) {
				t.Errorf("%.40q with buffer %d: %.60q, flaws %q; want %.60q, %q", tc.in, size, got, f.list(), tc.want, tc.flaws)
			}
		}
	}
}

func TestDropAfterDataProvokesDuplicates(t *testing.T) {
	w := start(t, alone(world.Receiver{}))
	addr := addressOf(t, w, "x.example")
	c := greet(t, addr)
	c.say(250, "MAIL FROM:<b@sender.example>")
	c.say(250, "RCPT TO:<drop+1@x.example>")
	c.say(354, "DATA")
	c.send(fmt.Sprintf(message, "d1") + ".")
	c.wantEnd()
	greet(t, addr).mail(250, "drop+1@x.example", "d1")
	s := w.Ledger()
	if s.Messages != 2 || s.Unique != 1 || s.AcceptedUnconfirmed != 1 || s.DuplicatesProvoked != 1 || s.Duplicates != 0 {
		t.Errorf("after the repeat that was provoked: %+v", s.Counts)
	}
	greet(t, addr).mail(250, "drop+1@x.example", "d1")
	if s := w.Ledger(); s.Duplicates != 1 || s.DuplicatesProvoked != 1 {
		t.Errorf("after a repeat that was not: %+v", s.Counts)
	}
	var dump strings.Builder
	if err := w.Dump(&dump); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(dump.String()), "\n")
	if len(lines) != 3 || strings.Count(dump.String(), `"confirmed":true`) != 2 || !strings.Contains(lines[0], `"message_id":"<d1@sender.example>","recipient":"drop+1@x.example","provider":"x"`) {
		t.Errorf("dump:\n%s", dump.String())
	}
}

// TestImpatientSenderIsNotConfirmed closes the line while the 250 is on its way. Where the
// machine is so busy that the line closes behind it, the way gets longer.
func TestImpatientSenderIsNotConfirmed(t *testing.T) {
	for way := 400 * time.Millisecond; ; way *= 4 {
		w := start(t, alone(world.Receiver{Latency: world.Latency{EndOfData: world.Duration(way)}}))
		c := greet(t, addressOf(t, w, "x.example"))
		c.send("MAIL FROM:<b@sender.example>", "RCPT TO:<ann@x.example>", "DATA")
		c.want(250)
		c.want(250)
		c.want(354)
		sent := time.Now()
		c.send(fmt.Sprintf(message, "i1") + ".")
		for w.Accepted("ann@x.example") == 0 {
			runtime.Gosched()
		}
		_ = c.conn.Close()
		if inTime := time.Since(sent) < way; inTime {
			if s := w.Ledger(); s.Messages != 1 || s.AcceptedUnconfirmed != 1 {
				t.Errorf("%+v", s.Counts)
			}
			return
		}
	}
}

func TestViolationsOfStatedLimits(t *testing.T) {
	w := start(t, alone(world.Receiver{Stated: world.Limits{Connections: 2, MessagesPerConnection: 2}}))
	addr := addressOf(t, w, "x.example")
	a, b := greet(t, addr), greet(t, addr)
	for i := range 3 {
		a.mail(250, "ann@x.example", "v"+strconv.Itoa(i))
	}
	greet(t, addr)
	s := w.Ledger()
	if s.LimitViolations != 2 || len(s.Violations) != 2 || s.Violations[0].Limit != world.LimitMessagesPerConnection ||
		s.Violations[1].Limit != world.LimitConnections || s.Violations[1].Source != "127.0.0.1" || s.ByProvider[0].LimitViolations != 2 {
		t.Errorf("%+v", s)
	}
	b.say(221, "QUIT")
	if err := w.SetLimits(map[string]world.Limits{"x": {Connections: 100}}); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		greet(t, addr)
	}
	if s := w.Ledger(); s.LimitViolations != 2 {
		t.Errorf("under the new limit: %+v", s.Violations)
	}
	if err := w.SetLimits(map[string]world.Limits{"y": {}}); err == nil {
		t.Error("limits for an unknown receiver were taken")
	}
}

// TestReconnectingIsNoViolation closes and opens as fast as a sender can at its
// cap: by QUIT, by FIN in the middle of everything, and by reset.
func TestReconnectingIsNoViolation(t *testing.T) {
	w := start(t, alone(world.Receiver{Stated: world.Limits{Connections: 2}}))
	addr := addressOf(t, w, "x.example")
	var all sync.WaitGroup
	for worker := range 2 {
		all.Go(func() {
			for i := range 150 {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				switch r := bufio.NewReader(conn); (i + worker) % 4 {
				case 0:
					_, _ = r.ReadString('\n')
					_, _ = io.WriteString(conn, "QUIT\r\n")
					_, _ = r.ReadString('\n')
				case 1:
					_, _ = r.ReadString('\n')
				case 2:
					_ = conn.(*net.TCPConn).SetLinger(0)
				}
				_ = conn.Close()
			}
		})
	}
	all.Wait()
	if s := w.Ledger(); s.LimitViolations != 0 {
		t.Errorf("%d violations, the first %+v", s.LimitViolations, s.Violations[0])
	}
}

func TestHiddenLimitsAreAnsweredAndNotCounted(t *testing.T) {
	w := start(t, alone(world.Receiver{Dialect: "yahoo", Hidden: world.Hidden{Connections: 1, MessagesPerConnection: 1}}))
	addr := addressOf(t, w, "x.example")
	c := greet(t, addr)
	d := dial(t, addr)
	if text := d.want(421); !strings.Contains(text, "[TS01]") {
		t.Errorf("second connection: %q", text)
	}
	d.wantEnd()
	c.mail(250, "ann@x.example", "h1")
	c.say(421, "MAIL FROM:<b@sender.example>")
	c.wantEnd()
	s := w.Ledger()
	if s.LimitViolations != 0 || s.Deferred != 2 || s.ByProvider[0].Causes[world.CausePacing] != 2 {
		t.Errorf("%+v", s)
	}
}

// TestLastReplyArrives sends on while the server says why it closes.
func TestLastReplyArrives(t *testing.T) {
	w := start(t, alone(world.Receiver{Hidden: world.Hidden{MessagesPerConnection: 1}}))
	addr := addressOf(t, w, "x.example")
	for range 20 {
		c := greet(t, addr)
		c.mail(250, "ann@x.example", "l1")
		c.send("MAIL FROM:<b@sender.example>", strings.Repeat(strings.Repeat("RCPT TO:<ann@x.example>\r\n", 100), 20), "DATA")
		c.want(421)
		c.wantEnd()
		_ = c.conn.Close()
	}
}

func TestProtocolQuirks(t *testing.T) {
	quirk := func(kinds ...world.QuirkKind) *client {
		var r world.Receiver
		for _, k := range kinds {
			r.Quirks = append(r.Quirks, world.Quirk{Kind: k})
		}
		return dial(t, addressOf(t, start(t, alone(r)), "x.example"))
	}
	t.Run("line feeds", func(t *testing.T) {
		c := quirk(world.QuirkLFLineEnds, world.QuirkBareCode)
		line, err := c.R.ReadString('\n')
		if err != nil || line != "220\n" {
			t.Errorf("%q, %v", line, err)
		}
	})
	t.Run("no enhanced codes", func(t *testing.T) {
		c := quirk(world.QuirkNoEnhanced, world.QuirkLowerCase)
		c.want(220)
		if text := c.say(250, "EHLO s.example"); !strings.Contains(text, "\npipelining\n") {
			t.Errorf("keywords: %q", text)
		}
		c.say(250, "MAIL FROM:<b@sender.example>")
		if text := c.say(550, "RCPT TO:<unknown@x.example>"); strings.Contains(text, "5.1.1") {
			t.Errorf("%q", text)
		}
	})
	t.Run("mixed codes", func(t *testing.T) {
		c := quirk(world.QuirkMixedMultiline)
		c.want(220)
		c.send("EHLO s.example")
		first, _ := c.ReadLine()
		second, _ := c.ReadLine()
		if !strings.HasPrefix(first, "250-") || !strings.HasPrefix(second, "220-") {
			t.Errorf("%q, %q", first, second)
		}
	})
	t.Run("hello", func(t *testing.T) {
		c := quirk(world.QuirkNoEHLO)
		c.want(220)
		c.say(502, "EHLO s.example")
		c.say(250, "HELO s.example")
		d := quirk(world.QuirkDropAtHello)
		d.want(220)
		d.send("EHLO s.example")
		d.wantEnd()
	})
	t.Run("data without recipients", func(t *testing.T) {
		c := quirk(world.QuirkDataWithoutRcpt)
		c.want(220)
		c.say(250, "EHLO s.example")
		c.say(250, "MAIL FROM:<b@sender.example>")
		c.say(550, "RCPT TO:<unknown@x.example>")
		c.say(354, "DATA")
		c.say(250, ".")
	})
}

func TestEarlyReplyIsUnconfirmed(t *testing.T) {
	w := start(t, alone(world.Receiver{Quirks: []world.Quirk{{Kind: world.QuirkEarlyReply}}}))
	c := greet(t, addressOf(t, w, "x.example"))
	c.say(250, "MAIL FROM:<b@sender.example>")
	c.say(250, "RCPT TO:<ann@x.example>")
	c.say(354, "DATA")
	c.want(250)
	c.send(fmt.Sprintf(message, "e1")+".", "NOOP")
	c.want(250) // to NOOP: nothing more is said about the content
	if s := w.Ledger(); s.Messages != 1 || s.AcceptedUnconfirmed != 1 {
		t.Errorf("%+v", s.Counts)
	}
}

func TestTLSFaults(t *testing.T) {
	w := start(t, alone(world.Receiver{TLS: world.TLSBroken}))
	c := greet(t, addressOf(t, w, "x.example"))
	c.say(220, "STARTTLS")
	c.wantEnd()

	w = start(t, alone(world.Receiver{TLS: world.TLSRequired}))
	c = greet(t, addressOf(t, w, "x.example"))
	c.say(530, "MAIL FROM:<b@sender.example>")
	c.send("STARTTLS", "NOOP") // injected before the handshake
	c.want(220)
	c.wantEnd()
	if s := w.Ledger(); s.ProtocolErrors != 1 {
		t.Errorf("%+v", s.ProtocolErrorDetails)
	}

	w = start(t, alone(world.Receiver{TLS: world.TLSOff}))
	c = dial(t, addressOf(t, w, "x.example"))
	c.want(220)
	if text := c.say(250, "EHLO s.example"); strings.Contains(text, "STARTTLS") {
		t.Errorf("STARTTLS offered: %q", text)
	}
	c.say(502, "STARTTLS")
}

func TestOutageResetsConnections(t *testing.T) {
	w := start(t, alone(world.Receiver{Outages: []world.Outage{{For: world.Duration(time.Hour)}}}))
	if conn, err := net.Dial("tcp", addressOf(t, w, "x.example")); err == nil { // the reset may win
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("read %d octets from a receiver that is down", n)
		}
		_ = conn.Close()
	}
	if s := w.Ledger(); s.Dropped != 1 || s.ByProvider[0].Causes[world.CauseOutage] != 1 {
		t.Errorf("%+v", s)
	}
}

func TestHostileClientsAreBounded(t *testing.T) {
	cfg := alone(world.Receiver{})
	cfg.MaxMessageBytes = 2000
	w := start(t, cfg)
	addr := addressOf(t, w, "x.example")

	c := greet(t, addr)
	c.say(500, strings.Repeat("x", 100_000))
	c.say(552, "MAIL FROM:<b@sender.example> SIZE=2001")
	c.say(250, "MAIL FROM:<b@sender.example>")
	c.say(503, "MAIL FROM:<b@sender.example>")
	c.say(250, "RCPT TO:<ann@x.example>")
	c.say(354, "DATA")
	c.say(552, strings.Repeat(strings.Repeat("y", 70)+"\r\n", 100)+".")
	c.say(503, "DATA")
	c.say(250, "MAIL FROM:<>")
	for range maxRecipients {
		c.say(250, "RCPT TO:<ann@x.example>")
	}
	c.say(452, "RCPT TO:<ann@x.example>")

	c = greet(t, addr)
	for i := 0; ; i++ {
		c.send("BOGUS")
		if line, err := c.ReadLine(); err != nil || i > 100 {
			t.Fatalf("after %d bad commands: %v", i, err)
		} else if strings.HasPrefix(line, "421") {
			break
		}
	}
	c.wantEnd()

	if s := w.Ledger(); s.Messages != 0 {
		t.Errorf("%+v", s.Counts)
	}
}

func TestConnectionsAreCapped(t *testing.T) {
	cfg := alone(world.Receiver{})
	cfg.MaxConnections = 2
	addr := addressOf(t, start(t, cfg), "x.example")
	dial(t, addr).want(220)
	dial(t, addr).want(220)
	if conn, err := net.Dial("tcp", addr); err == nil {
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("read %d octets on a connection above the cap", n)
		}
		_ = conn.Close()
	}
}

func TestIdleConnectionsEnd(t *testing.T) {
	cfg := alone(world.Receiver{})
	cfg.IdleTimeout = time.Second // for the greeting, too
	c := dial(t, addressOf(t, start(t, cfg), "x.example"))
	c.want(220)
	c.wantEnd()
}

func TestCloseCutsConnections(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	w, err := Start(ctx, alone(world.Receiver{Latency: world.Latency{Command: world.Duration(time.Hour)}}))
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, addressOf(t, w, "x.example"))
	c.want(220)
	c.send("EHLO s.example")
	cancel()
	c.wantEnd()
	w.Close()
}

func TestStartRefusesBadConfig(t *testing.T) {
	busy := start(t, alone(world.Receiver{}))
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"empty world":  {func(c *Config) { c.World = world.World{} }, "receivers: the list is empty"},
		"port":         {func(c *Config) { c.SMTPPort = 70000 }, "smtp_port: 70000"},
		"port in use":  {func(c *Config) { c.SMTPPort = busy.SMTPPort() }, "mail exchanger mx.x.example"},
		"dns in use":   {func(c *Config) { c.DNSListen = busy.DNSAddr() }, "dns listen"},
		"control open": {func(c *Config) { c.ControlListen = "0.0.0.0:0" }, "not a loopback address"},
		"limits":       {func(c *Config) { c.Limits = map[string]world.Limits{"z": {}} }, `no receiver "z"`},
	} {
		cfg := alone(world.Receiver{})
		tc.change(&cfg)
		w, err := Start(context.Background(), cfg)
		if err == nil {
			w.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tc.want)
		}
	}
}

func FuzzCommandParser(f *testing.F) {
	for _, seed := range []string{
		"MAIL FROM:<a@b.example> SIZE=10 BODY=8BITMIME SMTPUTF8", "mail from:<>", `RCPT TO:<"a b\">"@x.example>`,
		"EHLO x", "DATA", "RCPT TO:<@a,@b:c@d>", "MAIL FROM: <a@b>", "QUIT ", "\x00\xff", "RCPT TO:<a@b> NOTIFY=NEVER",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		cmd, err := parseCommand(line)
		if err != nil {
			return
		}
		for _, keyword := range []string{"FROM:", "TO:"} {
			e, err := parseEnvelope(cmd.arg, keyword)
			if err != nil {
				var p *pathError
				if !errors.As(err, &p) || strings.ContainsAny(p.text, "\r\n") {
					t.Fatalf("%q: error %v", line, err)
				}
				continue
			}
			if len(e.address) > maxPath || strings.ContainsAny(e.address, "\r\n\x00") || e.size < 0 {
				t.Fatalf("%q: %+v", line, e)
			}
		}
	})
}

// FuzzContent reads hostile content in pieces of any size.
func FuzzContent(f *testing.F) {
	f.Add("From: a\r\nMessage-ID: <x@y>\r\n\r\n..\r\n.\r\n", uint8(16))
	f.Add("\n.\n\r.\r\r\n.\r\n", uint8(17))
	f.Fuzz(func(t *testing.T, in string, size uint8) {
		b := newBody()
		defer b.free()
		if _, err := readContent(bufio.NewReaderSize(strings.NewReader(in), 16+int(size)), b, 1000, true); err == nil && len(b.data) > 1000 {
			t.Fatalf("kept %d octets of at most 1000", len(b.data))
		}
		if v := world.HeaderField(b.data, "message-id", maxField); len(v) > maxField || strings.ContainsAny(v, "\n") {
			t.Fatalf("Message-ID %q", v)
		}
		_, _ = fromDomain(b.data)
	})
}

func FuzzVerify(f *testing.F) {
	key := newRSA(f)
	f.Add(signed(f, key, "sender.example", fmt.Sprintf(message, "f1")))
	f.Add("DKIM-Signature: v=1; a=rsa-sha256; d=x; s=s1; h=from; bh=; b=\r\nFrom: a@x\r\n\r\n")
	z := newZone(&world.World{}, nil)
	if err := z.addTXT("s1._domainkey.sender.example", rsaRecord(f, key)); err != nil {
		f.Fatal(err)
	}
	v := &verifier{zone: z}
	f.Fuzz(func(t *testing.T, content string) {
		if verdict, reason := v.verify([]byte(content)); verdict == dkimFail && reason == "" {
			t.Error("a failure without a reason")
		}
	})
}
