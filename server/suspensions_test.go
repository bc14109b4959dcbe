package server

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/veredus/veredus/mta/dispatch"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/storage/pebblestore"
	"github.com/veredus/veredus/server/suspend"
)

func everything() *veredusv1.Selector {
	return &veredusv1.Selector{Selector: &veredusv1.Selector_Everything{Everything: true}}
}

func tenant(name string) *veredusv1.Selector {
	return &veredusv1.Selector{Selector: &veredusv1.Selector_Tenant{Tenant: name}}
}

// stops is a relay that only notes what is stopped.
type stops struct {
	mu sync.Mutex
	by map[string]dispatch.Selector
}

func (s *stops) Suspend(_ context.Context, name string, sel dispatch.Selector) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by[strings.TrimPrefix(name, suspensionsPrefix)] = sel
	return nil
}

func (s *stops) Unsuspend(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, strings.TrimPrefix(name, suspensionsPrefix))
	return nil
}

func (s *stops) names() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(s.by)), " ")
}

// desk is suspensions over a store in memory and a relay that takes notes.
func desk(t *testing.T, fs vfs.FS) (*suspensions, *stops, func()) {
	t.Helper()
	store, err := pebblestore.Open(pebblestore.Options{Dir: "store", FS: fs, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	relay := &stops{by: map[string]dispatch.Selector{}}
	s := &suspensions{
		store: store, relay: relay, now: time.Now, log: slog.New(slog.DiscardHandler),
		number: func(_ context.Context, id string) (uint64, error) {
			if id == "d" {
				return 42, nil
			}
			return 0, campaign.ErrNotFound
		},
	}
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, relay, func() {
		s.stop()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Suspended until tomorrow noon, over a restart: mail flows again at noon exactly.
func TestASuspensionEndsAtItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		s, relay, end := desk(t, fs)
		noon := time.Now().Add(26 * time.Hour)
		acme := suspend.Selector{Kind: suspend.Tenant, Value: "acme"}
		must[suspend.Suspension](t)(s.put(t.Context(), suspend.Suspension{ID: "a", Selector: acme, Reason: "asked", End: noon}, suspend.Request{}))
		must[suspend.Suspension](t)(s.put(t.Context(), suspend.Suspension{ID: "b", Selector: suspend.Selector{Kind: suspend.Everything}, Reason: "fire"}, suspend.Request{}))
		if relay.names() != "a b" {
			t.Fatalf("in force: %s", relay.names())
		}
		end()

		time.Sleep(time.Hour)
		s, relay, end = desk(t, fs)
		defer end()
		if relay.names() != "a b" {
			t.Fatalf("in force after a restart: %s", relay.names())
		}
		time.Sleep(time.Until(noon) - time.Nanosecond)
		synctest.Wait()
		if relay.names() != "a b" {
			t.Fatalf("in force before noon: %s", relay.names())
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if relay.names() != "b" {
			t.Fatalf("in force at noon: %s", relay.names())
		}
		if list := must[[]suspend.Suspension](t)(s.store.ListSuspensions(t.Context())); len(list) != 1 {
			t.Errorf("stored: %v", list)
		}
	})
}

// An end that passed while the node was down is no suspension any more.
func TestASuspensionEndsWhileTheNodeIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		s, _, end := desk(t, fs)
		must[suspend.Suspension](t)(s.put(t.Context(), suspend.Suspension{
			ID: "a", Selector: suspend.Selector{Kind: suspend.Source, Value: "x"}, End: time.Now().Add(time.Minute),
		}, suspend.Request{}))
		end()
		time.Sleep(time.Hour)
		_, relay, end := desk(t, fs)
		defer end()
		if relay.names() != "" {
			t.Errorf("in force: %s", relay.names())
		}
	})
}

func TestASuspendedDeliveryIsKnownByItsNumber(t *testing.T) {
	s, relay, end := desk(t, vfs.NewMem())
	defer end()
	must[suspend.Suspension](t)(s.put(t.Context(), suspend.Suspension{ID: "a", Selector: suspend.Selector{Kind: suspend.Delivery, Value: "d"}}, suspend.Request{}))
	must[suspend.Suspension](t)(s.put(t.Context(), suspend.Suspension{ID: "b", Selector: suspend.Selector{Kind: suspend.Delivery, Value: "gone"}}, suspend.Request{}))
	if want := (dispatch.Selector{Kind: dispatch.ByDelivery, Delivery: 42}); relay.names() != "a" || relay.by["a"] != want {
		t.Errorf("in force: %v", relay.by)
	}
}

// A repeated Suspend answers as the first time and brings nothing back that was
// resumed meanwhile.
func TestARepeatChangesNothing(t *testing.T) {
	s, relay, end := desk(t, vfs.NewMem())
	defer end()
	acme := suspend.Selector{Kind: suspend.Tenant, Value: "acme"}
	once := suspend.Request{ID: "r1", Method: "Suspend"}
	first := must[suspend.Suspension](t)(s.put(t.Context(), suspend.Suspension{ID: "a", Selector: acme}, once))
	gone := suspend.Request{ID: "r2", Method: "Resume"}
	must[suspend.Suspension](t)(s.remove(t.Context(), "", acme, gone))
	again := must[suspend.Suspension](t)(s.put(t.Context(), suspend.Suspension{ID: "z", Selector: acme}, once))
	if again.ID != first.ID || relay.names() != "" {
		t.Errorf("repeat answers %v; in force: %s", again, relay.names())
	}
	if removed := must[suspend.Suspension](t)(s.remove(t.Context(), "", acme, gone)); removed.ID != "a" {
		t.Errorf("repeated resume answers %v", removed)
	}
}

// Whatever calls come and however time passes: what the relay was told is what is
// stored and has not ended.
func TestTheRelayKnowsWhatIsStored(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			s, relay, end := desk(t, vfs.NewMem())
			defer end()
			selectors := []suspend.Selector{{Kind: suspend.Everything}, {Kind: suspend.Tenant, Value: "a"}, {Kind: suspend.Tenant, Value: "b"}, {Kind: suspend.Source, Value: "a"}}
			model := map[suspend.Selector]time.Time{}
			for i := range rapid.IntRange(1, 12).Draw(rt, "calls") {
				sel := rapid.SampledFrom(selectors).Draw(rt, "selector")
				switch rapid.IntRange(0, 2).Draw(rt, "call") {
				case 0:
					var ends time.Time
					if m := rapid.IntRange(0, 3).Draw(rt, "minutes"); m > 0 {
						ends = time.Now().Add(time.Duration(m) * time.Minute)
					}
					must[suspend.Suspension](t)(s.put(t.Context(), suspend.Suspension{ID: fmt.Sprint(i), Selector: sel, End: ends}, suspend.Request{}))
					model[sel] = ends
				case 1:
					_, err := s.remove(t.Context(), "", sel, suspend.Request{})
					if _, known := model[sel]; known != (err == nil) {
						t.Errorf("resume of %v: %v", sel, err)
					}
					delete(model, sel)
				default:
					time.Sleep(time.Duration(rapid.IntRange(1, 150).Draw(rt, "seconds")) * time.Second)
				}
				synctest.Wait()
				maps.DeleteFunc(model, func(_ suspend.Selector, ends time.Time) bool { return !ends.IsZero() && !time.Now().Before(ends) })
				if got := strings.Fields(relay.names()); len(got) != len(model) {
					t.Fatalf("call %d: in force %v, want %v", i, got, model)
				}
			}
		})
	})
}

// Through the API: suspended, listed, kept over a restart, resumed.
func TestSuspendThroughTheAPI(t *testing.T) {
	cfg := sandbox(t)
	first := begin(t, cfg, Options{})
	end := time.Now().Add(time.Hour)
	made, err := first.Suspend(t.Context(), &veredusv1.SuspendRequest{
		Selector: tenant("acme"), Reason: "complaints", EndTime: timestamppb.New(end), RequestId: "r1",
	})
	if err != nil {
		t.Fatal(err)
	}
	again, err := first.Suspend(t.Context(), &veredusv1.SuspendRequest{Selector: tenant("acme"), Reason: "still"})
	if err != nil || again.GetName() != made.GetName() || again.GetEndTime() != nil || again.GetReason() != "still" {
		t.Fatalf("the second suspension of a selector is %v, %v", again, err)
	}
	_, err = first.Suspend(t.Context(), &veredusv1.SuspendRequest{Selector: tenant("other"), Reason: "r", RequestId: "r1"})
	wantError(t, err, codes.AlreadyExists, "REQUEST_ID_REUSED")
	for _, sel := range []*veredusv1.Selector{
		{Selector: &veredusv1.Selector_Source{Source: "local"}},
		{Selector: &veredusv1.Selector_SenderDomain{SenderDomain: "Exämple.COM"}},
		{Selector: &veredusv1.Selector_Destination{Destination: "destinations/google"}},
	} {
		if _, err := first.Suspend(t.Context(), &veredusv1.SuspendRequest{Selector: sel, Reason: "r"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	second := begin(t, cfg, Options{})
	var listed []string
	for token := ""; ; {
		page, err := second.ListSuspensions(t.Context(), &veredusv1.ListSuspensionsRequest{PageSize: 3, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page.GetSuspensions() {
			listed = append(listed, fmt.Sprint(s.GetSelector()))
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	slices.Sort(listed)
	if got := strings.Join(listed, "; "); len(listed) != 4 || !strings.Contains(got, "xn--exmple-cua.com") {
		t.Errorf("listed: %s", got)
	}
	if _, err := second.Resume(t.Context(), &veredusv1.ResumeRequest{Name: made.GetName()}); err != nil {
		t.Error(err)
	}
	_, err = second.Resume(t.Context(), &veredusv1.ResumeRequest{Selector: tenant("acme")})
	wantError(t, err, codes.NotFound, "NOT_FOUND")
}

func TestSuspendRefusesWhatMakesNoSense(t *testing.T) {
	n := begin(t, sandbox(t), Options{})
	past := timestamppb.New(time.Now().Add(-time.Minute))
	for _, c := range []struct {
		name  string
		req   *veredusv1.SuspendRequest
		field string
	}{
		{"no selector", &veredusv1.SuspendRequest{Reason: "r"}, "selector"},
		{"everything not set", &veredusv1.SuspendRequest{Selector: &veredusv1.Selector{Selector: &veredusv1.Selector_Everything{}}, Reason: "r"}, "selector.everything"},
		{"an empty tenant", &veredusv1.SuspendRequest{Selector: tenant(""), Reason: "r"}, "selector.tenant"},
		{"no reason", &veredusv1.SuspendRequest{Selector: everything()}, "reason"},
		{"a long reason", &veredusv1.SuspendRequest{Selector: everything(), Reason: strings.Repeat("r", 257)}, "reason"},
		{"an end in the past", &veredusv1.SuspendRequest{Selector: everything(), Reason: "r", EndTime: past}, "end_time"},
		{"an unknown source", &veredusv1.SuspendRequest{Selector: &veredusv1.Selector{Selector: &veredusv1.Selector_Source{Source: "typo"}}, Reason: "r"}, "selector.source"},
		{"no delivery's name", &veredusv1.SuspendRequest{Selector: &veredusv1.Selector{Selector: &veredusv1.Selector_Delivery{Delivery: "d"}}, Reason: "r"}, "selector.delivery"},
		{"no domain", &veredusv1.SuspendRequest{Selector: &veredusv1.Selector{Selector: &veredusv1.Selector_SenderDomain{SenderDomain: "a b"}}, Reason: "r"}, "selector.sender_domain"},
	} {
		_, err := n.Suspend(t.Context(), c.req)
		if s := wantError(t, err, codes.InvalidArgument, "INVALID_FIELD"); fields(s) != c.field {
			t.Errorf("%s: fields %q", c.name, fields(s))
		}
	}
	_, err := n.Suspend(t.Context(), &veredusv1.SuspendRequest{
		Selector: &veredusv1.Selector{Selector: &veredusv1.Selector_Delivery{Delivery: "deliveries/none"}}, Reason: "r",
	})
	wantError(t, err, codes.NotFound, "NOT_FOUND")
	for _, req := range []*veredusv1.ResumeRequest{{}, {Name: "x"}, {Name: "suspensions/x", Selector: everything()}} {
		_, err := n.Resume(t.Context(), req)
		wantError(t, err, codes.InvalidArgument, "INVALID_FIELD")
	}
}
