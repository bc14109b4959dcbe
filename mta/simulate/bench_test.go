package simulate

import (
	"net/netip"
	"testing"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
)

// willing is a receiver that takes everything, after a while.
type willing struct{ delay time.Duration }

func (w willing) Connect(time.Time, Caller) (Conn, Answer)    { return w, Answer{RoundTrips: 1} }
func (w willing) Capacity(time.Time) float64                  { return 1e4 }
func (w willing) Envelope(time.Time, *Message) Answer         { return Answer{Whole: true, Delay: w.delay} }
func (w willing) Content(time.Time) Answer                    { return Answer{} }
func (w willing) Close(time.Time)                             {}
func (judgeNobody) Connection(Place, Reply) dispatch.Evidence { return dispatch.Evidence{} }

type judgeNobody struct{}

func (judgeNobody) Transaction(now time.Time, _ Place, m *Message, _ Reply) Fate {
	return Fate{Outcome: Deferred, Next: now.Add(20 * time.Minute), State: m.State}
}

// benchConfig is n messages for four receivers that take them as they come.
func benchConfig(b *testing.B, n int64) Config {
	b.Helper()
	rule := mxrules.BuiltinGeneric()
	rule.Limits.Connections, rule.Limits.ConnectionRate, rule.Limits.MessageRate = 20, mxrules.Rate{}, mxrules.Rate{}
	rules, err := mxrules.NewRules([]mxrules.Rule{rule}, nil)
	if err != nil {
		b.Fatal(err)
	}
	cfg := Config{
		Duration: 1000 * time.Hour, Seed: 1, Judge: judgeNobody{}, Rules: rules, Resolution: time.Minute,
		Pools:     []dispatch.Pool{{Name: "main", Sources: []dispatch.Source{{Name: "s1", Addr: netip.MustParseAddr("192.0.2.1"), Weight: 1}}}},
		Timing:    Timing{Commit: 2 * time.Millisecond, Load: time.Millisecond},
		HandOvers: []HandOver{{Counts: []int64{n / 4, n / 4, n / 4, n - 3*(n/4)}, Priority: 50, Pool: "main"}},
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		cfg.Destinations = append(cfg.Destinations, Destination{
			Name: name, RoundTrip: 20 * time.Millisecond, Receiver: func() Receiver { return willing{delay: 20 * time.Millisecond} },
			Domains: []Domain{{Name: name + ".example", Hosts: []dispatch.Host{{Name: "mx." + name + ".example", Preference: 10}}}},
		})
	}
	return cfg
}

// BenchmarkRun is the cost of a message in the simulator, with a receiver that costs
// nothing: the dispatch core's part and the engine's.
func BenchmarkRun(b *testing.B) {
	cfg := benchConfig(b, int64(b.N))
	b.ReportAllocs()
	res, err := Run(cfg)
	if err != nil {
		b.Fatal(err)
	}
	if !res.Drained {
		b.Fatal("mail is left")
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
