package pebblestore

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
)

// The stores of the benchmarks are on the machine's disk, with real syncs.

func benchStore(b *testing.B) (*Store, string) {
	b.Helper()
	dir := b.TempDir()
	return open(b, vfs.Default, func(o *Options) { o.Dir = dir }), dir
}

// benchItems is a chunk of rows of about 300 octets over 1000 recipient domains.
func benchItems(from, n int) []campaign.Item {
	padding := strings.Repeat("x", 200)
	list := make([]campaign.Item, n)
	for i := range list {
		index := from + i
		address := fmt.Sprintf("recipient%d", index)
		domain := fmt.Sprintf("domain%d.example", index%1000)
		list[i] = campaign.Item{
			Index: int64(index), Address: address + "@" + domain, Folded: address + "@" + domain, Domain: domain,
			Variables: []byte(`{"name":"` + address + `","more":"` + padding + `"}`),
		}
	}
	return list
}

// BenchmarkIngest takes recipients in, in chunks of 1000, by as many streams as
// deliveries; every chunk is durable before the stream's next is sent.
func BenchmarkIngest(b *testing.B) {
	for _, streams := range []int{1, 4} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			b.ReportAllocs()
			s, dir := benchStore(b)
			for i := range streams {
				must[*campaign.Delivery](b)(s.Create(b.Context(), draft(fmt.Sprintf("d%d", i)), campaign.Request{}))
			}
			const chunk = 1000
			cpu := cpuTime(b)
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var group sync.WaitGroup
			for i := range streams {
				group.Go(func() {
					for from := 1; left.Add(-1) >= 0; from += chunk {
						if _, err := s.Add(b.Context(), fmt.Sprintf("d%d", i), benchItems(from, chunk)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			group.Wait()
			b.StopTimer()
			n := float64(b.N) * chunk
			b.ReportMetric(n/b.Elapsed().Seconds(), "recipients/s")
			b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/n, "cpu-µs/recipient")
			b.ReportMetric(float64(diskBytes(b, dir))/n, "diskB/recipient")
		})
	}
}

// cpuTime is what the process used so far: comparable on a busy machine.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	check(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func diskBytes(b *testing.B, dir string) (size int64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				size += info.Size()
			}
		}
		return nil
	})
	check(b, err)
	return size
}

// BenchmarkClaimAndSettle sends messages through the store: batches of 64 claims, then
// of 64 settlements, by several writers at once.
func BenchmarkClaimAndSettle(b *testing.B) {
	for _, writers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			b.ReportAllocs()
			const batch = 64
			s, _ := benchStore(b)
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
		})
	}
}

// backlog makes a running delivery of n messages.
func backlog(b *testing.B, s *Store, n int) (handover, epoch uint64) {
	must[*campaign.Delivery](b)(s.Create(b.Context(), draft("d"), campaign.Request{}))
	for from := 1; from <= n; from += 1000 {
		must[campaign.Added](b)(s.Add(b.Context(), "d", benchItems(from, min(1000, n-from+1))))
	}
	d := start(b, s, "d")
	return d.Handover, must[*mta.Recovery](b)(s.Recover(b.Context(), time.Now())).Epoch
}

// feed gives the backlog in groups.
func feed(b *testing.B, s *Store, handover uint64, size int) <-chan []*mta.Message {
	groups := make(chan []*mta.Message, 64)
	var done sync.WaitGroup
	done.Go(func() { load(b.Context(), s, handover, size, groups) })
	b.Cleanup(done.Wait)
	return groups
}

func load(ctx context.Context, s *Store, handover uint64, size int, groups chan<- []*mta.Message) {
	var group []*mta.Message
	for domain := uint32(1); domain <= 1000; domain++ {
		res, err := s.Load(ctx, mta.LoadRequest{Handover: handover, Domain: domain, Fresh: 1 << 20, Now: time.Now()})
		if err != nil {
			return
		}
		for _, m := range res.Fresh {
			if group = append(group, m); len(group) < size {
				continue
			}
			select {
			case groups <- group:
				group = nil
			case <-ctx.Done():
				return
			}
		}
	}
}

// send claims messages and settles them as delivered.
func send(b *testing.B, s *Store, epoch uint64, messages []*mta.Message) {
	now := time.Now()
	claims, settles := mta.Batch{Epoch: epoch}, mta.Batch{Epoch: epoch}
	for _, m := range messages {
		claims.Claims = append(claims.Claims, mta.Claim{Message: m, Time: now, MessageID: m.ID.String() + "@example.com"})
		settles.Settles = append(settles.Settles, settlement(m, mta.Delivered, now))
	}
	for _, batch := range []*mta.Batch{&claims, &settles} {
		if _, err := s.Write(context.Background(), batch); err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkReadEvents reads the event log in pages of 1000.
func BenchmarkReadEvents(b *testing.B) {
	b.ReportAllocs()
	s, _ := benchStore(b)
	const n = 20_000
	h, epoch := backlog(b, s, n)
	messages := feed(b, s, h, 64)
	for range n / 64 {
		send(b, s, epoch, <-messages)
	}
	_, end := s.Ends()
	at := feedback.Positions{0}
	var read int
	b.ResetTimer()
	for range b.N {
		events, next, err := s.Read(b.Context(), at, 1000)
		check(b, err)
		read += len(events)
		if at = next; at[0] == end[0] {
			at = feedback.Positions{0}
		}
	}
	b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkLoad loads 64 messages of a run that was settled up to the middle, with
// the mark where it belongs.
func BenchmarkLoad(b *testing.B) {
	b.ReportAllocs()
	s, _ := benchStore(b)
	h, _ := backlog(b, s, 100_000)
	b.ResetTimer()
	for i := range b.N {
		res, err := s.Load(b.Context(), mta.LoadRequest{Handover: h, Domain: uint32(i%1000 + 1), Fresh: 64, Now: time.Now()})
		check(b, err)
		if len(res.Fresh) != 64 {
			b.Fatalf("loaded %d", len(res.Fresh))
		}
	}
}
