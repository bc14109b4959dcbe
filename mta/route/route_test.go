package route

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// show writes a route in one line: destination, provider, hosts.
func show(rt *Route) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s>%s", rt.Domain, rt.Destination)
	if rt.Provider != "" {
		fmt.Fprintf(&b, "(%s)", rt.Provider)
	}
	if rt.ImplicitMX {
		b.WriteString(" implicit")
	}
	for _, h := range rt.Hosts {
		fmt.Fprintf(&b, " %d:%s%v", h.Preference, h.Name, h.Addrs)
	}
	return b.String()
}

// describe writes what Route returned: the route, or the kind of its error.
func describe(rt *Route, err error) string {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind.String()
	case err != nil:
		return "untyped error: " + err.Error()
	}
	return show(rt)
}

const ordinary = `
	one.example.       MX 10 mx.one.example.
	mx.one.example.    A 192.0.2.1
	mx.one.example.    AAAA 2001:db8::1

	many.example.      MX 20 c.mail.example.
	many.example.      MX 10 b.mail.example.
	many.example.      MX 10 A.Mail.Example.
	a.mail.example.    A 192.0.2.2
	b.mail.example.    A 192.0.2.3
	c.mail.example.    A 192.0.2.4

	bare.example.      A 192.0.2.5
	bare.example.      AAAA 2001:db8::5
	six.example.       AAAA 2001:db8::6
	text.example.      TXT "no mail here"

	null.example.      MX 0 .
	null5.example.     MX 5 .
	nearnull.example.  MX 0 .
	nearnull.example.  MX 10 mx.one.example.

	alias.example.     CNAME many.example.
	alias2.example.    CNAME alias.example.
	barealias.example. CNAME bare.example.
	dangling.example.  CNAME nowhere.example.
	loop.example.      CNAME loop2.example.
	loop2.example.     CNAME loop.example.
	mxalias.example.   MX 10 www.mail.example.
	www.mail.example.  CNAME a.mail.example.

	lost.example.      MX 10 gone.mail.example.
	half.example.      MX 10 gone.mail.example.
	half.example.      MX 20 c.mail.example.
	mute.example.      MX 10 text.example.
	literal.example.   MX 10 192.0.2.9.
	badhost.example.   MX 10 bad\032name.example.
	twice.example.     MX 10 a.mail.example.
	twice.example.     MX 20 a.mail.example.

	vanity.example.    MX 10 in.big.test.
	vanity2.example.   MX 10 in2.big.test.
	in.big.test.       A 192.0.2.10
	in2.big.test.      A 192.0.2.11
	filtered.example.  MX 10 mx.filter.test.
	filtered.example.  MX 20 in.big.test.
	mx.filter.test.    A 192.0.2.12
	deep.example.      MX 10 a.b.c.host.co.uk.
	a.b.c.host.co.uk.  A 192.0.2.13
	suffix.example.    MX 10 co.uk.
	co.uk.             A 192.0.2.14
	top.               MX 10 mx.one.example.
	old_host.example.  A 192.0.2.15
	under.example.     MX 10 old_host.example.
`

func bigProvider(host string) string {
	if strings.HasSuffix(host, ".big.test") {
		return "big"
	}
	return ""
}

func TestRoute(t *testing.T) {
	many := "many.mail 10:a.mail.example[192.0.2.2] 10:b.mail.example[192.0.2.3] 20:c.mail.example[192.0.2.4]"
	many = strings.TrimPrefix(many, "many.mail")
	for domain, want := range map[string]string{
		"one.example":       "one.example>one.example 10:mx.one.example[192.0.2.1 2001:db8::1]",
		"ONE.Example.":      "one.example>one.example 10:mx.one.example[192.0.2.1 2001:db8::1]",
		"many.example":      "many.example>mail.example" + many,
		"bare.example":      "bare.example>bare.example implicit 0:bare.example[192.0.2.5 2001:db8::5]",
		"six.example":       "six.example>six.example implicit 0:six.example[2001:db8::6]",
		"text.example":      "no_hosts",
		"nowhere.example":   "nxdomain",
		"null.example":      "null_mx",
		"null5.example":     "null_mx",
		"nearnull.example":  "nearnull.example>one.example 10:mx.one.example[192.0.2.1 2001:db8::1]",
		"alias.example":     "alias.example>mail.example" + many,
		"alias2.example":    "alias2.example>mail.example" + many,
		"barealias.example": "barealias.example>barealias.example implicit 0:barealias.example[192.0.2.5 2001:db8::5]",
		"dangling.example":  "nxdomain",
		"loop.example":      "temporary",
		"mxalias.example":   "mxalias.example>mail.example 10:www.mail.example[192.0.2.2]",
		"lost.example":      "no_hosts",
		"half.example":      "half.example>mail.example 20:c.mail.example[192.0.2.4]",
		"mute.example":      "no_hosts",
		"literal.example":   "no_hosts",
		"badhost.example":   "no_hosts",
		"twice.example":     "twice.example>mail.example 10:a.mail.example[192.0.2.2]",
		"vanity.example":    "vanity.example>big(big) 10:in.big.test[192.0.2.10]",
		"vanity2.example":   "vanity2.example>big(big) 10:in2.big.test[192.0.2.11]",
		"filtered.example":  "filtered.example>filter.test 10:mx.filter.test[192.0.2.12] 20:in.big.test[192.0.2.10]",
		"deep.example":      "deep.example>host.co.uk 10:a.b.c.host.co.uk[192.0.2.13]",
		"suffix.example":    "suffix.example>co.uk 10:co.uk[192.0.2.14]",
		"top":               "top>one.example 10:mx.one.example[192.0.2.1 2001:db8::1]",
		"under.example":     "under.example>old_host.example 10:old_host.example[192.0.2.15]",
		"localhost":         "invalid",
		"192.0.2.1":         "invalid",
	} {
		for _, lazy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s lazy=%t", domain, lazy), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, ordinary)
					w.lazy = lazy
					r := w.resolver(t, func(c *Config) { c.Provider = bigProvider })
					for range 2 { // from the wire, and from the cache
						rt, err := r.Route(t.Context(), domain)
						if got := describe(rt, err); got != want {
							t.Errorf("\ngot  %s (%v)\nwant %s", got, err, want)
						}
					}
				})
			})
		}
	}
}

func TestRouteWhenServersFail(t *testing.T) {
	for name, c := range map[string]struct {
		fail   func(*world)
		domain string
		want   string
	}{
		"MX servfail":        {func(w *world) { w.rcode("MX one.example", dns.RcodeServerFailure) }, "one.example", "temporary"},
		"MX refused":         {func(w *world) { w.rcode("MX one.example", dns.RcodeRefused) }, "one.example", "temporary"},
		"MX silent":          {func(w *world) { w.silent("MX one.example") }, "one.example", "temporary"},
		"AAAA servfail":      {func(w *world) { w.rcode("AAAA mx.one.example", dns.RcodeServerFailure) }, "one.example", "one.example>one.example 10:mx.one.example[192.0.2.1]"},
		"A servfail":         {func(w *world) { w.rcode("A mx.one.example", dns.RcodeServerFailure) }, "one.example", "one.example>one.example 10:mx.one.example[2001:db8::1]"},
		"A silent, AAAA not": {func(w *world) { w.silent("A c.mail.example"); w.rcode("AAAA c.mail.example", dns.RcodeNameError) }, "half.example", "temporary"},
		"one of three":       {func(w *world) { w.silent("A b.mail.example") }, "many.example", "many.example>mail.example 10:a.mail.example[192.0.2.2] 20:c.mail.example[192.0.2.4]"},
		"fallback servfail":  {func(w *world) { w.rcode("A bare.example", dns.RcodeServerFailure); w.silent("AAAA bare.example") }, "bare.example", "temporary"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, ordinary)
				c.fail(w)
				rt, err := w.resolver(t).Route(t.Context(), c.domain)
				if got := describe(rt, err); got != c.want {
					t.Errorf("\ngot  %s (%v)\nwant %s", got, err, c.want)
				}
			})
		})
	}
}

func TestFinalErrorsSayUntilWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newWorld(t, ordinary).resolver(t)
		for domain, want := range map[string]time.Duration{
			"nowhere.example":  300 * time.Second, // the SOA's minimum, less than its TTL
			"dangling.example": 300 * time.Second,
			"null.example":     300 * time.Second, // the MX record's TTL
		} {
			_, err := r.Route(t.Context(), domain)
			var e *Error
			if !errors.As(err, &e) || !e.Final() || e.Temporary() || time.Until(e.Expires) != want {
				t.Errorf("%s: %+v", domain, e)
			}
		}
	})
}

func TestProvidersMayChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, provider := newWorld(t, ordinary), "old"
		r := w.resolver(t, func(c *Config) { c.Provider = func(string) string { return provider } })
		for _, want := range []string{"old", "new"} {
			provider = want
			r.ForgetRoutes()
			if rt, err := r.Route(t.Context(), "one.example"); err != nil || rt.Destination != want || rt.Provider != want {
				t.Errorf("%v, error %v, want %s", rt, err, want)
			}
		}
		if n := w.count("MX one.example"); n != 1 {
			t.Errorf("the DNS was asked %d times, want 1", n)
		}
	})
}

func TestTXT(t *testing.T) {
	w := newWorld(t, `
		s._domainkey.example.  TXT "v=DKIM1; " "p=AAAA"
		two.example.           TXT "a"
		two.example.           TXT "b\"\\\200;"
		alias.example.         CNAME s._domainkey.example.
		a.example.             A 192.0.2.1
	`)
	w.rcode("TXT bad.example", dns.RcodeServerFailure)
	r := w.resolver(t)
	for name, want := range map[string][]string{
		"S._domainkey.example.": {"v=DKIM1; p=AAAA"},
		"two.example":           {"a", "b\"\\\xc8;"},
		"alias.example":         {"v=DKIM1; p=AAAA"},
		"a.example":             nil,
	} {
		if got, err := r.TXT(t.Context(), name); err != nil || !slices.Equal(got, want) {
			t.Errorf("TXT %s = %q, error %v, want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]Kind{"none.example": NXDomain, "bad.example": Temporary, "a..b": Invalid, "": Invalid} {
		_, err := r.TXT(t.Context(), name)
		var e *Error
		if !errors.As(err, &e) || e.Kind != want {
			t.Errorf("TXT %q: %v, want %s", name, err, want)
		}
	}
	if _, err := r.TXT(t.Context(), "two.example"); err != nil || w.count("TXT two.example") != 2 {
		t.Errorf("text records were cached: asked %d times", w.count("TXT two.example"))
	}
}

func TestOrderPrefersAndSpreads(t *testing.T) {
	addrs := func(list ...string) (all []netip.Addr) {
		for _, a := range list {
			all = append(all, netip.MustParseAddr(a))
		}
		return all
	}
	hosts := []Host{
		{"last", 30, addrs("192.0.2.9")},
		{"a", 10, addrs("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2")},
		{"b", 10, addrs("192.0.2.3")},
		{"c", 10, addrs("192.0.2.4")},
		{"d", 20, nil},
	}
	before := fmt.Sprint(hosts)
	first, firstAddr := map[string]int{}, map[netip.Addr]int{}
	const rounds = 3000
	for seed := range uint64(rounds) {
		got := Order(hosts, rand.New(rand.NewPCG(seed, 1)))
		again := Order(hosts, rand.New(rand.NewPCG(seed, 1)))
		if fmt.Sprint(got) != fmt.Sprint(again) {
			t.Fatalf("seed %d gives two orders", seed)
		}
		if got[3].Name != "d" || got[4].Name != "last" {
			t.Fatalf("seed %d: %v breaks the preference", seed, got)
		}
		first[got[0].Name]++
		a := got[slices.IndexFunc(got, func(h Host) bool { return h.Name == "a" })]
		if !a.Addrs[1].Is4() || !a.Addrs[2].Is6() {
			t.Fatalf("seed %d: %v mixes families", seed, a.Addrs)
		}
		firstAddr[a.Addrs[0]]++
	}
	for _, name := range []string{"a", "b", "c"} {
		if n := first[name]; n < rounds/3-200 || n > rounds/3+200 {
			t.Errorf("%s came first %d times of %d", name, n, rounds)
		}
	}
	if n := firstAddr[addrs("192.0.2.1")[0]]; n < rounds/2-200 || n > rounds/2+200 {
		t.Errorf("192.0.2.1 came first %d times of %d", n, rounds)
	}
	if fmt.Sprint(hosts) != before {
		t.Error("Order changed its argument")
	}
	if got := Order(hosts, nil); got[0].Name != "a" || got[1].Name != "b" || got[4].Name != "last" {
		t.Errorf("without randomness: %v", got)
	}
	if got := Order(nil, nil); len(got) != 0 {
		t.Errorf("no hosts: %v", got)
	}
}

func TestLongAnswersAreCut(t *testing.T) {
	var lines strings.Builder
	for i := range 60 {
		fmt.Fprintf(&lines, "huge.example. MX %d m%d.huge.example.\n", 100-i, i)
		fmt.Fprintf(&lines, "m59.huge.example. A 192.0.2.%d\n", i)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, lines.String())
		rt, err := w.resolver(t).Route(t.Context(), "huge.example")
		if err != nil {
			t.Fatal(err)
		}
		if len(rt.Hosts) != 1 || rt.Hosts[0].Name != "m59.huge.example" || len(rt.Hosts[0].Addrs) != maxAddrs {
			t.Errorf("kept %v", rt.Hosts)
		}
		if n := w.count("A m40.huge.example") + w.count("A m39.huge.example"); n != 1 {
			t.Errorf("asked for the address of the 20th or 21st host %d times, want only the 20th", n)
		}
	})
}

func TestErrorsExplainThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ordinary)
		w.silent("MX one.example")
		r := w.resolver(t)
		for domain, want := range map[string]string{
			"nowhere.example":  "domain nowhere.example does not exist (NXDOMAIN)",
			"null.example":     "domain null.example accepts no mail (null MX)",
			"lost.example":     "domain lost.example has no mail host with an address",
			"one.example":      "domain one.example could not be looked up: MX one.example at 192.0.2.53:53: ",
			"a_b.example":      `domain "a_b.example" is not valid: label "a_b" holds '_'`,
			"dangling.example": "domain dangling.example does not exist",
		} {
			if _, err := r.Route(t.Context(), domain); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%s: %v\nwant %s...", domain, err, want)
			}
		}
	})
}

func TestLookupOutlivesItsFirstCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ordinary)
		w.delay = time.Second
		r := w.resolver(t)
		ctx, cancel := context.WithCancel(t.Context())
		gaveUp := make(chan error, 1)
		go func() {
			_, err := r.Route(ctx, "one.example")
			gaveUp <- err
		}()
		synctest.Wait()
		patient := make(chan string, 1)
		go func() { patient <- describe(r.Route(t.Context(), "one.example")) }()
		synctest.Wait()
		cancel()
		var e *Error
		if err := <-gaveUp; !errors.As(err, &e) || e.Kind != Temporary || !errors.Is(err, context.Canceled) {
			t.Errorf("the first caller got %v", err)
		}
		if got := <-patient; !strings.HasPrefix(got, "one.example>") {
			t.Errorf("the second caller got %s", got)
		}
		if n := w.count("MX one.example"); n != 1 {
			t.Errorf("asked %d times, want 1", n)
		}
	})
}

func TestManyCallersOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ordinary)
		w.delay = 100 * time.Millisecond
		r := w.resolver(t)
		results := make(chan string, 200)
		for i := range cap(results) {
			domain := []string{"vanity.example", "vanity2.example"}[i%2]
			go func() { results <- describe(r.Route(t.Context(), domain)) }()
		}
		for range cap(results) {
			if got := <-results; !strings.HasPrefix(got, "vanity") {
				t.Fatal(got)
			}
		}
		for _, q := range []string{"MX vanity.example", "MX vanity2.example", "A in.big.test", "AAAA in.big.test"} {
			if n := w.count(q); n != 1 {
				t.Errorf("%s was asked %d times", q, n)
			}
		}
	})
}

func TestQueriesInFlightAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "mx.example. A 192.0.2.1")
		w.delay = time.Second
		r := w.resolver(t, func(c *Config) { c.MaxInFlight = 7 })
		done := make(chan error, 100)
		for i := range cap(done) {
			go func() {
				_, err := r.Route(t.Context(), fmt.Sprintf("d%d.example", i))
				done <- err
			}()
		}
		for range cap(done) {
			var e *Error
			if err := <-done; !errors.As(err, &e) || e.Kind != NXDomain {
				t.Errorf("got %v", err)
			}
		}
		if w.peak != 7 {
			t.Errorf("up to %d questions at once, want 7", w.peak)
		}
	})
}
