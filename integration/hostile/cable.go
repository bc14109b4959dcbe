package hostile

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/veredus/veredus/integration/memnet"
)

// Cable is a network in front of a receiver that fails at moments drawn from a seed. It
// resets, cuts off, stalls and delays; it changes no octet and no order, as TCP does not.
// Safe for concurrent use.
type Cable struct {
	// Seed is what all faults follow from; the connections' order too.
	Seed uint64
	// Calm says that no new connection gets a fault.
	Calm atomic.Bool

	faults [faultKinds]atomic.Int64
}

// fault is what happens to a connection.
type fault int

const (
	none      fault = iota
	resetUp         // RST to both ends behind some octets of the client's
	resetDown       // behind some octets of the receiver's
	cutDown         // the receiver's words end behind some octets, by FIN
	stallDown       // they stop for good; nobody is told
	lag             // every piece comes late, and in small pieces
	faultKinds
)

var faultNames = [...]string{"none", "reset going up", "reset coming down", "cut coming down", "stalled", "lagging"}

// Faults is how many connections had which fault, in words.
func (c *Cable) Faults() (words []string) {
	for f, name := range faultNames {
		words = append(words, fmt.Sprintf("%s %d", name, c.faults[f].Load()))
	}
	return words
}

// lay puts the cable between a client's connection and the one that it returns, which
// the receiver has.
func (c *Cable) lay(client net.Conn, number int64, running *sync.WaitGroup) net.Conn {
	rng := rand.New(rand.NewPCG(c.Seed, uint64(number)))
	f := none
	if rng.IntN(2) == 0 && !c.Calm.Load() {
		f = fault(1 + rng.IntN(int(faultKinds)-1))
	}
	c.faults[f].Add(1)
	near, far := memnet.Pipe(64 << 10)
	reach := 1 + rng.Int64N(1500) // octets; a dialogue of one message is about 200 down and 2,000 up
	if f == resetUp {
		reach *= 4
	}
	w := &wire{client: client, receiver: near, fault: f, reach: reach, lag: time.Duration(1+rng.IntN(5)) * time.Millisecond}
	running.Go(w.up)
	running.Go(w.down)
	return far
}

// wire is one connection's cable.
type wire struct {
	client, receiver net.Conn
	fault            fault
	reach            int64
	lag              time.Duration
}

func (w *wire) up() {
	defer w.receiver.Close()
	if w.fault == resetUp {
		_, _ = io.CopyN(w.receiver, w.client, w.reach)
		reset(w.client)
		return
	}
	_, _ = io.Copy(w.receiver, w.late(w.client))
}

func (w *wire) down() {
	defer w.client.Close()
	switch w.fault {
	case resetDown:
		_, _ = io.CopyN(w.client, w.receiver, w.reach)
		reset(w.client)
	case cutDown:
		_, _ = io.CopyN(w.client, w.receiver, w.reach)
		_ = w.client.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, w.receiver)
	case stallDown:
		_, _ = io.CopyN(w.client, w.receiver, w.reach)
		_, _ = io.Copy(io.Discard, w.receiver)
	default:
		_, _ = io.Copy(w.client, w.late(w.receiver))
	}
}

// late is r as the fault lag lets it through.
func (w *wire) late(r io.Reader) io.Reader {
	if w.fault != lag {
		return r
	}
	return &lagging{r, w.lag}
}

type lagging struct {
	r   io.Reader
	lag time.Duration
}

// Read is io.Reader: at most 64 octets at a time, each piece late.
func (l *lagging) Read(p []byte) (int, error) {
	n, err := l.r.Read(p[:min(len(p), 64)])
	time.Sleep(l.lag)
	return n, err
}
