// Package faults is a disk that fails on purpose, for tests: writes that find no room, syncs that
// fail or are slow, reads and writes with I/O errors. It wraps any file system at the seam
// where the store meets it. Faults come at counted or random operations; what is random
// follows from a seed.
package faults

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// Kind is what kind of operation fails.
type Kind string

// The kinds.
const (
	Sync  Kind = "sync"  // of files and directories
	Write Kind = "write" // into files
	Room  Kind = "room"  // all that takes room: writing, making and preallocating files
	Read  Kind = "read"  // from files
)

var operations = map[Kind][]errorfs.OpKind{
	Sync:  {errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo},
	Write: {errorfs.OpFileWrite, errorfs.OpFileWriteAt},
	Room:  {errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpCreate, errorfs.OpFilePreallocate},
	Read:  {errorfs.OpFileRead, errorfs.OpFileReadAt},
}

// Plan is one fault. The zero value never fails.
type Plan struct {
	Kind Kind
	// After is how many operations of the kind succeed first.
	After int
	// Times is how many fail then, one after the other; 0 is all.
	Times int
	// OneIn fails one operation in so many at random, from After on; 0 is each.
	OneIn int
	// Seed decides what is random.
	Seed uint64
	// Err is what they fail with; nil fails none, for Delay alone.
	Err error
	// Delay is how long each operation of the kind takes at least.
	Delay time.Duration
	// Path, when not empty, is what the names of the files end with.
	Path string
}

// Parse reads a plan as words: the kind, then name=value of after, times, one_in, seed,
// delay, path and err (eio, enospc). `sync after=100 err=eio`
func Parse(text string) (p Plan, err error) {
	words := strings.Fields(text)
	if len(words) == 0 || operations[Kind(words[0])] == nil {
		return p, fmt.Errorf("faults: %q begins with no kind; use sync, write, room or read", text)
	}
	p.Kind = Kind(words[0])
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		if err := p.set(name, value); err != nil {
			return p, fmt.Errorf("faults: %q: %w", w, err)
		}
	}
	return p, nil
}

func (p *Plan) set(name, value string) (err error) {
	switch name {
	case "after":
		p.After, err = strconv.Atoi(value)
	case "times":
		p.Times, err = strconv.Atoi(value)
	case "one_in":
		p.OneIn, err = strconv.Atoi(value)
	case "seed":
		p.Seed, err = strconv.ParseUint(value, 10, 64)
	case "delay":
		p.Delay, err = time.ParseDuration(value)
	case "path":
		p.Path = value
	case "err":
		p.Err = map[string]error{"eio": syscall.EIO, "enospc": syscall.ENOSPC}[value]
		if p.Err == nil {
			err = fmt.Errorf("use eio or enospc")
		}
	default:
		err = fmt.Errorf("use after, times, one_in, seed, delay, path or err")
	}
	return err
}

// String is the plan as Parse reads it.
func (p Plan) String() string {
	name := map[error]string{nil: "none", syscall.EIO: "eio", syscall.ENOSPC: "enospc"}[p.Err]
	return fmt.Sprintf("%s after=%d times=%d one_in=%d seed=%d delay=%v path=%s err=%s", p.Kind, p.After, p.Times, p.OneIn, p.Seed, p.Delay, p.Path, name)
}

// Disk is a file system with faults. It is safe for concurrent use.
type Disk struct {
	vfs.FS
	plans []*running
}

// Wrap puts faults in front of a file system.
func Wrap(fs vfs.FS, plans ...Plan) *Disk {
	d := &Disk{}
	for _, p := range plans {
		d.plans = append(d.plans, &running{Plan: p, rng: rand.New(rand.NewPCG(p.Seed, 0))})
	}
	d.FS = errorfs.Wrap(fs, errorfs.InjectorFunc(d.fault))
	return d
}

// Failed is how many operations failed so far.
func (d *Disk) Failed() (n int) {
	for _, r := range d.plans {
		r.mu.Lock()
		n += r.failed
		r.mu.Unlock()
	}
	return n
}

// Heal ends all faults.
func (d *Disk) Heal() {
	for _, r := range d.plans {
		r.mu.Lock()
		r.healed = true
		r.mu.Unlock()
	}
}

func (d *Disk) fault(op errorfs.Op) error {
	for _, r := range d.plans {
		if err := r.fault(op); err != nil {
			return err
		}
	}
	return nil
}

// running is a plan under way.
type running struct {
	Plan
	mu     sync.Mutex
	rng    *rand.Rand
	seen   int
	failed int
	healed bool
}

func (r *running) fault(op errorfs.Op) error {
	concerned := strings.HasSuffix(op.Path, r.Path)
	for _, kind := range operations[r.Kind] {
		if concerned && op.Kind == kind {
			time.Sleep(r.Delay)
			return r.next(op)
		}
	}
	return nil
}

func (r *running) next(op errorfs.Op) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen++; r.Err == nil || r.healed || r.seen <= r.After {
		return nil
	}
	if r.Times > 0 && r.failed >= r.Times || r.OneIn > 0 && r.rng.IntN(r.OneIn) != 0 {
		return nil
	}
	r.failed++
	return fmt.Errorf("%s of %s: injected: %w", r.Kind, op.Path, r.Err)
}
