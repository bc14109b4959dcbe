package hostile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
)

// Conn is one connection of a client, as a manner sees it. It belongs to one goroutine.
type Conn struct {
	// Number counts the receiver's connections, from 1.
	Number int64

	raw    net.Conn
	in     *bufio.Reader
	net    *Network
	domain string
}

func newConn(raw net.Conn, n *Network, domain string, number int64) *Conn {
	return &Conn{Number: number, raw: raw, in: bufio.NewReaderSize(raw, 8<<10), net: n, domain: domain}
}

// Play plays a manner on any connection, such as one in memory, and closes it. What it
// takes is in no ledger.
func Play(m Manner, conn net.Conn, number int64) {
	defer conn.Close()
	nobody := &Network{done: make(chan struct{})}
	nobody.Ledger.copies = map[string]*Copies{}
	m(newConn(conn, nobody, "", number))
}

// Random is a source for this connection alone, from a seed.
func (c *Conn) Random(seed uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(c.Number)))
}

// say writes; false when the client has gone.
func (c *Conn) say(text string) bool {
	_, err := io.WriteString(c.raw, text)
	return err == nil
}

// reply says one line.
func (c *Conn) reply(line string) bool { return c.say(line + "\r\n") }

// command reads one line, cut at 2 KiB, and answers its verb in upper case; "" when
// the client has gone.
func (c *Conn) command() (verb, rest string) {
	line, err := c.in.ReadSlice('\n')
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		return "", ""
	}
	verb, rest, _ = strings.Cut(strings.TrimRight(string(line[:min(len(line), 2<<10)]), "\r\n"), " ")
	if verb == "" {
		verb = "?"
	}
	return strings.ToUpper(verb), rest
}

// maxContent is the largest message taken, in octets.
const maxContent = 4 << 20

// content reads up to the lone dot, without it, and undoes dot-stuffing.
func (c *Conn) content() ([]byte, error) {
	var b bytes.Buffer
	for whole := true; ; {
		line, err := c.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		if whole && string(line) == ".\r\n" {
			return b.Bytes(), nil
		}
		if whole && line[0] == '.' {
			line = line[1:]
		}
		if b.Write(line); b.Len() > maxContent {
			return nil, fmt.Errorf("message of more than %d octets", maxContent)
		}
		whole = err == nil
	}
}

// chunk reads the chunk of BDAT LAST (RFC 3030) of the size said behind the verb.
func (c *Conn) chunk(params string) ([]byte, error) {
	size, _, _ := strings.Cut(params, " ")
	n, err := strconv.Atoi(size)
	if err != nil || n < 0 || n > maxContent {
		return nil, fmt.Errorf("BDAT %q", params)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(c.in, b)
	return b, err
}

// peeked is the connection with what was read ahead of it.
func (c *Conn) peeked() net.Conn { return ahead{c.raw, c.in} }

type ahead struct {
	net.Conn
	in *bufio.Reader
}

// Read is io.Reader.
func (a ahead) Read(p []byte) (int, error) { return a.in.Read(p) }

// listen reads and forgets until the client has gone.
func (c *Conn) listen() { _, _ = io.Copy(io.Discard, c.in) }

// halfClose ends our side and leaves the client's open.
func (c *Conn) halfClose() {
	if h, ok := c.raw.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}

// reset ends the connection by RST: what is under way both ways is lost.
func (c *Conn) reset() { reset(c.raw) }

func reset(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0)
	}
	_ = c.Close()
}
