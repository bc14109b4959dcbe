package hostile

import (
	"context"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/integration/memnet"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/mxrules"
)

// longest is how long a session of two messages may take whatever the server does: each
// wait has its bound, and those of a fresh plaintext connection behind a failed TLS
// handshake come once more.
const longest = 2 * (smtpc.DefaultConnectTimeout + 8*smtpc.DefaultCommandTimeout +
	2*smtpc.DefaultDataTimeout + 2*smtpc.DefaultFinalDotTimeout)

// meeting is what a session with a server came to.
type meeting struct {
	took      time.Duration
	delivered int // messages the session calls delivered
	uncertain int
	taken     int // messages the server took
	confirmed int
	failure   string
}

// meet has a session send two messages to a manner, in virtual time.
func meet(t *testing.T, manner Manner, cfg smtpc.Config) (m meeting) {
	began := time.Now()
	ends := &Network{done: make(chan struct{})}
	ends.Ledger.copies = map[string]*Copies{}
	var served sync.WaitGroup
	var conns []net.Conn
	dial := func(context.Context) (net.Conn, error) {
		client, server := memnet.Pipe(64 << 10)
		conns = append(conns, server)
		number := int64(len(conns))
		served.Go(func() {
			defer server.Close()
			manner(newConn(server, ends, "a.example", number))
		})
		return client, nil
	}
	m.send(t, dial, cfg)
	m.took = time.Since(began)
	close(ends.done)
	for _, c := range conns {
		_ = c.Close()
	}
	served.Wait()
	for _, c := range ends.Ledger.Copies() {
		m.taken += c.Taken
		m.confirmed += c.Confirmed
	}
	return m
}

func (m *meeting) send(t *testing.T, dial smtpc.DialFunc, cfg smtpc.Config) {
	s, err := smtpc.Open(t.Context(), dial, cfg)
	if err != nil {
		m.failure = err.Error()
		return
	}
	for _, id := range []string{"one", "two"} {
		// Larger than what the connection holds, so that a server which does not read is noticed.
		content := []byte("Message-ID: <" + id + ">\r\n\r\n" + strings.Repeat("a line of text\r\n", 10_000))
		got := s.Send(t.Context(), smtpc.Envelope{From: "b@brand.example", To: "r@a.example"}, content)
		switch {
		case got.Delivered:
			m.delivered++
		case got.Uncertain:
			m.uncertain++
		}
		if !got.Delivered {
			m.failure = got.Failure().Error()
		}
		if !got.Usable {
			return
		}
	}
	_ = s.Quit(t.Context()) // anything may come of it
}

func hostileConfig(tls mxrules.TLS) smtpc.Config {
	return smtpc.Config{LocalName: "mta.brand.example", Host: "mx.a.example", TLS: tls}
}

// Whatever a server does, a session with it ends by its deadlines, and takes no memory to
// speak of with it.
func TestSessionsEnd(t *testing.T) {
	for _, name := range Manners() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				certificates() // their making is not the session's matter
				before := allocated()
				m := meet(t, Script(name), hostileConfig(mxrules.TLSOpportunistic))
				if m.took > longest {
					t.Errorf("took %v", m.took)
				}
				if m.delivered > 0 {
					t.Errorf("%d messages delivered", m.delivered)
				}
				// The server's own work is in this figure.
				if grew := int64(allocated()-before) >> 20; grew > 64 {
					t.Errorf("%d MiB allocated", grew)
				}
				t.Logf("ended after %v: %s", m.took, m.failure)
			})
		})
	}
}

// allocated is all memory ever allocated, in octets.
func allocated() uint64 {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.TotalAlloc
}

func TestHonestAndFrail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if m := meet(t, Honest, hostileConfig(mxrules.TLSOpportunistic)); m.delivered != 2 || m.confirmed != 2 || m.took != 0 {
			t.Errorf("honest: %+v", m)
		}
		var sum meeting
		for seed := range uint64(60) {
			frail := Frail(seed, 2, func() bool { return false })
			if seed%2 == 0 { // its second connection
				manner := frail
				frail = func(c *Conn) { c.Number++; manner(c) }
			}
			m := meet(t, frail, hostileConfig(mxrules.TLSOpportunistic))
			sum.delivered, sum.uncertain = sum.delivered+m.delivered, sum.uncertain+m.uncertain
			sum.taken, sum.confirmed = sum.taken+m.taken, sum.confirmed+m.confirmed
			if m.delivered != m.confirmed || m.taken > m.delivered+m.uncertain {
				t.Errorf("seed %d: %+v", seed, m)
			}
		}
		if sum.uncertain == 0 || sum.taken == sum.confirmed || sum.delivered == 0 {
			t.Errorf("nobody died: %+v", sum)
		}
	})
}

// FuzzServer draws a server from a seed, or mutates one of the scripts with it.
func FuzzServer(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed, uint8(seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, requirement uint8) {
		synctest.Test(t, func(t *testing.T) {
			tls := []mxrules.TLS{mxrules.TLSNone, mxrules.TLSOpportunistic, mxrules.TLSEncrypt}[requirement%3]
			m := meet(t, Fuzzed(seed), hostileConfig(tls))
			if m.took > longest {
				t.Errorf("took %v", m.took)
			}
		})
	})
}
