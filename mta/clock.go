package mta

import (
	"context"
	"time"
)

// ClockSetBack is to be called when the clock was set back, with how far. What waits for a
// retry was given its time by the old clock and would wait so much longer: it is due
// so much sooner, and not before now. What was settled since the clock was set may be tried
// once too early. It returns when all of that is durable.
func (r *Relay) ClockSetBack(ctx context.Context, by time.Duration) error {
	w := r.walk(Queue{}, true)
	return r.operate(ctx, func(ctx context.Context) error {
		return w.runs(ctx, func(h *Handover, s *RunState, _ string) error {
			return w.pages(ctx, h, s, workPage, func(page []*Message) (bool, error) {
				return true, r.hurryPage(ctx, page, "", func(m *Message, now time.Time) time.Time {
					return maxTime(m.State.Due.Add(-by), now)
				})
			})
		})
	})
}

// dueNow is the hurry of an operator's work.
func dueNow(_ *Message, now time.Time) time.Time { return now }
