package virtual

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A subscriber that takes its time reads every event once and in order, and delays
// nobody.
func TestSlowSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		seen := make(chan map[string]int, 1)
		go func() { seen <- r.readSlowly(5000) }()
		domains := make([]string, 20)
		for i := range domains {
			domains[i] = "d" + string(rune('a'+i)) + ".example"
		}
		r.start("d", 84*time.Hour, many(5000, domains...)...)
		if d := r.await("d", 10*time.Second); d.Counters.Sent != 5000 { // 100 messages a second and domain
			t.Errorf("counters %+v", d.Counters)
		}
		by := <-seen
		if by["started"] != 1 || by["delivered"] != 5000 || by["finished"] != 1 {
			t.Errorf("events read %v", by)
		}
		if behind := time.Since(r.began); behind < 50*time.Second {
			t.Errorf("the subscriber was as fast as the relay: %v", behind)
		}
	})
}

// readSlowly reads the event log, a hundred events a second, until so many messages
// were delivered and the delivery is finished. It counts the events by type.
func (r *rig) readSlowly(messages int) map[string]int {
	by, ids, latest := map[string]int{}, map[string]bool{}, time.Time{}
	at, _ := r.store.Ends()
	for by["delivered"] < messages || by["finished"] == 0 {
		<-r.store.Grown(at)
		page, next, err := r.store.Read(r.t.Context(), at, 100)
		if err != nil {
			r.t.Error(err)
			return by
		}
		for _, e := range page {
			if ids[e.GetId()] {
				r.t.Errorf("event %s came twice", e.GetId())
			}
			ids[e.GetId()] = true
			if at := e.GetTime().AsTime(); at.Before(latest) {
				r.t.Errorf("event %s of %v comes behind one of %v", e.GetId(), at, latest)
			} else {
				latest = at
			}
			by[typeName(e)]++
		}
		if slices.Equal(next, at) {
			r.t.Error("the log grew, and nothing can be read")
			return by
		}
		at = next
		time.Sleep(time.Second)
	}
	return by
}
