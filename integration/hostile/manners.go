package hostile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// drip is the pause of receivers that say one byte a minute.
const drip = time.Minute

// scripts are receivers that attack their client, by name.
var scripts = map[string]Manner{
	"silent":                  func(c *Conn) { c.listen() },
	"reset-at-once":           func(c *Conn) { c.reset() },
	"endless-greeting":        func(c *Conn) { c.forever("220-welcome, there is more\r\n") },
	"endless-line":            func(c *Conn) { c.say("220 "); c.forever(strings.Repeat("a", 32<<10)) },
	"garbage":                 garbage,
	"nul-bytes":               func(c *Conn) { c.forever("\x00\x00\x00\r\n") },
	"no-smtp":                 func(c *Conn) { c.say("HTTP/1.1 400 Bad Request\r\n\r\n"); c.listen() },
	"one-byte-a-minute":       func(c *Conn) { c.dripping("220 welcome\r\n") },
	"greets-and-drips":        greetsAndDrips,
	"half-closed":             func(c *Conn) { c.reply("220 mx"); c.halfClose(); c.listen() },
	"half-closed-in-data":     halfClosedInData,
	"wrong-codes":             wrongCodes,
	"impossible-codes":        func(c *Conn) { c.answers("220 mx", "999 what", "000 no", "100 wait", "2500 long", "25 short") },
	"code-changes-in-reply":   func(c *Conn) { c.answers("220 mx", "250-mx\r\n550-no\r\n250 yes") },
	"replies-before-commands": func(c *Conn) { c.say("220 mx\r\n" + strings.Repeat("250 OK\r\n", 40)); c.listen() },
	"reply-flood":             func(c *Conn) { c.say("220 mx\r\n"); c.forever(strings.Repeat("250 OK\r\n", 1000)) },
	"endless-ehlo":            func(c *Conn) { c.reply("220 mx"); c.command(); c.forever("250-X-MORE\r\n") },
	"lying-ehlo":              lyingEhlo,
	"tiny-size":               func(c *Conn) { c.answers("220 mx", "250-mx\r\n250-PIPELINING\r\n250 SIZE 1") },
	"greets-421":              func(c *Conn) { c.reply("421 4.3.2 not now"); c.listen() },
	"hangs-up-at-mail":        func(c *Conn) { c.answers("220 mx", "250-mx\r\n250 PIPELINING", "") },
	"hangs-up-in-data":        func(c *Conn) { c.transaction(hello, func() { c.reset() }) },
	"reads-no-content":        func(c *Conn) { c.transaction(hello, c.hold) },
	"endless-final-reply": func(c *Conn) {
		c.transaction(hello, func() { _, _ = c.content(); c.forever("250-still thinking\r\n") })
	},
	"no-final-reply":     func(c *Conn) { c.transaction(hello, func() { _, _ = c.content(); c.listen() }) },
	"early-final-reply":  earlyFinalReply,
	"chunking-it-cannot": chunkingItCannot,
	"tls-garbage": func(c *Conn) {
		c.startTLS(func() { c.forever("\x16\x03\x03\x40\x00" + strings.Repeat("\x0b\xff", 8<<10)) })
	},
	"tls-silence":          func(c *Conn) { c.startTLS(c.listen) },
	"tls-empty-records":    func(c *Conn) { c.startTLS(func() { c.forever(strings.Repeat("\x17\x03\x03\x00\x00", 100)) }) },
	"tls-warnings":         func(c *Conn) { c.startTLS(func() { c.forever(strings.Repeat("\x15\x03\x03\x00\x02\x01\x5a", 100)) }) },
	"tls-huge-certificate": hugeCertificate,
	"tls-endless-reply":    endlessInTLS,
	"injects-before-tls":   injectsBeforeTLS,
	"bare-line-ends":       func(c *Conn) { c.say("220 mx\r220 mx\n"); c.command(); c.say("250 mx\r\r\r\n"); c.listen() },
}

// Manners are the names of the scripts, sorted.
func Manners() []string { return slices.Sorted(maps.Keys(scripts)) }

// Script is the manner of a name that [Manners] has.
func Script(name string) Manner { return scripts[name] }

// forever says text again and again until the client goes.
func (c *Conn) forever(text string) {
	for c.say(text) {
	}
}

// holdFor is longer than any client's patience.
const holdFor = 15 * time.Minute

// hold leaves the connection as it is, and reads nothing.
func (c *Conn) hold() {
	select {
	case <-c.net.done:
	case <-time.After(holdFor):
	}
	c.reset()
}

// dripping says text a byte a minute.
func (c *Conn) dripping(text string) {
	gone := make(chan struct{})
	go func() { defer close(gone); c.listen() }()
	for i := range text {
		if !c.say(text[i : i+1]) {
			break
		}
		select {
		case <-gone:
			return
		case <-time.After(drip):
		}
	}
	<-gone
}

func greetsAndDrips(c *Conn) {
	c.reply("220 mx")
	c.command()
	c.dripping("250-mx\r\n250 OK\r\n")
}

// garbage is octets of a fixed seed, so that a finding can be had again.
func garbage(c *Conn) {
	rng := c.Random(1)
	b := make([]byte, 4<<10)
	for {
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if !c.say(string(b)) {
			return
		}
	}
}

// answers says the first line, and one more behind each command, from the second on again
// and again; behind an empty one it hangs up.
func (c *Conn) answers(greeting string, lines ...string) {
	if !c.reply(greeting) {
		return
	}
	for i := 0; ; i++ {
		if verb, _ := c.command(); verb == "" {
			return
		}
		line := lines[i%len(lines)]
		if line == "" || !c.reply(line) {
			return
		}
	}
}

// wrongCodes answers with valid replies to something else.
func wrongCodes(c *Conn) {
	rng := c.Random(2)
	codes := []string{"220 mx", "221 bye", "250 OK", "251 OK", "334 dGVzdA==", "354 go on", "235 2.7.0 welcome", "252 maybe"}
	c.reply("220 mx")
	for {
		code := codes[rng.IntN(len(codes))]
		if verb, _ := c.command(); verb == "" || !c.reply(code) {
			return
		}
		if strings.HasPrefix(code, "354") { // content follows, which none of these takes
			codes = []string{"334 dGVzdA==", "354 go on"}
		}
	}
}

// lyingEhlo offers everything ten thousand times, and nothing of it works.
func lyingEhlo(c *Conn) {
	c.reply("220 mx")
	c.command()
	c.say("250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-SMTPUTF8\r\n250-SIZE 99999999999999999999\r\n" +
		"250-8BITMIME\r\n250-STARTTLS " + strings.Repeat("x", 400) + "\r\n" + strings.Repeat("250-X\r\n", 200) + "250 HELP\r\n")
	for {
		if verb, _ := c.command(); verb == "" || !c.reply("502 5.5.1 never heard of it") {
			return
		}
	}
}

// upTo is polite up to a command, which then answers.
func (c *Conn) upTo(command, ehlo string, then func()) {
	c.reply("220 mx")
	for {
		verb, _ := c.command()
		switch verb {
		case "":
			return
		case "EHLO":
			c.say(ehlo)
		case command:
			then()
			return
		default:
			c.reply("250 OK")
		}
	}
}

// transaction is polite up to 354, then lets go on.
func (c *Conn) transaction(ehlo string, then func()) {
	c.upTo("DATA", ehlo, func() { c.reply("354 go on"); then() })
}

// earlyFinalReply takes the content before any of it can have come: both replies in one
// piece, or a quick client would have sent all of it in between.
func earlyFinalReply(c *Conn) {
	c.upTo("DATA", hello, func() { c.say("354 go on\r\n250 taken\r\n"); c.reset() })
}

func halfClosedInData(c *Conn) {
	c.transaction(hello, func() { c.halfClose(); c.listen() })
}

// chunkingItCannot offers BDAT and takes its content for commands.
func chunkingItCannot(c *Conn) {
	c.reply("220 mx")
	for {
		verb, _ := c.command()
		said := true
		switch verb {
		case "":
			return
		case "EHLO":
			said = c.say("250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
		case "MAIL", "RCPT":
			said = c.reply("250 OK")
		default:
			said = c.reply("500 5.5.2 what")
		}
		if !said {
			return
		}
	}
}

// startTLS is polite up to the handshake.
func (c *Conn) startTLS(then func()) {
	c.upTo("STARTTLS", "250-mx\r\n250 STARTTLS\r\n", func() {
		c.reply("220 go on")
		if _, err := c.in.Peek(1); err == nil { // the client's hello; what comes before it is refused as plaintext
			then()
		}
	})
}

// injectsBeforeTLS says replies in plaintext that would count as said inside TLS.
func injectsBeforeTLS(c *Conn) {
	c.reply("220 mx")
	c.command()
	c.say("250-mx\r\n250 STARTTLS\r\n")
	c.command()
	c.say("220 go on\r\n" + strings.Repeat("250 OK\r\n", 8))
	c.listen()
}

// certificates makes, once, a certificate whose chain is as large as it gets.
var certificates = sync.OnceValues(func() (small, huge tls.Certificate) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		panic(err) // the system has no random numbers
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mx"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(crand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err) // the template is good
	}
	small = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	huge = tls.Certificate{PrivateKey: key}
	for range 2_000 {
		huge.Certificate = append(huge.Certificate, der)
	}
	return small, huge
})

// hugeCertificate shows a chain of some 600 KB, more than a handshake may have.
func hugeCertificate(c *Conn) {
	c.startTLS(func() {
		_, huge := certificates()
		conn := tls.Server(c.peeked(), &tls.Config{Certificates: []tls.Certificate{huge}})
		_ = conn.Handshake() // the client's end is the client's matter
		_, _ = io.Copy(io.Discard, conn)
	})
}

// endlessInTLS has a good handshake and no end to what it says.
func endlessInTLS(c *Conn) {
	c.startTLS(func() {
		small, _ := certificates()
		conn := tls.Server(c.peeked(), &tls.Config{Certificates: []tls.Certificate{small}})
		if conn.Handshake() != nil {
			return
		}
		line := []byte(strings.Repeat("250-more\r\n", 1000))
		for {
			if _, err := conn.Write(line); err != nil {
				return
			}
		}
	})
}

// Fuzzed is a manner drawn from a seed: a server that mostly knows SMTP and at any point
// says something else, twice, nothing, garbage, or goes.
func Fuzzed(seed uint64) Manner {
	return func(c *Conn) {
		rng := c.Random(seed)
		c.say(mutated(rng, "220 mx\r\n"))
		for {
			verb, _ := c.command()
			if verb == "" {
				return
			}
			answer := map[string]string{"EHLO": hello, "DATA": "354 go on\r\n", "QUIT": "221 bye\r\n"}[verb]
			if answer == "" {
				answer = "250 OK\r\n"
			}
			switch rng.IntN(30) {
			case 0:
				c.reset()
				return
			case 1:
				c.halfClose()
				c.listen()
				return
			case 2:
				c.listen()
				return
			}
			if !c.say(mutated(rng, answer)) {
				return
			}
			if verb == "DATA" {
				_, _ = c.content()
				c.say(mutated(rng, "250 taken\r\n"))
			}
		}
	}
}

// mutated is text, in half of all cases changed.
func mutated(rng *rand.Rand, text string) string {
	switch b := []byte(text); rng.IntN(12) {
	case 0:
		return text + text
	case 1:
		return text[:rng.IntN(len(text))]
	case 2:
		b[rng.IntN(len(b))] = byte(rng.Uint32())
		return string(b)
	case 3:
		b[0] = "123459x"[rng.IntN(7)]
		return string(b)
	case 4:
		return strings.Replace(text, " ", "-", 1)
	case 5:
		return strings.Repeat(strings.Replace(text, " ", "-", 1), 1+rng.IntN(5000))
	}
	return text
}
