package address

import (
	"container/list"
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"slices"
	"time"
)

// The figures of Surge. An outage in a provider's user directory (Gmail's of December
// 2020 answered "550 5.1.1" for hours) shows as a jump of the unknown-user share
// against what is usual there. A bad list shows as a share that was high from the start.
const (
	// surgeDestinations bounds memory (about 300 octets each); the one longest unseen goes.
	surgeDestinations = 10_000
	// surgeWindow is the recent attempts that are looked at: as many as bits in a word.
	// 26 or more of 64 by chance, where 15 % is usual, happens in one window of a million; 8 or
	// more of 20 in one of 170.
	surgeWindow = 64
	// surgeEvidence is how many attempts before those of the window make a baseline.
	surgeEvidence = 100
	// surgeMemory is how many attempts the baseline remembers, so that it follows a list
	// that gets worse over thousands; its half-life lets it outlast a week between mailings.
	surgeMemory   = 2000
	surgeHalfLife = 14 * 24 * time.Hour
	// surgeShare and surgeTimes: on when the recent share is at least so high and so many times the baseline.
	surgeShare = 0.40
	surgeTimes = 3
	// calmShare and calmTimes: normal below the higher of that share and that many times the baseline ...
	calmShare = 0.20
	calmTimes = 2
	// calmFor: ... and off after so long of it.
	calmFor = 30 * time.Minute
	// surgeSilence ends it when nothing was attempted for so long.
	surgeSilence = 24 * time.Hour
	// surgeLongest: what lasts longer is no outage but the new normal.
	surgeLongest = 48 * time.Hour
)

// Surge notices when a destination suddenly answers for unusually many addresses that they are
// unknown, which is more often its trouble than theirs: quarantine entries made
// then are provisional. Each destination has a slow baseline of its unknown-user share and the
// last 64 attempts. It is on when, with 100 attempts or more behind the baseline, the recent share is at least 40 % and three times
// the baseline; it goes off after 30 minutes of a share that is normal again, after
// a day without attempts, or after two days as the new normal. During a surge the baseline learns nothing.
//
// What was quarantined by the attempts that made the jump was the same trouble: a
// surge that begins names them (Suspects).
//
// It is pure: answers follow from the calls alone. It keeps 10,000 destinations;
// AppendBinary and UnmarshalBinary take their baselines over a restart. Not safe for
// concurrent use; the zero value is not ready, call NewSurge.
type Surge struct {
	by     map[string]*list.Element // of *shares
	recent *list.List               // latest used first
}

// shares is what is known of one destination.
type shares struct {
	destination string
	window      uint64  // the last attempts, a set bit is an unknown user; the latest is bit 0
	filled      int     // bits of window in use
	attempts    float64 // of the baseline, decayed
	unknown     float64 // of them
	last        time.Time
	on          bool
	since       time.Time // on since
	calm        time.Time // normal since, while on; zero: not
	seen        uint64    // attempts observed
	suspects    []suspect // quarantined by attempts of the window; none while on
}

// suspect is an entry that became quarantined.
type suspect struct {
	key Key
	at  uint64 // attempts observed before it
}

// NewSurge knows no destination yet.
func NewSurge() *Surge {
	return &Surge{by: map[string]*list.Element{}, recent: list.New()}
}

// Observe takes one attempt that told something of its recipient: that it is unknown, or
// that it is not (accepted, full ...). Attempts refused for other reasons are not for
// it. Time that runs backwards counts as standing still. It reports whether a surge began.
func (s *Surge) Observe(now time.Time, destination string, unknown bool) (began bool) {
	d := s.destination(destination)
	if now.Before(d.last) {
		now = d.last
	}
	d.settle(now)
	d.fade(now)
	d.push(unknown)
	before := d.on
	d.judge(now)
	return d.on && !before
}

// Quarantined takes that an entry became quarantined, not provisionally, by the attempt observed last.
func (s *Surge) Quarantined(destination string, k Key) {
	found, ok := s.by[destination]
	if !ok {
		return
	}
	d := found.Value.(*shares)
	if d.attempts < surgeEvidence/2 || d.on {
		return // no surge can begin soon
	}
	d.dropSuspects()
	d.suspects = append(d.suspects, suspect{k, d.seen})
}

// Suspects are the entries that became quarantined by the attempts which made a surge
// begin, the oldest first; it forgets them.
func (s *Surge) Suspects(destination string) []Key {
	found, ok := s.by[destination]
	if !ok {
		return nil
	}
	d := found.Value.(*shares)
	d.dropSuspects()
	var keys []Key
	for _, x := range d.suspects {
		keys = append(keys, x.key)
	}
	d.suspects = nil
	return keys
}

// dropSuspects forgets those whose attempt left the window.
func (d *shares) dropSuspects() {
	d.suspects = slices.DeleteFunc(d.suspects, func(x suspect) bool { return d.seen-x.at >= surgeWindow })
}

// On reports whether the destination refuses unusually many addresses just now.
func (s *Surge) On(now time.Time, destination string) bool {
	found, ok := s.by[destination]
	if !ok {
		return false
	}
	d := found.Value.(*shares)
	d.settle(now)
	return d.on
}

// destination finds or makes the shares, and forgets the longest unseen beyond the bound.
func (s *Surge) destination(name string) *shares {
	if found, ok := s.by[name]; ok {
		s.recent.MoveToFront(found)
		return found.Value.(*shares)
	}
	if s.recent.Len() >= surgeDestinations {
		oldest := s.recent.Back()
		delete(s.by, oldest.Value.(*shares).destination)
		s.recent.Remove(oldest)
	}
	d := &shares{destination: name}
	s.by[name] = s.recent.PushFront(d)
	return d
}

// settle ends a surge that time has ended.
func (d *shares) settle(now time.Time) {
	switch {
	case !d.on:
	case now.Sub(d.last) >= surgeSilence:
		d.on, d.window, d.filled = false, 0, 0 // what was seen then says nothing of now
	case !d.calm.IsZero() && now.Sub(d.calm) >= calmFor:
		d.on = false
	case now.Sub(d.since) >= surgeLongest:
		d.on = false
		d.attempts, d.unknown = surgeMemory, surgeMemory*d.share()
	}
}

// fade lets the baseline forget with time.
func (d *shares) fade(now time.Time) {
	if !d.last.IsZero() && d.attempts > 0 {
		keep := math.Exp2(-float64(now.Sub(d.last)) / float64(surgeHalfLife))
		d.attempts *= keep
		d.unknown *= keep
	}
	d.last = now
}

// push puts an attempt into the window; what falls out of it joins the baseline.
func (d *shares) push(unknown bool) {
	d.seen++
	falls := d.window >> (surgeWindow - 1)
	if d.filled == surgeWindow && !d.on {
		if d.attempts >= surgeMemory {
			d.unknown *= (surgeMemory - 1) / d.attempts
			d.attempts = surgeMemory - 1
		}
		d.attempts++
		d.unknown += float64(falls)
	}
	d.window <<= 1
	if unknown {
		d.window |= 1
	}
	d.filled = min(d.filled+1, surgeWindow)
}

// judge begins a surge, and notices whether one has calmed.
func (d *shares) judge(now time.Time) {
	share, baseline := d.share(), d.baseline()
	if d.on {
		switch calm := share < max(calmShare, calmTimes*baseline); {
		case !calm:
			d.calm = time.Time{}
		case d.calm.IsZero():
			d.calm = now
		}
		return
	}
	if d.filled == surgeWindow && d.attempts >= surgeEvidence && share >= max(surgeShare, surgeTimes*baseline) {
		d.on, d.since, d.calm = true, now, time.Time{}
	}
}

// share is the unknown share of the window.
func (d *shares) share() float64 {
	return float64(bits.OnesCount64(d.window)) / float64(max(1, d.filled))
}

func (d *shares) baseline() float64 {
	if d.attempts == 0 {
		return 0
	}
	return d.unknown / d.attempts
}

// surgeKept is how many destinations AppendBinary writes, those used last.
const surgeKept = 2000

// surgeVersion is the form of AppendBinary.
const surgeVersion = 1

// AppendBinary appends what is known of the destinations used last whose baseline has
// evidence, at most 2,000. It never fails.
func (s *Surge) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, surgeVersion)
	n := 0
	for e := s.recent.Front(); e != nil && n < surgeKept; e = e.Next() {
		d := e.Value.(*shares)
		if d.attempts < surgeEvidence/2 && !d.on {
			continue
		}
		n++
		b = binary.AppendUvarint(b, uint64(len(d.destination)))
		b = append(b, d.destination...)
		b = binary.BigEndian.AppendUint64(b, d.window)
		b = append(b, byte(d.filled))
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(d.attempts))
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(d.unknown))
		for _, t := range []time.Time{d.last, d.onSince(), d.calm} {
			b = binary.BigEndian.AppendUint64(b, uint64(instant(t)))
		}
	}
	return b, nil
}

func (d *shares) onSince() time.Time {
	if d.on {
		return d.since
	}
	return time.Time{}
}

// instant is a time as a number, the zero time as 0.
func instant(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func atInstant(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(n)).UTC()
}

// errSurge is a text that AppendBinary did not write.
var errSurge = errors.New("address: stored surges have another form")

// UnmarshalBinary takes over what AppendBinary wrote; s is as from NewSurge.
func (s *Surge) UnmarshalBinary(b []byte) error {
	const fixed = 8 + 1 + 5*8
	if len(b) == 0 || b[0] != surgeVersion {
		return errSurge
	}
	for b = b[1:]; len(b) > 0; {
		n, used := binary.Uvarint(b)
		if used <= 0 || n > uint64(len(b)) || len(b)-used < int(n)+fixed {
			return errSurge
		}
		name := string(b[used : used+int(n)])
		b = b[used+int(n):]
		word := func(at int) uint64 { return binary.BigEndian.Uint64(b[at:]) }
		d := &shares{
			destination: name, window: word(0), filled: int(b[8]),
			attempts: math.Float64frombits(word(9)), unknown: math.Float64frombits(word(17)),
			last: atInstant(word(25)), since: atInstant(word(33)), calm: atInstant(word(41)),
		}
		d.on = !d.since.IsZero()
		if !d.plausible() || s.by[name] != nil || s.recent.Len() >= surgeDestinations {
			return errSurge
		}
		s.by[name] = s.recent.PushBack(d)
		b = b[fixed:]
	}
	return nil
}

func (d *shares) plausible() bool {
	return d.filled <= surgeWindow && d.attempts >= 0 && d.attempts <= surgeMemory+1 && d.unknown >= 0 && d.unknown <= d.attempts+1
}
