package protect_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/dkim"
	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/smtpc"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/protect"
	"github.com/veredus/veredus/server/storage/pebblestore"
)

var (
	_ protect.Ledger     = (*pebblestore.Store)(nil)
	_ protect.Deliveries = (*campaign.Service)(nil)
)

// node is the real service over the real store in memory; the relay is the test.
type node struct {
	t       *testing.T
	fs      *vfs.MemFS
	store   *pebblestore.Store
	epoch   uint64
	service *campaign.Service
	monitor *protect.Monitor
	relay   relay
	clock   time.Time
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, fs: vfs.NewMem(), clock: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)}
	n.open()
	t.Cleanup(func() {
		if err := n.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// open starts the process.
func (n *node) open() {
	n.t.Helper()
	store, err := pebblestore.Open(pebblestore.Options{Dir: "store", FS: n.fs, Now: n.now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		n.t.Fatal(err)
	}
	recovery, err := store.Recover(n.t.Context(), n.now())
	if err != nil {
		n.t.Fatal(err)
	}
	signer, err := dkim.GenerateEd25519()
	if err != nil {
		n.t.Fatal(err)
	}
	key, err := dkim.NewKey("brand.example", "s1", signer)
	if err != nil {
		n.t.Fatal(err)
	}
	n.store, n.epoch = store, recovery.Epoch
	n.service = campaign.NewService(campaign.Options{
		Deliveries: store, Recipients: store, Log: store, Relay: &n.relay, Now: n.now,
		Keys:         func(string) []*dkim.Key { return []*dkim.Key{key} },
		BounceDomain: func(string) string { return "bounce.brand.example" },
	})
	n.monitor = protect.NewMonitor(protect.Options{Ledger: store, Deliveries: n.service, Thresholds: defaults, Now: n.now})
	if err := n.monitor.Begin(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

// restart ends the process and starts it again.
func (n *node) restart() {
	n.t.Helper()
	if err := n.store.Close(); err != nil {
		n.t.Fatal(err)
	}
	n.open()
}

func (n *node) now() time.Time { return n.clock }

// running is a delivery in the relay to so many people at each domain.
func (n *node) running(id string, each int, domains ...string) {
	n.t.Helper()
	ctx, name := n.t.Context(), "deliveries/"+id
	_, err := n.service.CreateDelivery(ctx, &veredusv1.CreateDeliveryRequest{DeliveryId: id, Delivery: &veredusv1.Delivery{
		Sender: &veredusv1.Sender{From: "news@brand.example"}, Content: &veredusv1.Content{Subject: "s", Text: "t"},
	}})
	n.must(err)
	var items []campaign.Item
	for _, domain := range domains {
		for i := range each {
			address := fmt.Sprintf("p%d@%s", i, domain)
			items = append(items, campaign.Item{Index: int64(len(items) + 1), Address: address, Folded: address, Domain: domain})
		}
	}
	_, err = n.store.Add(ctx, id, items)
	n.must(err)
	_, err = n.service.PrepareDelivery(ctx, &veredusv1.PrepareDeliveryRequest{Name: name})
	n.must(err)
	_, err = n.service.StartDelivery(ctx, &veredusv1.StartDeliveryRequest{Name: name})
	n.must(err)
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// fresh are the messages to a domain that were never tried.
func (n *node) fresh(id, domain string, most int) []*mta.Message {
	n.t.Helper()
	d, err := n.store.Get(n.t.Context(), id)
	n.must(err)
	runs, err := n.store.Runs(n.t.Context(), d.Handover, 0, 1000)
	n.must(err)
	for _, run := range runs {
		if run.DomainName == domain {
			got, err := n.store.Load(n.t.Context(), mta.LoadRequest{Handover: d.Handover, Domain: run.Domain, From: run.Mark, Fresh: most, Now: n.now()})
			n.must(err)
			return got.Fresh
		}
	}
	return nil
}

// Outcomes of attempts.
var (
	delivered = mta.Settlement{Outcome: mta.Delivered, Attempt: &mta.Attempt{Reply: smtpc.Reply{Code: 250, Text: "ok"}}}
	unknown   = failure("550 5.1.1", "no such user", bounce.Verdict{
		Code: bounce.CodeInvalidRecipient, Reason: bounce.ReasonUserUnknown, Type: bounce.TypeHard, Disposition: bounce.Final, Address: bounce.AddressSuppress,
	})
	refused = failure("550 5.7.515", "Access denied, sending domain does not meet the required authentication level", bounce.Verdict{
		Code: bounce.CodeSpamBlock, Reason: bounce.ReasonRefused, Disposition: bounce.Final, Hold: bounce.HoldAuthentication,
	})
	spam = failure("554 5.7.1", "Message rejected due to spam content, id 4711abcd", bounce.Verdict{
		Code: bounce.CodeSpamContent, Reason: bounce.ReasonRefused, Disposition: bounce.Final, Hold: bounce.HoldContent,
	})
)

func failure(codes, text string, v bounce.Verdict) mta.Settlement {
	reply := smtpc.Reply{Phase: smtpc.PhaseEndOfData, Text: text}
	fmt.Sscanf(codes, "%d %s", &reply.Code, &reply.Enhanced)
	return mta.Settlement{Outcome: mta.Bounced, Attempt: &mta.Attempt{Reply: reply}, Verdict: v, Text: reply.String()}
}

// try attempts so many messages to a domain, which is received by destination, and
// lets the monitor judge. It answers how many the store let be sent.
func (n *node) try(id, domain, destination string, count int, outcome mta.Settlement) (sent int) {
	n.t.Helper()
	messages := n.fresh(id, domain, count)
	claims := &mta.Batch{Epoch: n.epoch}
	for _, m := range messages {
		claims.Claims = append(claims.Claims, mta.Claim{Message: m, Time: n.now(), MessageID: "x@" + domain})
	}
	written, err := n.store.Write(n.t.Context(), claims)
	n.must(err)
	settles := &mta.Batch{Epoch: n.epoch}
	for _, m := range messages {
		if slices.Contains(written.Gone, m.ID) {
			continue
		}
		s, attempt := outcome, *outcome.Attempt
		s.Message, s.Attempt, s.Time, s.Destination = m, &attempt, n.now(), destination
		settles.Settles = append(settles.Settles, s)
	}
	_, err = n.store.Write(n.t.Context(), settles)
	n.must(err)
	n.monitor.Settled(settles.Settles)
	n.judge()
	return len(settles.Settles)
}

func (n *node) judge() {
	n.t.Helper()
	if !n.monitor.JudgeNews(n.t.Context()) {
		n.t.Fatal("a judgement failed")
	}
}

func (n *node) resume(id string) {
	n.t.Helper()
	_, err := n.service.ResumeDelivery(n.t.Context(), &veredusv1.ResumeDeliveryRequest{Name: "deliveries/" + id})
	n.must(err)
}

func (n *node) state(id string) campaign.State {
	n.t.Helper()
	d, err := n.store.Get(n.t.Context(), id)
	n.must(err)
	return d.State
}

func (n *node) wantState(id string, want campaign.State) {
	n.t.Helper()
	if got := n.state(id); got != want {
		n.t.Fatalf("%s is %v, want %v; events %q", id, got, want, n.events(id))
	}
}

// events are the warnings, pauses and resumes of a delivery, with their texts.
func (n *node) events(id string) []string {
	n.t.Helper()
	oldest, _ := n.store.Ends()
	list, _, err := n.store.Read(n.t.Context(), oldest, 100_000)
	n.must(err)
	var out []string
	for _, e := range list {
		switch e.GetType() {
		case veredusv1.FeedbackType_FEEDBACK_TYPE_WARNING, veredusv1.FeedbackType_FEEDBACK_TYPE_PAUSED, veredusv1.FeedbackType_FEEDBACK_TYPE_RESUMED:
			if e.GetDelivery() == "deliveries/"+id {
				out = append(out, strings.ToLower(strings.TrimPrefix(e.GetType().String(), "FEEDBACK_TYPE_"))+" "+e.GetText())
			}
		}
	}
	return out
}

// wantEvents compares the beginnings of the events.
func (n *node) wantEvents(id string, want ...string) {
	n.t.Helper()
	got := n.events(id)
	ok := len(got) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = strings.HasPrefix(got[i], want[i])
	}
	if !ok {
		n.t.Fatalf("events\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestADeadListIsWarnedOfThenPaused(t *testing.T) {
	n := newNode(t)
	n.running("spring", 1000, "a.example")
	n.try("spring", "a.example", "google", 240, delivered)
	n.try("spring", "a.example", "google", 20, unknown)
	n.wantEvents("spring", "warning warning: 20 of 260 attempts at google (7.6 %) found no such user")
	n.try("spring", "a.example", "google", 239, unknown)
	n.wantState("spring", campaign.Running) // 499 attempts
	n.relay.heard()
	n.try("spring", "a.example", "google", 1, delivered)
	n.wantState("spring", campaign.Paused)
	n.wantEvents("spring", "warning ", "paused paused: 259 of 500 attempts at google (51.8 %) found no such user: ")
	if got := n.relay.heard(); !slices.Equal(got, []string{"pause 1"}) {
		t.Errorf("the relay heard %q", got)
	}
	if sent := n.try("spring", "a.example", "google", 100, delivered); sent != 0 {
		t.Errorf("%d messages were sent behind the pause", sent)
	}
}

func TestContentThatOnlyOneDeliveryIsRefusedForHoldsIt(t *testing.T) {
	n := newNode(t)
	n.running("good", 200, "a.example")
	n.running("spammy", 400, "a.example")
	n.try("good", "a.example", "google", 100, delivered)
	n.try("spammy", "a.example", "google", 30, spam)
	n.wantEvents("spammy", `warning warning: 30 of 30 attempts at google (100.0 %) were refused for their content ("554 5.7.1: `)
	n.try("spammy", "a.example", "google", 20, spam)
	n.wantState("spammy", campaign.Paused)
	n.wantState("good", campaign.Running)
	n.wantEvents("spammy", "warning ", "paused paused: 50 of 50 attempts at google (100.0 %) were refused for their content")
	if sent := n.try("good", "a.example", "google", 50, delivered); sent != 50 {
		t.Errorf("%d of 50 messages of the other delivery were sent", sent)
	}
	n.resume("spammy")
	n.try("spammy", "a.example", "google", 49, spam)
	n.wantState("spammy", campaign.Running) // what was before the resume is excused
	n.restart()
	n.try("spammy", "a.example", "google", 1, spam)
	n.wantState("spammy", campaign.Paused)
}

func TestContentThatAllAreRefusedForHoldsNobody(t *testing.T) {
	n := newNode(t)
	n.running("one", 200, "a.example")
	n.running("two", 400, "a.example")
	n.try("one", "a.example", "google", 49, spam)
	n.restart() // the figures of both are on disk
	n.try("two", "a.example", "google", 200, spam)
	n.wantState("two", campaign.Running)
	n.wantEvents("two", "warning warning: 200 of 200 attempts at google")
	if text := n.events("two")[0]; !strings.Contains(text, "so are 49 of 49 attempts of other deliveries") {
		t.Error(text)
	}
	n.try("one", "a.example", "google", 100, spam)
	n.wantState("one", campaign.Running)
}

// What an operator's rule wants is done also where the thresholds are switched off.
func TestAReactionOfTheRulesHoldsADelivery(t *testing.T) {
	n := newNode(t)
	n.monitor.SetThresholds(protect.Thresholds{})
	n.running("spring", 10, "a.example")
	n.monitor.Ordered("spring", "at google: RCPT: 550 campaign unwelcome")
	n.judge()
	n.wantState("spring", campaign.Paused)
	n.wantEvents("spring", "paused paused: a reaction of the MX rules holds the delivery: at google: RCPT: 550 campaign unwelcome")
	n.monitor.Ordered("spring", "at google: again")
	n.monitor.Ordered("gone", "at google: RCPT: 550")
	n.judge()
	n.resume("spring")
	n.wantState("spring", campaign.Running)
	if got := n.events("spring"); len(got) != 2 {
		t.Errorf("events %q", got)
	}
}

func TestAfterAResumeCountingBeginsAnew(t *testing.T) {
	n := newNode(t)
	n.running("spring", 3000, "a.example")
	n.try("spring", "a.example", "google", 600, unknown)
	n.wantState("spring", campaign.Paused)
	n.resume("spring")
	n.try("spring", "a.example", "google", 499, unknown)
	n.wantState("spring", campaign.Running)
	n.restart()
	n.judge()
	n.wantState("spring", campaign.Running) // no instant pause for what was excused
	n.try("spring", "a.example", "google", 1, unknown)
	n.wantState("spring", campaign.Paused) // and nothing forgotten
	n.wantEvents("spring", "warning ", "paused paused: 600 of 600", "resumed", "paused paused: 500 of 500")
}

func TestAPauseOfTheOperatorsExcusesNothing(t *testing.T) {
	n := newNode(t)
	n.running("spring", 1000, "a.example")
	n.try("spring", "a.example", "google", 499, unknown)
	_, err := n.service.PauseDelivery(t.Context(), &veredusv1.PauseDeliveryRequest{Name: "deliveries/spring", Reason: "lunch"})
	n.must(err)
	n.resume("spring")
	n.try("spring", "a.example", "google", 1, unknown)
	n.wantState("spring", campaign.Paused)
}

func TestACrashBetweenCountAndPauseLosesNoProtection(t *testing.T) {
	n := newNode(t)
	n.running("spring", 1000, "a.example")
	unheard := n.monitor
	n.monitor = protect.NewMonitor(protect.Options{Ledger: n.store, Deliveries: n.service, Now: n.now}) // judges nothing
	n.try("spring", "a.example", "google", 600, unknown)
	n.monitor = unheard
	n.wantState("spring", campaign.Running)
	n.restart()
	n.judge()
	n.wantState("spring", campaign.Paused)
}

func TestTheSameRejectionFromUnrelatedDomainsPauses(t *testing.T) {
	n := newNode(t)
	domains := []string{"a.example", "sub.a.example", "b.example", "c.example", "d.example", "e.example", "f.example"}
	n.running("spring", 2, domains...)
	n.try("spring", "a.example", "a.example", 1, refused)
	n.try("spring", "sub.a.example", "filter.example", 1, refused) // the same organisation
	n.try("spring", "b.example", "provider", 1, refused)
	n.try("spring", "c.example", "provider", 1, refused) // the same provider
	n.wantEvents("spring")
	n.try("spring", "d.example", "d.example", 1, refused)
	n.wantEvents("spring", "warning warning: 3 unrelated destinations (a.example, provider, d.example) refuse in the same words")
	n.restart()
	n.try("spring", "e.example", "e.example", 1, refused)
	n.wantState("spring", campaign.Running)
	n.try("spring", "f.example", "f.example", 1, refused)
	n.wantState("spring", campaign.Paused)
	n.wantEvents("spring", "warning ", "paused paused: 5 unrelated destinations")
	n.resume("spring")
	n.try("spring", "f.example", "f.example", 1, refused)
	n.wantState("spring", campaign.Running)
}

func TestAuthenticationRejectionsAtAProviderPause(t *testing.T) {
	n := newNode(t)
	n.running("spring", 100, "a.example")
	n.try("spring", "a.example", "outlook", 16, delivered)
	n.try("spring", "a.example", "outlook", 3, refused)
	n.wantState("spring", campaign.Running)
	n.try("spring", "a.example", "outlook", 1, refused)
	n.wantState("spring", campaign.Paused)
	n.wantEvents("spring", "warning ", "paused paused: 4 of 20 attempts at outlook (20.0 %) were refused with 550 5.7.515: the From domain brand.example fails SPF, DKIM or DMARC")
}

func TestOtherWordsAreAnotherRejection(t *testing.T) {
	n := newNode(t)
	var domains []string
	for i := range 6 {
		domains = append(domains, fmt.Sprintf("d%d.example", i))
	}
	n.running("spring", 1, domains...)
	for i, domain := range domains {
		r := failure("550 5.7.26", []string{"SPF says no", "DKIM says no", "DMARC says no"}[i%3], refused.Verdict)
		n.try("spring", domain, domain, 1, r)
	}
	n.wantEvents("spring")
}

func TestThresholdsChangeWithAReload(t *testing.T) {
	n := newNode(t)
	n.running("spring", 1000, "a.example")
	strict := defaults
	strict.HardAfter, strict.HardPercent = 10, 1
	n.monitor.SetThresholds(strict)
	n.try("spring", "a.example", "google", 10, unknown)
	n.wantState("spring", campaign.Paused)
	off := defaults
	off.Enabled = false
	n.monitor.SetThresholds(off)
	n.resume("spring")
	n.try("spring", "a.example", "google", 900, unknown)
	n.wantState("spring", campaign.Running)
}

func TestTransactionalMailIsWarnedOfAndNeverPaused(t *testing.T) {
	n := newNode(t)
	send := func(count int) {
		for i := range count {
			_, _, err := n.store.Send(t.Context(), campaign.Single{
				Tenant: "shop", Validity: time.Hour, Time: n.now(),
				Content: &veredusv1.Delivery{Tenant: "shop", Sender: &veredusv1.Sender{From: "a@brand.example"}, Content: &veredusv1.Content{Subject: "s", Text: "t"}},
				Item:    campaign.Item{Address: fmt.Sprintf("p%d@a.example", i), Folded: fmt.Sprintf("p%d@a.example", i), Domain: "a.example"},
			}, campaign.Request{})
			n.must(err)
		}
	}
	send(1)
	list, err := n.store.List(t.Context(), 0, 1)
	n.must(err)
	id := list[0].ID
	try := func(count int) {
		t.Helper()
		send(count)
		handovers := n.standing()
		var got mta.LoadResult
		for _, h := range handovers {
			runs, err := n.store.Runs(t.Context(), h, 0, 10)
			n.must(err)
			got, err = n.store.Load(t.Context(), mta.LoadRequest{Handover: h, Domain: runs[0].Domain, From: runs[0].Mark, Fresh: count, Now: n.now()})
			n.must(err)
		}
		n.settleAll(got.Fresh, "google", unknown)
	}
	try(1) // begins the day
	try(600)
	n.wantState(id, campaign.Running)
	n.wantEvents(id, "warning warning: 600 of 600 attempts at google")
	n.clock = n.clock.Add(2 * time.Hour)
	try(300)
	n.wantEvents(id, "warning ")
	n.clock = n.clock.Add(23 * time.Hour)
	try(100) // begins another day
	n.wantEvents(id, "warning ")
	try(400)
	n.wantEvents(id, "warning ", "warning warning: 400 of 400")
	n.wantState(id, campaign.Running)
}

// standing are the hand-overs that the relay would recover.
func (n *node) standing() []uint64 {
	n.t.Helper()
	r, err := n.store.Recover(n.t.Context(), n.now())
	n.must(err)
	n.epoch = r.Epoch
	var list []uint64
	for _, h := range r.Handovers {
		list = append(list, h.ID)
	}
	return list
}

func (n *node) settleAll(messages []*mta.Message, destination string, outcome mta.Settlement) {
	n.t.Helper()
	claims, settles := &mta.Batch{Epoch: n.epoch}, &mta.Batch{Epoch: n.epoch}
	for _, m := range messages {
		claims.Claims = append(claims.Claims, mta.Claim{Message: m, Time: n.now()})
		s, attempt := outcome, *outcome.Attempt
		s.Message, s.Attempt, s.Time, s.Destination = m, &attempt, n.now(), destination
		settles.Settles = append(settles.Settles, s)
	}
	_, err := n.store.Write(n.t.Context(), claims)
	n.must(err)
	_, err = n.store.Write(n.t.Context(), settles)
	n.must(err)
	n.monitor.Settled(settles.Settles)
	n.judge()
}

// book is a ledger and its deliveries without a store: for what comes back, and for failures.
type book struct {
	mu       sync.Mutex
	by       map[string]*campaign.Watched
	done     []string
	failures int // of the next calls
}

func (b *book) Watch(id string, _ []string) (campaign.Watched, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures > 0 {
		b.failures--
		return campaign.Watched{}, errors.New("the disk is slow")
	}
	w := b.by[id]
	if w == nil {
		return campaign.Watched{}, fmt.Errorf("%s: %w", id, campaign.ErrNotFound)
	}
	return *w, nil
}

func (b *book) List(context.Context, uint64, int) ([]*campaign.Delivery, error) { return nil, nil }

func (b *book) PauseFor(_ context.Context, id, text string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.by[id].State = campaign.Paused
	b.done = append(b.done, id+" "+text)
	return nil
}

func (b *book) Warn(_ context.Context, id string, w campaign.Warning) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done = append(b.done, id+" "+w.Text)
	return nil
}

func (b *book) Alike(context.Context, string, string, string, string) error { return nil }

func (b *book) did() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	done := b.done
	b.done = nil
	return done
}

func TestComplaintsOfARunningDeliveryPauseAndOfAFinishedOneWarn(t *testing.T) {
	b := &book{by: map[string]*campaign.Watched{
		"running":  {State: campaign.Running, By: map[string]figures{"yahoo": {Sent: 1000, Attempts: 1000, Complaints: 10}}},
		"finished": {State: campaign.Finished, By: map[string]figures{"yahoo": {Sent: 1000, Attempts: 1000, Complaints: 10}}},
		"late":     {State: campaign.Running, By: map[string]figures{"google": {Sent: 200, Attempts: 500, Hard: 300}}},
	}}
	m := protect.NewMonitor(protect.Options{Ledger: b, Deliveries: b, Thresholds: defaults})
	m.Complained("running", "yahoo")
	m.Complained("finished", "yahoo")
	m.Complained("purged", "yahoo")
	m.Returned("late", "google")
	if !m.JudgeNews(t.Context()) {
		t.Fatal("a delivery that is gone is to be judged again")
	}
	want := []string{
		"finished warning: 10 of 1000", "finished warning: 10 of 1000",
		"late warning: 300 of 500", "late paused: 300 of 500",
		"running warning: 10 of 1000", "running warning: 10 of 1000", "running paused: 10 of 1000",
	}
	got := b.did()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !strings.HasPrefix(got[i], want[i]) {
			t.Fatalf("%q, want %q", got, want)
		}
	}
}

func TestRunTriesAgainWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{failures: 3, by: map[string]*campaign.Watched{
			"d": {State: campaign.Running, By: map[string]figures{"google": {Attempts: 500, Hard: 300}}},
		}}
		m := protect.NewMonitor(protect.Options{Ledger: b, Deliveries: b, Thresholds: defaults})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { m.Run(ctx); close(ended) }()
		m.Returned("d", "google")
		synctest.Wait()
		if got := b.did(); got != nil {
			t.Fatalf("%q before anything was read", got)
		}
		began := time.Now()
		<-time.After(10 * time.Second)
		if got := b.did(); len(got) != 2 || !strings.HasPrefix(got[1], "d paused: ") {
			t.Errorf("after %v: %q", time.Since(began), got)
		}
		cancel()
		<-ended
	})
}

func TestNewsAreBounded(t *testing.T) {
	b := &book{by: map[string]*campaign.Watched{"d": {State: campaign.Finished}}}
	m := protect.NewMonitor(protect.Options{Ledger: b, Deliveries: b, Thresholds: defaults})
	list := make([]mta.Settlement, 5000)
	for i := range list {
		list[i] = refused
		list[i].Message = &mta.Message{Name: "deliveries/d/messages/m", Domain: fmt.Sprintf("d%d.example", i)}
		list[i].Destination = list[i].Message.Domain
	}
	m.Settled(list)
	m.Settled([]mta.Settlement{{}, {Attempt: &mta.Attempt{}, Message: &mta.Message{}, Destination: "x"}})
	if !m.JudgeNews(t.Context()) {
		t.Error("judging failed")
	}
}

func TestWordingsForgetWhatVaries(t *testing.T) {
	a := protect.Wording(smtpc.Reply{Code: 550, Enhanced: "5.7.26", Text: "Unauthenticated mail from brand.example [203.0.113.7] id=4f2a9c01e77b"})
	b := protect.Wording(smtpc.Reply{Code: 550, Enhanced: "5.7.26", Text: "Unauthenticated mail from other.example [203.0.113.99] id=99aa01b2c3d4"})
	if a != b || !strings.HasPrefix(a, "550 5.7.26: unauthenticated mail") {
		t.Errorf("%q and %q", a, b)
	}
	if got := protect.Wording(smtpc.Reply{Code: 550, Enhanced: "5.7.1\r\nX", Text: strings.Repeat("é ", 4000)}); len(got) > 200 || !strings.HasPrefix(got, "550: ") {
		t.Errorf("%q", got)
	}
}

// relay remembers what it was told.
type relay struct {
	mu   sync.Mutex
	told []string
}

func (r *relay) tell(format string, args ...any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, fmt.Sprintf(format, args...))
	return nil
}

func (r *relay) heard() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	told := r.told
	r.told = nil
	return told
}

func (r *relay) HandOver(h *mta.Handover)                                { _ = r.tell("hand over") }
func (r *relay) Arrived(*mta.Handover, mta.MessageID, string, time.Time) {}
func (r *relay) Pause(_ context.Context, d uint64) error                 { return r.tell("pause %d", d) }

func (r *relay) Unpause(_ context.Context, d uint64) error { return r.tell("unpause %d", d) }

func (r *relay) Cancel(_ context.Context, d uint64) error { return r.tell("cancel %d", d) }

func (r *relay) Update(context.Context, uint64, string, int, time.Time) error {
	return nil
}

func (r *relay) Waiting(context.Context, mta.MessageID) (dispatch.Wait, bool, error) {
	return dispatch.Wait{}, false, nil
}

func BenchmarkSettled(b *testing.B) {
	book := &book{by: map[string]*campaign.Watched{}}
	m := protect.NewMonitor(protect.Options{Ledger: book, Deliveries: book, Thresholds: defaults})
	list := make([]mta.Settlement, 64)
	for i := range list {
		list[i] = delivered
		list[i].Message = &mta.Message{Name: fmt.Sprintf("deliveries/spring/messages/%d", i), Domain: "a.example"}
		list[i].Destination = fmt.Sprintf("destination%d.example", i%8)
	}
	b.ReportAllocs()
	for b.Loop() {
		m.Settled(list)
	}
}
