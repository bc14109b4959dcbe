package simulate

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
)

// never is an instant that does not come.
const never = int64(math.MaxInt64)

// engine runs one core and the world around it. It belongs to one goroutine.
type engine struct {
	cfg  *Config
	core *dispatch.Core

	start, end int64 // Unix nanoseconds
	now        int64
	t          time.Time // now, as the core takes it
	queue      queue
	width      int64 // of the series' steps
	stepEnd    int64 // end of the step under way
	step       int

	dests   []*destination
	byName  map[string]*destination
	domains map[string]*domain
	byIndex []*domain
	sources []string // names, for pins
	pins    map[string]uint8

	hands [][]*run
	runs  []*run
	left  int64 // messages that are not over, those to arrive included

	msgs       []message
	freeMsgs   []uint32
	loadedMsgs []dispatch.Msg
	mail       Message // the one being sent
	writer     writer

	sessions []*session // by place
	freeSess []uint32
	byID     map[dispatch.SessionID]*session

	open, unsettled int
	peaks           []peak // by step
	events          int64
	warmUps         []WarmUpDay

	cancelled func() bool
	lookAt    int64 // when what holds mail is looked at again
	lookedAt  int64
}

// destination is a receiver in an engine.
type destination struct {
	spec     *Destination
	index    int // in Config.Destinations
	receiver Receiver
	tally    Tally
	bins     []Bin
	horizons [horizons]int64
	areas    [horizons]float64
	steadyAt int64
	last     time.Duration // when its last message was over, after the start
	parts    []part        // by hand-over
}

type domain struct {
	dest  *destination
	spec  *Domain
	index uint32
}

// peak is the most of what destinations share, within one step.
type peak struct{ sessions, unsettled int }

// newEngine lays out the world of some of the destinations.
func newEngine(cfg *Config, width time.Duration, dests []*destination) *engine {
	e := &engine{
		cfg: cfg, start: cfg.Start.UnixNano(), width: int64(width), dests: dests,
		byName: map[string]*destination{}, domains: map[string]*domain{}, pins: map[string]uint8{},
		byID: map[dispatch.SessionID]*session{},
	}
	e.end = e.start + int64(cfg.Duration)
	e.now, e.t = e.start, cfg.Start
	e.lookAt, e.lookedAt = never, e.start
	if cfg.Forecast {
		e.lookAt = e.start
	}
	e.stepEnd = e.start + e.width
	e.peaks = append(e.peaks, peak{})
	for _, p := range cfg.Pools {
		for _, s := range p.Sources {
			e.addSource(s.Name)
		}
	}
	for _, d := range dests {
		e.byName[d.spec.Name] = d
		for i := range d.spec.Domains {
			dom := &domain{dest: d, spec: &d.spec.Domains[i], index: uint32(len(e.byIndex))}
			e.domains[dom.spec.Name] = dom
			e.byIndex = append(e.byIndex, dom)
		}
	}
	dc := cfg.Dispatch
	dc.Seed = cfg.Seed ^ uint64(dests[0].index+1)<<32
	e.core = dispatch.New(dc, cfg.Pools, cfg.Rules)
	e.restore()
	e.makeRuns()
	for i := range cfg.HandOvers {
		if len(e.hands[i]) > 0 {
			h := &cfg.HandOvers[i]
			e.queue.add(e.start+int64(h.At), evArrival, uint32(i), 0)
			e.queue.add(e.start+int64(h.At+h.Over+h.Validity), evExpire, uint32(i), 0)
		}
	}
	return e
}

// restore gives the core the state that it begins with.
func (e *engine) restore() {
	for _, name := range slices.Sorted(maps.Keys(e.cfg.WarmUps)) {
		e.core.RestoreWarmUp(e.t, name, e.cfg.WarmUps[name])
	}
	for _, key := range slices.Sorted(maps.Keys(e.cfg.Usage)) {
		e.core.RestoreUsage(e.t, key, e.cfg.Usage[key])
	}
}

func (e *engine) addSource(name string) {
	if _, known := e.pins[name]; known || len(e.sources) >= maxSources {
		return
	}
	e.sources = append(e.sources, name)
	e.pins[name] = uint8(len(e.sources))
}

// run lets time pass until all mail is over, nothing can happen any more, or the
// simulation ends or is cancelled.
func (e *engine) run() {
	for rounds := 1; e.left > 0; rounds++ {
		if rounds%roundsUnasked == 0 && e.cancelled() {
			return
		}
		at := e.queue.next()
		wake := never
		if w := e.core.Wake(); !w.IsZero() {
			wake = max(w.UnixNano(), e.now)
		}
		if min(at, wake) > e.end {
			break
		}
		if min(at, wake) > e.lookAt {
			e.look(min(at, wake))
		}
		e.advance(min(at, wake))
		if wake < at {
			e.core.Tick(e.t)
		}
		for at == e.now {
			e.happen(e.queue.pop())
			at = e.queue.next()
		}
		e.act()
	}
	if e.left > 0 {
		e.advance(e.end)
	}
	e.noteWarmUps()
}

// roundsUnasked is after how many instants it is asked whether to go on.
const roundsUnasked = 1 << 10

// advance moves the clock, and closes the steps that it passes.
func (e *engine) advance(to int64) {
	if to/int64(dayLong) > e.now/int64(dayLong) {
		e.noteWarmUps()
	}
	e.now, e.t = to, instant(to)
	for to >= e.stepEnd {
		e.stepEnd += e.width
		e.step++
		e.peaks = append(e.peaks, peak{e.open, e.unsettled})
	}
}

// countOpen and countUnsettled keep what destinations share.
func (e *engine) countOpen(by int) {
	e.open += by
	p := &e.peaks[e.step]
	p.sessions = max(p.sessions, e.open)
}

func (e *engine) countUnsettled(by int) {
	e.unsettled += by
	p := &e.peaks[e.step]
	p.unsettled = max(p.unsettled, e.unsettled)
}

func (e *engine) happen(ev event) {
	e.events++
	switch ev.kind {
	case evArrival:
		e.arrive(ev.a)
	case evExpire:
		e.expire(ev.a)
	case evResolved:
		e.resolved(e.byIndex[ev.a])
	case evLoaded:
		e.loaded(ev.a, ev.b)
	case evWritten:
		e.written()
	case evCalled:
		e.called(e.sessions[ev.a])
	case evOpened:
		e.opened(e.sessions[ev.a])
	case evEnvelope:
		e.envelope(e.sessions[ev.a], ev.b)
	case evContent:
		e.content(e.sessions[ev.a])
	case evReplied:
		e.replied(e.sessions[ev.a])
	case evClosed:
		e.closed(e.sessions[ev.a])
	}
}

// act carries out what the core asks for until it asks for nothing.
func (e *engine) act() {
	for {
		actions := e.core.Take()
		if len(actions) == 0 {
			return
		}
		for i := range actions {
			e.carryOut(&actions[i])
		}
	}
}

func (e *engine) carryOut(a *dispatch.Action) {
	switch a.Kind {
	case dispatch.Resolve:
		e.queue.add(e.now+int64(e.cfg.Timing.Resolve), evResolved, e.domains[a.Domain].index, 0)
	case dispatch.Open:
		e.dial(a)
	case dispatch.Load:
		e.load(a)
	case dispatch.Claim:
		e.claim(a.Msgs)
	case dispatch.Send:
		e.send(a)
	case dispatch.TakeBack:
		e.takeBack(a)
	case dispatch.Close:
		s := e.byID[a.Session]
		e.queue.add(e.now+s.rtt, evClosed, s.place, 0)
	case dispatch.Return:
		e.returned(msgAt(a.Msg), a.Claimed)
	case dispatch.Postpone:
		e.postpone(msgAt(a.Msg), a.Until.UnixNano())
	case dispatch.Fail:
		e.countUnsettled(1)
		e.settle(msgAt(a.Msg), Bounced, 0)
	case dispatch.PathChanged:
		e.pathChanged(a)
	}
}

// resolved answers a look-up.
func (e *engine) resolved(d *domain) {
	if f := d.spec.Failure; f != nil {
		e.core.Unresolved(e.t, d.spec.Name, dispatch.ResolveFailure{
			Final: f.Final, Text: f.Text, Expires: instant(e.now + int64(time.Hour)),
		})
		return
	}
	e.core.Resolved(e.t, d.spec.Name, dispatch.Route{
		Destination: d.dest.spec.Name, Provider: d.dest.spec.Provider, Hosts: d.spec.Hosts,
		Expires: instant(e.now + int64(time.Hour)),
	})
}

func (e *engine) pathChanged(a *dispatch.Action) {
	d := e.byName[a.Destination]
	if d == nil {
		return
	}
	switch a.Change {
	case dispatch.PathSuspended:
		d.tally.Rests++
		d.bin(e).Rests++
	case dispatch.PathThrottled:
		d.tally.Cuts++
	}
}

// Run simulates.
func Run(cfg Config) (*Result, error) { return RunContext(context.Background(), cfg) }

// RunContext simulates until ctx ends, whose error it returns then.
func RunContext(ctx context.Context, cfg Config) (*Result, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if err := cfg.checkNames(); err != nil {
		return nil, err
	}
	res := cfg.run(func() bool { return ctx.Err() != nil })
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return res, nil
}

// checkNames refuses destinations and domains of the same name: mail would go to
// one of them only.
func (c *Config) checkNames() error {
	names, domains := map[string]bool{}, map[string]bool{}
	for i := range c.Destinations {
		d := &c.Destinations[i]
		if names[d.Name] {
			return fmt.Errorf("destination %q is there twice; give each a name of its own", d.Name)
		}
		names[d.Name] = true
		for _, dom := range d.Domains {
			if domains[dom.Name] {
				return fmt.Errorf("domain %q belongs to two destinations; give it to one", dom.Name)
			}
			domains[dom.Name] = true
		}
	}
	return nil
}
