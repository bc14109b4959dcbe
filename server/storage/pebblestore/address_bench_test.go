package pebblestore

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
)

// entriesFlag sizes the benchmarks with stored address entries. With ten million the store
// takes a few minutes to build and 2 GB of disk:
//
//	go test -run '^$' -bench Exclusions -benchtime 200x ./server/storage/pebblestore -args -entries 10000000
var entriesFlag = flag.Int("entries", 1_000_000, "address entries that the benchmarks of look-ups store")

// enter stores n quarantine entries, each with the reply that caused it.
func enter(b *testing.B, s *Store, n int) {
	at := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	quarantine := func(e address.Entry) address.Entry {
		return address.Entry{
			Address: e.Folded, Status: address.Quarantined, Origin: address.FromBounce, Reason: bounce.ReasonUserUnknown,
			Code: 10, Tag: "user_unknown", Created: at, Updated: at, LastError: at,
			Evidence: []address.Evidence{{
				Time: at, Change: address.WasQuarantined, Event: "0123456789ab-1a2b3c", ReplyCode: 550, Enhanced: "5.1.1",
				Message: "deliveries/spring-2026/messages/041041g0z3k8m", Phase: "rcpt", Code: 10, Rule: "user-unknown",
				Text:        "The email account that you tried to reach does not exist. Please try double-checking the address: " + e.Folded,
				Destination: "google", Provider: "google", Effect: bounce.AddressSuppress,
			}},
		}
	}
	var group sync.WaitGroup
	var left atomic.Int64
	for range 4 {
		group.Go(func() {
			for {
				first := int(left.Add(address.MaxWrite)) - address.MaxWrite
				if first >= n {
					return
				}
				keys := make([]address.Key, min(address.MaxWrite, n-first))
				for i := range keys {
					keys[i] = address.Key{Folded: entered(first + i), Scope: address.Scope{Tenant: "default", Class: address.Everything}}
				}
				if _, err := s.ChangeAddressEntries(context.Background(), keys, address.Request{}, "", quarantine); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	check(b, s.db.Compact(b.Context(), []byte{0}, []byte{0xff}, true)) // else it goes on during the measurement
}

func entered(i int) string { return fmt.Sprintf("gone%d@domain%d.example", i, i%1000) }

// BenchmarkExclusions asks, in chunks of 1000, about recipients of whom nothing is stored and
// about recipients that are all in quarantine.
func BenchmarkExclusions(b *testing.B) {
	const chunk = 1000
	ask := func(b *testing.B, s *Store, name func(int) string, excluded bool) {
		b.ReportAllocs()
		b.ResetTimer()
		cpu := cpuTime(b)
		var from atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			queries := make([]address.Query, chunk)
			for pb.Next() {
				first := int(from.Add(chunk)) * 7919
				for i := range queries {
					queries[i] = address.Query{Folded: name(first + i*31), Tenant: "default", Class: address.Marketing}
				}
				answers, err := s.Exclusions(context.Background(), queries)
				if err != nil || answers[0].Excluded() != excluded {
					b.Error(err, answers[0])
					return
				}
			}
		})
		n := float64(b.N) * chunk
		b.ReportMetric(float64((cpuTime(b)-cpu).Nanoseconds())/n, "cpu-ns/recipient")
		b.ReportMetric(n/b.Elapsed().Seconds(), "recipients/s")
	}
	nobody := func(i int) string { return fmt.Sprintf("recipient%d@domain%d.example", i, i%1000) }
	s, dir := benchStore(b)
	b.Run("entries=0/unknown", func(b *testing.B) { ask(b, s, nobody, false) })
	count := *entriesFlag
	began := time.Now()
	enter(b, s, count)
	b.Logf("%d entries: %.1f µs and %.0f octets of disk each", count, float64(time.Since(began).Microseconds())/float64(count), float64(diskBytes(b, dir))/float64(count))
	b.Run(fmt.Sprintf("entries=%d/unknown", count), func(b *testing.B) { ask(b, s, nobody, false) })
	b.Run(fmt.Sprintf("entries=%d/quarantined", count), func(b *testing.B) {
		ask(b, s, func(i int) string { return entered(i % count) }, true)
	})
}

// BenchmarkSettleBesideEntries is BenchmarkClaimAndSettle with other addresses' entries in the store:
// each delivery looks whether it clears a counter.
func BenchmarkSettleBesideEntries(b *testing.B) {
	b.ReportAllocs()
	const batch, writers = 64, 16
	s, _ := benchStore(b)
	enter(b, s, *entriesFlag)
	h, epoch := backlog(b, s, (b.N+writers)*batch)
	messages := feed(b, s, h, batch)
	cpu := cpuTime(b)
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				send(b, s, epoch, <-messages)
			}
		})
	}
	group.Wait()
	b.StopTimer()
	n := float64(b.N) * batch
	b.ReportMetric(n/b.Elapsed().Seconds(), "messages/s")
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/n, "cpu-µs/message")
}

// BenchmarkSettleFailures settles messages that put their addresses into quarantine.
func BenchmarkSettleFailures(b *testing.B) {
	b.ReportAllocs()
	const batch = 64
	s, _ := benchStore(b)
	h, epoch := backlog(b, s, (b.N+1)*batch)
	messages := feed(b, s, h, batch)
	b.ResetTimer()
	cpu := cpuTime(b)
	for range b.N {
		group := <-messages
		claims, settles := mta.Batch{Epoch: epoch}, mta.Batch{Epoch: epoch}
		for _, m := range group {
			claims.Claims = append(claims.Claims, mta.Claim{Message: m, Time: time.Now(), MessageID: m.ID.String() + "@example.com"})
			n := settlement(m, mta.Bounced, time.Now())
			n.Verdict = unknownUser
			settles.Settles = append(settles.Settles, n)
		}
		must[mta.Written](b)(s.Write(b.Context(), &claims))
		must[mta.Written](b)(s.Write(b.Context(), &settles))
	}
	n := float64(b.N) * batch
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/n, "cpu-µs/message")
}

// BenchmarkReturn takes bounce mails in about delivered messages, several at once.
func BenchmarkReturn(b *testing.B) {
	b.ReportAllocs()
	const batch = 64
	s, _ := benchStore(b)
	h, epoch := backlog(b, s, (b.N/batch+2)*batch)
	messages := feed(b, s, h, batch)
	var sent []*mta.Message
	for len(sent) < b.N {
		group := <-messages
		send(b, s, epoch, group)
		sent = append(sent, group...)
	}
	d := must[*campaign.Delivery](b)(s.Get(b.Context(), "d"))
	var next atomic.Int64
	b.ResetTimer()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m := sent[next.Add(1)-1]
			if _, err := s.Return(context.Background(), lateBounce(d, m.ID)); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
