package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/miekg/dns"
)

// Names: recipient domain i is r<i>.test, of destination h<i % destinations>.test;
// dead domain i is x<i>.test, of y<i % dead destinations>.test.

// names is the DNS of all this. Its answers live long enough to be asked for once.
type names struct {
	sc     scenario
	server *dns.Server
	addr   string
	asked  atomic.Int64
}

func newNames(sc scenario) (*names, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &names{sc: sc, addr: conn.LocalAddr().String()}
	n.server = &dns.Server{PacketConn: conn, Handler: n}
	go func() { _ = n.server.ActivateAndServe() }()
	return n, nil
}

func (n *names) close() error { return n.server.Shutdown() }

// ServeDNS implements dns.Handler.
func (n *names) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	n.asked.Add(1)
	reply := new(dns.Msg)
	reply.SetReply(q)
	if len(q.Question) == 1 {
		if rr := n.answer(q.Question[0]); rr != nil {
			reply.Answer = append(reply.Answer, rr)
		}
	}
	_ = w.WriteMsg(reply)
}

const ttl = 86400

func (n *names) answer(q dns.Question) dns.RR {
	name := strings.ToLower(q.Name)
	head := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}
	switch q.Qtype {
	case dns.TypeMX:
		if mx := n.exchange(name); mx != "" {
			return &dns.MX{Hdr: head, Preference: 10, Mx: mx}
		}
	case dns.TypeA:
		if kind, i := parse(strings.TrimPrefix(name, "mx.")); kind == 'h' {
			return &dns.A{Hdr: head, A: net.ParseIP(address(i))}
		} else if kind == 'y' {
			return &dns.A{Hdr: head, A: net.ParseIP(holeAddress)}
		}
	}
	return nil
}

// exchange is the MX host of a domain.
func (n *names) exchange(domain string) string {
	switch kind, i := parse(domain); kind {
	case 'r':
		return fmt.Sprintf("mx.h%d.test.", n.sc.destination(i))
	case 't':
		return fmt.Sprintf("mx.h%d.test.", n.sc.Destinations+i)
	case 'x':
		return fmt.Sprintf("mx.y%d.test.", i%max(n.sc.DeadPlaces, 1))
	}
	return ""
}

// parse takes r17.test. apart.
func parse(name string) (kind byte, number int) {
	rest, ok := strings.CutSuffix(name, ".test.")
	if !ok || len(rest) < 2 {
		return 0, 0
	}
	number, err := strconv.Atoi(rest[1:])
	if err != nil {
		return 0, 0
	}
	return rest[0], number
}
