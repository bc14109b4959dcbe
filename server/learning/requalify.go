package learning

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/address"
)

const (
	// maxShownTexts and maxShownEntries bound an answer.
	maxShownTexts   = 1000
	maxShownEntries = 100
	// entryPage is how many entries are read, and changed, at once.
	entryPage = 500
	// maxComment is the longest comment, in octets.
	maxComment = 256
)

// Requalify implements the call. It qualifies the first reply of each text, and the
// replies kept as evidence of each counting or quarantined entry that errors caused, by the rules of
// today, and undoes what they no longer hold against an address. It only
// undoes: an error that would count more today than it did adds no quarantine. Applying it may
// be repeated and broken off; each batch of entries is durable by itself, with an event. It
// reads all entries and may take minutes for millions, with a few hundred in memory.
func (s *Service) Requalify(ctx context.Context, req *veredusv1.RequalifyRequest) (*veredusv1.RequalifyResponse, error) {
	if n := len(req.GetComment()); n > maxComment {
		return nil, invalid("comment", req.GetComment(), fmt.Sprintf("has %d bytes", n), "say it in at most 256")
	}
	id, err := requestOf(veredusv1.RelayService_Requalify_FullMethodName, req.GetRequestId(), req)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if before, err := s.replay(ctx, id); err != nil || before != nil {
		resp, _ := before.(*veredusv1.RequalifyResponse)
		return resp, err
	}
	if err := s.flush(ctx); err != nil {
		return nil, err
	}
	r := &requalification{s: s, apply: !req.GetDryRun(), comment: req.GetComment(), rules: s.o.Bounces(), policy: s.o.Policy(), resp: &veredusv1.RequalifyResponse{}}
	r.judge.rules = r.rules
	if err := r.texts(ctx); err != nil {
		return nil, err
	}
	for _, status := range []address.Status{address.Counting, address.Quarantined} {
		if err := r.entries(ctx, status); err != nil {
			return nil, err
		}
	}
	if err := r.keepTexts(ctx); err != nil {
		return nil, err
	}
	s.remember(id, r.resp)
	return r.resp, nil
}

// requalification is one run.
type requalification struct {
	s       *Service
	apply   bool
	comment string
	rules   *bounce.Table
	policy  address.Policy
	judge   judge
	changed []Text // with the new verdict and nothing to add
	resp    *veredusv1.RequalifyResponse
}

// sameMeaning reports whether two verdicts say the same, by whatever rule.
func sameMeaning(a, b bounce.Verdict) bool {
	a.Rule, b.Rule = "", ""
	return a == b
}

// texts finds the texts that are qualified otherwise than when they were last said.
func (r *requalification) texts(ctx context.Context) error {
	var shown []Text
	err := r.s.o.Store.EachReplyText(ctx, func(t *Text) bool {
		v := r.rules.Qualify(t.input())
		if t.Verdict.Rule == "" || sameMeaning(v, t.Verdict) {
			return ctx.Err() == nil
		}
		r.resp.TextCount++
		shown = append(shown, *t)
		if len(shown) >= 2*maxShownTexts {
			shown = mostFrequent(shown, maxShownTexts)
		}
		if len(t.First.Text) >= cutEvidence {
			r.judge.long = append(r.judge.long, longText{t.Normalised, v})
		}
		r.changed = append(r.changed, Text{ID: t.ID, LastTime: t.LastTime, Verdict: v})
		return ctx.Err() == nil
	})
	if err = cmp.Or(err, ctx.Err()); err != nil {
		return err
	}
	shown = mostFrequent(shown, maxShownTexts)
	for i := range shown {
		r.resp.Texts = append(r.resp.Texts, &veredusv1.RequalifiedText{
			ReplyText: textView(&shown[i], r.rules), OldBounceCode: int32(shown[i].Verdict.Code),
			OldRule: shown[i].Verdict.Rule, OldAddressEffect: shown[i].Verdict.Address.String(),
		})
	}
	return nil
}

// keepTexts writes the new verdicts, last of all, so that a run that was broken off
// finds its texts again.
func (r *requalification) keepTexts(ctx context.Context) error {
	if !r.apply {
		return nil
	}
	for part := range slices.Chunk(r.changed, writeSize) {
		if err := r.s.o.Store.AddReplyTexts(ctx, part); err != nil {
			return fmt.Errorf("writing reply texts: %w", err)
		}
	}
	return nil
}

// entries goes through the entries of a status, page by page.
func (r *requalification) entries(ctx context.Context, status address.Status) error {
	var cursor []byte
	for {
		page, next, err := r.s.o.Entries.ListAddressEntries(ctx, address.Filter{Status: status}, cursor, entryPage)
		if err != nil {
			return fmt.Errorf("reading address entries: %w", err)
		}
		if err := r.page(ctx, page); err != nil {
			return err
		}
		if next == nil {
			return nil
		}
		cursor = next
	}
}

// page undoes, or would, what the rules no longer hold against the entries of a page.
func (r *requalification) page(ctx context.Context, page []address.Entry) error {
	now := r.s.o.Now().UTC()
	var keys []address.Key
	for i := range page {
		if err := ctx.Err(); err != nil {
			return err
		}
		u, changed := undo(page[i], &r.judge, r.policy, now)
		if !changed {
			continue
		}
		if r.apply {
			keys = append(keys, page[i].Key)
			continue
		}
		r.show(&page[i], &u)
	}
	if len(keys) == 0 {
		return nil
	}
	type change struct {
		before address.Entry
		undone undoing
	}
	changes := map[address.Key]change{}
	audit := "requalified by the rules of today"
	if r.comment != "" {
		audit += ": " + r.comment
	}
	_, err := r.s.o.Entries.ChangeAddressEntries(ctx, keys, address.Request{}, audit, func(e address.Entry) address.Entry {
		u, changed := undo(e, &r.judge, r.policy, now) // it may have changed since the page was read
		if !changed {
			delete(changes, e.Key)
			return e
		}
		changes[e.Key] = change{e, u}
		return u.entry
	})
	if err != nil {
		return fmt.Errorf("changing address entries: %w", err)
	}
	for _, key := range keys {
		if c, ok := changes[key]; ok {
			r.show(&c.before, &c.undone)
		}
	}
	return nil
}

// show adds an entry to the answer.
func (r *requalification) show(before *address.Entry, u *undoing) {
	r.resp.EntryCount++
	if len(r.resp.Entries) >= maxShownEntries {
		return
	}
	view := &veredusv1.RequalifiedEntry{
		Name: r.s.o.EntryName(before.Key), Address: before.Address,
		OldStatus: veredusv1.AddressStatus(before.Status), NewStatus: veredusv1.AddressStatus(u.entry.Status),
		NewErrorCount: int32(u.entry.Errors),
	}
	for i := range u.removed {
		view.Evidence = append(view.Evidence, evidenceView(&u.removed[i]))
	}
	r.resp.Entries = append(r.resp.Entries, view)
}
