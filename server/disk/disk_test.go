package disk

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestTheLevelFollowsFreeDisk(t *testing.T) {
	l := Limits{Low: 1000, Scarce: 500}
	level := Roomy
	for _, step := range []struct {
		free int64
		want Level
	}{
		{5000, Roomy},
		{1000, Roomy},
		{999, Low},
		{1100, Low},
		{1199, Low},
		{1200, Roomy}, // a fifth more than the limit
		{700, Low},
		{499, Scarce},
		{500, Scarce},
		{599, Scarce},
		{600, Low},
		{1300, Roomy},
		{0, Scarce},
		{5000, Roomy},
	} {
		if level = l.Judge(level, step.free); level != step.want {
			t.Fatalf("with %d free: %s, want %s", step.free, level, step.want)
		}
	}
	for _, was := range []Level{Roomy, Low, Scarce} {
		if got := (Limits{}).Judge(was, 0); got != Roomy {
			t.Errorf("without limits behind %s: %s", was, got)
		}
	}
}

// Whatever came before: below a limit its level holds, and from a fifth above the higher
// limit on all goes on.
func TestTheLevelNeverFailsToHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low := rapid.Int64Range(100, 1<<40).Draw(t, "low")
		l := Limits{Low: low, Scarce: rapid.Int64Range(0, low).Draw(t, "scarce")}
		level := Roomy
		for _, free := range rapid.SliceOf(rapid.Int64Range(0, 2*low)).Draw(t, "free") {
			level = l.Judge(level, free)
			switch {
			case free < l.Scarce && level != Scarce, free < l.Low && level == Roomy:
				t.Fatalf("%d free of %+v: %s", free, l, level)
			case free >= l.Low+l.Low/5 && level != Roomy:
				t.Fatalf("%d free of %+v: still %s", free, l, level)
			}
		}
	})
}

// A guard's story: it looks each second, tells of changes, again when that failed, and
// keeps its level while the disk does not answer.
func TestAGuardTellsOfChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // of what follows
		free, blind, deaf := int64(5000), error(nil), error(nil)
		var told []string
		is := func(f int64, b, d error) {
			mu.Lock()
			defer mu.Unlock()
			free, blind, deaf = f, b, d
		}
		g := NewGuard(Options{
			Free: func() (int64, error) {
				mu.Lock()
				defer mu.Unlock()
				return free, blind
			},
			Limits: func() Limits { return Limits{Low: 1000, Scarce: 500} },
			Changed: func(_ context.Context, c Change) error {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, c.To.String())
				return deaf
			},
			Log: slog.New(slog.DiscardHandler),
		})
		if g.Free() >= 0 || g.Admit() != nil {
			t.Error("a guard that has not looked knows something")
		}
		go g.Run(t.Context())
		second := func(want ...string) {
			t.Helper()
			time.Sleep(time.Second + time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			if got := told; !slices.Equal(got, want) {
				t.Errorf("told %q, want %q", got, want)
			}
			told = nil
		}
		second()
		is(900, nil, nil)
		second("low")
		var full *FullError
		if err := g.Admit(); !errors.As(err, &full) || full.Free != 900 || full.RetryAfter <= 0 || !strings.Contains(err.Error(), "storage.min_free") {
			t.Errorf("admitted: %v", err)
		}
		second()
		is(100, nil, errors.New("busy"))
		second("scarce")
		second("scarce")
		is(100, nil, nil)
		second("scarce")
		second()
		is(5000, errors.New("no such disk"), nil)
		second()
		if g.Level() != Scarce || g.Admit() == nil {
			t.Errorf("level %s of a disk that does not answer", g.Level())
		}
		is(5000, nil, nil)
		second("roomy")
		if g.Admit() != nil || g.Free() != 5000 {
			t.Error("not admitted on a roomy disk")
		}
	})
}
