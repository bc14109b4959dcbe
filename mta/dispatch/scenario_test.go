package dispatch

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// kinds lists the actions of a kind as they come.
func (w *world) watch(kind ActionKind, see func(Action)) {
	before := w.note
	w.note = func(a Action) {
		if before != nil {
			before(a)
		}
		if a.Kind == kind {
			see(a)
		}
	}
}

func single(t *testing.T, l mxrules.Limits) *world {
	t.Helper()
	w := newWorld(t, Config{}, onePool("a"), limited(t, l))
	w.host("example.com", "example.com", "mx1.example.com", "mx2.example.com")
	return w
}

func TestOneRunIsDelivered(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 3, MessagesPerConnection: 10})
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 100)
	w.finish(time.Minute)
	w.checkDone()
	w.checkEmpty()
}

func refused(a Action) *Evidence {
	return &Evidence{HostFault: true, Evidence: mxrules.Evidence{Text: "connect: refused by " + a.Host}}
}

func TestDeadDestinationHoldsNoMail(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 10})
	w.dial = refused
	var dials []time.Duration
	dead := true
	w.watch(Open, func(a Action) {
		dials = append(dials, w.now.Sub(start).Round(time.Minute))
		if dead && w.open > 0 {
			t.Errorf("%d dials at once", w.open+1)
		}
	})
	w.watch(Load, func(a Action) {
		if dead {
			t.Fatalf("a load for a dead destination: %+v", a)
		}
	})
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 1000)
	w.runFor(4 * time.Hour)

	// Both hosts each time; the wait doubles from a minute to an hour.
	var want []time.Duration
	for _, minutes := range []int{0, 1, 3, 7, 15, 31, 63, 123, 183} {
		at := time.Duration(minutes) * time.Minute
		want = append(want, at, at)
	}
	if !slices.Equal(dials, want) {
		t.Errorf("dials at %v, want %v", dials, want)
	}
	if wait := w.c.Waiting(w.now, 1); wait.Cause != CauseBackoff || !strings.Contains(wait.Text, "refused by mx2") || wait.Until.Sub(w.now) > time.Hour {
		t.Errorf("waiting: %+v", wait)
	}
	if c := w.changes[0]; c.Change != PathSuspended || c.Path != "a>example.com" || c.Until.Sub(start).Round(time.Second) != time.Minute {
		t.Errorf("first change: %+v", c)
	}

	dead = false
	w.dial = func(Action) *Evidence { return nil }
	w.finish(2 * time.Hour)
	if c := w.changes[len(w.changes)-1]; c.Change != PathResumed {
		t.Errorf("last change: %+v", c)
	}
	w.checkEmpty()
}

func TestBackupHostIsUsedWhileTheFirstCoolsDown(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 2, MessagesPerConnection: 1})
	broken := true
	w.dial = func(a Action) *Evidence {
		if broken && a.Host == "mx1.example.com" {
			return refused(a)
		}
		return nil
	}
	hosts := map[string]int{}
	w.watch(Open, func(a Action) { hosts[a.Host]++ })
	r := w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 20)
	w.finish(time.Minute)
	if hosts["mx1.example.com"] != 1 || hosts["mx2.example.com"] != 20 {
		t.Errorf("connections: %v", hosts)
	}
	v, _ := w.c.Destination(w.now, "example.com")
	if v.Hosts[0].SkippedUntil.Sub(start).Round(time.Second) != 5*time.Minute {
		t.Errorf("hosts: %+v", v.Hosts)
	}

	broken = false
	w.runFor(5 * time.Minute)
	w.grow(r, 1)
	w.finish(time.Minute)
	if hosts["mx1.example.com"] != 2 {
		t.Errorf("the first host is not tried again: %v", hosts)
	}
}

func TestEqualHostsAreChosenAtRandom(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 1, MessagesPerConnection: 1})
	w.domains["example.com"].route.Hosts = []Host{{"x", 10}, {"y", 10}, {"z", 20}}
	hosts := map[string]int{}
	w.watch(Open, func(a Action) { hosts[a.Host]++ })
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 200)
	w.finish(time.Hour)
	if hosts["z"] != 0 || hosts["x"] < 70 || hosts["y"] < 70 {
		t.Errorf("connections: %v", hosts)
	}
}

func TestThrottleAtTheGreetingNeverTriesTheNextHost(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 5})
	w.strict = false
	w.dial = func(a Action) *Evidence {
		return &Evidence{Evidence: mxrules.Evidence{Effect: mxrules.EffectRest, Text: "421 blocked"}}
	}
	var hosts []string
	w.watch(Open, func(a Action) { hosts = append(hosts, a.Host) })
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 10)
	w.runFor(14 * time.Minute)
	if !slices.Equal(hosts, []string{"mx1.example.com"}) {
		t.Errorf("dials: %v", hosts)
	}
	if wait := w.c.Waiting(w.now, 1); wait.Cause != CauseRest || wait.Text != "421 blocked" {
		t.Errorf("waiting: %+v", wait)
	}
	w.runFor(2 * time.Minute) // the rest is over: a probe, which fails
	if len(hosts) != 2 || hosts[1] != "mx1.example.com" {
		t.Errorf("dials: %v", hosts)
	}
}

func TestRestingPathGivesEverythingBack(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 4})
	w.strict = false
	blocked := false
	w.reply = func(Action, *letter) answer {
		if blocked {
			return answer{after: time.Second, evidence: Evidence{Evidence: mxrules.Evidence{Effect: mxrules.EffectRest, Text: "550 blocked"}}, again: time.Minute}
		}
		return answer{after: time.Second}
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 500)
	w.runFor(10 * time.Second)
	blocked = true
	w.runFor(10 * time.Second) // the replies come, then sessions are idle for 5 s
	if len(w.sessions) != 0 || len(w.c.msgs) != 0 {
		t.Errorf("at rest there are %d sessions and %d messages in memory", len(w.sessions), len(w.c.msgs))
	}
	before := len(w.sent)
	w.runFor(14 * time.Minute)
	if len(w.sent) != before {
		t.Error("the path sends while it rests")
	}
	blocked = false
	w.finish(2 * time.Hour)
	w.checkDone()
}

func TestFailingTenantOfAProviderRestsAlone(t *testing.T) {
	w := newWorld(t, Config{}, onePool("a"), limited(t, mxrules.Limits{Connections: 4}))
	w.host("dead.example", "office", "dead.mail.example")
	w.host("live.example", "office", "live.mail.example")
	w.dial = func(a Action) *Evidence {
		if a.Host == "dead.mail.example" {
			return refused(a)
		}
		return nil
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "dead.example"}, 10)
	w.add(Run{ID: 2, Delivery: 1, Domain: "live.example"}, 300)
	w.runFor(10 * time.Second)
	if len(w.sent) < 300 {
		t.Errorf("%d of 300 messages were sent", len(w.sent))
	}
	if wait := w.c.Waiting(w.now, 1); wait.Cause != CauseBackoff {
		t.Errorf("waiting: %+v", wait)
	}
}

func TestGroupsOfOnePathTakeTurns(t *testing.T) {
	w := newWorld(t, Config{}, onePool("a"), limited(t, mxrules.Limits{Connections: 1}))
	for i := range 4 {
		d := fmt.Sprintf("tenant%d.example", i)
		w.host(d, "office", fmt.Sprintf("mx%d.office", i))
		w.add(Run{ID: RunID(i + 1), Delivery: 1, Domain: d}, 1000)
	}
	w.runFor(40 * time.Second)
	count := map[string]int{}
	for _, s := range w.sent {
		count[s.domain]++
	}
	for d := range w.domains {
		if count[d] < 50 {
			t.Errorf("messages sent: %v", count)
		}
	}
	// One connection for each turn, not for each message.
	if opened := len(w.paths["a>office"].connects); opened > len(w.sent)/8 {
		t.Errorf("%d connections for %d messages", opened, len(w.sent))
	}
	w.finish(time.Hour)
	w.checkEmpty()
}

func TestGroupsShareARate(t *testing.T) {
	for _, every := range []time.Duration{time.Second, 4 * time.Second, 20 * time.Second} {
		l := mxrules.Limits{Connections: 3, MessageRate: mxrules.Rate{Count: 1, Per: every}}
		w := newWorld(t, Config{}, onePool("a"), limited(t, l))
		for i := range 3 {
			d := fmt.Sprintf("tenant%d.example", i)
			w.host(d, "office", fmt.Sprintf("mx%d.office", i))
			w.add(Run{ID: RunID(i + 1), Delivery: 1, Domain: d}, 1000)
		}
		w.runFor(90 * every)
		count := map[string]int{}
		for _, s := range w.sent {
			count[s.domain]++
		}
		if len(w.sent) < 85 {
			t.Errorf("a message every %v: %d sent of 90", every, len(w.sent))
		}
		for _, n := range count {
			if n < 20 || len(count) != 3 {
				t.Errorf("a message every %v: %v", every, count)
			}
		}
	}
}

func TestRateIsMetToTheInstant(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 2, MessageRate: mxrules.Rate{Count: 6, Per: time.Minute}})
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 5)
	w.runFor(3 * time.Second)
	if v, _ := w.c.Destination(w.now, "example.com"); v.Paths[0].Claimed > 2 {
		t.Errorf("%d messages are claimed for a path that sends six a minute", v.Paths[0].Claimed)
	}
	w.finish(2 * time.Minute)
	for i := 1; i < len(w.sent); i++ {
		if gap := w.sent[i].at.Sub(w.sent[i-1].at); gap != 10*time.Second {
			t.Errorf("message %d follows after %v", i, gap)
		}
	}
}

func TestSessionEndsAfterItsMessagesOrItsIdleTime(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 1, MessagesPerConnection: 3})
	var closed []time.Duration
	w.watch(Close, func(a Action) { closed = append(closed, w.now.Sub(w.sent[len(w.sent)-1].at)) })
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 4)
	w.runFor(time.Minute)
	want := []time.Duration{50 * time.Millisecond, 50*time.Millisecond + 5*time.Second}
	if !slices.Equal(closed, want) {
		t.Errorf("sessions are closed %v after their last message, want %v", closed, want)
	}
}

func TestNoMoreSessionsThanMessages(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 10})
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 3)
	w.runFor(time.Minute)
	if n := len(w.paths["a>example.com"].connects); n > 3 {
		t.Errorf("%d connections for 3 messages", n)
	}
}

// order lists what is sent as one letter each, by class or delivery.
func order(sent []sending, name func(sending) string) string {
	var b strings.Builder
	for _, s := range sent {
		b.WriteString(name(s))
	}
	return b.String()
}

func byClass(s sending) string {
	if s.class == Transactional {
		return "t"
	}
	return "b"
}

func TestTransactionalTakesNineOfTen(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 2, MessageRate: mxrules.Rate{Count: 10, Per: time.Second}})
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 1000)
	w.runFor(2 * time.Second) // bulk is loaded and claimed
	n := len(w.sent)
	w.add(Run{ID: 2, Delivery: 2, Domain: "example.com", Class: Transactional}, 1000)
	w.runFor(20 * time.Second)
	got := order(w.sent[n+1:n+101], byClass)
	if strings.Contains(got, "tttttttttt") || strings.Count(got, "b") > 12 {
		t.Errorf("sent: %s", got)
	}
	if i := strings.Index(got, "t"); i > 1 {
		t.Errorf("transactional mail waited behind claimed bulk: %s", got)
	}
}

func TestPrioritiesShareAPath(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 1, MessageRate: mxrules.Rate{Count: 10, Per: time.Second}})
	for i, priority := range []int{1, 3, 6} {
		w.add(Run{ID: RunID(i + 1), Delivery: DeliveryID(i + 1), Domain: "example.com", Priority: priority}, 2000)
	}
	w.runFor(100 * time.Second)
	var count [4]float64
	for _, s := range w.sent {
		count[s.delivery]++
	}
	for d, share := range map[DeliveryID]float64{1: 0.1, 2: 0.3, 3: 0.6} {
		if got := count[d] / float64(len(w.sent)); got < share-0.02 || got > share+0.02 {
			t.Errorf("delivery %d has %.2f of the path, want %.2f", d, got, share)
		}
	}
}

func TestLaterSmallDeliveryIsServedAtOnce(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 2, MessageRate: mxrules.Rate{Count: 1, Per: time.Second}})
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com", Priority: 50}, 100_000)
	w.runFor(time.Minute)
	n := len(w.sent)
	w.add(Run{ID: 2, Delivery: 2, Domain: "example.com", Priority: 50}, 5)
	w.runFor(14 * time.Second)
	got := order(w.sent[n:], func(s sending) string { return fmt.Sprint(s.delivery) })
	if strings.Count(got, "2") != 5 {
		t.Errorf("sent: %s", got)
	}
}

func TestDeliveryServesItsDomainsInTurn(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 1, MessageRate: mxrules.Rate{Count: 10, Per: time.Second}})
	w.host("example.net", "example.com", "mx1.example.com", "mx2.example.com")
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 500)
	w.add(Run{ID: 2, Delivery: 1, Domain: "example.net"}, 20)
	w.runFor(6 * time.Second)
	n := 0
	for _, s := range w.sent {
		if s.domain == "example.net" {
			n++
		}
	}
	if n != 20 {
		t.Errorf("%d of 20 messages of the small domain are sent after %d", n, len(w.sent))
	}
}

func TestRetriesAndFreshMailAlternate(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 1, MessageRate: mxrules.Rate{Count: 1, Per: time.Second}})
	deferred := 0
	w.reply = func(_ Action, l *letter) answer {
		if !l.retry && deferred < 20 {
			deferred++
			return answer{after: time.Millisecond, again: 30 * time.Second}
		}
		return answer{after: time.Millisecond}
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 200)
	w.runFor(90 * time.Second)
	got := order(w.sent[50:70], func(s sending) string {
		if s.retry {
			return "r"
		}
		return "f"
	})
	if strings.Contains(got, "rrr") || strings.Contains(got, "fff") || strings.Count(got, "r") < 8 {
		t.Errorf("sent: %s", got)
	}
}

func TestRetryIsSentWhenItIsDue(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 1})
	w.reply = func(_ Action, l *letter) answer {
		if !l.retry {
			return answer{again: 20 * time.Minute}
		}
		return answer{}
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 1)
	w.runFor(time.Minute)
	if wait := w.c.Waiting(w.now, 1); wait.Cause != CauseRetry || !wait.Until.Equal(w.msgs[1].due) {
		t.Errorf("waiting: %+v, due %v", wait, w.msgs[1].due)
	}
	w.finish(time.Hour)
	if late := w.sent[1].at.Sub(w.msgs[1].due); late < 0 || late > 100*time.Millisecond {
		t.Errorf("the retry is sent %v after it was due", late)
	}
}

func TestGreylistedMailReturnsFromTheSameSource(t *testing.T) {
	w := newWorld(t, Config{}, onePool("a", "b", "c"), limited(t, mxrules.Limits{Connections: 1}))
	w.host("example.com", "example.com", "mx1.example.com")
	first := map[MsgID]string{}
	w.reply = func(a Action, l *letter) answer {
		if !l.retry {
			source, _, _ := strings.Cut(a.Path, ">")
			first[l.id] = source
			return answer{after: 10 * time.Millisecond, again: 5 * time.Minute, source: source}
		}
		if !strings.HasPrefix(a.Path, first[l.id]+">") {
			t.Errorf("message %d was greylisted on %s and returns on %s", l.id, first[l.id], a.Path)
		}
		return answer{}
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 60)
	w.finish(time.Hour)
	w.checkEmpty()
}

func TestPinnedMailDoesNotWaitForASourceThatIsGone(t *testing.T) {
	w := newWorld(t, Config{}, onePool("a", "b"), limited(t, mxrules.Limits{}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.reply = func(_ Action, l *letter) answer {
		if l.retry {
			return answer{}
		}
		return answer{again: 5 * time.Minute, source: "b"}
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 10)
	w.runFor(time.Minute)
	w.suspend("no b", Selector{Kind: BySource, Value: "b"})
	w.finish(10 * time.Minute)
	for _, s := range w.sent[10:] {
		if s.path != "a>example.com" {
			t.Errorf("sent on %s", s.path)
		}
	}
}

func TestNoDestinationHoldsMoreThanHalfOfTheSlots(t *testing.T) {
	w := newWorld(t, Config{MaxSessions: 10}, onePool("a"), limited(t, mxrules.Limits{}))
	w.reply = func(Action, *letter) answer { return answer{after: time.Second} }
	w.host("big.example", "big", "mx.big")
	w.host("small.example", "small", "mx.small")
	w.add(Run{ID: 1, Delivery: 1, Domain: "big.example"}, 10_000)
	w.runFor(5 * time.Second)
	if w.byDest["big"] != 10 {
		t.Errorf("alone it has %d sessions of 10", w.byDest["big"])
	}
	w.add(Run{ID: 2, Delivery: 2, Domain: "small.example"}, 100)
	w.runFor(3 * time.Second)
	if w.byDest["big"] > 5 || w.byDest["small"] < 4 {
		t.Errorf("sessions: %v", w.byDest)
	}
	w.runFor(time.Minute)
	if w.byDest["big"] != 10 {
		t.Errorf("alone again it has %d sessions of 10", w.byDest["big"])
	}
}

func TestManyDestinationsTakeTurnsOnFewSlots(t *testing.T) {
	w := newWorld(t, Config{MaxSessions: 4}, onePool("a"), limited(t, mxrules.Limits{}))
	w.reply = func(Action, *letter) answer { return answer{after: 200 * time.Millisecond} }
	for i := range 20 {
		d := fmt.Sprintf("d%02d.example", i)
		w.host(d, d, "mx."+d)
		w.add(Run{ID: RunID(i + 1), Delivery: 1, Domain: d}, 1000)
	}
	w.runFor(2 * time.Minute)
	count := map[string]int{}
	for _, s := range w.sent {
		count[s.dest]++
	}
	if len(count) != 20 {
		t.Errorf("after two minutes %d of 20 destinations got mail: %v", len(count), count)
	}
}

// However many destinations wait for slots, transactional mail has one at once: a few
// are kept for it.
func TestTransactionalMailDoesNotWaitForSlots(t *testing.T) {
	w := newWorld(t, Config{MaxSessions: 100}, onePool("a"), limited(t, mxrules.Limits{Connections: 2}))
	w.reply = func(Action, *letter) answer { return answer{after: 100 * time.Millisecond} }
	for i := range 400 {
		d := fmt.Sprintf("d%d.example", i)
		w.host(d, d, "mx."+d)
		w.add(Run{ID: RunID(i + 1), Delivery: 1, Domain: d}, 1000)
	}
	w.runFor(20 * time.Second)
	if w.open < 90 || w.open > 98 {
		t.Errorf("bulk mail holds %d of 100 sessions while hundreds of destinations wait", w.open)
	}
	var worst time.Duration
	for i := range 50 {
		d := fmt.Sprintf("t%d.example", i)
		w.host(d, d, "mx."+d)
		n, begin := len(w.sent), w.now
		w.add(Run{ID: RunID(1001 + i), Delivery: 2, Domain: d, Class: Transactional}, 1)
		w.runFor(300 * time.Millisecond)
		at := slices.IndexFunc(w.sent[n:], func(s sending) bool { return s.delivery == 2 })
		if at < 0 {
			t.Fatalf("message %d is not sent after 300 ms", i)
		}
		worst = max(worst, w.sent[n+at].at.Sub(begin))
	}
	if worst > 100*time.Millisecond {
		t.Errorf("the slowest left after %v", worst)
	}
}

// Nor does it wait behind transactional mail for dead hosts, and neither does bulk mail.
func TestTransactionalMailForDeadHostsDelaysNobody(t *testing.T) {
	w := newWorld(t, Config{MaxSessions: 100}, onePool("a"), limited(t, mxrules.Limits{Connections: 4, MessagesPerConnection: 20}))
	w.reply = func(Action, *letter) answer { return answer{after: 100 * time.Millisecond} }
	quick := w.delay
	w.delay = func(k ActionKind) time.Duration {
		if s := w.sessions[w.c.lastSession]; k == Open && s != nil && strings.HasPrefix(s.open.Host, "mx.dead") {
			return 30 * time.Second
		}
		return quick(k)
	}
	w.dial = func(a Action) *Evidence {
		if strings.HasPrefix(a.Host, "mx.dead") {
			return refused(a)
		}
		return nil
	}
	for i := range 10 {
		d := fmt.Sprintf("d%d.example", i)
		w.host(d, d, "mx."+d)
		w.add(Run{ID: RunID(i + 1), Delivery: 1, Domain: d}, 100_000)
	}
	w.runFor(time.Minute)
	before := len(w.sent)
	w.runFor(time.Minute)
	calm := len(w.sent) - before
	for i := range 300 {
		d := fmt.Sprintf("dead%d.example", i)
		w.host(d, d, "mx."+d)
		w.add(Run{ID: RunID(101 + i), Delivery: 2, Domain: d, Class: Transactional}, 1)
	}
	w.runFor(time.Second)
	before = len(w.sent)
	for i := range 20 {
		n := len(w.sent)
		w.add(Run{ID: RunID(1001 + i), Delivery: 3, Domain: fmt.Sprintf("d%d.example", i%10), Class: Transactional}, 1)
		w.runFor(3 * time.Second)
		at := slices.IndexFunc(w.sent[n:], func(s sending) bool { return s.delivery == 3 })
		if at < 0 {
			t.Fatalf("message %d is not sent after three seconds", i)
		}
	}
	if busy := len(w.sent) - before; busy < calm*9/10 {
		t.Errorf("%d messages in a minute beside dead hosts, %d without", busy, calm)
	}
}

// Dials to dead hosts take long. They must not take the slots of those that work.
func TestDeadDestinationsDelayNobody(t *testing.T) {
	w := newWorld(t, Config{MaxSessions: 20}, onePool("a"), limited(t, mxrules.Limits{}))
	w.dial = func(a Action) *Evidence {
		if a.Host == "mx.live" {
			return nil
		}
		return refused(a)
	}
	quick := w.delay
	w.delay = func(k ActionKind) time.Duration {
		if k == Open && len(w.sessions) > 0 && w.sessions[w.c.lastSession] != nil && w.sessions[w.c.lastSession].open.Host != "mx.live" {
			return 30 * time.Second
		}
		return quick(k)
	}
	w.host("live.example", "live", "mx.live")
	for i := range 2000 {
		d := fmt.Sprintf("dead%d.example", i)
		w.host(d, d, "mx."+d)
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "live.example"}, 100_000)
	w.runFor(time.Second)
	for i := range 2000 {
		w.add(Run{ID: RunID(i + 2), Delivery: 2, Domain: fmt.Sprintf("dead%d.example", i)}, 10)
	}
	w.runFor(10 * time.Second)
	before := len(w.sent)
	w.runFor(5 * time.Minute)
	// Ten sessions of 20 messages a second, less what reconnecting takes.
	if n := len(w.sent) - before; n < 8*20*300 {
		t.Errorf("%d messages in five minutes", n)
	}
}

func TestUnsettledOutcomesHoldSending(t *testing.T) {
	w := newWorld(t, Config{MaxUnsettled: 5}, onePool("a"), limited(t, mxrules.Limits{Connections: 20}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.delay = func(k ActionKind) time.Duration {
		if k == Send {
			return time.Hour // the disk stands still
		}
		return time.Millisecond
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 50)
	w.runFor(59 * time.Minute)
	if len(w.sent) != 5 {
		t.Errorf("%d messages sent", len(w.sent))
	}
	w.finish(20 * time.Hour)
}

func TestPauseReturnsWhatIsNotBeingSent(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 2, MessageRate: mxrules.Rate{Count: 10, Per: time.Second}})
	w.reply = func(Action, *letter) answer { return answer{after: 3 * time.Second} }
	w.delay = func(k ActionKind) time.Duration {
		if k == Claim {
			return 50 * time.Millisecond
		}
		return time.Millisecond
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 100)
	w.add(Run{ID: 2, Delivery: 2, Domain: "example.com"}, 1)
	w.runUntil(time.Minute, func() bool { return len(w.sent) == 2 })
	w.pause(1)
	w.runFor(time.Second)
	places := map[string]int{}
	for _, l := range w.msgs {
		if l.run.spec.ID == 1 {
			places[l.place]++
		}
	}
	if places["loaded"]+places["claimed"]+places["claiming"]+places["returning"] != 0 {
		t.Errorf("after the pause: %v", places)
	}
	if wait := w.c.Waiting(w.now, 1); wait.Cause != CausePaused {
		t.Errorf("waiting: %+v", wait)
	}
	w.runFor(time.Hour)
	w.unpause(1)
	w.finish(10 * time.Minute)
	w.checkDone()
}

func TestSuspensions(t *testing.T) {
	cases := []struct {
		sel  Selector
		runs []RunID // that go on
	}{
		{Selector{Kind: Everything}, nil},
		{Selector{Kind: ByTenant, Value: "t1"}, []RunID{2}},
		{Selector{Kind: BySenderDomain, Value: "s1"}, []RunID{2}},
		{Selector{Kind: ByDelivery, Delivery: 1}, []RunID{2}},
		{Selector{Kind: ByDestination, Value: "one"}, []RunID{2}},
		{Selector{Kind: BySource, Value: "a"}, []RunID{1, 2}},
		{Selector{Kind: BySource, Value: "other"}, []RunID{1, 2}},
	}
	for _, tc := range cases {
		t.Run(fmt.Sprintf("%+v", tc.sel), func(t *testing.T) {
			w := newWorld(t, Config{}, onePool("a", "b"), limited(t, mxrules.Limits{Connections: 2}))
			w.host("one.example", "one", "mx.one")
			w.host("two.example", "two", "mx.two")
			w.add(Run{ID: 1, Delivery: 1, Domain: "one.example", Tenant: "t1", SenderDomain: "s1"}, 10_000)
			w.add(Run{ID: 2, Delivery: 2, Domain: "two.example", Tenant: "t2", SenderDomain: "s2"}, 10_000)
			w.runFor(5 * time.Second)
			w.suspend("stop", tc.sel)
			before := len(w.sent)
			w.runFor(20 * time.Second)
			var went []RunID
			for _, s := range w.sent[before:] {
				if !slices.Contains(went, s.run) {
					went = append(went, s.run)
				}
				if tc.sel.Value == "a" && strings.HasPrefix(s.path, "a>") {
					t.Fatal("the suspended source sends")
				}
			}
			slices.Sort(went)
			if !slices.Equal(went, tc.runs) {
				t.Errorf("runs %v go on, want %v", went, tc.runs)
			}
			if len(tc.runs) < 2 {
				if wait := w.c.Waiting(w.now, 1); wait.Cause != CauseSuspended || wait.Text != "stop" {
					t.Errorf("waiting: %+v", wait)
				}
			}
			w.unsuspend("stop")
			w.finish(time.Hour)
			w.checkDone()
		})
	}
}

func TestRemovedSourceDrains(t *testing.T) {
	w := newWorld(t, Config{}, onePool("a", "b"), limited(t, mxrules.Limits{Connections: 2}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.reply = func(Action, *letter) answer { return answer{after: 2 * time.Second} }
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 50)
	w.runFor(5 * time.Second)
	pools := onePool("a", "b")
	pools[0].Sources = pools[0].Sources[1:]
	w.do(func(c *Core) { c.SetPools(w.now, pools) })
	before := len(w.sent)
	w.runFor(3 * time.Second)
	if w.paths["a>example.com"].open != 0 {
		t.Error("the removed source still has sessions")
	}
	w.finish(10 * time.Minute)
	for _, s := range w.sent[before:] {
		if s.path != "b>example.com" {
			t.Errorf("sent on %s", s.path)
		}
	}
	w.checkDone()
	w.checkEmpty()
}

func TestSharedPathCountsAllSources(t *testing.T) {
	w := newWorld(t, Config{}, onePool("a", "b", "c"), limited(t, mxrules.Limits{Connections: 3, Shared: true}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 500)
	w.finish(time.Hour)
	if len(w.paths) != 1 || w.paths["*>example.com"] == nil {
		t.Errorf("paths: %v", w.paths)
	}
}

// Over many domains each source gets its share; one domain keeps its source, and
// only what is beyond that source's connections goes by another.
func TestSourcesShareDomainsByWeight(t *testing.T) {
	pools := onePool("a", "b")
	pools[0].Sources[1].Weight = 3
	w := newWorld(t, Config{MaxSessions: 5000}, pools, limited(t, mxrules.Limits{Connections: 10}))
	for i := range 400 {
		domain := fmt.Sprintf("d%d.example", i)
		w.host(domain, domain, "mx."+domain)
		w.add(Run{ID: RunID(i + 1), Delivery: 1, Domain: domain}, 3)
	}
	w.finish(time.Minute)
	paths, messages := map[string]string{}, map[string]int{}
	for _, s := range w.sent {
		source, _, _ := strings.Cut(s.path, ">")
		messages[source]++
		if other := paths[s.domain]; other != "" && other != source {
			t.Errorf("%s gets mail from %s and %s", s.domain, source, other)
		}
		paths[s.domain] = source
	}
	if a := messages["a"]; a < 220 || a > 380 {
		t.Errorf("%v for weights 1 and 3", messages)
	}
}

func TestAnotherSourceTakesWhatTheFirstHasNoRoomFor(t *testing.T) {
	w := newWorld(t, Config{}, onePool("a", "b"), limited(t, mxrules.Limits{Connections: 2}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.reply = func(Action, *letter) answer { return answer{after: time.Minute} }
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 4)
	w.runFor(time.Second)
	if a, b := len(w.paths["a>example.com"].connects), len(w.paths["b>example.com"].connects); a != 2 || b != 2 {
		t.Errorf("%d and %d connections", a, b)
	}
}

func rules(t *testing.T, list ...mxrules.Rule) *mxrules.Rules {
	t.Helper()
	for i := range list {
		list[i].ID = fmt.Sprintf("rule%d", i)
	}
	set, err := mxrules.NewRules(list, nil)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestDomainWithItsOwnTLSRuleHasItsOwnSessions(t *testing.T) {
	set := rules(t,
		mxrules.Rule{
			Domains: []mxrules.Mask{"bank.example"}, Set: mxrules.FieldsOf(mxrules.FieldTLS),
			Limits: mxrules.Limits{TLS: mxrules.TLSVerify},
		},
		mxrules.Rule{Set: mxrules.FieldsOf(mxrules.FieldConnections), Limits: mxrules.Limits{Connections: 2}},
	)
	w := newWorld(t, Config{}, onePool("a"), set)
	w.host("bank.example", "shared", "mx.shared")
	w.host("shop.example", "shared", "mx.shared")
	w.watch(Send, func(a Action) {
		verified := w.sessions[a.Session].open.Limits.TLS == mxrules.TLSVerify
		if bank := w.msgs[a.Msg].run.spec.Domain == "bank.example"; bank != verified {
			t.Errorf("mail for %s on a session with TLS %v", w.msgs[a.Msg].run.spec.Domain, verified)
		}
	})
	w.add(Run{ID: 1, Delivery: 1, Domain: "bank.example"}, 200)
	w.add(Run{ID: 2, Delivery: 1, Domain: "shop.example"}, 200)
	w.finish(time.Hour)
	if len(w.paths) != 1 {
		t.Errorf("the receiver's connections are counted on %d paths", len(w.paths))
	}
}

func TestDomainWithItsOwnRatesHasItsOwnPath(t *testing.T) {
	set := rules(t,
		mxrules.Rule{
			Domains: []mxrules.Mask{"slow.example"}, Set: mxrules.FieldsOf(mxrules.FieldConnections),
			Limits: mxrules.Limits{Connections: 1},
		},
		mxrules.Rule{Set: mxrules.FieldsOf(mxrules.FieldConnections), Limits: mxrules.Limits{Connections: 4}},
	)
	w := newWorld(t, Config{}, onePool("a"), set)
	w.host("slow.example", "shared", "mx.shared")
	w.host("shop.example", "shared", "mx.shared")
	most := map[string]int{}
	w.watch(Open, func(a Action) { most[a.Path] = max(most[a.Path], w.ledger(a.Path).open+1) })
	w.add(Run{ID: 1, Delivery: 1, Domain: "slow.example"}, 100)
	w.add(Run{ID: 2, Delivery: 1, Domain: "shop.example"}, 100)
	w.finish(time.Hour)
	if most["a>shared/slow.example"] > 1 || most["a>shared"] < 2 {
		t.Errorf("connections at once: %v", most)
	}
}

func TestNewRulesHoldAtOnce(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 8})
	w.reply = func(Action, *letter) answer { return answer{after: time.Second} }
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 1000)
	w.runFor(5 * time.Second)
	if w.open != 8 {
		t.Errorf("%d sessions", w.open)
	}
	w.do(func(c *Core) { c.SetRules(w.now, limited(t, mxrules.Limits{Connections: 2})) })
	w.runFor(2 * time.Second)
	if w.open != 2 {
		t.Errorf("%d sessions after the cap went to 2", w.open)
	}
	w.do(func(c *Core) { c.SetRules(w.now, limited(t, mxrules.Limits{Connections: 4, TLS: mxrules.TLSVerify})) })
	w.runFor(10 * time.Second)
	for _, s := range w.sessions {
		if s.open.Limits.TLS != mxrules.TLSVerify {
			t.Errorf("a session of the old TLS requirement stays")
		}
	}
	w.do(func(c *Core) { c.SetRules(w.now, limited(t, mxrules.Limits{Connections: 3, Shared: true})) })
	w.finish(time.Hour)
	w.checkDone()
	w.checkEmpty()
}

func TestTemporaryLookupFailureBacksOff(t *testing.T) {
	w := single(t, mxrules.Limits{})
	w.domains["example.com"].failure = &ResolveFailure{Text: "SERVFAIL"}
	var asked []time.Duration
	w.watch(Resolve, func(Action) { asked = append(asked, w.now.Sub(start).Round(time.Second)) })
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 1)
	w.runFor(3 * time.Hour)
	want := []time.Duration{0, 1, 3, 7, 15, 31, 63, 123}
	for i := range want {
		want[i] *= time.Minute
	}
	if !slices.Equal(asked, want) {
		t.Errorf("asked at %v, want %v", asked, want)
	}
	if wait := w.c.Waiting(w.now, 1); wait.Cause != CauseDNS || wait.Text != "SERVFAIL" || wait.Until.IsZero() {
		t.Errorf("waiting: %+v", wait)
	}
	w.domains["example.com"].failure = nil
	w.finish(time.Hour)
}

func TestDeadDomainFailsItsMailInBatches(t *testing.T) {
	w := newWorld(t, Config{MaxUnsettled: 20}, onePool("a"), limited(t, mxrules.Limits{}))
	w.host("gone.example", "gone.example", "none")
	w.host("live.example", "live.example", "mx.live")
	w.domains["gone.example"].failure = &ResolveFailure{Final: true, Text: "NXDOMAIN"}
	most := 0
	w.watch(Fail, func(a Action) {
		most = max(most, len(w.c.msgs))
		if a.Text != "NXDOMAIN" {
			t.Errorf("failed with %q", a.Text)
		}
	})
	r := w.add(Run{ID: 1, Delivery: 1, Domain: "gone.example"}, 5000)
	w.finish(time.Minute)
	if most > 20 || len(w.sent) != 0 {
		t.Errorf("%d messages in memory, %d sent", most, len(w.sent))
	}

	w.domains["gone.example"].failure = nil // registered meanwhile
	w.grow(r, 1)
	w.finish(time.Second)
	if len(w.sent) != 0 {
		t.Error("the failure does not hold until it expires")
	}
	w.runFor(10 * time.Minute)
	w.grow(r, 1)
	w.finish(time.Minute)
	if len(w.sent) != 1 {
		t.Error("fresh mail does not ask for the route again")
	}
	w.checkEmpty()
}

func TestRouteIsAskedForAgainWhenItExpired(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 1, MessageRate: mxrules.Rate{Count: 1, Per: time.Minute}})
	asked := 0
	w.watch(Resolve, func(Action) { asked++ })
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 150)
	w.runFor(70 * time.Minute)
	if asked != 2 {
		t.Errorf("asked %d times in 70 minutes for a route of an hour", asked)
	}
	w.domains["example.com"].route = Route{Destination: "elsewhere", Hosts: []Host{{"mx.elsewhere", 10}}}
	w.finish(10 * time.Hour)
	if last := w.sent[len(w.sent)-1]; last.dest != "elsewhere" {
		t.Errorf("the last message went to %s", last.dest)
	}
	w.checkEmpty()
}

func TestQuotaIsChargedWithTheClaim(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 2, MessagesPerHour: 3600})
	var last mxrules.Usage
	w.watch(Claim, func(a Action) {
		if a.Usage.Hour <= last.Hour {
			t.Errorf("a claim of %d does not raise the usage: %+v after %+v", len(a.Msgs), a.Usage, last)
		}
		last = a.Usage
	})
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 1000)
	w.runFor(time.Minute)
	if n := len(w.sent); n < 50 || n > 66 {
		t.Errorf("%d messages in a minute of 3600 an hour", n)
	}

	after := single(t, mxrules.Limits{Connections: 2, MessagesPerHour: 3600})
	owed := last
	owed.Hour = start.Add(30 * time.Second).UnixNano()
	owed.HourBulk = owed.Hour
	after.do(func(c *Core) { c.RestoreUsage(after.now, "a>example.com", owed) })
	after.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 10)
	after.runFor(20 * time.Second)
	if len(after.sent) != 0 {
		t.Errorf("%d messages sent on a quota used up before the restart", len(after.sent))
	}
	after.finish(time.Minute)
}

// A host that greets and hangs up must not be dialled in a loop.
func TestHostThatHangsUpBacksOff(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 5})
	w.reply = func(Action, *letter) answer { return answer{after: time.Millisecond, untried: true, dead: true} }
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 100)
	w.runFor(time.Minute)
	if n := len(w.paths["a>example.com"].connects); n > 40 {
		t.Errorf("%d connections in a minute", n)
	}
	w.reply = func(Action, *letter) answer { return answer{after: time.Millisecond} }
	w.finish(3 * time.Hour)
	w.checkDone()
}

// A store that promises more and brings nothing must not be asked in a loop.
func TestEmptyLoadsArePaced(t *testing.T) {
	w := single(t, mxrules.Limits{Connections: 2})
	r := w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 10)
	away := r.fresh
	r.fresh = nil
	loads := 0
	w.watch(Load, func(Action) { loads++ })
	w.promise = true
	w.runFor(time.Minute)
	if loads < 2 || loads > 70 {
		t.Errorf("%d loads in a minute", loads)
	}
	w.promise = false
	r.fresh = away
	w.grow(r, 1)
	w.finish(time.Minute)
	w.checkEmpty()
}

func TestClockJumpsDoNoHarm(t *testing.T) {
	for _, jump := range []time.Duration{-24 * time.Hour, -time.Hour, -time.Second, time.Hour, 24 * time.Hour} {
		w := single(t, mxrules.Limits{Connections: 2, MessageRate: mxrules.Rate{Count: 2, Per: time.Second}})
		broken := true
		w.dial = func(a Action) *Evidence {
			if broken {
				return refused(a)
			}
			return nil
		}
		w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 100)
		w.runFor(10 * time.Second) // in a back-off of a minute
		broken = false
		w.jump(jump)
		w.finish(3 * time.Minute)
		w.checkEmpty()
	}
}

// jump sets the clock of the world; what is under way takes as long as before.
func (w *world) jump(by time.Duration) {
	w.endWords()
	w.now = w.now.Add(by)
	for i := range w.queue {
		w.queue[i].at = w.queue[i].at.Add(by)
	}
	defer w.do(func(c *Core) { c.Tick(w.now) })
	if by > 0 {
		return // the ledgers take it for time that has passed
	}
	for _, p := range w.paths {
		for i := range p.connects {
			p.connects[i] = p.connects[i].Add(by)
		}
		for i := range p.messages {
			p.messages[i] = p.messages[i].Add(by)
		}
	}
}

func TestViews(t *testing.T) {
	w := newWorld(t, Config{}, onePool("a"), limited(t, mxrules.Limits{Connections: 2}))
	w.host("one.example", "dest", "mx1.dest", "mx2.dest")
	w.host("two.example", "dest", "mx1.dest", "mx2.dest")
	w.host("other.example", "other", "mx.other")
	w.reply = func(_ Action, l *letter) answer {
		if l.id <= 3 {
			return answer{after: time.Millisecond, again: time.Hour}
		}
		return answer{after: time.Minute}
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "one.example"}, 20)
	w.add(Run{ID: 2, Delivery: 1, Domain: "two.example"}, 5)
	w.add(Run{ID: 3, Delivery: 1, Domain: "other.example"}, 1)
	w.runFor(time.Second)

	v, ok := w.c.Destination(w.now, "dest")
	if !ok || !slices.Equal(v.Domains, []string{"one.example", "two.example"}) || v.DomainCount != 2 {
		t.Fatalf("destination: %v %+v", ok, v)
	}
	if v.Ready != 20 || v.Deferred != 3 || v.InFlight != 2 || v.Sessions != 2 || len(v.Hosts) != 2 {
		t.Errorf("ready %d, deferred %d, in flight %d, sessions %d, hosts %v", v.Ready, v.Deferred, v.InFlight, v.Sessions, v.Hosts)
	}
	p := v.Paths[0]
	if p.Key != "a>dest" || p.Source != "a" || p.Sessions != 2 || p.InFlight != 2 || p.Effective.Rule != "all" || p.State.Open != 2 {
		t.Errorf("path: %+v", p)
	}
	if list := w.c.Destinations(w.now, nil); len(list) != 2 || list[0].Name != "dest" {
		t.Errorf("first page: %+v", list)
	}
	if list := w.c.Destinations(w.now, []string{"nobody", "other", "other"}); len(list) != 1 || list[0].Name != "other" {
		t.Errorf("second page: %+v", list)
	}
	d, ok := w.c.Explain(w.now, "one.example")
	if !ok || d.Destination != "dest" || d.Deferred != 3 || !d.NextDue.Equal(w.msgs[1].due) && !d.NextDue.Equal(w.msgs[2].due) {
		t.Errorf("domain: %v %+v", ok, d)
	}
	if d.Wait.Cause != CauseQueue {
		t.Errorf("waiting: %+v", d.Wait)
	}
	if _, ok := w.c.Explain(w.now, "unknown.example"); ok {
		t.Error("an unknown domain is explained")
	}
	for _, sel := range []Selector{{Kind: Everything}, {Kind: ByDestination, Value: "dest"}, {Kind: BySource, Value: "a"}} {
		w.suspend("full disk", sel)
		if v, _ := w.c.Destination(w.now, "dest"); v.Paths[0].Suspended != "full disk" {
			t.Errorf("%v: path %+v", sel, v.Paths[0])
		}
		w.unsuspend("full disk")
	}
	if v, _ := w.c.Destination(w.now, "dest"); v.Paths[0].Suspended != "" {
		t.Errorf("path behind all suspensions: %+v", v.Paths[0])
	}
}

func TestUnknownEventsAreIgnored(t *testing.T) {
	c := New(Config{}, nil, nil)
	c.Grew(start, 9, 1)
	c.DropRun(start, 9)
	c.DropDelivery(start, 9)
	c.UpdateDelivery(start, 9, "x", 1)
	c.Unsuspend(start, "x")
	c.Resolved(start, "x", Route{})
	c.Resolved(start, "x", Route{Hosts: []Host{{"h", 1}}})
	c.Unresolved(start, "x", ResolveFailure{})
	c.Claimed(start, []MsgID{1})
	c.SessionOpened(start, 1)
	c.SessionFailed(start, 1, Evidence{HostFault: true})
	c.SessionClosed(start, 1)
	c.Replied(start, 1, 1, Evidence{}, true)
	c.Untried(start, 1, 1, true)
	c.Settled(start, 1, start, true)
	c.Returned(start, 1)
	c.Recall(start, 1)
	c.Tick(start)
	if a := c.Take(); len(a) != 0 {
		t.Errorf("actions: %+v", a)
	}
	c.Loaded(start, Loaded{Run: 9, Msgs: []Msg{{ID: 5}}})
	if a := c.Take(); len(a) != 1 || a[0].Kind != Return || a[0].Msg != 5 {
		t.Errorf("mail of a dropped run: %+v", a)
	}
}
