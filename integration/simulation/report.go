package simulation

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/veredus/veredus/mta/simulate"
)

// Report is what a scenario came to. Times are in seconds, from the first hand-over
// on; shares are of 1, percentages of 100.
type Report struct {
	Scenario string `json:"scenario"`
	About    string `json:"about,omitempty"`
	Seed     uint64 `json:"seed"`
	// Efficiency is the area under the delivered curve as a share of the oracle's,
	// which keeps the scenario's rules; HiddenEfficiency as one of an oracle's that
	// only the receivers bound.
	Efficiency       float64 `json:"efficiency"`
	HiddenEfficiency float64 `json:"hidden_efficiency"`
	Drain
	Figures
	Receivers []ReceiverReport `json:"receivers"`
	// WarmUps are the sources that are warmed up; left out where there are none.
	WarmUps []WarmUpReport `json:"warm_ups,omitempty"`
	// Together says that one core ran all receivers, Events how many were handled.
	Together bool  `json:"together"`
	Events   int64 `json:"events"`
}

// Drain is when all was over.
type Drain struct {
	// Drained says that no message was left; Seconds is then the time it took, and
	// otherwise the simulation's end. OracleSeconds is the oracle's time, OracleDrained
	// says that it finished.
	Drained       bool    `json:"drained"`
	Seconds       float64 `json:"drain_seconds"`
	OracleDrained bool    `json:"oracle_drained"`
	OracleSeconds float64 `json:"oracle_seconds"`
}

// Figures are counts of one receiver or of all.
type Figures struct {
	Recipients  int64 `json:"recipients"`
	Delivered   int64 `json:"delivered"`
	Bounced     int64 `json:"bounced"`
	Expired     int64 `json:"expired"`
	Waiting     int64 `json:"waiting"`
	Attempts    int64 `json:"attempts"`
	Connections int64 `json:"connections"`
	// PacingDeferrals are throttling replies, and connections refused or dropped by a
	// limit; PacingConnections is the part that are connections.
	PacingDeferrals   int64 `json:"pacing_deferrals"`
	PacingConnections int64 `json:"pacing_connections"`
	// PacingPercent is pacing deferrals in per cent of deliveries, SteadyPacingPercent
	// the same in the steady state.
	PacingPercent       float64 `json:"pacing_percent"`
	SteadyPacingPercent float64 `json:"steady_pacing_percent"`
	// What else was refused, by cause.
	Greylisted int64 `json:"greylisted"`
	Outages    int64 `json:"outages"`
	Mailboxes  int64 `json:"mailboxes"`
	Others     int64 `json:"others"`
	// LimitOverruns counts events that the scenario's own rules did not allow.
	LimitOverruns int64 `json:"limit_overruns"`
	// Rests counts rests and back-offs of paths, Cuts the times they were slowed.
	Rests int64 `json:"rests"`
	Cuts  int64 `json:"cuts"`
}

// ReceiverReport is one receiver's part; copies are summed.
type ReceiverReport struct {
	Name             string  `json:"name"`
	Copies           int     `json:"copies,omitempty"`
	Efficiency       float64 `json:"efficiency"`
	HiddenEfficiency float64 `json:"hidden_efficiency"`
	Drain
	Figures
	// DeliveredPerHour counts deliveries of each hour since the start.
	DeliveredPerHour []int64 `json:"delivered_per_hour"`
	// Recoveries are the rises of the receiver's limit while there was mail.
	Recoveries []Recovery `json:"recoveries,omitempty"`
	Series     Series     `json:"series"`
}

// Recovery is how long it took to use a limit again that rose.
type Recovery struct {
	// At is when the limit rose, From and To the limits in messages per second.
	At   float64 `json:"at_seconds"`
	From float64 `json:"from"`
	To   float64 `json:"to"`
	// After is when 90 % of it was used over a minute; -1 if never.
	After float64 `json:"after_seconds"`
}

// Series is a receiver over time, step by step from the scenario's start. Sent and
// Limit are messages per second, Backlog the messages left at each step's end.
type Series struct {
	StepSeconds     float64   `json:"step_seconds"`
	Sent            []float64 `json:"sent"`
	Limit           []float64 `json:"limit"`
	Backlog         []int64   `json:"backlog"`
	Pacing          []int64   `json:"pacing_deferrals"`
	OracleDelivered []float64 `json:"oracle_delivered"`
}

func (s *Scenario) report(cfg *simulate.Config, res *simulate.Result) *Report {
	r := &Report{
		Scenario: s.Name, About: s.About, Seed: s.Seed, Efficiency: round(res.Efficiency, 6), HiddenEfficiency: round(res.HiddenEfficiency, 6),
		Together: res.Together, Events: res.Events,
	}
	var all simulate.Tally
	whole := newSum(res, cfg)
	parts := map[string]*sum{}
	var order []string
	for i := range res.Destinations {
		o := &res.Destinations[i]
		if o.Tally.Recipients == 0 {
			continue
		}
		all.Add(&o.Tally)
		whole.add(o)
		if parts[o.Group] == nil {
			parts[o.Group] = newSum(res, cfg)
			order = append(order, o.Group)
		}
		parts[o.Group].add(o)
	}
	r.Figures, r.Drain = figures(&all), whole.drain
	for _, name := range order {
		r.Receivers = append(r.Receivers, parts[name].report(name))
	}
	r.WarmUps = warmUpReports(res.WarmUps)
	return r
}

// sum adds up destinations.
type sum struct {
	res   *simulate.Result
	cfg   *simulate.Config
	n     int
	tally simulate.Tally
	drain Drain
	bins  []simulate.Bin
	limit []float64
	curve []float64

	area, oracle, areaHidden, hidden float64
}

func newSum(res *simulate.Result, cfg *simulate.Config) *sum {
	return &sum{res: res, cfg: cfg, drain: Drain{Drained: true, OracleDrained: true}}
}

func (s *sum) add(o *simulate.Outlook) {
	s.n++
	s.tally.Add(&o.Tally)
	s.drain.Drained = s.drain.Drained && o.Drained
	s.drain.OracleDrained = s.drain.OracleDrained && o.Oracle.Finished
	s.drain.Seconds = max(s.drain.Seconds, round((o.Ended-s.res.First).Seconds(), 3))
	s.drain.OracleSeconds = max(s.drain.OracleSeconds, round((o.Oracle.Done-s.res.First).Seconds(), 3))
	s.area += o.Efficiency * o.Oracle.Area
	s.oracle += o.Oracle.Area
	s.areaHidden += o.HiddenEfficiency * o.Hidden.Area
	s.hidden += o.Hidden.Area
	for i := range o.Bins {
		if i >= len(s.bins) {
			s.bins = append(s.bins, simulate.Bin{})
		}
		b, from := &s.bins[i], &o.Bins[i]
		b.Arrived += from.Arrived
		b.Delivered += from.Delivered
		b.Lost += from.Lost
		for c, n := range from.Refusals {
			b.Refusals[c] += n
		}
	}
	s.limit = addTo(s.limit, o.Limit, 0)
	s.curve = addTo(s.curve, o.Oracle.Curve, math.NaN())
}

// addTo adds a series to another; behind the end of the shorter one its last value
// goes on, or fill if that is a number.
func addTo(sum, s []float64, fill float64) []float64 {
	n := max(len(sum), len(s))
	out := make([]float64, n)
	at := func(list []float64, i int) float64 {
		switch {
		case i < len(list):
			return list[i]
		case len(list) == 0 || !math.IsNaN(fill):
			return 0
		}
		return list[len(list)-1]
	}
	for i := range out {
		out[i] = at(sum, i) + at(s, i)
	}
	return out
}

func figures(t *simulate.Tally) Figures {
	of := func(c simulate.Cause) int64 { return t.Deferrals[c] + t.Refusals[c] }
	return Figures{
		Recipients: t.Recipients, Delivered: t.Delivered, Bounced: t.Bounced, Expired: t.Expired, Waiting: t.Waiting,
		Attempts: t.Attempts, Connections: t.Connections,
		PacingDeferrals: t.Pacing(), PacingConnections: t.Refusals[simulate.CausePacing],
		PacingPercent: percent(t.Pacing(), t.Delivered), SteadyPacingPercent: percent(t.SteadyPacing, t.SteadyDelivered),
		Greylisted: of(simulate.CauseGreylist), Outages: of(simulate.CauseOutage),
		Mailboxes: of(simulate.CauseMailbox), Others: of(simulate.CauseOther),
		LimitOverruns: t.Overruns, Rests: t.Rests, Cuts: t.Cuts,
	}
}

// percent is part in per cent of whole, and 100 for something of nothing.
func percent(part, whole int64) float64 {
	switch {
	case part == 0:
		return 0
	case whole == 0:
		return 100
	}
	return round(100*float64(part)/float64(whole), 3)
}

func round(x float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(x*p) / p
}

func (s *sum) report(name string) ReceiverReport {
	r := ReceiverReport{Name: name, Drain: s.drain, Figures: figures(&s.tally)}
	if s.n > 1 {
		r.Copies = s.n
	}
	if s.oracle > 0 {
		r.Efficiency = round(s.area/s.oracle, 6)
	}
	if s.hidden > 0 {
		r.HiddenEfficiency = round(s.areaHidden/s.hidden, 6)
	}
	width := s.res.Width
	r.DeliveredPerHour = perHour(s.bins, width)
	r.Series = s.series()
	r.Recoveries = recoveries(&r.Series, s.used(), s.res.First)
	return r
}

// used is what was used of the limit in each step of the series, a second: what was
// delivered, and first attempts that greylisting put off.
func (s *sum) used() []float64 {
	out := make([]float64, max(len(s.bins), min(len(s.limit), len(s.curve))))
	for i := range s.bins {
		b := &s.bins[i]
		out[i] = float64(b.Delivered+b.Refusals[simulate.CauseGreylist]) / s.res.Width.Seconds()
	}
	return out
}

func perHour(bins []simulate.Bin, width time.Duration) []int64 {
	var hours []int64
	for i := range bins {
		h := int(time.Duration(i) * width / time.Hour)
		for len(hours) <= h {
			hours = append(hours, 0)
		}
		hours[h] += bins[i].Delivered
	}
	return hours
}

func (s *sum) series() Series {
	step := s.res.Width.Seconds()
	out := Series{StepSeconds: step, OracleDelivered: s.curve}
	n := max(len(s.bins), min(len(s.limit), len(s.curve)))
	left := int64(0)
	for i := range n {
		var b simulate.Bin
		if i < len(s.bins) {
			b = s.bins[i]
		}
		left += b.Arrived - b.Delivered - b.Lost
		limit := 0.0
		if i < len(s.limit) {
			limit = s.limit[i]
		}
		out.Sent = append(out.Sent, round(float64(b.Delivered)/step, 3))
		out.Limit = append(out.Limit, round(limit, 3))
		out.Backlog = append(out.Backlog, left)
		out.Pacing = append(out.Pacing, b.Refusals[simulate.CausePacing])
	}
	for i := range out.OracleDelivered {
		out.OracleDelivered[i] = round(out.OracleDelivered[i], 1)
	}
	return out
}

// Figures of a recovery: a limit that rises by half or more within a minute and stays,
// and the part of it that has to be used over a minute.
const (
	rise      = 1.5
	recovered = 0.9
)

// recoveries finds the rises of the limit, and when the new one was used, or what of it
// was left when it had fallen again. Those for which the mail did not last are left out:
// less than a minute's worth of the limit is none to show it with, such as what waits for
// full mailboxes.
func recoveries(s *Series, used []float64, first time.Duration) []Recovery {
	per := max(1, int(math.Round(60/s.StepSeconds)))
	minutes := len(s.Sent) / per
	sent, limit := make([]float64, minutes), make([]float64, minutes)
	for m := range minutes {
		for i := m * per; i < (m+1)*per; i++ {
			sent[m] += used[i] / float64(per)
			limit[m] += s.Limit[i] / float64(per)
		}
	}
	var found []Recovery
	seconds := float64(per) * s.StepSeconds
	for m := 1; m+2 < minutes; m++ {
		least := max(rise*limit[m-1], 1e-9)
		scarce := int64(60 * recovered * limit[m+1])
		if s.Backlog[m*per] <= scarce || limit[m] < least || limit[m+1] < least || limit[m+2] < least {
			continue
		}
		r := Recovery{At: float64(m)*seconds - first.Seconds(), From: round(limit[m-1], 3), To: round(limit[m+1], 3), After: -1}
		k := m
		for k < minutes && s.Backlog[k*per] > scarce && sent[k] < recovered*min(limit[k], limit[m+1]) {
			k++
		}
		switch {
		case k == minutes: // never
		case s.Backlog[k*per] <= scarce:
			continue // there was no mail to show it with
		default:
			r.After = float64(k+1-m) * seconds
			if seconds > 60 && k > m {
				r.After -= seconds * (1 + reached(sent[k-1], sent[m-1], recovered*limit[m+1]))
				r.After = 60 * math.Ceil(r.After/60)
			}
		}
		found = append(found, r)
		m += 2
	}
	return found
}

// reached is the part of a step longer than a minute in which a rate was already what it
// rises to, by the step's mean.
func reached(mean, from, to float64) float64 {
	if to <= from {
		return 0
	}
	return min(max((mean-from)/(to-from), 0), 1)
}

// JSON writes the report as indented JSON.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Table writes the report for people.
func (r *Report) Table(w io.Writer) error {
	fmt.Fprintf(w, "%s (seed %d)\n", r.Scenario, r.Seed)
	if r.About != "" {
		fmt.Fprintf(w, "%s\n", strings.TrimSpace(r.About))
	}
	fmt.Fprintf(w, "\nefficiency  %s of the oracle that keeps the rules, %s of one that only the receivers bound\n",
		share(r.Efficiency), share(r.HiddenEfficiency))
	fmt.Fprintf(w, "drained     %s, the oracle %s\n", drained(r.Drained, r.Seconds), drained(r.OracleDrained, r.OracleSeconds))
	fmt.Fprintf(w, "deferrals   pacing %d (%s of deliveries; %s in the steady state), greylisting %d, outages %d, mailboxes %d, others %d\n",
		r.PacingDeferrals, perCent(r.PacingPercent), perCent(r.SteadyPacingPercent), r.Greylisted, r.Outages, r.Mailboxes, r.Others)
	fmt.Fprintf(w, "rules       limit overruns %d\n\n", r.LimitOverruns)
	if err := r.receivers(w); err != nil {
		return err
	}
	return r.hours(w)
}

func (r *Report) receivers(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "receiver\trecipients\tdelivered\tfailed\texpired\twaiting\tefficiency\tdrained\toracle\tpacing\tsteady\tgreylisted\toutages\trests\tcuts\t")
	row := func(name string, eff float64, d Drain, f Figures) {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t\n", name, f.Recipients, f.Delivered, f.Bounced, f.Expired,
			f.Waiting, share(eff), drained(d.Drained, d.Seconds), drained(d.OracleDrained, d.OracleSeconds),
			perCent(f.PacingPercent), perCent(f.SteadyPacingPercent), f.Greylisted, f.Outages, f.Rests, f.Cuts)
	}
	for i := range r.Receivers {
		p := &r.Receivers[i]
		name := p.Name
		if p.Copies > 0 {
			name += fmt.Sprintf(" x %d", p.Copies)
		}
		row(name, p.Efficiency, p.Drain, p.Figures)
	}
	if len(r.Receivers) > 1 {
		row("all", r.Efficiency, r.Drain, r.Figures)
	}
	return t.Flush()
}

// hours writes what was delivered in each hour.
func (r *Report) hours(w io.Writer) error {
	most := 0
	for i := range r.Receivers {
		most = max(most, len(r.Receivers[i].DeliveredPerHour))
	}
	if most < 2 {
		return nil
	}
	fmt.Fprintln(w, "\ndelivered per hour")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "hour\t")
	for i := range r.Receivers {
		fmt.Fprintf(t, "%s\t", r.Receivers[i].Name)
	}
	fmt.Fprintln(t)
	for h := range most {
		fmt.Fprintf(t, "%d\t", h+1)
		for i := range r.Receivers {
			n := int64(0)
			if hours := r.Receivers[i].DeliveredPerHour; h < len(hours) {
				n = hours[h]
			}
			fmt.Fprintf(t, "%d\t", n)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func share(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }

func perCent(x float64) string { return fmt.Sprintf("%.2f %%", x) }

// drained is a time for people: "1h2m", or "not within 84h".
func drained(done bool, seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	unit := time.Second
	if d < 10*time.Second {
		unit = 10 * time.Millisecond
	}
	text := d.Round(unit).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	if !done {
		return "not within " + text
	}
	return text
}
