package mxrules

import (
	"strings"
	"testing"
	"time"
)

func TestSweep(t *testing.T) {
	tests := []struct {
		counts Counts
		want   Do
		text   string
	}{
		{Counts{Attempts: 1999, Unknown: 1999}, DoNothing, ""},
		{Counts{Attempts: 2000, Unknown: 59}, DoNothing, ""},
		{Counts{Attempts: 2000, Unknown: 60}, DoSlow, "3.00 % unknown recipients in an hour (60 of 2000)"},
		{Counts{Attempts: 2000, Unknown: 200}, DoRest, "10 % suspends"},
		{Counts{Delivered: 19999, Complaints: 500}, DoNothing, ""},
		{Counts{Delivered: 20000, Complaints: 40}, DoSlow, "0.20 % complaints in a day"},
		{Counts{Delivered: 20000, Complaints: 100}, DoRest, "0.5 % suspends"},
		{Counts{Attempts: 2000, Unknown: 60, Delivered: 20000, Complaints: 100}, DoRest, "complaints"},
		{Counts{Attempts: 2000, Unknown: 200, Delivered: 20000, Complaints: 40}, DoRest, "unknown"},
	}
	for _, tt := range tests {
		got := tt.counts.Sweep()
		if got.Do != tt.want || !strings.Contains(got.Text, tt.text) || (got.Do == DoRest) != (got.For == 4*time.Hour) {
			t.Errorf("%+v: %+v, want %v with %q", tt.counts, got, tt.want, tt.text)
		}
	}
}

func TestASweepSuspendsForFourHours(t *testing.T) {
	for _, mode := range []Mode{GovernorStatic, GovernorOn} {
		p := newPath(t, Limits{Governor: mode})
		p.sends(0)
		p.Sweep(start, Counts{Attempts: 5000, Unknown: 900}.Sweep())
		p.messageHeld(time.Minute, HoldRest, 4*time.Hour)
		p = newPath(t, Limits{Governor: mode, MessageRate: Rate{Count: 50, Per: time.Second}})
		p.sends(0)
		p.Sweep(after(time.Second), Counts{Attempts: 5000, Unknown: 200}.Sweep())
		if r := p.state(time.Second).MessageRate; r.PerSecond() > 25 {
			t.Errorf("governor %v slows to %v", mode, r)
		}
	}
}
