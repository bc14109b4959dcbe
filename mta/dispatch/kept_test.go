package dispatch

import (
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// keeps remembers what a world's core asks to be kept, as a store does.
func (w *world) keeps() map[string]mxrules.Usage {
	disk := map[string]mxrules.Usage{}
	w.note = func(a Action) {
		switch {
		case a.Kind == Keep && a.Usage == mxrules.Usage{}:
			delete(disk, a.Path)
		case a.Kind == Keep, a.Kind == Claim:
			disk[a.Path] = a.Usage
		}
	}
	return disk
}

// restart is a world that begins where another one ended, with what that one kept.
func (w *world) restart(again *world, disk map[string]mxrules.Usage) {
	again.now = w.now
	for key, u := range disk {
		again.c.RestoreUsage(again.now, key, u)
	}
}

func TestARestIsKeptOverARestart(t *testing.T) {
	blocked := func(w *world) {
		w.blockedAt("RCPT: 550 5.7.1 S3140", "t1.example", "t2.example", "t3.example", "office.example")
	}
	w := office(t, 3, false, "a")
	blocked(w)
	disk := w.keeps()
	w.add(Run{ID: 1, Delivery: 1, Domain: "office.example"}, 50) // the provider's own domain: its path rests
	w.runFor(time.Minute)
	sent := len(w.sent)

	again := office(t, 3, false, "a")
	w.restart(again, disk)
	again.add(Run{ID: 1, Delivery: 1, Domain: "office.example"}, 50)
	again.runFor(13 * time.Minute)
	if sent == 0 || len(again.sent) != 0 {
		t.Fatalf("%d messages before the restart, %d in the rest after it", sent, len(again.sent))
	}
	wait := again.c.Waiting(again.now, 1)
	if wait.Cause != CauseRest || wait.Text != "RCPT: 550 5.7.1 S3140" || wait.Since.After(start.Add(time.Minute)) {
		t.Errorf("waiting %+v, want the rest from before the restart with its reply", wait)
	}
	v, _ := again.c.Destination(again.now, "office")
	if d := v.Paths[0].Decisions; len(d) != 1 || d[0].Action != "rested" || d[0].To == "" {
		t.Errorf("decisions %+v", d)
	}
	again.runFor(2 * time.Hour)
	if n := len(again.sent); n != 50 {
		t.Errorf("%d of 50 messages behind the rest", n)
	}
	if n := len(again.changes); n == 0 || again.changes[0].Change != PathResumed {
		t.Errorf("changes %+v, want that the path is resumed", again.changes)
	}
}

func TestADomainThatRestsAloneIsKeptOverARestart(t *testing.T) {
	for _, same := range []bool{false, true} {
		w := office(t, 2, same, "a")
		w.blockedAt("RCPT: 550 5.7.1 S3140", "t1.example")
		disk := w.keeps()
		w.add(Run{ID: 1, Delivery: 1, Domain: "t1.example"}, 50)
		w.add(Run{ID: 2, Delivery: 1, Domain: "t2.example"}, 50)
		w.runFor(time.Minute)

		again := office(t, 2, same, "a")
		kept := again.keeps()
		w.restart(again, disk)
		again.add(Run{ID: 1, Delivery: 1, Domain: "t1.example"}, 50)
		again.add(Run{ID: 2, Delivery: 1, Domain: "t2.example"}, 50)
		again.runFor(12 * time.Minute)
		if a, b := again.sentTo("t1.example"), again.sentTo("t2.example"); a != 0 || b != 50 {
			t.Errorf("same hosts %v: %d messages to the domain that rests, %d of 50 to the other", same, a, b)
		}
		again.runFor(3 * time.Hour)
		if n := again.sentTo("t1.example"); n != 50 {
			t.Errorf("same hosts %v: %d of 50 messages behind the rest", same, n)
		}
		for key := range kept {
			if _, u := again.c.usage[key]; u {
				t.Errorf("%s is not taken up", key)
			}
		}

		third := office(t, 2, same, "a")
		w.restart(third, disk)
		if kept := third.c.ResetPaths(third.now, "", "office"); kept["a>office"+alone+"t1.example"] != (mxrules.Usage{}) || len(kept) != 2 || len(third.c.apart) != 0 {
			t.Errorf("same hosts %v: a reset leaves %+v of %v", same, kept, third.c.apart)
		}
	}
}
