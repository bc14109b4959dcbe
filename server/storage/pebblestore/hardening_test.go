package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
)

// The store lives in synctest bubbles, also in the second one that flushes.
func TestBubbles(t *testing.T) {
	for i := range 2 {
		synctest.Test(t, func(t *testing.T) {
			s, err := Open(Options{Dir: "store", FS: vfs.NewMem(), Logger: quiet, MemTableBytes: 64 << 10})
			check(t, err)
			must[*campaign.Delivery](t)(s.Create(t.Context(), draft("d"), campaign.Request{}))
			for from := 1; from <= 2000; from += 100 {
				must[campaign.Added](t)(s.Add(t.Context(), "d", items(from, 100, "a.test", "b.test")))
			}
			check(t, s.db.Flush())
			began := time.Now()
			time.Sleep(time.Hour)
			if d := time.Since(began); d != time.Hour {
				t.Errorf("bubble %d: an hour took %v", i, d)
			}
			d := must[*campaign.Delivery](t)(s.Get(t.Context(), "d"))
			if d.Counters.Pending != 2000 {
				t.Errorf("bubble %d: %d pending", i, d.Counters.Pending)
			}
			check(t, s.Close())
		})
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs)
	check(t, s.db.Set(metaFormat, number64(formatVersion+1), pebble.Sync))
	check(t, s.Close())
	_, err := Open(Options{Dir: "store", FS: fs, Logger: quiet})
	if err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Fatalf("got %v", err)
	}
}

func TestIdentityAndSecretsStay(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs)
	id, key := s.StoreID(), must[[]byte](t)(s.ReturnPathKeys(t.Context()))
	check(t, s.Close())
	s = open(t, fs)
	again := must[[]byte](t)(s.ReturnPathKeys(t.Context()))
	if s.StoreID() != id || !bytes.Equal(again, key) || len(key) != 32 {
		t.Error("identity or key changed")
	}
	other := open(t, vfs.NewMem())
	if other.StoreID() == id || bytes.Equal(must[[]byte](t)(other.ReturnPathKeys(t.Context())), key) {
		t.Error("two stores share identity or key")
	}
}

// When the disk refuses a sync nothing is acknowledged any more, and the process ends.
func TestFailedSyncEndsTheProcess(t *testing.T) {
	var broken errorfs.Toggle
	broken.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo {
			return errors.New("the disk is gone")
		}
		return nil
	})
	exited := make(chan struct{})
	var once sync.Once
	s, err := Open(Options{
		Dir: "store", FS: errorfs.Wrap(vfs.NewMem(), &broken), Logger: quiet,
		exit: func() { once.Do(func() { close(exited) }) },
	})
	check(t, err)
	must[*campaign.Delivery](t)(s.Create(t.Context(), draft("before"), campaign.Request{}))
	broken.On()
	if _, err := s.Create(t.Context(), draft("d"), campaign.Request{}); err == nil {
		t.Error("a write that was not synced was acknowledged")
	}
	<-exited
	if _, err := s.Create(t.Context(), draft("e"), campaign.Request{}); err == nil {
		t.Error("a write behind the failure was acknowledged")
	}
	if _, err := s.Get(t.Context(), "d"); err == nil {
		t.Error("what was not synced is shown")
	}
}

// A start writes the same few rows whatever the delivery's size, and a restart does
// not read the backlog.
func TestStartAndRestartDoNotTouchTheBacklog(t *testing.T) {
	cost := func(n int) (written uint64, read int64) {
		fs := vfs.NewMem()
		s := open(t, fs)
		must[*campaign.Delivery](t)(s.Create(t.Context(), draft("d"), campaign.Request{}))
		for from := 1; from <= n; from += 1000 {
			must[campaign.Added](t)(s.Add(t.Context(), "d", items(from, min(n, 1000), "a.test", "b.test")))
		}
		check(t, s.db.Flush())
		before := s.db.Metrics().WAL.BytesIn
		start(t, s, "d")
		written = s.db.Metrics().WAL.BytesIn - before
		check(t, s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false)) // else the next Open does, and reads
		check(t, s.Close())
		s = open(t, fs)
		must[*mta.Recovery](t)(s.Recover(t.Context(), time.Now()))
		m := s.db.Metrics().BlockCache
		return written, m.Hits + m.Misses
	}
	smallWritten, smallRead := cost(10)
	bigWritten, bigRead := cost(20_000)
	if bigWritten > smallWritten+64 {
		t.Errorf("starting 10 recipients wrote %d octets, 20,000 wrote %d", smallWritten, bigWritten)
	}
	if bigRead > smallRead+50 {
		t.Errorf("restarting with 10 recipients read %d blocks, with 20,000 %d", smallRead, bigRead)
	}
}

// What was uploaded before a restart is known as double behind it, while the filter
// is still being read and when it is there.
func TestDoublesOverARestart(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs)
	must[*campaign.Delivery](t)(s.Create(t.Context(), draft("d"), campaign.Request{}))
	must[campaign.Added](t)(s.Add(t.Context(), "d", items(1, 500, "a.test")))
	check(t, s.Close())
	s = open(t, fs)
	for round := range 2 {
		var again []campaign.Item
		for i := range 100 {
			again = append(again, item(501+round*100+i, fmt.Sprintf("user%d", 1+i), "a.test"))
		}
		added := must[campaign.Added](t)(s.Add(t.Context(), "d", again))
		if added.Ignored != 100 {
			t.Errorf("round %d: %d of 100 doubles found", round, added.Ignored)
		}
		s.filters.readers.Wait()
	}
	if f := s.filters.byDelivery[1]; f == nil || !f.complete {
		t.Error("the filter was not read")
	}
}

func TestFilterForgetsNothing(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	var l layers
	const n = 200_000
	random := func() (h [hashSize]byte) { return hashOf(fmt.Sprint(rng.Uint64())) }
	var some [][hashSize]byte
	for i := range n {
		h := random()
		l.add(h)
		if i%100 == 0 {
			some = append(some, h)
		}
	}
	for _, h := range some {
		if !l.has(h) {
			t.Fatalf("seed %d: a hash was forgotten", seed)
		}
	}
	wrong := 0
	for range 10_000 {
		if l.has(random()) {
			wrong++
		}
	}
	if wrong > 300 { // 1 % for each of the two layers
		t.Errorf("seed %d: %d false alarms in 10,000", seed, wrong)
	}
}

func TestFiltersKeepWithinTheirMemory(t *testing.T) {
	var fs filters
	fs.start()
	for no := range uint64(2000) {
		fs.byDelivery[no] = &addressFilter{used: no + 1, complete: true}
		fs.note(no, map[[hashSize]byte]bool{hashOf("a"): true})
	}
	if fs.size > maxFilterSize || len(fs.byDelivery) > 900 || fs.byDelivery[1999] == nil {
		t.Errorf("%d filters of %d octets", len(fs.byDelivery), fs.size)
	}
}

// A deleted delivery leaves nothing behind but its events.
func TestDeletedDeliveryLeavesNothing(t *testing.T) {
	s := open(t, vfs.NewMem())
	tables := func() map[byte]int {
		rows := map[byte]int{}
		check(t, s.scan(nil, []byte{0}, []byte{0xff}, func(k, _ []byte) (bool, error) {
			rows[k[0]]++
			return true, nil
		}))
		return rows
	}
	must[*campaign.Delivery](t)(s.Create(t.Context(), draft("other"), campaign.Request{}))
	before := tables()
	must[*campaign.Delivery](t)(s.Create(t.Context(), draft("d"), campaign.Request{}))
	list := items(1, 2500, "a.test", "b.test")
	list[7].Ignore = 9
	list[8] = item(9, "user1", "b.test")
	list[9].Reject = &veredusv1.RejectedRecipient{Index: 10}
	must[campaign.Added](t)(s.Add(t.Context(), "d", list))
	d := start(t, s, "d")
	r := must[*mta.Recovery](t)(s.Recover(t.Context(), time.Now()))
	before[tableMeta]++ // the epoch
	res := must[mta.LoadResult](t)(s.Load(t.Context(), mta.LoadRequest{Handover: d.Handover, Domain: 1, Fresh: 10}))
	b := mta.Batch{Epoch: r.Epoch}
	for _, m := range res.Fresh {
		b.Claims = append(b.Claims, mta.Claim{Message: m, Time: time.Now()})
	}
	must[mta.Written](t)(s.Write(t.Context(), &b))
	b = mta.Batch{Epoch: r.Epoch, Settles: []mta.Settlement{settlement(res.Fresh[0], mta.Deferred, time.Now()), settlement(res.Fresh[1], mta.Delivered, time.Now())}}
	must[mta.Written](t)(s.Write(t.Context(), &b))
	check(t, s.Delete(t.Context(), "d", campaign.Request{}, func(*campaign.Delivery) error { return nil }))
	check(t, s.sweepAll(t.Context()))
	after := tables()
	delete(after, tableEvent)
	if fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("rows by table: %v, before %v", after, before)
	}
	late := mta.Batch{Epoch: r.Epoch, Settles: []mta.Settlement{settlement(res.Fresh[2], mta.Delivered, time.Now())}}
	must[mta.Written](t)(s.Write(t.Context(), &late))
	if rows := tables(); rows[tableLog] != 0 {
		t.Error("a settlement of a deleted delivery was written")
	}
}

func TestTrim(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs)
	epoch := must[*mta.Recovery](t)(s.Recover(t.Context(), time.Now())).Epoch
	for range 10 {
		must[mta.Written](t)(s.Write(t.Context(), &mta.Batch{Epoch: epoch, Events: []mta.RelayEvent{{Kind: mta.PathResumedEvent, Time: time.Now()}}}))
	}
	check(t, s.Trim(t.Context(), feedback.Positions{4}))
	if _, _, err := s.Read(t.Context(), feedback.Positions{3}, 1); !errors.Is(err, feedback.ErrBeforeRetention) {
		t.Errorf("before retention: got %v", err)
	}
	check(t, s.Trim(t.Context(), feedback.Positions{100}))
	check(t, s.Close())
	s = open(t, fs)
	if oldest, next := s.Ends(); oldest[0] != 10 || next[0] != 10 {
		t.Errorf("ends %v and %v, want 10: a position is never used twice", oldest, next)
	}
}

func TestRequestIDsAreKeptSevenDays(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	s := open(t, vfs.NewMem(), func(o *Options) { o.Now = func() time.Time { return now } })
	request := func(i int) campaign.Request { return campaign.Request{ID: fmt.Sprint("r", i), Method: "Create"} }
	for i := range 20 {
		must[*campaign.Delivery](t)(s.Create(t.Context(), draft(fmt.Sprint("d", i)), request(i)))
	}
	now = now.Add(7 * 24 * time.Hour)
	must[*campaign.Delivery](t)(s.Create(t.Context(), draft("week"), request(100)))
	if _, found, err := s.Replay(t.Context(), request(0)); err != nil || !found {
		t.Errorf("after 7 days: %v, %v", found, err)
	}
	now = now.Add(2 * 24 * time.Hour)
	for i := range 3 {
		must[*campaign.Delivery](t)(s.Create(t.Context(), draft(fmt.Sprint("late", i)), request(200+i)))
	}
	left := 0
	check(t, s.scan(nil, []byte{tableRequest}, []byte{tableRequest + 1}, func(_, _ []byte) (bool, error) {
		left++
		return true, nil
	}))
	if left != 4 {
		t.Errorf("%d requests kept, want the last 4", left)
	}
}

// The two ways of listing a run's retries by place agree.
func TestRetriesByPlace(t *testing.T) {
	s := open(t, vfs.NewMem())
	must[*campaign.Delivery](t)(s.Create(t.Context(), draft("d"), campaign.Request{}))
	must[campaign.Added](t)(s.Add(t.Context(), "d", items(1, 50, "a.test")))
	d := start(t, s, "d")
	epoch := must[*mta.Recovery](t)(s.Recover(t.Context(), time.Now())).Epoch
	msgs := must[mta.LoadResult](t)(s.Load(t.Context(), mta.LoadRequest{Handover: d.Handover, Domain: 1, Fresh: 30})).Fresh
	claims, settles := mta.Batch{Epoch: epoch}, mta.Batch{Epoch: epoch}
	for i, m := range msgs {
		claims.Claims = append(claims.Claims, mta.Claim{Message: m, Time: time.Now()})
		outcome := mta.Deferred
		if i%3 == 0 {
			outcome = mta.Delivered
		}
		settles.Settles = append(settles.Settles, settlement(m, outcome, time.Now().Add(-time.Duration(i)*time.Second)))
	}
	must[mta.Written](t)(s.Write(t.Context(), &claims))
	must[mta.Written](t)(s.Write(t.Context(), &settles))
	key := runKey{d.Handover, 1}
	v := must[*deliveryState](t)(s.viewHandover(d.Handover))
	r, err := decodeRun(must[[]byte](t)(s.get(v.scope().run(tableRun, key))))
	check(t, err)
	u := unfinishedRun{s: s, d: v, from: s.db, run: r, key: key, behind: mta.Position{Order: 5}, limit: 1000}
	sorted := must[[]mta.MessageID](t)(u.waiting())
	slices.SortFunc(sorted, compareIDs)
	walked := must[[]mta.MessageID](t)(u.walkLog())
	if !slices.Equal(sorted, walked) || len(walked) == 0 {
		t.Errorf("sorted %v\nwalked %v", sorted, walked)
	}
}

// Deliveries beyond the cache are read again, with all their figures.
func TestManyDeliveries(t *testing.T) {
	s := open(t, vfs.NewMem())
	const n = 3 * maxCachedDeliveries
	for i := range n {
		id := fmt.Sprint("d", i)
		must[*campaign.Delivery](t)(s.Create(t.Context(), draft(id), campaign.Request{}))
		must[campaign.Added](t)(s.Add(t.Context(), id, items(1, 1+i%3, "a.test", "b.test")))
	}
	if len(s.cache.byNo) > maxCachedDeliveries+1 {
		t.Errorf("%d deliveries in memory", len(s.cache.byNo))
	}
	for i := range n {
		d := must[*campaign.Delivery](t)(s.Get(t.Context(), fmt.Sprint("d", i)))
		if d.Counters.Accepted != int64(1+i%3) || d.Spec.GetContent().GetSubject() != "Hello" {
			t.Fatalf("delivery %d: %+v", i, d.Counters)
		}
	}
}

// While many write at once every reader sees a ledger that balances and events in order.
func TestLedgerBalancesAtAnyMoment(t *testing.T) {
	s := open(t, vfs.NewMem(), func(o *Options) { o.MemTableBytes = 256 << 10 })
	ctx, cancel := context.WithCancel(t.Context())
	epoch := must[*mta.Recovery](t)(s.Recover(ctx, time.Now())).Epoch
	var work, readers sync.WaitGroup
	for i := range 4 {
		id := fmt.Sprint("d", i)
		must[*campaign.Delivery](t)(s.Create(ctx, draft(id), campaign.Request{}))
		work.Go(func() { deliverAll(t, s, id, epoch) })
		readers.Go(func() {
			for ctx.Err() == nil {
				changed := s.Changed(id)
				d, err := s.Get(ctx, id)
				if err != nil {
					return
				}
				if err := d.Counters.Balance(); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-changed:
				case <-ctx.Done():
				}
			}
		})
	}
	readers.Go(func() { followEvents(ctx, t, s) })
	work.Wait()
	cancel()
	readers.Wait()
	for i := range 4 {
		d := must[*campaign.Delivery](t)(s.Get(t.Context(), fmt.Sprint("d", i)))
		if d.State != campaign.Finished || d.Counters.Sent+d.Counters.Failed != 90 {
			t.Errorf("delivery %d: %s, %+v", i, d.State, d.Counters)
		}
	}
}

// deliverAll uploads, starts and sends a delivery of 90 in small steps.
func deliverAll(t *testing.T, s *Store, id string, epoch uint64) {
	for from := 1; from <= 90; from += 30 {
		if _, err := s.Add(t.Context(), id, items(from, 30, "a.test", "b.test")); err != nil {
			t.Error(err)
			return
		}
	}
	d := start(t, s, id)
	for {
		left := 0
		for domain := uint32(1); domain <= 2; domain++ {
			res, err := s.Load(t.Context(), mta.LoadRequest{Handover: d.Handover, Domain: domain, Fresh: 16, Due: 16, Now: time.Now().Add(time.Hour)})
			if err != nil {
				t.Error(err)
				return
			}
			for i, m := range append(res.Fresh, res.Due...) {
				left++
				outcome := []mta.Outcome{mta.Delivered, mta.Deferred, mta.Bounced}[i%3]
				if !sendOne(t, s, epoch, m, outcome) {
					return
				}
			}
		}
		if left == 0 {
			return
		}
	}
}

func sendOne(t *testing.T, s *Store, epoch uint64, m *mta.Message, o mta.Outcome) bool {
	claim := mta.Batch{Epoch: epoch, Claims: []mta.Claim{{Message: m, Time: time.Now()}}}
	settle := mta.Batch{Epoch: epoch, Settles: []mta.Settlement{settlement(m, o, time.Now())}}
	for _, b := range []*mta.Batch{&claim, &settle} {
		if _, err := s.Write(t.Context(), b); err != nil {
			t.Error(err)
			return false
		}
	}
	return true
}

// followEvents reads the log as it grows, and checks that attempts of a message come in order.
func followEvents(ctx context.Context, t *testing.T, s *Store) {
	last := map[string]int32{}
	at := feedback.Positions{0}
	for {
		events, next, err := s.Read(ctx, at, 100)
		if err != nil {
			return
		}
		for _, e := range events {
			if m := e.GetMessage(); m != "" {
				if e.GetAttempt() != last[m]+1 {
					t.Errorf("%s: attempt %d behind %d", m, e.GetAttempt(), last[m])
				}
				last[m] = e.GetAttempt()
			}
		}
		if at = next; len(events) == 0 {
			select {
			case <-s.Grown(at):
			case <-ctx.Done():
				return
			}
		}
	}
}

func TestCapText(t *testing.T) {
	for _, in := range []string{"", "plain", "caf\xe9", strings.Repeat("é", 3000), strings.Repeat("a\xff", 3000), strings.Repeat("x", maxText-1) + "é", "\xff"} {
		out := capText(in)
		if len(out) > maxText || !utf8.ValidString(out) {
			t.Errorf("%.20q: %d octets, valid %v", in, len(out), utf8.ValidString(out))
		}
		if utf8.ValidString(in) && !strings.HasPrefix(in, out) {
			t.Errorf("%.20q was changed to %.20q", in, out)
		}
	}
}

// A write that waits for room gives up when its context ends.
func TestSubmitGivesUp(t *testing.T) {
	s := open(t, vfs.NewMem())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Create(ctx, draft("d"), campaign.Request{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	check(t, s.Close())
	if _, err := s.Create(t.Context(), draft("d"), campaign.Request{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: got %v", err)
	}
}
