package mxrules

import (
	"testing"
	"time"
)

// A rate far from used up does not limit, though messages that come together wait a
// moment for it; the connections that are all in use do.
func TestWhatReallyLimits(t *testing.T) {
	limits := Limits{Connections: 10, MessageRate: Rate{Count: 100, Per: time.Second}}
	for _, tt := range []struct {
		name   string
		answer time.Duration // how long a message takes
		want   Hold
	}{
		{"slow answers", time.Second, HoldConnections},
		{"slower answers", 5 * time.Second, HoldConnections},
		{"quick answers", 10 * time.Millisecond, HoldMessageRate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := NewGovernor(limits)
			for range 10 {
				g.ConnectionOpened(start)
				g.Connected(start, time.Millisecond)
			}
			free := make([]time.Duration, 10) // when each connection is free
			at, wrong := time.Duration(0), 0
			for n := range 4000 {
				for i := range free {
					if free[i] > at {
						continue
					}
					hold, until := g.AllowMessage(after(at), false)
					if hold != HoldNone {
						if next := until.Sub(start); next > free[i] {
							free[i] = next
						}
						continue
					}
					g.MessageSent(after(at))
					free[i] = at + tt.answer
				}
				g.AllowConnection(after(at))
				if s := g.State(after(at)); n > 100 && s.Hold != tt.want {
					wrong++
				}
				at += 5 * time.Millisecond
			}
			if wrong > 0 {
				t.Errorf("another hold than %v is named %d times of 3900", tt.want, wrong)
			}
		})
	}
}
