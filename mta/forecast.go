package mta

import (
	"context"
	"time"

	"github.com/veredus/veredus/mta/dispatch"
)

// Prospects answers for each query what the paths of its pool's sources bear. It
// changes nothing; hundreds of queries hold the relay up for about a millisecond.
func (r *Relay) Prospects(ctx context.Context, queries []dispatch.Query) (list [][]dispatch.Prospect, err error) {
	list = make([][]dispatch.Prospect, len(queries))
	for _, q := range queries {
		r.remember(ctx, q.Route.Destination)
	}
	err = r.call(ctx, func(now time.Time) {
		for i := range queries {
			list[i] = r.core.Prospects(now, queries[i])
		}
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// Competition lists the mail in the relay for the destinations named, by delivery.
func (r *Relay) Competition(ctx context.Context, destinations map[string]bool) (list map[string][]dispatch.Competitor, err error) {
	err = r.call(ctx, func(now time.Time) { list = r.core.Competition(now, destinations) })
	return list, err
}
