package mxrules

import "time"

// suspicion weighs temporary refusals of messages that no rule explains, such as
// "451 try again later". Most are about the recipient or the server's moods; some
// receivers pace their senders with nothing but such words.
//
// Which it is shows when less is sent: a limit then refuses nothing, everything
// else refuses the same share. So when more than a twentieth of the last answers
// are of that kind, the path goes for a few answers at little more than half of what
// was accepted (a trial). If refusals all but stop, such words are believed to be
// pacing from then on; if not, nobody listens to them for a while.
//
// Receivers that put off every first attempt in words of their own accept nothing
// but second ones, and never pass for such a limit: what turns from taking all first
// attempts to taking none does, and needs no trial.
type suspicion struct {
	believed bool

	// The sample: what was answered since a first refusal of that kind.
	from              time.Duration
	answers, refusals int
	size              int           // of the sample, while such words are believed
	clean             int           // first attempts accepted in a row before it
	inRow             int           // first attempts accepted since the last refusal of that kind
	took              time.Duration // when something was accepted last

	// The trial; no level means none.
	level   float64
	since   time.Duration
	share   float64 // refused, before it
	needed  int
	tried   int
	against int     // refused in it
	proved  float64 // what a trial that was passed showed to be borne; 0: there was none

	deafUntil time.Duration
	deafFor   time.Duration
}

// Figures of suspicion.
const (
	suspicious   = 0.05 // of the answers of a sample refused so
	sampleSize   = 50
	longSample   = 1000  // while such words are believed, of which
	tooMany      = 0.012 // refused so are more than a limit causes that is known; twice as long each time
	longestTest  = 16000
	fewRefusals  = 3
	enoughOfThem = 8  // to cut a sample short
	abruptly     = 12 // refused in a row after so many first attempts accepted: a sample's worth
	trialShare   = 0.6
	scarceShare  = 0.4 // where few accepted ones tell how much that is
	scarce       = 4
	leastTrial   = 0.1 // messages a second
	trialDoubts  = 5.0 // refusals that a trial would see if it changed nothing
	shortTrial   = 6   // answers at least, and at most
	longTrial    = 600
	trialPasses  = 0.4 // of those refusals that it may see
	trialTime    = 10 * time.Minute
	firstDeaf    = 10 * time.Minute
	mostDeaf     = 4 * time.Hour
)

// finding is what an answer led to.
type finding uint8

const (
	foundNothing finding = iota
	foundTrial           // a trial began
	foundPacing          // believed from now on
	foundChance          // a trial showed that it is no pacing
)

// answer notes what came back for a message sent at an instant: whether it was
// refused so, and whether it was a second attempt.
func (s *suspicion) answer(t, sent time.Duration, refused, again bool) finding {
	if s.level > 0 {
		return s.try(t, sent, refused)
	}
	switch {
	case !refused:
		s.took = t
		if !again {
			s.inRow++
		}
		if s.answers == 0 {
			return foundNothing
		}
	case t < s.deafUntil:
		return foundNothing
	case s.answers == 0 && again && !s.believed:
		return foundNothing // one that nobody takes comes back for long
	case s.answers == 0:
		s.from, s.clean = t, s.inRow
	}
	if refused {
		s.refusals++
		s.inRow = 0
	}
	s.answers++
	return s.weigh(t)
}

// weigh looks at the sample.
func (s *suspicion) weigh(t time.Duration) finding {
	n, r := s.answers, s.refusals
	size, share := sampleSize, suspicious
	if s.believed {
		size, share = s.size, tooMany
	}
	switch {
	case r == n && r >= abruptly && s.clean >= sampleSize && !s.believed:
		s.believed, s.proved, s.size = true, 0, longSample
		s.forget()
		return foundPacing
	case r >= enoughOfThem && r < n && n <= sampleSize && !s.believed, n >= size:
		if r < fewRefusals || float64(r) <= share*float64(n) || r == n && t-s.took > time.Minute {
			s.forget()
			return foundNothing
		}
		s.begin(t)
		return foundTrial
	}
	return foundNothing
}

// begin starts a trial with what the sample tells.
func (s *suspicion) begin(t time.Duration) {
	accepted, span := s.answers-s.refusals, t-s.from
	if accepted == 0 {
		accepted, span = 1, t-s.took
	}
	part := trialShare
	if accepted < scarce {
		part = scarceShare
	}
	s.level = max(part*float64(accepted)/max(span.Seconds(), 1e-3), leastTrial)
	s.share = float64(s.refusals) / float64(s.answers)
	s.needed = min(max(int(trialDoubts/s.share), shortTrial), longTrial)
	s.since, s.tried, s.against = t, 0, 0
}

// try counts an answer in the trial.
func (s *suspicion) try(t, sent time.Duration, refused bool) finding {
	if sent <= s.since {
		return foundNothing
	}
	s.tried++
	if refused {
		s.against++
	}
	doubts := trialPasses * s.share
	switch {
	case s.against == s.tried && s.clean >= sampleSize: // all of a sudden nothing is taken: no chance does that
		if s.tried < abruptly {
			return foundNothing
		}
		s.believed, s.size = true, longSample
		s.level, s.proved = 0, 0
		s.forget()
		return foundPacing
	case float64(s.against) > doubts*float64(s.needed):
		s.deafFor = min(max(2*s.deafFor, firstDeaf), mostDeaf)
		s.deafUntil, s.believed, s.size = t+s.deafFor, false, 0
	case s.tried >= s.needed || t-s.since > trialTime && float64(s.against) <= doubts*float64(s.tried):
		s.size = min(max(2*s.size, longSample), longestTest)
		s.believed, s.deafFor, s.proved = true, 0, s.level
	default:
		return foundNothing
	}
	s.level = 0
	s.forget()
	if s.believed {
		return foundPacing
	}
	return foundChance
}

// forget drops the sample.
func (s *suspicion) forget() { s.answers, s.refusals = 0, 0 }

// vague reports whether a reply without an effect on its path is a temporary refusal
// that nothing explains: no greylisting, no word about a mailbox.
func (e *Evidence) vague() bool {
	if e.Effect != EffectNone || e.ReplyCode()/100 != 4 {
		return false
	}
	switch e.Tag {
	case "temp", "system_error", "soft":
		return true
	}
	return false
}
