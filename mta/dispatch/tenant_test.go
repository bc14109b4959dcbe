package dispatch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// office is a world in which domains t1.example to tn.example have their mail at one
// provider whose hosts serve many: each at hosts of its own, or all at the same.
func office(t tester, n int, same bool, sources ...string) *world {
	set, err := mxrules.NewRules(
		[]mxrules.Rule{{ID: "all", Set: mxrules.AllFields, Limits: func() mxrules.Limits {
			l := mxrules.Defaults()
			l.Connections, l.Governor = 4, mxrules.GovernorOn
			return l
		}()}},
		[]mxrules.Provider{{Name: "office", Suffixes: []string{".mail.example"}, SharedHosts: true, OwnDomains: []string{"office.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, Config{}, onePool(sources...), set)
	host := func(domain string) {
		name, _, _ := strings.Cut(domain, ".")
		if same {
			name = "mx"
		}
		w.host(domain, "office", name+".mail.example")
	}
	for i := range n {
		host(fmt.Sprintf("t%d.example", i+1))
	}
	host("office.example")
	return w
}

// blockedAt makes the hosts refuse mail for the domains named, with the same words.
func (w *world) blockedAt(reply string, domains ...string) {
	w.reply = func(_ Action, l *letter) answer {
		for _, d := range domains {
			if l.run.spec.Domain == d {
				e := Evidence{Evidence: mxrules.Evidence{Effect: mxrules.EffectRest, Text: reply, Tag: "blocked", Code: 550}, Sign: mxrules.SignBlocked}
				return answer{after: time.Second, evidence: e, again: 20 * time.Minute}
			}
		}
		return answer{after: time.Second}
	}
}

// sentTo counts messages for a domain.
func (w *world) sentTo(domain string) (n int) {
	for _, s := range w.sent {
		if s.domain == domain {
			n++
		}
	}
	return n
}

func TestATenantThatBlocksRestsAlone(t *testing.T) {
	for _, same := range []bool{false, true} {
		w := office(t, 3, same, "a")
		w.blockedAt("RCPT: 550 5.7.1 Service unavailable, S3140", "t1.example")
		for i := range 3 {
			w.add(Run{ID: RunID(i + 1), Delivery: 1, Domain: fmt.Sprintf("t%d.example", i+1)}, 300)
		}
		w.runFor(14 * time.Minute)
		if n := w.sentTo("t1.example"); n == 0 || n > 4 {
			t.Errorf("same hosts %v: %d messages went to the tenant that blocks; at most one on each connection should", same, n)
		}
		for _, d := range []string{"t2.example", "t3.example"} {
			if n := w.sentTo(d); n != 300 {
				t.Errorf("same hosts %v: %d of 300 messages went to %s", same, n, d)
			}
		}
		wait := w.c.Waiting(w.now, 1)
		if wait.Cause != CauseRest || !strings.Contains(wait.Text, "t1.example alone") || !strings.Contains(wait.Text, "S3140") ||
			wait.Until.Before(w.now) || wait.Since.IsZero() {
			t.Errorf("same hosts %v: waiting %+v", same, wait)
		}
		if v, _ := w.c.Destination(w.now, "office"); v.Paths[0].State.Hold == mxrules.HoldRest {
			t.Errorf("same hosts %v: the path rests", same)
		}
		if len(w.changes) == 0 || w.changes[0].Change != PathSuspended || !strings.HasPrefix(w.changes[0].Text, "t1.example alone: ") {
			t.Errorf("same hosts %v: changes %+v", same, w.changes)
		}
		w.reply = func(Action, *letter) answer { return answer{after: time.Second} }
		probed := len(w.sent)
		w.runFor(2 * time.Minute)
		if first := w.sent[probed]; first.at.Sub(w.sent[probed+1].at) > -time.Second {
			t.Errorf("same hosts %v: the rest ends at %v and %v, not with one probe", same, first.at, w.sent[probed+1].at)
		}
		w.finish(2 * time.Hour)
		w.checkDone()
	}
}

func TestTheSameWordOfThreeTenantsIsTheProviders(t *testing.T) {
	w := office(t, 5, true, "a", "b")
	w.blockedAt("RCPT: 550 5.7.1 S3140", "t1.example", "t2.example", "t3.example")
	for i := range 5 {
		w.add(Run{ID: RunID(i + 1), Delivery: 1, Domain: fmt.Sprintf("t%d.example", i+1)}, 3000)
	}
	w.runFor(time.Minute)
	v, _ := w.c.Destination(w.now, "office")
	resting := 0
	for _, p := range v.Paths {
		if p.State.Hold == mxrules.HoldRest {
			resting++
		}
	}
	if resting == 0 {
		t.Errorf("after the same word of three domains no path rests")
	}
}

func TestUnlikeWordsAndRelatedDomainsDoNotSpeakForTheProvider(t *testing.T) {
	w := office(t, 0, true, "a")
	for i, d := range []string{"a.t.example", "b.t.example", "c.t.example"} {
		w.host(d, "office", "mx.mail.example")
		w.add(Run{ID: RunID(i + 1), Delivery: 1, Domain: d}, 10)
	}
	w.blockedAt("RCPT: 550 5.7.1 S3140", "a.t.example", "b.t.example", "c.t.example")
	w.runFor(time.Minute)
	if v, _ := w.c.Destination(w.now, "office"); v.Paths[0].State.Hold == mxrules.HoldRest {
		t.Error("one organisation's domains rest the provider")
	}
}

func TestTheProvidersOwnDomainRestsThePath(t *testing.T) {
	w := office(t, 1, true, "a")
	w.blockedAt("RCPT: 550 5.7.1 S3140", "office.example")
	w.add(Run{ID: 1, Delivery: 1, Domain: "office.example"}, 10)
	w.runFor(time.Minute)
	if v, _ := w.c.Destination(w.now, "office"); v.Paths[0].State.Hold != mxrules.HoldRest {
		t.Errorf("the path does not rest: %+v", v.Paths[0].State)
	}
}

func TestATenantRestsAtOneSourceOnly(t *testing.T) {
	w := office(t, 1, false, "a", "b")
	first := ""
	w.reply = func(a Action, _ *letter) answer {
		if first == "" {
			first = a.Path
		}
		if a.Path == first {
			e := Evidence{Evidence: mxrules.Evidence{Effect: mxrules.EffectRest, Text: "RCPT: 550 5.7.1 policy", Tag: "policy", Code: 550}}
			return answer{after: time.Second, evidence: e, again: time.Minute}
		}
		return answer{after: time.Second}
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "t1.example"}, 100)
	w.runFor(10 * time.Minute)
	if n := w.sentTo("t1.example"); n < 100 {
		t.Errorf("%d messages were sent; the other source should carry them", n)
	}
}

func TestAWaitNamedByATenantHoldsItAlone(t *testing.T) {
	w := office(t, 2, true, "a")
	w.reply = func(_ Action, l *letter) answer {
		if l.run.spec.Domain == "t1.example" && w.now.Before(start.Add(4*time.Minute)) {
			e := Evidence{Evidence: mxrules.Evidence{Effect: mxrules.EffectSlow, RetryAfter: 5 * time.Minute, Text: "RCPT: 451 4.7.500 busy", Tag: "busy", Code: 451}}
			return answer{after: 100 * time.Millisecond, evidence: e, again: 5 * time.Minute}
		}
		return answer{after: 100 * time.Millisecond}
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "t1.example"}, 40)
	w.add(Run{ID: 2, Delivery: 1, Domain: "t2.example"}, 40)
	w.runFor(4 * time.Minute)
	if one, two := w.sentTo("t1.example"), w.sentTo("t2.example"); one > 4 || two != 40 {
		t.Errorf("%d messages went to the tenant that asked to wait, %d of 40 to the other", one, two)
	}
	w.finish(time.Hour)
	w.checkDone()
}

func TestTenantsAreForgotten(t *testing.T) {
	w := office(t, 1, true, "a")
	w.blockedAt("RCPT: 550 5.7.1 S3140", "t1.example")
	w.add(Run{ID: 1, Delivery: 1, Domain: "t1.example"}, 3)
	w.runFor(time.Minute)
	w.reply = func(Action, *letter) answer { return answer{after: time.Second} }
	w.finish(24 * time.Hour)
	w.c.DropRun(w.now, 1)
	w.act()
	w.runFor(24 * time.Hour)
	if len(w.c.apart)+len(w.c.groups)+len(w.c.tenantTimers.items) != 0 {
		t.Errorf("a day later %d tenants, %d groups and %d timers are left", len(w.c.apart), len(w.c.groups), len(w.c.tenantTimers.items))
	}
}

func TestParentOf(t *testing.T) {
	for domain, want := range map[string]string{
		"example": "example", "t1.example": "t1.example", "a.b.t1.example": "t1.example",
		"a.co.uk": "a.co.uk", "x.a.co.uk": "a.co.uk", "x.museum.de": "museum.de", "": "",
	} {
		if got := parentOf(domain); got != want {
			t.Errorf("%q: %q, want %q", domain, got, want)
		}
	}
}
