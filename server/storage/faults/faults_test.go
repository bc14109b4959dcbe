package faults

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// syncs says of n syncs which fail.
func syncs(t *testing.T, d *Disk, n int) (failed []int) {
	t.Helper()
	f, err := d.Create("file", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		switch err := f.Sync(); {
		case errors.Is(err, syscall.EIO):
			failed = append(failed, i)
		case err != nil:
			t.Fatal(err)
		}
	}
	return failed
}

func TestFaultsComeAsPlanned(t *testing.T) {
	for _, c := range []struct {
		plan string
		want []int
	}{
		{"sync", nil},
		{"sync after=3 err=eio", []int{3, 4, 5}},
		{"sync after=1 times=2 err=eio", []int{1, 2}},
		{"sync path=other err=eio", nil},
		{"sync path=le after=5 err=eio", []int{5}},
		{"write err=eio", nil},
	} {
		p, err := Parse(c.plan)
		if err != nil {
			t.Fatal(err)
		}
		d := Wrap(vfs.NewMem(), p)
		if got := syncs(t, d, 6); !slices.Equal(got, c.want) || d.Failed() != len(c.want) {
			t.Errorf("%s: syncs %v failed, %d counted", c.plan, got, d.Failed())
		}
		d.Heal()
		if got := syncs(t, d, 6); got != nil {
			t.Errorf("%s: syncs %v of a healed disk failed", c.plan, got)
		}
	}
}

func TestRandomFaultsFollowFromTheirSeed(t *testing.T) {
	run := func(seed uint64) []int {
		return syncs(t, Wrap(vfs.NewMem(), Plan{Kind: Sync, OneIn: 10, Seed: seed, Err: syscall.EIO}), 1000)
	}
	one, again, other := run(1), run(1), run(2)
	if !slices.Equal(one, again) || slices.Equal(one, other) || len(one) < 50 || len(one) > 200 {
		t.Errorf("%d, %d and %d of 1000 failed", len(one), len(again), len(other))
	}
}

func TestPlansAreRead(t *testing.T) {
	p, err := Parse("room after=7 times=2 one_in=3 seed=9 delay=10ms path=.log err=enospc")
	want := Plan{Kind: Room, After: 7, Times: 2, OneIn: 3, Seed: 9, Delay: 10 * time.Millisecond, Path: ".log", Err: syscall.ENOSPC}
	if err != nil || p != want {
		t.Errorf("got %+v, %v", p, err)
	}
	if again, err := Parse(p.String()); err != nil || again != p {
		t.Errorf("printed and read: %+v, %v", again, err)
	}
	for _, bad := range []string{"", "flood", "sync often", "sync after=x", "sync err=fire"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
