package heap

import "testing"

func TestHeapGrowth(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{
		{0, 3200}, {4 << 20, 3200}, {32 << 20, 400}, {64 << 20, 200}, {128 << 20, 100}, {336 << 20, 100}, {384 << 20, 75}, {512 << 20, 31}, {1 << 30, 30},
	} {
		if got := growth(c.live); got != c.want {
			t.Errorf("a heap of %d bytes may grow by %d percent, want %d", c.live, got, c.want)
		}
	}
}
