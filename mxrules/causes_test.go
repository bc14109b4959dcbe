package mxrules

import (
	"testing"
	"time"
)

// greylisting is a receiver of which every second message is put off at RCPT, and
// which paces either when it hears MAIL or when it has the content.
func greylisting(t *testing.T, phase string) (sent, accepted, refused int) {
	to := &hidden{rate: 20, burst: 20, tokens: 20}
	p := newPath(t, Limits{Connections: 4, Governor: GovernorOn})
	p.connects(0)
	for at := time.Duration(0); at < 20*time.Minute; at += tick {
		if hold, _ := p.AllowMessage(after(at), false); hold != HoldNone {
			continue
		}
		sent++
		p.MessageSent(after(at))
		putOff := Evidence{Took: time.Millisecond, Code: 450, Tag: "greylist", Text: "rcpt: 450 4.7.1 greylisted"}
		switch late := phase != "mail"; {
		case late && sent%2 == 0:
			p.Observe(after(at), putOff)
		case !to.accepts(at):
			refused++
			p.Observe(after(at), Evidence{Effect: EffectSlow, Took: time.Millisecond, Text: phase + ": 450 4.7.1 too much mail"})
		case sent%2 == 0:
			p.Observe(after(at), putOff)
		default:
			accepted++
			p.Observe(after(at), Evidence{Took: time.Millisecond})
		}
	}
	return sent, accepted, refused
}

// A limit at MAIL counts what is put off afterwards, one at the content does not.
func TestWhereALimitIsToldSaysWhatItCounts(t *testing.T) {
	for _, c := range []struct {
		phase    string
		accepted int
	}{
		{"mail", 10 * 1200},
		{"end_of_data", 20 * 1200},
	} {
		sent, accepted, refused := greylisting(t, c.phase)
		if accepted < c.accepted*92/100 || refused > sent/100 {
			t.Errorf("%s: %d sent, %d accepted, %d refused; %d could have been accepted", c.phase, sent, accepted, refused, c.accepted)
		}
	}
}

// dial opens a connection if it may be, and answers whether it was dialled.
func (p path) dial(d time.Duration, refusal string) bool {
	if hold, _ := p.AllowConnection(after(d)); hold != HoldNone {
		return false
	}
	p.ConnectionOpened(after(d))
	if refusal == "" {
		p.Connected(after(d), time.Millisecond)
		return true
	}
	p.ConnectionFailed(after(d))
	p.Observe(after(d), Evidence{Effect: EffectFewerConnections, Connection: true, Took: time.Millisecond, Text: refusal})
	return true
}

// A host that refuses every connection for ten minutes is down: how often it may be
// called afterwards is what it was before.
func TestAnOutageIsNoRateOfConnections(t *testing.T) {
	p := newPath(t, Limits{Connections: 1, Governor: GovernorOn})
	at := time.Duration(0)
	for ; at < 10*time.Second; at += time.Second {
		if !p.dial(at, "") {
			t.Fatalf("at %v: no connection", at)
		}
		p.sends(at)
		p.Observe(after(at), Evidence{Took: time.Millisecond})
		p.ConnectionClosed(after(at))
	}
	knocks := 0
	for ; at < 10*time.Minute; at += 100 * time.Millisecond {
		if p.dial(at, "greeting: the line ended without a reply") {
			knocks++
		}
	}
	if knocks < 3 || knocks > 30 {
		t.Errorf("%d connections while it was down", knocks)
	}
	for !p.dial(at, "") {
		if at += time.Second; at > 20*time.Minute {
			t.Fatal("no connection within ten minutes of its return")
		}
	}
	if got := p.connectionRate(); !got.IsZero() {
		t.Errorf("connections at %v, before it was down at any rate", got)
	}
}

// Words of a throttle, said to connections a moment after messages were served, mean
// that they came too soon; the rate of messages stays.
func TestConnectionsThatComeTooSoonAreNoRateOfMessages(t *testing.T) {
	p := newPath(t, Limits{Connections: 2, Governor: GovernorOn})
	tokens, last := 3.0, time.Duration(0)
	dials, refused := 0, 0
	for at := time.Duration(0); at < 10*time.Minute; at += 50 * time.Millisecond {
		tokens, last = min(3, tokens+(at-last).Seconds()/4), at // 15 a minute
		if hold, _ := p.AllowConnection(after(at)); hold != HoldNone {
			continue
		}
		dials++
		p.ConnectionOpened(after(at))
		if tokens < 1 {
			refused++
			p.ConnectionFailed(after(at))
			p.Observe(after(at), Evidence{Effect: EffectRest, Connection: true, Took: time.Millisecond, Tag: "throttled", Text: "greeting: 421 4.7.0 temporarily deferred"})
			continue
		}
		tokens--
		p.Connected(after(at), time.Millisecond)
		for range 3 {
			p.sendsSoon(&at)
			p.Observe(after(at), Evidence{Took: time.Millisecond})
		}
		p.ConnectionClosed(after(at))
	}
	if served := dials - refused; served < 125 || refused > 20 {
		t.Errorf("%d connections served and %d refused, the receiver takes 150", served, refused)
	}
}

// sendsSoon sends a message as soon as it may be.
func (p path) sendsSoon(at *time.Duration) {
	for hold, until := p.AllowMessage(after(*at), false); hold != HoldNone; hold, until = p.AllowMessage(after(*at), false) {
		*at = max(until.Sub(start), *at+time.Millisecond)
	}
	p.MessageSent(after(*at))
}

// A host that served within the last day is tried every five minutes at least, one that
// never did ever less often.
func TestAHostThatServedIsMetWithinMinutes(t *testing.T) {
	for _, served := range []bool{true, false} {
		p := newPath(t, Limits{Connections: 1, Governor: GovernorOn})
		if served {
			p.dial(0, "")
			p.sends(0)
			p.Observe(after(time.Second), Evidence{Took: time.Millisecond})
			p.ConnectionClosed(after(time.Second))
		}
		at, longest := time.Minute, time.Duration(0)
		for range 10 {
			p.connects(at)
			p.Failed(after(at), "connect: connection refused")
			p.ConnectionFailed(after(at))
			_, until := p.AllowConnection(after(at))
			longest = max(longest, until.Sub(after(at)))
			at = until.Sub(start)
		}
		if want := map[bool]time.Duration{true: 5 * time.Minute, false: time.Hour}[served]; longest != want {
			t.Errorf("served before: %v; the longest wait is %v, want %v", served, longest, want)
		}
	}
}
