package heap

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func TestPressureEndsWhenATenthIsFree(t *testing.T) {
	var used int64
	g := NewGuard(1000, func() int64 { return used }, slog.New(slog.DiscardHandler))
	for _, step := range []struct {
		used int64
		high bool
	}{{0, false}, {1000, false}, {1001, true}, {950, true}, {901, true}, {900, false}, {1000, false}, {5000, true}} {
		used = step.used
		g.Look()
		var full *FullError
		if err := g.Admit(); errors.As(err, &full) != step.high {
			t.Fatalf("at %d: %v", step.used, err)
		}
		select {
		case <-g.Pressed():
			if !step.high {
				t.Fatalf("at %d: pressed", step.used)
			}
		default:
			if step.high {
				t.Fatalf("at %d: not pressed", step.used)
			}
		}
	}
	used = 1 << 60
	without := NewGuard(0, func() int64 { return used }, slog.New(slog.DiscardHandler))
	without.Look()
	if err := without.Admit(); err != nil {
		t.Errorf("without a limit: %v", err)
	}
}

func TestTheMachinesMemoryIsRead(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if n := meminfo(file("meminfo", "MemTotal:       24683640 kB\nMemFree:        1 kB\n")); n != 24683640<<10 {
		t.Errorf("total %d", n)
	}
	for _, c := range []struct {
		text string
		want int64
	}{{"max\n", 0}, {"1073741824\n", 1 << 30}, {"-1", 0}, {"", 0}} {
		if n := number(file("max", c.text)); n != c.want {
			t.Errorf("%q: %d", c.text, n)
		}
	}
	if meminfo(filepath.Join(dir, "none")) != 0 || number(filepath.Join(dir, "none")) != 0 {
		t.Error("a file that is not there has a number")
	}
	if Used() <= 0 {
		t.Error("this process uses nothing")
	}
}
