package pebblestore

import (
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/server/campaign"
)

// Whoever tells of lost claims hears of them before they are put back: a process that dies
// in between is followed by one that hears of the same claims.
func TestLostClaimsAreToldBeforeTheyArePutBack(t *testing.T) {
	var told [][]mta.LostClaim
	died := errors.New("the process died here")
	var dies error
	s := open(t, vfs.NewMem(), func(o *Options) {
		o.Lost = func(lost []mta.LostClaim) error {
			told = append(told, lost)
			return dies
		}
	})
	must[*campaign.Delivery](t)(s.Create(t.Context(), draft("d"), campaign.Request{}))
	must[campaign.Added](t)(s.Add(t.Context(), "d", items(1, 2, "a.test")))
	d := start(t, s, "d")
	epoch := must[*mta.Recovery](t)(s.Recover(t.Context(), time.Now())).Epoch
	msg := must[mta.LoadResult](t)(s.Load(t.Context(), mta.LoadRequest{Handover: d.Handover, Domain: 1, Fresh: 1})).Fresh[0]
	must[mta.Written](t)(s.Write(t.Context(), &mta.Batch{Epoch: epoch, Claims: []mta.Claim{{Message: msg, MessageID: "m1", Time: time.Now()}}}))

	dies = died
	if r, err := s.Recover(t.Context(), time.Now()); !errors.Is(err, died) || r != nil {
		t.Fatalf("Recover answered %v, %v", r, err)
	}
	dies = nil
	r := must[*mta.Recovery](t)(s.Recover(t.Context(), time.Now()))
	if len(told) != 3 || len(told[0]) != 0 || len(told[1]) != 1 || len(told[2]) != 1 {
		t.Fatalf("told %v", told)
	}
	if first, second := told[1][0], told[2][0]; first != second || second.Claims != 1 || second.MessageID != "m1" || r.Lost[0] != second {
		t.Errorf("told %+v, then %+v; answered %+v", first, second, r.Lost)
	}
	if r.Epoch != epoch+1 {
		t.Errorf("epoch %d behind %d: the Recover that failed wrote something", r.Epoch, epoch)
	}
}
