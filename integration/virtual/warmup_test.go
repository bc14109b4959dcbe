package virtual

import (
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// cold makes the rig's only source one that is being warmed up.
func cold(caps ...int64) func(*rig) {
	return func(r *rig) {
		r.configure(func(c *mta.Config) {
			c.Settings.Pools = []dispatch.Pool{{Name: "default", Sources: []dispatch.Source{
				{Name: "s1", Weight: 1, WarmUp: &mxrules.WarmUpPlan{Caps: caps}, Stage: 1},
			}}}
		})
	}
}

// days counts the transactions that receivers saw, by UTC day since the beginning.
func (r *rig) days(hosts ...string) map[int]int64 {
	n := map[int]int64{}
	for _, host := range hosts {
		for _, at := range r.world.seen(host).mails {
			n[int(at.Unix()/86400-r.began.Unix()/86400)]++
		}
	}
	return n
}

// A new source goes from stage to stage, evenly over each day; what waits says so, and
// each step is an event.
func TestNewSourceIsWarmedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cold(24, 48, 500))
		defer r.close()
		recipients := many(150, "a.example", "b.example", "c.example")
		r.start("d", 84*time.Hour, recipients...)
		pass(6 * time.Hour)
		if n := r.delivery("d").Counters.Sent; n < 5 || n > 8 {
			t.Errorf("%d messages in six hours of a day with 24", n)
		}
		waits := false
		for _, to := range []string{"a.example", "b.example", "c.example"} {
			view, found, err := r.relay.Explain(t.Context(), to)
			if err != nil || !found {
				t.Fatal(found, err)
			}
			waits = waits || view.Wait.Cause == dispatch.CauseWarmUp && view.Wait.Until.After(time.Now()) && strings.Contains(view.Wait.Text, "stage 1 of 3")
		}
		if !waits {
			t.Error("nothing says that mail waits for the warm-up")
		}
		if d := r.await("d", 60*time.Hour); d.Counters.Sent != 150 {
			t.Errorf("counters %+v", d.Counters)
		}
		got := r.days("mx.a.example", "mx.b.example", "mx.c.example")
		if got[0] < 23 || got[0] > 24 || got[1] < 47 || got[1] > 48 {
			t.Errorf("by day: %v", got)
		}
		var steps []string
		for _, e := range r.events("") {
			if e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_PATH_WARM_UP {
				steps = append(steps, e.GetSource()+": "+e.GetText())
				if e.GetPrincipal() != "" {
					t.Errorf("a step of its own was ordered by %s: %s", e.GetPrincipal(), e.GetText())
				}
			}
		}
		if len(steps) != 2 || !strings.HasPrefix(steps[0], "s1: warm-up advanced to stage 2 of 3, 48 messages a day") {
			t.Errorf("events %q", steps)
		}
		r.books(recipients)
	})
}

// Crashes at any instant, also around midnight: by the receivers' ledgers no day gets
// more than its cap.
func TestWarmUpCapsAreExactOverCrashes(t *testing.T) {
	seeded(t, 2, func(t *testing.T, rng *rand.Rand) {
		r := newRig(t, crashable, cold(20, 300, 600), func(r *rig) {
			r.disk = between(rng.Uint64(), 0, 30*time.Millisecond)
		})
		defer func() { r.close() }()
		r.world.latency = between(rng.Uint64(), 0, 2*time.Second)
		r.start("d", 84*time.Hour, many(400, "a.example", "b.example")...)
		for range 12 {
			until := r.began.Add(24 * time.Hour * time.Duration(1+rng.IntN(2))) // a midnight, or any time
			if wait := time.Until(until); wait > 0 && rng.IntN(3) == 0 {
				time.Sleep(wait - time.Duration(rng.Int64N(int64(4*time.Second))) + 2*time.Second)
			} else {
				time.Sleep(time.Duration(rng.Int64N(int64(6 * time.Hour))))
			}
			r.crash(rng)
			if time.Since(r.began) > 44*time.Hour {
				break
			}
		}
		pass(time.Minute)
		views, err := r.relay.Sources(t.Context())
		if err != nil || views[0].WarmUp == nil {
			t.Fatal(views, err)
		}
		got := r.days("mx.a.example", "mx.b.example")
		for day, n := range got {
			if most := []int64{20, 300, 600}[day]; n > most {
				t.Errorf("day %d: %d messages, the cap is %d", day, n, most)
			}
		}
		if got[0] == 0 || r.delivery("d").Counters.Sent == 0 {
			t.Errorf("by day: %v", got)
		}
	})
}

// An operator's word is durable before it is answered, and holds over a crash.
func TestOperatorsStageSurvivesACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 1))
		r := newRig(t, crashable, cold(24, 48, 500))
		defer func() { r.close() }()
		if found, err := r.relay.SetWarmUp(t.Context(), "s1", 3, false, "someone"); err != nil || !found {
			t.Fatal(found, err)
		}
		r.crash(rng)
		views, err := r.relay.Sources(t.Context())
		if err != nil || views[0].WarmUp.State.Stage != 3 || views[0].WarmUp.Cap != 500 {
			t.Errorf("%+v %v", views, err)
		}
		if found, err := r.relay.SetWarmUp(t.Context(), "s9", 3, false, "someone"); err != nil || found {
			t.Error("a source that is not there", found, err)
		}
		for range 6 {
			if err := r.relay.Complained(t.Context(), "s1", "example.com"); err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Second)
		if views, err = r.relay.Sources(t.Context()); err != nil || views[0].WarmUp.State.Stage != 2 {
			t.Errorf("complaints: %+v %v", views[0].WarmUp, err)
		}
	})
}
