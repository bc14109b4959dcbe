package mta

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/veredus/veredus/mta/bounce"
)

// exclusions answers Excluded by local part.
type exclusions struct {
	mu    sync.Mutex
	asked []Addressee
	by    map[string]bounce.Reason
	err   error
}

func (e *exclusions) excluded(_ context.Context, a Addressee) (bounce.Reason, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, a)
	local, _, _ := strings.Cut(a.Recipient, "@")
	return e.by[local], e.err
}

func (e *exclusions) set(local string, reason bounce.Reason, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.by[local], e.err = reason, err
}

// A recipient who is excluded while the mail is queued, or waits for its retry, gets no
// MAIL; the message fails with the reason. Others on the same session go on.
func TestExcludedJustBeforeTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, rc := newMemory(), &receiver{}
		first := true
		rc.reply = func(line string) string {
			if strings.HasPrefix(line, "RCPT TO:<later@") && first {
				first = false
				return "452 4.2.2 mailbox full"
			}
			return ""
		}
		h := bulk(1)
		h.Tenant = "acme"
		ids := store.add(h, 1, "quarantined@a.example", "left@a.example", "later@a.example", "stays@a.example")
		e := &exclusions{by: map[string]bounce.Reason{"quarantined": bounce.ReasonInQuarantine, "left": bounce.ReasonDenylisted}}
		cfg := config(t, store, rc.serve)
		cfg.Excluded = e.excluded
		r := started(t, cfg)
		r.HandOver(h)
		pass(time.Minute)
		e.set("later", bounce.ReasonDenylisted, nil) // while it waits for its retry
		pass(24 * time.Hour)
		want := []struct {
			outcomes int
			last     Outcome
			reason   bounce.Reason
		}{{1, Suppressed, bounce.ReasonInQuarantine}, {1, Suppressed, bounce.ReasonDenylisted}, {2, Suppressed, bounce.ReasonDenylisted}, {1, Delivered, 0}}
		for i, id := range ids {
			list := store.outcomes(id)
			if len(list) != want[i].outcomes {
				t.Fatalf("message %d: %+v", i, list)
			}
			last := list[len(list)-1]
			if last.Outcome != want[i].last || last.Verdict.Reason != want[i].reason {
				t.Errorf("message %d ended %v, reason %v", i, last.Outcome, last.Verdict.Reason)
			}
			if last.Outcome == Suppressed && (last.Verdict.Code != bounce.CodeAdminFailure || last.Attempt != nil) {
				t.Errorf("message %d: code %d, attempt %v", i, last.Verdict.Code, last.Attempt)
			}
		}
		if n := rc.count(); n != 2 {
			t.Errorf("%d MAIL, not 2", n)
		}
		if a := e.asked[0]; a.Tenant != "acme" || a.Delivery != h.DeliveryID || a.ID.Handover != h.ID {
			t.Errorf("asked about %+v", a)
		}
		stop(t, r)
	})
}

// When nobody can say whether a recipient is excluded, the mail waits.
func TestUnknownExclusionWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, rc := newMemory(), &receiver{}
		h := bulk(1)
		id := store.add(h, 1, "a@a.example")[0]
		e := &exclusions{by: map[string]bounce.Reason{}, err: errors.New("the disk hiccups")}
		cfg := config(t, store, rc.serve)
		cfg.Excluded = e.excluded
		r := started(t, cfg)
		r.HandOver(h)
		pass(time.Minute)
		if list := store.outcomes(id); len(list) != 1 || list[0].Outcome != Deferred || rc.count() != 0 {
			t.Fatalf("%d MAIL, outcomes %+v", rc.count(), list)
		}
		e.set("", 0, nil)
		pass(time.Hour)
		if list := store.outcomes(id); len(list) != 2 || list[1].Outcome != Delivered {
			t.Errorf("outcomes %+v", list)
		}
		stop(t, r)
	})
}
