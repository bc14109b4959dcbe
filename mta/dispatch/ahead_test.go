package dispatch

import (
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// doubled is a world whose sessions may be given two messages at once.
func doubled(t *testing.T, l mxrules.Limits) *world {
	t.Helper()
	w := newWorld(t, Config{Credit: 2}, onePool("a"), limited(t, l))
	w.host("example.com", "example.com", "mx1.example.com")
	return w
}

// watchParked answers the most messages that waited with sessions at once.
func (w *world) watchParked() *int {
	most := new(int)
	w.watch(Send, func(Action) { *most = max(*most, w.c.parked.n) })
	return most
}

func TestSessionHasItsNextMessageAtHand(t *testing.T) {
	w := doubled(t, mxrules.Limits{Connections: 1, MessagesPerConnection: 10})
	parked := w.watchParked()
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 100)
	w.finish(time.Minute)
	if *parked != 1 {
		t.Errorf("%d messages waited with the session", *parked)
	}
	// No wait for the disk or the core between two replies: 50 ms a message, 20 ms and
	// a claim's time for each of ten connections.
	if took := w.now.Sub(start); took > 100*50*time.Millisecond+10*30*time.Millisecond {
		t.Errorf("took %v", took)
	}
	w.checkDone()
	w.checkEmpty()
}

func TestIdleSessionsComeFirst(t *testing.T) {
	w := doubled(t, mxrules.Limits{Connections: 5})
	r := w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 100)
	w.finish(time.Minute)
	parked := w.watchParked()
	w.grow(r, 5) // all five sessions are idle
	w.finish(time.Minute)
	if *parked != 0 {
		t.Errorf("%d messages waited with sessions while others were idle", *parked)
	}
	w.checkDone()
}

func TestStalledSessionGivesItsNextMessageBack(t *testing.T) {
	w := doubled(t, mxrules.Limits{Connections: 2})
	stall := true
	w.reply = func(Action, *letter) answer {
		if stall {
			stall = false
			return answer{after: 10 * time.Minute}
		}
		return answer{after: 50 * time.Millisecond}
	}
	var back []time.Duration
	w.watch(TakeBack, func(a Action) { back = append(back, w.now.Sub(start)) })
	r := w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 20)
	if !w.runUntil(5*time.Second, func() bool { return w.left() == 1 }) {
		t.Fatalf("%d are left", w.left())
	}
	if len(back) != 1 || w.now.Sub(start) > 2*time.Second {
		t.Errorf("taken back at %v, the last one sent at %v", back, w.now.Sub(start))
	}
	w.grow(r, 20) // and no other is given to it
	w.runFor(time.Minute)
	if len(back) != 1 || w.left() != 1 {
		t.Errorf("taken back at %v, %d left", back, w.left())
	}
	w.finish(10 * time.Minute)
	w.checkDone()
	w.checkEmpty()
}

func TestRateKeepsMailFromWaitingWithSessions(t *testing.T) {
	w := doubled(t, mxrules.Limits{Connections: 5, MessageRate: mxrules.Rate{Count: 10, Per: time.Second}})
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 200)
	w.runFor(5 * time.Second)
	parked := w.watchParked()
	w.finish(time.Minute)
	if *parked > 0 {
		t.Errorf("%d messages waited with sessions, the rate was what they waited for", *parked)
	}
	w.checkDone()
}

func TestSlowReceiverGetsOneMessageAtATime(t *testing.T) {
	w := doubled(t, mxrules.Limits{Connections: 2})
	w.reply = func(Action, *letter) answer { return answer{after: 20 * time.Second} }
	r := w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 4)
	w.runUntil(time.Hour, func() bool { return w.left() == 0 })
	parked := w.watchParked()
	w.grow(r, 50)
	w.finish(time.Hour)
	if *parked > 0 {
		t.Errorf("%d messages waited with sessions for 20 s", *parked)
	}
}

func TestPauseTakesBackWhatWaitsWithSessions(t *testing.T) {
	w := doubled(t, mxrules.Limits{Connections: 3})
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 100)
	if !w.runUntil(time.Minute, func() bool { return w.c.parked.n == 3 }) {
		t.Fatal("no message waits with a session")
	}
	before := len(w.sent)
	w.pause(1)
	w.runFor(time.Minute)
	if len(w.sent) != before || len(w.c.msgs) != 0 {
		t.Errorf("%d sent behind the pause, %d messages in memory", len(w.sent)-before, len(w.c.msgs))
	}
	w.unpause(1)
	w.finish(time.Minute)
	w.checkDone()
}

// A message whose envelope was lost with the connection is sent again, and both its
// MAILs count for the quota.
func TestLostEnvelopeIsUntriedAndCounts(t *testing.T) {
	w := doubled(t, mxrules.Limits{Connections: 1, MessagesPerDay: 100 * 24 * 60 * 60})
	w.across = func() bool { return true }
	n := 0
	w.reply = func(Action, *letter) answer {
		n++
		return answer{after: 50 * time.Millisecond, dead: n%4 == 0}
	}
	charged := time.Duration(0)
	w.lost = func(l *letter) {
		meter := func() int64 { return w.c.paths["a>example.com"].gov.Usage().Day }
		before := max(meter(), w.now.UnixNano())
		w.c.Lost(w.now, 0, l.id) // the world's own is the second, which does nothing
		charged += time.Duration(meter() - before)
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 60)
	w.finish(time.Minute)
	if len(w.sent) < 70 {
		t.Fatalf("%d MAILs: no envelope was lost", len(w.sent))
	}
	// Unused quota does not add up: what counts is that each loss is charged once more.
	if lost := time.Duration(len(w.sent)-60) * 10 * time.Millisecond; charged-lost > 10*time.Millisecond || charged < lost {
		t.Errorf("%d MAILs for 60 messages were charged %v of a quota of one every 10 ms", len(w.sent), charged)
	}
	w.checkDone()
}
