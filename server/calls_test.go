package server

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/storage/pebblestore"
)

// memoryStore opens a store on fs until the test ends.
func memoryStore(t *testing.T, fs vfs.FS) *pebblestore.Store {
	t.Helper()
	s, err := pebblestore.Open(pebblestore.Options{Dir: "store", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestAnswersSurviveARestart(t *testing.T) {
	fs := vfs.NewMem()
	store := memoryStore(t, fs)
	req := &veredusv1.ReloadConfigRequest{RequestId: "one"}
	id, err := requestOf(veredusv1.RelayService_ReloadConfig_FullMethodName, "one", req)
	if err != nil {
		t.Fatal(err)
	}
	want := &veredusv1.ReloadConfigResponse{Version: 7, Changes: []string{"mx_rules: changed"}}
	c := calls{store: store}
	if found, err := c.before(t.Context(), id, &veredusv1.ReloadConfigResponse{}); err != nil || found {
		t.Fatalf("a new request: %v, %v", found, err)
	}
	if err := c.remember(t.Context(), id, want); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	c = calls{store: memoryStore(t, fs)}
	got := &veredusv1.ReloadConfigResponse{}
	if found, err := c.before(t.Context(), id, got); err != nil || !found || !proto.Equal(got, want) {
		t.Errorf("behind a restart: %v, %v, %v", got, found, err)
	}
	other, err := requestOf(veredusv1.RelayService_SetWarmUp_FullMethodName, "one", &veredusv1.SetWarmUpRequest{Source: "a", RequestId: "one"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.before(t.Context(), other, got); !errors.Is(err, campaign.ErrRequestIDReused) {
		t.Errorf("the id of another call: %v", err)
	}
}
