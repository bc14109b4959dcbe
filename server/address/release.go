package address

import (
	"context"
	"fmt"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// maxSample is how many entries an answer shows.
const maxSample = 20

// ReleaseAddressEntries releases quarantined entries: they are deleted with the errors they
// counted, and an event of each batch tells how many and why. Each batch is durable by itself: a
// call that was cut short has released some, and repeating it releases the rest.
func (s *Service) ReleaseAddressEntries(ctx context.Context, req *veredusv1.ReleaseAddressEntriesRequest) (*veredusv1.ReleaseAddressEntriesResponse, error) {
	v := violations{}
	f := v.quarantined(req.GetFilter(), req.GetComment())
	call := v.request(veredusv1.AddressService_ReleaseAddressEntries_FullMethodName, req.GetRequestId(), req)
	if err := v.err(); err != nil {
		return nil, err
	}
	answer := &veredusv1.ReleaseAddressEntriesResponse{}
	if found, err := s.replay(ctx, call, answer); found || err != nil {
		return answer, err
	}
	b := bulk{s: s, filter: f, audit: remark("released from quarantine", req.GetComment()), change: Released}
	if err := b.run(ctx, req.GetDryRun()); err != nil {
		return nil, err
	}
	answer.Count, answer.Sample = b.count, b.sample
	call.remember(answer)
	return answer, s.settle(ctx, call)
}

// ConfirmAddressEntries makes provisional entries lasting. Each batch is durable by itself, as in
// a release.
func (s *Service) ConfirmAddressEntries(ctx context.Context, req *veredusv1.ConfirmAddressEntriesRequest) (*veredusv1.ConfirmAddressEntriesResponse, error) {
	v := violations{}
	f := v.quarantined(req.GetFilter(), req.GetComment())
	f.Provisional = true
	call := v.request(veredusv1.AddressService_ConfirmAddressEntries_FullMethodName, req.GetRequestId(), req)
	if err := v.err(); err != nil {
		return nil, err
	}
	answer := &veredusv1.ConfirmAddressEntriesResponse{}
	if found, err := s.replay(ctx, call, answer); found || err != nil {
		return answer, err
	}
	now := s.now()
	b := bulk{
		s: s, filter: f, audit: remark("confirmed in quarantine", req.GetComment()),
		change: func(e Entry) Entry { return Confirmed(e, now, req.GetComment()) },
	}
	if err := b.run(ctx, req.GetDryRun()); err != nil {
		return nil, err
	}
	answer.Count, answer.Sample = b.count, b.sample
	call.remember(answer)
	return answer, s.settle(ctx, call)
}

// quarantined reads a filter that chooses among quarantined entries only, and not all of them.
func (v *violations) quarantined(filter *veredusv1.AddressFilter, comment string) Filter {
	f := v.filter(filter)
	if f.Status != 0 && f.Status != Quarantined {
		v.add("filter.status", filter.GetStatus().String(), "cannot be chosen", "leave it unset: only quarantined entries are released or confirmed; delete others one by one")
	}
	if len(v.list) == 0 && !f.narrow() {
		v.add("filter", "", "chooses every quarantined entry", "say which: a domain, a time window, a text, a reason, an origin, a list or a tenant (\"*\" for entries of all tenants)")
	}
	v.text("comment", comment, MaxCommentLength)
	f.Status = Quarantined
	return f
}

// settle leaves the call's answer for its repeats.
func (s *Service) settle(ctx context.Context, call Request) error {
	if call.ID == "" {
		return nil
	}
	_, err := s.o.Store.ChangeAddressEntries(ctx, nil, call, "", func(e Entry) Entry { return e })
	return err
}

// bulk changes all entries that a filter keeps, in batches.
type bulk struct {
	s      *Service
	filter Filter
	audit  string
	change func(Entry) Entry

	count  int64
	sample []*veredusv1.AddressEntry // as they were
}

// run reads page after page and changes each; dry only counts. It does not hold the entries in between.
func (b *bulk) run(ctx context.Context, dry bool) error {
	var cursor []byte
	for {
		page, next, err := b.s.o.Store.ListAddressEntries(ctx, b.filter, cursor, MaxWrite)
		if err != nil {
			return err
		}
		changed := int64(len(page))
		if !dry && changed > 0 {
			if changed, err = b.apply(ctx, page); err != nil {
				return fmt.Errorf("%w; %d entries were changed before it, and the same call goes on with the rest", err, b.count)
			}
		}
		b.count += changed
		b.sample = append(b.sample, views(page[:min(len(page), maxSample-len(b.sample))])...)
		if cursor = next; len(cursor) == 0 {
			return nil
		}
	}
}

// apply changes the entries of a page that the filter still keeps when they are written.
func (b *bulk) apply(ctx context.Context, page []Entry) (changed int64, err error) {
	keys := make([]Key, len(page))
	for i := range page {
		keys[i] = page[i].Key
	}
	did := make(map[Key]bool, len(keys)) // by key, since the function may be called again
	_, err = b.s.o.Store.ChangeAddressEntries(ctx, keys, Request{}, b.audit, func(e Entry) Entry {
		keep := b.filter.Keeps(&e)
		did[e.Key] = keep
		if !keep {
			return e
		}
		return b.change(e)
	})
	if err != nil {
		return 0, err // did may still be written to
	}
	for _, keep := range did {
		if keep {
			changed++
		}
	}
	return changed, nil
}
