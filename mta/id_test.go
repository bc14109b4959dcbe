package mta

import (
	"strings"
	"testing"
)

// A message's id in its resource name reads back as what it was, and nothing else
// is taken for one.
func FuzzMessageID(f *testing.F) {
	for _, id := range []MessageID{
		{}, {Handover: 1, Domain: 1, Order: 1}, {Handover: 1<<64 - 1, Domain: 1<<32 - 1, Lane: 255, Order: 1<<64 - 1},
	} {
		f.Add(id.String())
	}
	for _, s := range []string{"", "0", "zz", "UPPER", "../x", strings.Repeat("z", 43), "00000000000000000000000000000000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseMessageID(s)
		if err != nil {
			if len(err.Error()) > 200 {
				t.Errorf("the error has %d octets", len(err.Error()))
			}
			return
		}
		if id.String() != s {
			t.Errorf("%q reads as %+v, whose name is %q", s, id, id.String())
		}
	})
}

func FuzzMessageIDString(f *testing.F) {
	f.Add(uint64(1), uint32(1), uint8(0), uint64(1))
	f.Add(uint64(1)<<63, uint32(1)<<31, uint8(255), uint64(1)<<63)
	f.Fuzz(func(t *testing.T, handover uint64, domain uint32, lane uint8, order uint64) {
		id := MessageID{handover, domain, lane, order}
		if back, err := ParseMessageID(id.String()); err != nil || back != id {
			t.Errorf("%+v is named %q, which reads as %+v, %v", id, id.String(), back, err)
		}
	})
}

// Positions order a run by lane, then by order.
func TestPositionsAreOrdered(t *testing.T) {
	list := []Position{{}, {0, 1}, {0, 1 << 60}, {1, 0}, {1, 5}, {255, 1<<64 - 1}}
	for i, a := range list {
		for j, b := range list {
			if a.Less(b) != (i < j) {
				t.Errorf("%v before %v is %v", a, b, a.Less(b))
			}
		}
	}
}
