package simulation

import (
	"math"
	"net/netip"
	"strconv"
	"time"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/mta/simulate"
	"github.com/veredus/veredus/mxrules"
)

// receiver is a world model as the simulator asks it. Whatever can be decided when
// the envelope arrives is decided then; only limits at the final dot wait for it.
type receiver struct {
	model  *world.Model
	data   world.Receiver
	hidden world.Sender // the same sender without rules of its own
	audits map[netip.Addr]*world.Audit
	dead   map[string]bool // hosts without a listener
	named  bool            // recipients are told apart
	direct bool            // what becomes of the content does not depend on when it comes
	places map[string]string
	addr   []byte

	// Of a receiver that greylists: what first attempts take, and what they share with
	// deliveries; else nil.
	firsts, shared *world.Model
	// charged is the model whose limits are what deliveries get of them.
	charged *world.Model
}

var (
	_ simulate.Receiver   = (*receiver)(nil)
	_ simulate.Hidden     = (*receiver)(nil)
	_ simulate.Greylister = (*receiver)(nil)
)

// newReceiver makes the model of w's only receiver. audits may be empty.
func newReceiver(w *world.World, start time.Time, sender world.Sender, audits map[netip.Addr]*world.Audit) (*receiver, error) {
	data := w.Receivers[0]
	model, err := world.NewModel(w, data.Name, start)
	if err != nil {
		return nil, err
	}
	model.Terse()
	model.Expect(sender)
	r := &receiver{
		model: model, data: data, audits: audits, dead: map[string]bool{}, places: map[string]string{},
		hidden: world.Sender{Sources: sender.Sources, RoundTrip: sender.RoundTrip, TLS: sender.TLS, Connections: sender.Connections},
	}
	r.named = len(data.Mailboxes) > 0 || data.Greylist.Delay > 0 || data.Hidden.At == world.AtRcpt
	r.direct = len(data.Quirks) == 0 && data.Hidden.At != world.AtEndOfData && data.Latency.Load.Each == 0
	if err := r.greylist(w, start, sender); err != nil {
		return nil, err
	}
	if r.charged, err = charged(model, w, start, sender); err != nil {
		return nil, err
	}
	for _, d := range data.Domains {
		r.places[d.Name] = "someone@" + d.Name
		for _, h := range data.Hosts {
			if h.Dead {
				r.dead[h.NameFor(d.Name)] = true
			}
		}
	}
	return r, nil
}

// unlimited stands for a capacity that nothing bounds, in messages per second.
const unlimited = 1e7

// Capacity implements simulate.Receiver.
func (r *receiver) Capacity(now time.Time) float64 {
	return math.Min(r.charged.Capacity(now), unlimited)
}

// HiddenCapacity implements simulate.Hidden.
func (r *receiver) HiddenCapacity(now time.Time) float64 {
	return math.Min(r.charged.CapacityFor(now, r.hidden), unlimited)
}

// greylist makes models of what first attempts take: they end at RCPT, before what is
// limited at the final dot.
func (r *receiver) greylist(w *world.World, start time.Time, sender world.Sender) (err error) {
	if r.data.Greylist.Delay == 0 {
		return nil
	}
	data := r.data
	if data.Hidden.At == world.AtEndOfData {
		data.Hidden.MessageRate, data.Hidden.MessagesPerHour = world.Rate{}, 0
	}
	if r.shared, err = modelOf(w, data, start, sender); err != nil {
		return err
	}
	data.Latency.EndOfData, data.Latency.Load = 0, world.Load{}
	r.firsts, err = modelOf(w, data, start, sender)
	return err
}

// charged is the model of a receiver whose limits at MAIL are charged twice for the
// mailboxes that put off the first attempt.
func charged(m *world.Model, w *world.World, start time.Time, sender world.Sender) (*world.Model, error) {
	data := w.Receivers[0]
	again := float64(data.Mailboxes[world.FateGreylist]) / 1000
	if again == 0 || data.Hidden.At != "" && data.Hidden.At != world.AtMail {
		return m, nil
	}
	data.Hidden.MessageRate.Per = world.Duration(float64(data.Hidden.MessageRate.Per) * (1 + again))
	data.Hidden.MessagesPerHour = int(float64(data.Hidden.MessagesPerHour) / (1 + again))
	return modelOf(w, data, start, sender)
}

func modelOf(w *world.World, data world.Receiver, start time.Time, sender world.Sender) (*world.Model, error) {
	m, err := world.NewModel(&world.World{Name: w.Name, Seed: w.Seed, Receivers: []world.Receiver{data}}, data.Name, start)
	if err == nil {
		m.Expect(sender)
	}
	return m, err
}

// Retries of greylisted mail: once after 5 to 15 minutes, as the relay's schedule says.
const (
	soonest = 5 * time.Minute
	spread  = 10 * time.Minute
)

// Greylisting implements simulate.Greylister.
func (r *receiver) Greylisting() (time.Duration, time.Duration) {
	if delay := r.data.Greylist.Delay.Std(); delay > 0 {
		return max(delay, soonest), spread
	}
	return 0, 0
}

// FirstCapacity implements simulate.Greylister.
func (r *receiver) FirstCapacity(now time.Time, delivered float64, own bool) float64 {
	of := func(m *world.Model) float64 {
		if own {
			return math.Min(m.Capacity(now), unlimited)
		}
		return math.Min(m.CapacityFor(now, r.hidden), unlimited)
	}
	most := of(r.shared)
	if most <= 0 {
		return 0
	}
	return of(r.firsts) * max(0, 1-delivered/most)
}

// Connect implements simulate.Receiver.
func (r *receiver) Connect(now time.Time, from simulate.Caller) (simulate.Conn, simulate.Answer) {
	if r.dead[from.Host] {
		return nil, simulate.Answer{
			Refused: true, Cause: simulate.CauseOutage, Closes: true,
			Reply: simulate.Reply{Phase: simulate.PhaseConnect, Text: "connection refused"},
		}
	}
	audit, overruns := r.audits[from.Source], 0
	if audit != nil {
		overruns = len(audit.Open(now, from.Source))
	}
	s, d := r.model.Connect(now, from.Source, from.Host)
	c := &conn{r: r, s: s, audit: audit, source: from.Source, from: "bounce@sender.example"}
	a := simulate.Answer{Delay: d.Delay, Overruns: overruns}
	if !d.Positive() || d.Drop != world.Stay {
		return c, refusal(a, d, simulate.PhaseGreeting)
	}
	return c, c.establish(now, from.TLS, a)
}

// conn is one connection.
type conn struct {
	r      *receiver
	s      *world.Session
	audit  *world.Audit // nil: nobody watches
	source netip.Addr
	from   string
	mails  int
}

// establish takes a fresh connection through EHLO and STARTTLS.
func (c *conn) establish(now time.Time, tls mxrules.TLS, a simulate.Answer) simulate.Answer {
	hello := func() (refused bool) {
		a.RoundTrips++
		d := c.s.Hello(now.Add(a.Delay), true)
		if d.Code == 502 { // HELO then
			a.RoundTrips++
			d = c.s.Hello(now.Add(a.Delay), false)
		}
		a.Delay += d.Delay
		if !d.Positive() {
			a = refusal(a, d, simulate.PhaseHello)
		}
		return a.Refused
	}
	if hello() {
		return a
	}
	must := tls == mxrules.TLSEncrypt || tls == mxrules.TLSVerify
	if tls == mxrules.TLSNone || !must && !c.s.OffersTLS() {
		return a
	}
	a.RoundTrips += 2 // STARTTLS, and the handshake of TLS 1.3
	d := c.s.StartTLS(now.Add(a.Delay))
	a.Delay += d.Delay
	switch {
	case d.Positive() && d.Drop == world.Stay:
		c.s.Secured()
	case must:
		return refusal(a, world.Decision{Drop: world.DropSilent, Cause: world.CauseFault}, simulate.PhaseTLS)
	}
	hello()
	return a
}

// Envelope implements simulate.Conn.
func (c *conn) Envelope(now time.Time, m *simulate.Message) simulate.Answer {
	c.mails++
	var a simulate.Answer
	if c.audit != nil {
		a.Overruns = len(c.audit.Message(now, c.source, c.mails))
	}
	to := c.r.address(m)
	if c.r.direct && !c.r.named {
		return c.plain(now, a)
	}
	d, open := c.s.Attempt(now, c.from, to)
	a.Delay, a.Dirty = d.Delay, open && !d.Positive()
	if !d.Positive() || d.Drop != world.Stay {
		return refusal(a, d, c.phaseOf(d))
	}
	if c.r.direct {
		content := c.Content(now.Add(a.Delay))
		content.Whole, content.Overruns = true, a.Overruns
		content.Delay += a.Delay
		return content
	}
	return a
}

// plain decides on a transaction of which nothing after MAIL can fail.
func (c *conn) plain(now time.Time, a simulate.Answer) simulate.Answer {
	d := c.s.Mail(now, c.from)
	if a.Delay = d.Delay; !d.Positive() || d.Drop != world.Stay {
		return refusal(a, d, simulate.PhaseMail)
	}
	a.Delay += c.s.Rest()
	a.Whole = true
	return a
}

// Content implements simulate.Conn.
func (c *conn) Content(now time.Time) simulate.Answer {
	d := c.s.EndOfData(now)
	a := simulate.Answer{Delay: d.Delay}
	if !d.Positive() || d.Drop != world.Stay {
		return refusal(a, d, simulate.PhaseEndOfData)
	}
	return a
}

// Close implements simulate.Conn.
func (c *conn) Close(time.Time) {
	c.s.Close()
	if c.audit != nil {
		c.audit.Close(c.source)
	}
}

// address is a message's recipient. Where receivers do not tell recipients apart,
// nobody does.
func (r *receiver) address(m *simulate.Message) string {
	if !r.named {
		return r.places[m.Domain]
	}
	b := append(r.addr[:0], 'u')
	b = strconv.AppendInt(b, int64(m.HandOver), 10)
	b = append(b, '-')
	b = strconv.AppendInt(b, m.Order, 10)
	b = append(b, '@')
	b = append(b, m.Domain...)
	r.addr = b
	return string(b)
}

// refusal is a decision against a step, as the sender meets it.
func refusal(a simulate.Answer, d world.Decision, phase simulate.Phase) simulate.Answer {
	a.Refused, a.Cause = true, causes[d.Cause]
	if a.Cause == simulate.CauseNone {
		a.Cause = simulate.CauseOther
	}
	a.Closes = d.Drop != world.Stay
	a.Delay = max(a.Delay, d.Delay)
	a.Reply = simulate.Reply{Phase: phase, Code: d.Code, Enhanced: d.Enhanced, Text: d.Text}
	if d.Drop == world.DropReset || d.Drop == world.DropSilent {
		a.Reply = simulate.Reply{Phase: phase, Text: "the line ended without a reply"}
	}
	return a
}

var causes = map[world.Cause]simulate.Cause{
	world.CausePacing:   simulate.CausePacing,
	world.CauseGreylist: simulate.CauseGreylist,
	world.CauseOutage:   simulate.CauseOutage,
	world.CauseMailbox:  simulate.CauseMailbox,
}

// phaseOf is the step of an envelope that was refused: mailboxes and greylisting are
// told at RCPT, limits where the receiver enforces them, the rest at MAIL.
func (c *conn) phaseOf(d world.Decision) simulate.Phase {
	switch d.Cause {
	case world.CauseMailbox, world.CauseGreylist, world.CauseBlock:
		return simulate.PhaseRcpt
	case world.CausePacing:
		if c.r.data.Hidden.At == world.AtRcpt && d.Drop == world.Stay {
			return simulate.PhaseRcpt
		}
	}
	return simulate.PhaseMail
}
