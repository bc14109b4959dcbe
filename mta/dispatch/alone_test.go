package dispatch

import (
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// Of messages whose claims were lost to crashes a path has one at a time claimed, whatever
// else it sends meanwhile, and all get through.
func TestSuspectsAreClaimedOneByOne(t *testing.T) {
	w := newWorld(t, Config{}, onePool("a"), limited(t, mxrules.Limits{Connections: 5}))
	w.host("example.com", "example.com", "mx1.example.com")
	w.suspect = func(l *letter) bool { return l.id%3 == 0 }
	most, others := 0, 0
	w.reply = func(Action, *letter) answer {
		suspects, rest := 0, 0
		for _, l := range w.msgs {
			switch l.place {
			case "claiming", "claimed", "sending", "replied":
				if w.suspect(l) {
					suspects++
				} else {
					rest++
				}
			}
		}
		most, others = max(most, suspects), max(others, rest)
		return answer{after: 20 * time.Millisecond}
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 300)
	w.runFor(time.Minute)
	if len(w.sent) != 300 {
		t.Errorf("%d of 300 messages sent", len(w.sent))
	}
	if most != 1 || others < 2 {
		t.Errorf("at most %d suspects and %d others claimed at once, want 1 and more", most, others)
	}
}
