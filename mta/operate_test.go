package mta

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
)

// moved is a lateDirectory that knows to which pools runs were moved.
type moved struct {
	*lateDirectory
	moves map[runName]Move
}

func (s *moved) Runs(ctx context.Context, handover uint64, after uint32, most int) ([]RunState, error) {
	s.mu.Lock()
	moves := map[runName]Move{}
	for name, m := range s.moves {
		moves[name] = m
	}
	s.mu.Unlock()
	list, err := s.lateDirectory.Runs(ctx, handover, after, most)
	for i := range list { // as it was when it was asked
		m := moves[runName{handover, list[i].Domain}]
		list[i].Pool, list[i].Instead = m.Pool, m.Instead
	}
	return list, err
}

func (s *moved) Write(ctx context.Context, b *Batch) (Written, error) {
	s.mu.Lock()
	for _, m := range b.Moves {
		s.moves[runName{m.Handover, m.Domain}] = m
	}
	s.mu.Unlock()
	return s.lateDirectory.Write(ctx, b)
}

// Mail is moved to another pool before the relay knows its runs: what it then reads of
// them is older than the move, which counts; and the last move, if there are two.
func TestMailIsMovedThoughItsRunsAreNotKnownYet(t *testing.T) {
	for name, tt := range map[string]struct {
		pools  []string
		source string
	}{
		"to the other pool":          {[]string{"other"}, "s2"},
		"to a third one behind that": {[]string{"other", "third"}, "s3"},
		"and back":                   {[]string{"other", "default"}, "s1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &moved{&lateDirectory{memory: newMemory(), answer: make(chan struct{})}, map[runName]Move{}}
				h := bulk(1)
				goes, stays := store.add(h, 1, "a@a.example", "b@a.example"), store.add(h, 2, "c@b.example")
				store.handovers = []*Handover{h}
				cfg := config(t, store.memory, (&receiver{}).serve)
				cfg.Store = store
				for _, p := range []string{"other", "third"} {
					cfg.Settings.Pools = append(cfg.Settings.Pools, dispatch.Pool{
						Name: p, Sources: []dispatch.Source{{Name: map[string]string{"other": "s2", "third": "s3"}[p], Weight: 1}},
					})
				}
				cfg.Settings.HelloNames = map[string]string{"s1": "a.sender.example", "s2": "b.sender.example", "s3": "c.sender.example"}
				r := started(t, cfg)
				synctest.Wait()
				for _, pool := range tt.pools {
					if _, err := r.MoveRuns(t.Context(), Queue{Destination: "a.example"}, Order{ID: pool, Began: time.Now()}, pool); err != nil {
						t.Fatal(err)
					}
				}
				close(store.answer)
				pass(time.Minute)
				for i, id := range append(goes, stays...) {
					want := tt.source
					if i == len(goes) {
						want = "s1"
					}
					if list := store.outcomes(id); len(list) != 1 || list[0].Outcome != Delivered || list[0].Attempt.Source != want {
						t.Errorf("%v: %+v, want %s", id, list, want)
					}
				}
				stop(t, r)
			})
		})
	}
}
