package serve

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"

	"github.com/miekg/dns"
)

// dnsServer answers over UDP and TCP on one port.
type dnsServer struct {
	addr     string
	udp, tcp *dns.Server
	done     sync.WaitGroup
}

// serveDNS starts both servers; with port 0 it looks for one that is free for both.
func serveDNS(listen string, z *zone) (*dnsServer, error) {
	var err error
	for range 50 {
		var s *dnsServer
		if s, err = listenDNS(listen, z); err == nil {
			return s, nil
		}
		if _, port, _ := net.SplitHostPort(listen); port != "0" || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, fmt.Errorf("dns listen %q: %w", listen, err)
}

func listenDNS(listen string, z *zone) (*dnsServer, error) {
	tcp, udp, err := listenBoth(listen)
	if err != nil {
		return nil, err
	}
	s := &dnsServer{addr: tcp.Addr().String()}
	var ready sync.WaitGroup
	ready.Add(2)
	s.udp = &dns.Server{PacketConn: udp, Handler: handler{z}, NotifyStartedFunc: ready.Done}
	s.tcp = &dns.Server{Listener: tcp, Handler: handler{z}, NotifyStartedFunc: ready.Done}
	s.done.Go(func() { _ = s.udp.ActivateAndServe() })
	s.done.Go(func() { _ = s.tcp.ActivateAndServe() })
	ready.Wait()
	return s, nil
}

// listenBoth takes one port for TCP and UDP. Where any port will do, one that somebody has for
// UDP gives way to another.
func listenBoth(listen string) (net.Listener, net.PacketConn, error) {
	for tries := 1; ; tries++ {
		tcp, err := net.Listen("tcp", listen)
		if err != nil {
			return nil, nil, err
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			return tcp, udp, nil
		}
		_ = tcp.Close()
		if !strings.HasSuffix(listen, ":0") || tries == 20 {
			return nil, nil, err
		}
	}
}

func (s *dnsServer) close() {
	_ = s.udp.Shutdown()
	_ = s.tcp.Shutdown()
	s.done.Wait()
}

// handler answers queries from a zone with authority.
type handler struct{ zone *zone }

// ServeDNS implements dns.Handler.
func (h handler) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := h.respond(q)
	size := dns.MinMsgSize
	if opt := q.IsEdns0(); opt != nil { // RFC 6891
		m.SetEdns0(1232, false)
		size = max(size, int(min(opt.UDPSize(), 1232)))
	}
	if _, tcp := w.LocalAddr().(*net.TCPAddr); tcp {
		size = dns.MaxMsgSize
	}
	m.Truncate(size)
	_ = w.WriteMsg(m) // the peer may have gone; it will ask again
}

func (h handler) respond(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	if q.Opcode != dns.OpcodeQuery {
		return m.SetRcode(q, dns.RcodeNotImplemented)
	}
	if len(q.Question) != 1 || q.Question[0].Qclass != dns.ClassINET {
		return m.SetRcode(q, dns.RcodeFormatError)
	}
	m.SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	records, exists, err := h.zone.answer(q.Question[0])
	switch {
	case err != nil:
		return m.SetRcode(q, dns.RcodeServerFailure)
	case !exists:
		m.Rcode = dns.RcodeNameError
	}
	m.Answer = records
	if len(records) == 0 {
		m.Ns = []dns.RR{negative()}
	}
	return m
}

// negative is the SOA that says how long an absence may be believed (RFC 2308).
func negative() dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: recordTTL},
		Ns:  "ns.invalid.", Mbox: "hostmaster.invalid.", Serial: 1,
		Refresh: 3600, Retry: 600, Expire: 86400, Minttl: recordTTL,
	}
}
