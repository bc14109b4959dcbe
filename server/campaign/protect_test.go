package campaign_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

func TestPauseForPausesWhatRunsAndSaysWhy(t *testing.T) {
	n := newNode(t)
	n.create("draft")
	n.running("d", 2)
	n.relay.heard()
	for _, id := range []string{"draft", "d", "d"} {
		if err := n.PauseFor(t.Context(), id, "too many complaints"); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "state", n.get("draft").GetState(), veredusv1.DeliveryState_DELIVERY_STATE_DRAFT)
	equal(t, "state", n.get("d").GetState(), veredusv1.DeliveryState_DELIVERY_STATE_PAUSED)
	equal(t, "events", n.events("d"), []string{"started 2", "paused: too many complaints"})
	equal(t, "draft's events", n.events("draft"), []string(nil))
	equal(t, "the relay", n.relay.last[2], "pause")
	if err := n.PauseFor(t.Context(), "nobody", "x"); !errors.Is(err, campaign.ErrNotFound) {
		t.Errorf("a delivery that is not there: %v", err)
	}
}

func TestWarnIsSaidOnceWhateverTheState(t *testing.T) {
	n := newNode(t)
	n.running("d", 1)
	m := n.loaded("d")["person1@mail1.example"]
	n.claim(m)
	n.settle(m, mta.Delivered, bounce.Verdict{}, "ok")
	w := campaign.Warning{Cause: "complaints", Destination: "yahoo", Text: "warning: \xff many complaints"}
	other := campaign.Warning{Cause: "complaints", Destination: "google", Text: strings.Repeat("long ", 1000)}
	for _, w := range []campaign.Warning{w, w, other, w} {
		if err := n.Warn(t.Context(), "d", w); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "state", n.get("d").GetState(), veredusv1.DeliveryState_DELIVERY_STATE_FINISHED)
	var warnings []string
	for _, e := range n.events("d") {
		if strings.HasPrefix(e, "warning") {
			warnings = append(warnings, e)
		}
	}
	if len(warnings) != 2 || warnings[0] != "warning: warning: � many complaints" || len(warnings[1]) > 1100 {
		t.Errorf("%q", warnings)
	}
	if err := n.Warn(t.Context(), "nobody", w); !errors.Is(err, campaign.ErrNotFound) {
		t.Errorf("a delivery that is not there: %v", err)
	}
}

func TestRelatedGiversOfARejectionCountOnce(t *testing.T) {
	n := newNode(t)
	n.running("d", 1)
	for _, giver := range [][2]string{{"google", "a.example"}, {"google", "b.example"}, {"mx.example", "a.example"}, {"mx.example", "c.example"}, {"le", "e"}} {
		if err := n.Alike(t.Context(), "d", "550: spf", giver[0], giver[1]); err != nil {
			t.Fatal(err)
		}
	}
	w, err := n.store.Watch("d", nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "givers", w.Protection.Alike["550: spf"], []string{"google a.example", "mx.example c.example", "le e"})
	for i := range 20 {
		if err := n.Alike(t.Context(), "d", strings.Repeat("x", i+1), "d", "d.example"); err != nil {
			t.Fatal(err)
		}
	}
	if w, err = n.store.Watch("d", []string{}); err != nil || len(w.Protection.Alike) != 8 || w.From != "shop.example" {
		t.Errorf("%+v, %v", w, err)
	}
}
