package simulation

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/simulate"
	"github.com/veredus/veredus/mxrules"
)

// Config is the scenario as the simulator takes it.
func (s *Scenario) Config() (simulate.Config, error) {
	cfg := simulate.Config{
		Start: simulate.Epoch(), Duration: s.Duration.Std(), Seed: s.Seed,
		Dispatch: dispatch.Config{MaxSessions: s.Node.MaxSessions},
		Pools:    s.pools(), Rules: s.rules, Judge: &mta.Judge{Rules: s.rules, Bounces: s.bounces},
		Timing:     simulate.Timing{Commit: s.Node.Commit.Std(), Load: s.Node.Load.Std(), Resolve: s.Node.Resolve.Std()},
		Resolution: s.Resolution.Std(), SteadyAfter: s.SteadyAfter.Std(), Together: s.Together,
	}
	if s.Node.MaxSessions == 0 {
		cfg.Dispatch.MaxSessions = defaultSessions
	}
	owners := []int{} // by destination: its part of the mix
	for i, p := range s.Mix {
		for _, r := range s.expand(p) {
			d, err := s.destination(p, r, cfg.Dispatch.MaxSessions)
			if err != nil {
				return simulate.Config{}, s.problem(fmt.Sprintf("mix[%d]", i), "%v", err)
			}
			cfg.Destinations = append(cfg.Destinations, d)
			owners = append(owners, i)
		}
	}
	cfg.Usage = s.usage(cfg.Destinations)
	for i := range s.HandOvers {
		cfg.HandOvers = append(cfg.HandOvers, s.handOver(&s.HandOvers[i], owners))
	}
	return cfg, nil
}

// defaultSessions is the core's own default.
const defaultSessions = 1000

func (s *Scenario) pools() []dispatch.Pool {
	pools := make([]dispatch.Pool, len(s.Pools))
	for i, p := range s.Pools {
		pools[i].Name, pools[i].Overflow = p.Name, p.Overflow
		for _, src := range p.Sources {
			one := dispatch.Source{Name: src.Name, Addr: src.Address, Weight: max(src.Weight, 1)}
			if src.WarmUp != nil {
				one.WarmUp, _ = src.WarmUp.plan() // checked before
				one.Stage = max(src.WarmUp.Stage, 1)
			}
			pools[i].Sources = append(pools[i].Sources, one)
		}
	}
	return pools
}

// expand makes the receivers of a part of the mix: with its domains, and its copies.
func (s *Scenario) expand(p Part) []world.Receiver {
	base := *s.receiver(p.Receiver)
	if p.Domains > 0 {
		first := base.Domains[0].Name
		base.Domains = make([]world.Domain, p.Domains)
		for i := range base.Domains {
			base.Domains[i] = world.Domain{Name: numbered("d", i, first), Share: 1}
		}
	}
	if p.Copies <= 1 {
		return []world.Receiver{base}
	}
	copies := make([]world.Receiver, p.Copies)
	for i := range copies {
		c := base
		c.Name = base.Name + "-" + strconv.Itoa(i+1)
		c.Domains, c.Hosts = slices.Clone(base.Domains), slices.Clone(base.Hosts)
		for j := range c.Domains {
			c.Domains[j].Name = numbered("c", i, c.Domains[j].Name)
		}
		for j := range c.Hosts {
			c.Hosts[j].Name = numbered("c", i, c.Hosts[j].Name)
		}
		copies[i] = c
	}
	return copies
}

// numbered puts a label with a number, from 1, before a name.
func numbered(label string, i int, name string) string {
	return label + strconv.Itoa(i+1) + "." + name
}

func (s *Scenario) destination(p Part, r world.Receiver, sessions int) (simulate.Destination, error) {
	d := simulate.Destination{
		Name: r.Name, Group: p.Receiver, RoundTrip: s.Network.RoundTrip.Std(), Lost: r.Undeliverable(),
		Domains: domainsOf(&r),
	}
	if p.RoundTrip != nil {
		d.RoundTrip = p.RoundTrip.Std()
	}
	if hosts := d.Domains[0].Hosts; len(hosts) > 0 {
		d.Provider = s.rules.ProviderOf(hosts[0].Name)
	}
	w := &world.World{Name: s.Name, Seed: s.Seed, Receivers: []world.Receiver{r}}
	sender := s.sender(&d, &r, sessions)
	model := func() (*receiver, error) { return newReceiver(w, simulate.Epoch(), sender, s.audits(&d)) }
	if _, err := model(); err != nil { // so that it cannot fail later
		return d, err
	}
	d.Receiver = func() simulate.Receiver {
		m, err := model()
		if err != nil {
			panic(err) // it was made from the same data before
		}
		return m
	}
	return d, nil
}

// domainsOf is a receiver's domains as look-ups answer them.
func domainsOf(r *world.Receiver) []simulate.Domain {
	list := make([]simulate.Domain, len(r.Domains))
	for i, d := range r.Domains {
		list[i] = simulate.Domain{Name: d.Name, Share: d.Share}
		switch r.DNS {
		case world.DNSNXDomain, world.DNSNullMX:
			list[i].Failure = &dispatch.ResolveFailure{Final: true, Text: d.Name + " takes no mail"}
			continue
		case world.DNSServFail:
			list[i].Failure = &dispatch.ResolveFailure{Text: "the look-up of " + d.Name + " failed"}
			continue
		}
		for _, h := range r.Hosts {
			list[i].Hosts = append(list[i].Hosts, dispatch.Host{Name: h.NameFor(d.Name), Preference: h.Preference})
		}
		slices.SortStableFunc(list[i].Hosts, func(a, b dispatch.Host) int { return int(a.Preference) - int(b.Preference) })
	}
	return list
}

// match is what the rules say of mail for a domain from a source.
func (s *Scenario) match(d *simulate.Destination, dom *simulate.Domain, from netip.Addr) mxrules.Limits {
	return s.rules.Match(mxrules.Query{Host: dom.Hosts[0].Name, Provider: d.Provider, Domain: dom.Name, Source: from}).Limits
}

// sender is who the receiver's capacity is about: all sources that send to it, with
// the rules of the first.
func (s *Scenario) sender(d *simulate.Destination, r *world.Receiver, sessions int) world.Sender {
	out := world.Sender{Sources: len(s.sources(d.Group)), RoundTrip: d.RoundTrip, Connections: sessions}
	if d.Domains[0].Failure != nil || out.Sources == 0 {
		return out
	}
	from := s.sources(d.Group)[0].Address
	l := s.match(d, &d.Domains[0], from)
	out.Limits, out.Sequential = Stated(l), l.Pipelining == mxrules.Off
	if s.apart(d, from) {
		out.Paths = len(d.Domains)
		if !l.Shared {
			out.Paths *= out.Sources
		}
	}
	offers := r.TLS != world.TLSOff && r.TLS != world.TLSBroken
	out.TLS = l.TLS != mxrules.TLSNone && offers
	return out
}

// sources are those of the pools of all hand-overs that go to a receiver.
func (s *Scenario) sources(receiver string) []Source {
	var list []Source
	for i := range s.HandOvers {
		h := &s.HandOvers[i]
		if len(h.To) > 0 && !slices.Contains(h.To, receiver) {
			continue
		}
		for _, p := range s.Pools {
			if p.Name != h.Pool {
				continue
			}
			for _, src := range p.Sources {
				if !slices.ContainsFunc(list, func(o Source) bool { return o.Name == src.Name }) {
					list = append(list, src)
				}
			}
		}
	}
	return list
}

// apart reports whether rules name the receiver's domains, so that each has limits of
// its own.
func (s *Scenario) apart(d *simulate.Destination, from netip.Addr) bool {
	for i := range d.Domains {
		nameless := d.Domains[i]
		nameless.Name = ""
		if Stated(s.match(d, &d.Domains[i], from)) != Stated(s.match(d, &nameless, from)) {
			return true
		}
	}
	return false
}

// audits watch whether the sender keeps its own rules; none where several of the
// receiver's domains have limits of their own.
func (s *Scenario) audits(d *simulate.Destination) map[netip.Addr]*world.Audit {
	audits := map[netip.Addr]*world.Audit{}
	if d.Domains[0].Failure != nil {
		return audits
	}
	var shared *world.Audit
	for _, src := range s.sources(d.Group) {
		if len(d.Domains) > 1 && s.apart(d, src.Address) {
			return nil
		}
		l := s.match(d, &d.Domains[0], src.Address)
		a := world.NewAudit(d.Name, Stated(l))
		if l.Shared {
			if shared == nil {
				shared = a
			}
			a = shared
		}
		audits[src.Address] = a
	}
	return audits
}

// Stated are a rule's limits as a receiver's ledger audits them.
func Stated(l mxrules.Limits) world.Limits {
	return world.Limits{
		Connections: l.Connections, ConnectionRate: rate(l.ConnectionRate), MessagesPerConnection: l.MessagesPerConnection,
		MessageRate: rate(l.MessageRate), MessagesPerHour: l.MessagesPerHour, MessagesPerDay: l.MessagesPerDay, Shared: l.Shared,
	}
}

func rate(r mxrules.Rate) world.Rate {
	return world.Rate{Count: r.Count, Per: world.Duration(r.Per), Burst: r.Burst}
}

// shares is the sum of the shares of those that a hand-over goes to.
func (s *Scenario) shares(h *HandOver) float64 {
	sum := 0.0
	for _, p := range s.Mix {
		if len(h.To) == 0 || slices.Contains(h.To, p.Receiver) {
			sum += p.Share
		}
	}
	return sum
}

// handOver deals a hand-over's recipients out, to each part by its share and equally
// among its copies.
func (s *Scenario) handOver(h *HandOver, owners []int) simulate.HandOver {
	out := simulate.HandOver{
		At: h.At.Std(), Over: h.Over.Std(), Priority: h.Priority, Pool: h.Pool, Validity: h.Validity.Std(),
		Counts: make([]int64, len(owners)),
	}
	if h.Class == "transactional" {
		out.Class = dispatch.Transactional
	}
	sum, upTo, dealt := s.shares(h), 0.0, int64(0)
	last := -1
	for d, part := range owners {
		p := &s.Mix[part]
		if len(h.To) > 0 && !slices.Contains(h.To, p.Receiver) || p.Share == 0 {
			continue
		}
		upTo += p.Share / float64(max(p.Copies, 1))
		end := min(int64(float64(h.Recipients)*(upTo/sum)), h.Recipients)
		out.Counts[d] = end - dealt
		dealt, last = end, d
	}
	if last >= 0 {
		out.Counts[last] += h.Recipients - dealt
	}
	return out
}

// Run simulates the scenario.
func (s *Scenario) Run() (*Report, error) {
	cfg, err := s.Config()
	if err != nil {
		return nil, err
	}
	res, err := simulate.Run(cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.file, err)
	}
	return s.report(&cfg, res), nil
}
