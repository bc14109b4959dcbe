package pebblestore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
	"github.com/veredus/veredus/server/storage/faults"
)

// delivered puts a delivery of n recipients through its whole life at a time.
func delivered(t testing.TB, s *Store, id string, n int, at time.Time) *campaign.Delivery {
	t.Helper()
	ctx := context.Background()
	must[*campaign.Delivery](t)(s.Create(ctx, draft(id), campaign.Request{}))
	noise := rand.New(rand.NewPCG(1, uint64(n))) // else a table shrinks to nothing by itself
	for from := 1; from <= n; from += 1000 {
		list := items(from, min(1000, n-from+1), "a.test", "b.test")
		for i := range list {
			list[i].Variables = fmt.Appendf(nil, `{"code":"%x%x%x%x"}`, noise.Uint64(), noise.Uint64(), noise.Uint64(), noise.Uint64())
		}
		must[campaign.Added](t)(s.Add(ctx, id, list))
	}
	d := start(t, s, id)
	epoch := must[*mta.Recovery](t)(s.Recover(ctx, at)).Epoch
	for domain := uint32(1); domain <= 2; domain++ {
		from := mta.Position{}
		for {
			page := must[mta.LoadResult](t)(s.Load(ctx, mta.LoadRequest{Handover: d.Handover, Domain: domain, Fresh: 500, From: from, Now: at}))
			claims, settles := mta.Batch{Epoch: epoch}, mta.Batch{Epoch: epoch}
			for _, m := range page.Fresh {
				claims.Claims = append(claims.Claims, mta.Claim{Message: m, Time: at, MessageID: m.ID.String() + "@x"})
				settles.Settles = append(settles.Settles, settlement(m, mta.Delivered, at))
			}
			must[mta.Written](t)(s.Write(ctx, &claims))
			must[mta.Written](t)(s.Write(ctx, &settles))
			if from = page.Next; !page.More {
				break
			}
		}
	}
	return d
}

// What retention removes leaves the disk: of 20,000 messages with their events little stays.
func TestTheDiskIsGivenBack(t *testing.T) {
	ctx, at := t.Context(), time.Now()
	fs := vfs.NewMem()
	s := open(t, fs)
	rest := func() int64 { // without the log, and the files that go a little later
		check(t, s.db.Flush())
		check(t, s.Close())
		s = open(t, fs)
		return s.db.Metrics().Total().TablesSize
	}
	delivered(t, s, "d", 20_000, at)
	before := rest()
	if n := must[int64](t)(s.TrimEvents(ctx, at.Add(time.Hour), 0)); n != 20_002 {
		t.Errorf("trimmed %d events", n)
	}
	trimmed := rest()
	must[int64](t)(s.PurgeEnded(ctx, at.Add(time.Hour)))
	check(t, s.sweepAll(ctx))
	check(t, s.db.Flush())
	for _, table := range []byte{tableAddress, tableRecipientID} { // scattered by hash: their turn comes by itself
		check(t, s.db.Compact(ctx, []byte{table}, []byte{table + 1}, false))
	}
	purged := rest()
	t.Logf("%d KiB with all, %d KiB without events, %d KiB without messages", before>>10, trimmed>>10, purged>>10)
	if trimmed > before*9/10 || purged > before/50 {
		t.Error("the disk is not given back")
	}
	if c := must[*campaign.Delivery](t)(s.Get(ctx, "d")).Counters; c.Sent != 20_000 || c.Balance() != nil {
		t.Errorf("counters %+v", c)
	}
}

// A log that may take a size keeps about that, the newest events.
func TestTheEventLogKeepsItsSize(t *testing.T) {
	ctx, at := t.Context(), time.Now()
	s := open(t, vfs.NewMem(), func(o *Options) { o.MemTableBytes = 1 << 20 })
	for i := range 5 {
		delivered(t, s, fmt.Sprint("d", i), 4000, at)
		const size = 512 << 10
		must[int64](t)(s.TrimEvents(ctx, time.Time{}, size))
		oldest, end := s.Ends()
		if used := must[int64](t)(s.EventBytes()); used > size || i > 1 && used < size/2 || oldest[0] == end[0] {
			t.Errorf("round %d: %d octets, events %d to %d", i, used, oldest[0], end[0])
		}
		if events, _, err := s.Read(ctx, feedback.Positions{end[0] - 1}, 1); err != nil || len(events) != 1 {
			t.Errorf("the newest event: %v, %v", events, err)
		}
	}
}

// A purge that was cut off goes on with the next start.
func TestASweepGoesOn(t *testing.T) {
	ctx, at := t.Context(), time.Now()
	fs := vfs.NewCrashableMem()
	s := open(t, fs)
	delivered(t, s, "d", 5000, at)
	s.sweep.stop() // the process ends before it swept
	must[int64](t)(s.PurgeEnded(ctx, at.Add(time.Hour)))
	trash := must[*scope](t)(s.anyTrash())
	done := false
	check(t, s.submit(ctx, func(t *txn) (err error) { done, err = t.sweep(*trash); return err }))
	if done {
		t.Fatal("swept in one step")
	}
	s = open(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	check(t, s.sweepAll(ctx))
	for _, table := range append([]byte{tableRecipient, tableAddress, tableRecipientID, tableContent, tableTrash}, messageTables...) {
		n := 0
		check(t, s.scan(nil, []byte{table}, after([]byte{table}), func(_, _ []byte) (bool, error) { n++; return true, nil }))
		if n != 0 {
			t.Errorf("%d rows of table %c are left", n, table)
		}
	}
}

// BenchmarkPurge shows what a purged recipient costs, of which most is its rows in the indexes.
func BenchmarkPurge(b *testing.B) {
	ctx, at := context.Background(), time.Now()
	s := open(b, vfs.NewMem())
	delivered(b, s, "d", b.N, at)
	b.ReportAllocs()
	b.ResetTimer()
	must[int64](b)(s.PurgeEnded(ctx, at.Add(time.Hour)))
	check(b, s.sweepAll(ctx))
}

// While tables find no room nothing is lost and nothing ends: they are written when there is
// room again. (Its log finds no room either on a disk that is really full; that ends the process.)
func TestTablesThatFindNoRoomAreWrittenLater(t *testing.T) {
	ctx := t.Context()
	disk := faults.Wrap(vfs.NewMem(), faults.Plan{Kind: faults.Room, Path: ".sst", Err: syscall.ENOSPC})
	s := open(t, disk, func(o *Options) { o.MemTableBytes = 256 << 10 })
	must[*campaign.Delivery](t)(s.Create(ctx, draft("d"), campaign.Request{}))
	heal := time.AfterFunc(300*time.Millisecond, disk.Heal)
	defer heal.Stop()
	const n = 10_000 // more than memory tables hold
	for from := 1; from <= n; from += 500 {
		must[campaign.Added](t)(s.Add(ctx, "d", items(from, 500, "a.test", "b.test")))
	}
	if got := must[int64](t)(s.DurableIndex(ctx, "d")); got != n || disk.Failed() == 0 {
		t.Errorf("%d durable, %d operations failed", got, disk.Failed())
	}
}

// BenchmarkPurgeSinglesFindsNothing shows what a round costs that removes nothing, with so many
// single messages to each of 500,000 domains.
func BenchmarkPurgeSinglesFindsNothing(b *testing.B) {
	const domains = 500_000
	for _, each := range []uint64{1, 8} {
		b.Run(fmt.Sprintf("each=%d", each), func(b *testing.B) {
			ctx, at := context.Background(), time.Now()
			s, _ := benchStore(b)
			_, id, err := s.Send(ctx, campaign.Single{
				Tenant: "default", Time: at, Validity: time.Hour, Item: item(1, "anna", "a.test"),
				Content: &veredusv1.Delivery{Tenant: "default", Sender: &veredusv1.Sender{From: "shop@one.example"}},
			}, campaign.Request{})
			check(b, err)
			repeatRow(b, s, id, domains, each)
			b.ReportAllocs()
			for b.Loop() {
				if n := must[int64](b)(s.PurgeSingles(ctx, at.Add(-time.Hour))); n != 0 {
					b.Fatalf("%d messages went", n)
				}
			}
		})
	}
}

// repeatRow gives so many domains each so many copies of a recipient.
func repeatRow(b *testing.B, s *Store, id mta.MessageID, domains uint32, each uint64) {
	b.Helper()
	d := must[*deliveryState](b)(s.viewNumber(must[uint64](b)(s.readNumber(key8(tableHandover, id.Handover)))))
	row := must[[]byte](b)(s.get(d.scope().message(tableRecipient, id)))
	batch := s.db.NewBatch()
	for id.Domain = 1; id.Domain <= domains; id.Domain++ {
		for id.Order = 1; id.Order <= each; id.Order++ {
			check(b, batch.Set(d.scope().message(tableRecipient, id), row, nil))
		}
		if batch.Len() > 1<<20 || id.Domain == domains {
			check(b, batch.Commit(pebble.NoSync))
			batch = s.db.NewBatch()
		}
	}
	check(b, s.db.Flush())
}
