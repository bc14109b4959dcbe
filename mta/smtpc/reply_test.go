package smtpc

import "testing"

func TestPhaseNames(t *testing.T) {
	for p := PhaseNone; p <= PhaseQuit; p++ {
		if got, ok := ParsePhase(p.String()); !ok || got != p {
			t.Errorf("%s parses to %s, %t", p, got, ok)
		}
		if p.BeforeMAIL() != (p < PhaseMAIL) {
			t.Errorf("%s before MAIL: %t", p, p.BeforeMAIL())
		}
	}
	if _, ok := ParsePhase("helo"); ok {
		t.Error("a phase that is none was parsed")
	}
	if got := (PhaseQuit + 1).String(); got != "phase(11)" {
		t.Errorf("got %q", got)
	}
}

func TestReplyClasses(t *testing.T) {
	for code, want := range map[int][2]bool{0: {}, 199: {}, 250: {true, false}, 354: {true, false}, 421: {}, 550: {false, true}, 600: {}} {
		r := Reply{Code: code}
		if r.Positive() != want[0] || r.Permanent() != want[1] {
			t.Errorf("%d: positive %t, permanent %t", code, r.Positive(), r.Permanent())
		}
	}
}
