package dispatch

import (
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// A reaction holds the delivery whose own mail met its trigger; the path, and the other
// deliveries on it, go on.
func TestAReactionHoldsTheDeliveryThatIsToBlame(t *testing.T) {
	reactions, err := mxrules.NewReactions([]mxrules.Reaction{{Tag: "spam_content", Count: 5, Within: time.Minute, Do: mxrules.DoHoldDelivery}})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, Config{}, onePool("a"), limited(t, mxrules.Limits{Connections: 4, Reactions: reactions}))
	w.host("example.com", "example.com", "mx1.example.com")
	var refused time.Time
	w.reply = func(_ Action, l *letter) answer {
		switch spec := &l.run.spec; {
		case spec.Delivery == 1: // all of it
		case spec.Delivery == 2 && w.now.After(refused.Add(20*time.Second)): // now and then: never five in a minute
			refused = w.now
		default:
			return answer{after: time.Second}
		}
		return answer{after: time.Second, evidence: Evidence{Evidence: mxrules.Evidence{
			Effect: mxrules.EffectRest, Code: 554, Tag: "spam_content", Text: "DOT: 554 5.7.1 spam",
		}}}
	}
	held := map[DeliveryID]int{}
	w.watch(HoldDelivery, func(a Action) {
		held[a.Delivery]++
		if a.Destination != "example.com" || a.Text != "DOT: 554 5.7.1 spam" {
			t.Errorf("held by %+v", a)
		}
		w.after(0, func() { w.pause(a.Delivery) })
	})
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 100)
	w.add(Run{ID: 2, Delivery: 2, Domain: "example.com"}, 300)
	w.runFor(10 * time.Minute)
	if held[1] == 0 || held[2] != 0 || len(held) != 1 {
		t.Errorf("held %v, want the delivery that is refused", held)
	}
	if n := len(w.sent); n < 300 || n > 330 {
		t.Errorf("%d messages were sent, want all of the other delivery and few of the one held", n)
	}
	for _, change := range w.changes {
		t.Errorf("the path is held to blame: %+v", change)
	}
}
