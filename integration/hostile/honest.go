package hostile

import "strings"

// hello is what honest receivers offer; helloChunks is what every other connection of a
// frail one does.
const (
	hello       = "250-mx\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
	helloChunks = "250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 8BITMIME\r\n"
)

// Honest takes everything as RFC 5321 says, with PIPELINING.
func Honest(c *Conn) { c.serve(hello, func(moment) bool { return true }) }

// moment is a point in a transaction at which a receiver may die.
type moment int

const (
	atMail  moment = iota // behind MAIL, without a reply
	atData                // in the middle of the content
	atDot                 // behind the whole content, without a reply
	atReply               // in the middle of the reply to it
)

// serve is the dialogue. lives is asked at each moment; false ends the connection by RST.
func (c *Conn) serve(hello string, lives func(moment) bool) {
	if !c.reply("220 mx ESMTP") {
		return
	}
	for {
		verb, params := c.command()
		said := true
		switch verb {
		case "":
			return
		case "EHLO":
			said = c.say(hello)
		case "MAIL":
			if !lives(atMail) {
				c.reset()
				return
			}
			said = c.reply("250 2.1.0 OK")
		case "DATA":
			said = c.reply("354 go on") && c.receive(lives, c.content)
		case "BDAT":
			said = c.receive(lives, func() ([]byte, error) { return c.chunk(params) })
		case "QUIT":
			c.reply("221 bye")
			return
		default:
			said = c.reply("250 OK")
		}
		if !said {
			return
		}
	}
}

// receive takes one message; false ends the connection.
func (c *Conn) receive(lives func(moment) bool, read func() ([]byte, error)) bool {
	if !lives(atData) {
		_, _ = c.in.ReadSlice('\n') // some of it came
		c.reset()
		return false
	}
	content, err := read()
	if err != nil {
		return false
	}
	id := c.net.Ledger.take(c.domain, content)
	if !lives(atDot) {
		c.reset()
		return false
	}
	final := "250 2.0.0 taken " + strings.Repeat("x", 20)
	if !lives(atReply) {
		c.say(final[:12])
		c.halfClose()
		c.listen()
		return false
	}
	if !c.reply(final) {
		return false
	}
	c.net.Ledger.confirm(id)
	return true
}

// Frail takes mail as [Honest] and dies in one of n transactions, at a moment drawn from
// the seed: behind MAIL, in the middle of the content, behind it without a reply, and in
// the middle of the reply. Every other connection takes content by BDAT, too. While calm
// answers true it does not die.
func Frail(seed uint64, n int, calm func() bool) Manner {
	return func(c *Conn) {
		rng := c.Random(seed)
		dies, ehlo := moment(-1), hello
		if c.Number%2 == 0 {
			ehlo = helloChunks
		}
		c.serve(ehlo, func(m moment) bool {
			if m == atMail {
				dies = -1
				if rng.IntN(n) == 0 && !calm() {
					dies = moment(rng.IntN(4))
				}
			}
			return m != dies
		})
	}
}
