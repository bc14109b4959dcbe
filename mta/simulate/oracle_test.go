package simulate

import (
	"math"
	"testing"
	"time"
)

// The oracle's end and the area under its curve are those of school geometry.
func TestOracle(t *testing.T) {
	hour := time.Hour
	for _, c := range []struct {
		name     string
		duration time.Duration
		hands    []HandOver
		lost     float64
		capacity func(since time.Duration) float64
		done     time.Duration
		finished bool
		sent     float64
		area     float64 // message-hours
	}{
		{
			name: "at once", duration: 10 * hour, hands: []HandOver{{Counts: []int64{36000}}},
			capacity: constant(10), done: hour, finished: true, sent: 36000, area: 18000,
		},
		{
			name: "later", duration: 10 * hour, hands: []HandOver{{At: 2 * hour, Counts: []int64{36000}}},
			capacity: constant(10), done: 3 * hour, finished: true, sent: 36000, area: 18000,
		},
		{
			name: "some are lost", duration: 10 * hour, hands: []HandOver{{Counts: []int64{36000}}}, lost: 0.5,
			capacity: constant(10), done: hour, finished: true, sent: 18000, area: 9000,
		},
		{
			name: "it does not end", duration: hour, hands: []HandOver{{Counts: []int64{72000}}},
			capacity: constant(10), done: hour, sent: 36000, area: 18000,
		},
		{
			name: "nothing is taken for an hour", duration: 10 * hour, hands: []HandOver{{Counts: []int64{36000}}},
			capacity: func(since time.Duration) float64 {
				if since < hour {
					return 0
				}
				return 10
			},
			done: 2 * hour, finished: true, sent: 36000, area: 18000,
		},
		{
			name: "mail that comes spread goes as it comes", duration: 10 * hour, hands: []HandOver{{Counts: []int64{3600}, Over: hour}},
			capacity: constant(10), done: hour, finished: true, sent: 3600, area: 1800,
		},
		{
			name: "two hand-overs and a pause", duration: 10 * hour,
			hands:    []HandOver{{Counts: []int64{18000}}, {Counts: []int64{18000}, At: hour}},
			capacity: constant(10), done: hour + hour/2, finished: true, sent: 36000, area: 4500 + 18000*0.5 + 18000*0.5 + 4500,
		},
		{
			name: "no bound", duration: hour, hands: []HandOver{{Counts: []int64{1000}}},
			capacity: constant(1e7), done: 100 * time.Microsecond, finished: true, sent: 1000, area: 0,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{Start: Epoch(), Duration: c.duration, HandOvers: c.hands, Destinations: []Destination{{Lost: c.lost}}}
			o := cfg.oracle(0, func(now time.Time) float64 { return c.capacity(now.Sub(Epoch())) }, nil, nil)
			if diff := (o.Done - c.done).Abs(); diff > 5*time.Second || o.Finished != c.finished {
				t.Errorf("done after %v (%t), want %v (%t)", o.Done, o.Finished, c.done, c.finished)
			}
			if math.Abs(o.Delivered-c.sent) > 1e-3*c.sent {
				t.Errorf("delivered %g, want %g", o.Delivered, c.sent)
			}
			if area := o.Area / 3600; math.Abs(area-c.area) > 0.002*c.area+1 {
				t.Errorf("area %g message-hours, want %g", area, c.area)
			}
		})
	}
}

func constant(rate float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return rate }
}

// Where every first attempt is put off the oracle makes one for each message, and comes
// back when it may: with room for one thing or the other, it needs the time of both.
func TestOracleIsGreylisted(t *testing.T) {
	cfg := Config{Start: Epoch(), Duration: 10 * time.Hour, HandOvers: []HandOver{{Counts: []int64{36000}}}, Destinations: make([]Destination, 1)}
	const rate = 10
	for name, c := range map[string]struct {
		delay time.Duration
		room  func(delivered float64) float64
		done  time.Duration
	}{
		"an attempt takes as much as a delivery":  {10 * time.Minute, func(d float64) float64 { return rate - d }, 2 * time.Hour},
		"attempts are free":                       {10 * time.Minute, func(float64) float64 { return 1e6 }, 70 * time.Minute},
		"the delay is longer than all is sent in": {3 * time.Hour, func(d float64) float64 { return rate - d }, 4 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			first := &firsts{delay: c.delay, capacity: func(_ time.Time, delivered float64) float64 { return c.room(delivered) }}
			o := cfg.oracle(0, func(time.Time) float64 { return rate }, first, nil)
			if diff := (o.Done - c.done).Abs(); diff > 30*time.Second || !o.Finished {
				t.Errorf("done after %v (%t), want %v", o.Done, o.Finished, c.done)
			}
		})
	}
}
