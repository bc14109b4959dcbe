package forecast

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// perSecond is a rate without a burst.
func perSecond(n int) mxrules.Rate { return mxrules.Rate{Count: n, Per: time.Second} }

// from is a path that bears what it says.
func from(source string, l mxrules.Limits, learned ...mxrules.Field) dispatch.Prospect {
	return dispatch.Prospect{Source: source, Rule: l, Believed: l, Learned: mxrules.FieldsOf(learned...)}
}

// delivery is an input with one source.
func delivery(validity time.Duration, destinations ...Destination) Input {
	return Input{
		Now: noon, Validity: validity, Pool: "main", Destinations: destinations,
		Pools: []dispatch.Pool{{Name: "main", Sources: []dispatch.Source{{Name: "s1", Addr: netip.MustParseAddr("192.0.2.1"), Weight: 1}}}},
	}
}

func foretell(t *testing.T, in Input) *Forecast {
	t.Helper()
	f, err := Run(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// near reports whether two figures agree to a hundredth, or a second.
func near(a, b time.Duration) bool {
	return math.Abs(float64(a-b)) <= max(0.01*float64(b), float64(time.Second))
}

// What bounds a delivery is named, and its time follows from it.
func TestBottlenecks(t *testing.T) {
	limits := func(change func(l *mxrules.Limits)) mxrules.Limits {
		l := mxrules.Limits{Connections: 10}
		change(&l)
		return l
	}
	for _, c := range []struct {
		name    string
		d       Destination
		takes   time.Duration
		because string
	}{
		{"a rule's rate", Destination{Fresh: 36_000, Paths: []dispatch.Prospect{
			from("s1", limits(func(l *mxrules.Limits) { l.MessageRate = perSecond(10) })),
		}}, time.Hour, "message_rate"},
		{"what was learned", Destination{Fresh: 7200, Paths: []dispatch.Prospect{
			from("s1", limits(func(l *mxrules.Limits) { l.MessageRate = perSecond(2) }), mxrules.FieldMessageRate),
		}}, time.Hour, "learned rate"},
		{"connections", Destination{Fresh: 40_000, Paths: []dispatch.Prospect{
			from("s1", limits(func(l *mxrules.Limits) { l.Connections = 2 })),
		}}, 40_000 / 8 * time.Second, "connections"},
		{"an hourly quota, of which bulk mail has 95 %", Destination{Fresh: 9500, Paths: []dispatch.Prospect{
			from("s1", limits(func(l *mxrules.Limits) { l.MessagesPerHour = 1000 })),
		}}, 10 * time.Hour, "messages_per_hour"},
		{"new connections", Destination{Fresh: 6000, Paths: []dispatch.Prospect{
			from("s1", limits(func(l *mxrules.Limits) { l.ConnectionRate, l.MessagesPerConnection = perSecond(1), 1 })),
		}}, 6000 * time.Second, "connection_rate"},
		{"a rest", Destination{Fresh: 100, Paths: []dispatch.Prospect{
			{Source: "s1", Believed: mxrules.Limits{Connections: 10}, RestUntil: noon.Add(2 * time.Hour)},
		}}, 2*time.Hour + 3*time.Second, "rest"},
		{"its own retries", Destination{Deferred: 100, NextDue: noon.Add(time.Hour), Paths: []dispatch.Prospect{
			from("s1", mxrules.Limits{Connections: 10}),
		}}, time.Hour + 3*time.Second, "retries"},
		{"nothing", Destination{Fresh: 1, Paths: []dispatch.Prospect{from("s1", mxrules.Limits{})}}, 500 * time.Millisecond, "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.d.Name = "there"
			f := foretell(t, delivery(84*time.Hour, c.d))
			o := f.Destinations[0]
			if !near(f.Duration, c.takes) || f.Late != 0 {
				t.Errorf("takes %v with %d late, not %v", f.Duration, f.Late, c.takes)
			}
			if o.Bottleneck != c.because {
				t.Errorf("because of %s, not %s; %+v", o.Bottleneck, c.because, f)
			}
		})
	}
}

// What does not fit into the validity period is late.
func TestLateShare(t *testing.T) {
	slow := Destination{Name: "slow", Fresh: 3600, Paths: []dispatch.Prospect{from("s1", mxrules.Limits{MessageRate: perSecond(1)})}}
	quick := Destination{Name: "quick", Fresh: 400, Paths: []dispatch.Prospect{from("s1", mxrules.Limits{MessageRate: perSecond(10)})}}
	f := foretell(t, delivery(30*time.Minute, quick, slow))
	if f.Destinations[0].Destination != "slow" || math.Abs(float64(f.Late)-1800) > 10 || math.Abs(f.LatePercent()-45) > 0.5 || f.Duration != 30*time.Minute {
		t.Errorf("%+v", f)
	}
	if got := f.Summary(); !strings.HasPrefix(got, "about 30 min; slowest: slow at 1/s (message_rate)") || !strings.Contains(got, "; 1,80") || !strings.HasSuffix(got, "(45.0 %) will not make the validity period") {
		t.Error(got)
	}
	for _, rest := range []time.Duration{time.Hour, 29 * time.Minute} {
		slow.Paths[0].RestUntil = noon.Add(rest)
		f := foretell(t, delivery(30*time.Minute, slow))
		if want := int64(3600 - max(0, 60*(30-int64(rest/time.Minute)))); max(want-f.Late, f.Late-want) > 10 {
			t.Errorf("at rest for %v: %d late, not %d", rest, f.Late, want)
		}
	}
}

// Mail that other deliveries have there already takes its share, by priority.
func TestFairShare(t *testing.T) {
	there := Destination{
		Name: "there", Fresh: 6000, Paths: []dispatch.Prospect{from("s1", mxrules.Limits{MessageRate: perSecond(10)})},
		Others: []dispatch.Competitor{{Delivery: 7, Priority: 50, Pool: "main", Fresh: 60_000}},
	}
	for _, c := range []struct {
		priority int
		want     time.Duration
	}{{50, 20 * time.Minute}, {100, 15 * time.Minute}, {25, 30 * time.Minute}} {
		in := delivery(84*time.Hour, there)
		in.Priority = c.priority
		f := foretell(t, in)
		if math.Abs(f.Duration.Minutes()/c.want.Minutes()-1) > 0.03 {
			t.Errorf("priority %d: %v, not %v", c.priority, f.Duration, c.want)
		}
		if !strings.Contains(strings.Join(f.Assumptions, "; "), "60000 messages of 1 other delivery share") {
			t.Error(f.Assumptions)
		}
	}
	in := delivery(84*time.Hour, there)
	in.Class = dispatch.Transactional
	if f := foretell(t, in); f.Duration > 12*time.Minute {
		t.Errorf("transactional mail takes nine in ten slots: %v", f.Duration)
	}
}

// Deferrals and bounces come as they came before, retries by the node's schedule.
func TestRetriesAsShown(t *testing.T) {
	d := Destination{
		Name: "grey", Fresh: 1000, Paths: []dispatch.Prospect{from("s1", mxrules.Limits{Connections: 10})},
		Shown: Figures{Attempts: 500, Deferred: 0.3, Bounced: 0.1, Latency: 100 * time.Millisecond},
	}
	f := foretell(t, delivery(84*time.Hour, d))
	if o := f.Destinations[0]; o.Bottleneck != "retries" || f.Duration < time.Hour || f.Duration > 84*time.Hour {
		t.Errorf("%+v", o)
	}
	in := delivery(time.Minute, d)
	in.Schedule = mta.Schedule{Scale: 3600} // a sandbox's hours are seconds
	if f := foretell(t, in); f.Duration >= time.Minute || f.Late != 0 {
		t.Errorf("on a faster clock: %+v", f)
	}
	d.Shown.Deferred = 1
	if f := foretell(t, delivery(2*time.Hour, d)); f.Late < 500 {
		t.Errorf("a destination that puts almost everything off: %d late", f.Late)
	}
}

// Two sources are twice as fast, unless they share the path; what one of them learned
// is its own.
func TestSources(t *testing.T) {
	limits := mxrules.Limits{MessageRate: perSecond(10)}
	for _, c := range []struct {
		name  string
		paths []dispatch.Prospect
		want  time.Duration
	}{
		{"each for itself", []dispatch.Prospect{from("s1", limits), from("s2", limits)}, 10 * time.Minute},
		{"together", []dispatch.Prospect{{Source: "s1", Shared: true, Believed: limits}, {Source: "s2", Shared: true, Believed: limits}}, 20 * time.Minute},
		{"one is slow", []dispatch.Prospect{from("s1", limits), from("s2", mxrules.Limits{MessageRate: perSecond(2)})}, 1000 * time.Second},
	} {
		in := delivery(84*time.Hour, Destination{Name: "there", Fresh: 12_000, Paths: c.paths})
		in.Pools[0].Sources = append(in.Pools[0].Sources, dispatch.Source{Name: "s2", Weight: 1})
		if f := foretell(t, in); math.Abs(f.Duration.Seconds()/c.want.Seconds()-1) > 0.05 {
			t.Errorf("%s: %v, not %v", c.name, f.Duration, c.want)
		}
	}
}

// A source that is being warmed up keeps to its caps, whatever the destinations bear,
// also when mail is counted in steps.
func TestWarmUp(t *testing.T) {
	for _, units := range []int{100_000, 500} {
		in := delivery(60*time.Hour,
			Destination{Name: "a", Fresh: 3000, Paths: []dispatch.Prospect{from("s1", mxrules.Limits{})}},
			Destination{Name: "b", Fresh: 3000, Paths: []dispatch.Prospect{from("s1", mxrules.Limits{})}},
		)
		in.Units = units
		in.Pools[0].Sources[0].WarmUp = &mxrules.WarmUpPlan{Caps: []int64{1000, 2000, 4000}}
		in.WarmUps = map[string]mxrules.WarmUpState{"s1": {Address: "192.0.2.1", Stage: 1}}
		f := foretell(t, in)
		// 1000 until midnight, 2000 tomorrow, and of the 4000 of the day after 3000 by 18:00.
		if math.Abs(f.Duration.Hours()-54) > 0.5 || f.Late != 0 || f.Destinations[0].Bottleneck != "warm-up" {
			t.Errorf("%d units: %v; %+v", units, f.Duration, f.Destinations)
		}
		in.Validity = 36 * time.Hour
		if f := foretell(t, in); math.Abs(float64(f.Late-3000)) > 60 {
			t.Errorf("%d units: %d late after a day and a half", units, f.Late)
		}
		if !strings.Contains(strings.Join(f.Assumptions, "; "), "source s1 is warmed up: stage 1") {
			t.Error(f.Assumptions)
		}
	}
}

// Mail counted in steps takes as long as mail counted one by one.
func TestStepsAgree(t *testing.T) {
	for _, l := range []mxrules.Limits{
		{MessageRate: perSecond(50)},
		{Connections: 3, MessagesPerConnection: 10},
		{ConnectionRate: perSecond(2), MessagesPerConnection: 5},
		{Connections: 20, MessagesPerHour: 30_000},
	} {
		d := Destination{
			Name: "there", Fresh: 50_000, Paths: []dispatch.Prospect{from("s1", l)},
			Others: []dispatch.Competitor{{Delivery: 3, Priority: 50, Pool: "main", Fresh: 10_000}},
		}
		in := delivery(84*time.Hour, d)
		fine := foretell(t, in)
		in.Units = 5000
		coarse := foretell(t, in)
		if math.Abs(coarse.Duration.Seconds()/fine.Duration.Seconds()-1) > 0.05 || coarse.Destinations[0].Bottleneck != fine.Destinations[0].Bottleneck {
			t.Errorf("%+v: %v (%s) one by one, %v (%s) in steps", l, fine.Duration, fine.Destinations[0].Bottleneck, coarse.Duration, coarse.Destinations[0].Bottleneck)
		}
	}
}

// The long tail is as many average destinations, each with limits of its own.
func TestEveryoneElse(t *testing.T) {
	d := Destination{Name: EveryoneElse, Like: 1000, Fresh: 100_000, Paths: []dispatch.Prospect{from("s1", mxrules.Limits{MessageRate: perSecond(1)})}}
	if f := foretell(t, delivery(84*time.Hour, d)); f.Duration > 3*time.Minute {
		t.Errorf("100 messages to each at 1/s: %v", f.Duration)
	}
}

// The same input gives the same forecast to the last digit.
func TestForecastsAreDeterministic(t *testing.T) {
	in := delivery(84 * time.Hour)
	for i := range 30 {
		in.Destinations = append(in.Destinations, Destination{
			Name: fmt.Sprint("d", i), Fresh: int64(100 * (i + 1)), Deferred: int64(i), NextDue: noon.Add(time.Duration(i) * time.Minute),
			Paths:  []dispatch.Prospect{from("s1", mxrules.Limits{Connections: 1 + i%5, MessageRate: perSecond(1 + i)})},
			Shown:  Figures{Attempts: 100, Deferred: 0.05, Bounced: 0.01},
			Others: []dispatch.Competitor{{Delivery: dispatch.DeliveryID(i % 7), Priority: 20 + i, Pool: "main", Fresh: 500}},
		})
	}
	first := foretell(t, in)
	for range 3 {
		if again := foretell(t, in); !reflect.DeepEqual(first, again) {
			t.Fatalf("%+v\n%+v", first, again)
		}
	}
}

// Empty and hostile inputs are answered or refused, quickly.
func TestOddInputs(t *testing.T) {
	path := []dispatch.Prospect{from("s1", mxrules.Limits{})}
	if f := foretell(t, delivery(time.Hour)); f.Messages != 0 || f.LatePercent() != 0 || f.Summary() == "" {
		t.Errorf("nothing: %+v", f)
	}
	f := foretell(t, delivery(time.Hour,
		Destination{Name: "gone", Fresh: 10, Dead: true},
		Destination{Name: "nobody sends", Fresh: 5},
		Destination{Name: "empty"},
	))
	if f.Messages != 15 || f.Late != 5 || len(f.Destinations) != 2 || f.Destinations[0].Bottleneck != "no source" || f.Destinations[1].Bottleneck != "no route" {
		t.Errorf("%+v", f)
	}
	huge := Destination{
		Name: "huge", Fresh: 1 << 40, Deferred: 1 << 40, NextDue: noon.Add(-time.Hour), Like: 1 << 30,
		Paths: []dispatch.Prospect{from("s1", mxrules.Limits{Connections: 1 << 40, MessagesPerConnection: 1 << 40, MessageRate: mxrules.Rate{Count: 1, Per: 24 * time.Hour}})},
		Shown: Figures{Attempts: 1 << 50, Latency: 1 << 62, Deferred: math.NaN(), Bounced: 17},
	}
	foretell(t, delivery(84*time.Hour, huge))
	in := delivery(-time.Second, Destination{Name: "a", Fresh: 1, Paths: path})
	if _, err := Run(t.Context(), in); !errors.Is(err, errNoValidity) {
		t.Error(err)
	}
	in = delivery(time.Hour, Destination{Name: "a", Fresh: 1, Paths: path})
	in.Pool = "other"
	if _, err := Run(t.Context(), in); !errors.Is(err, errNoPool) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	in = delivery(84*time.Hour, Destination{Name: "a", Fresh: 1_000_000, Paths: path})
	if _, err := Run(ctx, in); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Whatever comes in, a forecast counts every message once and ends within the validity.
func TestForecastsAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := delivery(time.Duration(rapid.IntRange(1, 100*60).Draw(t, "minutes")) * time.Minute)
		most := 3000
		if raced {
			most = 300
		}
		in.Units = rapid.IntRange(0, most).Draw(t, "units")
		if in.Units == 0 {
			in.Units = most
		}
		in.Priority = rapid.IntRange(-5, 200).Draw(t, "priority")
		var total int64
		for i := range rapid.IntRange(1, 5).Draw(t, "destinations") {
			d := randomDestination(t, i)
			total += d.messages()
			in.Destinations = append(in.Destinations, d)
		}
		f, err := Run(context.Background(), in)
		if err != nil {
			t.Fatal(err)
		}
		p, err := in.plan()
		if err != nil {
			t.Fatal(err)
		}
		var sum, late int64
		for _, o := range f.Destinations {
			sum, late = sum+o.Messages, late+o.Late
			if o.Late < 0 || o.Late > o.Messages || o.Duration < 0 || o.Duration > f.Duration || o.Bottleneck == "" {
				t.Fatalf("%+v", o)
			}
			// What is under way at the end of the validity keeps its outcome: a step of messages.
			step := time.Duration(float64(o.Duration) * min(1, float64(p.scale)/float64(max(o.Messages, 1))))
			if o.Duration > in.Validity+10*time.Second+step {
				t.Fatalf("%v of %v in steps of %d: %+v", o.Duration, in.Validity, p.scale, o)
			}
		}
		if f.Messages != total || sum != total || late != f.Late || f.LatePercent() > 100 {
			t.Fatalf("%d of %d messages, %v of %v: %+v", sum, total, f.Duration, in.Validity, f)
		}
	})
}

func randomDestination(t *rapid.T, i int) Destination {
	d := Destination{
		Name: fmt.Sprint("d", i), Fresh: rapid.Int64Range(0, 20_000).Draw(t, "fresh"), Deferred: rapid.Int64Range(0, 500).Draw(t, "deferred"),
		NextDue: noon.Add(time.Duration(rapid.Int64Range(-int64(time.Hour), int64(90*time.Hour)).Draw(t, "due"))),
		Like:    rapid.IntRange(0, 50).Draw(t, "like"), Dead: rapid.IntRange(0, 9).Draw(t, "dead") == 0,
		Shown: Figures{
			Attempts: rapid.Int64Range(0, 100).Draw(t, "attempts"), Latency: time.Duration(rapid.Int64Range(-1, int64(time.Minute)).Draw(t, "latency")),
			Deferred: rapid.Float64Range(-1, 2).Draw(t, "put off"), Bounced: rapid.Float64Range(-1, 2).Draw(t, "refused"),
		},
	}
	if rapid.IntRange(0, 9).Draw(t, "sent") > 0 {
		p := from("s1", mxrules.Limits{
			Connections: rapid.IntRange(0, 20).Draw(t, "connections"), MessagesPerConnection: rapid.IntRange(0, 20).Draw(t, "each"),
			MessagesPerHour: rapid.IntRange(0, 5000).Draw(t, "hourly"), MessageRate: rateOf(rapid.Float64Range(0, 100).Draw(t, "rate"), 3),
		})
		if rapid.Bool().Draw(t, "rests") {
			p.RestUntil = d.NextDue
		}
		d.Paths = append(d.Paths, p)
	}
	if rapid.Bool().Draw(t, "others") {
		d.Others = append(d.Others, dispatch.Competitor{Delivery: 9, Priority: 30, Pool: "main", Fresh: rapid.Int64Range(0, 10_000).Draw(t, "their fresh"), Deferred: 3})
	}
	return d
}

// History forgets those used least, and leaves pacing out.
func TestHistory(t *testing.T) {
	h := &History{}
	settle := func(name string, o mta.Outcome, path bounce.PathEffect, took time.Duration) {
		h.Settled([]mta.Settlement{{Destination: name, Outcome: o, Verdict: bounce.Verdict{Path: path}, Attempt: &mta.Attempt{Duration: took}}})
	}
	for i := range 1000 {
		settle("a", mta.Delivered, bounce.PathNone, time.Second)
		settle("a", mta.Deferred, bounce.PathSlow, time.Minute)
		if i%4 == 0 {
			settle("a", mta.Deferred, bounce.PathNone, time.Millisecond)
		}
		if i%10 == 0 {
			settle("a", mta.Bounced, bounce.PathNone, time.Millisecond)
		}
	}
	f := h.Of("a")
	if math.Abs(f.Deferred-250.0/1350) > 0.01 || math.Abs(f.Bounced-100.0/1350) > 0.01 || f.Latency != time.Second || f.Attempts != 1350 {
		t.Errorf("%+v", f)
	}
	for i := range 3 * generation {
		settle(fmt.Sprint(i), mta.Delivered, bounce.PathNone, time.Second)
		if i%100 == 0 {
			h.Of("a")
		}
	}
	if h.Of("a").Attempts != 1350 || h.Of("0").Attempts != 0 || len(h.now)+len(h.was) > 2*generation {
		t.Errorf("a %+v, 0 %+v, %d kept", h.Of("a"), h.Of("0"), len(h.now)+len(h.was))
	}
	h.Settled([]mta.Settlement{{Destination: "b"}, {Outcome: mta.Delivered, Attempt: &mta.Attempt{}}})
	if h.Of("b") != (Figures{}) || h.Of("") != (Figures{}) {
		t.Error("what was not tried says nothing")
	}
}

// Durations read as people say them.
func TestSpans(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "a moment", 40 * time.Second: "40 s", 59700 * time.Millisecond: "1 min", 12 * time.Minute: "12 min", time.Hour: "1 h",
		200 * time.Minute: "3 h 20 min", 53 * time.Hour: "2 d 5 h", 72 * time.Hour: "3 d",
	} {
		if got := Span(d); got != want {
			t.Errorf("%v: %s, not %s", d, got, want)
		}
	}
}

// What a forecast of a large delivery costs.
func BenchmarkForecast(b *testing.B) {
	for _, n := range []int64{10_000, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			in := delivery(84 * time.Hour)
			for i := range 100 {
				in.Destinations = append(in.Destinations, Destination{
					Name: fmt.Sprint("d", i), Fresh: n / 100, Paths: []dispatch.Prospect{from("s1", mxrules.Limits{Connections: 10, MessagesPerConnection: 50, MessageRate: perSecond(20)})},
					Shown: Figures{Attempts: 100, Latency: 200 * time.Millisecond, Deferred: 0.02, Bounced: 0.01},
				})
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Run(b.Context(), in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestPacesAreToldInTheirNaturalUnit(t *testing.T) {
	for hourly, want := range map[float64]string{
		0: "0/h", 0.5: "12/d", 10_800: "3/s", 10_777: "3/s", 12_000: "200/min", 5000: "5000/h", 363: "363/h", 1234: "1234/h", 720_000: "200/s",
	} {
		if got := Pace(hourly); got != want {
			t.Errorf("%v an hour is told as %s, want %s", hourly, got, want)
		}
	}
}
