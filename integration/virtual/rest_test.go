package virtual

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// A receiver that named a wait, or whose reply ordered a rest, is not knocked at before
// its end because the process died or was restarted meanwhile.
func TestRestsOutlastARestart(t *testing.T) {
	tests := map[string]struct {
		reply string
		quiet time.Duration // from the reply on
	}{
		"a wait that the reply names":   {"451 4.7.1 Too many messages; try again in 10 minutes", 10 * time.Minute},
		"a rest that the reply demands": {"550 5.7.1 Blocked using a block list, see https://blocked.example/", 15 * time.Minute},
	}
	for name, tt := range tests {
		for _, crash := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, crashable)
					defer func() { r.close() }()
					recipients := many(60, "a.example")
					say := func(replies ...string) {
						for _, recipient := range recipients {
							r.world.say(recipient, replies...)
						}
					}
					say(tt.reply)
					r.start("d", 80*time.Hour, recipients...)
					pass(time.Minute)
					begun := len(r.world.seenMails())
					if crash {
						r.crash(rand.New(rand.NewPCG(1, 1)))
					} else {
						r.idle(time.Second)
					}
					pass(tt.quiet - 2*time.Minute)
					if begun == 0 || len(r.world.seenMails()) != begun {
						t.Fatalf("%d transactions before the restart, %d until the rest's end", begun, len(r.world.seenMails()))
					}
					say()
					if d := r.await("d", 80*time.Hour); d.Counters.Sent+d.Counters.Failed != 60 {
						t.Errorf("counters %+v", d.Counters)
					}
				})
			})
		}
	}
}
