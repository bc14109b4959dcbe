package dispatch

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// listed sends a message a second for so many seconds to a list of which a share, of a
// thousand, does not exist, and delivers the rest.
func listed(t *testing.T, mode mxrules.Mode, unknown, seconds int) *world {
	w := single(t, mxrules.Limits{Connections: 20, MessageRate: perSecond(1), Governor: mode})
	w.strict = false
	n := 0
	w.reply = func(Action, *letter) answer {
		if n++; n%1000 < unknown {
			return answer{after: 50 * time.Millisecond, evidence: Evidence{Evidence: mxrules.Evidence{Text: "RCPT: 550 5.1.1 no such user", Code: 550}, Sign: mxrules.SignBounced}}
		}
		return answer{after: 50 * time.Millisecond, evidence: Evidence{Sign: mxrules.SignDelivered}}
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, seconds)
	return w
}

// told are the changes of paths of one kind.
func (w *world) told(kind PathChange) (texts []string) {
	for _, a := range w.changes {
		if a.Change == kind {
			texts = append(texts, a.Text)
		}
	}
	return texts
}

func TestAListOfUnknownRecipientsIsSweptEveryHour(t *testing.T) {
	for _, tt := range []struct {
		name     string
		mode     mxrules.Mode
		unknown  int // of a thousand
		seconds  int
		want     PathChange
		text     string
		suspends bool
	}{
		{"a good list", mxrules.GovernorStatic, 10, 6000, 0, "", false},
		{"few messages", mxrules.GovernorStatic, 500, 1500, 0, "", false},
		{"3 % slow", mxrules.GovernorStatic, 40, 6000, PathThrottled, "3 % slows", false},
		{"10 % suspend", mxrules.GovernorStatic, 120, 6000, PathSuspended, "10 % suspends", true},
		{"10 % suspend a governor that learns", mxrules.GovernorOn, 120, 6000, PathSuspended, "10 % suspends", true},
		{"a governor that observes only tells", mxrules.GovernorObserve, 120, 6000, PathObserved, "would rest: 13.31 %", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := listed(t, tt.mode, tt.unknown, tt.seconds)
			w.runFor(61 * time.Minute)
			found := false
			for _, a := range w.changes {
				found = found || a.Change == tt.want && strings.Contains(a.Text, tt.text)
			}
			if found != (tt.want != 0) || tt.want == 0 && len(w.told(PathSuspended))+len(w.told(PathThrottled)) > 0 {
				t.Errorf("after an hour: suspended %q, throttled %q, observed %q", w.told(PathSuspended), w.told(PathThrottled), w.told(PathObserved))
			}
			v, _ := w.c.Destination(w.now, "example.com")
			before := len(w.sent)
			w.runFor(3*time.Hour + 50*time.Minute)
			if rested := len(w.sent) == before; tt.suspends && !rested {
				t.Errorf("%d messages were sent in the 4 h after", len(w.sent)-before)
			}
			known := len(v.Paths) > 0 && slices.ContainsFunc(v.Paths[0].Decisions, func(d Decision) bool { return strings.Contains(d.Cause, "unknown recipients in an hour") })
			if known != (tt.want != 0) {
				t.Errorf("decisions %+v", v.Paths[0].Decisions)
			}
		})
	}
}

func TestComplaintsOfADayAreSweptEveryHour(t *testing.T) {
	w := listed(t, mxrules.GovernorStatic, 0, 20_000)
	w.runFor(20_100 * time.Second)
	for range 50 {
		w.do(func(c *Core) { c.Complained(w.now, "a", "example.com") })
	}
	w.runFor(time.Hour)
	if got := w.told(PathThrottled); len(got) != 1 || !strings.Contains(got[0], "0.25 % complaints in a day (50 of 20000)") {
		t.Errorf("0.25 %% complaints: throttled %q", got)
	}
	w.runFor(14 * time.Hour)
	for range 60 {
		w.do(func(c *Core) { c.Complained(w.now, "a", "example.com") })
	}
	w.runFor(time.Hour)
	if got := w.told(PathSuspended); len(got) != 1 || !strings.Contains(got[0], "complaints in a day (110 of 20000)") {
		t.Errorf("0.55 %% complaints: suspended %q", got)
	}
	w.runFor(26 * time.Hour) // a day later they are forgotten
	told := len(w.changes)
	w.do(func(c *Core) { c.Complained(w.now, "a", "example.com") })
	w.runFor(2 * time.Hour)
	for _, a := range w.changes[told:] {
		if a.Change == PathThrottled || a.Change == PathSuspended {
			t.Errorf("a day later: %+v", a.Text)
		}
	}
}
