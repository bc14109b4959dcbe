package public

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// maxClients bounds the clients that are remembered.
	maxClients = 8192
	// burstSeconds is how many seconds' worth of requests a client may make at once.
	burstSeconds = 10
	// sweepEvery is how often clients that were quiet are forgotten, when the room is short.
	sweepEvery = time.Second
)

// clients limits the requests of each client: a generic cell rate algorithm for each
// address, or /64 of IPv6, which one subscriber has.
type clients struct {
	interval time.Duration // between requests at the full rate
	burst    time.Duration // how far ahead of time a client may be

	mu    sync.Mutex
	due   map[netip.Prefix]time.Time // when all requests so far are worked off
	swept time.Time
}

func newClients(perSecond int) *clients {
	return &clients{
		interval: time.Second / time.Duration(perSecond), burst: burstSeconds * time.Second, due: map[netip.Prefix]time.Time{},
	}
}

// allow reports whether a client may make another request now. Memory is bounded: among too
// many clients somebody is forgotten, and so may begin anew.
func (c *clients) allow(now time.Time, remote string) bool {
	client, limited := clientOf(remote)
	if !limited {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	due, known := c.due[client]
	if !known {
		c.room(now)
	}
	if due.Before(now) {
		due = now
	}
	if due.Sub(now) > c.burst-c.interval {
		return false
	}
	c.due[client] = due.Add(c.interval)
	return true
}

// room makes place for one more client.
func (c *clients) room(now time.Time) {
	if len(c.due) < maxClients {
		return
	}
	if now.Sub(c.swept) >= sweepEvery {
		c.swept = now
		for client, due := range c.due {
			if !due.After(now) {
				delete(c.due, client)
			}
		}
	}
	for client := range c.due {
		if len(c.due) < maxClients {
			return
		}
		delete(c.due, client)
	}
}

// clientOf is who a remote address stands for. A proxy at a loopback or private address stands for everybody,
// and what cannot be read is not an internet client.
func clientOf(remote string) (client netip.Prefix, limited bool) {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}, false
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast() {
		return netip.Prefix{}, false
	}
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	client, err = addr.Prefix(bits)
	return client, err == nil
}
