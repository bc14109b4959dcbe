package mxrules

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A warm-up builds a new source's reputation: each UTC day it may send so many
// messages, more from stage to stage, released evenly over the sending hours. A
// WarmUp holds one source to its plan's caps and decides when it goes on.
//
// The cap of a day is hard: a message is charged before its MAIL is written, the
// charge is durable through State, and what was charged one day and may still be
// sent on the next is charged to both.

// WarmUpPlan says how much a source may send, stage by stage.
type WarmUpPlan struct {
	// Caps are messages a UTC day, by stage; each from 1 to MaxWarmUpCap.
	Caps []int64
	// Hours are those of the UTC day in which mail is released.
	Hours DayHours
	// Providers bound what goes to single mailbox providers, beside the whole.
	Providers []ProviderPlan
}

// ProviderPlan is a plan's part for one mailbox provider: a share of each stage's
// cap, or caps of its own.
type ProviderPlan struct {
	Provider string
	// Share is above 0 and at most 1; it counts where Caps is empty.
	Share float64
	// Caps are messages a UTC day, by stage; the last holds for the stages behind it.
	Caps []int64
}

// Bounds of a plan.
const (
	// MaxWarmUpCap is the largest cap: one message in 86.4 microseconds.
	MaxWarmUpCap = 1_000_000_000
	// MaxWarmUpStages is the most stages.
	MaxWarmUpStages = 1000
	// MaxWarmUpProviders is the most providers that are counted.
	MaxWarmUpProviders = 64
)

// defaultCaps double at first and grow by a quarter to a half later: the table that
// SparkPost and Momentum warm addresses up by.
var defaultCaps = [...]int64{
	200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 50_000, 75_000, 100_000, 150_000, 200_000, 250_000, 325_000,
	400_000, 500_000, 600_000, 750_000, 1_000_000, 1_250_000, 1_750_000, 2_000_000, 3_000_000, 4_250_000, 5_000_000,
	6_000_000, 7_500_000, 10_000_000,
}

// DefaultWarmUpPlan is the plan of 29 stages from 200 to 10 million messages a day,
// at any hour and for all providers together.
func DefaultWarmUpPlan() *WarmUpPlan {
	return &WarmUpPlan{Caps: slices.Clone(defaultCaps[:])}
}

// Check reports what is wrong with a plan.
func (p *WarmUpPlan) Check() error {
	if len(p.Caps) == 0 || len(p.Caps) > MaxWarmUpStages {
		return fmt.Errorf("caps: %d stages; give 1 to %d", len(p.Caps), MaxWarmUpStages)
	}
	if err := errors.Join(checkCaps("caps", p.Caps), p.Hours.Check()); err != nil {
		return err
	}
	if len(p.Providers) > MaxWarmUpProviders {
		return fmt.Errorf("providers: %d of them; give at most %d", len(p.Providers), MaxWarmUpProviders)
	}
	seen := map[string]bool{}
	for i := range p.Providers {
		one := &p.Providers[i]
		switch {
		case one.Provider == "" || seen[one.Provider]:
			return fmt.Errorf("providers: %q is empty or given twice", one.Provider)
		case len(one.Caps) == 0 && !(one.Share > 0 && one.Share <= 1):
			return fmt.Errorf("providers: %s: a share of %v; give one above 0 and at most 1, or a list of caps", one.Provider, one.Share)
		case len(one.Caps) > MaxWarmUpStages:
			return fmt.Errorf("providers: %s: %d stages; give at most %d", one.Provider, len(one.Caps), MaxWarmUpStages)
		}
		seen[one.Provider] = true
		if err := checkCaps("providers: "+one.Provider, one.Caps); err != nil {
			return err
		}
	}
	return nil
}

func checkCaps(what string, caps []int64) error {
	for i, n := range caps {
		if n < 1 || n > MaxWarmUpCap {
			return fmt.Errorf("%s: stage %d: %d messages a day; use 1 to %d", what, i+1, n, int64(MaxWarmUpCap))
		}
	}
	return nil
}

// Cap is how many messages a UTC day a stage allows; 0 behind the last, where
// nothing is limited.
func (p *WarmUpPlan) Cap(stage int) int64 {
	if stage > len(p.Caps) {
		return 0
	}
	return p.Caps[max(stage, 1)-1]
}

// ProviderCap is the same for one provider; 0 where the plan says nothing of it.
func (p *WarmUpPlan) ProviderCap(stage int, provider string) int64 {
	whole := p.Cap(stage)
	for i := range p.Providers {
		one := &p.Providers[i]
		if one.Provider != provider || whole == 0 {
			continue
		}
		if n := len(one.Caps); n > 0 {
			return min(whole, one.Caps[min(max(stage, 1), n)-1])
		}
		return max(1, int64(float64(whole)*one.Share))
	}
	return 0
}

// HeldBy is the first stage, from 1, at which a provider may have less than 10 % of the
// cap: mail that goes to it alone, or nearly so, uses that up without ever making a day
// full, and the warm-up stays where it is. 0 for none.
func (p *WarmUpPlan) HeldBy(provider string) int {
	for stage := 1; stage <= len(p.Caps); stage++ {
		if most := p.ProviderCap(stage, provider); most > 0 && float64(most) < leastReached*float64(p.Cap(stage)) {
			return stage
		}
	}
	return 0
}

// DayHours are hours of the UTC day, from From up to To; From above To goes over
// midnight. The zero DayHours are all hours.
type DayHours struct{ From, To int }

const (
	hour = int64(time.Hour)
	day  = 24 * hour
)

// Check reports hours that are none of a day.
func (h DayHours) Check() error {
	if h.From < 0 || h.From > 23 || h.To < 0 || h.To > 24 || h.From == h.To && h.From != 0 {
		return fmt.Errorf("hours: %s; use two hours of the day such as 08-20", h)
	}
	return nil
}

// String is a form such as "08-20".
func (h DayHours) String() string {
	h = h.whole()
	return fmt.Sprintf("%02d-%02d", h.From, h.To)
}

// ParseDayHours reads the form of String, in UTC: "08-20", "22-06", "00-24".
func ParseDayHours(s string) (DayHours, error) {
	from, to, ok := strings.Cut(s, "-")
	var h DayHours
	var err1, err2 error
	h.From, err1 = hourOf(from)
	h.To, err2 = hourOf(to)
	if !ok || err1 != nil || err2 != nil || h.Check() != nil || h == (DayHours{}) {
		return DayHours{}, fmt.Errorf(`%.40q are no hours of a UTC day; write for example "08-20", or "00-24" for all`, s)
	}
	if h.From == 0 && h.To == 24 {
		return DayHours{}, nil
	}
	return h, nil
}

func hourOf(s string) (int, error) {
	if len(s) != 2 || s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9' {
		return 0, errors.New("no hour")
	}
	return int(s[0]-'0')*10 + int(s[1]-'0'), nil
}

func (h DayHours) whole() DayHours {
	if h == (DayHours{}) {
		return DayHours{0, 24}
	}
	return h
}

// spans are the open spans of a day, in order; the second may be empty.
func (h DayHours) spans() [2][2]int64 {
	h = h.whole()
	from, to := int64(h.From)*hour, int64(h.To)*hour
	if from < to {
		return [2][2]int64{{from, to}, {day, day}}
	}
	return [2][2]int64{{0, to}, {from, day}}
}

// length is how long a day is open.
func (h DayHours) length() int64 { return h.passed(day) }

// passed is how much of the open time has passed at a time of the day.
func (h DayHours) passed(at int64) int64 {
	sum := int64(0)
	for _, s := range h.spans() {
		sum += max(0, min(at, s[1])-s[0])
	}
	return sum
}

// opens is the first time of the day, from at on, that is open and by which so much
// of the open time has passed; false when that does not come today.
func (h DayHours) opens(at, passed int64) (int64, bool) {
	before := int64(0)
	for _, s := range h.spans() {
		t := max(at, s[0], s[0]+passed-before)
		if t < s[1] {
			return t, true
		}
		before += s[1] - s[0]
	}
	return 0, false
}

// Sign is what the end of a message's attempt says of its source's reputation.
type Sign uint8

const (
	// SignNone says nothing of it: greylisting, a full mailbox, a line that broke.
	SignNone Sign = iota
	// SignDelivered: accepted.
	SignDelivered
	// SignDeferred: put off for a reason that is no mailbox's own.
	SignDeferred
	// SignBounced: the recipient does not exist.
	SignBounced
	// SignBlocked: refused for the source's reputation (bounce codes 50 and 51).
	SignBlocked
	// SignUnsent: MAIL was never written; the charge is given back.
	SignUnsent
)

// How signs are judged, of one day's attempts. Below the first figure a source may go
// on; above it, it holds; above the second it steps back at once. A share of few
// messages says little, so that a number must be reached, too.
const (
	// Deferrals above 10 % of the attempts hold: what is healthy for soft failures.
	holdDeferred = 0.10
	// Unknown users: 3 % and 10 % are Momentum's hourly sweep; more than a few come
	// of an old list, which no new source survives.
	holdBounced, backBounced   = 0.03, 0.10
	leastBounced, worstBounced = 3, 10
	// Blocks: the receiver says that the source is unwanted. One may be an accident.
	holdBlocked, backBlocked   = 0.01, 0.05
	leastBlocked, worstBlocked = 2, 5
	// Complaints, of what was delivered that day or the day before, whichever is
	// more, since they come late: 0.1 % is healthy, 0.3 % what Gmail and Yahoo forbid.
	holdComplaints, backComplaints   = 0.001, 0.003
	leastComplaints, worstComplaints = 2, 3
)

const (
	// advanceShare of a stage's cap must be exceeded by a day's deliveries.
	advanceShare = 0.90
	// leastReached is the part of a stage's cap that providers must have had for a day to
	// be full because their own caps were used up.
	leastReached = 0.10
	// maxStalled is after how many days in a row that brought too little mail to get on
	// a warm-up ends: the source sends what it will ever send.
	maxStalled = 10
	// idleStep is how many days without mail cost one stage: reputations fade.
	idleStep = 30
	// releaseWindow is how much unused release adds up: five minutes' worth.
	releaseWindow = 5 * int64(time.Minute)
	// catchUp is how much faster than evenly a day's rest is released after a late
	// start or a rest, so that it does not lose the whole day.
	catchUp = 2
	// maxAhead is by how many days the state may be ahead of the clock for the clock to
	// be waited for, with nothing released. Farther ahead it had been set wrong: nothing
	// more is released on the day that it says now, and the days behind it count anew.
	maxAhead = 2
)

// dayOf is the number of the UTC day.
func dayOf(t time.Time) int64 { return floorDiv(t.UnixNano(), day) }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// dayStart is when a UTC day begins.
func dayStart(n int64) time.Time { return time.Unix(0, n*day).UTC() }

// WarmUp keeps one source to its plan. It has one owner and takes the time from its
// caller; it reads no clock and draws no random number. The zero value is not usable.
type WarmUp struct {
	plan  *WarmUpPlan
	state WarmUpState

	whole     release
	providers []release // by the place in state.Providers
	changes   []WarmUpChange
}

// release meters the cap of one day. The time of an open day starts at 0 and stands
// still while it is closed. It is a generic cell rate algorithm whose rate follows
// from what is left of the day.
type release struct{ tat int64 }

// ChangeKind says what a WarmUpChange is.
type ChangeKind uint8

// What a warm-up may do.
const (
	WarmUpAdvanced ChangeKind = iota + 1
	WarmUpHeld
	WarmUpSteppedBack
	WarmUpFinished
	WarmUpSwitchedOff
	WarmUpSet
)

// WarmUpChange is a step, or the want of one, for the operator.
type WarmUpChange struct {
	Kind ChangeKind
	// Text says what and why.
	Text string
}

// NewWarmUp makes the warm-up of a source that begins at a stage, from 1. The plan
// must be sound, and is not changed.
func NewWarmUp(plan *WarmUpPlan, stage int) *WarmUp {
	return &WarmUp{plan: plan, state: WarmUpState{Stage: max(stage, 1)}}
}

// Plan is the plan in force.
func (w *WarmUp) Plan() *WarmUpPlan { return w.plan }

// State is what has to be kept with every claim. It shares nothing with the warm-up.
func (w *WarmUp) State() WarmUpState {
	s := w.state
	s.Providers = slices.Clone(s.Providers)
	return s
}

// Restore goes on from the state of the last claim that is durable. Messages claimed
// then may have been sent since, so that they stay charged; nothing is released for
// the time in between.
func (w *WarmUp) Restore(now time.Time, s WarmUpState) {
	s.Providers = slices.Clone(s.Providers[:min(len(s.Providers), MaxWarmUpProviders)])
	s.Stage = max(s.Stage, 1)
	w.state, w.providers = s, make([]release, len(s.Providers))
	w.roll(now)
	w.state.Pending = 0
	for i := range w.state.Providers {
		w.state.Providers[i].Pending = 0
	}
	w.drain(now, 1)
}

// SetPlan puts another plan in force. The stage, and what was sent, stay.
func (w *WarmUp) SetPlan(now time.Time, plan *WarmUpPlan) {
	w.roll(now)
	w.plan = plan
	if w.state.Status == WarmUpDone {
		w.state.Stage = len(plan.Caps) + 1
	}
	w.finishBehindLast()
	w.drain(now, 1)
}

// Active reports whether the source is being warmed up: neither finished nor off.
func (w *WarmUp) Active() bool { return w.state.Status == WarmUpRunning }

// Room is how many messages to a provider may be claimed now; if none, when to ask
// again. The provider is empty where none is known. A source that is not being
// warmed up has room without end.
func (w *WarmUp) Room(now time.Time, provider string) (int64, time.Time) {
	w.roll(now)
	if !w.Active() {
		return math.MaxInt64, time.Time{}
	}
	if dayOf(now) < w.state.Day {
		return 0, dayStart(w.state.Day)
	}
	n, at := w.room(now, &w.whole, w.plan.Cap(w.state.Stage), w.state.Sent)
	if most := w.plan.ProviderCap(w.state.Stage, provider); most > 0 {
		i := w.providerAt(now, provider)
		if i < 0 {
			return 0, dayStart(w.state.Day + 1) // more providers than there are
		}
		m, then := w.room(now, &w.providers[i], most, w.state.Providers[i].Sent)
		if m < n || n == 0 && then.After(at) {
			n, at = m, then
		}
	}
	return n, at
}

// Left is how many messages to a provider may still be claimed today, now or later.
func (w *WarmUp) Left(now time.Time, provider string) int64 {
	w.roll(now)
	if !w.Active() {
		return math.MaxInt64
	}
	left := w.plan.Cap(w.state.Stage) - w.state.Sent
	if most := w.plan.ProviderCap(w.state.Stage, provider); most > 0 {
		sent := int64(0)
		if i := w.state.provider(provider); i >= 0 {
			sent = w.state.Providers[i].Sent
		}
		left = min(left, most-sent)
	}
	return max(left, 0)
}

// Over reports whether more is charged to today than the cap allows, so that a
// message claimed for a provider must go back: the day changed, or a stage was lost.
// The same holds while the clock is behind the day that is charged.
func (w *WarmUp) Over(now time.Time, provider string) bool {
	w.roll(now)
	s := &w.state
	if !w.Active() {
		return false
	}
	if dayOf(now) < s.Day || s.Sent > w.plan.Cap(s.Stage) {
		return true
	}
	most, i := w.plan.ProviderCap(s.Stage, provider), s.provider(provider)
	return most > 0 && i >= 0 && s.Providers[i].Sent > most
}

// ReleasedWithin is how many messages the whole's release lets go within a time, by
// the even pace; at least 1.
func (w *WarmUp) ReleasedWithin(d time.Duration) int64 {
	return max(1, int64(d)/w.interval(w.plan.Cap(w.state.Stage)))
}

// room asks one meter.
func (w *WarmUp) room(now time.Time, r *release, most, sent int64) (int64, time.Time) {
	if sent >= most {
		return 0, w.nextDay()
	}
	at := now.UnixNano() - w.state.Day*day
	base := w.interval(most)
	slack := w.slack(most)
	passed := w.plan.Hours.passed(at)
	r.tat = min(r.tat, passed+slack+base) // the clock may have been set back
	ready := r.tat - slack
	then, ok := w.plan.Hours.opens(at, ready)
	switch {
	case !ok:
		return 0, w.nextDay()
	case then > at:
		return 0, time.Unix(0, w.state.Day*day+then)
	}
	return min(1+(passed-max(ready, passed-slack))/base, most-sent), time.Time{}
}

// nextDay is when the next day's first message may go.
func (w *WarmUp) nextDay() time.Time {
	opens, _ := w.plan.Hours.opens(0, 0)
	return dayStart(w.state.Day + 1).Add(time.Duration(opens))
}

// interval is the time between two messages of a cap, evenly.
func (w *WarmUp) interval(most int64) int64 { return max(1, w.plan.Hours.length()/max(most, 1)) }

// slack is what a burst may be ahead: releaseWindow's worth also when it is taken at
// the pace of catching up, at least one message.
func (w *WarmUp) slack(most int64) int64 {
	base := w.interval(most)
	return max(0, releaseWindow/catchUp/base-1) * base
}

// take charges one message to a meter.
func (w *WarmUp) take(now time.Time, r *release, most, sent int64) {
	if most == 0 {
		return
	}
	passed := w.plan.Hours.passed(min(max(now.UnixNano()-w.state.Day*day, 0), day))
	base := w.interval(most)
	step := base
	if left := most - sent; left > 0 {
		step = min(max((w.plan.Hours.length()-passed)/left, base/catchUp), base)
	}
	r.tat = max(r.tat, passed) + step
}

// drain empties the meters: the next message goes after so many intervals.
func (w *WarmUp) drain(now time.Time, intervals int64) {
	passed := w.plan.Hours.passed(min(max(now.UnixNano()-w.state.Day*day, 0), day))
	empty := func(most int64) int64 {
		if most == 0 {
			return 0
		}
		return passed + w.slack(most) + intervals*w.interval(most)
	}
	w.whole.tat = empty(w.plan.Cap(w.state.Stage))
	for i := range w.providers {
		w.providers[i].tat = empty(w.plan.ProviderCap(w.state.Stage, w.state.Providers[i].Provider))
	}
}

// Claimed charges a message to today; write State with the claim.
func (w *WarmUp) Claimed(now time.Time, provider string) {
	w.roll(now)
	s := &w.state
	w.take(now, &w.whole, w.plan.Cap(s.Stage), s.Sent)
	s.Sent++
	s.Pending++
	s.LastSent, s.Idle = s.Day, 0
	if i := w.providerAt(now, provider); i >= 0 {
		p := &s.Providers[i]
		w.take(now, &w.providers[i], w.plan.ProviderCap(s.Stage, provider), p.Sent)
		p.Sent++
		p.Pending++
	}
}

// providerAt finds or makes the count of a provider; -1 for none.
func (w *WarmUp) providerAt(now time.Time, provider string) int {
	if provider == "" {
		return -1
	}
	i := w.state.provider(provider)
	if i >= 0 || len(w.state.Providers) >= MaxWarmUpProviders {
		return i
	}
	w.state.Providers = append(w.state.Providers, ProviderSent{Provider: provider})
	w.providers = append(w.providers, release{})
	if most := w.plan.ProviderCap(w.state.Stage, provider); most > 0 {
		passed := w.plan.Hours.passed(min(max(now.UnixNano()-w.state.Day*day, 0), day))
		w.providers[len(w.providers)-1].tat = passed + w.slack(most)
	}
	return len(w.providers) - 1
}

// Ended reports that a claimed message's attempt ended, or with SignUnsent that there
// was none.
func (w *WarmUp) Ended(now time.Time, provider string, sign Sign) {
	w.roll(now)
	back := int64(0)
	if sign == SignUnsent {
		back = 1
	}
	s := &w.state
	s.Pending, s.Sent = max(s.Pending-1, 0), max(s.Sent-back, 0)
	if i := s.provider(provider); i >= 0 {
		p := &s.Providers[i]
		p.Pending, p.Sent = max(p.Pending-1, 0), max(p.Sent-back, 0)
	}
	w.note(now, sign)
}

// Noted reports a sign that no claimed message brought, such as a connection that
// was refused with a block.
func (w *WarmUp) Noted(now time.Time, sign Sign) {
	w.roll(now)
	w.note(now, sign)
}

func (w *WarmUp) note(now time.Time, sign Sign) {
	s := &w.state
	switch sign {
	case SignDelivered:
		s.Delivered++
		return
	case SignDeferred:
		s.Deferred++
		return
	case SignBounced:
		s.Bounced++
	case SignBlocked:
		s.Blocked++
	default:
		return
	}
	w.judgeAtOnce(now)
}

// Complained reports a complaint about a message that the source had delivered.
func (w *WarmUp) Complained(now time.Time) {
	w.roll(now)
	w.state.Complaints++
	w.judgeAtOnce(now)
}

// judgeAtOnce steps back, once a day, as soon as the signs are bad enough.
func (w *WarmUp) judgeAtOnce(now time.Time) {
	if !w.Active() || w.state.SteppedBack {
		return
	}
	if why := w.state.reasonToStepBack(); why != "" {
		w.StepBack(now, why)
	}
}

// StepBack takes a source that is being warmed up one stage back, at once; at the
// first stage it only holds. The reason is shown.
func (w *WarmUp) StepBack(now time.Time, why string) {
	w.roll(now)
	if !w.Active() {
		return
	}
	s := &w.state
	s.SteppedBack, s.Stalled = true, 0
	if s.Stage == 1 {
		w.held("held at the first stage: " + why)
		return
	}
	s.Stage--
	s.Since = now.UnixNano()
	w.drain(now, 1)
	w.changed(WarmUpSteppedBack, fmt.Sprintf("stepped back to stage %d of %d, %d messages a day: %s", s.Stage, len(w.plan.Caps), w.plan.Cap(s.Stage), why))
}

func (w *WarmUp) held(text string) {
	if w.state.HeldToday {
		w.state.Cause = text
		return
	}
	w.state.HeldToday = true
	w.changed(WarmUpHeld, text)
}

func (w *WarmUp) changed(kind ChangeKind, text string) {
	w.state.Cause = text
	w.changes = append(w.changes, WarmUpChange{Kind: kind, Text: text})
}

// SetStage puts the source at a stage from now on, for one that is warm already or has
// to begin anew; behind the last it is finished. What was sent today stays sent.
func (w *WarmUp) SetStage(now time.Time, stage int) {
	w.roll(now)
	s := &w.state
	s.Stage, s.Status, s.Stalled, s.Since = max(stage, 1), WarmUpRunning, 0, now.UnixNano()
	s.SteppedBack, s.HeldToday = false, false
	s.LastSent, s.Idle = s.Day, 0
	if s.Stage > len(w.plan.Caps) {
		w.finishBehindLast()
		return
	}
	w.drain(now, 1)
	w.changed(WarmUpSet, fmt.Sprintf("set to stage %d of %d, %d messages a day", s.Stage, len(w.plan.Caps), w.plan.Cap(s.Stage)))
}

// SwitchOff ends the warm-up: the source is limited no more.
func (w *WarmUp) SwitchOff(now time.Time, why string) {
	w.roll(now)
	if w.state.Status == WarmUpOff {
		return
	}
	w.state.Status = WarmUpOff
	w.changed(WarmUpSwitchedOff, "off because "+why)
}

// Changes answers what happened since the last call.
func (w *WarmUp) Changes() []WarmUpChange {
	list := w.changes
	w.changes = nil
	return list
}

// Tick lets the day change. Next is when that has to happen at the latest.
func (w *WarmUp) Tick(now time.Time) { w.roll(now) }

// Next is when the next UTC day begins.
func (w *WarmUp) Next(now time.Time) time.Time {
	return dayStart(max(dayOf(now), w.state.Day) + 1)
}

// Cap is today's; 0 where nothing is limited.
func (w *WarmUp) Cap() int64 {
	if !w.Active() {
		return 0
	}
	return w.plan.Cap(w.state.Stage)
}
