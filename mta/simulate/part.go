package simulate

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
)

// Part is what came of one hand-over at one destination.
type Part struct {
	// HandOver is its index in Config.HandOvers.
	HandOver int
	// Recipients are all that it brings; those that end neither delivered nor bounced
	// nor expired wait when the simulation ends.
	Recipients, Delivered, Bounced, Expired int64
	// Ended is when the last of them was over, Tried when the last was tried first,
	// both after the start.
	Ended, Tried time.Duration
	// Held is what held it until then, the longest first; only with Config.Forecast.
	Held []Held
}

// Waiting is how many messages were not over when the simulation ended.
func (p *Part) Waiting() int64 { return p.Recipients - p.Delivered - p.Bounced - p.Expired }

// Held is for how long something held mail.
type Held struct {
	Cause dispatch.Cause
	// Hold is which limit of the path, for dispatch.CauseRate: a mxrules.Hold in words.
	Hold string
	For  time.Duration
}

// part is a Part as an engine keeps it.
type part struct {
	Part
	first *run // what holds it stands for all its runs
}

// part is a run's hand-over's part.
func (d *destination) part(r *run) *part {
	for len(d.parts) <= int(r.hand) {
		d.parts = append(d.parts, part{})
	}
	p := &d.parts[r.hand]
	if p.first == nil {
		p.HandOver, p.first = int(r.hand), r
	}
	return p
}

func (p *part) ended(at time.Duration, o Outcome, n int64) {
	p.Ended = at
	switch o {
	case Delivered:
		p.Delivered += n
	case Expired:
		p.Expired += n
	default:
		p.Bounced += n
	}
}

// partsOf are the parts with mail.
func (d *destination) partsOf() []Part {
	var list []Part
	for i := range d.parts {
		if p := &d.parts[i]; p.first != nil {
			slices.SortFunc(p.Held, func(a, b Held) int {
				return cmp.Or(cmp.Compare(b.For, a.For), cmp.Compare(a.Cause, b.Cause), strings.Compare(a.Hold, b.Hold))
			})
			list = append(list, p.Part)
		}
	}
	return list
}

// What holds mail is looked at again after a part of the time since the start, at the
// least lookLeast: so a minute and a week cost the same.
const (
	lookLeast = int64(10 * time.Millisecond)
	lookPart  = 50
)

// look notes what has held mail since it was looked at last, and does so until the
// next event.
func (e *engine) look(next int64) {
	for _, d := range e.dests {
		for i := range d.parts {
			if p := &d.parts[i]; p.first != nil && p.first.known {
				p.hold(e.core.Waiting(e.t, runID(p.first.index)), time.Duration(next-e.lookedAt))
			}
		}
	}
	e.act()
	e.lookedAt = next
	e.lookAt = next + max(lookLeast, (next-e.start)/lookPart)
}

func (p *part) hold(w dispatch.Wait, d time.Duration) {
	h := Held{Cause: w.Cause}
	if w.Cause == dispatch.CauseRate {
		h.Hold = w.Text
	}
	i := slices.IndexFunc(p.Held, func(o Held) bool { return o.Cause == h.Cause && o.Hold == h.Hold })
	if i < 0 {
		i = len(p.Held)
		p.Held = append(p.Held, h)
	}
	p.Held[i].For += d
}
