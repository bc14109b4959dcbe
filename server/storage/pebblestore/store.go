// Package pebblestore keeps everything a Veredus node must not forget in one
// embedded Pebble database: deliveries and their recipients, the relay's claims,
// retries and outcomes, the sending log, the feedback events.
//
// Call Open, hand the Store to the services and the relay (it is each of their
// storage interfaces), and Close it last. Every write is acknowledged only once it
// is synced; what a write says and the counters and events that follow from it are
// one atomic batch. See keys.go for the rows and commit.go for how writes go.
package pebblestore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/inbound"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
	"github.com/veredus/veredus/server/learning"
	"github.com/veredus/veredus/server/suspend"
)

var (
	_ mta.Store           = (*Store)(nil)
	_ campaign.Deliveries = (*Store)(nil)
	_ campaign.Recipients = (*Store)(nil)
	_ campaign.SendingLog = (*Store)(nil)
	_ feedback.Log        = (*Store)(nil)
	_ suspend.Suspensions = (*Store)(nil)
	_ address.Store       = (*Store)(nil)
	_ learning.Store      = (*Store)(nil)
	_ inbound.Ledger      = (*Store)(nil)
)

// ErrClosed is returned by calls after Close.
var ErrClosed = errors.New("pebblestore: closed")

// formatVersion is the layout of the rows. Raise it with any change that an older
// program would misread.
const formatVersion = 1

// Options say where the store is and what it may use. Dir is required.
type Options struct {
	// Dir is the directory, created when missing. One process at a time may use it.
	Dir string
	// FS is the file system (default: the machine's).
	FS vfs.FS
	// Now stamps what the store itself writes (default time.Now).
	Now func() time.Time
	// Logger gets the database's messages (default slog.Default).
	Logger *slog.Logger
	// CacheBytes is the block cache, beside the memory tables (default 32 MiB).
	CacheBytes int64
	// MemTableBytes is the size of one memory table; up to three exist at a time (default 16 MiB).
	MemTableBytes uint64
	// Compactions says when compactions run; each store opened needs one of its own (default:
	// Pebble's, which looks whether another may run ten times a second; in virtual time,
	// where a year is nothing, these looks would be most of the work).
	Compactions pebble.CompactionScheduler
	// Policy is what errors, complaints and unsubscribes make of addresses; asked at each
	// write, so it may change (default address.DefaultPolicy). It must not block.
	Policy func() address.Policy
	// Lost, if set, is told by Recover of the claims that the process before left, before it
	// puts them back. What it writes must be durable when it returns: should this
	// process die here, the next one tells of the same claims again, so that none is put
	// back without having been told. Its error ends Recover, which then wrote nothing.
	Lost func([]mta.LostClaim) error

	// unsafeNoSync acknowledges before syncing: the broken store that the
	// conformance suite must find.
	unsafeNoSync bool
	// exit ends the process after a failure to write (default os.Exit(1)).
	exit func()
}

func (o *Options) setDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 32 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 16 << 20
	}
	if o.Policy == nil {
		o.Policy = address.DefaultPolicy
	}
	if o.exit == nil {
		o.exit = func() { os.Exit(1) }
	}
}

// Store is the embedded store. All methods are safe for concurrent use.
type Store struct {
	opts    Options
	db      *pebble.DB
	id      [16]byte
	secrets secrets

	writer writer
	events eventLog
	sweep  sweeper

	entryCount  atomic.Int64 // address entries there are, as of the last operation applied
	entryFilter entryFilter

	// mu guards the state that writes change and readers see.
	mu       sync.RWMutex
	cache    deliveryCache
	claims   map[mta.MessageID]*claim
	watchers map[string]chan struct{} // by delivery id, see Changed
	expiry   expiryFloor

	// Of the applier alone.
	epoch   uint64
	seq     sequences
	runs    *runCache
	drafts  drafts
	filters filters
	surge   *address.Surge
	// observed counts the attempts that surge was told of.
	observed int
	// nextCounter is where the search for counters that ran out goes on; nil: at the beginning.
	nextCounter []byte
	// oldestRequest is where the rows of requests by age begin; below lie tombstones.
	oldestRequest []byte
	contents      map[contentKey]sharedContent
	// swept is behind the last recipient that the sweeper removed; below lie tombstones.
	swept []byte
}

// sequences are the last numbers given.
type sequences struct {
	delivery, handover, content, tenant uint64
}

// Open opens the store in a directory, creating it when there is none. It reads
// nothing that grows with the backlog. A store written by a newer version is refused.
func Open(o Options) (*Store, error) {
	o.setDefaults()
	if o.Dir == "" {
		return nil, errors.New("pebblestore: Dir is empty: name the directory of the store")
	}
	db, err := pebble.Open(o.Dir, pebbleOptions(&o))
	if err != nil {
		return nil, fmt.Errorf("pebblestore: opening %s: %w", o.Dir, err)
	}
	s := &Store{
		opts: o, db: db,
		claims: map[mta.MessageID]*claim{}, watchers: map[string]chan struct{}{},
		cache: newDeliveryCache(), runs: newRunCache(maxCachedRuns), drafts: drafts{by: map[uint64]*directory{}},
		contents: map[contentKey]sharedContent{}, surge: address.NewSurge(),
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("pebblestore: opening %s: %w", o.Dir, err), db.Close())
	}
	s.filters.start()
	s.startEntryFilter()
	s.writer.start(s)
	s.sweep.start(s)
	return s, nil
}

// Close waits for the writes under way and closes the database. It is called once, last.
func (s *Store) Close() error {
	s.sweep.stop()
	_ = s.submit(context.Background(), func(t *txn) error { // else the last state written stands
		if t.s.observed > 0 {
			t.writeSurge()
		}
		return nil
	})
	if !s.writer.stop() {
		return ErrClosed
	}
	s.filters.stop()
	return s.db.Close()
}

// usualMemTables is how many memory tables there mostly are: the one written to and
// the one kept for the next. Pebble takes them out of its cache, which would leave
// nothing for blocks: then each read decompresses anew, the index blocks first.
const usualMemTables = 2

func pebbleOptions(o *Options) *pebble.Options {
	log := &logger{log: o.Logger, exit: o.exit}
	p := &pebble.Options{
		FS:                          &strictFS{o.FS, func(err error) { log.Fatalf("%v", err) }},
		Comparer:                    comparer,
		FormatMajorVersion:          pebble.FormatValueSeparation,
		CacheSize:                   o.CacheBytes + usualMemTables*int64(o.MemTableBytes),
		MemTableSize:                o.MemTableBytes,
		MemTableStopWritesThreshold: 3,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       32,
		LBaseMaxBytes:               64 << 20,
		MaxOpenFiles:                500,
		BytesPerSync:                512 << 10,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		Logger:                      log,
	}
	p.Experimental.CompactionScheduler = o.Compactions
	for i := range p.Levels {
		p.Levels[i].BlockSize = 16 << 10
		p.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		p.Levels[i].FilterType = pebble.TableFilter
	}
	return p
}

// logger passes Pebble's messages on. Fatalf ends the process: after a failed
// commit or sync nothing that follows could be trusted.
type logger struct {
	log  *slog.Logger
	exit func()
}

func (l *logger) Infof(format string, args ...any) {
	l.log.Debug("pebble: " + fmt.Sprintf(format, args...))
}

func (l *logger) Errorf(format string, args ...any) {
	l.log.Error("pebble: " + fmt.Sprintf(format, args...))
}

func (l *logger) Fatalf(format string, args ...any) {
	l.log.Error("the store cannot write; ending the process: " + fmt.Sprintf(format, args...))
	l.exit()
}

// Names of the rows of tableMeta.
var (
	metaFormat    = keyName(tableMeta, "format")
	metaStoreID   = keyName(tableMeta, "store-id")
	metaEpoch     = keyName(tableMeta, "epoch")
	metaSequences = keyName(tableMeta, "sequences")
	metaSecrets   = keyName(tableMeta, "secrets")
	metaSurge     = keyName(tableMeta, "surge")
	metaOldest    = keyName(tableMeta, "oldest-event")
)

// load reads the state of an existing store, or lays the foundation of a new one.
func (s *Store) load() error {
	format, err := s.readNumber(metaFormat)
	if err != nil {
		return err
	}
	if format > formatVersion {
		return fmt.Errorf("the store has format %d, this version knows up to %d: use the version that wrote it, or a newer one", format, formatVersion)
	}
	if format == 0 {
		if err := s.found(); err != nil {
			return err
		}
	}
	if err := s.loadMeta(); err != nil {
		return err
	}
	if err := s.loadClaims(); err != nil {
		return err
	}
	if err := s.loadSurge(); err != nil {
		return err
	}
	return s.loadEvents()
}

// found writes the rows every store has.
func (s *Store) found() error {
	b := s.db.NewBatch()
	defer b.Close()
	id, keys := make([]byte, 16), make([]byte, secretSize)
	_, _ = rand.Read(id)
	_, _ = rand.Read(keys)
	for _, row := range []struct{ k, v []byte }{
		{metaFormat, binary.BigEndian.AppendUint64(nil, formatVersion)},
		{metaStoreID, id},
		{metaSecrets, keys},
	} {
		if err := b.Set(row.k, row.v, nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.Sync)
}

func (s *Store) loadMeta() (err error) {
	id, err := s.get(metaStoreID)
	if err != nil {
		return err
	}
	copy(s.id[:], id)
	if s.secrets.returnPath, err = s.get(metaSecrets); err != nil {
		return err
	}
	if s.epoch, err = s.readNumber(metaEpoch); err != nil {
		return err
	}
	entries, err := s.readNumber(metaEntries)
	if err != nil {
		return err
	}
	s.entryCount.Store(int64(entries))
	row, err := s.get(metaSequences)
	if err != nil {
		return err
	}
	return readRow(row, s.seq.field)
}

func (s *Store) loadClaims() error {
	return s.scan(nil, []byte{tableClaim}, after([]byte{tableClaim}), func(k, v []byte) (bool, error) {
		id, ok := parseClaimKey(k)
		if !ok {
			return false, corrupt(errors.New("claim key"))
		}
		c, err := decodeClaim(v)
		s.claims[id] = c
		return true, err
	})
}

// get reads one row; nil when there is none.
func (s *Store) get(k []byte) ([]byte, error) { return get(s.db, k) }

func get(r pebble.Reader, k []byte) ([]byte, error) {
	v, closer, err := r.Get(k)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pebblestore: reading: %w", err)
	}
	row := make([]byte, len(v))
	copy(row, v)
	return row, closer.Close()
}

// has reports whether a row exists.
func (s *Store) has(k []byte) (bool, error) {
	_, closer, err := s.db.Get(k)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("pebblestore: reading: %w", err)
	}
	return true, closer.Close()
}

// readNumber reads a row that holds one number; 0 when there is none.
func (s *Store) readNumber(k []byte) (uint64, error) {
	row, err := s.get(k)
	return be64(row), err
}

// scan calls each for the rows of [lower, upper) in order, until it answers false.
// Key and value are valid during the call only. A nil reader means the database.
func (s *Store) scan(r pebble.Reader, lower, upper []byte, each func(k, v []byte) (bool, error)) error {
	if r == nil {
		r = s.db
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmt.Errorf("pebblestore: reading: %w", err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("pebblestore: reading: %w", err)
		}
		more, err := each(it.Key(), v)
		if err != nil || !more {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("pebblestore: reading: %w", err)
	}
	return nil
}

// be64 reads a number of a key; 0 when it is too short.
func be64(k []byte) uint64 {
	if len(k) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(k)
}

func (q sequences) encode() []byte {
	b := putUint(nil, 1, q.delivery)
	b = putUint(b, 2, q.handover)
	b = putUint(b, 3, q.content)
	return putUint(b, 4, q.tenant)
}

// secretSize is the size of a key, in octets.
const secretSize = 32

// secrets are keys made once for each store.
type secrets struct {
	returnPath []byte
}

// ReturnPathKeys is the secret, 32 random octets, that signs return paths and
// Message-IDs. It is made with the store and never changes.
func (s *Store) ReturnPathKeys(context.Context) ([]byte, error) {
	return append([]byte(nil), s.secrets.returnPath...), nil
}

// StoreID is the identity of the store: 16 random bytes from its creation.
func (s *Store) StoreID() [16]byte { return s.id }
