package route

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// BenchmarkRouteCached is the usual case: a domain known already.
func BenchmarkRouteCached(b *testing.B) {
	r := newWorld(b, ordinary).resolver(b)
	if _, err := r.Route(b.Context(), "many.example"); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Route(b.Context(), "many.example"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRouteFresh resolves a new domain each time, whose host is known.
func BenchmarkRouteFresh(b *testing.B) {
	r := benchResolver(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := r.Route(b.Context(), fmt.Sprintf("d%d.example", i)); err != nil {
			b.Fatal(err)
		}
	}
}

// benchResolver has a server that gives every name one MX host and address.
func benchResolver(b *testing.B) *Resolver {
	records := map[uint16]string{dns.TypeMX: "MX 10 mx.example.", dns.TypeA: "A 192.0.2.1"}
	return resolverOf(b, func(packet []byte) [][]byte {
		query := new(dns.Msg)
		if err := query.Unpack(packet); err != nil {
			return nil
		}
		reply := new(dns.Msg).SetReply(query)
		if record := records[query.Question[0].Qtype]; record != "" {
			rr, _ := dns.NewRR(query.Question[0].Name + " 300 IN " + record)
			reply.Answer = append(reply.Answer, rr)
		}
		packed, _ := reply.Pack()
		return [][]byte{packed}
	})
}

func BenchmarkOrder(b *testing.B) {
	hosts := make([]Host, 5)
	for i := range hosts {
		hosts[i] = Host{fmt.Sprintf("m%d.example", i), uint16(i / 3), []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		Order(hosts, rnd)
	}
}

func BenchmarkGuard(b *testing.B) {
	addr := netip.MustParseAddr("2a00:1450:4010:c0f::1a")
	b.ReportAllocs()
	for b.Loop() {
		if err := (Guard{}).Check(addr); err != nil {
			b.Fatal(err)
		}
	}
}
