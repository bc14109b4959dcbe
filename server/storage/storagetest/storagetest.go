// Package storagetest checks any storage driver against what its interfaces
// promise. A driver's test calls Run with a function that makes an empty Driver.
//
// The heart of it is a small model: maps of deliveries and messages that know
// nothing of counters, indexes or logs. Random operations go to the driver and to
// the model, and after each one everything that can be read is compared: states,
// counters derived by counting, the sending log, runs, loads, look-ups, the event
// log, the entries of addresses with what they exclude. Power is cut at random moments, also in the middle of an operation: what was
// acknowledged must be there, and what was not must be there wholly or not at all.
package storagetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/inbound"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
	"github.com/veredus/veredus/server/learning"
	"github.com/veredus/veredus/server/operator"
	"github.com/veredus/veredus/server/retention"
	"github.com/veredus/veredus/server/suspend"
)

// Store is everything that a driver implements.
type Store interface {
	mta.Store
	campaign.Deliveries
	campaign.Recipients
	campaign.SendingLog
	feedback.Log
	suspend.Suspensions
	address.Store
	learning.Store
	inbound.Ledger
	operator.Orders
	retention.Store

	// Read is Records, decoded.
	Read(ctx context.Context, from feedback.Positions, limit int) ([]*veredusv1.FeedbackEvent, feedback.Positions, error)
}

// Driver is one store that can be opened, closed and lose power.
type Driver interface {
	// Open opens what is on the disk; first an empty store. What the store itself stamps or
	// judges by time goes by now, and its address policy is address.DefaultPolicy.
	Open(now func() time.Time) (Store, error)
	// Cut cuts the power: nothing written from now on reaches the disk, and what was
	// not synced is lost, in part or wholly, as rng says. It may come while the store is in use.
	Cut(rng *rand.Rand)
	// Close closes the open store, also after a Cut.
	Close() error
}

// Run runs the whole suite.
func Run(t *testing.T, make func() Driver) {
	t.Run("random operations", func(t *testing.T) {
		rapid.Check(t, func(rt *rapid.T) {
			ops := rapid.SliceOfN(anyOp, 60, 90).Draw(rt, "operations")
			if err := Check(make(), ops); err != nil {
				rt.Fatal(err)
			}
		})
	})
	t.Run("power cuts", func(t *testing.T) {
		for range 15 {
			seed := rand.Uint64()
			if err := CheckCrashes(make(), seed, 100); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	})
	for _, story := range slices.Concat(stories, addressStories, operatorStories, retentionStories) {
		t.Run(story.name, func(t *testing.T) {
			d := make()
			s, err := d.Open(func() time.Time { return storyTime })
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}()
			story.tell(&teller{T: t, Store: s, driver: d})
		})
	}
}

// Check carries operations out, comparing the driver with the model after each. It
// returns the first difference, with the operations that led there.
func Check(d Driver, ops []Op) error {
	e, err := newEngine(d)
	if err != nil {
		return err
	}
	for _, op := range ops {
		if err := e.step(op); err != nil {
			_ = d.Close()
			return fmt.Errorf("%w\nafter:\n%s", err, e.trace())
		}
	}
	return d.Close()
}

// CheckCrashes carries out n random operations, with power cuts among them.
func CheckCrashes(d Driver, seed uint64, n int) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	ops := make([]Op, n)
	for i := range ops {
		ops[i] = Op{Kind: opKindsWeighed[rng.IntN(len(opKindsWeighed))], Seed: rng.Uint64()}
		if rng.IntN(8) == 0 {
			ops[i].Kind = opCut
		}
	}
	return Check(d, ops)
}

// Op is one random operation; Seed decides its details.
type Op struct {
	Kind opKind
	Seed uint64
}

var anyOp = rapid.Custom(func(t *rapid.T) Op {
	return Op{
		Kind: rapid.SampledFrom(opKindsWeighed).Draw(t, "kind"),
		Seed: rapid.Uint64().Draw(t, "seed"),
	}
})
