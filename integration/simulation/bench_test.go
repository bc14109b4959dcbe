package simulation

import (
	"testing"
)

// tenMillion is docs/simulate.md's example of a large campaign, with as much mail as
// is asked for.
const tenMillion = "scenarios/large/ten-million.yaml"

// BenchmarkScenario is the cost of a message with the receivers of package world and
// their audit: what `veredus simulate` takes.
func BenchmarkScenario(b *testing.B) {
	s, err := Read(tenMillion)
	if err != nil {
		b.Fatal(err)
	}
	s.HandOvers[0].Recipients = max(int64(b.N), 1000)
	b.ReportAllocs()
	b.ResetTimer()
	r, err := s.Run()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(r.Attempts)/b.Elapsed().Seconds(), "messages/s")
}

// BenchmarkParse is the cost of reading the largest scenario.
func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read("scenarios/mixed-world.yaml"); err != nil {
			b.Fatal(err)
		}
	}
}
