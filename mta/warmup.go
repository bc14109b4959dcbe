package mta

import (
	"context"
	"time"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mta/smtpc"
	"github.com/veredus/veredus/mxrules"
)

// Lanes of a run. Mail to recipients who opened or clicked lately comes first; sources
// that are being warmed up get such mail before other mail.
const (
	LaneEngaged uint8 = iota
	LaneOthers
)

// keep lays a warm-up's state to the next write. Losing it costs only what was seen
// since the last claim, whose write has it, too.
func (w *writer) keep(source string, state *mxrules.WarmUpState) {
	if state == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	b := &w.next.batch
	if b.WarmUps == nil {
		b.WarmUps = map[string]mxrules.WarmUpState{}
	}
	b.WarmUps[source] = *state
}

// reportWarmUp keeps the state of a warm-up, and makes an event of its steps.
func (r *Relay) reportWarmUp(a *dispatch.Action) {
	r.writer.keep(a.Source.Name, a.WarmUp)
	if a.Text == "" {
		return
	}
	r.log.Info("warm-up", "source", a.Source.Name, "change", a.Text)
	e := RelayEvent{Kind: PathWarmUpEvent, Time: r.cfg.Now(), Source: a.Source.Name, Text: "warm-up " + a.Text}
	if r.ordered.source == a.Source.Name {
		e.By = r.ordered.by
	}
	r.writer.event(e)
}

// Sources lists all sources by name, with their warm-up.
func (r *Relay) Sources(ctx context.Context) (views []dispatch.SourceView, err error) {
	err = r.call(ctx, func(now time.Time) { views = r.core.Sources(now) })
	return views, err
}

// warmUpOrder is an order about a warm-up that is being carried out, and who gave it.
type warmUpOrder struct{ source, by string }

// SetWarmUp puts a source at a stage of its warm-up, from 1, or ends that. It returns
// once that is durable; found is false for a source that has none. The event names by,
// who ordered it; empty: nobody.
func (r *Relay) SetWarmUp(ctx context.Context, source string, stage int, off bool, by string) (found bool, err error) {
	durable := make(chan struct{})
	err = r.call(ctx, func(now time.Time) {
		r.core.Tick(now)
		r.act() // steps that were due are nobody's order
		if found = r.core.SetWarmUp(now, source, stage, off); !found {
			return
		}
		r.ordered = warmUpOrder{source, by}
		r.act()
		r.ordered = warmUpOrder{}
		r.writer.then(func(time.Time) { close(durable) })
	})
	if err != nil || !found {
		return found, err
	}
	select {
	case <-durable:
		return true, nil
	case <-r.writer.ended:
		if err := r.writer.failure(); err != nil {
			return true, err
		}
		return true, ErrStopped
	case <-ctx.Done():
		return true, ctx.Err()
	}
}

// Complained reports a complaint about a message that a source had delivered to a
// destination.
func (r *Relay) Complained(ctx context.Context, source, destination string) error {
	return r.call(ctx, func(now time.Time) { r.core.Complained(now, source, destination) })
}

// signOf is what the end of a transaction says of its source's reputation. Greylisting,
// the state of mailboxes and lines that broke say nothing of it.
func signOf(v bounce.Verdict, res *smtpc.Result) mxrules.Sign {
	switch {
	case res.Delivered:
		return mxrules.SignDelivered
	case !res.Began:
		return mxrules.SignUnsent
	case isBlock(v):
		return mxrules.SignBlocked
	case v.Code == bounce.CodeInvalidRecipient:
		return mxrules.SignBounced
	case v.Disposition == bounce.Retry && res.Reply.Code != 0 && v.Address == bounce.AddressNone && v.Code != bounce.CodeMailboxFull:
		return mxrules.SignDeferred
	}
	return mxrules.SignNone
}

// unsaid is silence about a message of which MAIL was never written.
var unsaid = dispatch.Evidence{HostFault: true, Sign: mxrules.SignUnsent}
