package route

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func controlled(names ...string) func(*Config) {
	return func(c *Config) { c.ControlNames = names }
}

func TestADenialIsBelievedWhenControlNamesExist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "control.example. A 192.0.2.1")
		r := w.resolver(t, controlled("gone.example", "Control.Example."))
		for _, domain := range []string{"nowhere.example", "nowhere2.example"} {
			if got := describe(r.Route(t.Context(), domain)); got != "nxdomain" {
				t.Errorf("%s: %s", domain, got)
			}
		}
		_ = describe(r.Route(t.Context(), "nowhere.example"))
		if n := w.count("A control.example"); n != 2 {
			t.Errorf("the control name was asked for %d times, want once for each denial from the wire", n)
		}
	})
}

func TestAResolverThatDeniesControlNamesIsBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		r := w.resolver(t, controlled("control.example", "control2.example"))
		for range 5 {
			_, err := r.Route(t.Context(), "nowhere.example")
			var e *Error
			if !errors.As(err, &e) || e.Kind != Broken || e.Final() {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(err.Error(), "control") {
				t.Errorf("the error explains nothing: %v", err)
			}
		}
		if n := w.count("A control.example"); n != 1 {
			t.Errorf("asked for a control name %d times within the minute, want 1", n)
		}
		<-time.After(brokenFor)
		_ = describe(r.Route(t.Context(), "nowhere.example"))
		if n := w.count("A control.example"); n != 2 {
			t.Errorf("asked for a control name %d times after a minute, want 2", n)
		}
	})
}

func TestNothingABrokenResolverSaidIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ordinary+"control.example. A 192.0.2.1")
		questions := []string{"MX one.example", "A mx.one.example", "AAAA mx.one.example", "A control.example"}
		for _, q := range questions {
			w.rcode(q, dns.RcodeNameError)
		}
		r := w.resolver(t, controlled("control.example"))
		if got := describe(r.Route(t.Context(), "one.example")); got != "broken" {
			t.Fatalf("got %s", got)
		}
		for _, q := range questions {
			w.on(q, nil)
		}
		if got := describe(r.Route(t.Context(), "one.example")); got != good {
			t.Errorf("after it was mended: %s", got)
		}
	})
}

// A mail host that a broken resolver denies must not look like a host without
// address.
func TestADeniedMailHostIsTestedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "one.example. MX 10 mx.one.example.")
		if got := describe(w.resolver(t, controlled("control.example")).Route(t.Context(), "one.example")); got != "broken" {
			t.Errorf("got %s", got)
		}
	})
}

func TestUnansweredControlNamesProveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		w.rcode("A control.example", dns.RcodeServerFailure)
		r := w.resolver(t, controlled("control.example"))
		if got := describe(r.Route(t.Context(), "nowhere.example")); got != "broken" {
			t.Errorf("got %s", got)
		}
		w.on("A control.example", func(_ string, reply *dns.Msg) *dns.Msg {
			reply.Rcode = dns.RcodeSuccess
			return reply
		})
		if got := describe(r.Route(t.Context(), "nowhere.example")); got != "nxdomain" {
			t.Errorf("once the control name has an answer: %s", got)
		}
	})
}

// In a closed network nobody knows the default control names; names found there
// take their place.
func TestFoundNamesServeAsControlNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ordinary)
		r := w.resolver(t, func(c *Config) { c.ControlNames = nil })
		if got := describe(r.Route(t.Context(), "nowhere.example")); got != "broken" {
			t.Errorf("before anything was found: %s", got)
		}
		for _, domain := range []string{"one.example", "many.example", "bare.example"} {
			if _, err := r.Route(t.Context(), domain); err != nil {
				t.Fatal(err)
			}
		}
		if got := describe(r.Route(t.Context(), "nowhere.example")); got != "nxdomain" {
			t.Errorf("after something was found: %s", got)
		}
		if n := len(r.controls.learned); n != maxLearned {
			t.Errorf("remembers %d names, want %d", n, maxLearned)
		}
	})
}

func TestFoundNamesUnmaskAResolverThatBreaksLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ordinary)
		r := w.resolver(t, func(c *Config) { c.ControlNames = nil })
		if got := describe(r.Route(t.Context(), "one.example")); got != good {
			t.Fatal(got)
		}
		w.records = nil
		if got := describe(r.Route(t.Context(), "bare.example")); got != "broken" {
			t.Errorf("got %s", got)
		}
	})
}
