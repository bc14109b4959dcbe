package storagetest

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/learning"
)

func newModel() *model {
	return &model{
		now: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC), standing: map[string]*delivery{},
		entries: map[address.Key]address.Entry{}, texts: map[learning.ID]learning.Text{},
	}
}

// nextEvent stands for the id of the event written next: its place in the log.
func (m *model) nextEvent() string { return "#" + strconv.Itoa(len(m.events)) }

// entry is the entry of a key; with Status 0 when there is none. A counter that time has
// cleared is none.
func (m *model) entry(k address.Key) address.Entry {
	e, ok := m.entries[k]
	if !ok || e.Expired(address.DefaultPolicy(), m.now) {
		e = address.Entry{Key: k}
	}
	return e
}

// put makes n the entry of its key, and reports whether it differs from what was there.
func (m *model) put(n address.Entry) bool {
	old := m.entry(n.Key)
	if n.Status == 0 {
		delete(m.entries, n.Key)
		return old.Status != 0
	}
	m.entries[n.Key] = n
	return !reflect.DeepEqual(old, n)
}

// of are the entries of an address, in a fixed order.
func (m *model) of(folded string) (list []address.Entry) {
	for k, e := range m.entries {
		if k.Folded == folded && !e.Expired(address.DefaultPolicy(), m.now) {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, byScope)
	return list
}

func byScope(a, b address.Entry) int {
	return cmp.Or(cmp.Compare(a.Folded, b.Folded), cmp.Compare(a.Scope.Tenant, b.Scope.Tenant),
		cmp.Compare(a.Scope.Class, b.Scope.Class), cmp.Compare(a.Scope.List, b.Scope.List))
}

// query asks about the delivery's mail to an address.
func (d *delivery) query(folded string) address.Query {
	q := address.Query{Folded: folded, Tenant: d.tenant, List: d.list, Class: address.Marketing}
	if d.transactional {
		q.Class = address.Everything
	}
	return q
}

// cause is something that happened to the recipient of a message, told by the next event.
func (e *engine) cause(m *message, origin address.Origin, at time.Time) address.Cause {
	c := address.Cause{Address: "X" + m.address[1:], Origin: origin}
	c.Time, c.Event, c.Message = at, e.m.nextEvent(), m.name()
	c.Destination = cmp.Or(m.destination, m.domain)
	return c
}

// affect is what a settlement makes of its recipient's entries, and of its own reason.
func (e *engine) affect(m *message, s *mta.Settlement) {
	c := e.cause(m, address.FromBounce, s.Time)
	c.Provider = s.Provider
	if s.Outcome == mta.Delivered {
		for _, n := range e.m.of(m.address) {
			if n.Scope.Tenant == "" || n.Scope.Tenant == m.delivery.tenant {
				e.m.put(address.Succeeded(n, c))
			}
		}
		return
	}
	if s.Verdict.Address != bounce.AddressNone && s.Attempt != nil {
		r := s.Attempt.Reply
		c.ReplyCode, c.Enhanced, c.Text, c.Phase = r.Code, r.Enhanced, strings.ToValidUTF8(r.Text, "\uFFFD"), r.Phase.String()
		e.fail(m, c, &s.Verdict)
	}
}

// fail enters a failure; the message's reason says so when an allowlist entry makes it of no effect.
func (e *engine) fail(m *message, c address.Cause, v *bounce.Verdict) {
	c.Reason, c.Tag, c.Code, c.Rule, c.Effect = v.Reason, v.Tag, v.Code, v.Rule, v.Address
	for _, n := range e.m.of(m.address) {
		if n.Status == address.Allowlisted && covers(n.Scope, m.delivery.query(m.address)) {
			e.m.put(address.Failed(n, c, address.DefaultPolicy()))
			m.reason = int32(bounce.ReasonErrorIgnored)
			return
		}
	}
	k := address.Key{Folded: m.address, Scope: address.DefaultPolicy().ErrorScope(m.delivery.tenant)}
	e.m.put(address.Failed(e.m.entry(k), c, address.DefaultPolicy()))
}

func covers(s address.Scope, q address.Query) bool {
	return (s.Tenant == "" || s.Tenant == q.Tenant) && (s.Class == address.Everything || s.Class == q.Class) &&
		(s.List == "" || s.List == q.List)
}

// changeAddresses does what an operator does, in one write and twice with the same request.
func (e *engine) changeAddresses() error {
	keys := make([]address.Key, 1+e.rng.IntN(4))
	for i := range keys {
		keys[i] = e.key()
	}
	status := address.Status(e.rng.IntN(5))
	provisional, comment := e.rng.IntN(2) == 0, fmt.Sprint(e.rng.IntN(3))
	now := e.m.now
	change := func(n address.Entry) address.Entry {
		if status == 0 {
			return address.Entry{}
		}
		if n.Status == 0 {
			n.Created, n.Address = now, "X"+n.Folded[1:]
		} else if n.Status == status && n.Comment == comment {
			return n
		}
		n.Status, n.Comment, n.Origin, n.Updated = status, comment, address.FromOperator, now
		n.Provisional = status == address.Quarantined && provisional
		n.Errors, n.LastError = 0, now
		n.Evidence = append([]address.Evidence{{Time: now, Change: address.WasDenylisted, Text: "Put " + comment}}, n.Evidence...)
		n.Evidence = n.Evidence[:min(len(n.Evidence), address.MaxEvidence)]
		return n
	}
	audit := []string{"", "an operator's word"}[e.rng.IntN(2)]
	e.m.created++
	req := address.Request{ID: fmt.Sprintf("addresses-%d", e.m.created), Method: "Put"}
	got, err := e.store.ChangeAddressEntries(ctx(), keys, req, audit, change)
	if err != nil {
		return err
	}
	again, err := e.store.ChangeAddressEntries(ctx(), keys, req, audit, change)
	if err != nil || !reflect.DeepEqual(got, again) {
		return fmt.Errorf("repeated change of addresses: %v\n got %+v\nthen %+v", err, got, again)
	}
	e.changed(keys, audit, change)
	if len(got) != len(keys) {
		return fmt.Errorf("change of %d addresses answers %d", len(keys), len(got))
	}
	for i, k := range keys {
		if want := e.m.entry(k); got[i].Key != k || got[i].Status != want.Status || got[i].Comment != want.Comment {
			return fmt.Errorf("change of addresses answers\n got %+v\nwant %+v", got[i], want)
		}
	}
	return nil
}

// changed brings the model to where a change should have brought the store.
func (e *engine) changed(keys []address.Key, audit string, change func(address.Entry) address.Entry) {
	var count int64
	event := ""
	if audit != "" {
		event = e.m.nextEvent()
	}
	for _, k := range keys {
		old := e.m.entry(k)
		n := old
		n.Evidence = slices.Clone(old.Evidence)
		n = change(n)
		n.Key = k
		for i := range n.Evidence {
			if n.Evidence[i].Event == "" && !slices.Contains(old.Evidence, n.Evidence[i]) {
				n.Evidence[i].Event = event
			}
		}
		if e.m.put(n) {
			count++
		}
	}
	if audit != "" && count > 0 {
		e.m.events = append(e.m.events, event0(veredusv1.FeedbackType_FEEDBACK_TYPE_ADDRESSES_CHANGED, count))
	}
}

func event0(kind veredusv1.FeedbackType, count int64) event { return event{kind: kind, count: count} }

// key is a random one, of an address that deliveries may have.
func (e *engine) key() address.Key {
	k := address.Key{Folded: fmt.Sprintf("xu%d@%s", e.rng.IntN(30), domains[e.rng.IntN(len(domains))])}
	k.Scope = scopes[e.rng.IntN(len(scopes))]
	return k
}

var scopes = []address.Scope{
	{Class: address.Everything},
	{Class: address.Marketing},
	{Tenant: campaign.DefaultTenant, Class: address.Everything},
	{Tenant: "acme", Class: address.Everything},
	{Tenant: "acme", Class: address.Marketing},
	{Tenant: "acme", Class: address.Marketing, List: "news.example"},
}

// compareAddresses reads all entries, through each of the ways there are.
func (e *engine) compareAddresses(m *model) error {
	var want []address.Entry
	for _, n := range m.entries {
		if !n.Expired(address.DefaultPolicy(), m.now) {
			want = append(want, n)
		}
	}
	slices.SortFunc(want, byScope)
	if err := e.compareEntryList(address.Filter{}, want); err != nil {
		return err
	}
	if e.compared%4 != 0 {
		return nil
	}
	for _, domain := range domains {
		in := slices.DeleteFunc(slices.Clone(want), func(n address.Entry) bool { return !strings.HasSuffix(n.Folded, "@"+domain) })
		if err := e.compareEntryList(address.Filter{Domain: domain}, in); err != nil {
			return err
		}
	}
	acme := slices.DeleteFunc(slices.Clone(want), func(n address.Entry) bool { return n.Scope.Tenant != "acme" })
	tenant := "acme"
	if err := e.compareEntryList(address.Filter{Tenant: &tenant}, acme); err != nil {
		return err
	}
	return e.compareExclusions(m)
}

func (e *engine) compareEntryList(f address.Filter, want []address.Entry) error {
	var got []address.Entry
	var cursor []byte
	for {
		page, next, err := e.store.ListAddressEntries(ctx(), f, cursor, pageSize)
		if err != nil {
			return err
		}
		got = append(got, page...)
		if cursor = next; cursor == nil {
			break
		}
	}
	slices.SortFunc(got, byScope)
	for i := range got {
		e.placeEvents(&got[i])
	}
	if len(got) == 0 && len(want) == 0 || reflect.DeepEqual(got, want) {
		return nil
	}
	for i := range min(len(got), len(want)) {
		if !reflect.DeepEqual(got[i], want[i]) {
			return fmt.Errorf("address entries of %+v, number %d of %d (want %d):\n got %+v\nwant %+v", f, i, len(got), len(want), got[i], want[i])
		}
	}
	return fmt.Errorf("%d address entries of %+v, want %d:\n got %+v\nwant %+v", len(got), f, len(want), got, want)
}

// placeEvents puts places in the log for the ids of events, as the model has them.
func (e *engine) placeEvents(n *address.Entry) {
	for i := range n.Evidence {
		if id := n.Evidence[i].Event; id != "" {
			place, ok := e.places[id]
			n.Evidence[i].Event = "no such event " + id
			if ok {
				n.Evidence[i].Event = "#" + strconv.Itoa(place)
			}
		}
	}
}

// compareExclusions asks about every address for several kinds of mail.
func (e *engine) compareExclusions(m *model) error {
	folded := map[string]bool{"nobody@a.test": true}
	for k := range m.entries {
		folded[k.Folded] = true
	}
	var queries []address.Query
	for _, a := range slices.Sorted(maps.Keys(folded)) {
		for _, tenant := range []string{campaign.DefaultTenant, "acme"} {
			queries = append(queries,
				address.Query{Folded: a, Tenant: tenant, Class: address.Everything},
				address.Query{Folded: a, Tenant: tenant, Class: address.Marketing},
				address.Query{Folded: a, Tenant: tenant, Class: address.Marketing, List: "news.example"})
		}
	}
	got, err := e.store.Exclusions(ctx(), queries)
	if err != nil {
		return err
	}
	for i, q := range queries {
		entries := m.of(q.Folded)
		if want := address.Decide(entries, q, address.DefaultPolicy(), m.now); got[i] != want {
			return fmt.Errorf("%+v: got %+v, want %+v", q, got[i], want)
		}
		have, err := e.store.AddressEntries(ctx(), q.Folded)
		if err != nil || len(have) != len(entries) {
			return fmt.Errorf("entries of %s: got %d (%v), want %d", q.Folded, len(have), err, len(entries))
		}
	}
	return nil
}
