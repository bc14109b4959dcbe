package storagetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/smtpc"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/suspend"
)

// opKind is what an operation does.
type opKind int

const (
	opNothing opKind = iota // what a failing sequence shrinks to
	opCreate
	opAdd
	opStart
	opPause
	opCancel
	opDelete
	opSend
	opClaim
	opSettle
	opRelease
	opExpire
	opRepeat
	opStale
	opRecover
	opReopen
	opSuspend
	opReturn
	opUnsubscribe
	opAddresses
	opTexts
	opHurry
	opPurge
	opCut
)

var opNames = [...]string{
	"nothing", "create", "add", "start", "pause or resume", "cancel", "delete", "send", "claim", "settle",
	"release", "expire", "repeat", "stale epoch", "recover", "reopen", "suspend",
	"return", "unsubscribe", "change addresses", "reply texts", "hurry", "purge", "power cut",
}

// opWeights make the relay's work the most frequent. Power cuts are not
// repeatable, so they have a test of their own.
var opWeights = [...]int{1, 2, 8, 3, 3, 1, 1, 6, 12, 12, 4, 2, 3, 1, 1, 1, 2, 8, 3, 4, 2, 3, 2, 0}

var opKindsWeighed = func() (list []opKind) {
	for kind, weight := range opWeights {
		for range weight {
			list = append(list, opKind(kind))
		}
	}
	return list
}()

// engine carries operations out on a driver and on the model.
type engine struct {
	driver Driver
	store  Store
	m      *model
	rng    *rand.Rand
	notes  []string
	last   *mta.Batch // the last settlements, for repeating
	// compared counts comparisons: look-ups take part in each fourth.
	compared int
	// clock is the store's; it goes with the model's.
	clock   atomic.Pointer[time.Time]
	cutting bool // a power cut is on its way
	// places has the place of each event in the log by its id, as last read.
	places map[string]int
}

func (e *engine) now() time.Time { return *e.clock.Load() }

func newEngine(d Driver) (*engine, error) {
	e := &engine{driver: d, m: newModel(), places: map[string]int{}}
	e.clock.Store(&e.m.now)
	var err error
	if e.store, err = d.Open(e.now); err != nil {
		return nil, err
	}
	return e, e.recover()
}

// trace lists what was done.
func (e *engine) trace() string { return strings.Join(e.notes, "\n") }

func (e *engine) note(format string, args ...any) {
	e.notes = append(e.notes, "  "+fmt.Sprintf(format, args...))
}

// step carries out one operation and compares everything.
func (e *engine) step(op Op) error {
	if op.Kind == opNothing {
		return nil
	}
	e.rng = rand.New(rand.NewPCG(op.Seed, 1))
	pass := time.Duration(1+e.rng.IntN(600)) * time.Second
	if e.rng.IntN(20) == 0 { // a counter of errors may have run out meanwhile
		pass = time.Duration(e.rng.IntN(12*24)) * time.Hour
	}
	now := e.m.now.Add(pass)
	e.m.now = now
	e.clock.Store(&now)
	e.note("%s (seed %d)", opNames[op.Kind], op.Seed)
	if err := e.do(op.Kind); err != nil {
		return err
	}
	return e.compare(e.m)
}

func (e *engine) do(kind opKind) error {
	switch kind {
	case opCreate:
		return e.create()
	case opAdd:
		return e.add()
	case opStart:
		return e.start()
	case opPause:
		return e.pause()
	case opCancel:
		return e.cancel()
	case opDelete:
		return e.delete()
	case opSend:
		return e.send()
	case opClaim:
		return e.claim()
	case opHurry:
		return e.hurry()
	case opPurge:
		return e.purge()
	case opSettle:
		return e.settle()
	case opRelease:
		return e.release()
	case opExpire:
		return e.expire()
	case opRepeat:
		return e.repeat()
	case opStale:
		return e.stale()
	case opRecover:
		return e.recover()
	case opReopen:
		return e.reopen()
	case opSuspend:
		return e.suspend()
	case opReturn:
		return e.giveBack()
	case opUnsubscribe:
		return e.unsubscribe()
	case opAddresses:
		return e.changeAddresses()
	case opTexts:
		return e.changeTexts()
	case opCut:
		return e.cut()
	}
	return fmt.Errorf("unknown operation %d", kind)
}

func ctx() context.Context { return context.Background() }

// pick is a random delivery that fits; nil when none does.
func (e *engine) pick(fits func(*delivery) bool) *delivery {
	var list []*delivery
	for _, d := range e.m.deliveries {
		if fits(d) {
			list = append(list, d)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[e.rng.IntN(len(list))]
}

func (e *engine) create() error {
	if len(e.m.deliveries) >= maxDeliveries {
		return nil
	}
	e.m.created++
	id := fmt.Sprintf("d%d", e.m.created)
	tenant, list := []string{"", "acme"}[e.rng.IntN(2)], []string{"", "News.example"}[e.rng.IntN(2)]
	got, err := e.store.Create(ctx(), &campaign.Delivery{ID: id, Spec: &veredusv1.Delivery{
		Tenant: tenant, ListId: list,
		Sender:  &veredusv1.Sender{From: "news@example.com"},
		Content: &veredusv1.Content{Subject: "Hello", Text: "Hello " + id},
	}}, campaign.Request{})
	if err != nil {
		return err
	}
	e.m.deliveries = append(e.m.deliveries, &delivery{
		id: id, tenant: cmp.Or(tenant, campaign.DefaultTenant), list: strings.ToLower(list), no: got.No, handover: got.Handover, state: campaign.Draft,
	})
	return nil
}

// maxDeliveries keeps the comparison short.
const maxDeliveries = 6

var domains = []string{"a.test", "b.test", "c.test"}

// add sends a chunk, which may overlap with what is stored, or leave a gap.
func (e *engine) add() error {
	d := e.pick(func(d *delivery) bool { return !d.transactional })
	if d == nil {
		return e.create()
	}
	first := d.last + 1 - int64(e.rng.IntN(3))
	if first < 1 {
		first = 1
	}
	gap := e.rng.IntN(10) == 0
	if gap {
		first = d.last + 2
	}
	var items []campaign.Item
	for i := range int64(1 + e.rng.IntN(8)) {
		items = append(items, e.item(first+i))
	}
	added, err := e.store.Add(ctx(), d.id, items)
	var state *campaign.StateError
	switch {
	case d.state > campaign.Prepared:
		if !errors.As(err, &state) || state.State != d.state {
			return fmt.Errorf("add to a delivery in state %s: got %v", d.state, err)
		}
		return nil
	case gap:
		if !errors.Is(err, campaign.ErrIndexGap) {
			return fmt.Errorf("add with a gap: got %v", err)
		}
		return nil
	case err != nil:
		return err
	}
	return e.added(d, items, added)
}

func (e *engine) item(index int64) campaign.Item {
	if e.rng.IntN(10) == 0 {
		return campaign.Item{Index: index, Reject: &veredusv1.RejectedRecipient{Index: index, Field: "address"}}
	}
	domain := domains[e.rng.IntN(len(domains))]
	address := fmt.Sprintf("u%d@%s", e.rng.IntN(30), domain)
	i := campaign.Item{
		Index: index, Address: "X" + address, Folded: "x" + address, Domain: domain,
		Variables: []byte(`{"a":1}`), Metadata: map[string]string{"k": address},
	}
	if e.rng.IntN(2) == 0 {
		i.RecipientID = "id-" + address
	}
	if e.rng.IntN(10) == 0 {
		i.Ignore = int32([]bounce.Reason{bounce.ReasonDenylisted, bounce.ReasonInQuarantine}[e.rng.IntN(2)])
	}
	return i
}

// added brings the model to where an Add should have brought the store.
func (e *engine) added(d *delivery, items []campaign.Item, got campaign.Added) error {
	want := campaign.Added{}
	for i := range items {
		if items[i].Index <= d.last {
			continue
		}
		d.last = items[i].Index
		if items[i].Reject != nil {
			d.rejected = append(d.rejected, d.last)
			continue
		}
		m := newMessage(d, &items[i])
		want.Accepted++
		if m.ignored == 0 && d.has(m.address) {
			m.ignored = int32(bounce.ReasonDouble)
		}
		if m.ignored != 0 {
			want.Ignored++
			want.IgnoredIndexes = append(want.IgnoredIndexes, m.index)
		}
		d.messages = append(d.messages, m)
		d.state = campaign.Draft
	}
	want.DurableIndex = d.last
	if len(got.IgnoredIndexes) == 0 { // a driver may leave it out
		want.IgnoredIndexes = got.IgnoredIndexes
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("add: got %+v, want %+v", got, want)
	}
	return nil
}

func newMessage(d *delivery, i *campaign.Item) *message {
	return &message{
		delivery: d, index: i.Index, address: i.Folded, domain: i.Domain, recipientID: i.RecipientID, ignored: i.Ignore,
	}
}

// has reports whether the delivery has a message to an address that is not ignored.
func (d *delivery) has(address string) bool {
	return slices.ContainsFunc(d.messages, func(m *message) bool { return m.address == address && m.ignored == 0 })
}

// change changes a delivery's state on both sides.
func (e *engine) change(d *delivery, to campaign.State, kind veredusv1.FeedbackType) error {
	ev := event{kind: kind, delivery: d.name()}
	switch kind {
	case veredusv1.FeedbackType_FEEDBACK_TYPE_STARTED:
		ev.count = d.counters().Pending
	case veredusv1.FeedbackType_FEEDBACK_TYPE_CANCELLED:
		c := d.counters()
		ev.count = c.Pending + c.InRelay - c.Claimed
	}
	started := e.m.now
	_, err := e.store.Change(ctx(), d.id, campaign.Request{}, func(n *campaign.Delivery) ([]campaign.Event, error) {
		if n.State != d.state {
			return nil, fmt.Errorf("delivery %s is %s, want %s", d.id, n.State, d.state)
		}
		if kind == veredusv1.FeedbackType_FEEDBACK_TYPE_STARTED {
			n.Started, n.Expires = started, started.Add(84*time.Hour)
		}
		n.State = to
		return []campaign.Event{{Type: kind}}, nil
	})
	if err != nil {
		return err
	}
	if kind == veredusv1.FeedbackType_FEEDBACK_TYPE_STARTED {
		d.started, d.expires = started, started.Add(84*time.Hour)
	}
	d.state = to
	e.m.events = append(e.m.events, ev)
	e.m.finishIfDone(d)
	return nil
}

func (e *engine) start() error {
	d := e.pick(func(d *delivery) bool { return d.state <= campaign.Prepared })
	if d == nil {
		return e.create()
	}
	return e.change(d, campaign.Running, veredusv1.FeedbackType_FEEDBACK_TYPE_STARTED)
}

func (e *engine) pause() error {
	d := e.pick(func(d *delivery) bool { return d.active() && !d.transactional })
	if d == nil {
		return nil
	}
	if d.state == campaign.Paused {
		return e.change(d, campaign.Running, veredusv1.FeedbackType_FEEDBACK_TYPE_RESUMED)
	}
	return e.change(d, campaign.Paused, veredusv1.FeedbackType_FEEDBACK_TYPE_PAUSED)
}

func (e *engine) cancel() error {
	d := e.pick(func(d *delivery) bool { return d.state < campaign.Finished && !d.transactional })
	if d == nil {
		return nil
	}
	return e.change(d, campaign.Cancelled, veredusv1.FeedbackType_FEEDBACK_TYPE_CANCELLED)
}

// delete removes a delivery that is over; of one that is not it must remove nothing.
func (e *engine) delete() error {
	d := e.pick(func(d *delivery) bool { return !d.transactional })
	if d == nil {
		return nil
	}
	refused := errors.New("refused")
	err := e.store.Delete(ctx(), d.id, campaign.Request{}, func(n *campaign.Delivery) error {
		if n.State == campaign.Running || n.State == campaign.Paused {
			return refused
		}
		return nil
	})
	if d.active() {
		if !errors.Is(err, refused) {
			return fmt.Errorf("delete of a delivery in state %s: got %v", d.state, err)
		}
		return nil
	}
	e.m.deliveries = slices.DeleteFunc(e.m.deliveries, func(o *delivery) bool { return o == d })
	for _, m := range d.messages {
		e.m.removed = append(e.m.removed, m.link())
	}
	return err
}

// send sends a transactional message, twice with the same request.
func (e *engine) send() error {
	i := e.item(1)
	if i.Reject != nil {
		return nil
	}
	tenant := []string{"default", "acme"}[e.rng.IntN(2)]
	single := campaign.Single{
		Tenant: tenant, Item: i, Validity: time.Duration(1+e.rng.IntN(80)) * time.Hour, Time: e.m.now,
		Content: &veredusv1.Delivery{
			Tenant: tenant, Pool: []string{"", "fast"}[e.rng.IntN(2)],
			Sender:  &veredusv1.Sender{From: "shop@" + []string{"one", "two"}[e.rng.IntN(2)] + ".example"},
			Content: &veredusv1.Content{Subject: "Receipt", Text: "Thank you"},
		},
	}
	e.m.created++
	req := campaign.Request{ID: fmt.Sprintf("send-%d", e.m.created), Method: "Send"}
	h, id, err := e.store.Send(ctx(), single, req)
	if err != nil {
		return err
	}
	again, id2, err := e.store.Send(ctx(), single, req)
	if err != nil || id2 != id || *again != *h {
		return fmt.Errorf("repeated send: got %v %+v %v, want %v %+v", id2, again, err, id, h)
	}
	d := e.m.standing[tenant]
	if d == nil {
		d = &delivery{id: h.DeliveryID, tenant: tenant, no: h.Delivery, transactional: true, state: campaign.Running}
		e.m.standing[tenant] = d
		e.m.deliveries = append(e.m.deliveries, d)
	}
	d.last++
	i.Index = d.last
	m := newMessage(d, &i)
	m.id, m.arrival, m.expires = id, e.m.now, e.m.now.Add(single.Validity)
	d.messages = append(d.messages, m)
	ev := event{kind: veredusv1.FeedbackType_FEEDBACK_TYPE_TAKEN_INTO_ACCOUNT, delivery: d.name(), message: m.name(), recipient: "X" + m.address[1:], destination: m.domain}
	if m.ignored != 0 {
		ev.kind, ev.reason = veredusv1.FeedbackType_FEEDBACK_TYPE_SUPPRESSED, m.ignored
	}
	e.m.events = append(e.m.events, ev)
	return nil
}

// load reads a message as the relay would.
func (e *engine) load(m *message) (*mta.Message, error) {
	res, err := e.store.Load(ctx(), mta.LoadRequest{
		Handover: m.id.Handover, Domain: m.id.Domain, Fresh: 1000, Due: 1000, Now: e.m.now.Add(1000 * time.Hour),
	})
	if err != nil {
		return nil, err
	}
	for _, l := range append(res.Fresh, res.Due...) {
		if l.ID == m.id {
			return l, nil
		}
	}
	return nil, fmt.Errorf("message %s was not loaded", m)
}

// claim claims some messages; those of deliveries that do not run, or final ones, must be gone.
func (e *engine) claim() error {
	d := e.pick(func(d *delivery) bool { return d.active() && len(d.unfinished()) > 0 })
	if d == nil {
		return nil
	}
	b := mta.Batch{Epoch: e.m.epoch}
	var chosen []*message
	for _, m := range d.unfinished() {
		if !m.claimed && e.rng.IntN(2) == 0 {
			l, err := e.load(m)
			if err != nil {
				return err
			}
			mid := fmt.Sprintf("%s.%d@example.com", m.id, m.lost)
			b.Claims = append(b.Claims, mta.Claim{Message: l, Time: e.m.now, MessageID: mid})
			chosen = append(chosen, m)
		}
	}
	w, err := e.store.Write(ctx(), &b)
	if err != nil {
		return err
	}
	if d.state == campaign.Paused {
		if len(w.Gone) != len(chosen) {
			return fmt.Errorf("claims of a paused delivery: %d of %d gone", len(w.Gone), len(chosen))
		}
		return nil
	}
	if len(w.Gone) != 0 {
		return fmt.Errorf("claims: gone %v", w.Gone)
	}
	for i, m := range chosen {
		m.claimed, m.messageID = true, b.Claims[i].MessageID
		if m.firstClaim.IsZero() {
			m.firstClaim = e.m.now
		}
	}
	return nil
}

// settle settles some of what is claimed.
func (e *engine) settle() error {
	b := mta.Batch{Epoch: e.m.epoch}
	var chosen []*message
	for _, m := range e.m.claimed() {
		if e.rng.IntN(2) == 0 {
			continue
		}
		s := e.settlement(m, []mta.Outcome{mta.Delivered, mta.Deferred, mta.Deferred, mta.Bounced}[e.rng.IntN(4)])
		b.Settles = append(b.Settles, s)
		chosen = append(chosen, m)
	}
	if len(chosen) > 0 && e.rng.IntN(3) == 0 { // a settlement given twice counts once
		b.Settles = append(b.Settles, b.Settles[0])
	}
	return e.write(&b, chosen)
}

// settlement is an outcome of a claimed message.
func (e *engine) settlement(m *message, o mta.Outcome) mta.Settlement {
	attempts := m.attempts + 1
	reply := smtpc.Reply{Phase: smtpc.PhaseEndOfData, Code: 250, Text: "ok"}
	var v bounce.Verdict
	if o != mta.Delivered {
		reply = smtpc.Reply{Phase: smtpc.PhaseRCPT, Code: 450, Enhanced: "4.2.2", Text: "no\xff"}
		v = bounce.Verdict{Code: 22, Reason: bounce.ReasonMailboxFull, Type: bounce.TypeSoft, Tag: "mailbox_full", Disposition: bounce.Retry, Rule: "full"}
		v.Address = bounce.AddressEffect(e.rng.IntN(3))
		v.Hold = bounce.Hold(e.rng.IntN(3))
	}
	msg := e.relayed(m)
	msg.State.Attempts, msg.State.LastReply, msg.State.Last = attempts, reply, v
	s := mta.Settlement{
		Message: msg, Outcome: o, Time: e.m.now, Verdict: v, MessageID: m.messageID,
		Destination: []string{m.domain, "provider"}[e.rng.IntN(2)],
		Attempt:     &mta.Attempt{Number: attempts, Time: e.m.now, Source: "s", RemoteHost: "mx", Reply: reply},
		Provider:    []string{"", "google"}[e.rng.IntN(2)],
	}
	s.Attempt.Uncertain = o == mta.Deferred && e.rng.IntN(3) == 0
	if o == mta.Deferred {
		s.Next = e.m.now.Add(time.Duration(e.rng.IntN(3600)) * time.Second)
	}
	return s
}

// relayed is the message as the relay holds it.
func (e *engine) relayed(m *message) *mta.Message {
	n := &mta.Message{
		ID: m.id, Name: m.name(), Recipient: "X" + m.address[1:], Domain: m.domain, RecipientID: m.recipientID,
		Arrival: m.delivery.started, Expires: m.delivery.expires, Retry: m.waiting,
	}
	if m.delivery.transactional {
		n.Arrival, n.Expires = m.arrival, m.expires
	}
	n.State = mta.MessageState{Attempts: m.attempts, LostClaims: m.lost, FirstClaim: m.firstClaim, Due: m.due}
	return n
}

// write writes settlements of messages, and brings the model to where they lead.
func (e *engine) write(b *mta.Batch, chosen []*message) error {
	e.last = b
	w, err := e.store.Write(ctx(), b)
	if err != nil {
		return err
	}
	var over []uint64
	var touched []*delivery
	for i, m := range chosen {
		e.settled(m, &b.Settles[i])
		if !slices.Contains(touched, m.delivery) {
			touched = append(touched, m.delivery)
		}
	}
	for _, d := range touched {
		cancelled := d.state == campaign.Cancelled && len(d.unfinished()) == 0
		if e.m.finishIfDone(d) || cancelled {
			over = append(over, d.handover)
		}
	}
	slices.Sort(over)
	slices.Sort(w.Finished)
	if !slices.Equal(over, w.Finished) {
		return fmt.Errorf("write: finished %v, want %v", w.Finished, over)
	}
	return nil
}

func (e *engine) settled(m *message, s *mta.Settlement) {
	m.claimed, m.outcome, m.destination = false, s.Outcome, cmp.Or(s.Destination, m.destination, m.domain)
	m.reason, m.due = int32(s.Verdict.Reason), s.Next
	m.waiting = s.Outcome == mta.Deferred
	if s.Attempt != nil {
		m.attempts++
		m.attemptedAt = append(m.attemptedAt, m.destination)
		m.uncertain = s.Attempt.Uncertain
		switch s.Verdict.Hold {
		case bounce.HoldContent:
			m.contentAt = append(m.contentAt, m.destination)
		case bounce.HoldAuthentication:
			m.rejectedAt = append(m.rejectedAt, m.destination)
		}
	}
	e.affect(m, s)
	ev := event{
		kind: kinds[s.Outcome], delivery: m.delivery.name(), message: m.name(), recipient: "X" + m.address[1:],
		attempt: int32(m.attempts), willRetry: m.waiting && m.delivery.state != campaign.Cancelled,
		destination: m.destination, reason: m.reason,
	}
	e.m.events = append(e.m.events, ev)
}

var kinds = map[mta.Outcome]veredusv1.FeedbackType{
	mta.Delivered: veredusv1.FeedbackType_FEEDBACK_TYPE_DELIVERED,
	mta.Deferred:  veredusv1.FeedbackType_FEEDBACK_TYPE_DEFERRED,
	mta.Bounced:   veredusv1.FeedbackType_FEEDBACK_TYPE_BOUNCED,
	mta.Expired:   veredusv1.FeedbackType_FEEDBACK_TYPE_EXPIRED,
}

// release gives some claims back.
func (e *engine) release() error {
	b := mta.Batch{Epoch: e.m.epoch}
	var over []uint64
	var touched []*delivery
	for _, m := range e.m.claimed() {
		if e.rng.IntN(2) == 0 {
			b.Releases = append(b.Releases, m.id)
			m.claimed = false
			if !m.waiting {
				m.firstClaim, m.messageID = time.Time{}, ""
			}
			if !slices.Contains(touched, m.delivery) {
				touched = append(touched, m.delivery)
			}
		}
	}
	for _, d := range touched {
		if d.state == campaign.Cancelled && len(d.unfinished()) == 0 {
			over = append(over, d.handover)
		}
	}
	w, err := e.store.Write(ctx(), &b)
	if err != nil {
		return err
	}
	slices.Sort(w.Finished)
	slices.Sort(over)
	if !slices.Equal(over, w.Finished) {
		return fmt.Errorf("release: finished %v, want %v", w.Finished, over)
	}
	return nil
}

// expire lists what is unfinished and ends some of it without an attempt.
func (e *engine) expire() error {
	d := e.pick(func(d *delivery) bool { return d.active() && len(d.unfinished()) > 0 })
	if d == nil {
		return nil
	}
	b := mta.Batch{Epoch: e.m.epoch}
	var chosen []*message
	for _, m := range d.unfinished() {
		if m.claimed || e.rng.IntN(2) == 0 {
			continue
		}
		b.Settles = append(b.Settles, mta.Settlement{
			Message: e.relayed(m), Outcome: mta.Expired, Time: e.m.now, // its destination stays what it was
			Verdict: bounce.Verdict{Code: 24, Reason: bounce.ReasonUnreachable, Type: bounce.TypeIgnored}, Text: "validity ended",
		})
		chosen = append(chosen, m)
	}
	return e.write(&b, chosen)
}

// repeat writes the last settlements again; nothing may change.
func (e *engine) repeat() error {
	if e.last == nil {
		return nil
	}
	b := *e.last
	b.Epoch = e.m.epoch
	b.Settles = slices.DeleteFunc(slices.Clone(b.Settles), func(s mta.Settlement) bool {
		return slices.ContainsFunc(e.m.claimed(), func(m *message) bool { return m.id == s.Message.ID })
	})
	w, err := e.store.Write(ctx(), &b)
	if err == nil && len(w.Finished) != 0 {
		err = fmt.Errorf("repeated settlements finished %v", w.Finished)
	}
	return err
}

// stale writes with the epoch before; nothing may change.
func (e *engine) stale() error {
	b := mta.Batch{Epoch: e.m.epoch - 1}
	for _, m := range e.m.claimed() {
		b.Settles = append(b.Settles, e.settlement(m, mta.Delivered))
	}
	if _, err := e.store.Write(ctx(), &b); !errors.Is(err, mta.ErrFenced) {
		return fmt.Errorf("write with a stale epoch: got %v", err)
	}
	return nil
}

// recover begins an epoch: what is claimed is lost, and waits for a retry.
func (e *engine) recover() error {
	lost := e.m.claimed()
	rec, err := e.store.Recover(ctx(), e.m.now)
	if err != nil {
		return err
	}
	if rec.Epoch != e.m.epoch+1 {
		return fmt.Errorf("recovered epoch %d behind %d", rec.Epoch, e.m.epoch)
	}
	e.m.epoch = rec.Epoch
	if len(rec.Lost) != len(lost) {
		return fmt.Errorf("recover: %d lost claims, want %d", len(rec.Lost), len(lost))
	}
	for i, m := range lost {
		m.lost++
		want := mta.LostClaim{ID: m.id, Name: m.name(), MessageID: m.messageID, Claims: m.lost}
		if rec.Lost[i] != want {
			return fmt.Errorf("recover: lost %+v, want %+v", rec.Lost[i], want)
		}
		m.claimed, m.waiting, m.due = false, true, e.m.now
	}
	return e.compareHandovers(rec.Handovers)
}

func (e *engine) reopen() error {
	if err := e.driver.Close(); err != nil {
		return err
	}
	var err error
	if e.store, err = e.driver.Open(e.now); err != nil {
		return err
	}
	if err := e.compare(e.m); err != nil {
		return fmt.Errorf("reopened: %w", err)
	}
	return e.recover()
}

// suspend puts or removes a suspension.
func (e *engine) suspend() error {
	if n := len(e.m.suspensions); n > 0 && e.rng.IntN(2) == 0 {
		i := e.rng.IntN(n)
		if _, err := e.store.DeleteSuspension(ctx(), e.m.suspensions[i].ID, nil, suspend.Request{}); err != nil {
			return err
		}
		e.m.suspensions = slices.Delete(e.m.suspensions, i, i+1)
		return nil
	}
	s := suspend.Suspension{
		ID:       fmt.Sprintf("s%020d", e.rng.Uint64()),
		Selector: suspend.Selector{Kind: suspend.Tenant, Value: fmt.Sprint(e.rng.IntN(3))},
		Reason:   fmt.Sprint(e.rng.IntN(100)), Created: e.m.now,
	}
	got, err := e.store.PutSuspension(ctx(), s, nil, suspend.Request{})
	if err != nil {
		return err
	}
	for i, old := range e.m.suspensions {
		if old.Selector == s.Selector {
			s.ID, s.Created = old.ID, old.Created
			e.m.suspensions = slices.Delete(e.m.suspensions, i, i+1)
			break
		}
	}
	if got != s {
		return fmt.Errorf("put suspension: got %+v, want %+v", got, s)
	}
	e.m.suspensions = append(e.m.suspensions, s)
	slices.SortFunc(e.m.suspensions, func(a, b suspend.Suspension) int { return strings.Compare(a.ID, b.ID) })
	return nil
}

// cut cuts the power in the middle of another operation. What that operation did
// is there wholly or not at all; wholly if it was answered before.
func (e *engine) cut() error {
	before := e.m.clone()
	kind := []opKind{
		opCreate, opAdd, opStart, opPause, opCancel, opDelete, opClaim, opSettle, opRelease, opExpire, opSuspend,
		opReturn, opUnsubscribe, opAddresses, opTexts, opHurry, opPurge,
	}[e.rng.IntN(17)]
	cutRNG := rand.New(rand.NewPCG(e.rng.Uint64(), 2))
	yields := cutRNG.IntN(200)
	e.note("  cut during %s", opNames[kind])
	done := make(chan error, 1)
	e.cutting = true
	defer func() { e.cutting = false }()
	go func() { done <- e.do(kind) }()
	var answered bool
	var err error
	for range yields {
		runtime.Gosched()
	}
	select {
	case err = <-done:
		answered = true
	default:
	}
	e.driver.Cut(cutRNG)
	if !answered {
		err = <-done
	}
	if err != nil {
		return fmt.Errorf("operation during a power cut: %w", err)
	}
	return e.afterCut(before, answered)
}

// afterCut opens what is left.
func (e *engine) afterCut(before *model, answered bool) error {
	_ = e.driver.Close()
	var err error
	if e.store, err = e.driver.Open(e.now); err != nil {
		return fmt.Errorf("opening after a power cut: %w", err)
	}
	e.last = nil
	err = e.compare(e.m)
	if err != nil && !answered {
		if other := e.compare(before); other != nil {
			return fmt.Errorf("after a power cut the store is neither as before the operation:\n%w\nnor as behind it:\n%w", other, err)
		}
		e.m, err = before, nil
	}
	if err != nil {
		return fmt.Errorf("lost in a power cut: %w", err)
	}
	return e.recover()
}
