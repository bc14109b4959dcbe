package dispatch

import (
	"net/netip"
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// Prospects are the same whether the path is there yet or not, and asking changes nothing.
func TestProspects(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	source := func(name, addr string) Source { return Source{Name: name, Addr: netip.MustParseAddr(addr), Weight: 1} }
	c := New(Config{}, []Pool{
		{Name: "main", Sources: []Source{source("s2", "192.0.2.2"), source("s1", "192.0.2.1")}},
		{Name: "other", Sources: []Source{source("s3", "192.0.2.3")}},
	}, mxrules.Builtin())
	c.RestoreUsage(now, "s1>there.example", mxrules.Usage{Learned: mxrules.Memory{
		MessageRate: mxrules.Learned{Value: 7, At: now.UnixNano(), Seen: 5},
	}})
	q := Query{
		Route:  Route{Destination: "there.example", Hosts: []Host{{Name: "mx.there.example", Preference: 10}}, Expires: now.Add(time.Hour)},
		Domain: "there.example", Pool: "main",
	}
	c.Suspend(now, "stop", Selector{Kind: BySource, Value: "s2"})
	check := func(when string) {
		t.Helper()
		list := c.Prospects(now, q)
		if len(list) != 2 || list[0].Source != "s1" || list[1].Source != "s2" {
			t.Fatalf("%s: %+v", when, list)
		}
		if s1 := list[0]; s1.Believed.MessageRate.PerSecond() != 7 || !s1.Learned.Has(mxrules.FieldMessageRate) || s1.Rule.Connections != 10 || s1.Suspended {
			t.Errorf("%s: %+v", when, s1)
		}
		if s2 := list[1]; s2.Believed.MessageRate != s2.Rule.MessageRate || s2.Learned != 0 || !s2.Suspended || s2.Shared {
			t.Errorf("%s: %+v", when, s2)
		}
	}
	check("before there is mail")
	check("once more")
	c.AddRun(now, Run{ID: 1, Delivery: 1, Priority: 50, Pool: "main", Domain: "there.example", Fresh: 3})
	c.Take()
	c.Resolved(now, "there.example", q.Route)
	c.Take()
	check("with a path")
	q.Pool = "nowhere"
	if list := c.Prospects(now, q); list != nil {
		t.Errorf("a pool that is not there: %+v", list)
	}
	if list := c.Prospects(now, Query{Pool: "main"}); list != nil {
		t.Errorf("no route: %+v", list)
	}
}

// Competition is the mail of each delivery at the destinations asked for, but for what
// is paused.
func TestCompetition(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	c := New(Config{}, []Pool{{Name: "main"}}, nil)
	add := func(id RunID, delivery DeliveryID, domain string, fresh, deferred int64, due time.Time) {
		c.AddRun(now, Run{ID: id, Delivery: delivery, Priority: 30, Pool: "main", Domain: domain, Fresh: fresh, Deferred: deferred, NextDue: due})
	}
	add(1, 9, "a.example", 10, 2, now.Add(2*time.Hour))
	add(2, 9, "b.example", 5, 1, now.Add(time.Hour))
	add(3, 4, "b.example", 7, 0, time.Time{})
	add(4, 5, "b.example", 100, 0, time.Time{})
	add(5, 9, "elsewhere.example", 1000, 0, time.Time{})
	c.Pause(now, 5)
	c.Take()
	for domain, destination := range map[string]string{"a.example": "big", "b.example": "big", "elsewhere.example": "elsewhere"} {
		c.Resolved(now, domain, Route{Destination: destination, Hosts: []Host{{Name: "mx." + domain}}, Expires: now.Add(time.Hour)})
	}
	got := c.Competition(now, map[string]bool{"big": true, "nowhere": true})
	want := []Competitor{
		{Delivery: 4, Priority: 30, Pool: "main", Fresh: 7},
		{Delivery: 9, Priority: 30, Pool: "main", Fresh: 15, Deferred: 3, NextDue: now.Add(time.Hour)},
	}
	if len(got) != 1 || len(got["big"]) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i, w := range want {
		g := got["big"][i]
		if due := g.NextDue.Equal(w.NextDue); !due {
			t.Errorf("next due %v, not %v", g.NextDue, w.NextDue)
		}
		g.NextDue, w.NextDue = time.Time{}, time.Time{}
		if g != w {
			t.Errorf("%+v, not %+v", g, w)
		}
	}
}
