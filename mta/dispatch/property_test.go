package dispatch

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/veredus/veredus/mxrules"
)

// chaos is a world in which everything fails now and then.
type chaos struct {
	*world
	rt      *rapid.T
	rng     *rand.Rand
	healed  bool
	broken  map[string]bool // hosts that do not answer
	nextRun RunID
	sources []string
	limits  mxrules.Limits
}

func newChaos(rt *rapid.T, strict bool) *chaos {
	seed := rapid.Uint64().Draw(rt, "seed")
	cfg := Config{
		MaxSessions:  rapid.IntRange(1, 12).Draw(rt, "sessions"),
		MaxUnsettled: rapid.IntRange(1, 40).Draw(rt, "unsettled"),
		MaxClaimed:   rapid.IntRange(1, 64).Draw(rt, "claimed"),
		MaxResolving: rapid.IntRange(1, 3).Draw(rt, "resolving"),
		Credit:       rapid.IntRange(1, 2).Draw(rt, "credit"),
		MaxGroups:    rapid.IntRange(1, 8).Draw(rt, "groups"),
		Seed:         seed,
	}
	sources := []string{"a", "b", "c"}[:rapid.IntRange(1, 3).Draw(rt, "sources")]
	limits := drawLimits(rt)
	w := newWorld(rt, cfg, onePool(sources...), limited(rt, limits))
	w.strict = strict
	c := &chaos{
		world: w, rt: rt, rng: rand.New(rand.NewPCG(seed, 1)), broken: map[string]bool{}, sources: sources, limits: limits,
	}
	w.jitter(c.rng)
	for i := range rapid.IntRange(1, 6).Draw(rt, "domains") {
		c.addDomain(i)
	}
	w.dial, w.reply = c.dialed, c.replies
	w.across = func() bool { return c.rng.IntN(2) == 0 }
	return c
}

func drawLimits(rt *rapid.T) mxrules.Limits {
	l := mxrules.Limits{
		Connections:           rapid.IntRange(0, 4).Draw(rt, "connections"),
		MessagesPerConnection: rapid.IntRange(0, 5).Draw(rt, "per connection"),
		Shared:                rapid.Bool().Draw(rt, "shared"),
	}
	if n := rapid.IntRange(0, 60).Draw(rt, "rate per minute"); n > 0 {
		l.MessageRate = mxrules.Rate{Count: n, Per: time.Minute, Burst: rapid.IntRange(0, 5).Draw(rt, "burst")}
	}
	if n := rapid.IntRange(0, 60).Draw(rt, "connections per minute"); n > 0 {
		l.ConnectionRate = mxrules.Rate{Count: n, Per: time.Minute}
	}
	return l
}

// addDomain makes a domain, often at a destination shared with another, with
// one to three hosts of which one may be broken.
func (c *chaos) addDomain(i int) {
	dest := fmt.Sprintf("d%d", c.rng.IntN(3))
	hosts := []string{fmt.Sprintf("mx%d.%s", c.rng.IntN(2), dest), "backup." + dest}[:1+c.rng.IntN(2)]
	if c.rng.IntN(3) == 0 {
		c.broken[hosts[0]] = true
	}
	name := fmt.Sprintf("domain%d", i)
	c.host(name, dest, hosts...)
	switch c.rng.IntN(8) {
	case 0:
		c.domains[name].failure = &ResolveFailure{Text: "SERVFAIL"}
	case 1:
		c.domains[name].failure = &ResolveFailure{Text: "NXDOMAIN", Final: true}
	}
}

func (c *chaos) dialed(a Action) *Evidence {
	switch {
	case c.healed:
		return nil
	case c.broken[a.Host], c.rng.IntN(10) == 0:
		return &Evidence{HostFault: true, Evidence: mxrules.Evidence{Text: "connection refused"}}
	case !c.strict && c.rng.IntN(10) == 0:
		return &Evidence{Evidence: c.effect()}
	}
	return nil
}

func (c *chaos) effect() mxrules.Evidence {
	return mxrules.Evidence{Effect: mxrules.Effect(1 + c.rng.IntN(4)), Text: "421 slow down"}
}

func (c *chaos) replies(a Action, l *letter) answer {
	ans := answer{after: time.Duration(1+c.rng.IntN(500)) * time.Millisecond}
	if c.healed {
		return ans
	}
	switch c.rng.IntN(12) {
	case 0, 1:
		ans.again = time.Duration(1+c.rng.IntN(3600)) * time.Second
		if c.rng.IntN(2) == 0 {
			ans.source = []string{"a", "b", "c", "gone"}[c.rng.IntN(4)]
		}
	case 2:
		ans.untried, ans.dead = true, c.rng.IntN(2) == 0
	case 3:
		ans.dead = true
	case 4:
		ans.after = time.Duration(c.rng.IntN(60)) * time.Second
	case 5:
		if !c.strict {
			ans.evidence.Evidence = c.effect()
			ans.again = time.Minute
			if c.rng.IntN(2) == 0 {
				source, _, _ := strings.Cut(a.Path, ">")
				ans.evidence.Sign, ans.source, ans.blocked = mxrules.SignBlocked, source, source != "*"
			}
			if c.rng.IntN(4) == 0 {
				ans.evidence.RetryAfter = time.Duration(1+c.rng.IntN(30)) * time.Minute
			}
		}
	}
	return ans
}

// act is one random event from outside.
func (c *chaos) event(rt *rapid.T) {
	switch rapid.IntRange(0, 18).Draw(rt, "event") {
	case 0, 1, 2:
		c.newRun(rt)
	case 3:
		if r := c.anyRun(); r != nil && !r.dropped {
			c.grow(r, 1+c.rng.IntN(20))
		}
	case 4:
		c.drop(1 + RunID(c.rng.IntN(int(c.nextRun)+1)))
	case 5:
		c.pause(DeliveryID(1 + c.rng.IntN(3)))
	case 6:
		c.unpause(DeliveryID(1 + c.rng.IntN(3)))
	case 7:
		c.suspend(fmt.Sprint(c.rng.IntN(3)), c.selector())
	case 8:
		c.unsuspend(fmt.Sprint(c.rng.IntN(3)))
	case 9:
		id := DeliveryID(1 + c.rng.IntN(3))
		c.do(func(core *Core) {
			core.UpdateDelivery(c.now, id, []string{"main", "none"}[c.rng.IntN(2)], c.rng.IntN(120))
		})
	case 10:
		if l := c.msgs[1+MsgID(c.rng.IntN(int(c.lastMsg)+1))]; l != nil && (l.place == "loaded" || l.place == "claimed") {
			c.do(func(core *Core) { core.Recall(c.now, l.id) })
		}
	case 11:
		for id := SessionID(1); id <= c.c.lastSession; id++ {
			if s := c.sessions[id]; s != nil && s.state == "open" && !s.busy {
				c.hangUp(s)
				c.act()
				break
			}
		}
	case 12:
		c.views()
	case 13:
		c.broken = map[string]bool{}
	case 14:
		c.jump(time.Duration(c.rng.IntN(14400)-7200) * time.Second)
	case 15:
		pools := onePool(c.sources...)
		pools[0].Sources = pools[0].Sources[c.rng.IntN(len(c.sources)):]
		c.do(func(core *Core) { core.SetPools(c.now, pools) })
	case 17:
		c.override(fmt.Sprintf("d%d", c.rng.IntN(3)), c.word(), c.now.Add(time.Duration(1+c.rng.IntN(600))*time.Second))
	case 18:
		c.do(func(core *Core) {
			core.ResetPaths(c.now, []string{"", "a"}[c.rng.IntN(2)], fmt.Sprintf("d%d", c.rng.IntN(3)))
		})
	case 16:
		if !c.strict { // or the ledger would have to know which sessions may still go on under the old ones
			c.do(func(core *Core) { core.SetRules(c.now, limited(rt, c.otherLimits())) })
		}
	}
}

// word is an operator's override, below the rule or above it.
func (c *chaos) word() (o mxrules.Override) {
	for _, f := range paced {
		if c.rng.IntN(2) == 0 {
			o.Set = o.Set.With(f)
		}
	}
	o.Limits = mxrules.Limits{
		Connections: 1 + c.rng.IntN(6), MessagesPerConnection: 1 + c.rng.IntN(8),
		MessageRate:    mxrules.Rate{Count: 1 + c.rng.IntN(100), Per: time.Minute, Burst: c.rng.IntN(4)},
		ConnectionRate: mxrules.Rate{Count: 1 + c.rng.IntN(100), Per: time.Minute},
	}
	return o
}

func (c *chaos) views() {
	c.do(func(core *Core) {
		for id := RunID(0); id <= c.nextRun; id++ {
			core.Waiting(c.now, id)
		}
		c.checkSums(core)
		for _, v := range core.Destinations(c.now, nil) {
			if v.Sessions != c.byDest[v.Name] {
				c.fail("%s shows %d sessions of %d", v.Name, v.Sessions, c.byDest[v.Name])
			}
			core.Destination(c.now, v.Name)
		}
		for name := range c.domains {
			core.Explain(c.now, name)
		}
	})
}

// checkSums compares the sums that are kept with those of all views.
func (c *chaos) checkSums(core *Core) {
	total, sum := core.Totals(c.now), Totals{}
	sizes := map[string]int64{}
	for _, q := range core.QueueSizes(c.now) {
		sizes[q.Name] = q.Size
	}
	for _, v := range core.Destinations(c.now, nil) {
		sum.Destinations++
		sum.Sessions += v.Sessions
		sum.Deferred += v.Deferred
		if size := v.Ready + v.Deferred + v.InFlight; size != sizes[v.Name] {
			c.fail("%s has %d messages, its size is %d", v.Name, size, sizes[v.Name])
		}
	}
	if sum.Destinations != total.Destinations || sum.Sessions != total.Sessions || sum.Deferred != total.Deferred {
		c.fail("totals %+v, the views' sum is %+v", total, sum)
	}
}

func (c *chaos) newRun(rt *rapid.T) {
	c.nextRun++
	domain := fmt.Sprintf("domain%d", c.rng.IntN(len(c.domains)))
	c.add(Run{
		ID: c.nextRun, Delivery: DeliveryID(1 + c.rng.IntN(3)), Domain: domain,
		Tenant: []string{"t1", "t2"}[c.rng.IntN(2)], SenderDomain: []string{"s1", "s2"}[c.rng.IntN(2)],
		Class: Class(c.rng.IntN(2)), Priority: 1 + c.rng.IntN(100),
	}, rapid.IntRange(0, 60).Draw(rt, "messages"))
}

func (c *chaos) anyRun() *stored { return c.runs[1+RunID(c.rng.IntN(int(c.nextRun)+1))] }

func (c *chaos) selector() Selector {
	return []Selector{
		{Kind: Everything},
		{Kind: ByTenant, Value: "t1"},
		{Kind: BySenderDomain, Value: "s2"},
		{Kind: ByDelivery, Delivery: 2},
		{Kind: BySource, Value: "a"},
		{Kind: ByDestination, Value: "d1"},
	}[c.rng.IntN(6)]
}

// otherLimits are no looser than the first ones, by which the ledger judges.
func (c *chaos) otherLimits() mxrules.Limits {
	l := c.limits
	if c.rng.IntN(2) == 0 {
		l.Connections = 1
		l.MessagesPerConnection = 1 + c.rng.IntN(max(1, l.MessagesPerConnection))
	}
	l.TLS = mxrules.TLS(1 + c.rng.IntN(3))
	return l
}

// heal ends all trouble; from here on everything must be sent in bounded time.
func (c *chaos) heal() {
	c.healed = true
	c.do(func(core *Core) { core.SetPools(c.now, onePool(c.sources...)) })
	for id := DeliveryID(1); id <= 3; id++ {
		c.unpause(id)
		c.do(func(core *Core) { core.UpdateDelivery(c.now, id, "main", 50) })
	}
	for i := range 3 {
		c.unsuspend(fmt.Sprint(i))
	}
	for _, p := range c.domains {
		if p.failure != nil && !p.failure.Final {
			p.failure = nil
		}
	}
}

func (c *chaos) story(rt *rapid.T) {
	for range rapid.IntRange(1, 25).Draw(rt, "events") {
		c.event(rt)
		c.runFor(time.Duration(rapid.IntRange(0, 120_000).Draw(rt, "pause in ms")) * time.Millisecond)
	}
	c.heal()
	c.finish(100 * time.Hour)
	c.checkDone()
	c.checkEmpty()
}

// Whatever happens, no limit of the rules is exceeded, nothing is lost or sent
// twice, nothing starves, pauses hold at once and nothing is kept at the end.
// The world's ledger judges each action as it comes.
func TestLimitsHoldWhateverHappens(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) { newChaos(rt, true).story(rt) })
}

// The same with receivers that throttle and block. The rules' limits hold here
// too; the governors only tighten them.
func TestThrottlingLosesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) { newChaos(rt, false).story(rt) })
}

// The same seed and the same events give the same actions, to the byte.
func TestSameEventsSameActions(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		if a, b := replay(rt, seed), replay(rt, seed); a != b {
			rt.Fatalf("two runs of seed %d differ", seed)
		}
	})
}

// replay plays a long fixed story of one seed and answers its trace's hash.
func replay(t *rapid.T, seed uint64) uint64 {
	rng := rand.New(rand.NewPCG(seed, 2))
	l := mxrules.Limits{Connections: 3, MessagesPerConnection: 4, MessageRate: mxrules.Rate{Count: 20, Per: time.Second}}
	w := newWorld(t, Config{MaxSessions: 5, Seed: seed, Credit: 2}, onePool("a", "b"), limited(t, l))
	w.trace = fnv.New64a()
	c := &chaos{world: w, rt: t, rng: rng, broken: map[string]bool{}}
	w.jitter(rng)
	for i := range 6 {
		c.addDomain(i)
	}
	w.dial, w.reply = c.dialed, c.replies
	for i := range 12 {
		c.nextRun++
		w.add(Run{
			ID: c.nextRun, Delivery: DeliveryID(1 + i%3), Class: Class(i % 2), Priority: 1 + i,
			Domain: fmt.Sprintf("domain%d", rng.IntN(6)),
		}, 30)
		if i == 6 {
			w.suspend("x", Selector{Kind: BySource, Value: "a"})
		}
		w.runFor(10 * time.Second)
	}
	w.unsuspend("x")
	w.runFor(time.Hour)
	return w.trace.Sum64()
}
