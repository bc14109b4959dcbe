package route

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

func TestAnswersLiveAsLongAsTheyMay(t *testing.T) {
	withoutSOA := func(_ string, reply *dns.Msg) *dns.Msg {
		reply.Ns = nil
		return reply
	}
	longDenial := func(_ string, reply *dns.Msg) *dns.Msg {
		soa, _ := dns.NewRR(". 864000 IN SOA ns. admin. 1 2 3 4 864000")
		reply.Ns = []dns.RR{soa}
		return reply
	}
	for name, c := range map[string]struct {
		zone     string
		question string // whose repetition is watched
		rule     func(string, *dns.Msg) *dns.Msg
		ttl      time.Duration
	}{
		"MX":                 {"d.example. 120 MX 1 m.example.\nm.example. 900 A 192.0.2.1", "MX d.example", nil, 120 * time.Second},
		"address":            {"d.example. 900 MX 1 m.example.\nm.example. 60 A 192.0.2.1", "A m.example", nil, 60 * time.Second},
		"other family":       {"d.example. 900 MX 1 m.example.\nm.example. 60 AAAA 2001:db8::1\nm.example. 900 A 192.0.2.1", "AAAA m.example", nil, 60 * time.Second},
		"alias":              {"d.example. 45 CNAME e.example.\ne.example. 900 MX 1 m.example.\nm.example. 900 A 192.0.2.1", "MX d.example", nil, 45 * time.Second},
		"target":             {"d.example. 900 CNAME e.example.\ne.example. 45 MX 1 m.example.\nm.example. 900 A 192.0.2.1", "MX d.example", nil, 45 * time.Second},
		"zero":               {"d.example. 0 MX 1 m.example.\nm.example. 900 A 192.0.2.1", "MX d.example", nil, minTTL},
		"top bit set":        {"d.example. 4294967295 MX 1 m.example.\nm.example. 900 A 192.0.2.1", "MX d.example", nil, minTTL},
		"weeks":              {"d.example. 1209600 MX 1 m.example.\nm.example. 1209600 A 192.0.2.1", "MX d.example", nil, maxTTL},
		"NXDOMAIN":           {"", "MX d.example", nil, 300 * time.Second},
		"NXDOMAIN for weeks": {"", "MX d.example", longDenial, maxNegativeTTL},
		"NXDOMAIN, no SOA":   {"", "MX d.example", withoutSOA, bareTTL},
		"no MX":              {"d.example. 900 A 192.0.2.1", "MX d.example", nil, 300 * time.Second},
		"failure": {"", "MX d.example", func(_ string, reply *dns.Msg) *dns.Msg {
			reply.Rcode = dns.RcodeServerFailure
			return reply
		}, failureTTL},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.zone)
				if c.rule != nil {
					w.on(c.question, c.rule)
				}
				r := w.resolver(t)
				ask := func() int {
					_, _ = r.Route(t.Context(), "d.example")
					return w.count(c.question)
				}
				once := ask()
				<-time.After(c.ttl - time.Nanosecond)
				if n := ask(); n != once {
					t.Errorf("asked again %s after the first time, before its end", c.ttl-time.Nanosecond)
				}
				<-time.After(time.Nanosecond)
				if n := ask(); n == once {
					t.Errorf("not asked again at the end of its %s", c.ttl)
				}
			})
		})
	}
}

func TestRouteExpiresWithItsFirstRecord(t *testing.T) {
	for name, c := range map[string]struct {
		zone string
		fail string
		want time.Duration
	}{
		"MX":         {"d.example. 50 MX 1 m.example.\nm.example. 60 A 192.0.2.1", "", 50 * time.Second},
		"address":    {"d.example. 900 MX 1 m.example.\nd.example. 900 MX 2 n.example.\nm.example. 60 A 192.0.2.1\nn.example. 40 A 192.0.2.2", "", 40 * time.Second},
		"incomplete": {"d.example. 900 MX 1 m.example.\nd.example. 900 MX 2 n.example.\nm.example. 900 A 192.0.2.1\n", "A n.example", degradedTTL},
		"implicit":   {"d.example. 900 A 192.0.2.1", "", 300 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.zone)
				w.rcode(c.fail, dns.RcodeServerFailure)
				rt, err := w.resolver(t).Route(t.Context(), "d.example")
				if err != nil || time.Until(rt.Expires) != c.want {
					t.Errorf("%v, error %v, want to expire in %s", rt, err, c.want)
				}
			})
		})
	}
}

func TestAFailureHealsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ordinary)
		w.silent("MX one.example")
		r := w.resolver(t)
		var e *Error
		if _, err := r.Route(t.Context(), "one.example"); !errors.As(err, &e) || e.Kind != Temporary || !e.Timeout() {
			t.Fatalf("got %v", err)
		}
		w.on("MX one.example", nil)
		<-time.After(failureTTL)
		if got := describe(r.Route(t.Context(), "one.example")); !strings.HasPrefix(got, "one.example>") {
			t.Errorf("after the failure: %s", got)
		}
	})
}

func TestHostileDomainsCannotFillTheMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines strings.Builder
		for i := range 300 {
			fmt.Fprintf(&lines, "d%d.example. MX 1 %s.d%d.example.\n", i, strings.Repeat("x", 60), i)
			fmt.Fprintf(&lines, "%s.d%d.example. A 192.0.2.1\n", strings.Repeat("x", 60), i)
		}
		w := newWorld(t, lines.String())
		const limit = 20_000
		r := w.resolver(t, func(c *Config) { c.MaxCache = limit })
		for i := range 300 {
			if _, err := r.Route(t.Context(), fmt.Sprintf("d%d.example", i)); err != nil {
				t.Fatal(err)
			}
		}
		if used := r.answers.used + r.routes.Load().cache.used; used > limit || used < limit/2 {
			t.Errorf("the caches hold %d octets of %d", used, limit)
		}
	})
}

// The cache against a plain map: it may forget, but never lies, never outgrows
// its bound, and keeps its books.
func TestCacheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 100
		c := newCache[int, int](limit)
		type kept struct {
			value   int
			expires time.Time
		}
		model := make(map[int]kept)
		now := time.Unix(0, 0)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				key, value := rapid.IntRange(0, 9).Draw(t, "key"), rapid.Int().Draw(t, "value")
				cost := rapid.IntRange(1, limit+10).Draw(t, "cost")
				expires := now.Add(time.Duration(rapid.IntRange(-1, 5).Draw(t, "ttl")) * time.Second)
				c.put(key, value, cost, expires, now)
				if cost <= limit && expires.After(now) {
					model[key] = kept{value, expires}
				}
			},
			"get": func(t *rapid.T) {
				key := rapid.IntRange(0, 9).Draw(t, "key")
				got, ok := c.get(key, now)
				want, known := model[key]
				if ok && (!known || got != want.value || !now.Before(want.expires)) {
					t.Fatalf("got %d, the model has %+v at %s", got, want, now)
				}
			},
			"pass time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "seconds")) * time.Second)
			},
			"": func(t *rapid.T) {
				sum := 0
				for _, e := range c.entries {
					sum += e.cost
				}
				if sum != c.used || c.used > limit {
					t.Fatalf("entries cost %d, books say %d, limit %d", sum, c.used, limit)
				}
			},
		})
	})
}

func TestCachePrefersToDropTheDead(t *testing.T) {
	c := newCache[int, int](3)
	now := time.Unix(0, 0)
	c.put(1, 1, 1, now.Add(time.Hour), now)
	c.put(2, 2, 1, now.Add(time.Second), now)
	c.put(3, 3, 1, now.Add(time.Hour), now)
	now = now.Add(time.Minute)
	c.put(4, 4, 1, now.Add(time.Hour), now)
	for _, key := range []int{1, 3, 4} {
		if _, ok := c.get(key, now); !ok {
			t.Errorf("%d was dropped instead of the expired 2", key)
		}
	}
}
