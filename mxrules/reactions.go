package mxrules

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Do is what a Reaction does.
type Do uint8

const (
	// DoNothing takes the reply for one that says nothing about the path: it is the
	// message's or the delivery's own trouble.
	DoNothing Do = iota
	// DoSlow, DoFewerConnections, DoFewerMessages and DoRest have that effect on the path.
	DoSlow
	DoFewerConnections
	DoFewerMessages
	DoRest
	// DoStepBack takes the warm-up of the source one stage back, once a day; what the
	// reply means for the path it means as well.
	DoStepBack
	// DoHoldDelivery pauses the delivery whose mail is refused so, when only that is to
	// blame, and DoRetrySoon tries its message again within minutes, from the same source.
	// To the path the reply says nothing.
	DoHoldDelivery
	DoRetrySoon
)

var doNames = [...]string{"nothing", "slow", "fewer_connections", "fewer_messages", "rest", "step_back", "hold_delivery", "retry_soon"}

// String is the name in rule files.
func (d Do) String() string {
	if int(d) < len(doNames) {
		return doNames[d]
	}
	return fmt.Sprintf("do(%d)", uint8(d))
}

// ParseDo reads nothing, slow, fewer_connections, fewer_messages, rest, step_back,
// hold_delivery or retry_soon.
func ParseDo(s string) (Do, error) {
	for i, name := range doNames {
		if s == name {
			return Do(i), nil
		}
	}
	return 0, fmt.Errorf("%.40q is not what a reaction can do; use %s", s, strings.Join(doNames[:], ", "))
}

func (d Do) effect() Effect {
	return [...]Effect{EffectNone, EffectSlow, EffectFewerConnections, EffectFewerMessages, EffectRest}[d]
}

// OfMessage reports whether this is about a message or its delivery, and not about the
// path: then it also follows replies that say nothing about the path.
func (d Do) OfMessage() bool { return d == DoHoldDelivery || d == DoRetrySoon }

// StepsBack reports, once, whether a reaction to the last reply wants the warm-up of
// the source to go a stage back.
func (g *Governor) StepsBack() bool {
	asked := g.stepsBack
	g.stepsBack = false
	return asked
}

// Reaction is what an operator wants done at some replies: at those that already speak
// of the path, or, where it holds the delivery or retries soon, at any that refuses a
// message. It cannot make path trouble of a reply that is none, nor a temporary failure
// of a final one: only qualification rules say what a reply means.
type Reaction struct {
	// Tag is the qualification's word for the reply, such as "rate_limit"; Text is a
	// part of the reply, in any case of letters. Those that are given must fit; at
	// least one must be.
	Tag, Text string
	// Count and Within are the trigger: so many within so long. A Count of 0 or 1
	// is the first.
	Count  int
	Within time.Duration
	// Do is what follows, For how long a rest lasts; 0 is as long as the governor thinks.
	Do  Do
	For time.Duration
}

// Bounds of reactions.
const (
	maxReactions     = 64
	maxTriggerCount  = 1000
	maxTriggerWithin = 24 * time.Hour
	maxReactionRest  = 7 * 24 * time.Hour
	maxReactionText  = 200
)

// Check names what makes no sense.
func (r *Reaction) Check() error {
	switch {
	case r.Tag == "" && r.Text == "":
		return fmt.Errorf("a reaction names no reply; give a tag or a text")
	case len(r.Tag) > maxReactionText || len(r.Text) > maxReactionText:
		return fmt.Errorf("tag or text of a reaction is longer than %d bytes", maxReactionText)
	case strings.ContainsAny(r.Tag+r.Text, "\"\\\r\n\x00"):
		return fmt.Errorf("tag or text of a reaction has a quote, backslash or line end; leave it out, a part of the text is enough")
	case r.Count < 0 || r.Count > maxTriggerCount:
		return fmt.Errorf("trigger: %d replies; use 1 to %d", r.Count, maxTriggerCount)
	case r.Count > 1 && (r.Within < time.Second || r.Within > maxTriggerWithin):
		return fmt.Errorf("trigger: within %v; use 1s to %v", r.Within, maxTriggerWithin)
	case r.Do > DoRetrySoon:
		return fmt.Errorf("what to do, %d, is not known", r.Do)
	case r.Count > 1 && r.Do == DoRetrySoon:
		return fmt.Errorf("trigger: retry_soon is about each message by itself; leave the trigger out, or make it first")
	case r.For != 0 && r.Do != DoRest:
		return fmt.Errorf("for: only a rest lasts; leave it out with do: %v", r.Do)
	case r.For < 0 || r.For > maxReactionRest:
		return fmt.Errorf("for: %v is out of range; use up to %v", r.For, maxReactionRest)
	}
	return nil
}

// String is the reaction as rule files write it.
func (r *Reaction) String() string {
	var parts []string
	if r.Tag != "" {
		parts = append(parts, `tag: "`+r.Tag+`"`)
	}
	if r.Text != "" {
		parts = append(parts, `text: "`+r.Text+`"`)
	}
	parts = append(parts, "trigger: "+r.trigger(), "do: "+r.Do.String())
	if r.For > 0 {
		parts = append(parts, "for: "+durationText(r.For))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func (r *Reaction) trigger() string {
	if r.Count <= 1 {
		return "first"
	}
	return fmt.Sprintf("%d in %s", r.Count, durationText(r.Within))
}

// fits reports whether a reply is one that the reaction is about.
func (r *Reaction) fits(e *Evidence) bool {
	return (r.Tag == "" || r.Tag == e.Tag) && (r.Text == "" || contains(e.Text, r.Text))
}

// contains looks for part in s without regard to the case of ASCII letters. It
// does not allocate.
func contains(s, part string) bool {
	for i := 0; i+len(part) <= len(s); i++ {
		if strings.EqualFold(s[i:i+len(part)], part) {
			return true
		}
	}
	return false
}

// Reactions are a rule's, in order: the first that fits a reply decides. They do
// not change. A nil Reactions has none.
type Reactions struct{ list []Reaction }

// NewReactions copies a list; it fails if one makes no sense or there are too many.
func NewReactions(list []Reaction) (*Reactions, error) {
	r := &Reactions{list: slices.Clone(list)}
	return r, r.Check()
}

// All is a copy of the list.
func (r *Reactions) All() []Reaction {
	if r == nil {
		return nil
	}
	return slices.Clone(r.list)
}

// Equal reports whether two say the same.
func (r *Reactions) Equal(o *Reactions) bool { return slices.Equal(r.All(), o.All()) }

// Check names the first reaction that makes no sense.
func (r *Reactions) Check() error {
	if r == nil {
		return nil
	}
	if len(r.list) > maxReactions {
		return fmt.Errorf("%d reactions; use at most %d", len(r.list), maxReactions)
	}
	for i := range r.list {
		if err := r.list[i].Check(); err != nil {
			return fmt.Errorf("reaction %d: %w", i+1, err)
		}
	}
	return nil
}

// String is the list as rule files write it.
func (r *Reactions) String() string {
	if r == nil || len(r.list) == 0 {
		return "[]"
	}
	parts := make([]string, len(r.list))
	for i := range r.list {
		parts[i] = r.list[i].String()
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// triggers remember when the replies that a path's reactions wait for came.
type triggers struct {
	of   *Reactions
	hits [][]int64 // the last Count instants of each, as rings
	next []int
}

// watch starts anew with a rule's reactions.
func (g *triggers) watch(of *Reactions) {
	if of == g.of {
		return
	}
	*g = triggers{of: of}
	if of == nil {
		return
	}
	g.hits, g.next = make([][]int64, len(of.list)), make([]int, len(of.list))
	for i := range of.list {
		if n := of.list[i].Count; n > 1 {
			g.hits[i] = slices.Repeat([]int64{-never}, n)
		}
	}
}

// fired finds the first reaction that a reply fits; due says that its trigger is met.
func (g *triggers) fired(t int64, e *Evidence) (r *Reaction, due bool) {
	if g.of == nil {
		return nil, false
	}
	for i := range g.of.list {
		r := &g.of.list[i]
		if !r.fits(e) {
			continue
		}
		if r.Count <= 1 {
			return r, true
		}
		ring := g.hits[i]
		ring[g.next[i]] = t
		g.next[i] = (g.next[i] + 1) % len(ring)
		return r, t-ring[g.next[i]] <= int64(r.Within)
	}
	return nil, false
}

// react tells the learner of a reply, as the rule's reactions want it taken. It
// answers whether the learner was told.
func (g *Governor) react(t int64, e Evidence) bool {
	if r, due := g.triggers.fired(t, &e); r != nil {
		if !due || r.Do == DoNothing || r.Do.OfMessage() {
			return false
		}
		if g.stepsBack = r.Do == DoStepBack; !g.stepsBack {
			e.Effect, e.ordered = r.Do.effect(), r.For
		}
	}
	g.learner.Refused(time.Duration(t), e)
	return true
}
