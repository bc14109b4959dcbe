package simulate

import (
	"math"
	"testing"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
)

// steady takes so many messages a second.
type steady struct {
	Receiver
	rate float64
}

func (s steady) Capacity(time.Time) float64 { return s.rate }

// newSources is a scenario of sources that are being warmed up: 100 messages on the first
// day, 200 on the second, 400 on the third.
func newSources(rates map[string]float64, counts ...int64) *Config {
	plan := &mxrules.WarmUpPlan{Caps: []int64{100, 200, 400}}
	c := &Config{
		Start: Epoch(), Duration: 84 * time.Hour,
		Pools:     []dispatch.Pool{{Name: "default", Sources: []dispatch.Source{{Name: "cold", WarmUp: plan, Stage: 1}}}},
		HandOvers: []HandOver{{Pool: "default", Counts: counts}},
	}
	for _, name := range []string{"big", "small"} {
		if rate := rates[name]; rate > 0 {
			c.Destinations = append(c.Destinations, Destination{Name: name, Receiver: func() Receiver { return steady{rate: rate} }})
		}
	}
	return c
}

// The oracle keeps the caps of each day, which its destinations share, and advances from
// stage to stage as early as the plan lets it.
func TestOraclesKeepTheCapsOfWarmUps(t *testing.T) {
	c := newSources(map[string]float64{"big": 5, "small": 5}, 300, 150)
	c.allowance = c.allowances()
	var byDay [4]float64
	for i := range c.Destinations {
		before := 0.0
		o := c.oracle(i, c.allowed(i, func(time.Time) float64 { return 5 }), nil, func(to time.Duration, delivered float64) {
			byDay[int((to-1)/(24*time.Hour))] += delivered - before
			before = delivered
		})
		if !o.Finished || math.Abs(o.Delivered-float64(c.HandOvers[0].Counts[i])) > 1 {
			t.Errorf("%s: %+v", c.Destinations[i].Name, o)
		}
	}
	for day, most := range []float64{100, 200, 400, 0} {
		if byDay[day] > most+0.5 || day < 2 && byDay[day] < 0.97*most {
			t.Errorf("day %d: %.1f were sent, the cap is %v", day+1, byDay[day], most)
		}
	}
}

// What one receiver is too slow for, the other gets.
func TestASlowReceiverDoesNotWasteTheCap(t *testing.T) {
	c := newSources(map[string]float64{"big": 5, "small": 10.0 / 86400}, 1000, 1000)
	c.allowance = c.allowances()
	sum := func(i int) (n float64) {
		for _, x := range c.allowance.grants[i][:24*60] {
			n += float64(x)
		}
		return n
	}
	if big, small := sum(0), sum(1); big+small > 100 || big+small < 97 || small > 11 {
		t.Errorf("on the first day big got %v, small %v", big, small)
	}
}

func TestWarmSourcesTakeWhatColdOnesMayNot(t *testing.T) {
	c := newSources(map[string]float64{"big": 5}, 1000)
	c.Pools[0].Overflow = "warm"
	c.Pools = append(c.Pools, dispatch.Pool{Name: "warm", Sources: []dispatch.Source{{Name: "warm"}}})
	if c.allowances() != nil {
		t.Error("the caps bound mail that overflows to a warm source")
	}
}
