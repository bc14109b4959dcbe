package serve

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/veredus/veredus/integration/world"
)

const (
	maxLine     = 2048 // octets of a command line; RFC 5321 section 4.5.3.1.4 asks for 512 and more with extensions
	maxErrors   = 20   // bad commands before the line is closed
	maxIdleCmds = 1000 // commands without an accepted message before the line is closed
	readBuffer  = 16 << 10
)

// conn is one SMTP connection.
type conn struct {
	w       *World
	site    *site
	host    string
	source  netip.Addr
	tcp     *net.TCPConn
	stream  net.Conn // tcp, or TLS over it
	br      *bufio.Reader
	bw      *bufio.Writer
	session *world.Session
	audited bool // guarded by site.mu

	greeted  bool // EHLO or HELO was accepted
	extended bool // by EHLO
	utf8     bool // the transaction's SMTPUTF8
	eight    bool // the transaction's BODY=8BITMIME
	inMail   bool
	from     string
	rcpts    []string
	mails    int
	errors   int
	idle     int
}

var (
	// errHangUp ends a connection on purpose.
	errHangUp = errors.New("hanging up")
	// errClosing ends a connection because the world ends.
	errClosing = errors.New("the world is closing")
)

// accept serves connections to one mail exchanger until its listener closes.
func (w *World) accept(l net.Listener, s *site, host string) {
	for {
		nc, err := l.Accept()
		if err != nil {
			if w.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, most likely: let connections end.
			w.cfg.Logger.Warn("accepting a connection", "host", host, "error", err)
			if !w.pause(50 * time.Millisecond) {
				return
			}
			continue
		}
		if w.open.Add(1) > int64(w.cfg.MaxConnections) {
			w.open.Add(-1)
			_ = nc.Close()
			continue
		}
		w.conns.Go(func() {
			defer w.open.Add(-1)
			w.serve(nc.(*net.TCPConn), s, host)
		})
	}
}

// pause waits, unless the world ends first.
func (w *World) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.ctx.Done():
		return false
	}
}

var (
	readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBuffer) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 4096) }}
)

// serve runs one connection to its end.
func (w *World) serve(tcp *net.TCPConn, s *site, host string) {
	c := &conn{w: w, site: s, host: host, tcp: tcp, stream: tcp}
	c.br, c.bw = readers.Get().(*bufio.Reader), writers.Get().(*bufio.Writer)
	stop := context.AfterFunc(w.ctx, func() { _ = tcp.Close() })
	defer func() {
		stop()
		s.leave(c)
		_ = c.stream.Close()
		_ = tcp.Close()
		c.br.Reset(nil)
		c.bw.Reset(nil)
		readers.Put(c.br)
		writers.Put(c.bw)
	}()
	c.source = sourceOf(c)
	c.reset(tcp)
	now := time.Now()
	d, violations := s.connect(c, now)
	w.ledger.connected(s)
	w.ledger.violated(s, violations)
	if c.reply(d) != nil {
		return
	}
	c.run()
}

// reset points the buffers at stream.
func (c *conn) reset(stream net.Conn) {
	c.stream = stream
	c.br.Reset(flushingReader{c})
	c.bw.Reset(stream)
}

// flushingReader sends waiting replies before it blocks for input, which groups
// the replies to pipelined commands (RFC 2920 section 3.2).
type flushingReader struct{ c *conn }

func (r flushingReader) Read(p []byte) (int, error) {
	if err := r.c.flush(); err != nil {
		return 0, err
	}
	if err := r.c.stream.SetReadDeadline(time.Now().Add(r.c.w.cfg.IdleTimeout)); err != nil {
		return 0, err
	}
	return r.c.stream.Read(p)
}

func (c *conn) flush() error {
	if c.bw.Buffered() == 0 {
		return nil
	}
	if err := c.stream.SetWriteDeadline(time.Now().Add(c.w.cfg.IdleTimeout)); err != nil {
		return err
	}
	return c.bw.Flush()
}

// run answers commands until the connection ends.
func (c *conn) run() {
	for {
		line, err := c.readLine()
		switch {
		case errors.Is(err, errLongLine):
			err = c.refuse(500, "5.5.2", "Line too long")
		case err == nil:
			err = c.command(line)
		}
		if err != nil {
			_ = c.flush()
			return
		}
		if c.idle++; c.errors > maxErrors || c.idle > maxIdleCmds {
			_ = c.reply(world.Decision{Code: 421, Enhanced: "4.7.0", Text: c.host + " Error: too many errors", Drop: world.DropAfterReply})
			return
		}
	}
}

var errLongLine = errors.New("line too long")

// readLine returns the next command line without its line end.
func (c *conn) readLine() (string, error) {
	line, err := c.br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || (err == nil && len(line) > maxLine) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = c.br.ReadSlice('\n')
		}
		return "", errors.Join(err, errLongLine)
	}
	if err != nil {
		return "", err
	}
	text := strings.TrimSuffix(string(line[:len(line)-1]), "\r")
	if len(text)+2 != len(line) || strings.IndexByte(text, '\r') >= 0 {
		c.w.ledger.protocolError(c.site, "command line with a bare CR or LF", "")
	}
	return text, nil
}

// command answers one command line.
func (c *conn) command(line string) error {
	cmd, err := parseCommand(line)
	if err != nil {
		return c.refuse(500, "5.5.2", "Error: command not recognized")
	}
	switch cmd.verb {
	case "EHLO", "HELO":
		return c.hello(cmd)
	case "STARTTLS":
		return c.startTLS(cmd)
	case "MAIL":
		return c.mail(cmd)
	case "RCPT":
		return c.rcpt(cmd)
	case "DATA":
		return c.data(cmd)
	case "RSET":
		c.endMail()
		return c.answer(250, "2.0.0", "Ok")
	case "NOOP":
		return c.answer(250, "2.0.0", "Ok")
	case "VRFY":
		return c.answer(252, "2.0.0", "Cannot VRFY user, but will accept message and attempt delivery")
	case "HELP":
		return c.answer(214, "2.0.0", "See RFC 5321")
	case "QUIT":
		return c.quit()
	}
	return c.refuse(500, "5.5.1", "Error: command not recognized")
}

// quit answers QUIT. The connection ends for the audit before the reply leaves,
// because with the reply the sender may open another.
func (c *conn) quit() error {
	c.site.leave(c)
	_ = c.reply(world.Decision{Code: 221, Enhanced: "2.0.0", Text: "Bye"})
	return errHangUp
}

// hello answers EHLO and HELO.
func (c *conn) hello(cmd command) error {
	if cmd.arg == "" {
		return c.refuse(501, "5.5.4", "Syntax: "+cmd.verb+" hostname")
	}
	extended := cmd.verb == "EHLO"
	d := c.site.ask(func() world.Decision { return c.session.Hello(time.Now(), extended) })
	if d.Positive() {
		c.endMail()
		c.greeted, c.extended = true, extended
		d.Enhanced = "" // RFC 2034 section 4 exempts the greeting and EHLO
		if extended {
			d.Text = strings.Join(append([]string{d.Text}, c.keywords()...), "\n")
		}
		return c.replyHello(d)
	}
	return c.reply(d)
}

// keywords are the EHLO keywords on offer now.
func (c *conn) keywords() []string {
	words := []string{"PIPELINING", "SIZE " + strconv.Itoa(c.w.cfg.MaxMessageBytes), "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8"}
	if c.session.OffersTLS() {
		words = append(words, "STARTTLS")
	}
	if c.session.Has(world.QuirkLowerCase) {
		for i := range words {
			words[i] = strings.ToLower(words[i])
		}
	}
	return words
}

// answer replies with a decision of the server's own.
func (c *conn) answer(code int, enhanced, text string) error {
	return c.reply(world.Decision{Code: code, Enhanced: enhanced, Text: text})
}

// refuse answers a command that breaks the protocol.
func (c *conn) refuse(code int, enhanced, text string) error {
	c.errors++
	c.w.ledger.protocolError(c.site, text, "")
	return c.answer(code, enhanced, text)
}

// reply carries a decision out: it waits, speaks, and ends the connection if the
// decision says so, with an error then. What it wrote leaves with the next flush.
func (c *conn) reply(d world.Decision) error {
	c.w.ledger.decided(c.site, d)
	if d.Delay > 0 {
		if err := c.flush(); err != nil {
			return err
		}
		if !c.w.pause(d.Delay) {
			return errClosing
		}
	}
	switch d.Drop {
	case world.DropReset:
		_ = c.tcp.SetLinger(0)
		fallthrough
	case world.DropSilent:
		_ = c.flush()
		return errHangUp
	case world.DropAfterReply:
		c.site.leave(c)
	}
	if err := c.write(d, false); err != nil {
		return err
	}
	if d.Drop == world.DropAfterReply {
		c.linger()
		return errHangUp
	}
	return nil
}

const (
	lingerTime  = 2 * time.Second
	lingerBytes = 1 << 20
)

// linger ends our half of the connection and reads the rest of the peer's. To
// close with input unread would reset the connection, and the peer's kernel
// would then throw the reply away with which we said why.
func (c *conn) linger() {
	if c.flush() != nil {
		return
	}
	if t, ok := c.stream.(*tls.Conn); ok {
		_ = t.CloseWrite()
	}
	if c.tcp.CloseWrite() != nil || c.tcp.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c.tcp, lingerBytes)
}

// replyHello is reply for EHLO, where a quirk may mix the codes.
func (c *conn) replyHello(d world.Decision) error {
	c.w.ledger.decided(c.site, d)
	if d.Delay > 0 && !c.w.pause(d.Delay) {
		return errClosing
	}
	return c.write(d, true)
}

// write puts a reply on the wire, with the receiver's quirks.
func (c *conn) write(d world.Decision, hello bool) error {
	end := "\r\n"
	if c.session.Has(world.QuirkLFLineEnds) {
		end = "\n"
	}
	if c.session.Has(world.QuirkNoEnhanced) {
		d.Enhanced = ""
	}
	if !hello && c.session.Has(world.QuirkBareCode) {
		_, err := c.bw.WriteString(strconv.Itoa(d.Code) + end)
		return err
	}
	lines := strings.Split(d.Text, "\n")
	for i, line := range lines {
		code, sep := d.Code, byte('-')
		if i == len(lines)-1 {
			sep = ' '
		}
		if hello && i%2 == 1 && c.session.Has(world.QuirkMixedMultiline) {
			code = 220
		}
		c.writeLine(code, sep, d.Enhanced, line, end)
	}
	return nil // a write error stays in bw and shows at the flush
}

func (c *conn) writeLine(code int, sep byte, enhanced, text, end string) {
	b := strconv.AppendInt(c.bw.AvailableBuffer(), int64(code), 10)
	b = append(b, sep)
	if enhanced != "" {
		b = append(b, enhanced...)
		b = append(b, ' ')
	}
	b = append(b, text...)
	b = append(b, end...)
	_, _ = c.bw.Write(b)
}

// startTLS answers STARTTLS and performs the handshake (RFC 3207).
func (c *conn) startTLS(cmd command) error {
	if cmd.arg != "" || !c.greeted {
		return c.refuse(501, "5.5.4", "Syntax: STARTTLS after EHLO, without arguments")
	}
	d := c.site.ask(func() world.Decision { return c.session.StartTLS(time.Now()) })
	if err := c.reply(d); err != nil || d.Code != 220 {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	if c.br.Buffered() > 0 {
		c.w.ledger.protocolError(c.site, "commands sent after STARTTLS before the handshake", "")
		return errHangUp
	}
	stream, err := c.handshake()
	if err != nil {
		return err
	}
	c.site.ask(func() world.Decision { c.session.Secured(); return world.Decision{} })
	c.reset(stream)
	c.endMail()
	c.greeted, c.extended = false, false
	return nil
}
