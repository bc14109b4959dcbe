package mta

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/integration/memnet"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/compose"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/returnpath"
	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/mxrules"
)

// memory is a Store in memory that lets a test step in front of and behind each
// call, as a disk that takes its time would.
type memory struct {
	mu        sync.Mutex
	epoch     uint64
	handovers []*Handover
	rows      map[MessageID]*row
	claims    map[MessageID]string
	settles   []Settlement // in order
	writes    []int        // claims, releases and settlements of each write
	lost      []LostClaim

	refuse func(*Message) bool       // claims not to be made
	before func(call string) error   // called before reading or writing
	after  func(call string, ok any) // called with the answer, before it is given
}

// row is a message of memory.
type row struct {
	msg   Message
	final bool
	retry bool
}

func newMemory() *memory {
	return &memory{rows: map[MessageID]*row{}, claims: map[MessageID]string{}}
}

// add puts messages to recipients into a hand-over, in the run that the number names.
func (m *memory) add(h *Handover, domain uint32, recipients ...string) []MessageID {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []MessageID
	for _, r := range recipients {
		id := MessageID{Handover: h.ID, Domain: domain, Order: uint64(len(m.rows) + 1)}
		_, name := split(r)
		expires := h.Expires
		if expires.IsZero() {
			expires = time.Now().Add(MaxValidity)
		}
		m.rows[id] = &row{msg: Message{
			ID: id, Name: h.Name + "/messages/" + id.String(), Recipient: r, Domain: name, Content: h.Content,
			Arrival: time.Now(), Expires: expires,
		}}
		ids = append(ids, id)
	}
	return ids
}

func split(address string) (local, domain string) {
	for i := range address {
		if address[i] == '@' {
			return address[:i], address[i+1:]
		}
	}
	return address, ""
}

func (m *memory) enter(call string) error {
	if m.before == nil {
		return nil
	}
	return m.before(call)
}

func (m *memory) leave(call string, answer any) {
	if m.after != nil {
		m.after(call, answer)
	}
}

func (m *memory) Recover(_ context.Context, now time.Time) (*Recovery, error) {
	if err := m.enter("Recover"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	m.lost = nil
	for id, mailID := range m.claims {
		r := m.rows[id]
		r.retry = true
		r.msg.State.LostClaims++
		r.msg.State.Due = now
		m.lost = append(m.lost, LostClaim{ID: id, Name: r.msg.Name, MessageID: mailID, Claims: r.msg.State.LostClaims})
	}
	clear(m.claims)
	return &Recovery{Epoch: m.epoch, Handovers: m.handovers, Lost: m.lost}, nil
}

// run is what a run's directory entry says.
func (m *memory) run(handover uint64, domain uint32) (s RunState) {
	s.Domain = domain
	s.Mark = noRewind
	for id, r := range m.rows {
		if _, claimed := m.claims[id]; id.Handover != handover || id.Domain != domain || r.final || claimed {
			continue
		}
		s.DomainName = r.msg.Domain
		if r.retry {
			s.Deferred++
			s.NextDue = earliest(s.NextDue, r.msg.State.Due)
			continue
		}
		s.Fresh++
		if id.position().Less(s.Mark) {
			s.Mark = id.position()
		}
	}
	return s
}

func (m *memory) Runs(_ context.Context, handover uint64, after uint32, limit int) (list []RunState, err error) {
	if err := m.enter("Runs"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	highest := uint32(0)
	for id := range m.rows {
		if id.Handover == handover {
			highest = max(highest, id.Domain)
		}
	}
	for d := after + 1; d <= highest && len(list) < limit; d++ {
		if s := m.run(handover, d); s.Fresh+s.Deferred > 0 {
			list = append(list, s)
		}
	}
	return list, nil
}

// sorted are the messages of a run, or of all runs of a hand-over with domain 0.
func (m *memory) sorted(handover uint64, domain uint32) []*row {
	var list []*row
	for id, r := range m.rows {
		if id.Handover == handover && (domain == 0 || id.Domain == domain) && !r.final {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b *row) int { return cmp.Compare(a.msg.ID.Order, b.msg.ID.Order) })
	return list
}

func (m *memory) Load(_ context.Context, req LoadRequest) (res LoadResult, err error) {
	if err := m.enter("Load"); err != nil {
		return res, err
	}
	m.mu.Lock()
	res.Next = req.From
	for _, r := range m.sorted(req.Handover, req.Domain) {
		id := r.msg.ID
		switch {
		case req.Skip(id):
		case r.retry && !r.msg.State.Due.After(req.Now) && len(res.Due) < req.Due:
			res.Due = append(res.Due, r.copy())
		case r.retry:
			res.NextDue = earliest(res.NextDue, r.msg.State.Due)
		case id.position().Less(req.From):
		case len(res.Fresh) == req.Fresh:
			res.More = true
		default:
			res.Fresh = append(res.Fresh, r.copy())
			res.Next = Position{Lane: id.Lane, Order: id.Order + 1}
		}
	}
	m.mu.Unlock()
	m.leave("Load", &res)
	return res, nil
}

func (r *row) copy() *Message {
	msg := r.msg
	msg.Retry = r.retry
	return &msg
}

func (m *memory) Content(context.Context, uint64) (*compose.Source, error) {
	if err := m.enter("Content"); err != nil {
		return nil, err
	}
	return says("hello"), nil
}

func (m *memory) Unfinished(_ context.Context, handover uint64, by time.Time, after MessageID, limit int) ([]*Message, bool, error) {
	if err := m.enter("Unfinished"); err != nil {
		return nil, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*Message
	for _, h := range m.handovers {
		if h.ID != handover && (handover != 0 || !h.Expires.IsZero()) {
			continue
		}
		for _, r := range m.sorted(h.ID, 0) {
			if r.msg.ID.Order > after.Order && (handover != 0 || !r.msg.Expires.After(by)) && len(list) < limit {
				list = append(list, r.copy())
			}
		}
	}
	return list, len(list) < limit, nil
}

func (m *memory) Waiting(_ context.Context, req WaitingRequest) (page WaitingPage, err error) {
	if err := m.enter("Waiting"); err != nil {
		return page, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	page.Done = true
	for _, r := range m.sorted(req.Handover, req.Domain) {
		_, claimed := m.claims[r.msg.ID]
		if claimed || req.Retries && (!r.retry || !r.msg.State.Due.After(req.Due)) {
			continue
		}
		page.Count++
		if !req.Count {
			page.Messages = append(page.Messages, r.copy())
		}
	}
	m.mu.Unlock()
	m.leave("Waiting", &page)
	m.mu.Lock()
	return page, nil
}

func (m *memory) Write(_ context.Context, b *Batch) (out Written, err error) {
	if err := m.enter("Write"); err != nil {
		return out, err
	}
	m.mu.Lock()
	if b.Epoch != m.epoch {
		m.mu.Unlock()
		return out, fmt.Errorf("epoch %d: %w", b.Epoch, ErrFenced)
	}
	m.writes = append(m.writes, len(b.Claims)+len(b.Releases)+len(b.Settles))
	for _, s := range b.Settles {
		m.settles = append(m.settles, s)
		id := s.Message.ID
		delete(m.claims, id)
		r := m.rows[id]
		r.final, r.retry = s.Outcome != Deferred, s.Outcome == Deferred
		r.msg.State = s.Message.State
		r.msg.State.Due = s.Next
	}
	for _, id := range b.Releases {
		delete(m.claims, id)
	}
	for _, h := range b.Hurries {
		if r := m.rows[h.Message.ID]; r.retry && r.msg.State.Due.Equal(h.Message.State.Due) {
			r.msg.State.Due = h.Due
		}
	}
	for _, c := range b.Claims {
		if m.refuse != nil && m.refuse(c.Message) {
			out.Gone = append(out.Gone, c.Message.ID)
			continue
		}
		m.claims[c.Message.ID] = c.MessageID
	}
	m.mu.Unlock()
	m.leave("Write", b)
	return out, nil
}

// outcomes are the settlements of a message so far.
func (m *memory) outcomes(id MessageID) (list []Settlement) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.settles {
		if s.Message.ID == id {
			list = append(list, s)
		}
	}
	return list
}

func (m *memory) claimed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.claims)
}

var signer = sync.OnceValues(func() (*dkim.Keyring, error) {
	key, err := dkim.GenerateRSA(2048)
	if err != nil {
		return nil, err
	}
	k, err := dkim.NewKey("sender.example", "s1", key)
	if err != nil {
		return nil, err
	}
	return dkim.NewKeyring([]*dkim.Key{k})
})

// hosts answers for every domain: its host is mx.<domain>, at 192.0.2.2.
type hosts struct {
	addrs []netip.Addr
	fail  map[string]error
}

func (h hosts) Route(_ context.Context, domain string) (*route.Route, error) {
	if err := h.fail[domain]; err != nil {
		return nil, err
	}
	addrs := h.addrs
	if addrs == nil {
		addrs = []netip.Addr{netip.MustParseAddr("192.0.2.2")}
	}
	return &route.Route{
		Domain: domain, Destination: domain, Expires: time.Now().Add(time.Hour),
		Hosts: []route.Host{{Name: "mx." + domain, Preference: 10, Addrs: addrs}},
	}, nil
}

// config is a relay over a store that talks to a receiver.
func config(tb testing.TB, store Store, receiver func(net.Conn)) Config {
	tb.Helper()
	keys, err := signer()
	if err != nil {
		tb.Fatal(err)
	}
	tokens, err := returnpath.NewKeys(returnpath.Key{ID: 1, Secret: [32]byte{1}})
	if err != nil {
		tb.Fatal(err)
	}
	return Config{
		Store: store, Resolver: hosts{}, Tokens: tokens,
		Dial: func(context.Context, Target) (net.Conn, error) {
			client, server := memnet.Pipe(256 << 10)
			go receiver(server)
			return client, nil
		},
		Settings: Settings{
			Rules: mxrules.Builtin(), Bounces: bounce.Default(), Keys: keys,
			Pools:        []dispatch.Pool{{Name: "default", Sources: []dispatch.Source{{Name: "s1", Weight: 1}}}},
			HelloNames:   map[string]string{"s1": "mta.sender.example"},
			BounceDomain: func(from string) string { return "bounce." + from },
		},
		Fatal: func(err error) { tb.Errorf("fatal: %v", err) },
	}
}

// bulk is a running hand-over.
func bulk(id uint64) *Handover {
	return &Handover{
		ID: id, Delivery: id, Name: fmt.Sprintf("deliveries/d%d", id), Tenant: "default", SenderDomain: "sender.example",
		Class: dispatch.Bulk, Priority: 50, Pool: "default", Content: id, Arrival: time.Now(), Expires: time.Now().Add(MaxValidity),
	}
}

// standing is a hand-over of transactional mail.
func standing(id uint64) *Handover {
	h := bulk(id)
	h.Class, h.Arrival, h.Expires = dispatch.Transactional, time.Time{}, time.Time{}
	return h
}
