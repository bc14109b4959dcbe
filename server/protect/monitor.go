package protect

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/server/campaign"
)

// Ledger has the durable counts; the store does.
type Ledger interface {
	// Watch reads a delivery with its figures at the destinations named; nil are all.
	// It costs microseconds. campaign.ErrNotFound.
	Watch(id string, destinations []string) (campaign.Watched, error)
	// List reads deliveries, newest first, behind the one numbered before (0: from the newest).
	List(ctx context.Context, before uint64, max int) ([]*campaign.Delivery, error)
}

// Deliveries carry out what was judged; *campaign.Service does. Each call is durable
// when it returns.
type Deliveries interface {
	PauseFor(ctx context.Context, id, text string) error
	Warn(ctx context.Context, id string, w campaign.Warning) error
	Alike(ctx context.Context, id, wording, destination, organisation string) error
}

// Options are what a Monitor is made of. Ledger and Deliveries are required.
type Options struct {
	Ledger     Ledger
	Deliveries Deliveries
	Thresholds Thresholds
	// Now is for the days of transactional mail; nil is time.Now.
	Now func() time.Time
	// Log takes what failed; nil discards it.
	Log *slog.Logger
}

const (
	// retryAfter is when a judgement that failed is tried again.
	retryAfter = time.Second
	// maxSeen is how many deliveries, newest first, are looked at when a Monitor
	// begins, for destinations that report complaints.
	maxSeen = 1000
	// maxReports is how many of these are kept.
	maxReports = 10_000
	// maxRejecters is how many rejections of a delivery are kept between two judgements.
	maxRejecters = 64
	// maxAbout is how many deliveries are remembered of a destination, to see how they fare
	// there, and about how long.
	maxAbout = 32
	about    = time.Hour
	// maxWindows bounds the deliveries of transactional mail that are judged.
	maxWindows = 4096
	// window is how long transactional mail is counted before counting begins anew.
	window = 24 * time.Hour
)

// Monitor watches over running deliveries. Its methods but Run are quick, never block
// on disk and are safe for concurrent use.
//
// A bulk delivery that reaches a threshold is warned of and paused; one that does not
// run (late bounces and complaints) is warned of only. A standing delivery of
// transactional mail is never paused, since it holds all such mail of a tenant, password
// resets among it: it is warned of, at most once a day for each destination and cause,
// and its counting begins anew every day and with the process.
type Monitor struct {
	ledger     Ledger
	deliveries Deliveries
	now        func() time.Time
	log        *slog.Logger
	thresholds atomic.Pointer[Thresholds]

	mu   sync.Mutex
	news map[string]*news // by delivery, not judged yet
	wake chan struct{}

	// Of Run alone.
	reports map[string]bool        // destinations that report complaints
	days    map[string]*today      // of transactional deliveries
	lately  [2]map[string][]string // deliveries with news at a destination, of this hour and of that before
	turned  time.Time
}

// news are what happened to a delivery since it was judged last.
type news struct {
	all          bool // all destinations are to be judged
	destinations map[string]struct{}
	complained   map[string]struct{}
	rejected     map[rejecter]smtpc.Reply
	refused      map[string]smtpc.Reply // for content, by destination
	ordered      string                 // why a reaction of the MX rules wants it held; empty when none does
}

// rejecter is who refused for failed authentication.
type rejecter struct{ destination, domain string }

// today is a day of transactional mail: figures since base count.
type today struct {
	began time.Time
	base  map[string]campaign.Figures
}

// NewMonitor makes a Monitor. Run it; until then it remembers what it is told.
func NewMonitor(o Options) *Monitor {
	m := &Monitor{
		ledger: o.Ledger, deliveries: o.Deliveries, now: o.Now, log: o.Log,
		news: map[string]*news{}, wake: make(chan struct{}, 1),
		reports: map[string]bool{}, days: map[string]*today{},
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.SetThresholds(o.Thresholds)
	return m
}

// SetThresholds puts other thresholds into force, from the next judgement on.
func (m *Monitor) SetThresholds(t Thresholds) { m.thresholds.Store(&t) }

// Settled takes what the relay settled, once that is durable.
func (m *Monitor) Settled(list []mta.Settlement) {
	m.mu.Lock()
	for i := range list {
		m.settled(&list[i])
	}
	m.mu.Unlock()
	m.ring()
}

func (m *Monitor) settled(s *mta.Settlement) {
	if s.Attempt == nil || s.Message == nil || s.Destination == "" {
		return
	}
	n := m.about(deliveryOf(s.Message.Name))
	if n == nil {
		return
	}
	n.at(s.Destination)
	if s.Verdict.Hold == bounce.HoldContent && len(n.refused) < maxRejecters {
		n.refused[s.Destination] = s.Attempt.Reply
	}
	if s.Verdict.Hold == bounce.HoldAuthentication {
		who := rejecter{s.Destination, s.Message.Domain}
		if _, known := n.rejected[who]; known || len(n.rejected) < maxRejecters {
			n.rejected[who] = s.Attempt.Reply
		}
	}
}

// Ordered takes that a reaction of the MX rules wants a delivery held, and why.
func (m *Monitor) Ordered(delivery, text string) {
	m.mu.Lock()
	if n := m.about(delivery); n != nil {
		n.ordered = text
	}
	m.mu.Unlock()
	m.ring()
}

// Returned takes that a bounce came back by mail, once that is durable. An empty
// destination is any.
func (m *Monitor) Returned(delivery, destination string) {
	m.mu.Lock()
	if n := m.about(delivery); n != nil {
		n.at(destination)
	}
	m.mu.Unlock()
	m.ring()
}

// Complained takes that somebody complained, once that is durable. An empty
// destination is any.
func (m *Monitor) Complained(delivery, destination string) {
	m.mu.Lock()
	if n := m.about(delivery); n != nil {
		n.all = true
		if len(n.complained) < campaign.MaxDestinations {
			n.complained[destination] = struct{}{}
		}
	}
	m.mu.Unlock()
	m.ring()
}

// about are the news about a delivery.
func (m *Monitor) about(delivery string) *news {
	if delivery == "" {
		return nil
	}
	n := m.news[delivery]
	if n == nil {
		n = &news{destinations: map[string]struct{}{}, complained: map[string]struct{}{}, rejected: map[rejecter]smtpc.Reply{}, refused: map[string]smtpc.Reply{}}
		m.news[delivery] = n
	}
	return n
}

func (n *news) at(destination string) {
	if destination == "" || len(n.destinations) >= campaign.MaxDestinations {
		n.all = true
		return
	}
	n.destinations[destination] = struct{}{}
}

// places are the destinations to be judged; nil are all.
func (n *news) places() []string {
	if n.all {
		return nil
	}
	return slices.AppendSeq(make([]string, 0, len(n.destinations)), maps.Keys(n.destinations))
}

func (m *Monitor) ring() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// deliveryOf is the D of deliveries/D/messages/M, and of deliveries/D.
func deliveryOf(name string) string {
	id, _, _ := strings.Cut(strings.TrimPrefix(name, "deliveries/"), "/")
	return id
}

// Run judges until ctx ends. It begins with the deliveries that run: what was
// counted and not judged when the last process ended is judged now.
func (m *Monitor) Run(ctx context.Context) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	begun := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-retry.C:
		case <-m.wake:
		}
		if !begun {
			if err := m.begin(ctx); err != nil {
				m.failed(ctx, "reading deliveries", err)
				retry.Reset(retryAfter)
				continue
			}
			begun = true
		}
		if !m.judgeNews(ctx) {
			retry.Reset(retryAfter)
		}
	}
}

// begin learns which destinations report complaints, and lets all that runs be judged.
func (m *Monitor) begin(ctx context.Context) error {
	const page = 100
	before := uint64(0)
	for seen := 0; seen < maxSeen; seen += page {
		list, err := m.ledger.List(ctx, before, page)
		if err != nil {
			return err
		}
		for _, d := range list {
			before = d.No
			by := d.Watch(nil).By
			m.learn(by)
			if d.State == campaign.Running {
				m.remember(d.ID, by)
			}
			if d.State == campaign.Running && !d.Transactional {
				m.mu.Lock()
				m.about(d.ID).all = true
				m.mu.Unlock()
			}
		}
		if len(list) < page {
			break
		}
	}
	return nil
}

// learn remembers who reports complaints.
func (m *Monitor) learn(by map[string]campaign.Figures) {
	for name, f := range by {
		if f.Complaints > 0 {
			m.report(name)
		}
	}
}

func (m *Monitor) report(destination string) {
	if destination != "" && len(m.reports) < maxReports {
		m.reports[destination] = true
	}
}

// judgeNews judges every delivery that there are news about; false when one is to be judged again.
func (m *Monitor) judgeNews(ctx context.Context) (done bool) {
	m.mu.Lock()
	list := m.news
	m.news = map[string]*news{}
	m.mu.Unlock()
	done = true
	for _, id := range slices.Sorted(maps.Keys(list)) {
		err := m.judge(ctx, id, list[id])
		if err == nil || errors.Is(err, campaign.ErrNotFound) {
			continue
		}
		m.failed(ctx, "judging delivery "+id, err)
		done = false
		m.mu.Lock()
		n := m.about(id)
		n.all = true
		n.ordered = cmp.Or(n.ordered, list[id].ordered)
		m.mu.Unlock()
	}
	return done
}

func (m *Monitor) failed(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		m.log.Warn("protection: "+what, "error", err)
	}
}

// judge judges one delivery by its counts as they are now.
func (m *Monitor) judge(ctx context.Context, id string, n *news) error {
	t := m.thresholds.Load()
	for destination := range n.complained {
		m.report(destination)
	}
	if n.ordered != "" {
		if err := m.hold(ctx, id, n.ordered); err != nil {
			return err
		}
	}
	if !t.Enabled {
		return nil
	}
	w, err := m.ledger.Watch(id, n.places())
	if err != nil {
		return err
	}
	noted, err := m.note(ctx, id, n, &w, t)
	if err != nil {
		return err
	}
	if noted {
		if w, err = m.ledger.Watch(id, n.places()); err != nil {
			return err
		}
	}
	c := Counts{From: w.From, Whole: n.all, Reports: m.reports, Alike: w.Protection.Alike, Said: said(n, &w)}
	if c.By, err = m.counted(id, &w); err != nil {
		return err
	}
	c.Refused = map[string]string{}
	for destination, reply := range n.refused {
		c.Refused[destination] = wordingOf(reply)
	}
	m.remember(id, c.By)
	if c.Others, err = m.others(id, c.By, t); err != nil {
		return err
	}
	return m.act(ctx, id, &w, Judge(c, *t))
}

// remember notes which delivery has mail where, for an hour or two.
func (m *Monitor) remember(id string, by map[string]campaign.Figures) {
	if now := m.now(); m.lately[0] == nil || now.Sub(m.turned) >= about || now.Before(m.turned) {
		m.lately[0], m.lately[1], m.turned = map[string][]string{}, m.lately[0], now
	}
	for destination := range by {
		list := m.lately[0][destination]
		if len(list) < maxAbout && (list != nil || len(m.lately[0]) < maxReports) && !slices.Contains(list, id) {
			m.lately[0][destination] = append(list, id)
		}
	}
}

// others are the figures of other deliveries at the destinations where one's content is refused.
func (m *Monitor) others(id string, by map[string]campaign.Figures, t *Thresholds) (map[string]campaign.Figures, error) {
	half := t.half()
	others := map[string]campaign.Figures{}
	for destination, f := range by {
		if !half.refusedContent(f) {
			continue
		}
		list := slices.Concat(m.lately[0][destination], m.lately[1][destination])
		slices.Sort(list)
		for _, other := range slices.Compact(list) {
			if other == id {
				continue
			}
			w, err := m.ledger.Watch(other, []string{destination})
			if errors.Is(err, campaign.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			others[destination] = others[destination].Plus(w.By[destination].Since(w.Protection.Excused[destination]))
		}
	}
	return others, nil
}

// hold carries out a reaction of the MX rules, which an operator wrote: it holds also
// where the thresholds are switched off. Transactional mail is warned of only.
func (m *Monitor) hold(ctx context.Context, id, text string) error {
	w, err := m.ledger.Watch(id, []string{})
	if err != nil {
		return err
	}
	if !w.Transactional && w.State != campaign.Running {
		return nil
	}
	text = "a reaction of the MX rules holds the delivery: " + text
	m.log.Warn("protection", "delivery", id, "text", text)
	if w.Transactional {
		return m.deliveries.Warn(ctx, id, campaign.Warning{Cause: string(Reaction), Text: "warning: " + text + "; transactional mail is never paused"})
	}
	return m.deliveries.PauseFor(ctx, id, "paused: "+text)
}

// note remembers durably who rejected in which words, until enough did.
func (m *Monitor) note(ctx context.Context, id string, n *news, w *campaign.Watched, t *Thresholds) (noted bool, err error) {
	if w.Transactional {
		return false, nil
	}
	for who, reply := range n.rejected {
		wording, org := wordingOf(reply), organisation(who.domain)
		if len(w.Protection.Alike[wording]) >= t.AuthDomains || w.Protection.Related(wording, who.destination, org) {
			continue
		}
		if err := m.deliveries.Alike(ctx, id, wording, who.destination, org); err != nil {
			return noted, err
		}
		noted = true
	}
	return noted, nil
}

// said is how destinations rejected, as far as known.
func said(n *news, w *campaign.Watched) map[string]string {
	is := map[string]string{}
	for wording, givers := range w.Protection.Alike {
		for _, giver := range givers {
			destination, _, _ := strings.Cut(giver, " ")
			is[destination] = codesOf(wording)
		}
	}
	for who, reply := range n.rejected {
		is[who.destination] = codes(reply)
	}
	return is
}

// counted are the figures that count: of bulk mail those since the last resume, of
// transactional mail today's.
func (m *Monitor) counted(id string, w *campaign.Watched) (map[string]campaign.Figures, error) {
	m.learn(w.By)
	base := w.Protection.Excused
	if w.Transactional {
		day, err := m.day(id)
		if err != nil {
			return nil, err
		}
		base = day.base
	}
	by := make(map[string]campaign.Figures, len(w.By))
	for name, f := range w.By {
		by[name] = f.Since(base[name])
	}
	return by, nil
}

// day is the day under way of a transactional delivery.
func (m *Monitor) day(id string) (*today, error) {
	now := m.now()
	if d := m.days[id]; d != nil && now.Sub(d.began) < window {
		return d, nil
	}
	w, err := m.ledger.Watch(id, nil)
	if err != nil {
		return nil, err
	}
	if len(m.days) >= maxWindows {
		clear(m.days)
	}
	m.days[id] = &today{began: now, base: w.By}
	return m.days[id], nil
}

// act warns of what was found, once each, and pauses for the gravest. A warning stands
// before every pause, however fast that came.
func (m *Monitor) act(ctx context.Context, id string, w *campaign.Watched, found []Finding) error {
	for _, f := range found {
		if warning := f.Warning(); !w.Protection.Given(warning, w.Transactional, m.now()) {
			if err := m.deliveries.Warn(ctx, id, warning); err != nil {
				return err
			}
			m.log.Warn("protection", "delivery", id, "text", warning.Text)
		}
	}
	if len(found) == 0 || !found[0].Pause || w.Transactional || w.State != campaign.Running {
		return nil
	}
	if err := m.deliveries.PauseFor(ctx, id, found[0].String()); err != nil {
		return err
	}
	m.log.Warn("protection", "delivery", id, "text", found[0].String())
	return nil
}
