// Package disk watches how much of the disk is free, and says what may still be done:
// below one limit nothing new is taken in, below a second one sending pauses, too, so
// that what is under way can still be settled. Both end by themselves when there is room again.
package disk

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Level is how full the disk is.
type Level int32

// The levels, from the best.
const (
	Roomy  Level = iota // all goes on
	Low                 // nothing new is taken in
	Scarce              // sending pauses, too
)

// String is the level's name in logs.
func (l Level) String() string { return [...]string{"roomy", "low", "scarce"}[l] }

// Limits are octets of free disk; 0 is no limit.
type Limits struct {
	Low    int64 // below it the level is Low
	Scarce int64 // below it the level is Scarce
}

// recovery is how much more than a limit must be free, in percent of it, before the
// level behind it is left: a disk at the limit would otherwise flap.
const recovery = 20

// Judge is the level that follows from the level before and what is free now. It is pure.
func (l Limits) Judge(was Level, free int64) Level {
	below := func(limit int64, held bool) bool {
		if held {
			limit += limit / 100 * recovery
		}
		return limit > 0 && free < limit
	}
	switch {
	case below(l.Scarce, was == Scarce):
		return Scarce
	case below(l.Low, was >= Low):
		return Low
	}
	return Roomy
}

// FullError refuses what would fill the disk.
type FullError struct {
	Free, Limit int64         // octets
	RetryAfter  time.Duration // when to come back
}

// Error names the cause and the remedy.
func (e *FullError) Error() string {
	return fmt.Sprintf("the disk of data_dir is nearly full: %d MiB free, %d MiB wanted (storage.min_free); nothing new is taken in until there is room: free or add disk, delete old deliveries, or shorten retention; then try again",
		e.Free>>20, e.Limit>>20)
}

// retryAfter is when a refused client should come back.
const retryAfter = 30 * time.Second

// Change is a change of the level.
type Change struct {
	From, To Level
	Free     int64
	Limits   Limits
}

// Options are what a Guard needs.
type Options struct {
	// Free answers the octets of disk that are free.
	Free func() (int64, error)
	// Limits are asked at each look, so they may change.
	Limits func() Limits
	// Changed is told of changes, one at a time, before they are reported. What it does should
	// be in force when it returns; an error is logged and told again with the next look.
	Changed func(ctx context.Context, c Change) error
	Log     *slog.Logger
}

// Guard watches one disk. Its methods are safe for concurrent use.
type Guard struct {
	o Options

	mu       sync.Mutex // held while looking
	blind    bool       // the last look failed
	announce bool       // Changed failed for the level

	state  sync.Mutex
	level  Level
	free   int64
	limits Limits
}

// NewGuard makes a guard that has not looked yet.
func NewGuard(o Options) *Guard { return &Guard{o: o, free: -1} }

// every is the time between two looks. Within it even a fast disk takes less than the default
// limits lie apart.
const every = time.Second

// Run looks until ctx ends.
func (g *Guard) Run(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			g.Look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// Look judges what is free now. A disk that does not answer keeps its level.
func (g *Guard) Look(ctx context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	free, err := g.o.Free()
	if err != nil {
		if !g.blind {
			g.o.Log.Warn("free disk is not known; the limits of storage do not hold", "error", err)
		}
		g.blind = true
		return
	}
	g.blind = false
	was, limits := g.Level(), g.o.Limits()
	is := limits.Judge(was, free)
	g.state.Lock()
	g.level, g.free, g.limits = is, free, limits
	g.state.Unlock()
	if is != was {
		g.o.Log.Log(ctx, severity[is], "free disk", "level", is.String(), "free_bytes", free, "min_free", limits.Low, "min_free_sending", limits.Scarce)
	}
	if is != was || g.announce {
		err := g.o.Changed(ctx, Change{From: was, To: is, Free: free, Limits: limits})
		g.announce = err != nil
		if err != nil && ctx.Err() == nil {
			g.o.Log.Error("acting on free disk; the next look tries again", "level", is.String(), "error", err)
		}
	}
}

var severity = map[Level]slog.Level{Roomy: slog.LevelInfo, Low: slog.LevelWarn, Scarce: slog.LevelError}

// Level is the level as of the last look.
func (g *Guard) Level() Level {
	g.state.Lock()
	defer g.state.Unlock()
	return g.level
}

// Free is how much was free at the last look; negative before the first.
func (g *Guard) Free() int64 {
	g.state.Lock()
	defer g.state.Unlock()
	return g.free
}

// Admit answers a *FullError when nothing new may be taken in.
func (g *Guard) Admit() error {
	g.state.Lock()
	defer g.state.Unlock()
	if g.level == Roomy {
		return nil
	}
	return &FullError{Free: g.free, Limit: g.limits.Low, RetryAfter: retryAfter}
}
