package campaign

import (
	"fmt"
	"strings"
	"testing"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

func chunkOf(first, n int64, rejected ...int64) *chunk {
	c := &chunk{}
	for i := range n {
		c.items = append(c.items, Item{Index: first + i})
	}
	for _, index := range rejected {
		c.rejected = append(c.rejected, &veredusv1.RejectedRecipient{Index: index})
	}
	return c
}

func TestChunksStoredTogetherAreAnsweredOneByOne(t *testing.T) {
	chunks := []*chunk{chunkOf(11, 3), chunkOf(14, 0), chunkOf(14, 4, 15), chunkOf(18, 2)}
	for _, c := range []struct {
		name  string
		added Added
		want  string
	}{
		{"the store tells which were ignored", Added{DurableIndex: 19, Accepted: 8, Ignored: 3, IgnoredIndexes: []int64{13, 14, 17}}, "13+3-1!0 13+0-0!0 17+3-2!1 19+2-0!0"},
		{"it tells only how many", Added{DurableIndex: 19, Accepted: 8, Ignored: 3}, "13+3-0!0 13+0-0!0 17+3-0!1 19+2-3!0"},
	} {
		var got []string
		for _, a := range acks(chunks, 10, c.added) {
			got = append(got, fmt.Sprintf("%d+%d-%d!%d", a.GetDurableIndex(), a.GetAccepted(), a.GetIgnored(), len(a.GetRejected())))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
