package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/veredus/veredus/integration/node"
)

// phase is a part of the node's work in which it is killed. play ends with the node dead.
type phase struct {
	name string
	play func(ctx context.Context, h *harness, m *mailing) error
}

var phases = []phase{
	{"ingest", killInIngest},
	{"start", killInStart},
	{"sending", killInSending},
	{"settle", killInSettle},
	{"compaction", killInCompaction},
	{"reload", killInReload},
	{"shutdown", killInShutdown},
	{"start-up", killInStartUp},
}

func phaseNames() string {
	var names []string
	for _, p := range phases {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

// during kills the node while f is under way. What f then answers does not matter.
func (h *harness) during(ctx context.Context, f func(ctx context.Context) error, least, spread time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	h.moment(least, spread)
	err := h.die()
	cancel()
	<-done
	return err
}

func killInIngest(ctx context.Context, h *harness, m *mailing) error {
	campaigns := h.node.Campaigns()
	return h.during(ctx, func(ctx context.Context) error {
		if err := m.create(ctx, campaigns); err != nil {
			return err
		}
		return m.upload(ctx, campaigns)
	}, time.Millisecond, 120*time.Millisecond)
}

func killInStart(ctx context.Context, h *harness, m *mailing) error {
	campaigns := h.node.Campaigns()
	if err := m.create(ctx, campaigns); err != nil {
		return err
	}
	if err := m.upload(ctx, campaigns); err != nil {
		return err
	}
	return h.during(ctx, func(ctx context.Context) error { return m.start(ctx, campaigns) }, 0, 40*time.Millisecond)
}

func killInSending(ctx context.Context, h *harness, m *mailing) error {
	if err := m.put(ctx, h.node.Campaigns()); err != nil {
		return err
	}
	h.moment(0, 300*time.Millisecond)
	return h.die()
}

// killInSettle kills between what a receiver took and what the node knows of it, or
// just behind: within 3 ms of a message that the receivers took.
func killInSettle(ctx context.Context, h *harness, m *mailing) error {
	until := h.net.Ledger.Total() + 1 + h.rng.IntN(h.opt.messages/2)
	if err := m.put(ctx, h.node.Campaigns()); err != nil {
		return err
	}
	late := time.After(5 * time.Second)
	for total := 0; total < until; {
		select {
		case total = <-h.taken:
		case <-late:
			total = until
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	h.moment(0, 3*time.Millisecond)
	return h.die()
}

// killInCompaction kills while table files come and go. A start replays the log and writes
// it to a table; every few starts the fourth such table begins a compaction. One file more
// is a flush under way; a second, or one that went, is a compaction's.
func killInCompaction(ctx context.Context, h *harness, m *mailing) error {
	if err := m.put(ctx, h.node.Campaigns()); err != nil {
		return err
	}
	want := 1 + h.rng.IntN(3)
	for life := 0; ; life++ {
		before := h.node.Tables()
		if err := h.die(); err != nil {
			return err
		}
		if life == 5 || ctx.Err() != nil {
			return ctx.Err()
		}
		if err := h.node.Start(); err != nil {
			return err
		}
		came, went := h.seeTables(before, want)
		if came+went >= want {
			h.report.tables++
			if went > 0 {
				h.report.compactions++
			}
			h.moment(0, 5*time.Millisecond)
			return h.die()
		}
	}
}

// seeTables waits, for a second, until so many files have come or gone.
func (h *harness) seeTables(before map[string]bool, want int) (came, went int) {
	for late := time.Now().Add(time.Second); time.Now().Before(late) && came+went < want; {
		time.Sleep(200 * time.Microsecond)
		came, went = difference(before, h.node.Tables())
	}
	return came, went
}

func difference(before, after map[string]bool) (came, went int) {
	for name := range after {
		if !before[name] {
			came++
		}
	}
	for name := range before {
		if !after[name] {
			went++
		}
	}
	return came, went
}

func killInReload(ctx context.Context, h *harness, m *mailing) error {
	if err := m.put(ctx, h.node.Campaigns()); err != nil {
		return err
	}
	h.moment(0, 100*time.Millisecond)
	if err := h.node.WriteRules(node.Rules(10+h.rng.IntN(20), patience)); err != nil {
		return err
	}
	h.node.Signal(syscall.SIGHUP)
	h.moment(0, 20*time.Millisecond)
	return h.die()
}

// killInShutdown asks the node to stop and loses patience. It may be gone before: then
// in good order.
func killInShutdown(ctx context.Context, h *harness, m *mailing) error {
	if err := m.put(ctx, h.node.Campaigns()); err != nil {
		return err
	}
	h.moment(0, 100*time.Millisecond)
	h.node.Signal(syscall.SIGTERM)
	h.moment(0, 60*time.Millisecond)
	return h.die()
}

// killInStartUp kills a node before, or just as, it serves.
func killInStartUp(ctx context.Context, h *harness, m *mailing) error {
	if err := m.put(ctx, h.node.Campaigns()); err != nil {
		return err
	}
	if err := h.die(); err != nil {
		return err
	}
	for range 1 + h.rng.IntN(2) {
		if err := h.node.Start(); err != nil {
			return err
		}
		h.moment(0, 300*time.Millisecond)
		if err := h.die(); err != nil {
			return fmt.Errorf("at its start: %w", err)
		}
	}
	return nil
}
