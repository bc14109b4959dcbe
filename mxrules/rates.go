package mxrules

import (
	"math"
	"time"
)

// rateLearner finds how many events a second a receiver bears, from when it
// refuses one. It is used for messages and for connections.
//
// What it rests on: just after a refusal the receiver's bucket is empty. So what
// was accepted from one refusal to the next, by the time between them, is at most
// its rate, whatever its burst; and the rate at which it refuses is at least its
// rate. Each refusal narrows the figure known from below and from above.
//
// The level moves through phases. It grows from a slow start with each good cohort,
// until it no longer limits anything (free) or a refusal comes. Then it searches:
// well below the refusal, and up by small steps until the next one. From the second
// on it hovers just under the figure known, dips under it shortly after each refusal,
// and after some patience probes beyond, slowly at first and then faster and faster
// (the shape is CUBIC's, RFC 9438 section 4.2). Patience grows while probing gains
// nothing, and shrinks when it does. docs/governor.md says why.
type rateLearner struct {
	phase   phase
	level   float64 // events a second; 0 is no limit of ours
	known   float64 // what the receiver is thought to bear; 0 is not known
	own     float64 // share of events refused for reasons of their own
	apart   bool    // those are not charged to the limit
	search  float64 // where a search begins once fire was held for a moment
	refines bool    // the search is for a figure that is known roughly
	trust   float64 // how far known follows the upper bound when the lower one is loose
	share   float64 // of refusals among the last events while hovering
	gap     float64 // how far below known the level hovers, a share of it

	cutAt    time.Duration // events of before are answers to the level before
	sinceCut int           // accepted of those sent after the cut
	inRow    int           // cuts without an accepted event between

	epoch    time.Duration // when the bucket was known empty
	accepted int           // since
	hits     int           // refused since

	stepAt   time.Duration // of the last step of growth
	stepped  int           // accepted since, of those sent after it
	raiseAt  time.Duration // when probing begins
	patience time.Duration
	calm     time.Duration // least patience after the receiver punished refusals
	hitAt    time.Duration // of the last refusal
	losses   int           // probes in a row that found nothing
	moves    float64       // how often the limit changed by itself of late
	strikes  float64       // refusals, each fading within about a minute
	sunk     float64       // how far what is known fell by little and little, as a logarithm
	over     float64       // how far beyond what is known probes get, by bursts
	proved   bool          // what is known has risen by proof, not by trust
	guess    float64       // how far the last did that was taken for a raised limit
	settled  float64       // what was known at the end of the last calm time
	budget   float64       // refusals for each event accepted that probing may cost
	confirms int

	high, low, start float64 // bounds: high and start 0 are none

	sent ring
}

// phase is what a rateLearner is doing.
type phase uint8

const (
	phaseStart  phase = iota // doubles with each good cohort
	phaseFree                // the level limits nothing
	phaseSearch              // has met a refusal and steps up to find it again
	phaseHover               // knows what the receiver bears
)

// ring keeps the instants of the last events.
type ring struct {
	at   [ringSize]time.Duration
	n, i int
}

const ringSize = 32

func (r *ring) add(t time.Duration) {
	r.at[r.i] = t
	r.i = (r.i + 1) % ringSize
	r.n = min(r.n+1, ringSize)
}

// last is the newest; there must be one.
func (r *ring) last() time.Duration { return r.at[(r.i+ringSize-1)%ringSize] }

// rate is the mean over the events kept, up to t.
func (r *ring) rate(t time.Duration) float64 {
	if r.n < 2 {
		return 0
	}
	oldest := r.at[0]
	if r.n == ringSize {
		oldest = r.at[r.i]
	}
	if t <= oldest {
		return math.Inf(1)
	}
	return float64(r.n-1) / (t - oldest).Seconds()
}

// since is how many of the events kept came after an instant.
func (r *ring) since(t time.Duration) (n int) {
	for i := range r.n {
		if r.at[i] > t {
			n++
		}
	}
	return n
}

// lately is the mean over the last four.
func (r *ring) lately(t time.Duration) float64 {
	const few = 4
	if r.n < few {
		return 0
	}
	if from := r.at[(r.i+ringSize-few)%ringSize]; t > from {
		return few / (t - from).Seconds()
	}
	return math.Inf(1)
}

// Figures of the slow start and of the search that follows the first refusal. Rates
// are events a second.
const (
	firstRate   = 20.0  // where a slow start begins without a word from the rule
	startStep   = 1.25  // each step up from there,
	usualRates  = 200.0 // up to here: few are refused at once when a usual limit is met,
	fastStep    = 1.5   // and beyond,
	firstCohort = 3     // for so many accepted events at least
	cohortTime  = 700 * time.Millisecond

	holdFire   = time.Second // after the first refusal of all, until what is on its way is in,
	holdShare  = 0.1         // at this share of the search's first level
	searchCut  = 0.4         // of the refused rate, where the search begins
	searchStep = 1.08        // each step up from there
	searchTime = 700 * time.Millisecond
	slowStep   = 1.2 // the same below one event a second,
	slowCohort = 2   // where fewer events have to do
	slowEnough = 8
	fewEnough  = 5 // connections
	hardlyAny  = 2 // events accepted

	leastRate     = 1.0 / 300 // where the rule names none
	unlimitedRate = 1e5       // beyond, nothing is worth limiting
)

// Figures of hovering and probing.
const (
	leastGap   = 0.02 // how far below what is known the level hovers, a share of it
	mostGap    = 0.2
	dip        = 0.6 // of that level, just after a refusal, so that the bucket gets something
	dipTime    = 2 * time.Second
	probeTime  = 20 * time.Second // after which a probe has doubled the level; less with little patience,
	leastProbe = 8 * time.Second
	mostProbe  = 150 * time.Second // and more below one event a second

	firstPatience  = 20 * time.Second // before the first probe; each that finds nothing makes it longer,
	leastPatience  = 6 * time.Second  // each that finds something shorter
	steadyPatience = 45 * time.Second // at least, after two in a row that found nothing
	mostPatience   = 4 * time.Minute  // so that a limit that was raised is found within ten minutes
	slowRate       = 0.6              // below, the budget counts for more than that
	slowPatience   = 3 * time.Hour
	slowShare      = 0.8 // of it, where one refusal is much,
	slowerRate     = 0.25
	slowerShare    = 0.875 // and less below
	slowFall       = 0.95

	messageBudget = 0.009 // refusals for each message accepted that may be caused: the bar is one per cent
	dialBudget    = 0.05  // the same for connections, each of which carries many messages
	shareOf       = 500.0 // events over which the share of refusals is a mean
)

// Figures of what a refusal says.
const (
	enough     = 20  // accepted events since the last refusal make a bound
	loose      = 0.3 // bounds further apart say next to nothing
	rough      = 1.3 // times the lower bound is a rough upper one
	lowWeight  = 0.6 // of the lower of the first two bounds, in the exponent
	fineWeight = 0.3 // the same where a search went in small steps
	firstOver  = 1.3 // times what is known that the first probes may get by a burst
	mostOver   = 2.5
	usualBurst = 10   // events that a bucket may give at once,
	unlikely   = 1.25 // times as far as bursts have carried probes: the limit was raised,
	leastRaise = 0.95 // by at least this share of what it seems
	raised     = 1.25 // times what was known is much more than before
	sustained  = 0.94 // of what is known got through: it holds so far
	leastTrust = 0.04
	mostTrust  = 0.5
	slowTrust  = 0.1   // where a figure too high costs more than one too low
	mostStride = 1.3   // times what is known is as far as trust leads
	ownOf      = 100.0 // events over which the share of those refused for reasons of their own is a mean
	leastTaken = 0.2   // the least share of the others that is reckoned with
)

// Figures of receivers that hold refusals against a sender.
const (
	settledFor   = 15 * time.Second // without a refusal is a calm time
	sinking      = 0.08             // fall from calm time to calm time, as a logarithm, of a reputation that sinks
	sinkGap      = 0.06             // the gap then,
	sinkFirst    = 5 * time.Minute  // and the patience
	sinkPatience = 40 * time.Minute
	aStep        = 0.08 // more than that at once is another limit,
	aRise        = 0.04 // and so is a rise
	stillness    = 0.85 // what each calm time without either leaves of their count
	restless     = 1.2  // such changes of late: the limit moves by itself

	fewStrikes  = 2.5              // refusals within about a minute that are not to become more,
	strikeShare = 20.0             // and one more for so many events a second
	strikeTime  = 45 * time.Second // in which a refusal counts a third
	telling     = 4 * time.Second  // a rest that ended well and a shorter one that did not tell a slow rate
	leastCalm   = time.Minute      // patience after a penalty, at least
	calmCut     = 0.8              // below a refusal at a level that was good before, then
	calmStep    = 1.03             // each step of a search, then
	resumeCut   = 0.4              // of a level that may have led to a penalty
)

// bound sets the rule's limits; rates per second, 0 is none.
func (r *rateLearner) bound(high, start, low Rate) {
	r.high, r.start, r.low = high.PerSecond(), start.PerSecond(), low.PerSecond()
	if r.low == 0 {
		r.low = leastRate
	}
	if r.high > 0 {
		r.low = min(r.low, r.high)
	}
	if r.patience == 0 {
		r.level = r.startLevel()
		r.patience, r.gap, r.trust = firstPatience, leastGap+0.01, 0.4
		r.over = firstOver
		if r.budget == 0 {
			r.budget = messageBudget
		}
	}
}

// startLevel is where learning begins: the rule's word, or a slow start.
func (r *rateLearner) startLevel() float64 {
	if r.start > 0 {
		return r.start
	}
	if r.high > 0 {
		return min(firstRate, r.high)
	}
	return firstRate
}

// add notes an event that is sent. After a while in which none was, a probe begins
// anew: none was under way.
func (r *rateLearner) add(t time.Duration) {
	if r.phase == phaseHover && t > r.raiseAt && r.sent.n > 0 {
		idle := max(probeTime, time.Duration(10/max(r.known, 1e-3)*float64(time.Second)))
		if t-r.sent.last() > idle {
			r.raiseAt = t + r.patience
			r.hover(t)
		}
	}
	r.sent.add(t)
}

// rateAt is the rate at which events go at t: the level where it is what limits.
func (r *rateLearner) rateAt(t time.Duration) float64 {
	if r.level == 0 {
		return r.sent.rate(t) * r.taken()
	}
	seen := r.sent.lately(t) * r.taken()
	if seen == 0 {
		return r.level
	}
	return min(r.level, max(seen, r.level/4))
}

// took notes that an event sent at the instant given was accepted.
func (r *rateLearner) took(t, sent time.Duration) {
	r.accepted++
	r.own -= r.own / ownOf
	r.served(t, sent)
}

// passed notes an event that was refused for a reason of its own, such as a message
// to be sent again because its sender is not known yet. The limit let it pass. If it
// was not charged for it, the level counts what is accepted, and what is sent may be
// more by the share of these.
func (r *rateLearner) passed(t, sent time.Duration) {
	if !r.apart {
		r.accepted++
	}
	r.own += (1 - r.own) / ownOf
	r.served(t, sent)
}

// taken is the share of events that the limit is charged for.
func (r *rateLearner) taken() float64 {
	if !r.apart {
		return 1
	}
	return max(1-r.own, leastTaken)
}

func (r *rateLearner) served(t, sent time.Duration) {
	r.share -= r.share / shareOf
	if sent >= r.cutAt {
		r.sinceCut++
		r.inRow = 0
	}
	if sent >= r.stepAt {
		r.stepped++
	}
	r.grow(t)
}

// grow raises the level where the phase says so.
func (r *rateLearner) grow(t time.Duration) {
	switch r.phase {
	case phaseStart:
		if r.stepped >= firstCohort && t-r.stepAt >= cohortTime {
			r.step(t, r.level*r.startStep())
			if r.slack(t) || r.level >= unlimitedRate {
				r.free()
			}
		}
	case phaseSearch:
		if r.level < r.search && t-r.cutAt >= holdFire {
			r.step(t, r.search)
		}
		if t-r.cutAt < r.calm || r.careful(t) {
			return // a second refusal so soon might be the one too many
		}
		if r.stepped >= r.cohort() && t-r.stepAt >= searchTime && !r.slackBy(t, 1.5) {
			r.step(t, r.level*r.searchStep())
		}
	case phaseHover:
		r.hover(t)
	}
}

// startStep is by how much a slow start goes up: less where most receivers' limits
// are, so that few are refused at once when one is met.
func (r *rateLearner) startStep() float64 {
	if r.level < usualRates {
		return startStep
	}
	return fastStep
}

// searchStep is by how much a search goes up.
func (r *rateLearner) searchStep() float64 {
	switch {
	case r.level < 1 && !r.refines:
		return slowStep
	case r.calm > 0:
		return calmStep
	}
	return searchStep
}

// cohort is how many accepted events make a step, and enough how many an epoch
// that says something: less where each takes its time.
func (r *rateLearner) cohort() int {
	if r.level < 1 {
		return slowCohort
	}
	return firstCohort
}

func (r *rateLearner) enough(rate float64) int {
	switch {
	case rate < 1 && r.cheap():
		return fewEnough
	case rate < 1:
		return slowEnough
	}
	return enough
}

func (r *rateLearner) step(t time.Duration, level float64) {
	r.level = level
	if r.high > 0 {
		r.level = min(r.level, r.high)
	}
	r.stepAt, r.stepped = t, 0
}

// slack reports whether something else limits what is sent.
func (r *rateLearner) slack(t time.Duration) bool {
	return r.high > 0 && r.level >= r.high || r.slackBy(t, 4)
}

func (r *rateLearner) slackBy(t time.Duration, by float64) bool {
	return r.sent.n == ringSize && r.sent.rate(t)*r.taken()*by < r.level
}

func (r *rateLearner) free() {
	r.phase, r.level = phaseFree, 0
}

// hover moves the level after a refusal: a dip, the plateau, the probe.
func (r *rateLearner) hover(t time.Duration) {
	at := r.known * (1 - r.gap)
	if r.sunk > sinking/2 {
		at = r.known * (1 - max(r.gap, sinkGap))
	}
	if t-r.cutAt < r.calm {
		at = r.known * calmCut
	}
	r.level = at
	if since := t - r.cutAt; since < dipTime {
		r.level = at * (dip + (1-dip)*float64(since)/float64(dipTime))
	}
	if careful := r.careful(t); t <= r.raiseAt || careful {
		if careful {
			r.raiseAt = max(r.raiseAt, t)
		}
		r.bounded()
		return
	}
	x := float64(t-r.raiseAt) / float64(r.probeTime())
	level := at * (1 + x*x*x)
	if seen := r.sent.rate(t) * r.taken(); r.sent.n == ringSize && level > 2*seen && level > r.known {
		level = max(2*seen, r.known) // nothing is learned by a limit that does not limit
		if r.slackBy(t, 4) && level > 3*r.known {
			r.free()
			return
		}
	}
	r.level = level
	r.bounded()
}

// probeTime is after what a probe has doubled the level: longer where the events
// of a few seconds say nothing.
func (r *rateLearner) probeTime() time.Duration {
	if r.sunk > sinking/2 {
		return 3 * probeTime
	}
	if r.known < 1 {
		return min(time.Duration(float64(probeTime)/max(r.known, 1e-3)), mostProbe)
	}
	return min(max(r.patience, leastProbe), probeTime)
}

func (r *rateLearner) bounded() {
	if r.high > 0 && r.level >= r.high {
		if r.known*(1-r.gap) < r.high {
			r.level = r.high
			return
		}
		r.free()
		return
	}
	r.level = max(r.level, r.low)
}

// refused notes a refusal of an event sent at the instant given. It answers
// whether that is a new event, and how many cuts came in a row without anything
// accepted between.
func (r *rateLearner) refused(t, sent time.Duration) (fresh bool, inRow int) {
	r.hits++
	r.strikes = r.recent(t) + 1
	r.hitAt = t
	if r.phase == phaseHover && t <= r.raiseAt {
		r.share += 1.0 / shareOf
	}
	if sent < r.cutAt+r.settling() {
		return false, r.inRow
	}
	rate := r.rateAt(t)
	if rate <= 0 || math.IsInf(rate, 1) {
		rate = max(r.level, firstRate)
	}
	r.inRow++
	r.confirms++
	r.cut(t, rate)
	r.level = max(r.level, r.low)
	if r.high > 0 {
		r.level = min(r.level, r.high)
	}
	r.cutAt, r.stepAt, r.sinceCut, r.stepped = t, t, 0, 0
	return true, r.inRow
}

// recent is how many refusals there were in about the last minute.
func (r *rateLearner) recent(t time.Duration) float64 {
	return r.strikes * math.Exp(-float64(t-r.hitAt)/float64(strikeTime))
}

// careful reports whether there were so many refusals of late that another might be
// the one too many: receivers that punish count them by the minute.
func (r *rateLearner) careful(t time.Duration) bool {
	few := fewStrikes + max(r.known, r.level)/strikeShare
	if r.cheap() && r.phase == phaseSearch {
		few++ // nothing useful is known yet
	}
	if r.moves > restless {
		few *= 2 // following the limit matters more
	}
	return r.recent(t) > few
}

// settling is how long after a cut refusals are still put down to it: until two
// events at the new level have given the receiver's bucket something.
func (r *rateLearner) settling() time.Duration {
	if r.level <= 0 || r.cutAt == 0 {
		return 0
	}
	return min(200*time.Millisecond+time.Duration(2/r.level*float64(time.Second)), 5*time.Second)
}

// next is when the level should be looked at again although nothing happens.
func (r *rateLearner) next(t time.Duration) time.Duration {
	if r.phase == phaseSearch && r.level < r.search {
		return r.cutAt + holdFire
	}
	if r.phase != phaseHover {
		return forever
	}
	if t < r.raiseAt && t-r.cutAt >= dipTime {
		return r.raiseAt
	}
	return t + 250*time.Millisecond
}

// resume goes on after a long rest: cautiously, to just under what is known. The
// receiver refused everything, so what was refused before it may count.
func (r *rateLearner) resume(t time.Duration) {
	r.cutAt, r.stepAt, r.stepped = t, t, 0
	if r.known == 0 || r.phase == phaseSearch {
		r.phase, r.known = phaseSearch, 0
		r.level = max(r.level*resumeCut, r.low)
		return
	}
	r.phase = phaseHover
	r.raiseAt = t + max(r.patience, r.calm, mostPatience)
	r.hover(t)
}

// suppose begins a search at a level that was shown to be borne.
func (r *rateLearner) suppose(t time.Duration, level float64) {
	if r.high > 0 && level >= r.high {
		return
	}
	r.phase, r.known, r.search, r.level = phaseSearch, 0, level, max(level, r.low)
	r.begin(t)
	r.cutAt, r.stepAt, r.sinceCut, r.stepped = t, t, 0, 0
}

// restart forgets what refusals told that meant something else.
func (r *rateLearner) restart(t time.Duration) {
	r.phase, r.known, r.level = phaseStart, 0, max(r.level, r.startLevel())
	r.stepAt, r.stepped = t, 0
}

// waited goes on after a short rest: if shorter ones were not enough, about one
// event in such a time is what the receiver bears.
func (r *rateLearner) waited(length time.Duration) {
	if most := 2 / length.Seconds(); length >= telling && r.level > most {
		r.level = max(most, r.low)
		r.phase = phaseSearch
		r.known = 0
	}
}

// punish remembers that refusals led to a long time of nothing but refusals:
// from now on there are to be few in any minutes.
func (r *rateLearner) punish() { r.calm = min(max(2*r.calm, leastCalm), mostPatience) }

// rateOf writes a number of events a second so that it reads well and is exact to
// a thousandth. Its burst is five milliseconds' worth.
func rateOf(perSecond float64) Rate {
	per := time.Hour
	switch {
	case perSecond >= 1000:
		per = time.Second
	case perSecond >= 100:
		per = 10 * time.Second
	case perSecond >= 15:
		per = time.Minute
	}
	return Rate{Count: max(1, int(perSecond*per.Seconds())), Per: per, Burst: int(perSecond * 0.005)}
}
