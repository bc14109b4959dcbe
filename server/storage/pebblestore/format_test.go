package pebblestore

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/inbound"
	"github.com/veredus/veredus/server/address"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/feedback"
)

// firstStore copies testdata/format1: the store of the version before address entries, which was
// left with a delivery "spring" of six recipients (two delivered, two waiting, two fresh), a
// single message, a draft "summer", and six events.
func firstStore(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files := must[[]os.DirEntry](t)(os.ReadDir("testdata/format1"))
	for _, f := range files {
		content := must[[]byte](t)(os.ReadFile(filepath.Join("testdata/format1", f.Name())))
		check(t, os.WriteFile(filepath.Join(dir, f.Name()), content, 0o600))
	}
	return dir
}

// A store of the version before opens, shows what it held, and takes what is new.
func TestAStoreWithoutAddressesOpens(t *testing.T) {
	ctx, now := t.Context(), time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	dir := firstStore(t)
	s := open(t, vfs.Default, func(o *Options) { o.Dir, o.Now = dir, func() time.Time { return now } })
	d := must[*campaign.Delivery](t)(s.Get(ctx, "spring"))
	c, by := d.Counters, d.Counters.By["a.test"]
	if c.Sent != 2 || c.Deferred != 2 || c.InRelay != 4 || c.Balance() != nil || by.Sent != 1 || by.AuthRejections != 0 {
		t.Fatalf("counters %+v", c)
	}
	if events, _, err := s.Read(ctx, feedback.Positions{0}, 100); err != nil || len(events) != 6 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	if got := must[[]address.Exclusion](t)(s.Exclusions(ctx, []address.Query{{Folded: "user1@b.test"}})); got[0].Excluded() {
		t.Errorf("exclusion %+v", got)
	}
	epoch := must[*mta.Recovery](t)(s.Recover(ctx, now)).Epoch
	sent := must[*mta.Message](t)(firstOf(s, ctx, d, campaign.Sent))
	if got := must[inbound.Effect](t)(s.Return(ctx, lateBounce(d, sent.ID))); got != inbound.Applied {
		t.Errorf("a late bounce of old mail: %s", got)
	}
	waiting := must[mta.LoadResult](t)(s.Load(ctx, mta.LoadRequest{Handover: d.Handover, Domain: sent.ID.Domain, Due: 1, Now: now})).Due[0]
	must[mta.Written](t)(s.Write(ctx, &mta.Batch{Epoch: epoch, Claims: []mta.Claim{{Message: waiting, Time: now}}}))
	bounced := settlement(waiting, mta.Bounced, now)
	bounced.Verdict = unknownUser
	must[mta.Written](t)(s.Write(ctx, &mta.Batch{Epoch: epoch, Settles: []mta.Settlement{bounced}}))
	if c := must[*campaign.Delivery](t)(s.Get(ctx, "spring")).Counters; c.Sent != 1 || c.Failed != 2 || c.Balance() != nil {
		t.Errorf("counters %+v", c)
	}
	if list, _, err := s.ListAddressEntries(ctx, address.Filter{}, nil, 10); err != nil || len(list) != 2 {
		t.Errorf("entries %+v, %v", list, err)
	}
}

// firstOf is the id of the first message of a delivery in a state.
func firstOf(s *Store, ctx context.Context, d *campaign.Delivery, truth campaign.Truth) (*mta.Message, error) {
	page, _, err := s.Messages(ctx, d.ID, nil, 1, func(e *campaign.LogEntry) bool { return e.Truth == truth })
	if err != nil || len(page) == 0 {
		return nil, err
	}
	return &mta.Message{ID: page[0].ID}, nil
}
