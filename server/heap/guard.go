package heap

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Default is the limit of a node that was given none: three quarters of the memory of
// the machine, or of the control group of its process (memory.max of cgroups version
// 2), whichever is less; 0, no limit, where neither is known.
func Default() int64 {
	var least int64
	for _, n := range []int64{meminfo("/proc/meminfo"), number("/sys/fs/cgroup/memory.max")} {
		if n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	return least / 4 * 3
}

// meminfo reads MemTotal (proc_meminfo(5)) in octets; 0 when it cannot.
func meminfo(file string) int64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "MemTotal:" {
			kib, _ := strconv.ParseInt(fields[1], 10, 54)
			return kib << 10
		}
	}
	return 0
}

// number reads a file with one number; 0 for any other ("max").
func number(file string) int64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// Limit has the collector work harder from four fifths of the limit on, so that a Guard
// finds more than the limit in use only if it is really needed. It holds for the life of the
// process. Whoever sets GOMEMLIMIT decides otherwise.
func Limit(limit int64) {
	if limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit / 5 * 4)
	}
}

// Used is the memory that the Go runtime has of the system, in octets: what its own
// limit counts (runtime/debug.SetMemoryLimit).
func Used() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	for _, one := range s {
		if one.Value.Kind() != metrics.KindUint64 {
			return 0
		}
	}
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}

// Guard says when the process uses more memory than it may. Its methods are safe for
// concurrent use.
type Guard struct {
	limit int64 // 0: none
	used  func() int64
	log   *slog.Logger

	mu      sync.Mutex
	high    bool
	now     int64
	pressed chan struct{} // closed while high
}

// NewGuard makes a guard that has not looked yet. used is asked at each look (Used); limit 0 is none.
func NewGuard(limit int64, used func() int64, log *slog.Logger) *Guard {
	return &Guard{limit: limit, used: used, log: log, pressed: make(chan struct{})}
}

// every is the time between two looks. A gigabit network brings 12 MiB meanwhile.
const every = 100 * time.Millisecond

// Run looks until ctx ends.
func (g *Guard) Run(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			g.Look()
		case <-ctx.Done():
			return
		}
	}
}

// Look judges what is used now. What was too much is no more once a tenth of the limit is free.
func (g *Guard) Look() {
	now := g.used()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = now
	high := g.limit > 0 && (now > g.limit || g.high && now > g.limit/10*9)
	if high == g.high {
		return
	}
	g.high = high
	if high {
		close(g.pressed)
		g.log.Warn("memory is short: nothing new is taken in", "used_bytes", now, "memory.max", g.limit)
		return
	}
	g.pressed = make(chan struct{})
	g.log.Info("memory suffices again", "used_bytes", now, "memory.max", g.limit)
}

// Pressed is closed while too much is used; ask anew each time.
func (g *Guard) Pressed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pressed
}

// Limit is the guard's limit in octets; 0 is none.
func (g *Guard) Limit() int64 { return g.limit }

// Admit answers a *FullError while too much is used.
func (g *Guard) Admit() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.high {
		return nil
	}
	return g.full()
}

// Full is the *FullError of what was refused because of Pressed.
func (g *Guard) Full() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.full()
}

func (g *Guard) full() error {
	return &FullError{Used: g.now, Limit: g.limit, RetryAfter: retryAfter}
}

// retryAfter is when a refused client should come back.
const retryAfter = 10 * time.Second

// FullError refuses what would take more memory.
type FullError struct {
	Used, Limit int64         // octets
	RetryAfter  time.Duration // when to come back
}

// Error names the cause and the remedy.
func (e *FullError) Error() string {
	return fmt.Sprintf("the node uses %d MiB of memory, and may use %d (memory.max); nothing new is taken in until there is room: try again in %v, or give it more memory and raise memory.max",
		e.Used>>20, e.Limit>>20, e.RetryAfter)
}
