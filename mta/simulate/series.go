package simulate

import "time"

// Bin is one step of a destination's series.
type Bin struct {
	// Arrived, Delivered and Lost count messages: Lost those that bounced or expired.
	Arrived, Delivered, Lost int64
	// Refusals counts, by cause, refused transactions and connections.
	Refusals [NumCauses]int64
	// Rests counts the rests and back-offs that began.
	Rests int64
}

// Tally is what happened at one destination.
type Tally struct {
	// Recipients are all that the plan brings; they end Delivered, Bounced or Expired,
	// or are Waiting when the simulation ends.
	Recipients, Delivered, Bounced, Expired, Waiting int64
	// Attempts are transactions, Connections those that reached the receiver.
	Attempts, Connections int64
	// Deferrals and Refusals count, by cause, refused transactions, and connections
	// refused or dropped before a transaction.
	Deferrals, Refusals [NumCauses]int64
	// Steady counts the same of pacing, and Delivered, in the steady state.
	SteadyPacing, SteadyDelivered int64
	// Overruns counts events that the rules' own limits did not allow.
	Overruns int64
	// Rests counts rests and back-offs of paths, Cuts the times they were slowed.
	Rests, Cuts int64
}

// Pacing is the number of pacing deferrals: throttling replies, and connections
// refused or dropped.
func (t *Tally) Pacing() int64 { return t.Deferrals[CausePacing] + t.Refusals[CausePacing] }

// Add sums two tallies.
func (t *Tally) Add(o *Tally) {
	t.Recipients += o.Recipients
	t.Delivered += o.Delivered
	t.Bounced += o.Bounced
	t.Expired += o.Expired
	t.Waiting += o.Waiting
	t.Attempts += o.Attempts
	t.Connections += o.Connections
	for c := range t.Deferrals {
		t.Deferrals[c] += o.Deferrals[c]
		t.Refusals[c] += o.Refusals[c]
	}
	t.SteadyPacing += o.SteadyPacing
	t.SteadyDelivered += o.SteadyDelivered
	t.Overruns += o.Overruns
	t.Rests += o.Rests
	t.Cuts += o.Cuts
}

// bin is the step under way.
func (d *destination) bin(e *engine) *Bin {
	for len(d.bins) <= e.step {
		d.bins = append(d.bins, Bin{})
	}
	return &d.bins[e.step]
}

// delivered counts a delivery, and what it adds to the area under the curve up to
// each horizon.
func (d *destination) delivered(e *engine) {
	d.bin(e).Delivered++
	if e.now >= d.steadyAt {
		d.tally.SteadyDelivered++
	}
	for i, until := range d.horizons {
		if e.now < until {
			d.areas[i] += time.Duration(until - e.now).Seconds()
		}
	}
}

// ended counts the end of n messages.
func (d *destination) ended(e *engine, o Outcome, n int64) {
	switch o {
	case Delivered:
		d.tally.Delivered += n
		return
	case Expired:
		d.tally.Expired += n
	default:
		d.tally.Bounced += n
	}
	d.bin(e).Lost += n
}

func (d *destination) refused(e *engine, c Cause) {
	d.tally.Refusals[c]++
	d.refusal(e, c)
}

func (d *destination) refusedMessage(e *engine, c Cause) {
	d.tally.Deferrals[c]++
	d.refusal(e, c)
}

func (d *destination) refusal(e *engine, c Cause) {
	d.bin(e).Refusals[c]++
	if c == CausePacing && e.now >= d.steadyAt {
		d.tally.SteadyPacing++
	}
}

func (d *destination) overruns(n int) { d.tally.Overruns += int64(n) }

// widths are the steps that a series may have; all divide an hour.
var widths = [...]time.Duration{
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second,
	30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour,
}

// Figures of a series: about so many steps until the oracle has delivered all, and
// at most so many in all.
const (
	stepsWanted = 500
	stepsMost   = 20_000
)

// widthFor chooses the width of the steps.
func widthFor(oracle, duration time.Duration) time.Duration {
	for _, w := range widths {
		if oracle/w <= stepsWanted && duration/w <= stepsMost {
			return w
		}
	}
	return duration / stepsWanted
}
