package virtual

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mta"
)

// A rule may have a message tried again soon that qualification would leave to the
// schedule, and may hold a delivery for what it would blame nobody for.
func TestReactionsAboutMessagesAndDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var held []string
		r := newRig(t, rules(`
rules:
  - id: mine
    match: {mx: "*.a.example"}
    reactions:
      - {text: "backend moved", do: retry_soon}
      - {text: "campaign 4711", trigger: 2 in 1m, do: hold_delivery}
`), func(r *rig) {
			r.configure(func(c *mta.Config) {
				c.Hold = func(delivery, text string) {
					mu.Lock()
					defer mu.Unlock()
					held = append(held, delivery+": "+text)
				}
			})
		})
		defer r.close()
		r.world.say("soon@a.example", "451 4.3.2 backend moved", "")
		r.world.say("late@a.example", "451 4.3.2 out of coffee", "")
		r.world.say("never@a.example", "550 5.3.2 backend moved")
		r.start("d", 10*time.Hour, "soon@a.example", "late@a.example", "never@a.example")
		r.await("d", 10*time.Hour)
		gap := func(recipient string) time.Duration {
			at := r.world.instants(recipient)
			return at[len(at)-1] - at[0]
		}
		if g := gap("soon@a.example"); g < 5*time.Minute || g > 16*time.Minute {
			t.Errorf("tried again after %v, want 5 to 15 minutes", g)
		}
		if g := gap("late@a.example"); g < 20*time.Minute {
			t.Errorf("another failure is tried again after %v", g)
		}
		if n := len(r.world.instants("never@a.example")); n > 2 {
			t.Errorf("a final failure is tried %d times", n)
		}

		for i := range 3 {
			r.world.say(fmt.Sprintf("blamed%d@a.example", i), "550 5.3.0 campaign 4711 unwelcome")
		}
		r.start("e", 10*time.Hour, "blamed0@a.example", "blamed1@a.example", "blamed2@a.example")
		r.await("e", 10*time.Hour)
		mu.Lock()
		defer mu.Unlock()
		if len(held) == 0 || held[0] != "e: at a.example: rcpt: 550 5.3.0 campaign 4711 unwelcome" {
			t.Errorf("held %q", held)
		}
	})
}
