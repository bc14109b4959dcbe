package serve

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"github.com/veredus/veredus/integration/world"
)

// host is one mail exchanger with its address.
type host struct {
	name     string
	receiver string
	addr     netip.Addr
	dead     bool
}

// layOut gives each mail exchanger an address: network.R.H for the R-th receiver
// and its H-th host. Hosts that several domains share appear once.
func layOut(w *world.World, network netip.Prefix) []host {
	var hosts []host
	base := network.Masked().Addr().As4()
	for i, r := range w.Receivers {
		seen := map[string]bool{}
		for _, h := range r.Hosts {
			for _, name := range hostNames(&r, h) {
				if seen[name] || len(seen) >= 250 {
					continue
				}
				seen[name] = true
				addr := netip.AddrFrom4([4]byte{base[0], base[1], byte(i + 1), byte(len(seen))})
				hosts = append(hosts, host{name: name, receiver: r.Name, addr: addr, dead: h.Dead})
			}
		}
	}
	return hosts
}

// hostNames are the names a host goes by: one, or one for each tenant.
func hostNames(r *world.Receiver, h world.Host) []string {
	if !h.PerTenant() {
		return []string{strings.ToLower(h.Name)}
	}
	names := make([]string, len(r.Domains))
	for i, d := range r.Domains {
		names[i] = strings.ToLower(h.NameFor(d.Name))
	}
	return names
}

// listenAll listens on every live host's address, all on one port. With port 0
// it looks for one that is free everywhere.
func listenAll(hosts []host, port int) (int, []net.Listener, error) {
	const tries = 50
	var err error
	for range tries {
		var got int
		var listeners []net.Listener
		got, listeners, err = listenOn(hosts, port)
		if err == nil {
			return got, listeners, nil
		}
		if port != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return 0, nil, err
}

// listenOn tries one port; the returned listeners match the live hosts in order.
func listenOn(hosts []host, port int) (int, []net.Listener, error) {
	var listeners []net.Listener
	for _, h := range hosts {
		if h.dead {
			continue
		}
		l, err := net.Listen("tcp4", net.JoinHostPort(h.addr.String(), strconv.Itoa(port)))
		if err != nil {
			for _, l := range listeners {
				_ = l.Close()
			}
			return 0, nil, fmt.Errorf("mail exchanger %s: listening on %s port %d: %w", h.name, h.addr, port, err)
		}
		listeners = append(listeners, l)
		port = l.Addr().(*net.TCPAddr).Port
	}
	return port, listeners, nil
}

// serveHosts accepts connections on every listener.
func (w *World) serveHosts(hosts []host) {
	i := 0
	for _, h := range hosts {
		if h.dead {
			continue
		}
		l := w.listeners[i]
		i++
		w.conns.Go(func() { w.accept(l, w.byName[h.receiver], h.name) })
	}
}
