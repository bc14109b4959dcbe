package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/server/config"
)

// source is one that has an address.
type source struct {
	config.Source
	about
}

func newSource(s config.Source) source {
	return source{s, about(fmt.Sprintf("source %s (%s)", s.Name, s.Address))}
}

// addressType is A or AAAA.
func (s source) addressType() (uint16, string) {
	if s.Address.Unmap().Is4() {
		return dns.TypeA, "A"
	}
	return dns.TypeAAAA, "AAAA"
}

// public warns of an address that the world does not see.
func (c *checkup) public(_ context.Context, s source) []Finding {
	if err := (route.Guard{AllowPrivate: c.Config.Relay.AllowPrivateAddresses}).Check(s.Address); err != nil {
		return []Finding{s.warning("source.private", "receivers see another address than %s, which is not on the public internet; what is said here of its PTR and SPF is about the wrong one: give the source a public address", s.Address)}
	}
	return nil
}

// reverse checks forward-confirmed reverse DNS: a PTR whose name has the address
// (RFC 1912 section 2.1).
func (c *checkup) reverse(ctx context.Context, s source) []Finding {
	name, err := dns.ReverseAddr(s.Address.Unmap().String())
	if err != nil {
		return []Finding{s.failure("ptr.missing", "%s has no reverse name", s.Address)}
	}
	ptr, err := c.dns.Lookup(ctx, name, dns.TypePTR)
	if err != nil {
		return []Finding{s.unknown("ptr", "the PTR of "+s.Address.String(), err)}
	}
	if len(ptr.Names) == 0 {
		return []Finding{s.failure("ptr.missing", "%s has no PTR record; Gmail and most others refuse mail from it: ask whoever gave you the address to set the record below", s.Address).
			with(plain(name), "PTR", s.Hostname)}
	}
	qtype, kind := s.addressType()
	for _, host := range ptr.Names[:min(len(ptr.Names), maxSPFHosts)] {
		a, err := c.dns.Lookup(ctx, host, qtype)
		if err != nil {
			return []Finding{s.unknown("ptr", "the address of "+host+", the PTR of "+s.Address.String()+",", err)}
		}
		if slices.Contains(a.Addrs, s.Address.Unmap()) {
			return []Finding{s.ptrName(host)}
		}
	}
	first := ptr.Names[0]
	return []Finding{s.failure("ptr.forward", "the PTR of %s is %s, which does not have that address; receivers take this for no PTR: publish the record below, or change the PTR to %s", s.Address, first, s.Hostname).
		with(first, kind, s.Address.String())}
}

// ptrName compares the confirmed name with the EHLO name.
func (s source) ptrName(host string) Finding {
	if host != plain(s.Hostname) {
		return s.info("ptr.name", "the PTR of %s is %s and the source greets as %s; some receivers prefer one name", s.Address, host, s.Hostname)
	}
	return s.ok("ptr", "the PTR of %s is %s, which has that address", s.Address, host)
}

// hello checks that the EHLO name has the source's address (RFC 5321 section 4.1.4).
func (c *checkup) hello(ctx context.Context, s source) []Finding {
	qtype, kind := s.addressType()
	a, err := c.dns.Lookup(ctx, s.Hostname, qtype)
	switch {
	case err != nil:
		return []Finding{s.unknown("ehlo", "the address of the EHLO name "+s.Hostname, err)}
	case slices.Contains(a.Addrs, s.Address.Unmap()):
		return []Finding{s.ok("ehlo", "the EHLO name %s has the source's address", s.Hostname)}
	case len(a.Addrs) == 0:
		return []Finding{s.failure("ehlo.unknown_name", "the EHLO name %s has no %s record; receivers refuse a greeting with a name that does not exist: publish the record below", s.Hostname, kind).
			with(plain(s.Hostname), kind, s.Address.Unmap().String())}
	}
	return []Finding{s.warning("ehlo.other_address", "the EHLO name %s has the address %s, not the source's; publish the record below beside it, or set the source's hostname to a name of its own", s.Hostname, a.Addrs[0]).
		with(plain(s.Hostname), kind, s.Address.Unmap().String())}
}

const (
	// probeName is whose mail hosts are connected to when no probe is named: one that every sender must reach.
	probeName = "gmail.com"
	// probeTimeout bounds one connection, its greeting included.
	probeTimeout = 15 * time.Second
)

// port25 connects to a mail host from the source.
func (c *checkup) port25(ctx context.Context, s source) []Finding {
	target, err := c.probe(ctx, s)
	if err != nil {
		return []Finding{s.info("port25.not_checked", "outbound port 25 was not checked: %v; name a mail host with --probe host:25", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := c.Dial(ctx, s.Address, target)
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return []Finding{s.failure("source.foreign", "%s is not an address of this machine: nothing can be sent from it; add it to an interface, or correct relay.pools", s.Address)}
	case err != nil:
		return []Finding{s.failure("port25.closed", "no connection from %s to %s: %v; many hosts block outbound port 25 until asked: ask yours, or look at the firewall", s.Address, target, err)}
	}
	greeting, err := c.greeting(ctx, conn)
	switch {
	case err != nil:
		return []Finding{s.warning("port25.silent", "%s took the connection from %s and did not greet: %v; something between may swallow port 25", target, s.Address, err)}
	case !strings.HasPrefix(greeting, "220"):
		return []Finding{s.warning("port25.refused", "%s refuses %s: %s", target, s.Address, clip(greeting, 300))}
	}
	return []Finding{s.ok("port25", "%s greets %s", target, s.Address)}
}

// greeting reads the first line and takes leave.
func (c *checkup) greeting(ctx context.Context, conn net.Conn) (string, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	defer conn.Close()
	const most = 1000 // octets; RFC 5321 section 4.5.3.1.5 has 512
	line, err := bufio.NewReader(io.LimitReader(conn, most)).ReadString('\n')
	if err != nil && line == "" {
		return "", err
	}
	_, _ = io.WriteString(conn, "QUIT\r\n")
	return strings.TrimSpace(line), nil
}

// probe is the address to connect to: of the first probe that has one of the source's family.
func (c *checkup) probe(ctx context.Context, s source) (string, error) {
	if len(c.Probe) > 0 {
		return c.namedProbe(ctx, s)
	}
	if c.Config.Relay.AllowPrivateAddresses {
		return "", errors.New("relay.allow_private_addresses means a closed network")
	}
	mx, err := c.dns.Lookup(ctx, probeName, dns.TypeMX)
	if err != nil {
		return "", err
	}
	for _, h := range mx.Hosts[:min(len(mx.Hosts), maxSPFHosts)] {
		addr, err := c.address(ctx, s, h.Name)
		if err == nil && (route.Guard{}).Check(addr) == nil {
			return net.JoinHostPort(addr.String(), strconv.Itoa(c.Config.Relay.SMTPPort)), nil
		}
	}
	return "", fmt.Errorf("no mail host of %s has an address of this family", probeName)
}

func (c *checkup) namedProbe(ctx context.Context, s source) (string, error) {
	for _, p := range c.Probe {
		host, port, err := net.SplitHostPort(p)
		if err != nil {
			return "", fmt.Errorf("probe %q is not host:port: %w", p, err)
		}
		if addr, err := c.address(ctx, s, host); err == nil {
			return net.JoinHostPort(addr.String(), port), nil
		}
	}
	return "", errors.New("no probe has an address of this family")
}

// address is an address of a host in the source's family.
func (c *checkup) address(ctx context.Context, s source, host string) (netip.Addr, error) {
	four := s.Address.Unmap().Is4()
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr = addr.Unmap(); addr.Is4() != four {
			return addr, errors.New("another family")
		}
		return addr, nil
	}
	qtype, _ := s.addressType()
	a, err := c.dns.Lookup(ctx, host, qtype)
	if err == nil && len(a.Addrs) == 0 {
		err = errors.New("no address")
	}
	if err != nil {
		return netip.Addr{}, err
	}
	return a.Addrs[0], nil
}
