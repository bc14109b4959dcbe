package virtual

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// sourcesOf are the sources of a recipient's attempts.
func (r *rig) sourcesOf(recipient string) (list []string) {
	for _, e := range r.events(recipient) {
		switch e.GetType() {
		case veredusv1.FeedbackType_FEEDBACK_TYPE_DEFERRED, veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED, veredusv1.FeedbackType_FEEDBACK_TYPE_BOUNCED:
			list = append(list, e.GetSource())
		}
	}
	return list
}

// A greylisted message waits, in the store, for its source while that rests and the other
// source carries the mail of its domain.
func TestGreylistedMailWaitsForItsRestingSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(r *rig) {
			r.configure(func(c *mta.Config) {
				c.Settings.Pools = []dispatch.Pool{{Name: "default", Sources: []dispatch.Source{{Name: "s1", Weight: 1}, {Name: "s2", Weight: 1}}}}
			})
		}, rules(`rules: [{id: all, connections: 1, reactions: [{text: "too many messages", trigger: first, do: rest, for: 40m}]}]`))
		defer r.close()
		const grey = "grey@a.example"
		r.world.say(grey, "451 4.7.1 Greylisted, please try again later", "250 2.0.0 ok")
		r.start("first", 84*time.Hour, grey)
		pass(time.Minute)
		r.world.say("slow@a.example", "421 4.7.0 too many messages, slow down", "250 2.0.0 ok")
		r.start("second", 84*time.Hour, "slow@a.example")
		for n := range 20 { // mail for the domain comes all the time
			pass(time.Minute)
			r.start(fmt.Sprintf("d%d", n), 84*time.Hour, fmt.Sprintf("n%d@a.example", n))
		}
		pass(2 * time.Hour)
		got := r.sourcesOf(grey)
		if len(got) != 2 || got[0] != got[1] {
			t.Errorf("the greylisted message went by %q", got)
		}
		if slow := r.sourcesOf("slow@a.example"); len(slow) == 0 || slow[0] != got[0] {
			t.Skipf("another source was told to slow down: %q", slow)
		}
		when := r.world.instants(grey)
		if len(when) != 2 || when[1] < 40*time.Minute {
			t.Errorf("attempts at %v; its source rested until 41 min", when)
		}
		if others := r.sourcesOf("n10@a.example"); len(others) != 1 || others[0] == got[0] {
			t.Errorf("mail in the rest went by %q", others)
		}
	})
}
