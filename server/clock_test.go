package server

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// Somebody sets the clock while mail waits for its retry, and while more comes in: nothing
// is sent twice, nothing freezes, and what expires does so by its validity period.
func TestAClockThatIsSet(t *testing.T) {
	cfg := bubbleConfig(t, "")
	for _, c := range []struct {
		name string
		by   time.Duration
		most time.Duration // until the retry, of time that really passes
	}{
		{"an hour forward", time.Hour, time.Minute},
		{"ten hours back", -10 * time.Hour, 20 * time.Minute},
		{"a day forward", 24 * time.Hour, time.Minute},
		{"ten days back", -240 * time.Hour, 20 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var set atomic.Int64
				b := newBubble(t, cfg, 0, func() time.Time { return time.Now().Add(time.Duration(set.Load())) })
				defer b.stop()
				mailing(t, b.conn, "anna@a.example", "grey@a.example", "gone@b.example")
				time.Sleep(10 * time.Second)
				set.Store(int64(c.by))
				jumped := time.Now()
				d, err := b.delivery("summer")
				if err != nil {
					t.Fatal(err)
				}
				fill(t, b.conn, d.GetName(), "berta@a.example", "greyer@c.example")
				if _, err := b.StartDelivery(t.Context(), &veredusv1.StartDeliveryRequest{Name: d.GetName()}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				if len(b.box.accepted()["berta@a.example"]) != 1 {
					t.Error("new mail does not flow")
				}
				time.Sleep(30 * time.Minute)
				set.Store(0) // and sets it right again
				time.Sleep(3 * time.Hour)
				accepted := b.box.accepted()
				for who, times := range accepted {
					if len(times) != 1 {
						t.Errorf("%s was sent %d times", who, len(times))
					}
				}
				for _, who := range []string{"grey@a.example", "greyer@c.example"} {
					switch times := accepted[who]; {
					case len(times) == 0:
						t.Errorf("%s froze", who)
					case times[0].Sub(jumped) > c.most && who == "grey@a.example":
						t.Errorf("%s was retried %v behind the jump", who, times[0].Sub(jumped))
					}
				}
				if fates := strings.Join(follow(t, b.conn), " "); strings.Contains(fates, "expired") {
					t.Errorf("fates: %s", fates)
				}
			})
		})
	}
}

// Set forward beyond the validity period, mail expires; set right again it stays so.
func TestAClockThatIsSetBeyondValidity(t *testing.T) {
	cfg := bubbleConfig(t, "")
	synctest.Test(t, func(t *testing.T) {
		var set atomic.Int64
		b := newBubble(t, cfg, 0, func() time.Time { return time.Now().Add(time.Duration(set.Load())) })
		defer b.stop()
		mailing(t, b.conn, "anna@a.example", "grey@a.example")
		time.Sleep(10 * time.Second)
		set.Store(int64(100 * time.Hour))
		time.Sleep(5 * time.Minute)
		set.Store(0)
		time.Sleep(3 * time.Hour)
		fates := strings.Join(follow(t, b.conn), " ")
		sent := len(b.box.accepted()["grey@a.example"])
		if told := strings.Contains(fates, "expired:grey"); told == (sent == 1) || sent > 1 {
			t.Errorf("sent %d times; fates: %s", sent, fates)
		}
		if len(b.box.accepted()["anna@a.example"]) != 1 {
			t.Errorf("anna: %d", len(b.box.accepted()["anna@a.example"]))
		}
	})
}

// The clock was set back while the node was down: the newest event tells.
func TestAClockThatWasSetBackWhileTheNodeWasDown(t *testing.T) {
	cfg := bubbleConfig(t, "")
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, cfg, 0, nil)
		mailing(t, b.conn, "grey@a.example")
		time.Sleep(10 * time.Second)
		b.stop()
		b.start(cfg, func() time.Time { return time.Now().Add(-50 * time.Hour) })
		defer b.stop()
		began := time.Now()
		time.Sleep(30 * time.Minute)
		if times := b.box.accepted()["grey@a.example"]; len(times) != 1 || times[0].Sub(began) > 20*time.Minute {
			t.Errorf("sent %v behind the restart at %v", times, began)
		}
	})
}
