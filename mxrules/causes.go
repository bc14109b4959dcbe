package mxrules

import "time"

// What a refusal is about is not always what it says. The learner looks at what its
// answer changes, and takes the refusal for something else when that does not help.

// doubt weighs an answer to a message for what unexplained refusals mean.
func (a *adaptive) doubt(at, sent time.Duration, refused, again bool) {
	believed := a.vague.believed
	switch a.vague.answer(at, sent, refused, again) {
	case foundPacing:
		if level := a.vague.proved; level > 0 && !believed {
			a.messages.suppose(at, level)
		}
	case foundChance:
		if believed {
			a.messages.restart(at)
		}
	}
}

// ordinals watches for refusals that come at the same place of each connection: a cap
// on the messages of one, whatever the words. Connections that began together are
// refused together, so as many as the place must have been accepted between two.
type ordinals struct {
	at, times int
	accepts   int
}

// sameOrdinal is how many refusals in a row at the same place show a cap.
const sameOrdinal = 4

// accepted notes a message accepted behind n others of its connection.
func (o *ordinals) accepted(n int) {
	if o.accepts++; n >= o.at {
		o.times = 0
	}
}

// refused answers how many refusals at this place came in a row.
func (o *ordinals) refused(n int) int {
	switch {
	case n < 1:
		return 0
	case o.times == 0 || n != o.at:
		o.at, o.times, o.accepts = n, 1, 0
	case o.accepts >= n:
		o.times++
		o.accepts = 0
	}
	return o.times
}

// isOrdinal answers a refusal that is one too many at the same place of a connection:
// what was made of the ones before is taken back.
func (a *adaptive) isOrdinal(at time.Duration, messages int) bool {
	first := a.ordinals.times == 0 || messages != a.ordinals.at
	times := a.ordinals.refused(messages)
	if times == 1 && first {
		a.before = a.messages
	}
	if times < sameOrdinal {
		return false
	}
	a.ordinals = ordinals{}
	a.each.refused(at, messages)
	a.before.sent = a.messages.sent
	a.messages = a.before
	a.vague.forget()
	return true
}

// crowd is about messages refused for too many connections. Some receivers mean the
// rate by that: when half of the connections, and half of those, are refused as well,
// it is taken for one.
type crowd struct {
	cuts   int
	at     time.Duration     // of the last refusal that counted
	before connectionLearner // as the first cut found it
}

// Figures of crowds.
const (
	crowdCuts   = 2
	crowdSettle = 3 * time.Second // in which refusals are still put down to the last cut
	crowdOver   = 5 * time.Minute // without one: the cut has helped
	crowdKnown  = 6 * time.Hour   // that it is a rate
)

// refuseCrowd answers a message that was refused for too many connections.
func (a *adaptive) refuseCrowd(at time.Duration, e *Evidence) {
	c := &a.crowd
	since := at - c.at
	switch {
	case c.cuts > crowdCuts && since < crowdKnown:
		c.at = at
		a.refuse(at, e)
		return
	case c.cuts > 0 && since < crowdSettle:
		return
	case c.cuts == 0 || since > crowdOver:
		c.cuts, c.before = 0, a.conns
	}
	c.at = at
	c.cuts++
	if c.cuts <= crowdCuts && a.open > 1 {
		a.fewerConnections(at, a.open/2)
		return
	}
	c.cuts = crowdCuts + 1
	a.conns.restore(at, &c.before)
	a.refuse(at, e)
}

// door is about connections refused with fewer open than were served a moment ago:
// either the receiver's cap has fallen, or they come too soon after each other. Time
// heals the one, only fewer connections the other; so it is tried again a little later.
type door struct {
	tries   int
	at      time.Duration // of the last refusal
	open    int           // the fewest that were open at one
	took    time.Duration // how long the last took
	lowered int           // refusals in a row taken for a cap

	trouble time.Duration // since when words blame the receiver while it serves; 0: they do not

	closed bool          // none came about since
	since  time.Duration // this one was refused
	before rateLearner   // as it found the rate of connections
}

// Figures of doors.
const (
	doorTries    = 3 // refusals, 1 and 4 times Timings.Soft apart, show a cap
	doorOver     = time.Minute
	trustInWords = 3 // refusals in a row whose words alone decide
	troubleFor   = 5 * time.Second
	closedFor    = 2 * time.Minute // in which none comes about is no rate's doing
)

// shut notes a refused connection.
func (d *door) shut(at time.Duration, dials *rateLearner) {
	if !d.closed {
		d.closed, d.since, d.before = true, at, *dials
	}
}

// reopened notes that a connection came about. If none did for long, the host was down,
// or shut us out: that says nothing of how often it may be called.
func (a *adaptive) reopened(at time.Duration) {
	d := &a.door
	if d.closed && at-d.since >= closedFor {
		d.before.sent = a.dials.sent
		a.dials = d.before
		if a.dials.phase >= phaseSearch {
			a.dials.resume(at)
		}
	}
	d.closed = false
}

// weighDoor answers a refused connection that may be either.
func (a *adaptive) weighDoor(at time.Duration, e *Evidence) {
	d := &a.door
	if at < a.rests.connectUntil && d.tries > 0 {
		return // dialled before
	}
	if d.tries == 0 || at-d.at > doorOver {
		d.tries, d.open = 0, a.open
	}
	d.tries++
	d.at, d.took, d.open = at, e.Took, min(d.open, a.open)
	if d.tries >= doorTries {
		d.lowered++
		a.fewerConnections(at, a.open)
		return
	}
	a.holdDials(at, a.timings.Soft*time.Duration(4*d.tries-3))
}

// opened notes a connection that came about, with so many others.
func (a *adaptive) opened(at time.Duration, ready int) {
	d := &a.door
	if ready >= a.conns.most() {
		d.lowered = 0
	}
	d.trouble = 0
	if d.tries > 0 && ready > d.open { // with as many others as made too many
		d.tries, d.lowered = 0, 0
		a.dials.refused(d.at, d.at-d.took)
	}
}

// servesOthers reports whether messages are served for some time while connections are
// refused as by a receiver in trouble.
func (a *adaptive) servesOthers(at time.Duration) bool {
	d := &a.door
	if d.trouble == 0 {
		d.trouble = at
	}
	return a.served > d.trouble+troubleFor
}
