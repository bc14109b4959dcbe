package inbound

import (
	"fmt"
	"net"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestGateNeverGivesMoreThanItsLimits drives the gate at random beside a count of what
// everybody holds.
func TestGateNeverGivesMoreThanItsLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const connections, each, perMinute, octets, octetsEach = 6, 3, 10, 1000, 600
		g := newGate(connections, each, perMinute, octets, octetsEach)
		now := time.Unix(1e9, 0)
		type connection struct {
			c    *client
			held int
		}
		var open []*connection
		of := func(c *client) (n, held int) {
			for _, o := range open {
				if o.c == c {
					n, held = n+1, held+o.held
				}
			}
			return n, held
		}
		all := func() (held int) {
			for _, o := range open {
				held += o.held
			}
			return held
		}
		sent := map[string][]time.Time{}
		pick := func() *connection { return rapid.SampledFrom(open).Draw(t, "connection") }
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				addr := &net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(rapid.IntRange(1, 3).Draw(t, "client")))}
				c, reason := g.enter(addr, now)
				if c == nil {
					if n, _ := of(g.clients[clientPrefix(addr)]); len(open) < connections && n < each {
						t.Fatalf("refused for %s with %d open, %d of this client", reason, len(open), n)
					}
					return
				}
				open = append(open, &connection{c: c})
				if n, _ := of(c); len(open) > connections || n > each {
					t.Fatalf("%d open, %d of one client", len(open), n)
				}
			},
			"leave": func(t *rapid.T) {
				if len(open) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(open)-1).Draw(t, "connection")
				g.release(open[i].c, open[i].held)
				g.leave(open[i].c)
				open = append(open[:i], open[i+1:]...)
			},
			"message": func(t *rapid.T) {
				if len(open) == 0 {
					t.Skip()
				}
				c := pick().c
				if !g.message(c, now) {
					return
				}
				key := c.prefix.String()
				sent[key] = append(sent[key], now)
				inMinute := 0
				for _, at := range sent[key] {
					if now.Sub(at) < time.Minute {
						inMinute++
					}
				}
				if inMinute >= 2*perMinute {
					t.Fatalf("%d messages within a minute", inMinute)
				}
			},
			"hold": func(t *rapid.T) {
				if len(open) == 0 {
					t.Skip()
				}
				o, n := pick(), rapid.IntRange(1, 300).Draw(t, "octets")
				_, ofClient := of(o.c)
				fits := all()+n <= octets && ofClient+n <= octetsEach
				if got := g.hold(o.c, n); got != fits {
					t.Fatalf("hold(%d) = %v with %d and %d held", n, got, all(), ofClient)
				}
				if fits {
					o.held += n
				}
			},
			"wait": func(t *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second) },
			"": func(t *rapid.T) {
				if g.open != len(open) || g.holding() != int64(all()) {
					t.Fatalf("counts %d connections and %d octets, there are %d and %d", g.open, g.holding(), len(open), all())
				}
			},
		})
	})
}

func TestTheGateForgetsClientsThatAreGone(t *testing.T) {
	g := newGate(1000000, 10, 60, 1, 1)
	now := time.Unix(1e9, 0)
	stays, _ := g.enter(&net.TCPAddr{IP: net.ParseIP("2001:db8:ffff::1")}, now)
	for i := range 100000 {
		addr := &net.TCPAddr{IP: net.ParseIP(fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff))}
		c, _ := g.enter(addr, now)
		g.message(c, now)
		g.leave(c)
		now = now.Add(50 * time.Millisecond) // 1,200 clients a minute
	}
	if n := len(g.clients); n > 4*minSweep {
		t.Errorf("%d clients remembered", n)
	}
	if g.clients[stays.prefix] != stays {
		t.Error("a client that is connected was forgotten")
	}
}

func BenchmarkGate(b *testing.B) {
	g := newGate(1000, 1000, 1000000, 1<<30, 1<<30)
	addr := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4025}
	now := time.Unix(1e9, 0)
	b.ReportAllocs()
	for b.Loop() {
		c, _ := g.enter(addr, now)
		g.message(c, now)
		g.hold(c, 100)
		g.release(c, 100)
		g.leave(c)
		now = now.Add(time.Millisecond)
	}
}
