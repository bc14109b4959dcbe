// Package heap paces the garbage collector of a node, and says when it uses too much memory.
package heap

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// calmGarbage is how much is allocated at least between two collections. A node that
// sends lives on some 30 MB and makes 30 KB of garbage for each message: collected
// at every doubling, as is Go's way, a tenth of its CPU would go there.
const calmGarbage = 128 << 20

// Calm lets the process's heap, while it is small, grow by 128 MiB before it is
// collected; a larger one is collected when it has doubled, or comes near 672 MiB. It holds for the life of the
// process. Whoever sets GOGC or GOMEMLIMIT decides otherwise, and Calm leaves the collector alone.
func Calm() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	c := &collector{percent: 100}
	c.pace()
	c.watch()
}

// collector is Go's, steered. Its methods run one at a time: each collection's end
// leads to the next.
type collector struct{ percent int }

// watch paces anew after each collection: a cleanup runs behind the first that finds
// its object unreachable.
func (c *collector) watch() {
	type sign struct{ _ *int } // with a pointer: tiny objects share their memory with others
	runtime.AddCleanup(&sign{}, func(c *collector) {
		c.pace()
		c.watch()
	}, c)
}

// pace sets the percentage by which the heap may grow.
func (c *collector) pace() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if live[0].Value.Kind() != metrics.KindUint64 {
		return
	}
	percent := growth(live[0].Value.Uint64())
	if diff := percent - c.percent; diff*diff*100 > c.percent*c.percent { // by more than a tenth: setting it stops the world
		c.percent = percent
		debug.SetGCPercent(percent)
	}
}

// A heap that would come to more than roomyHeap by doubling grows by less, but not by
// less than leastGrowth, percent: so a node with ten million messages queued stays
// below a gigabyte, for a few percent of its CPU.
const (
	roomyHeap   = 672 << 20
	leastGrowth = 30
)

// growth is the percentage by which a heap of so many bytes may grow.
func growth(live uint64) int {
	const least = 4 << 20 // Go's own smallest heap
	live = max(live, least)
	if live*2 <= roomyHeap {
		return int(max(100, calmGarbage*100/live))
	}
	return int(max(leastGrowth, (roomyHeap-min(live, roomyHeap))*100/live))
}
