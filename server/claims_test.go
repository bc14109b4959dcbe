package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/mta"
)

func TestClaimsAreListedStartAfterStart(t *testing.T) {
	fs := vfs.NewCrashableMem()
	now := time.Date(2026, 11, 22, 3, 48, 4, 0, time.UTC)
	for start := range 3 {
		lost := []mta.LostClaim{{Name: fmt.Sprintf("deliveries/d/messages/m%d", start), MessageID: "token@bounce.example", Claims: start + 1}}
		if err := appendClaims(fs, "claims", lost, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := appendClaims(fs, "claims", nil, now); err != nil {
		t.Fatal(err)
	}
	// What was written survives a power loss.
	content, err := readAll(fs.CrashClone(vfs.CrashCloneCfg{}), "claims")
	if err != nil {
		t.Fatal(err)
	}
	want := `{"time":"2026-11-22T03:48:04Z","message":"deliveries/d/messages/m0","message_id":"token@bounce.example","claims":1}
{"time":"2026-11-22T03:48:04Z","message":"deliveries/d/messages/m1","message_id":"token@bounce.example","claims":2}
{"time":"2026-11-22T03:48:04Z","message":"deliveries/d/messages/m2","message_id":"token@bounce.example","claims":3}
`
	if string(content) != want {
		t.Errorf("got\n%s", content)
	}
}

func TestTheListKeepsTheNewestLines(t *testing.T) {
	content := []byte(strings.Repeat("old line\n", 10) + "new line\nlast line\n")
	if got := string(newest(content, 22)); got != "new line\nlast line\n" {
		t.Errorf("kept %q", got)
	}
	if got := newest(content, len(content)); len(got) != len(content) {
		t.Error("cut although it fits")
	}
}
