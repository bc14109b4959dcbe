package simulate

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
)

// Result is what a simulation came to.
type Result struct {
	Start time.Time
	// First is the first hand-over, Ended when the last message was over or the
	// simulation ended, both after the start. Drained says that nothing was left.
	First, Ended time.Duration
	Drained      bool
	// Width is that of the series' steps.
	Width time.Duration
	// Together says that one core ran all destinations.
	Together bool
	// Events counts what the engine handled.
	Events       int64
	Destinations []Outlook
	// WarmUps are the sources that are warmed up, day by day.
	WarmUps []WarmUpDay
	// Efficiency is the area under the delivered curve as a share of the oracle's,
	// from the first hand-over to the oracle's end; Hidden is the same against an
	// oracle that is not bound by our own rules. 0 when the oracle delivers nothing.
	Efficiency, HiddenEfficiency float64
}

// Outlook is what came of one destination.
type Outlook struct {
	Name, Group string
	Tally       Tally
	// Ended is when its last message was over, or the simulation ended; Drained says
	// that nothing was left.
	Ended   time.Duration
	Drained bool
	// Parts are the hand-overs' parts in it, in the order of Config.HandOvers; those
	// without mail for it are left out.
	Parts []Part
	Bins  []Bin
	// Limit is the mean capacity in each step, in messages per second.
	Limit []float64
	// Oracle keeps our rules, Hidden does not.
	Oracle, Hidden Oracle
	// Efficiency and HiddenEfficiency are as in Result, to the oracle's end here.
	Efficiency, HiddenEfficiency float64
	// Area is the message-seconds under the delivered curve until the last
	// destination's oracle is done.
	Area float64
}

// Horizons to which the area under the delivered curve is measured: the end of the
// oracle here, and the last oracle's; each with and without our rules.
const (
	ownOracle = iota
	lastOracle
	ownHidden
	lastHidden
	horizons
)

// run simulates each destination on its own, and all together if their shared
// bounds might have bound.
func (c *Config) run(cancelled func() bool) *Result {
	res := c.oracles()
	if !c.Together && !c.warming() {
		engines := c.apart(res, cancelled)
		if cancelled() {
			return nil
		}
		if c.independent(engines) {
			return res.collect(c, engines)
		}
	}
	all := make([]*destination, len(c.Destinations))
	for i := range all {
		all[i] = c.destination(i, res)
	}
	e := newEngine(c, res.Width, all)
	e.cancelled = cancelled
	e.run()
	res.Together = true
	return res.collect(c, []*engine{e})
}

// warming reports whether a source is warmed up.
func (c *Config) warming() bool {
	for _, p := range c.Pools {
		if slices.ContainsFunc(p.Sources, func(s dispatch.Source) bool { return s.WarmUp != nil }) {
			return true
		}
	}
	return false
}

// oracles foretells every destination, and chooses the width of the steps.
func (c *Config) oracles() *Result {
	res := &Result{Start: c.Start, Width: c.Resolution, Destinations: make([]Outlook, len(c.Destinations)), First: c.Duration}
	if c.Forecast {
		res.First = 0
		if res.Width == 0 {
			res.Width = widthFor(c.Duration, c.Duration)
		}
		return res
	}
	c.allowance = c.allowances()
	c.parallel(func(i int) {
		o := &res.Destinations[i]
		r := c.Destinations[i].Receiver()
		o.Oracle = c.oracle(i, c.allowed(i, r.Capacity), firstsOf(r, true), nil)
		if h, ok := r.(Hidden); ok {
			o.Hidden = c.oracle(i, h.HiddenCapacity, firstsOf(r, false), nil)
		} else {
			o.Hidden = o.Oracle
		}
	})
	last := time.Duration(0)
	for i := range c.Destinations {
		first, _, total := c.span(i)
		if total > 0 {
			res.First = min(res.First, first)
			last = max(last, res.Destinations[i].Oracle.Done)
		}
	}
	if res.Width == 0 {
		res.Width = widthFor(last, c.Duration)
	}
	c.parallel(func(i int) { c.draw(i, res) })
	return res
}

// Hidden is implemented by receivers that know their capacity for a sender without
// rules of its own.
type Hidden interface {
	HiddenCapacity(now time.Time) float64
}

// Greylister is implemented by receivers that put every first attempt off.
type Greylister interface {
	// Greylisting is how long after a message's first attempt it comes back at the
	// earliest and is taken; 0 says that nothing is put off. Over spread from then on
	// all come back, evenly.
	Greylisting() (delay, spread time.Duration)
	// FirstCapacity is how many first attempts a second there is room for beside so many
	// deliveries a second; own says that the sender keeps its own rules.
	FirstCapacity(now time.Time, delivered float64, own bool) float64
}

// draw fills the oracle's curve in.
func (c *Config) draw(i int, res *Result) {
	o := &res.Destinations[i].Oracle
	r := c.Destinations[i].Receiver()
	c.oracle(i, c.allowed(i, r.Capacity), firstsOf(r, true), func(to time.Duration, delivered float64) {
		step := int((to - 1) / res.Width)
		for len(o.Curve) <= step {
			o.Curve = append(o.Curve, lastOf(o.Curve))
		}
		o.Curve[step] = delivered
	})
}

// limits samples the capacity of each step until the destination's end.
func (c *Config) limits(o *Outlook, i int, width time.Duration) {
	r := c.Destinations[i].Receiver()
	capacity := c.allowed(i, r.Capacity)
	steps := int((max(o.Ended, o.Oracle.Done) + width - 1) / width)
	o.Limit = make([]float64, steps)
	for k := range o.Limit {
		for n := range limitSamples {
			at := time.Duration(k)*width + width*time.Duration(2*n+1)/(2*limitSamples)
			o.Limit[k] += capacity(c.Start.Add(at)) / limitSamples
		}
	}
}

// limitSamples is how often in a step the capacity is looked at.
const limitSamples = 4

func lastOf(s []float64) float64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1]
}

func (c *Config) destination(i int, res *Result) *destination {
	d := &destination{spec: &c.Destinations[i], index: i, receiver: c.Destinations[i].Receiver()}
	start := c.Start.UnixNano()
	d.steadyAt = start + int64(res.First+c.SteadyAfter)
	last, lastHid := res.lastDone()
	for h, at := range [horizons]time.Duration{
		ownOracle: res.Destinations[i].Oracle.Done, lastOracle: last,
		ownHidden: res.Destinations[i].Hidden.Done, lastHidden: lastHid,
	} {
		d.horizons[h] = start + int64(at)
	}
	return d
}

// lastDone is when the last oracle with mail is done, with our rules and without.
func (res *Result) lastDone() (bound, hidden time.Duration) {
	for i := range res.Destinations {
		o := &res.Destinations[i]
		if o.Oracle.Delivered > 0 || !o.Oracle.Finished {
			bound = max(bound, o.Oracle.Done)
		}
		if o.Hidden.Delivered > 0 || !o.Hidden.Finished {
			hidden = max(hidden, o.Hidden.Done)
		}
	}
	return bound, hidden
}

// apart runs an engine for each destination.
func (c *Config) apart(res *Result, cancelled func() bool) []*engine {
	engines := make([]*engine, len(c.Destinations))
	c.parallel(func(i int) {
		e := newEngine(c, res.Width, []*destination{c.destination(i, res)})
		e.cancelled = cancelled
		e.run()
		engines[i] = e
	})
	return engines
}

// parallel does something for each destination, those with most mail first, on all
// processors.
func (c *Config) parallel(do func(i int)) {
	order := make([]int, len(c.Destinations))
	totals := make([]float64, len(order))
	for i := range order {
		order[i] = i
		_, _, totals[i] = c.span(i)
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case totals[a] > totals[b]:
			return -1
		case totals[a] < totals[b]:
			return 1
		}
		return 0
	})
	next := make(chan int, len(order))
	for _, i := range order {
		next <- i
	}
	close(next)
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(order)) {
		workers.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	workers.Wait()
}

// independent reports whether what destinations share could not have bound: in every
// step, the sum of their most sessions stayed below the half that probes may have,
// and that of their unsettled messages below its bound.
func (c *Config) independent(engines []*engine) bool {
	for step := 0; ; step++ {
		sessions, unsettled, left := 0, 0, false
		for _, e := range engines {
			if step < len(e.peaks) {
				left = true
				sessions += e.peaks[step].sessions
				unsettled += e.peaks[step].unsettled
			}
		}
		switch {
		case !left:
			return true
		case len(engines) > 1 && (sessions > c.Dispatch.MaxSessions/2 || unsettled >= c.Dispatch.MaxUnsettled):
			return false
		}
	}
}

// collect gathers what engines found.
func (res *Result) collect(c *Config, engines []*engine) *Result {
	res.Drained = true
	for _, e := range engines {
		res.Events += e.events
		res.WarmUps = append(res.WarmUps, e.warmUps...)
		for _, d := range e.dests {
			o := &res.Destinations[d.index]
			o.Name, o.Group = d.spec.Name, d.spec.Group
			if o.Group == "" {
				o.Group = o.Name
			}
			o.Tally, o.Bins, o.Parts = d.tally, d.bins, d.partsOf()
			o.Tally.Waiting = o.Tally.Recipients - o.Tally.Delivered - o.Tally.Bounced - o.Tally.Expired
			o.Drained = o.Tally.Waiting == 0
			o.Ended = c.Duration
			if o.Drained {
				o.Ended = d.last
			}
			o.Efficiency = share(d.areas[ownOracle], o.Oracle.Area)
			o.HiddenEfficiency = share(d.areas[ownHidden], o.Hidden.Area)
			res.Drained = res.Drained && o.Drained
			res.Ended = max(res.Ended, o.Ended)
		}
	}
	res.compare(engines)
	if c.Forecast {
		return res
	}
	c.parallel(func(i int) { c.limits(&res.Destinations[i], i, res.Width) })
	return res
}

// compare sums the areas of all destinations to the last oracle's end.
func (res *Result) compare(engines []*engine) {
	last, lastHid := res.lastDone()
	var ours, oracle, oursHid, hidden float64
	for _, e := range engines {
		for _, d := range e.dests {
			o := &res.Destinations[d.index]
			o.Area = d.areas[lastOracle]
			o.Oracle.Overall = o.Oracle.Area + o.Oracle.Delivered*(last-o.Oracle.Done).Seconds()
			o.Hidden.Overall = o.Hidden.Area + o.Hidden.Delivered*(lastHid-o.Hidden.Done).Seconds()
			ours += o.Area
			oursHid += d.areas[lastHidden]
			oracle += o.Oracle.Overall
			hidden += o.Hidden.Overall
		}
	}
	res.Efficiency, res.HiddenEfficiency = share(ours, oracle), share(oursHid, hidden)
}

func share(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return part / whole
}
