package hostile

import "strings"

// hello is what honest and frail receivers offer.
const hello = "250-mx\r\n250-PIPELINING\r\n250 8BITMIME\r\n"

// Honest takes everything as RFC 5321 says, with PIPELINING.
func Honest(c *Conn) { c.serve(func(moment) bool { return true }) }

// moment is a point in a transaction at which a receiver may die.
type moment int

const (
	atMail  moment = iota // behind MAIL, without a reply
	atData                // in the middle of the content
	atDot                 // behind the whole content, without a reply
	atReply               // in the middle of the reply to it
)

// serve is the dialogue. lives is asked at each moment; false ends the connection by RST.
func (c *Conn) serve(lives func(moment) bool) {
	if !c.reply("220 mx ESMTP") {
		return
	}
	for {
		verb, _ := c.command()
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
			said = c.data(lives)
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

// data takes one message; false ends the connection.
func (c *Conn) data(lives func(moment) bool) bool {
	if !c.reply("354 go on") {
		return false
	}
	if !lives(atData) {
		_, _ = c.in.ReadSlice('\n') // some of it came
		c.reset()
		return false
	}
	content, err := c.content()
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
// the middle of the reply. While calm answers true it does not.
func Frail(seed uint64, n int, calm func() bool) Manner {
	return func(c *Conn) {
		rng := c.Random(seed)
		dies := moment(-1)
		c.serve(func(m moment) bool {
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
