package virtual

import (
	"testing"
	"testing/synctest"
	"time"
)

// What was learned of a receiver outlasts a restart: its cap of messages on a
// connection, which no rule says, is not run into again.
func TestWhatWasLearnedOutlastsARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		r.world.session["a.example"] = 12
		refusals := func(id string) int64 {
			r.start(id, 10*time.Hour, many(600, "a.example")...)
			d := r.await(id, 10*time.Hour)
			return d.Counters.Attempts - d.Counters.Sent
		}
		first := refusals("first")
		r.idle(time.Hour)
		again := refusals("again")
		if first == 0 || again != 0 {
			t.Errorf("%d refusals at first, %d after a restart", first, again)
		}
	})
}
