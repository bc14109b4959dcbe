package pebblestore

import (
	"testing"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/smtpc"
)

// BenchmarkHurry makes waiting retries due, in pages of 500 that are read and then
// rewritten, each durable before the next: what RetryNow costs a message.
func BenchmarkHurry(b *testing.B) {
	const page = 500
	b.ReportAllocs()
	s, _ := benchStore(b)
	h, epoch := backlog(b, s, max(b.N, page))
	base := time.Now()
	n := 0
	for domain := uint32(0); n < b.N; {
		runs, err := s.Runs(b.Context(), h, domain, 1)
		check(b, err)
		if len(runs) == 0 {
			break
		}
		domain = runs[0].Domain
		res, err := s.Load(b.Context(), mta.LoadRequest{Handover: h, Domain: domain, Fresh: 10_000, Now: base})
		check(b, err)
		claims, settles := &mta.Batch{Epoch: epoch}, &mta.Batch{Epoch: epoch}
		for _, m := range res.Fresh {
			claims.Claims = append(claims.Claims, mta.Claim{Message: m, Time: base})
			settles.Settles = append(settles.Settles, mta.Settlement{
				Message: m, Outcome: mta.Deferred, Time: base, Next: base.Add(time.Hour + time.Duration(n)), Destination: m.Domain,
				Attempt: &mta.Attempt{Number: 1, Time: base, Source: "s", Reply: smtpc.Reply{Code: 450}},
			})
			n++
		}
		must[mta.Written](b)(s.Write(b.Context(), claims))
		must[mta.Written](b)(s.Write(b.Context(), settles))
	}
	cpu, done := cpuTime(b), 0
	b.ResetTimer()
	for domain := uint32(0); ; {
		runs, err := s.Runs(b.Context(), h, domain, 1)
		check(b, err)
		if len(runs) == 0 {
			break
		}
		domain = runs[0].Domain
		req := mta.WaitingRequest{Handover: h, Domain: domain, Retries: true, Due: base, Settled: base, Max: page}
		for {
			got, err := s.Waiting(b.Context(), req)
			check(b, err)
			batch := &mta.Batch{Epoch: epoch}
			for _, m := range got.Messages {
				batch.Hurries = append(batch.Hurries, mta.Hurry{Message: m, Due: base, Work: "w"})
			}
			must[mta.Written](b)(s.Write(b.Context(), batch))
			if done += len(got.Messages); got.Done {
				break
			}
			req.After = got.Next
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(done)/b.Elapsed().Seconds(), "messages/s")
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(max(done, 1)), "cpu-µs/message")
}
