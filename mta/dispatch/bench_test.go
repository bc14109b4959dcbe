package dispatch

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// engine answers every action at once, as an infinitely fast relay would. What
// remains is the core's own work.
type engine struct {
	c     *Core
	now   time.Time
	next  MsgID
	sent  int
	queue []Action // to be answered
	ids   []MsgID
	msgs  []Msg
	hosts []Host
}

func newEngine(cfg Config, rules *mxrules.Rules) *engine {
	return &engine{c: New(cfg, onePool("a"), rules), now: start, hosts: []Host{{"mx", 10}}}
}

// step takes the actions, then answers them.
func (e *engine) step() bool {
	actions := e.c.Take()
	if len(actions) == 0 {
		return false
	}
	e.queue = append(e.queue[:0], actions...)
	e.now = e.now.Add(time.Microsecond)
	for i := range e.queue {
		e.answer(&e.queue[i])
	}
	return true
}

func (e *engine) answer(a *Action) {
	switch a.Kind {
	case Resolve:
		e.hosts[0].Name = "mx." + a.Domain
		e.c.Resolved(e.now, a.Domain, Route{Destination: a.Domain, Hosts: e.hosts, Expires: e.now.Add(time.Hour)})
	case Open:
		e.c.SessionOpened(e.now, a.Session)
	case Load:
		e.msgs = e.msgs[:0]
		for range a.Fresh {
			e.next++
			e.msgs = append(e.msgs, Msg{ID: e.next})
		}
		e.c.Loaded(e.now, Loaded{Run: a.Run, Msgs: e.msgs, MoreFresh: a.Fresh > 0})
	case Claim:
		e.ids = append(e.ids[:0], a.Msgs...)
		e.c.Claimed(e.now, e.ids)
	case Send:
		e.sent++
		e.c.Replied(e.now, a.Session, a.Msg, Evidence{}, true)
		e.c.Settled(e.now, a.Msg, time.Time{}, true)
	case Close:
		e.c.SessionClosed(e.now, a.Session)
	case Return:
		e.c.Returned(e.now, a.Msg)
	case Fail:
		e.c.Settled(e.now, a.Msg, time.Time{}, true)
	}
}

func benchRules(b *testing.B, l mxrules.Limits) *mxrules.Rules {
	b.Helper()
	return limited(b, l)
}

// BenchmarkSend is the whole life of a message, from its load to its settle: 20
// destinations of 10 sessions, 5 deliveries.
func BenchmarkSend(b *testing.B) {
	e := newEngine(Config{}, benchRules(b, mxrules.Limits{Connections: 10}))
	for i := range 100 {
		e.c.AddRun(e.now, Run{
			ID: RunID(i + 1), Delivery: DeliveryID(i % 5), Pool: "main", Priority: 1 + i%5,
			Domain: fmt.Sprintf("d%d.example", i%20), Fresh: 1 << 40,
		})
	}
	for e.sent < 10_000 {
		e.step()
	}
	b.ReportAllocs()
	b.ResetTimer()
	for e.sent = 0; e.sent < b.N; {
		e.step()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(e.sent), "ns/message")
}

// BenchmarkSendAmongIdle is the same with 100,000 destinations of which 20 have mail.
func BenchmarkSendAmongIdle(b *testing.B) {
	e := newEngine(Config{MaxSessions: 300}, benchRules(b, mxrules.Limits{Connections: 10}))
	for i := range 100_000 {
		e.c.AddRun(e.now, Run{
			ID: RunID(i + 1), Delivery: 1, Pool: "main", Domain: fmt.Sprintf("d%d.example", i), Deferred: 1,
			NextDue: start.Add(time.Duration(i) * time.Microsecond),
		})
	}
	for e.step() { // every one gets a route, sends nothing, and lingers
		e.c.Tick(e.now)
	}
	for i := range 20 {
		e.c.Grew(e.now, RunID(i*1000+1), 1<<40)
	}
	for e.sent < 10_000 {
		e.step()
	}
	b.ReportAllocs()
	b.ResetTimer()
	for e.sent = 0; e.sent < b.N; {
		e.step()
	}
	b.ReportMetric(float64(len(e.c.destinations)), "destinations")
}

// BenchmarkTransactionalRun is a run of one message: announced, sent, dropped.
func BenchmarkTransactionalRun(b *testing.B) {
	e := newEngine(Config{}, benchRules(b, mxrules.Limits{Connections: 10}))
	b.ReportAllocs()
	for i := range b.N {
		id := RunID(i + 1)
		e.c.AddRun(e.now, Run{
			ID: id, Delivery: 1, Pool: "main", Class: Transactional, Domain: "d.example", Fresh: 1,
		})
		for want := e.sent + 1; e.sent < want; {
			e.step()
		}
		e.c.DropRun(e.now, id)
		for e.step() {
		}
	}
}

// BenchmarkRuns announces half a million runs with retries in the future, five
// for each of 100,000 domains, and tells what they take of memory.
func BenchmarkRuns(b *testing.B) {
	const runs, domains = 500_000, 100_000
	names := make([]string, domains)
	for i := range names {
		names[i] = fmt.Sprintf("d%d.example", i)
	}
	b.ReportAllocs()
	for range b.N {
		before := heapInUse()
		c := New(Config{}, onePool("a"), nil)
		for i := range runs {
			c.AddRun(start, Run{
				ID: RunID(i + 1), Delivery: DeliveryID(i % 100), Tenant: "t", SenderDomain: "s", Pool: "main",
				Domain: names[i%domains], Deferred: 3, NextDue: start.Add(time.Duration(i%3600) * time.Second),
			})
		}
		b.ReportMetric(float64(heapInUse()-before)/runs, "B/run")
		runtime.KeepAlive(c)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/runs, "ns/run")
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
