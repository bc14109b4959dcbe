package campaign

import (
	"context"
	"fmt"

	"github.com/veredus/veredus/server/address"
)

// Who must not be mailed is asked twice: here, when recipients come in, and by the relay just
// before each attempt, since mail may wait for days.

// query is what is asked about an address that shall get the delivery's mail. A single message counts
// as transactional, which only entries about everything exclude, unless it has a hosted unsubscribe:
// mail with a way out is mail of a list, and whoever took it must not get the next one.
func (d *Delivery) query() address.Query {
	q := address.Query{Tenant: d.tenant(), List: d.list(), Class: address.Marketing}
	if d.Transactional && !d.hosted() {
		q.Class = address.Everything
	}
	return q
}

// exclude sets Ignore of the items whose addresses must not get the mail. mail is asked for each.
func (s *Service) exclude(ctx context.Context, mail address.Query, items []Item) error {
	if s.o.Addresses == nil {
		return nil
	}
	queries := make([]address.Query, 0, len(items))
	for i := range items {
		if items[i].Reject == nil {
			mail.Folded = items[i].Folded
			queries = append(queries, mail)
		}
	}
	if len(queries) == 0 {
		return nil
	}
	found, err := s.o.Addresses.Exclusions(ctx, queries)
	if err == nil && len(found) != len(queries) {
		err = fmt.Errorf("%d answers to %d queries", len(found), len(queries))
	}
	if err != nil {
		return fmt.Errorf("asking which of %d recipients are excluded: %w", len(queries), err)
	}
	at := 0
	for i := range items {
		if items[i].Reject != nil {
			continue
		}
		if found[at].Excluded() {
			items[i].Ignore = int32(found[at].Reason)
		}
		at++
	}
	return nil
}

// excludeSingle is exclude for a single message.
func (s *Service) excludeSingle(ctx context.Context, m *Single) error {
	items := []Item{m.Item}
	err := s.exclude(ctx, (&Delivery{Spec: m.Content, Transactional: true}).query(), items)
	m.Item = items[0]
	return err
}
