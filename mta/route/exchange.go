package route

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/miekg/dns"
)

const (
	// udpSize is the reply size offered by EDNS: it fits one packet on any
	// ordinary path (DNS flag day 2020).
	udpSize = 1232
	// udpRoom is the buffer for a reply; some servers exceed what was offered.
	udpRoom = 4096
	// tries is how often a question is sent before it counts as unanswered.
	tries = 2
)

// question is what one query asks. The name is in lower case, without the
// trailing dot.
type question struct {
	name  string
	qtype uint16
}

func (q question) String() string { return dns.TypeToString[q.qtype] + " " + q.name }

// query builds the message that asks q, with a random id.
func (q question) query(edns bool) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(q.name), q.qtype)
	if edns {
		m.SetEdns0(udpSize, false)
	}
	return m
}

// exchange sends q until a server gives an answer, which is a reply that says
// either success or NXDOMAIN. It goes through the servers in turn, at least two
// tries in all, and drops EDNS for a server that does not understand it. It
// waits for a place among the questions in flight, which comes in bounded time
// since every try is bounded.
func (r *Resolver) exchange(ctx context.Context, q question) (*dns.Msg, error) {
	r.inFlight <- struct{}{}
	defer func() { <-r.inFlight }()
	edns := true
	var failed error
	for try := range max(tries, len(r.servers)) {
		server := r.servers[try%len(r.servers)]
		reply, err := r.try(ctx, server, q.query(edns))
		if err == nil && (reply.Rcode == dns.RcodeSuccess || reply.Rcode == dns.RcodeNameError) {
			return reply, nil
		}
		if err == nil {
			edns = edns && !deniesEDNS(reply.Rcode)
			err = fmt.Errorf("the name server answered %s", rcodeName(reply.Rcode))
		}
		failed = fmt.Errorf("%s at %s: %w", q, server, err)
	}
	return nil, failed
}

// deniesEDNS reports whether a server says so, as RFC 6891 section 7 has it.
func deniesEDNS(rcode int) bool {
	return rcode == dns.RcodeFormatError || rcode == dns.RcodeNotImplemented || rcode == dns.RcodeBadVers
}

func rcodeName(rcode int) string {
	if name, ok := dns.RcodeToString[rcode]; ok {
		return name
	}
	return fmt.Sprintf("code %d", rcode)
}

// try asks one server over UDP, and again over TCP when the reply was cut
// (RFC 7766 section 5).
func (r *Resolver) try(ctx context.Context, server string, query *dns.Msg) (*dns.Msg, error) {
	reply, err := r.ask(ctx, "udp", server, query)
	if reply == nil || !reply.Truncated {
		return reply, err
	}
	reply, err = r.ask(ctx, "tcp", server, query)
	if err == nil && reply.Truncated {
		return nil, errors.New("the reply was cut short over TCP")
	}
	return reply, err
}

// ask sends query over a connection of its own, so that the random source port
// guards against forged replies (RFC 5452 section 9.2), and waits for the reply
// up to the timeout. With an error, the reply is nil or cut.
func (r *Resolver) ask(ctx context.Context, network, server string, query *dns.Msg) (*dns.Msg, error) {
	packed, err := query.Pack()
	if err != nil {
		return nil, fmt.Errorf("pack the query: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	conn, err := r.dial(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	if network == "udp" {
		return askPacket(conn, packed, query)
	}
	return askStream(conn, packed, query)
}

// askPacket reads until a packet answers the query: others are late or forged.
func askPacket(conn net.Conn, packed []byte, query *dns.Msg) (*dns.Msg, error) {
	if _, err := conn.Write(packed); err != nil {
		return nil, err
	}
	buf := make([]byte, udpRoom)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		reply, err := parse(buf[:n], query)
		if !errors.Is(err, errForeign) {
			return reply, err
		}
	}
}

// askStream frames messages by a length of two octets (RFC 1035 section 4.2.2).
func askStream(conn net.Conn, packed []byte, query *dns.Msg) (*dns.Msg, error) {
	frame := append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)
	if _, err := conn.Write(frame); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, err
	}
	return parse(buf, query)
}

// errForeign marks a message that is no reply to the query it came after.
var errForeign = errors.New("the reply belongs to another question")

// parse unpacks a reply to query. A cut reply comes back even when its end is
// unreadable, so that the caller can ask again over TCP.
func parse(packet []byte, query *dns.Msg) (*dns.Msg, error) {
	reply := new(dns.Msg)
	err := reply.Unpack(packet)
	if !answers(reply, query) {
		return nil, errForeign
	}
	if err != nil && !reply.Truncated {
		return nil, fmt.Errorf("the reply is malformed: %w", err)
	}
	return reply, nil
}

// answers reports whether reply is to query: same id and question (RFC 5452
// section 9.1). A refusal may come without its question.
func answers(reply, query *dns.Msg) bool {
	if !reply.Response || reply.Id != query.Id || reply.Opcode != dns.OpcodeQuery {
		return false
	}
	if len(reply.Question) == 0 {
		return reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError
	}
	got, want := reply.Question[0], query.Question[0]
	return len(reply.Question) == 1 && got.Qtype == want.Qtype && got.Qclass == want.Qclass &&
		strings.EqualFold(got.Name, want.Name)
}

// systemServers reads the name servers of this machine.
func systemServers(path string) ([]string, error) {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the system's name servers: %w (set dns.server to host:port)", err)
	}
	if len(conf.Servers) == 0 {
		return nil, fmt.Errorf("%s names no name server (set dns.server to host:port)", path)
	}
	servers := make([]string, 0, len(conf.Servers))
	for _, host := range conf.Servers {
		servers = append(servers, net.JoinHostPort(host, conf.Port))
	}
	return servers, nil
}
