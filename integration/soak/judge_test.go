package main

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/integration/node"
)

// A node that grows is told from one that only breathes.
func TestJudge(t *testing.T) {
	const seed = 1
	flat := node.Figures{Resident: 200, Heap: 120, Goroutines: 300, Descriptors: 100}
	for name, tt := range map[string]struct {
		at   func(minute float64, f *node.Figures)
		want string
	}{
		"flat":                   {func(float64, *node.Figures) {}, ""},
		"warms up, then flat":    {func(m float64, f *node.Figures) { f.Resident += 50 * min(m, 9) }, ""},
		"one peak":               {func(m float64, f *node.Figures) { f.Goroutines += 5000 * int(max(0, 1-(m-20)*(m-20))) }, ""},
		"memory leaks":           {func(m float64, f *node.Figures) { f.Resident += 2 * m }, "resident"},
		"goroutines leak":        {func(m float64, f *node.Figures) { f.Goroutines += int(3 * m) }, "goroutines"},
		"descriptors leak":       {func(m float64, f *node.Figures) { f.Descriptors += int(2 * m) }, "descriptors"},
		"shrinks, which is well": {func(m float64, f *node.Figures) { f.Heap -= 3 * m }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			var samples []sample
			for at := time.Duration(0); at < 32*time.Minute; at += sampleEvery {
				f := flat
				f.Resident += 20 * rng.Float64()
				f.Heap += 60 * rng.Float64() // between two collections
				f.Goroutines += rng.IntN(40)
				tt.at(at.Minutes(), &f)
				samples = append(samples, sample{Figures: f, at: at})
			}
			text, err := judge(samples, 30*time.Minute)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("judged %v, want %q\n%s", err, tt.want, text)
			}
		})
	}
	if _, err := judge(nil, time.Hour); err == nil {
		t.Error("nothing was judged as flat")
	}
}
