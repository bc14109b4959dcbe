package pebblestore

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// slowSyncs makes each sync last longer by so much, as a network disk does.
func slowSyncs(by time.Duration) vfs.FS {
	return errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData {
			time.Sleep(by)
		}
		return nil
	}))
}

// BenchmarkGroupCommit claims and settles one message at a time, as many sessions at
// once as named: each waits for its own two durable writes. What gathers while one
// sync runs shares the next; there is no timer.
func BenchmarkGroupCommit(b *testing.B) {
	for _, disk := range []struct {
		name string
		fs   vfs.FS
	}{{"disk", vfs.Default}, {"disk+10ms", slowSyncs(10 * time.Millisecond)}} {
		for _, sessions := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("%s/sessions=%d", disk.name, sessions), func(b *testing.B) {
				dir := b.TempDir()
				s := open(b, disk.fs, func(o *Options) { o.Dir = dir })
				h, epoch := backlog(b, s, b.N+sessions)
				messages := feed(b, s, h, 1)
				cpu := cpuTime(b)
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ReportAllocs()
				b.ResetTimer()
				var group sync.WaitGroup
				for range sessions {
					group.Go(func() {
						for left.Add(-1) >= 0 {
							send(b, s, epoch, <-messages)
						}
					})
				}
				group.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
				b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/message")
				b.ReportMetric(float64(b.Elapsed().Milliseconds())*float64(min(sessions, b.N))/float64(b.N), "ms/message")
			})
		}
	}
}
