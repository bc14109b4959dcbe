package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/veredus/veredus/mta"
	"github.com/veredus/veredus/mta/dispatch"
	"github.com/veredus/veredus/mxrules"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/config"
	"github.com/veredus/veredus/server/forecast"
)

// prospects is what a forecast asks of the relay; *mta.Relay has it.
type prospects interface {
	Prospects(ctx context.Context, queries []dispatch.Query) ([][]dispatch.Prospect, error)
	Competition(ctx context.Context, destinations map[string]bool) (map[string][]dispatch.Competitor, error)
	Sources(ctx context.Context) ([]dispatch.SourceView, error)
}

// mailStore is what a forecast reads.
type mailStore interface {
	Get(ctx context.Context, id string) (*campaign.Delivery, error)
	List(ctx context.Context, before uint64, max int) ([]*campaign.Delivery, error)
	Runs(ctx context.Context, handover uint64, after uint32, max int) ([]mta.RunState, error)
}

// forecaster makes forecasts, one at a time. Safe for concurrent use.
type forecaster struct {
	store    mailStore
	relay    prospects
	resolver mta.Resolver
	settings func() *settings
	history  *forecast.History
	schedule mta.Schedule
	now      func() time.Time
	log      *slog.Logger
	busy     chan struct{} // of one
}

// Figures of forecasts.
const (
	// forecastTime bounds one that is asked for, preparingTime one that a preparation
	// waits for, of which a part is for look-ups.
	forecastTime  = 15 * time.Second
	preparingTime = 2 * time.Second
	lookUpShare   = 4
	// preparingPart is the part of the usual steps that a preparation's forecast has.
	preparingPart = 4
	// maxNamed is how many recipient domains are looked up, the largest.
	maxNamed = 200
	// maxRead is how many recipient domains are read of a delivery.
	maxRead = 100_000
	// maxLookUps is how many are looked up at a time.
	maxLookUps = 32
	// maxOutlooks is how many destinations an answer shows.
	maxOutlooks = 50
	// lastDeliveries is how many deliveries tell what destinations have shown when the
	// process does not remember.
	lastDeliveries = 20
	// sandboxLatency is what a message takes at the built-in receivers.
	sandboxLatency = 10 * time.Millisecond
)

// Forecast implements the call.
func (f *forecaster) Forecast(ctx context.Context, req *veredusv1.ForecastRequest) (*veredusv1.ForecastResponse, error) {
	id, ok := strings.CutPrefix(req.GetDelivery(), deliveriesPrefix)
	if !ok || id == "" || strings.Contains(id, "/") || len(id) > 256 {
		return nil, invalid("delivery", req.GetDelivery(), "is no delivery", "write deliveries/D")
	}
	d, err := f.store.Get(ctx, id)
	if errors.Is(err, campaign.ErrNotFound) {
		return nil, &campaign.NotFoundError{Resource: deliveriesPrefix + clip(id, 100)}
	}
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, forecastTime)
	defer cancel()
	said, err := f.of(within, d, forecastTime/lookUpShare, forecast.DefaultUnits)
	if err != nil {
		if ctx.Err() == nil && within.Err() != nil {
			return nil, &campaign.OverloadedError{What: "forecasts under way", RetryAfter: forecastTime}
		}
		return nil, err
	}
	return forecastView(said), nil
}

func forecastView(said *forecast.Forecast) *veredusv1.ForecastResponse {
	resp := &veredusv1.ForecastResponse{
		Duration: durationpb.New(said.Duration), LatePercent: said.LatePercent(), Assumptions: said.Assumptions,
	}
	for _, o := range said.Destinations[:min(len(said.Destinations), maxOutlooks)] {
		resp.Destinations = append(resp.Destinations, &veredusv1.DestinationForecast{
			Destination: o.Destination, Messages: o.Messages, Duration: durationpb.New(o.Duration),
			HourlyRate: o.HourlyRate, Bottleneck: o.Bottleneck, Late: o.Late,
		})
	}
	return resp
}

// findings is a forecast as a preparation shows it. One that cannot be made in time is
// left to be asked for.
func (f *forecaster) findings(ctx context.Context, d *campaign.Delivery) []*veredusv1.Finding {
	ctx, cancel := context.WithTimeout(ctx, preparingTime)
	defer cancel()
	said, err := f.of(ctx, d, preparingTime/lookUpShare, forecast.DefaultUnits/preparingPart)
	switch {
	case ctx.Err() != nil:
		return campaign.Outlook(fmt.Sprintf("not ready within %v; ask for it with `veredus forecast %s`", preparingTime, d.ID), 0)
	case err != nil:
		f.log.Debug("no forecast of a delivery", "delivery", d.ID, "error", err)
		return nil
	}
	return campaign.Outlook(said.Summary(), said.Late)
}

// of makes a delivery's forecast; look-ups end after a while, and so many steps of mail
// are simulated.
func (f *forecaster) of(ctx context.Context, d *campaign.Delivery, lookUps time.Duration, units int) (*forecast.Forecast, error) {
	if d.Transactional || d.State == campaign.Finished || d.State == campaign.Cancelled {
		return nil, &campaign.StateError{Delivery: d.ID, State: d.State, Call: "forecast what is not to be sent, or comes message by message"}
	}
	select {
	case f.busy <- struct{}{}:
		defer func() { <-f.busy }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	in, notes, err := f.input(ctx, d, lookUps)
	if err != nil {
		return nil, err
	}
	in.Units = units
	said, err := forecast.Run(ctx, *in)
	if err != nil {
		return nil, err
	}
	said.Assumptions = append(said.Assumptions, notes...)
	return said, nil
}

// input gathers what a forecast rests on, with notes on what was left out.
func (f *forecaster) input(ctx context.Context, d *campaign.Delivery, lookUps time.Duration) (*forecast.Input, []string, error) {
	set, h, now := f.settings(), d.HandOver(), f.now()
	in := &forecast.Input{
		Now: now, Validity: d.Remaining(now, set.cfg.Sandbox.TimeScale), Class: h.Class, Priority: h.Priority, Pool: h.Pool,
		Pools: set.pools(), Schedule: f.schedule, MaxSessions: set.cfg.Relay.MaxSessions,
	}
	if set.cfg.Relay.Mode == config.Sandboxed {
		in.Latency = sandboxLatency
	}
	mail, err := f.read(ctx, d)
	if err != nil {
		return nil, nil, err
	}
	notes := notesOf(d)
	mail.lookUp(ctx, f.resolver, lookUps)
	list := mail.group()
	if mail.rest.domains > 0 {
		notes = append(notes, fmt.Sprintf("%d messages to %d domains that were not looked up count as so many average destinations", mail.rest.messages(), mail.rest.domains))
	}
	if err := f.fill(ctx, in, h.Delivery, list); err != nil {
		return nil, nil, err
	}
	return in, notes, ctx.Err()
}

// fill adds what the relay and history know of each destination.
func (f *forecaster) fill(ctx context.Context, in *forecast.Input, delivery uint64, list []*bound) error {
	queries, names := make([]dispatch.Query, len(list)), map[string]bool{}
	for i, b := range list {
		queries[i] = dispatch.Query{Route: b.route, Domain: b.domain, Pool: in.Pool}
		names[b.name] = true
	}
	paths, err := f.relay.Prospects(ctx, queries)
	if err != nil {
		return err
	}
	others, err := f.relay.Competition(ctx, names)
	if err != nil {
		return err
	}
	if in.WarmUps, err = f.warmUps(ctx); err != nil {
		return err
	}
	shown, err := f.shown(ctx)
	if err != nil {
		return err
	}
	for i, b := range list {
		d := forecast.Destination{
			Name: b.name, Provider: b.route.Provider, Fresh: b.fresh, Deferred: b.deferred, NextDue: b.nextDue,
			Like: b.like, Dead: b.dead, Paths: paths[i], Shown: shown(b.name),
		}
		for _, o := range others[b.name] {
			if o.Delivery != dispatch.DeliveryID(delivery) && in.Competes(o.Pool, paths[i]) {
				d.Others = append(d.Others, o)
			}
		}
		in.Destinations = append(in.Destinations, d)
	}
	return nil
}

// warmUps are those of the sources that are being warmed up.
func (f *forecaster) warmUps(ctx context.Context) (map[string]mxrules.WarmUpState, error) {
	views, err := f.relay.Sources(ctx)
	states := map[string]mxrules.WarmUpState{}
	for _, v := range views {
		if v.WarmUp != nil && v.WarmUp.Active {
			states[v.Name] = v.WarmUp.State
		}
	}
	return states, err
}

// shown finds what a destination has shown: to this process, or else to the deliveries
// of lately.
func (f *forecaster) shown(ctx context.Context) (func(name string) forecast.Figures, error) {
	list, err := f.store.List(ctx, 0, lastDeliveries)
	if err != nil {
		return nil, err
	}
	return func(name string) forecast.Figures {
		if own := f.history.Of(name); own.Attempts >= forecast.Enough {
			return own
		}
		var sent, failed, attempts int64
		for _, d := range list {
			if by := d.Counters.By[name]; by != nil {
				sent, failed, attempts = sent+by.Sent, failed+by.Failed, attempts+by.Attempts
			}
		}
		if attempts == 0 {
			return forecast.Figures{}
		}
		part := func(n int64) float64 { return float64(max(0, min(n, attempts))) / float64(attempts) }
		return forecast.Figures{Attempts: attempts, Deferred: part(attempts - sent - failed), Bounced: part(failed)}
	}, nil
}

// notesOf are assumptions that follow from the delivery's state.
func notesOf(d *campaign.Delivery) []string {
	switch d.State {
	case campaign.Draft:
		return []string{"recipients that are added later are left out"}
	case campaign.Paused:
		return []string{"as if the delivery were resumed now"}
	}
	return nil
}

func (s *Server) forecaster() *forecaster {
	return &forecaster{
		store: s.store, relay: s.relay, resolver: s.resolver, settings: s.settings.Load, history: &s.history,
		schedule: mta.Schedule{Scale: s.cfg.Sandbox.TimeScale}, now: s.now, log: s.log, busy: make(chan struct{}, 1),
	}
}
