package dispatch

import (
	"strings"
	"testing"
	"time"

	"github.com/veredus/veredus/mxrules"
)

// blockedSource is a world with a domain whose receiver blocks the source that gets its
// mail first, for its reputation, and takes what other sources send. first is that source.
func blockedSource(t tester, pools []Pool, l mxrules.Limits) (w *world, first *string) {
	w = newWorld(t, Config{}, pools, limited(t, l))
	w.strict = false
	w.host("example.com", "example.com", "mx1.example.com")
	first = new(string)
	w.reply = func(a Action, l *letter) answer {
		source, _, _ := strings.Cut(a.Path, ">")
		if source != *first {
			return answer{after: time.Second}
		}
		e := Evidence{Evidence: mxrules.Evidence{Effect: mxrules.EffectRest, Text: "RCPT: 550 5.7.1 blocked using a list", Tag: "dnsbl", Code: 550}, Sign: mxrules.SignBlocked}
		return answer{after: 100 * time.Millisecond, evidence: e, again: 20 * time.Minute, source: source, blocked: true}
	}
	g := w.c.groupOf("example.com", "", []Host{{Name: "mx1.example.com", Preference: 10}}, "example.com")
	*first = w.c.ordered(g, w.c.pools[pools[0].Name])[0].Name
	return w, first
}

// sentBy counts messages that a source sent.
func (w *world) sentBy(source string) (n int) {
	for _, s := range w.sent {
		if strings.HasPrefix(s.path, source+">") {
			n++
		}
	}
	return n
}

func TestABlockMovesNoMail(t *testing.T) {
	w, first := blockedSource(t, onePool("a", "b"), mxrules.Limits{Connections: 2, MessageRate: perSecond(10)})
	tried := map[MsgID]bool{}
	reply := w.reply
	w.reply = func(a Action, l *letter) answer {
		blocked := strings.HasPrefix(a.Path, *first+">")
		if !blocked && tried[l.id] && *first != "" {
			t.Errorf("message %d, which was blocked, goes by %s", l.id, a.Path)
		}
		tried[l.id] = tried[l.id] || blocked
		return reply(a, l)
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 100)
	w.runFor(3 * time.Hour)
	// The other source had begun before anything was known, and ends what it has at hand.
	if others := len(w.sent) - w.sentBy(*first); others > 12 {
		t.Errorf("%d of 100 messages went by the other source", others)
	}
	if tries := w.sentBy(*first); tries > 12 {
		t.Errorf("the source that is blocked tried %d times in 3 h", tries)
	}
	if len(w.c.msgs) > 0 {
		t.Errorf("%d messages wait in memory", len(w.c.msgs))
	}
	if wait := w.c.Waiting(w.now, 1); wait.Cause != CauseRest || !strings.Contains(wait.Text, "blocked using") {
		t.Errorf("waiting: %+v", wait)
	}
	*first = "" // it is delisted
	w.finish(12 * time.Hour)
	w.checkDone()
}

func TestOtherSourcesGoOnBeyondWhatTheBlockedOneCouldCarry(t *testing.T) {
	w, first := blockedSource(t, onePool("a", "b"), mxrules.Limits{Connections: 10, MessageRate: perSecond(2)})
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 4000)
	w.runFor(14 * time.Minute) // of the first rest: 15 min, 1800 messages
	if n := w.sentBy("a") + w.sentBy("b") - w.sentBy(*first); n < 14*60*2-20 {
		t.Errorf("in 14 min the other source sent %d messages at 2/s", n)
	}
	w.runFor(time.Hour)
	if left := w.remaining; left < 1700 {
		t.Errorf("%d messages are left for the source that is blocked", left)
	}
}

func TestMailMovesWhereThePoolSaysSo(t *testing.T) {
	pools := []Pool{{Name: "main", MoveBlocked: true, Sources: []Source{{Name: "a", Weight: 1}, {Name: "b", Weight: 1}}}}
	w, first := blockedSource(t, pools, mxrules.Limits{Connections: 2, MessageRate: perSecond(2)})
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 100)
	w.finish(time.Hour)
	w.checkDone()
	if n := w.sentBy(*first); n > 4 {
		t.Errorf("the source that is blocked sent %d messages", n)
	}
}

func TestMailMovesWithinAWarmUp(t *testing.T) {
	plan := &mxrules.WarmUpPlan{Caps: []int64{50}}
	pools := []Pool{{Name: "main", MoveBlocked: true, Sources: []Source{{Name: "a", Weight: 1, WarmUp: plan}, {Name: "b", Weight: 1, WarmUp: plan}}}}
	w, first := blockedSource(t, pools, mxrules.Limits{Connections: 2})
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 400)
	w.runFor(23 * time.Hour)
	if n := len(w.sent) - w.sentBy(*first); n == 0 || n > 50 {
		t.Errorf("the other source sent %d messages; its cap is 50", n)
	}
}

func TestABlockedColdSourceOverflowsNothing(t *testing.T) {
	plan := &mxrules.WarmUpPlan{Caps: []int64{1000}}
	pools := []Pool{
		{Name: "main", Overflow: "more", Sources: []Source{{Name: "a", Weight: 1, WarmUp: plan}}},
		{Name: "more", Sources: []Source{{Name: "z", Weight: 1}}},
	}
	w, _ := blockedSource(t, pools, mxrules.Limits{Connections: 2})
	r := w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 1)
	w.runFor(time.Minute) // it is blocked
	w.grow(r, 100)
	w.runFor(6 * time.Hour)
	if n := w.sentBy("z"); n > 0 {
		t.Errorf("%d messages overflowed", n)
	}
}

func TestGreylistedMailWaitsForARestingSource(t *testing.T) {
	w := newWorld(t, Config{}, onePool("a", "b"), limited(t, mxrules.Limits{Connections: 1}))
	w.strict = false
	w.host("example.com", "example.com", "mx1.example.com")
	w.reply = func(a Action, l *letter) answer {
		source, _, _ := strings.Cut(a.Path, ">")
		switch {
		case !l.retry && w.now.Before(start.Add(10*time.Second)):
			return answer{after: time.Second, again: 5 * time.Minute, source: source}
		case w.now.Before(start.Add(4*time.Minute + 50*time.Second)):
			return answer{after: time.Second}
		case w.now.Before(start.Add(5*time.Minute + 30*time.Second)):
			e := Evidence{Evidence: mxrules.Evidence{Effect: mxrules.EffectRest, Text: "RCPT: 421 4.7.0 rest"}}
			return answer{after: time.Second, evidence: e, again: time.Minute, source: l.source}
		}
		if l.source != "" && l.source != source {
			t.Errorf("message %d was greylisted on %s and goes by %s", l.id, l.source, source)
		}
		return answer{after: time.Second}
	}
	w.add(Run{ID: 1, Delivery: 1, Domain: "example.com"}, 300)
	w.finish(6 * time.Hour)
	w.checkDone()
}
