// Package forecast foretells how a delivery would go: it runs the simulator over the
// dispatch core with today's rules, what paths are believed to bear, the mail that is
// in the relay already, warm-ups, and the share of deferrals that receivers have
// shown. It knows no hidden limits and invents none: a receiver takes mail at the pace
// that was learned, or else at the one that its rule begins with.
//
// Fill an Input and call Run. History gathers what the receivers show.
package forecast

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/simulate"
	"github.com/veredus/veredus/mxrules"
)

// EveryoneElse is the destination that stands for domains whose own is not known.
const EveryoneElse = "everyone else"

// Input is all that a forecast rests on.
type Input struct {
	// Now is when it begins.
	Now time.Time
	// Validity is how long its messages will still be tried, on the node's clock.
	Validity time.Duration
	// Class, Priority (1 to 100, 0 is 50) and Pool are the delivery's.
	Class    dispatch.Class
	Priority int
	Pool     string
	// Pools are the node's.
	Pools []dispatch.Pool
	// WarmUps are the states of the sources that are being warmed up, by name.
	WarmUps map[string]mxrules.WarmUpState
	// Schedule plans retries; MaxSessions caps sessions over all destinations (0: 1000).
	Schedule    mta.Schedule
	MaxSessions int
	// Latency is taken for what a message takes where History knows nothing; 0 is 250 ms.
	Latency time.Duration
	// Destinations are those with mail of the delivery, each once.
	Destinations []Destination
	// Units is how many steps of mail are simulated at most; 0 is DefaultUnits.
	Units int
}

// Competes reports whether mail of a pool is sent on the delivery's paths: by one of its
// sources, or where sources share a path.
func (in *Input) Competes(pool string, paths []dispatch.Prospect) bool {
	if pool == in.Pool || slices.ContainsFunc(paths, func(p dispatch.Prospect) bool { return p.Shared }) {
		return true
	}
	for _, p := range in.Pools {
		if p.Name == pool {
			return slices.ContainsFunc(p.Sources, func(s dispatch.Source) bool {
				return slices.ContainsFunc(paths, func(p dispatch.Prospect) bool { return p.Source == s.Name })
			})
		}
	}
	return false
}

// Destination is the delivery's mail for one destination, and what is known of that.
type Destination struct {
	Name     string
	Provider string
	// Fresh messages were never tried; Deferred ones wait until NextDue at least.
	Fresh, Deferred int64
	NextDue         time.Time
	// Like, if above 1, is how many destinations of this kind share the mail equally.
	Like int
	// Dead says that its domains take no mail: every message ends at once.
	Dead bool
	// Paths are what the sources' ways to it bear; without any nothing is sent.
	Paths []dispatch.Prospect
	// Others is the mail of other deliveries for it.
	Others []dispatch.Competitor
	// Shown is what it has shown so far.
	Shown Figures
}

func (d *Destination) messages() int64 { return d.Fresh + d.Deferred }

// Figures are what a destination has shown.
type Figures struct {
	// Attempts is how many they rest on; few say nothing.
	Attempts int64
	// Latency is what a message takes from MAIL to the last reply; 0 is not known.
	Latency time.Duration
	// Deferred is the share of attempts, 0 to 1, that were put off for another reason
	// than pace, Bounced that of those refused for good.
	Deferred, Bounced float64
}

// Enough attempts make figures of use.
const Enough = 20

// Forecast is how a delivery would go.
type Forecast struct {
	// Duration is from now until its last message is over.
	Duration time.Duration
	// Messages are all that are not over yet, Late those that will not make the
	// validity period.
	Messages, Late int64
	// Destinations are the slowest first.
	Destinations []Outlook
	// Assumptions say in words what it rests on.
	Assumptions []string
}

// LatePercent is the share of messages that are late, 0 to 100.
func (f *Forecast) LatePercent() float64 {
	if f.Messages == 0 {
		return 0
	}
	return 100 * float64(f.Late) / float64(f.Messages)
}

// Outlook is how it would go at one destination.
type Outlook struct {
	Destination string
	Messages    int64
	Duration    time.Duration
	// HourlyRate is messages per hour on average, those in time.
	HourlyRate float64
	// Bottleneck is what bounds it, in a word or two: message_rate, learned rate,
	// connections, warm-up, retries ...
	Bottleneck string
	Late       int64
}

// Errors of an Input.
var (
	errNoPool     = errors.New("forecast: the pool has no source")
	errNoValidity = errors.New("forecast: the validity period is over")
)

// Run makes a forecast. It is busy for at most about a second of processor time, and
// returns ctx's error when that ends first.
func Run(ctx context.Context, in Input) (*Forecast, error) {
	f := &Forecast{}
	for i := range in.Destinations {
		f.Messages += in.Destinations[i].messages()
	}
	switch {
	case f.Messages == 0:
		return f, nil
	case in.Validity <= 0:
		return nil, errNoValidity
	}
	in.Validity = min(in.Validity, simulate.MaxValidity)
	p, err := in.plan()
	if err != nil {
		return nil, err
	}
	var res *simulate.Result
	if len(p.cfg.HandOvers) > 0 {
		if res, err = simulate.RunContext(ctx, p.cfg); err != nil {
			return nil, fmt.Errorf("forecast: %w", err)
		}
	}
	p.tell(f, res)
	f.Assumptions = in.assumptions(p)
	return f, nil
}

// tell reads the outlooks from what the simulation came to.
func (p *plan) tell(f *Forecast, res *simulate.Result) {
	for i := range p.in.Destinations {
		d := &p.in.Destinations[i]
		if d.messages() == 0 {
			continue
		}
		o := Outlook{Destination: d.Name, Messages: d.messages(), Bottleneck: "none"}
		switch at := p.index[i]; {
		case d.Dead:
			o.Bottleneck = "no route"
		case at < 0:
			o.Bottleneck, o.Late, o.Duration = "no source", o.Messages, p.in.Validity
		default:
			p.read(&o, &p.ways[at], res.Destinations[at].Parts)
		}
		f.Duration = max(f.Duration, o.Duration)
		f.Late += o.Late
		f.Destinations = append(f.Destinations, o)
	}
	slices.SortStableFunc(f.Destinations, func(a, b Outlook) int {
		return cmp.Or(cmp.Compare(b.Duration, a.Duration), cmp.Compare(b.Messages, a.Messages), cmp.Compare(a.Destination, b.Destination))
	})
}

// read sums the parts of the delivery at a destination.
func (p *plan) read(o *Outlook, w *way, parts []simulate.Part) {
	var sum simulate.Part
	held := map[string]time.Duration{}
	for _, part := range parts {
		if part.HandOver >= p.ours {
			continue
		}
		sum.Recipients += part.Recipients
		sum.Expired += part.Expired + part.Waiting()
		sum.Ended, sum.Tried = max(sum.Ended, part.Ended), max(sum.Tried, part.Tried)
		for _, h := range part.Held {
			held[w.word(h)] += h.For
		}
	}
	if sum.Expired > 0 {
		sum.Ended = p.in.Validity
		o.Late = min(o.Messages, int64(math.Ceil(float64(o.Messages)*float64(sum.Expired)/float64(sum.Recipients))))
	}
	o.Duration = sum.Ended
	if o.Duration > 0 {
		o.HourlyRate = float64(o.Messages-o.Late) / o.Duration.Hours()
	}
	o.Bottleneck = p.bottleneck(w, &sum, held)
}

// bottleneck is the word for what bounds the time.
func (p *plan) bottleneck(w *way, sum *simulate.Part, held map[string]time.Duration) string {
	switch {
	case sum.Ended < moment:
		return "none"
	case w.rest > sum.Ended/2:
		return "rest"
	case w.due > sum.Ended/2, sum.Ended-sum.Tried > sum.Ended/2 && sum.Expired < sum.Recipients/2:
		return "retries"
	}
	best, most := "none", time.Duration(0)
	for word, d := range held {
		if d > most || d == most && word < best {
			best, most = word, d
		}
	}
	return best
}

// moment is a time in which nothing is a bottleneck.
const moment = time.Second
