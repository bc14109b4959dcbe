package retention

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// book writes down what a Purger asks for.
type book struct {
	now   func() time.Time
	mu    sync.Mutex // of calls
	calls []string
	err   error
}

func (b *book) note(what string, before time.Time) (int64, error) {
	if !before.IsZero() {
		what += " " + b.now().Sub(before).String()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, what)
	return 1, b.err
}

func (b *book) TrimEvents(_ context.Context, before time.Time, size int64) (int64, error) {
	if size > 0 {
		return b.note("events by size", before)
	}
	return b.note("events", before)
}

func (b *book) PurgeEnded(_ context.Context, before time.Time) (int64, error) {
	return b.note("deliveries", before)
}

func (b *book) PurgeSingles(_ context.Context, before time.Time) (int64, error) {
	return b.note("singles", before)
}

func (b *book) took() (calls []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	calls, b.calls = b.calls, nil
	return calls
}

func purger(b *book, policy Policy) *Purger {
	if b.now == nil {
		b.now = time.Now
	}
	return NewPurger(Options{Store: b, Policy: func() Policy { return policy }, Now: func() time.Time { return b.now() }, Log: slog.New(slog.DiscardHandler)})
}

func TestARoundRemovesByThePolicy(t *testing.T) {
	for _, c := range []struct {
		policy Policy
		want   []string
	}{
		{Policy{}, nil},
		{Policy{EventsAge: time.Hour}, []string{"events 1h0m0s"}},
		{Policy{EventsSize: 1 << 20}, []string{"events by size"}},
		{Policy{EventsAge: time.Hour, EventsSize: 1}, []string{"events by size 1h0m0s"}},
		{Policy{Messages: 10 * time.Hour}, []string{"deliveries 10h0m0s", "singles 94h0m0s"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := &book{}
			if err := purger(b, c.policy).Round(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := b.took(); !slices.Equal(got, c.want) {
				t.Errorf("%+v: got %q, want %q", c.policy, got, c.want)
			}
		})
	}
}

func TestItRunsUntilTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{err: errors.New("busy")} // and goes on behind errors
		p := purger(b, Policy{EventsAge: 5 * time.Minute})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.Run(ctx); close(done) }()
		time.Sleep(time.Minute + time.Second)
		if n := len(b.took()); n != 4 { // each 15 s
			t.Errorf("%d rounds in a minute", n)
		}
		cancel()
		<-done
	})
}

func TestMessagesAreLookedAtSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{}
		p := purger(b, Policy{Messages: 60 * 24 * time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		go p.Run(ctx)
		time.Sleep(3 * time.Hour)
		cancel()
		synctest.Wait()
		if got := b.took(); len(got) != 6 {
			t.Errorf("in 3 hours %q", got)
		}
	})
}

// A clock that was set by a year must not empty the store; neither in either direction.
func TestAClockThatWasSetIsNotTrusted(t *testing.T) {
	for _, by := range []time.Duration{365 * 24 * time.Hour, -365 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			set := time.Duration(0)
			b := &book{now: func() time.Time { return time.Now().Add(set) }}
			p := purger(b, Policy{EventsAge: time.Hour, EventsSize: 1, Messages: time.Hour})
			round := func(after time.Duration, want ...string) {
				t.Helper()
				time.Sleep(after)
				if err := p.Round(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := b.took(); !slices.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			all := []string{"events by size 1h0m0s", "deliveries 1h0m0s", "singles 85h0m0s"}
			round(0, all...)
			set = by
			round(time.Hour, "events by size")
			round(time.Hour, "events by size")
			set = 0 // somebody saw it
			round(time.Hour, "events by size")
			round(23*time.Hour, "events by size")
			round(time.Hour, all...)
		})
	}
}
