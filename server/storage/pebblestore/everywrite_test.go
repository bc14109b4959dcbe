package pebblestore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
)

// Power fails at every write boundary of a store's life: before each operation by which
// the file system is changed, from the founding to the purge, what a disk would hold then is
// kept. Each of these disks must open, hold all that was acknowledged by that time, and
// nothing by halves.

// lifeAcks is what a store acknowledged so far. It is never changed, only replaced.
type lifeAcks struct {
	index   int64 // of recipients
	started bool
	claimed map[mta.MessageID]bool
	settled map[mta.MessageID]mta.Outcome
	events  uint64 // there were, at least
	trimmed bool
	purged  bool
	singles int
}

// cutDisk is a disk as it would be without power.
type cutDisk struct {
	at   string
	fs   *vfs.MemFS
	acks lifeAcks
}

// cutter keeps disks before write operations.
type cutter struct {
	mem *vfs.MemFS

	mu    sync.Mutex
	rng   *rand.Rand
	early bool // the store acknowledges before it syncs
	acks  lifeAcks
	disks []cutDisk
	ops   int
	off   bool
}

// String implements errorfs.Injector.
func (c *cutter) String() string { return "power cuts" }

// MaybeError implements errorfs.Injector.
func (c *cutter) MaybeError(op errorfs.Op) error {
	changes := op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose && op.Kind != errorfs.OpLock &&
		op.Kind != errorfs.OpFileFlush && op.Kind != errorfs.OpFilePreallocate
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off || !changes {
		return nil
	}
	c.ops++
	cfg := vfs.CrashCloneCfg{RNG: c.rng}
	if c.ops%2 == 0 { // what was not synced is lost wholly, or in part
		cfg.UnsyncedDataPercent = c.rng.IntN(101)
	}
	c.disks = append(c.disks, cutDisk{
		at: fmt.Sprintf("write %d (kind %d, %s, %d%% of the unsynced kept)", c.ops, op.Kind, op.Path, cfg.UnsyncedDataPercent),
		fs: c.mem.CrashClone(cfg), acks: c.acks,
	})
	return nil
}

// ack notes what was acknowledged.
func (c *cutter) ack(change func(*lifeAcks)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.acks
	n.claimed, n.settled = maps.Clone(n.claimed), maps.Clone(n.settled)
	change(&n)
	c.acks = n
}

const lifeRecipients = 40

var lifeBegan = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

func lifeOptions(fs vfs.FS) Options {
	return Options{Dir: "store", FS: fs, Logger: quiet, MemTableBytes: 256 << 10, Now: func() time.Time { return lifeBegan }}
}

// live takes a store through its life.
func (c *cutter) live(t *testing.T) {
	ctx := context.Background()
	o := lifeOptions(errorfs.Wrap(c.mem, c))
	o.unsafeNoSync = c.early
	s := must[*Store](t)(Open(o))
	must[*campaign.Delivery](t)(s.Create(ctx, draft("d"), campaign.Request{ID: "create", Method: "Create"}))
	for from := 1; from <= lifeRecipients; from += 10 {
		added := must[campaign.Added](t)(s.Add(ctx, "d", items(from, 10, "a.test", "b.test")))
		c.ack(func(a *lifeAcks) { a.index = added.DurableIndex })
	}
	d := start(t, s, "d")
	c.ack(func(a *lifeAcks) { a.started = true })
	epoch := must[*mta.Recovery](t)(s.Recover(ctx, lifeBegan)).Epoch
	check(t, s.db.Flush())
	for domain := uint32(1); domain <= 2; domain++ {
		c.deliver(t, s, d, domain, epoch)
	}
	for i := range 3 {
		must2(t)(s.Send(ctx, singleMail(fmt.Sprint("single", i)), campaign.Request{}))
		c.ack(func(a *lifeAcks) { a.singles++ })
	}
	must[int64](t)(s.TrimEvents(ctx, lifeBegan.Add(time.Hour), 0))
	c.ack(func(a *lifeAcks) { a.trimmed = true })
	if n := must[int64](t)(s.PurgeEnded(ctx, lifeBegan.Add(24*time.Hour))); n != 1 {
		t.Fatalf("purged %d", n)
	}
	c.ack(func(a *lifeAcks) { a.purged = true })
	check(t, s.sweepAll(ctx))
	c.mu.Lock()
	c.off = true
	c.mu.Unlock()
	check(t, s.Close())
}

func must2(t *testing.T) func(*mta.Handover, mta.MessageID, error) {
	return func(_ *mta.Handover, _ mta.MessageID, err error) { t.Helper(); check(t, err) }
}

func singleMail(name string) campaign.Single {
	return campaign.Single{
		Tenant: "default", Time: lifeBegan, Validity: time.Hour, Item: item(1, name, "c.test"), Content: draft("x").Spec,
	}
}

// deliver claims and settles a run, five messages at a time.
func (c *cutter) deliver(t *testing.T, s *Store, d *campaign.Delivery, domain uint32, epoch uint64) {
	ctx := context.Background()
	list := must[mta.LoadResult](t)(s.Load(ctx, mta.LoadRequest{Handover: d.Handover, Domain: domain, Fresh: lifeRecipients, Now: lifeBegan})).Fresh
	for len(list) > 0 {
		some := list[:min(5, len(list))]
		list = list[len(some):]
		b := mta.Batch{Epoch: epoch}
		for _, m := range some {
			b.Claims = append(b.Claims, mta.Claim{Message: m, Time: lifeBegan, MessageID: "m@x"})
		}
		must[mta.Written](t)(s.Write(ctx, &b))
		c.ack(func(a *lifeAcks) {
			for _, m := range some {
				a.claimed[m.ID] = true
			}
		})
		b = mta.Batch{Epoch: epoch}
		for i, m := range some {
			outcome := mta.Delivered
			if i == 0 {
				outcome = mta.Bounced
			}
			b.Settles = append(b.Settles, settlement(m, outcome, lifeBegan))
		}
		must[mta.Written](t)(s.Write(ctx, &b))
		_, end := s.Ends()
		c.ack(func(a *lifeAcks) {
			for i := range b.Settles {
				a.settled[b.Settles[i].Message.ID] = b.Settles[i].Outcome
			}
			a.events = end[0]
		})
	}
}

func TestPowerFailsAtEveryWriteBoundary(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := newCutter(seed)
	c.live(t)
	repeats := 0
	for i, disk := range c.disks {
		if testing.Short() && i%10 != 0 {
			continue
		}
		n, err := disk.inspect(t)
		if err != nil {
			t.Fatalf("seed %d: power fails before %s: %v", seed, disk.at, err)
		}
		repeats = max(repeats, n)
	}
	t.Logf("%d write boundaries; at most %d messages would be repeated", len(c.disks), repeats)
	if len(c.disks) < 100 || repeats != 5 {
		t.Errorf("%d boundaries, %d claims lost at most; the life has 5 claims at a time", len(c.disks), repeats)
	}
}

func newCutter(seed uint64) *cutter {
	c := &cutter{mem: vfs.NewCrashableMem(), rng: rand.New(rand.NewPCG(seed, 0))}
	c.acks.claimed, c.acks.settled = map[mta.MessageID]bool{}, map[mta.MessageID]mta.Outcome{}
	return c
}

// The cuts must find a store that acknowledges before it syncs.
func TestTheCutsFindWhatIsAcknowledgedTooEarly(t *testing.T) {
	c := newCutter(1)
	c.early = true
	c.live(t)
	for _, disk := range c.disks {
		if _, err := disk.inspect(t); err != nil {
			t.Logf("power fails before %s: %v", disk.at, err)
			return
		}
	}
	t.Error("no cut found it")
}

// inspect opens the disk, compares it with what was acknowledged, and counts the messages that
// will be sent again.
func (d *cutDisk) inspect(t *testing.T) (repeats int, err error) {
	ctx := context.Background()
	s, err := Open(lifeOptions(d.fs))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	got, err := s.Get(ctx, "d")
	if errors.Is(err, campaign.ErrNotFound) && d.acks.index == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	c := &got.Counters
	switch {
	case c.Balance() != nil:
		return 0, c.Balance()
	case c.LastIndex < d.acks.index || c.Accepted != c.LastIndex:
		return 0, fmt.Errorf("%d recipients up to index %d; %d acknowledged", c.Accepted, c.LastIndex, d.acks.index)
	case d.acks.started && got.State < campaign.Running:
		return 0, fmt.Errorf("the start is lost: %s", got.State)
	}
	if err := d.compareEvents(ctx, s, c); err != nil {
		return 0, err
	}
	rec, err := s.Recover(ctx, lifeBegan)
	if err != nil {
		return 0, err
	}
	return len(rec.Lost), d.compareMessages(ctx, s, got, rec)
}

// compareEvents reads the whole log: what counters say was told, once.
func (d *cutDisk) compareEvents(ctx context.Context, s *Store, c *campaign.Counters) error {
	oldest, end := s.Ends()
	events, next, err := s.Read(ctx, oldest, 1000)
	if err != nil {
		return err
	}
	if next[0] != end[0] || end[0] < d.acks.events || d.acks.trimmed && len(events) != 0 {
		return fmt.Errorf("events from %d to %d; %d acknowledged, trimmed: %v", oldest[0], end[0], d.acks.events, d.acks.trimmed)
	}
	if oldest[0] != 0 {
		if _, _, err := s.Read(ctx, feedback.Positions{0}, 1); !errors.Is(err, feedback.ErrBeforeRetention) {
			return fmt.Errorf("reading events that went: %v", err)
		}
		return nil
	}
	told := map[string]int64{}
	for _, e := range events {
		told[e.GetType().String()]++
	}
	if told["FEEDBACK_TYPE_DELIVERED"] != c.Sent || told["FEEDBACK_TYPE_BOUNCED"] != c.Failed {
		return fmt.Errorf("sent %d and failed %d, told %v", c.Sent, c.Failed, told)
	}
	return nil
}

// compareMessages compares the sending log: settled is settled, what was claimed is either
// settled or known as lost, and a purge is there wholly or not at all.
func (d *cutDisk) compareMessages(ctx context.Context, s *Store, got *campaign.Delivery, rec *mta.Recovery) error {
	page, _, err := s.Messages(ctx, "d", nil, 1000, nil)
	if err != nil {
		return err
	}
	if purged := got.Spec.GetContent() == nil; purged || d.acks.purged {
		if !purged || len(page) != 0 || got.Counters.Sent != lifeRecipients/5*4 {
			return fmt.Errorf("purged: %v, %d messages, %d sent", purged, len(page), got.Counters.Sent)
		}
		return d.compareSingles(ctx, s)
	}
	if int64(len(page)) != got.Counters.Accepted {
		return fmt.Errorf("%d messages of %d accepted", len(page), got.Counters.Accepted)
	}
	lost := map[mta.MessageID]bool{}
	for _, l := range rec.Lost {
		lost[l.ID] = true
	}
	for _, e := range page {
		outcome, settled := d.acks.settled[e.ID]
		final := e.Truth == campaign.Sent || e.Truth == campaign.Failed
		switch {
		case settled && (outcome == mta.Delivered) != (e.Truth == campaign.Sent), settled && !final:
			return fmt.Errorf("message %s: acknowledged %v, is %d", e.ID, outcome, e.Truth)
		case d.acks.claimed[e.ID] && !final && !lost[e.ID]:
			return fmt.Errorf("message %s: its claim is lost without a trace", e.ID)
		}
	}
	return d.compareSingles(ctx, s)
}

func (d *cutDisk) compareSingles(ctx context.Context, s *Store) error {
	if d.acks.singles == 0 {
		return nil
	}
	page, _, err := s.Messages(ctx, "transactional-default", nil, 1000, nil)
	if err == nil && len(page) < d.acks.singles {
		err = fmt.Errorf("%d single messages, %d acknowledged", len(page), d.acks.singles)
	}
	return err
}
