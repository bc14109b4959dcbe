// Package virtual tells stories about the relay in virtual time: real store, real
// relay, real sessions, over a network in memory, in a testing/synctest bubble in
// which 84 hours pass at once and every instant is exact.
package virtual

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/integration/memnet"
	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/returnpath"
	"github.com/veredus/veredus/mta/route"
	"github.com/veredus/veredus/mxrules"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
	"github.com/veredus/veredus/server/storage/pebblestore"
)

// signer is one RSA key for all tests; generating one takes longer than most of them.
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

// rig is a relay with its store and receivers.
type rig struct {
	t     *testing.T
	fs    *vfs.MemFS
	store *pebblestore.Store
	relay *mta.Relay
	lost  []mta.LostClaim
	world *receivers
	began time.Time
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, fs: vfs.NewMem(), world: newReceivers(), began: time.Now()}
	r.open()
	return r
}

// open starts a process over the file system.
func (r *rig) open() {
	r.t.Helper()
	store, err := pebblestore.Open(pebblestore.Options{Dir: "data", FS: r.fs})
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
	r.store = store
	r.relay = mta.New(mta.Config{
		Store: store, Resolver: r.world, Dial: r.world.dial, Tokens: tokens,
		Settings: mta.Settings{
			Rules: mxrules.Builtin(), Bounces: bounce.Default(), Keys: keys,
			Pools:        []dispatch.Pool{{Name: "default", Sources: []dispatch.Source{{Name: "s1", Weight: 1}}}},
			HelloNames:   map[string]string{"s1": "mta.sender.example"},
			BounceDomain: func(from string) string { return "bounce." + from },
		},
		Fatal: func(err error) { r.t.Error(err) },
	})
	if r.lost, err = r.relay.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
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

// start creates a delivery to the recipients and hands it over.
func (r *rig) start(id string, validity time.Duration, recipients ...string) *campaign.Delivery {
	r.t.Helper()
	ctx := r.t.Context()
	_, err := r.store.Create(ctx, &campaign.Delivery{ID: id, State: campaign.Draft, Spec: &veredusv1.Delivery{
		Sender:  &veredusv1.Sender{From: "news@sender.example"},
		Content: &veredusv1.Content{Subject: "Hello", Text: "Dear {{ recipient.address }}"},
	}}, campaign.Request{})
	if err != nil {
		r.t.Fatal(err)
	}
	var items []campaign.Item
	for i, address := range recipients {
		_, domain, _ := strings.Cut(address, "@")
		items = append(items, campaign.Item{Index: int64(i + 1), Address: address, Folded: address, Domain: domain})
	}
	if _, err := r.store.Add(ctx, id, items); err != nil {
		r.t.Fatal(err)
	}
	return r.change(id, func(d *campaign.Delivery) []campaign.Event {
		now := time.Now()
		d.State, d.Started, d.Expires = campaign.Running, now, now.Add(min(validity, mta.MaxValidity))
		return []campaign.Event{{Type: veredusv1.FeedbackType_FEEDBACK_TYPE_STARTED, Count: d.Counters.Start(now)}}
	}, func(d *campaign.Delivery) error { r.relay.HandOver(d.HandOver()); return nil })
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

// await lets time pass until the delivery is final, at most limit.
func (r *rig) await(id string, limit time.Duration) *campaign.Delivery {
	r.t.Helper()
	deadline := time.After(limit)
	for {
		changed := r.store.Changed(id)
		if d := r.delivery(id); d.State == campaign.Finished || d.State == campaign.Cancelled && d.Counters.InRelay == 0 {
			return d
		}
		select {
		case <-changed:
		case <-deadline:
			r.t.Fatalf("delivery %s is not final after %v: %+v", id, limit, r.delivery(id).Counters)
		}
	}
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

// history is a recipient's events as "type@time since the beginning".
func (r *rig) history(recipient string) []string {
	r.t.Helper()
	var list []string
	for _, e := range r.events(recipient) {
		name := strings.ToLower(strings.TrimPrefix(e.GetType().String(), "FEEDBACK_TYPE_"))
		list = append(list, fmt.Sprintf("%s@%v", name, e.GetTime().AsTime().Sub(r.began)))
	}
	return list
}

var _ feedback.Log = (*pebblestore.Store)(nil)

// receivers are the mail hosts of every domain: mx.<domain>.
type receivers struct {
	mu       sync.Mutex
	start    time.Time
	scripts  map[string][]string      // by recipient: replies of successive attempts; the last one stays
	attempts map[string][]time.Time   // by recipient: instants of RCPT
	bodies   map[string][]string      // by recipient: contents whose final dot came
	down     map[string]time.Time     // by domain: refuses connections until then
	greeting map[string]string        // by domain: greeting instead of 220
	gates    map[string]chan struct{} // by recipient: the final reply waits for it
	conns    int
}

func newReceivers() *receivers {
	return &receivers{
		start: time.Now(), scripts: map[string][]string{}, attempts: map[string][]time.Time{}, bodies: map[string][]string{},
		down: map[string]time.Time{}, greeting: map[string]string{}, gates: map[string]chan struct{}{},
	}
}

// Route implements mta.Resolver. nx.example does not exist; null.example accepts no mail.
func (w *receivers) Route(_ context.Context, domain string) (*route.Route, error) {
	expires := time.Now().Add(time.Hour)
	switch domain {
	case "nx.example":
		return nil, &route.Error{Kind: route.NXDomain, Domain: domain, Expires: expires}
	case "null.example":
		return nil, &route.Error{Kind: route.NullMX, Domain: domain, Expires: expires}
	}
	return &route.Route{
		Domain: domain, Destination: domain, Expires: expires,
		Hosts: []route.Host{{Name: "mx." + domain, Preference: 10, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}},
	}, nil
}

func (w *receivers) dial(_ context.Context, t mta.Target) (net.Conn, error) {
	domain := strings.TrimPrefix(t.Host, "mx.")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns++
	if time.Now().Before(w.down[domain]) {
		return nil, fmt.Errorf("connection refused")
	}
	client, server := memnet.Pipe(64 << 10)
	go w.serve(server, domain)
	return client, nil
}

// say scripts the replies to a recipient's attempts. A reply to RCPT begins with
// its code; "dot 550 ..." answers the final dot; "drop" takes the content and ends
// the line before its reply; "" accepts.
func (w *receivers) say(recipient string, replies ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.scripts[recipient] = replies
}

func (w *receivers) attempt(recipient string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.attempts[recipient])
	w.attempts[recipient] = append(w.attempts[recipient], time.Now())
	script := w.scripts[recipient]
	if len(script) == 0 {
		return ""
	}
	return script[min(n, len(script)-1)]
}

// instants are a recipient's attempts since the beginning.
func (w *receivers) instants(recipient string) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []time.Duration
	for _, at := range w.attempts[recipient] {
		list = append(list, at.Sub(w.start))
	}
	return list
}

func (w *receivers) received(recipient string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.bodies[recipient])
}

func (w *receivers) total() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, bodies := range w.bodies {
		n += len(bodies)
	}
	return n
}

func (w *receivers) serve(conn net.Conn, domain string) {
	defer conn.Close()
	w.mu.Lock()
	greeting := w.greeting[domain]
	w.mu.Unlock()
	if greeting == "" {
		greeting = "220 mx ESMTP"
	}
	fmt.Fprintf(conn, "%s\r\n", greeting)
	in := bufio.NewReader(conn)
	var script, recipient string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		reply := "250 2.0.0 ok"
		switch verb := strings.ToUpper(strings.TrimSpace(line)); {
		case strings.HasPrefix(verb, "EHLO"):
			reply = "250-mx\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES"
		case strings.HasPrefix(verb, "RCPT"):
			recipient = line[strings.IndexByte(line, '<')+1 : strings.IndexByte(line, '>')]
			if script = w.attempt(recipient); script != "" && script[0] >= '4' && script[0] <= '5' {
				reply = script
			}
		case verb == "DATA" && (script == "" || script[0] == 'd'):
			if w.content(conn, in, recipient, script) != nil {
				return
			}
			continue
		case verb == "DATA":
			reply = "503 5.5.1 no recipient"
		case verb == "QUIT":
			fmt.Fprint(conn, "221 2.0.0 bye\r\n")
			return
		}
		fmt.Fprintf(conn, "%s\r\n", reply)
	}
}

// content takes a message and answers its final dot.
func (w *receivers) content(conn net.Conn, in *bufio.Reader, recipient, script string) error {
	fmt.Fprint(conn, "354 go\r\n")
	var body strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if line == ".\r\n" {
			break
		}
		body.WriteString(line)
	}
	w.mu.Lock()
	w.bodies[recipient] = append(w.bodies[recipient], body.String())
	gate := w.gates[recipient]
	w.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if script == "drop" {
		return net.ErrClosed
	}
	reply := strings.TrimPrefix(script, "dot ")
	if reply == "" {
		reply = "250 2.0.0 queued"
	}
	_, err := fmt.Fprintf(conn, "%s\r\n", reply)
	return err
}

func everything() dispatch.Selector { return dispatch.Selector{Kind: dispatch.Everything} }
