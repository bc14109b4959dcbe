package mxrules

import "time"

// Believed is what the path is taken to bear from now on, for forecasts: the rule's
// limits, below them what was learned, and where a learner has not found anything out
// yet, where its rule lets it begin. An operator's override holds. learned names the
// fields that replies decided. Cuts of a static governor and rests pass within
// minutes and are left out.
func (g *Governor) Believed(now time.Time) (l Limits, learned Fields) {
	t := g.tick(now)
	l = g.limits
	if l.Governor == GovernorOn {
		learned = g.believe(&l, g.learner.Memory(time.Duration(t)))
	}
	for f := range Field(NumFields) {
		if g.override.Set.Has(f) {
			l.copyField(f, &g.override.Limits)
			learned &^= FieldsOf(f)
		}
	}
	l.Bounds = Bounds{}
	return l, learned
}

// believe lowers limits to what is known, and tells which of them replies decided.
func (g *Governor) believe(l *Limits, m Memory) (learned Fields) {
	b, p := l.Bounds, g.pace
	rate := func(f Field, of *Rate, known Learned, pace, start Rate) {
		high := *of
		switch {
		case known.Known():
			*of = slowest(high, rateOf(known.Value))
		case g.trouble != "":
			*of = slowest(high, pace)
		case !start.IsZero() && !pace.IsZero():
			*of = slowest(high, faster(start, pace))
			return
		}
		if *of != high {
			learned = learned.With(f)
		}
	}
	count := func(f Field, of *int, known Learned, pace, start int) {
		high := *of
		switch {
		case known.Known():
			*of = lowest(high, max(1, int(known.Value)))
		case g.trouble != "":
			*of = lowest(high, pace)
		case start != 0 && pace != 0:
			*of = lowest(high, max(start, pace))
			return
		}
		if *of != high {
			learned = learned.With(f)
		}
	}
	rate(FieldMessageRate, &l.MessageRate, m.MessageRate, p.MessageRate, b.MessageRateStart)
	rate(FieldConnectionRate, &l.ConnectionRate, m.ConnectionRate, p.ConnectionRate, b.ConnectionRateStart)
	count(FieldConnections, &l.Connections, m.Connections, p.Connections, b.ConnectionsStart)
	count(FieldMessagesPerConnection, &l.MessagesPerConnection, m.MessagesPerConnection, p.MessagesPerConnection, b.MessagesPerConnectionStart)
	count(FieldMessagesPerHour, &l.MessagesPerHour, m.Hourly, 0, 0)
	return learned
}

// faster is the faster of two rates.
func faster(a, b Rate) Rate {
	if a.interval() < b.interval() {
		return a
	}
	return b
}
