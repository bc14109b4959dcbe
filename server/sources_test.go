package server

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/config"
)

// warmingRelay is a relay's core behind the calls on sources.
type warmingRelay struct {
	core *dispatch.Core
	sets int
}

func (r *warmingRelay) Sources(context.Context) ([]dispatch.SourceView, error) {
	return r.core.Sources(noon), nil
}

func (r *warmingRelay) SetWarmUp(_ context.Context, source string, stage int, off bool, _ string) (bool, error) {
	r.sets++
	return r.core.SetWarmUp(noon, source, stage, off), nil
}

func identitiesOf(t *testing.T, yaml string) (*identities, *warmingRelay) {
	t.Helper()
	cfg, err := config.Parse("veredus.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	set, err := loadSettings(cfg)
	if err != nil {
		t.Fatal(err)
	}
	relay := &warmingRelay{core: dispatch.New(dispatch.Config{}, set.pools(), mxrules.Builtin())}
	return &identities{
		relay: relay, settings: func() *settings { return set }, calls: calls{store: memoryStore(t, vfs.NewMem())},
	}, relay
}

const twoPools = `
relay:
  hostname: mail.brand.example
  warm_up: {providers: {google: 0.5}}
  pools:
    new: {sources: [{name: b, address: 127.0.0.2, hostname: b.brand.example, weight: 3, warm_up: {stage: 3}}], overflow: default}
    default: [{name: a, address: 127.0.0.1}]
`

func TestSourcesAreListedWithTheirWarmUp(t *testing.T) {
	s, _ := identitiesOf(t, twoPools)
	resp, err := s.ListSources(t.Context(), &veredusv1.ListSourcesRequest{})
	if err != nil || len(resp.GetSources()) != 2 {
		t.Fatal(resp, err)
	}
	a, b := resp.GetSources()[0], resp.GetSources()[1]
	if a.GetName() != "a" || a.GetWarmUp() != nil || a.GetHostname() != "mail.brand.example" || a.GetAddress() != "127.0.0.1" || a.GetWeight() != 1 {
		t.Errorf("%v", a)
	}
	w := b.GetWarmUp()
	if b.GetHostname() != "b.brand.example" || len(b.GetPools()) != 1 || b.GetPools()[0] != "new" || w.GetStage() != 3 || w.GetStages() != 29 ||
		w.GetCap() != 1000 || w.GetProviderCaps()["google"] != 500 || !w.GetActive() || !strings.HasPrefix(w.GetState(), "advancing") {
		t.Errorf("%v", b)
	}
	only, err := s.ListSources(t.Context(), &veredusv1.ListSourcesRequest{Pool: "default"})
	if err != nil || len(only.GetSources()) != 1 || only.GetSources()[0].GetName() != "a" {
		t.Error(only, err)
	}
}

func TestWarmUpIsSetOnceForARequest(t *testing.T) {
	s, relay := identitiesOf(t, twoPools)
	req := &veredusv1.SetWarmUpRequest{Source: "b", Stage: 12, RequestId: "one"}
	first, err := s.SetWarmUp(t.Context(), req)
	if err != nil || first.GetWarmUp().GetStage() != 12 || first.GetWarmUp().GetCap() != 150_000 {
		t.Fatal(first, err)
	}
	again, err := s.SetWarmUp(t.Context(), req)
	if err != nil || !proto.Equal(first, again) || relay.sets != 1 {
		t.Errorf("%v %v, set %d times", again, err, relay.sets)
	}
	other := &veredusv1.SetWarmUpRequest{Source: "b", Stage: 13, RequestId: "one"}
	if _, err := s.SetWarmUp(t.Context(), other); !errors.Is(err, campaign.ErrRequestIDReused) {
		t.Errorf("another request of that id: %v", err)
	}
	off, err := s.SetWarmUp(t.Context(), &veredusv1.SetWarmUpRequest{Source: "b", Off: true})
	if err != nil || off.GetWarmUp().GetActive() || !strings.Contains(off.GetWarmUp().GetState(), "off because an operator") {
		t.Errorf("%v %v", off, err)
	}
	done, err := s.SetWarmUp(t.Context(), &veredusv1.SetWarmUpRequest{Source: "b", Stage: 30})
	if err != nil || done.GetWarmUp().GetActive() || !strings.Contains(done.GetWarmUp().GetState(), "finished") {
		t.Errorf("%v %v", done, err)
	}
}

func TestWarmUpRequestsAreChecked(t *testing.T) {
	s, _ := identitiesOf(t, twoPools)
	for _, c := range []struct {
		req  *veredusv1.SetWarmUpRequest
		want string
	}{
		{&veredusv1.SetWarmUpRequest{Source: "c", Stage: 1}, "use one of a, b"},
		{&veredusv1.SetWarmUpRequest{Source: "a", Stage: 1}, "warm_up: on in relay.pools"},
		{&veredusv1.SetWarmUpRequest{Source: "b"}, "is no stage"},
		{&veredusv1.SetWarmUpRequest{Source: "b", Stage: 2000}, "is no stage"},
		{&veredusv1.SetWarmUpRequest{Source: "b", Stage: 2, Off: true}, "give one of both"},
	} {
		_, err := s.SetWarmUp(t.Context(), c.req)
		var bad *campaign.InvalidError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.req, err)
		}
	}
	if _, err := s.ListSources(t.Context(), &veredusv1.ListSourcesRequest{Pool: "x"}); err == nil || !strings.Contains(err.Error(), "use one of default, new") {
		t.Error(err)
	}
}

func TestReloadSaysWhatChangesAboutWarmUp(t *testing.T) {
	parse := func(yaml string) *config.Config {
		cfg, err := config.Parse("veredus.yaml", []byte(yaml))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	after := strings.NewReplacer("stage: 3", "stage: 4", ", overflow: default", "", "google: 0.5", "google: 0.25").Replace(twoPools)
	got := strings.Join(poolChanges(parse(twoPools), parse(after)), "\n")
	for _, want := range []string{
		`source "new/b"`, "from stage 3 -> ", `overflow of "new" removed`, `plan "default"`, "google 0.5 -> ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}
