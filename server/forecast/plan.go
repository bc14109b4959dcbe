package forecast

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/simulate"
	"github.com/veredus/veredus/mxrules"
)

// DefaultUnits is how many steps of mail are simulated at most. A delivery of more
// messages goes in steps of several at a time, whose pace is divided by as many.
const DefaultUnits = 150_000

// Figures that are assumed where nothing is known.
const (
	// usualLatency is what a message takes at an ordinary provider: two round trips of
	// 50 ms, and a filter that looks at it.
	usualLatency = 250 * time.Millisecond
	// setupShare is what opening a connection takes, in messages: TCP, greeting, EHLO
	// and TLS are five round trips.
	setupShare = 1.0
	// commit, load and look-up are the node's own (docs/simulate.md).
	commitTime, loadTime = 2 * time.Millisecond, time.Millisecond
	// maxRivals is how many other deliveries are told apart.
	maxRivals = 50
	// bulkHourly is the part of an hourly quota that bulk mail may use.
	bulkHourly = 0.95
)

// plan is the simulation that an Input asks for.
type plan struct {
	in     *Input
	cfg    simulate.Config
	pool   map[string]netip.Addr // sources with the addresses that they have in it
	index  []int                 // by Input.Destinations: place among ways, -1 for none
	ways   []way
	ours   int   // the first hand-overs are the delivery's own
	scale  int64 // largest step
	others int64 // messages of other deliveries
	rivals map[dispatch.DeliveryID]bool
}

// way is a destination in the simulation.
type way struct {
	d     *Destination
	steps int64         // messages in a step
	rest  time.Duration // until its paths do anything
	due   time.Duration // until the delivery's own retries do
	rate  string        // what the message rate is, in a word
	conns string        // the same of connections
}

func (in *Input) plan() (*plan, error) {
	p := &plan{in: in, index: make([]int, len(in.Destinations)), rivals: map[dispatch.DeliveryID]bool{}}
	if err := p.pools(); err != nil {
		return nil, err
	}
	p.collect()
	p.measure()
	var rules []mxrules.Rule
	for i := range p.ways {
		rules = p.addWay(rules, i)
	}
	set, err := mxrules.NewRules(rules, nil)
	if err != nil {
		return nil, fmt.Errorf("forecast: %w", err)
	}
	p.cfg.Start, p.cfg.Duration = in.Now, in.Validity+time.Minute
	p.cfg.Seed, p.cfg.Forecast = 1, true
	p.cfg.Rules, p.cfg.Judge = set, judge{in.Schedule}
	p.cfg.Dispatch.MaxSessions = in.MaxSessions
	p.cfg.Timing = simulate.Timing{Commit: commitTime, Load: loadTime}
	p.handOver()
	p.compete()
	return p, nil
}

// pools takes the delivery's pool and those that it overflows into. Each source gets
// an address of its own, by which rules find it.
func (p *plan) pools() error {
	p.pool = map[string]netip.Addr{}
	seen := map[string]bool{}
	for name := p.in.Pool; name != "" && !seen[name]; {
		seen[name] = true
		i := slices.IndexFunc(p.in.Pools, func(q dispatch.Pool) bool { return q.Name == name })
		if i < 0 {
			break
		}
		one := p.in.Pools[i]
		one.Sources = slices.Clone(one.Sources)
		for j := range one.Sources {
			p.addSource(&one.Sources[j])
		}
		p.cfg.Pools = append(p.cfg.Pools, one)
		name = one.Overflow
	}
	if len(p.pool) == 0 {
		return errNoPool
	}
	return nil
}

func (p *plan) addSource(s *dispatch.Source) {
	addr, known := p.pool[s.Name]
	if !known {
		b := netip.MustParseAddr("2001:db8::").As16() // RFC 3849: for documentation
		binary.BigEndian.PutUint32(b[12:], uint32(len(p.pool)+1))
		addr = netip.AddrFrom16(b)
		p.pool[s.Name] = addr
	}
	s.Addr = addr
	if _, warming := p.in.WarmUps[s.Name]; !warming {
		s.WarmUp = nil
	}
}

// collect finds the destinations that mail can go to.
func (p *plan) collect() {
	for i := range p.in.Destinations {
		d := &p.in.Destinations[i]
		p.index[i] = -1
		if d.messages() > 0 && !d.Dead && len(d.Paths) > 0 {
			p.index[i] = len(p.ways)
			p.ways = append(p.ways, way{d: d, rest: p.restOf(d)})
			for _, o := range d.Others {
				p.others += o.Fresh + o.Deferred
				p.rivals[o.Delivery] = true
			}
		}
	}
}

// restOf is how long all paths of a destination do nothing.
func (p *plan) restOf(d *Destination) time.Duration {
	least := time.Duration(math.MaxInt64)
	for _, path := range d.Paths {
		least = min(least, max(0, path.RestUntil.Sub(p.in.Now)))
		if path.RestUntil.IsZero() {
			least = 0
		}
	}
	return least
}

// measure chooses how many messages go in a step: as few as the simulation has room
// for. Warm-up caps are common to all destinations, so that then all have one measure.
func (p *plan) measure() {
	units := int64(p.in.Units)
	if units <= 0 {
		units = DefaultUnits
	}
	sizes, total := make([]int64, len(p.ways)), int64(0)
	for i := range p.ways {
		sizes[i] = p.ways[i].d.messages()
		for _, o := range p.ways[i].d.Others {
			sizes[i] += o.Fresh + o.Deferred
		}
		total += sizes[i]
	}
	p.scale = 1
	most := fill(slices.Clone(sizes), units)
	for i := range p.ways {
		p.ways[i].steps = max(1, ceil(sizes[i], most))
		if len(p.in.WarmUps) > 0 {
			p.ways[i].steps = max(1, ceil(total, units))
		}
		p.scale = max(p.scale, p.ways[i].steps)
	}
	if len(p.in.WarmUps) > 0 {
		p.warm()
	}
}

// fill is the most that each may have so that all together fit.
func fill(sizes []int64, room int64) int64 {
	slices.Sort(sizes)
	for i, n := range sizes {
		left := int64(len(sizes) - i)
		if n*left > room {
			return max(1, room/left)
		}
		room -= n
	}
	return math.MaxInt64
}

func ceil(a, b int64) int64 {
	n := a / b
	if a%b != 0 {
		n++
	}
	return n
}

// warm gives the sources that are warmed up their state, and caps in steps.
func (p *plan) warm() {
	p.cfg.WarmUps = map[string]mxrules.WarmUpState{}
	for name, state := range p.in.WarmUps {
		if addr, ok := p.pool[name]; ok {
			p.cfg.WarmUps[name] = stepped(state, p.scale, addr)
		}
	}
	for i := range p.cfg.Pools {
		for j := range p.cfg.Pools[i].Sources {
			s := &p.cfg.Pools[i].Sources[j]
			if s.WarmUp != nil && p.scale > 1 {
				s.WarmUp = steppedPlan(s.WarmUp, p.scale)
			}
		}
	}
}

func stepped(s mxrules.WarmUpState, scale int64, addr netip.Addr) mxrules.WarmUpState {
	s.Address = addr.String()
	s.Providers = slices.Clone(s.Providers)
	for _, n := range []*int64{&s.Sent, &s.Pending, &s.Delivered, &s.Deferred, &s.Bounced, &s.Blocked, &s.Complaints, &s.Before} {
		*n = *n / scale
	}
	for i := range s.Providers {
		s.Providers[i].Sent /= scale
		s.Providers[i].Pending /= scale
	}
	return s
}

func steppedPlan(w *mxrules.WarmUpPlan, scale int64) *mxrules.WarmUpPlan {
	out := &mxrules.WarmUpPlan{Caps: steppedCaps(w.Caps, scale), Hours: w.Hours, Providers: slices.Clone(w.Providers)}
	for i := range out.Providers {
		out.Providers[i].Caps = steppedCaps(w.Providers[i].Caps, scale)
	}
	return out
}

func steppedCaps(caps []int64, scale int64) []int64 {
	out := slices.Clone(caps)
	for i := range out {
		out[i] = max(1, out[i]/scale)
	}
	return out
}

// addWay lays out a destination with the rules of its paths.
func (p *plan) addWay(rules []mxrules.Rule, i int) []mxrules.Rule {
	w := &p.ways[i]
	host := fmt.Sprintf("mx%d.forecast.invalid", i)
	each := 0 // messages on a connection
	for j, path := range w.d.Paths {
		addr, ok := p.pool[path.Source]
		if !ok {
			continue
		}
		limits, n := w.limits(&path, p.latency(w.d))
		if each == 0 || n != 0 && n < each {
			each = n
		}
		rule := mxrules.Rule{
			ID: fmt.Sprintf("w%d-%d", i, j), Hosts: []mxrules.Mask{mxrules.Mask(host)},
			Sources: []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}, Set: mxrules.AllFields, Limits: limits,
		}
		rules = append(rules, rule)
	}
	r := p.receiver(w, each)
	p.cfg.Destinations = append(p.cfg.Destinations, simulate.Destination{
		Name: w.d.Name, Provider: w.d.Provider, Receiver: func() simulate.Receiver { return r },
		Domains: []simulate.Domain{{Name: fmt.Sprintf("d%d.forecast.invalid", i), Hosts: []dispatch.Host{{Name: host, Preference: 10}}}},
	})
	return rules
}

// limits are a path's in the simulation, and how many messages a connection carries.
// In steps of several messages the latter is part of the time that each takes, and the
// rate of connections one of messages.
func (w *way) limits(path *dispatch.Prospect, latency time.Duration) (l mxrules.Limits, each int) {
	b, like := path.Believed, float64(max(w.d.Like, 1))
	l = mxrules.Defaults()
	l.TLS, l.Shared = mxrules.TLSNone, path.Shared
	l.Connections = int(min(float64(b.Connections)*like, mxrules.MaxConnections))
	each = min(b.MessagesPerConnection, mxrules.MaxMessagesPerConnection)
	if w.d.Like > 1 { // each has few messages
		each = least(each, int(max(1, w.d.messages()/int64(w.d.Like))))
	}
	rate, word := w.pace(path)
	dials := b.ConnectionRate.PerSecond()
	if w.steps == 1 {
		l.MessagesPerConnection = each
		l.ConnectionRate = rateOf(dials*like, b.ConnectionRate.Burst)
	} else if by := dials * float64(each); by > 0 && (rate == 0 || by < rate) {
		rate, word = by, "connection_rate"
	}
	burst := 0
	if w.steps == 1 {
		burst = b.MessageRate.Burst
	}
	l.MessageRate = rateOf(rate*like/float64(w.steps), burst)
	if w.rate == "" {
		w.rate = word
	}
	if w.conns == "" {
		w.conns = w.connectionWord(path, dials*float64(each), latency)
	}
	return l, each
}

// connectionWord names what bounds mail whose connections are all in use: how many
// there may be, or how soon new ones may be opened, which bring so many messages a second.
func (w *way) connectionWord(path *dispatch.Prospect, opened float64, latency time.Duration) string {
	most := float64(path.Believed.Connections) / latency.Seconds()
	switch {
	case opened > 0 && (most == 0 || opened < most):
		return "connection_rate"
	case path.Learned.Has(mxrules.FieldConnections):
		return "learned connections"
	}
	return "connections"
}

// least is the lower of two counts of which 0 is none.
func least(a, b int) int {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// pace is the strictest of a path's rates of messages, a second, and what it is.
func (w *way) pace(path *dispatch.Prospect) (rate float64, word string) {
	b := &path.Believed
	rate, word = b.MessageRate.PerSecond(), "message_rate"
	if path.Learned.Has(mxrules.FieldMessageRate) {
		word = "learned rate"
	}
	for _, q := range []struct {
		rate float64
		word string
	}{
		{bulkHourly * float64(b.MessagesPerHour) / 3600, "messages_per_hour"},
		{float64(b.MessagesPerDay) / 86400, "messages_per_day"},
	} {
		if q.rate > 0 && (rate == 0 || q.rate < rate) {
			rate, word = q.rate, q.word
		}
	}
	return rate, word
}

// rateOf is a rate as rules have it; 0 is none.
func rateOf(perSecond float64, burst int) mxrules.Rate {
	if !(perSecond > 0) {
		return mxrules.Rate{}
	}
	per := time.Duration(min(max(float64(time.Second)/perSecond, float64(time.Microsecond)), float64(24*time.Hour)))
	return mxrules.Rate{Count: 1, Per: per, Burst: min(burst, int(24*time.Hour/per))}
}

// word names what held mail.
func (w *way) word(h simulate.Held) string {
	switch h.Cause {
	case dispatch.CauseRate:
		switch h.Hold {
		case mxrules.HoldMessageRate.String():
			return w.rate
		case mxrules.HoldConnections.String():
			return w.conns
		}
		return h.Hold
	case dispatch.CauseQueue:
		return w.conns
	case dispatch.CauseWarmUp:
		return "warm-up"
	case dispatch.CauseRetry:
		return "retries"
	case dispatch.CauseSlot:
		return "max_sessions"
	}
	return strings.ReplaceAll(h.Cause.String(), "_", " ")
}

// handOver is the delivery's mail: at once, or when its paths have rested and its
// retries are due.
func (p *plan) handOver() {
	d := deal{p: p, at: map[time.Duration]int{}, like: simulate.HandOver{Class: p.in.Class, Priority: priority(p.in.Priority), Pool: p.in.Pool}}
	for i := range p.ways {
		w := &p.ways[i]
		d.give(i, w.rest, w.d.Fresh)
		if w.d.Deferred > 0 {
			w.due = p.dueIn(w, w.d.NextDue)
		}
		d.give(i, w.due, w.d.Deferred)
	}
	p.ours = len(p.cfg.HandOvers)
	for i := range p.cfg.HandOvers {
		h := &p.cfg.HandOvers[i]
		h.Validity = max(p.in.Validity-h.At, time.Nanosecond)
	}
}

func priority(n int) int {
	if n < 1 || n > 100 {
		return 50
	}
	return n
}

// dueIn is when retries can go.
func (p *plan) dueIn(w *way, due time.Time) time.Duration {
	if due.IsZero() {
		return w.rest
	}
	return max(w.rest, due.Sub(p.in.Now))
}

// deal gives mail of one kind to hand-overs, one for each instant.
type deal struct {
	p    *plan
	at   map[time.Duration]int
	like simulate.HandOver
}

func (d *deal) give(way int, when time.Duration, n int64) {
	if n <= 0 {
		return
	}
	p := d.p
	when = min(when.Truncate(time.Second), p.in.Validity)
	i, ok := d.at[when]
	if !ok {
		i = len(p.cfg.HandOvers)
		d.at[when] = i
		h := d.like
		h.At = when
		p.cfg.HandOvers = append(p.cfg.HandOvers, h)
	}
	h := &p.cfg.HandOvers[i]
	for len(h.Counts) <= way {
		h.Counts = append(h.Counts, 0)
	}
	h.Counts[way] += ceil(n, p.ways[way].steps)
}

// rival is another delivery as the simulation has it.
type rival struct {
	dispatch.Competitor       // its first mail
	total               int64 // at all destinations
}

// compete hands over the mail of other deliveries, the largest each for itself.
func (p *plan) compete() {
	var rest *deal
	for k, r := range p.strongest() {
		d := &deal{p: p, at: map[time.Duration]int{}, like: simulate.HandOver{Class: r.Class, Priority: priority(r.Priority), Pool: p.in.Pool}}
		if k >= maxRivals {
			if rest == nil {
				rest = d
			}
			d = rest
		}
		for i := range p.ways {
			p.enter(d, i, r.Delivery)
		}
	}
}

// enter gives a delivery's mail for one destination.
func (p *plan) enter(d *deal, i int, id dispatch.DeliveryID) {
	w := &p.ways[i]
	for _, o := range w.d.Others {
		if o.Delivery == id {
			d.give(i, w.rest, o.Fresh)
			d.give(i, p.dueIn(w, o.NextDue), o.Deferred)
		}
	}
}

// strongest are the other deliveries, those with most mail first.
func (p *plan) strongest() []*rival {
	by := map[dispatch.DeliveryID]*rival{}
	var list []*rival
	for i := range p.ways {
		for _, o := range p.ways[i].d.Others {
			if by[o.Delivery] == nil {
				by[o.Delivery] = &rival{Competitor: o}
				list = append(list, by[o.Delivery])
			}
			by[o.Delivery].total += o.Fresh + o.Deferred
		}
	}
	slices.SortFunc(list, func(a, b *rival) int {
		return cmp.Or(cmp.Compare(b.total, a.total), cmp.Compare(a.Delivery, b.Delivery))
	})
	return list
}
