package mxrules

import (
	"testing"
	"time"
)

func TestRatesAreReadInTheirNaturalUnit(t *testing.T) {
	for _, tt := range []struct {
		rate Rate
		want string
	}{
		{Rate{}, "unlimited"},
		{rateOf(3), "3/s"},
		{rateOf(200.0 / 60), "200/min"},
		{rateOf(5000.0 / 3600), "5000/h"},
		{rateOf(2.87), "172/min"},
		{rateOf(0.5), "30/min"},
		{rateOf(100), "100/s"},
		{rateOf(123.456), "123/s"},
		{rateOf(2500.7), "2500/s"},
		{rateOf(37.4 / 3600), "37/h"},
		{Rate{Count: 1, Per: time.Minute}, "1/min"},
		{Rate{Count: 36_000, Per: time.Hour, Burst: 50}, "10/s"},
		{Rate{Count: 10, Per: 2 * time.Second, Burst: 5}, "5/s"},
		{Rate{Count: 1, Per: 64 * time.Second}, "56/h"},
		{Rate{Count: 30, Per: 24 * time.Hour}, "30/d"},
		{Rate{Count: 1, Per: 24 * time.Hour}, "1/d"},
	} {
		if got := tt.rate.Readable().String(); got != tt.want {
			t.Errorf("%v is read as %q, want %q", tt.rate, got, tt.want)
		}
	}
}

func TestReadableRatesAreNearlyTheSameAndCanBeWrittenInARule(t *testing.T) {
	for perSecond := 1.2 / 86400; perSecond < 9e5; perSecond *= 1.013 {
		r := Rate{Count: max(1, int(perSecond*1000)), Per: 1000 * time.Second}
		read := r.Readable()
		if off := read.PerSecond()/r.PerSecond() - 1; off > 0.05 || off < -0.05 {
			t.Errorf("%v is read as %v: %.1f %% off", r, read, 100*off)
		}
		if again, err := ParseRate(read.String()); err != nil || again != read {
			t.Errorf("%v is read as %v, which parses as %v, %v", r, read, again, err)
		}
	}
}
