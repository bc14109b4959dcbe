package serve

import (
	"errors"
	"strings"
	"time"

	"github.com/veredus/veredus/integration/world"
)

// maxRecipients is how many recipients one transaction may have (RFC 5321
// section 4.5.3.1.8 asks for 100 at least).
const maxRecipients = 100

// endMail forgets the transaction under way.
func (c *conn) endMail() {
	c.inMail, c.utf8, c.eight = false, false, false
	c.from, c.rcpts = "", c.rcpts[:0]
}

// mail answers MAIL. Every MAIL of a greeted client counts against the limits,
// whatever the answer.
func (c *conn) mail(cmd command) error {
	if !c.greeted {
		return c.refuse(503, "5.5.1", "Error: send HELO/EHLO first")
	}
	if c.inMail {
		return c.refuse(503, "5.5.1", "Error: nested MAIL command")
	}
	e, err := parseEnvelope(cmd.arg, "FROM:")
	if err != nil {
		return c.refusePath(err)
	}
	c.mails++
	c.w.ledger.mail(c.site)
	d, violations := c.site.mail(c, time.Now(), e.address)
	c.w.ledger.violated(c.site, violations)
	if d.Positive() && e.size > int64(c.w.cfg.MaxMessageBytes) {
		return c.answer(552, "5.3.4", "Message size exceeds fixed limit")
	}
	if d.Positive() {
		c.inMail, c.from, c.utf8, c.eight = true, e.address, e.utf8, e.eight
	}
	return c.reply(d)
}

// rcpt answers RCPT.
func (c *conn) rcpt(cmd command) error {
	if !c.inMail {
		return c.answer(503, "5.5.1", "Error: need MAIL command")
	}
	e, err := parseEnvelope(cmd.arg, "TO:")
	if err == nil && e.address == "" {
		err = errSyntax
	}
	if err != nil {
		return c.refusePath(err)
	}
	if !isASCII(e.address) && !c.utf8 {
		return c.refusePath(&pathError{553, "5.6.7", "Non-ASCII address without SMTPUTF8"})
	}
	if len(c.rcpts) >= maxRecipients {
		return c.answer(452, "4.5.3", "Error: too many recipients")
	}
	d := c.site.ask(func() world.Decision { return c.session.Rcpt(time.Now(), e.address) })
	if d.Positive() {
		c.rcpts = append(c.rcpts, e.address)
	}
	return c.reply(d)
}

func (c *conn) refusePath(err error) error {
	var p *pathError
	if !errors.As(err, &p) {
		return err
	}
	return c.refuse(p.code, p.enhanced, p.text)
}

// data answers DATA, takes the content and answers its final dot.
func (c *conn) data(cmd command) error {
	if cmd.arg != "" {
		return c.refuse(501, "5.5.4", "Syntax: DATA")
	}
	if !c.inMail {
		return c.answer(503, "5.5.1", "Error: need RCPT command")
	}
	d := c.site.ask(func() world.Decision { return c.session.Data(time.Now()) })
	if err := c.reply(d); err != nil || d.Code != 354 {
		return err
	}
	early := c.session.Has(world.QuirkEarlyReply)
	if early {
		if err := c.answer(250, "2.0.0", "Ok"); err != nil {
			return err
		}
	}
	body := newBody()
	flaws, err := readContent(c.br, body, c.w.cfg.MaxMessageBytes, !c.eight && !c.utf8)
	if err != nil {
		body.free()
		return err
	}
	for _, text := range flaws.list() {
		c.w.ledger.protocolError(c.site, text, strings.Join(c.rcpts, " "))
	}
	return c.endOfData(body, flaws, early)
}

// endOfData decides on complete content.
func (c *conn) endOfData(body *body, flaws flaws, early bool) error {
	defer c.endMail()
	if flaws.tooBig {
		body.free()
		return c.answer(552, "5.3.4", "Error: message file too big")
	}
	now := time.Now()
	d := c.site.ask(func() world.Decision { return c.session.EndOfData(now) })
	if !d.Accepted {
		body.free()
		if early {
			return c.reply(world.Decision{Drop: world.DropSilent, Cause: world.CauseFault})
		}
		return c.reply(d)
	}
	c.idle = 0
	r := c.w.ledger.accept(c.site, now, world.HeaderField(body.data, "message-id", maxField), c.rcpts)
	defer c.w.verifier.submit(r, body)
	if early {
		// The 250 came before the content's end and so says nothing about it.
		c.w.ledger.unconfirmed(r)
		return nil
	}
	if len(d.Returns) == 0 {
		_, err := c.confirm(r, d)
		return err
	}
	header := world.HeaderBlock(body.data) // the verifier frees the body
	c.w.returns.reserve(d.Returns)
	confirmed, err := c.confirm(r, d)
	if confirmed {
		c.w.returns.submit(d.Returns, header, now)
	} else {
		c.w.returns.forget(d.Returns)
	}
	return err
}

// confirm sends the reply to an accepted message. The message counts as confirmed
// when its reply leaves for a peer that is still there.
func (c *conn) confirm(r *receipt, d world.Decision) (confirmed bool, err error) {
	err = c.reply(d)
	if err != nil || peerGone(c.tcp) {
		c.w.ledger.unconfirmed(r)
		return false, err
	}
	c.w.ledger.confirmed(r) // before the flush: with the reply a repeat becomes our sender's fault
	if err = c.flush(); err != nil {
		c.w.ledger.unconfirmed(r)
	}
	return err == nil, err
}
