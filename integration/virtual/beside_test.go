package virtual

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/integration/hostile"
	"github.com/veredus/veredus/integration/memnet"
	"github.com/veredus/veredus/mta"
)

// attackers puts a hostile receiver behind each domain NAME.attacker.example.
func attackers(r *rig) {
	r.configure(func(c *mta.Config) {
		healthy, number := c.Dial, new(atomic.Int64)
		c.Dial = func(ctx context.Context, t mta.Target) (net.Conn, error) {
			name, ok := strings.CutSuffix(strings.TrimPrefix(t.Host, "mx."), ".attacker.example")
			if !ok {
				return healthy(ctx, t)
			}
			client, server := memnet.Pipe(64 << 10)
			go hostile.Play(hostile.Script(name), server, number.Add(1))
			return client, nil
		}
	})
}

// Healthy mail goes when it would go without the attackers, to a round trip, while
// they have hold of connections; and when its validity is over every message to them has its end, and
// every connection, too: the bubble would not end with one left.
func TestOthersDoNotNotice(t *testing.T) {
	const roundTrip = 30 * time.Millisecond
	instants := func(t *testing.T, attacked bool) (at []time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, attackers)
			defer pass(time.Hour) // the patience of attackers that hold a connection
			defer r.close()
			r.world.latency = func() time.Duration { return roundTrip }
			var victims []string
			if attacked {
				for _, name := range hostile.Manners() {
					victims = append(victims, many(5, name+".attacker.example")...)
				}
				r.start("attacked", 6*time.Hour, victims...)
				pass(30 * time.Second) // each has got hold of its connections
			}
			began := time.Since(r.world.start)
			recipients := many(400, "a.example", "b.example", "c.example", "d.example")
			r.start("healthy", 84*time.Hour, recipients...)
			if d := r.await("healthy", time.Hour); d.Counters.Sent != 400 || d.Counters.Attempts != 400 {
				t.Errorf("counters %+v", d.Counters)
			}
			for _, to := range recipients {
				at = append(at, r.world.instants(to)[0]-began)
			}
			if !attacked {
				return
			}
			// Some answer 250 by chance.
			if d := r.await("attacked", 7*time.Hour); d.Counters.Sent+d.Counters.Failed != int64(len(victims)) || d.Counters.Sent > 5 {
				t.Errorf("attacked: counters %+v", d.Counters)
			}
		})
		return at
	}
	alone, beside := last(instants(t, false)), last(instants(t, true))
	t.Logf("the last of 400 messages goes after %v alone, after %v beside %d attackers", alone, beside, len(hostile.Manners()))
	if beside > alone+roundTrip {
		t.Errorf("the last message went %v later", beside-alone)
	}
}

func last(instants []time.Duration) (at time.Duration) {
	for _, i := range instants {
		at = max(at, i)
	}
	return at
}
