package campaign_test

import (
	"testing"

	"github.com/veredus/veredus/mta"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
)

// Engaged recipients are in the lane that comes first.
func TestEngagedRecipientsComeFirst(t *testing.T) {
	n := newNode(t)
	n.create("d")
	u := open(t, dial(t, n), "d")
	u.chunk(1, &veredusv1.Recipient{Address: "cool@a.example"}, &veredusv1.Recipient{Address: "keen@a.example", Engaged: true})
	u.expect("durable 0", "durable 2: +2 -0 !0") // where the stream begins, then the chunk
	lanes := map[string]uint8{}
	page, _, err := n.store.Messages(t.Context(), "d", nil, 10, func(*campaign.LogEntry) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page {
		lanes[e.Recipient] = e.ID.Lane
	}
	if lanes["keen@a.example"] != mta.LaneEngaged || lanes["cool@a.example"] != mta.LaneOthers {
		t.Errorf("lanes %v", lanes)
	}
}
