package mxrules

import (
	"strings"
	"testing"
	"time"
)

// restarted is a path as the process after finds it: from what a stored usage says.
func restarted(t *testing.T, p path, at time.Duration) path {
	t.Helper()
	b, err := p.Usage().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var u Usage
	if err := u.UnmarshalBinary(b); err != nil || u != p.Usage() {
		t.Fatalf("read back %+v, %v, want %+v", u, err, p.Usage())
	}
	again := path{NewGovernor(p.Limits()), t}
	again.Restore(after(at), u)
	return again
}

// A receiver that ordered a rest is not knocked at before its end because a process
// was restarted, and then by one probe; if that fails, the next rest is longer.
func TestARestSurvivesARestart(t *testing.T) {
	for _, mode := range []Mode{GovernorOn, GovernorObserve, GovernorStatic} {
		t.Run(mode.String(), func(t *testing.T) {
			p := path{NewGovernor(Limits{Governor: mode, Connections: 20}), t}
			p.ConnectionOpened(after(0))
			p.Worked(after(0))
			p.Claimed(after(0), 1)
			p.Observe(after(time.Second), Evidence{Effect: EffectRest, Text: "550 5.7.1 S3140 blocked", Code: 550})
			p.ConnectionClosed(after(time.Second))
			was := p.state(2 * time.Second)
			if was.Hold != HoldRest || was.Rests != 1 {
				t.Fatalf("no rest: %+v", was)
			}

			again := restarted(t, p, time.Minute)
			s := again.state(time.Minute)
			if s.Hold != HoldRest || !s.Until.Equal(was.Until) || !s.Since.Equal(was.Since) || s.Trouble != "550 5.7.1 S3140 blocked" {
				t.Fatalf("after a restart %+v, want the rest until %v by the reply", s, was.Until)
			}
			end := was.Until.Sub(after(0))
			if hold, _ := again.AllowConnection(was.Until); hold != HoldNone {
				t.Fatalf("held by %v at the rest's end", hold)
			}
			again.ConnectionOpened(was.Until)
			if hold, _ := again.AllowConnection(was.Until); hold != HoldRest {
				t.Errorf("a second connection is %v, want one probe", hold)
			}
			again.Worked(was.Until)
			again.MessageSent(was.Until)
			again.Observe(was.Until, Evidence{Effect: EffectRest, Text: "550 5.7.1 S3140 blocked", Code: 550})
			if s := again.state(end); s.Rests != 2 || s.Until.Sub(was.Until) != 2*was.Until.Sub(was.Since) {
				t.Errorf("the next rest lasts %v, want twice %v", s.Until.Sub(was.Until), was.Until.Sub(was.Since))
			}
		})
	}
}

func TestANamedWaitSurvivesARestart(t *testing.T) {
	p := path{NewGovernor(Limits{Governor: GovernorOn, Connections: 20}), t}
	p.ConnectionOpened(after(0))
	p.Worked(after(0))
	p.Claimed(after(0), 1)
	p.Observe(after(time.Second), Evidence{Effect: EffectSlow, RetryAfter: 3 * time.Minute, Text: "451 try again in 3 minutes", Code: 451})
	again := restarted(t, p, 30*time.Second)
	if s := again.state(30 * time.Second); s.Hold != HoldRest || s.Until.Sub(after(0)) < 3*time.Minute {
		t.Errorf("after a restart %+v, want the wait that the reply named", s)
	}
	if hold, _ := again.AllowMessage(after(4*time.Minute), false); hold != HoldNone {
		t.Errorf("held by %v behind the wait", hold)
	}
}

func TestWhatIsOverOrMakesNoSenseHoldsNothing(t *testing.T) {
	p := path{NewGovernor(Limits{Governor: GovernorOn}), t}
	p.Claimed(after(0), 1)
	if h := p.Usage().Learned.Held; h != (Held{}) {
		t.Errorf("a path at which nothing happened keeps %+v", h)
	}
	// A clock that was set back: no rest lasts longer than the longest.
	far := Usage{Learned: Memory{Held: Held{Until: latest, EaseAt: latest, Level: 250, Probing: true}}}
	p.Restore(after(0), far)
	if s := p.state(0); s.Until.Sub(after(0)) > maxReactionRest {
		t.Errorf("rests until %v", s.Until)
	}
	long := Held{Until: 1, Level: 1, Text: strings.Repeat("é", maxTrouble)}
	var read Held
	if err := read.parse(long.append(nil)); err != nil || len(read.Text) > maxTrouble || len(read.Text) < maxTrouble-1 {
		t.Errorf("a text of %d octets is read as %d: %v", len(long.Text), len(read.Text), err)
	}
	for _, b := range [][]byte{nil, make([]byte, heldSize-1), make([]byte, heldSize+1), append(long.append(nil), 0)} {
		if err := read.parse(b); err == nil {
			t.Errorf("%d octets are read", len(b))
		}
	}
}
