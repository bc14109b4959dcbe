package mxrules

import (
	"math"
	"testing"
	"time"
)

// A figure is whole for six hours, four times as much after two days and a quarter, and
// forgotten after two weeks.
func TestWhatWasLearnedLosesWorth(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	l := Learned{Value: 3, At: at.UnixNano(), Seen: 1}
	for _, tt := range []struct {
		age  time.Duration
		want float64
	}{{0, 3}, {6 * time.Hour, 3}, {54 * time.Hour, 12}, {14*24*time.Hour + time.Second, 0}} {
		if got := l.Worth(at.Add(tt.age)); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("after %v it is worth %v, want %v", tt.age, got, tt.want)
		}
	}
	if !l.Confirmed().Equal(at) || l.Worth(l.Forgotten()) == 0 || l.Worth(l.Forgotten().Add(time.Second)) != 0 {
		t.Errorf("confirmed %v, forgotten %v", l.Confirmed(), l.Forgotten())
	}
}
