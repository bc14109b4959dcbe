package dispatch

import (
	"fmt"
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// hostEach gives each of n domains a destination of its own, and a run of mail.
func (w *world) hostEach(prefix string, first RunID, n, mail int, delivery DeliveryID) {
	for i := range n {
		name := fmt.Sprintf("%s%d.example", prefix, i)
		w.host(name, name, "mx."+name)
		w.add(Run{ID: first + RunID(i), Delivery: delivery, Domain: name}, mail)
	}
}

func TestDeadNameServersDelayNoOtherDelivery(t *testing.T) {
	w := newWorld(t, Config{MaxResolving: 8}, onePool("a"), limited(t, mxrules.Limits{}))
	w.delay = func(k ActionKind) time.Duration {
		if k == Resolve {
			return 6 * time.Second // until it is given up
		}
		return time.Millisecond
	}
	for i := range 200 {
		name := fmt.Sprintf("dead%d.example", i)
		w.domains[name] = &peer{failure: &ResolveFailure{Text: "no answer"}}
		w.add(Run{ID: RunID(i + 1), Delivery: 1, Domain: name}, 1)
	}
	w.runFor(time.Second)
	if len(w.asking) != 6 {
		t.Errorf("one delivery has %d look-ups under way, three quarters of 8 wanted", len(w.asking))
	}
	w.host("well.example", "well.example", "mx.well.example")
	w.add(Run{ID: 1000, Delivery: 2, Domain: "well.example"}, 1)
	if !w.asking["well.example"] {
		t.Error("the other delivery's domain is not asked for at once")
	}
	w.runFor(time.Hour)
	if len(w.sent) != 1 {
		t.Errorf("%d messages sent", len(w.sent))
	}
}

// Domains that failed before leave most places to those never asked for.
func TestRepeatedLookupsHaveAQuarterOfThePlaces(t *testing.T) {
	w := newWorld(t, Config{MaxResolving: 8}, onePool("a"), limited(t, mxrules.Limits{}))
	again, most := map[string]int{}, 0
	w.watch(Resolve, func(a Action) {
		again[a.Domain]++
		n := 0
		for name := range w.asking {
			if again[name] > 1 {
				n++
			}
		}
		most = max(most, n)
	})
	w.delay = func(k ActionKind) time.Duration {
		if k == Resolve {
			return 6 * time.Second
		}
		return time.Millisecond
	}
	for i := range 60 {
		name := fmt.Sprintf("dead%d.example", i)
		w.domains[name] = &peer{failure: &ResolveFailure{Text: "no answer"}}
		w.add(Run{ID: RunID(i + 1), Delivery: DeliveryID(i % 3), Domain: name}, 1)
	}
	w.runFor(time.Hour)
	if most == 0 || most > 2 {
		t.Errorf("%d look-ups at once of domains that had failed", most)
	}
}

func TestDomainsWithMuchMailAreLookedUpFirst(t *testing.T) {
	w := newWorld(t, Config{MaxResolving: 4}, onePool("a"), limited(t, mxrules.Limits{}))
	w.do(func(c *Core) { c.Suspend(w.now, "all", Selector{Kind: Everything}) })
	w.hostEach("small", 1, 400, 1, 1)
	w.hostEach("large", 1000, 10, muchMail, 1)
	asked, last := 0, 0
	w.watch(Resolve, func(a Action) {
		if asked++; a.Domain[0] == 'l' {
			last = asked
		}
	})
	w.do(func(c *Core) { c.Unsuspend(w.now, "all") })
	w.finish(10 * time.Minute)
	if last == 0 || last > 20 {
		t.Errorf("the last of 10 domains with much mail was look-up %d of %d", last, asked)
	}
	w.checkDone()
}

func TestLookupsKeepAPaceWhileMailGoesOut(t *testing.T) {
	w := newWorld(t, Config{}, onePool("a"), limited(t, mxrules.Limits{Connections: 2}))
	const domains = 6000
	for i := range domains {
		name := fmt.Sprintf("d%d.example", i)
		dest := fmt.Sprintf("dest%d", i%4)
		w.host(name, dest, "mx."+dest)
		w.add(Run{ID: RunID(i + 1), Delivery: 1, Domain: name}, 1)
	}
	w.reply = func(Action, *letter) answer { return answer{after: time.Second} }
	w.runFor(5 * time.Second)
	before := routed(w)
	w.runFor(4 * time.Second)
	if n := routed(w) - before; n < 1000 || n > 2200 {
		t.Errorf("%d look-ups in 4 s while mail goes out, about 2000 wanted", n)
	}
}

func routed(w *world) (n int) {
	for _, d := range w.c.domains {
		if d.state == domainRouted {
			n++
		}
	}
	return n
}

func TestUnreachableDestinationsLeaveMemoryAndDelayNobody(t *testing.T) {
	w := newWorld(t, Config{MaxGroups: 16, MaxSessions: 8}, onePool("a"), limited(t, mxrules.Limits{}))
	dead := true
	w.dial = func(a Action) *Evidence {
		if dead && a.Host[:7] == "mx.dead" {
			return refused(a)
		}
		return nil
	}
	w.hostEach("dead", 1, 300, 1, 1)
	w.hostEach("well", 1000, 10, 20, 1)
	most := 0
	w.watch(Open, func(Action) { most = max(most, len(w.c.groups)) })
	if !w.runUntil(time.Minute, func() bool { return len(w.sent) == 200 }) {
		t.Errorf("%d of 200 messages reached the hosts that answer", len(w.sent))
	}
	w.runFor(3 * time.Hour)
	if most > 2*16 {
		t.Errorf("%d destinations in play, at most 32 wanted", most)
	}
	if wait := w.c.Waiting(w.now, 7); wait.Cause != CauseBackoff || wait.Until.IsZero() || wait.Text == "" {
		t.Errorf("mail for a host that does not answer: %+v", wait)
	}
	dead = false
	w.finish(12 * time.Hour)
	w.checkDone()
}

// The wait for a host doubles though its destination was forgotten meanwhile.
func TestShelvedDestinationsAreTriedEverLessOften(t *testing.T) {
	w := newWorld(t, Config{MaxGroups: 2}, onePool("a"), limited(t, mxrules.Limits{}))
	w.dial = refused
	w.hostEach("dead", 1, 4, 1, 1)
	dials := map[string]int{}
	w.watch(Open, func(a Action) { dials[a.Host]++ })
	w.runFor(2 * time.Hour)
	for host, n := range dials {
		if n < 4 || n > 8 { // after 1, 3, 7, 15, 31, 63 min at the earliest
			t.Errorf("%s dialled %d times in two hours", host, n)
		}
	}
}

func TestTransactionalMailWaitsForNoBulkDestination(t *testing.T) {
	w := newWorld(t, Config{MaxSessions: 8}, onePool("a"), limited(t, mxrules.Limits{Connections: 2}))
	w.reply = func(Action, *letter) answer { return answer{after: 100 * time.Millisecond} }
	w.hostEach("bulk", 1, 500, 50, 1)
	w.runFor(10 * time.Second)
	for i := range 5 {
		name := fmt.Sprintf("shop%d.example", i)
		w.host(name, name, "mx."+name)
		asked := w.now
		w.add(Run{ID: RunID(1000 + i), Delivery: 2, Class: Transactional, Domain: name}, 1)
		r := w.runs[RunID(1000+i)]
		if !w.runUntil(10*time.Second, func() bool { return r.remaining == 0 }) || w.now.Sub(asked) > 3*time.Second {
			t.Errorf("%s left after %v", name, w.now.Sub(asked))
		}
	}
}
