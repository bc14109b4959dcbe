package learning

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
)

const (
	// maxPending bounds the distinct texts that wait for the store; what is new beyond it is not remembered.
	maxPending = 4096
	// writeSize is how many texts go into one write.
	writeSize = 500
	// evictSize is how many texts leave at once, so that the search for them is rare.
	evictSize = MaxTexts / 20
)

// TableOptions are what a Table needs; all are required but Log and MaxTexts.
type TableOptions struct {
	Store Store
	// Bounces are the rules in force.
	Bounces func() *bounce.Table
	// Log takes what could not be written; nil discards it.
	Log *slog.Logger
	// MaxTexts is how many texts are kept; 0 means MaxTexts.
	MaxTexts int
}

// Table counts the texts of failed replies. What is told to it waits in memory,
// bounded, while a write is under way, and goes into the store with the next one: no timer, and no write
// where nothing failed. Methods are safe for concurrent use.
type Table struct {
	o TableOptions

	mu      sync.Mutex
	pending map[ID]*Text
	dropped int64 // texts said while too many waited
	closed  bool

	wake   chan struct{}   // something waits
	sync   chan chan error // see Flush
	done   chan struct{}   // the writer ended
	cancel context.CancelFunc

	count int // texts in the store; the writer's
}

// NewTable begins to collect. Close it.
func NewTable(o TableOptions) *Table {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxTexts == 0 {
		o.MaxTexts = MaxTexts
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &Table{
		o: o, pending: map[ID]*Text{}, cancel: cancel, count: -1,
		wake: make(chan struct{}, 1), sync: make(chan chan error), done: make(chan struct{}),
	}
	go t.run(ctx)
	return t
}

// Settled takes what the relay settled, behind the write that made it durable: the
// replies of failed attempts. It does not block.
func (t *Table) Settled(list []mta.Settlement) {
	for i := range list {
		if s := &list[i]; s.Outcome != mta.Delivered && s.Attempt != nil {
			t.Said(s.Attempt.Reply, s.Provider, s.Time)
		}
	}
}

// Said takes one failed reply, for example of a bounce mail; provider is empty when
// none is known. It does not block.
func (t *Table) Said(reply smtpc.Reply, provider string, at time.Time) {
	if reply.Positive() {
		return
	}
	text, ok := newText(reply, provider, at)
	if !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.pending[text.ID]
	switch {
	case t.closed:
		return
	case known != nil:
		known.add(&text)
	case len(t.pending) >= maxPending:
		t.dropped++
	default:
		t.pending[text.ID] = &text
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Flush returns once everything told before is in the store.
func (t *Table) Flush(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case t.sync <- answer:
	case <-t.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close writes what waits and ends; at the end of ctx it leaves the rest. What is
// told to it afterwards is not remembered.
func (t *Table) Close(ctx context.Context) error {
	err := t.Flush(ctx)
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		close(t.wake)
	}
	t.mu.Unlock()
	if err != nil {
		t.cancel()
	}
	select {
	case <-t.done:
	case <-ctx.Done():
		t.cancel()
		<-t.done
	}
	t.cancel()
	return err
}

// run is the writer.
func (t *Table) run(ctx context.Context) {
	defer close(t.done)
	for {
		var answer chan error
		open := true
		select {
		case _, open = <-t.wake:
		case answer = <-t.sync:
		}
		err := t.write(ctx)
		if err != nil {
			t.o.Log.Error("reply texts are not remembered", "error", err)
		}
		if answer != nil {
			answer <- err
		}
		if !open {
			return
		}
	}
}

// write stores what waits.
func (t *Table) write(ctx context.Context) error {
	waiting, dropped := t.take()
	if len(waiting) == 0 {
		return nil
	}
	if dropped > 0 {
		t.o.Log.Warn("more distinct reply texts at once than can be remembered", "left_out", dropped)
	}
	if t.count < 0 {
		if err := t.recount(ctx); err != nil {
			return err
		}
	}
	texts := make([]Text, 0, len(waiting))
	for _, text := range waiting {
		texts = append(texts, *text)
	}
	slices.SortFunc(texts, func(a, b Text) int { return slices.Compare(a.ID[:], b.ID[:]) })
	for part := range slices.Chunk(texts, writeSize) {
		if err := t.store(ctx, part); err != nil {
			return err
		}
	}
	return t.makeRoom(ctx)
}

// take answers what waits and makes room for more.
func (t *Table) take() (waiting map[ID]*Text, dropped int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.pending) == 0 {
		return nil, 0
	}
	waiting, dropped = t.pending, t.dropped
	t.pending, t.dropped = map[ID]*Text{}, 0
	return waiting, dropped
}

// store writes some texts, each with what the rules make of its first reply: a
// later one may have come with another code.
func (t *Table) store(ctx context.Context, texts []Text) error {
	rules, fresh := t.o.Bounces(), 0
	for i := range texts {
		known, err := t.o.Store.ReplyText(ctx, texts[i].ID)
		switch {
		case errors.Is(err, ErrNotFound):
			fresh++
			texts[i].Verdict = rules.Qualify(texts[i].input())
		case err != nil:
			return fmt.Errorf("reading a reply text: %w", err)
		default:
			known.add(&texts[i])
			texts[i].Verdict = rules.Qualify(known.input())
		}
	}
	if err := t.o.Store.AddReplyTexts(ctx, texts); err != nil {
		return fmt.Errorf("writing reply texts: %w", err)
	}
	t.count += fresh
	return nil
}

func (t *Table) recount(ctx context.Context) error {
	n := 0
	err := t.o.Store.EachReplyText(ctx, func(*Text) bool { n++; return true })
	if err != nil {
		return fmt.Errorf("counting reply texts: %w", err)
	}
	t.count = n
	return nil
}

// candidate is a text that may leave.
type candidate struct {
	id   ID
	size int // of its count, in bits: said once, up to 3 times, up to 7 ...
	last time.Time
}

// makeRoom removes the texts that were said least and longest ago when there are too many.
func (t *Table) makeRoom(ctx context.Context) error {
	if t.count <= t.o.MaxTexts {
		return nil
	}
	n := t.count - t.o.MaxTexts + min(evictSize, t.o.MaxTexts/20)
	var leaving []candidate
	err := t.o.Store.EachReplyText(ctx, func(text *Text) bool {
		if text.Status != Keep && text.Status != Ignore {
			leaving = append(leaving, candidate{text.ID, bits.Len64(uint64(text.Count)), text.LastTime})
		}
		if len(leaving) >= 4*n {
			leaving = least(leaving, n)
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("finding reply texts to forget: %w", err)
	}
	leaving = least(leaving, n)
	ids := make([]ID, len(leaving))
	for i, c := range leaving {
		ids[i] = c.id
	}
	for part := range slices.Chunk(ids, writeSize) {
		if err := t.o.Store.DeleteReplyTexts(ctx, part); err != nil {
			return fmt.Errorf("forgetting reply texts: %w", err)
		}
		t.count -= len(part)
	}
	return nil
}

// least keeps the n that leave first.
func least(list []candidate, n int) []candidate {
	slices.SortFunc(list, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.size, b.size), a.last.Compare(b.last), slices.Compare(a.id[:], b.id[:]))
	})
	return list[:min(n, len(list))]
}
