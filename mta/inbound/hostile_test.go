package inbound

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/integration/memnet"
	"github.com/veredus/veredus/mta/bounce"
)

// untouched fails if anything had an effect.
func (p *post) untouched() {
	p.t.Helper()
	if told := p.book.returns(); len(told) > 0 {
		p.t.Errorf("the ledger was told %+v", told)
	}
	if p.folder.Len() > 0 {
		p.t.Errorf("%d mails kept", p.folder.Len())
	}
}

func TestFiftyMegabytesAreRefusedWithoutBeingHeld(t *testing.T) {
	const size, limit = 50 << 20, 1 << 20
	inBubble(t, func(o *ServerOptions) { o.MaxMessageBytes = limit }, func(p *post) {
		s := p.sender()
		s.say(fmt.Sprintf("MAIL FROM:<> SIZE=%d", size), "552 5.3.4")
		s.say("MAIL FROM:<> SIZE=99999999999999999999", "501")
		s.say("MAIL FROM:<>", "250")
		s.say("RCPT TO:<"+p.token+"@"+bounceDomain+">", "250")
		s.say("DATA", "354")
		chunk := []byte(strings.Repeat(strings.Repeat("x", 998)+"\r\n", 64))
		before := allocated()
		for sent := 0; sent < size; sent += len(chunk) {
			if _, err := s.Write(chunk); err != nil {
				t.Fatal(err)
			}
		}
		s.say(".", "552 5.3.4")
		if grew := allocated() - before; grew > 8*limit {
			t.Errorf("50 MB allocated %d bytes, above %d", grew, 8*limit)
		}
		s.say("MAIL FROM:<>", "250")
		s.say("RCPT TO:<"+p.token+"@"+bounceDomain+">", "250")
		s.say(fmt.Sprintf("BDAT %d LAST", limit+1), "552")
		p.saw(refused(ReasonSize), refused(ReasonSize), refused(ReasonSize)) // announced, sent, in a chunk
		p.untouched()
	})
}

// allocated is all memory ever allocated, in bytes.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// What is far beyond the limit is not even read to its end.
func TestAnEndlessMailIsCutOff(t *testing.T) {
	inBubble(t, func(o *ServerOptions) { o.MaxMessageBytes = 1 << 20 }, func(p *post) {
		s := p.sender()
		s.say("MAIL FROM:<>", "250")
		s.say("RCPT TO:<"+p.token+"@"+bounceDomain+">", "250")
		s.say("DATA", "354")
		chunk := strings.Repeat(strings.Repeat("x", 998)+"\r\n", 64)
		sent, err := 0, error(nil)
		for ; err == nil && sent < 200<<20; sent += len(chunk) {
			_, err = io.WriteString(s.Conn, chunk)
		}
		if err == nil {
			t.Errorf("%d octets were read", sent)
		}
		p.untouched()
	})
}

func TestAHundredThousandRecipients(t *testing.T) {
	t.Run("issued ones", func(t *testing.T) {
		keys := testKeys(t, 1)
		inBubble(t, nil, func(p *post) {
			s := p.sender()
			s.say("MAIL FROM:<>", "250")
			taken, tooMany := 0, 0
			for i := range 100000 {
				ref := ours
				ref.Order += uint64(i)
				switch reply := s.say("RCPT TO:<"+keys.Token(ref)+"@"+bounceDomain+">", ""); {
				case strings.HasPrefix(reply, "250"):
					taken++
				case strings.HasPrefix(reply, "452 4.5.3"):
					tooMany++
				default:
					t.Fatalf("recipient %d: %q", i, reply)
				}
			}
			if taken != 100 || tooMany != 99900 {
				t.Errorf("%d taken, %d refused", taken, tooMany)
			}
			s.say("RSET", "250")
			p.untouched()
		})
	})
	t.Run("guessed ones", func(t *testing.T) {
		inBubble(t, nil, func(p *post) {
			s := p.sender()
			s.say("MAIL FROM:<>", "250")
			for i := range maxRefused - 1 {
				s.say(fmt.Sprintf("RCPT TO:<user%d@%s>", i, bounceDomain), "550 5.1.1")
			}
			s.say("RCPT TO:<ann@"+bounceDomain+">", "421 4.7.0")
			s.expect("421")
			s.gone()
			if seen := p.observed(); len(seen) != maxRefused || seen[maxRefused-1].Reason != ReasonRecipients {
				t.Errorf("observed %+v", seen)
			}
		})
	})
	t.Run("guessed ones, sent ahead", func(t *testing.T) {
		inBubble(t, nil, func(p *post) {
			s := p.sender()
			var all strings.Builder
			all.WriteString("MAIL FROM:<>\r\n")
			for i := range 60 {
				fmt.Fprintf(&all, "RCPT TO:<user%d@%s>\r\n", i, bounceDomain)
			}
			all.WriteString("RCPT TO:<" + p.token + "@" + bounceDomain + ">\r\nDATA\r\n")
			s.send(all.String())
			replies, _ := io.ReadAll(s.br)
			if strings.Count(string(replies), "\n550") > maxRefused || strings.Contains(string(replies), "\n354") {
				t.Errorf("replies %s", replies)
			}
			p.untouched()
		})
	})
}

// An octet now and then must not hold a connection for long, whatever it is part of.
func TestSlowClientsEnd(t *testing.T) {
	change := func(o *ServerOptions) {
		o.IdleTimeout, o.TransactionTimeout, o.SessionTimeout = 5*time.Minute, 10*time.Minute, time.Hour
	}
	ends := func(t *testing.T, s *sender, began time.Time, after time.Duration) {
		t.Helper()
		if _, err := io.Copy(io.Discard, s.br); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != after {
			t.Errorf("ended after %s, want %s", took, after)
		}
	}
	drip := func(s *sender, text string) *sync.WaitGroup {
		var wait sync.WaitGroup
		wait.Go(func() {
			for {
				time.Sleep(time.Minute) // the story's own pace, in virtual time
				if _, err := io.WriteString(s.Conn, text); err != nil {
					return
				}
			}
		})
		return &wait
	}
	t.Run("silent from the beginning", func(t *testing.T) {
		inBubble(t, change, func(p *post) {
			began := time.Now()
			ends(t, p.dial("192.0.2.7"), began, 5*time.Minute)
		})
	})
	t.Run("a command, an octet a minute", func(t *testing.T) {
		inBubble(t, change, func(p *post) {
			began := time.Now()
			s := p.sender()
			dripping := drip(s, "X")
			ends(t, s, began, 10*time.Minute)
			dripping.Wait()
		})
	})
	t.Run("an empty command a minute", func(t *testing.T) {
		inBubble(t, change, func(p *post) {
			began := time.Now()
			s := p.sender()
			dripping := drip(s, "NOOP\r\n")
			ends(t, s, began, 10*time.Minute)
			dripping.Wait()
		})
	})
	t.Run("a mail, an octet a minute", func(t *testing.T) {
		inBubble(t, change, func(p *post) {
			began := time.Now()
			s := p.sender()
			s.say("MAIL FROM:<>", "250")
			s.say("RCPT TO:<"+p.token+"@"+bounceDomain+">", "250")
			s.say("DATA", "354")
			dripping := drip(s, "x")
			ends(t, s, began, 10*time.Minute)
			dripping.Wait()
			p.saw(refused(ReasonBroken))
			p.untouched()
		})
	})
	t.Run("a chunk, an octet a minute", func(t *testing.T) {
		inBubble(t, change, func(p *post) {
			began := time.Now()
			s := p.sender()
			s.say("MAIL FROM:<>", "250")
			s.say("RCPT TO:<"+p.token+"@"+bounceDomain+">", "250")
			s.send("BDAT 1000 LAST\r\n")
			dripping := drip(s, "x")
			ends(t, s, began, 10*time.Minute)
			dripping.Wait()
			p.untouched()
		})
	})
	t.Run("a small mail every few minutes, for ever", func(t *testing.T) {
		inBubble(t, change, func(p *post) {
			began := time.Now()
			s := p.sender()
			for range 12 {
				time.Sleep(4 * time.Minute)
				s.mail(p.token+"@"+bounceDomain, annsBounce(noID), "250")
			}
			time.Sleep(4 * time.Minute)
			s.mail(p.token+"@"+bounceDomain, annsBounce(noID), "250")
			time.Sleep(4 * time.Minute)
			s.mail(p.token+"@"+bounceDomain, annsBounce(noID), "250")
			time.Sleep(5*time.Minute - time.Second)
			s.mail(p.token+"@"+bounceDomain, annsBounce(noID), "250")
			ends(t, s, began, time.Hour+time.Minute-time.Second)
		})
	})
	t.Run("a handshake that does not go on", func(t *testing.T) {
		config := serverTLS(t)
		inBubble(t, func(o *ServerOptions) { change(o); o.TLS = config }, func(p *post) {
			began := time.Now()
			s := p.sender()
			s.say("STARTTLS", "220")
			ends(t, s, began, 10*time.Minute)
		})
	})
	t.Run("one that does not read", func(t *testing.T) {
		inBubble(t, change, func(p *post) {
			s := p.sender()
			began := time.Now()
			var err error
			for err == nil {
				_, err = io.WriteString(s.Conn, strings.Repeat("NOOP\r\n", 100))
			}
			if took := time.Since(began); took != writeTimeout {
				t.Errorf("cut off after %s, want %s", took, writeTimeout)
			}
		})
	})
}

// Whatever a client sends ahead of the handshake is not said in TLS: an attacker on the
// way could have put it there (CVE-2011-0411 and its like).
func TestCommandsBeforeTheHandshakeAreForgotten(t *testing.T) {
	config := serverTLS(t)
	inBubble(t, func(o *ServerOptions) { o.TLS = config }, func(p *post) {
		s := p.sender()
		s.send("STARTTLS\r\nEHLO attacker.example\r\nMAIL FROM:<>\r\nRCPT TO:<" + p.token + "@" + bounceDomain + ">\r\n")
		s.expect("220")
		s.secure()
		s.say("DATA", "502")
		s.say("RCPT TO:<"+p.token+"@"+bounceDomain+">", "502")
		s.say("MAIL FROM:<>", "502")
		s.say("EHLO mx.example.net", "250")
		s.mail(p.token+"@"+bounceDomain, annsBounce(noID), "250")
		p.saw(Observation{Kind: "bounce", Effect: "applied"})
	})
	inBubble(t, func(o *ServerOptions) { o.TLS = config }, func(p *post) {
		s := p.sender()
		s.say("MAIL FROM:<>", "250")
		s.say("RCPT TO:<"+p.token+"@"+bounceDomain+">", "250")
		s.say("STARTTLS", "220")
		s.secure()
		s.say("EHLO mx.example.net", "250")
		s.say("DATA", "502")
		p.untouched()
	})
}

// A mail that its sender did not finish must have no effect, also where the end of the
// connection could be taken for the mail's.
func TestHalfAMailHasNoEffect(t *testing.T) {
	whole := crlf(annsBounce(noID))
	for name, send := range map[string]func(*sender){
		"data without its dot":             func(s *sender) { s.say("DATA", "354"); s.send(whole) },
		"data cut at its dot":              func(s *sender) { s.say("DATA", "354"); s.send(whole + "\r\n.\r") },
		"a last chunk shorter than it was": func(s *sender) { s.send(fmt.Sprintf("BDAT %d LAST\r\n", len(whole)+1) + whole) },
		"chunks without a last one": func(s *sender) {
			s.say(fmt.Sprintf("BDAT %d\r\n%s", len(whole)-2, strings.TrimSuffix(whole, "\r\n")), "250")
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(p *post) {
				s := p.sender()
				s.say("MAIL FROM:<>", "250")
				s.say("RCPT TO:<"+p.token+"@"+bounceDomain+">", "250")
				send(s)
				_ = s.Conn.(*memnet.Conn).CloseWrite()
				_, _ = io.Copy(io.Discard, s.br)
				synctest.Wait()
				p.untouched()
				p.saw(refused(ReasonBroken))
			})
		})
	}
}

func TestAMailInChunks(t *testing.T) {
	inBubble(t, nil, func(p *post) {
		s := p.sender()
		text := crlf(annsBounce(noID))
		s.say("MAIL FROM:<>", "250")
		s.say("RCPT TO:<"+p.token+"@"+bounceDomain+">", "250")
		s.send(fmt.Sprintf("BDAT 100\r\n%sBDAT %d\r\n%s", text[:100], len(text)-100, text[100:]))
		s.expect("250")
		s.expect("250")
		s.say("BDAT 0 LAST", "250")
		s.say("MAIL FROM:<>", "250")
		s.say("RCPT TO:<"+p.token+"@"+bounceDomain+">", "250")
		s.say("BDAT 0", "250")
		s.say("RSET", "250")
		s.mail(p.token+"@"+bounceDomain, annsBounce(noID), "250")
		synctest.Wait()
		if told := p.book.returns(); len(told) != 2 {
			t.Errorf("told %d returns, want 2", len(told))
		}
	})
}

// Only CRLF.CRLF ends a mail (RFC 5321 section 4.1.1.4). A server that takes another end
// lets whoever wrote a mail write the commands behind it, in the name of the host that
// passes it on (SMTP smuggling).
func TestOnlyTheRightEndEndsAMail(t *testing.T) {
	for _, end := range []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\n.\r", "\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n.\r\r\n", "\r\r\n.\r\n"} {
		t.Run(fmt.Sprintf("%q", end), func(t *testing.T) {
			inBubble(t, nil, func(p *post) {
				s := p.sender()
				s.say("MAIL FROM:<ann@corp.example.net>", "250")
				s.say("RCPT TO:<abuse@"+bounceDomain+">", "250")
				s.say("DATA", "354")
				s.send("Subject: hello\r\n\r\nhello" + end + "MAIL FROM:<>\r\nRCPT TO:<" + p.token + "@" + bounceDomain + ">\r\nDATA\r\n")
				s.send(crlf(annsBounce(noID)))
				s.say("\r\n.", "250")
				s.say("QUIT", "221")
				s.gone()
				if told := p.book.returns(); len(told) > 0 {
					t.Errorf("a smuggled mail had an effect: %+v", told)
				}
				if seen := p.observed(); len(seen) != 1 {
					t.Errorf("observed %+v, want one mail", seen)
				}
			})
		})
	}
}

func TestHostileContentChangesNothing(t *testing.T) {
	inBubble(t, func(o *ServerOptions) { o.MaxMessageBytes = 1 << 20 }, func(p *post) {
		stranger := testKeys(t, 2).Token(ours)
		mails := hostileMails()
		delete(mails, "fifty megabytes") // has its own story
		mails["a stranger's token"] = bounceOf("x@y.example", stranger+"@"+bounceDomain, "<https://u.example/"+stranger+">")
		mails["another message's token"] = bounceOf("x@y.example", testKeys(t, 1).Token(theirs)+"@"+bounceDomain, "")
		for name, raw := range mails {
			s := p.sender()
			s.say("MAIL FROM:<>", "250")
			s.say("RCPT TO:<postmaster@"+bounceDomain+">", "250")
			s.say("DATA", "354")
			before := len(p.observed())
			go func() { _, _ = io.WriteString(s.Conn, crlf(string(raw))+"\r\n.\r\n") }() // the server may hang up in the middle
			switch reply := s.expect(""); {
			case strings.HasPrefix(reply, "250"), strings.HasPrefix(reply, "552"), strings.HasPrefix(reply, "554 5.6.0"):
			default:
				t.Errorf("%s: %q", name, reply)
			}
			if len(p.observed()) == before {
				t.Errorf("%s was not counted", name)
			}
			_ = s.Close()
		}
		synctest.Wait()
		for _, r := range p.book.returns() {
			if r.Ref == ours {
				t.Errorf("told %+v", r)
			}
		}
	})
}

func TestLongLinesOfMailsAreTakenAndEndlessOnesAreNot(t *testing.T) {
	inBubble(t, nil, func(p *post) {
		s := p.sender()
		s.mail(p.token+"@"+bounceDomain, strings.Replace(annsBounce(noID), "Nobody here.", strings.Repeat("x", 50000), 1), "250")
		s.say("MAIL FROM:<>", "250")
		s.say("RCPT TO:<"+p.token+"@"+bounceDomain+">", "250")
		s.say("DATA", "354")
		go func() { _, _ = io.WriteString(s.Conn, strings.Repeat("x", maxLine+1)) }()
		s.expect("554 5.6.0")
		s.expect("500")
		p.saw(Observation{Kind: "bounce", Effect: "applied"}, refused(ReasonLine))
	})
	inBubble(t, nil, func(p *post) {
		s := p.sender()
		go func() { _, _ = io.WriteString(s.Conn, "MAIL FROM:<"+strings.Repeat("x", maxLine)) }() // the server may hang up first
		s.expect("500")
		s.gone()
		p.untouched()
	})
}

func TestConnectionsAreLimitedInAllAndForEachClient(t *testing.T) {
	change := func(o *ServerOptions) { o.MaxConnections, o.MaxConnectionsPerClient = 5, 2 }
	inBubble(t, change, func(p *post) {
		first := p.dial("192.0.2.1")
		first.expect("220")
		p.dial("192.0.2.1").expect("220")
		third := p.dial("192.0.2.1")
		third.expect("421 4.7.0")
		third.gone()
		p.dial("2001:db8::1").expect("220")
		p.dial("2001:db8::2").expect("220")
		p.dial("2001:db8::ffff").expect("421") // of the same /64
		p.dial("2001:db8:0:1::1").expect("220")
		p.dial("192.0.2.9").expect("421")
		first.say("QUIT", "221")
		first.gone()
		synctest.Wait()
		p.dial("192.0.2.1").expect("220")
		p.saw(refused(ReasonClientConnections), refused(ReasonClientConnections), refused(ReasonConnections))
	})
}

func TestMessagesAreLimitedForEachClient(t *testing.T) {
	inBubble(t, func(o *ServerOptions) { o.MessagesPerMinute = 6 }, func(p *post) {
		s := p.sender()
		for range 6 {
			s.say("MAIL FROM:<>", "250")
			s.say("RSET", "250")
		}
		s.say("MAIL FROM:<>", "450 4.7.1")
		other := p.dial("192.0.2.8")
		other.expect("220")
		other.say("EHLO mx", "250")
		other.say("MAIL FROM:<>", "250")
		time.Sleep(10 * time.Second)
		s.say("MAIL FROM:<>", "250")
		s.say("RSET", "250")
		s.say("MAIL FROM:<>", "450 4.7.1")
		time.Sleep(time.Minute)
		for range 6 {
			s.say("MAIL FROM:<>", "250")
			s.say("RSET", "250")
		}
		s.say("MAIL FROM:<>", "450 4.7.1")
	})
}

// Clients that begin large mails and do not end them fill the room for messages: others are
// told to come again, and one client alone cannot fill it.
func TestMemoryOfMessagesUnderWayIsBounded(t *testing.T) {
	const room = 2 << 20
	change := func(o *ServerOptions) {
		o.MaxMessageBytes, o.MaxBytesInFlight, o.MaxConnectionsPerClient = 256<<10, room, 100
	}
	inBubble(t, change, func(p *post) {
		most := int64(0)
		begin := func(ip string, lines int) *sender {
			s := p.dial(ip)
			s.expect("220")
			s.say("EHLO mx", "250")
			s.say("MAIL FROM:<>", "250")
			s.say("RCPT TO:<"+p.token+"@"+bounceDomain+">", "250")
			s.say("DATA", "354")
			for range lines / 50 {
				s.send(strings.Repeat(strings.Repeat("x", 998)+"\r\n", 50))
				most = max(most, p.gate.holding())
			}
			synctest.Wait()
			return s
		}
		var greedy []*sender
		for range 20 {
			greedy = append(greedy, begin("192.0.2.1", 250))
		}
		if held := p.gate.holding(); held > room/2 {
			t.Errorf("one client holds %d octets", held)
		}
		begin("192.0.2.2", 50).say("\r\n.", "250")
		for range 20 {
			greedy = append(greedy, begin("192.0.2.3", 250))
		}
		taken := 0
		for _, s := range greedy {
			if strings.HasPrefix(s.say("\r\n.", ""), "250") {
				taken++
			}
		}
		if most > room || taken < 4 || taken > room>>18 {
			t.Errorf("%d octets held at most, %d of %d mails taken", most, taken, len(greedy))
		}
		begin("192.0.2.1", 250).say("\r\n.", "250")
	})
}

// A mail that announces nothing meets the end of the room in its middle.
func TestAMailThatOutgrowsTheRoomIsDeferred(t *testing.T) {
	change := func(o *ServerOptions) { o.MaxMessageBytes, o.MaxBytesInFlight = 1<<20, 1<<20 }
	inBubble(t, change, func(p *post) {
		s := p.sender()
		s.mail(p.token+"@"+bounceDomain, strings.Repeat("x\n", 300<<10), "452 4.3.1")
		s.mail(p.token+"@"+bounceDomain, annsBounce(noID), "250")
		p.saw(refused(ReasonRoom), Observation{Kind: "bounce", Effect: "applied"})
	})
}

func TestCommandsOutOfOrder(t *testing.T) {
	inBubble(t, nil, func(p *post) {
		s := p.dial("192.0.2.7")
		s.expect("220")
		s.say("MAIL FROM:<>", "502")
		s.say("HELO mx.example.net", "250")
		s.say("RCPT TO:<abuse@"+bounceDomain+">", "502")
		s.say("DATA", "502")
		s.say("MAIL FROM:<>", "250")
		s.say("DATA", "502")
		s.say("MAIL FROM:<>", "503")
		s.say("RCPT TO:<abuse@"+bounceDomain+">", "250")
		s.say("EHLO mx.example.net", "250") // resets (RFC 5321 section 4.1.4)
		s.say("DATA", "502")
		s.say("AUTH PLAIN AGEAYg==", "523")
		s.say("STARTTLS", "502")
		s.say("VRFY ann", "252")
		s.say("EXPN list", "502")
		s.say("RCPT TO:<abuse@"+bounceDomain+"\x00>", "502")
		s.send("BDAT 3 LAST\r\nabc")
		s.expect("502")
		s.say("QUIT", "221")
		s.gone()
		p.untouched()
	})
}

// FuzzDialogue says anything to the server. It must hang up in the end, keep its room, and
// tell the ledger of nothing but the message whose token was said.
func FuzzDialogue(f *testing.F) {
	token := testKeys(f, 1).Token(ours)
	hello := "EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<" + token + "@" + bounceDomain + ">\r\n"
	f.Add([]byte(hello + "DATA\r\n" + crlf(annsBounce(noID)) + "\r\n.\r\nQUIT\r\n"))
	f.Add([]byte(hello + "BDAT 5\r\nabcdeBDAT 0 LAST\r\nRSET\r\n"))
	f.Add([]byte(hello + "BDAT 5\r\nabcSTARTTLS\r\nEHLO y\r\nBDAT 0\r\nHELO z\r\nBDAT 99 LAST\r\n"))
	f.Add([]byte("HELO x\r\nMAIL FROM:<\"a b\"@c> SIZE=1 BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<unsubscribe@" + bounceDomain + ">\r\nDATA\r\nSubject: " + sealedToken + "\r\n\r\n.\r\n"))
	f.Add([]byte("RCPT TO:<\r\nNOOP\r\nRSET\x00\r\nAUTH\r\nVRFY\r\n\r\n.\r\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		p := open(t, nil)
		s := p.dial("192.0.2.7")
		var wait sync.WaitGroup
		wait.Go(func() { _, _ = io.Copy(io.Discard, s.br) })
		_, _ = s.Write(said)
		_ = s.Conn.(*memnet.Conn).CloseWrite()
		wait.Wait()
		p.end()
		for _, r := range p.book.returns() {
			if r.Ref != ours || !bytes.Contains(bytes.ToLower(said), []byte(token)) {
				t.Fatalf("told %+v", r)
			}
		}
	})
}

// FuzzReturns goes from any bytes to the decision: nothing may happen without a token of ours,
// and nothing that is not understood may be passed over.
func FuzzReturns(f *testing.F) {
	keys := testKeys(f, 1)
	token := keys.Token(ours)
	for i, c := range slices.Concat(bounceForms, otherForms) {
		f.Add([]byte(c.header+"\n\n"+c.body), i%2 == 0)
	}
	f.Add(bounceOf("x@y.example", token+"@"+bounceDomain, "<https://u.example/"+token+">"), true)
	f.Add(bounceOf("x@y.example", noID, ""), true)
	c := NewClassifier(bounce.Default(), keys)
	f.Fuzz(func(t *testing.T, raw []byte, toToken bool) {
		env := Envelope{Recipient: "postmaster@" + bounceDomain, Null: true}
		if toToken {
			env.Recipient = token + "@" + bounceDomain
		}
		r := c.Classify(Parse(raw, Limits{Bytes: 64 << 10, Depth: 4, Parts: 20, Fields: 50}), env)
		returns, unprocessed := Returns(r, time.Unix(1, 0))
		switch {
		case len(returns) > 0 && unprocessed != "":
			t.Fatalf("%d returns and %q of %+v", len(returns), unprocessed, r)
		case len(returns) > maxRecipients+1:
			t.Fatalf("%d returns", len(returns))
		case r.Kind == KindOther && unprocessed == "":
			t.Fatal("what was not understood was passed over")
		}
		for _, x := range returns {
			if x.Ref != ours || !x.Confirm && !toToken || len(x.Text) > maxReturnText || x.Kind == 0 || x.Time.IsZero() {
				t.Fatalf("return %+v", x)
			}
		}
	})
}
