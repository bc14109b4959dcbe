// Package virtual tells stories about the relay in virtual time: real store, real
// relay, real sessions, over a network in memory, in a testing/synctest bubble in
// which 84 hours pass at once and every instant is exact.
package virtual

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/returnpath"
	"github.com/veredus/veredus/mxrules"
	"github.com/veredus/veredus/mxrules/rulefile"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
	"github.com/veredus/veredus/server/storage/pebblestore"
)

// signer is one RSA key for all tests; generating one takes longer than most of them.
// It is short, since signing is most of the work here.
var signer = sync.OnceValues(func() (*dkim.Keyring, error) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		return nil, err
	}
	k, err := dkim.NewKey("sender.example", "s1", key)
	if err != nil {
		return nil, err
	}
	return dkim.NewKeyring([]*dkim.Key{k})
})

// rig is a relay with its store and receivers.
type rig struct {
	t         *testing.T
	fs        *vfs.MemFS
	store     *pebblestore.Store
	relay     *mta.Relay
	proc      *process
	lost      []mta.LostClaim // of the last start
	mayRepeat map[string]bool // messages that some start listed as lost
	world     *receivers
	began     time.Time
	adjust    func(*mta.Config)
	disk      func() time.Duration // how long a write takes; nil: no time
}

// process is what dies in a crash: its writes and its connections.
type process struct {
	*pebblestore.Store
	disk   func() time.Duration
	dead   chan struct{} // closed at the crash: nothing it does has an effect any more
	reaped chan struct{} // closed when its remains are cleared away
}

var errKilled = errors.New("the process was killed")

func (p *process) killed() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// Write takes its time before and after the store's own.
func (p *process) Write(ctx context.Context, b *mta.Batch) (mta.Written, error) {
	if p.disk != nil {
		time.Sleep(p.disk())
	}
	if p.killed() {
		<-p.reaped
		return mta.Written{}, errKilled
	}
	out, err := p.Store.Write(ctx, b)
	if p.disk != nil {
		time.Sleep(p.disk())
	}
	if p.killed() {
		<-p.reaped
		return mta.Written{}, errKilled
	}
	return out, err
}

// newRig starts a relay; options change the rig before that.
func newRig(t *testing.T, options ...func(*rig)) *rig {
	t.Helper()
	r := &rig{t: t, fs: vfs.NewMem(), world: newReceivers(), began: time.Now(), mayRepeat: map[string]bool{}}
	for _, o := range options {
		o(r)
	}
	r.open()
	return r
}

// crashable gives the rig a file system that forgets what was not synced.
func crashable(r *rig) { r.fs = vfs.NewCrashableMem() }

// rules puts a rule file in force.
func rules(file string) func(*rig) {
	return func(r *rig) {
		parsed, err := rulefile.Parse("mx.yaml", []byte(file))
		if err != nil {
			r.t.Fatal(err)
		}
		r.configure(func(c *mta.Config) { c.Settings.Rules = parsed })
	}
}

// configure changes what every relay of the rig is made of.
func (r *rig) configure(change func(*mta.Config)) {
	before := r.adjust
	r.adjust = func(c *mta.Config) {
		if before != nil {
			before(c)
		}
		change(c)
	}
}

// open starts a process over the file system.
func (r *rig) open() {
	r.t.Helper()
	store, err := pebblestore.Open(pebblestore.Options{
		Dir: "data", FS: r.fs, Compactions: pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest(),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	keys, err := signer()
	if err != nil {
		r.t.Fatal(err)
	}
	tokens, err := returnpath.NewKeys(returnpath.Key{ID: 1, Secret: [32]byte{1, 2, 3}})
	if err != nil {
		r.t.Fatal(err)
	}
	p := &process{Store: store, disk: r.disk, dead: make(chan struct{}), reaped: make(chan struct{})}
	cfg := mta.Config{
		Store: p, Resolver: r.world, Dial: r.world.dialer(p), Tokens: tokens,
		Settings: mta.Settings{
			Rules: mxrules.Builtin(), Bounces: bounce.Default(), Keys: keys,
			Pools:        []dispatch.Pool{{Name: "default", Sources: []dispatch.Source{{Name: "s1", Weight: 1}}}},
			HelloNames:   map[string]string{"s1": "mta.sender.example", "s2": "mta2.sender.example"},
			BounceDomain: func(from string) string { return "bounce." + from },
		},
		Fatal: func(err error) {
			if !p.killed() {
				r.t.Error(err)
			}
		},
	}
	if r.adjust != nil {
		r.adjust(&cfg)
	}
	r.store, r.proc, r.relay = store, p, mta.New(cfg)
	if r.lost, err = r.relay.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	for _, l := range r.lost {
		r.mayRepeat[l.Name] = true
	}
}

// close ends the process gracefully.
func (r *rig) close() {
	r.t.Helper()
	if err := r.relay.Stop(context.Background()); err != nil {
		r.t.Errorf("stop: %v", err)
	}
	if err := r.store.Close(); err != nil {
		r.t.Errorf("close: %v", err)
	}
}

// crash kills the process and cuts the power: of what was not synced a random part
// is there when another one starts. The rig must be crashable.
func (r *rig) crash(rng *mathrand.Rand) {
	r.t.Helper()
	r.world.kill(r.proc)
	r.fs = r.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	close(r.proc.reaped)
	at, cancel := context.WithCancel(context.Background())
	cancel()
	_ = r.relay.Stop(at)
	_ = r.store.Close()
	r.open()
}

// start creates a delivery to the recipients and hands it over.
func (r *rig) start(id string, validity time.Duration, recipients ...string) *campaign.Delivery {
	r.t.Helper()
	return r.startAs(id, validity, &veredusv1.Delivery{}, recipients...)
}

// startAs is start with more to say about the delivery.
func (r *rig) startAs(id string, validity time.Duration, spec *veredusv1.Delivery, recipients ...string) *campaign.Delivery {
	r.t.Helper()
	ctx := r.t.Context()
	if spec.Sender == nil {
		spec.Sender = &veredusv1.Sender{From: "news@sender.example"}
	}
	if spec.Content == nil {
		spec.Content = &veredusv1.Content{Subject: "Hello", Text: "Dear {{ recipient.address }}"}
	}
	if _, err := r.store.Create(ctx, &campaign.Delivery{ID: id, State: campaign.Draft, Spec: spec}, campaign.Request{}); err != nil {
		r.t.Fatal(err)
	}
	var items []campaign.Item
	for i, address := range recipients {
		items = append(items, itemOf(address))
		items[i].Index = int64(i + 1)
	}
	for chunk := range slices.Chunk(items, 1000) {
		if _, err := r.store.Add(ctx, id, chunk); err != nil {
			r.t.Fatal(err)
		}
	}
	return r.change(id, func(d *campaign.Delivery) []campaign.Event {
		now := time.Now()
		d.State, d.Started, d.Expires = campaign.Running, now, now.Add(min(validity, mta.MaxValidity))
		return []campaign.Event{{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_STARTED, Count: d.Counters.Start(now)}}
	}, func(d *campaign.Delivery) error { r.relay.HandOver(d.HandOver()); return nil })
}

// itemOf is a recipient. What follows a space in the address are its variables.
func itemOf(recipient string) campaign.Item {
	address, variables, _ := strings.Cut(recipient, " ")
	_, domain, _ := strings.Cut(address, "@")
	item := campaign.Item{Address: address, Folded: address, Domain: domain}
	if variables != "" {
		item.Variables = []byte(variables)
	}
	return item
}

// send sends one transactional message.
func (r *rig) send(recipient string, validity time.Duration, pool string) mta.MessageID {
	r.t.Helper()
	item, now := itemOf(recipient), time.Now()
	h, id, err := r.store.Send(r.t.Context(), campaign.Single{
		Tenant: campaign.DefaultTenant, Item: item, Validity: validity, Time: now,
		Content: &veredusv1.Delivery{
			Sender:  &veredusv1.Sender{From: "service@sender.example"},
			Content: &veredusv1.Content{Subject: "Your code", Text: "It is 1234"}, Pool: pool,
		},
	}, campaign.Request{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.relay.Arrived(h, id, item.Domain, now.Add(validity))
	return id
}

func (r *rig) change(id string, change func(*campaign.Delivery) []campaign.Event, then func(*campaign.Delivery) error) *campaign.Delivery {
	r.t.Helper()
	d, err := r.store.Change(r.t.Context(), id, campaign.Request{}, func(d *campaign.Delivery) ([]campaign.Event, error) {
		return change(d), nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := then(d); err != nil {
		r.t.Fatal(err)
	}
	return d
}

func (r *rig) pause(id string) {
	r.t.Helper()
	r.change(id, func(d *campaign.Delivery) []campaign.Event { d.State = campaign.Paused; return nil },
		func(d *campaign.Delivery) error { return r.relay.Pause(r.t.Context(), d.No) })
}

func (r *rig) resume(id string) {
	r.t.Helper()
	r.change(id, func(d *campaign.Delivery) []campaign.Event { d.State = campaign.Running; return nil },
		func(d *campaign.Delivery) error { return r.relay.Unpause(r.t.Context(), d.No) })
}

func (r *rig) cancel(id string) {
	r.t.Helper()
	r.change(id, func(d *campaign.Delivery) []campaign.Event {
		d.State = campaign.Cancelled
		return []campaign.Event{{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_CANCELLED, Count: d.Counters.Cancel()}}
	}, func(d *campaign.Delivery) error { return r.relay.Cancel(r.t.Context(), d.No) })
}

// delivery reads it, and checks that its ledger balances.
func (r *rig) delivery(id string) *campaign.Delivery {
	r.t.Helper()
	d, err := r.store.Get(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := d.Counters.Balance(); err != nil {
		r.t.Errorf("after %v: %v", time.Since(r.began), err)
	}
	return d
}

// over reports whether a delivery is final.
func over(d *campaign.Delivery) bool {
	return d.State == campaign.Finished || d.State == campaign.Cancelled && d.Counters.InRelay == 0
}

// await lets time pass until the delivery is final, at most limit.
func (r *rig) await(id string, limit time.Duration) *campaign.Delivery {
	r.t.Helper()
	deadline := time.After(limit)
	for {
		changed := r.store.Changed(id)
		if d := r.delivery(id); over(d) {
			return d
		}
		select {
		case <-changed:
		case <-deadline:
			r.t.Fatalf("delivery %s is not final after %v: %+v", id, limit, r.delivery(id).Counters)
		}
	}
}

// pass lets time go by, and waits until everything has happened that was to happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// events are all events so far of one recipient; "" for all.
func (r *rig) events(recipient string) []*veredusv1.FeedbackEvent {
	r.t.Helper()
	var list []*veredusv1.FeedbackEvent
	at, _ := r.store.Ends()
	for {
		page, next, err := r.store.Read(r.t.Context(), at, 1000)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, e := range page {
			if recipient == "" || e.GetRecipient() == recipient {
				list = append(list, e)
			}
		}
		if len(page) == 0 || slices.Equal(next, at) {
			return list
		}
		at = next
	}
}

func typeName(e *veredusv1.FeedbackEvent) string {
	return strings.ToLower(strings.TrimPrefix(e.GetType().String(), "FEEDBACK_TYPE_"))
}

// history is a recipient's events as "type@time since the beginning".
func (r *rig) history(recipient string) []string {
	r.t.Helper()
	var list []string
	for _, e := range r.events(recipient) {
		list = append(list, fmt.Sprintf("%s@%v", typeName(e), e.GetTime().AsTime().Sub(r.began)))
	}
	return list
}

// books compares what the receivers have with what the relay says, delivery by
// delivery: each recipient has one final event or was cancelled, what was sent is
// there, and it is there twice only if a repeat was announced.
func (r *rig) books(recipients []string) {
	r.t.Helper()
	finals, uncertain, message := map[string]string{}, map[string]bool{}, map[string]string{}
	for _, e := range r.events("") {
		to := e.GetRecipient()
		if to == "" {
			continue
		}
		message[to] = e.GetMessage()
		uncertain[to] = uncertain[to] || e.GetDeliveryUncertain()
		if e.GetType() != veredusv1.FeedbackType_FEEDBACK_TYPE_DEFERRED && e.GetType() != veredusv1.FeedbackType_FEEDBACK_TYPE_TAKEN_INTO_ACCOUNT {
			if finals[to] != "" {
				r.t.Errorf("%s ended twice: %s, then %s", to, finals[to], typeName(e))
			}
			finals[to] = typeName(e)
		}
	}
	for _, to := range recipients {
		bodies := r.world.inbox(to)
		if finals[to] == "delivered" && len(bodies) == 0 {
			r.t.Errorf("%s is delivered, but nobody has it", to)
		}
		announced := r.mayRepeat[message[to]] || uncertain[to]
		if len(bodies) > 1 && !announced {
			r.t.Errorf("%s was sent %d times without notice", to, len(bodies))
		}
		if len(bodies) > 0 && finals[to] != "delivered" && !announced {
			r.t.Errorf("%s has the mail, its end is %q", to, finals[to])
		}
		for _, b := range bodies {
			if unsigned(b) != unsigned(bodies[0]) {
				r.t.Errorf("%s got another mail at the repeat:\n%s\n--- at first\n%s", to, b, bodies[0])
			}
		}
	}
}

// unsigned is a mail without its signature, whose time differs between attempts.
func unsigned(mail string) string {
	_, rest, _ := strings.Cut(mail, "\r\nFrom:")
	return rest
}

// seeded runs a story in a bubble of its own for each of n seeds; VEREDUS_SEEDS names
// others, as "7" or "1-500".
func seeded(t *testing.T, n uint64, story func(t *testing.T, rng *mathrand.Rand)) {
	first, last := uint64(1), n
	if s := os.Getenv("VEREDUS_SEEDS"); s != "" {
		from, to, more := strings.Cut(s, "-")
		var errFrom, errTo error
		first, errFrom = strconv.ParseUint(from, 10, 64)
		if last = first; more {
			last, errTo = strconv.ParseUint(to, 10, 64)
		}
		if err := errors.Join(errFrom, errTo); err != nil {
			t.Fatalf("VEREDUS_SEEDS %q: %v", s, err)
		}
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { story(t, mathrand.New(mathrand.NewPCG(seed, 7))) })
		})
	}
}

// many are n addresses spread over domains.
func many(n int, domains ...string) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("u%d@%s", i, domains[i%len(domains)])
	}
	return list
}

var _ feedback.Log = (*pebblestore.Store)(nil)

func everything() dispatch.Selector { return dispatch.Selector{Kind: dispatch.Everything} }
