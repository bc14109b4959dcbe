package mta

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// lateDirectory is a store whose first answer about a directory is long on its way.
type lateDirectory struct {
	*memory
	asked  atomic.Int32
	answer chan struct{}
}

func (s *lateDirectory) Runs(ctx context.Context, handover uint64, after uint32, most int) ([]RunState, error) {
	first := s.asked.Add(1) == 1
	list, err := s.memory.Runs(ctx, handover, after, most)
	if first {
		<-s.answer
	}
	return list, err
}

// The clock was set back before the relay knew its runs: what it then reads of them is
// older than the retries' new times, of which the earliest counts.
func TestRetriesMoveThoughTheirRunsAreNotKnownYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &lateDirectory{memory: newMemory(), answer: make(chan struct{})}
		rc := &receiver{}
		h := bulk(1)
		ids := store.add(h, 1, "a@a.example", "b@a.example", "c@a.example")
		for i, after := range []time.Duration{50*time.Hour + 20*time.Minute, 50*time.Hour + 5*time.Minute, 60 * time.Hour} {
			r := store.rows[ids[i]]
			r.retry, r.msg.State.Due = true, time.Now().Add(after)
		}
		store.handovers = []*Handover{h}
		cfg := config(t, store.memory, rc.serve)
		cfg.Store = store
		r := started(t, cfg)
		synctest.Wait()
		if err := r.ClockSetBack(t.Context(), 50*time.Hour); err != nil {
			t.Fatal(err)
		}
		close(store.answer)
		for i, after := range []time.Duration{10 * time.Minute, 15 * time.Minute, 10 * time.Hour} {
			pass(after)
			if n := len(store.outcomes(ids[0])) + len(store.outcomes(ids[1])) + len(store.outcomes(ids[2])); n != i+1 {
				t.Errorf("%v later %d messages went", after, n)
			}
		}
		stop(t, r)
	})
}
