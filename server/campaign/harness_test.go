package campaign_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/smtpc"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/storage/pebblestore"
)

var _ campaign.Relay = (*mta.Relay)(nil)

// start is when every story begins.
var start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// node is a service over the real store in memory, with a relay that does what the
// story says.
type node struct {
	*campaign.Service
	t     testing.TB
	store *pebblestore.Store
	relay *relay
	epoch uint64

	mu       sync.Mutex
	clock    time.Time
	keys     map[string][]*dkim.Key
	back     map[string]string // bounce domains
	stopping chan struct{}
	given    []campaign.Ingested
	hosted   string // public.url
	excluded *exclusions
}

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{t: t, clock: start, keys: map[string][]*dkim.Key{}, back: map[string]string{}, stopping: make(chan struct{}), excluded: &exclusions{}}
	store, err := pebblestore.Open(pebblestore.Options{Dir: "store", FS: vfs.NewMem(), Now: n.now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	recovery, err := store.Recover(t.Context(), n.now())
	if err != nil {
		t.Fatal(err)
	}
	n.store, n.epoch, n.relay = store, recovery.Epoch, &relay{waits: map[mta.MessageID]dispatch.Wait{}}
	n.addKey("shop.example")
	n.Service = campaign.NewService(n.options(store, store))
	return n
}

func (n *node) options(deliveries campaign.Deliveries, recipients campaign.Recipients) campaign.Options {
	return campaign.Options{
		Deliveries: deliveries, Recipients: recipients, Log: n.store, Relay: n.relay,
		Keys: func(domain string) []*dkim.Key {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.keys[domain]
		},
		BounceDomain: func(from string) string {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.back[from]
		},
		HasPool: func(name string) bool { return name == "default" || name == "warm" },
		HostedURL: func() string {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.hosted
		},
		Addresses: n.excluded,
		Ingested: func(i campaign.Ingested) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.given = append(n.given, i)
		},
		Now: n.now, Stopping: n.stopping,
	}
}

func (n *node) now() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.clock
}

// pass lets time go by.
func (n *node) pass(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.clock = n.clock.Add(d)
}

func (n *node) addKey(domain string) {
	n.t.Helper()
	_, signer, err := ed25519.GenerateKey(nil)
	if err != nil {
		n.t.Fatal(err)
	}
	key, err := dkim.NewKey(domain, "s1", signer)
	if err != nil {
		n.t.Fatal(err)
	}
	n.keys[domain] = []*dkim.Key{key}
}

// spec is a delivery that can be sent.
func spec() *veredusv1.Delivery {
	return &veredusv1.Delivery{
		Sender:      &veredusv1.Sender{From: "news@shop.example", DisplayName: "The Shop"},
		Content:     &veredusv1.Content{Subject: "Hello {{ name }}", Text: "Dear {{ name }}, look at this."},
		Unsubscribe: &veredusv1.Unsubscribe{Mode: veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_OWN_URL, Url: "https://shop.example/u/{{ id }}"},
	}
}

func person(i int) *veredusv1.Recipient {
	return &veredusv1.Recipient{
		Address: fmt.Sprintf("person%d@mail%d.example", i, i%3), RecipientId: fmt.Sprintf("crm-%d", i),
		Variables: []byte(fmt.Sprintf(`{"name":"Person %d","id":%d}`, i, i)), Metadata: map[string]string{"segment": "a"},
	}
}

func people(from, to int) []*veredusv1.Recipient {
	var list []*veredusv1.Recipient
	for i := from; i <= to; i++ {
		list = append(list, person(i))
	}
	return list
}

func (n *node) create(id string, change ...func(*veredusv1.Delivery)) *veredusv1.Delivery {
	n.t.Helper()
	d := spec()
	for _, c := range change {
		c(d)
	}
	return must(n.t)(n.CreateDelivery(n.t.Context(), &veredusv1.CreateDeliveryRequest{DeliveryId: id, Delivery: d}))
}

// add puts recipients straight into the store.
func (n *node) add(id string, list ...*veredusv1.Recipient) {
	n.t.Helper()
	if err := n.tryAdd(id, list...); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) tryAdd(id string, list ...*veredusv1.Recipient) error {
	last, err := n.store.DurableIndex(n.t.Context(), id)
	if err != nil {
		return err
	}
	items := make([]campaign.Item, len(list))
	for i, r := range list {
		domain := r.GetAddress()[strings.IndexByte(r.GetAddress(), '@')+1:]
		items[i] = campaign.Item{
			Index: last + int64(i) + 1, Address: r.GetAddress(), Folded: strings.ToLower(r.GetAddress()), Domain: domain,
			Variables: r.GetVariables(), RecipientID: r.GetRecipientId(), Metadata: r.GetMetadata(),
		}
	}
	_, err = n.store.Add(n.t.Context(), id, items)
	return err
}

func (n *node) get(id string) *veredusv1.Delivery {
	n.t.Helper()
	return must(n.t)(n.GetDelivery(n.t.Context(), &veredusv1.GetDeliveryRequest{Name: "deliveries/" + id}))
}

func (n *node) prepare(id string) *veredusv1.PrepareDeliveryResponse {
	n.t.Helper()
	r, err := n.PrepareDelivery(n.t.Context(), &veredusv1.PrepareDeliveryRequest{Name: "deliveries/" + id})
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

func (n *node) begin(id string) *veredusv1.Delivery {
	n.t.Helper()
	return must(n.t)(n.StartDelivery(n.t.Context(), &veredusv1.StartDeliveryRequest{Name: "deliveries/" + id}))
}

// running is a delivery in the relay with people 1 to n.
func (n *node) running(id string, count int, change ...func(*veredusv1.Delivery)) *veredusv1.Delivery {
	n.t.Helper()
	n.create(id, change...)
	n.add(id, people(1, count)...)
	n.prepare(id)
	return n.begin(id)
}

func must(t testing.TB) func(*veredusv1.Delivery, error) *veredusv1.Delivery {
	t.Helper()
	return func(d *veredusv1.Delivery, err error) *veredusv1.Delivery {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
}

// loaded reads the delivery's unfinished messages as the relay does.
func (n *node) loaded(id string) map[string]*mta.Message {
	n.t.Helper()
	d, err := n.store.Get(n.t.Context(), id)
	if err != nil {
		n.t.Fatal(err)
	}
	all := map[string]*mta.Message{}
	runs, err := n.store.Runs(n.t.Context(), d.Handover, 0, 100)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, run := range runs {
		got, err := n.store.Load(n.t.Context(), mta.LoadRequest{
			Handover: d.Handover, Domain: run.Domain, From: run.Mark, Fresh: 1000, Due: 1000, Now: n.now().Add(30 * 24 * time.Hour),
		})
		if err != nil {
			n.t.Fatal(err)
		}
		for _, m := range append(got.Fresh, got.Due...) {
			all[m.Recipient] = m
		}
	}
	return all
}

// claim claims a message durably.
func (n *node) claim(m *mta.Message) {
	n.t.Helper()
	n.write(&mta.Batch{Claims: []mta.Claim{{Message: m, Time: n.now(), MessageID: "token@" + m.Domain}}})
}

// settle ends an attempt; reply is what the server said, 0 for delivered.
func (n *node) settle(m *mta.Message, outcome mta.Outcome, verdict bounce.Verdict, text string) {
	n.t.Helper()
	m.State.Attempts++
	s := mta.Settlement{
		Message: m, Outcome: outcome, Time: n.now(), Verdict: verdict, Text: text, Destination: "provider of " + m.Domain,
		MessageID: "token@" + m.Domain,
		Attempt: &mta.Attempt{
			Number: m.State.Attempts, Time: n.now(), Duration: time.Second, Source: "s1", RemoteHost: "mx." + m.Domain,
			Reply: smtpc.Reply{Phase: smtpc.PhaseEndOfData, Code: 250, Text: text},
		},
	}
	if outcome == mta.Deferred {
		s.Next = n.now().Add(20 * time.Minute)
	}
	n.write(&mta.Batch{Settles: []mta.Settlement{s}})
}

func (n *node) write(b *mta.Batch) {
	n.t.Helper()
	b.Epoch = n.epoch
	if _, err := n.store.Write(n.t.Context(), b); err != nil {
		n.t.Fatal(err)
	}
}

// events are the types of all events so far, of one delivery.
func (n *node) events(id string) []string {
	n.t.Helper()
	oldest, _ := n.store.Ends()
	list, _, err := n.store.Read(n.t.Context(), oldest, 10_000)
	if err != nil {
		n.t.Fatal(err)
	}
	var types []string
	for _, e := range list {
		if e.GetDelivery() != "deliveries/"+id {
			continue
		}
		text := strings.ToLower(strings.TrimPrefix(e.GetType().String(), "FEEDBACK_TYPE_"))
		if e.GetCount() > 0 {
			text += fmt.Sprintf(" %d", e.GetCount())
		}
		if e.GetText() != "" && e.GetMessage() == "" {
			text += ": " + e.GetText()
		}
		types = append(types, text)
	}
	return types
}

// relay is a relay that remembers what it was told.
type relay struct {
	mu      sync.Mutex
	told    []string
	last    map[uint64]string // pause, unpause or cancel, by delivery
	waits   map[mta.MessageID]dispatch.Wait
	sending map[mta.MessageID]bool
	fail    error
}

func (r *relay) tell(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, fmt.Sprintf(format, args...))
}

// heard are the calls since the last time.
func (r *relay) heard() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	told := r.told
	r.told = nil
	return told
}

func (r *relay) HandOver(h *mta.Handover) { r.tell("hand over %s", h.DeliveryID) }

func (r *relay) Arrived(h *mta.Handover, _ mta.MessageID, domain string, expires time.Time) {
	r.tell("arrived %s at %s, expires %s", h.DeliveryID, domain, expires.Format(time.DateTime))
}

func (r *relay) Pause(_ context.Context, d uint64) error   { return r.steer("pause", d) }
func (r *relay) Unpause(_ context.Context, d uint64) error { return r.steer("unpause", d) }
func (r *relay) Cancel(_ context.Context, d uint64) error  { return r.steer("cancel", d) }

func (r *relay) steer(what string, d uint64) error {
	r.tell("%s %d", what, d)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = map[uint64]string{}
	}
	r.last[d] = what
	return r.fail
}

func (r *relay) Update(_ context.Context, d uint64, pool string, priority int, expires time.Time) error {
	r.tell("update %d: %s, %d, %s", d, pool, priority, expires.Format(time.DateTime))
	return r.fail
}

func (r *relay) Waiting(_ context.Context, id mta.MessageID) (dispatch.Wait, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waits[id], r.sending[id], r.fail
}

// violated are the fields that an error finds fault with.
func violated(t testing.TB, err error) []string {
	t.Helper()
	var bad *campaign.InvalidError
	if !errors.As(err, &bad) {
		t.Fatalf("%v is no InvalidError", err)
	}
	var fields []string
	for _, v := range bad.Violations {
		if v.Field == "" || v.Problem == "" || v.Remedy == "" {
			t.Errorf("violation %+v does not name field, problem and remedy", v)
		}
		fields = append(fields, v.Field)
	}
	return fields
}

func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if a, ok := got.([]string); ok {
		if !slices.Equal(a, want.([]string)) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
		return
	}
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func same(t testing.TB, what string, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, prototext.Format(got), prototext.Format(want))
	}
}
