package world

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Model is one receiver as a state machine. It answers what a real provider
// would at each step of a session, given the instant of the step. It is
// deterministic and not safe for concurrent use.
type Model struct {
	r        Receiver
	seed     uint64
	start    time.Time
	magic    Magic
	words    vocabulary
	owner    map[string]string
	catchAll bool

	sources  map[netip.Addr]*sourceState
	total    int
	sessions uint64
	ids      uint64
	greylist *memory
	visits   *memory

	varies bool   // some limit is not always the same
	salt   uint64 // of the noise
	terse  bool   // positive replies have no text
	sender Sender // whom Capacity is about
}

// sourceState is what the receiver knows about one sending address.
type sourceState struct {
	open                  int
	connections, messages bucket
	hour                  slidingHour
	strikes               int
	firstStrike           time.Time
	boxedUntil            time.Time
	sunk                  float64 // reputation lost, as of sunkAt
	sunkAt                time.Time
}

// memorySize bounds each generation of remembered triples.
const memorySize = 1 << 19

// NewModel returns the state machine of the world's receiver called name, for a
// world that begins at start: outages count from there. It fails if there is no
// such receiver or its data is not valid.
func NewModel(w *World, name string, start time.Time) (*Model, error) {
	r := w.Receiver(name)
	if r == nil {
		return nil, fmt.Errorf("world %q: there is no receiver %q", w.Name, name)
	}
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("receiver %q: %w", name, err)
	}
	words, err := newVocabulary(r.Dialect, r.Replies)
	if err != nil {
		return nil, fmt.Errorf("receiver %q: %w", name, err)
	}
	return &Model{
		r: *r, seed: w.Seed, start: start, magic: w.Magic.WithDefaults(), words: words,
		owner: w.owners(), catchAll: w.CatchAll == name,
		sources:  map[netip.Addr]*sourceState{},
		greylist: newMemory(memorySize), visits: newMemory(memorySize),
		varies: r.Hidden.varies(), salt: hashOf(w.Seed, "noise", name), sender: AnySender(),
	}, nil
}

// owners maps each listed domain to its receiver.
func (w *World) owners() map[string]string {
	owner := map[string]string{}
	for _, r := range w.Receivers {
		for _, d := range r.Domains {
			owner[canonicalName(d.Name)] = r.Name
		}
	}
	return owner
}

// Receiver returns the data the model was made from.
func (m *Model) Receiver() Receiver { return m.r }

// serves reports whether mail for domain belongs to the receiver and, where
// tenants have hosts of their own, to this host.
func (m *Model) serves(host, domain string) bool {
	owner, listed := m.owner[canonicalName(domain)]
	if !listed {
		return m.catchAll
	}
	if owner != m.r.Name {
		return false
	}
	tenants := false
	for _, h := range m.r.Hosts {
		if strings.EqualFold(h.NameFor(domain), host) {
			return true
		}
		tenants = tenants || h.PerTenant()
	}
	return !tenants
}

// Connect decides on a new connection from source to host, one of the
// receiver's mail exchangers. The session must be closed by [Session.Close]
// whatever the decision was; it counts as open only if the greeting is positive.
func (m *Model) Connect(now time.Time, source netip.Addr, host string) (*Session, Decision) {
	m.sessions++
	s := &Session{m: m, source: source, host: host, serial: m.sessions, state: m.source(source)}
	if d, down := m.outage(now); down {
		if d.Code == 0 && d.Drop == DropAfterReply {
			d = s.say(SayUnavailable, CauseOutage, DropAfterReply)
		}
		return s, d
	}
	if d, refused := s.refuseConnection(now); refused {
		return s, d
	}
	m.total++
	s.state.open++
	s.counted = true
	d := s.say(SayBanner, CauseNone, Stay)
	d.Delay = s.delay(m.r.Latency.Greeting)
	return s, d
}

func (m *Model) source(addr netip.Addr) *sourceState {
	if m.r.Hidden.Shared {
		addr = netip.Addr{}
	}
	st := m.sources[addr]
	if st == nil {
		evictIdle(m.sources, func(st *sourceState) bool { return st.open == 0 })
		st = &sourceState{}
		m.sources[addr] = st
	}
	return st
}

// outage returns how the receiver fails if it is down at now.
func (m *Model) outage(now time.Time) (Decision, bool) {
	for _, o := range m.r.Outages {
		since := now.Sub(m.start) - o.After.Std()
		if since >= 0 && o.Every > 0 {
			since %= o.Every.Std()
		}
		if since < 0 || since >= o.For.Std() {
			continue
		}
		drop := DropReset
		switch o.Mode {
		case OutageRefuse:
			drop = DropAfterReply
		case OutageSilent:
			drop = DropSilent
		}
		return Decision{Drop: drop, Cause: CauseOutage}, true
	}
	return Decision{}, false
}

// boxed reports whether the source sits in the penalty box; knocking may extend it.
func (m *Model) boxed(now time.Time, st *sourceState) bool {
	if !now.Before(st.boxedUntil) {
		return false
	}
	if m.r.Hidden.Penalty.Extend {
		st.boxedUntil = now.Add(m.r.Hidden.Penalty.For.Std())
	}
	return true
}

// strike counts one refusal by a hidden limit toward the penalty box.
func (m *Model) strike(now time.Time, st *sourceState) {
	m.sink(now, st, m.r.Hidden.Reputation.PerDeferral)
	p := m.r.Hidden.Penalty
	if p.After == 0 {
		return
	}
	window := p.Window.Std()
	if window == 0 {
		window = time.Minute
	}
	if st.strikes == 0 || now.Sub(st.firstStrike) > window {
		st.strikes, st.firstStrike = 0, now
	}
	if st.strikes++; st.strikes >= p.After {
		st.strikes = 0
		st.boxedUntil = now.Add(p.For.Std())
	}
}

// nextID is a queue identifier in the manner of mail servers.
func (m *Model) nextID() string {
	m.ids++
	return strings.ToUpper(strconv.FormatUint(mix(m.seed+m.ids), 36))
}
