package pebblestore

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/server/storage/storagetest"
)

// crashDriver is a store in memory that can lose power.
type crashDriver struct {
	fs    *vfs.MemFS
	store *Store
	opts  Options
}

func newDriver() storagetest.Driver {
	return &crashDriver{fs: vfs.NewCrashableMem(), opts: Options{
		Dir: "store", Logger: quiet,
		MemTableBytes: 256 << 10, // small, so that flushes and compactions take part
	}}
}

func (d *crashDriver) Open(now func() time.Time) (storagetest.Store, error) {
	o := d.opts
	o.FS, o.Now = d.fs, now
	s, err := Open(o)
	d.store = s
	return s, err
}

func (d *crashDriver) Cut(rng *rand.Rand) {
	d.fs = d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
}

func (d *crashDriver) Close() error { return d.store.Close() }

func TestConformance(t *testing.T) { storagetest.Run(t, newDriver) }

// A store that acknowledges before it syncs must not pass.
func TestSuiteFindsAStoreThatAcknowledgesTooEarly(t *testing.T) {
	for seed := range uint64(20) {
		d := newDriver().(*crashDriver)
		d.opts.unsafeNoSync = true
		if err := storagetest.CheckCrashes(d, seed, 100); err != nil {
			t.Logf("seed %d: %v", seed, err)
			return
		}
	}
	t.Fatal("a store that does not sync passed 20 runs of the suite")
}
