package address

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// traffic is a stretch of attempts at one destination with a share of unknown users.
type traffic struct {
	attempts int
	every    time.Duration
	unknown  float64
	want     string // never, always, begins, ends: how the surge is during it
}

func TestSurge(t *testing.T) {
	for name, stretches := range map[string][]traffic{
		"an outage at a provider where 5 % is normal": {
			{200, time.Second, 0.05, "never"},
			{60, time.Second, 0.80, "begins"},
			{2000, time.Second, 0.80, "always"},
			{2000, 3 * time.Second, 0.05, "ends"},
			{2000, time.Second, 0.05, "never"},
		},
		"a directory that is gone": {{5000, 10 * time.Millisecond, 0.01, "never"}, {100, 10 * time.Millisecond, 1, "begins"}, {500, time.Second, 1, "always"}},
		"a bought list":            {{5000, time.Second, 0.60, "never"}},
		"a list that gets worse slowly": {
			{2000, time.Second, 0.05, "never"},
			{2000, time.Second, 0.10, "never"},
			{2000, time.Second, 0.15, "never"},
			{2000, time.Second, 0.20, "never"},
			{2000, time.Second, 0.25, "never"},
			{2000, time.Second, 0.30, "never"},
			{2000, time.Second, 0.35, "never"},
		},
		"a bad day is no outage":                {{5000, time.Second, 0.05, "never"}, {500, time.Second, 0.10, "never"}},
		"a new destination is not known enough": {{100, time.Second, 0.02, "never"}, {64, time.Second, 1, "never"}},
		"a week between mailings": {
			{400, time.Second, 0.05, "never"}, {1, 7 * day, 0, "never"}, {60, time.Second, 0.9, "begins"}, {200, time.Second, 0.9, "always"},
		},
		"nothing is sent for a day":       {{400, time.Second, 0.05, "never"}, {100, time.Second, 0.9, "begins"}, {1, 25 * time.Hour, 0, "ends"}, {300, time.Second, 0.05, "never"}},
		"what lasts is the new normal":    {{400, time.Second, 0.05, "never"}, {3000, time.Minute, 0.7, "ends"}, {5000, time.Minute, 0.7, "never"}},
		"a second outage after the first": {{1000, time.Second, 0.05, "never"}, {500, time.Second, 0.9, "begins"}, {5000, time.Second, 0.05, "ends"}, {60, time.Second, 0.9, "begins"}},
	} {
		for seed := range uint64(20) {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				r, s, now := rand.New(rand.NewPCG(seed, 1)), NewSurge(), start
				for i, stretch := range stretches {
					was, on := false, 0
					for range stretch.attempts {
						now = now.Add(stretch.every)
						s.Observe(now, "provider", r.Float64() < stretch.unknown)
						if was = s.On(now, "provider"); was {
							on++
						}
					}
					ok := map[string]bool{"never": on == 0, "always": on == stretch.attempts, "begins": was, "ends": !was}[stretch.want]
					if !ok {
						t.Fatalf("seed %d: stretch %d: on after %d of %d attempts, at the end %v; want %s", seed, i, on, stretch.attempts, was, stretch.want)
					}
				}
			})
		}
	}
}

func TestSurgeEndsWithoutAttempts(t *testing.T) {
	s, now := NewSurge(), start
	for i := range 400 {
		now = now.Add(time.Second)
		s.Observe(now, "provider", i >= 300)
	}
	if !s.On(now, "provider") || s.On(now, "another") {
		t.Fatal("not on")
	}
	if !s.On(now.Add(surgeSilence-1), "provider") || s.On(now.Add(surgeSilence), "provider") {
		t.Error("not a day")
	}
}

func TestSurgeIsBounded(t *testing.T) {
	s := NewSurge()
	for i := range 3 * surgeDestinations {
		s.Observe(start, fmt.Sprintf("d%d", i), true)
		s.Observe(start, "d0", false) // in use
	}
	if len(s.by) != surgeDestinations || s.recent.Len() != surgeDestinations {
		t.Errorf("%d destinations", len(s.by))
	}
	if _, kept := s.by["d0"]; !kept {
		t.Error("one in use was forgotten")
	}
}

func TestSurgeWithAClockThatRunsBack(t *testing.T) {
	s := NewSurge()
	for i := range 1000 {
		s.Observe(start.Add(-time.Duration(i)*time.Hour), "provider", i > 500)
		s.On(start.Add(-time.Duration(i)*day), "provider")
	}
	if !s.On(start, "provider") {
		t.Error("not on")
	}
}

func BenchmarkSurge(b *testing.B) {
	s, now := NewSurge(), start
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now = now.Add(time.Millisecond)
		s.Observe(now, "provider", i%20 == 0)
		s.On(now, "provider")
	}
}

// Those whom the first attempts of an outage quarantined are named when it is noticed, and nobody else.
func TestASurgeNamesItsFirstVictims(t *testing.T) {
	s, now := NewSurge(), start
	observe := func(n int, unknown bool) (began bool) {
		for i := range n {
			now = now.Add(time.Second)
			began = s.Observe(now, "provider", unknown) || began
			if unknown && !s.On(now, "provider") {
				s.Quarantined("provider", Key{Folded: fmt.Sprintf("u%d-%d@provider", now.Unix(), i)})
			}
		}
		return began
	}
	observe(300, false)
	observe(3, true) // really unknown, long before
	observe(100, false)
	if !observe(40, true) {
		t.Fatal("no surge began")
	}
	named := s.Suspects("provider")
	if len(named) < 20 || len(named) > 39 {
		t.Errorf("%d are named", len(named))
	}
	if again := s.Suspects("provider"); len(again) != 0 {
		t.Errorf("named twice: %v", again)
	}
}

// A restart knows the baselines, so an outage right behind it is noticed.
func TestSurgesOutlastARestart(t *testing.T) {
	s, now := NewSurge(), start
	for range 300 {
		now = now.Add(time.Second)
		s.Observe(now, "provider", false)
		s.Observe(now, "other", false)
	}
	stored, err := s.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	after := NewSurge()
	if err := after.UnmarshalBinary(stored); err != nil {
		t.Fatal(err)
	}
	again, err := after.AppendBinary(nil)
	if err != nil || string(again) != string(stored) {
		t.Errorf("another form after the restart: %x, %x, %v", stored, again, err)
	}
	began := false
	for range 40 {
		now = now.Add(time.Second)
		began = after.Observe(now, "provider", true) || began
	}
	if !began {
		t.Error("no surge began")
	}
	for cut := range stored {
		_ = NewSurge().UnmarshalBinary(stored[:cut])
	}
	if err := NewSurge().UnmarshalBinary(stored[:len(stored)-1]); err == nil {
		t.Error("half a row was taken")
	}
}
