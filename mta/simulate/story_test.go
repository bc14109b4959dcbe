package simulate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
)

// limited are rules of one line for everybody.
func limited(t testing.TB, change func(l *mxrules.Limits)) *mxrules.Rules {
	t.Helper()
	rule := mxrules.BuiltinGeneric()
	rule.Limits.ConnectionRate, rule.Limits.MessageRate = mxrules.Rate{}, mxrules.Rate{}
	change(&rule.Limits)
	rules, err := mxrules.NewRules([]mxrules.Rule{rule}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// to is a destination with one domain.
func to(name string, make func() Receiver) Destination {
	return Destination{
		Name: name, Receiver: make,
		Domains: []Domain{{Name: name + ".example", Hosts: []dispatch.Host{{Name: "mx." + name + ".example", Preference: 10}}}},
	}
}

// plain is a configuration in which nothing takes time but receivers.
func plain(rules *mxrules.Rules, counts []int64, destinations ...Destination) Config {
	return Config{
		Duration: 200 * time.Hour, Judge: judgeNobody{}, Rules: rules,
		Pools:        []dispatch.Pool{{Name: "main", Sources: []dispatch.Source{{Name: "s1", Addr: netip.MustParseAddr("192.0.2.1"), Weight: 1}}}},
		Destinations: destinations, HandOvers: []HandOver{{Counts: counts, Priority: 50, Pool: "main"}},
	}
}

func outcomeOf(t testing.TB, cfg Config) *Result {
	t.Helper()
	res, err := Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// Time is exact: so many messages, one after the other on one connection, take what
// their replies take.
func TestTimeIsExact(t *testing.T) {
	slow := func() Receiver { return willing{delay: 100 * time.Millisecond} }
	for _, c := range []struct {
		rtt, commit, want time.Duration
	}{
		{0, 0, 100 * time.Second},
		// Three round trips until the greeting and EHLO are through, one for each message,
		// whose envelope goes behind the content of the one before, and one more for the
		// first; that is claimed before it is sent, and the last settled.
		{50 * time.Millisecond, 0, 1000*(100+50)*time.Millisecond + 4*50*time.Millisecond},
		{0, 2 * time.Millisecond, 100*time.Second + 4*time.Millisecond},
	} {
		cfg := plain(limited(t, func(l *mxrules.Limits) {
			l.Connections, l.MessagesPerConnection, l.Governor = 1, 0, mxrules.GovernorStatic
		}), []int64{1000}, to("a", slow))
		cfg.Timing.Commit = c.commit
		cfg.Destinations[0].RoundTrip = c.rtt
		res := outcomeOf(t, cfg)
		if res.Ended != c.want || !res.Drained {
			t.Errorf("%+v: drained in %v", c, res.Ended)
		}
	}
}

// A rate of our own is kept to the message, and the oracle that keeps it too is as fast.
func TestOwnRate(t *testing.T) {
	rules := limited(t, func(l *mxrules.Limits) { l.MessageRate = mxrules.Rate{Count: 10, Per: time.Second} })
	res := outcomeOf(t, plain(rules, []int64{6000}, to("a", func() Receiver { return capable{willing{}, 10} })))
	if res.Ended != 6000*100*time.Millisecond-100*time.Millisecond {
		t.Errorf("6000 messages at 10/s took %v", res.Ended)
	}
	if math.Abs(res.Efficiency-1) > 0.001 {
		t.Errorf("efficiency %g", res.Efficiency)
	}
}

// capable is a willing receiver with a capacity.
type capable struct {
	willing
	rate float64
}

func (c capable) Capacity(time.Time) float64 { return c.rate }

// Mail that nobody takes expires at the end of its validity, not before and not later.
func TestValidityEnds(t *testing.T) {
	cfg := plain(limited(t, func(*mxrules.Limits) {}), []int64{50}, to("a", func() Receiver { return &moody{always: CauseMailbox} }))
	cfg.HandOvers[0].Validity = 5 * time.Hour
	cfg.HandOvers[0].At = time.Hour
	res := outcomeOf(t, cfg)
	o := res.Destinations[0]
	if o.Tally.Expired != 50 || o.Ended != 6*time.Hour || !res.Drained {
		t.Errorf("%+v, ended %v", o.Tally, o.Ended)
	}
	if o.Tally.Deferrals[CauseMailbox] < 50*14 {
		t.Errorf("only %d attempts in five hours, every 20 minutes", o.Tally.Deferrals[CauseMailbox])
	}
}

// A domain that does not exist fails at once, one that cannot be resolved waits.
func TestLookups(t *testing.T) {
	gone, unclear := to("gone", willingly), to("unclear", willingly)
	gone.Domains[0].Failure = &dispatch.ResolveFailure{Final: true, Text: "no such domain"}
	unclear.Domains[0].Failure = &dispatch.ResolveFailure{Text: "no answer"}
	cfg := plain(nil, []int64{10, 10}, gone, unclear)
	cfg.Duration = time.Hour
	res := outcomeOf(t, cfg)
	if a, b := res.Destinations[0].Tally, res.Destinations[1].Tally; a.Bounced != 10 || b.Waiting != 10 {
		t.Errorf("gone: %+v, unclear: %+v", a, b)
	}
}

func willingly() Receiver { return willing{} }

// Mail that comes spread out is sent as it comes.
func TestTrickle(t *testing.T) {
	cfg := plain(nil, []int64{600}, to("a", willingly))
	cfg.HandOvers[0].Over = time.Hour
	cfg.Resolution = 10 * time.Minute
	res := outcomeOf(t, cfg)
	for i, b := range res.Destinations[0].Bins[:6] {
		if b.Delivered < 98 || b.Delivered > 102 {
			t.Errorf("%d delivered in ten minutes %d", b.Delivered, i)
		}
	}
	if res.Ended != time.Hour {
		t.Errorf("ended after %v", res.Ended)
	}
}

// moody refuses some envelopes and connections, and checks that it is used rightly.
type moody struct {
	rng    *rand.Rand
	always Cause
	open   int
	most   int
	abuse  string
}

func (m *moody) Capacity(time.Time) float64 { return 100 }

func (m *moody) chance(percent int) bool { return m.rng != nil && m.rng.IntN(100) < percent }

func (m *moody) Connect(time.Time, Caller) (Conn, Answer) {
	if m.chance(3) {
		return nil, Answer{Refused: true, Cause: CauseOutage, Closes: true, Reply: Reply{Phase: PhaseConnect}}
	}
	m.open++
	m.most = max(m.most, m.open)
	c := &moodyConn{m: m}
	if m.chance(5) {
		return c, Answer{Refused: true, Cause: CausePacing, Closes: true, Reply: Reply{Phase: PhaseGreeting, Code: 421}}
	}
	return c, Answer{Delay: 10 * time.Millisecond, RoundTrips: 1}
}

type moodyConn struct {
	m            *moody
	gone, inMail bool
}

func (c *moodyConn) used() {
	if c.gone {
		c.m.abuse = "a connection was used behind its end"
	}
}

func (c *moodyConn) Envelope(time.Time, *Message) Answer {
	c.used()
	if c.inMail {
		c.m.abuse = "an envelope came before the content of the last one"
	}
	a := Answer{Delay: 20 * time.Millisecond, Whole: c.m.chance(50)}
	if c.m.always != CauseNone || c.m.chance(10) {
		a.Refused, a.Cause, a.Reply = true, max(c.m.always, CausePacing), Reply{Phase: PhaseMail, Code: 450}
		a.Closes = c.m.chance(30)
		a.Dirty = !a.Closes
	}
	c.inMail = !a.Refused && !a.Whole
	return a
}

func (c *moodyConn) Content(time.Time) Answer {
	c.used()
	c.inMail = false
	return Answer{Refused: c.m.chance(2), Cause: CauseOther, Closes: c.m.chance(2), Reply: Reply{Phase: PhaseEndOfData, Code: 451}}
}

func (c *moodyConn) Close(time.Time) {
	if c.gone {
		c.m.abuse = "a connection was closed twice"
	}
	c.gone = true
	c.m.open--
}

// Whatever receivers do, every message has one end, nobody's limits are broken, and
// the same seed tells the same story.
func TestEveryMessageEndsOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		connections := rapid.IntRange(1, 12).Draw(rt, "connections")
		n := rapid.IntRange(1, 4).Draw(rt, "destinations")
		var made []*moody
		var making sync.Mutex // oracles ask for receivers side by side
		cfg := plain(limited(t, func(l *mxrules.Limits) { l.Connections = connections }), nil)
		for i := range n {
			cfg.Destinations = append(cfg.Destinations, to(fmt.Sprintf("d%d", i), func() Receiver {
				making.Lock()
				defer making.Unlock()
				m := &moody{rng: rand.New(rand.NewPCG(seed, uint64(i)))}
				made = append(made, m)
				return m
			}))
			cfg.HandOvers[0].Counts = append(cfg.HandOvers[0].Counts, rapid.Int64Range(0, 300).Draw(rt, "count"))
		}
		second := cfg.HandOvers[0]
		second.At, second.Over, second.Class = time.Minute, time.Duration(rapid.IntRange(0, 600).Draw(rt, "over"))*time.Second, dispatch.Transactional
		cfg.HandOvers = append(cfg.HandOvers, second)
		cfg.Together, cfg.Seed = rapid.Bool().Draw(rt, "together"), seed
		cfg.Timing.Commit = 2 * time.Millisecond
		first := outcomeOf(t, cfg)
		for _, m := range made {
			if m.abuse != "" || m.most > connections {
				rt.Fatalf("%s; %d connections at once", m.abuse, m.most)
			}
		}
		for _, o := range first.Destinations {
			if s := o.Tally; s.Waiting != 0 || s.Delivered+s.Bounced+s.Expired != s.Recipients || s.Overruns != 0 {
				rt.Fatalf("%s: %+v", o.Name, s)
			}
			arrived, ended := int64(0), int64(0)
			for _, b := range o.Bins {
				arrived += b.Arrived
				ended += b.Delivered + b.Lost
			}
			if arrived != o.Tally.Recipients || ended != arrived {
				rt.Fatalf("%s: the series has %d arrivals and %d ends of %d", o.Name, arrived, ended, o.Tally.Recipients)
			}
		}
		if again := outcomeOf(t, cfg); !reflect.DeepEqual(first, again) {
			rt.Fatal("the same seed told another story")
		}
	})
}

// Destinations side by side come to what they come to together, as long as nothing
// that they share binds; when it would, they are run together.
func TestApartAndTogether(t *testing.T) {
	build := func() Config {
		cfg := plain(limited(t, func(l *mxrules.Limits) { l.Connections = 10 }), []int64{3000, 2000, 50},
			to("a", func() Receiver { return willing{delay: 100 * time.Millisecond} }),
			to("b", func() Receiver { return &moody{rng: rand.New(rand.NewPCG(1, 2))} }),
			to("c", func() Receiver { return &moody{always: CausePacing} }))
		cfg.HandOvers[0].Validity = 3 * time.Hour
		cfg.Resolution = time.Second
		return cfg
	}
	apart := outcomeOf(t, build())
	one := build()
	one.Together = true
	together := outcomeOf(t, one)
	if apart.Together || !together.Together {
		t.Fatal("the first was run together, or the second not")
	}
	for i := range apart.Destinations {
		if a, b := apart.Destinations[i], together.Destinations[i]; a.Tally != b.Tally || a.Ended != b.Ended {
			t.Errorf("%s: apart %+v in %v, together %+v in %v", a.Name, a.Tally, a.Ended, b.Tally, b.Ended)
		}
	}
	few := build()
	few.Dispatch.MaxSessions = 8
	bound := outcomeOf(t, few)
	if !bound.Together {
		t.Error("eight sessions for three destinations did not bind")
	}
	if bound.Destinations[0].Ended <= apart.Destinations[0].Ended {
		t.Errorf("with eight sessions %v, with enough %v", bound.Destinations[0].Ended, apart.Destinations[0].Ended)
	}
}

// What cannot be simulated is refused with what to do.
func TestConfigIsChecked(t *testing.T) {
	for name, spoil := range map[string]func(c *Config){
		"duration":    func(c *Config) { c.Duration = 0 },
		"judge":       func(c *Config) { c.Judge = nil },
		"no receiver": func(c *Config) { c.Destinations = nil },
		"no mail":     func(c *Config) { c.HandOvers = nil },
		"negative":    func(c *Config) { c.Timing.Commit = -1 },
		"round trip":  func(c *Config) { c.Destinations[0].RoundTrip = -1 },
		"lost":        func(c *Config) { c.Destinations[0].Lost = math.NaN() },
		"no hosts":    func(c *Config) { c.Destinations[0].Domains[0].Hosts = nil },
		"counts":      func(c *Config) { c.HandOvers[0].Counts = []int64{1, 2} },
		"count":       func(c *Config) { c.HandOvers[0].Counts = []int64{-1} },
		"at":          func(c *Config) { c.HandOvers[0].At = -1 },
		"validity":    func(c *Config) { c.HandOvers[0].Validity = 85 * time.Hour },
		"twice":       func(c *Config) { c.Destinations = append(c.Destinations, c.Destinations[0]) },
		"same domain": func(c *Config) {
			c.Destinations = append(c.Destinations, c.Destinations[0])
			c.Destinations[1].Name = "b"
		},
	} {
		cfg := plain(nil, []int64{1}, to("a", willingly))
		spoil(&cfg)
		if _, err := Run(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestQueue(t *testing.T) {
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, 0))
	var q queue
	var last event
	for i := range 20_000 {
		if i%3 != 2 {
			q.add(max(last.at, 0)+rng.Int64N(50), evReplied, uint32(i), 0)
			continue
		}
		e := q.pop()
		if !last.before(&e) {
			t.Fatalf("seed %d: %+v behind %+v", seed, e, last)
		}
		last = e
	}
}

func TestRetries(t *testing.T) {
	const seed = 12
	rng := rand.New(rand.NewPCG(seed, 0))
	var h retries
	var want []int64
	for i := range 5000 {
		due := rng.Int64N(1000)
		h.push(retry{due: due, order: int64(i)})
		want = append(want, due)
	}
	slices.Sort(want)
	for i, due := range want {
		if x := h.pop(); x.due != due {
			t.Fatalf("seed %d: %d of %d is due at %d, want %d", seed, i, len(want), x.due, due)
		}
	}
}

func TestDeal(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.Int64Range(0, 1e12).Draw(rt, "n")
		shares := rapid.SliceOfN(rapid.IntRange(0, 1000), 1, 30).Draw(rt, "shares")
		domains, sum := make([]Domain, len(shares)), 0
		for i, s := range shares {
			domains[i].Share = s
			sum += s
		}
		total := int64(0)
		for i, part := range (&Destination{Domains: domains}).Deal(n) {
			total += part
			fair := float64(n) / float64(len(shares))
			if sum > 0 {
				fair = float64(n) * float64(shares[i]) / float64(sum)
			}
			if part < 0 || math.Abs(float64(part)-fair) > 2+1e-9*float64(n) {
				rt.Fatalf("domain %d of %v got %d of %d", i, shares, part, n)
			}
		}
		if total != n {
			rt.Fatalf("%d dealt of %d", total, n)
		}
	})
}
